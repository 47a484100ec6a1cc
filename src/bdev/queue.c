/* SPDX-License-Identifier: BSD-2-Clause */
#include "bdev/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

enum {
	/*
	 * How often an io is tried again that the kernel gave back without having begun it. More
	 * than once is rare; without a bound a kernel that means it would keep a reactor busy.
	 */
	TRIES_MAX = 100,
	/*
	 * How long the queue spins for completions before it sleeps on its descriptor: a fast
	 * disk answers within this, and waking up costs about as much again.
	 */
	SPIN_MAX_NS = 50000,
};

/* An io's progress, kept in its scratch word: bytes transferred, and tries that came to nothing. */
static uint64_t get_progress(const struct bdev_io *io)
{
	return io->scratch & UINT32_MAX;
}

static uint64_t get_tries(const struct bdev_io *io)
{
	return io->scratch >> 32;
}

static void set_progress(struct bdev_io *io, uint64_t bytes, uint64_t tries)
{
	io->scratch = bytes | tries << 32;
}

void bdev_queue_get_rest(const struct bdev_io *io, struct bdev_rest *rest)
{
	uint64_t skip = get_progress(io);
	const struct iovec *iov = io->iov;

	rest->offset = io->offset + skip;
	if (!skip) {
		rest->iov = iov;
		rest->iovcnt = io->iovcnt;
		return;
	}
	/*
	 * After a short transfer: the rest of the piece it stopped in. Piece by piece is slow, but
	 * it is rare and needs no second list of pieces.
	 */
	for (; skip >= iov->iov_len; iov++)
		skip -= iov->iov_len;
	rest->piece.iov_base = (char *)iov->iov_base + skip;
	rest->piece.iov_len = iov->iov_len - skip;
	rest->iov = &rest->piece;
	rest->iovcnt = 1;
}

struct bdev_io *bdev_queue_take(struct bdev_queue *q)
{
	struct list *node = q->inflight < q->depth ? list_pop(&q->pending) : NULL;

	if (!node)
		return NULL;
	q->inflight++;
	return list_entry(node, struct bdev_io, node);
}

void bdev_queue_put_back(struct bdev_queue *q, struct bdev_io *io)
{
	q->inflight--;
	list_add_head(&q->pending, &io->node);
}

void bdev_queue_complete(struct bdev_queue *q, struct bdev_io *io, long res)
{
	uint64_t progress = get_progress(io), tries = get_tries(io);

	q->inflight--;
	if ((res == -EAGAIN || res == -EINTR) && tries < TRIES_MAX) {
		set_progress(io, progress, tries + 1);
		list_add_tail(&q->pending, &io->node);
		return;
	}
	if (res < 0) {
		bdev_file_complete(io, (int)res);
		return;
	}
	if (io->op == BDEV_FLUSH || progress + (uint64_t)res >= io->len) {
		bdev_file_complete(io, 0);
		return;
	}
	if (!res) {
		/* The file ends before the bdev does: somebody has cut it. */
		bdev_file_complete(io, -EIO);
		return;
	}
	set_progress(io, progress + (uint64_t)res, 0);
	list_add_tail(&q->pending, &io->node);
}

static struct bdev_queue *queue_of(struct poller *p)
{
	return container_of(p, struct bdev_queue, poller);
}

static int queue_poll(struct poller *p)
{
	struct bdev_queue *q = queue_of(p);
	int n = q->ops->reap(q);

	/* Afterwards, so that what the completed ios' owners submit in turn goes along. */
	return n + q->ops->submit(q);
}

static bool queue_arm(struct poller *p)
{
	struct bdev_queue *q = queue_of(p);

	return q->ops->arm(q) || (!list_empty(&q->pending) && q->inflight < q->depth);
}

static void queue_ready(struct reactor_fd *f, uint32_t events)
{
	reactor_poller_wake(&container_of(f, struct bdev_queue, fd)->poller);
}

static int queue_create(const struct bdev_queue_ops *ops, struct bdev_queue **slot,
			struct reactor *r)
{
	struct bdev_queue *q = calloc(1, ops->size);
	int rc;

	if (!q)
		return -ENOMEM;
	q->ops = ops;
	q->reactor = r;
	q->slot = slot;
	list_init(&q->pending);
	rc = ops->open(q);
	if (rc) {
		free(q);
		return rc;
	}
	q->fd.ready = queue_ready;
	rc = reactor_fd_add(r, &q->fd, EPOLLIN);
	if (rc) {
		ops->close(q);
		free(q);
		return rc;
	}
	q->poller.name = ops->name;
	q->poller.poll = queue_poll;
	q->poller.arm = queue_arm;
	q->poller.spin_max_ns = SPIN_MAX_NS;
	reactor_poller_add(r, &q->poller);
	*slot = q;
	return 0;
}

/*
 * Frees the queue, from a message: the last channel may be closed by an io's done, inside the
 * queue's own poll, and when that returns the reactor looks at the poller once more.
 */
static void queue_retire(struct reactor_msg *msg)
{
	struct bdev_queue *q = container_of(msg, struct bdev_queue, retire);

	q->retiring = false;
	if (q->channels)
		return;
	reactor_poller_del(&q->poller);
	reactor_fd_del(q->reactor, &q->fd);
	q->ops->close(q);
	*q->slot = NULL;
	free(q);
}

int bdev_queue_channel_open(const struct bdev_queue_ops *ops, struct bdev_queue **slot,
			    struct reactor *r, struct bdev_channel **ch)
{
	struct bdev_file_channel *fch = calloc(1, sizeof(*fch));
	int rc = 0;

	if (!fch)
		return -ENOMEM;
	if (!*slot)
		rc = queue_create(ops, slot, r);
	if (rc) {
		free(fch);
		return rc;
	}
	fch->queue = *slot;
	fch->queue->channels++;
	*ch = &fch->ch;
	return 0;
}

void bdev_queue_channel_close(struct bdev_channel *ch)
{
	struct bdev_file_channel *fch = bdev_file_channel_of(ch);
	struct bdev_queue *q = fch->queue;

	free(fch);
	if (--q->channels || q->retiring)
		return;
	q->retiring = true;
	q->retire.fn = queue_retire;
	reactor_send(q->reactor, &q->retire);
}

void bdev_queue_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct bdev_queue *q = bdev_file_channel_of(ch)->queue;

	if (io->op == BDEV_DISCARD) {
		bdev_file_discard(io);
		return;
	}
	set_progress(io, 0, 0);
	list_add_tail(&q->pending, &io->node);
	reactor_poller_wake(&q->poller);
}
