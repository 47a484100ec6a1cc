/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * front: a blkif frontend in user space, the other end for tests and for generating load.
 *
 * It shares nothing with the backend but the wire layouts: its ring is its own, and it trusts the
 * backend as little as a guest should: a response must name a request that is outstanding, the
 * operation that was asked for and a status that exists, and no byte of it may be left over from
 * the request; anything else breaks the frontend (-EPROTO, and front_fault() says why).
 *
 * Memory and the doorbell come through struct front_ops, so that it works over any way of sharing.
 * A frontend belongs to one thread.  Nothing is allocated between front_create() and
 * front_destroy(), except in the ops.
 */
#ifndef SLUICE_FRONT_FRONT_H
#define SLUICE_FRONT_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkif/wire.h"

struct front;

struct front_ops {
	/*
	 * Allocates @nr pages that follow each other and gives the backend access to them, to write
	 * only if not @readonly; fills in @refs. Returns NULL without memory.
	 */
	void *(*pages_alloc)(void *ctx, unsigned nr, bool readonly, uint32_t *refs);
	/* Takes back what pages_alloc gave. */
	void (*pages_free)(void *ctx, void *pages, unsigned nr, const uint32_t *refs);
	/* Wakes the backend. */
	void (*notify)(void *ctx);
	/* Waits up to @timeout_ms for the backend's notification; returns whether one came. */
	bool (*wait)(void *ctx, unsigned timeout_ms);
};

struct front_opts {
	const struct blkif_layout *layout;
	unsigned ring_pages;   /* 1 to BLKIF_MAX_RING_PAGES */
	unsigned max_segments; /* of indirect requests, at most 4096; 0: none are sent */
	uint32_t first_index;  /* where the ring's counters start; 0 as a rule */
	unsigned sync_pages;   /* buffer of front_rw_sync() */
	const struct front_ops *ops;
	void *ctx;
};

/* A request; the caller's, untouched by it from front_submit() until done. */
struct front_req {
	uint8_t op;      /* BLKIF_READ, _WRITE, _WRITE_BARRIER, _FLUSH_DISKCACHE or _DISCARD */
	bool indirect;   /* send it as INDIRECT; more segments than a slot has always are */
	uint8_t flag;    /* DISCARD: BLKIF_DISCARD_SECURE or 0 */
	uint64_t sector; /* of 512 bytes */
	uint64_t discard_sectors;
	const struct blkif_wire_segment *segments; /* kept until done */
	unsigned nr_segments;
	void (*done)(struct front_req *req); /* from front_poll() */
	void *arg;
	/*
	 * For tests of the backend's judgement: changes the finished slot, or the indirect segments
	 * (NULL if there are none), before the backend can see them. NULL as a rule.
	 */
	void (*tamper)(struct front_req *req, void *slot, struct blkif_wire_segment *indirect);
	/* The operation that the response must carry; set by front_submit(), before tamper. */
	uint8_t answer;
	/* Set before done. */
	int16_t status;
	/* private */
	uint64_t id;
};

/* Returns 0 and *@out, -EINVAL or -ENOMEM. */
int front_create(const struct front_opts *opts, struct front **out);
/* Requests that are still outstanding are forgotten. */
void front_destroy(struct front *f);

/* The ring's references, ring_pages of them, for the backend. */
const uint32_t *front_ring_refs(const struct front *f);
/* How many requests fit into the ring; how many are outstanding. */
unsigned front_depth(const struct front *f);
unsigned front_outstanding(const struct front *f);

/*
 * Puts a request into the ring; nobody sees it before front_push(). Returns 0, -EAGAIN (the ring is
 * full), or -EINVAL (more segments than fit).
 */
int front_submit(struct front *f, struct front_req *req);
/* Publishes what was submitted, and wakes the backend if it asked for that. */
void front_push(struct front *f);
/* Collects all responses that are there, calling done. Returns how many, or -EPROTO. */
int front_poll(struct front *f);
/* Asks to be woken by the next response; returns whether one is there already. */
bool front_arm(struct front *f);
/*
 * Collects responses, waiting for the first up to @timeout_ms. Returns how many, 0 if the time is
 * over, or -EPROTO.
 */
int front_wait(struct front *f, unsigned timeout_ms);
/* What was wrong with the backend, or NULL. */
const char *front_fault(const struct front *f);

/*
 * Reads or writes @len bytes (a multiple of 512) at @sector through sync_pages, and returns when
 * that is done: 0, -EIO, -EOPNOTSUPP, -ETIMEDOUT (10 s without a response) or -EPROTO. Nothing else
 * may be outstanding.
 */
int front_rw_sync(struct front *f, uint8_t op, uint64_t sector, void *data, size_t len);
/* The same for a request of the caller's, whose done is not used. Returns as above. */
int front_req_sync(struct front *f, struct front_req *req);

/* What the backend sees, for tests that disturb it; the ring's head in Xen's layouts. */
struct blkif_sring *front_sring(struct front *f);
void *front_slot(struct front *f, uint32_t index);
/* The index of the request that is submitted next. */
uint32_t front_next_index(const struct front *f);

#endif
