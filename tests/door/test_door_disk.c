/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk over a segment, from the handshake to the last response, with frontends that behave. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "blkif/wire.h"
#include "stage.h"

static json_int_t number(json_t *from, const char *a, const char *b)
{
	json_t *v = json_object_get(from, a);

	if (b)
		v = json_object_get(v, b);
	assert_true(json_is_integer(v));
	return json_integer_value(v);
}

static const char *text(json_t *from, const char *key)
{
	return json_string_value(json_object_get(from, key));
}

/* The page as a frontend finds it, and each step's answer. */
static void handshake(void **state)
{
	const struct control_backend *b;
	struct hand h;

	stage_add((struct sivshm_door_worker){.max_queues = 3, .segment_bytes = 1 << 20});
	stage_wait_state("w", "listening");
	h = hand_open("w");
	b = &h.page->backend;
	stage_wait_state("w", "joined");
	assert_int_equal(sivshm_port_size(h.port), 1 << 20);
	assert_int_equal(sivshm_port_vectors(h.port), 4);
	assert_int_equal(b->magic, CONTROL_MAGIC);
	assert_int_equal(b->version, CONTROL_VERSION);
	assert_int_equal(b->epoch, 0);
	assert_int_equal(b->state, CONTROL_BACKEND_NONE);

	hand_begin(&h, 77);
	assert_int_equal(b->pages, 256);
	assert_int_equal(b->features, CONTROL_FLUSH | CONTROL_BARRIER | CONTROL_DISCARD |
					      CONTROL_SECURE_DISCARD);
	assert_int_equal(b->layouts, CONTROL_LAYOUT_X86_64 | CONTROL_LAYOUT_LINE);
	assert_int_equal(b->max_queues, 3);
	assert_int_equal(b->max_ring_order, CONTROL_RING_ORDER_MAX);
	assert_int_equal(b->max_indirect_segments, 256);
	assert_int_equal(b->sector_size, 512);
	assert_int_equal(b->sectors, (16 << 20) / 512);

	hand_choose(&h);
	hand_say(&h, CONTROL_FRONTEND_READY);
	hand_wait(&h, CONTROL_BACKEND_CONNECTED);
	assert_int_equal(b->error[0], 0);
	hand_say(&h, CONTROL_FRONTEND_CLOSING);
	hand_wait(&h, CONTROL_BACKEND_CLOSED);
	assert_int_equal(b->error[0], 0);
	hand_close(&h);
	stage_wait_state("w", "listening");
}

/* Segments that begin and end inside their pages: their sectors, and no byte beside them. */
static void scattered_sectors(struct client *c, bool indirect)
{
	static const struct blkif_wire_segment shape[] = {
		{.first_sect = 2, .last_sect = 4},
		{.first_sect = 0, .last_sect = 7},
		{.first_sect = 5, .last_sect = 5},
		{.first_sect = 7, .last_sect = 7},
	};
	struct front *f = front_segment_queue(c->segment, 0);
	struct blkif_wire_segment segs[4];
	struct front_req req = {
		.sector = 33, .indirect = indirect, .segments = segs, .nr_segments = 4};
	unsigned sectors = 0;
	char *pages[4];

	for (unsigned i = 0; i < 4; i++) {
		segs[i] = shape[i];
		pages[i] = front_segment_pages_alloc(c->segment, 1, &segs[i].gref);
		for (unsigned at = 0; at < BLKIF_PAGE_SIZE; at++)
			pages[i][at] = (char)(i * 8 + at / 512 + 1);
	}
	req.op = BLKIF_WRITE;
	assert_int_equal(front_req_sync(f, &req), 0);
	for (unsigned i = 0; i < 4; i++)
		memset(pages[i], 0x40, BLKIF_PAGE_SIZE);
	req.op = BLKIF_READ;
	assert_int_equal(front_req_sync(f, &req), 0);
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned s = 0; s < 8; s++) {
			bool within = s >= shape[i].first_sect && s <= shape[i].last_sect;

			for (unsigned at = s * 512; at < (s + 1) * 512; at++)
				assert_int_equal(pages[i][at], within ? i * 8 + s + 1 : 0x40);
			sectors += within;
		}
		front_segment_pages_free(c->segment, pages[i], 1);
	}
	assert_int_equal(sectors, 13);
}

