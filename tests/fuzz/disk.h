/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk: the fuzzer's bdev: a little memory, whose ios are completed when the input says so, in its
 * order and with its errors.
 */
#ifndef SLUICE_TEST_FUZZ_DISK_H
#define SLUICE_TEST_FUZZ_DISK_H

#include "bdev/bdev.h"

enum { DISK_BYTES = 256 << 10, DISK_BYTES_MAX = 2 * DISK_BYTES };

/*
 * Creates and registers the bdev @name; bdev_delete_all() frees it. Aborts if that fails. With @dma
 * its device reaches memory by itself: it takes data by bus addresses, too, and finds it where the
 * double lets devices find any.
 */
struct bdev *disk_create(const char *name, uint32_t block_size, bool readonly, bool dma);
/* Makes the bdev @more bytes larger, if there is room. */
void disk_grow(const char *name, uint64_t more);
/* From now on ios are kept, or done at once. */
void disk_hold(bool hold);
/* Completes up to @n kept ios, the newest first if @reverse. */
void disk_complete(unsigned n, bool reverse);
/* Fails the next @times ios with @error, a negative errno. */
void disk_fail(int error, unsigned times);
/* Fails the next @times openings of a channel. */
void disk_fail_open(unsigned times);
/* How many ios are kept now. */
unsigned disk_kept(void);

#endif
