/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests' pages mapped for devices: what goes by the bus and what is copied, that no page is free
 * too early or too late, and what becomes of requests whose pages cannot be had in this way.  That
 * data is right, whatever a guest does, the other tests tell, which run in these ways as well.
 */
#include "trial.h"

#include <errno.h>
#include <string.h>
#include <xen/grant_table.h>

#include "admin.h"

static void connect_way(void)
{
	world_connect_disk(&(struct disk_opts){.target = "disk"}, &(struct guest_opts){0});
}

static struct double_grant_use use_of(uint32_t ref)
{
	struct double_grant_use use;

	double_grant_get_use(WORLD_GUEST, ref, &use);
	return use;
}

/* Sends it and says whether it went by the bus. */
static bool goes_by_the_bus(struct trial *t)
{
	unsigned before = held_by_bus(world.disk);

	trial_send(t);
	trial_collect();
	assert_int_equal(t->req.status, BLKIF_OKAY);
	return held_by_bus(world.disk) > before;
}

/* What goes by the bus */

/* Neither read nor write has a copy, or an address for the CPU, of its data anywhere. */
static void data_goes_by_the_bus_alone(void **state)
{
	struct double_stats before, after;

	connect_way();
	double_get_stats(&before);
	world_run_load(&(struct load_opts){.max_segments = 11}, 1000);
	double_get_stats(&after);
	assert_int_equal(after.copy_segments, before.copy_segments);
	assert_int_equal(after.maps, before.maps);
	assert_true(after.device_maps > before.device_maps);
	assert_int_equal(held_by_bus(world.disk),
			 held_count(world.disk, BDEV_READ) + held_count(world.disk, BDEV_WRITE));
	assert_int_equal(world_stat("shared_by/dma", "requests"), held_by_bus(world.disk));
	assert_int_equal(world_stat("shared_by/dma", "bytes"),
			 world_stat("read", "bytes") + world_stat("write", "bytes"));
	assert_int_equal(world_stat("shared_by/copy", "requests"), 0);
	assert_int_equal(world_stat("shared_by/map", "requests"), 0);
}

/*
 * Of an indirect request only the page of its segments is read, by a copy, or, where it is granted
 * to stay, by a mapping that is made once.
 */
static void segments_are_read_and_data_is_not(void **state)
{
	bool stays = guest_way == &guest_dma_persistent;
	struct double_stats before, after;
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_READ, 32, 0);
	memset(held_data(world.disk), 'd', 32 * TRIAL_PAGE);
	double_get_stats(&before);
	for (unsigned i = 0; i < 100; i++)
		assert_true(goes_by_the_bus(&t));
	double_get_stats(&after);
	assert_int_equal(after.copy_segments, before.copy_segments + (stays ? 0 : 100));
	/* A page for each of the ring's places at most, as its frontend has it. */
	assert_in_range(after.maps - before.maps, stays, stays ? 32 : 0);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(t.pages[i].data[TRIAL_PAGE - 1], 'd');
	assert_true(guest_close(&world.guest));
	double_get_stats(&after);
	assert_int_equal(after.device_mapped, before.device_mapped);
	trial_fini(&t);
}

/* It is read by a copy if it cannot be mapped. */
static void segments_that_cannot_be_mapped_are_copied(void **state)
{
	struct double_stats before, after;
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_WRITE, 32, 0);
	double_get_stats(&before);
	double_fail(DOUBLE_GNTTAB_MAP, ENOMEM, 0, 1, NULL);
	assert_true(goes_by_the_bus(&t));
	assert_true(goes_by_the_bus(&t));
	double_get_stats(&after);
	assert_in_range(after.copy_segments - before.copy_segments, 1, 2);
	assert_int_equal(held_data(world.disk)[32 * TRIAL_PAGE - 1], 'p');
	trial_fini(&t);
}