static void every_kind(struct client *c)
{
	struct front *f = front_segment_queue(c->segment, 0);
	struct front_req flush = {.op = BLKIF_FLUSH_DISKCACHE};
	struct front_req discard = {.op = BLKIF_DISCARD, .sector = 64, .discard_sectors = 64};
	struct front_req erase = {
		.op = BLKIF_DISCARD,
		.flag = BLKIF_DISCARD_SECURE,
		.sector = 64,
		.discard_sectors = 64,
	};
	uint32_t features = front_segment_disk(c->segment)->features;
	char zeroes[512] = "not zero";

	client_check(c, 0, 3, 1);
	client_check(c, 0, 64, 8);
	client_check(c, 0, 65, 40);   /* the most of a direct request's, and more than a line's */
	client_check(c, 0, 1000, 88); /* more than a direct one has */
	client_check(c, 0, 2048, 64 * 8);
	scattered_sectors(c, false);
	scattered_sectors(c, true);
	assert_int_equal(front_req_sync(f, &flush), 0);
	if (features & CONTROL_DISCARD) {
		assert_int_equal(front_req_sync(f, &discard), 0);
		assert_int_equal(front_rw_sync(f, BLKIF_READ, 64, zeroes, 512), 0);
		assert_int_equal(zeroes[0], 0);
	}
	if (features & CONTROL_SECURE_DISCARD)
		assert_int_equal(front_req_sync(f, &erase), 0);
	assert_int_equal(front_rw_sync(f, BLKIF_WRITE_BARRIER, 64, zeroes, 512), 0);
}

/* On each layout, with rings of each size. */
static void kinds_on_all_layouts(const char *name)
{
	static const uint32_t layouts[] = {CONTROL_LAYOUT_X86_64, CONTROL_LAYOUT_LINE};

	for (unsigned i = 0; i < 2; i++) {
		for (unsigned order = 0; order <= 4; order += 2) {
			struct front_segment_opts opts = {
				.queues = 1,
				.ring_order = order,
				.layouts = layouts[i],
				.max_segments = 256,
				.sync_pages = 64,
			};
			struct client c = client_open(name, &opts);

			assert_int_equal(front_segment_disk(c.segment)->layout, layouts[i]);
			every_kind(&c);
			client_close(&c);
		}
	}
}

static void assert_way(const char *name, const char *way)
{
	static const char *const all[] = {"copy", "map", "dma"};
	json_t *stats = stage_stats(name), *by = json_object_get(stats, "shared_by");

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(number(json_object_get(by, all[i]), "requests", NULL) != 0,
				 !strcmp(all[i], way));
	assert_int_equal(number(stats, "invalid", NULL), 0);
	assert_int_equal(number(stats, "share_errors", NULL), 0);
	json_decref(stats);
}

static void kinds_by_copy(void **state)
{
	stage_add((struct sivshm_door_worker){.sharing = SIVSHM_DOOR_SHARING_COPY});
	kinds_on_all_layouts("w");
	assert_way("w", "copy");
}

static void kinds_without_a_copy(void **state)
{
	stage_add((struct sivshm_door_worker){.sharing = SIVSHM_DOOR_SHARING_MAP});
	kinds_on_all_layouts("w");
	assert_way("w", "map");
}

static void auto_is_map_for_the_cpu(void **state)
{
	struct client c;

	stage_add((struct sivshm_door_worker){0});
	c = client_open("w", NULL);
	client_check(&c, 0, 0, 8);
	client_close(&c);
	assert_way("w", "map");
}

