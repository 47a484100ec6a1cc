/* SPDX-License-Identifier: BSD-2-Clause */
#include "ios.h"

#include <stdlib.h>
#include <string.h>

struct stage *s;
struct bdev *b;
struct bdev_channel *ch;
struct test_io ios[IOS];

void io_over(struct bdev_io *io)
{
	container_of(io, struct test_io, io)->over++;
}

void open_stage(uint32_t block_size, void (*change)(struct stage *stage))
{
	struct err err;

	s = stage_create(block_size);
	if (change)
		change(s);
	model_power_on(&s->model);
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(bdev_nvme_create("n", s->ctrl, 1, &b, &err), 0);
	assert_int_equal(bdev_channel_open(b, s->reactors[0], &ch), 0);
	memset(ios, 0, sizeof(ios));
}

void close_stage(void)
{
	for (int i = 0; i < IOS; i++)
		assert_true(ios[i].over <= 1);
	if (ch)
		bdev_channel_close(ch);
	ch = NULL;
	bdev_delete_all();
	stage_destroy(s);
}

struct bdev_io *prepare(unsigned i, enum bdev_op op, uint64_t offset, void *data, uint64_t len)
{
	ios[i] = (struct test_io){.io = {.op = op,
					 .offset = offset,
					 .len = len,
					 .iov = ios[i].iov,
					 .iovcnt = 1,
					 .done = io_over,
					 .result = 1},
				  .iov = {{data, len}}};
	return &ios[i].io;
}

void submit(unsigned i, enum bdev_op op, uint64_t offset, void *data, uint64_t len)
{
	bdev_submit(ch, prepare(i, op, offset, data, len));
}

int wait_for(unsigned i)
{
	stage_until(s, 300 * NSEC_PER_SEC, ios[i].over);
	return ios[i].io.result;
}

int do_io(enum bdev_op op, uint64_t offset, void *data, uint64_t len)
{
	submit(0, op, offset, data, len);
	return wait_for(0);
}

void add_fault(enum model_fault_kind kind, uint8_t opcode, unsigned times, uint16_t status)
{
	model_add_fault(&s->model,
			&(struct model_fault){
				.kind = kind, .opcode = opcode, .times = times, .status = status});
}

static uint32_t seed;

void random_seed(uint32_t value)
{
	seed = value;
}

uint32_t random_below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}
