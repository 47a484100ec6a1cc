/* SPDX-License-Identifier: BSD-2-Clause */
#include "world.h"

#include <jansson.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin.h"

struct world world;

static void create_disk(void *arg)
{
	world.disk = held_create("disk", WORLD_DISK_BYTES);
}

int world_setup(void **state)
{
	memset(&world, 0, sizeof(world));
	guest_way = *state ? *state : &guest_copied;
	admin_forget();
	host_create(&world.host);
	world.host.map_from = guest_way->map_from;
	held_use_dma(guest_way->dma ? host_get_dma(&world.host) : NULL, double_bus_to_memory);
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
	admin_forget();
	return host_destroy(&world.host) ? -1 : 0;
}

void world_start(const struct instance_opts *opts)
{
	struct err err;

	assert_int_equal(instance_start(&world.host, opts, &world.daemon, &err), 0);
}

void world_connect(void)
{
	world_connect_disk(&(struct disk_opts){.target = "disk"}, &(struct guest_opts){0});
}

void world_connect_disk(const struct disk_opts *disk, const struct guest_opts *guest)
{
	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST, disk);
	assert_true(guest_connect(&world.guest, guest));
}

void world_start_with_guest(void)
{
	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
}

void world_end(void)
{
	instance_end(world.daemon);
	world.daemon = NULL;
}

bool world_wait_error(struct guest *g)
{
	uint64_t start = host_now_ms();

	while (disk_key_is(&g->disk, g->disk.back, "sluice-error", NULL)) {
		if (host_now_ms() - start > HOST_WAIT_MS)
			return false;
		host_nap();
	}
	return true;
}

struct load *world_fill_ring(void)
{
	struct guest *g = &world.guest;
	struct load *l;

	world_start_with_guest();
	assert_true(guest_connect(g, &(struct guest_opts){0}));
	l = load_create(g, &(struct load_opts){.max_segments = 4});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, front_depth(g->front)));
	return l;
}

void world_assert_history(struct disk *d, const char *states)
{
	char *history = disk_history(d);

	assert_string_equal(history, states);
	free(history);
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

static void create_other(void *arg)
{
	struct held **other = arg;

	*other = held_create("other", WORLD_DISK_BYTES);
}

struct held *world_make_other(void)
{
	struct held *other;

	host_run(&world.host, create_other, &other);
	return other;
}

struct held *world_connect_other(const struct guest_opts *opts)
{
	struct held *other = world_make_other();

	guest_create(&world.other, &world.host, WORLD_OTHER,
		     &(struct disk_opts){.target = "other"});
	assert_true(guest_connect(&world.other, opts));
	return other;
}

struct listing {
	struct instance *i;
	unsigned disks;
};

static void list_disks(void *arg)
{
	struct listing *l = arg;
	json_t *list = xen_backend_list(instance_backend(l->i));

	l->disks = (unsigned)json_array_size(list);
	json_decref(list);
}

unsigned world_disks(struct instance *i)
{
	struct listing l = {.i = i};

	host_run(&world.host, list_disks, &l);
	return l.disks;
}

bool world_wait_disks(struct instance *i, unsigned n)
{
	uint64_t start = host_now_ms();

	while (world_disks(i) != n) {
		if (host_now_ms() - start > HOST_WAIT_MS)
			return false;
		host_nap();
	}
	return true;
}

static struct {
	struct reactor_msg msg;
	sem_t blocked;
	sem_t go_on;
} blocker;

static void block(struct reactor_msg *msg)
{
	sem_post(&blocker.blocked);
	while (sem_wait(&blocker.go_on))
		;
}

static void block_reactor(struct reactor *r)
{
	sem_init(&blocker.blocked, 0, 0);
	sem_init(&blocker.go_on, 0, 0);
	blocker.msg.fn = block;
	reactor_send(r, &blocker.msg);
	while (sem_wait(&blocker.blocked))
		;
}

void world_block(struct instance *i)
{
	block_reactor(instance_reactor(i, 0));
}

void world_block_control(void)
{
	block_reactor(world.host.control);
}

void world_unblock(void)
{
	sem_post(&blocker.go_on);
}

/* The kernel's backend has the driver in sysfs, and a link from each device that is the driver's.
 */
void world_kernel_takes(const char *device)
{
	char path[256], target[256];

	host_write_file(&world.host, "/sys/bus/xen-backend/drivers/vbd/unbind", "");
	snprintf(path, sizeof(path), "%s/sys/bus/xen-backend/devices/%s/driver", world.host.root,
		 device);
	snprintf(target, sizeof(target), "%s/sys/bus/xen-backend/drivers/vbd", world.host.root);
	host_make_dirs(path);
	assert_int_equal(symlink(target, path), 0);
}

void world_kernel_lets_go(const char *device)
{
	char path[256], text[64] = "";
	uint64_t start = host_now_ms();
	FILE *f;

	snprintf(path, sizeof(path), "%s/sys/bus/xen-backend/drivers/vbd/unbind", world.host.root);
	while (strcmp(text, device)) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
		f = fopen(path, "r");
		assert_non_null(f);
		if (!fgets(text, sizeof(text), f))
			text[0] = '\0';
		fclose(f);
	}
	snprintf(path, sizeof(path), "%s/sys/bus/xen-backend/devices/%s/driver", world.host.root,
		 device);
	assert_int_equal(unlink(path), 0);
}

/* Statistics of the instance's disks. */
struct reading {
	json_t *stats;
	sem_t done;
};

static void stats_came(void *arg, json_t *stats)
{
	struct reading *r = arg;

	r->stats = stats;
	sem_post(&r->done);
}

static void ask_stats(void *arg)
{
	xen_backend_stats(instance_backend(world.daemon), stats_came, arg);
}

int64_t world_stat(const char *group, const char *name)
{
	char words[64], *rest = words, *word;
	struct reading r = {0};
	int64_t value;
	json_t *at;

	sem_init(&r.done, 0, 0);
	host_run(&world.host, ask_stats, &r);
	while (sem_wait(&r.done))
		;
	sem_destroy(&r.done);
	at = json_array_get(r.stats, 0);
	snprintf(words, sizeof(words), "%s", group ? group : "");
	while (group && (word = strsep(&rest, "/")))
		at = json_object_get(at, word);
	if (!json_is_integer(json_object_get(at, name)))
		fail_msg("no figure %s of %s", name, group);
	value = json_integer_value(json_object_get(at, name));
	json_decref(r.stats);
	return value;
}

void world_settle(void)
{
	for (int i = 0; i < 50; i++)
		host_nap();
}

void world_settle_idle(void)
{
	struct reactor *r = instance_reactor(world.daemon, 0);
	struct reactor_stats before, after;

	world_settle();
	reactor_get_stats(r, &before);
	world_settle();
	reactor_get_stats(r, &after);
	assert_in_range(after.passes - before.passes, 0, 10);
}

void world_assert_works(struct guest *g)
{
	static unsigned char mark;
	unsigned char out[512], in[512];

	memset(out, ++mark, sizeof(out));
	assert_int_equal(front_rw_sync(g->front, BLKIF_WRITE, 3, out, sizeof(out)), 0);
	assert_int_equal(front_rw_sync(g->front, BLKIF_READ, 3, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
}

bool world_is_served(struct guest *g)
{
	return double_grant_is_mapped(g->disk.domid, front_ring_refs(g->front)[0]);
}

bool world_wait_served(struct guest *g)
{
	uint64_t start = host_now_ms();

	while (!world_is_served(g)) {
		if (host_now_ms() - start > HOST_WAIT_MS)
			return false;
		host_nap();
	}
	return true;
}
