/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * maps: the pages of its guest that one queue has mapped to keep (persistent grants).
 *
 * A frontend that grants persistently uses the same references again and again.  Each is mapped
 * once, found by its number from then on, and unmapped when it has been the least recently used
 * for too long or has to make room.  The table's size is bounded, and the guest has a quota over
 * all its queues; a page that cannot be mapped now is no error: its request is copied instead.  A
 * full table takes 84 KiB, so it has memory only as long as pages are mapped.
 *
 * Pages are mapped for the CPU, one by one, or for devices: then a pass's new ones are mapped by
 * the share's next flush, all at once, and a page that several requests of the pass name is among
 * them once.
 */
#ifndef SLUICE_BLKIF_MAPS_H
#define SLUICE_BLKIF_MAPS_H

#include <stdint.h>

#include "base/clock.h"
#include "base/list.h"
#include "blkif/guest.h"
#include "blkif/share.h"

enum {
	/* What Linux can have in flight on a ring of one page: 32 requests of 32 pages and one. */
	BLKIF_MAPS_MAX = 1056,
	/*
	 * And of pages that are only read, indirect ones: frontends take them from the same pages
	 * as those for data, so that in time each may be one, and they would leave nothing of the
	 * guest's quota to data.
	 */
	BLKIF_MAPS_TO_READ_MAX = 128,
};

/* A host that is out of mappings, or a guest that sends bad references, costs a try this seldom. */
#define BLKIF_MAPS_RETRY_NS (100 * NSEC_PER_MSEC)

enum blkif_maps_for {
	BLKIF_MAPS_TO_WRITE,    /* the CPU reads and writes */
	BLKIF_MAPS_TO_READ,     /* the CPU reads only */
	BLKIF_MAPS_FOR_DEVICES, /* which read and write */
};

struct blkif_map {
	union {
		void *addr; /* the page */
		/* The same for devices: valid once the share was flushed, DMA_NO_BUS: no page. */
		struct dma_piece piece;
	};
	/* private */
	struct list node; /* in the free or the unused list, or in none while it is used */
	struct blkif_map *next;
	uint32_t ref;
	uint32_t users;
	uint64_t unused_since_ns;
};

struct blkif_maps {
	uint64_t hits;   /* pages that were found mapped */
	uint64_t misses; /* and that were not */
	uint32_t mapped; /* pages now */
	/* private */
	struct share *share;
	struct blkif_guest *guest;
	enum blkif_maps_for use;
	uint32_t peer;
	uint64_t retry_at_ns; /* after a failure, nothing is mapped until then */
	struct list free;
	struct list unused; /* the longest unused first */
	/* Both come as pages are mapped, and go when none is any more. */
	struct blkif_maps_chunk *chunks; /* of entries */
	struct blkif_map **buckets;
	uint32_t nr_entries;
};

/* @share and @guest stay the caller's. */
void blkif_maps_init(struct blkif_maps *maps, struct share *share, uint32_t peer,
		     struct blkif_guest *guest, enum blkif_maps_for use);
/* Unmaps all; none may be in use. As blkif_maps_expire(), not while others add to the share. */
void blkif_maps_fini(struct blkif_maps *maps);

/* The page that @ref names, to be put back; NULL if it cannot be mapped now. */
struct blkif_map *blkif_maps_get(struct blkif_maps *maps, uint32_t ref, uint64_t now_ns);
void blkif_maps_put(struct blkif_maps *maps, struct blkif_map *map, uint64_t now_ns);

/* Unmaps what has not been used since @since_ns, and flushes the share if it has to. */
void blkif_maps_expire(struct blkif_maps *maps, uint64_t since_ns);

#endif
