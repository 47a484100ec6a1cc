/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to src/blkif.
 *
 * bounce: pages of our own through which data is copied, where it is copied.
 *
 * An engine has one pool for each kind of memory that its queues' devices want: memory of the
 * device's own kind (dma.h), or any.  In each pool every queue has a reserve that holds its largest
 * request; beyond it the pool's queues share what else there is, and no guest has more of that than
 * it may.  So a disk whose device hangs can keep the shared pages, and yet the others go on.
 *
 * Anonymous memory costs nothing until it is touched, so all that is shared is there from the
 * beginning.  Device memory is scarce and paid for when it is got: its pool grows in steps, when
 * requests want more than there is, and shrinks only when the engine ends.  Lest busy guests keep
 * others' disks from starting, what is shared grows only until half of all device memory is left,
 * and what nobody uses of it becomes a new queue's reserve when there is nothing else.
 */
#ifndef SLUICE_BLKIF_BOUNCE_H
#define SLUICE_BLKIF_BOUNCE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/list.h"

struct blkif_io;
struct blkif_queue;
struct reactor;

/* The pools of an engine. */
struct blkif_bounces {
	struct list pools;
	size_t shared; /* pages in each, beyond the queues' reserves */
	struct reactor *reactor;
};

/* One of them. */
struct blkif_bounce;

/* Returns 0 or -ENOMEM. */
int blkif_bounces_init(struct blkif_bounces *b, struct reactor *r, size_t shared);
/* The reactor is about to stop: nothing more is given back. */
void blkif_bounces_stop(struct blkif_bounces *b);
/* No queue is left. Device memory goes back to where it is from. */
void blkif_bounces_fini(struct blkif_bounces *b);

/*
 * Gives the queue its pool, and its reserve there. Returns 0 or a negative errno; where device
 * memory is short, a line in the log says what can be done. The other takes the reserve back.
 */
int blkif_bounce_join(struct blkif_bounces *b, struct blkif_queue *q);
void blkif_bounce_leave(struct blkif_queue *q);

/*
 * Gives the request all the pages it may need, at once, so that no two can wait for each other; or
 * none (false), now.
 */
bool blkif_bounce_take(struct blkif_io *io);
/* Takes them back; nothing happens if there are none. */
void blkif_bounce_put(struct blkif_io *io);

#endif
