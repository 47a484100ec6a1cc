/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A frontend over a segment: the client of Sluice's second door, in a process as in a guest.
 *
 * It plays the frontend's part of the control page (blkif/control_page.h) over a port of libsivshm,
 * and makes a struct front for each queue, with memory from the segment: a page's reference is its
 * index.  All that it reads of the backend's half is copied once and judged as a copy; what decides
 * is kept in private memory, so that a backend that lies can break the connection and nothing else.
 *
 * front_segment_advance() never waits, so that who drives both ends on one thread can use it;
 * front_segment_connect() and _close() wait by the port.  Opening, closing, memory and the disk's
 * state belong to one thread, each queue's front to any one.
 */
#ifndef SLUICE_FRONT_SEGMENT_H
#define SLUICE_FRONT_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "front/front.h"

struct sivshm_port;
struct front_segment;

struct front_segment_opts {
	unsigned queues;       /* wanted, at least 1; fewer if the backend or the port has fewer */
	unsigned ring_order;   /* wanted; less if the backend takes less */
	uint32_t layouts;      /* CONTROL_LAYOUT_*: that may be used; 0: all */
	unsigned max_segments; /* of indirect requests; fewer if the backend takes fewer; 0: none */
	unsigned sync_pages;   /* of each queue, for front_rw_sync() */
};

/* The disk, as it was connected. */
struct front_segment_disk {
	unsigned queues;
	unsigned depth;    /* requests of a queue at a time */
	uint32_t layout;   /* CONTROL_LAYOUT_* */
	uint32_t features; /* CONTROL_READONLY and so on */
	unsigned max_segments;
	uint32_t sector_size; /* bytes */
	uint32_t physical_sector_size;
	uint32_t discard_granularity;
	uint32_t discard_alignment;
};

/* Begins a life on @port, which outlives it. Returns 0 and *@out, -EINVAL or -ENOMEM. */
int front_segment_create(struct sivshm_port *port, const struct front_segment_opts *opts,
			 struct front_segment **out);
/*
 * Does what can be done without waiting. Returns 1 while the disk is connected, 0 (not yet),
 * -ECONNREFUSED (refused, or ended by the backend), -EPIPE (closed as we have asked) or -EPROTO
 * (what the backend says cannot be); front_segment_fault() says why.
 */
int front_segment_advance(struct front_segment *s);
/* Advances until connected, waiting up to @timeout_ms. Returns 0, -ETIMEDOUT, or as above. */
int front_segment_connect(struct front_segment *s, int timeout_ms);
/*
 * Says CLOSING and waits up to @timeout_ms for the backend's CLOSED: from then on no page is in use
 * any more. Returns 0, -ETIMEDOUT (pages may be in use), or -EPROTO.
 */
int front_segment_close(struct front_segment *s, int timeout_ms);
/* Frees the queues; says nothing to the backend. */
void front_segment_destroy(struct front_segment *s);

const char *front_segment_fault(const struct front_segment *s);
/* Once connected. */
const struct front_segment_disk *front_segment_disk(const struct front_segment *s);
struct front *front_segment_queue(struct front_segment *s, unsigned n);
/* The disk's size now, in sectors of 512 bytes; it may have grown. */
uint64_t front_segment_sectors(struct front_segment *s);
/*
 * Once connected, from any thread. The first: the backend wants the disk back, or has it: finish,
 * and front_segment_close(). The second: nothing will be answered any more.
 */
bool front_segment_is_closing(const struct front_segment *s);
bool front_segment_is_over(const struct front_segment *s);

/*
 * Pages of the segment that follow each other, for data, and their references; NULL if there are no
 * such. Their contents are what was there.
 */
void *front_segment_pages_alloc(struct front_segment *s, unsigned nr, uint32_t *refs);
void front_segment_pages_free(struct front_segment *s, void *pages, unsigned nr);
/* How many pages are free. */
unsigned front_segment_pages_left(const struct front_segment *s);

#endif
