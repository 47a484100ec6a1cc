/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue that the engines share, on an engine of the test's own: one that completes only what a
 * script says, as short or as wrong as a kernel may, and that counts.
 */
#include "bdev/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "test_bdev_util.h"

/* What the engine was offered, and what it answers: the reactor's while it runs. */
static struct {
	unsigned depth;
	unsigned per_submit; /* how many it takes in one submit; 0: all */
	bool asleep;         /* completes only when the test writes to the eventfd */
	long answers[256];
	unsigned answers_len;

	struct {
		uint64_t offset, len;
		int iovcnt;
		void *base;
	} seen[4096];
	unsigned seen_len;
	unsigned most_inflight;
	unsigned opened, closed;
} script;

struct fake_queue {
	struct bdev_queue q;
	struct bdev_io *taken[64];
	unsigned taken_len;
};

static int fake_open(struct bdev_queue *q)
{
	script.opened++;
	q->depth = script.depth;
	q->fd.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return q->fd.fd < 0 ? -errno : 0;
}

static void fake_close(struct bdev_queue *q)
{
	script.closed++;
	close(q->fd.fd);
}

static int fake_submit(struct bdev_queue *q)
{
	struct fake_queue *fake = container_of(q, struct fake_queue, q);
	struct bdev_io *io;
	int n = 0;

	while ((io = bdev_queue_take(q))) {
		struct bdev_rest rest = {0};

		if (script.per_submit && (unsigned)n == script.per_submit) {
			bdev_queue_put_back(q, io);
			break;
		}
		if (io->op != BDEV_FLUSH)
			bdev_queue_get_rest(io, &rest);
		script.seen[script.seen_len].offset = rest.offset;
		script.seen[script.seen_len].iovcnt = rest.iovcnt;
		script.seen[script.seen_len].base = rest.iov ? rest.iov->iov_base : NULL;
		for (int i = 0; i < rest.iovcnt; i++)
			script.seen[script.seen_len].len += rest.iov[i].iov_len;
		script.seen_len++;
		fake->taken[fake->taken_len++] = io;
		n++;
	}
	if (q->inflight > script.most_inflight)
		script.most_inflight = q->inflight;
	return n;
}

static int fake_reap(struct bdev_queue *q)
{
	struct fake_queue *fake = container_of(q, struct fake_queue, q);
	unsigned n = fake->taken_len;
	struct bdev_io *taken[64];
	uint64_t count;

	if (script.asleep && read(q->fd.fd, &count, sizeof(count)) < 0)
		return 0;
	memcpy(taken, fake->taken, sizeof(taken));
	fake->taken_len = 0;
	for (unsigned i = 0; i < n; i++) {
		long res = taken[i]->op == BDEV_FLUSH ? 0 : (long)taken[i]->len;

		if (script.answers_len) {
			res = script.answers[0];
			memmove(script.answers, script.answers + 1,
				--script.answers_len * sizeof(script.answers[0]));
		}
		bdev_queue_complete(q, taken[i], res);
	}
	return (int)n;
}

static bool fake_arm(struct bdev_queue *q)
{
	struct fake_queue *fake = container_of(q, struct fake_queue, q);

	return fake->taken_len && !script.asleep;
}

static const struct bdev_queue_ops fake_queue_ops = {
	.name = "fake",
	.size = sizeof(struct fake_queue),
	.open = fake_open,
	.close = fake_close,
	.submit = fake_submit,
	.reap = fake_reap,
	.arm = fake_arm,
};

static _Thread_local struct bdev_queue *queue;
static int queue_fd = -1; /* the last queue's, for the test's thread */

static int fake_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	int rc = bdev_queue_channel_open(&fake_queue_ops, &queue, r, ch);

	queue_fd = rc ? -1 : queue->fd.fd;
	return rc;
}

static const struct bdev_ops fake_ops = {
	.product = "fake",
	.channel_open = fake_channel_open,
	.channel_close = bdev_queue_channel_close,
	.submit = bdev_queue_submit,
};

static struct rig *rig;
static struct bdev_file file;
static char memory[65536];

