/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lane: what one reactor has for Xen's queues: an engine, grant copies and mappings (for the CPU
 * and, where there is a ledger for them, for devices) for its share, event channels.
 */
#ifndef SLUICE_XEN_LANE_H
#define SLUICE_XEN_LANE_H

#include "base/err.h"
#include "blkif/share.h"
#include "grant/copy.h"
#include "grant/device.h"
#include "grant/map.h"
#include "reactor/reactor.h"
#include "xen/events.h"

struct blkif_engine;

struct xen_lane {
	struct reactor *reactor;
	struct share share;
	struct grant_copier *copier;
	struct grant_mapper *mapper;
	struct grant_device *device; /* NULL: nothing is mapped for devices */
	struct xen_events *events;
	struct blkif_engine *engine;
};

/*
 * Makes the lane of @r, which is not running yet, and starts it. @ledger: of what it maps for
 * devices, or NULL: nothing; nor is anything where that cannot be done, which the log then says.
 * Returns 0 or a negative errno.
 */
int xen_lane_init(struct xen_lane *lane, struct reactor *r, size_t bounce_pages,
		  struct grant_ledger *ledger, struct err *err);
/* The reactor has stopped. */
void xen_lane_fini(struct xen_lane *lane);

#endif
