/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When memory for devices is short, and when the host refuses what it has always granted: who pays
 * for it, and that it is nobody else.
 */
#include "trial.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <xen/grant_table.h>

#include "admin.h"

enum { RESERVE = 258 /* pages that a queue always has */ };

/* Has the disk's queue hold as many bounce pages as it can get, and lets go of them. */
static void have_all_bounce_pages(void)
{
	struct trial t[32];

	held_hold(world.disk);
	for (unsigned i = 0; i < 32; i++) {
		trial_init(&t[i], BLKIF_READ, 32, 0);
		trial_send(&t[i]);
	}
	world_settle();
	held_release(world.disk, false);
	trial_collect();
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		trial_fini(&t[i]);
	}
}

/* What one guest has made the bounce pool grow by, does not keep the next one's disk from it. */
static void a_busy_guest_leaves_memory_for_the_next(void **state)
{
	host_limit_dma(&world.host, 3 * RESERVE);
	world_start(&(struct instance_opts){.reactors = 2, .max_queues = 1});
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk,sharing=copy"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	have_all_bounce_pages();
	/* Which is on the other reactor. */
	world_connect_other(&(struct guest_opts){0});
	world_assert_works(&world.other);
	world_assert_works(&world.guest);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
}

static void create_third(void *arg)
{
	held_create("third", WORLD_DISK_BYTES);
}

/* Nor does what it has and does not use, once there is no more. */
static void a_reserve_is_taken_from_what_is_shared(void **state)
{
	struct guest third;

	host_limit_dma(&world.host, 3 * RESERVE + 80);
	host_run(&world.host, create_third, NULL);
	world_connect_disk(&(struct disk_opts){.target = "disk,sharing=copy"},
			   &(struct guest_opts){0});
	have_all_bounce_pages();
	world_connect_other(&(struct guest_opts){0});
	guest_add_disk(&third, &world.host, WORLD_OTHER, ADMIN_DEVID + 16,
		       &(struct disk_opts){.target = "third,sharing=copy"});
	assert_true(guest_connect(&third, &(struct guest_opts){0}));
	have_all_bounce_pages();
	world_assert_works(&third);
	world_assert_works(&world.other);
	world_end();
	guest_destroy(&third);
}

static atomic_bool troubled;

/* The host refuses now some pages, now a whole hypercall, in whose midst others were mapped. */
static void *make_trouble(void *arg)
{
	for (unsigned i = 0; atomic_load(&troubled); i++) {
		struct double_stats stats;

		double_get_stats(&stats);
		if (i % 2)
			double_fail(DOUBLE_DEVICE_MAP, ENOMEM, 0, 1, NULL);
		else
			double_limit_maps((unsigned)(stats.device_mapped + stats.mapped) + i % 50);
		for (unsigned naps = 0; naps < 100 && atomic_load(&troubled); naps++)
			host_nap();
		double_limit_maps(UINT32_MAX);
	}
	double_fail(DOUBLE_DEVICE_MAP, 0, 0, 0, NULL);
	return NULL;
}

/* That is no guest's concern: its requests take longer, and all else is as it should. */
static void what_is_not_mapped_is_copied_and_right(void **state)
{
	unsigned seed = 1;
	pthread_t thread;

	world_start(&(struct instance_opts){.guest_maps = 500, .bounce_pages = 300});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	atomic_store(&troubled, true);
	assert_int_equal(pthread_create(&thread, NULL, make_trouble, NULL), 0);
	/* Until both ways were gone: after a refusal mapping is left alone for a while. */
	do {
		assert_true(seed < 200);
		world_run_load(&(struct load_opts){.max_segments = 32, .seed = seed}, 2000);
		memset(held_data(world.disk), 0, WORLD_DISK_BYTES);
	} while (seed++ < 3 || !world_stat("shared_by/dma", "requests") ||
		 !world_stat("shared_by/copy", "requests"));
	atomic_store(&troubled, false);
	pthread_join(thread, NULL);
	assert_int_equal(double_take_dma_faults(), 0);
}

/* However a request fails, its pages count no longer as mapped. */
static void who_fails_may_map_again(void **state)
{
	enum { DEVICE, PAGE, CALL, REFERENCE, KINDS };
	unsigned before;
	struct trial t;

	world_start(&(struct instance_opts){.guest_maps = 11});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	trial_init(&t, BLKIF_WRITE, 11, 0);
	for (unsigned kind = DEVICE; kind < KINDS; kind++) {
		uint64_t start = host_now_ms();

		if (kind == DEVICE)
			held_fail(world.disk, BDEV_WRITE, -EIO, 1);
		if (kind == PAGE)
			double_fail_device_map(WORLD_GUEST, t.pages[10].ref, GNTST_eagain, 1);
		if (kind == CALL)
			double_fail(DOUBLE_DEVICE_MAP, ENOMEM, 0, 1, NULL);
		t.segments[10].gref = kind == REFERENCE ? 999999 : t.pages[10].ref;
		trial_send(&t);
		trial_collect();
		assert_int_equal(t.req.status,
				 kind == DEVICE || kind == REFERENCE ? BLKIF_ERROR : BLKIF_OKAY);
		t.segments[10].gref = t.pages[10].ref;
		do {
			assert_true(host_now_ms() - start < HOST_WAIT_MS);
			before = held_by_bus(world.disk);
			trial_send(&t);
			trial_collect();
			assert_int_equal(t.req.status, BLKIF_OKAY);
		} while (held_by_bus(world.disk) == before);
		assert_true(guest_close(&world.guest));
		assert_true(guest_free_front(&world.guest));
		guest_set_state(&world.guest, 1);
		assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	}
	double_fail_device_map(WORLD_GUEST, t.pages[10].ref, 0, 0);
	double_fail(DOUBLE_DEVICE_MAP, 0, 0, 0, NULL);
	trial_fini(&t);
}

#define in_dma(fn)        world_test_in(fn, &guest_dma, ", dma")
#define in_persistent(fn) world_test_in(fn, &guest_dma_persistent, ", dma persistent")
#define in_auto(fn)       world_test_in(fn, &guest_auto, ", auto")

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_dma(a_busy_guest_leaves_memory_for_the_next),
		in_dma(a_reserve_is_taken_from_what_is_shared),
		in_dma(what_is_not_mapped_is_copied_and_right),
		in_persistent(what_is_not_mapped_is_copied_and_right),
		in_auto(what_is_not_mapped_is_copied_and_right),
		in_dma(who_fails_may_map_again),
		in_persistent(who_fails_may_map_again),
		in_auto(who_fails_may_map_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
