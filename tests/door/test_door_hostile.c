/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frontends that lie, break their rings, or ring for nothing: each is refused, or costs itself, and
 * the door goes on with it and with the others.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "blkif/wire.h"
#include "sivshm/disk.h"
#include "stage.h"

enum { SEGMENT = 1 << 20, PAGES = SEGMENT / 4096 };

static const struct sivshm_door_worker usual = {.max_queues = 2, .segment_bytes = SEGMENT};

static json_int_t count(const char *name, const char *a, const char *b)
{
	json_t *stats = stage_stats(name), *v = json_object_get(stats, a);
	json_int_t n;

	if (b)
		v = json_object_get(v, b);
	assert_true(json_is_integer(v));
	n = json_integer_value(v);
	json_decref(stats);
	return n;
}

/* The control page */

struct choice {
	uint32_t version, layout, queues, order, rings[2];
	const char *why;
};

static void every_choice_is_judged(void **state)
{
	static const struct choice bad[] = {
		{0, 1, 1, 0, {1}, "version"},
		{2, 1, 1, 0, {1}, "version"},
		{UINT32_MAX, 1, 1, 0, {1}, "version"},
		{1, 0, 1, 0, {1}, "layout"},
		{1, 3, 1, 0, {1}, "layout"},
		{1, 4, 1, 0, {1}, "layout"},
		{1, UINT32_MAX, 1, 0, {1}, "layout"},
		{1, 1, 0, 0, {1}, "queues"},
		{1, 1, 3, 0, {1, 2}, "queues"},
		{1, 1, UINT32_MAX, 0, {1}, "queues"},
		{1, 1, 1, 5, {1}, "order"},
		{1, 1, 1, 32, {1}, "order"},
		{1, 1, 1, UINT32_MAX, {1}, "order"},
		{1, 1, 1, 0, {0}, "not within"},
		{1, 1, 1, 0, {PAGES}, "not within"},
		{1, 1, 1, 0, {UINT32_MAX}, "not within"},
		{1, 1, 1, 1, {PAGES - 1}, "not within"},
		{1, 1, 1, 4, {PAGES - 15}, "not within"},
		{1, 1, 1, 4, {UINT32_MAX - 14}, "not within"},
		{1, 1, 2, 0, {1, PAGES}, "not within"},
		{1, 1, 2, 0, {7, 7}, "share a page"},
		{1, 1, 2, 1, {7, 8}, "share a page"},
		{1, 1, 2, 4, {20, 5}, "share a page"},
	};
	struct control_frontend *f;
	struct hand h;

	stage_add(usual);
	h = hand_open("w");
	f = &h.page->frontend;
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		hand_begin(&h, 10 + i);
		hand_choose(&h);
		f->version = bad[i].version;
		f->layout = bad[i].layout;
		f->nr_queues = bad[i].queues;
		f->ring_order = bad[i].order;
		memcpy(f->rings, bad[i].rings, sizeof(bad[i].rings));
		/* What was offered counts, and not what stands there now. */
		h.page->backend.pages = UINT32_MAX;
		h.page->backend.layouts = UINT32_MAX;
		h.page->backend.max_queues = UINT32_MAX;
		h.page->backend.max_ring_order = UINT32_MAX;
		hand_say(&h, CONTROL_FRONTEND_READY);
		hand_wait(&h, CONTROL_BACKEND_REFUSED);
		hand_assert_error(&h, bad[i].why);
	}
	/* The largest that is allowed. */
	hand_begin(&h, 1000);
	hand_choose(&h);
	f->nr_queues = 2;
	f->ring_order = 4;
	f->rings[0] = PAGES - 16;
	f->rings[1] = PAGES - 32;
	hand_say(&h, CONTROL_FRONTEND_READY);
	hand_wait(&h, CONTROL_BACKEND_CONNECTED);
	hand_close(&h);
}

/* A ring whose counters make no sense before it is served. */
static void impossible_ring(void **state)
{
	struct hand h;

	stage_add(usual);
	h = hand_open("w");
	hand_begin(&h, 1);
	hand_choose(&h);
	((struct blkif_sring *)(void *)((char *)h.page + 4096))->req_prod = 1000;
	hand_say(&h, CONTROL_FRONTEND_READY);
	hand_wait(&h, CONTROL_BACKEND_REFUSED);
	hand_assert_error(&h, "counters");
	hand_connect(&h, 2);
	hand_close(&h);
}

