/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fixed number of 4 KiB pages of one thread: a stack, so that warm pages are used again first.
 * Nothing is allocated after its creation.
 */
#ifndef SLUICE_BASE_PAGE_POOL_H
#define SLUICE_BASE_PAGE_POOL_H

#include <stdbool.h>
#include <stddef.h>

enum { PAGE_POOL_PAGE_SIZE = 4096 };

struct page_pool {
	char *memory;
	size_t pages;
	size_t free;  /* entries of the stack */
	void **stack; /* the free pages */
};

/* Returns 0, or -ENOMEM. The memory is touched only when pages are used. */
int page_pool_init(struct page_pool *pool, size_t pages);
/* All pages must be back. */
void page_pool_fini(struct page_pool *pool);

/* Takes @n pages to @out, all or (false) none. */
static inline bool page_pool_take(struct page_pool *pool, void **out, size_t n)
{
	if (pool->free < n)
		return false;
	for (size_t i = 0; i < n; i++)
		out[i] = pool->stack[--pool->free];
	return true;
}

/* Gives back @n pages; in reverse, so that the next request finds them in ascending order again. */
static inline void page_pool_put(struct page_pool *pool, void **pages, size_t n)
{
	while (n)
		pool->stack[pool->free++] = pages[--n];
}

#endif
