/* SPDX-License-Identifier: BSD-2-Clause */
/* Barriers: what came before ends before, what comes after begins after, and all of it is durable.
 */
#include "trial.h"

#include <errno.h>
#include <string.h>

static const struct blkif_layout *const layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64};

static void connect_in(const struct blkif_layout *layout)
{
	world_connect_disk(&(struct disk_opts){.target = "disk"},
			   &(struct guest_opts){.layout = layout, .max_segments = 64});
}

/* The device has been asked @n times so far, the last time for this, and is not asked for more. */
static void expect_next(unsigned n, enum bdev_op op, uint64_t sector)
{
	uint64_t start = host_now_ms();
	struct held_entry entry;

	/* What was released may be kept still, for a while. */
	while (held_logged(world.disk) < n && host_now_ms() - start < HOST_WAIT_MS)
		host_nap();
	assert_true(held_wait(world.disk, 1));
	world_settle();
	assert_int_equal(held_logged(world.disk), n);
	entry = held_log(world.disk, n - 1);
	assert_int_equal(entry.op, op);
	if (op != BDEV_FLUSH)
		assert_int_equal(entry.offset, sector * 512);
}

/* Step by step: nothing of a barrier before the last one before it, nothing after before its end.
 */
static void barrier_in_order(const struct blkif_layout *layout)
{
	struct trial before[3], barrier, after[2];

	connect_in(layout);
	held_hold(world.disk);
	for (unsigned i = 0; i < 3; i++) {
		trial_init(&before[i], i == 1 ? BLKIF_READ : BLKIF_WRITE, 1, i * 8);
		trial_send(&before[i]);
	}
	trial_init(&barrier, BLKIF_WRITE_BARRIER, 2, 100);
	trial_send(&barrier);
	for (unsigned i = 0; i < 2; i++) {
		trial_init(&after[i], BLKIF_WRITE, i ? 20 : 1, 200 + i * 8);
		trial_send(&after[i]);
	}
	assert_true(held_wait(world.disk, 3));
	world_settle_idle();
	assert_int_equal(held_logged(world.disk), 3);
	held_release_some(world.disk, 2);
	while (held_kept(world.disk) > 1)
		host_nap();
	world_settle();
	assert_int_equal(held_logged(world.disk), 3);
	held_release_some(world.disk, 1);
	expect_next(4, BDEV_FLUSH, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_true(front_poll(world.guest.front) >= 0);
	assert_int_equal(before[2].req.status, BLKIF_OKAY);
	held_release_some(world.disk, 1);
	expect_next(5, BDEV_WRITE, 100);
	held_release_some(world.disk, 1);
	expect_next(6, BDEV_FLUSH, 0);
	assert_int_equal(barrier.req.status, 99);
	held_release_some(world.disk, 1);
	assert_true(held_wait(world.disk, 2));
	/* Answered it was before what came after began. */
	assert_true(front_poll(world.guest.front) >= 0);
	assert_int_equal(barrier.req.status, BLKIF_OKAY);
	assert_int_equal(held_logged(world.disk), 8);
	held_release(world.disk, false);
	trial_collect();
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(before[i].req.status, BLKIF_OKAY);
		trial_fini(&before[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(after[i].req.status, BLKIF_OKAY);
		trial_fini(&after[i]);
	}
	trial_fini(&barrier);
}

static void a_barrier_drains_and_orders_x86_64(void **state)
{
	barrier_in_order(&blkif_layout_x86_64);
}

static void a_barrier_drains_and_orders_x86_32(void **state)
{
	barrier_in_order(&blkif_layout_x86_32);
}

/* Without data it is a flush of all that came before. */
static void an_empty_barrier_flushes(void **state)
{
	struct trial before, barrier, after;

	connect_in(layouts[0]);
	held_hold(world.disk);
	trial_init(&before, BLKIF_WRITE, 1, 0);
	trial_init(&barrier, BLKIF_WRITE_BARRIER, 0, UINT64_MAX);
	trial_init(&after, BLKIF_WRITE, 1, 8);
	trial_send(&before);
	trial_send(&barrier);
	trial_send(&after);
	expect_next(1, BDEV_WRITE, 0);
	held_release_some(world.disk, 1);
	expect_next(2, BDEV_FLUSH, 0);
	held_release_some(world.disk, 1);
	expect_next(3, BDEV_WRITE, 8);
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(barrier.req.status, BLKIF_OKAY);
	trial_fini(&before);
	trial_fini(&barrier);
	trial_fini(&after);
}

/* Responses of requests around barriers come in that order. */
static unsigned answered[24], nr_answered;

static void note_answer(struct front_req *req)
{
	answered[nr_answered++] = (unsigned)(uintptr_t)req->arg;
}

static void barriers_answer_in_order(void **state)
{
	struct trial t[24];

	connect_in(layouts[1]);
	nr_answered = 0;
	held_hold(world.disk);
	for (unsigned i = 0; i < 24; i++) {
		trial_init(&t[i], i % 4 == 3 ? BLKIF_WRITE_BARRIER : BLKIF_WRITE,
			   i % 8 == 3 ? 0 : 1, i * 8);
		t[i].req.done = note_answer;
		t[i].req.arg = (void *)(uintptr_t)i;
		trial_send(&t[i]);
	}
	/* The device answers each batch the wrong way round. */
	while (front_outstanding(world.guest.front)) {
		held_release(world.disk, true);
		held_hold(world.disk);
		front_poll(world.guest.front);
		host_nap();
	}
	assert_int_equal(nr_answered, 24);
	for (unsigned i = 0; i < 24; i++) {
		assert_int_equal(answered[i] / 4, i / 4);
		if (i % 4 == 3)
			assert_int_equal(answered[i], i);
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		assert_int_equal(held_data(world.disk)[i * 4096], i % 8 == 3 ? 0 : 'p');
		trial_fini(&t[i]);
	}
}

/* One that is refused holds nobody up. */
static void bad_barriers_do_not_wait(void **state)
{
	struct trial before, bad, after;

	connect_in(layouts[1]);
	held_hold(world.disk);
	trial_init(&before, BLKIF_WRITE, 1, 0);
	trial_init(&bad, BLKIF_WRITE_BARRIER, 1, WORLD_DISK_BYTES / 512);
	trial_init(&after, BLKIF_WRITE, 1, 8);
	trial_send(&before);
	trial_send(&bad);
	trial_send(&after);
	assert_true(held_wait(world.disk, 2));
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(bad.req.status, BLKIF_ERROR);
	assert_int_equal(held_count(world.disk, BDEV_FLUSH), 0);
	trial_fini(&before);
	trial_fini(&bad);
	trial_fini(&after);
}

/* Whichever of its steps fails, it fails, does no further, and lets the next ones go on. */
static void a_barrier_that_fails_is_an_error(void **state)
{
	static const struct {
		enum bdev_op op;
		unsigned writes, flushes;
	} steps[] = {{BDEV_FLUSH, 0, 1}, {BDEV_WRITE, 1, 1}};
	struct trial barrier, after;

	connect_in(layouts[1]);
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		unsigned writes = held_count(world.disk, BDEV_WRITE);
		unsigned flushes = held_count(world.disk, BDEV_FLUSH);

		held_fail(world.disk, steps[i].op, -EIO, 1);
		trial_init(&barrier, BLKIF_WRITE_BARRIER, 1, 0);
		trial_init(&after, BLKIF_READ, 1, 0);
		trial_send(&barrier);
		trial_send(&after);
		trial_collect();
		assert_int_equal(barrier.req.status, BLKIF_ERROR);
		assert_int_equal(after.req.status, BLKIF_OKAY);
		assert_int_equal(held_count(world.disk, BDEV_WRITE), writes + steps[i].writes);
		assert_int_equal(held_count(world.disk, BDEV_FLUSH), flushes + steps[i].flushes);
		trial_fini(&barrier);
		trial_fini(&after);
	}
}

static void readonly_disks_take_empty_barriers_only(void **state)
{
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk", .readonly = true},
			   &(struct guest_opts){0});
	trial_init(&t, BLKIF_WRITE_BARRIER, 1, 0);
	assert_int_equal(front_req_sync(world.guest.front, &t.req), -EIO);
	trial_fini(&t);
	trial_init(&t, BLKIF_WRITE_BARRIER, 0, 0);
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	trial_fini(&t);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 0);
}

