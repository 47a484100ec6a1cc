/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver on threads, as it is in the daemon: home, two reactors under load and the drive, each
 * on its own, while the drive is reset, pulled, stopped and lossy.  Each io counts its ends, and
 * what was read is compared.  Made for the thread sanitizer, which sees what the other tests, on
 * one thread, cannot.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "model.h"
#include "nvme/bdev_nvme.h"

enum { WORKERS = 2, DEPTH = 80, SPAN = 2048, BLOCKS = 2 * DEPTH * SPAN / 512 };

struct worker_io {
	struct bdev_io io;
	struct iovec iov;
	struct dma_piece piece;
	struct worker *worker;
	bool under_way;
	uint8_t value; /* of what the device holds there, if known */
	bool known;
};

/* One reactor's load; its own but for the atomics. */
struct worker {
	struct reactor *reactor;
	struct reactor_msg msg;
	struct reactor_timer timer;
	struct bdev *bdev;
	struct bdev_channel *ch;
	struct dma_memory mem; /* a page for every io, half of which are plain memory */
	char *plain;
	struct worker_io ios[DEPTH];
	unsigned inflight;
	/* One more now and then that no other's end has brought about: in resets too. */
	struct bdev_io flush;
	struct reactor_timer flush_timer;
	bool flushing;
	bool done;  /* with this channel; msg is on its way */
	bool churn; /* closes its channel whenever all has ended, and opens it anew */
	_Atomic bool quit;
	_Atomic bool over;
	_Atomic unsigned long ends;
	_Atomic unsigned errors;  /* ios that failed */
	_Atomic unsigned strange; /* ended twice, or with other data */
	unsigned random;
};

static struct dma_double mem;
static struct model *model;
static struct reactor *home;
static struct nvme_ctrl *ctrl;
static struct nvme_ctrl_options opts;
static struct worker workers[WORKERS];
static pthread_t model_thread;
static _Atomic bool model_quit;
static _Atomic int started = 1;
static _Atomic unsigned dead, stopped;

/* The drive */

static void *run_model(void *arg)
{
	while (!atomic_load(&model_quit)) {
		bool did;

		pthread_mutex_lock(&model->lock);
		did = model_step(model);
		pthread_mutex_unlock(&model->lock);
		if (!did)
			usleep(20);
		else
			sched_yield();
	}
	return NULL;
}

static void ctrl_started(struct nvme_ctrl *c, int rc, const struct err *err, void *arg)
{
	atomic_store(&started, rc);
}

static void ctrl_changed(struct nvme_ctrl *c, enum nvme_change what, void *arg)
{
	if (what == NVME_CHANGED_DEAD)
		atomic_fetch_add(&dead, 1);
}

static void ctrl_stopped(struct nvme_ctrl *c, void *arg)
{
	nvme_ctrl_destroy(c);
	ctrl = NULL;
	atomic_fetch_add(&stopped, 1);
}

static const struct nvme_ctrl_ops ctrl_ops = {ctrl_started, ctrl_changed, ctrl_stopped};

/* On home, one at a time. */

struct call {
	struct reactor_msg msg;
	void (*fn)(void);
	_Atomic bool over;
};

static void make_call(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call, msg);

	call->fn();
	atomic_store(&call->over, true);
}

static void on_home(void (*fn)(void))
{
	struct call call = {.msg.fn = make_call, .fn = fn};

	reactor_send(home, &call.msg);
	while (!atomic_load(&call.over))
		usleep(20);
}

