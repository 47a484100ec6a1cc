/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 4 KiB pages of one thread, kept as a stack, so that warm pages are used again first.
 *
 * There may be many more of them than are ever used, and what is not used costs nothing: neither
 * memory, which the kernel gives at the first touch, nor a place in the stack, where only pages
 * are that have been taken once.  A burst, though, leaves pages behind that nobody needs for a
 * long time; page_pool_trim() gives their memory back, and keeps the pages.  In the stack they are
 * the lowest: those that would be used last.
 *
 * It can grow.  Memory of a special kind can be given to it; whoever gives it, frees it.
 */
#ifndef SLUICE_BASE_PAGE_POOL_H
#define SLUICE_BASE_PAGE_POOL_H

#include <stdbool.h>
#include <stddef.h>

enum { PAGE_POOL_PAGE_SIZE = 4096 };

struct page_pool_chunk;

struct page_pool {
	size_t pages; /* in all */
	size_t free;  /* of those, here */
	/* Called, if there is one, when a page is taken that has no memory yet. */
	void (*warmed)(void *arg);
	void *arg;
	/* private */
	void **stack; /* free pages that were taken once */
	size_t nr;    /* entries of it */
	size_t cold;  /* of those, the lowest: their memory has gone back */
	size_t least; /* entries there were in this period, at the least */
	size_t room;
	struct page_pool_chunk *chunks, *last;
	struct page_pool_chunk *fresh; /* the first with pages that were never taken */
	bool given;
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
/*
 * A period ends: of the pages that were free all through it, gives back the memory of all but
 * @keep, or of @max of them.  Returns how many remain to be done; at 0 the next period has begun.
 * Memory that was given stays.
 */
size_t page_pool_trim(struct page_pool *pool, size_t keep, size_t max);
/* How many pages have memory. */
size_t page_pool_count_warm(const struct page_pool *pool);

/* private: a page without memory */
void *page_pool_take_cold(struct page_pool *pool);

/* Takes @n pages to @out; so many must be free. */
static inline void page_pool_take(struct page_pool *pool, void **out, size_t n)
{
	/* First, so that warmed() finds all of them counted. */
	pool->free -= n;
	for (size_t i = 0; i < n; i++)
		out[i] = __builtin_expect(pool->nr > pool->cold, 1) ? pool->stack[--pool->nr]
								    : page_pool_take_cold(pool);
	if (pool->nr < pool->least)
		pool->least = pool->nr;
}

/* Gives back @n pages; in reverse, so that the next request finds them in ascending order again. */
static inline void page_pool_put(struct page_pool *pool, void **pages, size_t n)
{
	pool->free += n;
	while (n)
		pool->stack[pool->nr++] = pages[--n];
}

#endif
