/* SPDX-License-Identifier: BSD-2-Clause */
/* I/O to a namespace through bdev_submit(): right data in any shape, and one answer whatever
 * happens to the drive. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ios.h"

static int setup(void **state)
{
	open_stage(512, NULL);
	return 0;
}

static int teardown(void **state)
{
	close_stage();
	return 0;
}

/* Data */

static void small_transfers(struct stage *stage)
{
	struct model *m = &stage->model;

	m->id.mdts = 1;
	m->shuffle = true;
}

static void boundaries(struct stage *stage)
{
	struct model *m = &stage->model;

	m->ns[0].noiob = 16;
	m->shuffle = true;
	m->id.oacs = NVME_OACS_DBBUF;
}

static void large_transfers(struct stage *stage)
{
	struct model *m = &stage->model;

	m->id.mdts = 0;
	m->cap |= 2ULL << 32;
	m->shuffle = true;
}

static void two_entries(struct stage *stage)
{
	struct model *m = &stage->model;

	m->cap = (m->cap & ~0xffffULL) | 1;
	m->id.oacs = NVME_OACS_DBBUF;
}

/*
 * Many ios at once to ranges of their own, in pieces of device memory, of other memory, with gaps
 * and without, against a copy of what the device should hold.
 */
static void check_data(struct bdev *dev)
{
	uint32_t bs = dev->limits.block_size;
	uint64_t size = bdev_get_size(dev), span = size / 8;
	uint8_t *copy = calloc(1, size), *plain = test_malloc(8 * span);
	struct dma_memory mem;
	struct bdev_channel *channels[STAGE_REACTORS];

	assert_int_equal(dma_alloc(&s->mem.dma, 8 * span / DMA_PAGE_SIZE, false, &mem, NULL), 0);
	for (int i = 0; i < STAGE_REACTORS; i++)
		assert_int_equal(bdev_channel_open(dev, s->reactors[i], &channels[i]), 0);
	for (unsigned round = 0; round < 60; round++) {
		unsigned n = 0;

		for (unsigned area = 0; area < 8; area++) {
			uint64_t at = area * span;
			uint64_t start = random_below((uint32_t)(span / bs / 2)) * bs;
			bool write = random_below(2);
			struct test_io *t = &ios[n];
			uint8_t *from[2] = {(uint8_t *)mem.virt + at, plain + at};
			size_t used = 0;
			unsigned kind = random_below(3);

			prepare(n, write ? BDEV_WRITE : BDEV_READ, at + start, NULL, 0);
			t->io.iovcnt = 0;
			for (unsigned i = 0; i < 1 + random_below(IOVS - 1); i++) {
				size_t gap = random_below(3) ? 0 : 512 * random_below(16);
				size_t len = bs * (1 + random_below(3 + 40 * !random_below(4)));

				if (used + gap + len > span || start + t->io.len + len > span)
					break;
				used += gap;
				t->iov[i].iov_base = from[kind < 2 ? kind : random_below(2)] + used;
				t->iov[i].iov_len = len;
				t->io.len += len;
				t->io.iovcnt++;
				used += len;
			}
			if (!t->io.len)
				continue;
			for (int i = 0; i < t->io.iovcnt; i++)
				for (size_t j = 0; j < t->iov[i].iov_len; j += 4)
					memcpy((char *)t->iov[i].iov_base + j,
					       &(uint32_t){random_below(UINT32_MAX)}, 4);
			n++;
		}
		for (unsigned i = 0; i < n; i++)
			bdev_submit(channels[i % STAGE_REACTORS], &ios[i].io);
		for (unsigned i = 0; i < n; i++) {
			uint8_t *at = copy + ios[i].io.offset;

			assert_int_equal(wait_for(i), 0);
			for (int j = 0; j < ios[i].io.iovcnt; at += ios[i].iov[j++].iov_len) {
				if (ios[i].io.op == BDEV_WRITE)
					memcpy(at, ios[i].iov[j].iov_base, ios[i].iov[j].iov_len);
				else
					assert_memory_equal(ios[i].iov[j].iov_base, at,
							    ios[i].iov[j].iov_len);
			}
		}
		assert_memory_equal(s->model.ns[0].data, copy, size);
	}
	for (int i = 0; i < STAGE_REACTORS; i++)
		bdev_channel_close(channels[i]);
	dma_free(&s->mem.dma, &mem);
	test_free(plain);
	free(copy);
}

