/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The xenbus handshake with all kinds of frontends and toolstacks: good ones, quick ones, confused
 * ones, and such as go away without a word.
 */
#include "world.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct guest_opts plain;
static const struct disk_opts the_disk = {.target = "disk"};

static void assert_history(struct disk *d, const char *states)
{
	char *history = disk_history(d);

	assert_string_equal(history, states);
	free(history);
}

/* The disk works: by a sector that is written and read again. */
static void start_with_guest(void)
{
	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &the_disk);
}

/* The normal way */

static void connects(void **state)
{
	struct disk *d = &world.guest.disk;

	start_with_guest();
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
	assert_history(d, "1 2 4");
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
	assert_history(&g->disk, "1 2");
	assert_true(toolstack_script(&g->disk));
	assert_true(disk_wait_state(&g->disk, 4));
	guest_read_disk(g);
	world_assert_works(g);
}

static void frontends_that_jump_to_connected(void **state)
{
	start_with_guest();
	assert_true(guest_connect(&world.guest, &(struct guest_opts){.jump_to = 4}));
	world_assert_works(&world.guest);
}

/* One kernel after another: GRUB hands over to Linux, Linux to the next by kexec. */
static void reconnects_after_closed(void **state)
{
	struct guest *g = &world.guest;

	start_with_guest();
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

	start_with_guest();
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	guest_set_state(g, 1);
	assert_true(disk_wait_state(&g->disk, 2));
	assert_true(guest_free_front(g));
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	assert_history(&g->disk, "1 2 4 2 4");
}

/* What blkfront does after a migration or a suspend: new keys at once, and its I/O again. */
static void resuming_with_new_keys(void **state)
{
	struct guest *g = &world.guest;
	struct front *old;
	uint32_t old_port;

	start_with_guest();
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

	start_with_guest();
	assert_true(guest_connect(g, &plain));
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, front_depth(g->front)));
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

/* A frontend that closes while requests are out gets them answered. */
static void closing_waits_for_requests(void **state)
{
	struct guest *g = &world.guest;
	struct load *l;

	start_with_guest();
	assert_true(guest_connect(g, &plain));
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, front_depth(g->front)));
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

	start_with_guest();
	assert_true(guest_connect(g, &plain));
	toolstack_ask(&g->disk);
	assert_true(disk_wait_state(&g->disk, 5));
	world_assert_works(g);
	guest_set_state(g, 5);
	world_assert_works(g);
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
}

/* The toolstack */

static void detached_by_the_toolstack(void **state)
{
	struct guest *g = &world.guest;

	start_with_guest();
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

	start_with_guest();
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

/* The toolstack asks while the reactor is about to start the ring. */
static void asked_to_close_while_connecting(void **state)
{
	struct guest *g = &world.guest;

	start_with_guest();
	assert_true(disk_wait_state(&g->disk, 2));
	world_block(world.daemon);
	guest_publish(g, &plain);
	while (!double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]))
		host_nap();
	toolstack_ask(&g->disk);
	world_unblock();
	for (int i = 0; i < 100; i++)
		host_nap();
	assert_history(&g->disk, "1 2 5");
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

	start_with_guest();
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

	start_with_guest();
	assert_true(guest_connect(g, &plain));
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, front_depth(g->front)));
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

	start_with_guest();
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

	start_with_guest();
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

static void removed_while_connecting(void **state)
{
	struct guest *g = &world.guest;

	start_with_guest();
	assert_true(disk_wait_state(&g->disk, 2));
	world_block(world.daemon);
	guest_publish(g, &plain);
	while (!double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]))
		host_nap();
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

	start_with_guest();
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

	start_with_guest();
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
	assert_true(guest_connect(g, &plain));
	world_assert_works(g);
	assert_true(disk_wait_key(&g->disk, g->disk.back, "sluice-error", NULL));
	assert_true(guest_close(g));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
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

	start_with_guest();
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

	start_with_guest();
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

