/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/ring.h"

#include <errno.h>
#include <string.h>

/* Processors have some dozen lines under way at a time; more would wait, and others with them. */
enum { PREFETCH_MAX = 16 };

int blkif_ring_attach(struct blkif_ring *ring, const struct blkif_layout *layout, void *pages,
		      unsigned nr)
{
	ring->layout = layout;
	ring->slots_at = (uint8_t *)pages + layout->header_bytes;
	ring->shared_req_prod = blkif_counter_at(pages, layout->req_prod);
	ring->shared_req_event = blkif_counter_at(pages, layout->req_event);
	ring->shared_rsp_prod = blkif_counter_at(pages, layout->rsp_prod);
	ring->shared_rsp_event = blkif_counter_at(pages, layout->rsp_event);
	ring->slots = blkif_layout_slots(layout, nr);
	ring->rsp_prod = atomic_load_explicit(ring->shared_rsp_prod, memory_order_relaxed);
	ring->rsp_pushed = ring->rsp_prod;
	ring->req_cons = ring->rsp_prod;
	ring->req_seen = ring->rsp_prod;
	return blkif_ring_pending(ring) < 0 ? -EPROTO : 0;
}

int blkif_ring_pending(struct blkif_ring *ring)
{
	/* Acquire: pairs with the frontend's write barrier between filling slots and req_prod. */
	uint32_t req_prod = atomic_load_explicit(ring->shared_req_prod, memory_order_acquire);

	if (req_prod - ring->rsp_prod > ring->slots ||
	    req_prod - ring->rsp_prod < ring->req_cons - ring->rsp_prod)
		return -EPROTO;
	/* What is new is fetched together, not one by one as it is taken. */
	if (ring->req_seen - ring->req_cons > req_prod - ring->req_cons)
		ring->req_seen = ring->req_cons;
	for (unsigned n = 0; ring->req_seen != req_prod && n < PREFETCH_MAX; n++)
		blkif_prefetch_slot(blkif_ring_slot(ring, ring->req_seen++));
	ring->req_seen = req_prod;
	return (int)(req_prod - ring->req_cons);
}

void blkif_ring_give_back(struct blkif_ring *ring, const void *const *slots, uint32_t n)
{
	/*
	 * Responses may have taken the places where these stood. But as many places lie between the
	 * responses and what was never taken, and a frontend does not look at its requests again.
	 */
	ring->req_cons -= n;
	for (uint32_t i = 0; i < n; i++)
		memcpy(blkif_ring_slot(ring, ring->req_cons + i), slots[i],
		       ring->layout->request_bytes);
}

bool blkif_ring_push(struct blkif_ring *ring)
{
	uint32_t old = ring->rsp_pushed;
	uint32_t rsp_event;

	/* Release: pairs with the frontend's read barrier between rsp_prod and the responses. */
	atomic_store_explicit(ring->shared_rsp_prod, ring->rsp_prod, memory_order_release);
	/* Pairs with the frontend's barrier between its rsp_event and its last look at rsp_prod. */
	atomic_thread_fence(memory_order_seq_cst);
	rsp_event = atomic_load_explicit(ring->shared_rsp_event, memory_order_relaxed);
	ring->rsp_pushed = ring->rsp_prod;
	return ring->rsp_prod - rsp_event < ring->rsp_prod - old;
}

bool blkif_ring_arm(struct blkif_ring *ring)
{
	atomic_store_explicit(ring->shared_req_event, ring->req_cons + 1, memory_order_relaxed);
	/* Pairs with the frontend's barrier between its req_prod and its look at req_event. */
	atomic_thread_fence(memory_order_seq_cst);
	return blkif_ring_pending(ring) != 0;
}
