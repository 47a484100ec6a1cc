/* SPDX-License-Identifier: BSD-2-Clause */
/* A queue pair against a controller's side played by hand, entry by entry. */
#include <errno.h>
#include <string.h>

#include "dma_double.h"
#include "nvme/qpair.h"

enum { ENTRIES = 4, CQ_ENTRIES = 8 };

static struct dma_double d;
static struct nvme_qpair q;
static volatile uint32_t regs[2];
static uint32_t shadow[2], event[2];
static struct nvme_req reqs[8];
static struct nvme_req *over[64];
static unsigned over_len;
/* The controller's side. */
static uint16_t device_tail, device_phase;

static void completed(struct nvme_qpair *qp, struct nvme_req *req)
{
	over[over_len++] = req;
}

static int setup(void **state)
{
	struct err err;

	dma_double_init(&d, 64);
	assert_int_equal(nvme_qpair_init(&q, &d.dma, 3, ENTRIES, CQ_ENTRIES, &err), 0);
	q.completed = completed;
	q.sq_doorbell.reg = &regs[0];
	q.cq_doorbell.reg = &regs[1];
	regs[0] = regs[1] = 0;
	memset(reqs, 0, sizeof(reqs));
	memset(shadow, 0, sizeof(shadow));
	memset(event, 0, sizeof(event));
	over_len = 0;
	device_tail = 0;
	device_phase = 1;
	return 0;
}

static int teardown(void **state)
{
	nvme_qpair_fini(&q);
	dma_double_fini(&d);
	return 0;
}

static void complete_cid(uint16_t cid, uint16_t sqid, uint16_t status)
{
	struct nvme_cqe *cq = dma_double_reach(&d, nvme_qpair_cq_bus(&q), CQ_ENTRIES * sizeof(*cq));

	cq[device_tail] = (struct nvme_cqe){.dw0 = cid * 2u,
					    .sqid = sqid,
					    .cid = cid,
					    .status = (uint16_t)(status << 1 | device_phase)};
	if (++device_tail == CQ_ENTRIES) {
		device_tail = 0;
		device_phase ^= 1;
	}
}

static void complete(const struct nvme_req *req)
{
	complete_cid(req->sqe.cid, 3, 0);
}

static void test_batches(void **state)
{
	const struct nvme_sqe *sq = dma_double_reach(&d, nvme_qpair_sq_bus(&q), 64 * ENTRIES);

	reqs[0].sqe.cdw10 = 10;
	reqs[1].sqe.cdw10 = 11;
	assert_true(nvme_qpair_push(&q, &reqs[0]));
	assert_true(nvme_qpair_push(&q, &reqs[1]));
	assert_int_equal(regs[0], 0);
	nvme_qpair_ring(&q);
	nvme_qpair_ring(&q);
	assert_int_equal(regs[0], 2);
	assert_int_equal(q.sq_doorbell.writes, 1);
	assert_int_equal(sq[0].cdw10, 10);
	assert_int_equal(sq[1].cdw10, 11);
	assert_int_not_equal(sq[0].cid, sq[1].cid);
	assert_ptr_equal(nvme_qpair_at(&q, reqs[0].sqe.cid & 0x3ff), &reqs[0]);
	assert_int_equal(q.inflight, 2);

	assert_int_equal(nvme_qpair_poll(&q), 0);
	assert_int_equal(q.cq_doorbell.writes, 0);
	complete_cid(reqs[1].sqe.cid, 3, NVME_STATUS_DNR | NVME_SC_LBA_RANGE);
	complete(&reqs[0]);
	assert_int_equal(nvme_qpair_poll(&q), 2);
	/* There is room for more completions than can come now. */
	assert_int_equal(q.cq_doorbell.writes, 0);
	assert_ptr_equal(over[0], &reqs[1]);
	assert_int_equal(reqs[1].status, NVME_STATUS_DNR | NVME_SC_LBA_RANGE);
	assert_int_equal(reqs[1].result, reqs[1].sqe.cid * 2u);
	assert_ptr_equal(over[1], &reqs[0]);
	assert_int_equal(reqs[0].status, 0);
	for (unsigned i = 0; i < ENTRIES - 1; i++)
		assert_null(nvme_qpair_at(&q, i));
	assert_int_equal(q.inflight, 0);
}

