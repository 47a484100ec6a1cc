/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The window's pages, handed out first fit.  There are a few thousand at most, and they are asked
 * for when a controller starts or a channel opens, so that a scan is fast enough and keeps nothing
 * that could go wrong.
 */
#include "dma/dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int dma_init(struct dma *d, const struct dma_ops *ops, void *base, size_t window)
{
	*d = (struct dma){.ops = ops, .base = base, .window = window};
	d->bus = calloc(window, sizeof(*d->bus));
	d->used = calloc(window, sizeof(*d->used));
	if (!d->bus || !d->used) {
		free(d->bus);
		free(d->used);
		return -ENOMEM;
	}
	pthread_mutex_init(&d->lock, NULL);
	return 0;
}

void dma_fini(struct dma *d)
{
	pthread_mutex_destroy(&d->lock);
	free(d->bus);
	free(d->used);
}

int dma_add(struct dma *d, const uint64_t *bus, size_t n)
{
	if (n > d->window - d->pages)
		return -ENOSPC;
	memcpy(&d->bus[d->pages], bus, n * sizeof(*bus));
	/* Pairs with the acquire in dma_translate(). */
	__atomic_store_n(&d->pages, d->pages + n, __ATOMIC_RELEASE);
	return 0;
}

/* Whether @pages free pages were found; *@first is then the first one's index. */
static bool find(const struct dma *d, size_t pages, bool contiguous, size_t *first)
{
	size_t run = 0;

	for (size_t i = 0; i < d->pages; i++) {
		if (d->used[i]) {
			run = 0;
			continue;
		}
		if (run && contiguous && d->bus[i] != d->bus[i - 1] + DMA_PAGE_SIZE)
			run = 0;
		if (++run == pages) {
			*first = i + 1 - pages;
			return true;
		}
	}
	return false;
}

int dma_alloc(struct dma *d, size_t pages, bool contiguous, struct dma_memory *mem, struct err *err)
{
	size_t first = 0;
	bool found;
	int rc = 0;

	*mem = (struct dma_memory){0};
	pthread_mutex_lock(&d->lock);
	found = find(d, pages, contiguous, &first);
	if (!found && d->ops->grow) {
		rc = d->ops->grow(d, pages, contiguous, err);
		if (!rc)
			found = find(d, pages, contiguous, &first);
	}
	if (found) {
		memset(&d->used[first], true, pages);
		__atomic_add_fetch(&d->nr_used, pages, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&d->lock);
	if (rc)
		return rc;
	if (!found)
		return err_set(err, -ENOMEM,
			       "no %zu%s pages of device memory (%s) are left: use fewer or "
			       "shallower queues",
			       pages, contiguous ? " contiguous" : "", d->ops->name);
	mem->virt = d->base + first * DMA_PAGE_SIZE;
	mem->bus = &d->bus[first];
	mem->pages = pages;
	memset(mem->virt, 0, pages * DMA_PAGE_SIZE);
	return 0;
}

void dma_free(struct dma *d, struct dma_memory *mem)
{
	if (!mem->pages)
		return;
	pthread_mutex_lock(&d->lock);
	memset(&d->used[mem->bus - d->bus], false, mem->pages);
	__atomic_sub_fetch(&d->nr_used, mem->pages, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&d->lock);
	*mem = (struct dma_memory){0};
}
