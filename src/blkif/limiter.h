/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limiter: how much a disk may do in a second, in requests and in bytes, over all its queues.
 *
 * Two token buckets, each kept as one number: the time at which all that was taken so far is paid
 * for at the allowed rate.  A queue takes from its ring as long as that time has come; what it
 * takes moves the time on.  A request is charged when it was taken, since only then is its size
 * known: so one large request may be ahead of its time, and those behind it wait for it.  A disk
 * that was idle may be ahead by a burst of a tenth of a second.
 *
 * What has to wait stays in the guest's ring and costs nothing.  All functions may be called from
 * any thread; queues of several reactors share a limiter without a lock.
 */
#ifndef SLUICE_BLKIF_LIMITER_H
#define SLUICE_BLKIF_LIMITER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct blkif_limiter {
	/* private; all zero: no limit */
	atomic_uint_least64_t ios_per_sec;
	atomic_uint_least64_t bytes_per_sec;
	atomic_uint_least64_t ios_paid_ns;
	atomic_uint_least64_t bytes_paid_ns;
};

/* Sets the limits, 0 for none, from now on: what was taken before is forgotten. */
void blkif_limiter_set(struct blkif_limiter *l, uint64_t ios_per_sec, uint64_t bytes_per_sec);

/* Whether there is any limit. */
static inline bool blkif_limiter_is_on(const struct blkif_limiter *l)
{
	return (atomic_load_explicit(&l->ios_per_sec, memory_order_relaxed) |
		atomic_load_explicit(&l->bytes_per_sec, memory_order_relaxed)) != 0;
}

/* How long nothing may be taken, in ns; 0: now. */
uint64_t blkif_limiter_wait_ns(const struct blkif_limiter *l, uint64_t now_ns);
/* Charges for what was taken. */
void blkif_limiter_charge(struct blkif_limiter *l, uint64_t ios, uint64_t bytes, uint64_t now_ns);

#endif
