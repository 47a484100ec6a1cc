/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What listings and statistics say of disks, as JSON: see vbd_get_vbds and vbd_get_iostat in
 * sluiced(8).  Figures of a connected disk are copied by its reactors and put together here.
 */
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "xen/connection.h"
#include "xen/internal.h"
#include "xen/vbd.h"
#include "xen/vdev.h"

/* What a list and statistics say of a disk to name it. */
static json_t *name_disk(struct xen_backend *be, const struct vbd *v)
{
	char path[STORE_PATH_MAX], vdev[32];
	json_t *disk;
	char *name;

	snprintf(path, sizeof(path), "/local/domain/%u", v->domid);
	name = store_read(&be->store, path, "name");
	if (name)
		parse_make_printable(name);
	vdev_format(v->devid, vdev, sizeof(vdev));
	disk = json_pack("{s:i,s:s,s:I,s:s,s:s}", "domid", (int)v->domid, "domain",
			 name ? name : "", "devid", (json_int_t)v->devid, "vdev", vdev, "bdev",
			 v->want.bdev);
	free(name);
	return disk;
}

/* Why requests wait, for a person; NULL if none does. */
static json_t *describe_waiting(const struct vbd *v)
{
	char on_error[24];

	if (v->moving)
		return json_sprintf("until the domain that it moves from lets go of bdev %s",
				    v->want.bdev);
	if (!v->trouble)
		return json_null();
	target_format_on_error(&v->want, on_error, sizeof(on_error));
	return json_sprintf("the device fails (%s): %s", strerror(-v->trouble),
			    v->want.on_error == BLKIF_ERROR_STOP
				    ? "stopped; mend it, then 'sluice resume'"
				    : "requests are tried again");
}

/* What sharing comes to, and (auto, where devices reach pages) from how many bytes on it maps. */
static json_t *describe_sharing(const struct vbd *v, enum blkif_sharing sharing)
{
	static const char *const names[] = {
		[BLKIF_SHARE_COPY] = "copy",          [BLKIF_SHARE_MAP] = "map",
		[BLKIF_SHARE_PERSISTENT] = "map",     [BLKIF_SHARE_DMA] = "dma",
		[BLKIF_SHARE_DMA_PERSISTENT] = "dma",
	};
	bool chosen = sharing == BLKIF_SHARE_DMA && v->want.sharing == TARGET_SHARING_AUTO;

	return json_pack("{s:s,s:b,s:o}", "sharing",
			 chosen ? target_sharing_name(v->want.sharing) : names[sharing],
			 "persistent",
			 sharing == BLKIF_SHARE_PERSISTENT || sharing == BLKIF_SHARE_DMA_PERSISTENT,
			 "map_from",
			 chosen ? json_integer((json_int_t)vbd_get_dma_from(v)) : json_null());
}

static json_t *list_disk(struct xen_backend *be, const struct vbd *v)
{
	const struct connection_keys *keys = v->conn ? connection_get_keys(v->conn) : NULL;
	enum blkif_sharing sharing = vbd_get_sharing(v, keys && keys->persistent);
	json_t *disk = name_disk(be, v);
	char on_error[24];

	target_format_on_error(&v->want, on_error, sizeof(on_error));
	json_object_update_new(disk,
			       json_pack("{s:s,s:b,s:b,s:s,s:s,s:s?,s:s?,s:i}", "backend", v->kind,
					 "readonly", v->readonly, "shared", v->want.shared, "state",
					 xenbus_state_name(v->state), "frontend_state",
					 xenbus_state_name(v->frontend_state), "protocol",
					 keys ? keys->layout->protocol : NULL, "error",
					 v->error[0] ? v->error : NULL, "queues",
					 v->phase == VBD_SERVING ? (int)keys->nr_queues : 0));
	json_object_update_new(disk, describe_sharing(v, sharing));
	json_object_update_new(
		disk, json_pack("{s:s,s:b,s:o,s:{s:I,s:I},s:I}", "on_error", on_error, "paused",
				v->paused, "waiting", describe_waiting(v), "limits",
				"rw_ios_per_sec", (json_int_t)v->ios_per_sec, "rw_bytes_per_sec",
				(json_int_t)v->bytes_per_sec, "sectors",
				v->bdev ? (json_int_t)(bdev_get_size(v->bdev) / BLKIF_SECTOR_SIZE)
					: (json_int_t)0));
	return disk;
}

json_t *xen_backend_list(struct xen_backend *be)
{
	json_t *list = json_array();
	struct list *pos;

	list_for_each (pos, &be->vbds)
		json_array_append_new(list, list_disk(be, list_entry(pos, struct vbd, node)));
	return list;
}

/* One request for statistics: a call to each connection, and the list when all are back. */
struct gather {
	unsigned waiting;
	json_t *list;
	void (*done)(void *arg, json_t *stats);
	void *arg;
};

struct gather_one {
	struct gather *gather;
	const struct vbd *vbd; /* it outlives its connection's call */
	json_t *disk;          /* borrowed from the list */
	struct blkif_stats sum;
};

static json_t *way_json(const struct blkif_way_stats *w)
{
	return json_pack("{s:I,s:I}", "requests", (json_int_t)w->requests, "bytes",
			 (json_int_t)w->bytes);
}

