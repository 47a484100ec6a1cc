/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Things that outlive, or come back: what a bounce page held before, a directory made again, a
 * clean mark, pages and patience that another has used up.  Each of these tests stands for a way in
 * which one life of a disk could leak into the next, or into another's.
 */
#include "world.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	PAGE = 4096,
	SEGMENTS_MAX = 256,
};

static const struct guest_opts plain;
static const struct instance_opts plain_instance;
static const struct disk_opts the_disk = {.target = "disk"};

/* The guest's disk is @is, not @is_not: by a sector that is written. */
static void assert_is(struct guest *g, struct held *is, struct held *is_not)
{
	char sector[512];

	memset(sector, 'n', sizeof(sector));
	memset(held_data(is) + PAGE, 'i', sizeof(sector));
	memset(held_data(is_not) + PAGE, 'x', sizeof(sector));
	assert_int_equal(front_rw_sync(g->front, BLKIF_WRITE, 8, sector, sizeof(sector)), 0);
	assert_memory_equal(held_data(is) + PAGE, sector, sizeof(sector));
	assert_int_equal(held_data(is_not)[PAGE], 'x');
}
static void create_other(void *arg)
{
	struct held **other = arg;

	*other = held_create("other", WORLD_DISK_BYTES);
}

static void create_disk(void *arg)
{
	world.disk = held_create("disk", WORLD_DISK_BYTES);
}

static void delete_disk(void *arg)
{
	struct err err;

	if (bdev_delete("disk", &err))
		abort();
}

/* A bounce page after another's use */

struct batch {
	struct guest *g;
	unsigned char *pages;
	uint32_t refs[SEGMENTS_MAX];
	struct blkif_wire_segment segments[SEGMENTS_MAX];
	struct front_req reqs[2];
};

/* Two requests of @nr pages each, one behind the other on the disk. */
static void batch_init(struct batch *b, uint8_t op, unsigned nr, char fill)
{
	memset(b, 0, sizeof(*b));
	b->g = &world.guest;
	b->pages = b->g->ops.pages_alloc(b->g, 2 * nr, false, b->refs);
	memset(b->pages, fill, (size_t)2 * nr * PAGE);
	for (unsigned i = 0; i < 2 * nr; i++)
		b->segments[i] = (struct blkif_wire_segment){.gref = b->refs[i], .last_sect = 7};
	for (unsigned i = 0; i < 2; i++)
		b->reqs[i] = (struct front_req){
			.op = op,
			.sector = (uint64_t)i * nr * 8,
			.segments = &b->segments[i * nr],
			.nr_segments = nr,
		};
}

/* Sends both; the daemon finds them at once. */
static void batch_run(struct batch *b)
{
	world_block(world.daemon);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(front_submit(b->g->front, &b->reqs[i]), 0);
	front_push(b->g->front);
	world_unblock();
	while (front_outstanding(b->g->front))
		assert_true(front_wait(b->g->front, HOST_WAIT_MS) > 0);
}

static void batch_fini(struct batch *b)
{
	b->g->ops.pages_free(b->g, b->pages, 2 * b->reqs[0].nr_segments, b->refs);
}

static bool contains(const void *data, size_t len, char c)
{
	return memchr(data, c, len);
}

/*
 * A copy that fails as a whole says of each of its pieces that it was done.  If one of them were
 * believed, a guest would get on its disk, or in its memory, what the page held before: another
 * guest's data.
 */
