/* SPDX-License-Identifier: BSD-2-Clause */
#include "sivshm/lane.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "blkif/engine.h"
#include "blkif/queue.h"
#include "sivshm.h"

/* Sharing */

static const struct share_window *share_window(struct share *s, uint32_t peer)
{
	return &container_of(s, struct sivshm_lane, share)->windows[peer];
}

static char *find_page(struct share *s, uint32_t peer, uint32_t ref)
{
	const struct share_window *window = share_window(s, peer);
	size_t at;

	return share_window_find(window, ref, &at) ? window->base + at : NULL;
}

static void share_copy_in(struct share *s, const struct share_piece *piece)
{
	const char *page = find_page(s, piece->peer, piece->ref);

	if (page)
		memcpy(piece->local, page + piece->offset, piece->len);
	else
		*piece->status = -EFAULT;
}

static void share_copy_out(struct share *s, const struct share_piece *piece)
{
	char *page = find_page(s, piece->peer, piece->ref);

	if (page)
		memcpy(page + piece->offset, piece->local, piece->len);
	else
		*piece->status = -EFAULT;
}

/* Everything was done when it was added. */
static void share_flush(struct share *s)
{
	atomic_signal_fence(memory_order_seq_cst);
}

static const struct share_ops share_ops = {
	.copy_in = share_copy_in,
	.copy_out = share_copy_out,
	.flush = share_flush,
	.window = share_window,
};

int sivshm_lane_init(struct sivshm_lane *lane, struct reactor *r, size_t bounce_pages,
		     struct err *err)
{
	int rc;

	memset(lane, 0, sizeof(*lane));
	lane->reactor = r;
	lane->share.ops = &share_ops;
	rc = blkif_engine_create(r, &lane->share, bounce_pages, &lane->engine);
	if (rc)
		return err_set(err, rc, "cannot get %zu bounce pages for a reactor: %s",
			       bounce_pages, strerror(-rc));
	blkif_engine_start(lane->engine);
	return 0;
}

void sivshm_lane_fini(struct sivshm_lane *lane)
{
	blkif_engine_stop(lane->engine);
	blkif_engine_destroy(lane->engine);
}

void sivshm_lane_show(struct sivshm_lane *lane, uint32_t peer, const struct sivshm_segment *s)
{
	if (lane->users[peer]++)
		return;
	/* All but the control page, which is the first. */
	lane->windows[peer] = (struct share_window){
		.first = 1,
		.pages = s->pages - 1,
		.base = s->base + BLKIF_PAGE_SIZE,
		.bus = s->bus == DMA_NO_BUS ? DMA_NO_BUS : s->bus + BLKIF_PAGE_SIZE,
	};
}

void sivshm_lane_hide(struct sivshm_lane *lane, uint32_t peer)
{
	if (!--lane->users[peer])
		lane->windows[peer] = (struct share_window){0};
}

/* Doorbells */

/*
 * Always one shot, also while disarmed: a peer can have the kernel drive the counter to its very
 * end, which then polls as an error, and such an event cannot be masked.
 */
enum { DISARMED = EPOLLONESHOT, ARMED = EPOLLIN | EPOLLONESHOT };

static void doorbell_ready(struct reactor_fd *f, uint32_t events)
{
	blkif_queue_ring(container_of(f, struct sivshm_doorbell, fd)->queue);
}

static void doorbell_notify(struct doorbell *base)
{
	struct sivshm_doorbell *d = container_of(base, struct sivshm_doorbell, doorbell);

	/* Fails only for a peer that is gone: then nobody waits. */
	(void)sivshm_port_ring(d->port, d->vector);
}

static void doorbell_arm(struct doorbell *base)
{
	struct sivshm_doorbell *d = container_of(base, struct sivshm_doorbell, doorbell);

	/* What was rung before is seen by the look at the ring that follows. */
	(void)sivshm_port_take(d->port, d->vector);
	(void)reactor_fd_modify(d->lane->reactor, &d->fd, ARMED);
}

static const struct doorbell_ops doorbell_ops = {
	.notify = doorbell_notify,
	.arm = doorbell_arm,
};

void sivshm_doorbell_init(struct sivshm_doorbell *d, struct sivshm_lane *lane,
			  struct sivshm_port *port, unsigned vector)
{
	*d = (struct sivshm_doorbell){
		.doorbell = {.ops = &doorbell_ops},
		.fd = {.fd = sivshm_port_fd(port, vector), .ready = doorbell_ready},
		.lane = lane,
		.port = port,
		.vector = vector,
	};
}

int sivshm_doorbell_route(struct sivshm_doorbell *d, struct blkif_queue *q)
{
	d->queue = q;
	return reactor_fd_add(d->lane->reactor, &d->fd, DISARMED);
}

void sivshm_doorbell_unroute(struct sivshm_doorbell *d)
{
	reactor_fd_del(d->lane->reactor, &d->fd);
	d->queue = NULL;
}
