/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests' pages mapped for devices: what goes by the bus and what is copied, and what becomes of
 * requests whose pages cannot be had in this way.  That data is right, whatever a guest does, the
 * other tests tell, which run in these ways as well.
 */
#include "trial.h"

#include <errno.h>
#include <string.h>
#include <xen/grant_table.h>

#include "admin.h"

/* What goes by the bus */

/* Neither read nor write has a copy, or an address for the CPU, of its data anywhere. */
static void data_goes_by_the_bus_alone(void **state)
{
	struct double_stats before, after;

	trial_connect();
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

	trial_connect();
	trial_init(&t, BLKIF_READ, 32, 0);
	memset(held_data(world.disk), 'd', 32 * TRIAL_PAGE);
	double_get_stats(&before);
	for (unsigned i = 0; i < 100; i++)
		assert_true(trial_goes_by_bus(&t));
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

	trial_connect();
	trial_init(&t, BLKIF_WRITE, 32, 0);
	double_get_stats(&before);
	double_fail(DOUBLE_GNTTAB_MAP, ENOMEM, 0, 1, NULL);
	assert_true(trial_goes_by_bus(&t));
	assert_true(trial_goes_by_bus(&t));
	double_get_stats(&after);
	assert_in_range(after.copy_segments - before.copy_segments, 1, 2);
	assert_int_equal(held_data(world.disk)[32 * TRIAL_PAGE - 1], 'p');
	trial_fini(&t);
}