static void test_data(void **state)
{
	static void (*const changes[])(struct stage *) = {NULL, small_transfers, boundaries,
							  large_transfers, two_entries};

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		for (uint32_t bs = 512; bs <= 4096; bs *= 8) {
			open_stage(bs, changes[i]);
			random_seed(bs + (uint32_t)i);
			check_data(b);
			assert_int_equal(s->model.resets, 1);
			teardown(state);
		}
	}
	/* And blocks of 4 KiB seen as sectors. */
	open_stage(4096, boundaries);
	random_seed(7);
	check_data(bdev_sectors(b));
	teardown(state);
}

/* A block of which the drive reaches only a part. */
static void test_reachable_in_part(void **state)
{
	struct dma_memory mem;
	char *end;

	teardown(state);
	open_stage(4096, NULL);
	assert_int_equal(dma_alloc(&s->mem.dma, 200, false, &mem, NULL), 0);
	end = (char *)mem.virt + 200 * DMA_PAGE_SIZE;
	/* It was added at the window's end, and what comes next there is nobody's yet. */
	assert_int_equal(dma_translate(&s->mem.dma, end), DMA_NO_BUS);
	assert_int_equal(mprotect(end, DMA_PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	memset(end - 8192, 0x71, 8192);
	memset(end, 0x72, 4096);
	assert_int_equal(do_io(BDEV_WRITE, 4096, end - 8192 + 2048, 8192), 0);
	assert_memory_equal(s->model.ns[0].data + 4096, end - 8192 + 2048, 8192);
	/* The first block goes from where it lies, the second by a bounce page. */
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 1);
	memset(end - 8192, 0, 8192 + 4096);
	assert_int_equal(do_io(BDEV_READ, 4096, end - 8192 + 2048, 8192), 0);
	assert_memory_equal(s->model.ns[0].data + 4096, end - 8192 + 2048, 8192);
	dma_free(&s->mem.dma, &mem);
}

/* Commands are as large as they may be, and a batch costs one doorbell. */
static void test_efficient(void **state)
{
	struct dma_memory mem;
	struct nvme_queue *q;

	assert_int_equal(dma_alloc(&s->mem.dma, 128, false, &mem, NULL), 0);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	assert_int_equal(do_io(BDEV_WRITE, 0, (char *)mem.virt + 512, 127 * 4096), 0);
	assert_int_equal(s->model.largest, 32 * 4096);
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 4);
	assert_int_equal(q->qps[0].sq_doorbell.writes, 1);
	for (unsigned i = 0; i < 32; i++)
		submit(i, BDEV_READ, i * 4096, (char *)mem.virt + i * 4096, 4096);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(wait_for(i), 0);
	assert_int_equal(q->qps[0].sq_doorbell.writes, 2);
	assert_int_equal(q->qps[0].cq_doorbell.writes, 0);
	/* More than the ring holds. */
	for (unsigned i = 0; i < IOS; i++)
		submit(i, BDEV_READ, i * 512, (char *)mem.virt + i * 512, 512);
	for (unsigned i = 0; i < IOS; i++)
		assert_int_equal(wait_for(i), 0);
	/* Pieces that continue each other are one. */
	prepare(0, BDEV_WRITE, 0, NULL, 16 * 512);
	ios[0].io.iovcnt = 16;
	for (size_t i = 0; i < 16; i++)
		ios[0].iov[i] = (struct iovec){(char *)mem.virt + i * 512, 512};
	bdev_submit(ch, &ios[0].io);
	assert_int_equal(wait_for(0), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 5);
	/* An idle queue costs nothing: its reactor has no busy poller. */
	stage_step(s);
	stage_step(s);
	assert_false(reactor_step(s->reactors[0]));
	nvme_queue_close(q);
	dma_free(&s->mem.dma, &mem);
}

static void no_cache(struct stage *stage)
{
	struct model *m = &stage->model;

	m->id.vwc = 0;
	m->id.oncs = 0;
}