static void failed_copies_bring_no_foreign_data(void **state)
{
	/* Direct, more than a batch of gntdev's; indirect, at the list and at the data. */
	static const struct {
		unsigned segments;
		unsigned skip;
	} cases[] = {{11, 0}, {20, 0}, {20, 1}};
	static char secret[32 * PAGE];
	struct batch b;

	world_connect();
	world_connect_other(&plain);
	memset(secret, 'S', sizeof(secret));
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
			size_t bytes = (size_t)2 * cases[i].segments * PAGE;
			unsigned writes = held_count(world.disk, BDEV_WRITE);

			/* These pages are used next. */
			assert_int_equal(front_rw_sync(world.other.front, BLKIF_WRITE, 0, secret,
						       sizeof(secret)),
					 0);
			memset(held_data(world.disk), 'd', bytes);
			batch_init(&b, op, cases[i].segments, 'm');
			double_fail(DOUBLE_GNTTAB_COPY, ENOMEM, cases[i].skip, 1, NULL);
			batch_run(&b);
			for (unsigned n = 0; n < 2; n++)
				assert_int_equal(b.reqs[n].status, BLKIF_ERROR);
			assert_int_equal(held_count(world.disk, BDEV_WRITE), writes);
			assert_false(contains(held_data(world.disk), bytes, 'S'));
			assert_false(contains(held_data(world.disk), bytes, 'm'));
			assert_false(contains(b.pages, bytes, 'S'));
			/* And it was a moment's trouble. */
			batch_run(&b);
			for (unsigned n = 0; n < 2; n++)
				assert_int_equal(b.reqs[n].status, BLKIF_OKAY);
			assert_false(
				contains(op == BLKIF_READ ? b.pages : (void *)held_data(world.disk),
					 bytes, 'S'));
			batch_fini(&b);
		}
	}
}

/* A directory that was made again */

enum renewal {
	AT_ONCE,          /* removed and made again before we looked */
	DRAINING,         /* we see it removed, and made again while the device has requests */
	DRAINING_AT_ONCE, /* the same, but the removal is not seen */
};

/* The toolstack takes world.guest's disk away and gives it another on @target, by its script. */
static void renew(enum renewal how, const char *target)
{
	struct guest *g = &world.guest;
	struct front *old = g->front;
	struct load *l = NULL;

	if (how != AT_ONCE) {
		l = load_create(g, &(struct load_opts){.max_segments = 1, .depth = 4});
		held_hold(world.disk);
		load_fill(l);
		assert_true(held_wait(world.disk, 4));
	}
	if (how != DRAINING)
		world_block_control();
	toolstack_remove_by_force(&g->disk);
	if (how == DRAINING)
		world_settle();
	toolstack_add(&world.host, WORLD_GUEST, 51712, &(struct disk_opts){.target = target},
		      &g->disk);
	if (how != DRAINING)
		world_unblock();
	if (l) {
		world_settle();
		/* What the device has, it may still write to the old ring's guest. */
		assert_true(world_is_served(g));
		assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-status", NULL));
		held_release(world.disk, false);
	}
	/* libxl waits for both. */
	assert_true(toolstack_script(&g->disk));
	assert_true(disk_wait_state(&g->disk, 2));
	assert_false(world_is_served(g));
	g->front = NULL;
	assert_true(guest_connect(g, &plain));
	if (l)
		load_destroy(l);
	front_destroy(old);
}

static void a_renewed_disk_is_served_anew(void **state)
{
	static const enum renewal ways[] = {AT_ONCE, DRAINING, DRAINING_AT_ONCE};
	struct held *other;

	host_run(&world.host, create_other, &other);
	world_connect();
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		renew(ways[i], "disk");
		world_assert_works(&world.guest);
		assert_is(&world.guest, world.disk, other);
		assert_int_equal(world_disks(world.daemon), 1);
	}
}

/* The new disk is what its directory says, not what the old one's said. */
static void a_renewed_disk_may_be_another(void **state)
{
	static const enum renewal ways[] = {AT_ONCE, DRAINING, DRAINING_AT_ONCE};
	struct guest *g = &world.guest;
	struct held *other;

	host_run(&world.host, create_other, &other);
	world_connect();
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		renew(ways[i], "other");
		world_assert_works(g);
		assert_is(g, other, world.disk);
		/* The old one is free: another guest can have it. */
		guest_create(&world.other, &world.host, WORLD_OTHER, &the_disk);
		assert_true(guest_connect(&world.other, &plain));
		assert_is(&world.other, world.disk, other);
		assert_true(guest_close(&world.other));
		assert_true(guest_free_front(&world.other));
		guest_kill(&world.other);
		assert_true(world_wait_disks(world.daemon, 1));
		guest_destroy(&world.other);
		memset(&world.other, 0, sizeof(world.other));
		renew(AT_ONCE, "disk");
		assert_is(g, world.disk, other);
	}
}