static void gaps_are_no_obstacle(void **state)
{
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_WRITE, 3, 8);
	t.segments[0].first_sect = 3;
	t.segments[1].last_sect = 0;
	t.segments[2].first_sect = 7;
	for (unsigned i = 0; i < 3; i++)
		memset(t.pages[i].data, '0' + (int)i, TRIAL_PAGE);
	assert_true(goes_by_the_bus(&t));
	assert_memory_equal(held_data(world.disk) + 8 * 512, "0000", 4);
	assert_int_equal(held_data(world.disk)[12 * 512 + 511], '0');
	assert_int_equal(held_data(world.disk)[13 * 512], '1');
	assert_int_equal(held_data(world.disk)[14 * 512], '2');
	assert_int_equal(held_data(world.disk)[15 * 512], 0);
	trial_fini(&t);
}

/* The requests of a pass cost a hypercall to map, and those of another to unmap. */
static void pages_are_mapped_in_batches(void **state)
{
	struct double_stats before, after;
	struct trial t[20];

	connect_way();
	world_assert_works(&world.guest);
	held_hold(world.disk);
	for (unsigned i = 0; i < 20; i++) {
		trial_init(&t[i], i % 2 ? BLKIF_WRITE : BLKIF_READ, 11, i * 100);
		assert_int_equal(front_submit(world.guest.front, &t[i].req), 0);
	}
	double_get_stats(&before);
	front_push(world.guest.front);
	assert_true(held_wait(world.disk, 20));
	double_get_stats(&after);
	assert_int_equal(after.device_maps - before.device_maps, 220);
	assert_int_equal(after.device_calls - before.device_calls, 1);
	held_release(world.disk, false);
	trial_collect();
	double_get_stats(&after);
	assert_int_equal(after.device_calls - before.device_calls,
			 guest_way == &guest_dma_persistent ? 1 : 2);
	for (unsigned i = 0; i < 20; i++)
		trial_fini(&t[i]);
}

/* Blocks of 4 KiB: what is made of whole ones goes by the bus, all else is put together first. */
static void create_blocks(void *arg)
{
	struct held **h = arg;

	*h = held_create_blocks("blocks", WORLD_DISK_BYTES, 4096);
}

static void whole_blocks_go_by_the_bus(void **state)
{
	static const struct {
		uint64_t sector;
		uint8_t first, last, second_first, second_last;
		bool by_bus;
	} cases[] = {
		{0, 0, 7, 0, 7, true},   {4, 0, 7, 0, 7, false}, {8, 4, 7, 0, 3, true},
		{8, 4, 7, 0, 2, false},  {8, 0, 3, 0, 3, false}, {16, 0, 3, 4, 7, false},
		{16, 0, 6, 0, 0, false},
	};
	struct held *blocks;
	struct trial t;

	host_run(&world.host, create_blocks, &blocks);
	world_connect_disk(&(struct disk_opts){.target = "blocks"}, &(struct guest_opts){0});
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned before = held_by_bus(blocks);

		trial_init(&t, BLKIF_WRITE, 2, cases[i].sector);
		t.segments[0].first_sect = cases[i].first;
		t.segments[0].last_sect = cases[i].last;
		t.segments[1].first_sect = cases[i].second_first;
		t.segments[1].last_sect = cases[i].second_last;
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
		if (held_by_bus(blocks) - before != cases[i].by_bus)
			fail_msg("case %u", i);
		trial_fini(&t);
	}
}

/* Auto */

