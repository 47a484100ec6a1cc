/* SPDX-License-Identifier: BSD-2-Clause */
#include "front/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "blkif/control_page.h"
#include "sivshm.h"

/*
 * How long to sleep for a ring of the control vector at a time: the page is looked at again
 * whatever rings came, so a backend that forgets one costs time only.
 */
enum { NAP_MS = 100 };

enum {
	MAX_SEGMENTS = BLKIF_MAX_INDIRECT_PAGES * BLKIF_SEGMENTS_PER_INDIRECT_PAGE,
	KNOWN_LAYOUTS = CONTROL_LAYOUT_X86_64 | CONTROL_LAYOUT_LINE,
};

enum stage {
	STAGE_GREET,  /* until the backend has laid its half out */
	STAGE_OFFER,  /* we said INIT */
	STAGE_ANSWER, /* we said READY */
	STAGE_CONNECTED,
	STAGE_CLOSING, /* we said CLOSING */
	STAGE_CLOSED,
	STAGE_FAILED, /* error and fault say why */
};

/* What the ops of a queue's front are given. */
struct queue {
	struct front_segment *segment;
	struct front *front;
	unsigned vector;
};

struct front_segment {
	struct sivshm_port *port;
	struct front_segment_opts opts;
	struct control_page *page;
	enum stage stage;
	uint32_t epoch;
	int error;
	char fault[64 + CONTROL_ERROR_MAX];
	struct front_segment_disk disk;
	unsigned ring_order;
	struct queue queues[CONTROL_QUEUES_MAX];
	unsigned nr_pages;
	unsigned nr_free;
	uint8_t used[]; /* by page; the control page is */
};

/* Memory */

void *front_segment_pages_alloc(struct front_segment *s, unsigned nr, uint32_t *refs)
{
	unsigned run = 0;

	for (unsigned i = 1; nr && i < s->nr_pages; i++) {
		unsigned first = i + 1 - nr;

		run = s->used[i] ? 0 : run + 1;
		if (run < nr)
			continue;
		memset(s->used + first, 1, nr);
		s->nr_free -= nr;
		for (unsigned n = 0; n < nr; n++)
			refs[n] = first + n;
		return (char *)s->page + (size_t)first * BLKIF_PAGE_SIZE;
	}
	return NULL;
}

void front_segment_pages_free(struct front_segment *s, void *pages, unsigned nr)
{
	size_t first = (size_t)((char *)pages - (char *)s->page) / BLKIF_PAGE_SIZE;

	memset(s->used + first, 0, nr);
	s->nr_free += nr;
}

unsigned front_segment_pages_left(const struct front_segment *s)
{
	return s->nr_free;
}

/* What the queues' fronts get. The backend can write anywhere: it has the segment. */

static void *queue_pages_alloc(void *ctx, unsigned nr, bool readonly, uint32_t *refs)
{
	struct queue *q = ctx;

	return front_segment_pages_alloc(q->segment, nr, refs);
}

static void queue_pages_free(void *ctx, void *pages, unsigned nr, const uint32_t *refs)
{
	struct queue *q = ctx;

	front_segment_pages_free(q->segment, pages, nr);
}

static void queue_notify(void *ctx)
{
	struct queue *q = ctx;

	/* A backend that is gone answers no more: whoever waits for it finds out. */
	(void)sivshm_port_ring(q->segment->port, q->vector);
}

static bool queue_wait(void *ctx, unsigned timeout_ms)
{
	struct queue *q = ctx;

	return sivshm_port_wait(q->segment->port, q->vector, (int)timeout_ms) > 0;
}

static const struct front_ops queue_ops = {
	.pages_alloc = queue_pages_alloc,
	.pages_free = queue_pages_free,
	.notify = queue_notify,
	.wait = queue_wait,
};

/* The handshake */

static int fail(struct front_segment *s, int error, const char *what)
{
	s->stage = STAGE_FAILED;
	s->error = error;
	snprintf(s->fault, sizeof(s->fault), "%s", what);
	return error;
}

