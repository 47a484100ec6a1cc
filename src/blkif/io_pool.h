/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to src/blkif.
 *
 * io_pool: the ios of one engine.
 *
 * A ring has room for many requests and is empty most of the time, so what a request needs on its
 * way belongs to no queue: all queues of an engine take it from here when they take a request, and
 * put it back with the answer.  So a pool is as large as what was in flight at once not long ago,
 * however many disks there are, and the ios that are used are the ones used last, which are warm.
 * It grows by chunks, one allocation for many requests; what nobody has needed for a whole period
 * is given back.
 */
#ifndef SLUICE_BLKIF_IO_POOL_H
#define SLUICE_BLKIF_IO_POOL_H

#include <stddef.h>

#include "blkif/io.h"

enum { BLKIF_IO_POOL_CHUNK = 16 }; /* ios */

/* Takes one more chunk. Returns 0 or -ENOMEM. */
int blkif_io_pool_grow(struct blkif_io_pool *pool);

/* Returns 0 and a pool of one chunk, which it always keeps, or -ENOMEM. */
int blkif_io_pool_init(struct blkif_io_pool *pool, struct reactor *r);
/* All ios are back, and the reactor does not run any more. */
void blkif_io_pool_fini(struct blkif_io_pool *pool);
/* The reactor is about to stop: nothing more is given back. */
void blkif_io_pool_stop(struct blkif_io_pool *pool);

/* An io, or NULL without memory. */
static inline struct blkif_io *blkif_io_pool_take(struct blkif_io_pool *pool)
{
	if (!pool->nr_free && blkif_io_pool_grow(pool))
		return NULL;
	if (--pool->nr_free < pool->least_free)
		pool->least_free = pool->nr_free;
	return list_entry(list_pop(&pool->free), struct blkif_io, node);
}

static inline void blkif_io_pool_put(struct blkif_io_pool *pool, struct blkif_io *io)
{
	list_add_head(&pool->free, &io->node);
	pool->nr_free++;
}

/* A period ends: gives back what was free all through it, as far as that makes whole chunks. */
void blkif_io_pool_trim(struct blkif_io_pool *pool);

#endif
