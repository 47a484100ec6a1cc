/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct connection {
	struct connection_opts opts;
	struct xen_doorbell doorbell;
	struct blkif_queue *queue;
	void *ring_page;
	struct blkif_ledger_entry *ledger;
	int rc;
	struct reactor_msg to_reactor;
	struct reactor_msg to_control;
	struct reactor_msg broken; /* its own: it may be under way while the queue stops */
};

/* On the control thread */

static void started_msg(struct reactor_msg *msg)
{
	struct connection *c = container_of(msg, struct connection, to_control);

	c->opts.started(c->opts.arg, c->rc);
}

static void stopped_msg(struct reactor_msg *msg)
{
	struct connection *c = container_of(msg, struct connection, to_control);

	c->opts.stopped(c->opts.arg);
}

static void broken_msg(struct reactor_msg *msg)
{
	struct connection *c = container_of(msg, struct connection, broken);

	c->opts.broken(c->opts.arg);
}

/* On the reactor's thread */

static void queue_broken(void *arg)
{
	struct connection *c = arg;

	/* Messages of one sender arrive in order: this one before the one that the queue has
	 * stopped. */
	c->broken.fn = broken_msg;
	reactor_send(c->opts.control, &c->broken);
}

static void queue_stopped(void *arg)
{
	struct connection *c = arg;

	xen_events_unroute(&c->doorbell);
	c->to_control.fn = stopped_msg;
	reactor_send(c->opts.control, &c->to_control);
}

static void start_on_reactor(struct reactor_msg *msg)
{
	struct connection *c = container_of(msg, struct connection, to_reactor);

	xen_events_route(&c->doorbell, c->queue);
	c->rc = blkif_queue_start(c->queue);
	if (c->rc)
		xen_events_unroute(&c->doorbell);
	c->to_control.fn = started_msg;
	reactor_send(c->opts.control, &c->to_control);
}

static void stop_on_reactor(struct reactor_msg *msg)
{
	struct connection *c = container_of(msg, struct connection, to_reactor);

	blkif_queue_stop(c->queue, queue_stopped, c);
}

static void stats_done(struct reactor_msg *msg)
{
	struct connection_stats *cs = container_of(msg, struct connection_stats, msg);

	cs->done(cs);
}

static void stats_on_reactor(struct reactor_msg *msg)
{
	struct connection_stats *cs = container_of(msg, struct connection_stats, msg);

	blkif_queue_add_stats(cs->conn->queue, &cs->stats);
	msg->fn = stats_done;
	reactor_send(cs->conn->opts.control, msg);
}

/* On the control thread again */

int connection_create(const struct connection_opts *opts, struct connection **out, struct err *err)
{
	struct connection *c = calloc(1, sizeof(*c));
	struct blkif_queue_opts queue_opts;
	uint32_t slots = blkif_layout_slots(opts->keys.layout, 1);
	int rc;

	if (!c)
		return err_set(err, -ENOMEM, "no memory for a connection");
	c->opts = *opts;
	c->opts.label = NULL;
	c->ledger = calloc(slots, sizeof(c->ledger[0]));
	if (!c->ledger) {
		rc = err_set(err, -ENOMEM, "no memory for a connection");
		goto no_ledger;
	}
	c->ring_page = xengnttab_map_grant_ref(opts->gnttab, opts->domid, opts->keys.ring_ref,
					       PROT_READ | PROT_WRITE);
	if (!c->ring_page) {
		rc = -errno;
		err_set(err, rc, "cannot map the ring at reference %u: %s", opts->keys.ring_ref,
			strerror(-rc));
		goto no_ring;
	}
	rc = xen_events_bind(opts->lane->events, opts->domid, opts->keys.event_channel,
			     &c->doorbell);
	if (rc) {
		err_set(err, rc, "cannot bind event channel %u: %s", opts->keys.event_channel,
			strerror(-rc));
		goto no_event;
	}
	queue_opts = (struct blkif_queue_opts){
		.engine = opts->lane->engine,
		.bdev = opts->bdev,
		.limits = opts->limits,
		.peer = opts->domid,
		.label = opts->label,
		.doorbell = &c->doorbell.doorbell,
		.layout = opts->keys.layout,
		.ring_pages = c->ring_page,
		.ring_nr = 1,
		.ledger = c->ledger,
		.spin_max_ns = opts->spin_max_ns,
		.log_limit = opts->log_limit,
		.broken = queue_broken,
		.arg = c,
	};
	rc = blkif_queue_create(&queue_opts, &c->queue);
	if (rc) {
		err_set(err, rc, "cannot attach to the ring: %s",
			rc == -EPROTO ? "its counters are impossible" : strerror(-rc));
		goto no_queue;
	}
	*out = c;
	return 0;
no_queue:
	xen_events_unbind(&c->doorbell);
no_event:
	xengnttab_unmap(opts->gnttab, c->ring_page, 1);
no_ring:
	free(c->ledger);
no_ledger:
	free(c);
	return rc;
}

void connection_start(struct connection *c)
{
	c->to_reactor.fn = start_on_reactor;
	reactor_send(c->opts.lane->reactor, &c->to_reactor);
}

void connection_stop(struct connection *c)
{
	c->to_reactor.fn = stop_on_reactor;
	reactor_send(c->opts.lane->reactor, &c->to_reactor);
}

void connection_destroy(struct connection *c)
{
	xen_events_unbind(&c->doorbell);
	blkif_queue_destroy(c->queue);
	xengnttab_unmap(c->opts.gnttab, c->ring_page, 1);
	free(c->ledger);
	free(c);
}

const struct connection_keys *connection_get_keys(const struct connection *c)
{
	return &c->opts.keys;
}

void connection_get_stats(struct connection *c, struct connection_stats *cs)
{
	cs->conn = c;
	cs->msg.fn = stats_on_reactor;
	reactor_send(c->opts.lane->reactor, &cs->msg);
}

void connection_add_stats(const struct connection *c, struct blkif_stats *stats)
{
	blkif_queue_add_stats(c->queue, stats);
}