/* The backend's own words, which are as little to be trusted as the rest of its half. */
static int fail_as_told(struct front_segment *s, const char *what)
{
	char text[CONTROL_ERROR_MAX];

	memcpy(text, s->page->backend.error, sizeof(text));
	text[sizeof(text) - 1] = 0;
	parse_make_printable(text);
	fail(s, -ECONNREFUSED, "");
	snprintf(s->fault, sizeof(s->fault), "%s: %s", what, text[0] ? text : "no reason given");
	return s->error;
}

static void say(struct front_segment *s, enum control_frontend_state state)
{
	/* Release: what belongs to the state is written before. */
	atomic_store_explicit(&s->page->frontend.state, state, memory_order_release);
	/* A backend that cannot be rung is found gone by who waits for it. */
	(void)sivshm_port_ring(s->port, 0);
}

static int greet(struct front_segment *s)
{
	const struct control_backend *b = &s->page->backend;
	struct control_frontend *f = &s->page->frontend;
	uint64_t magic = __atomic_load_n(&b->magic, __ATOMIC_ACQUIRE);
	uint32_t present;

	if (!magic)
		return 0;
	if (magic != CONTROL_MAGIC)
		return fail(s, -EPROTO, "no control page of Sluice's is in the segment");
	if (__atomic_load_n(&b->version, __ATOMIC_RELAXED) != CONTROL_VERSION)
		return fail(s, -EPROTO, "the backend speaks another version of the control page");
	present = atomic_load_explicit(&b->epoch, memory_order_relaxed);
	s->epoch = present + 1;
	/* One that a former life of ours has asked for may come any time. */
	if (s->epoch == atomic_load_explicit(&f->epoch, memory_order_relaxed))
		s->epoch++;
	/* Nobody takes what a former life chose for ours: who sees the epoch sees that it is over.
	 */
	atomic_store_explicit(&f->state, CONTROL_FRONTEND_NONE, memory_order_relaxed);
	f->version = CONTROL_VERSION;
	atomic_store_explicit(&f->epoch, s->epoch, memory_order_release);
	s->stage = STAGE_OFFER;
	say(s, CONTROL_FRONTEND_INIT);
	return 0;
}

static int make_queues(struct front_segment *s, const struct blkif_layout *layout)
{
	struct front_opts opts = {
		.layout = layout,
		.ring_pages = 1u << s->ring_order,
		.max_segments = s->disk.max_segments,
		.sync_pages = s->opts.sync_pages,
		.ops = &queue_ops,
	};

	for (unsigned n = 0; n < s->disk.queues; n++) {
		struct queue *q = &s->queues[n];
		int rc;

		q->segment = s;
		q->vector = 1 + n;
		opts.ctx = q;
		rc = front_create(&opts, &q->front);
		if (rc == -ENOMEM)
			return fail(s, rc, "the segment is too small for these queues");
		if (rc)
			return fail(s, rc, "the frontend's options make no queue");
		s->page->frontend.rings[n] = front_ring_refs(q->front)[0];
	}
	s->disk.depth = front_depth(s->queues[0].front);
	return 0;
}

static const struct blkif_layout *choose_layout(struct front_segment *s, uint32_t offered)
{
	uint32_t common = offered & KNOWN_LAYOUTS;

	if (s->opts.layouts)
		common &= s->opts.layouts;
	if (common & CONTROL_LAYOUT_LINE) {
		s->disk.layout = CONTROL_LAYOUT_LINE;
		return &blkif_layout_line;
	}
	if (common & CONTROL_LAYOUT_X86_64) {
		s->disk.layout = CONTROL_LAYOUT_X86_64;
		return &blkif_layout_x86_64;
	}
	return NULL;
}

static unsigned at_most(unsigned wanted, uint32_t offered)
{
	return wanted < offered ? wanted : offered;
}

