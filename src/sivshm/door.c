/* SPDX-License-Identifier: BSD-2-Clause */
#include "sivshm/door.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "blkif/report.h"
#include "sivshm/disk.h"

/* Addresses for all segments together. */
#define RANGE_BYTES (UINT64_C(256) << 30)
/* After an error that may pass: want of memory, a path that somebody else has. */
#define RETRY_NS NSEC_PER_SEC

static const char *const sharing_names[] = {
	[SIVSHM_DOOR_SHARING_AUTO] = "auto",
	[SIVSHM_DOOR_SHARING_COPY] = "copy",
	[SIVSHM_DOOR_SHARING_MAP] = "map",
	[SIVSHM_DOOR_SHARING_DMA] = "dma",
};

int sivshm_door_parse_sharing(const char *text, enum sivshm_door_sharing *sharing, struct err *err)
{
	for (unsigned i = 0; i < sizeof(sharing_names) / sizeof(sharing_names[0]); i++) {
		if (strcmp(text, sharing_names[i]))
			continue;
		*sharing = (enum sivshm_door_sharing)i;
		return 0;
	}
	return err_set(err, -EINVAL, "sharing \"%s\" is not one of auto, copy, map and dma", text);
}

/* What happens */

static struct sivshm_disk *disk_at(const struct list *pos)
{
	return list_entry(pos, struct sivshm_disk, node);
}

static void manager_ready(struct reactor_fd *f, uint32_t events)
{
	struct sivshm_door *d = container_of(f, struct sivshm_door, manager_fd);
	int rc = sivshm_manager_dispatch(d->manager, 0);

	if (rc < 0)
		log_error("the second door cannot wait for frontends: %s", strerror(-rc));
}

void sivshm_door_retry_later(struct sivshm_door *d)
{
	if (!d->draining)
		reactor_timer_start(d->opts.control, &d->retry, RETRY_NS);
}

static void retry_fired(struct reactor_timer *t)
{
	struct sivshm_door *d = container_of(t, struct sivshm_door, retry);
	struct list *pos, *next;

	/* An evaluation may destroy its own disk, no other. */
	list_for_each_safe (pos, next, &d->disks) {
		struct sivshm_disk *disk = disk_at(pos);

		sivshm_disk_follow_size(disk);
		if (!disk->peer)
			sivshm_disk_evaluate(disk);
	}
}

static void bdev_changed(void *arg)
{
	struct sivshm_door *d = arg;

	/* Not now: whoever has changed it may be in the middle of something. */
	if (!d->draining)
		reactor_timer_start(d->opts.control, &d->retry, 0);
}

static void bdev_resized(struct bdev *b, void *arg)
{
	struct sivshm_door *d = arg;
	struct list *pos;

	list_for_each (pos, &d->disks)
		if (disk_at(pos)->bdev == b)
			sivshm_disk_follow_size(disk_at(pos));
}

/* Beginning and end */

int sivshm_door_create(const struct sivshm_door_opts *opts, struct sivshm_door **out,
		       struct err *err)
{
	struct sivshm_manager_opts manager_opts = {
		.struct_bytes = sizeof(manager_opts),
		.range_bytes = RANGE_BYTES,
	};
	struct sivshm_door *d = calloc(1, sizeof(*d));
	unsigned lanes = 0;
	int rc;

	if (!d)
		return err_set(err, -ENOMEM, "no memory for the second door");
	d->opts = *opts;
	d->retry.fire = retry_fired;
	list_init(&d->disks);
	d->dir = strdup(opts->dir);
	d->lanes = calloc(opts->nr_reactors, sizeof(d->lanes[0]));
	if (!d->dir || !d->lanes) {
		rc = err_set(err, -ENOMEM, "no memory for the second door");
		goto no_memory;
	}
	rc = sivshm_manager_create(&manager_opts, &d->manager);
	if (rc) {
		err_set(err, rc, "cannot make room for segments: %s", strerror(-rc));
		goto no_memory;
	}
	for (; !rc && lanes < opts->nr_reactors; lanes += !rc)
		rc = sivshm_lane_init(&d->lanes[lanes], opts->reactors[lanes], opts->bounce_pages,
				      err);
	if (rc)
		goto no_lanes;
	*out = d;
	return 0;
no_lanes:
	while (lanes)
		sivshm_lane_fini(&d->lanes[--lanes]);
	sivshm_manager_destroy(d->manager);
no_memory:
	free(d->lanes);
	free(d->dir);
	free(d);
	return rc;
}

