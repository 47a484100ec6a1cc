/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to src/blkif: a request on its way, and what queue and engine say to each other. */
#ifndef SLUICE_BLKIF_IO_H
#define SLUICE_BLKIF_IO_H

#include <assert.h>
#include <sys/uio.h>

#include "base/page_pool.h"
#include "blkif/bounce.h"
#include "blkif/engine.h"
#include "blkif/maps.h"
#include "blkif/queue.h"
#include "blkif/share.h"
#include "reactor/reactor.h"

/* What a request with indirect segments needs beyond its data: two pages of the pool. */
struct blkif_indirect_refs {
	struct blkif_wire_segment segments[BLKIF_MAX_SEGMENTS];
	void *pages[BLKIF_MAX_SEGMENTS];
};
union blkif_indirect_places {
	struct iovec iov[BLKIF_MAX_SEGMENTS];
	struct dma_piece dma[BLKIF_MAX_SEGMENTS];
};
enum { BLKIF_INDIRECT_META_PAGES = 2 };
static_assert(sizeof(struct blkif_indirect_refs) <= PAGE_POOL_PAGE_SIZE, "one page");
static_assert(sizeof(union blkif_indirect_places) <= PAGE_POOL_PAGE_SIZE, "one page");
static_assert((int)BLKIF_MAX_SEGMENTS <= (int)BLKIF_SEGMENTS_PER_INDIRECT_PAGE,
	      "one indirect page");

/* How a request's data is reached, or was, if nr_pages is 0. */
enum blkif_io_way {
	BLKIF_COPIED,         /* through bounce pages: pages[] are those */
	BLKIF_MAPPED,         /* mapped for this request: pages[0] is where */
	BLKIF_PERSISTENT,     /* mapped to stay: pages[] are struct blkif_map */
	BLKIF_DMA,            /* mapped for devices and this request: dma[] says where */
	BLKIF_DMA_PERSISTENT, /* mapped for devices, to stay: pages[] are struct blkif_map */
	BLKIF_DIRECT,         /* where it always is: iov[] says */
	BLKIF_DIRECT_DMA,     /* the same for devices: dma[] says */
};

struct blkif_io_chunk;

struct blkif_io {
	/* in a stage of the engine's, in one of its queue's lists, or free in the engine's pool */
	struct list node;
	struct blkif_queue *queue;
	uint16_t slot; /* its entry of the queue's ledger */
	struct blkif_request req;
	enum blkif_status status;
	bool refused;     /* it never reached the device */
	bool has_more;    /* when the device has done with it, it may not be all */
	int share_status; /* 0, or the errno of a copy that failed */
	uint64_t bytes;
	enum blkif_io_way way;
	bool copy;         /* it is copied, by choice or because mapping has failed */
	bool has_meta;     /* it holds meta pages */
	uint16_t nr_pages; /* pages held or mapped: entries of pages[] or of dma[] */
	uint64_t taken_ns;
	uint64_t failed_ns; /* when the device failed it first; 0: never */
	struct bdev_io bio;
	/*
	 * These point to what follows, except while an indirect request has its meta pages: then
	 * there.
	 */
	struct blkif_wire_segment *segments;
	void **pages;
	union {
		struct iovec *iov;
		struct dma_piece *dma;
	};
	void *meta[BLKIF_INDIRECT_META_PAGES];
	struct blkif_wire_segment direct_segments[BLKIF_MAX_DIRECT_SEGMENTS];
	void *direct_pages[BLKIF_MAX_DIRECT_SEGMENTS];
	union {
		struct iovec direct_iov[BLKIF_MAX_DIRECT_SEGMENTS];
		struct dma_piece direct_dma[BLKIF_MAX_DIRECT_SEGMENTS];
	};
	struct blkif_io_chunk *chunk; /* of the pool's; NULL: it is its queue's own */
};

/* Says where its parts are. Once: an io that is done with is as if it were new. */
static inline void blkif_io_init(struct blkif_io *io)
{
	io->segments = io->direct_segments;
	io->pages = io->direct_pages;
	io->iov = io->direct_iov;
}

/* See io_pool.h. */
struct blkif_io_pool {
	struct list free;
	size_t nr_free;
	size_t least_free; /* since the period began */
	struct list chunks;
	size_t nr_chunks;
	struct reactor *reactor;
	struct reactor_timer timer; /* runs as long as there is more than one chunk */
};

