/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "blkif/io.h"

/* So many requests of one queue in one pass: a queue at full depth leaves the others their turn. */
enum { TAKE_BUDGET = 32 };

/*
 * A frontend may ring once in vain now and then: its request was seen before its ring. One that
 * does nothing else is answered later and later.
 */
enum { EMPTY_RINGS_MAX = 16, CALM_DOUBLINGS = 6 };
#define CALM_NS NSEC_PER_MSEC

static struct blkif_ledger_entry *ledger_of(struct blkif_queue *q, struct blkif_io *io)
{
	return &q->opts.ledger[io - q->ios];
}

static void take_one(struct blkif_queue *q, uint64_t now_ns)
{
	struct blkif_io *io = list_entry(list_pop(&q->free), struct blkif_io, node);
	struct blkif_ledger_entry *entry = ledger_of(q, io);

	/* The guest can change its slot at any time; from here on only this copy counts. */
	blkif_ring_take(&q->ring, entry->slot);
	entry->live = 1;
	q->in_flight++;
	io->taken_ns = now_ns;
	io->bytes = 0;
	io->nr_pages = 0;
	io->share_status = 0;
	io->status = blkif_decode_request(q->ring.layout, entry->slot, &q->opts.limits, &io->req,
					  io->direct_segments);
	if (io->status == BLKIF_OKAY && io->req.nr_segments && !io->req.indirect)
		io->status = blkif_decode_segments(&io->req, io->direct_segments, &q->opts.limits,
						   &io->bytes);
	io->refused = io->status != BLKIF_OKAY;
	blkif_engine_take(q->opts.engine, io);
}

static void break_ring(struct blkif_queue *q)
{
	log_limited(
		q->opts.log_limit, LOG_LEVEL_WARNING,
		"%s: the frontend's ring counters are impossible; its ring is not served any more",
		q->label);
	q->broken = true;
	q->opts.broken(q->opts.arg);
}

static int queue_poll(struct poller *p)
{
	struct blkif_queue *q = container_of(p, struct blkif_queue, poller);
	uint64_t now_ns;
	int pending;

	if (q->broken || q->stopping)
		return 0;
	pending = blkif_ring_pending(&q->ring);
	if (pending < 0) {
		break_ring(q);
		return 1;
	}
	if (!pending)
		return 0;
	q->empty_rings = 0;
	if (pending > TAKE_BUDGET)
		pending = TAKE_BUDGET;
	now_ns = clock_now_ns();
	for (int i = 0; i < pending; i++)
		take_one(q, now_ns);
	return pending;
}

static bool queue_arm(struct poller *p)
{
	struct blkif_queue *q = container_of(p, struct blkif_queue, poller);

	/* Nothing more is taken: let its frontend ring in vain, the doorbell stays disarmed. */
	if (q->broken || q->stopping)
		return false;
	if (q->empty_rings > EMPTY_RINGS_MAX && !q->calmed) {
		uint32_t doublings = q->empty_rings - EMPTY_RINGS_MAX - 1;

		if (doublings > CALM_DOUBLINGS)
			doublings = CALM_DOUBLINGS;
		reactor_timer_start(blkif_engine_reactor(q->opts.engine), &q->calm,
				    CALM_NS << doublings);
		return blkif_ring_pending(&q->ring) != 0;
	}
	q->calmed = false;
	q->opts.doorbell->ops->arm(q->opts.doorbell);
	return blkif_ring_arm(&q->ring);
}

static void queue_calmed(struct reactor_timer *t)
{
	struct blkif_queue *q = container_of(t, struct blkif_queue, calm);

	q->calmed = true;
	reactor_poller_wake(&q->poller);
}

