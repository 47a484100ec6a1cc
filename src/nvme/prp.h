/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PRPs and SGLs: how a command names the memory of its data (base specification 4.1).
 *
 * A command has room for two PRPs.  The first may point anywhere into a page; all others name whole
 * pages, so data that PRPs can describe has no gaps: what lies between its first and its last page
 * fills its pages.  A guest's request need not be like that.  Where the controller knows SGLs,
 * which take pieces of any kind, such a request is described by one of those; else it is cut into
 * several commands, as it is at the controller's largest transfer and at the boundaries that a
 * namespace would rather not see crossed.  PRPs come first, as drives are made for them.
 *
 * More than two pages, or one piece, need a list that the device reads; commands are kept small
 * enough (NVME_PRP_MAX) for one slot of one page to hold it, so that lists are never chained.
 *
 * A command is described in the same pass over the pieces that finds out how long it may be.
 */
#ifndef SLUICE_NVME_PRP_H
#define SLUICE_NVME_PRP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dma/dma.h"
#include "nvme/spec.h"

/* Bytes of a command at most. */
#define NVME_PRP_MAX (512u << 10)

enum { NVME_PAGE_MASK = DMA_PAGE_SIZE - 1 };

/* A command's PRPs in the making; all but sqe, list and max begin as zeros. */
struct nvme_prps {
	struct nvme_sqe *sqe;
	uint64_t *list; /* a slot */
	uint32_t max;   /* bytes */
	uint32_t len;   /* so far */
	uint32_t pages; /* after the first */
	uint64_t end;   /* bus address behind the last byte */
};

/* Adds bytes of one page, as many as there is room for; returns how many, 0 too if that is a gap.
 */
static inline uint32_t nvme_prps_add(struct nvme_prps *p, uint64_t bus, uint32_t len)
{
	if (len > p->max - p->len)
		len = p->max - p->len;
	if (!p->len) {
		p->sqe->prp1 = bus;
		p->sqe->prp2 = 0;
	} else if (bus != p->end || !(bus & NVME_PAGE_MASK)) {
		if ((bus | p->end) & NVME_PAGE_MASK || !len)
			return 0;
		/* The first goes to the list when there is a second. */
		if (p->pages == 1)
			p->list[0] = p->sqe->prp2;
		if (p->pages)
			p->list[p->pages] = bus;
		else
			p->sqe->prp2 = bus;
		p->pages++;
	}
	p->len += len;
	p->end = bus + len;
	return len;
}

/* When all is added. @list_bus: where the device finds the list. */
static inline void nvme_prps_end(struct nvme_prps *p, uint64_t list_bus)
{
	if (p->pages > 1)
		p->sqe->prp2 = list_bus;
}

/* A place in an io's data: bytes into a piece, or into an iovec. */
struct nvme_cursor {
	uint32_t index;
	size_t skip;
};

/*
 * Makes @sqe describe, by PRPs, the data of @n pieces from @at on: @max bytes of it (a multiple of
 * @block_size), or as many whole blocks of @block_size as come before a gap. Returns the bytes, and
 * moves @at behind them; 0: the first block lies across a gap.
 */
uint32_t nvme_prps_build(const struct dma_piece *pieces, uint32_t n, struct nvme_cursor *at,
			 uint32_t max, uint32_t block_size, struct nvme_sqe *sqe, uint64_t *list,
			 uint64_t list_bus);
/* The same by an SGL, of which @list holds @list_len descriptors: gaps do not matter. */
uint32_t nvme_sgl_build(const struct dma_piece *pieces, uint32_t n, struct nvme_cursor *at,
			uint32_t max, uint32_t block_size, struct nvme_sqe *sqe,
			struct nvme_sgl *list, uint32_t list_len, uint64_t list_bus);

/* Slots of equal size, none across a page, for lists and other small things that devices read. */
struct nvme_slots {
	struct dma *dma;
	struct dma_memory mem;
	uint32_t size; /* bytes of one */
};

/*
 * @n slots, each for the list of a command of @max bytes. Returns 0 or a negative errno with the
 * line in @err.
 */
int nvme_slots_init(struct nvme_slots *slots, struct dma *dma, uint32_t n, uint32_t max,
		    struct err *err);
void nvme_slots_fini(struct nvme_slots *slots);
/* Pages that @n of them take. */
uint32_t nvme_slots_pages(uint32_t n, uint32_t max);
void *nvme_slot_virt(const struct nvme_slots *slots, uint32_t i);
uint64_t nvme_slot_bus(const struct nvme_slots *slots, uint32_t i);

#endif
