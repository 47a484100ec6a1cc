/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lane: what one reactor has for the second door's queues: an engine, a share over segments,
 * doorbells that are eventfds.
 *
 * A segment is mapped as long as its worker has it, so to share a page is arithmetic: the reference
 * is its number, and the one thing to be judged is that it is one of the segment's pages, the
 * control page excepted.  That is done where requests are (struct share_window): a call a page
 * would cost more than the rest of the page's part in a large request.
 */
#ifndef SLUICE_SIVSHM_LANE_H
#define SLUICE_SIVSHM_LANE_H

#include "base/err.h"
#include "blkif/doorbell.h"
#include "blkif/share.h"
#include "reactor/reactor.h"
#include "sivshm/door.h"

struct blkif_engine;
struct blkif_queue;
struct sivshm_port;

/* A worker's segment as a reactor sees it. */
struct sivshm_segment {
	char *base;
	uint32_t pages; /* the control page, which is the first, and at least one more */
	uint64_t bus;   /* of its first byte for the bdev's device, or DMA_NO_BUS */
};

struct sivshm_lane {
	struct reactor *reactor;
	struct blkif_engine *engine;
	struct share share;
	/* By the worker's number, which is the peer's for the share; and queues that use each. */
	struct share_window windows[SIVSHM_DOOR_MAX_WORKERS];
	unsigned users[SIVSHM_DOOR_MAX_WORKERS];
};

/* Makes the lane of @r, which is not running yet. Returns 0 or a negative errno. */
int sivshm_lane_init(struct sivshm_lane *lane, struct reactor *r, size_t bounce_pages,
		     struct err *err);
/* The reactor has stopped. */
void sivshm_lane_fini(struct sivshm_lane *lane);

/* On the reactor's thread: one more queue of the peer's begins, and has ended. */
void sivshm_lane_show(struct sivshm_lane *lane, uint32_t peer, const struct sivshm_segment *s);
void sivshm_lane_hide(struct sivshm_lane *lane, uint32_t peer);

/*
 * A queue's doorbell. A ring disarms it in the kernel itself, so that a frontend may ring as often
 * as it likes: nobody is woken twice.
 */
struct sivshm_doorbell {
	struct doorbell doorbell;
	struct reactor_fd fd;
	struct sivshm_lane *lane;
	struct sivshm_port *port;
	unsigned vector;
	struct blkif_queue *queue;
};

void sivshm_doorbell_init(struct sivshm_doorbell *d, struct sivshm_lane *lane,
			  struct sivshm_port *port, unsigned vector);
/* On the reactor's thread. Returns 0 or a negative errno. */
int sivshm_doorbell_route(struct sivshm_doorbell *d, struct blkif_queue *q);
void sivshm_doorbell_unroute(struct sivshm_doorbell *d);

#endif