static void auto_copies_the_small_and_maps_the_large(void **state)
{
	struct double_grant_use use;
	struct trial t;

	connect_way();
	assert_string_equal(json_string_value(admin_listed("sharing")), "auto");
	assert_int_equal(json_integer_value(admin_listed("map_from")), guest_way->map_from);
	assert_true(json_is_false(admin_listed("persistent")));
	assert_true(
		disk_key_is(&world.guest.disk, world.guest.disk.back, "feature-persistent", "0"));
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		for (unsigned pages = 1; pages <= 11; pages++) {
			trial_init(&t, op, pages, 0);
			assert_int_equal(goes_by_the_bus(&t), pages >= 3);
			use = use_of(t.pages[0].ref);
			assert_int_equal(use.maps, pages >= 3);
			assert_int_equal(use.mapped, 0);
			trial_fini(&t);
		}
		/* How long an indirect one is, shows only when it was looked into. */
		for (unsigned sectors = 1; sectors <= 2; sectors++) {
			trial_init(&t, op, 20, 0);
			for (unsigned i = 0; i < 20; i++)
				t.segments[i].last_sect = (uint8_t)(sectors - 1);
			assert_int_equal(goes_by_the_bus(&t), sectors == 2);
			trial_fini(&t);
		}
	}
	assert_int_equal(world_stat("shared_by/copy", "requests"), 2 * (2 + 1));
	assert_int_equal(world_stat("shared_by/dma", "requests"), 2 * (9 + 1));
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
}

/* One that is small, whatever its segments say, is known for it before they are read. */
static void a_small_indirect_request_is_fetched_once(void **state)
{
	struct double_stats before, after;
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_WRITE, 2, 0);
	t.req.indirect = true;
	double_get_stats(&before);
	assert_false(goes_by_the_bus(&t));
	double_get_stats(&after);
	assert_int_equal(after.copy_segments, before.copy_segments + 1 + 2);
	trial_fini(&t);
}

/* Nothing was measured, or mapping was never found cheaper. */
static void auto_copies_all_unless_told(void **state)
{
	struct trial t;

	world.host.map_from = 0;
	connect_way();
	assert_string_equal(json_string_value(admin_listed("sharing")), "copy");
	assert_true(json_is_null(admin_listed("map_from")));
	trial_init(&t, BLKIF_WRITE, 32, 0);
	assert_false(goes_by_the_bus(&t));
	trial_fini(&t);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
}

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
	for (unsigned i = 0; i < 20; i++) {
		trial_init(&t[i], i % 2 ? BLKIF_WRITE : BLKIF_READ, 11, i * 100);
		/* One of a write's pages, and one of a read's, is no page of the guest's. */
		if (i == 5 || i == 6)
			t[i].segments[10].gref = 4000;
		assert_int_equal(front_submit(world.guest.front, &t[i].req), 0);
	}
	double_get_stats(&before);
	front_push(world.guest.front);
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

/* How long pages are mapped */

static void pages_are_mapped_as_long_as_the_device_has_them(void **state)
{
	struct trial t[2];

	connect_way();
	held_hold(world.disk);
	for (unsigned i = 0; i < 2; i++) {
		trial_init(&t[i], i ? BLKIF_WRITE : BLKIF_READ, 3, i * 100);
		trial_send(&t[i]);
	}
	assert_true(held_wait(world.disk, 2));
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned p = 0; p < 3; p++) {
			struct double_grant_use use = use_of(t[i].pages[p].ref);

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
				assert_int_equal(use_of(t[i].pages[p].ref).mapped, 0);
	}
	for (unsigned i = 0; i < 2; i++)
		trial_fini(&t[i]);
}

/* The guest dies while the device works in its pages: they stay until the device is done. */
static void pages_outlive_their_guest(void **state)
{
	struct double_stats before, stats;
	struct trial t[4];

	connect_way();
	double_get_stats(&before);
	held_hold(world.disk);
	for (unsigned i = 0; i < 4; i++) {
		trial_init(&t[i], i % 2 ? BLKIF_WRITE : BLKIF_READ, 3, i * 100);
		trial_send(&t[i]);
	}
	assert_true(held_wait(world.disk, 4));
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

	connect_way();
	held_hold(world.disk);
	trial_init(&t, BLKIF_READ, 3, 0);
	trial_send(&t);
	assert_true(held_wait(world.disk, 1));
	double_revoke_by_force(WORLD_GUEST, t.pages[1].ref);
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_OKAY);
	assert_int_equal(use_of(t.pages[1].ref).mapped, guest_way->persistent);
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
		assert_int_equal(use_of(t[i].pages[0].ref).mapped_for_devices, 1);
	admin_pause();
	assert_true(admin_wait_quiet(1));
	assert_int_equal(use_of(t[0].pages[0].ref).mapped_for_devices, 1);
	world_end();
	for (unsigned i = 0; i < 3; i++)
		for (unsigned p = 0; p < 3; p++)
			assert_int_equal(use_of(t[i].pages[p].ref).mapped, 0);
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
	assert_true(goes_by_the_bus(&t));
	assert_int_equal(use_of(t.pages[1].ref).maps, 1);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 3);
	assert_int_equal(held_data(world.disk)[0], 'p');
	trial_fini(&t);
}

