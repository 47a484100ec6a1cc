/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libxenevtchn's double.
 *
 * A port is the pair of flags that Xen and the evtchn driver make of it together: `pending` is an
 * event that nobody was told of yet, `masked` is set by the telling and cleared by unmask.  Telling
 * means to queue the port on its handle and to make the handle's descriptor readable, or to wake a
 * guest's waiter.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <xenevtchn.h>

#include "internal.h"

enum { QUEUE_LEN = 4 * DOUBLE_PORTS };

struct xenevtchn_handle {
	struct list node;
	int fd;
	uint32_t queue[QUEUE_LEN];
	unsigned head; /* both run freely */
	unsigned tail;
};

pthread_mutex_t double_evtchn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t delivered;
static struct list handles = LIST_INIT(handles);
static uint64_t notifies;
static uint64_t notifies_dropped;

void double_evtchn_init(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&delivered, &attr);
	pthread_condattr_destroy(&attr);
	list_init(&handles);
	notifies = 0;
	notifies_dropped = 0;
}

static void deliver(struct double_port *p, uint32_t port)
{
	struct xenevtchn_handle *xce = p->owner;
	uint64_t one = 1;

	if (!p->pending || p->masked)
		return;
	if (xce) {
		if (xce->tail - xce->head >= QUEUE_LEN)
			double_abort("event queue overflow");
		p->pending = false;
		p->masked = true;
		xce->queue[xce->tail++ % QUEUE_LEN] = port;
		if (write(xce->fd, &one, sizeof(one)) < 0)
			double_abort("eventfd: %s", strerror(errno));
	}
	pthread_cond_broadcast(&delivered);
}

static void set_pending(struct double_domain *d, uint32_t port)
{
	d->ports[port].pending = true;
	deliver(&d->ports[port], port);
}

static uint32_t alloc_port(struct double_domain *d)
{
	for (uint32_t port = 1; port < DOUBLE_PORTS; port++) {
		if (d->ports[port].state == DOUBLE_PORT_FREE) {
			memset(&d->ports[port], 0, sizeof(d->ports[port]));
			return port;
		}
	}
	return 0;
}

/* The other end of a connected port, or NULL. */
static struct double_port *other_end(struct double_port *p, struct double_domain **d)
{
	if (p->state != DOUBLE_PORT_INTERDOMAIN)
		return NULL;
	*d = double_find_domain(p->remote_domid);
	return *d ? &(*d)->ports[p->remote_port] : NULL;
}

static void close_port(struct double_domain *d, uint32_t port)
{
	struct double_port *p = &d->ports[port];
	struct double_domain *other_domain;
	struct double_port *other = other_end(p, &other_domain);

	if (other) {
		other->state = DOUBLE_PORT_UNBOUND;
		other->remote_domid = d->id;
		other->remote_port = 0;
	}
	p->state = DOUBLE_PORT_FREE;
	p->owner = NULL;
}

static void notify_port(struct double_port *p)
{
	struct double_domain *other_domain;
	struct double_port *other = other_end(p, &other_domain);

	if (!other)
		return;
	other->received++;
	set_pending(other_domain, p->remote_port);
}

/* The library */

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
	xenevtchn_handle *xce;

	if (double_fails(DOUBLE_EVTCHN_OPEN, NULL))
		return NULL;
	xce = calloc(1, sizeof(*xce));
	if (!xce)
		return NULL;
	xce->fd = eventfd(0, EFD_CLOEXEC);
	if (xce->fd < 0)
		double_abort("eventfd: %s", strerror(errno));
	pthread_mutex_lock(&double_evtchn_lock);
	list_add_tail(&handles, &xce->node);
	pthread_mutex_unlock(&double_evtchn_lock);
	return xce;
}

int xenevtchn_close(xenevtchn_handle *xce)
{
	struct double_domain *dom0 = double_get_domain(0);

	if (!xce)
		return 0;
	pthread_mutex_lock(&double_evtchn_lock);
	for (uint32_t port = 1; port < DOUBLE_PORTS; port++)
		if (dom0->ports[port].state != DOUBLE_PORT_FREE && dom0->ports[port].owner == xce)
			close_port(dom0, port);
	list_del(&xce->node);
	pthread_mutex_unlock(&double_evtchn_lock);
	close(xce->fd);
	free(xce);
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
	return xce->fd;
}

