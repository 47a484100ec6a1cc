/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device memory that copied data waits in: that copies are made in it, and in one go, and that
 * want of it makes disks slower, or says what to do, and fails no request. And that guests' own
 * pages leave room for it.
 */
#include "trial.h"

#include <stdlib.h>
#include <string.h>
#include <xen/grant_table.h>

/* What it is for */

/* Copied data waits in memory that the device reaches. */
static void copies_are_made_in_device_memory(void **state)
{
	world_connect_disk(&(struct disk_opts){.target = "disk,sharing=copy"},
			   &(struct guest_opts){0});
	world_run_load(&(struct load_opts){.max_segments = 32}, 500);
	assert_int_equal(held_by_bus(world.disk), 0);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
}

/* The copies of a pass cost a hypercall however many they are, and the kernel is not asked. */
static void copies_are_made_in_one_go(void **state)
{
	struct double_stats before, after;
	struct trial t[20];

	world_connect_disk(&(struct disk_opts){.target = "disk,sharing=copy"},
			   &(struct guest_opts){0});
	world_assert_works(&world.guest);
	held_hold(world.disk);
	trial_init_batch(t, 20);
	/* One of a write's pages, and one of a read's, is no page of the guest's. */
	t[5].segments[10].gref = 4000;
	t[6].segments[10].gref = 4000;
	double_get_stats(&before);
	trial_send_batch(t, 20);
	assert_true(held_wait(world.disk, 19));
	double_get_stats(&after);
	assert_int_equal(after.copy_segments - before.copy_segments, 110);
	assert_int_equal(after.direct_copy_calls - before.direct_copy_calls, 1);
	held_release(world.disk, false);
	trial_collect();
	double_get_stats(&after);
	assert_int_equal(after.copy_segments - before.copy_segments, 220);
	assert_int_equal(after.direct_copy_calls - before.direct_copy_calls, 2);
	assert_int_equal(after.copy_calls, before.copy_calls);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(t[i].req.status, i == 5 || i == 6 ? BLKIF_ERROR : BLKIF_OKAY);
		trial_fini(&t[i]);
	}
}

/* A page that the guest's pager has taken out is no error: the kernel waits for it. */
static void pages_that_are_paged_out_are_copied(void **state)
{
	struct double_stats before, after;
	char *data = held_data(world.disk);
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk,sharing=copy"},
			   &(struct guest_opts){0});
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		trial_init(&t, op, 5, 0);
		t.segments[3].first_sect = 2;
		t.segments[3].last_sect = 5;
		memset(t.pages[3].data + 1024, 'q', 2048);
		memset(data, 'd', 5 * TRIAL_PAGE);
		memset(data + 3 * TRIAL_PAGE, 'e', 2048);
		double_get_stats(&before);
		double_fail_copy(WORLD_GUEST, t.pages[3].ref, GNTST_eagain, 1);
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
		double_get_stats(&after);
		assert_int_equal(after.direct_copy_calls - before.direct_copy_calls, 1);
		assert_int_equal(after.copy_calls - before.copy_calls, 1);
		assert_int_equal(after.copy_segments - before.copy_segments, 7);
		for (unsigned i = 0; i < 2048; i++) {
			char want = op == BLKIF_READ ? 'e' : 'q';

			assert_int_equal(t.pages[3].data[1024 + i], want);
			assert_int_equal(data[3 * TRIAL_PAGE + i], want);
		}
		assert_int_equal(t.pages[3].data[1023], 'p');
		assert_int_equal(t.pages[3].data[1024 + 2048], 'p');
		trial_fini(&t);
	}
}

/* What there is of it */

/* Fills a ring with requests to copy: as many begin as @pages have room for, and all end. */
static void copy_with_pages(unsigned pages)
{
	struct trial t[30];

	held_hold(world.disk);
	for (unsigned i = 0; i < 30; i++) {
		trial_init(&t[i], BLKIF_READ, 11, 0);
		trial_send(&t[i]);
	}
	assert_true(held_wait(world.disk, pages / 11));
	world_settle();
	assert_int_equal(held_kept(world.disk), pages / 11);
	held_release(world.disk, false);
	trial_collect();
	for (unsigned i = 0; i < 30; i++)
		trial_fini(&t[i]);
	assert_true(world_stat(NULL, "starved") > 0);
	assert_int_equal(world_stat("guest", "bounce_pages"), 0);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
}

