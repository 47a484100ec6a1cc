/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trouble that lasts and then passes: xenstore that takes no writes, a host without memory or event
 * channels, a device that does not open.  We are quiet meanwhile, and nobody has to help
 * afterwards.
 */
#include "world.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { FOREVER = 1000000 /* times that a call fails */ };

static const struct guest_opts plain;
static const struct instance_opts plain_instance;
static const struct disk_opts the_disk = {.target = "disk"};

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

/* Trouble that lasts */

/* Each write to xenstore comes back as an event: to answer that by another write would never end.
 */
static bool falls_quiet(void)
{
	/* A look at one disk, which is repeated every second, has no more calls than that. */
	enum { CALLS_MAX = 40 };
	const struct timespec half_a_second = {.tv_nsec = 500000000};
	struct double_stats before, after;
	uint64_t start = host_now_ms();

	do {
		double_get_stats(&before);
		nanosleep(&half_a_second, NULL);
		double_get_stats(&after);
		if (after.xs_calls - before.xs_calls <= CALLS_MAX)
			return true;
	} while (host_now_ms() - start < HOST_WAIT_MS);
	print_message("%lu calls in half a second\n",
		      (unsigned long)(after.xs_calls - before.xs_calls));
	return false;
}

static void what_cannot_be_served_is_quiet(void **state)
{
	struct guest *g = &world.guest;
	struct disk nowhere;

	/* No bdev: with a frontend that waits, and with one that is Initialised. */
	world_start(&plain_instance);
	double_domain_create(WORLD_GUEST, "guest");
	toolstack_add(&world.host, WORLD_GUEST, 51728, &(struct disk_opts){.target = "none"},
		      &nowhere);
	assert_false(toolstack_script(&nowhere));
	assert_true(falls_quiet());
	toolstack_remove_by_force(&nowhere);
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	assert_true(guest_connect(g, &plain));

	/* No mark. */
	world_end();
	disk_rm(&g->disk, g->disk.back, "sluice-clean");
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	assert_true(falls_quiet());

	/* No mark and no bdev: two errors must not take turns. */
	world_end();
	host_run(&world.host, delete_disk, NULL);
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	assert_true(falls_quiet());
	host_run(&world.host, create_disk, NULL);
	assert_true(falls_quiet());
	assert_false(world_is_served(g));
}

static void what_fails_for_long_is_quiet(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	/* The ring cannot be mapped. */
	world_end();
	double_fail(DOUBLE_GNTTAB_MAP, ENOMEM, 0, FOREVER, NULL);
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	assert_true(falls_quiet());
	double_fail(DOUBLE_GNTTAB_MAP, 0, 0, 0, NULL);
	world_assert_works(g);

	/* The mark cannot be taken. */
	world_end();
	double_fail(DOUBLE_XS_RM, EIO, 0, FOREVER, "sluice-clean");
	world_start(&plain_instance);
	assert_true(world_wait_error(g));
	assert_true(falls_quiet());
	assert_false(world_is_served(g));
	double_fail(DOUBLE_XS_RM, 0, 0, 0, NULL);
	world_assert_works(g);

	/* The frontend's state cannot be read. */
	double_fail(DOUBLE_XS_READ, EIO, 0, FOREVER, "device/vbd/51712/state");
	guest_set_state(g, 4);
	assert_true(falls_quiet());
	world_assert_works(g);
	double_fail(DOUBLE_XS_READ, 0, 0, 0, NULL);
	assert_true(guest_close(g));
}

/* Nothing that anybody does afterwards is needed for it to be written. */
static void what_could_not_be_written_comes_later(void **state)
{
	struct guest *g = &world.guest;

	world_start(&plain_instance);
	double_fail(DOUBLE_XS_WRITE, ENOSPC, 0, FOREVER, "max-ring-page-order");
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712, &the_disk);
	assert_true(world_wait_error(g));
	assert_true(falls_quiet());
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "1"));
	double_fail(DOUBLE_XS_WRITE, 0, 0, 0, NULL);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	assert_true(disk_wait_key(&g->disk, g->disk.back, "sluice-error", NULL));

	/* Our states while it closes. */
	double_fail(DOUBLE_XS_WRITE, ENOSPC, 0, FOREVER, "backend/vbd/5/51712/state");
	guest_set_state(g, 5);
	assert_true(falls_quiet());
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
	double_fail(DOUBLE_XS_WRITE, 0, 0, 0, NULL);
	assert_true(disk_wait_state(&g->disk, 5));
	double_fail(DOUBLE_XS_WRITE, ENOSPC, 0, FOREVER, "backend/vbd/5/51712/state");
	guest_set_state(g, 6);
	assert_true(falls_quiet());
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "5"));
	double_fail(DOUBLE_XS_WRITE, 0, 0, 0, NULL);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));

	/* What the toolstack wrote while we could not read our state. */
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &plain));
	double_fail(DOUBLE_XS_READ, EIO, 0, FOREVER, "backend/vbd/5/51712/state");
	disk_write(&g->disk, g->disk.back, "state", "2");
	assert_true(falls_quiet());
	world_assert_works(g);
	double_fail(DOUBLE_XS_READ, 0, 0, 0, NULL);
	assert_true(disk_wait_state(&g->disk, 4));
	world_assert_works(g);
}