int sivshm_door_start(struct sivshm_door *d, struct err *err)
{
	int rc;

	d->manager_fd = (struct reactor_fd){
		.fd = sivshm_manager_fd(d->manager),
		.ready = manager_ready,
	};
	rc = reactor_fd_add(d->opts.control, &d->manager_fd, EPOLLIN);
	if (rc)
		return err_set(err, rc, "cannot listen to segments' frontends: %s", strerror(-rc));
	d->started = true;
	d->observer = (struct bdev_observer){
		.changed = bdev_changed,
		.resized = bdev_resized,
		.arg = d,
	};
	bdev_observe(&d->observer);
	return 0;
}

static void stop_listening(struct sivshm_door *d)
{
	bdev_unobserve(&d->observer);
	reactor_timer_stop(d->opts.control, &d->retry);
	if (d->started)
		reactor_fd_del(d->opts.control, &d->manager_fd);
	d->started = false;
}

void sivshm_door_disk_idle(struct sivshm_door *d)
{
	void (*drained)(void *arg) = d->drained;
	struct list *pos;

	if (!drained)
		return;
	list_for_each (pos, &d->disks)
		if (disk_at(pos)->phase != SIVSHM_DISK_IDLE || disk_at(pos)->peer)
			return;
	d->drained = NULL;
	drained(d->drained_arg);
}

void sivshm_door_drain(struct sivshm_door *d, void (*drained)(void *arg), void *arg)
{
	struct list *pos, *next;

	d->draining = true;
	stop_listening(d);
	list_for_each_safe (pos, next, &d->disks)
		sivshm_disk_evaluate(disk_at(pos));
	d->drained = drained;
	d->drained_arg = arg;
	sivshm_door_disk_idle(d);
}

/* There is no more time for a message. */
static void end_waiters(struct sivshm_disk *disk)
{
	struct list *pos;

	while ((pos = list_pop(&disk->waiters))) {
		struct sivshm_waiter *w = list_entry(pos, struct sivshm_waiter, node);

		w->done(w->arg, "sluiced is ending");
		free(w);
	}
}

void sivshm_door_destroy(struct sivshm_door *d)
{
	stop_listening(d);
	while (!list_empty(&d->disks)) {
		end_waiters(disk_at(d->disks.next));
		sivshm_disk_destroy(disk_at(d->disks.next));
	}
	for (unsigned i = 0; i < d->opts.nr_reactors; i++)
		sivshm_lane_fini(&d->lanes[i]);
	sivshm_manager_destroy(d->manager);
	free(d->lanes);
	free(d->dir);
	free(d);
}

/* Workers */

static struct sivshm_disk *find(const struct sivshm_door *d, const char *name)
{
	struct list *pos;

	list_for_each (pos, &d->disks)
		if (!strcmp(disk_at(pos)->name, name))
			return disk_at(pos);
	return NULL;
}

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > SIVSHM_DOOR_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	return true;
}

static int check(const struct sivshm_door *d, const struct sivshm_door_worker *w, struct err *err)
{
	size_t path_max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	size_t path =
		w->socket ? strlen(w->socket) : strlen(d->dir) + strlen(w->name) + strlen("/.sock");
	uint64_t bytes = w->segment_bytes;

	if (d->draining)
		return err_set(err, -ESHUTDOWN, "sluiced is ending");
	if (!is_name(w->name))
		return err_set(err, -EINVAL,
			       "\"%.80s\" is no worker's name: take up to %d letters, digits, "
			       "'.', '_' and '-', not beginning with '.'",
			       w->name, SIVSHM_DOOR_NAME_MAX);
	if (find(d, w->name))
		return err_set(err, -EEXIST, "there is a worker %s already: choose another name",
			       w->name);
	/* It would be cut off, and mean another. */
	if (strlen(w->bdev) >= sizeof(((struct sivshm_disk *)0)->bdev_name))
		return err_set(err, -ENOENT, "no bdev has a name as long as \"%.80s\"", w->bdev);
	if (bytes && (bytes & (bytes - 1) || bytes < SIVSHM_DOOR_MIN_SEGMENT ||
		      bytes > SIVSHM_DOOR_MAX_SEGMENT))
		return err_set(err, -EINVAL,
			       "a segment of %llu bytes is no power of two between 64K and 16G",
			       (unsigned long long)bytes);
	if (w->max_queues > SIVSHM_DOOR_MAX_QUEUES)
		return err_set(err, -EINVAL, "%u queues are more than %d", w->max_queues,
			       SIVSHM_DOOR_MAX_QUEUES);
	if (w->socket && w->socket[0] != '/')
		return err_set(err, -EINVAL, "socket \"%.120s\" is no absolute path", w->socket);
	if (path > path_max)
		return err_set(err, -ENAMETOOLONG,
			       "the socket's path has %zu characters, and the system takes %zu: "
			       "choose a shorter one",
			       path, path_max);
	if (w->uid < -1 || w->uid >= UINT32_MAX || w->gid < -1 || w->gid >= UINT32_MAX)
		return err_set(err, -EINVAL, "there is no such user or group");
	if (w->mode & ~(mode_t)0777)
		return err_set(err, -EINVAL, "mode %o is not between 0 and 0777", w->mode);
	return 0;
}

