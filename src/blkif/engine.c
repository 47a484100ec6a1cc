/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/engine.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "blkif/io.h"

struct blkif_engine {
	struct poller poller;
	struct reactor *reactor;
	struct share *share;
	struct page_pool pages;
	size_t reserved;     /* pages reserved for queues, in all */
	size_t reserve_max;  /* and the most there have been: so many has the pool for that */
	size_t unfilled;     /* of those reserved, not held now: so many must be free */
	struct list starved; /* queues with ios that wait for pages */
	/* The stages; see engine.h. */
	struct list fetch;
	struct list in;
	struct list submit;
	struct list finished;
	struct list out;
	struct list answer;
	bool feed;        /* starved queues are to be looked at, whatever else there is to do */
	struct list push; /* queues with responses that nobody can see yet */
};

/*
 * Memory of a request
 *
 * Each queue has a reserve that holds its largest request, for which the pool has grown; beyond it
 * queues share what else there is. So a disk whose device hangs can keep the shared pages, and yet
 * the others go on.
 */

static size_t unfilled(const struct blkif_queue *q, size_t held)
{
	return held < q->reserve ? q->reserve - held : 0;
}

static size_t beyond(const struct blkif_queue *q, size_t held)
{
	return held > q->reserve ? held - q->reserve : 0;
}

/*
 * Takes @n pages of the queue's reserve and the shared ones, or none: others' reserves are left,
 * and the guest has no more of the shared ones than it may.
 */
static bool hold_pages(struct blkif_engine *e, struct blkif_queue *q, size_t n)
{
	size_t reserved = e->unfilled - unfilled(q, q->held) + unfilled(q, q->held + n);

	/* The pool keeps the reserve of queues that have gone, for those that come. */
	if (e->pages.free < n + reserved + (e->reserve_max - e->reserved))
		return false;
	if (!blkif_quota_take(&q->opts.guest->bounce, beyond(q, q->held + n) - beyond(q, q->held)))
		return false;
	e->unfilled = reserved;
	q->held += n;
	return true;
}

static void drop_pages(struct blkif_engine *e, struct blkif_queue *q, size_t n)
{
	blkif_quota_put(&q->opts.guest->bounce, beyond(q, q->held) - beyond(q, q->held - n));
	e->unfilled += unfilled(q, q->held - n) - unfilled(q, q->held);
	q->held -= n;
}

/* Gives the request all it may need, at once: so no two can wait for each other. */
static bool acquire_memory(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_indirect_refs *refs;
	size_t pages = 0, meta = io->req.indirect ? BLKIF_INDIRECT_META_PAGES : 0;

	/* The length of an indirect one is not known yet, but no segment is longer than a page. */
	if (io->copy)
		pages = io->req.indirect
				? io->req.nr_segments
				: (io->bytes + PAGE_POOL_PAGE_SIZE - 1) / PAGE_POOL_PAGE_SIZE;
	if (!hold_pages(e, io->queue, pages + meta))
		return false;
	io->segments = io->direct_segments;
	io->pages = io->direct_pages;
	io->iov = io->direct_iov;
	if (io->req.indirect) {
		page_pool_take(&e->pages, io->meta, BLKIF_INDIRECT_META_PAGES);
		io->has_meta = true;
		refs = io->meta[0];
		io->segments = refs->segments;
		io->pages = refs->pages;
		io->iov = ((struct blkif_indirect_iov *)io->meta[1])->iov;
	}
	page_pool_take(&e->pages, io->pages, pages);
	io->nr_pages = (uint16_t)pages;
	return true;
}

static void unmap_data(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	uint64_t now_ns;

	if (io->way == BLKIF_MAPPED) {
		e->share->ops->unmap(e->share, io->pages[0], io->nr_pages);
		blkif_quota_put(&q->opts.guest->maps, io->nr_pages);
	} else {
		now_ns = clock_now_ns();
		while (io->nr_pages)
			blkif_maps_put(&q->maps, io->pages[--io->nr_pages], now_ns);
	}
	io->way = BLKIF_COPIED;
	io->nr_pages = 0;
}

void blkif_engine_release(struct blkif_engine *e, struct blkif_io *io)
{
	if (io->way != BLKIF_COPIED)
		unmap_data(e, io);
	if (io->nr_pages) {
		page_pool_put(&e->pages, io->pages, io->nr_pages);
		drop_pages(e, io->queue, io->nr_pages);
		io->nr_pages = 0;
	}
	if (io->has_meta) {
		page_pool_put(&e->pages, io->meta, BLKIF_INDIRECT_META_PAGES);
		drop_pages(e, io->queue, BLKIF_INDIRECT_META_PAGES);
		io->has_meta = false;
	}
}

