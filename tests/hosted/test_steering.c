/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What administrators and devices do to a disk while it is served: pausing, limits, growth, and
 * trouble with the device.  The guest notices only that its requests take longer.
 */
#include "admin.h"
#include "trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SECTORS = WORLD_DISK_BYTES / 512 };

/* Pausing */

static void pausing_waits_for_what_is_in_flight(void **state)
{
	struct trial early, late;

	world_connect();
	held_hold(world.disk);
	trial_init(&early, BLKIF_WRITE, 3, 0);
	trial_init(&late, BLKIF_READ, 20, 100);
	trial_send(&early);
	assert_true(held_wait(world.disk, 1));
	admin_pause();
	world_settle();
	assert_int_equal(admin_quiet(), 0);
	trial_send(&late);
	held_release(world.disk, false);
	assert_true(admin_wait_quiet(1));
	world_settle_idle();
	assert_int_equal(held_logged(world.disk), 1);
	assert_true(front_poll(world.guest.front) >= 0);
	assert_int_equal(early.req.status, BLKIF_OKAY);
	assert_int_equal(late.req.status, 99);
	assert_true(json_is_true(admin_listed("paused")));
	assert_true(disk_key_is(&world.guest.disk, world.guest.disk.back, "state", "4"));
	admin_resume();
	trial_collect();
	assert_int_equal(late.req.status, BLKIF_OKAY);
	assert_true(json_is_false(admin_listed("paused")));
	trial_fini(&early);
	trial_fini(&late);
}

static void pausing_and_resuming_may_come_in_any_number(void **state)
{
	struct trial t;

	world_connect();
	admin_resume();
	world_assert_works(&world.guest);
	for (int i = 0; i < 5; i++) {
		admin_pause();
		assert_true(admin_wait_quiet(i + 1));
	}
	trial_init(&t, BLKIF_WRITE, 1, 0);
	trial_send(&t);
	world_settle();
	assert_int_equal(front_poll(world.guest.front), 0);
	admin_resume();
	admin_resume();
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_OKAY);
	trial_fini(&t);
}

static void a_paused_disk_stays_paused_over_a_restart(void **state)
{
	struct trial t;

	world_connect();
	admin_pause();
	assert_true(admin_wait_quiet(1));
	instance_end(world.daemon);
	trial_init(&t, BLKIF_WRITE, 1, 0);
	trial_send(&t);
	world_start(&(struct instance_opts){0});
	assert_true(world_wait_served(&world.guest));
	world_settle();
	assert_int_equal(front_poll(world.guest.front), 0);
	assert_true(json_is_true(admin_listed("paused")));
	admin_resume();
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_OKAY);
	trial_fini(&t);
}

/* A guest can let go of a paused disk. */
static void a_paused_disk_can_be_closed(void **state)
{
	struct guest *g = &world.guest;
	struct trial t;

	world_connect();
	admin_pause();
	assert_true(admin_wait_quiet(1));
	trial_init(&t, BLKIF_WRITE, 1, 0);
	trial_send(&t);
	assert_true(guest_close(g));
	assert_true(guest_free_front(g));
	assert_true(toolstack_remove(&g->disk, HOST_WAIT_MS));
	assert_true(world_wait_disks(world.daemon, 0));
	trial_fini(&t);
}

/* Limits */

/* How long @n requests of @nr pages each take, in ms. */
static uint64_t time_requests(unsigned n, unsigned nr)
{
	uint64_t start = host_now_ms();
	struct trial t[32];

	assert_in_range(n, 1, 32);
	for (unsigned i = 0; i < n; i++) {
		trial_init(&t[i], BLKIF_WRITE, nr, i * 8);
		t[i].req.status = 99;
		assert_int_equal(front_submit(world.guest.front, &t[i].req), 0);
	}
	front_push(world.guest.front);
	trial_collect();
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		trial_fini(&t[i]);
	}
	return host_now_ms() - start;
}

static void a_disk_keeps_to_its_limits(void **state)
{
	uint64_t free_ms;

	world_connect();
	free_ms = time_requests(30, 1);
	/* A burst of a tenth of a second is free. */
	admin_limit(50, 0);
	assert_true(time_requests(30, 1) >= 400);
	admin_limit(0, 1 << 20);
	assert_true(time_requests(16, 11) >= 400); /* 704 KiB */
	assert_true(world_stat(NULL, "throttled") > 0);
	admin_limit(0, 0);
	assert_true(time_requests(30, 1) < 400 || free_ms >= 400);
}

