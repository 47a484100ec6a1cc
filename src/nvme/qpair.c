/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A command identifier is a slot's number and, above it, that slot's generation.  So the completion
 * of a command that was completed before (a controller gone wrong, a late answer) is not taken for
 * that of the slot's next command; the odds against 64 generations in between are good enough for
 * what must not happen at all.
 */
#include "nvme/qpair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SLOT_BITS = 10, /* NVME_QPAIR_MAX_ENTRIES - 1 slots: 0xffff, which is nobody's, never is one
			 */
	SLOT_MASK = (1 << SLOT_BITS) - 1,
	GENERATION_MASK = (1 << (16 - SLOT_BITS)) - 1,
};

static size_t pages_of(size_t bytes)
{
	return (bytes + DMA_PAGE_SIZE - 1) / DMA_PAGE_SIZE;
}

static void make_new(struct nvme_qpair *q)
{
	q->sq_tail = 0;
	q->sq_rung = 0;
	q->cq_head = 0;
	q->cq_rung = 0;
	q->phase = 1;
	q->broken = false;
	memset(q->cq_mem.virt, 0, q->cq_mem.pages * DMA_PAGE_SIZE);
}

int nvme_qpair_init(struct nvme_qpair *q, struct dma *dma, uint16_t id, uint16_t entries,
		    uint16_t cq_entries, struct err *err)
{
	int rc = -ENOMEM;

	*q = (struct nvme_qpair){
		.dma = dma, .id = id, .entries = entries, .cq_entries = cq_entries};
	q->slots = calloc(entries, sizeof(*q->slots));
	q->free_slots = calloc(entries, sizeof(*q->free_slots));
	if (!q->slots || !q->free_slots) {
		err_set(err, rc, "no memory left for a queue of a drive");
		goto fail;
	}
	rc = dma_alloc(dma, pages_of((size_t)entries << NVME_SQE_SHIFT), true, &q->sq_mem, err);
	if (!rc)
		rc = dma_alloc(dma, pages_of((size_t)cq_entries << NVME_CQE_SHIFT), true,
			       &q->cq_mem, err);
	if (rc)
		goto fail;
	q->sq = q->sq_mem.virt;
	q->cq = q->cq_mem.virt;
	/* A full ring has one entry empty, or it would look like an empty one. */
	for (uint16_t i = 0; i < entries - 1; i++)
		q->free_slots[q->free_len++] = (uint16_t)(entries - 2 - i);
	make_new(q);
	return 0;
fail:
	nvme_qpair_fini(q);
	return rc;
}

void nvme_qpair_fini(struct nvme_qpair *q)
{
	dma_free(q->dma, &q->cq_mem);
	dma_free(q->dma, &q->sq_mem);
	free(q->free_slots);
	free(q->slots);
	q->free_slots = NULL;
	q->slots = NULL;
}

uint64_t nvme_qpair_sq_bus(const struct nvme_qpair *q)
{
	return q->sq_mem.bus[0];
}

uint64_t nvme_qpair_cq_bus(const struct nvme_qpair *q)
{
	return q->cq_mem.bus[0];
}

