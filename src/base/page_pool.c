/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/page_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

int page_pool_init(struct page_pool *pool, size_t pages)
{
	void *memory = mmap(NULL, pages * PAGE_POOL_PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	/* A crash dump or a child has no business with guests' data. */
	madvise(memory, pages * PAGE_POOL_PAGE_SIZE, MADV_DONTDUMP);
	madvise(memory, pages * PAGE_POOL_PAGE_SIZE, MADV_DONTFORK);
	pool->stack = malloc(pages * sizeof(pool->stack[0]));
	if (!pool->stack) {
		munmap(memory, pages * PAGE_POOL_PAGE_SIZE);
		return -ENOMEM;
	}
	pool->memory = memory;
	pool->pages = pages;
	/* Lowest address on top, so that requests get ascending pages, which make one piece of I/O.
	 */
	for (pool->free = 0; pool->free < pages; pool->free++)
		pool->stack[pool->free] =
			pool->memory + (pages - 1 - pool->free) * PAGE_POOL_PAGE_SIZE;
	return 0;
}

void page_pool_fini(struct page_pool *pool)
{
	munmap(pool->memory, pool->pages * PAGE_POOL_PAGE_SIZE);
	free(pool->stack);
}