/* A device that fetches by itself: the segment is mapped for it as long as it is connected. */
static void kinds_by_dma(void **state)
{
	struct client c;
	json_t *entry;

	stage_use_dma();
	stage_held("held", 4 << 20);
	stage_add((struct sivshm_door_worker){.bdev = "held", .segment_bytes = 1 << 20});
	assert_int_equal(stage_dma_mapped(), 0);
	c = client_open("w", NULL);
	assert_int_equal(stage_dma_mapped(), 256);
	entry = stage_list("w");
	assert_string_equal(text(entry, "way"), "dma");
	json_decref(entry);
	every_kind(&c);
	client_close(&c);
	stage_wait_state("w", "listening");
	assert_int_equal(stage_dma_mapped(), 0);
	assert_int_equal(stage_dma_faults(), 0);
	assert_way("w", "dma");
}

/* What cannot be mapped is copied, unless dma was asked for by name. */
static void dma_that_is_refused(void **state)
{
	struct client c;
	struct hand h;
	json_t *entry;

	stage_use_dma();
	stage_dma_refuse();
	stage_held("held", 4 << 20);
	stage_add((struct sivshm_door_worker){.bdev = "held"});
	c = client_open("w", NULL);
	every_kind(&c);
	entry = stage_list("w");
	assert_string_equal(text(entry, "way"), "copy");
	json_decref(entry);
	client_close(&c);
	assert_way("w", "copy");
	stage_remove("w", false);
	stage_wait_removed();

	stage_add((struct sivshm_door_worker){.bdev = "held", .sharing = SIVSHM_DOOR_SHARING_DMA});
	h = hand_open("w");
	hand_begin(&h, 1);
	hand_choose(&h);
	hand_say(&h, CONTROL_FRONTEND_READY);
	hand_wait(&h, CONTROL_BACKEND_REFUSED);
	hand_assert_error(&h, "the IOMMU is full");
	hand_close(&h);
}

/* More queues than there is memory for begin together or not at all; fewer may be asked for. */
static void device_memory_runs_out(void **state)
{
	struct hand h;

	stage_use_dma();
	stage_held("held", 4 << 20);
	stage_add((struct sivshm_door_worker){.bdev = "held", .max_queues = 20});
	h = hand_open("w");
	for (uint32_t queues = 20; queues; queues -= 10) {
		hand_begin(&h, queues);
		hand_choose(&h);
		h.page->frontend.nr_queues = queues;
		for (uint32_t n = 0; n < queues; n++)
			h.page->frontend.rings[n] = 1 + n;
		hand_say(&h, CONTROL_FRONTEND_READY);
		hand_wait(&h, queues > 10 ? CONTROL_BACKEND_REFUSED : CONTROL_BACKEND_CONNECTED);
		if (queues > 10)
			hand_assert_error(&h, "--device-memory-mib");
	}
	hand_close(&h);
}

static void make_large_blocks(void *arg)
{
	struct err err;

	assert_int_equal(bdev_ram_create("ram4k", 4 << 20, 4096, NULL, &err), 0);
	held_bdev(held_create_blocks("held4k", 4 << 20, 4096))->limits.mem_align = 4;
}

/* Blocks of 4 KiB, seen in sectors: what is aligned goes as it lies, the rest by way of copies. */
static void large_blocks(void **state)
{
	static const struct {
		const char *name, *bdev;
		enum sivshm_door_sharing sharing;
	} workers[] = {
		{"a", "ram4k", SIVSHM_DOOR_SHARING_MAP},
		{"b", "ram4k", SIVSHM_DOOR_SHARING_COPY},
		{"c", "held4k", SIVSHM_DOOR_SHARING_DMA},
	};

	stage_use_dma();
	stage_on_control(make_large_blocks, NULL);
	for (unsigned i = 0; i < 3; i++) {
		stage_add((struct sivshm_door_worker){.name = workers[i].name,
						      .bdev = workers[i].bdev,
						      .sharing = workers[i].sharing});
		kinds_on_all_layouts(workers[i].name);
		stage_remove(workers[i].name, false);
		stage_wait_removed();
	}
	assert_int_equal(stage_dma_faults(), 0);
}

