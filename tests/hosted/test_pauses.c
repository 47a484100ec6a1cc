/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pauses, and what administrators set, at moments when something else is under way: while queues
 * start or stop, while a disk has no bdev, while a discard is half done.  What an administrator was
 * told has to be true then, too.
 */
#include "admin.h"
#include "trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct guest_opts plain;
static const struct instance_opts plain_instance;

/* A write that the device keeps. */
static void send_held(struct trial *t)
{
	held_hold(world.disk);
	trial_init(t, BLKIF_WRITE, 3, 0);
	trial_send(t);
	assert_true(held_wait(world.disk, 1));
}

/* While queues start */

/* Leaves the disk's queues starting: their reactor is kept busy until world_unblock(). */
static void publish_to_a_busy_reactor(void)
{
	world_block(world.daemon);
	guest_publish(&world.guest, &plain);
	assert_true(world_wait_served(&world.guest));
}

static void finish_connecting(void)
{
	world_unblock();
	assert_true(disk_wait_state(&world.guest.disk, 4));
	guest_read_disk(&world.guest);
}

static void resumed_while_queues_start_it_goes_on(void **state)
{
	world_start_with_guest();
	assert_true(disk_wait_state(&world.guest.disk, 2));
	admin_pause();
	assert_true(admin_wait_quiet(1));
	publish_to_a_busy_reactor();
	admin_resume();
	finish_connecting();
	assert_true(json_is_false(admin_listed("paused")));
	world_assert_works(&world.guest);
}

static void paused_while_queues_start_it_is_quiet(void **state)
{
	struct trial t;

	world_start_with_guest();
	publish_to_a_busy_reactor();
	admin_pause();
	world_settle();
	assert_int_equal(admin_quiet(), 0);
	finish_connecting();
	assert_true(admin_wait_quiet(1));
	trial_init(&t, BLKIF_WRITE, 1, 0);
	trial_send(&t);
	world_settle();
	assert_int_equal(front_poll(world.guest.front), 0);
	admin_resume();
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_OKAY);
	trial_fini(&t);
}

static void paused_and_resumed_while_queues_start(void **state)
{
	world_start_with_guest();
	publish_to_a_busy_reactor();
	admin_pause();
	admin_resume();
	finish_connecting();
	/* Who paused it was told that it is not, and another can pause it. */
	assert_true(admin_wait_failed(1));
	assert_int_equal(admin_quiet(), 0);
	world_assert_works(&world.guest);
	admin_pause();
	assert_true(admin_wait_quiet(1));
	admin_resume();
	world_assert_works(&world.guest);
}

/* While something is at the device */

/* Taken for quiet too early, a snapshot of the device is torn. */
static void a_disk_that_closes_is_quiet_when_its_last_request_is(void **state)
{
	struct trial t;

	world_connect();
	send_held(&t);
	admin_pause();
	guest_set_state(&world.guest, 6);
	world_settle();
	assert_int_equal(admin_quiet(), 0);
	held_release(world.disk, false);
	assert_true(admin_wait_quiet(1));
	assert_true(disk_wait_state(&world.guest.disk, 6));
	trial_collect();
	trial_fini(&t);
}

static void a_daemon_that_drains_is_quiet_when_its_last_request_is(void **state)
{
	struct trial t;

	world_connect();
	send_held(&t);
	admin_pause();
	instance_drain(world.daemon);
	world_settle();
	assert_int_equal(admin_quiet(), 0);
	held_release(world.disk, false);
	assert_true(admin_wait_quiet(1));
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_OKAY);
	trial_fini(&t);
}

static void who_pauses_is_told_if_another_resumes(void **state)
{
	struct trial t;

	world_connect();
	send_held(&t);
	admin_pause();
	assert_int_equal(admin_try_pause(), -EBUSY);
	admin_resume();
	assert_true(admin_wait_failed(1));
	assert_int_equal(admin_quiet(), 0);
	/* It can be paused again at once. */
	admin_pause();
	world_settle();
	assert_int_equal(admin_quiet(), 0);
	held_release(world.disk, false);
	assert_true(admin_wait_quiet(1));
	admin_resume();
	trial_collect();
	trial_fini(&t);
}