/* Copies what is offered, judges the copy, and answers. */
static int take_offer(struct front_segment *s)
{
	struct control_backend offer;
	struct control_frontend *f = &s->page->frontend;
	const struct blkif_layout *layout;
	int rc;

	memcpy(&offer, &s->page->backend, sizeof(offer));
	/* From here on the compiler may not go back to the backend's bytes. */
	atomic_signal_fence(memory_order_seq_cst);
	if (offer.pages != s->nr_pages)
		return fail(s, -EPROTO, "the backend means another segment: its size differs");
	if (!offer.max_queues || offer.max_queues > CONTROL_QUEUES_MAX)
		return fail(s, -EPROTO, "the backend offers an impossible number of queues");
	if (offer.max_ring_order > CONTROL_RING_ORDER_MAX)
		return fail(s, -EPROTO, "the backend offers rings of an impossible size");
	if (offer.max_indirect_segments > MAX_SEGMENTS)
		return fail(s, -EPROTO, "the backend offers too many segments a request");
	if ((offer.sector_size != 512 && offer.sector_size != 4096) ||
	    offer.physical_sector_size < 512)
		return fail(s, -EPROTO, "the backend offers an impossible sector size");
	layout = choose_layout(s, offer.layouts);
	if (!layout)
		return fail(s, -EPROTO, "the backend offers no layout that is known or allowed");

	s->disk.queues = at_most(s->opts.queues, offer.max_queues);
	s->disk.queues = at_most(s->disk.queues, sivshm_port_vectors(s->port) - 1);
	s->disk.max_segments = at_most(s->opts.max_segments, offer.max_indirect_segments);
	s->disk.features = offer.features;
	s->disk.sector_size = offer.sector_size;
	s->disk.physical_sector_size = offer.physical_sector_size;
	s->disk.discard_granularity = offer.discard_granularity;
	s->disk.discard_alignment = offer.discard_alignment;
	s->ring_order = at_most(s->opts.ring_order, offer.max_ring_order);
	rc = make_queues(s, layout);
	if (rc)
		return rc;
	f->layout = s->disk.layout;
	f->nr_queues = s->disk.queues;
	f->ring_order = s->ring_order;
	s->stage = STAGE_ANSWER;
	say(s, CONTROL_FRONTEND_READY);
	return 0;
}

/* The backend's state, of our epoch: NONE while it is still in another. */
static uint32_t backend_state(const struct front_segment *s)
{
	const struct control_backend *b = &s->page->backend;
	/*
	 * The epoch first. The backend says NONE, then the new epoch (release), then its state
	 * (release): so who sees the new epoch sees no state of the one before, and who sees the
	 * state sees what belongs to it.
	 */
	uint32_t epoch = atomic_load_explicit(&b->epoch, memory_order_acquire);
	uint32_t state = atomic_load_explicit(&b->state, memory_order_acquire);

	return epoch == s->epoch ? state : CONTROL_BACKEND_NONE;
}

int front_segment_advance(struct front_segment *s)
{
	uint32_t state;

	if (s->stage == STAGE_GREET)
		return greet(s);
	if (s->stage == STAGE_CLOSED)
		return -EPIPE;
	if (s->stage == STAGE_FAILED)
		return s->error;
	state = backend_state(s);
	if (s->stage == STAGE_CLOSING) {
		if (state != CONTROL_BACKEND_CLOSED && state != CONTROL_BACKEND_REFUSED)
			return 0;
		s->stage = STAGE_CLOSED;
		return -EPIPE;
	}
	switch (state) {
	case CONTROL_BACKEND_NONE:
		if (s->stage == STAGE_OFFER)
			return 0;
		return fail(s, -EPROTO, "the backend has left this epoch without being asked");
	case CONTROL_BACKEND_REFUSED:
		return fail_as_told(s, "refused");
	case CONTROL_BACKEND_CLOSED:
		return fail_as_told(s, "closed by the backend");
	case CONTROL_BACKEND_OFFER:
		if (s->stage == STAGE_OFFER)
			return take_offer(s);
		if (s->stage == STAGE_ANSWER)
			return 0;
		break;
	case CONTROL_BACKEND_CLOSING:
		if (s->stage == STAGE_CONNECTED)
			return 1;
		return fail(s, -ECONNREFUSED, "the backend is closing");
	case CONTROL_BACKEND_CONNECTED:
		if (s->stage == STAGE_OFFER)
			break;
		s->stage = STAGE_CONNECTED;
		return 1;
	}
	return fail(s, -EPROTO, "the backend is in a state that cannot follow");
}