/* Device memory is short: all of what is there is shared, and it goes on. */
static void short_of_device_memory_it_gets_slower(void **state)
{
	/* The reserve of one queue and a little more than the half that is not shared. */
	host_limit_dma(&world.host, 2 * (258 + 20));
	world_connect_disk(&(struct disk_opts){.target = "disk,sharing=copy"},
			   &(struct guest_opts){0});
	copy_with_pages(258 + 20);
	world_run_load(&(struct load_opts){.max_segments = 32}, 500);
}

/* It is there, and a reactor takes no more of it than it may. */
static void device_memory_is_taken_as_far_as_bounded(void **state)
{
	world_start(&(struct instance_opts){.bounce_pages = 20});
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk,sharing=copy"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	copy_with_pages(258 + 20);
	copy_with_pages(258 + 20);
}

/* There is none for another queue: its disk says so, and works once there is. */
static void without_device_memory_a_disk_says_what_to_do(void **state)
{
	struct guest *g = &world.other;
	char *error;

	host_limit_dma(&world.host, 258 + 20);
	world_start(&(struct instance_opts){0});
	world_make_other();
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	guest_create(g, &world.host, WORLD_OTHER, &(struct disk_opts){.target = "other"});
	assert_true(disk_wait_state(&g->disk, 2));
	guest_publish(g, &(struct guest_opts){0});
	assert_true(world_wait_error(g));
	error = disk_read(&g->disk, g->disk.back, "sluice-error");
	assert_non_null(strstr(error, "--device-memory-mib"));
	free(error);
	assert_true(disk_wait_state(&g->disk, 5));
	world_assert_works(&world.guest);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	assert_true(guest_close(&world.guest));
	assert_true(guest_free_front(&world.guest));
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &(struct guest_opts){0}));
	world_assert_works(g);
}

/* Guests have all mapped that they may together: more is copied, until some of it ends. */
static void guests_leave_room_to_others(void **state)
{
	enum { ROOM = 100 };
	bool kept = guest_way == &guest_auto_persistent;
	struct double_stats before, after;
	struct trial t;

	world_start(&(struct instance_opts){.device_maps = ROOM});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	world_run_load(&(struct load_opts){.max_segments = 32}, 1000);
	/* Pages of segments are mapped for the CPU, and beside. */
	assert_in_range(world_stat("memory", "mapped_pages"), kept ? ROOM : 0,
			kept ? ROOM + 32 : 0);
	assert_true(world_stat("shared_by/dma", "requests") > 0);
	assert_true(world_stat("shared_by/copy", "requests") > 0);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
	world_connect_other(&(struct guest_opts){0});
	double_get_stats(&before);
	world_assert_works(&world.other);
	double_get_stats(&after);
	if (kept)
		assert_int_equal(after.device_maps, before.device_maps);
	assert_true(guest_close(&world.guest));
	assert_true(guest_free_front(&world.guest));
	guest_set_state(&world.guest, 1);
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	trial_init(&t, BLKIF_WRITE, 32, 0);
	assert_true(trial_goes_by_bus(&t));
	trial_fini(&t);
}

#define in_dma(fn)  world_test_in(fn, &guest_dma, ", dma")
#define in_auto(fn) world_test_in(fn, &guest_auto, ", auto")
#define in_kept(fn) world_test_in(fn, &guest_auto_persistent, ", auto persistent")

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_auto(copies_are_made_in_device_memory),
		in_auto(copies_are_made_in_one_go),
		in_auto(pages_that_are_paged_out_are_copied),
		in_dma(short_of_device_memory_it_gets_slower),
		in_dma(device_memory_is_taken_as_far_as_bounded),
		in_dma(without_device_memory_a_disk_says_what_to_do),
		in_dma(guests_leave_room_to_others),
		in_kept(guests_leave_room_to_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