#define wait_until(cond)                                                               \
	do {                                                                           \
		uint64_t end_ = clock_now_ns() + 60 * NSEC_PER_SEC;                    \
		while (!(cond) && clock_now_ns() < end_)                               \
			usleep(50);                                                    \
		if (!(cond))                                                           \
			fail_msg("%s:%d: not in time: %s", __FILE__, __LINE__, #cond); \
	} while (0)

/* The load */

static unsigned next_random(struct worker *w)
{
	w->random = w->random * 1664525 + 1013904223;
	return w->random >> 8;
}

static char *data_of(const struct worker *w, unsigned i)
{
	return i % 2 ? w->plain + (size_t)i * SPAN
		     : (char *)w->mem.virt + (size_t)i * DMA_PAGE_SIZE;
}

static void io_over(struct bdev_io *io);

static void send_io(struct worker *w, unsigned i)
{
	struct worker_io *wio = &w->ios[i];
	char *data = data_of(w, i);
	bool write = !wio->known || next_random(w) % 2;

	wio->worker = w;
	wio->under_way = true;
	wio->iov = (struct iovec){data, SPAN};
	wio->io = (struct bdev_io){
		.op = write ? BDEV_WRITE : BDEV_READ,
		.offset = ((uint64_t)(w - workers) * DEPTH + i) * SPAN,
		.len = SPAN,
		.iov = &wio->iov,
		.iovcnt = 1,
		.done = io_over,
	};
	/* Some by pieces. */
	if (i % 4 == 0) {
		wio->piece = (struct dma_piece){.bus = w->mem.bus[i], .len = SPAN};
		wio->io.iov = NULL;
		wio->io.iovcnt = 0;
		wio->io.pieces = &wio->piece;
		wio->io.nr_pieces = 1;
	}
	if (write) {
		wio->value = (uint8_t)next_random(w);
		memset(data, wio->value, SPAN);
	} else {
		memset(data, ~wio->value, SPAN);
	}
	w->inflight++;
	bdev_submit(w->ch, &wio->io);
}

static void all_over(struct worker *w)
{
	if (w->inflight)
		return;
	w->done = true;
	reactor_send(w->reactor, &w->msg);
}

static void io_over(struct bdev_io *io)
{
	struct worker_io *wio = container_of(io, struct worker_io, io);
	struct worker *w = wio->worker;
	unsigned i = (unsigned)(wio - w->ios);

	w->strange += !wio->under_way;
	wio->under_way = false;
	w->inflight--;
	atomic_fetch_add(&w->ends, 1);
	if (io->result) {
		atomic_fetch_add(&w->errors, 1);
		/* A write that has failed may have been carried out, or not. */
		wio->known = wio->known && io->op == BDEV_READ;
	} else if (io->op == BDEV_WRITE) {
		wio->known = true;
	} else {
		const char *data = data_of(w, i);

		for (unsigned at = 0; at < SPAN; at++)
			if ((uint8_t)data[at] != wio->value) {
				w->strange++;
				break;
			}
	}
	if (!atomic_load(&w->quit) && !io->result && (!w->churn || next_random(w) % 64)) {
		send_io(w, i);
		return;
	}
	all_over(w);
}

static void flush_over(struct bdev_io *io)
{
	struct worker *w = container_of(io, struct worker, flush);

	w->strange += !w->flushing;
	w->flushing = false;
	w->inflight--;
	all_over(w);
}

static void flush(struct reactor_timer *t)
{
	struct worker *w = container_of(t, struct worker, flush_timer);

	reactor_timer_start(w->reactor, t, 50 * NSEC_PER_USEC);
	if (w->flushing || w->done || !w->ch || atomic_load(&w->quit))
		return;
	w->flushing = true;
	w->inflight++;
	w->flush = (struct bdev_io){.op = BDEV_FLUSH, .done = flush_over};
	bdev_submit(w->ch, &w->flush);
}

static void begin_later(struct reactor_timer *t)
{
	struct worker *w = container_of(t, struct worker, timer);

	reactor_send(w->reactor, &w->msg);
}

/* Opens the channel anew, if that can be, and fills it; or ends. */
static void begin(struct reactor_msg *msg)
{
	struct worker *w = container_of(msg, struct worker, msg);

	if (w->ch) {
		bdev_channel_close(w->ch);
		w->ch = NULL;
		if (!atomic_load(&w->quit)) {
			reactor_timer_start(w->reactor, &w->timer, 5 * NSEC_PER_MSEC);
			return;
		}
	}
	if (atomic_load(&w->quit)) {
		reactor_timer_stop(w->reactor, &w->flush_timer);
		atomic_store(&w->over, true);
		return;
	}
	if (bdev_channel_open(w->bdev, w->reactor, &w->ch)) {
		/* The other one has the queue, or the drive is at its end. */
		w->ch = NULL;
		reactor_timer_start(w->reactor, &w->timer, 3 * NSEC_PER_MSEC);
		return;
	}
	w->done = false;
	reactor_timer_start(w->reactor, &w->flush_timer, 0);
	for (unsigned i = 0; i < DEPTH; i++)
		send_io(w, i);
}

static struct bdev *bdev;

static void create_ctrl(void)
{
	struct err err;

	if (nvme_ctrl_create(&model->pci, &mem.dma, home, &opts, &ctrl_ops, NULL, &ctrl, &err))
		atomic_store(&started, -1);
	else
		nvme_ctrl_start(ctrl);
}

static void create_bdev(void)
{
	struct err err;

	if (bdev_nvme_create("n", ctrl, 1, &bdev, &err))
		bdev = NULL;
}

static void delete_bdev(void)
{
	bdev_delete_all();
}

static void reset_ctrl(void)
{
	nvme_ctrl_reset(ctrl, "as a test");
}

static void stop_ctrl(void)
{
	nvme_ctrl_stop(ctrl);
}

static int setup(void **state)
{
	struct err err;

	log_set_level(LOG_LEVEL_ERROR);
	dma_double_init(&mem, 4096);
	model = aligned_alloc(DMA_PAGE_SIZE, (sizeof(*model) + 4095) & ~(size_t)4095);
	assert_non_null(model);
	model_init(model, &mem, 512, BLOCKS);
	model->shuffle = true;
	model->id.sgls = 1;
	nvme_ctrl_default_options(&opts);
	opts.io_queues = WORKERS;
	atomic_store(&model_quit, false);
	atomic_store(&started, 1);
	atomic_store(&dead, 0);
	atomic_store(&stopped, 0);
	memset(workers, 0, sizeof(workers));
	assert_int_equal(reactor_create("home", -1, NULL, &home), 0);
	for (int i = 0; i < WORKERS; i++) {
		struct worker *w = &workers[i];

		w->random = (unsigned)i;
		w->msg.fn = begin;
		w->timer.fire = begin_later;
		w->flush_timer.fire = flush;
		w->plain = calloc(DEPTH, SPAN);
		assert_non_null(w->plain);
		assert_int_equal(dma_alloc(&mem.dma, DEPTH, false, &w->mem, &err), 0);
		assert_int_equal(reactor_create("io", -1, NULL, &w->reactor), 0);
		assert_int_equal(reactor_start(w->reactor), 0);
	}
	assert_int_equal(reactor_start(home), 0);
	return 0;
}

static void start_load(bool churn)
{
	assert_int_equal(pthread_create(&model_thread, NULL, run_model, NULL), 0);
	on_home(create_ctrl);
	wait_until(atomic_load(&started) != 1);
	assert_int_equal(atomic_load(&started), 0);
	on_home(create_bdev);
	assert_non_null(bdev);
	for (int i = 0; i < WORKERS; i++) {
		workers[i].bdev = bdev;
		workers[i].churn = churn;
		reactor_send(workers[i].reactor, &workers[i].msg);
	}
}

static unsigned long ends(void)
{
	return atomic_load(&workers[0].ends) + atomic_load(&workers[1].ends);
}

static void run_on(unsigned long more)
{
	unsigned long until = ends() + more;

	wait_until(ends() >= until);
}

static void end_load(void)
{
	for (int i = 0; i < WORKERS; i++)
		atomic_store(&workers[i].quit, true);
	for (int i = 0; i < WORKERS; i++) {
		wait_until(atomic_load(&workers[i].over));
		assert_int_equal(workers[i].inflight, 0);
		assert_int_equal(atomic_load(&workers[i].strange), 0);
	}
}

static int teardown(void **state)
{
	if (!atomic_load(&stopped))
		on_home(stop_ctrl);
	wait_until(atomic_load(&stopped));
	on_home(delete_bdev);
	atomic_store(&model_quit, true);
	pthread_join(model_thread, NULL);
	for (int i = 0; i < WORKERS; i++) {
		reactor_stop(workers[i].reactor);
		reactor_destroy(workers[i].reactor);
		dma_free(&mem.dma, &workers[i].mem);
		free(workers[i].plain);
	}
	reactor_stop(home);
	reactor_destroy(home);
	assert_int_equal(model->violations, 0);
	model_fini(model);
	free(model);
	dma_double_fini(&mem);
	return 0;
}

static unsigned errors(void)
{
	return atomic_load(&workers[0].errors) + atomic_load(&workers[1].errors);
}

static void test_resets(void **state)
{
	model->ready_delay = 50;
	start_load(false);
	for (unsigned i = 0; i < 4; i++) {
		run_on(2000);
		on_home(reset_ctrl);
	}
	run_on(2000);
	end_load();
	/* Who has lived through two resets while it was under way fails at the third. */
	assert_true(errors() <= WORKERS * DEPTH);
	assert_int_equal(atomic_load(&dead), 0);
}

/* Queues change hands meanwhile; there is one less than reactors want. */
static void test_churn(void **state)
{
	model->io_queues = 1;
	start_load(true);
	for (unsigned i = 0; i < 4; i++) {
		run_on(1000);
		on_home(reset_ctrl);
	}
	run_on(1000);
	for (int i = 0; i < WORKERS; i++)
		wait_until(atomic_load(&workers[i].ends));
	end_load();
	assert_int_equal(atomic_load(&dead), 0);
}

static void test_removed(void **state)
{
	start_load(false);
	run_on(2000);
	pthread_mutex_lock(&model->lock);
	model->removed = true;
	pthread_mutex_unlock(&model->lock);
	wait_until(atomic_load(&dead));
	wait_until(atomic_load(&workers[0].errors) && atomic_load(&workers[1].errors));
	end_load();
}

static void test_stop(void **state)
{
	start_load(false);
	run_on(2000);
	on_home(stop_ctrl);
	wait_until(atomic_load(&workers[0].errors) && atomic_load(&workers[1].errors));
	end_load();
	wait_until(atomic_load(&stopped));
}

/* Commands get lost: they are aborted, or cost a reset. */
static void test_lossy(void **state)
{
	opts.timeout_ns = 100 * NSEC_PER_MSEC;
	opts.abort_timeout_ns = 100 * NSEC_PER_MSEC;
	start_load(false);
	for (unsigned i = 0; i < 3; i++) {
		run_on(500);
		pthread_mutex_lock(&model->lock);
		model_add_fault(model,
				&(struct model_fault){.kind = i ? FAULT_LOSE : FAULT_ABORTABLE,
						      .opcode = NVME_CMD_WRITE,
						      .times = 1});
		pthread_mutex_unlock(&model->lock);
	}
	run_on(500);
	end_load();
	assert_int_equal(atomic_load(&dead), 0);
	assert_int_equal(errors(), 0);
	pthread_mutex_lock(&model->lock);
	assert_true(model->resets >= 2);
	assert_true(model->commands[1][NVME_ADMIN_ABORT] >= 2);
	pthread_mutex_unlock(&model->lock);
}

/* A controller that a dead predecessor left running */

static int quiesce_setup(void **state)
{
	setup(state);
	/* 500 ms to stop. */
	model->cap = (model->cap & ~(0xffULL << 24)) | 1 << 24;
	model->ready_delay = 20;
	model_power_on(model);
	model->config[NVME_PCI_COMMAND] = NVME_PCI_COMMAND_MASTER;
	memcpy(model->bar + NVME_REG_CC, &(uint32_t){NVME_CC_EN | 6 << 16 | 4 << 20}, 4);
	memcpy(model->bar + NVME_REG_AQA, &(uint32_t){1 << 16 | 1}, 4);
	for (unsigned i = 0; i < 30; i++)
		model_step(model);
	assert_int_equal(model->resets, 1);
	assert_int_equal(pthread_create(&model_thread, NULL, run_model, NULL), 0);
	atomic_store(&stopped, 1);
	return 0;
}

static bool ready(void)
{
	return __atomic_load_n((uint32_t *)(void *)(model->bar + NVME_REG_CSTS), __ATOMIC_RELAXED) &
	       NVME_CSTS_RDY;
}

static void test_quiesce(void **state)
{
	struct err err;

	assert_true(ready());
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), 0);
	assert_false(ready());
	assert_false(model_bus_master(model));
	/* One at rest stays there. */
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), 0);
	assert_false(ready());
}