/* States that do not exist are no states, and nothing happens. */
static void nonsense_states_do_nothing(void **state)
{
	static const char *const values[] = {"", "abc", "-1", "9", "99", "7", "8", "4294967300"};
	struct guest *g = &world.guest;

	start_with_guest();
	assert_true(guest_connect(g, &plain));
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		guest_write(g, "state", values[i]);
		for (int n = 0; n < 20; n++)
			host_nap();
		world_assert_works(g);
		guest_set_state(g, 4);
		world_assert_works(g);
	}
	assert_history(&g->disk, "1 2 4");
	assert_true(guest_close(g));
}

/* A guest that changes its state as fast as it can, and then behaves. */
static void quick_changes_of_state(void **state)
{
	static const unsigned states[] = {1, 3, 4, 5, 6, 2};
	struct guest *g = &world.guest;
	unsigned short random[3] = {7};
	uint64_t start;

	start_with_guest();
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

/* Keys that change while nobody asked for it do nothing. */
static void a_flood_of_keys_is_looked_at_in_bulk(void **state)
{
	struct guest *g = &world.guest;
	struct double_stats before, after;

	start_with_guest();
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

/* Somebody writes our state: the toolstack's Closing is obeyed, all else is set right. */
static void our_state_is_ours(void **state)
{
	static const char *const values[] = {"1", "2", "3", "7", "8", "0"};
	struct guest *g = &world.guest;

	start_with_guest();
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

	start_with_guest();
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

	start_with_guest();
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

static void mapping_fails_for_want_of_room(void **state)
{
	struct guest *g = &world.guest;

	start_with_guest();
	double_limit_maps(0);
	publish_spoiled(g, "feature-persistent", "0", 1);
	assert_true(disk_wait_state(&g->disk, 5));
	double_limit_maps(100);
	assert_refused_and_recovers(g);
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
	assert_history(&world.guest.disk, "1");
	assert_history(&script, "1");
	assert_history(&params, "1");
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

	start_with_guest();
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
		world_test(connects),
		world_test(devices_that_were_there_first),
		world_test(the_script_opens_the_gate),
		world_test(frontends_that_jump_to_connected),
		world_test(reconnects_after_closed),
		world_test(starting_anew_without_closing),
		world_test(resuming_with_new_keys),
		world_tests(resuming_under_load),
		world_tests(closing_waits_for_requests),
		world_test(closing_frontends_are_served),
		world_test(detached_by_the_toolstack),
		world_test(not_offered_again_when_offline),
		world_test(asked_to_close_while_connecting),
		world_test(closed_by_the_toolstack),
		world_tests(removed_by_force_under_load),
		world_test(removed_while_connecting),
		world_test(renewed_before_we_looked),
		world_test(libxls_directories_are_libxls),
		world_test(taken_from_the_kernels_backend),
		world_test(waits_for_the_kernels_backend),
		world_test(what_was_removed_stays_removed),
		world_test(the_frontend_is_removed),
		world_tests(domain_destroyed_under_load),
		world_test(nonsense_keys_are_refused),
		world_test(bad_rings_are_refused),
		world_test(nonsense_states_do_nothing),
		world_test(quick_changes_of_state),
		world_test(a_flood_of_keys_is_looked_at_in_bulk),
		world_test(our_state_is_ours),
		world_test(transactions_are_tried_again),
		world_test(full_stores_are_survived),
		world_test(failing_reads_take_no_disk_away),
		world_test(mapping_fails_for_want_of_room),
		world_test(others_devices_are_left_alone),
		world_test(two_instances_serve_each_its_own),
		world_test(other_kinds),
		world_test(bdevs_may_come_late),
		world_test(one_writer_unless_shared),
		world_test(bad_targets_are_refused),
		world_test(attached_and_detached_without_a_toolstack),
		world_test(detached_while_connecting),
		world_test(attaching_nothing_leaves_nothing),
		world_test(dom0_can_have_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
