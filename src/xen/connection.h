/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * connection: a domain's rings, mapped from its grants, with event channels for doorbells.
 *
 * This is what Xen has to say about a frontend's rings; queues, and how they are started and
 * stopped, are blkif/connection.h's.
 */
#ifndef SLUICE_XEN_CONNECTION_H
#define SLUICE_XEN_CONNECTION_H

#include <xengnttab.h>

#include "blkif/connection.h"
#include "xen/lane.h"

enum {
	CONNECTION_MAX_QUEUES = BLKIF_MAX_QUEUES,
	CONNECTION_MAX_RING_ORDER = 4,
};

/* What the frontend negotiated. */
struct connection_keys {
	const struct blkif_layout *layout;
	unsigned nr_queues;  /* 1 to CONNECTION_MAX_QUEUES */
	unsigned ring_pages; /* of each queue: a power of two up to BLKIF_MAX_RING_PAGES */
	bool persistent;     /* it keeps its grants, and uses them again */
	struct connection_queue_keys {
		uint32_t ring_refs[BLKIF_MAX_RING_PAGES];
		uint32_t event_channel;
	} queues[CONNECTION_MAX_QUEUES];
};

struct connection;

struct connection_opts {
	struct xen_lane *lanes;
	unsigned nr_lanes;
	unsigned first_lane; /* of the first queue; the others follow on the next ones */
	xengnttab_handle *gnttab;
	const struct connection_keys *keys; /* copied */
	/* ops, ctx and nr_queues are filled in, and of the queues what the keys say. */
	struct blkif_connection_opts rings;
};

/* Opens it; nothing is served yet. Returns 0 and *@out, or a negative errno with the reason. */
int connection_create(const struct connection_opts *opts, struct connection **out, struct err *err);
/* Unbinds and unmaps. */
void connection_destroy(struct connection *c);

/* Its rings, to be started, stopped and asked. */
struct blkif_connection *connection_get_rings(const struct connection *c);
/* What it was created for. */
const struct connection_keys *connection_get_keys(const struct connection *c);
/* Whether those are @keys, too. */
bool connection_has_keys(const struct connection *c, const struct connection_keys *keys);

#endif
