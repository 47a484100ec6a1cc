/* SPDX-License-Identifier: BSD-2-Clause */
#include "rings.h"

#include <string.h>

#include "double.h"
#include "fuzz.h"

void ring_make(struct ring *r, unsigned domid, const struct blkif_layout *layout, unsigned nr_pages,
	       uint32_t first)
{
	/* The old ring's pages stay as they are: the backend may still have them. */
	memset(r, 0, sizeof(*r));
	r->domid = domid;
	r->layout = layout;
	r->nr_pages = nr_pages;
	r->slots = blkif_layout_slots(layout, nr_pages);
	r->pages = double_pages_alloc(domid, nr_pages);
	for (unsigned i = 0; i < nr_pages; i++)
		r->refs[i] = double_grant(domid, r->pages + (size_t)i * BLKIF_PAGE_SIZE, 0, false);
	r->port = double_evtchn_alloc(domid, 0);
	r->prod = r->pushed = r->seen = first;
	ring_shared(r)->req_prod = first;
	ring_shared(r)->rsp_prod = first;
	ring_shared(r)->req_event = first + 1;
	ring_shared(r)->rsp_event = first + 1;
}

struct blkif_sring *ring_shared(const struct ring *r)
{
	return (struct blkif_sring *)(void *)r->pages;
}

static uint8_t *slot_at(const struct ring *r, uint32_t index)
{
	return (uint8_t *)r->pages + BLKIF_RING_HEADER_BYTES +
	       (size_t)(index & (r->slots - 1)) * r->layout->request_bytes;
}

uint8_t *ring_next(struct ring *r, uint64_t id, uint8_t operation)
{
	uint8_t *slot;

	if (!r->pages || r->prod - r->seen >= r->slots)
		return NULL;
	slot = slot_at(r, r->prod++);
	memset(slot, 0xaa, r->layout->request_bytes);
	if (r->nr_asked < RING_SLOTS_MAX) {
		r->asked[r->nr_asked].id = id;
		r->asked[r->nr_asked++].operation = operation;
	}
	return slot;
}

void ring_notify(const struct ring *r)
{
	if (r->pages)
		double_evtchn_notify(r->domid, r->port);
}

void ring_push(struct ring *r, bool notify_always)
{
	uint32_t old = r->pushed;
	uint32_t event;

	if (!r->pages)
		return;
	r->pushed = r->prod;
	ring_shared(r)->req_prod = r->pushed;
	event = ring_shared(r)->req_event;
	if (notify_always || r->pushed - event < r->pushed - old)
		ring_notify(r);
}

void ring_overwrite(struct ring *r, unsigned offset, const void *bytes, unsigned len)
{
	if (!r->pages)
		return;
	r->marred = true;
	memcpy(r->pages + offset % (r->nr_pages * BLKIF_PAGE_SIZE - len), bytes, len);
}

static void judge(struct ring *r, const uint8_t *response)
{
	uint64_t id;
	int16_t status;
	uint8_t operation = response[BLKIF_RSP_OPERATION];

	memcpy(&id, response + BLKIF_RSP_ID, sizeof(id));
	memcpy(&status, response + BLKIF_RSP_STATUS, sizeof(status));
	if (status != BLKIF_OKAY && status != BLKIF_ERROR && status != BLKIF_EOPNOTSUPP)
		fuzz_fail("a response has status %d", status);
	for (unsigned i = 9; i < r->layout->response_bytes; i++)
		if ((i < BLKIF_RSP_STATUS || i >= BLKIF_RSP_STATUS + 2) && response[i])
			fuzz_fail("byte %u of a response is not clear", i);
	for (unsigned i = 0; i < r->nr_asked; i++) {
		if (r->asked[i].id != id)
			continue;
		if (r->asked[i].operation != operation)
			fuzz_fail("operation %u is answered as %u", r->asked[i].operation,
				  operation);
		r->asked[i] = r->asked[--r->nr_asked];
		return;
	}
	fuzz_fail("a response to nothing that was asked: id %lu", (unsigned long)id);
}

void ring_collect(struct ring *r)
{
	uint32_t rsp_prod;

	if (!r->pages)
		return;
	rsp_prod = ring_shared(r)->rsp_prod;
	if (r->marred) {
		if (rsp_prod - r->seen <= r->pushed - r->seen)
			r->seen = rsp_prod;
		return;
	}
	if (rsp_prod - r->seen > r->pushed - r->seen)
		fuzz_fail("%u responses to %u requests", rsp_prod - r->seen, r->pushed - r->seen);
	for (; r->seen != rsp_prod; r->seen++)
		judge(r, slot_at(r, r->seen));
	ring_shared(r)->rsp_event = r->seen + 1;
}