static void figures_do_not_go_back_while_it_stops(void **state)
{
	struct trial t;

	world_connect();
	world_assert_works(&world.guest);
	assert_int_equal(world_stat("read", "requests"), 1);
	send_held(&t);
	guest_set_state(&world.guest, 6);
	world_settle();
	assert_int_equal(world_stat("read", "requests"), 1);
	assert_int_equal(world_stat(NULL, "in_flight"), 1);
	held_release(world.disk, false);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	assert_int_equal(world_stat("read", "requests"), 1);
	assert_int_equal(world_stat("write", "requests"), 2);
	assert_int_equal(world_stat(NULL, "in_flight"), 0);
	trial_collect();
	trial_fini(&t);
}

/* Detaching what a failing device has stopped: its frontend waits for its requests before it
 * closes. */
static void detached_a_stopped_disk_ends_with_the_error(void **state)
{
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk,on-error=stop"}, &plain);
	held_fail(world.disk, BDEV_WRITE, -EIO, 1);
	trial_init(&t, BLKIF_WRITE, 11, 0);
	trial_send(&t);
	while (!json_is_string(admin_listed("waiting")))
		host_nap();
	toolstack_ask(&world.guest.disk);
	guest_set_state(&world.guest, 5);
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_ERROR);
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	trial_fini(&t);
}

/* The same if the device fails only then. */
static void a_disk_to_be_detached_does_not_stop(void **state)
{
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk,on-error=stop"}, &plain);
	send_held(&t);
	held_fail(world.disk, BDEV_WRITE, -EIO, 1);
	toolstack_ask(&world.guest.disk);
	guest_set_state(&world.guest, 5);
	world_settle();
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_ERROR);
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	trial_fini(&t);
}

/* Discards in pieces */

enum { PIECES = 8 };

static void discard_done(struct front_req *req)
{
}

/* Sends a discard of the whole disk, which the device takes in pieces, and keeps the first. */
static void send_discard(struct front_req *req)
{
	held_bdev(world.disk)->limits.discard = true;
	held_bdev(world.disk)->limits.discard_max = WORLD_DISK_BYTES / PIECES;
	world_connect();
	held_hold(world.disk);
	*req = (struct front_req){
		.op = BLKIF_DISCARD,
		.discard_sectors = WORLD_DISK_BYTES / 512,
		.done = discard_done,
		.status = 99,
	};
	assert_int_equal(front_submit(world.guest.front, req), 0);
	front_push(world.guest.front);
	assert_true(held_wait(world.disk, 1));
}

static void a_discard_in_pieces_rests_while_paused(void **state)
{
	struct front_req req;

	send_discard(&req);
	admin_pause();
	world_settle();
	assert_int_equal(admin_quiet(), 0);
	held_release(world.disk, false);
	assert_true(admin_wait_quiet(1));
	world_settle_idle();
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), 1);
	assert_int_equal(world_stat(NULL, "in_flight"), 1);
	admin_resume();
	trial_collect();
	assert_int_equal(req.status, BLKIF_OKAY);
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), PIECES);
}

/* The guest may let go of the disk in the middle of it. */
static void a_discard_in_pieces_ends_with_its_disk(void **state)
{
	struct front_req req;

	send_discard(&req);
	admin_pause();
	held_release(world.disk, false);
	assert_true(admin_wait_quiet(1));
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	trial_collect();
	assert_int_equal(req.status, BLKIF_ERROR);
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), 1);
}

static void a_discard_in_pieces_is_left_to_the_next_daemon(void **state)
{
	uint64_t start = host_now_ms();
	struct front_req req;

	send_discard(&req);
	instance_drain(world.daemon);
	world_settle();
	assert_false(instance_is_drained(world.daemon));
	held_release_some(world.disk, 1);
	while (!instance_is_drained(world.daemon)) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
	}
	instance_end(world.daemon);
	assert_int_equal(front_poll(world.guest.front), 0);
	held_release(world.disk, false);
	world_start(&plain_instance);
	trial_collect();
	assert_int_equal(req.status, BLKIF_OKAY);
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), 1 + PIECES);
}

