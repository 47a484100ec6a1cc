/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long guests' pages are mapped for devices: that none is free while a device may be at it,
 * whatever becomes of the guest, the grant, the request or the daemon, and that none stays mapped
 * longer than that, or, where mappings persist, than it is used.
 */
#include "trial.h"

#include <errno.h>
#include <string.h>

#include "admin.h"

/* As long as the device has them */

static void pages_are_mapped_as_long_as_the_device_has_them(void **state)
{
	struct trial t[2];

	trial_connect();
	trial_hold(t, 2);
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned p = 0; p < 3; p++) {
			struct double_grant_use use = trial_use_of(t[i].pages[p].ref);

			assert_int_equal(use.mapped, 1);
			assert_int_equal(use.mapped_for_devices, 1);
			/* Only what the device is to write may be written. */
			assert_int_equal(use.mapped_writable, !i);
			assert_int_equal(double_revoke(WORLD_GUEST, t[i].pages[p].ref), -EBUSY);
		}
	}
	held_release(world.disk, false);
	while (front_outstanding(world.guest.front)) {
		assert_true(front_wait(world.guest.front, HOST_WAIT_MS) > 0);
		/* As soon as a response is there its pages are free. */
		for (unsigned i = 0; i < 2; i++)
			for (unsigned p = 0; t[i].req.status != 99 && p < 3; p++)
				assert_int_equal(trial_use_of(t[i].pages[p].ref).mapped, 0);
	}
	for (unsigned i = 0; i < 2; i++)
		trial_fini(&t[i]);
}

/* The guest dies while the device works in its pages: they stay until the device is done. */
static void pages_outlive_their_guest(void **state)
{
	struct double_stats before, stats;
	struct trial t[4];

	trial_connect();
	double_get_stats(&before);
	trial_hold(t, 4);
	guest_kill(&world.guest);
	world_settle();
	double_get_stats(&stats);
	assert_int_equal(stats.device_mapped - before.device_mapped, 4 * 3);
	held_release(world.disk, false);
	assert_true(world_wait_disks(world.daemon, 0));
	double_get_stats(&stats);
	assert_int_equal(stats.device_mapped, before.device_mapped);
	assert_int_equal(held_by_bus(world.disk), 4);
	assert_int_equal(double_take_dma_faults(), 0);
}

/* What a hostile guest takes back is the device's all the same until it is done. */
static void revoking_under_way_changes_nothing(void **state)
{
	struct trial t;

	trial_connect();
	held_hold(world.disk);
	trial_init(&t, BLKIF_READ, 3, 0);
	trial_send(&t);
	assert_true(held_wait(world.disk, 1));
	double_revoke_by_force(WORLD_GUEST, t.pages[1].ref);
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_OKAY);
	assert_int_equal(trial_use_of(t.pages[1].ref).mapped, guest_way->persistent);
	t.pages[1].ref = 0;
	trial_fini(&t);
	world_assert_works(&world.guest);
}

/* Requests that a failing device has stopped keep their pages; given back, they do not. */
static void what_is_stopped_is_unmapped_when_the_daemon_ends(void **state)
{
	struct trial t[3];

	world_connect_disk(&(struct disk_opts){.target = "disk,on-error=stop"},
			   &(struct guest_opts){0});
	held_fail(world.disk, BDEV_READ, -EIO, 3);
	for (unsigned i = 0; i < 3; i++) {
		trial_init(&t[i], BLKIF_READ, 3, i * 100);
		memset(held_data(world.disk) + i * 100 * 512, 'd', 3 * TRIAL_PAGE);
		trial_send(&t[i]);
	}
	while (world_stat(NULL, "parked") != 3)
		host_nap();
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(trial_use_of(t[i].pages[0].ref).mapped_for_devices, 1);
	admin_pause();
	assert_true(admin_wait_quiet(1));
	assert_int_equal(trial_use_of(t[0].pages[0].ref).mapped_for_devices, 1);
	world_end();
	for (unsigned i = 0; i < 3; i++)
		for (unsigned p = 0; p < 3; p++)
			assert_int_equal(trial_use_of(t[i].pages[p].ref).mapped, 0);
	world_start(&(struct instance_opts){0});
	assert_true(world_wait_served(&world.guest));
	admin_resume();
	trial_collect();
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		assert_int_equal(t[i].pages[2].data[TRIAL_PAGE - 1], 'd');
		trial_fini(&t[i]);
	}
	assert_int_equal(held_by_bus(world.disk), 6);
}

