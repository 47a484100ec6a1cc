/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/bounce.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/page_pool.h"
#include "blkif/io.h"

enum { DEVICE_STEP = 64 }; /* pages */

/*
 * What nobody needed for a period goes back to the kernel, but for a few pages; in slices, as a
 * reactor has other work, too.
 */
enum { TRIM_KEEP = 256, TRIM_SLICE = 64 };
#define TRIM_PERIOD_NS (10 * NSEC_PER_SEC)
#define TRIM_SLICE_NS  (2 * NSEC_PER_MSEC)

/* So seldom is device memory asked for that was refused. */
#define DEVICE_RETRY_NS NSEC_PER_SEC

struct blkif_bounce {
	struct list node;
	struct dma *dma; /* NULL: anonymous memory */
	struct page_pool pages;
	size_t reserved;    /* pages reserved for queues, in all */
	size_t reserve_max; /* and the most there have been: so many has the pool for that */
	size_t unfilled;    /* of those reserved, not held now: so many must be free */
	size_t shared;      /* pages beyond reserve_max */
	size_t shared_max;
	struct list chunks; /* of device memory */
	uint64_t retry_at_ns;
	struct reactor *reactor;
	struct reactor_timer trim;
};

struct chunk {
	struct list node;
	struct dma_memory memory;
};

/* Pools */

static int grow_by_device_memory(struct blkif_bounce *b, size_t pages, struct err *err)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk));
	int rc;

	if (!chunk)
		return err_set(err, -ENOMEM, "no memory for bounce pages");
	rc = dma_alloc(b->dma, pages, false, &chunk->memory, err);
	if (rc)
		goto no_memory;
	rc = page_pool_add(&b->pages, chunk->memory.virt, pages);
	if (rc) {
		err_set(err, rc, "no memory for bounce pages");
		goto no_room;
	}
	list_add_tail(&b->chunks, &chunk->node);
	return 0;
no_room:
	dma_free(b->dma, &chunk->memory);
no_memory:
	free(chunk);
	return rc;
}

static int grow(struct blkif_bounce *b, size_t pages, struct err *err)
{
	int rc;

	if (b->dma)
		return grow_by_device_memory(b, pages, err);
	rc = page_pool_grow(&b->pages, pages);
	return rc ? err_set(err, rc, "no memory for %zu bounce pages", pages) : 0;
}

/* By how many pages the shared ones may become more. */
static size_t room_to_share(const struct blkif_bounce *b)
{
	size_t room = b->shared_max - b->shared, left;

	if (!b->dma)
		return room;
	/* Half of the device memory is for those who cannot do without: queues and drives. */
	left = dma_count_left(b->dma);
	left -= left < b->dma->window / 2 ? left : b->dma->window / 2;
	return left < room ? left : room;
}

/* More to share, @missing pages at least, as far as there may be. */
static bool grow_shared(struct blkif_bounce *b, size_t missing)
{
	size_t left = room_to_share(b);
	size_t step = missing > DEVICE_STEP ? missing : DEVICE_STEP;
	uint64_t now_ns;
	struct err err;

	if (missing > left)
		return false;
	now_ns = clock_now_ns();
	if (now_ns < b->retry_at_ns)
		return false;
	if (step > left)
		step = left;
	if (grow(b, step, &err)) {
		step = missing;
		if (grow(b, step, &err)) {
			b->retry_at_ns = now_ns + DEVICE_RETRY_NS;
			return false;
		}
	}
	b->shared += step;
	return true;
}

static void destroy(struct blkif_bounce *b)
{
	struct list *pos;

	page_pool_fini(&b->pages);
	while ((pos = list_pop(&b->chunks))) {
		struct chunk *chunk = list_entry(pos, struct chunk, node);

		dma_free(b->dma, &chunk->memory);
		free(chunk);
	}
	list_del(&b->node);
	free(b);
}

static void trim(struct reactor_timer *t)
{
	struct blkif_bounce *b = container_of(t, struct blkif_bounce, trim);

	if (page_pool_trim(&b->pages, TRIM_KEEP, TRIM_SLICE))
		reactor_timer_start(b->reactor, t, TRIM_SLICE_NS);
	/* An idle pool is at its least in the end, and wakes nobody. */
	else if (page_pool_count_warm(&b->pages) > TRIM_KEEP)
		reactor_timer_start(b->reactor, t, TRIM_PERIOD_NS);
}

static void page_was_warmed(void *arg)
{
	struct blkif_bounce *b = arg;

	if (!b->trim.running && !b->dma && page_pool_count_warm(&b->pages) > TRIM_KEEP)
		reactor_timer_start(b->reactor, &b->trim, TRIM_PERIOD_NS);
}

static struct blkif_bounce *create(struct blkif_bounces *all, struct dma *dma)
{
	struct blkif_bounce *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->dma = dma;
	b->shared_max = all->shared;
	page_pool_init(&b->pages);
	b->pages.warmed = page_was_warmed;
	b->pages.arg = b;
	b->reactor = all->reactor;
	b->trim.fire = trim;
	list_init(&b->chunks);
	list_add_tail(&all->pools, &b->node);
	return b;
}

static struct blkif_bounce *find(struct blkif_bounces *all, struct dma *dma)
{
	struct list *pos;

	list_for_each (pos, &all->pools) {
		struct blkif_bounce *b = list_entry(pos, struct blkif_bounce, node);

		if (b->dma == dma)
			return b;
	}
	return create(all, dma);
}

