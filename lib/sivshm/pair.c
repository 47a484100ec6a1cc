/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A port of eventfds: the manager's side of every worker, and a worker process's only one.
 *
 * That the other side is gone is seen at the socket of the handshake, which both keep open for
 * that: by its hanging up, since the manager's has been deaf from the beginning. The descriptor
 * given to callers is not the socket itself but an epoll set that waits for its end only: else
 * whoever writes garbage to the socket could pass for dead.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

static struct sivshm_pair *pair_of(struct sivshm_port *p)
{
	return SIVSHM_CONTAINER_OF(p, struct sivshm_pair, port);
}

static const struct sivshm_pair *const_pair_of(const struct sivshm_port *p)
{
	return SIVSHM_CONTAINER_OF(p, const struct sivshm_pair, port);
}

static int pair_ring(struct sivshm_port *p, unsigned vector)
{
	struct sivshm_pair *pair = pair_of(p);

	if (atomic_load_explicit(&pair->gone, memory_order_relaxed))
		return -EPIPE;
	return sivshm_ringer_ring(pair->ringer, pair->out[vector]);
}

static int pair_fd(const struct sivshm_port *p, unsigned vector)
{
	return const_pair_of(p)->in[vector];
}

static int pair_take(struct sivshm_port *p, unsigned vector)
{
	return sivshm_eventfd_take(pair_of(p)->in[vector]);
}

static int pair_wait(struct sivshm_port *p, unsigned vector, int timeout_ms)
{
	struct sivshm_pair *pair = pair_of(p);
	int rc = sivshm_eventfd_wait(pair->in[vector], pair->liveness, timeout_ms);

	if (rc == -EPIPE)
		atomic_store(&pair->gone, true);
	return rc;
}

static int pair_liveness_fd(const struct sivshm_port *p)
{
	return const_pair_of(p)->liveness;
}

static int pair_is_alive(struct sivshm_port *p)
{
	struct sivshm_pair *pair = pair_of(p);
	struct pollfd ended = {.fd = pair->liveness, .events = POLLIN};

	if (pair->socket >= 0 && poll(&ended, 1, 0) == 1)
		atomic_store(&pair->gone, true);
	return pair->socket >= 0 && !atomic_load(&pair->gone);
}

static void pair_close(struct sivshm_port *p)
{
	struct sivshm_pair *pair = pair_of(p);

	if (pair->close)
		pair->close(pair);
}

static const struct sivshm_port_ops pair_ops = {
	.ring = pair_ring,
	.fd = pair_fd,
	.take = pair_take,
	.wait = pair_wait,
	.liveness_fd = pair_liveness_fd,
	.is_alive = pair_is_alive,
	.close = pair_close,
};

int sivshm_pair_init(struct sivshm_pair *pair, struct sivshm_ringer *ringer)
{
	memset(pair, 0, sizeof(*pair));
	pair->port.ops = &pair_ops;
	pair->ringer = ringer;
	pair->socket = -1;
	for (unsigned i = 0; i < SIVSHM_VECTORS_MAX; i++)
		pair->in[i] = pair->out[i] = -1;
	pair->liveness = epoll_create1(EPOLL_CLOEXEC);
	return pair->liveness < 0 ? -errno : 0;
}

void sivshm_pair_fini(struct sivshm_pair *pair)
{
	sivshm_close_fd(&pair->liveness);
	sivshm_close_fd(&pair->socket);
	for (unsigned i = 0; i < SIVSHM_VECTORS_MAX; i++) {
		sivshm_close_fd(&pair->in[i]);
		sivshm_close_fd(&pair->out[i]);
	}
}

int sivshm_pair_connect(struct sivshm_pair *pair, int socket)
{
	struct epoll_event end = {.events = 0}; /* EPOLLHUP needs no asking */

	if (epoll_ctl(pair->liveness, EPOLL_CTL_ADD, socket, &end) < 0)
		return -errno;
	pair->socket = socket;
	return 0;
}
