/* SPDX-License-Identifier: BSD-2-Clause */
/* Queues: of several rings, bound and given back, that try again, and what they cost. */
#include <errno.h>
#include <string.h>

#include "ios.h"
#include "nvme/lane.h"

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

/* Several rings */

static void no_runs(struct stage *stage)
{
	stage->mem.no_runs = true;
	stage->model.shuffle = true;
}

static struct nvme_queue *queue_of(struct reactor *r)
{
	struct nvme_queue *q;

	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, r, &q), 0);
	return q;
}

/* Of 8 queue pairs home has one, and two reactors three each: depth by rings of a page. */
static void test_several_rings(void **state)
{
	static char data[IOS][512];
	struct nvme_queue *q;

	teardown(state);
	open_stage(512, no_runs);
	q = queue_of(s->reactors[0]);
	assert_int_equal(q->qps_len, 3);
	assert_int_equal(nvme_queue_depth(q), 189);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < IOS; i++) {
			memset(data[i], (int)(i + round), 512);
			submit(i, BDEV_WRITE, i * 512, data[i], 512);
		}
		s->model.commands[0][NVME_CMD_WRITE] = 0;
		reactor_step(s->reactors[0]);
		model_step(&s->model);
		/* Most go by bounce buffers, of which there are two; the ring is not the limit. */
		if (round % 2)
			nvme_ctrl_reset(s->ctrl, "as a test");
		for (unsigned i = 0; i < IOS; i++)
			assert_int_equal(wait_for(i), 0);
		for (unsigned i = 0; i < IOS; i++)
			assert_memory_equal(s->model.ns[0].data + i * 512, data[i], 512);
	}
	nvme_queue_close(q);
}

/* All that the rings have room for is under way at once, with a doorbell for each ring. */
static void test_depth(void **state)
{
	struct dma_memory mem;
	struct nvme_queue *q;

	teardown(state);
	open_stage(512, no_runs);
	assert_int_equal(dma_alloc(&s->mem.dma, IOS, false, &mem, NULL), 0);
	q = queue_of(s->reactors[0]);
	for (unsigned i = 0; i < IOS; i++)
		submit(i, BDEV_READ, i * 512, (char *)mem.virt + i * 4096, 512);
	reactor_step(s->reactors[0]);
	model_step(&s->model);
	assert_int_equal(s->model.commands[0][NVME_CMD_READ], 189);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(q->qps[i].sq_doorbell.writes, 1);
	for (unsigned i = 0; i < IOS; i++)
		assert_int_equal(wait_for(i), 0);
	nvme_queue_close(q);
	dma_free(&s->mem.dma, &mem);
	teardown(state);
	/* Where neighbours can be had one ring does. */
	setup(state);
	q = queue_of(s->reactors[0]);
	assert_int_equal(q->qps_len, 1);
	assert_int_equal(nvme_queue_depth(q), 255);
	nvme_queue_close(q);
}

/* An Abort names the ring that has the command. */
static void test_abort_in_later_ring(void **state)
{
	struct dma_memory mem;

	teardown(state);
	open_stage(512, no_runs);
	assert_int_equal(dma_alloc(&s->mem.dma, IOS, false, &mem, NULL), 0);
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_ABORTABLE,
							 .opcode = NVME_CMD_READ,
							 .skip = 100,
							 .times = 1});
	for (unsigned i = 0; i < 120; i++)
		submit(i, BDEV_READ, i * 512, (char *)mem.virt + i * 4096, 512);
	for (unsigned i = 0; i < 120; i++)
		assert_int_equal(wait_for(i), 0);
	assert_int_equal(s->model.resets, 1);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ABORT], 1);
	dma_free(&s->mem.dma, &mem);
}

/* Whose they are */

static void two_queues(struct stage *stage)
{
	stage->model.io_queues = 2;
}

