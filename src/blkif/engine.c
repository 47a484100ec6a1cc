/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "blkif/bounce.h"
#include "blkif/data.h"
#include "blkif/io.h"
#include "blkif/io_pool.h"

/* Between two requests of one queue the engine stays where it is: waking it costs more. */
#define SPIN_MAX_NS (20 * NSEC_PER_USEC)

struct blkif_engine {
	struct poller poller;
	struct reactor *reactor;
	struct share *share;
	struct blkif_bounces bounces;
	struct blkif_io_pool ios;
	struct list starved; /* queues with ios that wait for pages */
	/* The stages; see engine.h. */
	struct list fetch;
	struct list in;
	struct list map;
	struct list submit;
	struct list finished;
	struct list out;
	struct list unmap;
	struct list answer;
	uint64_t now_ns;  /* once it was asked for in this pass, else 0 */
	bool feed;        /* starved queues are to be looked at, whatever else there is to do */
	struct list push; /* queues with responses that nobody can see yet */
};

void blkif_engine_release(struct blkif_io *io)
{
	/* What is always there was neither mapped nor copied. */
	if (!io->nr_pages && !io->has_meta)
		return;
	blkif_data_unmap(io);
	blkif_bounce_put(io);
}

/* Stages */

static void stage(struct list *list, struct blkif_io *io)
{
	list_add_tail(list, &io->node);
}

static void answer_with(struct blkif_engine *e, struct blkif_io *io, enum blkif_status status)
{
	io->status = status;
	stage(io->way == BLKIF_DMA && io->nr_pages ? &e->unmap : &e->answer, io);
}

/* The device has done all of it. */
static void data_is_done(struct blkif_engine *e, struct blkif_io *io)
{
	if (io->req.kind == BLKIF_KIND_READ && io->way == BLKIF_COPIED)
		stage(&e->out, io);
	else
		answer_with(e, io, BLKIF_OKAY);
}

/* Nothing but to put it into the next list: the device's driver is in the midst of its work. */
static void bio_done(struct bdev_io *bio)
{
	struct blkif_io *io = container_of(bio, struct blkif_io, bio);
	struct blkif_engine *e = io->queue->opts.engine;

	if (bio->result < 0 || io->has_more)
		stage(&e->finished, io);
	else
		data_is_done(e, io);
	reactor_poller_wake(&e->poller);
}

static void take_memory_and_begin(struct blkif_engine *e, struct blkif_io *io);

/* From the beginning, with what it needs for that, as if it had just come. */
static void copy_instead(struct blkif_engine *e, struct blkif_io *io)
{
	blkif_engine_release(io);
	io->way = BLKIF_COPIED;
	io->copy = true;
	take_memory_and_begin(e, io);
}

/* How much of a DISCARD is asked of the device next: at most what it takes, to a whole granule. */
static void next_discard(struct blkif_io *io)
{
	const struct bdev_limits *limits = &io->queue->opts.bdev->limits;
	struct bdev_io *bio = &io->bio;
	uint64_t end = (io->req.sector + io->req.sectors) * BLKIF_SECTOR_SIZE;
	uint64_t over;

	bio->len = end - bio->offset;
	if (!limits->discard_max || bio->len <= limits->discard_max)
		return;
	bio->len = limits->discard_max;
	if (limits->discard_granularity) {
		over = (bio->offset + bio->len - limits->discard_alignment) %
		       limits->discard_granularity;
		if (over < bio->len)
			bio->len -= over;
	}
}

/* The segments are known and good: builds the bdev's io and sends the request on its way. */
static void route(struct blkif_engine *e, struct blkif_io *io)
{
	struct bdev_io *bio = &io->bio;

	bio->done = bio_done;
	bio->iov = NULL;
	bio->iovcnt = 0;
	bio->pieces = NULL;
	bio->nr_pieces = 0;
	bio->offset = io->req.sector * BLKIF_SECTOR_SIZE;
	bio->len = io->bytes;
	bio->secure = io->req.secure;
	io->has_more = io->req.preflush | io->req.postflush;
	switch (io->req.kind) {
	case BLKIF_KIND_FLUSH:
		bio->op = BDEV_FLUSH;
		bio->offset = 0;
		bio->len = 0;
		break;
	case BLKIF_KIND_DISCARD:
		bio->op = BDEV_DISCARD;
		io->bytes = io->req.sectors * BLKIF_SECTOR_SIZE;
		io->has_more = true;
		next_discard(io);
		break;
	default:
		bio->op = io->req.kind == BLKIF_KIND_READ ? BDEV_READ : BDEV_WRITE;
		if (!io->copy && !blkif_data_map(io)) {
			copy_instead(e, io);
			return;
		}
		if (blkif_data_is_dma(io)) {
			stage(&e->map, io);
			return;
		}
		if (io->way != BLKIF_COPIED)
			break;
		blkif_data_describe(io);
		if (bio->op == BDEV_WRITE) {
			stage(&e->in, io);
			return;
		}
	}
	stage(&e->submit, io);
}