static int setup(void **state)
{
	memset(&script, 0, sizeof(script));
	script.depth = 64;
	memset(&file, 0, sizeof(file));
	file.bdev.ops = &fake_ops;
	file.bdev.size = 1 << 30;
	file.bdev.limits.block_size = 512;
	file.bdev.limits.mem_align = 1;
	file.filename = (char *)"(fake)";
	strcpy(file.bdev.name, "fake");
	rig = rig_start();
	return 0;
}

static int teardown(void **state)
{
	rig_stop(rig);
	return 0;
}

static void answer(long res)
{
	script.answers[script.answers_len++] = res;
}

/* A short transfer goes on where it stopped: inside a piece, at its edge, over several. */
static void test_short(void **state)
{
	struct bdev_channel *ch = rig_open(rig, &file.bdev);
	struct iovec iov[3] = {{memory, 4096}, {memory + 16384, 512}, {memory + 8192, 8192}};
	struct bdev_io io = {
		.op = BDEV_READ, .offset = 40960, .len = 12800, .iov = iov, .iovcnt = 3};
	static const struct {
		uint64_t offset, len, base;
		int iovcnt;
	} want[] = {
		{40960, 12800, 0, 3},          {40960 + 1024, 3072, 1024, 1},
		{40960 + 4096, 512, 16384, 1}, {40960 + 4608, 8192, 8192, 1},
		{40960 + 4609, 8191, 8193, 1},
	};

	answer(1024);
	answer(3072);
	answer(512);
	answer(1);
	answer(8191);
	rig_submit(rig, ch, &io, 1);
	assert_int_equal(io.result, 0);
	assert_int_equal(script.seen_len, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(script.seen[i].offset, want[i].offset);
		assert_int_equal(script.seen[i].len, want[i].len);
		assert_int_equal(script.seen[i].iovcnt, want[i].iovcnt);
		assert_ptr_equal(script.seen[i].base, memory + want[i].base);
	}
	rig_close(rig, ch);
}

static void test_end_of_file(void **state)
{
	struct bdev_channel *ch = rig_open(rig, &file.bdev);

	answer(512);
	answer(0);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, memory, 1024), -EIO);
	answer(0);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 0, memory, 1024), -EIO);
	assert_int_equal(script.seen_len, 3);
	rig_close(rig, ch);
}

static void test_errors(void **state)
{
	struct bdev_channel *ch = rig_open(rig, &file.bdev);

	answer(-ENOSPC);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 0, memory, 1024), -ENOSPC);
	answer(512);
	answer(-EIO);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, memory, 1024), -EIO);
	answer(-EIO);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), -EIO);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	rig_close(rig, ch);
}

static void test_retries(void **state)
{
	struct bdev_channel *ch = rig_open(rig, &file.bdev);
	unsigned tries;

	for (int i = 0; i < 20; i++)
		answer(i % 2 ? -EAGAIN : -EINTR);
	answer(512);
	answer(-EAGAIN);
	answer(512);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, memory, 1024), 0);
	assert_int_equal(script.seen_len, 23);
	/* What it had before counts on. */
	assert_int_equal(script.seen[22].offset, 512);

	answer(-EINTR);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);

	/* But not for ever. */
	tries = script.seen_len;
	for (int i = 0; i < 200; i++)
		answer(-EAGAIN);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, memory, 1024), -EAGAIN);
	assert_in_range(script.seen_len - tries, 2, 199);
	rig_close(rig, ch);
}

/* More ios than fit, into an engine that takes few at a time: all come through, in order. */
static void test_room(void **state)
{
	enum { MANY = 1000 };
	struct bdev_channel *ch = rig_open(rig, &file.bdev);
	struct bdev_io *ios = calloc(MANY, sizeof(*ios));
	struct iovec iov = {memory, 512};

	rig_close(rig, ch);
	script.depth = 8;
	for (script.per_submit = 0; script.per_submit < 4; script.per_submit += 3) {
		script.seen_len = 0;
		memset(script.seen, 0, sizeof(script.seen));
		ch = rig_open(rig, &file.bdev);
		for (unsigned i = 0; i < MANY; i++)
			ios[i] = (struct bdev_io){.op = BDEV_READ,
						  .offset = i * 512,
						  .len = 512,
						  .iov = &iov,
						  .iovcnt = 1};
		rig_submit(rig, ch, ios, MANY);
		assert_int_equal(script.seen_len, MANY);
		for (unsigned i = 0; i < MANY; i++) {
			assert_int_equal(ios[i].result, 0);
			assert_int_equal(script.seen[i].offset, i * 512);
		}
		rig_close(rig, ch);
	}
	assert_int_equal(script.most_inflight, 8);
	free(ios);
}

