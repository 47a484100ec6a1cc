/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A latency histogram (hist.h) that takes little memory: of each power of two it has the buckets
 * only once a sample fell there.
 *
 * Latencies of one kind lie close to each other, in a handful of some thirty powers of two; and
 * there is a histogram for each kind of request of each queue of each disk, of which most are idle
 * most of the time.  Memory is asked for as often as there are powers of two, and then never again.
 * If there is none the sample counts, as one beyond all others.  Belongs to one thread.
 */
#ifndef SLUICE_BASE_SPARSE_HIST_H
#define SLUICE_BASE_SPARSE_HIST_H

#include "base/hist.h"

enum {
	SPARSE_HIST_WIDTH = 1 << HIST_SUB_BITS, /* buckets that come together */
	SPARSE_HIST_PARTS = HIST_BUCKETS / SPARSE_HIST_WIDTH,
};

/* All zero: without a sample. */
struct sparse_hist {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
	/* private */
	uint64_t (*parts)[SPARSE_HIST_WIDTH];
	uint8_t nr_parts;
	uint8_t at[SPARSE_HIST_PARTS]; /* which of parts, from 1 on; 0: none */
};

/* Gives back its memory; it is without a sample then. */
void sparse_hist_fini(struct sparse_hist *h);
/* Adds the samples of @from to @to. */
void sparse_hist_merge(struct sparse_hist *to, const struct sparse_hist *from);
/* The same as a histogram of fixed size. */
void sparse_hist_get(const struct sparse_hist *h, struct hist *out);

/* private: makes the part, and returns its place from 1 on, or 0 without memory. */
unsigned sparse_hist_grow(struct sparse_hist *h, unsigned part);

static inline void sparse_hist_add(struct sparse_hist *h, uint64_t ns)
{
	unsigned bucket = hist_bucket(ns), part = bucket / SPARSE_HIST_WIDTH;
	unsigned at = h->at[part];

	h->count++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
	if (__builtin_expect(!at, 0)) {
		at = sparse_hist_grow(h, part);
		if (!at)
			return;
	}
	h->parts[at - 1][bucket % SPARSE_HIST_WIDTH]++;
}

#endif
