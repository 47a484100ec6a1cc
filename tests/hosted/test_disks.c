/* SPDX-License-Identifier: BSD-2-Clause */
/* Disks of all kinds: what they are told to be, blocks larger than sectors, disks that move from
 * one domain to another, and what is counted of each queue. */
#include "trial.h"

#include <errno.h>
#include <jansson.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool key_is(struct guest *g, const char *key, const char *value)
{
	return disk_key_is(&g->disk, g->disk.back, key, value);
}

/* What a disk is */

static void info_tells_what_the_disk_is(void **state)
{
	static const struct {
		const char *more[5];
		bool readonly;
		const char *info;
	} disks[] = {
		{{NULL}, false, "0"},
		{{NULL}, true, "4"},
		{{"device-type", "cdrom", NULL}, true, "5"},
		{{"removable", "1", NULL}, false, "2"},
		{{"removable", "1", "device-type", "cdrom", NULL}, true, "7"},
		{{"removable", "0", "device-type", "floppy", NULL}, false, "0"},
	};

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	for (unsigned i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
		struct guest *g = &world.guest;

		guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
			       &(struct disk_opts){.target = "disk",
						   .readonly = disks[i].readonly,
						   .more = disks[i].more});
		assert_true(guest_connect(g, &(struct guest_opts){0}));
		assert_true(key_is(g, "info", disks[i].info));
		assert_true(guest_close(g));
		assert_true(guest_free_front(g));
		assert_true(toolstack_remove(&g->disk, HOST_WAIT_MS));
		assert_true(world_wait_disks(world.daemon, 0));
		guest_destroy(g);
	}
	memset(&world.guest, 0, sizeof(world.guest));
}

static void the_offer_is_there_at_initwait(void **state)
{
	struct guest *g = &world.guest;

	world_start(&(struct instance_opts){0});
	guest_create(g, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(key_is(g, "max-ring-page-order", "4"));
	assert_true(key_is(g, "max-ring-pages", "16"));
	assert_true(key_is(g, "multi-queue-max-queues", "4"));
	assert_true(key_is(g, "feature-max-indirect-segments", "256"));
	assert_false(key_is(g, "feature-persistent", NULL));
	/* What only a connected frontend may rely on comes with Connected. */
	assert_true(key_is(g, "sectors", NULL));
}

static void indirect_is_offered_as_the_device_takes_it(void **state)
{
	struct guest *g = &world.guest;

	held_bdev(world.disk)->limits.max_io = 64 << 12;
	world_start(&(struct instance_opts){0});
	guest_create(g, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(key_is(g, "feature-max-indirect-segments", "64"));
}

/* Without an offer there is no such operation. */
static void no_indirect_where_the_device_takes_too_little(void **state)
{
	struct trial t;

	held_bdev(world.disk)->limits.max_io = 11 << 12;
	world_connect();
	assert_true(key_is(&world.guest, "feature-max-indirect-segments", NULL));
	trial_init(&t, BLKIF_READ, 3, 0);
	t.req.indirect = true;
	assert_int_equal(front_req_sync(world.guest.front, &t.req), -EOPNOTSUPP);
	t.req.indirect = false;
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	trial_fini(&t);
}

/* Blocks of 4096 bytes */

static struct held *large;

static void create_large(void *arg)
{
	large = held_create_blocks("large", WORLD_DISK_BYTES, 4096);
}

static void connect_large(void)
{
	host_run(&world.host, create_large, NULL);
	world_connect_disk(&(struct disk_opts){.target = "large"}, &(struct guest_opts){0});
}

static void large_blocks_are_told_truly(void **state)
{
	char sectors[16];

	connect_large();
	snprintf(sectors, sizeof(sectors), "%u", WORLD_DISK_BYTES / 512);
	assert_true(key_is(&world.guest, "sector-size", "512"));
	assert_true(key_is(&world.guest, "physical-sector-size", "4096"));
	assert_true(key_is(&world.guest, "sectors", sectors));
}

/* Any sector can be read and written, whatever the blocks are, and its neighbours stay. */
static void any_sector_of_a_large_block_can_be_had(void **state)
{
	unsigned char data[3 * 512];

	connect_large();
	memset(held_data(large), 'd', WORLD_DISK_BYTES);
	for (unsigned first = 0; first < 16; first++) {
		memset(data, 'a' + (int)first, sizeof(data));
		assert_int_equal(front_rw_sync(world.guest.front, BLKIF_WRITE, first * 10, data,
					       sizeof(data)),
				 0);
		memset(data, 0, sizeof(data));
		assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, first * 10, data,
					       sizeof(data)),
				 0);
		assert_int_equal(data[0], 'a' + first);
		assert_int_equal(data[sizeof(data) - 1], 'a' + first);
	}
	for (unsigned s = 0; s < 170; s++)
		assert_int_equal(held_data(large)[s * 512],
				 s % 10 < 3 && s < 160 ? (int)('a' + s / 10) : 'd');
	for (unsigned i = 0; i < held_logged(large); i++) {
		assert_int_equal(held_log(large, i).offset % 4096, 0);
		assert_int_equal(held_log(large, i).len % 4096, 0);
	}
}

