/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/connection.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blkif/engine.h"
#include "reactor/reactor.h"

struct blkif_limits blkif_limits_of(const struct bdev *b, bool readonly, bool discard)
{
	const struct bdev_limits *limits = &b->limits;
	uint64_t segments = BLKIF_MAX_SEGMENTS;

	if (limits->max_iov && limits->max_iov < segments)
		segments = limits->max_iov;
	if (limits->max_io && limits->max_io / BLKIF_PAGE_SIZE < segments)
		segments = limits->max_io / BLKIF_PAGE_SIZE;
	discard = discard && limits->discard && !readonly;
	return (struct blkif_limits){
		.sectors = bdev_get_size(b) / BLKIF_SECTOR_SIZE,
		.max_indirect_segments =
			segments > BLKIF_MAX_DIRECT_SEGMENTS ? (uint16_t)segments : 0,
		.readonly = readonly,
		.flush = true,
		.barrier = true,
		.discard = discard,
		.secure_discard = discard && limits->secure_discard,
	};
}

/* One queue of the connection, with all that belongs to it alone. */
struct ring {
	struct blkif_connection *conn;
	struct reactor *reactor;
	struct blkif_queue *queue;
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

struct blkif_connection {
	struct blkif_connection_opts opts;
	unsigned waiting; /* rings whose reactor has not answered yet */
	int rc;           /* why it could not be started */
	bool keep;        /* see blkif_connection_stop() */
	bool broken;
	unsigned calls; /* under way; see below */
	bool all_stopped;
	struct ring rings[];
};

static struct blkif_connection *conn_of(struct reactor_msg *to_control, struct ring **ring)
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

static unsigned number_of(const struct ring *r)
{
	return (unsigned)(r - r->conn->rings);
}

static void unroute(struct ring *r)
{
	r->conn->opts.ops->unroute(r->conn->opts.ctx, number_of(r));
}

static void queue_stopped(void *arg)
{
	struct ring *r = arg;

	unroute(r);
	answer(r);
}

static void start_on_reactor(struct reactor_msg *msg)
{
	struct ring *r = container_of(msg, struct ring, to_reactor);
	const struct blkif_connection *c = r->conn;

	r->rc = c->opts.ops->route(c->opts.ctx, number_of(r), r->queue);
	if (!r->rc) {
		r->rc = blkif_queue_start(r->queue);
		if (r->rc)
			unroute(r);
	}
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
	struct blkif_connection *c = container_of(msg, struct ring, broken)->conn;

	if (c->broken)
		return;
	c->broken = true;
	c->opts.broken(c->opts.arg);
}

static void troubled_msg(struct reactor_msg *msg)
{
	struct ring *r = container_of(msg, struct ring, troubled);
	struct blkif_connection *c = r->conn;
	int error = 0;

	/* In this order nothing that comes now is missed. */
	atomic_store(&r->told, true);
	for (unsigned n = 0; !error && n < c->opts.nr_queues; n++)
		error = atomic_load(&c->rings[n].trouble);
	c->opts.troubled(c->opts.arg, error);
}

/* A call may still be on its way to a queue that has stopped. */
static void tell_stopped(struct blkif_connection *c)
{
	if (c->all_stopped && !c->calls)
		c->opts.stopped(c->opts.arg);
}

static void stopped_msg(struct reactor_msg *msg)
{
	struct ring *r;
	struct blkif_connection *c = conn_of(msg, &r);

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

static void stop_serving(struct blkif_connection *c)
{
	for (unsigned i = 0; i < c->opts.nr_queues; i++)
		c->waiting += c->rings[i].serving;
	for (unsigned i = 0; i < c->opts.nr_queues; i++) {
		struct ring *r = &c->rings[i];

		if (!r->serving)
			continue;
		r->to_control.fn = stopped_msg;
		r->to_reactor.fn = stop_on_reactor;
		reactor_send(r->reactor, &r->to_reactor);
	}
}

static void started_msg(struct reactor_msg *msg)
{
	struct ring *r;
	struct blkif_connection *c = conn_of(msg, &r);

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

static void tell_closed(struct blkif_connection *c, unsigned n)
{
	if (c->opts.ops->close)
		c->opts.ops->close(c->opts.ctx, n);
}

static int open_ring(struct blkif_connection *c, unsigned n, struct err *err)
{
	const struct blkif_connection_opts *opts = &c->opts;
	struct blkif_queue_opts queue_opts = opts->queue;
	struct blkif_connection_ring ring;
	struct ring *r = &c->rings[n];
	int rc;

	r->conn = c;
	r->broken.fn = broken_msg;
	r->troubled.fn = troubled_msg;
	atomic_init(&r->told, true);
	r->ledger = calloc(blkif_layout_slots(opts->queue.layout, opts->queue.ring_nr),
			   sizeof(r->ledger[0]));
	if (!r->ledger)
		return err_set(err, -ENOMEM, "no memory for a connection");
	rc = opts->ops->open(opts->ctx, n, &ring, err);
	if (rc)
		goto no_ring;
	r->reactor = blkif_engine_reactor(ring.engine);
	queue_opts.engine = ring.engine;
	queue_opts.doorbell = ring.doorbell;
	queue_opts.ring_pages = ring.pages;
	queue_opts.ledger = r->ledger;
	queue_opts.log_limit = &opts->log_limits[n];
	queue_opts.broken = queue_broken;
	queue_opts.troubled = queue_troubled;
	queue_opts.arg = r;
	rc = blkif_queue_create(&queue_opts, &r->queue);
	if (!rc)
		return 0;
	err_set(err, rc, "cannot attach to the ring: %s",
		rc == -EPROTO ? "its counters are impossible" : strerror(-rc));
	tell_closed(c, n);
no_ring:
	free(r->ledger);
	return rc;
}

static void close_ring(struct blkif_connection *c, unsigned n)
{
	struct ring *r = &c->rings[n];

	tell_closed(c, n);
	blkif_queue_destroy(r->queue);
	free(r->ledger);
}

int blkif_connection_create(const struct blkif_connection_opts *opts, struct blkif_connection **out,
			    struct err *err)
{
	struct blkif_connection *c = calloc(1, sizeof(*c) + opts->nr_queues * sizeof(c->rings[0]));

	if (!c)
		return err_set(err, -ENOMEM, "no memory for a connection");
	c->opts = *opts;
	for (unsigned n = 0; n < opts->nr_queues; n++) {
		int rc = open_ring(c, n, err);

		if (rc) {
			while (n)
				close_ring(c, --n);
			free(c);
			return rc;
		}
	}
	c->opts.queue.label = NULL;
	*out = c;
	return 0;
}

void blkif_connection_destroy(struct blkif_connection *c)
{
	for (unsigned n = c->opts.nr_queues; n; n--)
		close_ring(c, n - 1);
	free(c);
}

void blkif_connection_start(struct blkif_connection *c)
{
	c->waiting = c->opts.nr_queues;
	for (unsigned n = 0; n < c->opts.nr_queues; n++) {
		struct ring *r = &c->rings[n];

		r->to_control.fn = started_msg;
		r->to_reactor.fn = start_on_reactor;
		reactor_send(r->reactor, &r->to_reactor);
	}
}

void blkif_connection_stop(struct blkif_connection *c, bool keep)
{
	c->keep = keep;
	stop_serving(c);
}

const struct reactor *blkif_connection_get_reactor(const struct blkif_connection *c, unsigned n)
{
	return c->rings[n].reactor;
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
	struct blkif_connection *conn;
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
	for (unsigned n = 0; call->stats && n < call->nr; n++)
		blkif_stats_fini(&call->stats[n]);
	free(call->stats);
	free(call);
}

static struct call *make_call(struct blkif_connection *c, void (*done)(void *arg), void *arg)
{
	unsigned nr = c->opts.nr_queues;
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
static void start_call(struct blkif_connection *c, struct call *call,
		       void (*fn)(struct reactor_msg *msg))
{
	c->calls++;
	for (unsigned n = 0; n < call->nr; n++) {
		struct call_part *part = &call->parts[n];

		part->call = call;
		part->ring = &c->rings[n];
		part->msg.fn = fn;
		reactor_send(part->ring->reactor, &part->msg);
	}
}

static void part_done_msg(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call_part, msg)->call;
	struct blkif_connection *c = call->conn;

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

	blkif_queue_add_stats(part->ring->queue, &part->call->stats[part - part->call->parts]);
	end_part(part);
}

/* On the control thread */

int blkif_connection_pause(struct blkif_connection *c, void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	start_call(c, call, pause_on_reactor);
	return 0;
}

int blkif_connection_resume(struct blkif_connection *c, void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	start_call(c, call, resume_on_reactor);
	return 0;
}

int blkif_connection_give_up(struct blkif_connection *c, void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	start_call(c, call, give_up_on_reactor);
	return 0;
}

int blkif_connection_set_sectors(struct blkif_connection *c, uint64_t sectors,
				 void (*done)(void *arg), void *arg)
{
	struct call *call = make_call(c, done, arg);

	if (!call)
		return -ENOMEM;
	call->sectors = sectors;
	start_call(c, call, set_sectors_on_reactor);
	return 0;
}

int blkif_connection_get_stats(struct blkif_connection *c,
			       void (*done)(void *arg, const struct blkif_stats *queues,
					    unsigned nr),
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

void blkif_connection_add_stats(const struct blkif_connection *c, struct blkif_stats *stats)
{
	for (unsigned n = 0; n < c->opts.nr_queues; n++)
		blkif_queue_add_stats(c->rings[n].queue, stats);
}
