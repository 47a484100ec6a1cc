/* SPDX-License-Identifier: BSD-2-Clause */
#include "front/front.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_SEGMENTS = BLKIF_MAX_INDIRECT_PAGES * BLKIF_SEGMENTS_PER_INDIRECT_PAGE,
	SYNC_TIMEOUT_MS = 10000,
	/* What is not part of a request is filled with this, so that the backend cannot rely on
	   zeroes. */
	FILLER = 0xa5,
	/* Processors have some dozen lines under way at a time. */
	PREFETCH_MAX = 16,
};

/* Makes no byte of an id zero for long, so that what a response leaves unwritten is noticed. */
#define ID_MASK 0x5aa5c3963c695ad3ULL

/* A place in the table of outstanding requests; its indirect pages stay with it. */
struct place {
	struct front_req *req; /* NULL: free */
	struct blkif_wire_segment *indirect;
	uint32_t indirect_refs[BLKIF_MAX_INDIRECT_PAGES];
};

struct front {
	struct front_opts opts;
	void *ring;
	uint8_t *slots_at;
	atomic_uint_least32_t *shared_req_prod;
	atomic_uint_least32_t *shared_req_event;
	atomic_uint_least32_t *shared_rsp_prod;
	atomic_uint_least32_t *shared_rsp_event;
	uint32_t ring_refs[BLKIF_MAX_RING_PAGES];
	uint32_t slots; /* a power of two */
	uint32_t req_prod;
	uint32_t req_pushed;
	uint32_t rsp_cons;
	unsigned outstanding;
	unsigned indirect_pages; /* of each place */
	uint64_t sequence;
	char fault[128];
	unsigned char *sync_buffer;
	uint32_t *sync_refs;
	struct blkif_wire_segment *sync_segments;
	uint32_t free_len;
	uint16_t free[BLKIF_MAX_RING_PAGES * 64]; /* a stack of places */
	struct place places[];
};

static void put_u16(void *slot, unsigned offset, uint16_t value)
{
	memcpy((char *)slot + offset, &value, sizeof(value));
}

static void put_u32(void *slot, unsigned offset, uint32_t value)
{
	memcpy((char *)slot + offset, &value, sizeof(value));
}

static void put_u64(void *slot, unsigned offset, uint64_t value)
{
	memcpy((char *)slot + offset, &value, sizeof(value));
}

static int alloc_places(struct front *f)
{
	const struct front_opts *o = &f->opts;

	for (uint32_t i = 0; i < f->slots; i++) {
		f->free[f->free_len++] = (uint16_t)i;
		if (!f->indirect_pages)
			continue;
		f->places[i].indirect = o->ops->pages_alloc(o->ctx, f->indirect_pages, true,
							    f->places[i].indirect_refs);
		if (!f->places[i].indirect)
			return -ENOMEM;
	}
	return 0;
}

static int alloc_sync(struct front *f)
{
	const struct front_opts *o = &f->opts;

	if (!o->sync_pages)
		return 0;
	f->sync_refs = calloc(o->sync_pages, sizeof(f->sync_refs[0]));
	f->sync_segments = calloc(o->sync_pages, sizeof(f->sync_segments[0]));
	if (!f->sync_refs || !f->sync_segments)
		return -ENOMEM;
	f->sync_buffer = o->ops->pages_alloc(o->ctx, o->sync_pages, false, f->sync_refs);
	return f->sync_buffer ? 0 : -ENOMEM;
}