int blkif_engine_add_queue(struct blkif_engine *e, struct blkif_queue *q)
{
	int rc;

	if (e->reserved + q->reserve > e->reserve_max) {
		size_t more = e->reserved + q->reserve - e->reserve_max;

		rc = page_pool_grow(&e->pages, more);
		if (rc)
			return rc;
		e->reserve_max += more;
	}
	e->reserved += q->reserve;
	e->unfilled += q->reserve;
	return 0;
}

void blkif_engine_remove_queue(struct blkif_engine *e, struct blkif_queue *q)
{
	e->reserved -= q->reserve;
	e->unfilled -= q->reserve;
}

/* Stages */

static void stage(struct list *list, struct blkif_io *io)
{
	list_add_tail(list, &io->node);
}

static void answer_with(struct blkif_engine *e, struct blkif_io *io, enum blkif_status status)
{
	io->status = status;
	stage(&e->answer, io);
}

static void bio_done(struct bdev_io *bio)
{
	struct blkif_io *io = container_of(bio, struct blkif_io, bio);
	struct blkif_engine *e = io->queue->opts.engine;

	stage(&e->finished, io);
	reactor_poller_wake(&e->poller);
}

/* The request's data as pieces of local memory; pages that follow each other make one piece. */
static void build_iov(struct blkif_io *io)
{
	uint32_t left = io->bytes;
	int n = 0;

	for (unsigned i = 0; left; i++) {
		uint32_t len = left < PAGE_POOL_PAGE_SIZE ? left : PAGE_POOL_PAGE_SIZE;
		struct iovec *last = n ? &io->iov[n - 1] : NULL;

		if (last && (char *)last->iov_base + last->iov_len == io->pages[i])
			last->iov_len += len;
		else
			io->iov[n++] = (struct iovec){.iov_base = io->pages[i], .iov_len = len};
		left -= len;
	}
	io->bio.iov = io->iov;
	io->bio.iovcnt = n;
}

/*
 * Mapping
 *
 * A mapped request's data stays where it is: the device is given the guest's own pages. Whatever
 * stands against it (a page that cannot be mapped, pieces that the device does not take, the
 * guest's quota) is no error: the request is copied instead, and then it shows whether its
 * references are good.
 */

/* Whether the device takes the segments as they lie in the guest's pages. */
static bool can_map(const struct blkif_io *io)
{
	const struct bdev_limits *limits = &io->queue->opts.bdev->limits;

	if (limits->max_iov && io->req.nr_segments > limits->max_iov)
		return false;
	for (unsigned i = 0; i < io->req.nr_segments; i++)
		if (io->segments[i].first_sect * BLKIF_SECTOR_SIZE & (limits->mem_align - 1))
			return false;
	return true;
}

static bool map_for_now(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	uint32_t refs[BLKIF_MAX_SEGMENTS];
	unsigned i = 0, nr = io->req.nr_segments;
	uint64_t now_ns = clock_now_ns();

	if (now_ns < q->map_retry_at_ns || !blkif_quota_take(&q->opts.guest->maps, nr))
		return false;
	do /* there is at least one */
		refs[i] = io->segments[i].gref;
	while (++i < nr);
	io->pages[0] = e->share->ops->map(e->share, q->opts.peer, refs, nr,
					  io->req.kind == BLKIF_KIND_READ);
	if (!io->pages[0]) {
		q->map_retry_at_ns = now_ns + BLKIF_MAPS_RETRY_NS;
		blkif_quota_put(&q->opts.guest->maps, nr);
		return false;
	}
	io->way = BLKIF_MAPPED;
	io->nr_pages = (uint16_t)nr;
	return true;
}

static bool map_to_stay(struct blkif_engine *e, struct blkif_io *io)
{
	uint64_t now_ns = clock_now_ns();

	io->way = BLKIF_PERSISTENT;
	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		struct blkif_map *map =
			blkif_maps_get(&io->queue->maps, io->segments[i].gref, now_ns);

		if (!map) {
			unmap_data(e, io);
			return false;
		}
		io->pages[io->nr_pages++] = map;
	}
	return true;
}

