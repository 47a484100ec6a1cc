/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's asynchronous I/O as a reactor sees it, whichever interface it has.
 *
 * All file bdevs of one engine on one reactor share one queue: what a pass of the reactor has
 * submitted waits in it until the queue's own poll, which hands everything to the kernel in one
 * system call and takes what has completed out of memory shared with the kernel.  What the kernel
 * does not take now stays and is offered again; nothing is refused for want of room, nothing is
 * lost.
 *
 * What the engines would otherwise both do is done here: a transfer that ends early goes on where
 * it stopped, piece by piece, and one that was interrupted is tried again a bounded number of
 * times.
 */
#ifndef SLUICE_BDEV_QUEUE_H
#define SLUICE_BDEV_QUEUE_H

#include "bdev/file.h"
#include "reactor/reactor.h"

struct bdev_queue;

/* An engine. All run on the queue's reactor. */
struct bdev_queue_ops {
	const char *name;
	size_t size; /* of the engine's structure, which begins with a struct bdev_queue */
	/*
	 * Makes the connection to the kernel; sets depth and fd.fd, a descriptor that is readable
	 * when there are completions. Returns 0 or a negative errno, logged.
	 */
	int (*open)(struct bdev_queue *q);
	void (*close)(struct bdev_queue *q);
	/* Offers the kernel what bdev_queue_take() gives; returns how many ios it took. */
	int (*submit)(struct bdev_queue *q);
	/* Calls bdev_queue_complete() for each completion there is; returns how many. */
	int (*reap)(struct bdev_queue *q);
	/* Prepares fd to report the next completion; true if there may be something to do already.
	 */
	bool (*arm)(struct bdev_queue *q);
};

struct bdev_queue {
	const struct bdev_queue_ops *ops;
	struct reactor *reactor;
	struct poller poller;
	struct reactor_fd fd;
	struct list pending; /* ios the kernel has not been offered */
	unsigned inflight;   /* ios taken and not completed */
	unsigned depth;      /* how many may be in flight */
	unsigned channels;
	struct bdev_queue **slot; /* where this thread keeps its queue of the engine */
	bool retiring;            /* a message is on its way that frees it if no channel needs it */
	struct reactor_msg retire;
};

/*
 * What channel_open, channel_close and submit of a bdev on a file do. @slot: the calling thread's
 * queue of this engine (a thread-local variable of the engine's), made when the first channel needs
 * it and freed some time after the last was closed.
 */
int bdev_queue_channel_open(const struct bdev_queue_ops *ops, struct bdev_queue **slot,
			    struct reactor *r, struct bdev_channel **ch);
void bdev_queue_channel_close(struct bdev_channel *ch);
void bdev_queue_submit(struct bdev_channel *ch, struct bdev_io *io);

/* For engines. The next io to offer the kernel, counted as in flight; NULL: none, or depth reached.
 */
struct bdev_io *bdev_queue_take(struct bdev_queue *q);
/* Puts an io that was taken, and that the kernel did not want now, back to the front. */
void bdev_queue_put_back(struct bdev_queue *q, struct bdev_io *io);
/* The kernel is done with a READ, WRITE or FLUSH: @res as it says, bytes or a negative errno. */
void bdev_queue_complete(struct bdev_queue *q, struct bdev_io *io, long res);

/* What is left to transfer of a READ or WRITE, or the part of it to do next. */
struct bdev_rest {
	const struct iovec *iov; /* valid while the io is in flight if iovcnt > 1 */
	int iovcnt;
	uint64_t offset;
	struct iovec piece;
};
void bdev_queue_get_rest(const struct bdev_io *io, struct bdev_rest *rest);

#endif
