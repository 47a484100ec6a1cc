/* SPDX-License-Identifier: BSD-2-Clause */
/* Data through the whole path: frontend, ring, decode, grant copies, bdev and back. */
#include "trial.h"

#include <stdlib.h>
#include <string.h>

#include "blkif/decode.h"

enum { REQUESTS = 3000, LARGE_REQUESTS = 500 };

/* One guest under load, in all ways in which a frontend may be made. */
static void run(const struct instance_opts *instance, const struct guest_opts *opts,
		const struct load_opts *load)
{
	world_start(instance);
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, opts));
	assert_int_equal(world.guest.sectors, WORLD_DISK_BYTES / 512);
	assert_int_equal(world.guest.info, 0);
	world_run_load(load, load->max_segments > 32 ? LARGE_REQUESTS : REQUESTS);
}

static const struct instance_opts plain;
static const struct guest_opts plain_guest;

static void x86_64_direct(void **state)
{
	run(&plain, &(struct guest_opts){0},
	    &(struct load_opts){.max_segments = 11, .flushes = true});
	assert_true(held_count(world.disk, BDEV_FLUSH) > 0);
}

static void x86_64_indirect(void **state)
{
	run(&plain, &(struct guest_opts){0}, &(struct load_opts){.max_segments = 32});
	assert_true(held_largest(world.disk) > 11 * 4096);
}

static void x86_32_direct(void **state)
{
	run(&plain, &(struct guest_opts){.layout = &blkif_layout_x86_32},
	    &(struct load_opts){.max_segments = 11, .flushes = true});
	assert_true(held_count(world.disk, BDEV_FLUSH) > 0);
}

static void x86_32_indirect(void **state)
{
	run(&plain, &(struct guest_opts){.layout = &blkif_layout_x86_32},
	    &(struct load_opts){.max_segments = 32});
	assert_true(held_largest(world.disk) > 11 * 4096);
}

static void no_protocol_key_means_x86_32(void **state)
{
	run(&plain, &(struct guest_opts){.no_protocol = true},
	    &(struct load_opts){.max_segments = 11});
}

static void numbered_ring_key(void **state)
{
	run(&plain, &(struct guest_opts){.keys = GUEST_RING_REF_0},
	    &(struct load_opts){.max_segments = 11});
}

static void one_queue_said_aloud(void **state)
{
	run(&plain, &(struct guest_opts){.keys = GUEST_RING_REF_ONE_MORE},
	    &(struct load_opts){.max_segments = 11});
}

/* Counters wrap in the middle of the load. */
static void counters_wrap(void **state)
{
	run(&plain, &(struct guest_opts){.first_index = UINT32_MAX - REQUESTS / 2},
	    &(struct load_opts){.max_segments = 11, .flushes = true});
}

static void largest_requests(void **state)
{
	run(&plain, &(struct guest_opts){.max_segments = BLKIF_MAX_SEGMENTS},
	    &(struct load_opts){.max_segments = BLKIF_MAX_SEGMENTS, .depth = 8});
	assert_true(held_largest(world.disk) > (BLKIF_MAX_SEGMENTS / 2) * 4096);
}

/* With memory for one request of the largest size all still get their turn. */
static void scarce_memory_only_slows(void **state)
{
	run(&(struct instance_opts){.bounce_pages = BLKIF_MAX_SEGMENTS + 2},
	    &(struct guest_opts){.max_segments = BLKIF_MAX_SEGMENTS},
	    &(struct load_opts){.max_segments = BLKIF_MAX_SEGMENTS, .depth = 8});
}

static void spinning_reactors(void **state)
{
	run(&(struct instance_opts){.reactors = 2, .spin_max_ns = 50000}, &(struct guest_opts){0},
	    &(struct load_opts){.max_segments = 32, .flushes = true});
}

/* Completions in an order of their own. */
static void completions_out_of_order(void **state)
{
	struct load *l;

	world_connect();
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 8});
	for (int i = 0; i < 50; i++) {
		held_hold(world.disk);
		load_fill(l);
		assert_true(held_wait(world.disk, front_depth(world.guest.front)));
		held_release(world.disk, true);
		assert_null(load_finish(l));
	}
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
}

/* Two guests of one reactor: neither sees the other's data, both get on. */
static void two_guests(void **state)
{
	struct held *other_disk;
	struct load *l, *other_load;

	world_connect();
	other_disk = world_connect_other(&(struct guest_opts){.layout = &blkif_layout_x86_32});
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 32, .seed = 1});
	other_load = load_create(&world.other, &(struct load_opts){.max_segments = 11, .seed = 2});
	while (load_answered(l) < REQUESTS || load_answered(other_load) < REQUESTS) {
		assert_null(load_step(l));
		assert_null(load_step(other_load));
	}
	assert_null(load_finish(l));
	assert_null(load_finish(other_load));
	assert_null(load_compare(l, held_data(world.disk)));
	assert_null(load_compare(other_load, held_data(other_disk)));
	load_destroy(l);
	load_destroy(other_load);
}

