/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dma: memory that a device may reach, and the addresses by which the device reaches it.
 *
 * A driver has two names for each page: the virtual address, for the CPU, and the bus address, for
 * the device.  Neither follows from the other, and neighbours by one name need not be neighbours by
 * the other: in a PV dom0 the bus address is a machine frame that the hypervisor told us, under an
 * IOMMU it is a number that was agreed with it.  So the bus address is kept for each 4 KiB page.
 *
 * All memory of one provider lies in one window of virtual addresses, so that the bus address of
 * any byte in it is found by an index.  The provider puts its pages there in the order of their bus
 * addresses, which makes runs of frames that happen to follow each other runs of pages, and
 * contiguous memory a matter of looking for one.  Such runs are luck for all providers but an
 * IOMMU's: who needs a queue takes one page (64 submission or 256 completion entries) and is glad
 * of more.
 *
 * Allocating and freeing is for the control path; it takes a lock, and any thread may do it.
 * Translating takes none.
 *
 * A page may be released to the system only when no device can write to it any more.  The driver
 * answers for that with the order in which it stops the device and calls dma_free(); a provider
 * need not ask.
 */
#ifndef SLUICE_DMA_DMA_H
#define SLUICE_DMA_DMA_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { DMA_PAGE_SIZE = 4096 };

/* No device's address: what is kept for a page that no provider has filled. */
#define DMA_NO_BUS UINT64_MAX

struct dma;

struct dma_ops {
	const char *name;
	/*
	 * Adds @pages pages or more to the window by dma_add(), as neighbours on the bus if
	 * @contiguous and if that can be had. Called with the lock held; optional. Returns 0 or a
	 * negative errno with the line in @err.
	 */
	int (*grow)(struct dma *d, size_t pages, bool contiguous, struct err *err);
	/* Both optional: see dma_map_memory(). */
	int (*map)(struct dma *d, void *virt, size_t pages, uint64_t *bus, struct err *err);
	void (*unmap)(struct dma *d, uint64_t bus, size_t pages);
};

struct dma {
	const struct dma_ops *ops;
	char *base;    /* of the window; page-aligned */
	size_t window; /* pages of addresses in it */
	/* private */
	size_t pages;  /* of these, filled: the first ones */
	uint64_t *bus; /* of each filled page */
	bool *used;
	size_t nr_used; /* of the filled ones */
	pthread_mutex_t lock;
};

/* Memory within one page as a device finds it: what an io and its commands are made of. */
struct dma_piece {
	uint64_t bus;    /* of its first byte; a multiple of 4 */
	uint32_t len;    /* bytes */
	uint32_t handle; /* private to whoever made the piece */
};

/* Zeroed when it is handed out. */
struct dma_memory {
	void *virt;
	const uint64_t *bus; /* of each page */
	size_t pages;        /* 0: none */
};

/*
 * For providers: @d gets the @window pages of addresses from @base on, none of them filled yet.
 * Returns 0 or -ENOMEM.
 */
int dma_init(struct dma *d, const struct dma_ops *ops, void *base, size_t window);
/* For providers: all memory must have been freed. The window itself is the provider's. */
void dma_fini(struct dma *d);
/*
 * For providers: the next @n pages of the window are memory now, readable and writable, and have
 * these bus addresses. -ENOSPC: the window has no room for them.
 */
int dma_add(struct dma *d, const uint64_t *bus, size_t n);

/*
 * Takes @pages pages, neighbours on the bus too if @contiguous. Returns 0, or -ENOMEM or what the
 * provider says, with the line in @err.
 */
int dma_alloc(struct dma *d, size_t pages, bool contiguous, struct dma_memory *mem,
	      struct err *err);
/* Gives them back; nothing happens if there are none. No device may still use them. */
void dma_free(struct dma *d, struct dma_memory *mem);

/* Whether memory of others, which no provider handed out, can be given to devices, too. */
static inline bool dma_can_map(const struct dma *d)
{
	return d->ops->map != NULL;
}

/*
 * Gives the @pages pages at @virt, which are not @d's, to its devices, which find the first byte at
 * *@bus and the rest behind it. They are locked until dma_unmap_memory(), which takes the same
 * @pages, and before which no device may use them any more. Returns 0 or a negative errno with the
 * line in @err.
 */
static inline int dma_map_memory(struct dma *d, void *virt, size_t pages, uint64_t *bus,
				 struct err *err)
{
	return d->ops->map(d, virt, pages, bus, err);
}

static inline void dma_unmap_memory(struct dma *d, uint64_t bus, size_t pages)
{
	d->ops->unmap(d, bus, pages);
}

/* Pages that could be handed out yet if the system has them, now. From any thread. */
static inline size_t dma_count_left(const struct dma *d)
{
	return d->window - __atomic_load_n(&d->nr_used, __ATOMIC_RELAXED);
}

/* The bus address of the byte at @virt; DMA_NO_BUS if that is no memory of @d. From any thread. */
static inline uint64_t dma_translate(const struct dma *d, const void *virt)
{
	uintptr_t at = (uintptr_t)virt - (uintptr_t)d->base;

	/* Pairs with the release in dma_add(): a page that counts has its address. */
	if (at / DMA_PAGE_SIZE >= __atomic_load_n(&d->pages, __ATOMIC_ACQUIRE))
		return DMA_NO_BUS;
	return d->bus[at / DMA_PAGE_SIZE] + at % DMA_PAGE_SIZE;
}

#endif
