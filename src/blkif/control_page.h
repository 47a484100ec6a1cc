/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control page: how frontend and backend of a disk find each other in a shared segment.
 *
 * It is the segment's first page, and stands in xenstore's place.  A grant reference is a page's
 * index in the segment, from 1 on.  Each half is written by one side only; what a side reads of the
 * other's it copies once and judges as a copy.  All integers are little-endian and naturally
 * aligned; a side writes its fields first and its state last (release), and rings vector 0.
 *
 * An epoch is one life of the frontend.  It begins with an epoch of its choice that is not the
 * backend's present one, and by answering with the same epoch the backend says that nothing of an
 * earlier life is under way any more: only then may the frontend use its pages.
 *
 *   frontend                     backend
 *   epoch, state INIT       ->
 *                           <-   epoch, what it offers, state OFFER
 *   what it chose, READY    ->
 *                           <-   CONNECTED, or REFUSED and why in error
 *   requests, by vectors 1 + queue both ways
 *   CLOSING                 ->
 *                           <-   CLOSED: nothing is under way
 *
 * The backend may at any time raise @revision with new @sectors (the disk was resized), say CLOSING
 * (the disk is going: finish, and say CLOSING), or CLOSED by itself, with the reason in error.
 * doc/sivshm-blkif.md is the specification.
 */
#ifndef SLUICE_BLKIF_CONTROL_PAGE_H
#define SLUICE_BLKIF_CONTROL_PAGE_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CONTROL_MAGIC UINT64_C(0x46494b4c42434c53) /* "SLCBLKIF" */

enum {
	CONTROL_VERSION = 1,
	CONTROL_FRONTEND_AT = 1024, /* bytes from the page's start */
	CONTROL_QUEUES_MAX = 63,    /* a vector each, and vector 0 */
	CONTROL_RING_ORDER_MAX = 4,
	CONTROL_ERROR_MAX = 256,
};

enum control_frontend_state {
	CONTROL_FRONTEND_NONE = 0,
	CONTROL_FRONTEND_INIT = 1,
	CONTROL_FRONTEND_READY = 2,
	CONTROL_FRONTEND_CLOSING = 3,
};

enum control_backend_state {
	CONTROL_BACKEND_NONE = 0,
	CONTROL_BACKEND_OFFER = 1,
	CONTROL_BACKEND_CONNECTED = 2,
	CONTROL_BACKEND_REFUSED = 3,
	CONTROL_BACKEND_CLOSING = 4,
	CONTROL_BACKEND_CLOSED = 5,
};

enum control_features {
	CONTROL_READONLY = 1 << 0,
	CONTROL_FLUSH = 1 << 1,
	CONTROL_BARRIER = 1 << 2,
	CONTROL_DISCARD = 1 << 3,
	CONTROL_SECURE_DISCARD = 1 << 4,
};

/* What slots and ring header look like: a bit each in what is offered, one value in what is chosen.
 */
enum control_layout {
	CONTROL_LAYOUT_X86_64 = 1 << 0, /* Xen's own, of 64-bit guests */
	CONTROL_LAYOUT_LINE = 1 << 1,   /* a request a cache line; see blkif_layout_line */
};

struct control_backend {
	uint64_t magic;
	uint32_t version;
	uint32_t pages; /* of the segment */
	_Atomic uint32_t state;
	_Atomic uint32_t epoch;
	_Atomic uint32_t revision;
	uint32_t features;
	uint32_t layouts;
	uint32_t max_queues;
	uint32_t max_ring_order;
	uint32_t max_indirect_segments; /* 0: none */
	uint32_t sector_size;           /* bytes; sectors in requests are of 512 all the same */
	uint32_t physical_sector_size;
	_Atomic uint64_t sectors; /* of 512 bytes */
	uint32_t discard_granularity;
	uint32_t discard_alignment;
	char error[CONTROL_ERROR_MAX]; /* a line, ended by a zero */
};

struct control_frontend {
	uint32_t version; /* that it speaks: CONTROL_VERSION */
	_Atomic uint32_t state;
	_Atomic uint32_t epoch;
	uint32_t layout;
	uint32_t nr_queues;
	uint32_t ring_order; /* each ring has 1 << ring_order pages that follow each other */
	uint32_t reserved[2];
	uint32_t rings[CONTROL_QUEUES_MAX]; /* the first page of each */
};

struct control_page {
	struct control_backend backend;
	uint8_t pad[CONTROL_FRONTEND_AT - sizeof(struct control_backend)];
	struct control_frontend frontend;
};

static_assert(offsetof(struct control_page, frontend) == CONTROL_FRONTEND_AT, "see the spec");
static_assert(offsetof(struct control_backend, sectors) == 56, "see the spec");
static_assert(sizeof(struct control_page) <= 4096, "one page");

#endif