static void test_flush_and_discard(void **state)
{
	static char data[8192], back[8192];

	memset(data, 0x5a, sizeof(data));
	assert_true(b->limits.write_cache);
	assert_int_equal(do_io(BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_FLUSH], 1);
	assert_true(b->limits.discard);
	assert_int_equal(do_io(BDEV_WRITE, 4096, data, 8192), 0);
	assert_int_equal(do_io(BDEV_DISCARD, 4096, NULL, 4096), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_DSM], 1);
	assert_int_equal(do_io(BDEV_READ, 4096, back, 8192), 0);
	memset(data, 0, 4096);
	assert_memory_equal(back, data, 8192);
	prepare(0, BDEV_DISCARD, 0, NULL, 4096);
	ios[0].io.secure = true;
	bdev_submit(ch, &ios[0].io);
	assert_int_equal(wait_for(0), -EOPNOTSUPP);
	teardown(state);
	open_stage(512, no_cache);
	assert_false(b->limits.write_cache);
	submit(0, BDEV_FLUSH, 0, NULL, 0);
	assert_int_equal(ios[0].over, 1);
	assert_int_equal(ios[0].io.result, 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_FLUSH], 0);
	assert_false(b->limits.discard);
	assert_int_equal(do_io(BDEV_DISCARD, 0, NULL, 4096), -EOPNOTSUPP);
}

/* A command that no bdev sends, by the queue itself. */
struct raw {
	struct nvme_req req;
	unsigned over;
};

static void raw_over(struct nvme_req *req)
{
	container_of(req, struct raw, req)->over++;
}

static void test_write_zeroes(void **state)
{
	struct raw raw = {
		.req = {.sqe = {.opcode = NVME_CMD_WRITE_ZEROES, .nsid = 1, .cdw10 = 8, .cdw12 = 7},
			.done = raw_over}};
	struct nvme_queue *q;

	memset(s->model.ns[0].data, 0xff, 16384);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	nvme_queue_submit(q, &raw.req);
	stage_until(s, NSEC_PER_SEC, raw.over);
	assert_int_equal(raw.req.error, 0);
	assert_int_equal(s->model.ns[0].data[4095], 0xff);
	assert_int_equal(s->model.ns[0].data[4096], 0);
	assert_int_equal(s->model.ns[0].data[8191], 0);
	assert_int_equal(s->model.ns[0].data[8192], 0xff);
	nvme_queue_close(q);
}

/* Statuses */

static void test_status(void **state)
{
	static const struct {
		uint16_t status;
		int result;
	} kinds[] = {
		{NVME_SC_UNRECOVERED_READ, -EIO},
		{NVME_SC_INVALID_OPCODE, -EOPNOTSUPP},
		{NVME_SC_CAPACITY_EXCEEDED, -ENOSPC},
		{NVME_SC_READ_ONLY, -EROFS},
		{NVME_SC_LBA_RANGE, -EIO},
	};
	static char data[4096];

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		unsigned before = s->model.commands[0][NVME_CMD_READ];

		add_fault(FAULT_STATUS, NVME_CMD_READ, 1, NVME_STATUS_DNR | kinds[i].status);
		assert_int_equal(do_io(BDEV_READ, 0, data, 4096), kinds[i].result);
		assert_int_equal(s->model.commands[0][NVME_CMD_READ], before + 1);
	}
	assert_int_equal(do_io(BDEV_READ, 0, data, 4096), 0);
	assert_int_equal(s->model.resets, 1);
}

static void test_retry(void **state)
{
	static char data[4096];

	add_fault(FAULT_STATUS, NVME_CMD_WRITE, 2, NVME_SC_NAMESPACE_NOT_READY);
	assert_int_equal(do_io(BDEV_WRITE, 0, data, 4096), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 3);
	add_fault(FAULT_STATUS, NVME_CMD_READ, 1000, NVME_SC_INTERNAL);
	assert_int_equal(do_io(BDEV_READ, 0, data, 4096), -EIO);
	assert_int_equal(s->model.commands[0][NVME_CMD_READ], 5);
}

/* One of an io's many commands fails: the io does, once, and not before all are over. */
static void test_part_fails(void **state)
{
	struct dma_memory mem;
	char *plain;

	assert_int_equal(dma_alloc(&s->mem.dma, 128, false, &mem, NULL), 0);
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_STATUS,
							 .opcode = NVME_CMD_READ,
							 .skip = 1,
							 .times = 1,
							 .status = NVME_STATUS_DNR | 0x281});
	s->model.shuffle = true;
	submit(0, BDEV_READ, 0, mem.virt, 128 * 4096);
	submit(1, BDEV_READ, 0, mem.virt, 4096);
	assert_int_equal(wait_for(0), -EIO);
	/* Two events and the other io. */
	assert_true(model_inflight(&s->model) <= 3);
	assert_int_equal(wait_for(1), 0);
	/* Of memory of others, with commands still to be sent when the first fails. */
	add_fault(FAULT_STATUS, NVME_CMD_WRITE, 1, NVME_STATUS_DNR | NVME_SC_WRITE_FAULT);
	plain = test_malloc(512 << 10);
	memset(plain, 1, 512 << 10);
	assert_int_equal(do_io(BDEV_WRITE, 0, plain, 512 << 10), -EIO);
	/* Two went at once, for that is how many bounce buffers there are. */
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 2);
	test_free(plain);
	dma_free(&s->mem.dma, &mem);
}