static void test_full_and_round(void **state)
{
	for (unsigned round = 0; round < 17; round++) {
		over_len = 0;
		for (unsigned i = 0; i < ENTRIES - 1; i++)
			assert_true(nvme_qpair_push(&q, &reqs[i]));
		assert_false(nvme_qpair_push(&q, &reqs[ENTRIES]));
		assert_int_equal(q.inflight, ENTRIES - 1);
		nvme_qpair_ring(&q);
		assert_int_equal(regs[0], (round + 1) * (ENTRIES - 1) % ENTRIES);
		for (unsigned i = ENTRIES - 1; i-- > 0;)
			complete(&reqs[i]);
		assert_int_equal(nvme_qpair_poll(&q), ENTRIES - 1);
		assert_int_equal(nvme_qpair_poll(&q), 0);
		assert_int_equal(over_len, ENTRIES - 1);
		assert_false(q.broken);
	}
}

/*
 * The controller is told of the head when else it might find no room, and not before: with what it
 * has in flight, what it does not know to be free is less than the ring at every ring of the tail.
 */
static void test_heads(void **state)
{
	unsigned completed_in_all = 0;

	for (unsigned round = 0; round < 40; round++) {
		unsigned n = 1 + round % (ENTRIES - 1);

		over_len = 0;
		for (unsigned i = 0; i < n; i++)
			assert_true(nvme_qpair_push(&q, &reqs[i]));
		nvme_qpair_ring(&q);
		assert_true((completed_in_all - regs[1]) % CQ_ENTRIES + n < CQ_ENTRIES);
		for (unsigned i = 0; i < n; i++)
			complete(&reqs[i]);
		assert_int_equal(nvme_qpair_poll(&q), n);
		completed_in_all += n;
	}
	/* 80 completions, of which 5 to 7 go by without. */
	assert_in_range(q.cq_doorbell.writes, 80 / 7, 80 / 5);
}

static void test_wrong_phase(void **state)
{
	assert_true(nvme_qpair_push(&q, &reqs[0]));
	device_phase = 0;
	complete(&reqs[0]);
	assert_int_equal(nvme_qpair_poll(&q), 0);
	assert_int_equal(q.inflight, 1);
}

/* A completion that nobody waits for breaks the queue pair until it is made new. */
static void test_unknown(void **state)
{
	const struct {
		uint16_t cid, sqid;
	} wrong[] = {{500, 3}, {ENTRIES - 1, 3}, {0, 4}, {1 << 10, 3}};
	struct list list;

	for (unsigned i = 0; i < 4; i++) {
		list_init(&list);
		assert_true(nvme_qpair_push(&q, &reqs[0]));
		complete_cid(wrong[i].cid + (i == 2 || i == 3 ? reqs[0].sqe.cid : 0), wrong[i].sqid,
			     0);
		complete(&reqs[0]);
		nvme_qpair_poll(&q);
		assert_true(q.broken);
		assert_int_equal(nvme_qpair_poll(&q), 0);
		assert_int_equal(over_len, 0);
		nvme_qpair_reset(&q, &list);
		assert_false(q.broken);
		assert_ptr_equal(list_pop(&list), &reqs[0].node);
		device_tail = 0;
		device_phase = 1;
	}
}

/* The same completion twice does not complete the slot's next command. */
static void test_twice(void **state)
{
	uint16_t cid;

	assert_true(nvme_qpair_push(&q, &reqs[0]));
	cid = reqs[0].sqe.cid;
	complete(&reqs[0]);
	assert_int_equal(nvme_qpair_poll(&q), 1);
	assert_true(nvme_qpair_push(&q, &reqs[1]));
	assert_int_equal(reqs[1].sqe.cid & 0x3ff, cid & 0x3ff);
	complete_cid(cid, 3, 0);
	nvme_qpair_poll(&q);
	assert_int_equal(over_len, 1);
	assert_true(q.broken);
}