/* The handle's port, or NULL with errno as the driver sets it. */
static struct double_port *own_port(xenevtchn_handle *xce, struct double_domain *dom0,
				    evtchn_port_t port)
{
	if (port >= DOUBLE_PORTS || dom0->ports[port].state == DOUBLE_PORT_FREE ||
	    dom0->ports[port].owner != xce) {
		errno = ENOTCONN;
		return NULL;
	}
	return &dom0->ports[port];
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	struct double_domain *dom0 = double_get_domain(0);
	struct double_port *p;

	pthread_mutex_lock(&double_evtchn_lock);
	p = own_port(xce, dom0, port);
	if (p) {
		notifies++;
		notifies_dropped += p->state == DOUBLE_PORT_UNBOUND;
		notify_port(p);
	}
	pthread_mutex_unlock(&double_evtchn_lock);
	return p ? 0 : -1;
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *xce, uint32_t domid)
{
	struct double_domain *dom0 = double_get_domain(0);
	uint32_t port;

	if (double_fails(DOUBLE_EVTCHN_BIND, NULL))
		return -1;
	pthread_mutex_lock(&double_evtchn_lock);
	port = alloc_port(dom0);
	if (port) {
		dom0->ports[port].state = DOUBLE_PORT_UNBOUND;
		dom0->ports[port].remote_domid = domid;
		dom0->ports[port].owner = xce;
	}
	pthread_mutex_unlock(&double_evtchn_lock);
	if (!port) {
		errno = ENOSPC;
		return -1;
	}
	return (xenevtchn_port_or_error_t)port;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid,
						     evtchn_port_t remote_port)
{
	struct double_domain *dom0 = double_get_domain(0);
	struct double_domain *remote = double_find_domain(domid);
	struct double_port *other;
	uint32_t port = 0;

	if (double_fails(DOUBLE_EVTCHN_BIND, NULL))
		return -1;
	if (!remote) {
		errno = ESRCH;
		return -1;
	}
	pthread_mutex_lock(&double_evtchn_lock);
	other = remote_port && remote_port < DOUBLE_PORTS ? &remote->ports[remote_port] : NULL;
	if (!other || other->state != DOUBLE_PORT_UNBOUND || other->remote_domid != 0) {
		errno = EINVAL;
		goto out;
	}
	port = alloc_port(dom0);
	if (!port) {
		errno = ENOSPC;
		goto out;
	}
	dom0->ports[port].state = DOUBLE_PORT_INTERDOMAIN;
	dom0->ports[port].remote_domid = domid;
	dom0->ports[port].remote_port = remote_port;
	dom0->ports[port].owner = xce;
	other->state = DOUBLE_PORT_INTERDOMAIN;
	other->remote_port = port;
	/* What was sent before somebody listened is lost, so Xen always delivers one event now. */
	set_pending(dom0, port);
out:
	pthread_mutex_unlock(&double_evtchn_lock);
	return port ? (xenevtchn_port_or_error_t)port : -1;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	struct double_domain *dom0 = double_get_domain(0);
	struct double_port *p;

	pthread_mutex_lock(&double_evtchn_lock);
	p = own_port(xce, dom0, port);
	/* A port that is already queued stays queued, as in the driver. */
	if (p)
		close_port(dom0, port);
	pthread_mutex_unlock(&double_evtchn_lock);
	return p ? 0 : -1;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	xenevtchn_port_or_error_t port = -1;
	uint64_t ignored;

	pthread_mutex_lock(&double_evtchn_lock);
	while (xce->head == xce->tail) {
		if (fcntl(xce->fd, F_GETFL) & O_NONBLOCK) {
			errno = EAGAIN;
			goto out;
		}
		pthread_cond_wait(&delivered, &double_evtchn_lock);
	}
	port = (xenevtchn_port_or_error_t)xce->queue[xce->head++ % QUEUE_LEN];
	if (xce->head == xce->tail && read(xce->fd, &ignored, sizeof(ignored)) < 0)
		double_abort("eventfd: %s", strerror(errno));
out:
	pthread_mutex_unlock(&double_evtchn_lock);
	return port;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	struct double_domain *dom0 = double_get_domain(0);
	struct double_port *p;

	pthread_mutex_lock(&double_evtchn_lock);
	p = own_port(xce, dom0, port);
	if (p) {
		p->masked = false;
		deliver(p, port);
	}
	pthread_mutex_unlock(&double_evtchn_lock);
	return 0; /* the driver ignores ports that are not the caller's */
}

