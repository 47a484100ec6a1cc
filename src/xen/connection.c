/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/connection.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* One queue of the connection, with all that belongs to it alone. */
struct ring {
	struct connection *conn;
	struct xen_lane *lane;
	struct xen_doorbell doorbell;
	struct blkif_queue *queue; /* NULL: not made */
	void *pages;
	struct blkif_ledger_entry *ledger;
	bool serving; /* told by the reactor */
	int rc;
	/* The last news of the device's failing; a message is under way while told is false. */
	atomic_int trouble;
	atomic_bool told;
	struct reactor_msg troubled;
	struct reactor_msg to_reactor;
	struct reactor_msg to_control;
	struct reactor_msg broken; /* its own: it may be under way while the queue stops */
};

struct connection {
	struct connection_opts opts;
	struct connection_keys keys;
	unsigned waiting; /* rings whose reactor has not answered yet */
	int rc;           /* why it could not be started */
	bool keep;        /* see connection_stop() */
	bool broken;
	unsigned calls; /* under way; see below */
	bool all_stopped;
	struct ring rings[];
};

static struct connection *conn_of(struct reactor_msg *to_control, struct ring **ring)
{
	*ring = container_of(to_control, struct ring, to_control);
	return (*ring)->conn;
}

/* On the reactor's thread */

static void queue_broken(void *arg)
{
	struct ring *r = arg;

	/* Messages of one sender arrive in order: this one before the one that it has stopped. */
	reactor_send(r->conn->opts.control, &r->broken);
}

static void queue_troubled(void *arg, int error)
{
	struct ring *r = arg;

	atomic_store(&r->trouble, error);
	if (atomic_exchange(&r->told, false))
		reactor_send(r->conn->opts.control, &r->troubled);
}

static void answer(struct ring *r)
{
	reactor_send(r->conn->opts.control, &r->to_control);
}

static void queue_stopped(void *arg)
{
	struct ring *r = arg;

	xen_events_unroute(&r->doorbell);
	answer(r);
}

static void start_on_reactor(struct reactor_msg *msg)
{
	struct ring *r = container_of(msg, struct ring, to_reactor);

	xen_events_route(&r->doorbell, r->queue);
	r->rc = blkif_queue_start(r->queue);
	if (r->rc)
		xen_events_unroute(&r->doorbell);
	answer(r);
}

static void stop_on_reactor(struct reactor_msg *msg)
{
	struct ring *r = container_of(msg, struct ring, to_reactor);

	blkif_queue_stop(r->queue, r->conn->keep, queue_stopped, r);
}

/* On the control thread */

static void broken_msg(struct reactor_msg *msg)
{
	struct connection *c = container_of(msg, struct ring, broken)->conn;

	if (c->broken)
		return;
	c->broken = true;
	c->opts.broken(c->opts.arg);
}

static void troubled_msg(struct reactor_msg *msg)
{
	struct ring *r = container_of(msg, struct ring, troubled);
	struct connection *c = r->conn;
	int error = 0;

	/* In this order nothing that comes now is missed. */
	atomic_store(&r->told, true);
	for (unsigned n = 0; !error && n < c->keys.nr_queues; n++)
		error = atomic_load(&c->rings[n].trouble);
	c->opts.troubled(c->opts.arg, error);
}

/* A call may still be on its way to a queue that has stopped. */
static void tell_stopped(struct connection *c)
{
	if (c->all_stopped && !c->calls)
		c->opts.stopped(c->opts.arg);
}

static void stopped_msg(struct reactor_msg *msg)
{
	struct ring *r;
	struct connection *c = conn_of(msg, &r);

	r->serving = false;
	if (--c->waiting)
		return;
	if (c->rc) {
		c->opts.started(c->opts.arg, c->rc); /* its beginning failed, and is undone */
		return;
	}
	c->all_stopped = true;
	tell_stopped(c);
}

static void stop_serving(struct connection *c)
{
	for (unsigned i = 0; i < c->keys.nr_queues; i++)
		c->waiting += c->rings[i].serving;
	for (unsigned i = 0; i < c->keys.nr_queues; i++) {
		struct ring *r = &c->rings[i];

		if (!r->serving)
			continue;
		r->to_control.fn = stopped_msg;
		r->to_reactor.fn = stop_on_reactor;
		reactor_send(r->lane->reactor, &r->to_reactor);
	}
}

static void started_msg(struct reactor_msg *msg)
{
	struct ring *r;
	struct connection *c = conn_of(msg, &r);

	r->serving = !r->rc;
	if (r->rc)
		c->rc = r->rc;
	if (--c->waiting)
		return;
	/* All or none: what others have begun ends first. */
	if (c->rc)
		stop_serving(c);
	if (!c->waiting)
		c->opts.started(c->opts.arg, c->rc);
}