static void gaps_are_no_obstacle(void **state)
{
	struct trial t;

	trial_connect();
	trial_init(&t, BLKIF_WRITE, 3, 8);
	t.segments[0].first_sect = 3;
	t.segments[1].last_sect = 0;
	t.segments[2].first_sect = 7;
	for (unsigned i = 0; i < 3; i++)
		memset(t.pages[i].data, '0' + (int)i, TRIAL_PAGE);
	assert_true(trial_goes_by_bus(&t));
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

	trial_connect();
	world_assert_works(&world.guest);
	held_hold(world.disk);
	trial_init_batch(t, 20);
	double_get_stats(&before);
	trial_send_batch(t, 20);
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

	trial_connect();
	assert_string_equal(json_string_value(admin_listed("sharing")), "auto");
	assert_int_equal(json_integer_value(admin_listed("map_from")), guest_way->map_from);
	assert_true(json_is_false(admin_listed("persistent")));
	assert_true(
		disk_key_is(&world.guest.disk, world.guest.disk.back, "feature-persistent", "1"));
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		for (unsigned pages = 1; pages <= 11; pages++) {
			trial_init(&t, op, pages, 0);
			assert_int_equal(trial_goes_by_bus(&t), pages >= 3);
			use = trial_use_of(t.pages[0].ref);
			assert_int_equal(use.maps, pages >= 3);
			assert_int_equal(use.mapped, 0);
			trial_fini(&t);
		}
		/* How long an indirect one is, shows only when it was looked into. */
		for (unsigned sectors = 1; sectors <= 2; sectors++) {
			trial_init(&t, op, 20, 0);
			for (unsigned i = 0; i < 20; i++)
				t.segments[i].last_sect = (uint8_t)(sectors - 1);
			assert_int_equal(trial_goes_by_bus(&t), sectors == 2);
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

	trial_connect();
	trial_init(&t, BLKIF_WRITE, 2, 0);
	t.req.indirect = true;
	double_get_stats(&before);
	assert_false(trial_goes_by_bus(&t));
	double_get_stats(&after);
	assert_int_equal(after.copy_segments, before.copy_segments + 1 + 2);
	trial_fini(&t);
}

/* Nothing was measured, or mapping was never found cheaper. */
static void auto_copies_all_unless_told(void **state)
{
	struct trial t;

	world.host.map_from = 0;
	trial_connect();
	assert_string_equal(json_string_value(admin_listed("sharing")), "copy");
	assert_true(json_is_null(admin_listed("map_from")));
	assert_true(json_is_false(admin_listed("persistent")));
	assert_true(
		disk_key_is(&world.guest.disk, world.guest.disk.back, "feature-persistent", "0"));
	trial_init(&t, BLKIF_WRITE, 32, 0);
	assert_false(trial_goes_by_bus(&t));
	trial_fini(&t);
	assert_int_equal(held_by_foreign_memory(world.disk), 0);
}

/* Where a guest leaves its pages mapped there is nothing to weigh. */
static void auto_maps_all_that_stays_mapped(void **state)
{
	struct trial t;

	trial_connect();
	assert_string_equal(json_string_value(admin_listed("sharing")), "dma");
	assert_true(json_is_true(admin_listed("persistent")));
	assert_true(json_is_null(admin_listed("map_from")));
	trial_init(&t, BLKIF_WRITE, 1, 0);
	assert_true(trial_goes_by_bus(&t));
	assert_int_equal(trial_use_of(t.pages[0].ref).mapped, 1);
	trial_fini(&t);
}

static void auto_weighs_where_nothing_may_stay_mapped(void **state)
{
	struct trial t;

	world_connect_disk(&(struct disk_opts){.target = "disk,persistent=no"},
			   &(struct guest_opts){0});
	assert_string_equal(json_string_value(admin_listed("sharing")), "auto");
	assert_true(json_is_false(admin_listed("persistent")));
	trial_init(&t, BLKIF_WRITE, 1, 0);
	assert_false(trial_goes_by_bus(&t));
	assert_int_equal(trial_use_of(t.pages[0].ref).maps, 0);
	trial_fini(&t);
}

/* A frontend says what it can do, also where the key that it goes by tells it not to. */
static void nothing_stays_mapped_that_was_not_offered_to(void **state)
{
	struct disk *d = &world.guest.disk;
	struct trial t;

	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(disk_wait_state(d, 2)); /* InitWait */
	disk_write(d, d->back, "feature-persistent", "0");
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	assert_true(json_is_false(admin_listed("persistent")));
	trial_init(&t, BLKIF_WRITE, 11, 0);
	assert_true(trial_goes_by_bus(&t));
	assert_int_equal(trial_use_of(t.pages[0].ref).mapped, 0);
	trial_fini(&t);
}

/* What cannot be mapped */

/* A page that Xen does not map is no error, and concerns its own request only. */
static void a_page_that_cannot_be_mapped_is_copied(void **state)
{
	struct trial before, bad, after;

	trial_connect();
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
		assert_int_equal(trial_use_of(bad.pages[i].ref).mapped,
				 guest_way->persistent && i != 5);
	trial_fini(&before);
	trial_fini(&bad);
	trial_fini(&after);
}

/* A hypercall that fails as a whole costs a copy, and soon it is tried again. */
static void a_hypercall_that_fails_costs_a_copy(void **state)
{
	uint64_t start = host_now_ms();
	struct trial t;

	trial_connect();
	trial_init(&t, BLKIF_WRITE, 5, 0);
	double_fail(DOUBLE_DEVICE_MAP, ENOMEM, 0, 1, NULL);
	assert_false(trial_goes_by_bus(&t));
	while (!trial_goes_by_bus(&t))
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
	trial_fini(&t);
}

/* Each try costs a hypercall: a guest does not make them cheaply with nonsense. */
static void bad_references_are_seldom_tried(void **state)
{
	struct double_stats before, after;
	uint64_t start = host_now_ms();
	struct trial t;

	trial_connect();
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

	trial_connect();
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

	trial_connect();
	held_hold(world.disk);
	for (unsigned i = 0; i < 30; i++) {
		trial_init(&t[i], BLKIF_WRITE, 11, i * 88);
		for (unsigned p = 0; p < 11; p++)
			t[i].segments[p].gref = t[0].pages[0].ref;
		trial_send(&t[i]);
	}
	assert_true(held_wait(world.disk, 30));
	ref = t[0].pages[0].ref;
	assert_in_range(trial_use_of(ref).mapped, 200, 255);
	held_release(world.disk, false);
	trial_collect();
	assert_int_equal(trial_use_of(ref).mapped, 0);
	assert_in_range(held_by_bus(world.disk), 20, 29);
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(t[i].req.status, BLKIF_OKAY);
		trial_fini(&t[i]);
	}
	assert_int_equal(held_data(world.disk)[30 * 88 * 512 - 1], 'p');
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

#define in_dma(fn)        world_test_in(fn, &guest_dma, ", dma")
#define in_persistent(fn) world_test_in(fn, &guest_dma_persistent, ", dma persistent")
#define in_auto(fn)       world_test_in(fn, &guest_auto, ", auto")
#define in_kept(fn)       world_test_in(fn, &guest_auto_persistent, ", auto persistent")

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
		in_kept(auto_copies_all_unless_told),
		in_kept(auto_maps_all_that_stays_mapped),
		in_kept(auto_weighs_where_nothing_may_stay_mapped),
		in_kept(nothing_stays_mapped_that_was_not_offered_to),
		in_dma(a_page_that_cannot_be_mapped_is_copied),
		in_persistent(a_page_that_cannot_be_mapped_is_copied),
		in_dma(a_hypercall_that_fails_costs_a_copy),
		in_persistent(a_hypercall_that_fails_costs_a_copy),
		in_dma(bad_references_are_seldom_tried),
		in_persistent(bad_references_are_seldom_tried),
		in_dma(readonly_grants),
		in_persistent(readonly_grants),
		in_dma(a_reference_too_often_mapped_is_copied),
		world_test(a_bdev_without_dma_is_refused),
		world_test(a_domain_that_is_not_pv_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
