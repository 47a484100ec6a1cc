/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk that moves from one domain to the next of the same machine, as migration does it on one
 * host: for a while the toolstack has both, and the bdev goes from one to the other and to nobody
 * else.
 */
#include "admin.h"
#include "trial.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STRANGER = 7 };

static const struct disk_opts the_disk = {.target = "disk"};
static const struct guest_opts plain;

static void set_vm(unsigned domid, const char *vm)
{
	char path[64];

	snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	assert_true(xs_write(world.host.xs, XBT_NULL, path, vm, (unsigned)strlen(vm)));
}

static void a_disk_moves_to_its_machines_next_domain(void **state)
{
	char *sharing;

	world_connect();
	sharing = strdup(json_string_value(admin_listed("sharing")));
	set_vm(WORLD_GUEST, "/vm/1234");
	world_assert_works(&world.guest);
	/* The new domain's disk is there before the old one's has gone: the script must not fail.
	 */
	double_domain_create(WORLD_OTHER, "incoming");
	set_vm(WORLD_OTHER, "/vm/1234");
	guest_add_disk(&world.other, &world.host, WORLD_OTHER, ADMIN_DEVID, &the_disk);
	assert_true(disk_wait_state(&world.other.disk, 2));
	guest_publish(&world.other, &plain);
	world_settle();
	/* As long as the old one can write, the new one cannot. */
	assert_true(disk_key_is(&world.other.disk, world.other.disk.back, "state", "2"));
	world_assert_works(&world.guest);
	guest_kill(&world.guest);
	toolstack_remove_by_force(&world.guest.disk);
	assert_true(disk_wait_state(&world.other.disk, 4));
	guest_read_disk(&world.other);
	world_assert_works(&world.other);
	/* What it was offered while it waited for the bdev is what it has. */
	assert_string_equal(json_string_value(admin_listed_of(WORLD_OTHER, "sharing")), sharing);
	free(sharing);
}

static void a_disk_does_not_move_to_a_stranger(void **state)
{
	struct disk disk;

	world_connect();
	set_vm(WORLD_GUEST, "/vm/1234");
	double_domain_create(WORLD_OTHER, "stranger");
	set_vm(WORLD_OTHER, "/vm/1235");
	toolstack_add(&world.host, WORLD_OTHER, ADMIN_DEVID, &the_disk, &disk);
	assert_false(toolstack_script(&disk));
	world_assert_works(&world.guest);
}

/* The new domain with its disk, whose script has run, beside the old one's, connected. */
static void begin_move(void)
{
	set_vm(WORLD_GUEST, "/vm/1234");
	double_domain_create(WORLD_OTHER, "incoming");
	set_vm(WORLD_OTHER, "/vm/1234");
	guest_add_disk(&world.other, &world.host, WORLD_OTHER, ADMIN_DEVID, &the_disk);
	assert_true(disk_wait_state(&world.other.disk, 2));
}

static bool other_is(const char *key, const char *value)
{
	return disk_key_is(&world.other.disk, world.other.disk.back, key, value);
}

/* The toolstack forgets the old domain while our last requests for it are still under way. */
static void the_old_domain_may_be_gone_before_its_requests(void **state)
{
	struct trial t;

	world_connect();
	begin_move();
	held_hold(world.disk);
	trial_init(&t, BLKIF_WRITE, 1, 0);
	trial_send(&t);
	assert_true(held_wait(world.disk, 1));
	guest_publish(&world.other, &plain);
	guest_kill(&world.guest);
	toolstack_remove_by_force(&world.guest.disk);
	world_settle();
	/* Whatever makes it look again. */
	disk_write(&world.other.disk, world.other.disk.back, "any", "1");
	world_settle();
	assert_true(other_is("sluice-status", "ready"));
	assert_true(other_is("sluice-error", NULL));
	assert_true(other_is("state", "2"));
	held_release(world.disk, false);
	assert_true(disk_wait_state(&world.other.disk, 4));
	guest_read_disk(&world.other);
	world_assert_works(&world.other);
}

static void who_waits_for_its_former_self_is_listed(void **state)
{
	const char *waiting;

	world_connect();
	begin_move();
	waiting = json_string_value(admin_listed_of(WORLD_OTHER, "waiting"));
	assert_non_null(waiting);
	assert_non_null(strstr(waiting, "bdev disk"));
	assert_true(guest_close(&world.guest));
	assert_true(guest_free_front(&world.guest));
	assert_true(toolstack_remove(&world.guest.disk, HOST_WAIT_MS));
	assert_true(guest_connect(&world.other, &plain));
	assert_true(json_is_null(admin_listed_of(WORLD_OTHER, "waiting")));
}

/* Another machine's disk, which has to wait for the bdev. */
static void add_third(struct guest *third)
{
	double_domain_create(STRANGER, "third");
	guest_add_disk(third, &world.host, STRANGER, ADMIN_DEVID,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	assert_true(disk_wait_state(&third->disk, 2));
}

static void end_third(struct guest *third)
{
	assert_true(guest_close(third));
	assert_true(guest_free_front(third));
	guest_destroy(third);
}

/* A third was there first, and had to be refused: the heir's guest runs already. */
static void a_bdev_goes_to_its_heir_before_a_third(void **state)
{
	struct guest third;

	world_connect();
	add_third(&third);
	begin_move();
	assert_true(guest_close(&world.guest));
	assert_true(guest_free_front(&world.guest));
	assert_true(toolstack_remove(&world.guest.disk, HOST_WAIT_MS));
	assert_true(guest_connect(&world.other, &plain));
	world_assert_works(&world.other);
	assert_false(disk_key_is(&third.disk, third.disk.back, "sluice-status", "ready"));
	/* Then it is free for all. */
	assert_true(guest_close(&world.other));
	assert_true(guest_free_front(&world.other));
	assert_true(toolstack_remove(&world.other.disk, HOST_WAIT_MS));
	assert_true(guest_connect(&third, &plain));
	world_assert_works(&third);
	end_third(&third);
}

/* A daemon that starts in the midst of a move finds the new domain first, and the old one at work.
 */
static void who_runs_claims_first(void **state)
{
	double_domain_create(WORLD_OTHER, "incoming");
	toolstack_add(&world.host, WORLD_OTHER, ADMIN_DEVID, &(struct disk_opts){.target = "none"},
		      &world.other.disk);
	world_connect();
	set_vm(WORLD_GUEST, "/vm/1234");
	set_vm(WORLD_OTHER, "/vm/1234");
	instance_end(world.daemon);
	disk_write(&world.other.disk, world.other.disk.back, "params", "disk");
	world_start(&(struct instance_opts){0});
	assert_true(world_wait_served(&world.guest));
	world_assert_works(&world.guest);
	assert_true(
		disk_wait_key(&world.other.disk, world.other.disk.back, "sluice-status", "ready"));
	assert_true(disk_wait_state(&world.other.disk, 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(a_disk_moves_to_its_machines_next_domain),
		world_test_in(a_disk_moves_to_its_machines_next_domain, &guest_auto_persistent,
			      ", auto persistent"),
		world_test(a_disk_does_not_move_to_a_stranger),
		world_tests(the_old_domain_may_be_gone_before_its_requests),
		world_test(who_waits_for_its_former_self_is_listed),
		world_test(a_bdev_goes_to_its_heir_before_a_third),
		world_test(who_runs_claims_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
