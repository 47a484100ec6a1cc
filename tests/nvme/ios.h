/* SPDX-License-Identifier: BSD-2-Clause */
/* Ios to a namespace on the stage, for tests that are about those: one stage at a time. */
#ifndef SLUICE_TEST_NVME_IOS_H
#define SLUICE_TEST_NVME_IOS_H

#include "nvme/bdev_nvme.h"
#include "stage.h"

enum { IOS = 256, IOVS = 24 };

struct test_io {
	struct bdev_io io;
	struct iovec iov[IOVS];
	unsigned over;
};

extern struct stage *s;
extern struct bdev *b;          /* namespace 1 */
extern struct bdev_channel *ch; /* to it, on the first reactor */
extern struct test_io ios[IOS];

/* A live controller, and what is above; @change, which may be NULL, says what it is like. */
void open_stage(uint32_t block_size, void (*change)(struct stage *stage));
/* No io was over twice: asserted. */
void close_stage(void);

/* A done that counts. */
void io_over(struct bdev_io *io);
struct bdev_io *prepare(unsigned i, enum bdev_op op, uint64_t offset, void *data, uint64_t len);
void submit(unsigned i, enum bdev_op op, uint64_t offset, void *data, uint64_t len);
/* Its result. */
int wait_for(unsigned i);
int do_io(enum bdev_op op, uint64_t offset, void *data, uint64_t len);
/* Strikes at I/O commands. */
void add_fault(enum model_fault_kind kind, uint8_t opcode, unsigned times, uint16_t status);

void random_seed(uint32_t value);
uint32_t random_below(uint32_t n);

#endif
