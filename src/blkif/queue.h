/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A queue: one ring of a disk, from request to response, on one reactor.
 *
 * The queue takes requests off its ring and hands them to its reactor's engine (engine.h), which
 * moves all queues' requests through sharing and device together and hands them back to be
 * answered. A queue looks at its ring as long as there is work; once idle it arms its doorbell and
 * costs nothing.
 *
 * Creation and destruction belong to the control thread, all else to the reactor's.
 */
#ifndef SLUICE_BLKIF_QUEUE_H
#define SLUICE_BLKIF_QUEUE_H

#include "base/hist.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "blkif/decode.h"
#include "blkif/doorbell.h"
#include "blkif/ring.h"

struct blkif_engine;
struct blkif_queue;

/*
 * What is in flight, in memory that the caller provides and that may outlive the process: a private
 * copy of each request's slot. An entry is live from the moment the request was taken off the ring
 * until its response is written there.
 */
struct blkif_ledger_entry {
	uint8_t slot[BLKIF_MAX_REQUEST_BYTES];
	uint32_t live;
	uint32_t reserved[3];
};

struct blkif_queue_opts {
	struct blkif_engine *engine; /* of the reactor that is to own the queue */
	struct bdev *bdev;           /* claimed; its limits hold for as long as the queue lives */
	struct blkif_limits limits;
	uint32_t peer;     /* the frontend's domain, for the share */
	const char *label; /* for log lines; copied */
	struct doorbell *doorbell;
	const struct blkif_layout *layout;
	void *ring_pages; /* contiguous, mapped until the queue is destroyed */
	unsigned ring_nr;
	struct blkif_ledger_entry *ledger; /* blkif_layout_slots() entries, zeroed */
	uint32_t spin_max_ns;              /* how long an idle queue may be polled */
	struct log_limit *log_limit;       /* of the disk; the reactor's while the queue lives */
	/* The frontend broke its ring: nothing more is taken. On the reactor's thread, once. */
	void (*broken)(void *arg);
	void *arg;
};

struct blkif_kind_stats {
	uint64_t requests; /* answered, whatever the status */
	uint64_t bytes;    /* of those answered OKAY */
	uint64_t errors;   /* answered otherwise */
	struct hist latency;
};

struct blkif_stats {
	struct blkif_kind_stats kinds[BLKIF_KINDS];
	uint64_t invalid;   /* requests refused before they reached the device */
	uint64_t notified;  /* notifications sent to the frontend */
	uint64_t rung;      /* and received from it */
	uint32_t in_flight; /* now */
};

/*
 * Creates a queue and attaches it to its ring. Returns 0 and *@out, or -ENOMEM, or -EPROTO if the
 * ring's counters make no sense.
 */
int blkif_queue_create(const struct blkif_queue_opts *opts, struct blkif_queue **out);
/* Of a queue that was never started, or has stopped. */
void blkif_queue_destroy(struct blkif_queue *q);

/* Starts serving, with a look at the ring first. Returns 0, -ENOMEM, or the bdev's negative errno.
 */
int blkif_queue_start(struct blkif_queue *q);
/* Takes no more requests; calls @stopped(@arg) once all that were taken are answered. */
void blkif_queue_stop(struct blkif_queue *q, void (*stopped)(void *arg), void *arg);
/* The frontend rang. */
void blkif_queue_ring(struct blkif_queue *q);
/* Adds @from's counters to @to. */
void blkif_stats_add(struct blkif_stats *to, const struct blkif_stats *from);
/* Adds the queue's counters to @stats. */
void blkif_queue_add_stats(const struct blkif_queue *q, struct blkif_stats *stats);

#endif