/* Who waits for an old limit does not wait for it once it is gone. */
static void a_limit_that_is_lifted_is_gone(void **state)
{
	struct trial t[8];
	uint64_t start;

	world_connect();
	admin_limit(0, 1000); /* one is enough for four seconds */
	for (unsigned i = 0; i < 8; i++) {
		trial_init(&t[i], BLKIF_WRITE, 1, i * 8);
		trial_send(&t[i]);
	}
	world_settle_idle();
	assert_true(front_poll(world.guest.front) < 8);
	start = host_now_ms();
	admin_limit(0, 0);
	trial_collect();
	assert_true(host_now_ms() - start < 2000);
	for (unsigned i = 0; i < 8; i++)
		trial_fini(&t[i]);
}

/* A disk that is limited does not hold up its neighbour on the same reactor. */
static void a_limited_disk_slows_itself_only(void **state)
{
	struct held *other_disk;
	struct load *other;
	struct trial t[8];

	world_connect();
	other_disk = world_connect_other(&(struct guest_opts){0});
	admin_limit(2, 0);
	for (unsigned i = 0; i < 8; i++) {
		trial_init(&t[i], BLKIF_WRITE, 1, i * 8);
		trial_send(&t[i]);
	}
	other = load_create(&world.other, &(struct load_opts){.max_segments = 32});
	assert_null(load_run(other, 2000));
	assert_null(load_compare(other, held_data(other_disk)));
	load_destroy(other);
	assert_true(front_outstanding(world.guest.front) > 0);
	admin_limit(0, 0);
	trial_collect();
	for (unsigned i = 0; i < 8; i++)
		trial_fini(&t[i]);
}

static void limits_come_with_the_target_and_outlive_the_daemon(void **state)
{
	static const struct instance_opts plain;

	world_connect_disk(&(struct disk_opts){.target = "disk,iops=77,bandwidth=3M"},
			   &(struct guest_opts){0});
	assert_int_equal(admin_listed_limit("rw_ios_per_sec"), 77);
	assert_int_equal(admin_listed_limit("rw_bytes_per_sec"), 3 << 20);
	admin_limit(0, 555);
	instance_end(world.daemon);
	world_start(&plain);
	assert_true(world_wait_served(&world.guest));
	assert_int_equal(admin_listed_limit("rw_ios_per_sec"), 0);
	assert_int_equal(admin_listed_limit("rw_bytes_per_sec"), 555);
}

/* Growth */

static void grow_on_control(void *arg)
{
	held_grow(world.disk, *(const uint64_t *)arg);
}

static void grow(uint64_t size)
{
	host_run(&world.host, grow_on_control, &size);
}

static void a_disk_grows_while_it_is_served(void **state)
{
	struct guest *g = &world.guest;
	unsigned char buffer[512];
	char text[24], *history;

	world_connect();
	memset(buffer, 'g', sizeof(buffer));
	assert_int_equal(front_rw_sync(g->front, BLKIF_WRITE, SECTORS, buffer, 512), -EIO);
	grow(WORLD_DISK_BYTES + 4096);
	snprintf(text, sizeof(text), "%u", SECTORS + 8);
	assert_true(disk_wait_key(&g->disk, g->disk.back, "sectors", text));
	/* The frontend looks because the state was written again, and by then the disk is there. */
	history = disk_history(&g->disk);
	assert_string_equal(history + strlen(history) - 4, " 4 4");
	free(history);
	assert_int_equal(front_rw_sync(g->front, BLKIF_WRITE, SECTORS + 7, buffer, 512), 0);
	assert_int_equal(held_data(world.disk)[WORLD_DISK_BYTES + 4095], 'g');
	assert_int_equal(front_rw_sync(g->front, BLKIF_WRITE, SECTORS + 8, buffer, 512), -EIO);
}

/* Growth in quick steps, under load: none of it is missed, and no request suffers. */
static void a_disk_grows_under_load(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;
	char text[24];

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 32});
	for (unsigned i = 1; i <= 50; i++) {
		grow(WORLD_DISK_BYTES + i * 4096);
		assert_null(load_step(l));
	}
	assert_null(load_finish(l));
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
	snprintf(text, sizeof(text), "%u", SECTORS + 50 * 8);
	assert_true(disk_wait_key(&g->disk, g->disk.back, "sectors", text));
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
}

/* Trouble with the device */

static void connect_with(const char *target)
{
	world_connect_disk(&(struct disk_opts){.target = target}, &(struct guest_opts){0});
}

