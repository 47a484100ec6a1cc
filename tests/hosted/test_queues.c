/* SPDX-License-Identifier: BSD-2-Clause */
/* Several queues a disk, and rings of several pages: negotiated, served, refused, handed over. */
#include "admin.h"
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUES_MAX = 4, SLOT_SECTORS = 8, DEPTH_MAX = 512, FEW_SECTOR = 8000 };

static const struct instance_opts two_reactors = {.reactors = 2};

/* The guest with its queues; each stands for a guest of one queue, as the fixture knows it. */
static struct guest queues[QUEUES_MAX];
static unsigned nr_queues;

struct shape {
	const struct blkif_layout *layout; /* NULL: x86_64 */
	unsigned queues;
	unsigned pages;
	bool count_pages; /* num-ring-pages, as old FreeBSD says it, not ring-page-order */
};

static void write_queue(struct guest *q, unsigned n, const struct shape *shape)
{
	const uint32_t *refs = front_ring_refs(q->front);
	char prefix[24] = "", key[64];

	if (shape->queues > 1)
		snprintf(prefix, sizeof(prefix), "queue-%u/", n);
	for (unsigned i = 0; i < shape->pages; i++) {
		if (shape->pages > 1)
			snprintf(key, sizeof(key), "%sring-ref%u", prefix, i);
		else
			snprintf(key, sizeof(key), "%sring-ref", prefix);
		guest_write_number(q, key, refs[i]);
	}
	snprintf(key, sizeof(key), "%sevent-channel", prefix);
	guest_write_number(q, key, q->port);
}

/* Makes the queues and publishes all keys, but not yet the state. */
static void publish(const struct shape *shape)
{
	struct guest *g = &world.guest;

	assert_true(disk_wait_state(&g->disk, 2));
	nr_queues = shape->queues;
	for (unsigned n = 0; n < nr_queues; n++) {
		struct guest *q = &queues[n];
		struct front_opts opts = {
			.layout = shape->layout ? shape->layout : &blkif_layout_x86_64,
			.ring_pages = shape->pages,
			.max_segments = 32,
			.sync_pages = 32,
			.ops = &q->ops,
			.ctx = q,
		};

		*q = *g;
		assert_int_equal(front_create(&opts, &q->front), 0);
		q->port = double_evtchn_alloc(g->disk.domid, 0);
		write_queue(q, n, shape);
	}
	if (shape->queues > 1)
		guest_write_number(g, "multi-queue-num-queues", shape->queues);
	if (shape->pages > 1 && shape->count_pages)
		guest_write_number(g, "num-ring-pages", shape->pages);
	else if (shape->pages > 1)
		guest_write_number(g, "ring-page-order", (unsigned)__builtin_ctz(shape->pages));
	guest_write(g, "protocol",
		    (shape->layout ? shape->layout : &blkif_layout_x86_64)->protocol);
}

static void connect_shape(const struct shape *shape)
{
	struct guest *g = &world.guest;

	publish(shape);
	guest_set_state(g, 3);
	assert_true(disk_wait_state(&g->disk, 4));
	guest_read_disk(g);
	for (unsigned n = 0; n < nr_queues; n++)
		queues[n].sectors = g->sectors;
}

/* Takes the queues back; none may be mapped or bound any more. */
static void free_queues(void)
{
	for (unsigned n = 0; n < nr_queues; n++) {
		assert_false(double_evtchn_is_bound(WORLD_GUEST, queues[n].port));
		assert_true(guest_free_front(&queues[n]));
	}
	nr_queues = 0;
	disk_rm(&world.guest.disk, world.guest.disk.front, "multi-queue-num-queues");
	disk_rm(&world.guest.disk, world.guest.disk.front, "ring-page-order");
	disk_rm(&world.guest.disk, world.guest.disk.front, "num-ring-pages");
	for (unsigned n = 0; n < QUEUES_MAX; n++) {
		char key[24];

		snprintf(key, sizeof(key), "queue-%u", n);
		disk_rm(&world.guest.disk, world.guest.disk.front, key);
	}
}

static void close_all(void)
{
	assert_true(guest_close(&world.guest));
	free_queues();
	guest_set_state(&world.guest, 1);
}

static void start_with_disk(const struct instance_opts *opts)
{
	world_start(opts);
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
}

/* Each queue's ring full of writes at once, each to a place of its own. */
static struct front_req reqs[QUEUES_MAX][DEPTH_MAX];
static struct blkif_wire_segment segments[QUEUES_MAX][DEPTH_MAX];
static struct guest_page pages[QUEUES_MAX];

