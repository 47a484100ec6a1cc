/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk's end and its beginning as toolstacks and administrators want it: asked for, by force, in
 * the middle of everything else, and without any toolstack.
 */
#include "world.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const struct guest_opts plain;
static const struct disk_opts the_disk = {.target = "disk"};

/* The toolstack */

static void detached_by_the_toolstack(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	toolstack_ask(&g->disk);
	/* blkfront follows. */
	guest_set_state(g, 5);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	assert_int_equal(world_disks(world.daemon), 1);
	toolstack_remove_by_force(&g->disk);
	assert_true(world_wait_disks(world.daemon, 0));

	/* And attached again under the same name. */
	xs_close(g->xs);
	guest_add_disk(g, &world.host, WORLD_GUEST, 51712, &the_disk);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
}

/* Once it is going away it is not offered to a frontend again. */
static void not_offered_again_when_offline(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	toolstack_ask(&g->disk);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	for (int i = 0; i < 50; i++)
		host_nap();
	guest_publish(g, &plain);
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "6"));
}

/* The guest's ring is mapped, and the reactor is kept from starting it until world_unblock(). */
static void stop_while_connecting(void)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(disk_wait_state(&g->disk, 2));
	world_block(world.daemon);
	guest_publish(g, &plain);
	while (!double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]))
		host_nap();
}

/* The toolstack asks while the reactor is about to start the ring. */
static void asked_to_close_while_connecting(void **state)
{
	struct guest *g = &world.guest;

	stop_while_connecting();
	toolstack_ask(&g->disk);
	world_unblock();
	for (int i = 0; i < 100; i++)
		host_nap();
	world_assert_history(&g->disk, "1 2 5");
	/* Nothing is wrong with it, and until the frontend closes it is served. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "sluice-error", NULL));
	world_assert_works(g);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

/* One that does not ask but says that it is over. */
static void closed_by_the_toolstack(void **state)
{
	struct guest *g = &world.guest;
	uint64_t start = host_now_ms();

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	disk_write(&g->disk, g->disk.back, "online", "0");
	disk_write(&g->disk, g->disk.back, "state", "6");
	while (double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0])) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
	}
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "6"));
}

static void removed_by_force_under_load(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	l = world_fill_ring();
	toolstack_remove_by_force(&g->disk);
	for (int i = 0; i < 50; i++)
		host_nap();
	/* The ring is kept until the device is done with it. */
	assert_true(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	held_release(world.disk, false);
	assert_true(world_wait_disks(world.daemon, 0));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	assert_false(double_evtchn_is_bound(WORLD_GUEST, g->port));
	assert_null(load_finish(l));
	load_destroy(l);
}

static void create_second(void *arg)
{
	struct held **second = arg;

	*second = held_create("second", WORLD_DISK_BYTES);
}

/* Removed and made again before we have looked: it is another disk, with another bdev even. */
static void renewed_before_we_looked(void **state)
{
	static const unsigned char out[512] = "x";
	struct guest *g = &world.guest;
	struct held *second;
	struct front *old;

	world_start_with_guest();
	host_run(&world.host, create_second, &second);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	for (int i = 0; i < 6; i++) {
		struct held *target = i % 2 ? world.disk : second;

		old = g->front;
		world_block_control();
		toolstack_remove_by_force(&g->disk);
		xs_close(g->xs);
		guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
			       &(struct disk_opts){.target = i % 2 ? "disk" : "second",
						   .instance = "sluice"});
		world_unblock();
		assert_true(guest_connect(g, &plain));
		assert_int_equal(
			front_rw_sync(g->front, BLKIF_WRITE, (uint64_t)i, (void *)out, 512), 0);
		assert_int_equal(held_data(target)[i * 512], 'x');
		front_destroy(old);
	}
	assert_int_equal(world_disks(world.daemon), 1);
}

/* What libxl has made it also removes, and takes it for an error if somebody else did. */
static void libxls_directories_are_libxls(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	assert_true(xs_write(world.host.xs, XBT_NULL, "/libxl/5/dummy", "", 0));
	xs_rm(world.host.xs, XBT_NULL, g->disk.front);
	assert_true(disk_wait_state(&g->disk, 6));
	for (int i = 0; i < 50; i++)
		host_nap();
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "6"));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	toolstack_remove_by_force(&g->disk);
	assert_true(world_wait_disks(world.daemon, 0));
}

