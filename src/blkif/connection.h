/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * connection: a frontend's rings, each served by a queue on a reactor.
 *
 * The control thread opens the rings and makes the queues; reactors start and stop them.  Each side
 * tells the other by message, and every message sent is answered, so that the connection is
 * destroyed only when no thread knows it any more.  Where a ring's pages and its doorbell come from
 * is the affair of whoever has the frontend: struct blkif_connection_ops.
 */
#ifndef SLUICE_BLKIF_CONNECTION_H
#define SLUICE_BLKIF_CONNECTION_H

#include "base/err.h"
#include "blkif/queue.h"

struct blkif_connection;
struct reactor;

enum { BLKIF_MAX_QUEUES = 64 };

/* What a guest can use of @b, now; @discard: if it can be had. */
struct blkif_limits blkif_limits_of(const struct bdev *b, bool readonly, bool discard);

/* One ring, as its opener gives it; all of it valid until it is closed. */
struct blkif_connection_ring {
	void *pages; /* contiguous */
	struct doorbell *doorbell;
	struct blkif_engine *engine; /* of the reactor that is to serve it */
};

struct blkif_connection_ops {
	/* On the control thread. Returns 0, or a negative errno with the reason. */
	int (*open)(void *ctx, unsigned n, struct blkif_connection_ring *ring, struct err *err);
	/* Optional: its queue is about to be destroyed, and was never started or has stopped. */
	void (*close)(void *ctx, unsigned n);
	/*
	 * On the ring's reactor: from now on, and no longer, its frontend's rings go to @q. The
	 * first comes before the queue is started, and returns 0 or a negative errno; the other
	 * after it has stopped.
	 */
	int (*route)(void *ctx, unsigned n, struct blkif_queue *q);
	void (*unroute)(void *ctx, unsigned n);
};

struct blkif_connection_opts {
	struct reactor *control;
	const struct blkif_connection_ops *ops;
	void *ctx;          /* for the ops */
	unsigned nr_queues; /* 1 to BLKIF_MAX_QUEUES */
	/*
	 * What all queues have alike: engine, doorbell, ring_pages, ledger, log_limit, broken,
	 * troubled and arg are filled in for each.
	 */
	struct blkif_queue_opts queue;
	struct log_limit *log_limits; /* one a queue, for its reactor; nobody else's meanwhile */
	/* All on the control thread. */
	void (*started)(void *arg,
			int rc);    /* serving, or (rc < 0) not: then it has to be destroyed */
	void (*stopped)(void *arg); /* it has to be destroyed */
	void (*broken)(void *arg);  /* the frontend broke a ring, once: it has to be stopped */
	/* Not with BLKIF_ERROR_REPORT. Requests wait because the device fails: its negative errno;
	 * 0: none does any more. */
	void (*troubled)(void *arg, int error);
	void *arg;
};

/* Opens it; nothing is served yet. Returns 0 and *@out, or a negative errno with the reason. */
int blkif_connection_create(const struct blkif_connection_opts *opts, struct blkif_connection **out,
			    struct err *err);
/* Starts serving; @started follows. */
void blkif_connection_start(struct blkif_connection *c);
/*
 * Takes no more requests, answers those taken (or, @keep, gives some back to the rings: see
 * blkif_queue_stop()); @stopped follows. After started, once.
 */
void blkif_connection_stop(struct blkif_connection *c, bool keep);
/*
 * What each queue is told, on its reactor; @done follows on the control thread when all have done
 * it, before @stopped in any case. All before blkif_connection_stop(). They return 0, or -ENOMEM:
 * then nothing happens.
 */
int blkif_connection_pause(struct blkif_connection *c, void (*done)(void *arg), void *arg);
int blkif_connection_resume(struct blkif_connection *c, void (*done)(void *arg), void *arg);
int blkif_connection_give_up(struct blkif_connection *c, void (*done)(void *arg), void *arg);
int blkif_connection_set_sectors(struct blkif_connection *c, uint64_t sectors,
				 void (*done)(void *arg), void *arg);
/* Closes its rings. */
void blkif_connection_destroy(struct blkif_connection *c);

/* The reactor that serves queue @n. */
const struct reactor *blkif_connection_get_reactor(const struct blkif_connection *c, unsigned n);
/*
 * Gathers the queues' statistics and calls @done with those of each queue on the control thread.
 * After @started and before @stopped, which waits for it. Returns 0, or -ENOMEM: then @done is not
 * called.
 */
int blkif_connection_get_stats(struct blkif_connection *c,
			       void (*done)(void *arg, const struct blkif_stats *queues,
					    unsigned nr),
			       void *arg);
/* After @stopped: adds them to @stats directly. */
void blkif_connection_add_stats(const struct blkif_connection *c, struct blkif_stats *stats);

#endif