static void test_quiesce_by_force(void **state)
{
	struct err err;

	pthread_mutex_lock(&model->lock);
	model->never_stops = true;
	model->master_stuck = true;
	pthread_mutex_unlock(&model->lock);
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), -EIO);
	assert_non_null(strstr(err.text, "neither stops nor leaves the bus"));
	assert_true(model_bus_master(model));
	pthread_mutex_lock(&model->lock);
	model->master_stuck = false;
	pthread_mutex_unlock(&model->lock);
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), 0);
	assert_true(ready());
	assert_false(model_bus_master(model));
}

static void test_quiesce_removed(void **state)
{
	struct err err;

	pthread_mutex_lock(&model->lock);
	model->removed = true;
	pthread_mutex_unlock(&model->lock);
	usleep(1000);
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), 0);
	/* Without registers the bus is all there is. */
	model->pci.bar_len = 0;
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), 0);
	pthread_mutex_lock(&model->lock);
	model->config_error = -EACCES;
	pthread_mutex_unlock(&model->lock);
	assert_int_equal(nvme_ctrl_quiesce(&model->pci, &err), -EACCES);
}

#define TEST(fn)    cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define QUIESCE(fn) cmocka_unit_test_setup_teardown(fn, quiesce_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_resets),
		TEST(test_churn),
		TEST(test_removed),
		TEST(test_stop),
		TEST(test_lossy),
		QUIESCE(test_quiesce),
		QUIESCE(test_quiesce_by_force),
		QUIESCE(test_quiesce_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