/* Time-outs */

/* All of a batch but one is answered; the one is found by an Abort, or by a reset. */
static void check_late(enum model_fault_kind kind, unsigned times, int result, unsigned resets,
		       uint64_t least_ns, uint64_t most_ns)
{
	static char data[8][4096];
	uint64_t start = clock_now_ns();
	struct model_fault fault = {
		.kind = kind, .opcode = NVME_CMD_WRITE, .skip = 3, .times = times};

	model_add_fault(&s->model, &fault);
	memset(data, 0x33, sizeof(data));
	for (unsigned i = 0; i < 8; i++)
		submit(i, BDEV_WRITE, i * 4096, data[i], 4096);
	stage_until(s, 400 * NSEC_PER_SEC, ios[3].over);
	assert_int_equal(ios[3].io.result, result);
	assert_in_range(clock_now_ns() - start, least_ns, most_ns);
	for (unsigned i = 0; i < 8; i++) {
		stage_until(s, 100 * NSEC_PER_SEC, ios[i].over);
		assert_int_equal(ios[i].io.result, i == 3 ? result : 0);
		if (!ios[i].io.result)
			assert_memory_equal(s->model.ns[0].data + i * 4096, data[i], 4096);
	}
	stage_wait(s, NSEC_PER_SEC);
	assert_int_equal(nvme_ctrl_state(s->ctrl), NVME_LIVE);
	assert_int_equal(s->model.resets, 1 + resets);
	assert_int_equal(do_io(BDEV_READ, 0, data[0], 4096), 0);
}

static void test_lost(void **state)
{
	check_late(FAULT_LOSE, 1, 0, 1, 35 * NSEC_PER_SEC, 36 * NSEC_PER_SEC);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ABORT], 1);
}

static void test_late_after_abort(void **state)
{
	check_late(FAULT_LATE, 1, 0, 0, 30 * NSEC_PER_SEC, 31 * NSEC_PER_SEC);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ABORT], 1);
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 8);
}

static void test_aborted(void **state)
{
	check_late(FAULT_ABORTABLE, 1, 0, 0, 30 * NSEC_PER_SEC, 31 * NSEC_PER_SEC);
	assert_int_equal(s->model.commands[0][NVME_CMD_WRITE], 9);
}

static void test_wrong_phase(void **state)
{
	check_late(FAULT_WRONG_PHASE, 1, 0, 1, 35 * NSEC_PER_SEC, 36 * NSEC_PER_SEC);
}

static void test_wrong_cid(void **state)
{
	check_late(FAULT_WRONG_CID, 1, 0, 1, 0, NSEC_PER_SEC);
}

static void test_twice(void **state)
{
	check_late(FAULT_TWICE, 1, 0, 1, 0, NSEC_PER_SEC);
}

/* A command that stops the controller each time is failed in the end, and the others go on. */
static void test_poison(void **state)
{
	static char data[4096];

	add_fault(FAULT_LOSE, NVME_CMD_DSM, 1000, 0);
	submit(1, BDEV_DISCARD, 0, NULL, 4096);
	for (unsigned i = 2; i < 10; i++)
		assert_int_equal((submit(i, BDEV_WRITE, i * 4096, data, 4096), wait_for(i)), 0);
	assert_int_equal(wait_for(1), -EIO);
	assert_int_equal(s->model.resets, 4);
	assert_int_equal(do_io(BDEV_READ, 0, data, 4096), 0);
}

