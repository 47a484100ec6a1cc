/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/lane.h"

#include <errno.h>
#include <string.h>

#include "blkif/engine.h"

static void add_copy(struct share *s, const struct share_piece *piece, bool to_guest)
{
	struct grant_copy copy = {
		.domid = (uint16_t)piece->peer,
		.to_guest = to_guest,
		.ref = piece->ref,
		.offset = piece->offset,
		.len = piece->len,
		.local = piece->local,
		.status = piece->status,
	};

	grant_copier_add(container_of(s, struct xen_lane, share)->copier, &copy);
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
	grant_copier_flush(container_of(s, struct xen_lane, share)->copier);
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

static const struct share_ops share_ops = {
	.copy_in = share_copy_in,
	.copy_out = share_copy_out,
	.flush = share_flush,
	.map = share_map,
	.unmap = share_unmap,
};

int xen_lane_init(struct xen_lane *lane, struct reactor *r, size_t bounce_pages, struct err *err)
{
	int rc;

	memset(lane, 0, sizeof(*lane));
	lane->reactor = r;
	lane->share.ops = &share_ops;
	rc = grant_copier_create(&lane->copier, err);
	if (rc)
		return rc;
	rc = grant_mapper_create(&lane->mapper, err);
	if (rc)
		goto no_mapper;
	rc = xen_events_create(r, &lane->events, err);
	if (rc)
		goto no_events;
	rc = blkif_engine_create(r, &lane->share, bounce_pages, &lane->engine);
	if (rc) {
		err_set(err, rc, "cannot get %zu bounce pages for a reactor: %s", bounce_pages,
			strerror(-rc));
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
	grant_mapper_destroy(lane->mapper);
	grant_copier_destroy(lane->copier);
}