static int open_ring(struct connection *c, unsigned n, struct err *err)
{
	const struct connection_opts *opts = &c->opts;
	const struct connection_queue_keys *keys = &c->keys.queues[n];
	struct blkif_queue_opts queue_opts;
	struct ring *r = &c->rings[n];
	int rc;

	r->conn = c;
	r->lane = &opts->lanes[(opts->first_lane + n) % opts->nr_lanes];
	r->broken.fn = broken_msg;
	r->troubled.fn = troubled_msg;
	atomic_init(&r->told, true);
	r->ledger = calloc(blkif_layout_slots(c->keys.layout, c->keys.ring_pages),
			   sizeof(r->ledger[0]));
	if (!r->ledger)
		return err_set(err, -ENOMEM, "no memory for a connection");
	r->pages = xengnttab_map_domain_grant_refs(opts->gnttab, c->keys.ring_pages, opts->domid,
						   (uint32_t *)keys->ring_refs,
						   PROT_READ | PROT_WRITE);
	if (!r->pages) {
		rc = -errno;
		err_set(err, rc, "cannot map the ring at reference %u: %s", keys->ring_refs[0],
			strerror(-rc));
		goto no_pages;
	}
	rc = xen_events_bind(r->lane->events, opts->domid, keys->event_channel, &r->doorbell);
	if (rc) {
		err_set(err, rc, "cannot bind event channel %u: %s", keys->event_channel,
			strerror(-rc));
		goto no_event;
	}
	queue_opts = (struct blkif_queue_opts){
		.engine = r->lane->engine,
		.bdev = opts->bdev,
		.limits = opts->limits,
		.peer = opts->domid,
		.label = opts->label,
		.doorbell = &r->doorbell.doorbell,
		.layout = c->keys.layout,
		.ring_pages = r->pages,
		.ring_nr = c->keys.ring_pages,
		.ledger = r->ledger,
		.spin_max_ns = opts->spin_max_ns,
		.sharing = opts->sharing,
		.dma_from_bytes = opts->dma_from_bytes,
		.guest = opts->guest,
		.limiter = opts->limiter,
		.on_error = opts->on_error,
		.retry_ns = opts->retry_ns,
		.paused = opts->paused,
		.log_limit = &opts->log_limits[n],
		.broken = queue_broken,
		.troubled = queue_troubled,
		.arg = r,
	};
	rc = blkif_queue_create(&queue_opts, &r->queue);
	if (!rc)
		return 0;
	err_set(err, rc, "cannot attach to the ring: %s",
		rc == -EPROTO ? "its counters are impossible" : strerror(-rc));
	xen_events_unbind(&r->doorbell);
no_event:
	xengnttab_unmap(opts->gnttab, r->pages, c->keys.ring_pages);
no_pages:
	free(r->ledger);
	return rc;
}

static void close_ring(struct connection *c, struct ring *r)
{
	xen_events_unbind(&r->doorbell);
	blkif_queue_destroy(r->queue);
	xengnttab_unmap(c->opts.gnttab, r->pages, c->keys.ring_pages);
	free(r->ledger);
}

int connection_create(const struct connection_opts *opts, struct connection **out, struct err *err)
{
	struct connection *c = calloc(1, sizeof(*c) + opts->keys->nr_queues * sizeof(c->rings[0]));

	if (!c)
		return err_set(err, -ENOMEM, "no memory for a connection");
	c->opts = *opts;
	c->keys = *opts->keys;
	c->opts.keys = &c->keys;
	for (unsigned n = 0; n < c->keys.nr_queues; n++) {
		int rc = open_ring(c, n, err);

		if (rc) {
			while (n)
				close_ring(c, &c->rings[--n]);
			free(c);
			return rc;
		}
	}
	c->opts.label = NULL;
	*out = c;
	return 0;
}

void connection_start(struct connection *c)
{
	c->waiting = c->keys.nr_queues;
	for (unsigned n = 0; n < c->keys.nr_queues; n++) {
		struct ring *r = &c->rings[n];

		r->to_control.fn = started_msg;
		r->to_reactor.fn = start_on_reactor;
		reactor_send(r->lane->reactor, &r->to_reactor);
	}
}

void connection_stop(struct connection *c, bool keep)
{
	c->keep = keep;
	stop_serving(c);
}

void connection_destroy(struct connection *c)
{
	for (unsigned n = c->keys.nr_queues; n; n--)
		close_ring(c, &c->rings[n - 1]);
	free(c);
}

const struct connection_keys *connection_get_keys(const struct connection *c)
{
	return &c->keys;
}

bool connection_has_keys(const struct connection *c, const struct connection_keys *keys)
{
	if (keys->layout != c->keys.layout || keys->nr_queues != c->keys.nr_queues ||
	    keys->ring_pages != c->keys.ring_pages || keys->persistent != c->keys.persistent)
		return false;
	for (unsigned n = 0; n < keys->nr_queues; n++) {
		const struct connection_queue_keys *a = &keys->queues[n], *b = &c->keys.queues[n];

		if (a->event_channel != b->event_channel ||
		    memcmp(a->ring_refs, b->ring_refs, keys->ring_pages * sizeof(uint32_t)))
			return false;
	}
	return true;
}