/* Failed for good, its pages are free as well. */
static void an_error_frees_pages_too(void **state)
{
	struct trial t;

	connect_way();
	held_fail(world.disk, BDEV_WRITE, -EIO, 1);
	trial_init(&t, BLKIF_WRITE, 3, 0);
	trial_send(&t);
	trial_collect();
	assert_int_equal(t.req.status, BLKIF_ERROR);
	assert_int_equal(use_of(t.pages[1].ref).mapped, guest_way->persistent);
	trial_fini(&t);
}

/* A flush before and one after the write are commands of their own; its pages stay in between. */
static void flushes_around_a_write_leave_it_mapped(void **state)
{
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_WRITE_BARRIER, 3, 0);
	assert_true(goes_by_the_bus(&t));
	assert_int_equal(held_count(world.disk, BDEV_FLUSH), 2);
	assert_int_equal(use_of(t.pages[1].ref).maps, 1);
	assert_int_equal(held_data(world.disk)[0], 'p');
	trial_fini(&t);
}

/* What cannot be mapped */

/* A page that Xen does not map is no error, and concerns its own request only. */
static void a_page_that_cannot_be_mapped_is_copied(void **state)
{
	struct trial before, bad, after;

	connect_way();
	trial_init(&before, BLKIF_READ, 3, 0);
	trial_init(&bad, BLKIF_WRITE, 11, 1000);
	trial_init(&after, BLKIF_WRITE, 3, 2000);
	double_fail_device_map(WORLD_GUEST, bad.pages[5].ref, GNTST_general_error, 1);
	world_block(world.daemon);
	assert_int_equal(front_submit(world.guest.front, &before.req), 0);
	assert_int_equal(front_submit(world.guest.front, &bad.req), 0);
	assert_int_equal(front_submit(world.guest.front, &after.req), 0);
	front_push(world.guest.front);
	world_unblock();
	trial_collect();
	assert_int_equal(before.req.status, BLKIF_OKAY);
	assert_int_equal(bad.req.status, BLKIF_OKAY);
	assert_int_equal(after.req.status, BLKIF_OKAY);
	assert_int_equal(held_by_bus(world.disk), 2);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
	assert_int_equal(world_stat("shared_by/copy", "requests"), 1);
	assert_int_equal(world_stat("shared_by/dma", "requests"), 2);
	assert_int_equal(held_data(world.disk)[1000 * 512 + 11 * TRIAL_PAGE - 1], 'p');
	for (unsigned i = 0; i < 11; i++)
		assert_int_equal(use_of(bad.pages[i].ref).mapped, guest_way->persistent && i != 5);
	trial_fini(&before);
	trial_fini(&bad);
	trial_fini(&after);
}

/* A hypercall that fails as a whole costs a copy, and soon it is tried again. */
static void a_hypercall_that_fails_costs_a_copy(void **state)
{
	uint64_t start = host_now_ms();
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_WRITE, 5, 0);
	double_fail(DOUBLE_DEVICE_MAP, ENOMEM, 0, 1, NULL);
	assert_false(goes_by_the_bus(&t));
	while (!goes_by_the_bus(&t))
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
	trial_fini(&t);
}