/* Maps the request's pages and makes pieces of its segments; false: it has to be copied. */
static bool map_data(struct blkif_engine *e, struct blkif_io *io)
{
	int n = 0;

	if (!can_map(io))
		return false;
	if (io->queue->opts.sharing == BLKIF_SHARE_MAP ? !map_for_now(e, io) : !map_to_stay(e, io))
		return false;
	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];
		struct iovec *last = n ? &io->iov[n - 1] : NULL;
		char *page = io->way == BLKIF_MAPPED
				     ? (char *)io->pages[0] + (size_t)i * BLKIF_PAGE_SIZE
				     : ((struct blkif_map *)io->pages[i])->addr;
		char *base = page + seg->first_sect * BLKIF_SECTOR_SIZE;
		size_t len = (seg->last_sect - seg->first_sect + 1u) * BLKIF_SECTOR_SIZE;

		if (last && (char *)last->iov_base + last->iov_len == base)
			last->iov_len += len;
		else
			io->iov[n++] = (struct iovec){.iov_base = base, .iov_len = len};
	}
	io->bio.iov = io->iov;
	io->bio.iovcnt = n;
	return true;
}

static void take_memory_and_begin(struct blkif_engine *e, struct blkif_io *io);

/* From the beginning, with what it needs for that, as if it had just come. */
static void copy_instead(struct blkif_engine *e, struct blkif_io *io)
{
	blkif_engine_release(e, io);
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
	bio->offset = io->req.sector * BLKIF_SECTOR_SIZE;
	bio->len = io->bytes;
	bio->secure = io->req.secure;
	switch (io->req.kind) {
	case BLKIF_KIND_FLUSH:
		bio->op = BDEV_FLUSH;
		bio->offset = 0;
		bio->len = 0;
		break;
	case BLKIF_KIND_DISCARD:
		bio->op = BDEV_DISCARD;
		io->bytes = io->req.sectors * BLKIF_SECTOR_SIZE;
		next_discard(io);
		break;
	default:
		bio->op = io->req.kind == BLKIF_KIND_READ ? BDEV_READ : BDEV_WRITE;
		if (!io->copy && !map_data(e, io)) {
			copy_instead(e, io);
			return;
		}
		if (io->way != BLKIF_COPIED)
			break;
		build_iov(io);
		if (bio->op == BDEV_WRITE) {
			stage(&e->in, io);
			return;
		}
	}
	stage(&e->submit, io);
}

/* The request has its memory. */
static void begin(struct blkif_engine *e, struct blkif_io *io)
{
	if (io->req.indirect)
		stage(&e->fetch, io);
	else
		route(e, io);
}

/* Behind those of its queue that came before, whatever it needs. */
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
	if (list_empty(&io->queue->starved) && acquire_memory(e, io))
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

		if (q->paused || !acquire_memory(e, io)) {
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

/* Sharing */

/* A frontend that grants persistently does so with its indirect pages, too. */
static bool read_indirect_page(struct blkif_io *io, uint16_t len)
{
	struct blkif_queue *q = io->queue;
	uint64_t now_ns = clock_now_ns();
	struct blkif_map *map;

	if (q->opts.sharing != BLKIF_SHARE_PERSISTENT || io->copy)
		return false;
	map = blkif_maps_get(&q->maps, io->req.indirect_gref, now_ns);
	if (!map)
		return false;
	/* Copied once, and judged as a copy. */
	memcpy(io->segments, map->addr, len);
	atomic_signal_fence(memory_order_seq_cst);
	blkif_maps_put(&q->maps, map, now_ns);
	return true;
}

static void add_indirect_page(struct blkif_engine *e, struct blkif_io *io)
{
	struct share_piece piece = {
		.peer = io->queue->opts.peer,
		.ref = io->req.indirect_gref,
		.len = (uint16_t)(io->req.nr_segments * sizeof(struct blkif_wire_segment)),
		.local = io->segments,
		.status = &io->share_status,
	};

	if (!read_indirect_page(io, piece.len))
		e->share->ops->copy_in(e->share, &piece);
}

/* The data of all segments, packed: local memory has no gaps, whatever the guest's pages have. */
static void add_data(struct blkif_engine *e, struct blkif_io *io,
		     void (*add)(struct share *s, const struct share_piece *piece))
{
	struct share_piece piece = {
		.peer = io->queue->opts.peer,
		.status = &io->share_status,
	};
	uint32_t done = 0;

	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];
		uint32_t left =
			(uint32_t)(seg->last_sect - seg->first_sect + 1) * BLKIF_SECTOR_SIZE;

		piece.ref = seg->gref;
		piece.offset = (uint16_t)(seg->first_sect * BLKIF_SECTOR_SIZE);
		while (left) {
			uint32_t at = done % PAGE_POOL_PAGE_SIZE;
			uint32_t len =
				PAGE_POOL_PAGE_SIZE - at < left ? PAGE_POOL_PAGE_SIZE - at : left;

			piece.local = (char *)io->pages[done / PAGE_POOL_PAGE_SIZE] + at;
			piece.len = (uint16_t)len;
			add(e->share, &piece);
			piece.offset = (uint16_t)(piece.offset + len);
			done += len;
			left -= len;
		}
	}
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