/* A queue that takes nothing any more, and none of it after a reset either. */
static void test_stuck_queue(void **state)
{
	static char data[70][512];

	s->model.stuck_sq = 1;
	for (unsigned i = 0; i < 70; i++)
		submit(i, BDEV_WRITE, i * 512, data[i], 512);
	stage_until(s, 40 * NSEC_PER_SEC, s->model.resets == 2);
	s->model.stuck_sq = 0;
	for (unsigned i = 0; i < 70; i++)
		assert_int_equal(wait_for(i), 0);
	s->model.stuck_sq = 1;
	for (unsigned i = 0; i < 70; i++)
		submit(i, BDEV_WRITE, i * 512, data[i], 512);
	for (unsigned i = 0; i < 70; i++)
		assert_true(wait_for(i) < 0);
}

/* Resets and ends */

static void test_reset_under_load(void **state)
{
	static char data[IOS][2048];
	struct bdev_channel *other;

	s->model.shuffle = true;
	for (unsigned round = 0; round < 12; round++) {
		/* Far enough apart to be forgiven. */
		if (round % 4 == 0)
			stage_wait(s, 601 * NSEC_PER_SEC);
		for (unsigned i = 1; i < IOS; i++) {
			memset(data[i], (int)(round + i), sizeof(data[i]));
			submit(i, BDEV_WRITE, i * 2048, data[i], 2048);
		}
		for (unsigned i = 0; i < round; i++)
			stage_step(s);
		nvme_ctrl_reset(s->ctrl, "as a test");
		/* What comes meanwhile waits, on a queue that is taken meanwhile too. */
		s->model.ready_delay = 100;
		stage_until(s, NSEC_PER_SEC, !(s->model.cc & NVME_CC_EN));
		assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), 0);
		bdev_submit(other, prepare(0, BDEV_FLUSH, 0, NULL, 0));
		for (unsigned i = 0; i < 20; i++)
			stage_step(s);
		assert_false(ios[0].over);
		for (unsigned i = 0; i < IOS; i++)
			assert_int_equal(wait_for(i), 0);
		bdev_channel_close(other);
		for (unsigned i = 1; i < IOS; i++)
			assert_memory_equal(s->model.ns[0].data + i * 2048, data[i], 2048);
	}
	assert_int_equal(s->model.resets, 13);
}

static void shadow_doorbells(struct stage *stage)
{
	struct model *m = &stage->model;

	m->id.oacs = NVME_OACS_DBBUF;
}

static void test_reset_shadow_doorbells(void **state)
{
	static char data[40][512];

	teardown(state);
	open_stage(512, shadow_doorbells);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 40; i++)
			submit(i, BDEV_READ, i * 512, data[i], 512);
		for (unsigned i = 0; i < 40; i++)
			assert_int_equal(wait_for(i), 0);
		nvme_ctrl_reset(s->ctrl, "as a test");
		stage_until(s, NSEC_PER_SEC, s->model.resets == round + 2);
		stage_until(s, NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	}
	assert_int_equal(s->model.commands[1][NVME_ADMIN_DBBUF_CONFIG], 4);
}

/* An Abort that is lost is not missing later; this controller takes one at a time. */
static void test_abort_lost(void **state)
{
	static char data[4096];

	s->model.id.acl = 0;
	nvme_ctrl_reset(s->ctrl, "to tell it");
	stage_until(s, NSEC_PER_SEC, s->model.resets == 2);
	add_fault(FAULT_LOSE, NVME_CMD_READ, 1, 0);
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_LOSE,
							 .admin = true,
							 .opcode = NVME_ADMIN_ABORT,
							 .times = 1});
	assert_int_equal(do_io(BDEV_READ, 0, data, 4096), 0);
	assert_int_equal(s->model.resets, 3);
	add_fault(FAULT_ABORTABLE, NVME_CMD_READ, 1, 0);
	assert_int_equal(do_io(BDEV_READ, 0, data, 4096), 0);
	assert_int_equal(s->model.resets, 3);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ABORT], 2);
}

static void test_fatal_under_load(void **state)
{
	static char data[64][512];

	for (unsigned i = 0; i < 64; i++)
		submit(i, BDEV_READ, i * 512, data[i], 512);
	s->model.fatal = true;
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(wait_for(i), 0);
	assert_int_equal(s->model.resets, 2);
}

static void free_in_done(struct bdev_io *io)
{
	free(container_of(io, struct test_io, io));
}

