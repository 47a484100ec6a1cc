/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A daemon ends and another follows, under guests that run on: no request is lost and none is
 * answered twice (src/front notices), or the successor refuses and says so.
 */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"

static const struct guest_opts plain;
static const struct instance_opts plain_instance;

/* Adoption */

static void an_idle_guest_does_not_notice(void **state)
{
	struct guest *g = &world.guest;
	char *history;

	world_connect();
	world_assert_works(g);
	for (int i = 0; i < 5; i++) {
		world_end();
		assert_false(world_is_served(g));
		assert_false(double_evtchn_is_bound(WORLD_GUEST, g->port));
		assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
		assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
		world_start(&plain_instance);
		world_assert_works(g);
		/* The mark has served its purpose, and must not be there when we crash. */
		assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
	}
	/* It was Connected all the time. */
	history = disk_history(&g->disk);
	assert_true(!strncmp(history, "1 2 4", 5));
	assert_int_equal(strspn(history + 4, "4 "), strlen(history + 4));
	free(history);
}

/* What is in flight is answered by who took it; what comes later waits for the next. */
static void run_restarts(const struct guest_opts *opts)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_start(&plain_instance);
	guest_create(g, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(g, opts));
	l = load_create(g, &(struct load_opts){.max_segments = 32, .flushes = true});
	for (int i = 0; i < 10; i++) {
		unsigned depth = front_depth(g->front);
		unsigned answered;

		assert_null(load_run(l, 200));
		/* A full ring of requests at the device. */
		held_hold(world.disk);
		load_fill(l);
		assert_true(held_wait(world.disk, depth));
		answered = load_answered(l);
		instance_drain(world.daemon);
		world_settle();
		assert_false(instance_is_drained(world.daemon));
		held_release(world.disk, true);
		/* The guest goes on: nobody takes these, or the draining daemon just before. */
		while (load_answered(l) - answered < depth)
			assert_null(load_step(l));
		world_end();
		/* What the drained one still answered. */
		assert_true(front_poll(g->front) >= 0);
		load_fill(l);
		assert_true(front_outstanding(g->front) == depth);
		world_settle();
		assert_int_equal(front_poll(g->front), 0);
		world_start(&plain_instance);
		assert_null(load_finish(l));
	}
	assert_null(load_run(l, 500));
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
}

static void a_busy_guest_loses_nothing_x86_64(void **state)
{
	run_restarts(&plain);
}

static void a_busy_guest_loses_nothing_x86_32(void **state)
{
	run_restarts(&(struct guest_opts){.layout = &blkif_layout_x86_32});
}

/* Where the ring's counters are about to wrap. */
static void a_busy_guest_loses_nothing_at_the_wrap(void **state)
{
	run_restarts(&(struct guest_opts){.first_index = UINT32_MAX - 1000});
}

/* At any moment, not only at those that a test chooses well. */
static void restarts_at_any_moment(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_start(&(struct instance_opts){.reactors = 2, .spin_max_ns = 20000});
	guest_create(g, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(g, &plain));
	l = load_create(g, &(struct load_opts){.max_segments = 11});
	for (unsigned i = 0; i < 30; i++) {
		for (unsigned n = 0; n < i % 7; n++)
			assert_null(load_step(l));
		load_fill(l);
		world_end();
		load_fill(l);
		world_start(&(struct instance_opts){.reactors = 2, .spin_max_ns = 20000});
		load_fill(l);
	}
	assert_null(load_run(l, 500));
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
}

static void several_guests(void **state)
{
	struct load *l, *other_load;
	struct held *other_disk;

	world_connect();
	other_disk = world_connect_other(&(struct guest_opts){.layout = &blkif_layout_x86_32});
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 32});
	other_load = load_create(&world.other, &(struct load_opts){.max_segments = 11});
	for (int i = 0; i < 5; i++) {
		load_fill(l);
		load_fill(other_load);
		world_end();
		world_start(&(struct instance_opts){.reactors = 2});
		assert_null(load_run(l, 100));
		assert_null(load_run(other_load, 100));
	}
	assert_null(load_compare(l, held_data(world.disk)));
	assert_null(load_compare(other_load, held_data(other_disk)));
	load_destroy(l);
	load_destroy(other_load);
}

