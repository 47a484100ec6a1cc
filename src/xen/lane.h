/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lane: what one reactor has for Xen's queues: an engine, grant copies and mappings for its share,
 * event channels.
 */
#ifndef SLUICE_XEN_LANE_H
#define SLUICE_XEN_LANE_H

#include "base/err.h"
#include "blkif/share.h"
#include "grant/copy.h"
#include "grant/map.h"
#include "reactor/reactor.h"
#include "xen/events.h"

struct blkif_engine;

struct xen_lane {
	struct reactor *reactor;
	struct share share;
	struct grant_copier *copier;
	struct grant_mapper *mapper;
	struct xen_events *events;
	struct blkif_engine *engine;
};

/* Makes the lane of @r, which is not running yet, and starts it. Returns 0 or a negative errno. */
int xen_lane_init(struct xen_lane *lane, struct reactor *r, size_t bounce_pages, struct err *err);
/* The reactor has stopped. */
void xen_lane_fini(struct xen_lane *lane);

#endif