/* Is never answered, however long one waits: long enough is when it was surely looked at. */
static void assert_ignored(struct hand *h, uint32_t epoch, uint32_t state)
{
	usleep(20000);
	assert_int_equal(h->page->backend.epoch, epoch);
	assert_int_equal(h->page->backend.state, state);
}

static void states_out_of_order(void **state)
{
	static const uint32_t unknown[] = {4, 77, UINT32_MAX};
	uint32_t epoch = 1;
	struct hand h;

	stage_add(usual);
	h = hand_open("w");
	/* Epoch 0 is the backend's own. */
	hand_say(&h, CONTROL_FRONTEND_READY);
	assert_ignored(&h, 0, CONTROL_BACKEND_NONE);
	hand_say(&h, CONTROL_FRONTEND_CLOSING);
	assert_ignored(&h, 0, CONTROL_BACKEND_NONE);
	hand_say(&h, CONTROL_FRONTEND_INIT);
	hand_wait(&h, CONTROL_BACKEND_REFUSED);
	hand_assert_error(&h, "epoch");
	/* Nothing but INIT begins a life. */
	for (uint32_t s = CONTROL_FRONTEND_READY; s < 6; s++) {
		atomic_store(&h.page->frontend.epoch, epoch);
		hand_say(&h, s);
		assert_ignored(&h, 0, CONTROL_BACKEND_REFUSED);
	}
	hand_choose(&h);
	for (unsigned i = 0; i < 3; i++) {
		hand_begin(&h, epoch++);
		hand_say(&h, unknown[i]);
		hand_wait(&h, CONTROL_BACKEND_REFUSED);
		hand_assert_error(&h, "state");
		/* This life is over. */
		hand_say(&h, CONTROL_FRONTEND_READY);
		assert_ignored(&h, epoch - 1, CONTROL_BACKEND_REFUSED);
		hand_connect(&h, epoch++);
		hand_say(&h, unknown[i]);
		hand_wait(&h, CONTROL_BACKEND_CLOSED);
		hand_assert_error(&h, "cannot follow READY");
	}
	hand_connect(&h, epoch++);
	hand_say(&h, CONTROL_FRONTEND_INIT);
	hand_wait(&h, CONTROL_BACKEND_CLOSED);
	hand_assert_error(&h, "cannot follow READY");
	hand_say(&h, CONTROL_FRONTEND_INIT);
	assert_ignored(&h, epoch - 1, CONTROL_BACKEND_CLOSED);
	hand_say(&h, CONTROL_FRONTEND_READY);
	assert_ignored(&h, epoch - 1, CONTROL_BACKEND_CLOSED);
	hand_begin(&h, epoch++);
	hand_say(&h, CONTROL_FRONTEND_CLOSING);
	hand_wait(&h, CONTROL_BACKEND_CLOSED);
	hand_connect(&h, epoch++);
	/* Said again, it changes nothing. */
	hand_say(&h, CONTROL_FRONTEND_READY);
	assert_ignored(&h, epoch - 1, CONTROL_BACKEND_CONNECTED);
	hand_close(&h);
}

/* What the backend has said it does not read back. */
static void backends_half_is_scribbled_over(void **state)
{
	struct hand h;

	stage_add(usual);
	h = hand_open("w");
	for (int fill = 0; fill < 256; fill += 51) {
		uint32_t epoch = 1000 + (uint32_t)fill * 10;

		memset(&h.page->backend, fill, sizeof(h.page->backend));
		hand_begin(&h, epoch);
		assert_int_equal(h.page->backend.magic, CONTROL_MAGIC);
		assert_int_equal(h.page->backend.pages, PAGES);
		assert_int_equal(h.page->backend.max_queues, 2);
		assert_int_equal(h.page->backend.error[0], 0);
		hand_choose(&h);
		memset(&h.page->backend, fill, sizeof(h.page->backend));
		hand_say(&h, CONTROL_FRONTEND_READY);
		while (atomic_load(&h.page->backend.state) != CONTROL_BACKEND_CONNECTED)
			usleep(100);
		memset(&h.page->backend, fill, sizeof(h.page->backend));
		hand_say(&h, CONTROL_FRONTEND_CLOSING);
		while (atomic_load(&h.page->backend.state) != CONTROL_BACKEND_CLOSED)
			usleep(100);
	}
	hand_connect(&h, 9);
	hand_close(&h);
}