/* Each try costs a hypercall: a guest does not make them cheaply with nonsense. */
static void bad_references_are_seldom_tried(void **state)
{
	struct double_stats before, after;
	uint64_t start = host_now_ms();
	struct trial t;

	connect_way();
	trial_init(&t, BLKIF_WRITE, 1, 0);
	t.segments[0].gref = 999999;
	double_get_stats(&before);
	for (int i = 0; i < 100; i++) {
		trial_send(&t);
		trial_collect();
		assert_int_equal(t.req.status, BLKIF_ERROR);
	}
	double_get_stats(&after);
	assert_in_range(after.device_calls - before.device_calls, 1,
			2 + (host_now_ms() - start) / 100);
	trial_fini(&t);
}

/* A page that the guest lets us read only, cannot be read into, and can be written from. */
static void readonly_grants(void **state)
{
	struct trial t;

	connect_way();
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		trial_init(&t, op, 1, 0);
		guest_page_free(&world.guest, &t.pages[0]);
		t.pages[0] = guest_page_new(&world.guest, true);
		memset(t.pages[0].data, 'r', TRIAL_PAGE);
		t.segments[0].gref = t.pages[0].ref;
		trial_send(&t);
		trial_collect();
		assert_int_equal(t.req.status, op == BLKIF_READ ? BLKIF_ERROR : BLKIF_OKAY);
		assert_int_equal(t.pages[0].data[0], 'r');
		assert_int_equal(held_data(world.disk)[0], op == BLKIF_READ ? 0 : 'r');
		trial_fini(&t);
	}
	assert_int_equal(double_take_dma_faults(), 0);
}

/* Xen maps a reference 255 times at a time; what is beyond is copied. */
static void a_reference_too_often_mapped_is_copied(void **state)
{
	struct trial t[30];
	uint32_t ref;

	connect_way();
	held_hold(world.disk);
	for (unsigned i = 0; i < 30; i++) {
		trial_init(&t[i], BLKIF_WRITE, 11, i * 88);
		for (unsigned p = 0; p < 11; p++)
			t[i].segments[p].gref = t[0].pages[0].ref;
		trial_send(&t[i]);
	}
	assert_true(held_wait(world.disk, 30));
	ref = t[0].pages[0].ref;
	assert_in_range(use_of(ref).mapped, 200, 255);
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(use_of(ref).mapped, 0);
	assert_in_range(held_by_bus(world.disk), 20, 29);
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		trial_fini(&t[i]);
	}
	assert_int_equal(held_data(world.disk)[30 * 88 * 512 - 1], 'p');
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
	assert_int_equal(use_of(t.pages[0].ref).mapped, 2);
	held_release(world.disk, false);
	trial_collect();
	/* The other device is at it still. */
	assert_in_range(use_of(t.pages[0].ref).mapped, 1, guest_way->persistent ? 2 : 1);
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

/* What there may be */