static void write_done(struct front_req *req)
{
}

static void fill_rings(void)
{
	for (unsigned n = 0; n < nr_queues; n++) {
		unsigned depth = front_depth(queues[n].front);

		pages[n] = guest_page_new(&queues[n], false);
		memset(pages[n].data, 'a' + (int)n, 4096);
		for (unsigned i = 0; i < depth; i++) {
			segments[n][i] = (struct blkif_wire_segment){.gref = pages[n].ref,
								     .last_sect = SLOT_SECTORS - 1};
			reqs[n][i] = (struct front_req){
				.op = BLKIF_WRITE,
				.sector = (uint64_t)(n * depth + i) * SLOT_SECTORS,
				.segments = &segments[n][i],
				.nr_segments = 1,
				.done = write_done,
				.status = 99,
			};
			assert_int_equal(front_submit(queues[n].front, &reqs[n][i]), 0);
		}
		front_push(queues[n].front);
	}
}

static void collect_rings(void)
{
	for (unsigned n = 0; n < nr_queues; n++) {
		unsigned depth = front_depth(queues[n].front);

		while (front_outstanding(queues[n].front))
			assert_true(front_wait(queues[n].front, HOST_WAIT_MS) > 0);
		for (unsigned i = 0; i < depth; i++) {
			const char *at = held_data(world.disk) +
					 (size_t)(n * depth + i) * SLOT_SECTORS * 512;

			assert_int_equal(reqs[n][i].status, BLKIF_OKAY);
			assert_memory_equal(at, pages[n].data, 4096);
		}
	}
}

static void every_shape_is_served(void **state)
{
	static const struct shape shapes[] = {
		{NULL, 4, 1, false},
		{&blkif_layout_x86_32, 3, 1, false},
		{NULL, 1, 2, false},
		{NULL, 1, 16, false},
		{&blkif_layout_x86_32, 1, 8, false},
		{NULL, 1, 4, true},
		{NULL, 2, 4, false},
		{NULL, 1, 1, false},
	};

	start_with_disk(&two_reactors);
	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		unsigned char out[512], in[512];

		connect_shape(&shapes[i]);
		assert_int_equal(front_depth(queues[0].front), 32 * shapes[i].pages);
		assert_int_equal(world_stat(NULL, "in_flight"), 0);
		fill_rings();
		collect_rings();
		/* What one queue has written, any other reads. */
		memset(out, 0x40 + (int)i, sizeof(out));
		assert_int_equal(front_rw_sync(queues[0].front, BLKIF_WRITE, 9, out, sizeof(out)),
				 0);
		assert_int_equal(front_rw_sync(queues[nr_queues - 1].front, BLKIF_READ, 9, in,
					       sizeof(in)),
				 0);
		assert_memory_equal(in, out, sizeof(in));
		close_all();
	}
}

/* Statistics are of all queues, and both reactors have worked. */
static void queues_are_spread_over_reactors(void **state)
{
	struct reactor_stats before[2], after[2];
	int64_t writes;

	start_with_disk(&two_reactors);
	connect_shape(&(struct shape){.queues = 4, .pages = 1});
	writes = world_stat("write", "requests");
	for (unsigned n = 0; n < 2; n++)
		reactor_get_stats(instance_reactor(world.daemon, n), &before[n]);
	fill_rings();
	collect_rings();
	/* The reactors are asked for these: the pass that answered last has ended, and counts. */
	assert_int_equal(world_stat("write", "requests") - writes, 4 * 32);
	for (unsigned n = 0; n < 2; n++) {
		reactor_get_stats(instance_reactor(world.daemon, n), &after[n]);
		assert_true(after[n].worked > before[n].worked);
	}
	close_all();
	assert_int_equal(world_stat("write", "requests") - writes, 4 * 32);
}

static void assert_refused(const char *words)
{
	char *error;

	guest_set_state(&world.guest, 3);
	assert_true(disk_wait_state(&world.guest.disk, 5));
	error = disk_read(&world.guest.disk, world.guest.disk.back, "sluice-error");
	assert_non_null(error);
	if (!strstr(error, words))
		fail_msg("'%s' should say '%s'", error, words);
	free(error);
	for (unsigned n = 0; n < nr_queues; n++)
		assert_false(
			double_grant_is_mapped(WORLD_GUEST, front_ring_refs(queues[n].front)[0]));
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	free_queues();
	guest_set_state(&world.guest, 1);
}

