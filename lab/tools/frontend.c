/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a frontend's ring to the drive: blkif on a worker's reactor, and on the calling thread the
 * frontend, which writes, reads back and compares, or measures.
 *
 * Both share device memory, whose pages' numbers are the grant references.  That is what makes the
 * way of a guest's page to the drive the real one where no guest is: the share hands out the page's
 * bus address, and counts what it had to copy.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hist.h"
#include "blkif/engine.h"
#include "blkif/queue.h"
#include "blkif/share.h"
#include "drive-load.h"
#include "front/front.h"

enum {
	SEGMENTS = 256, /* of a request at most */
	BOUNCE_PAGES = 1024,
	MAPS = 64 * SEGMENTS, /* no limit */
	PATTERN = 0xa5,
	WAIT_MS = 100,
	STALL_S = 30, /* without an answer, and it is called a hang */
};

struct request {
	struct front_req req;
	struct end *end;
	unsigned char *pages;
	uint32_t *refs;
	struct blkif_wire_segment segments[SEGMENTS];
	uint64_t start; /* of its slice of the drive, in bytes */
	uint64_t len;
	unsigned char *image;
	uint64_t since_ns;
	unsigned left;
	uint64_t at; /* bytes done of the slice */
	enum { FILL, MIX, CHECK, OVER } phase;
};

/* Both ends of the ring. */
struct end {
	struct rig *rig;
	const struct load_options *opts;
	struct worker *worker;
	/* the backend */
	struct share share;
	bool *granted; /* each page of the window */
	uint64_t copied;
	uint64_t mapped;
	uint64_t mapped_now;
	struct doorbell doorbell;
	struct blkif_queue *queue;
	struct blkif_guest guest;
	struct blkif_limiter *limiter;
	struct blkif_ledger_entry *ledger;
	struct log_limit log_limit;
	/* bells */
	atomic_bool armed;
	atomic_bool ringing; /* the message is on its way */
	struct reactor_msg ring;
	sem_t answers;
	/* the frontend */
	struct front *front;
	struct request *requests;
	uint64_t random;
	uint64_t done;
	uint64_t bytes;
	uint64_t end_ns;
	bool bench;
	unsigned running;
	struct hist latency;
};

/* Memory that both ends know: a page's number in the window is its reference. */

static void *pages_alloc(void *ctx, unsigned nr, bool readonly, uint32_t *refs)
{
	struct end *e = ctx;
	struct dma_memory mem;
	uint32_t first;

	rig_alloc(e->rig, nr, &mem);
	first = (uint32_t)(((char *)mem.virt - e->rig->dma->base) / DMA_PAGE_SIZE);
	for (uint32_t i = 0; i < nr; i++) {
		refs[i] = first + i;
		e->granted[first + i] = true;
	}
	return mem.virt;
}

static void pages_free(void *ctx, void *pages, unsigned nr, const uint32_t *refs)
{
	struct end *e = ctx;
	struct dma_memory mem = {
		.virt = pages,
		.bus = &e->rig->dma->bus[refs[0]],
		.pages = nr,
	};

	memset(&e->granted[refs[0]], false, nr);
	dma_free(e->rig->dma, &mem);
}

static char *page_of(struct end *e, uint32_t ref)
{
	if (ref >= e->rig->dma->window || !e->granted[ref])
		die("the backend asks for page %u, which it was not given", ref);
	return e->rig->dma->base + (size_t)ref * DMA_PAGE_SIZE;
}

static struct end *end_of(struct share *s)
{
	return container_of(s, struct end, share);
}

static void copy_in(struct share *s, const struct share_piece *p)
{
	memcpy(p->local, page_of(end_of(s), p->ref) + p->offset, p->len);
	end_of(s)->copied += p->len;
}

static void copy_out(struct share *s, const struct share_piece *p)
{
	memcpy(page_of(end_of(s), p->ref) + p->offset, p->local, p->len);
	end_of(s)->copied += p->len;
}

static void flush(struct share *s)
{
}

