/* SPDX-License-Identifier: BSD-2-Clause */
#include "player.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkif/decode.h"

enum { SECTOR = BLKIF_SECTOR_SIZE };

void player_start(struct player *p, size_t bytes)
{
	struct sivshm_worker_opts opts = {
		.struct_bytes = sizeof(opts),
		.segment_bytes = bytes,
		.vectors = PLAYER_VECTORS,
		.own_rings = true,
	};

	memset(p, 0, sizeof(*p));
	assert_int_equal(sivshm_manager_create(NULL, &p->manager), 0);
	assert_int_equal(sivshm_worker_add(p->manager, &opts, &p->worker), 0);
	p->port = sivshm_worker_port(p->worker);
	p->page = sivshm_port_memory(p->port);
	p->disk = calloc(1, PLAYER_DISK);
	p->before = calloc(1, PLAYER_DISK);
	assert_non_null(p->disk);
	assert_non_null(p->before);
	p->offer = (struct control_backend){
		.magic = CONTROL_MAGIC,
		.version = CONTROL_VERSION,
		.pages = (uint32_t)(bytes / BLKIF_PAGE_SIZE),
		.features = CONTROL_FLUSH,
		.layouts = CONTROL_LAYOUT_X86_64 | CONTROL_LAYOUT_LINE,
		.max_queues = PLAYER_QUEUES,
		.max_ring_order = 4,
		.max_indirect_segments = 32,
		.sector_size = SECTOR,
		.physical_sector_size = SECTOR,
		.sectors = PLAYER_DISK / SECTOR,
	};
	p->page->backend = p->offer;
}

void player_end(struct player *p)
{
	sivshm_manager_destroy(p->manager);
	free(p->disk);
	free(p->before);
}

void player_where(struct player *p, char *where, size_t len)
{
	int fd = sivshm_worker_take_socket(p->worker);

	assert_true(fd >= 0);
	snprintf(where, len, "fd:%d", fd);
}

void player_say(struct player *p, enum control_backend_state state)
{
	atomic_store_explicit(&p->page->backend.state, state, memory_order_release);
	sivshm_port_ring(p->port, 0);
}

/* The handshake */

static void offer(struct player *p, uint32_t epoch)
{
	struct control_backend b = p->offer;

	p->serves = false;
	atomic_store(&p->page->backend.state, CONTROL_BACKEND_NONE);
	b.epoch = epoch;
	b.state = CONTROL_BACKEND_NONE;
	p->page->backend = b;
	player_say(p, CONTROL_BACKEND_OFFER);
}

static void accept_choice(struct player *p)
{
	const struct control_frontend *f = &p->page->frontend;

	if (p->refuses) {
		player_say(p, CONTROL_BACKEND_REFUSED);
		return;
	}
	p->nr_queues = f->nr_queues;
	assert_in_range(p->nr_queues, 1, PLAYER_QUEUES);
	for (unsigned i = 0; i < p->nr_queues; i++)
		assert_int_equal(
			blkif_ring_attach(&p->rings[i],
					  f->layout == CONTROL_LAYOUT_LINE ? &blkif_layout_line
									   : &blkif_layout_x86_64,
					  (char *)p->page + (size_t)f->rings[i] * BLKIF_PAGE_SIZE,
					  1u << f->ring_order),
			0);
	p->serves = true;
	player_say(p, CONTROL_BACKEND_CONNECTED);
}

static bool step_control(struct player *p)
{
	struct control_frontend *f = &p->page->frontend;
	uint32_t state = atomic_load_explicit(&f->state, memory_order_acquire);
	uint32_t ours = p->page->backend.state;

	if (state == CONTROL_FRONTEND_INIT && f->epoch != p->page->backend.epoch)
		offer(p, f->epoch);
	else if (state == CONTROL_FRONTEND_READY && ours == CONTROL_BACKEND_OFFER)
		accept_choice(p);
	else if (state == CONTROL_FRONTEND_CLOSING && f->epoch == p->page->backend.epoch &&
		 ours != CONTROL_BACKEND_CLOSED) {
		p->serves = false;
		player_say(p, CONTROL_BACKEND_CLOSED);
	} else {
		return false;
	}
	return true;
}

/* Requests */

/* Whether the fault is due at a request of this kind. */
static bool is_due(struct player *p, bool write)
{
	bool fits;

	switch (p->fault) {
	case PLAYER_FAITHFUL:
		return false;
	case PLAYER_READS_STALE:
	case PLAYER_READS_NOTHING:
	case PLAYER_FLIPS_BIT:
		fits = !write;
		break;
	case PLAYER_FAILS:
	case PLAYER_WRONG_ID:
	case PLAYER_SILENT:
	case PLAYER_CLOSING:
	case PLAYER_CLOSED:
		fits = true;
		break;
	default:
		fits = write;
	}
	return fits && p->failed < (p->fault_times ? p->fault_times : 1) &&
	       atomic_load(&p->requests) > p->fault_after;
}

static void write_sectors(struct player *p, uint64_t sector, const uint8_t *data, uint64_t n)
{
	memcpy(p->before + sector * SECTOR, p->disk + sector * SECTOR, n * SECTOR);
	memcpy(p->disk + sector * SECTOR, data, n * SECTOR);
}