static void indirect_page_is_here(struct blkif_engine *e, struct blkif_io *io)
{
	enum blkif_status status;
	uint32_t bytes = 0;

	if (io->share_status) {
		answer_with(e, io, BLKIF_ERROR);
		return;
	}
	status = blkif_decode_segments(&io->req, io->segments, &io->queue->opts.limits, &bytes);
	io->bytes = bytes;
	if (status != BLKIF_OKAY) {
		io->refused = true;
		answer_with(e, io, status);
		return;
	}
	route(e, io);
}

/* The request has its memory. */
static void begin(struct blkif_engine *e, struct blkif_io *io)
{
	if (!io->req.indirect)
		route(e, io);
	else if (!io->copy && blkif_data_read_indirect(io))
		indirect_page_is_here(e, io);
	else
		stage(&e->fetch, io);
}

/* Behind those of its queue that came before and want memory, however little it needs. */
static void starve(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;

	stage(&q->starved, io);
	q->nr_starved++;
	q->stats.starved++;
	if (list_empty(&q->starved_node))
		list_add_tail(&e->starved, &q->starved_node);
}

static void take_memory_and_begin(struct blkif_engine *e, struct blkif_io *io)
{
	if (!io->copy && !io->req.indirect)
		route(e, io);
	else if (list_empty(&io->queue->starved) && blkif_bounce_take(io))
		begin(e, io);
	else
		starve(e, io);
}

void blkif_engine_take(struct blkif_engine *e, struct blkif_io *io)
{
	reactor_poller_wake(&e->poller);
	if (io->status != BLKIF_OKAY)
		stage(&e->answer, io);
	else if (!io->req.nr_segments)
		route(e, io);
	else
		take_memory_and_begin(e, io);
}

void blkif_engine_retry(struct blkif_engine *e, struct blkif_io *io, bool fail)
{
	reactor_poller_wake(&e->poller);
	if (fail)
		answer_with(e, io, BLKIF_ERROR);
	else
		stage(&e->submit, io);
}

void blkif_engine_wake(struct blkif_engine *e)
{
	e->feed = true;
	reactor_poller_wake(&e->poller);
}

/* Queues in turn, one request each, until no queue's next can have what it needs. */
static void feed_starved(struct blkif_engine *e)
{
	struct list stuck = LIST_INIT(stuck);
	struct list *pos, *next;

	while ((pos = list_pop(&e->starved))) {
		struct blkif_queue *q = list_entry(pos, struct blkif_queue, starved_node);
		struct blkif_io *io = list_entry(q->starved.next, struct blkif_io, node);

		if (q->paused || !blkif_bounce_take(io)) {
			list_add_tail(&stuck, &q->starved_node);
			continue;
		}
		list_del(&io->node);
		q->nr_starved--;
		begin(e, io);
		/* It may be back among them by itself, to be copied and not mapped. */
		if (!list_empty(&q->starved) && list_empty(&q->starved_node))
			list_add_tail(&e->starved, &q->starved_node);
	}
	list_splice_tail(&e->starved, &stuck);
	/* One of theirs may have come here from another stage: then nothing else says that it
	 * waits. */
	list_for_each_safe (pos, next, &e->starved)
		blkif_queue_look_for_end(list_entry(pos, struct blkif_queue, starved_node));
}

static void mapping_is_done(struct blkif_engine *e, struct blkif_io *io)
{
	if (blkif_data_take_maps(io)) {
		stage(&e->submit, io);
	} else if (io->way == BLKIF_DMA) {
		/* What was mapped ends first. */
		io->copy = true;
		stage(&e->unmap, io);
	} else {
		copy_instead(e, io);
	}
}

static void pages_are_unmapped(struct blkif_engine *e, struct blkif_io *io)
{
	if (io->copy)
		copy_instead(e, io);
	else
		stage(&e->answer, io);
}

/* All that was added is done: each moves on by its own outcome. */
static void move_on(struct blkif_engine *e, struct list *from,
		    void (*next)(struct blkif_engine *e, struct blkif_io *io))
{
	struct list *pos;

	while ((pos = list_pop(from)))
		next(e, list_entry(pos, struct blkif_io, node));
}

