/* SPDX-License-Identifier: BSD-2-Clause */
#include "dma/vfio.h"
#include "sluiced/drives.h"

static int dma_create(void *arg, struct dma **out, struct err *err)
{
	const struct drives_vfio *d = arg;

	return dma_vfio_create(d->max_pages, out, err);
}

static void dma_destroy(void *arg, struct dma *dma)
{
	dma_vfio_destroy(dma);
}

static int open_drive(void *arg, const char *address, struct dma *dma, struct nvme_pci **out,
		      struct err *err)
{
	return nvme_vfio_open(address, dma, out, err);
}

static int enter(void *arg, const char *address, struct err *err)
{
	/* If this process dies the kernel resets the drive, before it takes its memory back. */
	return 0;
}

static void leave(void *arg, const char *address)
{
	/* Nothing was noted. */
}

struct nvme_ways drives_vfio_ways(struct drives_vfio *d)
{
	return (struct nvme_ways){
		.dma_create = dma_create,
		.dma_destroy = dma_destroy,
		.open = open_drive,
		.enter = enter,
		.leave = leave,
		.arg = d,
	};
}