/* More pages than a queue keeps: what was used least makes room, a page at a time. */
static void more_pages_than_are_kept(void **state)
{
	struct trial t;

	connect_way();
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

/* What is refused */

struct attach {
	struct err err;
	int rc;
};

static void attach_on_control(void *arg)
{
	struct xen_attach want = {.domid = WORLD_OTHER, .devid = ADMIN_DEVID};
	struct attach *a = arg;
	const char *kind;

	assert_int_equal(target_parse("disk,sharing=dma", &want.target, &a->err), 0);
	a->rc = xen_backend_attach(instance_backend(world.daemon), &want, &kind, &a->err);
}

static void expect_refused(const char *why)
{
	struct attach a;
	struct disk d;
	char *status;

	double_domain_create(WORLD_OTHER, "other");
	host_run(&world.host, attach_on_control, &a);
	assert_int_equal(a.rc, -EOPNOTSUPP);
	assert_non_null(strstr(a.err.text, why));
	assert_int_equal(world_disks(world.daemon), 0);
	/* By a toolstack: its script is told. */
	toolstack_add(&world.host, WORLD_OTHER, ADMIN_DEVID,
		      &(struct disk_opts){.target = "disk,sharing=dma"}, &d);
	assert_false(toolstack_script(&d));
	status = disk_read(&d, d.back, "sluice-status");
	assert_non_null(strstr(status, why));
	free(status);
	/* The bdev is free for others. */
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk,sharing=copy"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	world_assert_works(&world.guest);
}

static void a_bdev_without_dma_is_refused(void **state)
{
	world_start(&(struct instance_opts){0});
	expect_refused("on no drive of sluiced's own");
}

static void a_domain_that_is_not_pv_is_refused(void **state)
{
	double_set_pv(false);
	world_start(&(struct instance_opts){0});
	expect_refused("cannot be mapped for devices on this host");
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
	assert_true(goes_by_the_bus(&t));
	assert_int_equal(use_of(t.pages[0].ref).maps, 1);
	assert_int_equal(use_of(t.pages[0].ref).mapped, 0);
	trial_fini(&t);
}

/* Mapped once however often it is used, until the end. */
static void persistent_pages_are_mapped_once(void **state)
{
	struct trial t;

	connect_way();
	assert_string_equal(json_string_value(admin_listed("sharing")), "dma");
	assert_true(json_is_true(admin_listed("persistent")));
	trial_init(&t, BLKIF_WRITE, 1, 0);
	for (unsigned i = 0; i < 100; i++) {
		t.req.op = i % 2 ? BLKIF_READ : BLKIF_WRITE;
		t.req.sector = i;
		assert_true(goes_by_the_bus(&t));
	}
	assert_int_equal(use_of(t.pages[0].ref).maps, 1);
	assert_int_equal(use_of(t.pages[0].ref).mapped_for_devices, 1);
	assert_int_equal(world_stat("memory", "mapped_pages"), 1);
	assert_int_equal(world_stat("memory", "map_hits"), 99);
	assert_true(guest_close(&world.guest));
	assert_int_equal(use_of(t.pages[0].ref).mapped, 0);
	trial_fini(&t);
}

#define in_dma(fn)        world_test_in(fn, &guest_dma, ", dma")
#define in_persistent(fn) world_test_in(fn, &guest_dma_persistent, ", dma persistent")
#define in_auto(fn)       world_test_in(fn, &guest_auto, ", auto")

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_dma(data_goes_by_the_bus_alone),
		in_persistent(data_goes_by_the_bus_alone),
		in_dma(segments_are_read_and_data_is_not),
		in_persistent(segments_are_read_and_data_is_not),
		in_persistent(segments_that_cannot_be_mapped_are_copied),
		in_dma(gaps_are_no_obstacle),
		in_persistent(gaps_are_no_obstacle),
		in_dma(pages_are_mapped_in_batches),
		in_persistent(pages_are_mapped_in_batches),
		in_dma(whole_blocks_go_by_the_bus),
		in_persistent(whole_blocks_go_by_the_bus),
		in_auto(auto_copies_the_small_and_maps_the_large),
		in_auto(a_small_indirect_request_is_fetched_once),
		in_auto(auto_copies_all_unless_told),
		in_auto(copies_are_made_in_device_memory),
		in_auto(copies_are_made_in_one_go),
		in_auto(pages_that_are_paged_out_are_copied),
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
		in_dma(a_page_that_cannot_be_mapped_is_copied),
		in_persistent(a_page_that_cannot_be_mapped_is_copied),
		in_dma(a_hypercall_that_fails_costs_a_copy),
		in_persistent(a_hypercall_that_fails_costs_a_copy),
		in_dma(bad_references_are_seldom_tried),
		in_persistent(bad_references_are_seldom_tried),
		in_dma(readonly_grants),
		in_persistent(readonly_grants),
		in_dma(a_reference_too_often_mapped_is_copied),
		in_dma(two_disks_share_a_page),
		in_persistent(two_disks_share_a_page),
		in_persistent(more_pages_than_are_kept),
		in_dma(short_of_device_memory_it_gets_slower),
		in_dma(device_memory_is_taken_as_far_as_bounded),
		in_dma(without_device_memory_a_disk_says_what_to_do),
		world_test(a_bdev_without_dma_is_refused),
		world_test(a_domain_that_is_not_pv_is_refused),
		in_persistent(persistent_can_be_forbidden),
		in_persistent(persistent_pages_are_mapped_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
