/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frontends that resume: with a new ring or a new event channel, without waiting for us, while the
 * old ring's requests are under way.
 */
#include "world.h"

static const struct guest_opts plain;

/* What blkfront does after a migration or a suspend: new keys at once, and its I/O again. */
static void resuming_with_new_keys(void **state)
{
	struct guest *g = &world.guest;
	struct front *old;
	uint32_t old_port;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	old = g->front;
	old_port = g->port;
	guest_publish(g, &plain);
	assert_int_equal(front_rw_sync(g->front, BLKIF_READ, 0, (unsigned char[512]){0}, 512), 0);
	world_assert_works(g);
	assert_true(disk_wait_state(&g->disk, 4));
	front_destroy(old);
	double_evtchn_close(WORLD_GUEST, old_port);
	guest_set_state(g, 4);
	world_assert_works(g);

	/* Nothing forbids to keep the event channel. */
	old = g->front;
	guest_publish(g, &(struct guest_opts){.keep_port = true});
	world_assert_works(g);
	front_destroy(old);
}

/* The same while requests of the old ring are in flight: they are answered there first. */
static void resuming_under_load(void **state)
{
	struct guest *g = &world.guest;
	struct front *old;
	struct load *l;

	l = world_fill_ring();
	old = g->front;
	guest_publish(g, &plain);
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(old)[0]));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	held_release(world.disk, false);
	world_assert_works(g);
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(old)[0]));
	assert_int_equal(front_poll(old), front_depth(old));
	load_destroy(l);
	front_destroy(old);
}

/* It may be Connected again, with another ring, before we look: no state tells, only its keys. */
static void resumed_before_we_looked(void **state)
{
	struct guest *g = &world.guest;
	struct front *old;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	for (int i = 0; i < 5; i++) {
		world_assert_works(g);
		old = g->front;
		world_block_control();
		guest_publish(g, &plain);
		guest_set_state(g, 4);
		world_unblock();
		world_assert_works(g);
		assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(old)[0]));
		front_destroy(old);
	}
}

/* It finds us Connected, as we are until the old ring's requests are answered, and does not wait.
 */
static void resumed_and_connected_while_the_old_ring_drains(void **state)
{
	struct guest *g = &world.guest;
	struct front *old;
	struct load *l;

	l = world_fill_ring();
	old = g->front;
	guest_publish(g, &plain);
	world_settle();
	guest_set_state(g, 4);
	world_settle();
	assert_false(world_is_served(g));
	held_release(world.disk, false);
	world_assert_works(g);
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(old)[0]));
	assert_int_equal(front_poll(old), front_depth(old));
	load_destroy(l);
	front_destroy(old);
}

/* Only the event channel is new. */
static void resumed_with_the_same_ring(void **state)
{
	struct guest *g = &world.guest;
	uint32_t old_port;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	old_port = g->port;
	g->port = double_evtchn_alloc(WORLD_GUEST, 0);
	guest_write_number(g, "event-channel", g->port);
	guest_set_state(g, 4);
	world_assert_works(g);
	assert_false(double_evtchn_is_bound(WORLD_GUEST, old_port));
	double_evtchn_close(WORLD_GUEST, old_port);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(resuming_with_new_keys),
		world_tests(resuming_under_load),
		world_test(resumed_before_we_looked),
		world_test(resumed_and_connected_while_the_old_ring_drains),
		world_test(resumed_with_the_same_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
