/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PRPs: how a command names the memory of its data (base specification 4.1.1).
 *
 * A command has two pointers.  The first may point anywhere into a page; all others name whole
 * pages, so data that a PRP can describe has no gaps: what lies between its first and its last page
 * fills its pages.  A guest's request need not be like that, and then it is cut into several
 * commands, as it is at the controller's largest transfer and at the boundaries that a namespace
 * would rather not see crossed.  More than two pages need a list, in a page that the device reads;
 * commands are kept small enough (NVME_PRP_MAX) for one slot of one page to hold it, so that lists
 * are never chained.
 */
#ifndef SLUICE_NVME_PRP_H
#define SLUICE_NVME_PRP_H

#include <stddef.h>
#include <stdint.h>

#include "dma/dma.h"
#include "nvme/spec.h"

/* Bytes of a command at most. */
#define NVME_PRP_MAX (512u << 10)

/* What a command may be, in bytes. */
struct nvme_prp_limits {
	uint32_t max;        /* a multiple of 4096, at most NVME_PRP_MAX */
	uint32_t block_size; /* a power of two */
	uint32_t stripe;     /* no command crosses a multiple of it on the device; 0: all may */
};

/*
 * The length in bytes of the first command for @n (above 0) pieces without the first @skip bytes of
 * the first, to or from @offset on the device; a multiple of the block size, and as long as the
 * limits allow. 0: the very first block lies across a gap, and no command can describe it.
 */
uint32_t nvme_prp_cut(const struct dma_piece *pieces, size_t n, uint32_t skip, uint64_t offset,
		      const struct nvme_prp_limits *limits);
/*
 * Writes the pointers for @len bytes that nvme_prp_cut() has allowed (or fewer) to @sqe, and the
 * list, if it takes one, to @list, which the device finds at @list_bus.
 */
void nvme_prp_build(const struct dma_piece *pieces, uint32_t skip, uint32_t len,
		    struct nvme_sqe *sqe, uint64_t *list, uint64_t list_bus);

/* Slots of equal size, none across a page, for lists and other small things that devices read. */
struct nvme_prp_pool {
	struct dma *dma;
	struct dma_memory mem;
	uint32_t slot_size;
	uint32_t free;
	uint32_t *stack;
};

/*
 * @slots slots, each for the list of a command of @max bytes. Returns 0 or a negative errno with
 * the line in @err.
 */
int nvme_prp_pool_init(struct nvme_prp_pool *pool, struct dma *dma, uint32_t slots, uint32_t max,
		       struct err *err);
void nvme_prp_pool_fini(struct nvme_prp_pool *pool);
/* Takes a slot, of which there must be one. */
uint32_t nvme_prp_pool_take(struct nvme_prp_pool *pool);
void nvme_prp_pool_put(struct nvme_prp_pool *pool, uint32_t slot);
void *nvme_prp_pool_virt(const struct nvme_prp_pool *pool, uint32_t slot);
uint64_t nvme_prp_pool_bus(const struct nvme_prp_pool *pool, uint32_t slot);

#endif