/* As long as nobody resumes it, the guest waits; and then it has noticed nothing. */
static void stopped_by_an_error_a_disk_waits_to_be_resumed(void **state)
{
	struct trial bad, after;
	const char *waiting;

	connect_with("disk,on-error=stop");
	held_fail(world.disk, BDEV_WRITE, -ENOSPC, 2);
	trial_init(&bad, BLKIF_WRITE, 20, 0);
	trial_init(&after, BLKIF_READ, 1, 200);
	trial_send(&bad);
	while (!held_count(world.disk, BDEV_WRITE))
		host_nap();
	world_settle_idle();
	assert_int_equal(front_poll(world.guest.front), 0);
	waiting = json_string_value(admin_listed("waiting"));
	assert_non_null(waiting);
	assert_non_null(strstr(waiting, strerror(ENOSPC)));
	assert_int_equal(world_stat(NULL, "parked"), 1);
	/* It fails once more, and then the device is mended. */
	admin_resume();
	while (held_count(world.disk, BDEV_WRITE) < 2)
		host_nap();
	world_settle();
	assert_int_equal(front_poll(world.guest.front), 0);
	trial_send(&after);
	admin_resume();
	trial_collect();
	assert_int_equal(bad.req.status, BLKIF_OKAY);
	assert_int_equal(after.req.status, BLKIF_OKAY);
	assert_int_equal(held_data(world.disk)[20 * TRIAL_PAGE - 1], 'p');
	assert_int_equal(world_stat(NULL, "parked"), 0);
	assert_int_equal(world_stat("write", "errors"), 0);
	while (!json_is_null(admin_listed("waiting")))
		host_nap();
	trial_fini(&bad);
	trial_fini(&after);
}

static void an_error_is_tried_again_for_a_time(void **state)
{
	struct trial passes, lasts;
	uint64_t start = host_now_ms();

	connect_with("disk,on-error=retry:1");
	held_fail(world.disk, BDEV_WRITE, -EIO, 1);
	trial_init(&passes, BLKIF_WRITE, 1, 0);
	trial_send(&passes);
	trial_collect();
	assert_int_equal(passes.req.status, BLKIF_OKAY);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 2);
	held_fail(world.disk, BDEV_READ, -EIO, 1000);
	trial_init(&lasts, BLKIF_READ, 1, 0);
	start = host_now_ms();
	trial_send(&lasts);
	trial_collect();
	assert_in_range(host_now_ms() - start, 1000, 4000);
	assert_int_equal(lasts.req.status, BLKIF_ERROR);
	held_fail(world.disk, BDEV_READ, 0, 0);
	assert_in_range(held_count(world.disk, BDEV_READ), 2, 4);
	trial_fini(&passes);
	trial_fini(&lasts);
}

/* What it should have made durable may be gone: a second try that succeeds would be a lie. */
static void a_flush_that_fails_is_always_told(void **state)
{
	struct front_req flush = {.op = BLKIF_FLUSH_DISKCACHE};

	connect_with("disk,on-error=stop");
	held_fail(world.disk, BDEV_FLUSH, -EIO, 1);
	assert_int_equal(front_req_sync(world.guest.front, &flush), -EIO);
	assert_int_equal(front_req_sync(world.guest.front, &flush), 0);
}

static void a_stopped_disk_can_be_closed(void **state)
{
	struct guest *g = &world.guest;
	struct trial t;

	connect_with("disk,on-error=stop");
	held_fail(world.disk, BDEV_WRITE, -EIO, 1);
	trial_init(&t, BLKIF_WRITE, 11, 0);
	trial_send(&t);
	while (!held_count(world.disk, BDEV_WRITE))
		host_nap();
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_ERROR);
	trial_fini(&t);
}

/* The daemon's successor finds the request in the ring, and serves it when the device is mended. */
static void what_is_stopped_is_not_lost_by_a_restart(void **state)
{
	struct trial t[3];

	connect_with("disk,on-error=stop");
	held_fail(world.disk, BDEV_WRITE, -EIO, 3);
	for (unsigned i = 0; i < 3; i++) {
		trial_init(&t[i], BLKIF_WRITE, i ? 20 : 1, i * 200);
		trial_send(&t[i]);
	}
	while (held_count(world.disk, BDEV_WRITE) < 3)
		host_nap();
	instance_end(world.daemon);
	assert_int_equal(front_poll(world.guest.front), 0);
	world_start(&(struct instance_opts){0});
	trial_collect();
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		assert_int_equal(held_data(world.disk)[i * 200 * 512], 'p');
		trial_fini(&t[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(pausing_waits_for_what_is_in_flight),
		world_test(pausing_and_resuming_may_come_in_any_number),
		world_tests(a_paused_disk_stays_paused_over_a_restart),
		world_tests(a_paused_disk_can_be_closed),
		world_test(a_disk_keeps_to_its_limits),
		world_test(a_limit_that_is_lifted_is_gone),
		world_test(a_limited_disk_slows_itself_only),
		world_test(limits_come_with_the_target_and_outlive_the_daemon),
		world_test(a_disk_grows_while_it_is_served),
		world_tests(a_disk_grows_under_load),
		world_tests(stopped_by_an_error_a_disk_waits_to_be_resumed),
		world_test(an_error_is_tried_again_for_a_time),
		world_test(a_flush_that_fails_is_always_told),
		world_tests(a_stopped_disk_can_be_closed),
		world_tests(what_is_stopped_is_not_lost_by_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
