/* SPDX-License-Identifier: BSD-2-Clause */
#include "sivshm/page.h"

#include <errno.h>
#include <stdio.h>

enum { LAYOUTS = CONTROL_LAYOUT_X86_64 | CONTROL_LAYOUT_LINE };

static void write_disk(struct control_backend *b, const struct sivshm_offer *offer)
{
	const struct blkif_limits *limits = &offer->limits;

	b->pages = offer->pages;
	b->features =
		(limits->readonly ? CONTROL_READONLY : 0) | (limits->flush ? CONTROL_FLUSH : 0) |
		(limits->barrier ? CONTROL_BARRIER : 0) | (limits->discard ? CONTROL_DISCARD : 0) |
		(limits->secure_discard ? CONTROL_SECURE_DISCARD : 0);
	b->layouts = LAYOUTS;
	b->max_queues = offer->max_queues;
	b->max_ring_order = CONTROL_RING_ORDER_MAX;
	b->max_indirect_segments = limits->max_indirect_segments;
	b->sector_size = BLKIF_SECTOR_SIZE;
	b->physical_sector_size = offer->physical_sector_size;
	b->discard_granularity = offer->discard_granularity;
	b->discard_alignment = offer->discard_alignment;
	atomic_store_explicit(&b->sectors, limits->sectors, memory_order_relaxed);
}

void sivshm_page_init(struct control_page *page, const struct sivshm_offer *offer)
{
	struct control_backend *b = &page->backend;

	write_disk(b, offer);
	b->version = CONTROL_VERSION;
	/* Last, since that is what a frontend looks for. */
	__atomic_store_n(&b->magic, CONTROL_MAGIC, __ATOMIC_RELEASE);
}

void sivshm_page_offer(struct control_page *page, const struct sivshm_offer *offer, uint32_t epoch)
{
	struct control_backend *b = &page->backend;

	/*
	 * Who sees the new epoch must not see the state, or the fields, of an earlier life. So
	 * there is no state first, and each store below is a release of what was before it.
	 */
	atomic_store_explicit(&b->state, CONTROL_BACKEND_NONE, memory_order_seq_cst);
	b->version = CONTROL_VERSION;
	__atomic_store_n(&b->magic, CONTROL_MAGIC, __ATOMIC_RELAXED);
	write_disk(b, offer);
	b->error[0] = 0;
	atomic_store_explicit(&b->epoch, epoch, memory_order_release);
	atomic_store_explicit(&b->state, CONTROL_BACKEND_OFFER, memory_order_release);
}

void sivshm_page_say(struct control_page *page, enum control_backend_state state, const char *error)
{
	struct control_backend *b = &page->backend;

	snprintf(b->error, sizeof(b->error), "%s", error ? error : "");
	atomic_store_explicit(&b->state, state, memory_order_release);
}

void sivshm_page_resize(struct control_page *page, uint64_t sectors, uint32_t revision)
{
	atomic_store_explicit(&page->backend.sectors, sectors, memory_order_relaxed);
	atomic_store_explicit(&page->backend.revision, revision, memory_order_release);
}

void sivshm_page_look(const struct control_page *page, uint32_t *epoch, uint32_t *state)
{
	const struct control_frontend *f = &page->frontend;

	/* In this order: the state is of this epoch, or of a later one. */
	*epoch = atomic_load_explicit(&f->epoch, memory_order_acquire);
	*state = atomic_load_explicit(&f->state, memory_order_acquire);
	/* Then a life begins just now, which rings when it has. */
	if (atomic_load_explicit(&f->epoch, memory_order_relaxed) != *epoch)
		*state = CONTROL_FRONTEND_NONE;
}

static uint32_t read_once(const uint32_t *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static int find_layout(uint32_t chosen, const struct blkif_layout **layout, struct err *err)
{
	switch (chosen) {
	case CONTROL_LAYOUT_X86_64:
		*layout = &blkif_layout_x86_64;
		return 0;
	case CONTROL_LAYOUT_LINE:
		*layout = &blkif_layout_line;
		return 0;
	}
	return err_set(err, -EINVAL, "layout %#x is not one of those offered (%#x)", chosen,
		       LAYOUTS);
}

static int judge_ring(const struct sivshm_choice *c, unsigned n, uint32_t pages, struct err *err)
{
	uint32_t first = c->rings[n];

	if (!first || first >= pages || pages - first < c->ring_pages)
		return err_set(err, -EINVAL,
			       "the ring of queue %u, %u pages from page %u on, is not within "
			       "pages 1 to %u",
			       n, c->ring_pages, first, pages - 1);
	for (unsigned i = 0; i < n; i++) {
		uint32_t other = c->rings[i];
		uint32_t apart = first > other ? first - other : other - first;

		if (apart < c->ring_pages)
			return err_set(err, -EINVAL,
				       "the rings of queues %u and %u share a page: %u pages from "
				       "pages %u and %u on",
				       i, n, c->ring_pages, other, first);
	}
	return 0;
}

int sivshm_page_read(const struct control_page *page, const struct sivshm_offer *offer,
		     struct sivshm_choice *choice, struct err *err)
{
	const struct control_frontend *f = &page->frontend;
	uint32_t version = read_once(&f->version);
	uint32_t layout = read_once(&f->layout);
	uint32_t queues = read_once(&f->nr_queues);
	uint32_t order = read_once(&f->ring_order);
	int rc;

	if (version != CONTROL_VERSION)
		return err_set(err, -EINVAL, "the frontend speaks version %u, and not %u", version,
			       CONTROL_VERSION);
	rc = find_layout(layout, &choice->layout, err);
	if (rc)
		return rc;
	if (!queues || queues > offer->max_queues)
		return err_set(err, -EINVAL, "%u queues are not between 1 and the %u offered",
			       queues, offer->max_queues);
	if (order > CONTROL_RING_ORDER_MAX)
		return err_set(err, -EINVAL, "ring order %u is above the %u offered", order,
			       CONTROL_RING_ORDER_MAX);
	choice->nr_queues = queues;
	choice->ring_pages = 1u << order;
	for (unsigned n = 0; n < queues; n++) {
		choice->rings[n] = read_once(&f->rings[n]);
		rc = judge_ring(choice, n, offer->pages, err);
		if (rc)
			return rc;
	}
	return 0;
}
