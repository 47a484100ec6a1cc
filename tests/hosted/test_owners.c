/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose a device is: ours, another instance's, the kernel's; and who may have a bdev. */
#include "world.h"

static const struct guest_opts plain;
static const struct disk_opts the_disk = {.target = "disk"};

/* The kernel's backend */

static void taken_from_the_kernels_backend(void **state)
{
	struct guest *g = &world.guest;

	world_kernel_takes("vbd-5-51712");
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	/* Its offer is not ours. */
	disk_write(&g->disk, g->disk.back, "max-ring-page-order", "3");
	disk_write(&g->disk, g->disk.back, "multi-queue-max-queues", "8");
	disk_write(&g->disk, g->disk.back, "state", "2");
	world_start(&(struct instance_opts){0});
	world_kernel_lets_go("vbd-5-51712");
	assert_true(disk_wait_key(&g->disk, g->disk.back, "max-ring-page-order", "4"));
	assert_true(disk_key_is(&g->disk, g->disk.back, "multi-queue-max-queues", "4"));
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

/* The driver is there, but has not taken the device yet: we come after it. */
static void waits_for_the_kernels_backend(void **state)
{
	struct guest *g = &world.guest;

	host_write_file(&world.host, "/sys/bus/xen-backend/drivers/vbd/unbind", "");
	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	for (int i = 0; i < 100; i++)
		host_nap();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "1"));
	world_kernel_takes("vbd-5-51712");
	disk_write(&g->disk, g->disk.back, "max-ring-page-order", "3");
	disk_write(&g->disk, g->disk.back, "state", "2");
	world_kernel_lets_go("vbd-5-51712");
	assert_true(disk_wait_key(&g->disk, g->disk.back, "max-ring-page-order", "4"));
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

/* Whose device it is */

static void others_devices_are_left_alone(void **state)
{
	static const struct disk_opts foreign = {.target = "disk", .instance = "another"};
	struct disk script, params;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(&world.guest, &world.host, WORLD_GUEST, 51712, &foreign);
	toolstack_add(&world.host, WORLD_GUEST, 51728,
		      &(struct disk_opts){.target = "disk", .script = "block"}, &script);
	toolstack_add(&world.host, WORLD_GUEST, 51744,
		      &(struct disk_opts){.target = "disk@another"}, &params);
	/* One of ours, behind them: when it is answered, they have been looked at. */
	guest_add_disk(&world.other, &world.host, WORLD_GUEST, 51760, &the_disk);
	assert_true(guest_connect(&world.other, &plain));
	world_assert_history(&world.guest.disk, "1");
	world_assert_history(&script, "1");
	world_assert_history(&params, "1");
	assert_int_equal(world_disks(world.daemon), 1);
}

static void two_instances_serve_each_its_own(void **state)
{
	struct instance *second;
	struct err err;

	world_start(&(struct instance_opts){0});
	assert_int_equal(instance_start(&world.host, &(struct instance_opts){.name = "second"},
					&second, &err),
			 0);
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk,shared"});
	guest_create(&world.other, &world.host, WORLD_OTHER,
		     &(struct disk_opts){.target = "disk@second,shared"});
	assert_true(guest_connect(&world.guest, &plain));
	assert_true(guest_connect(&world.other, &plain));
	assert_int_equal(world_disks(world.daemon), 1);
	assert_int_equal(world_disks(second), 1);
	world_assert_works(&world.guest);
	world_assert_works(&world.other);
	/* One ends; the other's guest does not notice. */
	instance_end(second);
	world_assert_works(&world.guest);
}

static void other_kinds(void **state)
{
	world_start(&(struct instance_opts){.kinds = {"vbd", "vbd3"}});
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk", .kind = "vbd3", .instance = "sluice"});
	assert_true(guest_connect(&world.guest, &plain));
	world_assert_works(&world.guest);
}

/* Which bdev it is */

static void create_late(void *arg)
{
	held_create("late", 1 << 20);
}

static void bdevs_may_come_late(void **state)
{
	struct disk *d = &world.guest.disk;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	guest_add_disk(&world.guest, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "late", .instance = "sluice"});
	assert_true(disk_wait_key(d, d->back, "sluice-status",
				  "error: no bdev named late: make it with 'sluice bdev create'"));
	assert_true(disk_wait_state(d, 2));
	guest_publish(&world.guest, &plain);
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(disk_key_is(d, d->back, "state", "2"));
	host_run(&world.host, create_late, NULL);
	assert_true(disk_wait_state(d, 4));
	guest_read_disk(&world.guest);
	assert_int_equal(world.guest.sectors, 2048);
	world_assert_works(&world.guest);
	assert_true(disk_key_is(d, d->back, "sluice-status", "ready"));
}

