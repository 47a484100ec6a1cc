/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/limiter.h"

#include "base/clock.h"

/* What a disk that was idle may take at once. */
#define BURST_NS (NSEC_PER_SEC / 10)

static uint64_t load(const atomic_uint_least64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

void blkif_limiter_set(struct blkif_limiter *l, uint64_t ios_per_sec, uint64_t bytes_per_sec)
{
	atomic_store_explicit(&l->ios_per_sec, ios_per_sec, memory_order_relaxed);
	atomic_store_explicit(&l->bytes_per_sec, bytes_per_sec, memory_order_relaxed);
	/* The debt was reckoned at the old rate. */
	atomic_store_explicit(&l->ios_paid_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&l->bytes_paid_ns, 0, memory_order_relaxed);
}

uint64_t blkif_limiter_wait_ns(const struct blkif_limiter *l, uint64_t now_ns)
{
	uint64_t ios = load(&l->ios_paid_ns), bytes = load(&l->bytes_paid_ns);
	uint64_t paid = ios > bytes ? ios : bytes;

	return paid > now_ns ? paid - now_ns : 0;
}

static void charge(atomic_uint_least64_t *paid_ns, uint64_t rate, uint64_t units, uint64_t now_ns)
{
	uint64_t old = load(paid_ns);
	uint64_t start, cost;

	if (!rate || !units)
		return;
	/* Rounded up, so that nothing is free. No request's bytes times this overflow. */
	cost = (units * NSEC_PER_SEC + rate - 1) / rate;
	do
		start = old + BURST_NS > now_ns ? old : now_ns - BURST_NS;
	while (!atomic_compare_exchange_weak_explicit(paid_ns, &old, start + cost,
						      memory_order_relaxed, memory_order_relaxed));
}

void blkif_limiter_charge(struct blkif_limiter *l, uint64_t ios, uint64_t bytes, uint64_t now_ns)
{
	charge(&l->ios_paid_ns, load(&l->ios_per_sec), ios, now_ns);
	charge(&l->bytes_paid_ns, load(&l->bytes_per_sec), bytes, now_ns);
}