/* Pages here do not lie one behind the other; what cannot be mapped is copied. */
static void *map(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr, bool writable)
{
	return NULL;
}

static void unmap(struct share *s, void *addr, unsigned nr)
{
	die("the backend unmaps what it never had");
}

static void dma_map(struct share *s, uint32_t peer, uint32_t ref, bool writable,
		    struct dma_piece *piece)
{
	struct end *e = end_of(s);

	page_of(e, ref);
	piece->bus = e->rig->dma->bus[ref];
	piece->handle = ref;
	e->mapped++;
	e->mapped_now++;
}

static void dma_unmap(struct share *s, const struct dma_piece *piece)
{
	struct end *e = end_of(s);

	page_of(e, piece->handle);
	if (piece->bus / DMA_PAGE_SIZE != e->rig->dma->bus[piece->handle] / DMA_PAGE_SIZE)
		die("the backend unmaps page %u by another's address", piece->handle);
	e->mapped_now--;
}

static const struct share_ops share_ops = {
	.copy_in = copy_in,
	.copy_out = copy_out,
	.flush = flush,
	.map = map,
	.unmap = unmap,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
};

/* Bells */

static void rung(struct reactor_msg *msg)
{
	struct end *e = container_of(msg, struct end, ring);

	atomic_store(&e->ringing, false);
	blkif_queue_ring(e->queue);
}

static void notify_backend(void *ctx)
{
	struct end *e = ctx;

	/* One message: if it is on its way, it will do for this as well. */
	if (atomic_exchange(&e->armed, false) && !atomic_exchange(&e->ringing, true))
		reactor_send(e->worker->reactor, &e->ring);
}

static void arm_bell(struct doorbell *d)
{
	atomic_store(&container_of(d, struct end, doorbell)->armed, true);
}

static void notify_frontend(struct doorbell *d)
{
	sem_post(&container_of(d, struct end, doorbell)->answers);
}

static bool wait_for_answers(void *ctx, unsigned timeout_ms)
{
	struct end *e = ctx;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += timeout_ms * (long)NSEC_PER_MSEC;
	until.tv_sec += until.tv_nsec / (long)NSEC_PER_SEC;
	until.tv_nsec %= (long)NSEC_PER_SEC;
	return !sem_timedwait(&e->answers, &until);
}

static const struct doorbell_ops doorbell_ops = {.notify = notify_frontend, .arm = arm_bell};
static const struct front_ops front_ops = {pages_alloc, pages_free, notify_backend,
					   wait_for_answers};

/* The backend's life, on its reactor */

static void start_backend(struct worker *w)
{
	struct end *e = w->job;

	blkif_engine_start(w->rig->engine);
	rig_over(w, blkif_queue_start(e->queue));
}

static void queue_stopped(void *arg)
{
	struct end *e = arg;

	blkif_engine_stop(e->rig->engine);
	rig_over(e->worker, 0);
}

static void stop_backend(struct worker *w)
{
	struct end *e = w->job;

	blkif_queue_stop(e->queue, false, queue_stopped, e);
}

static void broken(void *arg)
{
	die("the backend calls the ring broken");
}

static void troubled(void *arg, int error)
{
}

static enum blkif_sharing sharing(const char *name)
{
	if (!strcmp(name, "dma"))
		return BLKIF_SHARE_DMA;
	return strcmp(name, "persistent") ? BLKIF_SHARE_COPY : BLKIF_SHARE_DMA_PERSISTENT;
}

