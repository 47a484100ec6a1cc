/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Latency histogram of fixed size: each power of two of nanoseconds is cut into 16 equal
 * buckets, so that a percentile is known to within 6.25% and adding costs a few instructions.
 * Belongs to one thread.
 */
#ifndef SLUICE_BASE_HIST_H
#define SLUICE_BASE_HIST_H

#include <stdbool.h>
#include <stdint.h>

enum {
	HIST_SUB_BITS = 4,
	HIST_TOP_BITS = 37, /* 137 s; what takes longer counts as that */
	HIST_BEYOND = 100,
	HIST_BUCKETS = (HIST_TOP_BITS - HIST_SUB_BITS + 1) << HIST_SUB_BITS,
};

struct hist {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
	uint64_t buckets[HIST_BUCKETS];
};

static inline unsigned hist_bucket(uint64_t ns)
{
	unsigned top;

	if (ns < 1u << HIST_SUB_BITS)
		return (unsigned)ns;
	if (ns >> HIST_TOP_BITS)
		return HIST_BUCKETS - 1;
	top = 63u - (unsigned)__builtin_clzll(ns);
	return ((top - HIST_SUB_BITS + 1) << HIST_SUB_BITS) +
	       (unsigned)(ns >> (top - HIST_SUB_BITS) & ((1u << HIST_SUB_BITS) - 1));
}

static inline void hist_add(struct hist *h, uint64_t ns)
{
	h->buckets[hist_bucket(ns)]++;
	h->count++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

/* Adds the samples of @from to @to. */
void hist_merge(struct hist *to, const struct hist *from);

/*
 * The latency that @per_million of all samples do not exceed (990000 is p99), in ns: the upper
 * edge of its bucket, at most the maximum seen; 0 without samples.
 */
uint64_t hist_percentile(const struct hist *h, uint32_t per_million);

/*
 * Whether at least HIST_BEYOND samples lie above that percentile: with fewer it tells of chance.
 */
bool hist_knows(const struct hist *h, uint32_t per_million);

/* The largest value that falls into bucket @i, in ns. */
uint64_t hist_edge(unsigned i);

#endif