/* Anything at any time, in every part of the page, with rings all the while. */
static void page_full_of_noise(void **state)
{
	uint64_t end_ns = clock_now_ns() + 500 * NSEC_PER_MSEC;
	uint32_t seed = 12345;
	struct client c;
	struct hand h;

	stage_add(usual);
	stage_add((struct sivshm_door_worker){.name = "other", .bdev = "null"});
	h = hand_open("w");
	hand_choose(&h);
	for (unsigned i = 0; clock_now_ns() < end_ns; i++) {
		uint32_t *words = (uint32_t *)(void *)h.page;

		for (unsigned n = 0; n < 8; n++) {
			seed = seed * 1664525 + 1013904223;
			/* Mostly near the truth, so that all states are come by. */
			if (n < 2)
				atomic_store(&h.page->frontend.state, (seed >> 24) % 5);
			else if (n == 3)
				atomic_store(&h.page->frontend.epoch, (seed >> 16) % 3 + 1);
			else if (n == 4)
				words[seed % 1024] = seed >> 8;
			else if (n == 5 && !(seed % 64))
				words[seed % 1024 + 1024] = seed >> 4;
		}
		if (!(i % 50))
			hand_choose(&h);
		sivshm_port_ring(h.port, i % 3);
	}
	hand_connect(&h, 4711);
	hand_close(&h);
	c = client_open("other", NULL);
	client_close(&c);
}

/* References */

static uint32_t tampered_gref;

static void tamper_gref(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	const struct blkif_layout *layout = req->arg;

	memcpy((char *)slot + layout->indirect_grefs, &tampered_gref, sizeof(tampered_gref));
}

static int16_t read_one(struct client *c, const struct blkif_wire_segment *segs, unsigned nr,
			bool indirect, uint32_t indirect_gref)
{
	bool line = front_segment_disk(c->segment)->layout == CONTROL_LAYOUT_LINE;
	struct front_req req = {
		.op = BLKIF_READ,
		.indirect = indirect,
		.segments = segs,
		.nr_segments = nr,
		.arg = line ? (void *)&blkif_layout_line : (void *)&blkif_layout_x86_64,
	};

	if (indirect_gref != 1) {
		tampered_gref = indirect_gref;
		req.tamper = tamper_gref;
	}
	front_req_sync(front_segment_queue(c->segment, 0), &req);
	return req.status;
}

/* Pages that are none of the segment's, and the control page, are not to be reached. */
static void references_beyond(enum sivshm_door_sharing sharing, const char *bdev, uint32_t layout)
{
	static const uint32_t bad[] = {0, PAGES, PAGES + 1, 2 * PAGES, 0x7fffffff, UINT32_MAX};
	struct front_segment_opts opts = {
		.queues = 1, .layouts = layout, .max_segments = 64, .sync_pages = 1};
	struct blkif_wire_segment segs[3] = {{.last_sect = 7}, {.last_sect = 7}, {.last_sect = 7}};
	struct client c, other;
	char before[4096], *neighbour;
	unsigned done = 0;
	size_t len;

	/* Segments lie side by side: one too far is another's. */
	stage_add((struct sivshm_door_worker){
		.bdev = bdev, .sharing = sharing, .segment_bytes = SEGMENT});
	stage_add((struct sivshm_door_worker){
		.name = "other", .bdev = "null", .segment_bytes = SEGMENT});
	c = client_open("w", &opts);
	other = client_open("other", NULL);
	len = sivshm_port_size(other.port) - 4096 * 4;
	neighbour = (char *)sivshm_port_memory(other.port) + 4096 * 4;
	memset(neighbour, 0x5c, len);
	memcpy(before, sivshm_port_memory(c.port), 4096);
	assert_non_null(front_segment_pages_alloc(c.segment, 1, &segs[0].gref));
	segs[2].gref = segs[0].gref;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		segs[1].gref = bad[i];
		assert_int_equal(read_one(&c, segs, 3, false, 1), BLKIF_ERROR);
		assert_int_equal(read_one(&c, segs + 1, 1, false, 1), BLKIF_ERROR);
		assert_int_equal(read_one(&c, segs, 3, true, 1), BLKIF_ERROR);
		segs[1].gref = segs[0].gref;
		assert_int_equal(read_one(&c, segs, 3, true, bad[i]), BLKIF_ERROR);
		assert_int_equal(read_one(&c, segs, 3, true, 1), BLKIF_OKAY);
		done += 4;
	}
	/* No sector is beyond its page. */
	segs[1].last_sect = 8;
	assert_int_equal(read_one(&c, segs, 3, false, 1), BLKIF_ERROR);
	assert_int_equal(read_one(&c, segs, 3, true, 1), BLKIF_ERROR);
	segs[1].first_sect = 255;
	segs[1].last_sect = 255;
	assert_int_equal(read_one(&c, segs, 3, false, 1), BLKIF_ERROR);
	assert_int_equal(count("w", "share_errors", NULL), done);
	assert_int_equal(count("w", "invalid", NULL), 3);
	assert_memory_equal(before, sivshm_port_memory(c.port), 4096);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(neighbour[i], 0x5c);
	client_close(&c);
	client_close(&other);
}