/* Advances until it says something other than 0. */
static int advance_until(struct front_segment *s, int timeout_ms)
{
	uint64_t end_ns = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;

	for (;;) {
		int rc = front_segment_advance(s);
		uint64_t now_ns = clock_now_ns();
		uint64_t nap_ms = NAP_MS;

		if (rc)
			return rc;
		if (now_ns >= end_ns)
			return -ETIMEDOUT;
		if (end_ns - now_ns < nap_ms * NSEC_PER_MSEC)
			nap_ms = (end_ns - now_ns) / NSEC_PER_MSEC + 1;
		rc = sivshm_port_wait(s->port, 0, (int)nap_ms);
		if (rc < 0 && front_segment_advance(s) == 0)
			return fail(s, -EPIPE, "the backend is gone");
	}
}

int front_segment_connect(struct front_segment *s, int timeout_ms)
{
	int rc = advance_until(s, timeout_ms);

	return rc > 0 ? 0 : rc;
}

int front_segment_close(struct front_segment *s, int timeout_ms)
{
	int rc;

	if (s->stage == STAGE_GREET || s->stage == STAGE_CLOSED)
		return 0;
	if (s->stage != STAGE_CLOSING) {
		s->stage = STAGE_CLOSING;
		say(s, CONTROL_FRONTEND_CLOSING);
	}
	rc = advance_until(s, timeout_ms);
	return rc == -EPIPE ? 0 : rc;
}

int front_segment_create(struct sivshm_port *port, const struct front_segment_opts *opts,
			 struct front_segment **out)
{
	size_t pages = sivshm_port_size(port) / BLKIF_PAGE_SIZE;
	struct front_segment *s;

	if (!opts->queues || opts->queues > CONTROL_QUEUES_MAX ||
	    opts->ring_order > CONTROL_RING_ORDER_MAX || opts->max_segments > MAX_SEGMENTS ||
	    pages < 2 || pages > UINT32_MAX || sivshm_port_vectors(port) < 2)
		return -EINVAL;
	s = calloc(1, sizeof(*s) + pages);
	if (!s)
		return -ENOMEM;
	s->port = port;
	s->opts = *opts;
	s->page = sivshm_port_memory(port);
	s->nr_pages = (unsigned)pages;
	s->nr_free = s->nr_pages - 1;
	s->used[0] = 1;
	*out = s;
	return 0;
}

void front_segment_destroy(struct front_segment *s)
{
	for (unsigned n = 0; n < s->disk.queues; n++)
		if (s->queues[n].front)
			front_destroy(s->queues[n].front);
	free(s);
}

const char *front_segment_fault(const struct front_segment *s)
{
	return s->fault[0] ? s->fault : NULL;
}

const struct front_segment_disk *front_segment_disk(const struct front_segment *s)
{
	return &s->disk;
}

struct front *front_segment_queue(struct front_segment *s, unsigned n)
{
	return s->queues[n].front;
}

uint64_t front_segment_sectors(struct front_segment *s)
{
	return atomic_load_explicit(&s->page->backend.sectors, memory_order_relaxed);
}

bool front_segment_is_closing(const struct front_segment *s)
{
	return backend_state(s) != CONTROL_BACKEND_CONNECTED;
}

bool front_segment_is_over(const struct front_segment *s)
{
	uint32_t state = backend_state(s);

	return state != CONTROL_BACKEND_CONNECTED && state != CONTROL_BACKEND_CLOSING;
}