int front_create(const struct front_opts *opts, struct front **out)
{
	uint32_t slots;
	struct front *f;

	if (!opts->ring_pages || opts->ring_pages > BLKIF_MAX_RING_PAGES ||
	    opts->max_segments > MAX_SEGMENTS || opts->sync_pages > MAX_SEGMENTS)
		return -EINVAL;
	slots = blkif_layout_slots(opts->layout, opts->ring_pages);
	f = calloc(1, sizeof(*f) + slots * sizeof(f->places[0]));
	if (!f)
		return -ENOMEM;
	f->opts = *opts;
	f->slots = slots;
	f->indirect_pages = (opts->max_segments + BLKIF_SEGMENTS_PER_INDIRECT_PAGE - 1) /
			    BLKIF_SEGMENTS_PER_INDIRECT_PAGE;
	f->ring = opts->ops->pages_alloc(opts->ctx, opts->ring_pages, false, f->ring_refs);
	if (!f->ring || alloc_places(f) || alloc_sync(f)) {
		front_destroy(f);
		return -ENOMEM;
	}
	f->req_prod = opts->first_index;
	f->req_pushed = opts->first_index;
	f->rsp_cons = opts->first_index;
	f->slots_at = (uint8_t *)f->ring + opts->layout->header_bytes;
	f->shared_req_prod = blkif_counter_at(f->ring, opts->layout->req_prod);
	f->shared_req_event = blkif_counter_at(f->ring, opts->layout->req_event);
	f->shared_rsp_prod = blkif_counter_at(f->ring, opts->layout->rsp_prod);
	f->shared_rsp_event = blkif_counter_at(f->ring, opts->layout->rsp_event);
	memset(f->ring, 0, (size_t)opts->ring_pages * BLKIF_PAGE_SIZE);
	atomic_store(f->shared_req_prod, opts->first_index);
	atomic_store(f->shared_rsp_prod, opts->first_index);
	atomic_store(f->shared_req_event, opts->first_index + 1);
	atomic_store(f->shared_rsp_event, opts->first_index + 1);
	*out = f;
	return 0;
}

void front_destroy(struct front *f)
{
	const struct front_opts *o = &f->opts;

	for (uint32_t i = 0; i < f->slots; i++)
		if (f->places[i].indirect)
			o->ops->pages_free(o->ctx, f->places[i].indirect, f->indirect_pages,
					   f->places[i].indirect_refs);
	if (f->sync_buffer)
		o->ops->pages_free(o->ctx, f->sync_buffer, o->sync_pages, f->sync_refs);
	if (f->ring)
		o->ops->pages_free(o->ctx, f->ring, o->ring_pages, f->ring_refs);
	free(f->sync_refs);
	free(f->sync_segments);
	free(f);
}

const uint32_t *front_ring_refs(const struct front *f)
{
	return f->ring_refs;
}

unsigned front_depth(const struct front *f)
{
	return f->slots;
}

unsigned front_outstanding(const struct front *f)
{
	return f->outstanding;
}

struct blkif_sring *front_sring(struct front *f)
{
	return f->ring;
}

void *front_slot(struct front *f, uint32_t index)
{
	return f->slots_at + (size_t)(index & (f->slots - 1)) * f->opts.layout->request_bytes;
}

uint32_t front_next_index(const struct front *f)
{
	return f->req_prod;
}

const char *front_fault(const struct front *f)
{
	return f->fault[0] ? f->fault : NULL;
}

/* Requests */

static void build_indirect(const struct front *f, const struct front_req *req, struct place *place,
			   void *slot)
{
	const struct blkif_layout *l = f->opts.layout;

	((uint8_t *)slot)[BLKIF_REQ_OPERATION] = BLKIF_INDIRECT;
	((uint8_t *)slot)[BLKIF_REQ_INDIRECT_OPERATION] = req->op;
	put_u16(slot, BLKIF_REQ_INDIRECT_NR_SEGMENTS, (uint16_t)req->nr_segments);
	put_u16(slot, l->indirect_handle, 0);
	for (unsigned i = 0; i < f->indirect_pages; i++)
		put_u32(slot, l->indirect_grefs + i * (unsigned)sizeof(uint32_t),
			place->indirect_refs[i]);
	memcpy(place->indirect, req->segments, req->nr_segments * sizeof(req->segments[0]));
}