/* Bytes end up where they belong, read by somebody else than who wrote them. */
static void contents_are_where_they_belong(void **state)
{
	unsigned char buffer[6 * 512], back[sizeof(buffer)];
	char *data = held_data(world.disk);
	uint64_t last = WORLD_DISK_BYTES / 512 - 6;

	world_connect();
	for (unsigned i = 0; i < sizeof(buffer); i++)
		buffer[i] = (unsigned char)(i * 7 + i / 512);
	assert_int_equal(
		front_rw_sync(world.guest.front, BLKIF_WRITE, last, buffer, sizeof(buffer)), 0);
	assert_memory_equal(data + last * 512, buffer, sizeof(buffer));
	memset(data + 512, 'x', 512);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, back, 3 * 512), 0);
	for (unsigned i = 0; i < 3 * 512; i++)
		assert_int_equal(back[i], i / 512 == 1 ? 'x' : 0);
}

/* A flush with data flushes first, and then writes. */
static void flush_with_data(void **state)
{
	struct guest_page page;
	struct blkif_wire_segment seg = {.first_sect = 2, .last_sect = 3};
	struct front_req req = {
		.op = BLKIF_FLUSH_DISKCACHE,
		.sector = 9,
		.segments = &seg,
		.nr_segments = 1,
	};

	world_connect();
	page = guest_page_new(&world.guest, true);
	memset(page.data, 'a', 4096);
	memset(page.data + 1024, 'b', 1024);
	seg.gref = page.ref;
	assert_int_equal(front_req_sync(world.guest.front, &req), 0);
	assert_int_equal(held_count(world.disk, BDEV_FLUSH), 1);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 1);
	assert_memory_equal(held_data(world.disk) + 9 * 512, page.data + 1024, 1024);
	assert_int_equal(held_data(world.disk)[8 * 512], 0);
	assert_int_equal(held_data(world.disk)[11 * 512], 0);

	/* If the flush fails, nothing is written. */
	held_fail(world.disk, BDEV_FLUSH, -EIO, 1);
	req.sector = 100;
	assert_int_equal(front_req_sync(world.guest.front, &req), -EIO);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 1);
}

/* The device's errors reach the guest, each its own request. */
static void device_errors(void **state)
{
	unsigned char buffer[512];

	world_connect();
	held_fail(world.disk, BDEV_READ, -EIO, 1);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, buffer, 512), -EIO);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, buffer, 512), 0);
	held_fail(world.disk, BDEV_WRITE, -ENOSPC, 1);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_WRITE, 0, buffer, 512), -EIO);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_WRITE, 0, buffer, 512), 0);
}

static void readonly_disks(void **state)
{
	unsigned char buffer[512] = "x";

	world_start(&plain);
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk", .readonly = true});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	assert_int_equal(world.guest.info, 4);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_WRITE, 0, buffer, 512), -EIO);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 0);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, buffer, 512), 0);
	assert_int_equal(buffer[0], 0);
}

/*
 * The grant's pages are copied, never mapped, in one call for all requests of a pass; and what was
 * not read from the device is not copied out.
 */
static void copies_are_batched(void **state)
{
	struct double_stats before, after;
	struct load *l;
	unsigned depth;

	world_connect();
	depth = front_depth(world.guest.front);
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 1});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, depth));
	double_get_stats(&before);
	held_release(world.disk, false);
	assert_null(load_finish(l));
	double_get_stats(&after);
	/* All reads come back in one pass. */
	assert_int_equal(after.copy_calls - before.copy_calls, 1);
	assert_int_equal(after.copy_segments - before.copy_segments,
			 held_count(world.disk, BDEV_READ));
	assert_int_equal(after.mapped, 1); /* the ring */
	load_destroy(l);
}

/* What goes to a device together is foretold to it, one by one. */
static void devices_know_what_comes_next(void **state)
{
	struct trial trials[16];

	world_connect();
	trial_init_batch(trials, 16);
	trial_send_batch(trials, 16);
	trial_collect();
	assert_int_equal(held_logged(world.disk), 16);
	assert_int_equal(held_foretold(world.disk), 15);
	for (unsigned i = 0; i < 16; i++)
		trial_fini(&trials[i]);
}

/* Responses are seen before the notification that follows them. */
static bool wait_received(struct guest *g, uint64_t n)
{
	uint64_t start = host_now_ms();

	while (double_evtchn_received(WORLD_GUEST, g->port) < n) {
		if (host_now_ms() - start > HOST_WAIT_MS)
			return false;
		host_nap();
	}
	return true;
}

