/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A submission queue and its completion queue (base specification 3.3).
 *
 * Both are rings in memory.  We write entries at the submission queue's tail and tell the
 * controller by a doorbell; it writes completions and tells us by their phase bit, which is
 * inverted from one round of the ring to the next, so that an entry says by itself whether it is
 * new.
 *
 * A doorbell is a write across the bus and costs more than all else here, in a virtual machine a
 * thousand times more.  So tails are written once a batch.  Heads, which only tell the controller
 * where it may write completions, can wait until they are needed: a page holds four times as many
 * completions as commands, so a queue that is not full owes the controller a head only once in a
 * few batches.  Where the controller looks into memory instead (shadow doorbells, base
 * specification 5.8 and annex B.5), the register is written only when it asks for that.
 *
 * The queue pair knows requests, and nothing of what becomes of them: time-outs and retries are its
 * owner's.  It belongs to one thread.
 */
#ifndef SLUICE_NVME_QPAIR_H
#define SLUICE_NVME_QPAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "dma/dma.h"
#include "nvme/spec.h"

enum {
	NVME_QPAIR_MIN_ENTRIES = 2, /* one is always left empty */
	NVME_QPAIR_MAX_ENTRIES = 1024,
};

/* A command on its way; part of a larger object of its owner's. */
struct nvme_req {
	struct nvme_sqe sqe; /* cid is the queue pair's to choose */
	/* Once, when the command is over: error is 0 or a negative errno. */
	void (*done)(struct nvme_req *req);
	int error;
	uint32_t result; /* dword 0 of the completion */
	uint16_t status; /* as the controller said it, without the phase bit */
	/* for the queue that has it */
	uint8_t retries;
	uint8_t resets;
	struct list node;
	uint64_t since_ns; /* seen in the submission queue since then; 0: not looked at yet */
	uint64_t again_ns; /* not to be tried again before */
};

struct nvme_qpair_slot {
	struct nvme_req *req; /* NULL: free */
	uint8_t generation;
};

/* One doorbell; the pointers to memory are NULL where the controller has only the register. */
struct nvme_doorbell {
	volatile uint32_t *reg;
	uint32_t *shadow;
	const uint32_t *event; /* written by the controller: a ring across it is to be heard */
	bool silent;           /* the last ring was in memory only */
	uint64_t writes;       /* of the register, for statistics */
};

struct nvme_qpair {
	uint16_t id;
	uint16_t entries; /* of the submission queue */
	uint16_t cq_entries;
	uint16_t sq_tail;
	uint16_t sq_rung; /* the tail that the controller knows */
	uint16_t cq_head;
	uint16_t cq_rung; /* the head that the controller knows */
	uint16_t phase;
	uint16_t inflight;
	uint16_t free_len;
	/* The controller has said what cannot be: nothing it says is to be trusted before a reset.
	 */
	bool broken;
	struct nvme_sqe *sq;
	const struct nvme_cqe *cq;
	struct nvme_qpair_slot *slots;
	uint16_t *free_slots;
	/* Called by nvme_qpair_poll() for each request that the controller has completed. */
	void (*completed)(struct nvme_qpair *q, struct nvme_req *req);
	void *owner; /* the caller's */
	struct nvme_doorbell sq_doorbell;
	struct nvme_doorbell cq_doorbell;
	uint64_t completions; /* for statistics */
	struct dma *dma;
	struct dma_memory sq_mem;
	struct dma_memory cq_mem;
};

/*
 * Makes the rings, of @entries commands and of @cq_entries completions, at least as many; a page
 * serves 64 and 256, and more take neighbours on the bus. The doorbells, completed and owner are
 * the caller's to fill in. Returns 0 or a negative errno with the line in @err.
 */
int nvme_qpair_init(struct nvme_qpair *q, struct dma *dma, uint16_t id, uint16_t entries,
		    uint16_t cq_entries, struct err *err);
/* Nothing is in flight, and the controller has no queue there any more. */
void nvme_qpair_fini(struct nvme_qpair *q);

uint64_t nvme_qpair_sq_bus(const struct nvme_qpair *q);
uint64_t nvme_qpair_cq_bus(const struct nvme_qpair *q);

/*
 * Puts @req at the tail; the controller learns of it by the next nvme_qpair_ring(). Returns false
 * if there is no room.
 */
bool nvme_qpair_push(struct nvme_qpair *q, struct nvme_req *req);
/* Tells the controller of what was pushed since. */
void nvme_qpair_ring(struct nvme_qpair *q);
/*
 * Writes the tail to the register if the last ring was in memory only. For an owner who misses
 * completions: not every controller keeps to its half of shadow doorbells.
 */
void nvme_qpair_nudge(struct nvme_qpair *q);
/* Takes completions until there are no more; returns how many. */
unsigned nvme_qpair_poll(struct nvme_qpair *q);

/* The request in slot @i, below entries - 1; NULL: none. */
static inline struct nvme_req *nvme_qpair_at(const struct nvme_qpair *q, unsigned i)
{
	return q->slots[i].req;
}

/*
 * Moves what is in flight to the end of @list, in no order, and makes the rings new. Only once the
 * controller is stopped: until then it may still write what they ask for.
 */
void nvme_qpair_reset(struct nvme_qpair *q, struct list *list);

#endif