/* A queue that nobody uses is anybody's: home has none of its own here. */
static void test_given_back(void **state)
{
	struct bdev_channel *other, *third;

	teardown(state);
	open_stage(512, two_queues);
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), 0);
	assert_int_equal(bdev_channel_open(b, s->home, &third), -EBUSY);
	bdev_channel_close(other);
	stage_step(s);
	assert_int_equal(bdev_channel_open(b, s->home, &third), 0);
	bdev_submit(third, prepare(1, BDEV_FLUSH, 0, NULL, 0));
	assert_int_equal(wait_for(1), 0);
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), -EBUSY);
	bdev_channel_close(third);
	stage_step(s);
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), 0);
	bdev_submit(other, prepare(1, BDEV_FLUSH, 0, NULL, 0));
	assert_int_equal(wait_for(1), 0);
	bdev_channel_close(other);
}

static void test_home(void **state)
{
	struct bdev_channel *other, *third;

	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), 0);
	assert_int_equal(bdev_channel_open(b, s->home, &third), 0);
	bdev_submit(third, prepare(1, BDEV_FLUSH, 0, NULL, 0));
	assert_int_equal(wait_for(1), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_FLUSH], 1);
	bdev_channel_close(other);
	bdev_channel_close(third);
}

/* An order on its way keeps the queue where it is until it has arrived. */
static void test_given_back_in_reset(void **state)
{
	struct bdev_channel *other, *third;

	teardown(state);
	open_stage(512, two_queues);
	assert_int_equal(bdev_channel_open(b, s->reactors[1], &other), 0);
	s->frozen = true;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_wait(s, 100 * NSEC_PER_MSEC);
	bdev_channel_close(other);
	assert_int_equal(bdev_channel_open(b, s->home, &third), -EBUSY);
	s->frozen = false;
	/* Held, but nobody's, while the controller is brought up again. */
	s->model.ready_delay = 1000;
	stage_until(s, NSEC_PER_SEC, !(s->model.cc & NVME_CC_EN));
	assert_int_equal(bdev_channel_open(b, s->home, &third), 0);
	bdev_submit(third, prepare(1, BDEV_FLUSH, 0, NULL, 0));
	stage_step(s);
	assert_false(ios[1].over);
	assert_int_equal(wait_for(1), 0);
	assert_int_equal(s->model.resets, 2);
	bdev_channel_close(third);
}

static struct nvme_queue *probed;
static int bound;

static void probe(struct reactor_msg *msg)
{
	bound = probed->reactor == s->reactors[1];
}

/* Of an order and the end of the last use the later one makes it nobody's. */
static void test_order_and_leave(void **state)
{
	struct reactor_msg msg = {.fn = probe};

	teardown(state);
	open_stage(512, two_queues);
	for (unsigned i = 0; i < 2; i++) {
		probed = queue_of(s->reactors[1]);
		s->frozen = true;
		if (i)
			nvme_ctrl_reset(s->ctrl, "as a test");
		else
			nvme_queue_close(probed);
		reactor_send(s->reactors[1], &msg);
		if (i)
			nvme_queue_close(probed);
		else
			nvme_ctrl_reset(s->ctrl, "as a test");
		s->frozen = false;
		bound = -1;
		stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == i + 1);
		assert_int_equal(bound, 1);
		assert_null(probed->reactor);
	}
}

/* A stop, or an end, is not over for who is about to destroy it while others have queues. */
static void test_stop_in_use(void **state)
{
	nvme_ctrl_stop(s->ctrl);
	stage_wait(s, 5 * NSEC_PER_SEC);
	assert_int_equal(nvme_ctrl_state(s->ctrl), NVME_STOPPED);
	assert_int_equal(s->stopped, 0);
	assert_int_equal(do_io(BDEV_FLUSH, 0, NULL, 0), -ENODEV);
	bdev_channel_close(ch);
	ch = NULL;
	bdev_delete_all();
	stage_until(s, NSEC_PER_SEC, s->stopped);
	teardown(state);
	setup(state);
	s->model.removed = true;
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	nvme_ctrl_stop(s->ctrl);
	stage_wait(s, NSEC_PER_SEC);
	assert_int_equal(s->stopped, 0);
	bdev_channel_close(ch);
	ch = NULL;
	stage_until(s, NSEC_PER_SEC, s->stopped);
}

