/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The xenbus handshake with all kinds of frontends: good ones, quick ones, confused ones, and such
 * as start anew without a word.
 */
#include "world.h"

#include <stdlib.h>

static const struct guest_opts plain;
static const struct disk_opts the_disk = {.target = "disk"};

/* The normal way */

static void connects(void **state)
{
	struct disk *d = &world.guest.disk;

	world_start_with_guest();
	assert_true(disk_wait_state(d, 2));
	/* What the frontend chooses from is there before InitWait. */
	assert_true(disk_key_is(d, d->back, "max-ring-page-order", "4"));
	assert_true(disk_key_is(d, d->back, "max-ring-pages", "16"));
	assert_true(disk_key_is(d, d->back, "multi-queue-max-queues", "4"));
	assert_true(disk_key_is(d, d->back, "feature-max-indirect-segments", "256"));
	assert_true(disk_key_is(d, d->back, "feature-persistent", "0"));
	assert_true(guest_connect(&world.guest, &plain));
	assert_true(disk_key_is(d, d->back, "sectors", "16384"));
	assert_true(disk_key_is(d, d->back, "sector-size", "512"));
	assert_true(disk_key_is(d, d->back, "physical-sector-size", "4096"));
	assert_true(disk_key_is(d, d->back, "feature-flush-cache", "1"));
	world_assert_history(d, "1 2 4");
	world_assert_works(&world.guest);
}

static void devices_that_were_there_first(void **state)
{
	double_domain_create(WORLD_GUEST, "early");
	toolstack_add(&world.host, WORLD_GUEST, 51712, &the_disk, &world.guest.disk);
	toolstack_remove_by_force(&world.guest.disk);
	double_domain_destroy(WORLD_GUEST);
	/* Now one that is there when we come. */
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(&world.guest, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	world_start(&(struct instance_opts){0});
	assert_true(guest_connect(&world.guest, &plain));
	world_assert_works(&world.guest);
}

/* libxl waits for InitWait before it runs the script; and only after that may guests connect. */
static void the_script_opens_the_gate(void **state)
{
	struct guest *g = &world.guest;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	disk_write(&g->disk, g->disk.back, "script", "/etc/xen/scripts/block-sluice");
	assert_true(disk_wait_state(&g->disk, 2));
	guest_publish(g, &plain);
	for (int i = 0; i < 50; i++)
		host_nap();
	world_assert_history(&g->disk, "1 2");
	assert_true(toolstack_script(&g->disk));
	assert_true(disk_wait_state(&g->disk, 4));
	guest_read_disk(g);
	world_assert_works(g);
}

static void frontends_that_jump_to_connected(void **state)
{
	world_start_with_guest();
	assert_true(guest_connect(&world.guest, &(struct guest_opts){.jump_to = 4}));
	world_assert_works(&world.guest);
}

/* One kernel after another: GRUB hands over to Linux, Linux to the next by kexec. */
static void reconnects_after_closed(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	for (int i = 0; i < 20; i++) {
		assert_true(guest_connect(
			g, &(struct guest_opts){.layout = i % 2 ? &blkif_layout_x86_32
								: &blkif_layout_x86_64}));
		world_assert_works(g);
		assert_true(guest_close(g));
		assert_true(guest_free_front(g));
		guest_set_state(g, 1);
	}
	assert_true(disk_wait_state(&g->disk, 2));
}

/* A new kernel that does not know of the old one's ring. */
static void starting_anew_without_closing(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	guest_set_state(g, 1);
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(guest_free_front(g));
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	world_assert_history(&g->disk, "1 2 4 2 4");
}

/* A frontend that closes while requests are out gets them answered. */
static void closing_waits_for_requests(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	l = world_fill_ring();
	guest_set_state(g, 5);
	assert_true(disk_wait_state(&g->disk, 5));
	guest_set_state(g, 6);
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "5"));
	assert_true(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	held_release(world.disk, false);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_null(load_finish(l));
	load_destroy(l);
	assert_true(guest_free_front(g));
}