static void data_went_out(struct blkif_engine *e, struct blkif_io *io)
{
	answer_with(e, io, io->share_status ? BLKIF_ERROR : BLKIF_OKAY);
}

static void data_came_in(struct blkif_engine *e, struct blkif_io *io)
{
	if (io->share_status)
		answer_with(e, io, BLKIF_ERROR);
	else
		stage(&e->submit, io);
}

static bool has_steps(const struct blkif_engine *e)
{
	return !list_empty(&e->fetch) || !list_empty(&e->in) || !list_empty(&e->map) ||
	       !list_empty(&e->out) || !list_empty(&e->unmap);
}

/* The share's steps for the requests of all queues, in one go. */
static void share_all(struct blkif_engine *e)
{
	const struct share_ops *ops = e->share->ops;
	struct list fetched = LIST_INIT(fetched), copied_in = LIST_INIT(copied_in);
	struct list mapped = LIST_INIT(mapped), copied_out = LIST_INIT(copied_out);
	struct list unmapped = LIST_INIT(unmapped);
	struct list *pos;

	if (!has_steps(e))
		return;
	list_for_each (pos, &e->fetch)
		blkif_data_fetch(list_entry(pos, struct blkif_io, node));
	list_for_each (pos, &e->in)
		blkif_data_copy(list_entry(pos, struct blkif_io, node), ops->copy_in);
	list_for_each (pos, &e->out)
		blkif_data_copy(list_entry(pos, struct blkif_io, node), ops->copy_out);
	list_for_each (pos, &e->unmap)
		blkif_data_unmap(list_entry(pos, struct blkif_io, node));
	list_for_each (pos, &e->map)
		blkif_data_add_maps(list_entry(pos, struct blkif_io, node));
	ops->flush(e->share);

	/* What is found now has its turn when this is called again. */
	list_splice_tail(&fetched, &e->fetch);
	list_splice_tail(&copied_in, &e->in);
	list_splice_tail(&mapped, &e->map);
	list_splice_tail(&copied_out, &e->out);
	list_splice_tail(&unmapped, &e->unmap);
	move_on(e, &copied_out, data_went_out);
	move_on(e, &unmapped, pages_are_unmapped);
	move_on(e, &copied_in, data_came_in);
	move_on(e, &mapped, mapping_is_done);
	move_on(e, &fetched, indirect_page_is_here);
}

void blkif_engine_flush(struct blkif_engine *e)
{
	e->share->ops->flush(e->share);
}

/* The device's side */

static void prefetch_next(struct blkif_engine *e)
{
	if (!list_empty(&e->submit)) {
		struct blkif_io *next = list_entry(e->submit.next, struct blkif_io, node);

		bdev_prefetch(next->queue->channel, &next->bio);
	}
}

static void submit_all(struct blkif_engine *e)
{
	struct list *pos;

	while ((pos = list_pop(&e->submit))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);

		prefetch_next(e);
		if (io->req.preflush) {
			struct bdev_io *bio = &io->bio;

			bio->op = BDEV_FLUSH;
			bio->offset = 0;
			bio->len = 0;
		}
		bdev_submit(io->queue->channel, &io->bio);
	}
}

static void device_failed(struct blkif_engine *e, struct blkif_io *io)
{
	int error = io->bio.result;

	log_limited(io->queue->opts.log_limit, LOG_LEVEL_WARNING,
		    "%s: the device failed a request at sector %lu: %s", io->queue->label,
		    (unsigned long)io->req.sector, strerror(-error));
	if (!blkif_queue_park(io->queue, io, error))
		answer_with(e, io, error == -EOPNOTSUPP ? BLKIF_EOPNOTSUPP : BLKIF_ERROR);
}

/* The device has done what it was asked: the next step of the request. */
static void device_done(struct blkif_engine *e, struct blkif_io *io)
{
	struct bdev_io *bio = &io->bio;

	if (io->req.preflush) {
		io->req.preflush = false;
		bio->op = BDEV_WRITE;
		bio->offset = io->req.sector * BLKIF_SECTOR_SIZE;
		bio->len = io->bytes;
		stage(&e->submit, io);
		return;
	}
	if (bio->op == BDEV_WRITE && io->req.postflush) {
		bio->op = BDEV_FLUSH;
		bio->offset = 0;
		bio->len = 0;
		stage(&e->submit, io);
		return;
	}
	if (bio->op == BDEV_DISCARD) {
		bio->offset += bio->len;
		if (bio->offset < (io->req.sector + io->req.sectors) * BLKIF_SECTOR_SIZE) {
			next_discard(io);
			if (!blkif_queue_hold(io->queue, io))
				stage(&e->submit, io);
			return;
		}
	}
	data_is_done(e, io);
}

