/* SPDX-License-Identifier: BSD-2-Clause */
/* Keys that make no sense, and a xenstore that gives trouble. */
#include "world.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct guest_opts plain;
static const struct disk_opts the_disk = {.target = "disk"};

/* Nonsense */

struct nonsense {
	const char *name;
	const char *key;
	const char *value; /* NULL: it is removed */
};

static const struct nonsense nonsenses[] = {
	{"no ring", "ring-ref", NULL},
	{"a ring that is no number", "ring-ref", "abc"},
	{"an empty ring", "ring-ref", ""},
	{"a negative ring", "ring-ref", "-1"},
	{"a ring in hexadecimal", "ring-ref", "0x10"},
	{"a ring with a blank", "ring-ref", " 8"},
	{"a ring with a tail", "ring-ref", "8 "},
	{"a ring beyond 32 bits", "ring-ref", "4294967304"},
	{"a ring beyond 64 bits", "ring-ref", "99999999999999999999999"},
	{"a ring that was not granted", "ring-ref", "12345"},
	{"reference 0", "ring-ref", "0"},
	{"the largest reference", "ring-ref", "4294967295"},
	{"no event channel", "event-channel", NULL},
	{"an event channel that is no number", "event-channel", "x"},
	{"an event channel that nobody has", "event-channel", "1000"},
	{"event channel 0", "event-channel", "0"},
	{"a huge event channel", "event-channel", "4294967295"},
	{"an unknown protocol", "protocol", "arm-abi"},
	{"an empty protocol", "protocol", ""},
	{"a larger ring than offered", "ring-page-order", "5"},
	{"a huge ring", "ring-page-order", "99"},
	{"a ring order that is no number", "ring-page-order", "one"},
	{"ring-ref0 is missing", "ring-page-order", "0"},
	{"no queue", "multi-queue-num-queues", "0"},
	{"more queues than offered", "multi-queue-num-queues", "5"},
	{"queues that are no number", "multi-queue-num-queues", "many"},
	{"persistence that is no number", "feature-persistent", "maybe"},
	{"persistence beyond yes", "feature-persistent", "2"},
};

/* Nothing is wrong with it: it connects, and closes, and may begin anew. */
static void assert_serves(struct guest *g)
{
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	assert_true(disk_wait_key(&g->disk, g->disk.back, "sluice-error", NULL));
	assert_true(guest_close(g));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
}

static void assert_refused_and_recovers(struct guest *g)
{
	assert_true(disk_wait_state(&g->disk, 5));
	assert_false(disk_key_is(&g->disk, g->disk.back, "sluice-error", NULL));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	assert_false(double_evtchn_is_bound(WORLD_GUEST, g->port));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	disk_rm(&g->disk, g->disk.front, "ring-page-order");
	disk_rm(&g->disk, g->disk.front, "multi-queue-num-queues");
	assert_serves(g);
}

/* Publishes good keys, in a state in which nobody looks; then spoils one. */
static void publish_spoiled(struct guest *g, const char *key, const char *value, unsigned len)
{
	char path[256];

	assert_true(disk_wait_state(&g->disk, 2));
	guest_publish(g, &(struct guest_opts){.jump_to = 1});
	snprintf(path, sizeof(path), "%s/%s", g->disk.front, key);
	if (value)
		assert_true(xs_write(g->xs, XBT_NULL, path, value, len));
	else
		assert_true(xs_rm(g->xs, XBT_NULL, path));
	guest_set_state(g, 3);
}

static void nonsense_keys_are_refused(void **state)
{
	static const char with_nul[] = {'8', 0, '8'};
	struct guest *g = &world.guest;

	world_start_with_guest();
	for (unsigned i = 0; i < sizeof(nonsenses) / sizeof(nonsenses[0]); i++) {
		const struct nonsense *n = &nonsenses[i];

		print_message("  %s\n", n->name);
		publish_spoiled(g, n->key, n->value, n->value ? (unsigned)strlen(n->value) : 0);
		assert_refused_and_recovers(g);
	}
	publish_spoiled(g, "ring-ref", with_nul, sizeof(with_nul));
	assert_refused_and_recovers(g);
	publish_spoiled(g, "protocol", with_nul, sizeof(with_nul));
	assert_refused_and_recovers(g);
}

static void bad_rings_are_refused(void **state)
{
	struct guest_page read_only, garbage;
	struct guest *g = &world.guest;
	char text[16];

	world_start_with_guest();
	read_only = guest_page_new(g, true);
	snprintf(text, sizeof(text), "%u", read_only.ref);
	publish_spoiled(g, "ring-ref", text, (unsigned)strlen(text));
	assert_refused_and_recovers(g);

	/* A page that was never made a ring: its counters cannot be true. */
	garbage = guest_page_new(g, false);
	memset(garbage.data, 0x5a, 4);
	snprintf(text, sizeof(text), "%u", garbage.ref);
	publish_spoiled(g, "ring-ref", text, (unsigned)strlen(text));
	assert_refused_and_recovers(g);

	/* An event channel that is for another domain. */
	snprintf(text, sizeof(text), "%u", double_evtchn_alloc(WORLD_GUEST, 3));
	publish_spoiled(g, "event-channel", text, (unsigned)strlen(text));
	assert_refused_and_recovers(g);
}

