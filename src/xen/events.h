/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Event channels of one reactor: one descriptor for all its queues' ports, and the doorbells on
 * them.  A port that has rung stays masked until its queue arms it again, so that a frontend that
 * rings on gets nobody's attention.
 *
 * Binding belongs to the control thread (the kernel serialises it); all else to the reactor's.
 */
#ifndef SLUICE_XEN_EVENTS_H
#define SLUICE_XEN_EVENTS_H

#include "base/err.h"
#include "base/list.h"
#include "blkif/doorbell.h"
#include "reactor/reactor.h"

struct blkif_queue;
struct xen_events;

struct xen_doorbell {
	struct doorbell doorbell;
	/* private */
	struct xen_events *events;
	uint32_t port;
	bool masked;
	struct blkif_queue *queue;
	struct list node;
};

int xen_events_create(struct reactor *r, struct xen_events **out, struct err *err);
void xen_events_destroy(struct xen_events *ev);
/* Begins and ends listening; before the reactor runs, or on its thread. */
int xen_events_start(struct xen_events *ev);
void xen_events_stop(struct xen_events *ev);

/* Binds the frontend's port @remote of domain @domid to @d. Returns 0 or a negative errno. */
int xen_events_bind(struct xen_events *ev, uint32_t domid, uint32_t remote, struct xen_doorbell *d);
/* Gives the port back; the frontend's end can be bound again. @d is not routed any more. */
void xen_events_unbind(struct xen_doorbell *d);

/* From now on a ring of @d goes to @q, or (unroute) to nobody. */
void xen_events_route(struct xen_doorbell *d, struct blkif_queue *q);
void xen_events_unroute(struct xen_doorbell *d);

#endif