static void removed_while_connecting(void **state)
{
	struct guest *g = &world.guest;

	stop_while_connecting();
	toolstack_remove_by_force(&g->disk);
	world_unblock();
	assert_true(world_wait_disks(world.daemon, 0));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	/* Nothing was half made where the toolstack has cleaned up. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", NULL));
}

/* The toolstack cleans up in the very moment in which we write: our write must not undo that. */
struct removal {
	const char *match;
	struct disk *disk;
	atomic_bool done;
};

static void remove_on_write(void *arg, bool write, const char *path)
{
	struct removal *r = arg;

	if (!write || !strstr(path, r->match) || atomic_exchange(&r->done, true))
		return;
	toolstack_remove_by_force(r->disk);
}

static void what_was_removed_stays_removed(void **state)
{
	static const char *const keys[] = {"sluice-status", "max-ring-page-order", "sluice-error",
					   "sectors", "/state"};
	struct guest *g = &world.guest;
	unsigned n;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct removal r = {.match = keys[i], .disk = &g->disk};
		bool error = !strcmp(keys[i], "sluice-error");

		print_message("  %s\n", keys[i]);
		if (g->xs)
			xs_close(g->xs);
		guest_add_disk(g, &world.host, WORLD_GUEST, 51712,
			       &(struct disk_opts){.target = "none", .instance = "nobody"});
		toolstack_remove_by_force(&g->disk);
		/* The last two are written when a frontend comes, and when it goes. */
		if (i < 3)
			double_on_store(remove_on_write, &r);
		toolstack_add(&world.host, WORLD_GUEST, 51712,
			      &(struct disk_opts){.target = error ? "none" : "disk",
						  .instance = "sluice"},
			      &g->disk);
		if (i == 3) {
			assert_true(disk_wait_state(&g->disk, 2));
			double_on_store(remove_on_write, &r);
			guest_publish(g, &plain);
		} else if (i == 4) {
			assert_true(guest_connect(g, &plain));
			double_on_store(remove_on_write, &r);
			guest_set_state(g, 6);
		}
		assert_true(disk_wait_state(&g->disk, 0));
		assert_true(world_wait_disks(world.daemon, 0));
		double_on_store(NULL, NULL);
		assert_true(atomic_load(&r.done));
		assert_null(xs_directory(world.host.xs, XBT_NULL, g->disk.back, &n));
		if (g->front)
			assert_true(guest_free_front(g));
	}
}

/* xenopsd's hard unplug: it removes the frontend, and waits until we have removed ourselves. */
static void the_frontend_is_removed(void **state)
{
	struct guest *g = &world.guest;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	xs_rm(world.host.xs, XBT_NULL, g->disk.front);
	assert_true(disk_wait_state(&g->disk, 0));
	assert_true(world_wait_disks(world.daemon, 0));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
}

static void domain_destroyed_under_load(void **state)
{
	struct guest *g = &world.guest;
	struct load *l, *other_load;
	struct held *other_disk;

	world_start_with_guest();
	assert_true(guest_connect(g, &plain));
	other_disk = world_connect_other(&plain);
	other_load = load_create(&world.other, &(struct load_opts){.max_segments = 11});
	for (int i = 0; i < 10; i++) {
		l = load_create(g, &(struct load_opts){.max_segments = 4});
		/* In all phases: at the device, and on the way there. */
		if (i % 2) {
			held_hold(world.disk);
			load_fill(l);
			assert_true(held_wait(world.disk, front_depth(g->front)));
		} else {
			for (int n = 0; n < 20; n++)
				assert_null(load_step(l));
			load_fill(l);
		}
		guest_kill(g);
		assert_null(load_step(other_load));
		held_release(world.disk, false);
		load_destroy(l);
		/* No toolstack cleans up: the backend does, as the frontend is gone. */
		assert_true(disk_wait_state(&g->disk, 0));
		assert_true(world_wait_disks(world.daemon, 1));
		guest_destroy(g);
		memset(held_data(world.disk), 0, WORLD_DISK_BYTES);
		/* The next domain may get the same number. */
		guest_create(g, &world.host, WORLD_GUEST, &the_disk);
		assert_true(guest_connect(g, &plain));
	}
	world_assert_works(g);
	assert_null(load_run(other_load, 500));
	assert_null(load_compare(other_load, held_data(other_disk)));
	load_destroy(other_load);
}

/* Without a toolstack */

struct attach {
	struct err err;
	const char *bdev;
	unsigned domid;
	bool force;
	int rc;
	bool gone;
	bool failed;
};

static void attach_on_control(void *arg)
{
	struct attach *a = arg;
	struct xen_attach want = {.domid = a->domid, .devid = 51712};
	const char *kind;

	assert_int_equal(target_parse(a->bdev, &want.target, &a->err), 0);
	a->rc = xen_backend_attach(instance_backend(world.daemon), &want, &kind, &a->err);
}

static void is_gone(void *arg, const char *error)
{
	struct attach *a = arg;

	a->gone = true;
	a->failed = error;
}

static void detach_on_control(void *arg)
{
	struct attach *a = arg;

	a->rc = xen_backend_detach(instance_backend(world.daemon), a->domid, 51712, a->force,
				   is_gone, a, &a->err);
}

static void gone_on_control(void *arg)
{
	struct attach *a = arg;

	/* Read on the thread that writes it. */
	a->rc = a->gone;
}

