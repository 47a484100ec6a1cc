/* SPDX-License-Identifier: BSD-2-Clause */
#include "nvme/prp.h"

#include <errno.h>
#include <stdlib.h>

enum { PAGE_MASK = DMA_PAGE_SIZE - 1 };

uint32_t nvme_prp_cut(const struct dma_piece *pieces, size_t n, uint32_t skip, uint64_t offset,
		      const struct nvme_prp_limits *limits)
{
	uint32_t room = limits->max, total = 0;

	if (limits->stripe) {
		uint32_t left = limits->stripe - (uint32_t)(offset % limits->stripe);

		room = left < room ? left : room;
	}
	for (size_t i = 0; i < n; i++, skip = 0) {
		uint64_t start = pieces[i].bus + skip;
		uint32_t len = pieces[i].len - skip;

		if (i && start & PAGE_MASK)
			break;
		if (len >= room - total) {
			total = room;
			break;
		}
		total += len;
		if ((start + len) & PAGE_MASK)
			break;
	}
	return total & ~(limits->block_size - 1);
}

void nvme_prp_build(const struct dma_piece *pieces, uint32_t skip, uint32_t len,
		    struct nvme_sqe *sqe, uint64_t *list, uint64_t list_bus)
{
	uint32_t entries = 0;

	sqe->prp1 = pieces->bus + skip;
	sqe->prp2 = 0;
	for (;;) {
		uint32_t here = pieces->len - skip;

		if (here >= len)
			break;
		len -= here;
		skip = 0;
		pieces++;
		if (!entries)
			sqe->prp2 = pieces->bus;
		list[entries++] = pieces->bus;
	}
	if (entries > 1)
		sqe->prp2 = list_bus;
}

int nvme_prp_pool_init(struct nvme_prp_pool *pool, struct dma *dma, uint32_t slots, uint32_t max,
		       struct err *err)
{
	uint32_t size = 64, per_page;
	int rc;

	/* Of max / 4096 + 1 pages that data not aligned to pages may touch, the first is not in it.
	 */
	while (size < max / DMA_PAGE_SIZE * sizeof(uint64_t))
		size *= 2;
	per_page = DMA_PAGE_SIZE / size;
	*pool = (struct nvme_prp_pool){.dma = dma, .slot_size = size, .free = slots};
	pool->stack = calloc(slots, sizeof(*pool->stack));
	if (!pool->stack)
		return err_set(err, -ENOMEM, "no memory left for a queue of a drive");
	rc = dma_alloc(dma, (slots + per_page - 1) / per_page, false, &pool->mem, err);
	if (rc) {
		free(pool->stack);
		return rc;
	}
	for (uint32_t i = 0; i < slots; i++)
		pool->stack[i] = slots - 1 - i;
	return 0;
}

void nvme_prp_pool_fini(struct nvme_prp_pool *pool)
{
	dma_free(pool->dma, &pool->mem);
	free(pool->stack);
}

uint32_t nvme_prp_pool_take(struct nvme_prp_pool *pool)
{
	return pool->stack[--pool->free];
}

void nvme_prp_pool_put(struct nvme_prp_pool *pool, uint32_t slot)
{
	pool->stack[pool->free++] = slot;
}

void *nvme_prp_pool_virt(const struct nvme_prp_pool *pool, uint32_t slot)
{
	return (char *)pool->mem.virt + (size_t)slot * pool->slot_size;
}

uint64_t nvme_prp_pool_bus(const struct nvme_prp_pool *pool, uint32_t slot)
{
	uint32_t at = slot * pool->slot_size;

	return pool->mem.bus[at / DMA_PAGE_SIZE] + at % DMA_PAGE_SIZE;
}