/* Requests of the largest size */

enum { SEGMENTS_MAX = 256, LARGE_MAX = 4 };

static struct blkif_wire_segment large_segments[SEGMENTS_MAX];
static struct front_req large[LARGE_MAX];
static struct guest_page large_page;

static void large_done(struct front_req *req)
{
}

/* Connects such a guest, whose requests may have none of their pages mapped. */
static void connect_large(const struct disk_opts *disk, const struct instance_opts *instance)
{
	world_start(instance);
	guest_create(&world.guest, &world.host, WORLD_GUEST, disk);
	assert_true(guest_connect(&world.guest, &(struct guest_opts){.max_segments = 256}));
	large_page = guest_page_new(&world.guest, false);
	for (unsigned i = 0; i < SEGMENTS_MAX; i++)
		large_segments[i] =
			(struct blkif_wire_segment){.gref = large_page.ref, .last_sect = 7};
}

static void send_large(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		large[i] = (struct front_req){
			.op = BLKIF_WRITE,
			.segments = large_segments,
			.nr_segments = SEGMENTS_MAX,
			.done = large_done,
			.status = 99,
		};
		assert_int_equal(front_submit(world.guest.front, &large[i]), 0);
	}
	front_push(world.guest.front);
}

static void collect_large(unsigned n)
{
	trial_collect();
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(large[i].status, BLKIF_OKAY);
	guest_page_free(&world.guest, &large_page);
}

/*
 * Two requests that were to be mapped must be copied instead, and have not the memory: each holds
 * pages that the other needs.  The pause comes when both have been taken and neither has begun, so
 * that they learn of it only later; when the reactor happens to be asleep, it comes too early.
 */
static void requests_that_are_copied_after_all_let_a_disk_rest(void **state)
{
	int64_t starved = 0;
	int round = 0;

	connect_large(&(struct disk_opts){.target = "disk"},
		      &(struct instance_opts){
			      .guest_bounce_pages = 1, .guest_maps = 1, .spin_max_ns = 2000000000});
	world_assert_works(&world.guest);
	while (starved < 2) {
		assert_true(round++ < 100);
		host_nap();
		starved = world_stat(NULL, "starved");
		world_block(world.daemon);
		send_large(2);
		admin_pause();
		world_unblock();
		assert_true(admin_wait_quiet(round));
		starved = world_stat(NULL, "starved") - starved;
		admin_resume();
		trial_collect();
	}
	collect_large(2);
}

/* Waits until @n of LARGE_MAX have been answered. */
static void wait_answered(unsigned n)
{
	while (front_outstanding(world.guest.front) > LARGE_MAX - n)
		assert_true(front_wait(world.guest.front, HOST_WAIT_MS) > 0);
}

/* A guest may not put more into a limited disk at once than one request; and none is paid twice,
 * be it that it is copied after it could not be mapped. */
static void a_large_request_is_charged_once_and_at_once(void **state)
{
	uint64_t start;

	connect_large(&(struct disk_opts){.target = "disk,bandwidth=1M"},
		      &(struct instance_opts){.guest_maps = 1});
	start = host_now_ms();
	send_large(LARGE_MAX);
	wait_answered(1);
	world_settle();
	assert_true(front_poll(world.guest.front) >= 0);
	assert_int_equal(front_outstanding(world.guest.front), LARGE_MAX - 1);
	/* One MiB at one MiB a second, less the burst. */
	wait_answered(2);
	assert_in_range(host_now_ms() - start, 800, 1700);
	admin_limit(0, 0);
	collect_large(LARGE_MAX);
}

/* Settings */

static void create_late(void *arg)
{
	held_create("late", 1 << 20);
}

