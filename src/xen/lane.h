/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lane: what one reactor has for Xen's queues: an engine, grant copies and mappings (for the CPU
 * and, where there is a ledger for them, for devices) for its share, event channels.
 */
#ifndef SLUICE_XEN_LANE_H
#define SLUICE_XEN_LANE_H

#include "base/err.h"
#include "base/log.h"
#include "blkif/share.h"
#include "grant/copy.h"
#include "grant/device.h"
#include "grant/map.h"
#include "reactor/reactor.h"
#include "xen/events.h"

struct blkif_engine;
struct grant_ledger;

struct xen_lane_opts {
	size_t bounce_pages;
	/*
	 * Of what it maps for devices; NULL: nothing. Nor is anything where that cannot be done,
	 * which the log then says.
	 */
	struct grant_ledger *ledger;
	/* As many as are mapped for devices, whosever pages, guests get no more. */
	uint32_t device_maps;
};

struct xen_lane {
	struct reactor *reactor;
	uint32_t device_maps;
	struct share share;
	struct log_limit log_limit;
	struct grant_copier *copier;
	struct grant_mapper *mapper;
	struct grant_device *device; /* NULL: nothing is mapped for devices */
	struct xen_events *events;
	struct blkif_engine *engine;
};

/* Makes the lane of @r, which is not running yet, and starts it. Returns 0 or a negative errno. */
int xen_lane_init(struct xen_lane *lane, struct reactor *r, const struct xen_lane_opts *opts,
		  struct err *err);
/* The reactor has stopped. */
void xen_lane_fini(struct xen_lane *lane);

#endif
