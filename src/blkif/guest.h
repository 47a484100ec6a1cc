/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest: what one guest may use of the host, over all its disks and all their queues.
 *
 * Each queue may always hold what its largest request needs; only what goes beyond that is counted
 * here and bounded.  So a guest that has reached a bound gets slower, and goes on.  Queues on
 * several reactors share it without a lock.
 */
#ifndef SLUICE_BLKIF_GUEST_H
#define SLUICE_BLKIF_GUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* A number of pages in use, and how many there may be. */
struct blkif_quota {
	atomic_size_t used;
	size_t max;
};

struct blkif_guest {
	struct blkif_quota bounce; /* bounce pages beyond the queues' reserves */
	struct blkif_quota maps;   /* pages of the guest's that are mapped */
};

/* Takes @n, or nothing if that would be too much. */
static inline bool blkif_quota_take(struct blkif_quota *q, size_t n)
{
	if (!n)
		return true;
	if (atomic_fetch_add_explicit(&q->used, n, memory_order_relaxed) + n <= q->max)
		return true;
	atomic_fetch_sub_explicit(&q->used, n, memory_order_relaxed);
	return false;
}

static inline void blkif_quota_put(struct blkif_quota *q, size_t n)
{
	if (n)
		atomic_fetch_sub_explicit(&q->used, n, memory_order_relaxed);
}

#endif