/* What comes between the end and its order to the queue ends with it. */
static void test_submit_before_end(void **state)
{
	static char data[512];

	s->model.never_stops = true;
	s->model.master_stuck = true;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 10 * NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_DEAD);
	s->frozen = true;
	s->model.master_stuck = false;
	stage_until(s, NSEC_PER_SEC, !model_bus_master(&s->model));
	submit(0, BDEV_READ, 0, data, 512);
	stage_wait(s, 100 * NSEC_PER_MSEC);
	assert_false(ios[0].over);
	s->frozen = false;
	assert_int_equal(wait_for(0), -ENODEV);
}

/* Trying again */

static void retry_delays(struct stage *stage)
{
	stage->model.id.crdt[0] = 5;
	stage->model.id.crdt[2] = 20;
}

static uint64_t time_read(uint16_t status, unsigned times)
{
	static char data[512];
	uint64_t start = clock_now_ns();

	add_fault(FAULT_STATUS, NVME_CMD_READ, times, status);
	assert_int_equal(do_io(BDEV_READ, 0, data, 512), 0);
	return clock_now_ns() - start;
}

static uint16_t crd(unsigned number)
{
	return (uint16_t)(NVME_SC_NAMESPACE_NOT_READY | number << 11);
}

static void test_retry_delay(void **state)
{
	static char data[512];

	teardown(state);
	open_stage(512, retry_delays);
	assert_true(s->model.acre);
	assert_in_range(time_read(crd(1), 2), NSEC_PER_SEC, NSEC_PER_SEC + 50 * NSEC_PER_MSEC);
	assert_in_range(time_read(crd(3), 1), 2 * NSEC_PER_SEC,
			2 * NSEC_PER_SEC + 50 * NSEC_PER_MSEC);
	/* Where it names none, or one that it has not told, it is at once and then ever later. */
	assert_in_range(time_read(crd(0), 1), 0, NSEC_PER_MSEC);
	assert_in_range(time_read(crd(2), 1), 0, NSEC_PER_MSEC);
	assert_in_range(time_read(crd(0), 4), 111 * NSEC_PER_MSEC, 130 * NSEC_PER_MSEC);
	/* Two that wait, of which the second is due first. */
	add_fault(FAULT_STATUS, NVME_CMD_READ, 1, crd(3));
	add_fault(FAULT_STATUS, NVME_CMD_WRITE, 1, crd(1));
	submit(1, BDEV_READ, 0, data, 512);
	submit(2, BDEV_WRITE, 512, data, 512);
	assert_int_equal(wait_for(2), 0);
	assert_false(ios[1].over);
	assert_int_equal(wait_for(1), 0);
}

/* What waits for its next try is not forgotten by a reset, nor by the drive's end. */
static void test_delayed_in_trouble(void **state)
{
	static char data[512];

	teardown(state);
	open_stage(512, retry_delays);
	add_fault(FAULT_STATUS, NVME_CMD_READ, 1, crd(3));
	submit(0, BDEV_READ, 0, data, 512);
	stage_wait(s, 100 * NSEC_PER_MSEC);
	s->model.ready_delay = 700;
	nvme_ctrl_reset(s->ctrl, "as a test");
	assert_int_equal(wait_for(0), 0);
	assert_int_equal(s->model.resets, 2);
	add_fault(FAULT_STATUS, NVME_CMD_READ, 1, crd(3));
	submit(0, BDEV_READ, 0, data, 512);
	stage_wait(s, 100 * NSEC_PER_MSEC);
	s->model.removed = true;
	assert_int_equal(wait_for(0), -ENODEV);
}

/* Shadow doorbells that go unheard */

static void deaf(struct stage *stage)
{
	stage->model.id.oacs = NVME_OACS_DBBUF;
	stage->model.deaf = true;
}

static void test_deaf(void **state)
{
	static char data[512];
	uint64_t start;

	teardown(state);
	open_stage(512, deaf);
	start = clock_now_ns();
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(do_io(BDEV_READ, 0, data, 512), 0);
	assert_in_range(clock_now_ns() - start, 100 * NSEC_PER_MSEC, NSEC_PER_SEC);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ABORT], 0);
}