static void build_direct(const struct front *f, const struct front_req *req, void *slot)
{
	((uint8_t *)slot)[BLKIF_REQ_OPERATION] = req->op;
	((uint8_t *)slot)[BLKIF_REQ_NR_SEGMENTS] = (uint8_t)req->nr_segments;
	put_u16(slot, BLKIF_REQ_HANDLE, 0);
	if (req->op == BLKIF_DISCARD) {
		((uint8_t *)slot)[BLKIF_REQ_DISCARD_FLAG] = req->flag;
		put_u64(slot, f->opts.layout->discard_sectors, req->discard_sectors);
		return;
	}
	if (req->nr_segments)
		memcpy((char *)slot + f->opts.layout->segments, req->segments,
		       req->nr_segments * sizeof(req->segments[0]));
}

int front_submit(struct front *f, struct front_req *req)
{
	bool indirect = req->indirect || req->nr_segments > f->opts.layout->max_direct_segments;
	uint8_t slot[BLKIF_MAX_REQUEST_BYTES];
	struct place *place;
	uint16_t index;

	if (indirect && req->nr_segments > f->opts.max_segments)
		return -EINVAL;
	if (f->req_prod - f->rsp_cons == f->slots)
		return -EAGAIN;
	index = f->free[--f->free_len];
	place = &f->places[index];
	place->req = req;
	f->outstanding++;
	req->id = (++f->sequence << 16 | index) ^ ID_MASK;
	req->answer = req->op;

	memset(slot, FILLER, sizeof(slot));
	put_u64(slot, f->opts.layout->id, req->id);
	put_u64(slot, f->opts.layout->sector, req->sector);
	if (indirect)
		build_indirect(f, req, place, slot);
	else
		build_direct(f, req, slot);
	if (req->tamper)
		req->tamper(req, slot, indirect ? place->indirect : NULL);
	/* Of a size that the compiler knows: this is on each request's way. */
	if (f->opts.layout->request_bytes == BLKIF_LINE_BYTES)
		memcpy(front_slot(f, f->req_prod++), slot, BLKIF_LINE_BYTES);
	else
		memcpy(front_slot(f, f->req_prod++), slot, f->opts.layout->request_bytes);
	return 0;
}

void front_push(struct front *f)
{
	uint32_t old = f->req_pushed;
	uint32_t req_event;

	/* Release: the slots are written before the backend can know of them. */
	atomic_store_explicit(f->shared_req_prod, f->req_prod, memory_order_release);
	/* Pairs with the backend's barrier between its req_event and its last look at req_prod. */
	atomic_thread_fence(memory_order_seq_cst);
	req_event = atomic_load_explicit(f->shared_req_event, memory_order_relaxed);
	f->req_pushed = f->req_prod;
	if (f->req_prod - req_event < f->req_prod - old)
		f->opts.ops->notify(f->opts.ctx);
}

/* Responses */

static int fault(struct front *f, const char *what, unsigned long value)
{
	snprintf(f->fault, sizeof(f->fault), "%s: 0x%lx", what, value);
	return -EPROTO;
}

/* Takes one response, which is a private copy. */
static int take_response(struct front *f, const uint8_t *rsp)
{
	unsigned padding = rsp[BLKIF_RSP_OPERATION + 1];
	struct front_req *req;
	uint16_t index;
	int16_t status;
	uint64_t id;

	memcpy(&id, rsp + BLKIF_RSP_ID, sizeof(id));
	memcpy(&status, rsp + BLKIF_RSP_STATUS, sizeof(status));
	index = (uint16_t)(id ^ ID_MASK);
	if (index >= f->slots || !f->places[index].req || f->places[index].req->id != id)
		return fault(f, "a response to no request, id", id);
	req = f->places[index].req;
	if (rsp[BLKIF_RSP_OPERATION] != req->answer)
		return fault(f, "a response with the wrong operation", rsp[BLKIF_RSP_OPERATION]);
	if (status > BLKIF_OKAY || status < BLKIF_EOPNOTSUPP)
		return fault(f, "a response with an unknown status", (unsigned long)status);
	for (unsigned i = BLKIF_RSP_STATUS + 2; i < f->opts.layout->response_bytes; i++)
		padding |= rsp[i];
	if (padding)
		return fault(f, "a response with padding that is not zero", padding);

	f->places[index].req = NULL;
	f->free[f->free_len++] = index;
	f->outstanding--;
	req->status = status;
	if (req->done)
		req->done(req);
	return 0;
}

