/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of bdevs share: a running reactor to do I/O on, and files to do it to. */
#ifndef SLUICE_TEST_BDEV_UTIL_H
#define SLUICE_TEST_BDEV_UTIL_H

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bdev/bdev.h"
#include "reactor/reactor.h"

struct rig {
	struct helper_pool *helpers;
	struct reactor *reactor;
};

/* A reactor on a thread of its own, with helpers. */
struct rig *rig_start(void);
void rig_stop(struct rig *rig);
/* Runs @fn on the reactor and waits for its end. */
void rig_call(struct rig *rig, void (*fn)(void *arg), void *arg);

struct bdev_channel *rig_open(struct rig *rig, struct bdev *b);
void rig_close(struct rig *rig, struct bdev_channel *ch);
/* Submits all @n ios in one pass and waits for all; their op, range and pieces are filled in. */
void rig_submit(struct rig *rig, struct bdev_channel *ch, struct bdev_io *ios, unsigned n);
/* One io in one piece; returns its result. */
int rig_io(struct rig *rig, struct bdev_channel *ch, enum bdev_op op, uint64_t offset, void *data,
	   uint64_t len);

/* Memory for direct I/O. */
void *test_alloc(size_t size);
/* Bytes that tell where they belong and when they were written. */
void test_fill(void *data, uint64_t offset, uint64_t len, uint32_t generation);

enum test_place {
	TEST_DISK, /* a file system on a disk */
	TEST_SHM,  /* tmpfs */
};
/*
 * A new file of @size bytes, sparse; its path, which is valid until test_files_remove(). Skips the
 * test where the place does not exist.
 */
const char *test_file(enum test_place place, uint64_t size);
/* Removes all files made by test_file(). */
void test_files_remove(void);

#endif