static void open_ends(struct end *e, struct rig *rig, const struct load_options *opts)
{
	const struct front_opts front_opts = {
		.layout = &blkif_layout_x86_64,
		.ring_pages = 2,
		.max_segments = SEGMENTS,
		.ops = &front_ops,
		.ctx = e,
	};
	struct blkif_queue_opts queue_opts = {
		.limits = {.sectors = bdev_get_size(rig->bdev) / 512,
			   .max_indirect_segments = SEGMENTS,
			   .flush = true},
		.peer = 1,
		.label = "drive-load",
		.layout = &blkif_layout_x86_64,
		.ring_nr = front_opts.ring_pages,
		.spin_max_ns = 20 * NSEC_PER_USEC,
		.sharing = sharing(opts->sharing),
		.broken = broken,
		.troubled = troubled,
	};

	*e = (struct end){.rig = rig, .opts = opts, .worker = &rig->workers[0]};
	e->share.ops = &share_ops;
	e->doorbell.ops = &doorbell_ops;
	e->ring.fn = rung;
	e->random = opts->seed;
	e->guest.bounce.max = BOUNCE_PAGES;
	e->guest.maps.max = MAPS;
	sem_init(&e->answers, 0, 0);
	e->granted = calloc(rig->dma->window, sizeof(*e->granted));
	e->limiter = calloc(1, sizeof(*e->limiter));
	e->ledger = calloc(BLKIF_MAX_SLOTS, sizeof(*e->ledger));
	if (!e->granted || !e->limiter || !e->ledger || front_create(&front_opts, &e->front) ||
	    blkif_engine_create(e->worker->reactor, &e->share, BOUNCE_PAGES, &rig->engine))
		die("no memory left");
	queue_opts.engine = rig->engine;
	queue_opts.bdev = bdev_sectors(rig->bdev);
	queue_opts.doorbell = &e->doorbell;
	queue_opts.ring_pages = front_sring(e->front);
	queue_opts.ledger = e->ledger;
	queue_opts.guest = &e->guest;
	queue_opts.limiter = e->limiter;
	queue_opts.log_limit = &e->log_limit;
	queue_opts.arg = e;
	if (blkif_queue_create(&queue_opts, &e->queue))
		die("no queue");
	e->worker->job = e;
	rig_run_one(rig, e->worker, start_backend);
}

static void stop_ends(struct end *e)
{
	rig_run_one(e->rig, e->worker, stop_backend);
	if (e->mapped_now)
		die("the backend has kept %llu pages mapped", (unsigned long long)e->mapped_now);
	blkif_queue_destroy(e->queue);
}

/* Requests */

static uint64_t below(struct end *e, uint64_t n)
{
	return next_random(&e->random) % n;
}

/* Segments for @bytes, full pages, or (@gaps) some sectors of each of up to @nr pages. */
static void lay_out(struct request *r, uint64_t bytes, bool gaps, unsigned nr)
{
	unsigned n = 0;

	for (; bytes && n < nr; n++) {
		struct blkif_wire_segment *s = &r->segments[n];
		uint64_t first = gaps ? below(r->end, 8) : 0;
		uint64_t count = gaps ? 1 + below(r->end, 8 - first) : 8;

		count = count < bytes / 512 ? count : bytes / 512;
		*s = (struct blkif_wire_segment){.gref = r->refs[n],
						 .first_sect = (uint8_t)first,
						 .last_sect = (uint8_t)(first + count - 1)};
		bytes -= count * 512;
	}
	r->req.segments = r->segments;
	r->req.nr_segments = n;
}

static uint64_t length(const struct request *r)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < r->req.nr_segments; i++)
		len += (r->segments[i].last_sect - r->segments[i].first_sect + 1u) * 512;
	return len;
}

static unsigned char *segment(const struct request *r, unsigned i, size_t *len)
{
	const struct blkif_wire_segment *s = &r->segments[i];

	*len = (s->last_sect - s->first_sect + 1u) * 512;
	return r->pages + (size_t)i * DMA_PAGE_SIZE + s->first_sect * 512;
}

static void put_data(struct request *r, unsigned char *image)
{
	for (unsigned i = 0; i < r->req.nr_segments; i++) {
		size_t len;
		unsigned char *to = segment(r, i, &len);

		for (size_t at = 0; at < len; at += 8) {
			uint64_t value = next_random(&r->end->random);

			memcpy(to + at, &value, 8);
		}
		memcpy(image, to, len);
		image += len;
	}
}