static void take_back_finished(struct blkif_engine *e)
{
	struct list *pos;

	while ((pos = list_pop(&e->finished))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);

		if (io->bio.result < 0)
			device_failed(e, io);
		else
			device_done(e, io);
	}
}

static void answer_all(struct blkif_engine *e)
{
	struct list *pos;

	if (list_empty(&e->answer))
		return;
	/* Hypercalls and the device's driver have taken their time: that is the requests' too. */
	e->now_ns = reactor_clock_ns(e->reactor);
	while ((pos = list_pop(&e->answer))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);
		struct blkif_queue *q = io->queue;

		/* First of all: a response says that the guest's pages are its own again. */
		blkif_engine_release(io);
		blkif_queue_answer(q, io, e->now_ns);
		if (list_empty(&q->node))
			list_add_tail(&e->push, &q->node);
	}
	while ((pos = list_pop(&e->push)))
		blkif_queue_push(list_entry(pos, struct blkif_queue, node));
}

static bool has_work(const struct blkif_engine *e)
{
	/* The starved wait for pages, which come back with the requests that have them. */
	return has_steps(e) || !list_empty(&e->submit) || !list_empty(&e->finished) ||
	       !list_empty(&e->answer) || e->feed;
}

static int engine_poll(struct poller *p)
{
	struct blkif_engine *e = container_of(p, struct blkif_engine, poller);

	e->now_ns = 0;
	if (!has_work(e))
		return 0;
	take_back_finished(e);
	share_all(e);
	submit_all(e);
	/*
	 * What the device had at hand is done already: data and answer go out now. Would direct
	 * reads wait for another pass, and direct writes not, then of many busy queues those got
	 * more whose frontends happen to be back before their turn.
	 */
	take_back_finished(e);
	if (!list_empty(&e->out))
		share_all(e);
	answer_all(e);
	e->feed = false;
	feed_starved(e);
	e->now_ns = 0;
	return 1;
}

static bool engine_arm(struct poller *p)
{
	/* Only this thread feeds the stages, and whoever does wakes the poller. */
	return has_work(container_of(p, struct blkif_engine, poller));
}

int blkif_engine_create(struct reactor *r, struct share *share, size_t pages,
			struct blkif_engine **out)
{
	struct blkif_engine *e = calloc(1, sizeof(*e));
	int rc;

	if (!e)
		return -ENOMEM;
	rc = blkif_bounces_init(&e->bounces, r, pages);
	if (rc)
		goto no_bounces;
	rc = blkif_io_pool_init(&e->ios, r);
	if (rc)
		goto no_ios;
	e->reactor = r;
	e->share = share;
	e->poller = (struct poller){
		.name = "blkif",
		.poll = engine_poll,
		.arm = engine_arm,
		.spin_max_ns = SPIN_MAX_NS,
	};
	list_init(&e->starved);
	list_init(&e->fetch);
	list_init(&e->in);
	list_init(&e->map);
	list_init(&e->submit);
	list_init(&e->finished);
	list_init(&e->out);
	list_init(&e->unmap);
	list_init(&e->answer);
	list_init(&e->push);
	*out = e;
	return 0;
no_ios:
	blkif_bounces_fini(&e->bounces);
no_bounces:
	free(e);
	return rc;
}

void blkif_engine_destroy(struct blkif_engine *e)
{
	blkif_io_pool_fini(&e->ios);
	blkif_bounces_fini(&e->bounces);
	free(e);
}

void blkif_engine_start(struct blkif_engine *e)
{
	reactor_poller_add(e->reactor, &e->poller);
}

void blkif_engine_stop(struct blkif_engine *e)
{
	reactor_poller_del(&e->poller);
	blkif_io_pool_stop(&e->ios);
	blkif_bounces_stop(&e->bounces);
}

struct reactor *blkif_engine_reactor(const struct blkif_engine *e)
{
	return e->reactor;
}

struct blkif_bounces *blkif_engine_bounces(struct blkif_engine *e)
{
	return &e->bounces;
}

uint64_t blkif_engine_now(struct blkif_engine *e)
{
	if (!e->now_ns)
		e->now_ns = reactor_clock_ns(e->reactor);
	return e->now_ns;
}

struct blkif_io_pool *blkif_engine_ios(struct blkif_engine *e)
{
	return &e->ios;
}

struct share *blkif_engine_share(const struct blkif_engine *e)
{
	return e->share;
}
