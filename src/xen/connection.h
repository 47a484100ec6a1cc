/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * connection: a frontend's ring, mapped and served by a queue on a lane's reactor.
 *
 * The control thread maps the ring, binds the event channel and makes the queue; the reactor starts
 * and stops it.  Each side tells the other by message, and every message sent is answered, so that
 * the connection is destroyed only when no thread knows it any more.
 */
#ifndef SLUICE_XEN_CONNECTION_H
#define SLUICE_XEN_CONNECTION_H

#include <xengnttab.h>

#include "blkif/queue.h"
#include "xen/lane.h"

/* What the frontend negotiated. */
struct connection_keys {
	const struct blkif_layout *layout;
	uint32_t ring_ref;
	uint32_t event_channel;
};

struct connection;

struct connection_opts {
	struct reactor *control;
	struct xen_lane *lane;
	xengnttab_handle *gnttab;
	uint32_t domid;
	struct connection_keys keys;
	struct bdev *bdev;
	struct blkif_limits limits;
	uint32_t spin_max_ns;
	const char *label;
	struct log_limit *log_limit; /* for the reactor's lines; nobody else's meanwhile */
	/* All on the control thread. */
	void (*started)(void *arg,
			int rc);    /* serving, or (rc < 0) not: then it has to be destroyed */
	void (*stopped)(void *arg); /* it has to be destroyed */
	void (*broken)(void *arg);  /* the frontend broke its ring: it has to be stopped */
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
/*
 * Adds the queue's statistics to *@stats on the reactor's thread, then calls @done on the control
 * thread; both stay valid until then. Before connection_stop(). After @stopped: directly, by
 * _add_stats.
 */
struct connection_stats {
	struct reactor_msg msg;
	struct connection *conn;
	struct blkif_stats stats;
	void (*done)(struct connection_stats *cs);
};
void connection_get_stats(struct connection *c, struct connection_stats *cs);
void connection_add_stats(const struct connection *c, struct blkif_stats *stats);

#endif