const struct reactor *connection_get_reactor(const struct connection *c, unsigned n)
{
	return c->rings[n].lane->reactor;
}

/*
 * Calls: something that is done for each queue on its reactor.  When all have done it the control
 * thread is told.
 */

struct call;

struct call_part {
	struct reactor_msg msg;
	struct call *call;
	const struct ring *ring;
};

struct call {
	struct connection *conn;
	unsigned nr;
	unsigned waiting;
	void (*done)(void *arg);
	void *arg;
	uint64_t sectors;
	/* For statistics. */
	struct blkif_stats *stats;
	void (*stats_done)(void *arg, const struct blkif_stats *queues, unsigned nr);
	struct call_part parts[];
};

static void free_call(struct call *call)
{
	free(call->stats);
	free(call);
}

static struct call *make_call(struct connection *c, void (*done)(void *arg), void *arg)
{
	unsigned nr = c->keys.nr_queues;
	struct call *call = calloc(1, sizeof(*call) + nr * sizeof(call->parts[0]));

	if (!call)
		return NULL;
	call->conn = c;
	call->nr = nr;
	call->waiting = nr;
	call->done = done;
	call->arg = arg;
	return call;
}

/* Has @fn run for each queue, before any later message to stop it. */
static void start_call(struct connection *c, struct call *call, void (*fn)(struct reactor_msg *msg))
{
	c->calls++;
	for (unsigned n = 0; n < call->nr; n++) {
		struct call_part *part = &call->parts[n];

		part->call = call;
		part->ring = &c->rings[n];
		part->msg.fn = fn;
		reactor_send(part->ring->lane->reactor, &part->msg);
	}
}

static void part_done_msg(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call_part, msg)->call;
	struct connection *c = call->conn;

	if (--call->waiting)
		return;
	c->calls--;
	if (call->stats)
		call->stats_done(call->arg, call->stats, call->nr);
	else
		call->done(call->arg);
	free_call(call);
	tell_stopped(c);
}

/* On the reactor's thread */
static void end_part(struct call_part *part)
{
	part->msg.fn = part_done_msg;
	reactor_send(part->call->conn->opts.control, &part->msg);
}

static void part_quiet(void *arg)
{
	end_part(arg);
}

static void pause_on_reactor(struct reactor_msg *msg)
{
	struct call_part *part = container_of(msg, struct call_part, msg);

	blkif_queue_pause(part->ring->queue, part_quiet, part);
}

static void resume_on_reactor(struct reactor_msg *msg)
{
	struct call_part *part = container_of(msg, struct call_part, msg);

	blkif_queue_resume(part->ring->queue);
	end_part(part);
}

static void give_up_on_reactor(struct reactor_msg *msg)
{
	struct call_part *part = container_of(msg, struct call_part, msg);

	blkif_queue_give_up(part->ring->queue);
	end_part(part);
}

static void set_sectors_on_reactor(struct reactor_msg *msg)
{
	struct call_part *part = container_of(msg, struct call_part, msg);

	blkif_queue_set_sectors(part->ring->queue, part->call->sectors);
	end_part(part);
}

static void stats_on_reactor(struct reactor_msg *msg)
{
	struct call_part *part = container_of(msg, struct call_part, msg);

	blkif_queue_get_stats(part->ring->queue, &part->call->stats[part - part->call->parts]);
	end_part(part);
}

/* On the control thread */

int connection_pause(struct connection *c, void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	start_call(c, call, pause_on_reactor);
	return 0;
}

int connection_resume(struct connection *c, void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	start_call(c, call, resume_on_reactor);
	return 0;
}

int connection_give_up(struct connection *c, void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	start_call(c, call, give_up_on_reactor);
	return 0;
}

int connection_set_sectors(struct connection *c, uint64_t sectors, void (*done)(void *arg),
			   void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	call->sectors = sectors;
	start_call(c, call, set_sectors_on_reactor);
	return 0;
}

int connection_get_stats(struct connection *c,
			 void (*done)(void *arg, const struct blkif_stats *queues, unsigned nr),
			 void *arg)
{
	struct call *call = make_call(c, NULL, arg);

	if (!call)
		return -ENOMEM;
	call->stats_done = done;
	call->stats = calloc(call->nr, sizeof(call->stats[0]));
	if (!call->stats) {
		free_call(call);
		return -ENOMEM;
	}
	start_call(c, call, stats_on_reactor);
	return 0;
}

void connection_add_stats(const struct connection *c, struct blkif_stats *stats)
{
	for (unsigned n = 0; n < c->keys.nr_queues; n++) {
		struct blkif_stats one;

		blkif_queue_get_stats(c->rings[n].queue, &one);
		blkif_stats_add(stats, &one);
	}
}