static void settings_of_a_disk_without_its_bdev_are_kept(void **state)
{
	struct guest *g = &world.guest;

	world_start(&plain_instance);
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(g, &world.host, WORLD_GUEST, ADMIN_DEVID,
		       &(struct disk_opts){.target = "late,iops=77,bandwidth=3M",
					   .instance = "sluice"});
	assert_true(disk_wait_state(&g->disk, 2));
	assert_int_equal(admin_listed_limit("rw_ios_per_sec"), 77);
	assert_int_equal(admin_listed_limit("rw_bytes_per_sec"), 3 << 20);
	admin_resume();
	admin_pause();
	assert_true(admin_wait_quiet(1));
	assert_true(json_is_true(admin_listed("paused")));
	/* Pausing sets no limits. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-iops", NULL));
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-bandwidth", NULL));
	host_run(&world.host, create_late, NULL);
	assert_true(guest_connect(g, &plain));
	assert_int_equal(admin_listed_limit("rw_ios_per_sec"), 77);
	assert_int_equal(admin_listed_limit("rw_bytes_per_sec"), 3 << 20);
	assert_true(json_is_true(admin_listed("paused")));
	admin_resume();
	world_assert_works(g);
}

static void set_on_control(struct reactor_msg *msg)
{
	admin_limit_here(10, 0);
	admin_pause_here();
}

/* The toolstack took the disk away and made another, and we have not seen it yet. */
static void settings_are_not_written_into_a_new_directory(void **state)
{
	static struct reactor_msg msg = {.fn = set_on_control};
	struct guest *g = &world.guest;

	world_connect_disk(&(struct disk_opts){.target = "disk,bandwidth=1M"}, &plain);
	world_block_control();
	toolstack_remove_by_force(&g->disk);
	toolstack_add(&world.host, WORLD_GUEST, ADMIN_DEVID,
		      &(struct disk_opts){.target = "disk,iops=77,bandwidth=9M"}, &g->disk);
	reactor_send(world.host.control, &msg);
	world_unblock();
	assert_true(toolstack_script(&g->disk));
	assert_true(disk_wait_state(&g->disk, 2));
	assert_int_equal(admin_listed_limit("rw_ios_per_sec"), 77);
	assert_int_equal(admin_listed_limit("rw_bytes_per_sec"), 9 << 20);
	assert_true(json_is_false(admin_listed("paused")));
	assert_true(guest_free_front(g));
}

#define in_mapped(fn)         world_test_in(fn, &guest_mapped, ", mapped")
#define in_persistent(fn)     world_test_in(fn, &guest_persistent, ", persistent")
#define in_dma(fn)            world_test_in(fn, &guest_dma, ", dma")
#define in_dma_persistent(fn) world_test_in(fn, &guest_dma_persistent, ", dma persistent")

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(resumed_while_queues_start_it_goes_on),
		world_test(paused_while_queues_start_it_is_quiet),
		world_test(paused_and_resumed_while_queues_start),
		world_tests(a_disk_that_closes_is_quiet_when_its_last_request_is),
		world_test(a_daemon_that_drains_is_quiet_when_its_last_request_is),
		world_test(who_pauses_is_told_if_another_resumes),
		world_test(figures_do_not_go_back_while_it_stops),
		world_tests(detached_a_stopped_disk_ends_with_the_error),
		world_test(a_disk_to_be_detached_does_not_stop),
		world_test(a_discard_in_pieces_rests_while_paused),
		world_test(a_discard_in_pieces_ends_with_its_disk),
		world_test(a_discard_in_pieces_is_left_to_the_next_daemon),
		in_mapped(requests_that_are_copied_after_all_let_a_disk_rest),
		in_persistent(requests_that_are_copied_after_all_let_a_disk_rest),
		in_dma(requests_that_are_copied_after_all_let_a_disk_rest),
		in_dma_persistent(requests_that_are_copied_after_all_let_a_disk_rest),
		world_tests(a_large_request_is_charged_once_and_at_once),
		world_test(settings_of_a_disk_without_its_bdev_are_kept),
		world_test(settings_are_not_written_into_a_new_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
