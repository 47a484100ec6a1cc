/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When memory for devices is short, and when the host refuses what it has always granted: who pays
 * for it, and that it is nobody else.
 */
#include "trial.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test_in(a_busy_guest_leaves_memory_for_the_next, &guest_dma, ", dma"),
		world_test_in(a_reserve_is_taken_from_what_is_shared, &guest_dma, ", dma"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
