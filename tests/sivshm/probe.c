/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker program, started by test_programs.c: looks at what it has, reports, rings, and then does
 * nothing until it is rung, or is killed.
 */
#include "probe.h"

#include <sivshm.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors of this process that lead to something with @part in its name. */
static unsigned count_fds(const char *part)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned n = 0;

	if (!dir)
		abort();
	while ((entry = readdir(dir))) {
		char to[256];
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, to, sizeof(to) - 1);

		if (len < 0 || atoi(entry->d_name) == dirfd(dir))
			continue;
		to[len] = 0;
		n += strstr(to, part) != NULL;
	}
	closedir(dir);
	return n;
}

static void count_maps(struct probe_report *report, const void *own)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "re");

	if (!f)
		abort();
	while (fgets(line, sizeof(line), f)) {
		if (!strstr(line, "/memfd:sivshm (deleted)"))
			continue;
		report->maps++;
		report->own_map += strtoull(line, NULL, 16) == (uintptr_t)own;
	}
	fclose(f);
}

static unsigned child_fds(const char *program)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		execl(program, program, "count", (char *)NULL);
		_exit(255);
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		abort();
	return (unsigned)WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	struct probe_report report = {.fds_before = count_fds("")};
	struct sivshm_port *p;
	char *memory;
	int rc;

	if (argc > 1 && strcmp(argv[1], "count") == 0)
		return (int)count_fds("");
	if (sivshm_open(NULL, 2000, &p) < 0)
		return 1;
	memory = sivshm_port_memory(p);
	report.memory_fds = count_fds("/memfd:sivshm (deleted)");
	count_maps(&report, memory);
	report.child_fds = child_fds("/proc/self/exe");
	memset(memory, 0x5a, sivshm_port_size(p));
	memcpy(memory, &report, sizeof(report));
	if (sivshm_port_ring(p, 0) < 0)
		return 2;
	rc = sivshm_port_wait(p, 0, -1);
	sivshm_port_close(p);
	return rc == 1 ? 0 : 3;
}