/* The write cache */

static void cache_off(struct stage *stage)
{
	stage->model.cache_on = false;
}

static void test_cache(void **state)
{
	assert_true(nvme_ctrl_has_write_cache(s->ctrl));
	teardown(state);
	open_stage(512, cache_off);
	/* Guests are told of it, as it may be on after a reset; till then a flush costs nothing. */
	assert_true(b->limits.write_cache);
	assert_int_equal(do_io(BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_FLUSH], 0);
	s->model.cache_on = true;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 5 * NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES]);
	assert_int_equal(do_io(BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_FLUSH], 1);
	/* One that does not say is taken to be on. */
	s->model.cache_on = false;
	model_add_fault(&s->model,
			&(struct model_fault){.kind = FAULT_STATUS,
					      .admin = true,
					      .opcode = NVME_ADMIN_GET_FEATURES,
					      .times = 1,
					      .status = NVME_STATUS_DNR | NVME_SC_INVALID_FIELD});
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 5 * NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == 2);
	assert_int_equal(do_io(BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(s->model.commands[0][NVME_CMD_FLUSH], 2);
}

/* Limits that a reset has lowered cannot be kept to by who has acted on them. */
static void test_lower_limits(void **state)
{
	s->model.cap |= NVME_CAP_CSS_SETS;
	s->model.id_nvm.dmrl = 7;
	model_power_on(&s->model);
	s->model.cc = 0;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 10 * NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) != NVME_RESETTING);
	/* It is the same controller, whose capabilities are read once. */
	assert_int_equal(nvme_ctrl_state(s->ctrl), NVME_LIVE);
	teardown(state);
	s = stage_create(512);
	s->model.cap |= NVME_CAP_CSS_SETS;
	model_power_on(&s->model);
	stage_start(s);
	s->model.id_nvm.dmrl = 7;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 10 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
}

/* Memory */

enum { MANY = NVME_QUEUES_MAX };

/* With all lanes open. */
static size_t pages_used(unsigned reactors, bool runs)
{
	static struct bdev_channel *channels[MANY + 1];
	static struct reactor *r[MANY];
	struct err err;
	size_t used;

	s = stage_create(512);
	s->mem.no_runs = !runs;
	s->model.io_queues = MODEL_QUEUES;
	s->model.id.mdts = 0;
	s->model.id.oacs = NVME_OACS_DBBUF;
	s->opts.io_queues = reactors;
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(bdev_nvme_create("n", s->ctrl, 1, &b, &err), 0);
	for (unsigned i = 0; i <= reactors; i++) {
		if (i < reactors)
			assert_int_equal(reactor_create("many", -1, NULL, &r[i]), 0);
		assert_int_equal(bdev_channel_open(b, i < reactors ? r[i] : s->home, &channels[i]),
				 0);
	}
	used = dma_double_used(&s->mem);
	for (unsigned i = 0; i <= reactors; i++) {
		bdev_channel_close(channels[i]);
		if (i < reactors)
			reactor_step(r[i]);
	}
	bdev_delete_all();
	stage_destroy(s);
	for (unsigned i = 0; i < reactors; i++)
		reactor_destroy(r[i]);
	return used;
}

static void test_memory(void **state)
{
	static const unsigned counts[] = {1, 2, 4, 16, MANY};

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		for (int runs = 0; runs < 2; runs++) {
			size_t used = pages_used(counts[i], runs);

			print_message("%u reactors, %s: %zu KiB\n", counts[i],
				      runs ? "runs" : "no runs", used * 4);
			assert_in_range(used, 8, (8 << 20) / 4096 - 1);
		}
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_several_rings),
		TEST(test_depth),
		TEST(test_abort_in_later_ring),
		TEST(test_given_back),
		TEST(test_home),
		TEST(test_given_back_in_reset),
		TEST(test_order_and_leave),
		TEST(test_stop_in_use),
		TEST(test_submit_before_end),
		TEST(test_retry_delay),
		TEST(test_delayed_in_trouble),
		TEST(test_deaf),
		TEST(test_cache),
		TEST(test_lower_limits),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