static void what_makes_no_sense_is_refused(void **state)
{
	static const struct shape two = {.queues = 2, .pages = 2};
	struct guest *g = &world.guest;

	start_with_disk(&two_reactors);

	publish(&two);
	guest_write_number(g, "queue-1/ring-ref1", front_ring_refs(queues[0].front)[0]);
	assert_refused("two ring pages");

	publish(&two);
	guest_write_number(g, "queue-0/ring-ref1", front_ring_refs(queues[0].front)[0]);
	assert_refused("two ring pages");

	publish(&two);
	guest_write_number(g, "queue-1/event-channel", queues[0].port);
	assert_refused("two queues");

	publish(&two);
	disk_rm(&g->disk, g->disk.front, "queue-1");
	assert_refused("missing");

	publish(&two);
	disk_rm(&g->disk, g->disk.front, "queue-1/ring-ref1");
	assert_refused("ring-ref1");

	publish(&two);
	guest_write(g, "multi-queue-num-queues", "5");
	assert_refused("multi-queue-num-queues");

	publish(&(struct shape){.queues = 1, .pages = 2, .count_pages = true});
	guest_write(g, "num-ring-pages", "3");
	assert_refused("no power of two");

	publish(&(struct shape){.queues = 1, .pages = 2, .count_pages = true});
	guest_write(g, "num-ring-pages", "32");
	assert_refused("num-ring-pages");

	connect_shape(&two);
	fill_rings();
	collect_rings();
	close_all();
}

/* Anything may fail at any queue: then none is served, and nothing is left. */
static void a_beginning_that_fails_leaves_nothing(void **state)
{
	static const enum double_call calls[] = {DOUBLE_GNTTAB_MAP, DOUBLE_EVTCHN_BIND};

	start_with_disk(&two_reactors);
	for (unsigned c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
		for (unsigned skip = 0; skip < 4; skip++) {
			publish(&(struct shape){.queues = 4, .pages = 1});
			double_fail(calls[c], ENOMEM, skip, 1, NULL);
			assert_refused("cannot");
		}
	}
	connect_shape(&(struct shape){.queues = 4, .pages = 1});
	close_all();
}

/* One broken ring ends the connection, whatever the other queues do. */
static void one_broken_ring_ends_them_all(void **state)
{
	start_with_disk(&two_reactors);
	connect_shape(&(struct shape){.queues = 4, .pages = 1});
	fill_rings();
	atomic_fetch_add(&front_sring(queues[2].front)->req_prod, 1000);
	double_evtchn_notify(WORLD_GUEST, queues[2].port);
	assert_true(disk_wait_state(&world.guest.disk, 5));
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	free_queues();
	guest_set_state(&world.guest, 1);
	connect_shape(&(struct shape){.queues = 2, .pages = 1});
	fill_rings();
	collect_rings();
	close_all();
}

static void all_queues_are_handed_over(void **state)
{
	start_with_disk(&two_reactors);
	connect_shape(&(struct shape){.queues = 4, .pages = 2});
	held_hold(world.disk);
	fill_rings();
	assert_true(held_wait(world.disk, 4 * 32));
	held_release(world.disk, true);
	instance_end(world.daemon);
	world_start(&(struct instance_opts){.reactors = 1});
	collect_rings();
	fill_rings();
	collect_rings();
	close_all();
}

/* What was negotiated holds, though the next daemon would offer less. */
static void more_queues_than_the_next_offers_are_handed_over(void **state)
{
	start_with_disk(&two_reactors);
	connect_shape(&(struct shape){.queues = 4, .pages = 1});
	instance_end(world.daemon);
	world_start(&(struct instance_opts){.reactors = 1, .max_queues = 2});
	fill_rings();
	collect_rings();
	close_all();
	/* A connection of its own is bound by its own offer. */
	assert_true(disk_wait_key(&world.guest.disk, world.guest.disk.back,
				  "multi-queue-max-queues", "2"));
	publish(&(struct shape){.queues = 4, .pages = 1});
	assert_refused("multi-queue-num-queues");
	connect_shape(&(struct shape){.queues = 2, .pages = 1});
	close_all();
}

/* Breaks the second queue's ring once it is there, and waits until that was seen. */
static void break_second_ring(void)
{
	const char *error = NULL;

	assert_true(world_wait_served(&queues[1]));
	/* The control thread, asked now, has done with it. */
	assert_int_equal(world_disks(world.daemon), 1);
	atomic_fetch_add(&front_sring(queues[1].front)->req_prod, 1000);
	double_evtchn_notify(WORLD_GUEST, queues[1].port);
	while (!error || !strstr(error, "broke its ring")) {
		host_nap();
		error = json_string_value(admin_listed("error"));
	}
}

