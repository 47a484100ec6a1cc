/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct ring {
	struct xen_doorbell doorbell;
	void *pages;
};

struct connection {
	xengnttab_handle *gnttab;
	struct xen_lane *lanes;
	unsigned nr_lanes;
	unsigned first_lane;
	uint32_t domid;
	struct connection_keys keys;
	struct blkif_connection *rings;
	struct ring ring[];
};

static int open_ring(void *ctx, unsigned n, struct blkif_connection_ring *ring, struct err *err)
{
	struct connection *c = ctx;
	const struct connection_queue_keys *keys = &c->keys.queues[n];
	struct xen_lane *lane = &c->lanes[(c->first_lane + n) % c->nr_lanes];
	struct ring *r = &c->ring[n];
	int rc;

	r->pages = xengnttab_map_domain_grant_refs(c->gnttab, c->keys.ring_pages, c->domid,
						   (uint32_t *)keys->ring_refs,
						   PROT_READ | PROT_WRITE);
	if (!r->pages)
		return err_set(err, -errno, "cannot map the ring at reference %u: %s",
			       keys->ring_refs[0], strerror(errno));
	rc = xen_events_bind(lane->events, c->domid, keys->event_channel, &r->doorbell);
	if (rc) {
		err_set(err, rc, "cannot bind event channel %u: %s", keys->event_channel,
			strerror(-rc));
		xengnttab_unmap(c->gnttab, r->pages, c->keys.ring_pages);
		return rc;
	}
	*ring = (struct blkif_connection_ring){
		.pages = r->pages,
		.doorbell = &r->doorbell.doorbell,
		.engine = lane->engine,
	};
	return 0;
}

static void close_ring(void *ctx, unsigned n)
{
	struct connection *c = ctx;

	xen_events_unbind(&c->ring[n].doorbell);
	xengnttab_unmap(c->gnttab, c->ring[n].pages, c->keys.ring_pages);
}

static int route(void *ctx, unsigned n, struct blkif_queue *q)
{
	struct connection *c = ctx;

	xen_events_route(&c->ring[n].doorbell, q);
	return 0;
}

static void unroute(void *ctx, unsigned n)
{
	struct connection *c = ctx;

	xen_events_unroute(&c->ring[n].doorbell);
}

static const struct blkif_connection_ops ops = {
	.open = open_ring,
	.close = close_ring,
	.route = route,
	.unroute = unroute,
};

int connection_create(const struct connection_opts *opts, struct connection **out, struct err *err)
{
	const struct connection_keys *keys = opts->keys;
	struct connection *c = calloc(1, sizeof(*c) + keys->nr_queues * sizeof(c->ring[0]));
	struct blkif_connection_opts rings = opts->rings;
	int rc;

	if (!c)
		return err_set(err, -ENOMEM, "no memory for a connection");
	c->gnttab = opts->gnttab;
	c->lanes = opts->lanes;
	c->nr_lanes = opts->nr_lanes;
	c->first_lane = opts->first_lane;
	c->domid = rings.queue.peer;
	c->keys = *keys;
	rings.ops = &ops;
	rings.ctx = c;
	rings.nr_queues = keys->nr_queues;
	rings.queue.layout = keys->layout;
	rings.queue.ring_nr = keys->ring_pages;
	rc = blkif_connection_create(&rings, &c->rings, err);
	if (rc)
		free(c);
	else
		*out = c;
	return rc;
}

void connection_destroy(struct connection *c)
{
	blkif_connection_destroy(c->rings);
	free(c);
}

struct blkif_connection *connection_get_rings(const struct connection *c)
{
	return c->rings;
}

const struct connection_keys *connection_get_keys(const struct connection *c)
{
	return &c->keys;
}

bool connection_has_keys(const struct connection *c, const struct connection_keys *keys)
{
	if (keys->layout != c->keys.layout || keys->nr_queues != c->keys.nr_queues ||
	    keys->ring_pages != c->keys.ring_pages || keys->persistent != c->keys.persistent)
		return false;
	for (unsigned n = 0; n < keys->nr_queues; n++) {
		const struct connection_queue_keys *a = &keys->queues[n], *b = &c->keys.queues[n];

		if (a->event_channel != b->event_channel ||
		    memcmp(a->ring_refs, b->ring_refs, keys->ring_pages * sizeof(uint32_t)))
			return false;
	}
	return true;
}
