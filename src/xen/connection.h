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
	struct bdev *bdev;
	struct blkif_limits limits;
	uint32_t spin_max_ns;
	const char *label;
	struct log_limit *log_limits; /* one a queue, for its reactor; nobody else's meanwhile */
	/* All on the control thread. */
	void (*started)(void *arg,
			int rc);    /* serving, or (rc < 0) not: then it has to be destroyed */
	void (*stopped)(void *arg); /* it has to be destroyed */
	void (*broken)(void *arg);  /* the frontend broke a ring, once: it has to be stopped */
	void *arg;
};

/* Opens it; nothing is served yet. Returns 0 and *@out, or a negative errno with the reason. */
int connection_create(const struct connection_opts *opts, struct connection **out, struct err *err);
/* Starts serving; @started follows. */
void connection_start(struct connection *c);
/* Takes no more requests, answers those taken; @stopped follows. After started, once. */
void connection_stop(struct connection *c);
/* Unbinds and unmaps. */
void connection_destroy(struct connection *c);

/* What it was created for. */
const struct connection_keys *connection_get_keys(const struct connection *c);
/* Whether those are @keys, too. */
bool connection_has_keys(const struct connection *c, const struct connection_keys *keys);
/*
 * Gathers the queues' statistics and calls @done with them on the control thread. Before
 * connection_stop(). Returns 0, or -ENOMEM: then @done is not called.
 */
int connection_get_stats(struct connection *c,
			 void (*done)(void *arg, const struct blkif_stats *stats), void *arg);
/* After @stopped: adds them to @stats directly. */
void connection_add_stats(const struct connection *c, struct blkif_stats *stats);

#endif