int front_poll(struct front *f)
{
	/* Acquire: pairs with the backend's release of its responses. */
	uint32_t rsp_prod = atomic_load_explicit(f->shared_rsp_prod, memory_order_acquire);
	int n = 0;

	if (f->fault[0])
		return -EPROTO;
	if (rsp_prod - f->rsp_cons > f->req_pushed - f->rsp_cons)
		return fault(f, "more responses than requests, rsp_prod", rsp_prod);
	/* Together, not one by one as they are looked at. */
	for (uint32_t i = f->rsp_cons; i != rsp_prod && i - f->rsp_cons < PREFETCH_MAX; i++)
		blkif_prefetch_slot(front_slot(f, i));
	while (f->rsp_cons != rsp_prod) {
		uint8_t response[16];

		memcpy(response, front_slot(f, f->rsp_cons), f->opts.layout->response_bytes);
		/* From here on the compiler may not go back to the backend's bytes. */
		atomic_signal_fence(memory_order_seq_cst);
		f->rsp_cons++;
		if (take_response(f, response))
			return -EPROTO;
		n++;
	}
	return n;
}

bool front_arm(struct front *f)
{
	atomic_store_explicit(f->shared_rsp_event, f->rsp_cons + 1, memory_order_relaxed);
	/* Pairs with the backend's barrier between its rsp_prod and its look at rsp_event. */
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(f->shared_rsp_prod, memory_order_relaxed) != f->rsp_cons;
}

int front_wait(struct front *f, unsigned timeout_ms)
{
	for (;;) {
		int n = front_poll(f);

		if (n)
			return n;
		if (front_arm(f))
			continue;
		/* A notification may be older than the responses that were collected before. */
		if (!f->opts.ops->wait(f->opts.ctx, timeout_ms))
			return front_poll(f);
	}
}

/* One at a time */

int front_req_sync(struct front *f, struct front_req *req)
{
	int rc;

	req->done = NULL;
	rc = front_submit(f, req);
	if (rc)
		return rc;
	front_push(f);
	rc = front_wait(f, SYNC_TIMEOUT_MS);
	if (rc < 0)
		return rc;
	if (!rc)
		return -ETIMEDOUT;
	if (req->status == BLKIF_OKAY)
		return 0;
	return req->status == BLKIF_EOPNOTSUPP ? -EOPNOTSUPP : -EIO;
}

int front_rw_sync(struct front *f, uint8_t op, uint64_t sector, void *data, size_t len)
{
	struct front_req req = {.op = op, .sector = sector, .segments = f->sync_segments};
	size_t left = len;
	int rc;

	if (!len || len % BLKIF_SECTOR_SIZE || len > (size_t)f->opts.sync_pages * BLKIF_PAGE_SIZE)
		return -EINVAL;
	for (; left; req.nr_segments++) {
		size_t piece = left < BLKIF_PAGE_SIZE ? left : BLKIF_PAGE_SIZE;

		f->sync_segments[req.nr_segments] = (struct blkif_wire_segment){
			.gref = f->sync_refs[req.nr_segments],
			.last_sect = (uint8_t)(piece / BLKIF_SECTOR_SIZE - 1),
		};
		left -= piece;
	}
	if (op != BLKIF_READ)
		memcpy(f->sync_buffer, data, len);
	rc = front_req_sync(f, &req);
	if (!rc && op == BLKIF_READ)
		memcpy(data, f->sync_buffer, len);
	return rc;
}