/* Removed while we drain: nobody would clean up what we wrote then. */
static void removed_while_draining_it_stays_removed(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;
	unsigned n;

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 1, .depth = 4});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, 4));
	instance_drain(world.daemon);
	toolstack_remove_by_force(&g->disk);
	held_release(world.disk, false);
	world_end();
	assert_null(load_finish(l));
	load_destroy(l);
	assert_null(xs_directory(world.host.xs, XBT_NULL, g->disk.back, &n));
}

/* The clean mark */

static atomic_bool marked_while_served;

/* Whenever a guest's data is touched, the mark must not be there: we might die the moment after. */
static void look_for_mark(void *arg, unsigned domid, uint32_t ref)
{
	struct disk *d = arg;

	if (!disk_key_is(d, d->back, "sluice-clean", NULL))
		atomic_store(&marked_while_served, true);
}

static void assert_served_without_mark(struct guest *g)
{
	double_on_copy(look_for_mark, &g->disk);
	world_assert_works(g);
	double_on_copy(NULL, NULL);
	assert_false(atomic_load(&marked_while_served));
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
}

static void the_mark_is_never_there_while_served(void **state)
{
	struct guest *g = &world.guest;

	atomic_store(&marked_while_served, false);
	world_connect();
	assert_served_without_mark(g);

	/* Adopted. */
	world_end();
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
	world_start(&plain_instance);
	assert_served_without_mark(g);

	/* Not adopted for want of the bdev, and the frontend closes and comes back. */
	world_end();
	host_run(&world.host, delete_disk, NULL);
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
	guest_set_state(g, 5);
	assert_true(disk_wait_state(&g->disk, 5));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	host_run(&world.host, create_disk, NULL);
	assert_true(guest_connect(g, &plain));
	assert_served_without_mark(g);

	/* The same, but the frontend starts anew without closing. */
	world_end();
	host_run(&world.host, delete_disk, NULL);
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	guest_set_state(g, 1);
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(guest_free_front(g));
	host_run(&world.host, create_disk, NULL);
	assert_true(guest_connect(g, &plain));
	assert_served_without_mark(g);

	/* Adopted when the bdev comes. */
	world_end();
	host_run(&world.host, delete_disk, NULL);
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	host_run(&world.host, create_disk, NULL);
	assert_true(world_wait_served(g));
	assert_served_without_mark(g);

	/* Refused for the mark's size, until the frontend starts anew. */
	world_end();
	disk_write(&g->disk, g->disk.back, "sluice-clean", "16385");
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	guest_set_state(g, 1);
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(guest_free_front(g));
	assert_true(guest_connect(g, &plain));
	assert_served_without_mark(g);
}

/* What one disk keeps from others */

/*
 * A device hangs with all shared bounce pages.  Other disks do their largest requests with their
 * own; and requests that wait for pages do not keep their disk from being closed when the device
 * comes back.
 */
