/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to src/xen: the backend as its disks see it. */
#ifndef SLUICE_XEN_INTERNAL_H
#define SLUICE_XEN_INTERNAL_H

#include <xengnttab.h>

#include "bdev/bdev.h"
#include "blkif/guest.h"
#include "xen/backend.h"
#include "xen/lane.h"
#include "xen/store.h"

/* A domain that has disks of ours, and what they share. */
struct xen_guest {
	struct list node;
	uint32_t domid;
	char *vm; /* which virtual machine it is, as the toolstack says; NULL: unknown */
	unsigned disks;
	struct blkif_guest share;
};

struct xen_backend {
	struct xen_backend_opts opts;
	struct store store;
	uint32_t self; /* our domain's id */
	xengnttab_handle *gnttab;
	struct xen_lane *lanes;
	bool can_dma; /* the lanes map for devices */
	unsigned next_lane;
	uint32_t map_from; /* see xen_backend_set_map_from() */
	bool map_from_known;
	struct bdev_observer observer;
	struct reactor_fd xs_fd;
	struct reactor_timer retry; /* for disks that wait for what no watch tells */
	uint64_t retry_at_ns;       /* 0: it does not run */
	struct list vbds;
	struct list guests;
	bool rescan; /* something above the devices has changed: look for new ones */
	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* The domain's entry, made if need be (NULL without memory), for one more disk; and one less. */
struct xen_guest *xen_backend_get_guest(struct xen_backend *be, uint32_t domid);
void xen_backend_put_guest(struct xen_guest *g);
/*
 * Whether @b is held only by disks of other domains that are the same virtual machine as @v's: ones
 * that it is being moved from.
 */
bool xen_backend_is_moving(struct xen_backend *be, const struct bdev *b, const struct vbd *v);
/* Whether another disk than @v waits for that bdev in this way: then it is nobody else's. */
bool xen_backend_is_reserved(struct xen_backend *be, const char *bdev, const struct vbd *v);
/*
 * Whether @b's data can be shared as the target says. Returns 0, or -EOPNOTSUPP with the remedy.
 */
int xen_backend_check_sharing(const struct xen_backend *be, const struct bdev *b,
			      const struct target *t, struct err *err);
/* Disks that wait for a bdev may be luckier now. */
void xen_backend_bdev_is_free(struct xen_backend *be);
/* A vbd's connection has ended during a drain. */
void xen_backend_vbd_stopped(struct xen_backend *be);
/* Looks at the device, which may be new. */
void xen_backend_meet(struct xen_backend *be, const char *kind, uint32_t domid, uint32_t devid);
/* Comes back to dirty disks @delay_ns from now, or sooner if that was wanted already. */
void xen_backend_retry_later(struct xen_backend *be, uint64_t delay_ns);

#endif
