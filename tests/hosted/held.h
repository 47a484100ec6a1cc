/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * held: a bdev in memory whose completions a test can hold back, fail and count.  Its contents are
 * the test's to see and to set, and outlive a backend, as a file would.
 */
#ifndef SLUICE_TEST_HELD_H
#define SLUICE_TEST_HELD_H

#include "bdev/bdev.h"

struct held;

/*
 * Creates and registers it, of @size bytes in blocks of 512; on the control thread. Aborts if that
 * fails. A test may change the limits of its bdev as long as nobody has claimed it.
 */
struct held *held_create(const char *name, uint64_t size);
struct held *held_create_blocks(const char *name, uint64_t size, uint32_t block_size);
/*
 * Those that are created from now on are such as a device is that fetches data by itself: @dma is
 * theirs, and of data by bus addresses they see what @reach lets devices reach, up to a page's end
 * (NULL: nothing). @dma NULL: no more.
 */
void held_use_dma(struct dma *dma, void *(*reach)(uint64_t bus, bool write));
/* Makes it larger, up to twice what it was; on the control thread. */
void held_grow(struct held *h, uint64_t size);
/* Its bdev, and its contents: of the size it was created with. */
struct bdev *held_bdev(struct held *h);
char *held_data(struct held *h);

/* From now on ios are kept instead of being completed. From any thread, as all that follows. */
void held_hold(struct held *h);
/* Completes what is kept, in reverse order if @reverse, and what comes from now on at once. */
void held_release(struct held *h, bool reverse);
/* Completes the @n that have been kept longest; the others stay, and what comes is kept. */
void held_release_some(struct held *h, unsigned n);
/* Waits until @n ios are kept; false after 10 s. */
bool held_wait(struct held *h, unsigned n);
/* Fails the next @times ios of @op with the negative errno @error. */
void held_fail(struct held *h, enum bdev_op op, int error, unsigned times);
/* How many ios of @op have been submitted; the largest number of bytes of one. */
unsigned held_count(struct held *h, enum bdev_op op);
/* How many of these came by bus addresses; and how many by addresses that are not of its dma. */
unsigned held_by_bus(struct held *h);
unsigned held_by_foreign_memory(struct held *h);
uint64_t held_largest(struct held *h);
/* How many of all were foretold by bdev_prefetch(), with one io between that and submission. */
unsigned held_foretold(struct held *h);

/* What was submitted so far, in that order: up to HELD_LOG_MAX ios. */
enum { HELD_LOG_MAX = 4096 };
struct held_entry {
	enum bdev_op op;
	uint64_t offset;
	uint64_t len;
	bool secure;
};
unsigned held_logged(struct held *h);
struct held_entry held_log(struct held *h, unsigned n);
/* How many ios are kept now. */
unsigned held_kept(struct held *h);

#endif
