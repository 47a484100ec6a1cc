/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What listings and statistics say of disks, as JSON: see sluiced/vbd_rpc.h.  Figures of a
 * connected disk are copied by its reactors and put together here.
 */
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "blkif/report.h"
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

	return json_pack(
		"{s:s,s:b,s:o}", "sharing",
		chosen ? target_sharing_name(v->want.sharing) : names[sharing], "persistent",
		sharing == BLKIF_SHARE_PERSISTENT || sharing == BLKIF_SHARE_DMA_PERSISTENT,
		"map_from",
		chosen ? json_integer((json_int_t)vbd_get_dma_from(v, sharing)) : json_null());
}

static json_t *list_disk(struct xen_backend *be, const struct vbd *v)
{
	const struct connection_keys *keys = v->conn ? connection_get_keys(v->conn) : NULL;
	enum blkif_sharing sharing = vbd_get_sharing(v, v->bdev, keys && keys->persistent);
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

void xen_backend_stats(struct xen_backend *be, void (*done)(void *arg, json_t *stats), void *arg)
{
	struct blkif_gather *g = blkif_gather_begin(done, arg);
	struct list *pos;

	if (!g)
		return;
	list_for_each (pos, &be->vbds) {
		const struct vbd *v = list_entry(pos, struct vbd, node);
		bool connected = v->phase == VBD_SERVING || v->phase == VBD_STOPPING;

		blkif_gather_disk(g, name_disk(be, v), &v->guest->share, &v->past,
				  connected ? connection_get_rings(v->conn) : NULL);
	}
	blkif_gather_end(g);
}