static void one_writer_unless_shared(void **state)
{
	struct disk refused;

	world_start_with_guest();
	assert_true(guest_connect(&world.guest, &plain));
	double_domain_create(WORLD_OTHER, "other");
	toolstack_add(&world.host, WORLD_OTHER, 51712, &the_disk, &refused);
	assert_false(toolstack_script(&refused));
	toolstack_remove_by_force(&refused);
	assert_true(world_wait_disks(world.daemon, 1));

	/* It is free once the first has let go. */
	assert_true(guest_close(&world.guest));
	toolstack_remove_by_force(&world.guest.disk);
	assert_true(world_wait_disks(world.daemon, 0));
	guest_add_disk(&world.other, &world.host, WORLD_OTHER, 51712, &the_disk);
	assert_true(guest_connect(&world.other, &plain));
	world_assert_works(&world.other);
}

static void bad_targets_are_refused(void **state)
{
	static const char *const targets[] = {
		"",    "@",        "disk,other", "disk,", "disk@",
		"a b", "disk@a b", "../disk",    "-disk", "disk,shared,shared"};
	struct disk d;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	for (unsigned i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		toolstack_add(&world.host, WORLD_GUEST, 51712,
			      &(struct disk_opts){.target = targets[i]}, &d);
		assert_false(toolstack_script(&d));
		toolstack_remove_by_force(&d);
		assert_true(world_wait_disks(world.daemon, 0));
	}
}

/* Whose directories these are */

/* xl attaches by a script; what has none, libxl does not know, even if the domain is its own. */
static void what_libxl_has_not_made_is_removed(void **state)
{
	struct guest *g = &world.guest;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	assert_true(xs_write(world.host.xs, XBT_NULL, "/libxl/5/dummy", "", 0));
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
		       &(struct disk_opts){.target = "disk", .instance = "sluice"});
	assert_true(guest_connect(g, &plain));
	xs_rm(world.host.xs, XBT_NULL, g->disk.front);
	assert_true(disk_wait_state(&g->disk, 0));
	assert_true(world_wait_disks(world.daemon, 0));
	assert_false(world_is_served(g));

	/* And the domain of another toolstack that uses the script. */
	world_connect_other(&plain);
	guest_kill(&world.other);
	assert_true(disk_wait_state(&world.other.disk, 0));
	assert_true(world_wait_disks(world.daemon, 0));
}

/* The kernel's backend, loaded late */

/* What its probe writes. */
static void kernel_offers(struct disk *d)
{
	disk_write(d, d->back, "max-ring-page-order", "3");
	disk_write(d, d->back, "multi-queue-max-queues", "8");
	disk_write(d, d->back, "feature-persistent", "1");
	disk_write(d, d->back, "state", "2");
}

static void assert_our_offer(struct disk *d)
{
	assert_true(disk_wait_key(d, d->back, "max-ring-page-order", "4"));
	assert_true(disk_key_is(d, d->back, "multi-queue-max-queues", "4"));
	assert_true(disk_key_is(d, d->back, "feature-persistent", "0"));
}

/* Its offer says InitWait as ours does: only when the frontend comes can we see whose it is. */
static void a_late_kernels_offer_is_replaced(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(disk_wait_state(&g->disk, 2));
	world_kernel_takes("vbd-5-51712");
	kernel_offers(&g->disk);
	guest_publish(g, &plain);
	world_kernel_lets_go("vbd-5-51712");
	assert_true(disk_wait_state(&g->disk, 4));
	assert_our_offer(&g->disk);
	guest_read_disk(g);
	world_assert_works(g);
}

/* What it writes as the state of a disk that we serve is no wish of the toolstack's. */
static void a_late_kernel_takes_no_disk_away(void **state)
{
	static const char *const states[] = {"2", "5", "6"};
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		world_kernel_takes("vbd-5-51712");
		disk_write(&g->disk, g->disk.back, "state", states[i]);
		world_assert_works(g);
		world_kernel_lets_go("vbd-5-51712");
		assert_true(disk_wait_state(&g->disk, 4));
		world_assert_works(g);
		assert_true(world_is_served(g));
	}
	/* Without it, Closing is the toolstack's. */
	toolstack_ask(&g->disk);
	world_settle();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "5"));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(taken_from_the_kernels_backend),
		world_test(waits_for_the_kernels_backend),
		world_test(others_devices_are_left_alone),
		world_test(two_instances_serve_each_its_own),
		world_test(other_kinds),
		world_test(bdevs_may_come_late),
		world_test(one_writer_unless_shared),
		world_test(bad_targets_are_refused),
		world_test(what_libxl_has_not_made_is_removed),
		world_test(a_late_kernels_offer_is_replaced),
		world_test(a_late_kernel_takes_no_disk_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
