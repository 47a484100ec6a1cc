/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <xenevtchn.h>

#include "blkif/queue.h"

enum {
	BUCKETS = 64,       /* of the table from ports to doorbells */
	PORTS_PER_READ = 64 /* then the reactor has other work first */
};

struct xen_events {
	struct reactor *reactor;
	xenevtchn_handle *handle;
	struct reactor_fd fd;
	struct list buckets[BUCKETS];
};

static struct xen_doorbell *find(struct xen_events *ev, uint32_t port)
{
	struct list *pos, *head = &ev->buckets[port % BUCKETS];

	list_for_each (pos, head) {
		struct xen_doorbell *d = list_entry(pos, struct xen_doorbell, node);

		if (d->port == port)
			return d;
	}
	return NULL;
}

static void events_ready(struct reactor_fd *f, uint32_t epoll_events)
{
	struct xen_events *ev = container_of(f, struct xen_events, fd);

	for (int i = 0; i < PORTS_PER_READ; i++) {
		xenevtchn_port_or_error_t port = xenevtchn_pending(ev->handle);
		struct xen_doorbell *d;

		if (port < 0)
			return;
		/* Without a route: its queue has not started, or has stopped; the port stays
		 * masked. */
		d = find(ev, (uint32_t)port);
		if (!d)
			continue;
		d->masked = true;
		blkif_queue_ring(d->queue);
	}
}

static void doorbell_notify(struct doorbell *base)
{
	struct xen_doorbell *d = container_of(base, struct xen_doorbell, doorbell);

	/* Fails only once the guest has closed its end: then nobody waits. */
	xenevtchn_notify(d->events->handle, d->port);
}

static void doorbell_arm(struct doorbell *base)
{
	struct xen_doorbell *d = container_of(base, struct xen_doorbell, doorbell);

	if (!d->masked)
		return;
	d->masked = false;
	xenevtchn_unmask(d->events->handle, d->port);
}

static const struct doorbell_ops doorbell_ops = {
	.notify = doorbell_notify,
	.arm = doorbell_arm,
};

int xen_events_create(struct reactor *r, struct xen_events **out, struct err *err)
{
	struct xen_events *ev = calloc(1, sizeof(*ev));
	int rc;

	if (!ev)
		return err_set(err, -ENOMEM, "no memory for event channels");
	ev->reactor = r;
	ev->handle = xenevtchn_open(NULL, 0);
	if (!ev->handle) {
		rc = -errno;
		free(ev);
		return err_set(
			err, rc,
			"cannot open /dev/xen/evtchn: %s (modprobe xen-evtchn, and run as root)",
			strerror(-rc));
	}
	ev->fd.fd = xenevtchn_fd(ev->handle);
	ev->fd.ready = events_ready;
	for (int i = 0; i < BUCKETS; i++)
		list_init(&ev->buckets[i]);
	/* Reading goes on until nothing is pending, and must not wait then. */
	if (fcntl(ev->fd.fd, F_SETFL, fcntl(ev->fd.fd, F_GETFL) | O_NONBLOCK) < 0) {
		rc = -errno;
		xen_events_destroy(ev);
		return err_set(err, rc, "cannot set up /dev/xen/evtchn: %s", strerror(-rc));
	}
	*out = ev;
	return 0;
}

void xen_events_destroy(struct xen_events *ev)
{
	xenevtchn_close(ev->handle);
	free(ev);
}

int xen_events_start(struct xen_events *ev)
{
	return reactor_fd_add(ev->reactor, &ev->fd, EPOLLIN);
}

void xen_events_stop(struct xen_events *ev)
{
	reactor_fd_del(ev->reactor, &ev->fd);
}

int xen_events_bind(struct xen_events *ev, uint32_t domid, uint32_t remote, struct xen_doorbell *d)
{
	xenevtchn_port_or_error_t port = xenevtchn_bind_interdomain(ev->handle, domid, remote);

	if (port < 0)
		return -errno;
	d->doorbell.ops = &doorbell_ops;
	d->events = ev;
	d->port = (uint32_t)port;
	/* It may have rung before it is routed: so the first arming unmasks in any case. */
	d->masked = true;
	d->queue = NULL;
	list_init(&d->node);
	return 0;
}

void xen_events_unbind(struct xen_doorbell *d)
{
	xenevtchn_unbind(d->events->handle, d->port);
}

void xen_events_route(struct xen_doorbell *d, struct blkif_queue *q)
{
	d->queue = q;
	list_add_tail(&d->events->buckets[d->port % BUCKETS], &d->node);
}

void xen_events_unroute(struct xen_doorbell *d)
{
	list_del(&d->node);
	d->queue = NULL;
}