/* A guest that closes with a barrier waiting gets all its answers first. */
static void closing_waits_for_barriers(void **state)
{
	struct trial before, barrier;
	struct guest *g = &world.guest;

	connect_in(layouts[1]);
	held_hold(world.disk);
	trial_init(&before, BLKIF_WRITE, 1, 0);
	trial_init(&barrier, BLKIF_WRITE_BARRIER, 1, 8);
	trial_send(&before);
	trial_send(&barrier);
	/* What was not taken is nobody's to answer. */
	while (world_stat(NULL, "in_flight") < 2)
		host_nap();
	guest_set_state(g, 6);
	world_settle();
	assert_true(world_is_served(g));
	held_release(world.disk, false);
	assert_true(disk_wait_state(&g->disk, 6));
	trial_collect();
	assert_int_equal(before.req.status, BLKIF_OKAY);
	assert_int_equal(barrier.req.status, BLKIF_OKAY);
	trial_fini(&before);
	trial_fini(&barrier);
}

static void barriers_are_offered(void **state)
{
	struct disk *d = &world.guest.disk;

	world_connect();
	assert_true(disk_key_is(d, d->back, "feature-barrier", "1"));
	assert_true(disk_key_is(d, d->back, "feature-flush-cache", "1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(a_barrier_drains_and_orders_x86_64),
		world_tests(a_barrier_drains_and_orders_x86_32),
		world_tests(an_empty_barrier_flushes),
		world_tests(barriers_answer_in_order),
		world_tests(bad_barriers_do_not_wait),
		world_tests(a_barrier_that_fails_is_an_error),
		world_tests(readonly_disks_take_empty_barriers_only),
		world_tests(closing_waits_for_barriers),
		world_test(barriers_are_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