int blkif_queue_create(const struct blkif_queue_opts *opts, struct blkif_queue **out)
{
	uint32_t slots = blkif_layout_slots(opts->layout, opts->ring_nr);
	struct blkif_queue *q = calloc(1, sizeof(*q) + slots * sizeof(q->ios[0]));
	int rc;

	if (!q)
		return -ENOMEM;
	q->opts = *opts;
	q->opts.label = NULL;
	snprintf(q->label, sizeof(q->label), "%s", opts->label);
	rc = blkif_ring_attach(&q->ring, opts->layout, opts->ring_pages, opts->ring_nr);
	if (rc) {
		free(q);
		return rc;
	}
	q->poller = (struct poller){
		.name = q->label,
		.poll = queue_poll,
		.arm = queue_arm,
		.spin_max_ns = opts->spin_max_ns,
	};
	q->calm.fire = queue_calmed;
	/* One request of the largest size. */
	q->reserve = opts->limits.max_indirect_segments
			     ? opts->limits.max_indirect_segments + BLKIF_INDIRECT_META_PAGES
			     : BLKIF_MAX_DIRECT_SEGMENTS;
	list_init(&q->starved);
	list_init(&q->starved_node);
	list_init(&q->node);
	list_init(&q->free);
	for (uint32_t i = 0; i < slots; i++) {
		q->ios[i].queue = q;
		list_add_tail(&q->free, &q->ios[i].node);
	}
	*out = q;
	return 0;
}

void blkif_queue_destroy(struct blkif_queue *q)
{
	free(q);
}

int blkif_queue_start(struct blkif_queue *q)
{
	struct reactor *r = blkif_engine_reactor(q->opts.engine);
	int rc = blkif_engine_add_queue(q->opts.engine, q);

	if (rc)
		return rc;
	rc = bdev_channel_open(q->opts.bdev, r, &q->channel);
	if (rc) {
		blkif_engine_remove_queue(q->opts.engine, q);
		return rc;
	}
	reactor_poller_add(r, &q->poller);
	return 0;
}

static void finish_stop(struct blkif_queue *q)
{
	void (*stopped)(void *arg) = q->stopped;

	list_del(&q->node);
	reactor_timer_stop(blkif_engine_reactor(q->opts.engine), &q->calm);
	reactor_poller_del(&q->poller);
	bdev_channel_close(q->channel);
	blkif_engine_remove_queue(q->opts.engine, q);
	q->stopped = NULL;
	stopped(q->stopped_arg);
}

void blkif_queue_stop(struct blkif_queue *q, void (*stopped)(void *arg), void *arg)
{
	q->stopping = true;
	q->stopped = stopped;
	q->stopped_arg = arg;
	if (!q->in_flight)
		finish_stop(q);
}

void blkif_queue_ring(struct blkif_queue *q)
{
	q->stats.rung++;
	q->empty_rings++;
	reactor_poller_wake(&q->poller);
}

void blkif_queue_answer(struct blkif_queue *q, struct blkif_io *io, uint64_t now_ns)
{
	struct blkif_kind_stats *stats = &q->stats.kinds[io->req.kind];

	blkif_ring_respond(&q->ring, io->req.id, io->req.operation, (int16_t)io->status);
	ledger_of(q, io)->live = 0;
	if (io->refused) {
		q->stats.invalid++;
	} else if (io->status == BLKIF_OKAY) {
		stats->requests++;
		stats->bytes += io->bytes;
		hist_add(&stats->latency, now_ns - io->taken_ns);
	} else {
		stats->requests++;
		stats->errors++;
	}
	q->in_flight--;
	list_add_head(&q->free, &io->node);
}

void blkif_queue_push(struct blkif_queue *q)
{
	if (blkif_ring_push(&q->ring)) {
		q->stats.notified++;
		q->opts.doorbell->ops->notify(q->opts.doorbell);
	}
	if (q->stopping && q->stopped && !q->in_flight)
		finish_stop(q);
}

void blkif_stats_add(struct blkif_stats *to, const struct blkif_stats *from)
{
	for (unsigned i = 0; i < BLKIF_KINDS; i++) {
		to->kinds[i].requests += from->kinds[i].requests;
		to->kinds[i].bytes += from->kinds[i].bytes;
		to->kinds[i].errors += from->kinds[i].errors;
		hist_merge(&to->kinds[i].latency, &from->kinds[i].latency);
	}
	to->invalid += from->invalid;
	to->notified += from->notified;
	to->rung += from->rung;
	to->in_flight += from->in_flight;
}

void blkif_queue_add_stats(const struct blkif_queue *q, struct blkif_stats *stats)
{
	blkif_stats_add(stats, &q->stats);
	stats->in_flight += q->in_flight;
}
