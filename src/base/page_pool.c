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
	size_t taken; /* bytes, from its beginning: the others never were */
	bool given;
};

void page_pool_init(struct page_pool *pool)
{
	memset(pool, 0, sizeof(*pool));
}

static size_t stack_bytes(size_t room)
{
	return room * sizeof(void *);
}

void page_pool_fini(struct page_pool *pool)
{
	while (pool->chunks) {
		struct page_pool_chunk *chunk = pool->chunks;

		pool->chunks = chunk->next;
		if (!chunk->given)
			munmap(chunk->memory, chunk->bytes);
		free(chunk);
	}
	if (pool->stack)
		munmap(pool->stack, stack_bytes(pool->room));
}

/* So that all pages that there will be can be in the stack. Addresses only, until they are. */
static int make_room(struct page_pool *pool, size_t pages)
{
	size_t room = pool->room ? pool->room : PAGE_POOL_PAGE_SIZE / sizeof(void *);
	void *stack;

	while (room < pages)
		room *= 2;
	if (room == pool->room)
		return 0;
	stack = pool->stack ? mremap(pool->stack, stack_bytes(pool->room), stack_bytes(room),
				     MREMAP_MAYMOVE)
			    : mmap(NULL, stack_bytes(room), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stack == MAP_FAILED)
		return -ENOMEM;
	pool->stack = stack;
	pool->room = room;
	return 0;
}

static int add_chunk(struct page_pool *pool, void *memory, size_t pages, bool given)
{
	struct page_pool_chunk *chunk = malloc(sizeof(*chunk));

	if (!chunk || make_room(pool, pool->pages + pages)) {
		free(chunk);
		return -ENOMEM;
	}
	*chunk = (struct page_pool_chunk){
		.memory = memory, .bytes = pages * PAGE_POOL_PAGE_SIZE, .given = given};
	if (pool->last)
		pool->last->next = chunk;
	else
		pool->chunks = chunk;
	pool->last = chunk;
	if (!pool->fresh)
		pool->fresh = chunk;
	pool->given |= given;
	pool->free += pages;
	pool->pages += pages;
	return 0;
}

int page_pool_add(struct page_pool *pool, void *memory, size_t pages)
{
	return add_chunk(pool, memory, pages, true);
}

int page_pool_grow(struct page_pool *pool, size_t pages)
{
	size_t bytes = pages * PAGE_POOL_PAGE_SIZE;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	if (add_chunk(pool, memory, pages, false)) {
		munmap(memory, bytes);
		return -ENOMEM;
	}
	/* A crash dump or a child has no business with guests' data. */
	madvise(memory, bytes, MADV_DONTDUMP);
	madvise(memory, bytes, MADV_DONTFORK);
	return 0;
}

void *page_pool_take_cold(struct page_pool *pool)
{
	struct page_pool_chunk *chunk = pool->fresh;
	void *page;

	if (pool->warmed)
		pool->warmed(pool->arg);
	if (pool->cold) {
		pool->nr = --pool->cold;
		return pool->stack[pool->nr];
	}
	/* Ascending, so that a request gets pages that follow each other: one piece of I/O. */
	page = chunk->memory + chunk->taken;
	chunk->taken += PAGE_POOL_PAGE_SIZE;
	if (chunk->taken == chunk->bytes)
		pool->fresh = chunk->next;
	return page;
}

/* Pages that have come back together lie there in descending order. */
static void release(void **pages, size_t n)
{
	size_t end;

	for (size_t i = 0; i < n; i = end) {
		char *lowest = pages[i];

		for (end = i + 1; end < n && pages[end] == lowest - PAGE_POOL_PAGE_SIZE; end++)
			lowest -= PAGE_POOL_PAGE_SIZE;
		madvise(lowest, (end - i) * PAGE_POOL_PAGE_SIZE, MADV_DONTNEED);
	}
}

size_t page_pool_trim(struct page_pool *pool, size_t keep, size_t max)
{
	size_t idle = pool->least > pool->cold ? pool->least - pool->cold : 0;
	size_t n = idle > keep ? idle - keep : 0, now = n < max ? n : max;

	if (pool->given)
		return 0;
	release(pool->stack + pool->cold, now);
	pool->cold += now;
	if (now == n)
		pool->least = pool->nr;
	return n - now;
}

size_t page_pool_count_warm(const struct page_pool *pool)
{
	return pool->pages - pool->free + pool->nr - pool->cold;
}
