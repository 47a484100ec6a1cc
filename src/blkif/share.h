/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * share: the only way in which blkif touches a guest's pages.
 *
 * One share a reactor collects the steps of all queues' requests and performs them together, so
 * that a system call is paid once a pass and not once a request.  Whoever knows where guests'
 * memory comes from (grants, a segment) implements it.
 */
#ifndef SLUICE_BLKIF_SHARE_H
#define SLUICE_BLKIF_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dma/dma.h"

struct share;

/* One piece of one guest page. offset + len never exceed the page. */
struct share_piece {
	uint32_t peer; /* whose page: the domain's id */
	uint32_t ref;  /* which page: the grant reference, straight from the guest */
	uint16_t offset;
	uint16_t len;
	void *local; /* ours, len bytes, valid until flush has returned */
	/* Where devices find @local, which then lies within one page; 0: nowhere. */
	uint64_t bus;
	/*
	 * Set to a negative errno by flush if this piece failed, and left alone if not: all pieces
	 * of a request share one, set to 0 beforehand.
	 */
	int *status;
};

struct share_ops {
	/* Adds a copy from the guest's page to local memory; performed by flush at the latest. */
	void (*copy_in)(struct share *s, const struct share_piece *piece);
	/* Adds a copy from local memory to the guest's page. */
	void (*copy_out)(struct share *s, const struct share_piece *piece);
	/* Performs what was added, each piece with its own outcome. Nothing pends afterwards. */
	void (*flush)(struct share *s);
	/*
	 * Maps @nr pages of @peer's, at once and one behind the other, to be read, and if @writable
	 * to be written. NULL if any cannot be mapped, for whatever reason: then copying tells
	 * whether the guest is to blame. @refs is only read.
	 */
	void *(*map)(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr,
		     bool writable);
	/* Unmaps what one map() has mapped. Nothing of it is in use any more, the device included.
	 */
	void (*unmap)(struct share *s, void *addr, unsigned nr);
	/*
	 * Both NULL where guests' pages cannot be given to devices. The first adds a mapping of
	 * @peer's page @ref for devices only, which may read it, and if @writable write it. By the
	 * end of the flush @piece->bus is the address of the page's first byte, or DMA_NO_BUS if it
	 * cannot be mapped, for whatever reason, and @piece->handle what its end needs; @piece is
	 * valid until then. The second adds that end, by what @piece says now; within the page its
	 * address may have moved. No device uses the page any more, which is free when flush has
	 * returned. Flush performs ends before beginnings.
	 */
	void (*dma_map)(struct share *s, uint32_t peer, uint32_t ref, bool writable,
			struct dma_piece *piece);
	void (*dma_unmap)(struct share *s, const struct dma_piece *piece);
	/*
	 * NULL where guests' pages have to be mapped first. Where @peer's pages are, as long as a
	 * queue of the peer's is served.
	 */
	const struct share_window *(*window)(struct share *s, uint32_t peer);
};

/* The pages of a peer that are always there, one behind the other. */
struct share_window {
	uint32_t first; /* the reference of the first of them */
	uint32_t pages; /* how many there are; 0: none */
	char *base;     /* of the first, for the CPU */
	uint64_t bus;   /* and for devices, or DMA_NO_BUS */
};

/* Whether the window has a page @ref, and how many bytes from its base that begins. */
static inline bool share_window_find(const struct share_window *w, uint32_t ref, size_t *offset)
{
	*offset = (size_t)(ref - w->first) * DMA_PAGE_SIZE;
	return ref - w->first < w->pages;
}

struct share {
	const struct share_ops *ops;
};

#endif
