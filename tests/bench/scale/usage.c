/* SPDX-License-Identifier: BSD-2-Clause */
#include "usage.h"

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disks.h"

static unsigned count_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	if (!dir)
		bench_die("cannot read %s", path);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

struct usage usage_of_memory(void)
{
	struct mallinfo2 heap;
	struct usage u = {0};
	char line[256];
	FILE *f;

	malloc_trim(0);
	heap = mallinfo2();
	u.allocated = heap.uordblks + heap.hblkhd;
	u.descriptors = count_entries("/proc/self/fd");
	f = fopen("/proc/self/status", "r");
	if (!f)
		bench_die("cannot read /proc/self/status");
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "RssAnon:", 8))
			u.resident = strtoull(line + 8, NULL, 10) << 10;
	fclose(f);
	return u;
}

/* The first number of a task's file, or its text up to the end of the line. */
static bool read_task(const char *tid, const char *name, char *text, int size)
{
	char path[300];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", tid, name);
	f = fopen(path, "r");
	if (!f)
		return false;
	ok = fgets(text, size, f);
	fclose(f);
	text[strcspn(text, "\n")] = '\0';
	return ok;
}

uint64_t usage_cpu_ns(const char *thread)
{
	DIR *dir = opendir("/proc/self/task");
	uint64_t ns = 0;
	const struct dirent *e;
	char text[64];

	if (!dir)
		bench_die("cannot read /proc/self/task");
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.' && read_task(e->d_name, "comm", text, sizeof(text)) &&
		    !strcmp(text, thread) && read_task(e->d_name, "schedstat", text, sizeof(text)))
			ns += strtoull(text, NULL, 10);
	closedir(dir);
	return ns;
}