struct blkif_queue {
	struct poller poller;
	struct blkif_queue_opts opts;
	char label[64];
	struct blkif_ring ring;
	struct bdev_channel *channel;
	struct blkif_io_pool *pool;
	struct list node; /* in the engine's list of rings to push, or empty */

	/* Bounce pages: where from, what it holds, and what it can always have. */
	struct blkif_bounce *bounce;
	size_t held;
	size_t reserve;
	struct list starved; /* ios that wait for pages */
	uint32_t nr_starved;
	struct list starved_node; /* in the engine's list of such queues, or empty */
	/* Of those ways of sharing that keep mappings; empty in others. */
	struct blkif_maps maps;
	struct blkif_maps lists;  /* the indirect pages among them, for the CPU to read */
	uint64_t map_retry_at_ns; /* of the others: nothing is mapped until then; 0: no failure */
	struct reactor_timer expire;
	bool expiring; /* the timer runs */

	/* Why nothing is taken from the ring; see queue_is_shut(). */
	bool broken;
	bool stopping;
	bool paused;
	struct blkif_io *barrier; /* the last that was taken; all others end before it begins */
	bool barrier_begun;
	bool throttled;
	bool waited; /* for the limit, since it last took a request */
	struct reactor_timer throttle;

	/* Rings since the last request; too many in vain, and the doorbell stays disarmed a while.
	 */
	uint32_t empty_rings;
	bool rung; /* and nothing was found yet */
	struct reactor_timer calm;
	bool calmed;

	/* What the device has failed, and is to be tried again. */
	struct list parked;
	uint32_t nr_parked;
	uint32_t nr_failed; /* ios that have failed at least once: parked, or at the device again */
	struct reactor_timer retry;

	uint32_t in_flight;
	bool keep; /* stopping: what cannot be finished is given back to the ring */
	void (*stopped)(void *arg);
	void *stopped_arg;
	void (*quiet)(void *arg); /* pausing: to be told */
	void *quiet_arg;
	struct blkif_stats stats;
	/* For when the engine can have no more, so that each queue always goes on with one. */
	struct blkif_io own;
	bool own_is_taken;
	/* A stack of the ledger's entries that are not live: all but in_flight. */
	uint16_t entries[];
};

/* Engine: takes on an io that was decoded; io->status says whether it is to be served or refused.
 */
void blkif_engine_take(struct blkif_engine *e, struct blkif_io *io);
/* Engine: gives an io that was parked to the device again, or (@fail) answers it with an error. */
void blkif_engine_retry(struct blkif_engine *e, struct blkif_io *io, bool fail);
/* Engine: takes the memory and mappings of an io back; those for devices end with the next flush.
 */
void blkif_engine_release(struct blkif_io *io);
/* Engine: has all that was added to the share done. Not while a pass collects its steps. */
void blkif_engine_flush(struct blkif_engine *e);
/* Engine: looks again at requests that wait for memory. */
void blkif_engine_wake(struct blkif_engine *e);
struct blkif_bounces *blkif_engine_bounces(struct blkif_engine *e);
struct blkif_io_pool *blkif_engine_ios(struct blkif_engine *e);
struct share *blkif_engine_share(const struct blkif_engine *e);
/* Engine: the time, which is looked at once a pass. */
uint64_t blkif_engine_now(struct blkif_engine *e);

/*
 * Queue: the device has failed the io. Returns whether the queue keeps it to try again; else it has
 * to be answered.
 */
bool blkif_queue_park(struct blkif_queue *q, struct blkif_io *io, int error);
/*
 * Queue: the io has come to a point where it can rest, and more to do. Returns whether the queue,
 * paused or giving back what is not finished, keeps it.
 */
bool blkif_queue_hold(struct blkif_queue *q, struct blkif_io *io);
/* Queue: writes the io's response to the ring and takes the io back. Pushes nothing. */
void blkif_queue_answer(struct blkif_queue *q, struct blkif_io *io, uint64_t now_ns);
/* Queue: pushes what was answered, and notifies the frontend if it wants that. */
void blkif_queue_push(struct blkif_queue *q);
/*
 * Queue: has it stopped, or is it quiet, at last? After whatever may have made it so. The control
 * thread may then destroy the queue at any time.
 */
void blkif_queue_look_for_end(struct blkif_queue *q);

#endif