static void references_beyond_copied(void **state)
{
	references_beyond(SIVSHM_DOOR_SHARING_COPY, "ram", CONTROL_LAYOUT_X86_64);
}

static void references_beyond_direct(void **state)
{
	references_beyond(SIVSHM_DOOR_SHARING_MAP, "ram", CONTROL_LAYOUT_LINE);
}

static void references_beyond_by_dma(void **state)
{
	stage_use_dma();
	stage_held("held", 1 << 20);
	references_beyond(SIVSHM_DOOR_SHARING_DMA, "held", CONTROL_LAYOUT_X86_64);
	assert_int_equal(stage_dma_faults(), 0);
}

/* Rings */

/* The other queue's request that is under way is finished first. */
static void ring_is_broken(void **state)
{
	struct held *held = stage_held("held", 1 << 20);
	struct front_segment_opts opts = {
		.queues = 2, .layouts = CONTROL_LAYOUT_X86_64, .sync_pages = 1};
	struct front_req flush = {.op = BLKIF_FLUSH_DISKCACHE, .status = 1};
	struct control_page *page;
	struct client c;

	stage_add((struct sivshm_door_worker){.bdev = "held", .max_queues = 2});
	c = client_open("w", &opts);
	page = sivshm_port_memory(c.port);
	held_hold(held);
	assert_int_equal(front_submit(front_segment_queue(c.segment, 1), &flush), 0);
	front_push(front_segment_queue(c.segment, 1));
	assert_true(held_wait(held, 1));
	atomic_store(&front_sring(front_segment_queue(c.segment, 0))->req_prod, 0x80000000);
	sivshm_port_ring(c.port, 1);
	stage_wait_state("w", "closing");
	usleep(20000);
	assert_int_equal(page->backend.state, CONTROL_BACKEND_CONNECTED);
	held_release(held, false);
	while (atomic_load(&page->backend.state) != CONTROL_BACKEND_CLOSED)
		usleep(100);
	assert_non_null(strstr(page->backend.error, "broke its ring"));
	assert_int_equal(front_poll(front_segment_queue(c.segment, 1)), 1);
	assert_int_equal(flush.status, BLKIF_OKAY);
	/* It may come back, on the same segment. */
	front_segment_destroy(c.segment);
	client_restart(&c, NULL);
	client_check(&c, 0, 0, 8);
	client_close(&c);
}

/* Doorbells */

static struct {
	struct sivshm_port *port;
	unsigned vector;
	atomic_bool stop;
	uint64_t rings;
} storm;

static void *run_storm(void *arg)
{
	while (!atomic_load(&storm.stop)) {
		sivshm_port_ring(storm.port, storm.vector);
		storm.rings++;
	}
	return NULL;
}

static pthread_t begin_storm(struct sivshm_port *port, unsigned vector)
{
	pthread_t thread;

	storm.port = port;
	storm.vector = vector;
	storm.rings = 0;
	atomic_store(&storm.stop, false);
	assert_int_equal(pthread_create(&thread, NULL, run_storm, NULL), 0);
	return thread;
}

static void end_storm(pthread_t thread)
{
	atomic_store(&storm.stop, true);
	pthread_join(thread, NULL);
}

/* It is listened to later and later; meanwhile others are served. */
static void storm_on_a_queue(void **state)
{
	struct client c, other;
	pthread_t thread;
	uint64_t begin_ns;
	json_int_t heard;

	stage_add(usual);
	stage_add((struct sivshm_door_worker){.name = "other", .bdev = "null"});
	c = client_open("w", NULL);
	other = client_open("other", NULL);
	thread = begin_storm(c.port, 1);
	begin_ns = clock_now_ns();
	while (clock_now_ns() - begin_ns < 500 * NSEC_PER_MSEC) {
		char data[512];

		assert_int_equal(front_rw_sync(front_segment_queue(other.segment, 0), BLKIF_READ, 0,
					       data, 512),
				 0);
	}
	end_storm(thread);
	heard = count("w", "notifications", "received");
	assert_true(storm.rings > 1000);
	/* 16 in vain at once, then every 1, 2, 4 .. 64 ms. */
	assert_in_range(heard, 1, 16 + 7 + 500 / 64 + 10);
	assert_true(count("other", "read", "requests") > 100);
	/* And is heard again when it has something to say. */
	client_check(&c, 0, 0, 8);
	client_close(&c);
	client_close(&other);
}