static bool wait_gone(struct attach *a)
{
	uint64_t start = host_now_ms();

	do {
		host_nap();
		host_run(&world.host, gone_on_control, a);
	} while (!a->rc && host_now_ms() - start < HOST_WAIT_MS);
	return a->rc;
}

/* The guest's side of a disk that the backend itself has made. */
static void adopt_disk(struct guest *g, unsigned domid)
{
	static const struct disk_opts dummy = {.target = "none", .instance = "nobody"};

	/* The fixture's names and tables; what it writes is taken away again. */
	guest_add_disk(g, &world.host, domid, 51712, &dummy);
	toolstack_remove_by_force(&g->disk);
}

static void attached_and_detached_without_a_toolstack(void **state)
{
	struct attach a = {.bdev = "disk", .domid = WORLD_GUEST};
	struct guest *g = &world.guest;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	adopt_disk(g, WORLD_GUEST);
	for (int i = 0; i < 4; i++) {
		a.gone = false;
		a.force = i == 3;
		host_run(&world.host, attach_on_control, &a);
		assert_int_equal(a.rc, 0);
		assert_true(guest_connect(g, &plain));
		world_assert_works(g);
		/* A second one of that name is refused, and nothing of it is left. */
		host_run(&world.host, attach_on_control, &a);
		assert_true(a.rc < 0);
		world_assert_works(g);

		host_run(&world.host, detach_on_control, &a);
		assert_int_equal(a.rc, 0);
		if (!a.force) {
			assert_true(disk_wait_state(&g->disk, 5));
			world_assert_works(g);
			guest_set_state(g, 5);
			guest_set_state(g, 6);
		}
		assert_true(wait_gone(&a));
		assert_false(a.failed);
		assert_true(disk_key_is(&g->disk, g->disk.back, "state", NULL));
		assert_true(disk_key_is(&g->disk, g->disk.front, "state", NULL));
		assert_int_equal(world_disks(world.daemon), 0);
		assert_true(guest_free_front(g));
	}
	/* Nothing to detach. */
	host_run(&world.host, detach_on_control, &a);
	assert_int_equal(a.rc, -ENOENT);
}

static void detached_while_connecting(void **state)
{
	struct attach a = {.bdev = "disk", .domid = WORLD_GUEST};
	struct guest *g = &world.guest;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	adopt_disk(g, WORLD_GUEST);
	host_run(&world.host, attach_on_control, &a);
	assert_int_equal(a.rc, 0);
	assert_true(disk_wait_state(&g->disk, 2));
	world_block(world.daemon);
	guest_publish(g, &plain);
	while (!double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]))
		host_nap();
	host_run(&world.host, detach_on_control, &a);
	world_unblock();
	for (int i = 0; i < 100; i++)
		host_nap();
	/* blkfront follows Closing by closing. */
	assert_true(disk_key_is(&g->disk, g->disk.back, "state", "5"));
	guest_set_state(g, 6);
	assert_true(wait_gone(&a));
}

static void attaching_nothing_leaves_nothing(void **state)
{
	struct attach a = {.bdev = "nothing", .domid = WORLD_GUEST};
	unsigned n;
	char **names;

	world_start(&(struct instance_opts){0});
	double_domain_create(WORLD_GUEST, "guest");
	host_run(&world.host, attach_on_control, &a);
	assert_int_equal(a.rc, -ENOENT);
	a.bdev = "disk";
	double_fail(DOUBLE_XS_WRITE, ENOSPC, 5, 1, "backend");
	host_run(&world.host, attach_on_control, &a);
	assert_int_equal(a.rc, -ENOSPC);
	names = xs_directory(world.host.xs, XBT_NULL, "/local/domain/5/device", &n);
	assert_int_equal(n, 0);
	free(names);
	assert_null(xs_directory(world.host.xs, XBT_NULL, "/local/domain/0/backend", &n));
	assert_int_equal(world_disks(world.daemon), 0);
}

/* dom0 itself as the guest. */
static void dom0_can_have_the_disk(void **state)
{
	struct attach a = {.bdev = "disk", .domid = 0};
	struct guest *g = &world.guest;

	world_start(&(struct instance_opts){0});
	adopt_disk(g, 0);
	host_run(&world.host, attach_on_control, &a);
	assert_int_equal(a.rc, 0);
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	assert_true(guest_close(g));
	assert_true(guest_free_front(g));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(detached_by_the_toolstack),
		world_test(not_offered_again_when_offline),
		world_test(asked_to_close_while_connecting),
		world_test(closed_by_the_toolstack),
		world_tests(removed_by_force_under_load),
		world_test(renewed_before_we_looked),
		world_test(libxls_directories_are_libxls),
		world_test(removed_while_connecting),
		world_test(what_was_removed_stays_removed),
		world_test(the_frontend_is_removed),
		world_tests(domain_destroyed_under_load),
		world_test(attached_and_detached_without_a_toolstack),
		world_test(detached_while_connecting),
		world_test(attaching_nothing_leaves_nothing),
		world_test(dom0_can_have_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
