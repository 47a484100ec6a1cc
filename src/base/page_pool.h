/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 4 KiB pages of one thread, kept as a stack, so that warm pages are used again first.  It can
 * grow, and never shrinks; its memory is touched only when pages are used.  Memory of a special
 * kind can be given to it; whoever gives it, frees it.
 */
#ifndef SLUICE_BASE_PAGE_POOL_H
#define SLUICE_BASE_PAGE_POOL_H

#include <stdbool.h>
#include <stddef.h>

enum { PAGE_POOL_PAGE_SIZE = 4096 };

struct page_pool_chunk;

struct page_pool {
	struct page_pool_chunk *chunks;
	size_t pages; /* in all */
	size_t free;  /* entries of the stack */
	void **stack; /* the free pages */
};

/* Makes an empty pool. */
void page_pool_init(struct page_pool *pool);
/* All pages must be back. */
void page_pool_fini(struct page_pool *pool);
/* Adds @pages pages, which are used last. Returns 0 or -ENOMEM. */
int page_pool_grow(struct page_pool *pool, size_t pages);
/*
 * The same with memory of the caller's, page-aligned, which has to be there until the pool has
 * ended.
 */
int page_pool_add(struct page_pool *pool, void *memory, size_t pages);

/* Takes @n pages to @out; so many must be free. */
static inline void page_pool_take(struct page_pool *pool, void **out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = pool->stack[--pool->free];
}

/* Gives back @n pages; in reverse, so that the next request finds them in ascending order again. */
static inline void page_pool_put(struct page_pool *pool, void **pages, size_t n)
{
	while (n)
		pool->stack[pool->free++] = pages[--n];
}

#endif