static int find_number(const struct sivshm_door *d, uint32_t *number, struct err *err)
{
	for (uint32_t i = 0; i < SIVSHM_DOOR_MAX_WORKERS; i++) {
		if (d->numbers[i])
			continue;
		*number = i;
		return 0;
	}
	return err_set(err, -ENOSPC, "there are %d workers already, and no more are possible",
		       SIVSHM_DOOR_MAX_WORKERS);
}

int sivshm_door_add(struct sivshm_door *d, const struct sivshm_door_worker *want, struct err *err)
{
	struct sivshm_disk *disk;
	uint32_t number = 0;
	int rc = check(d, want, err);

	if (!rc)
		rc = find_number(d, &number, err);
	if (rc)
		return rc;
	disk = sivshm_disk_create(d, want, number);
	if (!disk)
		return err_set(err, -ENOMEM, "no memory for a worker");
	if (want->may_wait) {
		sivshm_disk_evaluate(disk);
		return 0;
	}
	rc = sivshm_disk_claim(disk, err);
	if (!rc)
		rc = sivshm_disk_open(disk, err);
	if (rc)
		sivshm_disk_destroy(disk);
	return rc;
}

int sivshm_door_remove(struct sivshm_door *d, const char *name, bool force,
		       void (*gone)(void *arg, const char *error), void *arg, struct err *err)
{
	struct sivshm_disk *disk = find(d, name);
	struct sivshm_waiter *w;

	if (!disk)
		return err_set(err, -ENOENT, "no worker %.80s: see 'sluice sivshm list'", name);
	if (d->draining)
		return err_set(err, -ESHUTDOWN, "sluiced is ending");
	w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(err, -ENOMEM, "no memory");
	w->done = gone;
	w->arg = arg;
	list_add_tail(&disk->waiters, &w->node);
	disk->removing = true;
	disk->force |= force;
	sivshm_disk_evaluate(disk);
	return 0;
}

bool sivshm_door_forget_removal(struct sivshm_door *d, const char *name, void *arg)
{
	struct sivshm_disk *disk = find(d, name);
	struct list *pos, *next;

	if (!disk)
		return false;
	list_for_each_safe (pos, next, &disk->waiters) {
		struct sivshm_waiter *w = list_entry(pos, struct sivshm_waiter, node);

		if (w->arg != arg)
			continue;
		list_del(&w->node);
		free(w);
		return true;
	}
	return false;
}

const char *sivshm_door_user_of(const struct sivshm_door *d, const char *bdev)
{
	struct list *pos;

	list_for_each (pos, &d->disks)
		if (!strcmp(disk_at(pos)->bdev_name, bdev))
			return disk_at(pos)->name;
	return NULL;
}

/* Lists */

static const char *name_state(const struct sivshm_disk *disk)
{
	if (disk->removing || disk->phase == SIVSHM_DISK_STOPPING)
		return "closing";
	if (!disk->peer)
		return "waiting";
	if (disk->phase == SIVSHM_DISK_SERVING)
		return "connected";
	return disk->joined ? "joined" : "listening";
}

static const char *name_way(const struct sivshm_disk *disk)
{
	switch (sivshm_disk_get_sharing(disk)) {
	case BLKIF_SHARE_DIRECT:
		return "map";
	case BLKIF_SHARE_DIRECT_DMA:
		return disk->phase == SIVSHM_DISK_SERVING && !disk->dma ? "copy" : "dma";
	default:
		return "copy";
	}
}