/* Pulled under load: all is answered, once, and so is what comes later. */
static void test_removed(void **state)
{
	static char data[IOS][2048];
	struct raw raw = {.req.done = raw_over};
	struct bdev_channel *other, *third;
	struct test_io *freed;
	struct nvme_queue *q;

	/* Two channels, so that the ring is too small for what they have at once. */
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	assert_int_equal(bdev_channel_open(b, s->reactors[0], &other), 0);
	/* The last is long, and only half on its way. */
	for (unsigned i = 0; i < IOS - 2; i++) {
		prepare(i, BDEV_WRITE, i * 2048, data[i], 2048);
		bdev_submit(i % 2 ? other : ch, &ios[i].io);
	}
	submit(IOS - 2, BDEV_WRITE, 0, data, 256 * 2048);
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &third), 0);
	bdev_submit(third, prepare(IOS - 1, BDEV_WRITE, 0, data, 256 * 2048));
	stage_step(s);
	s->model.removed = true;
	for (unsigned i = 0; i < IOS; i++)
		wait_for(i);
	assert_int_equal(ios[IOS - 2].io.result, -ENODEV);
	assert_int_equal(ios[IOS - 1].io.result, -ENODEV);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	bdev_channel_close(other);
	bdev_channel_close(third);
	for (unsigned i = 0; i < IOS; i++)
		assert_int_equal(ios[i].over, 1);
	nvme_queue_submit(q, &raw.req);
	assert_int_equal(raw.over, 1);
	assert_int_equal(raw.req.error, -ENODEV);
	nvme_queue_close(q);
	for (unsigned i = 0; i < 3; i++) {
		submit(IOS - 1, BDEV_WRITE, 0, data[0], 2048);
		assert_int_equal(ios[IOS - 1].over, 1);
		assert_int_equal(ios[IOS - 1].io.result, -ENODEV);
	}
	/* An io is its owner's from its done on, and may be gone; sanitizers look. */
	freed = malloc(sizeof(*freed));
	*freed = ios[IOS - 1];
	freed->io.iov = freed->iov;
	freed->io.done = free_in_done;
	bdev_submit(ch, &freed->io);
	submit(IOS - 1, BDEV_FLUSH, 0, NULL, 0);
	assert_int_equal(ios[IOS - 1].io.result, -ENODEV);
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), -ENODEV);
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 1);
}

/*
 * A controller that neither answers nor stops, behind a bridge that does not obey: what it was
 * asked for stays unanswered, and its memory held, until it is off the bus.
 */
static void test_not_before_it_is_off(void **state)
{
	struct dma_memory mem;

	assert_int_equal(dma_alloc(&s->mem.dma, 1, false, &mem, NULL), 0);
	s->model.stuck_sq = 1;
	s->model.never_stops = true;
	s->model.master_stuck = true;
	submit(0, BDEV_READ, 0, mem.virt, 4096);
	stage_wait(s, 120 * NSEC_PER_SEC);
	assert_int_equal(nvme_ctrl_state(s->ctrl), NVME_DEAD);
	assert_false(ios[0].over);
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 0);
	s->model.master_stuck = false;
	stage_until(s, NSEC_PER_SEC, ios[0].over);
	assert_int_equal(ios[0].io.result, -ENODEV);
	assert_false(model_bus_master(&s->model));
	s->model.stuck_sq = 0;
	dma_free(&s->mem.dma, &mem);
}

/* The owner closes its channel in the done of its last io. */
static void close_in_done(struct bdev_io *io)
{
	io_over(io);
	if (ch)
		bdev_channel_close(ch);
	ch = NULL;
}

static void test_close_in_done(void **state)
{
	static char data[4096];

	prepare(0, BDEV_WRITE, 0, data, 4096)->done = close_in_done;
	bdev_submit(ch, &ios[0].io);
	assert_int_equal(wait_for(0), 0);
	assert_null(ch);
	assert_int_equal(bdev_channel_open(b, s->reactors[0], &ch), 0);
	assert_int_equal(do_io(BDEV_READ, 0, data, 4096), 0);
	/* And when the drive's end is that of the io. */
	s->model.removed = true;
	prepare(0, BDEV_WRITE, 0, data, 4096)->done = close_in_done;
	bdev_submit(ch, &ios[0].io);
	assert_int_equal(wait_for(0), -ENODEV);
	assert_null(ch);
}

/* The bdev */

static unsigned resized;

static void count_resized(struct bdev *which, void *arg)
{
	resized++;
}