static void a_starving_disk_can_be_closed(void **state)
{
	static struct batch hungry, other_batch;
	struct front_req reqs[8];
	struct guest *g = &world.guest;
	struct held *other_disk;
	unsigned reads;

	/* Enough for two of the largest requests besides each queue's own. */
	world_start(&(struct instance_opts){.bounce_pages = 600});
	guest_create(g, &world.host, WORLD_GUEST, &the_disk);
	other_disk = world_connect_other(&(struct guest_opts){.max_segments = 256});
	for (int round = 0; round < 3; round++) {
		assert_true(guest_connect(g, &(struct guest_opts){.max_segments = 256}));
		batch_init(&hungry, BLKIF_READ, 128, 'm');
		held_hold(world.disk);
		reads = held_count(world.disk, BDEV_READ);
		for (unsigned i = 0; i < 8; i++) {
			reqs[i] = hungry.reqs[0];
			reqs[i].nr_segments = 256;
			assert_int_equal(front_submit(g->front, &reqs[i]), 0);
		}
		front_push(g->front);
		assert_true(held_wait(world.disk, 3));
		world_settle();
		assert_int_equal(held_count(world.disk, BDEV_READ), reads + 3);

		/* The other one's largest, again and again. */
		batch_init(&other_batch, BLKIF_WRITE, 128, 'o');
		batch_fini(&other_batch);
		other_batch.g = &world.other;
		other_batch.pages =
			world.other.ops.pages_alloc(&world.other, 256, false, other_batch.refs);
		memset(other_batch.pages, 'a' + round, 256 * PAGE);
		for (unsigned i = 0; i < 256; i++)
			other_batch.segments[i].gref = other_batch.refs[i];
		for (unsigned i = 0; i < 10; i++) {
			struct front_req req = {.op = BLKIF_WRITE,
						.sector = i * 8,
						.segments = other_batch.segments,
						.nr_segments = 256};

			assert_int_equal(front_req_sync(world.other.front, &req), 0);
		}
		assert_int_equal(held_largest(other_disk), 256 * PAGE);
		assert_int_equal(held_data(other_disk)[255 * PAGE], 'a' + round);
		world.other.ops.pages_free(&world.other, other_batch.pages, 256, other_batch.refs);

		/* It closes with most of its requests waiting. */
		guest_set_state(g, 5);
		assert_true(disk_wait_state(&g->disk, 5));
		guest_set_state(g, 6);
		world_settle();
		assert_true(world_is_served(g));
		held_release(world.disk, false);
		assert_true(disk_wait_state(&g->disk, 6));
		assert_int_equal(front_poll(g->front), 8);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(reqs[i].status, BLKIF_OKAY);
		batch_fini(&hungry);
		assert_true(guest_free_front(g));
		guest_set_state(g, 1);
	}
}

/* However long a frontend has rung in vain, its next request does not wait for long. */
static void after_empty_rings_a_request_is_served_soon(void **state)
{
	/* 64 ms by design; the rest is for busy machines. If it doubled on, it would be 1 s. */
	enum { RING_MS = 1200, SOON_MS = 400, TRIES = 3 };
	struct guest *g = &world.guest;
	unsigned char sector[512];
	uint64_t start, took = UINT64_MAX;

	world_connect();
	world_connect_other(&plain);
	/* A machine that stands still for a moment has another try. */
	for (int i = 0; i < TRIES && took > SOON_MS; i++) {
		start = host_now_ms();
		while (host_now_ms() - start < RING_MS) {
			double_evtchn_notify(WORLD_GUEST, g->port);
			host_nap();
		}
		start = host_now_ms();
		assert_int_equal(front_rw_sync(g->front, BLKIF_READ, 0, sector, sizeof(sector)), 0);
		took = host_now_ms() - start;
	}
	assert_in_range(took, 0, SOON_MS);
	/* It is forgiven: a hundred more do not take a hundred times that. */
	start = host_now_ms();
	for (int i = 0; i < 100; i++)
		assert_int_equal(front_rw_sync(g->front, BLKIF_READ, 0, sector, sizeof(sector)), 0);
	assert_in_range(host_now_ms() - start, 0, 100 * 20);
	world_assert_works(&world.other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(failed_copies_bring_no_foreign_data),
		world_test(a_renewed_disk_is_served_anew),
		world_test(a_renewed_disk_may_be_another),
		world_test(removed_while_draining_it_stays_removed),
		world_test(the_mark_is_never_there_while_served),
		world_test(a_starving_disk_can_be_closed),
		world_test(after_empty_rings_a_request_is_served_soon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