static json_t *octal(mode_t mode)
{
	return json_sprintf("%04o", (unsigned)mode);
}

static json_t *list_ids(const struct sivshm_disk *disk)
{
	struct sivshm_port *port = disk->peer ? sivshm_worker_port(disk->peer) : NULL;

	return port ? json_pack("[i,i]", (int)sivshm_port_id(port), (int)sivshm_port_peer(port))
		    : json_null();
}

static json_t *list_disk(const struct sivshm_disk *disk)
{
	bool connected = disk->phase == SIVSHM_DISK_SERVING;
	const struct sivshm_choice *c = &disk->choice;
	json_t *to = json_pack("{s:s,s:s,s:s,s:I,s:i,s:s,s:s,s:b,s:b}", "name", disk->name, "bdev",
			       disk->bdev_name, "socket", disk->path, "segment_bytes",
			       (json_int_t)disk->segment_bytes, "max_queues", (int)disk->max_queues,
			       "sharing", sharing_names[disk->sharing], "way", name_way(disk),
			       "readonly", disk->readonly, "shared", disk->shared);

	json_object_update_new(to, json_pack("{s:I,s:I,s:o,s:s,s:s?,s:i,s:i}", "uid",
					     (json_int_t)disk->uid, "gid", (json_int_t)disk->gid,
					     "mode", octal(disk->mode), "state", name_state(disk),
					     "layout", connected ? c->layout->protocol : NULL,
					     "queues", connected ? (int)c->nr_queues : 0,
					     "ring_pages", connected ? (int)c->ring_pages : 0));
	json_object_update_new(to, json_pack("{s:o,s:i,s:I,s:s?}", "ids", list_ids(disk), "vectors",
					     (int)(1 + disk->max_queues), "sectors",
					     disk->bdev ? (json_int_t)(bdev_get_size(disk->bdev) /
								       BLKIF_SECTOR_SIZE)
							: (json_int_t)0,
					     "error", disk->error[0] ? disk->error : NULL));
	return to;
}

json_t *sivshm_door_list(struct sivshm_door *d)
{
	json_t *list = json_array();
	struct list *pos;

	list_for_each (pos, &d->disks)
		json_array_append_new(list, list_disk(disk_at(pos)));
	return list;
}

static void set_if(json_t *to, bool given, const char *key, json_t *value)
{
	if (given)
		json_object_set_new(to, key, value);
	else
		json_decref(value);
}

json_t *sivshm_door_config(const struct sivshm_door *d)
{
	json_t *list = json_array();
	struct list *pos;

	list_for_each (pos, &d->disks) {
		const struct sivshm_disk *disk = disk_at(pos);
		json_t *to;

		if (disk->removing)
			continue;
		to = json_pack("{s:s,s:s,s:I}", "name", disk->name, "bdev", disk->bdev_name,
			       "segment_size", (json_int_t)disk->segment_bytes);
		set_if(to, disk->queues_given, "max_queues", json_integer(disk->max_queues));
		set_if(to, disk->sharing != SIVSHM_DOOR_SHARING_AUTO, "sharing",
		       json_string(sharing_names[disk->sharing]));
		set_if(to, disk->readonly, "readonly", json_true());
		set_if(to, disk->shared, "shared", json_true());
		set_if(to, disk->path_given, "socket", json_string(disk->path));
		set_if(to, disk->uid != (int64_t)geteuid(), "uid",
		       json_integer((json_int_t)disk->uid));
		set_if(to, disk->gid != -1, "gid", json_integer((json_int_t)disk->gid));
		set_if(to, disk->mode != 0600, "mode", octal(disk->mode));
		json_array_append_new(list, to);
	}
	return list;
}

void sivshm_door_stats(struct sivshm_door *d, void (*done)(void *arg, json_t *stats), void *arg)
{
	struct blkif_gather *g = blkif_gather_begin(done, arg);
	struct list *pos;

	if (!g)
		return;
	list_for_each (pos, &d->disks) {
		struct sivshm_disk *disk = disk_at(pos);
		bool connected =
			disk->phase == SIVSHM_DISK_SERVING || disk->phase == SIVSHM_DISK_STOPPING;

		blkif_gather_disk(
			g, json_pack("{s:s,s:s}", "worker", disk->name, "bdev", disk->bdev_name),
			&disk->guest, &disk->past, connected ? disk->rings : NULL);
	}
	blkif_gather_end(g);
}