/* Refusal */

static void assert_refused(struct guest *g)
{
	unsigned writes = held_count(world.disk, BDEV_WRITE);
	struct load *l;

	assert_true(world_wait_disks(world.daemon, 1));
	l = load_create(g, &(struct load_opts){.max_segments = 1});
	load_fill(l);
	world_settle();
	assert_false(world_is_served(g));
	assert_int_equal(front_poll(g->front), 0);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), writes);
	assert_false(disk_key_is(&g->disk, g->disk.back, "sluice-error", NULL));
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
	load_destroy(l);
}

/* As after a crash: nobody knows what was in flight. */
static void without_the_mark_it_is_refused(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	disk_rm(&g->disk, g->disk.back, "sluice-clean");
	world_start(&plain_instance);
	assert_refused(g);

	/* And so by the next one, who finds no mark of this one either. */
	world_end();
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
	world_start(&plain_instance);
	assert_refused(g);

	/* A guest that starts anew has nothing in flight: it is served. */
	guest_set_state(g, 1);
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(guest_free_front(g));
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

static void a_refused_disk_can_be_detached(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	disk_rm(&g->disk, g->disk.back, "sluice-clean");
	world_start(&plain_instance);
	assert_refused(g);
	toolstack_ask(&g->disk);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	toolstack_remove_by_force(&g->disk);
	assert_true(world_wait_disks(world.daemon, 0));
}

static void a_mark_for_another_size_is_refused(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	disk_write(&g->disk, g->disk.back, "sluice-clean", "16385");
	world_start(&plain_instance);
	assert_refused(g);
}

static void nonsense_marks_are_refused(void **state)
{
	static const char *const marks[] = {"", "yes", "-1", "16384 ", "99999999999999999999999"};
	struct guest *g = &world.guest;

	world_connect();
	for (unsigned i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		world_end();
		disk_write(&g->disk, g->disk.back, "sluice-clean", marks[i]);
		world_start(&plain_instance);
		assert_refused(g);
	}
}

/* The mark has to be gone before anything is served; if it cannot be removed, nothing is. */
static void a_mark_that_stays_is_refused(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	double_fail(DOUBLE_XS_RM, EIO, 0, 1000, "sluice-clean");
	world_start(&plain_instance);
	assert_refused(g);
}

static void memory_that_ends_with_the_daemon_is_not_marked(void **state)
{
	struct guest *g = &world.guest;

	held_bdev(world.disk)->limits.volatile_data = true;
	world_connect();
	world_end();
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
	world_start(&plain_instance);
	assert_refused(g);
}

/* The bdev is not there yet when the guest is found. */
static void delete_disk(void *arg)
{
	struct err err;

	if (bdev_delete("disk", &err))
		abort();
}

static void create_disk(void *arg)
{
	world.disk = held_create("disk", WORLD_DISK_BYTES);
}

static void the_bdev_comes_later(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_connect();
	world_end();
	host_run(&world.host, delete_disk, NULL);
	world_start(&plain_instance);
	assert_true(world_wait_disks(world.daemon, 1));
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	load_fill(l);
	world_settle();
	assert_false(world_is_served(g));
	/* The mark is still true, also for the next one. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
	world_end();
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", "16384"));
	world_start(&plain_instance);
	host_run(&world.host, create_disk, NULL);
	assert_null(load_run(l, 100));
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
}

/* What happened while nobody was there */

static void the_guest_closed_meanwhile(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	guest_set_state(g, 5);
	guest_set_state(g, 6);
	world_start(&plain_instance);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

static void the_guest_rebooted_meanwhile(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	guest_set_state(g, 1);
	world_start(&plain_instance);
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(guest_free_front(g));
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

static void the_guest_resumed_meanwhile(void **state)
{
	struct guest *g = &world.guest;
	struct front *old;

	world_connect();
	old = g->front;
	world_end();
	guest_publish(g, &plain);
	world_start(&plain_instance);
	world_assert_works(g);
	front_destroy(old);
}

static void the_disk_was_detached_meanwhile(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	toolstack_ask(&g->disk);
	world_start(&plain_instance);
	world_settle();
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	toolstack_remove_by_force(&g->disk);
	assert_true(world_wait_disks(world.daemon, 0));
}

/* Asked to let go while nobody was there, but the guest has it in use and does not. */
static void asked_meanwhile_and_still_in_use(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	world_end();
	load_fill(l);
	toolstack_ask(&g->disk);
	world_start(&plain_instance);
	assert_true(world_wait_served(g));
	assert_null(load_run(l, 100));
	load_destroy(l);
	/* Served, and still asked to close. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "5"));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

static void the_disk_was_removed_meanwhile(void **state)
{
	world_connect();
	world_end();
	toolstack_remove_by_force(&world.guest.disk);
	world_start(&plain_instance);
	world_settle();
	assert_int_equal(world_disks(world.daemon), 0);
}

static void the_domain_ended_meanwhile(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_end();
	guest_kill(g);
	world_start(&plain_instance);
	/* Without a toolstack, nobody else removes it. */
	assert_true(disk_wait_state(&g->disk, 0));
	assert_true(world_wait_disks(world.daemon, 0));
}

/* Draining at awkward moments */

static void drained_while_connecting(void **state)
{
	struct guest *g = &world.guest;

	world_start(&plain_instance);
	guest_create(g, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(disk_wait_state(&g->disk, 2));
	world_block(world.daemon);
	guest_publish(g, &plain);
	assert_true(world_wait_served(g));
	instance_drain(world.daemon);
	world_unblock();
	world_end();
	world_start(&plain_instance);
	assert_true(disk_wait_state(&g->disk, 4));
	guest_read_disk(g);
	world_assert_works(g);
}

static void drained_while_disconnecting(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	world_block(world.daemon);
	guest_set_state(g, 6);
	world_settle();
	instance_drain(world.daemon);
	world_unblock();
	world_end();
	world_start(&plain_instance);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

/* Asked to let go of a disk that is in use: it stays Closing for as long as the guest likes. */
static void drained_while_closing_a_disk_in_use(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	toolstack_ask(&g->disk);
	assert_null(load_run(l, 100));
	world_end();
	load_fill(l);
	world_start(&plain_instance);
	assert_true(world_wait_served(g));
	assert_null(load_run(l, 100));
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

/* The last answer ends the draining, not the first; and nothing new is taken meanwhile. */
static void drained_one_by_one(void **state)
{
	struct guest *g = &world.guest;
	struct load *l, *more;

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 1, .depth = 8});
	more = load_create(g, &(struct load_opts){.max_segments = 1, .depth = 8});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, 8));
	instance_drain(world.daemon);
	world_settle();
	load_fill(more);
	for (unsigned i = 1; i < 8; i++) {
		double_evtchn_notify(WORLD_GUEST, g->port);
		held_release_some(world.disk, 1);
		world_settle();
		assert_int_equal(front_poll(g->front), 1);
		assert_false(instance_is_drained(world.daemon));
		assert_true(world_is_served(g));
	}
	held_release_some(world.disk, 1);
	world_end();
	assert_int_equal(load_answered(l) + (unsigned)front_poll(g->front), 8);
	assert_int_equal(held_count(world.disk, BDEV_READ) + held_count(world.disk, BDEV_WRITE), 8);
	held_release(world.disk, false);
	world_start(&plain_instance);
	assert_null(load_finish(more));
	load_destroy(l);
	load_destroy(more);
}

/* A guest that broke its ring has no claim to be adopted. */
static void a_broken_ring_is_not_marked(void **state)
{
	struct guest *g = &world.guest;

	world_connect();
	atomic_store(&front_sring(g->front)->req_prod, 1000);
	double_evtchn_notify(WORLD_GUEST, g->port);
	assert_true(disk_wait_state(&g->disk, 5));
	world_end();
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
	world_start(&plain_instance);
	world_settle();
	assert_false(world_is_served(g));
	/* It has no mark because it was disconnected; nothing is wrong with that. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-error", NULL));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

/* Nor has one whose requests are still out when we end. */
static void a_broken_ring_with_requests_is_not_marked(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_connect();
	l = load_create(g, &(struct load_opts){.max_segments = 1, .depth = 4});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, 4));
	atomic_store(&front_sring(g->front)->req_prod, 1000);
	double_evtchn_notify(WORLD_GUEST, g->port);
	assert_true(disk_wait_key(&g->disk, g->disk.back, "sluice-error",
				  "the frontend broke its ring: disconnected"));
	instance_drain(world.daemon);
	held_release(world.disk, false);
	world_end();
	assert_int_equal(atomic_load(&front_sring(g->front)->rsp_prod), 4);
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-clean", NULL));
	load_destroy(l);
}

/* Disks that never got as far as a ring. */
static void drained_before_anything(void **state)
{
	world_start(&plain_instance);
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(disk_wait_state(&world.guest.disk, 2));
	world_end();
	assert_true(disk_key_is(&world.guest.disk, world.guest.disk.back, "sluice-clean", NULL));
	world_start(&plain_instance);
	assert_true(guest_connect(&world.guest, &plain));
	world_assert_works(&world.guest);
}

/* The beginning may fail, too: then nothing is left. */
static void starting_fails_cleanly(void **state)
{
	static const enum double_call calls[] = {DOUBLE_XS_OPEN, DOUBLE_EVTCHN_OPEN,
						 DOUBLE_GNTTAB_OPEN};
	struct instance *i;
	struct err err;

	for (unsigned n = 0; n < sizeof(calls) / sizeof(calls[0]); n++) {
		for (unsigned skip = 0; skip < 2; skip++) {
			/* The second of two reactors is where unwinding goes wrong. */
			if (calls[n] == DOUBLE_XS_OPEN && skip)
				continue;
			double_fail(calls[n], EACCES, skip, 1, NULL);
			assert_int_equal(instance_start(&world.host,
							&(struct instance_opts){.reactors = 2}, &i,
							&err),
					 -EACCES);
			assert_true(strlen(err.text) > 0);
			assert_null(strchr(err.text, '\n'));
		}
	}
	world_connect();
	world_assert_works(&world.guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(an_idle_guest_does_not_notice),
		world_tests(a_busy_guest_loses_nothing_x86_64),
		world_tests(a_busy_guest_loses_nothing_x86_32),
		world_test(a_busy_guest_loses_nothing_at_the_wrap),
		world_tests(restarts_at_any_moment),
		world_test(several_guests),
		world_test(without_the_mark_it_is_refused),
		world_test(a_refused_disk_can_be_detached),
		world_test(a_mark_for_another_size_is_refused),
		world_test(nonsense_marks_are_refused),
		world_test(a_mark_that_stays_is_refused),
		world_test(memory_that_ends_with_the_daemon_is_not_marked),
		world_test(the_bdev_comes_later),
		world_test(the_guest_closed_meanwhile),
		world_test(the_guest_rebooted_meanwhile),
		world_test(the_guest_resumed_meanwhile),
		world_test(the_disk_was_detached_meanwhile),
		world_test(asked_meanwhile_and_still_in_use),
		world_test(the_disk_was_removed_meanwhile),
		world_test(the_domain_ended_meanwhile),
		world_test(drained_while_connecting),
		world_test(drained_while_disconnecting),
		world_test(drained_while_closing_a_disk_in_use),
		world_test(drained_one_by_one),
		world_test(a_broken_ring_is_not_marked),
		world_test(a_broken_ring_with_requests_is_not_marked),
		world_test(drained_before_anything),
		world_test(starting_fails_cleanly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
