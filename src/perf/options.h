/* SPDX-License-Identifier: BSD-2-Clause */
/* What the command line of sluice-perf says, checked; see sluice-perf(1). */
#ifndef SLUICE_PERF_OPTIONS_H
#define SLUICE_PERF_OPTIONS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { PERF_QUEUES_MAX = 63, PERF_DEPTH_MAX = 512 };

struct perf_options {
	bool help;
	bool version;
	bool json;
	bool cdf;         /* with json */
	bool limits_only; /* the command `limits` */
	/* of a load */
	char where[PATH_MAX + 8]; /* as sivshm_open() has it; empty: what it finds by itself */
	const char *rw;           /* the word that was given */
	bool random;
	unsigned read_percent;
	uint32_t block_bytes;
	unsigned depth;
	unsigned queues;
	unsigned seconds;    /* 0: until size is done */
	uint64_t size;       /* bytes to read and write; 0: for seconds */
	uint64_t area;       /* bytes of the disk to use; 0: see sluice-perf(1) */
	uint32_t layouts;    /* CONTROL_LAYOUT_*; 0: all */
	unsigned push_every; /* requests */
	unsigned flush_every;
	bool verify;
	bool sleep;
	uint64_t seed;
	uint64_t cpumask; /* 0: a thread a queue, which are not pinned */
	bool with_limits;
	int backend_cpu; /* for that */
	/* of `limits`, and the last two of a load with limits */
	int cpus[2];
	uint64_t copy_block;
	uint64_t footprint; /* 0: copying is not measured */
};

extern const char perf_usage[];

/* Returns 0, or -EINVAL with the reason. Strings stay those of @argv. */
int perf_options_parse(int argc, char **argv, struct perf_options *o, struct err *err);

#endif