static void get_sleeps(void *arg)
{
	struct reactor_stats stats;

	reactor_get_stats(stage_door()->opts.control, &stats);
	*(uint64_t *)arg = stats.sleeps;
}

/* The control thread looks at a page so often, and no more. */
static void storm_on_the_control_vector(void **state)
{
	uint64_t before, after, begin_ns, took_ms;
	struct client c, other;
	pthread_t thread;

	stage_add(usual);
	stage_add((struct sivshm_door_worker){.name = "other", .bdev = "null"});
	c = client_open("w", NULL);
	stage_on_control(get_sleeps, &before);
	thread = begin_storm(c.port, 0);
	begin_ns = clock_now_ns();
	usleep(300000);
	took_ms = (clock_now_ns() - begin_ns) / NSEC_PER_MSEC;
	stage_on_control(get_sleeps, &after);
	/* Others connect meanwhile. */
	other = client_open("other", NULL);
	client_close(&other);
	end_storm(thread);
	assert_true(storm.rings > 1000);
	/* 64 looks in 20 ms, and the timer. */
	assert_in_range(after - before, 1, (took_ms / 20 + 2) * 66);
	client_check(&c, 0, 0, 8);
	client_close(&c);
}

/* Lives without end, one after the other, cost no more. */
static void storm_of_epochs(void **state)
{
	uint64_t before, after, begin_ns = clock_now_ns(), took_ms;
	uint32_t epoch = 1;
	struct hand h;

	stage_add(usual);
	h = hand_open("w");
	hand_choose(&h);
	stage_on_control(get_sleeps, &before);
	while (clock_now_ns() - begin_ns < 300 * NSEC_PER_MSEC) {
		atomic_store(&h.page->frontend.epoch, ++epoch);
		hand_say(&h, CONTROL_FRONTEND_INIT);
		hand_say(&h, CONTROL_FRONTEND_READY);
	}
	took_ms = (clock_now_ns() - begin_ns) / NSEC_PER_MSEC;
	stage_on_control(get_sleeps, &after);
	/* A look at READY may start and stop queues: messages there and back. */
	assert_in_range(after - before, 1, (took_ms / 20 + 2) * 64 * 3);
	hand_connect(&h, epoch + 1);
	hand_close(&h);
}

