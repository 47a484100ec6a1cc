/* SPDX-License-Identifier: BSD-2-Clause */
/* Discards: offered where they do something, judged, cut to what the device takes, and secure only
 * where that is true. */
#include "trial.h"

#include <errno.h>
#include <string.h>

enum { SECTORS = WORLD_DISK_BYTES / 512 };

static const struct blkif_layout *const layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64};

static void let_discard(bool secure)
{
	struct bdev_limits *limits = &held_bdev(world.disk)->limits;

	limits->discard = true;
	limits->secure_discard = secure;
	limits->discard_granularity = 4096;
	limits->discard_alignment = 512;
}

static bool key_is(const char *key, const char *value)
{
	return disk_key_is(&world.guest.disk, world.guest.disk.back, key, value);
}

static void connect_disk(const struct disk_opts *opts, const struct blkif_layout *layout)
{
	world_connect_disk(opts, &(struct guest_opts){.layout = layout});
}

static void expect_no_offer(void)
{
	struct front_req req = {.op = BLKIF_DISCARD, .sector = 8, .discard_sectors = 8};

	assert_true(key_is("feature-discard", "0"));
	assert_true(key_is("discard-granularity", NULL));
	assert_true(key_is("discard-alignment", NULL));
	assert_true(key_is("discard-secure", NULL));
	assert_int_equal(front_req_sync(world.guest.front, &req), -EOPNOTSUPP);
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), 0);
}

static void discard_is_offered_as_the_device_has_it(void **state)
{
	let_discard(false);
	world_connect();
	assert_true(key_is("feature-discard", "1"));
	assert_true(key_is("discard-granularity", "4096"));
	assert_true(key_is("discard-alignment", "512"));
	assert_true(key_is("discard-secure", "0"));
}

static void secure_discard_is_offered_as_the_device_has_it(void **state)
{
	let_discard(true);
	world_connect();
	assert_true(key_is("feature-discard", "1"));
	assert_true(key_is("discard-secure", "1"));
}

static void no_discard_where_the_device_has_none(void **state)
{
	world_connect();
	expect_no_offer();
}

static void the_toolstack_turns_discard_off(void **state)
{
	static const char *const more[] = {"discard-enable", "0", NULL};

	let_discard(true);
	connect_disk(&(struct disk_opts){.target = "disk", .more = more}, NULL);
	expect_no_offer();
}

static void the_toolstack_leaves_discard_on(void **state)
{
	static const char *const more[] = {"discard-enable", "1", NULL};

	let_discard(true);
	connect_disk(&(struct disk_opts){.target = "disk", .more = more}, NULL);
	assert_true(key_is("feature-discard", "1"));
}

static void no_discard_of_readonly_disks(void **state)
{
	let_discard(true);
	connect_disk(&(struct disk_opts){.target = "disk", .readonly = true}, NULL);
	expect_no_offer();
}

static void ranges_of_discards_are_checked(void **state)
{
	static const struct {
		uint64_t sector, sectors;
		int rc;
	} ranges[] = {
		{0, 1, 0},
		{0, SECTORS, 0},
		{SECTORS - 1, 1, 0},
		{7, 9, 0},
		{0, 0, -EIO},
		{0, SECTORS + 1, -EIO},
		{1, SECTORS, -EIO},
		{SECTORS, 1, -EIO},
		{SECTORS - 1, 2, -EIO},
		{UINT64_MAX, 1, -EIO},
		{1, UINT64_MAX, -EIO},
		{UINT64_MAX, UINT64_MAX, -EIO},
		{UINT64_MAX - 7, 8, -EIO},
		{8, UINT64_MAX - 7, -EIO},
		{0, 1ULL << 55, -EIO},
		{1ULL << 55, 1, -EIO},
		{0, (1ULL << 55) + 1, -EIO},
	};

	let_discard(false);
	for (unsigned l = 0; l < 2; l++) {
		if (l)
			assert_true(guest_close(&world.guest) && guest_free_front(&world.guest));
		if (l)
			guest_set_state(&world.guest, 1);
		else
			world_start(&(struct instance_opts){0});
		if (!l)
			guest_create(&world.guest, &world.host, WORLD_GUEST,
				     &(struct disk_opts){.target = "disk"});
		assert_true(
			guest_connect(&world.guest, &(struct guest_opts){.layout = layouts[l]}));
		for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
			struct front_req req = {.op = BLKIF_DISCARD,
						.sector = ranges[i].sector,
						.discard_sectors = ranges[i].sectors};
			unsigned n = held_logged(world.disk);

			memset(held_data(world.disk), 'd', WORLD_DISK_BYTES);
			assert_int_equal(front_req_sync(world.guest.front, &req), ranges[i].rc);
			for (uint64_t s = 0; s < SECTORS; s++)
				assert_int_equal(held_data(world.disk)[s * 512],
						 !ranges[i].rc && s >= ranges[i].sector &&
								 s - ranges[i].sector <
									 ranges[i].sectors
							 ? 0
							 : 'd');
			assert_int_equal(held_logged(world.disk), ranges[i].rc ? n : n + 1);
		}
	}
}

