/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/engine.h"

#include <errno.h>
#include <stdlib.h>

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

/* Takes @n pages of the queue's reserve and the shared ones, or none: others' reserves are left. */
static bool hold_pages(struct blkif_engine *e, struct blkif_queue *q, size_t n)
{
	size_t reserved = e->unfilled - unfilled(q, q->held) + unfilled(q, q->held + n);

	/* The pool keeps the reserve of queues that have gone, for those that come. */
	if (e->pages.free < n + reserved + (e->reserve_max - e->reserved))
		return false;
	e->unfilled = reserved;
	q->held += n;
	return true;
}

/* Gives the request all it may need, at once: so no two can wait for each other. */
static bool acquire_memory(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_indirect_refs *refs;
	size_t pages = (io->bytes + PAGE_POOL_PAGE_SIZE - 1) / PAGE_POOL_PAGE_SIZE;

	if (!io->req.indirect) {
		if (!hold_pages(e, io->queue, pages))
			return false;
		io->segments = io->direct_segments;
		io->pages = io->direct_pages;
		io->iov = io->direct_iov;
	} else {
		/* Its length is not known yet, but no segment is longer than a page. */
		pages = io->req.nr_segments;
		if (!hold_pages(e, io->queue, pages + BLKIF_INDIRECT_META_PAGES))
			return false;
		page_pool_take(&e->pages, io->meta, BLKIF_INDIRECT_META_PAGES);
		refs = io->meta[0];
		io->segments = refs->segments;
		io->pages = refs->pages;
		io->iov = ((struct blkif_indirect_iov *)io->meta[1])->iov;
	}
	page_pool_take(&e->pages, io->pages, pages);
	io->nr_pages = (uint16_t)pages;
	return true;
}

static void release_memory(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	size_t n = io->nr_pages;

	if (!n)
		return;
	page_pool_put(&e->pages, io->pages, n);
	if (io->req.indirect) {
		page_pool_put(&e->pages, io->meta, BLKIF_INDIRECT_META_PAGES);
		n += BLKIF_INDIRECT_META_PAGES;
	}
	io->nr_pages = 0;
	e->unfilled += unfilled(q, q->held - n) - unfilled(q, q->held);
	q->held -= n;
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

/* The segments are known and good: builds the bdev's io and sends the request on its way. */
static void route(struct blkif_engine *e, struct blkif_io *io)
{
	struct bdev_io *bio = &io->bio;

	bio->done = bio_done;
	bio->iov = NULL;
	bio->iovcnt = 0;
	bio->offset = 0;
	bio->len = 0;
	if (io->req.kind == BLKIF_KIND_FLUSH) {
		bio->op = BDEV_FLUSH;
		stage(&e->submit, io);
		return;
	}
	bio->op = io->req.kind == BLKIF_KIND_READ ? BDEV_READ : BDEV_WRITE;
	bio->offset = io->req.sector * BLKIF_SECTOR_SIZE;
	bio->len = io->bytes;
	build_iov(io);
	stage(bio->op == BDEV_WRITE ? &e->in : &e->submit, io);
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
	if (list_empty(&q->starved_node))
		list_add_tail(&e->starved, &q->starved_node);
}

void blkif_engine_take(struct blkif_engine *e, struct blkif_io *io)
{
	reactor_poller_wake(&e->poller);
	if (io->status != BLKIF_OKAY)
		stage(&e->answer, io);
	else if (io->req.kind == BLKIF_KIND_FLUSH)
		route(e, io);
	else if (list_empty(&io->queue->starved) && acquire_memory(e, io))
		begin(e, io);
	else
		starve(e, io);
}

/* Queues in turn, one request each, until no queue's next can have what it needs. */
static void feed_starved(struct blkif_engine *e)
{
	struct list stuck = LIST_INIT(stuck);
	struct list *pos;

	while ((pos = list_pop(&e->starved))) {
		struct blkif_queue *q = list_entry(pos, struct blkif_queue, starved_node);
		struct blkif_io *io = list_entry(q->starved.next, struct blkif_io, node);

		if (!acquire_memory(e, io)) {
			list_add_tail(&stuck, &q->starved_node);
			continue;
		}
		list_del(&io->node);
		begin(e, io);
		if (!list_empty(&q->starved))
			list_add_tail(&e->starved, &q->starved_node);
	}
	list_splice_tail(&e->starved, &stuck);
}

/* Sharing */

static void add_indirect_page(struct blkif_engine *e, struct blkif_io *io)
{
	struct share_piece piece = {
		.peer = io->queue->opts.peer,
		.ref = io->req.indirect_gref,
		.len = (uint16_t)(io->req.nr_segments * sizeof(struct blkif_wire_segment)),
		.local = io->segments,
		.status = &io->share_status,
	};

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

	if (io->share_status) {
		answer_with(e, io, BLKIF_ERROR);
		return;
	}
	status = blkif_decode_segments(&io->req, io->segments, &io->queue->opts.limits, &io->bytes);
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

static void take_back_finished(struct blkif_engine *e)
{
	struct list finished = LIST_INIT(finished);
	struct list *pos;

	list_splice_tail(&finished, &e->finished);
	while ((pos = list_pop(&finished))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);

		if (io->bio.result < 0) {
			log_limited(io->queue->opts.log_limit, LOG_LEVEL_WARNING,
				    "%s: the device failed a request at sector %lu: errno %d",
				    io->queue->label, (unsigned long)io->req.sector,
				    -io->bio.result);
			answer_with(e, io,
				    io->bio.result == -EOPNOTSUPP ? BLKIF_EOPNOTSUPP : BLKIF_ERROR);
		} else if (io->req.preflush) {
			io->req.preflush = false;
			io->bio.op = BDEV_WRITE;
			io->bio.offset = io->req.sector * BLKIF_SECTOR_SIZE;
			io->bio.len = io->bytes;
			stage(&e->submit, io);
		} else if (io->req.kind == BLKIF_KIND_READ) {
			stage(&e->out, io);
		} else {
			answer_with(e, io, BLKIF_OKAY);
		}
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

		release_memory(e, io);
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
	       !list_empty(&e->finished) || !list_empty(&e->out) || !list_empty(&e->answer);
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
