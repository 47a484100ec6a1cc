/* SPDX-License-Identifier: BSD-2-Clause */
/* usage: what this process uses of the machine. */
#ifndef SLUICE_BENCH_SCALE_USAGE_H
#define SLUICE_BENCH_SCALE_USAGE_H

#include <stdint.h>

struct usage {
	uint64_t resident;  /* bytes of anonymous memory that are there; guests' are of another kind
			     */
	uint64_t allocated; /* bytes that malloc() has given out */
	unsigned descriptors;
};

/* After what is free has gone back to the kernel. */
struct usage usage_of_memory(void);
/* The CPU time so far of all threads of that name, in ns. */
uint64_t usage_cpu_ns(const char *thread);

#endif
