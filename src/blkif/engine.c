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
	/* The stages; see engine.h. */
	struct list starved;
	struct list fetch;
	struct list in;
	struct list submit;
	struct list finished;
	struct list out;
	struct list answer;
	struct list push; /* queues with responses that nobody can see yet */
};

/* Memory of a request */

/* Gives the request what it may need at most, all at once: so no two can wait for each other. */
static bool acquire_memory(struct blkif_engine *e, struct blkif_io *io)
{
	struct blkif_indirect_refs *refs;

	if (!io->req.indirect) {
		io->segments = io->direct_segments;
		io->pages = io->direct_pages;
		io->iov = io->direct_iov;
		io->nr_pages =
			(uint16_t)((io->bytes + PAGE_POOL_PAGE_SIZE - 1) / PAGE_POOL_PAGE_SIZE);
		return page_pool_take(&e->pages, io->pages, io->nr_pages);
	}
	if (e->pages.free < BLKIF_INDIRECT_META_PAGES + (size_t)io->req.nr_segments)
		return false;
	page_pool_take(&e->pages, io->meta, BLKIF_INDIRECT_META_PAGES);
	refs = io->meta[0];
	io->segments = refs->segments;
	io->pages = refs->pages;
	io->iov = ((struct blkif_indirect_iov *)io->meta[1])->iov;
	io->nr_pages = io->req.nr_segments;
	page_pool_take(&e->pages, io->pages, io->nr_pages);
	return true;
}

static void release_memory(struct blkif_engine *e, struct blkif_io *io)
{
	if (!io->nr_pages)
		return;
	page_pool_put(&e->pages, io->pages, io->nr_pages);
	if (io->req.indirect)
		page_pool_put(&e->pages, io->meta, BLKIF_INDIRECT_META_PAGES);
	io->nr_pages = 0;
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

void blkif_engine_take(struct blkif_engine *e, struct blkif_io *io)
{
	reactor_poller_wake(&e->poller);
	if (io->status != BLKIF_OKAY)
		stage(&e->answer, io);
	else if (io->req.kind == BLKIF_KIND_FLUSH)
		route(e, io);
	else if (list_empty(&e->starved) && acquire_memory(e, io))
		begin(e, io);
	else
		stage(&e->starved, io); /* behind those who came before, whatever it needs */
}

static void feed_starved(struct blkif_engine *e)
{
	while (!list_empty(&e->starved)) {
		struct blkif_io *io = list_entry(e->starved.next, struct blkif_io, node);

		if (!acquire_memory(e, io))
			return;
		list_del(&io->node);
		begin(e, io);
	}
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
			log_limited(&io->queue->log_limit, LOG_LEVEL_WARNING,
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

static int answer_all(struct blkif_engine *e)
{
	struct list *pos;
	uint64_t now_ns;
	int n = 0;

	if (list_empty(&e->answer))
		return 0;
	now_ns = clock_now_ns();
	while ((pos = list_pop(&e->answer))) {
		struct blkif_io *io = list_entry(pos, struct blkif_io, node);
		struct blkif_queue *q = io->queue;

		release_memory(e, io);
		blkif_queue_answer(q, io, now_ns);
		if (list_empty(&q->node))
			list_add_tail(&e->push, &q->node);
		n++;
	}
	while ((pos = list_pop(&e->push)))
		blkif_queue_push(list_entry(pos, struct blkif_queue, node));
	return n;
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
	struct blkif_engine *e;
	int rc;

	if (pages < BLKIF_MAX_SEGMENTS + BLKIF_INDIRECT_META_PAGES)
		return -EINVAL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	rc = page_pool_init(&e->pages, pages);
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
