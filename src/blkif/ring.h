/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The backend's end of a blkif ring.
 *
 * All state that decides is private; what the shared page says is read once and checked.  The
 * page's four counters run freely and wrap at 2^32.  A frontend whose request counter runs more
 * than a ring ahead of the responses breaks its ring, for good.
 */
#ifndef SLUICE_BLKIF_RING_H
#define SLUICE_BLKIF_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "blkif/wire.h"

struct blkif_ring {
	const struct blkif_layout *layout;
	/* Shared with the frontend. */
	uint8_t *slots_at;
	atomic_uint_least32_t *shared_req_prod;
	atomic_uint_least32_t *shared_req_event;
	atomic_uint_least32_t *shared_rsp_prod;
	atomic_uint_least32_t *shared_rsp_event;
	/* Private. */
	uint32_t slots;      /* a power of two */
	uint32_t req_cons;   /* requests taken */
	uint32_t req_seen;   /* requests known to be there */
	uint32_t rsp_prod;   /* responses written, pushed or not */
	uint32_t rsp_pushed; /* of those, what the frontend can see */
};

/*
 * Attaches to the ring in @pages (contiguous, @nr pages) at the place where its responses stand, so
 * that requests from before are served too. -EPROTO if its counters cannot be true.
 */
int blkif_ring_attach(struct blkif_ring *ring, const struct blkif_layout *layout, void *pages,
		      unsigned nr);

/* How many requests wait to be taken; -EPROTO if the frontend has run ahead. */
int blkif_ring_pending(struct blkif_ring *ring);

static inline uint8_t *blkif_ring_slot(const struct blkif_ring *ring, uint32_t index)
{
	return ring->slots_at + (size_t)(index & (ring->slots - 1)) * ring->layout->request_bytes;
}

/* Copies the next request to @slot (BLKIF_MAX_REQUEST_BYTES) and takes it. One must be pending. */
static inline void blkif_ring_take(struct blkif_ring *ring, void *slot)
{
	const uint8_t *from = blkif_ring_slot(ring, ring->req_cons);

	/* Of a size that the compiler knows: this is on each request's way. */
	if (ring->layout->request_bytes == BLKIF_LINE_BYTES)
		memcpy(slot, from, BLKIF_LINE_BYTES);
	else
		memcpy(slot, from, ring->layout->request_bytes);
	/* From here on the compiler may not go back to the guest's bytes for what the copy holds.
	 */
	atomic_signal_fence(memory_order_seq_cst);
	ring->req_cons++;
}

/*
 * Gives back requests that were taken and are not going to be answered, all there are: @n slots,
 * private copies, which a successor will find where the responses end. All responses are pushed.
 */
void blkif_ring_give_back(struct blkif_ring *ring, const void *const *slots, uint32_t n);

/* Writes a response, every byte of it; nobody sees it before the push. */
static inline void blkif_ring_respond(struct blkif_ring *ring, uint64_t id, uint8_t operation,
				      int16_t status)
{
	/* Built whole and zeroed, so that no padding carries our memory to the guest. */
	uint8_t response[16] = {0};

	memcpy(response + BLKIF_RSP_ID, &id, sizeof(id));
	response[BLKIF_RSP_OPERATION] = operation;
	memcpy(response + BLKIF_RSP_STATUS, &status, sizeof(status));
	if (ring->layout->response_bytes == sizeof(response))
		memcpy(blkif_ring_slot(ring, ring->rsp_prod), response, sizeof(response));
	else
		memcpy(blkif_ring_slot(ring, ring->rsp_prod), response,
		       ring->layout->response_bytes);
	ring->rsp_prod++;
}

/* Publishes the responses; returns whether the frontend wants to be notified of these. */
bool blkif_ring_push(struct blkif_ring *ring);

/* Asks to be notified of the next request; returns whether one (or an error) is there already. */
bool blkif_ring_arm(struct blkif_ring *ring);

#endif