static void test_namespaces(void **state)
{
	struct bdev_observer observer = {.resized = count_resized};
	struct bdev *other;
	const char *method;
	struct err err;
	json_t *config;

	assert_int_equal(bdev_nvme_create("n", s->ctrl, 1, NULL, &err), -EEXIST);
	assert_int_equal(bdev_nvme_create("m", s->ctrl, 2, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no active namespace 2"));
	config = b->ops->config(b, &method);
	assert_string_equal(method, "bdev_nvme_attach_controller");
	assert_string_equal(json_string_value(json_object_get(config, "traddr")), "model");
	json_decref(config);
	/* Others come, of which not all are served. */
	s->model.ns[1] = (struct model_namespace){.block_size = 512, .blocks = 8, .metadata = 8};
	s->model.ns[2] = (struct model_namespace){.block_size = 1024, .blocks = 8};
	s->model.ns[3] = (struct model_namespace){.block_size = 512, .blocks = 8, .readonly = true};
	s->model.ns[0].blocks = 1008;
	model_send_event(&s->model, 2);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == 1);
	assert_int_equal(bdev_nvme_create("m", s->ctrl, 2, NULL, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "512 bytes and 8 of metadata"));
	assert_int_equal(bdev_nvme_create("m", s->ctrl, 3, NULL, &err), -EOPNOTSUPP);
	assert_int_equal(bdev_nvme_create("m", s->ctrl, 4, &other, &err), 0);
	assert_true(other->readonly);
	/* It does not shrink, and it grows. */
	bdev_observe(&observer);
	resized = 0;
	bdev_nvme_update(s->ctrl);
	assert_int_equal(bdev_get_size(b), 1024 * 512);
	s->model.ns[0].blocks = 2048;
	model_send_event(&s->model, 2);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == 2);
	bdev_nvme_update(s->ctrl);
	assert_int_equal(bdev_get_size(b), 2048 * 512);
	assert_int_equal(resized, 1);
	s->model.ns[0].blocks = 0;
	model_send_event(&s->model, 2);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == 3);
	bdev_nvme_update(s->ctrl);
	assert_int_equal(bdev_get_size(b), 2048 * 512);
	assert_int_equal(resized, 1);
	bdev_unobserve(&observer);
	s->model.removed = true;
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	assert_int_equal(bdev_nvme_create("o", s->ctrl, 4, NULL, &err), -ENODEV);
}

/* Whatever of a channel's memory is missing, nothing of the rest is lost. */
static void test_no_memory(void **state)
{
	struct bdev_channel *other;
	size_t used = dma_double_used(&s->mem);

	s->mem.limit = 0;
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), -ENOMEM);
	s->mem.limit = 8;
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), -ENOMEM);
	s->mem.limit = 8;
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), -ENOMEM);
	assert_int_equal(dma_double_used(&s->mem), used);
	s->mem.limit = 100;
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), 0);
	bdev_channel_close(other);
}

/* A stop that finds something under way answers it. */
static void test_stop_with_io(void **state)
{
	static char data[4096];

	add_fault(FAULT_LOSE, NVME_CMD_READ, 1, 0);
	submit(0, BDEV_READ, 0, data, 4096);
	stage_step(s);
	stage_step(s);
	s->model.never_shut_down = true;
	nvme_ctrl_stop(s->ctrl);
	stage_until(s, 30 * NSEC_PER_SEC, ios[0].over);
	assert_int_equal(ios[0].io.result, -ENODEV);
	bdev_channel_close(ch);
	ch = NULL;
	bdev_delete_all();
	stage_until(s, 30 * NSEC_PER_SEC, s->stopped);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),
		TEST(test_reachable_in_part),
		TEST(test_efficient),
		TEST(test_flush_and_discard),
		TEST(test_write_zeroes),
		TEST(test_status),
		TEST(test_retry),
		TEST(test_part_fails),
		TEST(test_lost),
		TEST(test_late_after_abort),
		TEST(test_aborted),
		TEST(test_wrong_phase),
		TEST(test_wrong_cid),
		TEST(test_twice),
		TEST(test_poison),
		TEST(test_stuck_queue),
		TEST(test_reset_under_load),
		TEST(test_reset_shadow_doorbells),
		TEST(test_abort_lost),
		TEST(test_fatal_under_load),
		TEST(test_removed),
		TEST(test_not_before_it_is_off),
		TEST(test_close_in_done),
		TEST(test_namespaces),
		TEST(test_no_memory),
		TEST(test_stop_with_io),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