static void test_reset(void **state)
{
	struct list list;

	list_init(&list);
	for (unsigned i = 0; i < 3; i++)
		assert_true(nvme_qpair_push(&q, &reqs[i]));
	nvme_qpair_ring(&q);
	complete(&reqs[1]);
	assert_int_equal(nvme_qpair_poll(&q), 1);
	nvme_qpair_reset(&q, &list);
	assert_int_equal(q.inflight, 0);
	/* In the order of their slots. */
	assert_ptr_equal(list_pop(&list), &reqs[0].node);
	assert_ptr_equal(list_pop(&list), &reqs[2].node);
	assert_null(list_pop(&list));
	/* From the beginning, with nothing of before to be taken for new. */
	device_tail = 0;
	device_phase = 1;
	assert_int_equal(nvme_qpair_poll(&q), 0);
	assert_true(nvme_qpair_push(&q, &reqs[4]));
	nvme_qpair_ring(&q);
	assert_int_equal(regs[0], 1);
	complete(&reqs[4]);
	assert_int_equal(nvme_qpair_poll(&q), 1);
}

/* With shadow doorbells the register is written only if the event index is passed. */
static void test_shadow(void **state)
{
	static const struct {
		uint32_t event, push, writes, tail;
	} steps[] = {
		{0, 1, 1, 1}, /* it waits for the first */
		{0, 1, 1, 2}, /* it is awake: at 0 and behind us */
		{2, 2, 2, 0}, /* it waits again; over the ring's end */
		{3, 1, 2, 1}, /* behind us again */
		{2, 2, 3, 3}, /* passed in the middle of a batch */
		{3, 1, 4, 0},
	};

	q.sq_doorbell.shadow = &shadow[0];
	q.sq_doorbell.event = &event[0];
	q.cq_doorbell.shadow = &shadow[1];
	q.cq_doorbell.event = &event[1];
	event[1] = 4;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		event[0] = steps[i].event;
		for (unsigned n = 0; n < steps[i].push; n++)
			assert_true(nvme_qpair_push(&q, &reqs[n]));
		nvme_qpair_ring(&q);
		assert_int_equal(q.sq_doorbell.writes, steps[i].writes);
		assert_int_equal(shadow[0], steps[i].tail);
		for (unsigned n = 0; n < steps[i].push; n++)
			complete(&reqs[n]);
		nvme_qpair_poll(&q);
		/* A nudge is for a ring that went unheard. */
		nvme_qpair_nudge(&q);
		nvme_qpair_nudge(&q);
		if (i == 1 || i == 3)
			assert_int_equal(q.sq_doorbell.writes, steps[i].writes + 1);
		q.sq_doorbell.writes = steps[i].writes;
		assert_int_equal(regs[0], steps[i].tail);
	}
	/* After 1 + 1 + 2 + 1 + 2, of which the event was for the fifth. */
	assert_int_equal(shadow[1], 7);
	assert_int_equal(q.cq_doorbell.writes, 1);
}

static void test_no_memory(void **state)
{
	struct nvme_qpair other;
	struct dma_double small;
	struct err err;

	/* Neither for the first ring nor for the second; each takes one page. */
	for (size_t pages = 0; pages < 2; pages++) {
		dma_double_init(&small, pages);
		assert_int_equal(nvme_qpair_init(&other, &small.dma, 1, 64, 256, &err), -ENOMEM);
		dma_double_fini(&small);
	}
	dma_double_init(&small, 2);
	assert_int_equal(nvme_qpair_init(&other, &small.dma, 1, 64, 256, &err), 0);
	nvme_qpair_fini(&other);
	dma_double_fini(&small);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_batches),     TEST(test_full_and_round), TEST(test_heads),
		TEST(test_wrong_phase), TEST(test_unknown),        TEST(test_twice),
		TEST(test_reset),       TEST(test_shadow),         TEST(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