/* Copies for the requests of all queues, in one go; then each moves on by its own outcome. */
static void share_all(struct blkif_engine *e)
{
	const struct share_ops *ops = e->share->ops;
	struct list fetched = LIST_INIT(fetched), copied = LIST_INIT(copied);
	struct list *pos;

	if (list_empty(&e->fetch) && list_empty(&e->in) && list_empty(&e->out))
		return;
	list_for_each (pos, &e->fetch)
		add_indirect_page(e, list_entry(pos, struct blkif_io, node));
	list_for_each (pos, &e->in)
		add_data(e, list_entry(pos, struct blkif_io, node), ops->copy_in);
	list_for_each (pos, &e->out)
		add_data(e, list_entry(pos, struct blkif_io, node), ops->copy_out);
	ops->flush(e->share);

	list_splice_tail(&fetched, &e->fetch);
	list_splice_tail(&copied, &e->in);
	while ((pos = list_pop(&e->out))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);

		answer_with(e, io, io->share_status ? BLKIF_ERROR : BLKIF_OKAY);
	}
	while ((pos = list_pop(&copied))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);

		if (io->share_status)
			answer_with(e, io, BLKIF_ERROR);
		else
			stage(&e->submit, io);
	}
	while ((pos = list_pop(&fetched)))
		indirect_page_is_here(e, list_entry(pos, struct blkif_io, node));
}

/* The device's side */

static void submit_all(struct blkif_engine *e)
{
	struct list *pos;

	while ((pos = list_pop(&e->submit))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);

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
	if (io->req.kind == BLKIF_KIND_READ && io->way == BLKIF_COPIED)
		stage(&e->out, io);
	else
		answer_with(e, io, BLKIF_OKAY);
}

static void take_back_finished(struct blkif_engine *e)
{
	struct list finished = LIST_INIT(finished);
	struct list *pos;

	list_splice_tail(&finished, &e->finished);
	while ((pos = list_pop(&finished))) {
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
	uint64_t now_ns;

	if (list_empty(&e->answer))
		return;
	now_ns = clock_now_ns();
	while ((pos = list_pop(&e->answer))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);
		struct blkif_queue *q = io->queue;

		/* First of all: a response says that the guest's pages are its own again. */
		blkif_engine_release(e, io);
		blkif_queue_answer(q, io, now_ns);
		if (list_empty(&q->node))
			list_add_tail(&e->push, &q->node);
	}
	while ((pos = list_pop(&e->push)))
		blkif_queue_push(list_entry(pos, struct blkif_queue, node));
}

static bool has_work(const struct blkif_engine *e)
{
	/* The starved wait for pages, which come back with the requests that have them. */
	return !list_empty(&e->fetch) || !list_empty(&e->in) || !list_empty(&e->submit) ||
	       !list_empty(&e->finished) || !list_empty(&e->out) || !list_empty(&e->answer) ||
	       e->feed;
}

static int engine_poll(struct poller *p)
{
	struct blkif_engine *e = container_of(p, struct blkif_engine, poller);

	if (!has_work(e))
		return 0;
	take_back_finished(e);
	share_all(e);
	submit_all(e);
	answer_all(e);
	e->feed = false;
	feed_starved(e);
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
	page_pool_init(&e->pages);
	rc = page_pool_grow(&e->pages, pages);
	if (rc) {
		free(e);
		return rc;
	}
	e->reactor = r;
	e->share = share;
	e->poller = (struct poller){.name = "blkif", .poll = engine_poll, .arm = engine_arm};
	list_init(&e->starved);
	list_init(&e->fetch);
	list_init(&e->in);
	list_init(&e->submit);
	list_init(&e->finished);
	list_init(&e->out);
	list_init(&e->answer);
	list_init(&e->push);
	*out = e;
	return 0;
}

void blkif_engine_destroy(struct blkif_engine *e)
{
	page_pool_fini(&e->pages);
	free(e);
}

void blkif_engine_start(struct blkif_engine *e)
{
	reactor_poller_add(e->reactor, &e->poller);
}

void blkif_engine_stop(struct blkif_engine *e)
{
	reactor_poller_del(&e->poller);
}

struct reactor *blkif_engine_reactor(const struct blkif_engine *e)
{
	return e->reactor;
}

struct share *blkif_engine_share(const struct blkif_engine *e)
{
	return e->share;
}
