/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uring on a kernel that is short of something: one that knows fewer ways to set up a ring, and one
 * that takes only part of what it is offered, or nothing for a while.  The provider's source is
 * compiled in, with these two calls replaced.
 */
#include <liburing.h>
#include <stdbool.h>

static unsigned known_flags; /* of setup */
static int submit_errors[64];
static unsigned submit_errors_len;
static unsigned again; /* after those, so many calls take nothing */

static int old_kernel_init(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	if (params->flags & ~known_flags)
		return -EINVAL;
	return io_uring_queue_init_params(entries, ring, params);
}

static int busy_kernel_submit(struct io_uring *ring)
{
	if (io_uring_sq_ready(ring) && submit_errors_len)
		return submit_errors[--submit_errors_len];
	if (io_uring_sq_ready(ring) && again) {
		again--;
		return -EAGAIN;
	}
	return io_uring_submit(ring);
}

#define io_uring_queue_init_params old_kernel_init
#define io_uring_submit            busy_kernel_submit
#include "bdev/uring.c"

#include <stdlib.h>

#include "test_bdev_util.h"

static struct rig *rig;
static struct bdev *b;

static int setup(void **state)
{
	struct bdev_file_opts opts = {.filename = test_file(TEST_DISK, 8 << 20)};
	struct err err;
	int rc = bdev_uring_create("x", &opts, &b, &err);

	known_flags = ~0u;
	submit_errors_len = 0;
	again = 0;
	if (rc == -ENOSYS) {
		print_message("[  SKIPPED ] %s\n", err.text);
		b = NULL;
		return 0;
	}
	rig = rig_start();
	return rc;
}

static int teardown(void **state)
{
	if (b)
		rig_stop(rig);
	bdev_delete_all();
	test_files_remove();
	return 0;
}

enum { IOS = 600 };

/* Writes and reads IOS blocks, each time all at once; then one alone while the reactor sleeps. */
static void check_data(struct bdev_channel *ch)
{
	char *data = test_alloc(IOS * 4096), *back = test_alloc(IOS * 4096);
	static struct bdev_io ios[IOS];
	static struct iovec iovs[IOS];

	test_fill(data, 0, IOS * 4096, known_flags);
	memset(back, 0, IOS * 4096);
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < IOS; i++) {
			iovs[i] = (struct iovec){(pass ? back : data) + i * 4096, 4096};
			ios[i] = (struct bdev_io){.op = pass ? BDEV_READ : BDEV_WRITE,
						  .offset = i * 4096ULL,
						  .len = 4096,
						  .iov = &iovs[i],
						  .iovcnt = 1};
		}
		rig_submit(rig, ch, ios, IOS);
		for (unsigned i = 0; i < IOS; i++)
			assert_int_equal(ios[i].result, 0);
	}
	assert_memory_equal(back, data, IOS * 4096);
	usleep(20000);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	usleep(20000);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 4096, back, 4096), 0);
	assert_memory_equal(back, data + 4096, 4096);
	free(data);
	free(back);
}

static void test_older_kernels(void **state)
{
	struct bdev_channel *ch;

	if (!b)
		skip();
	for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
		known_flags = setups[i];
		ch = rig_open(rig, b);
		/* Nothing it knows is left out. */
		assert_int_equal(uring_of(bdev_file_channel_of(ch)->queue)->ring.flags & setups[0],
				 setups[i]);
		check_data(ch);
		rig_close(rig, ch);
	}
}

struct open_call {
	struct bdev_channel *ch;
	int rc;
};

static void open_it(void *arg)
{
	struct open_call *call = arg;

	call->rc = bdev_channel_open(b, rig->reactor, &call->ch);
}

static void test_no_ring(void **state)
{
	struct open_call call;

	if (!b)
		skip();
	known_flags = 0;
	rig_call(rig, open_it, &call);
	assert_int_equal(call.rc, -EINVAL);
	assert_int_equal(b->channels, 0);
	/* Nothing of the failure is left. */
	known_flags = ~0u;
	check_data(call.ch = rig_open(rig, b));
	rig_close(rig, call.ch);
}

static void test_busy_kernel(void **state)
{
	static const int errors[] = {-EAGAIN, -EBUSY, -EINTR, -EAGAIN, -ENXIO, -EAGAIN, -EBUSY};
	struct bdev_channel *ch;
	char *data;

	if (!b)
		skip();
	ch = rig_open(rig, b);
	for (int round = 0; round < 5; round++) {
		submit_errors_len = sizeof(errors) / sizeof(errors[0]);
		memcpy(submit_errors, errors, sizeof(errors));
		check_data(ch);
		assert_int_equal(submit_errors_len, 0);
	}
	/* A lone io waits for as long as it takes; the reactor does not go to sleep over it. */
	data = test_alloc(4096);
	again = 10000;
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, data, 4096), 0);
	assert_int_equal(again, 0);
	free(data);
	rig_close(rig, ch);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_older_kernels),
		TEST(test_no_ring),
		TEST(test_busy_kernel),
	};

	return cmocka_run_group_tests_name("bdev_uring", tests, NULL, NULL);
}