/* Tried again, a request is where it was: mapped once, and read by the device again. */
static void a_request_is_mapped_once_however_often_it_fails(void **state)
{
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk,on-error=retry:60"},
			   &(struct guest_opts){0});
	held_fail(world.disk, BDEV_WRITE, -EIO, 2);
	trial_init(&t, BLKIF_WRITE, 3, 0);
	assert_true(trial_goes_by_bus(&t));
	assert_int_equal(trial_use_of(t.pages[1].ref).maps, 1);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 3);
	assert_int_equal(held_data(world.disk)[0], 'p');
	trial_fini(&t);
}

/* Failed for good, its pages are free as well. */
static void an_error_frees_pages_too(void **state)
{
	struct trial t;

	trial_connect();
	held_fail(world.disk, BDEV_WRITE, -EIO, 1);
	trial_init(&t, BLKIF_WRITE, 3, 0);
	trial_send(&t);
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_ERROR);
	assert_int_equal(trial_use_of(t.pages[1].ref).mapped, guest_way->persistent);
	trial_fini(&t);
}

/* A flush before and one after the write are commands of their own; its pages stay in between. */
static void flushes_around_a_write_leave_it_mapped(void **state)
{
	struct trial t;

	trial_connect();
	trial_init(&t, BLKIF_WRITE_BARRIER, 3, 0);
	assert_true(trial_goes_by_bus(&t));
	assert_int_equal(held_count(world.disk, BDEV_FLUSH), 2);
	assert_int_equal(trial_use_of(t.pages[1].ref).maps, 1);
	assert_int_equal(held_data(world.disk)[0], 'p');
	trial_fini(&t);
}

/* Two disks of one guest may name the same page at the same time. */
static void two_disks_share_a_page(void **state)
{
	struct front_req req;
	struct guest second;
	struct held *other;
	struct trial t;

	world_start(&(struct instance_opts){0});
	other = world_make_other();
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	guest_add_disk(&second, &world.host, WORLD_GUEST, ADMIN_DEVID + 16,
		       &(struct disk_opts){.target = "other"});
	assert_true(guest_connect(&second, &(struct guest_opts){0}));
	held_hold(world.disk);
	held_hold(other);
	trial_init(&t, BLKIF_WRITE, 2, 0);
	req = t.req;
	req.status = 99;
	trial_send(&t);
	assert_int_equal(front_submit(second.front, &req), 0);
	front_push(second.front);
	assert_true(held_wait(world.disk, 1));
	assert_true(held_wait(other, 1));
	assert_int_equal(trial_use_of(t.pages[0].ref).mapped, 2);
	held_release(world.disk, false);
	trial_collect();
	/* The other device is at it still. */
	assert_in_range(trial_use_of(t.pages[0].ref).mapped, 1, guest_way->persistent ? 2 : 1);
	held_release(other, false);
	while (front_outstanding(second.front))
		assert_true(front_wait(second.front, HOST_WAIT_MS) > 0);
	assert_int_equal(req.status, BLKIF_OKAY);
	assert_int_equal(held_data(other)[0], 'p');
	assert_int_equal(double_take_dma_faults(), 0);
	world_end();
	guest_destroy(&second);
	trial_fini(&t);
}

/* Persistent ones longer */