int blkif_bounces_init(struct blkif_bounces *all, struct reactor *r, size_t shared)
{
	struct blkif_bounce *b;
	struct err err;
	int rc;

	list_init(&all->pools);
	all->shared = shared;
	all->reactor = r;
	b = create(all, NULL);
	if (!b)
		return -ENOMEM;
	rc = grow(b, shared, &err);
	if (rc)
		destroy(b);
	else
		b->shared = shared;
	return rc;
}

void blkif_bounces_stop(struct blkif_bounces *all)
{
	struct list *pos;

	list_for_each (pos, &all->pools) {
		struct blkif_bounce *b = list_entry(pos, struct blkif_bounce, node);

		reactor_timer_stop(b->reactor, &b->trim);
	}
}

void blkif_bounces_fini(struct blkif_bounces *all)
{
	while (!list_empty(&all->pools))
		destroy(list_entry(all->pools.next, struct blkif_bounce, node));
}

/* Queues */

static size_t unfilled(const struct blkif_queue *q, size_t held)
{
	return held < q->reserve ? q->reserve - held : 0;
}

static size_t beyond(const struct blkif_queue *q, size_t held)
{
	return held > q->reserve ? held - q->reserve : 0;
}

/* @more pages for reserves: new ones, or else such as were shared and are free now. */
static int grow_reserve(struct blkif_bounce *b, size_t more, struct err *err)
{
	size_t spare = b->pages.free - b->unfilled - (b->reserve_max - b->reserved);
	int rc = grow(b, more, err);

	if (spare > b->shared)
		spare = b->shared;
	if (spare > more)
		spare = more;
	if (rc && spare) {
		rc = more > spare ? grow(b, more - spare, err) : 0;
		b->shared -= rc ? 0 : spare;
	}
	if (!rc)
		b->reserve_max += more;
	return rc;
}

int blkif_bounce_join(struct blkif_bounces *all, struct blkif_queue *q)
{
	struct blkif_bounce *b = find(all, q->opts.bdev->dma);
	size_t more;
	struct err err;
	int rc;

	if (!b)
		return -ENOMEM;
	if (b->reserved + q->reserve > b->reserve_max) {
		more = b->reserved + q->reserve - b->reserve_max;
		rc = grow_reserve(b, more, &err);
		if (rc) {
			log_limited(q->opts.log_limit, LOG_LEVEL_ERROR,
				    "%s: %zu bounce pages cannot be had: %s", q->label, more,
				    err.text);
			return rc;
		}
	}
	b->reserved += q->reserve;
	b->unfilled += q->reserve;
	q->bounce = b;
	return 0;
}

void blkif_bounce_leave(struct blkif_queue *q)
{
	q->bounce->reserved -= q->reserve;
	q->bounce->unfilled -= q->reserve;
}

/*
 * Takes @n pages of the queue's reserve and the shared ones, or none: others' reserves are left,
 * and the guest has no more of the shared ones than it may.
 */
static bool hold_pages(struct blkif_queue *q, size_t n)
{
	struct blkif_bounce *b = q->bounce;
	struct blkif_quota *quota = &q->opts.guest->bounce;
	size_t reserved = b->unfilled - unfilled(q, q->held) + unfilled(q, q->held + n);
	size_t shared = beyond(q, q->held + n) - beyond(q, q->held);
	/* The pool keeps the reserve of queues that have gone, for those that come. */
	size_t wanted = n + reserved + (b->reserve_max - b->reserved);

	if (!blkif_quota_take(quota, shared))
		return false;
	if (b->pages.free < wanted && !grow_shared(b, wanted - b->pages.free)) {
		blkif_quota_put(quota, shared);
		return false;
	}
	b->unfilled = reserved;
	q->held += n;
	return true;
}

static void drop_pages(struct blkif_queue *q, size_t n)
{
	blkif_quota_put(&q->opts.guest->bounce, beyond(q, q->held) - beyond(q, q->held - n));
	q->bounce->unfilled += unfilled(q, q->held - n) - unfilled(q, q->held);
	q->held -= n;
}

bool blkif_bounce_take(struct blkif_io *io)
{
	size_t pages = 0, meta = io->req.indirect ? BLKIF_INDIRECT_META_PAGES : 0;
	struct page_pool *pool = &io->queue->bounce->pages;
	struct blkif_indirect_refs *refs;

	/* The length of an indirect one is not known yet, but no segment is longer than a page. */
	if (io->copy)
		pages = io->req.indirect
				? io->req.nr_segments
				: (io->bytes + PAGE_POOL_PAGE_SIZE - 1) / PAGE_POOL_PAGE_SIZE;
	if (pages + meta && !hold_pages(io->queue, pages + meta))
		return false;
	if (io->req.indirect) {
		page_pool_take(pool, io->meta, BLKIF_INDIRECT_META_PAGES);
		io->has_meta = true;
		refs = io->meta[0];
		io->segments = refs->segments;
		io->pages = refs->pages;
		io->iov = ((union blkif_indirect_places *)io->meta[1])->iov;
	}
	if (pages)
		page_pool_take(pool, io->pages, pages);
	io->nr_pages = (uint16_t)pages;
	return true;
}

void blkif_bounce_put(struct blkif_io *io)
{
	struct page_pool *pool = &io->queue->bounce->pages;

	if (io->nr_pages) {
		page_pool_put(pool, io->pages, io->nr_pages);
		drop_pages(io->queue, io->nr_pages);
		io->nr_pages = 0;
	}
	if (io->has_meta) {
		page_pool_put(pool, io->meta, BLKIF_INDIRECT_META_PAGES);
		drop_pages(io->queue, BLKIF_INDIRECT_META_PAGES);
		io->has_meta = false;
		blkif_io_init(io);
	}
}
