/* SPDX-License-Identifier: BSD-2-Clause */
#include "dma_double.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/list.h"

enum {
	WINDOW = 16384, /* pages of addresses */
	RUN = 2,        /* neighbours on the bus, unless more are asked for */
};

#define FIRST_BUS 0xb05000000000ULL

static int grow(struct dma *dma, size_t pages, bool contiguous, struct err *err)
{
	struct dma_double *d = container_of(dma, struct dma_double, dma);
	uint64_t bus[WINDOW];

	if (pages > d->limit || pages > WINDOW) {
		d->denied++;
		return err_set(err, -ENOMEM, "the double has no %zu pages left", pages);
	}
	for (size_t i = 0; i < pages; i++) {
		size_t run = contiguous && !d->no_runs ? pages : RUN;

		/* Each run begins where its first page's number says, times three: ascending. */
		bus[i] = FIRST_BUS + ((dma->pages + i - i % run) * 3 + i % run + 1) * DMA_PAGE_SIZE;
	}
	if (mprotect(dma->base + dma->pages * DMA_PAGE_SIZE, pages * DMA_PAGE_SIZE,
		     PROT_READ | PROT_WRITE))
		return -errno;
	d->limit -= pages;
	return dma_add(dma, bus, pages);
}

static const struct dma_ops double_ops = {.name = "double", .grow = grow};

void dma_double_init(struct dma_double *d, size_t pages)
{
	void *base = mmap(NULL, (size_t)WINDOW * DMA_PAGE_SIZE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(base != MAP_FAILED);
	*d = (struct dma_double){.limit = pages};
	assert_int_equal(dma_init(&d->dma, &double_ops, base, WINDOW), 0);
}

size_t dma_double_used(struct dma_double *d)
{
	size_t n = 0;

	for (size_t i = 0; i < d->dma.pages; i++)
		n += d->dma.used[i];
	return n;
}

void dma_double_fini(struct dma_double *d)
{
	assert_int_equal(dma_double_used(d), 0);
	munmap(d->dma.base, (size_t)WINDOW * DMA_PAGE_SIZE);
	dma_fini(&d->dma);
}

void *dma_double_reach(struct dma_double *d, uint64_t bus, size_t len)
{
	size_t offset = bus % DMA_PAGE_SIZE;

	void *at = NULL;

	if (len > DMA_PAGE_SIZE - offset)
		return NULL;
	pthread_mutex_lock(&d->dma.lock);
	for (size_t i = 0; i < d->dma.pages && !at; i++)
		if (d->dma.used[i] && d->dma.bus[i] == bus - offset)
			at = d->dma.base + i * DMA_PAGE_SIZE + offset;
	pthread_mutex_unlock(&d->dma.lock);
	return at;
}