static void check_data(struct request *r, const unsigned char *image)
{
	size_t extent = (size_t)r->req.nr_segments * DMA_PAGE_SIZE;

	for (unsigned i = 0; i < r->req.nr_segments; i++) {
		size_t len;
		unsigned char *at = segment(r, i, &len);

		if (memcmp(at, image, len))
			die("segment %u of %u of the read at sector %llu is not what was written",
			    i, r->req.nr_segments, (unsigned long long)r->req.sector);
		memset(at, PATTERN, len);
		image += len;
	}
	if (r->pages[0] != PATTERN || memcmp(r->pages, r->pages + 1, extent - 1))
		die("the read at sector %llu wrote beside its segments",
		    (unsigned long long)r->req.sector);
}

static void submit(struct request *r, uint8_t op, uint64_t offset)
{
	struct end *e = r->end;
	uint64_t len = op == BLKIF_FLUSH_DISKCACHE ? 0 : length(r);

	r->req.op = op;
	r->req.sector = (r->start + offset) / 512;
	if (!e->bench && op == BLKIF_WRITE)
		put_data(r, r->image + offset);
	else if (!e->bench && op == BLKIF_READ)
		memset(r->pages, PATTERN, (size_t)r->req.nr_segments * DMA_PAGE_SIZE);
	e->bytes += len;
	r->since_ns = clock_now_ns();
	if (front_submit(e->front, &r->req))
		die("the ring is full, or does not take a request");
}

static void submit_all(struct request *r, uint8_t op)
{
	uint64_t left = r->len - r->at;

	lay_out(r, left, false, SEGMENTS);
	submit(r, op, r->at);
	r->at += length(r);
}

static void submit_any(struct request *r)
{
	struct end *e = r->end;
	uint64_t kind = below(e, 64), len;
	unsigned nr = 1 + (unsigned)below(e, 1u << (1 + below(e, 8)));

	if (!kind) {
		r->req.nr_segments = 0;
		submit(r, BLKIF_FLUSH_DISKCACHE, 0);
		return;
	}
	lay_out(r, (1 + below(e, nr * 8)) * 512, kind & 2, nr);
	if (length(r) > r->len)
		lay_out(r, r->len, false, SEGMENTS);
	len = length(r);
	submit(r, kind & 1 ? BLKIF_WRITE : BLKIF_READ, below(e, (r->len - len) / 512 + 1) * 512);
}

static void submit_bench(struct request *r)
{
	struct end *e = r->end;
	const struct load_options *opts = e->opts;
	bool write = opts->rw[0] == 'w' || (opts->rw[0] == 'm' && below(e, 2));

	if (clock_now_ns() >= e->end_ns) {
		e->running--;
		return;
	}
	submit(r, write ? BLKIF_WRITE : BLKIF_READ,
	       below(e, opts->region / opts->block) * opts->block);
}

static void next(struct request *r)
{
	if (r->end->bench) {
		submit_bench(r);
		return;
	}
	if (r->phase == FILL && r->at == r->len)
		r->phase = MIX;
	if (r->phase == MIX && !r->left--) {
		r->phase = CHECK;
		r->at = 0;
	}
	if (r->phase == CHECK && r->at == r->len) {
		r->phase = OVER;
		r->end->running--;
	} else if (r->phase == MIX) {
		submit_any(r);
	} else {
		submit_all(r, r->phase == FILL ? BLKIF_WRITE : BLKIF_READ);
	}
}

static void done(struct front_req *req)
{
	struct request *r = container_of(req, struct request, req);
	struct end *e = r->end;

	if (req->status != BLKIF_OKAY)
		die("operation %d at sector %llu was answered with %d", req->op,
		    (unsigned long long)req->sector, req->status);
	e->done++;
	hist_add(&e->latency, clock_now_ns() - r->since_ns);
	if (!e->bench && req->op == BLKIF_READ)
		check_data(r, r->image + (req->sector * 512 - r->start));
	next(r);
}

