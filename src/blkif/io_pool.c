/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/io_pool.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"

#define PERIOD_NS (10 * NSEC_PER_SEC)

struct blkif_io_chunk {
	struct list node;
	unsigned free; /* of its ios; counted by blkif_io_pool_trim() for itself */
	struct blkif_io ios[BLKIF_IO_POOL_CHUNK];
};

int blkif_io_pool_grow(struct blkif_io_pool *pool)
{
	struct blkif_io_chunk *chunk = calloc(1, sizeof(*chunk));

	if (!chunk)
		return -ENOMEM;
	for (unsigned i = 0; i < BLKIF_IO_POOL_CHUNK; i++) {
		chunk->ios[i].chunk = chunk;
		blkif_io_init(&chunk->ios[i]);
		blkif_io_pool_put(pool, &chunk->ios[i]);
	}
	list_add_tail(&pool->chunks, &chunk->node);
	if (pool->nr_chunks++ && !pool->timer.running)
		reactor_timer_start(pool->reactor, &pool->timer, PERIOD_NS);
	return 0;
}

static void period_is_over(struct reactor_timer *t)
{
	struct blkif_io_pool *pool = container_of(t, struct blkif_io_pool, timer);

	blkif_io_pool_trim(pool);
	/* An idle pool is at its least, and wakes nobody. */
	if (pool->nr_chunks > 1)
		reactor_timer_start(pool->reactor, t, PERIOD_NS);
}

int blkif_io_pool_init(struct blkif_io_pool *pool, struct reactor *r)
{
	*pool = (struct blkif_io_pool){.reactor = r, .timer.fire = period_is_over};
	list_init(&pool->free);
	list_init(&pool->chunks);
	return blkif_io_pool_grow(pool);
}

void blkif_io_pool_fini(struct blkif_io_pool *pool)
{
	struct list *pos;

	while ((pos = list_pop(&pool->chunks)))
		free(list_entry(pos, struct blkif_io_chunk, node));
}

void blkif_io_pool_stop(struct blkif_io_pool *pool)
{
	reactor_timer_stop(pool->reactor, &pool->timer);
}

static void give_back(struct blkif_io_pool *pool, struct blkif_io_chunk *chunk)
{
	for (unsigned i = 0; i < BLKIF_IO_POOL_CHUNK; i++)
		list_del(&chunk->ios[i].node);
	list_del(&chunk->node);
	pool->nr_free -= BLKIF_IO_POOL_CHUNK;
	pool->nr_chunks--;
	free(chunk);
}

void blkif_io_pool_trim(struct blkif_io_pool *pool)
{
	size_t idle = pool->least_free;
	struct list *pos, *next;

	list_for_each (pos, &pool->chunks)
		list_entry(pos, struct blkif_io_chunk, node)->free = 0;
	list_for_each (pos, &pool->free)
		list_entry(pos, struct blkif_io, node)->chunk->free++;
	list_for_each_safe (pos, next, &pool->chunks) {
		struct blkif_io_chunk *chunk = list_entry(pos, struct blkif_io_chunk, node);

		if (idle < BLKIF_IO_POOL_CHUNK || pool->nr_chunks == 1)
			break;
		if (chunk->free < BLKIF_IO_POOL_CHUNK)
			continue;
		give_back(pool, chunk);
		idle -= BLKIF_IO_POOL_CHUNK;
	}
	pool->least_free = pool->nr_free;
}
