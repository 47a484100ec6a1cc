/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/hist.h"

void hist_merge(struct hist *to, const struct hist *from)
{
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
}

uint64_t hist_edge(unsigned i)
{
	unsigned shift = i >> HIST_SUB_BITS;
	uint64_t sub = i & ((1u << HIST_SUB_BITS) - 1);

	if (!shift)
		return i;
	return (((1ULL << HIST_SUB_BITS) + sub + 1) << (shift - 1)) - 1;
}

uint64_t hist_percentile(const struct hist *h, uint32_t per_million)
{
	uint64_t wanted, seen = 0;

	if (!h->count)
		return 0;
	wanted = (uint64_t)(((unsigned __int128)h->count * per_million + 999999) / 1000000);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= wanted && seen) {
			uint64_t edge = hist_edge(i);

			return edge < h->max_ns ? edge : h->max_ns;
		}
	}
	return h->max_ns;
}

bool hist_knows(const struct hist *h, uint32_t per_million)
{
	return (unsigned __int128)h->count * (1000000 - per_million) >= HIST_BEYOND * 1000000ull;
}