/* A frontend in Closing may still send requests: a disk in use stays so as long as it likes. */
static void closing_frontends_are_served(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	toolstack_ask(&g->disk);
	assert_true(disk_wait_state(&g->disk, 5));
	world_assert_works(g);
	guest_set_state(g, 5);
	world_assert_works(g);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

/* States that do not exist are no states, and nothing happens. */
static void nonsense_states_do_nothing(void **state)
{
	static const char *const values[] = {"", "abc", "-1", "9", "99", "7", "8", "4294967300"};
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		guest_write(g, "state", values[i]);
		for (int n = 0; n < 20; n++)
			host_nap();
		world_assert_works(g);
		guest_set_state(g, 4);
		world_assert_works(g);
	}
	world_assert_history(&g->disk, "1 2 4");
	assert_true(guest_close(g));
}

/* A guest that changes its state as fast as it can, and then behaves. */
static void quick_changes_of_state(void **state)
{
	static const unsigned states[] = {1, 3, 4, 5, 6, 2};
	struct guest *g = &world.guest;
	unsigned short random[3] = {7};
	uint64_t start;

	world_start_with_guest();
	world_connect_other(&plain);
	assert_true(disk_wait_state(&g->disk, 2));
	guest_publish(g, &(struct guest_opts){.jump_to = 1});
	for (unsigned i = 0; i < 3000; i++) {
		guest_set_state(g, states[(uint32_t)jrand48(random) % 6]);
		if (i % 100 == 0)
			host_nap();
		if (i % 500 == 0)
			world_assert_works(&world.other);
	}
	/* Wherever that has led: Closed is answered by Closed, and then it begins again. */
	guest_set_state(g, 6);
	start = host_now_ms();
	while (double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0])) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
	}
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

/* Somebody writes our state: the toolstack's Closing is obeyed, all else is set right. */
static void our_state_is_ours(void **state)
{
	static const char *const values[] = {"1", "2", "3", "7", "8", "0"};
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		disk_write(&g->disk, g->disk.back, "state", values[i]);
		assert_true(disk_wait_state(&g->disk, 4));
		world_assert_works(g);
	}
	/* No state at all: the guest does not notice. */
	disk_write(&g->disk, g->disk.back, "state", "nonsense");
	for (int i = 0; i < 50; i++)
		host_nap();
	world_assert_works(g);
	disk_write(&g->disk, g->disk.back, "state", "4");
	world_assert_works(g);
	assert_true(guest_close(g));
}

/* States that are none */

static void states_that_are_none_change_nothing(void **state)
{
	static const char *const values[] = {"",  "x",  "-1", "4x",         " 4",
					     "9", "99", "4 ", "4294967300", "0x4"};
	struct guest *g = &world.guest;
	char *history;

	world_start_with_guest();
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		/* Before it is connected, */
		assert_true(disk_wait_state(&g->disk, 2));
		guest_write(g, "state", values[i]);
		world_settle();
		assert_true(disk_key_is(&g->disk, g->disk.back, "state", "2"));
		assert_true(guest_connect(g, &plain));
		/* while it is, */
		guest_write(g, "state", values[i]);
		world_settle();
		assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
		world_assert_works(g);
		guest_set_state(g, 4);
		world_assert_works(g);
		/* and while it closes. */
		guest_set_state(g, 5);
		assert_true(disk_wait_state(&g->disk, 5));
		guest_write(g, "state", values[i]);
		world_settle();
		assert_true(disk_key_is(&g->disk, g->disk.back, "state", "5"));
		world_assert_works(g);
		guest_set_state(g, 6);
		assert_true(disk_wait_state(&g->disk, 6));
		assert_true(guest_free_front(g));
		guest_set_state(g, 1);
	}
	assert_true(disk_wait_state(&g->disk, 2));
	history = disk_history(&g->disk);
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		assert_memory_equal(history + 2 + 8 * i, "2 4 5 6 ", 8);
	assert_string_equal(history + 2 + 8 * sizeof(values) / sizeof(values[0]), "2");
	free(history);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(connects),
		world_test(devices_that_were_there_first),
		world_test(the_script_opens_the_gate),
		world_test(frontends_that_jump_to_connected),
		world_test(reconnects_after_closed),
		world_test(starting_anew_without_closing),
		world_tests(closing_waits_for_requests),
		world_test(closing_frontends_are_served),
		world_test(nonsense_states_do_nothing),
		world_test(quick_changes_of_state),
		world_test(our_state_is_ours),
		world_test(states_that_are_none_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