/* The guests' side */

uint32_t double_evtchn_alloc(unsigned domid, unsigned remote)
{
	struct double_domain *d = double_get_domain(domid);
	uint32_t port;

	pthread_mutex_lock(&double_evtchn_lock);
	port = alloc_port(d);
	if (!port)
		double_abort("domain %u has no port left", domid);
	d->ports[port].state = DOUBLE_PORT_UNBOUND;
	d->ports[port].remote_domid = remote;
	pthread_mutex_unlock(&double_evtchn_lock);
	return port;
}

static struct double_port *guest_port(struct double_domain *d, uint32_t port)
{
	if (port >= DOUBLE_PORTS || d->ports[port].state == DOUBLE_PORT_FREE)
		double_abort("domain %u has no port %u", d->id, port);
	return &d->ports[port];
}

void double_evtchn_close(unsigned domid, uint32_t port)
{
	struct double_domain *d = double_get_domain(domid);

	pthread_mutex_lock(&double_evtchn_lock);
	guest_port(d, port);
	close_port(d, port);
	pthread_mutex_unlock(&double_evtchn_lock);
}

void double_evtchn_notify(unsigned domid, uint32_t port)
{
	struct double_domain *d = double_find_domain(domid);

	/* A load generator may run on for a moment after its domain was destroyed. */
	if (!d)
		return;
	pthread_mutex_lock(&double_evtchn_lock);
	if (d->ports[port].state != DOUBLE_PORT_FREE)
		notify_port(&d->ports[port]);
	pthread_mutex_unlock(&double_evtchn_lock);
}

bool double_evtchn_wait(unsigned domid, uint32_t port, unsigned timeout_ms)
{
	struct double_domain *d = double_find_domain(domid);
	struct timespec until;
	bool came;

	if (!d)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&double_evtchn_lock);
	while (!d->ports[port].pending &&
	       !pthread_cond_timedwait(&delivered, &double_evtchn_lock, &until))
		;
	came = d->ports[port].pending;
	d->ports[port].pending = false;
	pthread_mutex_unlock(&double_evtchn_lock);
	return came;
}

uint64_t double_evtchn_received(unsigned domid, uint32_t port)
{
	struct double_domain *d = double_get_domain(domid);
	uint64_t received;

	pthread_mutex_lock(&double_evtchn_lock);
	received = d->ports[port].received;
	pthread_mutex_unlock(&double_evtchn_lock);
	return received;
}

bool double_evtchn_is_bound(unsigned domid, uint32_t port)
{
	struct double_domain *d = double_get_domain(domid);
	bool bound;

	pthread_mutex_lock(&double_evtchn_lock);
	bound = d->ports[port].state == DOUBLE_PORT_INTERDOMAIN;
	pthread_mutex_unlock(&double_evtchn_lock);
	return bound;
}

void double_evtchn_close_domain(struct double_domain *d)
{
	pthread_mutex_lock(&double_evtchn_lock);
	for (uint32_t port = 1; port < DOUBLE_PORTS; port++)
		if (d->ports[port].state != DOUBLE_PORT_FREE)
			close_port(d, port);
	pthread_mutex_unlock(&double_evtchn_lock);
}

unsigned double_evtchn_leaks(void)
{
	struct double_domain *dom0 = double_get_domain(0);
	unsigned leaks = 0;
	struct list *pos;

	pthread_mutex_lock(&double_evtchn_lock);
	list_for_each (pos, &handles)
		leaks += double_leak("an open event channel handle");
	for (uint32_t port = 1; port < DOUBLE_PORTS; port++)
		if (dom0->ports[port].state != DOUBLE_PORT_FREE && dom0->ports[port].owner)
			leaks += double_leak("event channel %u", port);
	pthread_mutex_unlock(&double_evtchn_lock);
	return leaks;
}

void double_evtchn_add_stats(struct double_stats *stats)
{
	pthread_mutex_lock(&double_evtchn_lock);
	stats->notifies = notifies;
	stats->notifies_dropped = notifies_dropped;
	pthread_mutex_unlock(&double_evtchn_lock);
}