static json_t *kind_json(const struct blkif_kind_stats *k)
{
	const struct hist *h = &k->latency;

	return json_pack("{s:I,s:I,s:I,s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I}}", "requests",
			 (json_int_t)k->requests, "bytes", (json_int_t)k->bytes, "errors",
			 (json_int_t)k->errors, "latency_ns", "avg",
			 (json_int_t)(h->count ? h->sum_ns / h->count : 0), "p50",
			 (json_int_t)hist_percentile(h, 500000), "p90",
			 (json_int_t)hist_percentile(h, 900000), "p99",
			 (json_int_t)hist_percentile(h, 990000), "p999",
			 (json_int_t)hist_percentile(h, 999000), "p9999",
			 (json_int_t)hist_percentile(h, 999900), "max", (json_int_t)h->max_ns);
}

/* The same for a disk and for each of its queues. */
static void fill(json_t *to, const struct blkif_stats *stats)
{
	static const char *const kinds[BLKIF_KINDS] = {"read", "write", "flush", "discard"};

	for (unsigned i = 0; i < BLKIF_KINDS; i++)
		json_object_set_new(to, kinds[i], kind_json(&stats->kinds[i]));
	json_object_set_new(to, "shared_by",
			    json_pack("{s:o,s:o,s:o}", "copy",
				      way_json(&stats->ways[BLKIF_WAY_COPY]), "map",
				      way_json(&stats->ways[BLKIF_WAY_MAP]), "dma",
				      way_json(&stats->ways[BLKIF_WAY_DMA])));
	json_object_update_new(
		to, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "in_flight",
			      (json_int_t)stats->in_flight, "invalid", (json_int_t)stats->invalid,
			      "share_errors", (json_int_t)stats->share_errors, "parked",
			      (json_int_t)stats->parked, "throttled", (json_int_t)stats->throttled,
			      "starved", (json_int_t)stats->starved));
	json_object_set_new(to, "notifications",
			    json_pack("{s:I,s:I,s:I}", "sent", (json_int_t)stats->notified,
				      "received", (json_int_t)stats->rung, "received_empty",
				      (json_int_t)stats->rung_empty));
	json_object_set_new(to, "memory",
			    json_pack("{s:I,s:I,s:I,s:I}", "bounce_pages",
				      (json_int_t)stats->bounce_pages, "mapped_pages",
				      (json_int_t)stats->mapped_pages, "map_hits",
				      (json_int_t)stats->map_hits, "map_misses",
				      (json_int_t)stats->map_misses));
}

static json_int_t used(const struct blkif_quota *q)
{
	return (json_int_t)atomic_load_explicit(&q->used, memory_order_relaxed);
}

static void fill_disk(json_t *disk, const struct vbd *v, const struct blkif_stats *sum,
		      json_t *queues)
{
	const struct blkif_guest *g = &v->guest->share;

	fill(disk, sum);
	json_object_set_new(disk, "guest",
			    json_pack("{s:I,s:I,s:I,s:I}", "bounce_pages", used(&g->bounce),
				      "bounce_pages_max", (json_int_t)g->bounce.max, "mapped_pages",
				      used(&g->maps), "mapped_pages_max", (json_int_t)g->maps.max));
	json_object_set_new(disk, "queues", queues);
}

static void gather_finish(struct gather *g)
{
	if (--g->waiting)
		return;
	g->done(g->arg, g->list);
	free(g);
}

static void gather_one_done(void *arg, const struct blkif_stats *queues, unsigned nr)
{
	struct gather_one *one = arg;
	struct gather *g = one->gather;
	json_t *list = json_array();

	for (unsigned n = 0; n < nr; n++) {
		const struct reactor *r = connection_get_reactor(one->vbd->conn, n);
		json_t *queue = json_pack("{s:i,s:s}", "queue", (int)n, "reactor", reactor_name(r));

		fill(queue, &queues[n]);
		json_array_append_new(list, queue);
		blkif_stats_add(&one->sum, &queues[n]);
	}
	fill_disk(one->disk, one->vbd, &one->sum, list);
	free(one);
	gather_finish(g);
}

/* Asks the disk's queues; false: there are none, or there is no memory. */
static bool gather_disk(struct gather *g, const struct vbd *v, json_t *disk)
{
	bool connected = v->phase == VBD_SERVING || v->phase == VBD_STOPPING;
	struct gather_one *one = connected ? calloc(1, sizeof(*one)) : NULL;

	if (!one)
		return false;
	*one = (struct gather_one){.gather = g, .vbd = v, .disk = disk, .sum = v->past};
	if (connection_get_stats(v->conn, gather_one_done, one)) {
		free(one);
		return false;
	}
	g->waiting++;
	return true;
}

void xen_backend_stats(struct xen_backend *be, void (*done)(void *arg, json_t *stats), void *arg)
{
	struct gather *g = calloc(1, sizeof(*g));
	struct list *pos;

	if (!g) {
		done(arg, NULL);
		return;
	}
	*g = (struct gather){.waiting = 1, .list = json_array(), .done = done, .arg = arg};
	list_for_each (pos, &be->vbds) {
		const struct vbd *v = list_entry(pos, struct vbd, node);
		json_t *disk = name_disk(be, v);

		json_array_append_new(g->list, disk);
		if (!gather_disk(g, v, disk))
			fill_disk(disk, v, &v->past, json_array());
	}
	gather_finish(g);
}