/* One notification for a batch, none for nothing. */
static void notifications_come_with_responses_only(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;
	uint64_t received;

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 1});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, front_depth(g->front)));
	received = double_evtchn_received(WORLD_GUEST, g->port);
	held_release(world.disk, false);
	assert_null(load_finish(l));
	assert_true(wait_received(g, received + 1));

	/* A frontend that rings without a reason gets no answer. */
	for (int i = 0; i < 20; i++) {
		double_evtchn_notify(WORLD_GUEST, g->port);
		host_nap();
	}
	assert_int_equal(double_evtchn_received(WORLD_GUEST, g->port), received + 1);

	/* One that asks for silence until all are there hears of the last one only. */
	double_evtchn_wait(WORLD_GUEST, g->port, 0); /* the one from before */
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, front_depth(g->front)));
	atomic_store(&front_sring(g->front)->rsp_event,
		     atomic_load(&front_sring(g->front)->rsp_prod) + front_depth(g->front));
	held_release(world.disk, true);
	assert_true(double_evtchn_wait(WORLD_GUEST, g->port, HOST_WAIT_MS));
	assert_int_equal(front_poll(g->front), front_depth(g->front));
	assert_int_equal(double_evtchn_received(WORLD_GUEST, g->port), received + 2);
	load_destroy(l);
}

/* One request at a time, asleep in between: a wake-up that is lost would hang it. */
static void no_wakeup_is_lost(void **state)
{
	unsigned char buffer[512];

	world_connect();
	for (int i = 0; i < 2000; i++)
		assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, (uint64_t)i, buffer,
					       sizeof(buffer)),
				 0);
}

/* A connected guest that does nothing costs nothing, even where reactors spin for a while. */
static void idle_guests_cost_nothing(void **state)
{
	struct reactor_stats before, after;
	unsigned char buffer[512];
	uint64_t start;

	world_start(&(struct instance_opts){.spin_max_ns = 1000000});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &plain_guest));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, buffer, 512), 0);
		start = host_now_ms();
		do {
			host_nap();
			reactor_get_stats(instance_reactor(world.daemon, 0), &before);
		} while (before.pollers && host_now_ms() - start < HOST_WAIT_MS);
		/* The end of its last pass. */
		while (host_now_ms() - start < 20)
			host_nap();
		reactor_get_stats(instance_reactor(world.daemon, 0), &before);
		while (host_now_ms() - start < 100)
			host_nap();
		reactor_get_stats(instance_reactor(world.daemon, 0), &after);
		assert_int_equal(after.pollers, 0);
		assert_int_equal(after.passes, before.passes);
		/* Unless somebody woke it, and nobody had a reason. */
		assert_in_range(after.sleeps - before.sleeps, 0, 1);
	}
}

/* Rounds with work that one request takes, of a device that has done it when it was asked to. */
static uint64_t rounds_of(uint8_t op)
{
	struct reactor *r = instance_reactor(world.daemon, 0);
	struct reactor_stats before, after;
	unsigned char buffer[512] = "x";
	uint64_t start = host_now_ms();

	do {
		host_nap();
		reactor_get_stats(r, &before);
	} while (before.pollers && host_now_ms() - start < HOST_WAIT_MS);
	assert_int_equal(before.pollers, 0);
	assert_int_equal(front_rw_sync(world.guest.front, op, 0, buffer, 512), 0);
	do {
		host_nap();
		reactor_get_stats(r, &after);
	} while (after.pollers && host_now_ms() - start < 2 * HOST_WAIT_MS);
	assert_int_equal(after.pollers, 0);
	return after.worked - before.worked;
}

/* Else busy queues' shares would depend on where the reactor stands when their guests come back. */
static void reads_take_no_more_rounds_than_writes(void **state)
{
	world_start(&plain);
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &plain_guest));
	for (int i = 0; i < 3; i++)
		assert_int_equal(rounds_of(BLKIF_READ), rounds_of(BLKIF_WRITE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(x86_64_direct),
		world_tests(x86_64_indirect),
		world_tests(x86_32_direct),
		world_tests(x86_32_indirect),
		world_test(no_protocol_key_means_x86_32),
		world_test(numbered_ring_key),
		world_test(one_queue_said_aloud),
		world_tests(counters_wrap),
		world_tests(largest_requests),
		world_tests(scarce_memory_only_slows),
		world_test(spinning_reactors),
		world_tests(completions_out_of_order),
		world_tests(two_guests),
		world_tests(contents_are_where_they_belong),
		world_tests(flush_with_data),
		world_tests(device_errors),
		world_tests(readonly_disks),
		world_test(copies_are_batched),
		world_test(devices_know_what_comes_next),
		world_test(notifications_come_with_responses_only),
		world_test(no_wakeup_is_lost),
		world_test(idle_guests_cost_nothing),
		world_test(reads_take_no_more_rounds_than_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