/* Sectors that share a block, written at once by many requests: none undoes another's. */
static void writes_to_one_large_block_do_not_undo_each_other(void **state)
{
	struct load *l;

	connect_large();
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 5, .flushes = true});
	assert_null(load_run(l, 3000));
	assert_null(load_compare(l, held_data(large)));
	load_destroy(l);
	for (unsigned round = 0; round < 20; round++) {
		struct trial t[8];

		for (unsigned i = 0; i < 8; i++) {
			trial_init(&t[i], BLKIF_WRITE, 1, 8 + i);
			memset(t[i].pages[0].data, 'A' + (int)(round + i), TRIAL_PAGE);
			t[i].segments[0].last_sect = 0;
			assert_int_equal(front_submit(world.guest.front, &t[i].req), 0);
		}
		front_push(world.guest.front);
		trial_collect();
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(held_data(large)[(8 + i) * 512], 'A' + round + i);
			trial_fini(&t[i]);
		}
	}
}

static void barriers_hold_on_large_blocks(void **state)
{
	struct trial before, barrier, after;

	connect_large();
	trial_init(&before, BLKIF_WRITE, 1, 1);
	trial_init(&barrier, BLKIF_WRITE_BARRIER, 1, 1);
	trial_init(&after, BLKIF_WRITE, 1, 1);
	before.segments[0].last_sect = barrier.segments[0].last_sect = 2;
	after.segments[0].last_sect = 0;
	memset(barrier.pages[0].data, 'B', TRIAL_PAGE);
	memset(after.pages[0].data, 'A', TRIAL_PAGE);
	trial_send(&before);
	trial_send(&barrier);
	trial_send(&after);
	trial_collect();
	assert_int_equal(barrier.req.status, BLKIF_OKAY);
	assert_int_equal(held_data(large)[512], 'A');
	assert_int_equal(held_data(large)[2 * 512], 'B');
	assert_int_equal(held_data(large)[3 * 512], 'B');
	trial_fini(&before);
	trial_fini(&barrier);
	trial_fini(&after);
}

/* Counters */

static json_t *stats;
static sem_t stats_done;

static void stats_came(void *arg, json_t *all)
{
	stats = all;
	sem_post(&stats_done);
}

static void ask_stats(void *arg)
{
	xen_backend_stats(instance_backend(world.daemon), stats_came, NULL);
}

static int64_t number(const json_t *of, const char *group, const char *name)
{
	return json_integer_value(json_object_get(group ? json_object_get(of, group) : of, name));
}

static void each_request_is_counted_once(void **state)
{
	struct front_req flush = {.op = BLKIF_FLUSH_DISKCACHE};
	unsigned char data[4096] = "x";
	json_t *disk, *queue;

	world_connect();
	for (int i = 0; i < 3; i++)
		assert_int_equal(front_rw_sync(world.guest.front, BLKIF_WRITE, 0, data, 4096), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, data, 1024), 0);
	assert_int_equal(front_req_sync(world.guest.front, &flush), 0);
	held_fail(world.disk, BDEV_READ, -EIO, 1);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 0, data, 512), -EIO);
	assert_int_equal(front_rw_sync(world.guest.front, BLKIF_READ, 1 << 30, data, 512), -EIO);
	sem_init(&stats_done, 0, 0);
	host_run(&world.host, ask_stats, NULL);
	while (sem_wait(&stats_done))
		;
	disk = json_array_get(stats, 0);
	queue = json_array_get(json_object_get(disk, "queues"), 0);
	assert_int_equal(json_array_size(json_object_get(disk, "queues")), 1);
	for (int i = 0; i < 2; i++) {
		const json_t *of = i ? queue : disk;

		assert_int_equal(number(of, "write", "requests"), 3);
		assert_int_equal(number(of, "write", "bytes"), 3 * 4096);
		assert_int_equal(number(of, "write", "errors"), 0);
		assert_int_equal(number(of, "read", "requests"), 6);
		assert_int_equal(number(of, "read", "bytes"), 5 * 1024);
		assert_int_equal(number(of, "read", "errors"), 1);
		assert_int_equal(number(of, "flush", "requests"), 1);
		assert_int_equal(number(of, "discard", "requests"), 0);
		assert_int_equal(number(of, NULL, "invalid"), 1);
		assert_int_equal(number(of, NULL, "in_flight"), 0);
		assert_int_equal(number(of, "memory", "bounce_pages"), 0);
		assert_in_range(number(of, "notifications", "sent"), 1, 11);
	}
	json_decref(stats);
	sem_destroy(&stats_done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(info_tells_what_the_disk_is),
		world_tests(the_offer_is_there_at_initwait),
		world_test(indirect_is_offered_as_the_device_takes_it),
		world_tests(no_indirect_where_the_device_takes_too_little),
		world_test(large_blocks_are_told_truly),
		world_tests(any_sector_of_a_large_block_can_be_had),
		world_tests(writes_to_one_large_block_do_not_undo_each_other),
		world_tests(barriers_hold_on_large_blocks),
		world_tests(each_request_is_counted_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
