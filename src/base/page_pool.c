/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/page_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct page_pool_chunk {
	struct page_pool_chunk *next;
	char *memory;
	size_t bytes;
};

void page_pool_init(struct page_pool *pool)
{
	memset(pool, 0, sizeof(*pool));
}

void page_pool_fini(struct page_pool *pool)
{
	while (pool->chunks) {
		struct page_pool_chunk *chunk = pool->chunks;

		pool->chunks = chunk->next;
		munmap(chunk->memory, chunk->bytes);
		free(chunk);
	}
	free(pool->stack);
}

int page_pool_add(struct page_pool *pool, void *memory, size_t pages)
{
	void **stack = realloc(pool->stack, (pool->pages + pages) * sizeof(pool->stack[0]));

	if (!stack)
		return -ENOMEM;
	pool->stack = stack;
	/*
	 * Under all others, which are warm; and its lowest address uppermost, so that a request
	 * gets ascending pages, which make one piece of I/O.
	 */
	memmove(stack + pages, stack, pool->free * sizeof(stack[0]));
	for (size_t i = 0; i < pages; i++)
		stack[i] = (char *)memory + (pages - 1 - i) * PAGE_POOL_PAGE_SIZE;
	pool->free += pages;
	pool->pages += pages;
	return 0;
}

int page_pool_grow(struct page_pool *pool, size_t pages)
{
	struct page_pool_chunk *chunk = malloc(sizeof(*chunk));

	if (!chunk)
		return -ENOMEM;
	chunk->bytes = pages * PAGE_POOL_PAGE_SIZE;
	chunk->memory = mmap(NULL, chunk->bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (chunk->memory == MAP_FAILED)
		goto no_memory;
	if (page_pool_add(pool, chunk->memory, pages))
		goto no_room;
	/* A crash dump or a child has no business with guests' data. */
	madvise(chunk->memory, chunk->bytes, MADV_DONTDUMP);
	madvise(chunk->memory, chunk->bytes, MADV_DONTFORK);
	chunk->next = pool->chunks;
	pool->chunks = chunk;
	return 0;
no_room:
	munmap(chunk->memory, chunk->bytes);
no_memory:
	free(chunk);
	return -ENOMEM;
}