static void do_write(struct player *p, uint64_t sector, const uint8_t *data, uint64_t n, bool due)
{
	p->failed += due;
	if (!due)
		write_sectors(p, sector, data, n);
	else if (p->fault == PLAYER_TEARS_WRITE)
		write_sectors(p, sector, data, 1);
	else if (p->fault == PLAYER_MISPLACES_WRITE)
		write_sectors(p, sector ? sector - n : sector + n, data, n);
}

static bool is_stale(const struct player *p, uint64_t sector)
{
	const uint8_t *before = p->before + sector * SECTOR;
	static const uint8_t zeros[SECTOR];

	return memcmp(before, zeros, SECTOR) && memcmp(before, p->disk + sector * SECTOR, SECTOR);
}

static void do_read(struct player *p, uint64_t sector, uint8_t *data, uint64_t n, bool due)
{
	const uint8_t *from = p->disk + sector * SECTOR;

	/* Two writes have to have come before. */
	if (due && p->fault == PLAYER_READS_STALE && !is_stale(p, sector))
		due = false;
	p->failed += due;
	if (due && p->fault == PLAYER_READS_STALE)
		from = p->before + sector * SECTOR;
	if (!due || p->fault != PLAYER_READS_NOTHING)
		memcpy(data, from, n * SECTOR);
	if (due && p->fault == PLAYER_FLIPS_BIT)
		data[n * SECTOR - 7] ^= 0x10;
}

static void do_data(struct player *p, const struct blkif_request *req,
		    const struct blkif_wire_segment *segments, bool due)
{
	uint64_t sector = req->sector;

	for (unsigned i = 0; i < req->nr_segments; i++) {
		const struct blkif_wire_segment *s = &segments[i];
		uint64_t n = s->last_sect - s->first_sect + 1u;
		uint8_t *data = (uint8_t *)p->page + (size_t)s->gref * BLKIF_PAGE_SIZE +
				(size_t)s->first_sect * SECTOR;

		assert_in_range(s->gref, 1, p->offer.pages - 1);
		if (req->kind == BLKIF_KIND_WRITE)
			do_write(p, sector, data, n, due);
		else
			do_read(p, sector, data, n, due);
		sector += n;
	}
}

static void serve_one(struct player *p, struct blkif_ring *ring)
{
	struct blkif_limits limits = {
		.sectors = PLAYER_DISK / SECTOR,
		.max_indirect_segments = 32,
		.flush = true,
	};
	struct blkif_wire_segment segments[BLKIF_SEGMENTS_PER_INDIRECT_PAGE];
	uint8_t slot[BLKIF_MAX_REQUEST_BYTES];
	enum blkif_status status;
	struct blkif_request req;
	uint32_t bytes;
	bool due;

	blkif_ring_take(ring, slot);
	atomic_fetch_add(&p->requests, 1);
	status = blkif_decode_request(ring->layout, slot, &limits, &req, segments);
	assert_int_equal((int)status, BLKIF_OKAY);
	due = is_due(p, req.kind == BLKIF_KIND_WRITE) &&
	      (!p->fault_queue || ring == &p->rings[p->fault_queue - 1]);
	if (req.indirect)
		memcpy(segments, (char *)p->page + (size_t)req.indirect_gref * BLKIF_PAGE_SIZE,
		       req.nr_segments * sizeof(segments[0]));
	if (req.kind == BLKIF_KIND_FLUSH) {
		atomic_fetch_add(&p->flushes, 1);
	} else {
		assert_int_equal((int)blkif_decode_segments(&req, segments, &limits, &bytes),
				 BLKIF_OKAY);
	}
	if (due && p->fault == PLAYER_CLOSING) {
		p->failed++;
		player_say(p, CONTROL_BACKEND_CLOSING);
	}
	if (due && p->fault == PLAYER_CLOSED) {
		p->failed++;
		p->serves = false;
		strcpy(p->page->backend.error, "enough");
		player_say(p, CONTROL_BACKEND_CLOSED);
		return;
	}
	if (due && (p->fault == PLAYER_FAILS || p->fault == PLAYER_SILENT ||
		    p->fault == PLAYER_WRONG_ID)) {
		p->failed++;
		if (p->fault == PLAYER_SILENT)
			return;
		blkif_ring_respond(ring, req.id + (p->fault == PLAYER_WRONG_ID), req.operation,
				   BLKIF_ERROR);
		return;
	}
	if (req.kind != BLKIF_KIND_FLUSH)
		do_data(p, &req, segments, due);
	blkif_ring_respond(ring, req.id, req.operation, BLKIF_OKAY);
}

static bool step_queue(struct player *p, unsigned n)
{
	struct blkif_ring *ring = &p->rings[n];
	int pending = blkif_ring_pending(ring);

	assert_true(pending >= 0);
	for (int i = 0; i < pending; i++)
		serve_one(p, ring);
	if (pending && blkif_ring_push(ring))
		sivshm_port_ring(p->port, 1 + n);
	return pending;
}

bool player_step(struct player *p)
{
	bool worked = step_control(p);

	for (unsigned n = 0; p->serves && n < p->nr_queues; n++)
		worked = step_queue(p, n) || worked;
	return worked;
}

static void *serve(void *arg)
{
	struct player *p = arg;

	while (!atomic_load(&p->stop))
		if (!player_step(p))
			sched_yield();
	return NULL;
}

void player_serve(struct player *p)
{
	atomic_store(&p->stop, false);
	assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
}

void player_leave(struct player *p)
{
	atomic_store(&p->stop, true);
	pthread_join(p->thread, NULL);
}