static void many_queues(void **state)
{
	struct front_segment_opts opts = {
		.queues = 5, .ring_order = 1, .max_segments = 64, .sync_pages = 16};
	struct client c;
	json_t *stats, *queues, *queue;
	size_t i;

	stage_add((struct sivshm_door_worker){.max_queues = 5});
	c = client_open("w", &opts);
	assert_int_equal(front_segment_disk(c.segment)->queues, 5);
	for (unsigned n = 0; n < 50; n++)
		client_check(&c, n % 5, n * 128, 1 + n % 100);
	stats = stage_stats("w");
	queues = json_object_get(stats, "queues");
	assert_int_equal(json_array_size(queues), 5);
	json_array_foreach(queues, i, queue)
		assert_int_equal(number(queue, "write", "requests"), 10);
	assert_int_equal(number(stats, "write", "requests"), 50);
	json_decref(stats);
	client_close(&c);
	/* What has ended counts on. */
	stats = stage_stats("w");
	assert_int_equal(number(stats, "write", "requests"), 50);
	json_decref(stats);
}

/* All of a ring's requests at once, done in the order in which the device likes them. */
static void whole_ring_in_flight(void **state)
{
	enum { N = 32 };
	static struct front_req reqs[N];
	static struct blkif_wire_segment segs[N];
	struct held *held = stage_held("held", 4 << 20);
	struct client c;
	struct front *f;
	uint32_t ref;
	char *page;
	int done = 0;
	uint64_t begin_ns;

	stage_add((struct sivshm_door_worker){.bdev = "held"});
	for (unsigned i = 0; i < 2 * N; i++)
		memset(held_data(held) + i * 4096, (int)i + 1, 4096);
	c = client_open("w", NULL);
	f = front_segment_queue(c.segment, 0);
	held_hold(held);
	for (unsigned i = 0; i < N; i++) {
		page = front_segment_pages_alloc(c.segment, 1, &ref);
		memset(page, 0, 4096);
		segs[i] = (struct blkif_wire_segment){.gref = ref, .last_sect = 7};
		reqs[i] = (struct front_req){
			.op = BLKIF_READ,
			.sector = i * 8,
			.segments = &segs[i],
			.nr_segments = 1,
			.arg = page,
			.status = 1,
		};
		assert_int_equal(front_submit(f, &reqs[i]), 0);
	}
	front_push(f);
	assert_true(held_wait(held, N));
	assert_int_equal(front_poll(f), 0);
	begin_ns = clock_now_ns();
	held_release(held, true);
	while (done < N) {
		int rc = front_wait(f, STAGE_WAIT_MS);

		assert_true(rc > 0);
		done += rc;
	}
	/* It was woken, and did not come back by itself. */
	assert_true(clock_now_ns() - begin_ns < STAGE_WAIT_MS / 2 * NSEC_PER_MSEC);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(reqs[i].status, BLKIF_OKAY);
		for (unsigned at = 0; at < 4096; at++)
			assert_int_equal(((char *)reqs[i].arg)[at], (int)i + 1);
	}
	client_close(&c);
}

static void readonly_disk(void **state)
{
	struct client c;
	char data[512] = "x";

	stage_add((struct sivshm_door_worker){.readonly = true});
	c = client_open("w", NULL);
	assert_true(front_segment_disk(c.segment)->features & CONTROL_READONLY);
	assert_false(front_segment_disk(c.segment)->features & CONTROL_DISCARD);
	assert_int_equal(
		front_rw_sync(front_segment_queue(c.segment, 0), BLKIF_WRITE, 0, data, 512), -EIO);
	assert_int_equal(front_rw_sync(front_segment_queue(c.segment, 0), BLKIF_READ, 0, data, 512),
			 0);
	assert_int_equal(data[0], 0);
	client_close(&c);
}

struct resize {
	const char *bdev;
	uint64_t size;
};

