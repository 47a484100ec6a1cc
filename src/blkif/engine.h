/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine: what one reactor does for all its queues together.
 *
 * A request (struct blkif_io) stands in one list at a time; the lists are the stages of its way.
 *
 *   starved     waits for bounce pages, in its queue's list
 *   fetch       its indirect page has to be copied in
 *   in          a WRITE whose data has to be copied in
 *   map         its pages have to be mapped for devices
 *   submit      goes to the bdev now
 *   (the bdev)  has it
 *   finished    came back from the bdev with an error, or with more to do there
 *   out         a READ whose data has to be copied out
 *   unmap       its pages have to be unmapped, before it is answered, or copied after all
 *   answer      gets its response
 *
 * One pass adds the steps of fetch, in, map, out and unmap to the share, flushes that once, moves
 * all on, submits, flushes once more for READs that the device has done at once, answers, and
 * pushes and notifies each ring once.  Mapping for the CPU has no stage: it is done at once, by a
 * call of its own.
 */
#ifndef SLUICE_BLKIF_ENGINE_H
#define SLUICE_BLKIF_ENGINE_H

#include <stddef.h>

struct blkif_engine;
struct reactor;
struct share;

/*
 * Creates the engine of @r with @pages bounce pages (at least 1) for its queues to share, beyond
 * those that each has for itself. @share stays the caller's and outlives the engine. Returns 0 and
 * *@out, or -ENOMEM.
 */
int blkif_engine_create(struct reactor *r, struct share *share, size_t pages,
			struct blkif_engine **out);
/* No queue of it is left, and its reactor does not run any more. */
void blkif_engine_destroy(struct blkif_engine *e);

/* Starts and stops the engine's poller; on the reactor's thread, or before it runs. */
void blkif_engine_start(struct blkif_engine *e);
void blkif_engine_stop(struct blkif_engine *e);

struct reactor *blkif_engine_reactor(const struct blkif_engine *e);

#endif
