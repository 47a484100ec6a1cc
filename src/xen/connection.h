/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * connection: a frontend's rings, mapped and each served by a queue on a lane's reactor.
 *
 * The control thread maps the rings, binds the event channels and makes the queues; reactors start
 * and stop them.  Each side tells the other by message, and every message sent is answered, so that
 * the connection is destroyed only when no thread knows it any more.
 */
#ifndef SLUICE_XEN_CONNECTION_H
#define SLUICE_XEN_CONNECTION_H

#include <xengnttab.h>

#include "blkif/queue.h"
#include "xen/lane.h"

enum {
	CONNECTION_MAX_QUEUES = 64,
	CONNECTION_MAX_RING_ORDER = 4,
};

/* What the frontend negotiated. */
struct connection_keys {
	const struct blkif_layout *layout;
	unsigned nr_queues;  /* 1 to CONNECTION_MAX_QUEUES */
	unsigned ring_pages; /* of each queue: a power of two up to BLKIF_MAX_RING_PAGES */
	bool persistent;     /* it keeps its grants, and uses them again */
	struct connection_queue_keys {
		uint32_t ring_refs[BLKIF_MAX_RING_PAGES];
		uint32_t event_channel;
	} queues[CONNECTION_MAX_QUEUES];
};

struct connection;

struct connection_opts {
	struct reactor *control;
	struct xen_lane *lanes;
	unsigned nr_lanes;
	unsigned first_lane; /* of the first queue; the others follow on the next ones */
	xengnttab_handle *gnttab;
	uint32_t domid;
	const struct connection_keys *keys; /* copied */
	struct bdev *bdev;                  /* of 512-byte blocks */
	struct blkif_limits limits;
	enum blkif_sharing sharing;
	uint32_t dma_from_bytes;
	struct blkif_guest *guest;
	struct blkif_limiter *limiter;
	enum blkif_on_error on_error;
	uint64_t retry_ns;
	bool paused; /* it starts paused */
	uint32_t spin_max_ns;
	const char *label;
	struct log_limit *log_limits; /* one a queue, for its reactor; nobody else's meanwhile */
	/* All on the control thread. */
	void (*started)(void *arg,
			int rc);    /* serving, or (rc < 0) not: then it has to be destroyed */
	void (*stopped)(void *arg); /* it has to be destroyed */
	void (*broken)(void *arg);  /* the frontend broke a ring, once: it has to be stopped */
	/* Requests wait because the device fails: its negative errno; 0: none does any more. */
	void (*troubled)(void *arg, int error);
	void *arg;
};

/* Opens it; nothing is served yet. Returns 0 and *@out, or a negative errno with the reason. */
int connection_create(const struct connection_opts *opts, struct connection **out, struct err *err);
/* Starts serving; @started follows. */
void connection_start(struct connection *c);
/*
 * Takes no more requests, answers those taken (or, @keep, gives some back to the rings: see
 * blkif_queue_stop()); @stopped follows. After started, once.
 */
void connection_stop(struct connection *c, bool keep);
/*
 * What each queue is told, on its reactor; @done follows on the control thread when all have done
 * it, before @stopped in any case. All before connection_stop(). They return 0, or -ENOMEM: then
 * nothing happens.
 */
int connection_pause(struct connection *c, void (*done)(void *arg), void *arg);
int connection_resume(struct connection *c, void (*done)(void *arg), void *arg);
int connection_give_up(struct connection *c, void (*done)(void *arg), void *arg);
int connection_set_sectors(struct connection *c, uint64_t sectors, void (*done)(void *arg),
			   void *arg);
/* Unbinds and unmaps. */
void connection_destroy(struct connection *c);

/* What it was created for. */
const struct connection_keys *connection_get_keys(const struct connection *c);
/* Whether those are @keys, too. */
bool connection_has_keys(const struct connection *c, const struct connection_keys *keys);
/* The reactor that serves the connection's queue @n. */
const struct reactor *connection_get_reactor(const struct connection *c, unsigned n);
/*
 * Gathers the queues' statistics and calls @done with those of each queue on the control thread.
 * After @started and before @stopped, which waits for it. Returns 0, or -ENOMEM: then @done is not
 * called.
 */
int connection_get_stats(struct connection *c,
			 void (*done)(void *arg, const struct blkif_stats *queues, unsigned nr),
			 void *arg);
/* After @stopped: adds them to @stats directly. */
void connection_add_stats(const struct connection *c, struct blkif_stats *stats);

#endif