static void resize(void *arg)
{
	const struct resize *r = arg;
	struct err err;

	assert_int_equal(bdev_resize(bdev_find(r->bdev), r->size, &err), 0);
}

struct sectors {
	struct client *client;
	uint64_t wanted;
};

static bool has_sectors(void *arg)
{
	const struct sectors *s = arg;

	return front_segment_sectors(s->client->segment) == s->wanted;
}

/* Once the frontend can see the size its requests may use it. */
static void resized(void **state)
{
	struct resize r = {"ram", 32 << 20};
	struct sectors s = {.wanted = (32 << 20) / 512};
	const struct control_backend *b;
	struct client c;
	uint32_t revision;
	char data[512];

	stage_add((struct sivshm_door_worker){.max_queues = 2});
	c = client_open("w", NULL);
	s.client = &c;
	b = &((struct control_page *)sivshm_port_memory(c.port))->backend;
	revision = b->revision;
	assert_int_equal(front_rw_sync(front_segment_queue(c.segment, 0), BLKIF_READ,
				       (16 << 20) / 512, data, 512),
			 -EIO);
	stage_on_control(resize, &r);
	stage_wait(has_sectors, &s);
	assert_int_equal(b->revision, revision + 1);
	client_check(&c, 0, (16 << 20) / 512, 8);
	client_close(&c);
	/* Between offer and choice: told once it is connected. */
	c.port = stage_open("w");
	assert_int_equal(front_segment_create(
				 c.port, &(struct front_segment_opts){.queues = 1, .sync_pages = 1},
				 &c.segment),
			 0);
	assert_int_equal(front_segment_advance(c.segment), 0);
	b = &((struct control_page *)sivshm_port_memory(c.port))->backend;
	while (b->state != CONTROL_BACKEND_OFFER)
		usleep(100);
	r.size = 48 << 20;
	stage_on_control(resize, &r);
	assert_int_equal(front_segment_connect(c.segment, STAGE_WAIT_MS), 0);
	s.wanted = (48 << 20) / 512;
	stage_wait(has_sectors, &s);
	client_check(&c, 0, (48 << 20) / 512 - 1, 1);
	client_close(&c);
}

/* The administrator asks, the frontend finishes and agrees. */
static void removed_with_consent(void **state)
{
	struct client c;
	struct err err;

	stage_add((struct sivshm_door_worker){0});
	c = client_open("w", NULL);
	stage_remove("w", false);
	stage_wait_state("w", "closing");
	while (!front_segment_is_closing(c.segment))
		usleep(100);
	/* It is still served. */
	client_check(&c, 0, 0, 8);
	assert_false(stage_is_removed());
	assert_int_equal(stage_try_add((struct sivshm_door_worker){.name = "x"}, &err), -EBUSY);
	client_close(&c);
	stage_wait_removed();
	assert_null(stage_list("w"));
	stage_add((struct sivshm_door_worker){.name = "x"});
}

static void removed_by_force(void **state)
{
	struct control_page *page;
	struct client c;

	stage_add((struct sivshm_door_worker){0});
	c = client_open("w", NULL);
	page = sivshm_port_memory(c.port);
	stage_remove("w", true);
	stage_wait_removed();
	assert_int_equal(page->backend.state, CONTROL_BACKEND_CLOSED);
	assert_string_equal(page->backend.error, "the disk was taken away");
	assert_int_equal(front_segment_advance(c.segment), -ECONNREFUSED);
	client_die(&c);
}

static void removed_without_a_frontend(void **state)
{
	struct hand h;

	stage_add((struct sivshm_door_worker){0});
	stage_remove("w", false);
	stage_wait_removed();
	stage_add((struct sivshm_door_worker){0});
	h = hand_open("w");
	hand_begin(&h, 5);
	stage_remove("w", false);
	stage_wait_removed();
	hand_wait(&h, CONTROL_BACKEND_CLOSED);
	hand_close(&h);
}