static void get_cpu_time(void *arg)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	*(uint64_t *)arg = (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* To make as many queues as can be had takes time, of which others must have most. */
static void storm_of_queues(void **state)
{
	enum { QUEUES = 63, ORDER = 4 };
	uint64_t before, now, begin_ns;
	struct control_frontend *f;
	struct hand h;

	stage_add((struct sivshm_door_worker){.max_queues = QUEUES, .segment_bytes = 16 << 20});
	h = hand_open("w");
	hand_choose(&h);
	f = &h.page->frontend;
	f->nr_queues = QUEUES;
	f->ring_order = ORDER;
	for (uint32_t n = 0; n < QUEUES; n++) {
		f->rings[n] = 1 + (n << ORDER);
		memset((char *)h.page + (size_t)f->rings[n] * BLKIF_PAGE_SIZE, 0, BLKIF_PAGE_SIZE);
	}
	stage_on_control(get_cpu_time, &before);
	begin_ns = clock_now_ns();
	for (uint32_t epoch = 1;; epoch++) {
		hand_begin(&h, epoch);
		hand_say(&h, CONTROL_FRONTEND_READY);
		hand_wait(&h, CONTROL_BACKEND_CONNECTED);
		stage_on_control(get_cpu_time, &now);
		if (now - before > 200 * NSEC_PER_MSEC)
			break;
	}
	/* An eighth, and what it may owe in the beginning. */
	assert_true(clock_now_ns() - begin_ns > 4 * (now - before));
	hand_close(&h);
}

static void run_into_debt(void *arg)
{
	struct sivshm_disk *d = list_entry(stage_door()->disks.next, struct sivshm_disk, node);

	d->paid_ns = clock_now_ns() + 300 * NSEC_PER_MSEC;
}

/* One that has come and gone too often waits for the next segment, and can be removed meanwhile. */
static void haunts(void **state)
{
	struct sivshm_port *p;
	uint64_t begin_ns;

	stage_add(usual);
	p = stage_open("w");
	begin_ns = clock_now_ns();
	stage_on_control(run_into_debt, NULL);
	sivshm_port_close(p);
	stage_wait_state("w", "waiting");
	sivshm_port_close(stage_open("w"));
	assert_true(clock_now_ns() - begin_ns >= 300 * NSEC_PER_MSEC);

	p = stage_open("w");
	stage_on_control(run_into_debt, NULL);
	sivshm_port_close(p);
	stage_wait_state("w", "waiting");
	stage_remove("w", false);
	stage_wait_removed();
	/* Nothing is left that would look at it. */
	usleep(400000);
}

/* It cannot be added to, and its owner has made writing to it block. */
static void saturated_by_the_frontend(void **state)
{
	uint64_t full = UINT64_MAX - 1, was = 0;
	struct client c, other;

	stage_add(usual);
	stage_add((struct sivshm_door_worker){.name = "other", .bdev = "null"});
	c = client_open("w", NULL);
	other = client_open("other", NULL);
	for (unsigned v = 0; v < 2; v++) {
		int fd = sivshm_port_fd(c.port, v);

		while (sivshm_port_take(c.port, v) > 0)
			;
		assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
		assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	}
	for (unsigned i = 0; i < 20; i++) {
		struct front_req flush = {.op = BLKIF_FLUSH_DISKCACHE, .status = 1};

		/* Each wants to be notified of its response. */
		front_arm(front_segment_queue(c.segment, 0));
		assert_int_equal(front_submit(front_segment_queue(c.segment, 0), &flush), 0);
		front_push(front_segment_queue(c.segment, 0));
		while (flush.status == 1)
			assert_true(front_poll(front_segment_queue(c.segment, 0)) >= 0);
		assert_int_equal(flush.status, BLKIF_OKAY);
	}
	assert_true(count("w", "notifications", "sent") > 0);
	assert_int_equal(read(sivshm_port_fd(c.port, 1), &was, sizeof(was)), sizeof(was));
	assert_true(was >= full);
	assert_int_equal(front_req_sync(front_segment_queue(other.segment, 0),
					&(struct front_req){.op = BLKIF_FLUSH_DISKCACHE}),
			 0);
	client_close(&c);
	client_close(&other);
}

static void find_bells(void *arg)
{
	const struct sivshm_disk *d =
		list_entry(stage_door()->disks.next, struct sivshm_disk, node);
	int *fds = arg;

	for (unsigned v = 0; v < 2; v++)
		fds[v] = sivshm_port_fd(sivshm_worker_port(d->peer), v);
}

/* The backend's own: at its very end it polls as an error, which cannot be masked. */
static void saturated_at_the_backend(void **state)
{
	uint64_t full = UINT64_MAX - 1, was, before, after;
	struct client c;
	int fds[2];

	stage_add(usual);
	c = client_open("w", NULL);
	stage_on_control(find_bells, fds);
	stage_on_control(get_sleeps, &before);
	for (unsigned round = 0; round < 3; round++) {
		/* Until it is listened to so seldom that it is disarmed most of the time. */
		for (unsigned i = 0; i < 60; i++) {
			sivshm_port_ring(c.port, 1);
			usleep(3000);
		}
		for (unsigned v = 0; v < 2; v++) {
			if (read(fds[v], &was, sizeof(was)) < 0)
				assert_int_equal(errno, EAGAIN);
			assert_int_equal(write(fds[v], &full, sizeof(full)), sizeof(full));
			sivshm_port_ring(c.port, v);
		}
		usleep(60000);
		client_check(&c, 0, round * 8, 8);
	}
	stage_on_control(get_sleeps, &after);
	assert_true(after - before < 500);
	assert_true(count("w", "notifications", "received") < 200);
	client_close(&c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)
	const struct CMUnitTest tests[] = {
		TEST(every_choice_is_judged),
		TEST(impossible_ring),
		TEST(states_out_of_order),
		TEST(backends_half_is_scribbled_over),
		TEST(page_full_of_noise),
		TEST(references_beyond_copied),
		TEST(references_beyond_direct),
		TEST(references_beyond_by_dma),
		TEST(ring_is_broken),
		TEST(storm_on_a_queue),
		TEST(storm_on_the_control_vector),
		TEST(storm_of_epochs),
		TEST(storm_of_queues),
		TEST(haunts),
		TEST(saturated_by_the_frontend),
		TEST(saturated_at_the_backend),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
