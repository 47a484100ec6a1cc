/* SPDX-License-Identifier: BSD-2-Clause */
#include "world.h"

#include <string.h>

struct world world;

static void create_disk(void *arg)
{
	world.disk = held_create("disk", WORLD_DISK_BYTES);
}

int world_setup(void **state)
{
	memset(&world, 0, sizeof(world));
	host_create(&world.host);
	host_run(&world.host, create_disk, NULL);
	return 0;
}

int world_teardown(void **state)
{
	/* A test that failed half-way may have left requests where nothing ends them. */
	held_release(world.disk, false);
	if (world.daemon)
		instance_end(world.daemon);
	if (world.guest.xs)
		guest_destroy(&world.guest);
	if (world.other.xs)
		guest_destroy(&world.other);
	return host_destroy(&world.host) ? -1 : 0;
}

void world_start(const struct instance_opts *opts)
{
	struct err err;

	assert_int_equal(instance_start(&world.host, opts, &world.daemon, &err), 0);
}

void world_connect(void)
{
	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
}

void world_run_load(const struct load_opts *opts, unsigned requests)
{
	struct load *l = load_create(&world.guest, opts);
	const char *fault = load_run(l, requests);

	if (fault)
		fail_msg("%s", fault);
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
}