/* What was taken is answered, and the frontend is told why it ends. */
static void drained(void **state)
{
	struct held *held = stage_held("held", 1 << 20);
	struct control_page *page;
	struct front_req req = {.op = BLKIF_FLUSH_DISKCACHE, .status = 1};
	struct client c;

	stage_add((struct sivshm_door_worker){.bdev = "held"});
	c = client_open("w", NULL);
	page = sivshm_port_memory(c.port);
	held_hold(held);
	assert_int_equal(front_submit(front_segment_queue(c.segment, 0), &req), 0);
	front_push(front_segment_queue(c.segment, 0));
	assert_true(held_wait(held, 1));
	held_release(held, false);
	stage_drain();
	assert_int_equal(front_poll(front_segment_queue(c.segment, 0)), 1);
	assert_int_equal(req.status, BLKIF_OKAY);
	assert_int_equal(page->backend.state, CONTROL_BACKEND_CLOSED);
	assert_string_equal(page->backend.error, "sluiced is ending");
	client_die(&c);
}

static void delete_bdev(void *arg)
{
	struct err err;

	*(int *)arg = bdev_delete("held", &err);
}

/* A worker has its bdev to itself, or shares it with those that share; it waits for one. */
static void claims(void **state)
{
	struct sivshm_door_worker a = {.name = "a", .bdev = "held"};
	struct sivshm_door_worker b = {.name = "b", .bdev = "held"};
	struct client c;
	struct err err;
	json_t *entry;
	int rc;

	assert_int_equal(stage_try_add(a, &err), -ENOENT);
	a.may_wait = true;
	stage_add(a);
	entry = stage_list("a");
	assert_string_equal(text(entry, "state"), "waiting");
	assert_non_null(strstr(text(entry, "error"), "no bdev named held"));
	json_decref(entry);
	stage_held("held", 1 << 20);
	c = client_open("a", NULL);
	stage_on_control(delete_bdev, &rc);
	assert_int_equal(rc, -EBUSY);
	assert_int_equal(stage_try_add(b, &err), -EBUSY);
	b.may_wait = true;
	stage_add(b);
	client_close(&c);
	stage_remove("a", false);
	stage_wait_removed();
	/* The bdev is free: the other has it now. */
	c = client_open("b", NULL);
	client_close(&c);
	stage_remove("b", false);
	stage_wait_removed();
	a.shared = true;
	b.shared = true;
	stage_add(a);
	stage_add(b);
}

static void get_config(void *arg)
{
	*(json_t **)arg = sivshm_door_config(stage_door());
}

static void listed_and_remembered(void **state)
{
	json_t *entry, *config, *wanted;
	struct client c;

	stage_add((struct sivshm_door_worker){.max_queues = 4, .shared = true, .mode = 0660});
	c = client_open("w", NULL);
	entry = stage_list("w");
	assert_string_equal(text(entry, "state"), "connected");
	assert_string_equal(text(entry, "bdev"), "ram");
	assert_string_equal(text(entry, "sharing"), "auto");
	assert_string_equal(text(entry, "way"), "map");
	assert_string_equal(text(entry, "mode"), "0660");
	assert_non_null(text(entry, "layout"));
	assert_int_equal(number(entry, "queues", NULL), 1);
	assert_int_equal(number(entry, "vectors", NULL), 5);
	assert_int_equal(number(entry, "sectors", NULL), (16 << 20) / 512);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(entry, "ids"), 1)),
			 sivshm_port_id(c.port));
	json_decref(entry);
	stage_on_control(get_config, &config);
	wanted = json_pack("[{s:s,s:s,s:i,s:i,s:b,s:s}]", "name", "w", "bdev", "ram",
			   "segment_size", 16 << 20, "max_queues", 4, "shared", 1, "mode", "0660");
	assert_true(json_equal(config, wanted));
	json_decref(config);
	json_decref(wanted);
	client_close(&c);
}

