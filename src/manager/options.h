/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: the commands, their options, and their help. */
#ifndef SLUICE_MANAGER_OPTIONS_H
#define SLUICE_MANAGER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* How an item's worker is chosen. */
enum by {
	BY_DEMAND,
	BY_ROUND_ROBIN,
	BY_HASH,
};

/* What an item is. */
enum split {
	SPLIT_DEFAULT, /* files, or lines of standard input */
	SPLIT_FILES,
	SPLIT_LINES,
	SPLIT_BLOCKS,
};

struct options {
	const char *command;
	uint32_t workers;
	uint64_t segment_bytes;
	uint32_t vectors;
	bool huge_pages, keep_going, restart, echo;
	/* Guests */
	bool guests;
	bool guests_wanted; /* one of their options was given */
	const char *qemu, *kernel, *initrd, *append, *memory, *machine;
	bool viommu, show;
	/* Distributing */
	enum by by;
	enum split split;
	uint64_t block_bytes, batch_bytes, result_max;
	bool ordered, sum, progress;
	uint32_t stall_s, in_flight;
	char **words; /* files and directories; ends in NULL */
	/* What stands after "--", ends in NULL; NULL: no "--" is there. */
	char **program;
};

struct command {
	const char *name;
	const char *usage;
	const char *summary;
	int (*run)(const struct options *o);
};

/* Finds the command of a command line and runs it. Returns the exit status. */
int options_run(int argc, char **argv, const struct command *commands, unsigned n);

#endif