/* One request, however large; the cuts are at the device's own units. */
static void large_discards_are_cut_for_the_device(void **state)
{
	struct front_req req = {.op = BLKIF_DISCARD, .sector = 3, .discard_sectors = SECTORS - 5};
	uint64_t at = 3 * 512;

	let_discard(false);
	held_bdev(world.disk)->limits.discard_max = 1000000;
	world_connect();
	memset(held_data(world.disk), 'd', WORLD_DISK_BYTES);
	assert_int_equal(front_req_sync(world.guest.front, &req), 0);
	for (unsigned i = 0; i < held_logged(world.disk); i++) {
		struct held_entry entry = held_log(world.disk, i);

		assert_int_equal(entry.op, BDEV_DISCARD);
		assert_int_equal(entry.offset, at);
		assert_in_range(entry.len, 512, 1000000);
		at += entry.len;
		if (i + 1 < held_logged(world.disk))
			assert_int_equal((at - 512) % 4096, 0);
	}
	assert_int_equal(at, (uint64_t)(SECTORS - 2) * 512);
	assert_int_equal(held_logged(world.disk), 9);
	assert_int_equal(held_data(world.disk)[2 * 512], 'd');
	assert_int_equal(held_data(world.disk)[3 * 512], 0);
	assert_int_equal(held_data(world.disk)[(SECTORS - 3) * 512], 0);
	assert_int_equal(held_data(world.disk)[(SECTORS - 2) * 512], 'd');
	assert_int_equal(world_stat("discard", "requests"), 1);
	assert_int_equal(world_stat("discard", "bytes"), (SECTORS - 5) * 512);
}

static void secure_discards_are_secure(void **state)
{
	struct front_req req = {.op = BLKIF_DISCARD, .sector = 8, .discard_sectors = 4096};

	let_discard(true);
	held_bdev(world.disk)->limits.discard_max = 1 << 20;
	world_connect();
	assert_int_equal(front_req_sync(world.guest.front, &req), 0);
	req.flag = BLKIF_DISCARD_SECURE;
	assert_int_equal(front_req_sync(world.guest.front, &req), 0);
	assert_int_equal(held_logged(world.disk), 6);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(held_log(world.disk, i).secure, i >= 3);
}

/* Where erasing is not offered, a discard that only forgets must not pass for it. */
static void secure_discards_only_where_offered(void **state)
{
	struct front_req req = {.op = BLKIF_DISCARD,
				.flag = BLKIF_DISCARD_SECURE,
				.sector = 8,
				.discard_sectors = 8};

	let_discard(false);
	world_connect();
	assert_int_equal(front_req_sync(world.guest.front, &req), -EOPNOTSUPP);
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), 0);
	/* Flags that nobody has defined mean nothing. */
	req.flag = 0xfe;
	assert_int_equal(front_req_sync(world.guest.front, &req), 0);
	assert_int_equal(held_count(world.disk, BDEV_DISCARD), 1);
	assert_false(held_log(world.disk, 0).secure);
}

static void devices_that_fail_discards(void **state)
{
	struct front_req req = {.op = BLKIF_DISCARD, .sector = 8, .discard_sectors = 4096};
	unsigned char buffer[512];

	let_discard(false);
	held_bdev(world.disk)->limits.discard_max = 1 << 20;
	world_connect();
	held_fail(world.disk, BDEV_DISCARD, -EIO, 1);
	assert_int_equal(front_req_sync(world.guest.front, &req), -EIO);
	/* The first part failed: no other is tried. */
	assert_int_equal(held_logged(world.disk), 1);
	held_fail(world.disk, BDEV_DISCARD, -EOPNOTSUPP, 1);
	assert_int_equal(front_req_sync(world.guest.front, &req), -EOPNOTSUPP);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, buffer, 512), 0);
	assert_int_equal(front_req_sync(world.guest.front, &req), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(discard_is_offered_as_the_device_has_it),
		world_test(secure_discard_is_offered_as_the_device_has_it),
		world_test(no_discard_where_the_device_has_none),
		world_test(the_toolstack_turns_discard_off),
		world_test(the_toolstack_leaves_discard_on),
		world_test(no_discard_of_readonly_disks),
		world_test(ranges_of_discards_are_checked),
		world_tests(large_discards_are_cut_for_the_device),
		world_test(secure_discards_are_secure),
		world_test(secure_discards_only_where_offered),
		world_test(devices_that_fail_discards),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