/* Adoption's own trouble */

static const struct bdev_ops *held_ops;
static atomic_bool device_is_shut;

static int open_if_not_shut(struct bdev *b, struct reactor *r, struct bdev_channel **out)
{
	return atomic_load(&device_is_shut) ? -ENOMEM : held_ops->channel_open(b, r, out);
}

/* Has all that must succeed for an adoption fail, or not. */
static void shut_device(bool on)
{
	atomic_store(&device_is_shut, on);
}

static void fail_map(bool on)
{
	double_fail(DOUBLE_GNTTAB_MAP, ENOMEM, 0, on ? FOREVER : 0, NULL);
}

static void fail_bind(bool on)
{
	double_fail(DOUBLE_EVTCHN_BIND, ENOSPC, 0, on ? FOREVER : 0, NULL);
}

static void fail_mark(bool on)
{
	double_fail(DOUBLE_XS_RM, EIO, 0, on ? FOREVER : 0, "sluice-clean");
}

static void fail_keys(bool on)
{
	double_fail(DOUBLE_XS_READ, EIO, 0, on ? FOREVER : 0, "device/vbd/51712/ring-ref");
}

/* The guest waits, the mark stays true, and once the trouble has passed the guest goes on. */
static void adoption_is_tried_again(void **state)
{
	static void (*const troubles[])(bool on) = {fail_map, fail_bind, fail_mark, fail_keys,
						    shut_device};
	struct guest *g = &world.guest;
	static struct bdev_ops ops;
	struct load *l;

	held_ops = held_bdev(world.disk)->ops;
	ops = *held_ops;
	ops.channel_open = open_if_not_shut;
	shut_device(false);
	held_bdev(world.disk)->ops = &ops;
	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	for (unsigned i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++) {
		assert_null(load_run(l, 100));
		world_end();
		load_fill(l);
		troubles[i](true);
		world_start(&plain_instance);
		assert_true(world_wait_error(g));
		assert_true(disk_wait_key(&g->disk, g->disk.back, "sluice-clean", "16384"));
		assert_int_equal(front_poll(g->front), 0);
		assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
		/* Now and then, it is another daemon that succeeds. */
		if (i % 2)
			world_end();
		troubles[i](false);
		if (i % 2)
			world_start(&plain_instance);
		assert_null(load_run(l, 100));
		assert_true(disk_wait_key(&g->disk, g->disk.back, "sluice-error", NULL));
		assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
	}
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
	world_end();
	held_bdev(world.disk)->ops = held_ops;
}

static sem_t opening, go_on;

static int open_late_and_fail(struct bdev *b, struct reactor *r, struct bdev_channel **out)
{
	sem_post(&opening);
	while (sem_wait(&go_on))
		;
	return -ENOMEM;
}

/* It fails when the daemon is ending already: nobody is left to try again, but the next. */
static void adoption_that_fails_while_draining_is_the_nexts(void **state)
{
	const struct timespec until_a_retry = {.tv_sec = 1, .tv_nsec = 200000000};
	struct guest *g = &world.guest;
	static struct bdev_ops ops;

	sem_init(&opening, 0, 0);
	sem_init(&go_on, 0, 0);
	held_ops = held_bdev(world.disk)->ops;
	ops = *held_ops;
	ops.channel_open = open_late_and_fail;
	world_connect();
	world_end();
	held_bdev(world.disk)->ops = &ops;
	world_start(&plain_instance);
	while (sem_wait(&opening))
		;
	instance_drain(world.daemon);
	sem_post(&go_on);
	world_end();
	held_bdev(world.disk)->ops = held_ops;
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
	nanosleep(&until_a_retry, NULL);
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
	world_start(&plain_instance);
	world_assert_works(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(what_cannot_be_served_is_quiet),
		world_test(what_fails_for_long_is_quiet),
		world_test(what_could_not_be_written_comes_later),
		world_test(adoption_is_tried_again),
		world_test(adoption_that_fails_while_draining_is_the_nexts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