/* Keys that change while nobody asked for it do nothing. */
static void a_flood_of_keys_is_looked_at_in_bulk(void **state)
{
	struct guest *g = &world.guest;
	struct double_stats before, after;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	world_connect_other(&plain);
	double_get_stats(&before);
	for (unsigned i = 0; i < 5000; i++) {
		guest_write(g, "state", "4");
		guest_write_number(g, "feature-flood", i);
	}
	world_assert_works(&world.other);
	world_assert_works(g);
	double_get_stats(&after);
	assert_int_equal(after.map_calls, before.map_calls);
}

/* xenstore's troubles */

static void transactions_are_tried_again(void **state)
{
	struct double_stats stats;

	world_start(&(struct instance_opts){0});
	double_fail(DOUBLE_XS_TRANSACTION_END, EAGAIN, 0, 7, NULL);
	guest_create(&world.guest, &world.host, WORLD_GUEST, &the_disk);
	assert_true(disk_wait_state(&world.guest.disk, 2));
	double_fail(DOUBLE_XS_TRANSACTION_END, EAGAIN, 0, 5, NULL);
	assert_true(guest_connect(&world.guest, &plain));
	world_assert_works(&world.guest);
	double_get_stats(&stats);
	assert_true(stats.xs_conflicts >= 10);
}

static void full_stores_are_survived(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(disk_wait_state(&g->disk, 2));
	/* The keys of Connected cannot be written: the frontend is turned away, and may try again.
	 */
	double_fail(DOUBLE_XS_WRITE, ENOSPC, 0, 1, "sectors");
	guest_publish(g, &plain);
	assert_true(disk_wait_state(&g->disk, 5));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

/* A read that fails is no news of a guest's end. */
static void failing_reads_take_no_disk_away(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	double_fail(DOUBLE_XS_READ, EIO, 0, 1, "device/vbd/51712/state");
	guest_set_state(g, 4);
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
	world_assert_works(g);
	double_fail(DOUBLE_XS_READ, EIO, 0, 1, "backend/vbd/5/51712/state");
	guest_set_state(g, 4);
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "4"));
	world_assert_works(g);
}

/* Nor of what the frontend has chosen, or was offered: it waits, as the guest's driver does. */
static void failing_reads_turn_no_frontend_away(void **state)
{
	static const char *const keys[] = {
		"backend/vbd/5/51712/feature-persistent",
		"device/vbd/51712/multi-queue-num-queues",
		"device/vbd/51712/ring-ref",
		"device/vbd/51712/protocol",
	};
	struct guest *g = &world.guest;

	world_start_with_guest();
	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		print_message("  %s\n", keys[i]);
		assert_true(disk_wait_state(&g->disk, 2));
		double_fail(DOUBLE_XS_READ, EIO, 0, 1, keys[i]);
		assert_serves(g);
	}
}

static void mapping_fails_for_want_of_room(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	double_limit_maps(0);
	publish_spoiled(g, "feature-persistent", "0", 1);
	assert_true(disk_wait_state(&g->disk, 5));
	double_limit_maps(100);
	assert_refused_and_recovers(g);
}

/* Others' news */

/* How often sluiced reads what a disk of that domain has, or its keys, in xenstore. */
static atomic_uint reads_of_guest, reads_of_ring;

static void count_reads(void *arg, bool write, const char *path)
{
	if (write)
		return;
	if (strstr(path, "/vbd/5/") || strstr(path, "/domain/5/"))
		reads_of_guest++;
	if (strstr(path, "/ring-ref"))
		reads_of_ring++;
}

/* With many disks, each one that comes or goes would cost as many looks. */
static void others_disks_are_not_looked_at(void **state)
{
	reads_of_guest = 0;
	world_connect();
	world_settle();
	double_on_store(count_reads, NULL);
	guest_create(&world.other, &world.host, WORLD_OTHER,
		     &(struct disk_opts){.target = "none", .instance = "sluice"});
	assert_true(world_wait_error(&world.other));
	toolstack_remove_by_force(&world.other.disk);
	xs_rm(world.host.xs, XBT_NULL, "/local/domain/0/backend/vbd/6");
	world_settle();
	double_on_store(NULL, NULL);
	assert_int_equal(reads_of_guest, 0);
	assert_int_equal(world_disks(world.daemon), 1);
	world_assert_works(&world.guest);
}

/* What somebody writes to our own directory says nothing new of the frontend's keys. */
static void keys_are_read_when_their_owner_says(void **state)
{
	struct guest *g = &world.guest;

	reads_of_guest = reads_of_ring = 0;
	world_connect();
	world_settle();
	double_on_store(count_reads, NULL);
	disk_write(&g->disk, g->disk.back, "online", "1");
	world_settle();
	assert_true(reads_of_guest > 0);
	assert_int_equal(reads_of_ring, 0);
	guest_set_state(g, 4);
	world_settle();
	double_on_store(NULL, NULL);
	assert_true(reads_of_ring > 0);
	world_assert_works(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(nonsense_keys_are_refused),
		world_test(bad_rings_are_refused),
		world_test(a_flood_of_keys_is_looked_at_in_bulk),
		world_test(transactions_are_tried_again),
		world_test(full_stores_are_survived),
		world_test(failing_reads_take_no_disk_away),
		world_test(failing_reads_turn_no_frontend_away),
		world_test(mapping_fails_for_want_of_room),
		world_test(others_disks_are_not_looked_at),
		world_test(keys_are_read_when_their_owner_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