/* One queue finds its ring broken before another has begun: the reason is told, and the guest not
 * that it is connected. */
static void a_ring_broken_while_others_start_is_told(void **state)
{
	char *error;

	start_with_disk(&two_reactors);
	publish(&(struct shape){.queues = 2, .pages = 1});
	world_block(world.daemon);
	guest_set_state(&world.guest, 3);
	break_second_ring();
	world_unblock();
	assert_true(disk_wait_state(&world.guest.disk, 5));
	error = disk_read(&world.guest.disk, world.guest.disk.back, "sluice-error");
	assert_non_null(error);
	assert_non_null(strstr(error, "ring"));
	free(error);
	world_assert_history(&world.guest.disk, "1 2 5");
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	free_queues();
	guest_set_state(&world.guest, 1);
	connect_shape(&(struct shape){.queues = 2, .pages = 1});
	close_all();
}

/* The same while a daemon adopts the guest. */
static void a_ring_broken_while_others_are_adopted_is_told(void **state)
{
	char *error;

	start_with_disk(&two_reactors);
	connect_shape(&(struct shape){.queues = 2, .pages = 1});
	instance_end(world.daemon);
	double_fail(DOUBLE_GNTTAB_MAP, ENOMEM, 0, 1000000, NULL);
	world_start(&two_reactors);
	world_settle();
	world_block(world.daemon);
	double_fail(DOUBLE_GNTTAB_MAP, 0, 0, 0, NULL);
	break_second_ring();
	world_unblock();
	assert_true(disk_wait_state(&world.guest.disk, 5));
	world_settle();
	assert_false(world_is_served(&queues[1]));
	error = disk_read(&world.guest.disk, world.guest.disk.back, "sluice-error");
	assert_non_null(error);
	if (!strstr(error, "broke its ring"))
		fail_msg("%s", error);
	free(error);
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	free_queues();
	guest_set_state(&world.guest, 1);
	connect_shape(&(struct shape){.queues = 2, .pages = 1});
	close_all();
}

/* A large ring, full, has its turn and no more: another's few requests are not behind all of it. */
static void a_large_ring_leaves_others_their_turn(void **state)
{
	static const struct disk_opts shared = {.target = "disk,shared"};
	struct blkif_wire_segment segment = {.last_sect = 7};
	struct front_req few[4];
	struct guest_page page;

	world_start(&(struct instance_opts){.reactors = 1});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &shared);
	connect_shape(&(struct shape){.queues = 1, .pages = 16});
	guest_create(&world.other, &world.host, WORLD_OTHER, &shared);
	assert_true(guest_connect(&world.other, &(struct guest_opts){0}));
	page = guest_page_new(&world.other, false);
	segment.gref = page.ref;
	/* Whoever comes first. */
	for (unsigned round = 0; round < 4; round++) {
		unsigned first = held_logged(world.disk), last = 0;

		for (unsigned i = 0; i < 4; i++) {
			few[i] = (struct front_req){.op = BLKIF_WRITE,
						    .sector = FEW_SECTOR + 8 * i,
						    .segments = &segment,
						    .nr_segments = 1,
						    .done = write_done};
			assert_int_equal(front_submit(world.other.front, &few[i]), 0);
		}
		world_block(world.daemon);
		if (round % 2)
			front_push(world.other.front);
		fill_rings();
		front_push(world.other.front);
		world_unblock();
		collect_rings();
		while (front_outstanding(world.other.front))
			assert_true(front_wait(world.other.front, HOST_WAIT_MS) > 0);
		assert_int_equal(held_logged(world.disk), first + 512 + 4);
		for (unsigned i = first; i < first + 512 + 4; i++)
			if (held_log(world.disk, i).offset >= FEW_SECTOR * 512)
				last = i - first;
		assert_true(last < 100);
	}
	guest_page_free(&world.other, &page);
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(every_shape_is_served),
		world_test(queues_are_spread_over_reactors),
		world_test(what_makes_no_sense_is_refused),
		world_test(a_beginning_that_fails_leaves_nothing),
		world_tests(one_broken_ring_ends_them_all),
		world_tests(all_queues_are_handed_over),
		world_test(more_queues_than_the_next_offers_are_handed_over),
		world_test(a_ring_broken_while_others_start_is_told),
		world_test(a_ring_broken_while_others_are_adopted_is_told),
		world_test(a_large_ring_leaves_others_their_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
