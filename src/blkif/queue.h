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

#include "base/log.h"
#include "base/sparse_hist.h"
#include "bdev/bdev.h"
#include "blkif/decode.h"
#include "blkif/doorbell.h"
#include "blkif/guest.h"
#include "blkif/limiter.h"
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

/* How the guest's data pages are reached. */
enum blkif_sharing {
	BLKIF_SHARE_COPY,       /* copied to and from bounce pages; never mapped */
	BLKIF_SHARE_MAP,        /* mapped for the time of each request */
	BLKIF_SHARE_PERSISTENT, /* mapped, and kept: the frontend grants persistently */
	/* The same for devices only, where the share can do that and the bdev has a dma. */
	BLKIF_SHARE_DMA,
	BLKIF_SHARE_DMA_PERSISTENT,
	/* Always there, for the CPU or for devices: the share can reach them at once. */
	BLKIF_SHARE_DIRECT,
	BLKIF_SHARE_DIRECT_DMA,
};

/* What becomes of a request that the device has failed. A flush's failure is always reported. */
enum blkif_on_error {
	BLKIF_ERROR_REPORT, /* the guest is told */
	BLKIF_ERROR_RETRY,  /* it is tried again for retry_ns, then the guest is told */
	BLKIF_ERROR_STOP,   /* it waits, and the guest with it, for blkif_queue_resume() */
};

struct blkif_queue_opts {
	struct blkif_engine *engine; /* of the reactor that is to own the queue */
	struct bdev *bdev;           /* of 512-byte blocks; open for as long as the queue lives */
	struct blkif_limits limits;
	uint32_t peer;     /* the frontend's domain, for the share */
	const char *label; /* for log lines; copied */
	struct doorbell *doorbell;
	const struct blkif_layout *layout;
	void *ring_pages; /* contiguous, mapped until the queue is destroyed */
	unsigned ring_nr;
	struct blkif_ledger_entry *ledger; /* blkif_layout_slots() entries, zeroed */
	uint32_t spin_max_ns;              /* how long an idle queue may be polled */
	enum blkif_sharing sharing;
	uint32_t dma_from_bytes;       /* of those with dma: shorter requests are copied */
	struct blkif_guest *guest;     /* what all queues of the guest share */
	struct blkif_limiter *limiter; /* and all of the disk */
	enum blkif_on_error on_error;
	uint64_t retry_ns;
	bool paused;                 /* it starts paused */
	struct log_limit *log_limit; /* of the disk; the reactor's while the queue lives */
	/* The frontend broke its ring: nothing more is taken. On the reactor's thread, once. */
	void (*broken)(void *arg);
	/* Requests wait because the device fails: its negative errno; 0: none does any more. */
	void (*troubled)(void *arg, int error);
	void *arg;
};

struct blkif_kind_stats {
	uint64_t requests; /* answered, whatever the status */
	uint64_t bytes;    /* of those answered OKAY */
	uint64_t errors;   /* failed by the device */
	struct sparse_hist latency;
};

/* The ways to a request's data, as statistics tell them apart. */
enum blkif_way {
	BLKIF_WAY_COPY,
	BLKIF_WAY_MAP, /* for the CPU */
	BLKIF_WAY_DMA, /* for devices */
	BLKIF_WAYS,
};

struct blkif_way_stats {
	uint64_t requests; /* READ and WRITE, answered OKAY */
	uint64_t bytes;
};

/* All zero: nothing has been counted. */
struct blkif_stats {
	struct blkif_kind_stats kinds[BLKIF_KINDS];
	struct blkif_way_stats ways[BLKIF_WAYS];
	uint64_t invalid;      /* requests refused before they reached the device */
	uint64_t share_errors; /* requests whose pages could not be reached */
	uint64_t notified;     /* notifications sent to the frontend */
	uint64_t rung;         /* and received from it */
	uint64_t rung_empty;   /* of those, with nothing to take */
	uint64_t throttled;    /* times that taking waited for the disk's limit */
	uint64_t starved;      /* requests that waited for memory */
	uint64_t map_hits;     /* pages found mapped, and not */
	uint64_t map_misses;
	/* now: */
	uint32_t in_flight;
	uint32_t parked;       /* requests that wait because the device failed them */
	uint32_t bounce_pages; /* held */
	uint32_t mapped_pages; /* kept mapped, used or not */
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
/*
 * Takes no more requests; calls @stopped(@arg) once all that were taken are answered. What waits
 * for the device to recover, for memory or for its turn is answered with an error where need be, or
 * (@keep) given back to the ring, for a successor to serve.
 */
void blkif_queue_stop(struct blkif_queue *q, bool keep, void (*stopped)(void *arg), void *arg);
/*
 * Takes no more requests for now; calls @quiet(@arg) once nothing of the queue is at the device, or
 * it is resumed or stopped. Never twice without a resume between.
 */
void blkif_queue_pause(struct blkif_queue *q, void (*quiet)(void *arg), void *arg);
/* Goes on, also with what a failing device has stopped. */
void blkif_queue_resume(struct blkif_queue *q);
/* Nobody will mend the device for it: what waits for that is answered with the error, now and from
 * now on. */
void blkif_queue_give_up(struct blkif_queue *q);
/* The disk has grown. */
void blkif_queue_set_sectors(struct blkif_queue *q, uint64_t sectors);
/* The frontend rang. */
void blkif_queue_ring(struct blkif_queue *q);
/* Adds @from's counters to @to. */
void blkif_stats_add(struct blkif_stats *to, const struct blkif_stats *from);
/* Gives back their memory. */
void blkif_stats_fini(struct blkif_stats *stats);
/* Adds the queue's counters to @stats; on its reactor, or when it has stopped. */
void blkif_queue_add_stats(const struct blkif_queue *q, struct blkif_stats *stats);

#endif