/* Whether the step from @old to @new passes @event, so that the controller wants to be woken. */
static bool passes(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static void write_register(struct nvme_doorbell *db, uint16_t value)
{
	/*
	 * Release: the device reads entries when it has seen the register, so they must be in
	 * memory first.
	 */
	__atomic_store_n(db->reg, value, __ATOMIC_RELEASE);
	db->silent = false;
	db->writes++;
}

static void ring(struct nvme_doorbell *db, uint16_t old, uint16_t new)
{
	if (db->shadow) {
		/*
		 * Who reads the new value finds the entries before it written. And this store and
		 * the load after it pair with the controller's own: it writes its event index, then
		 * looks at the shadow once more before it rests. Either we see its index or it sees
		 * our value.
		 */
		__atomic_store_n(db->shadow, new, __ATOMIC_SEQ_CST);
		if (db->event &&
		    !passes((uint16_t)__atomic_load_n(db->event, __ATOMIC_SEQ_CST), new, old)) {
			db->silent = true;
			return;
		}
	}
	write_register(db, new);
}

bool nvme_qpair_push(struct nvme_qpair *q, struct nvme_req *req)
{
	struct nvme_qpair_slot *slot;
	uint16_t i;

	/*
	 * As many slots as a full ring has commands, each held until its completion: so neither
	 * ring overflows, and the controller's head need not be known.
	 */
	if (!q->free_len)
		return false;
	i = q->free_slots[--q->free_len];
	slot = &q->slots[i];
	slot->req = req;
	req->sqe.cid = (uint16_t)(i | slot->generation << SLOT_BITS);
	req->since_ns = 0;
	q->inflight++;
	q->sq[q->sq_tail] = req->sqe;
	if (++q->sq_tail == q->entries)
		q->sq_tail = 0;
	return true;
}

/* Completions taken that the controller does not know of. */
static unsigned owed(const struct nvme_qpair *q)
{
	return (unsigned)(q->cq_head - q->cq_rung + q->cq_entries) % q->cq_entries;
}

static void ring_head(struct nvme_qpair *q)
{
	ring(&q->cq_doorbell, q->cq_rung, q->cq_head);
	q->cq_rung = q->cq_head;
}

void nvme_qpair_ring(struct nvme_qpair *q)
{
	if (q->sq_tail == q->sq_rung)
		return;
	/* All that is in flight must find room for its completion, and one entry stays empty. */
	if (q->inflight + owed(q) >= q->cq_entries)
		ring_head(q);
	ring(&q->sq_doorbell, q->sq_rung, q->sq_tail);
	q->sq_rung = q->sq_tail;
}

void nvme_qpair_nudge(struct nvme_qpair *q)
{
	if (q->sq_doorbell.silent)
		write_register(&q->sq_doorbell, q->sq_rung);
}

/* Takes the request with this identifier out of flight; NULL if there is none. */
static struct nvme_req *land(struct nvme_qpair *q, uint16_t cid)
{
	uint16_t i = cid & SLOT_MASK;
	struct nvme_qpair_slot *slot;
	struct nvme_req *req;

	if (i >= q->entries - 1)
		return NULL;
	slot = &q->slots[i];
	req = slot->req;
	if (!req || slot->generation != cid >> SLOT_BITS)
		return NULL;
	slot->req = NULL;
	slot->generation = (slot->generation + 1) & GENERATION_MASK;
	q->free_slots[q->free_len++] = i;
	q->inflight--;
	return req;
}

unsigned nvme_qpair_poll(struct nvme_qpair *q)
{
	unsigned n = 0;

	/* At most a ring's worth: what completes meanwhile is the next poll's. */
	while (!q->broken && n < q->entries) {
		const struct nvme_cqe *cqe = &q->cq[q->cq_head];
		/*
		 * Pairs with the controller, which writes an entry's phase last: the rest of the
		 * entry, and a read's data, are there once it is seen.
		 */
		uint16_t status = __atomic_load_n(&cqe->status, __ATOMIC_ACQUIRE);
		struct nvme_req *req;

		if ((status & 1) != q->phase)
			break;
		req = cqe->sqid == q->id ? land(q, cqe->cid) : NULL;
		if (++q->cq_head == q->cq_entries) {
			q->cq_head = 0;
			q->phase ^= 1;
		}
		n++;
		if (!req) {
			q->broken = true;
			break;
		}
		req->status = status >> 1;
		req->result = cqe->dw0;
		q->completed(q, req);
	}
	q->completions += n;
	return n;
}

void nvme_qpair_reset(struct nvme_qpair *q, struct list *list)
{
	for (unsigned i = 0; i < q->entries - 1u; i++) {
		struct nvme_req *req = nvme_qpair_at(q, i);

		if (!req)
			continue;
		land(q, req->sqe.cid);
		list_add_tail(list, &req->node);
	}
	make_new(q);
}
