/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Plays files, and all files of folders, once each: what the fuzzer has found so far is a test like
 * any other, with any compiler.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

enum { INPUT_MAX = 1 << 20 };

static unsigned played;

static void play_file(const char *path)
{
	static uint8_t data[INPUT_MAX];
	FILE *f = fopen(path, "rb");
	size_t size;

	if (!f)
		fuzz_fail("cannot read %s", path);
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	/* A play that aborts has no other way to tell which it was. */
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	played++;
}

static void play(const char *path)
{
	struct dirent *entry;
	struct stat st;
	char inner[4096];
	DIR *dir;

	if (stat(path, &st))
		fuzz_fail("there is no %s", path);
	if (!S_ISDIR(st.st_mode)) {
		play_file(path);
		return;
	}
	dir = opendir(path);
	if (!dir)
		fuzz_fail("cannot read %s", path);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
		play_file(inner);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		play(argv[i]);
	printf("%u inputs played\n", played);
	return played ? 0 : 1;
}