static void make_requests(struct end *e, unsigned char *image, uint64_t slice, unsigned pages)
{
	e->requests = calloc(e->opts->depth, sizeof(*e->requests));
	if (!e->requests)
		die("no memory left");
	for (unsigned i = 0; i < e->opts->depth; i++) {
		struct request *r = &e->requests[i];

		r->end = e;
		r->refs = calloc(pages, sizeof(*r->refs));
		if (!r->refs)
			die("no memory left");
		r->pages = pages_alloc(e, pages, false, r->refs);
		r->req.done = done;
		if (e->bench) {
			lay_out(r, e->opts->block, false, pages);
			continue;
		}
		r->start = i * slice;
		r->len = slice;
		r->image = image + r->start;
		r->left = e->opts->requests / e->opts->depth;
	}
}

/* Once the backend has ended all mappings. */
static void free_all(struct end *e, unsigned pages)
{
	for (unsigned i = 0; i < e->opts->depth; i++) {
		pages_free(e, e->requests[i].pages, pages, e->requests[i].refs);
		free(e->requests[i].refs);
	}
	free(e->requests);
	front_destroy(e->front);
	sem_destroy(&e->answers);
	free(e->ledger);
	free(e->limiter);
	free(e->granted);
}

/* The frontend's own loop, with home's turns in it. */
static void run(struct end *e)
{
	uint64_t answered_ns = clock_now_ns(), stepped_ns = 0;

	e->end_ns = answered_ns + e->opts->seconds * NSEC_PER_SEC;
	e->running = e->opts->depth;
	for (unsigned i = 0; i < e->opts->depth; i++)
		next(&e->requests[i]);
	while (e->running) {
		uint64_t now;
		int n;

		front_push(e->front);
		n = front_wait(e->front, WAIT_MS);
		now = clock_now_ns();
		if (n < 0)
			die("the backend's answers are wrong: %s", front_fault(e->front));
		if (n)
			answered_ns = now;
		else if (now - answered_ns > STALL_S * NSEC_PER_SEC)
			die("no answer for %d seconds", STALL_S);
		if (now - stepped_ns > WAIT_MS * NSEC_PER_MSEC) {
			stepped_ns = now;
			reactor_step(e->rig->home);
		}
	}
}

void front_verify(struct rig *rig, const struct load_options *opts)
{
	uint64_t slice = opts->region / opts->depth / DMA_PAGE_SIZE * DMA_PAGE_SIZE;
	unsigned char *image = calloc(opts->depth, slice ? slice : 1);
	struct end e;

	if (!slice || opts->depth > 64)
		die("--depth %u: must be at most 64, and leave each request a part of the region",
		    opts->depth);
	if (!image)
		die("no memory left for an image");
	open_ends(&e, rig, opts);
	make_requests(&e, image, slice, SEGMENTS);
	run(&e);
	stop_ends(&e);
	free_all(&e, SEGMENTS);
	printf("{\"sharing\":\"%s\",\"verified\":%llu,\"requests\":%llu,\"bytes\":%llu,"
	       "\"copied\":%llu,\"mapped\":%llu}\n",
	       opts->sharing, (unsigned long long)slice * opts->depth, (unsigned long long)e.done,
	       (unsigned long long)e.bytes, (unsigned long long)e.copied,
	       (unsigned long long)e.mapped);
	if (opts->image)
		save_image(opts->image, image, slice * opts->depth);
	free(image);
}

void front_bench(struct rig *rig, const struct load_options *opts)
{
	unsigned pages = (opts->block + DMA_PAGE_SIZE - 1) / DMA_PAGE_SIZE;
	uint64_t begun;
	struct end e;

	if (opts->depth > 64 || pages > SEGMENTS)
		die("--depth must be at most 64, and --block at most 1M");
	open_ends(&e, rig, opts);
	e.bench = true;
	make_requests(&e, NULL, 0, pages);
	begun = clock_now_ns();
	run(&e);
	report_bench(opts, opts->sharing, e.done, clock_now_ns() - begun, &e.latency);
	stop_ends(&e);
	free_all(&e, pages);
}
