/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * load: random I/O at full depth that knows what every sector must contain.
 *
 * Each slot of the ring works on its own stretch of the disk, one request at a time, so that what a
 * read has to bring is never in doubt; the requests' segments have random first and last sectors.
 * Each sector carries its number and the count of its writes.
 */
#ifndef SLUICE_TEST_LOAD_H
#define SLUICE_TEST_LOAD_H

#include "guest.h"

struct load;

struct load_opts {
	unsigned depth;        /* slots used; 0: all */
	unsigned max_segments; /* of one request; above 11 they go indirectly */
	bool flushes;          /* some requests are flushes */
	unsigned seed;
};

/* Prepares load on the disk that the guest is connected to, which reads as zeroes. */
struct load *load_create(struct guest *g, const struct load_opts *opts);
void load_destroy(struct load *l);
/*
 * Issues requests until @requests of them are answered, then waits for the rest. Returns NULL, or
 * what went wrong.
 */
const char *load_run(struct load *l, unsigned requests);
/* Issues until the ring is full; leaves them outstanding. */
void load_fill(struct load *l);
/* Collects what is outstanding; as load_run(). */
const char *load_finish(struct load *l);
/* Collects what there is, and issues anew; does not wait long. As load_run(). */
const char *load_step(struct load *l);
/* How many requests have been answered. */
unsigned load_answered(const struct load *l);
/* Checks the disk's contents, @data, against what was written. The load must be finished. */
const char *load_compare(const struct load *l, const char *data);

#endif