/* Mapped once however often it is used, until the end. */
static void persistent_pages_are_mapped_once(void **state)
{
	struct trial t;

	trial_connect();
	assert_string_equal(json_string_value(admin_listed("sharing")), "dma");
	assert_true(json_is_true(admin_listed("persistent")));
	trial_init(&t, BLKIF_WRITE, 1, 0);
	for (unsigned i = 0; i < 100; i++) {
		t.req.op = i % 2 ? BLKIF_READ : BLKIF_WRITE;
		t.req.sector = i;
		assert_true(trial_goes_by_bus(&t));
	}
	assert_int_equal(trial_use_of(t.pages[0].ref).maps, 1);
	assert_int_equal(trial_use_of(t.pages[0].ref).mapped_for_devices, 1);
	assert_int_equal(world_stat("memory", "mapped_pages"), 1);
	assert_int_equal(world_stat("memory", "map_hits"), 99);
	assert_true(guest_close(&world.guest));
	assert_int_equal(trial_use_of(t.pages[0].ref).mapped, 0);
	trial_fini(&t);
}

/* More pages than a queue keeps: what was used least makes room, a page at a time. */
static void more_pages_than_are_kept(void **state)
{
	struct trial t;

	trial_connect();
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 110; i++) {
			trial_init(&t, i % 2 ? BLKIF_READ : BLKIF_WRITE, 11, i * 88);
			trial_send(&t);
			trial_collect();
			assert_int_equal(t.req.status, BLKIF_OKAY);
			trial_fini(&t);
		}
		assert_in_range(world_stat("memory", "mapped_pages"), 1000, 1056);
		/* One that was used a moment ago would stay. */
		for (uint64_t start = host_now_ms(); host_now_ms() - start < 1100;)
			host_nap();
	}
	assert_true(world_stat("shared_by/dma", "requests") > 180);
	assert_int_equal(double_take_dma_faults(), 0);
}

/* Guests are not asked to keep grants, and what they keep all the same is unmapped. */
static void persistent_can_be_forbidden(void **state)
{
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk,sharing=dma,persistent=no"},
			   &(struct guest_opts){0});
	assert_true(
		disk_key_is(&world.guest.disk, world.guest.disk.back, "feature-persistent", "0"));
	assert_string_equal(json_string_value(admin_listed("sharing")), "dma");
	assert_true(json_is_false(admin_listed("persistent")));
	trial_init(&t, BLKIF_WRITE, 3, 0);
	assert_true(trial_goes_by_bus(&t));
	assert_int_equal(trial_use_of(t.pages[0].ref).maps, 1);
	assert_int_equal(trial_use_of(t.pages[0].ref).mapped, 0);
	trial_fini(&t);
}

#define in_dma(fn)        world_test_in(fn, &guest_dma, ", dma")
#define in_persistent(fn) world_test_in(fn, &guest_dma_persistent, ", dma persistent")

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_dma(pages_are_mapped_as_long_as_the_device_has_them),
		in_dma(pages_outlive_their_guest),
		in_persistent(pages_outlive_their_guest),
		in_dma(revoking_under_way_changes_nothing),
		in_persistent(revoking_under_way_changes_nothing),
		in_dma(what_is_stopped_is_unmapped_when_the_daemon_ends),
		in_persistent(what_is_stopped_is_unmapped_when_the_daemon_ends),
		in_dma(a_request_is_mapped_once_however_often_it_fails),
		in_persistent(a_request_is_mapped_once_however_often_it_fails),
		in_dma(an_error_frees_pages_too),
		in_persistent(an_error_frees_pages_too),
		in_dma(flushes_around_a_write_leave_it_mapped),
		in_persistent(flushes_around_a_write_leave_it_mapped),
		in_dma(two_disks_share_a_page),
		in_persistent(two_disks_share_a_page),
		in_persistent(persistent_pages_are_mapped_once),
		in_persistent(more_pages_than_are_kept),
		in_persistent(persistent_can_be_forbidden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
