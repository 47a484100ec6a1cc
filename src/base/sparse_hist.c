/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/sparse_hist.h"

#include <stdlib.h>
#include <string.h>

void sparse_hist_fini(struct sparse_hist *h)
{
	free(h->parts);
	memset(h, 0, sizeof(*h));
}

unsigned sparse_hist_grow(struct sparse_hist *h, unsigned part)
{
	void *parts = realloc(h->parts, (h->nr_parts + 1u) * sizeof(h->parts[0]));

	if (!parts)
		return 0;
	h->parts = parts;
	memset(h->parts[h->nr_parts], 0, sizeof(h->parts[0]));
	h->at[part] = ++h->nr_parts;
	return h->at[part];
}

void sparse_hist_merge(struct sparse_hist *to, const struct sparse_hist *from)
{
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
	for (unsigned part = 0; part < SPARSE_HIST_PARTS; part++) {
		unsigned at = to->at[part];

		if (!from->at[part])
			continue;
		if (!at)
			at = sparse_hist_grow(to, part);
		for (unsigned i = 0; at && i < SPARSE_HIST_WIDTH; i++)
			to->parts[at - 1][i] += from->parts[from->at[part] - 1][i];
	}
}

void sparse_hist_get(const struct sparse_hist *h, struct hist *out)
{
	memset(out, 0, sizeof(*out));
	out->count = h->count;
	out->sum_ns = h->sum_ns;
	out->max_ns = h->max_ns;
	for (unsigned part = 0; part < SPARSE_HIST_PARTS; part++)
		if (h->at[part])
			memcpy(&out->buckets[part * SPARSE_HIST_WIDTH], h->parts[h->at[part] - 1],
			       sizeof(h->parts[0]));
}