/* Another user's processes are turned away; root alone can make such a worker. */
static void strangers_are_turned_away(void **state)
{
	struct sivshm_port *port;
	struct stat st;
	char where[128];
	json_t *entry;

	if (geteuid())
		skip();
	stage_add((struct sivshm_door_worker){.uid = 12345});
	entry = stage_list("w");
	assert_int_equal(stat(text(entry, "socket"), &st), 0);
	assert_int_equal(st.st_uid, 12345);
	assert_int_equal(st.st_mode & 0777, 0600);
	snprintf(where, sizeof(where), "unix:%s", text(entry, "socket"));
	json_decref(entry);
	assert_true(sivshm_open(where, 1000, &port) < 0);
	stage_wait_state("w", "listening");
}

static void bad_workers(void **state)
{
	static char long_path[200], long_name[80];
	struct sivshm_door_worker bad[] = {
		{.name = ""},
		{.name = "../x"},
		{.name = ".x"},
		{.name = long_name},
		{.segment_bytes = 3 << 20},
		{.segment_bytes = 4096},
		{.segment_bytes = UINT64_C(1) << 40},
		{.max_queues = 64},
		{.socket = "x.sock"},
		{.socket = long_path},
		{.uid = -2},
		{.gid = INT64_C(1) << 32},
		{.mode = 04755},
	};
	struct err err;

	memset(long_name, 'x', sizeof(long_name) - 1);
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[0] = '/';
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int rc = stage_try_add(bad[i], &err);

		assert_true(rc == -EINVAL || rc == -ENAMETOOLONG);
		assert_true(strlen(err.text) > 10);
	}
	assert_int_equal(stage_try_add((struct sivshm_door_worker){.socket = "/nowhere/x"}, &err),
			 -ENOENT);
	assert_int_equal(
		stage_try_add((struct sivshm_door_worker){.sharing = SIVSHM_DOOR_SHARING_DMA},
			      &err),
		-EOPNOTSUPP);
	/* None has left anything: neither a claim nor a name. */
	stage_add((struct sivshm_door_worker){0});
	assert_int_equal(stage_try_add((struct sivshm_door_worker){0}, &err), -EEXIST);
}

/* A name that is cut off is another's. */
static void bdev_with_the_longest_name(void **state)
{
	char name[65];
	struct err err;

	memset(name, 'x', sizeof(name) - 1);
	name[63] = 0;
	stage_held(name, 1 << 20);
	name[63] = 'x';
	name[64] = 0;
	assert_int_equal(stage_try_add((struct sivshm_door_worker){.bdev = name}, &err), -ENOENT);
	name[63] = 0;
	stage_add((struct sivshm_door_worker){.bdev = name});
}

static void socket_of_another(void **state)
{
	char path[] = "/tmp/door-socket-XXXXXX", name[64];
	struct stat st;

	if (geteuid())
		skip();
	assert_non_null(mkdtemp(path));
	snprintf(name, sizeof(name), "%s/s", path);
	stage_add((struct sivshm_door_worker){.socket = name, .uid = 12345, .gid = 54321});
	assert_int_equal(lstat(name, &st), 0);
	assert_int_equal(st.st_uid, 12345);
	assert_int_equal(st.st_gid, 54321);
	assert_int_equal(st.st_mode & 0777, 0600);
	stage_remove("w", false);
	stage_wait_removed();
	assert_int_equal(rmdir(path), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)
	const struct CMUnitTest tests[] = {
		TEST(handshake),
		TEST(kinds_by_copy),
		TEST(kinds_without_a_copy),
		TEST(auto_is_map_for_the_cpu),
		TEST(kinds_by_dma),
		TEST(dma_that_is_refused),
		TEST(device_memory_runs_out),
		TEST(large_blocks),
		TEST(many_queues),
		TEST(whole_ring_in_flight),
		TEST(readonly_disk),
		TEST(resized),
		TEST(removed_with_consent),
		TEST(removed_by_force),
		TEST(removed_without_a_frontend),
		TEST(drained),
		TEST(claims),
		TEST(listed_and_remembered),
		TEST(strangers_are_turned_away),
		TEST(bad_workers),
		TEST(bdev_with_the_longest_name),
		TEST(socket_of_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