/* The reactor sleeps while the engine works, and its descriptor wakes it. */
static void *complete_later(void *arg)
{
	uint64_t one = 1;

	usleep(20000);
	return write(queue_fd, &one, sizeof(one)) < 0 ? &queue_fd : NULL;
}

static void test_wake(void **state)
{
	struct bdev_channel *ch;
	struct reactor_stats stats;
	struct bdev_io io;
	struct iovec iov = {memory, 512};
	pthread_t thread;

	script.asleep = true;
	ch = rig_open(rig, &file.bdev);
	for (int i = 0; i < 3; i++) {
		io = (struct bdev_io){.op = BDEV_READ, .len = 512, .iov = &iov, .iovcnt = 1};
		/* rig_submit() waits for the io: who completes it has to be another. */
		assert_int_equal(pthread_create(&thread, NULL, complete_later, NULL), 0);
		rig_submit(rig, ch, &io, 1);
		pthread_join(thread, NULL);
		assert_int_equal(io.result, 0);
	}
	reactor_get_stats(rig->reactor, &stats);
	assert_true(stats.sleeps >= 3);
	/* It did not spin those 60 ms away. */
	assert_true(stats.passes < 30000);
	rig_close(rig, ch);
}

/* The last channel closed from inside an io's done, in the queue's own poll. */

static struct bdev_io last;
static struct iovec last_iov = {memory, 512};

static void close_in_done(struct bdev_io *io)
{
	bdev_channel_close(io->ch);
	io->result = 2;
}

static void submit_last(void *ch)
{
	bdev_submit(ch, &last);
}

static void wait_closed(void *arg)
{
}

static void test_close_in_done(void **state)
{
	for (unsigned i = 1; i <= 3; i++) {
		struct bdev_channel *ch = rig_open(rig, &file.bdev);

		last = (struct bdev_io){.op = BDEV_READ,
					.len = 512,
					.iov = &last_iov,
					.iovcnt = 1,
					.done = close_in_done};
		rig_call(rig, submit_last, ch);
		while (__atomic_load_n(&file.bdev.channels, __ATOMIC_ACQUIRE))
			usleep(1000);
		rig_call(rig, wait_closed, NULL);
		rig_call(rig, wait_closed, NULL);
		assert_int_equal(last.result, 2);
		assert_int_equal(script.opened, i);
		assert_int_equal(script.closed, i);
	}
}

/* A channel opened before the queue of the last one was freed keeps it. */
static void reopen(void *arg)
{
	struct bdev_channel **ch = arg;

	bdev_channel_close(*ch);
	if (bdev_channel_open(&file.bdev, rig->reactor, ch))
		abort();
	bdev_channel_close(*ch);
	if (bdev_channel_open(&file.bdev, rig->reactor, ch))
		abort();
}

static void test_reopen(void **state)
{
	struct bdev_channel *ch = rig_open(rig, &file.bdev);

	rig_call(rig, reopen, &ch);
	rig_call(rig, wait_closed, NULL);
	rig_call(rig, wait_closed, NULL);
	assert_int_equal(script.opened, 1);
	assert_int_equal(script.closed, 0);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, memory, 512), 0);
	rig_close(rig, ch);
	rig_call(rig, wait_closed, NULL);
	rig_call(rig, wait_closed, NULL);
	assert_int_equal(script.closed, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_short),         TEST(test_end_of_file), TEST(test_errors),
		TEST(test_retries),       TEST(test_room),        TEST(test_wake),
		TEST(test_close_in_done), TEST(test_reopen),
	};

	return cmocka_run_group_tests_name("bdev_queue", tests, NULL, NULL);
}
