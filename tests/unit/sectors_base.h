/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A base for tests of sectors: a bdev with blocks of 4096 bytes that shows what reaches it, and
 * completes when and how it is told to.  There is one at a time.
 */
#ifndef SLUICE_TEST_SECTORS_BASE_H
#define SLUICE_TEST_SECTORS_BASE_H

#include <pthread.h>

#include "test_bdev_util.h"

enum { SECTOR = 512, BLOCK = 4096 };
enum { BASE_BLOCKS = 1024, HELD_MAX = 256 };

struct base {
	struct bdev bdev;
	char *data;
	/* Blocks change one by one, whichever reactor changes them. */
	pthread_mutex_t lock;
	bool refuse_channels;
	unsigned channels;
};

extern struct base base;

struct base_channel {
	struct bdev_channel ch;
	struct poller poller;
	bool polled;
	unsigned seed;
	struct bdev_io *held[HELD_MAX];
	unsigned held_len;
	unsigned held_most;
};

extern const struct bdev_limits base_usual;

/* Registers the base; returns its view. */
struct bdev *base_register(const struct bdev_limits *limits);
/*
 * The same, and opens a channel of the view without a reactor: its ios' parts are held in the
 * base's channel, base_last_channel.
 */
struct bdev_channel *base_open_by_hand(const struct bdev_limits *limits);
extern struct base_channel *base_last_channel;
/* Ends the held io number @i with @result. */
void base_end(struct base_channel *c, unsigned i, int result);

#endif
