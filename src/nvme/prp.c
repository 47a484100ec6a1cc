/* SPDX-License-Identifier: BSD-2-Clause */
#include "nvme/prp.h"

uint32_t nvme_prps_build(const struct dma_piece *pieces, uint32_t n, struct nvme_cursor *at,
			 uint32_t max, uint32_t block_size, struct nvme_sqe *sqe, uint64_t *list,
			 uint64_t list_bus)
{
	struct nvme_prps p = {.sqe = sqe, .list = list, .max = max};
	struct nvme_cursor here = *at;

	while (here.index < n) {
		const struct dma_piece *piece = &pieces[here.index];
		uint32_t left = piece->len - (uint32_t)here.skip;
		uint32_t took = nvme_prps_add(&p, piece->bus + here.skip, left);

		if (took < left) {
			here.skip += took;
			break;
		}
		here.index++;
		here.skip = 0;
	}
	if (p.len & (block_size - 1)) {
		/* The gap is inside a block: once more, as far as that one. */
		max = p.len & ~(block_size - 1);
		return max ? nvme_prps_build(pieces, n, at, max, block_size, sqe, list, list_bus)
			   : 0;
	}
	nvme_prps_end(&p, list_bus);
	*at = here;
	return p.len;
}

uint32_t nvme_sgl_build(const struct dma_piece *pieces, uint32_t n, struct nvme_cursor *at,
			uint32_t max, uint32_t block_size, struct nvme_sqe *sqe,
			struct nvme_sgl *list, uint32_t list_len, uint64_t list_bus)
{
	struct nvme_cursor here = *at;
	uint32_t len = 0, used = 0;
	struct nvme_sgl *last = NULL;

	while (here.index < n && len < max) {
		const struct dma_piece *piece = &pieces[here.index];
		uint32_t left = piece->len - (uint32_t)here.skip, take = left;
		uint64_t bus = piece->bus + here.skip;

		if (take > max - len)
			take = max - len;
		if (last && bus == last->bus + last->len) {
			last->len += take;
		} else {
			if (used == list_len)
				break;
			last = &list[used++];
			*last = (struct nvme_sgl){.bus = bus, .len = take, .type = NVME_SGL_DATA};
		}
		len += take;
		here.skip += take;
		if (take == left) {
			here.index++;
			here.skip = 0;
		}
	}
	if (len & (block_size - 1)) {
		max = len & ~(block_size - 1);
		return max ? nvme_sgl_build(pieces, n, at, max, block_size, sqe, list, list_len,
					    list_bus)
			   : 0;
	}
	sqe->flags |= NVME_SQE_SGL;
	if (used == 1)
		sqe->sgl = list[0];
	else
		sqe->sgl = (struct nvme_sgl){.bus = list_bus,
					     .len = used * (uint32_t)sizeof(*list),
					     .type = NVME_SGL_LAST_SEGMENT};
	*at = here;
	return len;
}

static uint32_t slot_size(uint32_t max)
{
	uint32_t size = 64;

	/* Of max / 4096 + 1 pages that data not aligned to pages may touch, the first is not in it.
	 */
	while (size < max / DMA_PAGE_SIZE * sizeof(uint64_t))
		size *= 2;
	return size;
}

uint32_t nvme_slots_pages(uint32_t n, uint32_t max)
{
	uint32_t per_page = DMA_PAGE_SIZE / slot_size(max);

	return (n + per_page - 1) / per_page;
}

int nvme_slots_init(struct nvme_slots *slots, struct dma *dma, uint32_t n, uint32_t max,
		    struct err *err)
{
	*slots = (struct nvme_slots){.dma = dma, .size = slot_size(max)};
	return dma_alloc(dma, nvme_slots_pages(n, max), false, &slots->mem, err);
}

void nvme_slots_fini(struct nvme_slots *slots)
{
	dma_free(slots->dma, &slots->mem);
}

void *nvme_slot_virt(const struct nvme_slots *slots, uint32_t i)
{
	return (char *)slots->mem.virt + (size_t)i * slots->size;
}

uint64_t nvme_slot_bus(const struct nvme_slots *slots, uint32_t i)
{
	uint32_t at = i * slots->size;

	return slots->mem.bus[at / DMA_PAGE_SIZE] + at % DMA_PAGE_SIZE;
}
