/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/lane.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "blkif/engine.h"

static void add_copy(struct share *s, const struct share_piece *piece, bool to_guest)
{
	struct xen_lane *lane = container_of(s, struct xen_lane, share);
	struct grant_copy copy = {
		.domid = (uint16_t)piece->peer,
		.to_guest = to_guest,
		.ref = piece->ref,
		.offset = piece->offset,
		.len = piece->len,
		.local = piece->local,
		/* Bus addresses are machine addresses where pages are mapped for devices. */
		.bus = lane->device ? piece->bus : 0,
		.status = piece->status,
	};

	grant_copier_add(lane->copier, &copy);
}

static void share_copy_in(struct share *s, const struct share_piece *piece)
{
	add_copy(s, piece, false);
}

static void share_copy_out(struct share *s, const struct share_piece *piece)
{
	add_copy(s, piece, true);
}

static void share_flush(struct share *s)
{
	struct xen_lane *lane = container_of(s, struct xen_lane, share);

	grant_copier_flush(lane->copier);
	if (lane->device)
		grant_device_flush(lane->device);
}

static void *share_map(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr,
		       bool writable)
{
	return grant_mapper_map(container_of(s, struct xen_lane, share)->mapper, (uint16_t)peer,
				refs, nr, writable);
}

static void share_unmap(struct share *s, void *addr, unsigned nr)
{
	grant_mapper_unmap(container_of(s, struct xen_lane, share)->mapper, addr, nr);
}

static void share_dma_map(struct share *s, uint32_t peer, uint32_t ref, bool writable,
			  struct dma_piece *piece)
{
	struct xen_lane *lane = container_of(s, struct xen_lane, share);

	if (grant_device_count(lane->device) < lane->device_maps) {
		grant_device_map(lane->device, (uint16_t)peer, ref, writable, &piece->bus,
				 &piece->handle);
		return;
	}
	piece->bus = DMA_NO_BUS;
	log_limited(&lane->log_limit, LOG_LEVEL_WARNING,
		    "%u pages are mapped for devices: guests get no more, and are copied (see "
		    "--device-maps)",
		    lane->device_maps);
}

static void share_dma_unmap(struct share *s, const struct dma_piece *piece)
{
	grant_device_unmap(container_of(s, struct xen_lane, share)->device,
			   piece->bus - piece->bus % DMA_PAGE_SIZE, piece->handle);
}

static const struct share_ops share_ops = {
	.copy_in = share_copy_in,
	.copy_out = share_copy_out,
	.flush = share_flush,
	.map = share_map,
	.unmap = share_unmap,
};

static const struct share_ops share_ops_with_dma = {
	.copy_in = share_copy_in,
	.copy_out = share_copy_out,
	.flush = share_flush,
	.map = share_map,
	.unmap = share_unmap,
	.dma_map = share_dma_map,
	.dma_unmap = share_dma_unmap,
};

static_assert(GRANT_NO_BUS == DMA_NO_BUS, "one value for both");

int xen_lane_init(struct xen_lane *lane, struct reactor *r, const struct xen_lane_opts *opts,
		  struct err *err)
{
	struct err no_dma;
	int rc;

	memset(lane, 0, sizeof(*lane));
	lane->reactor = r;
	lane->device_maps = opts->device_maps;
	lane->share.ops = &share_ops;
	rc = grant_copier_create(&lane->copier, err);
	if (rc)
		return rc;
	rc = grant_mapper_create(&lane->mapper, err);
	if (rc)
		goto no_mapper;
	if (opts->ledger && grant_device_create(opts->ledger, &lane->device, &no_dma))
		log_warning("nothing is mapped for devices: %s", no_dma.text);
	if (lane->device)
		lane->share.ops = &share_ops_with_dma;
	rc = xen_events_create(r, &lane->events, err);
	if (rc)
		goto no_events;
	rc = blkif_engine_create(r, &lane->share, opts->bounce_pages, &lane->engine);
	if (rc) {
		err_set(err, rc, "cannot get %zu bounce pages for a reactor: %s",
			opts->bounce_pages, strerror(-rc));
		goto no_engine;
	}
	rc = xen_events_start(lane->events);
	if (rc) {
		err_set(err, rc, "cannot listen to event channels: %s", strerror(-rc));
		goto no_start;
	}
	blkif_engine_start(lane->engine);
	return 0;
no_start:
	blkif_engine_destroy(lane->engine);
no_engine:
	xen_events_destroy(lane->events);
no_events:
	if (lane->device)
		grant_device_destroy(lane->device);
	grant_mapper_destroy(lane->mapper);
no_mapper:
	grant_copier_destroy(lane->copier);
	return rc;
}

void xen_lane_fini(struct xen_lane *lane)
{
	blkif_engine_stop(lane->engine);
	xen_events_stop(lane->events);
	blkif_engine_destroy(lane->engine);
	xen_events_destroy(lane->events);
	if (lane->device)
		grant_device_destroy(lane->device);
	grant_mapper_destroy(lane->mapper);
	grant_copier_destroy(lane->copier);
}
