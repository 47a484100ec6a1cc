/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * aio on a kernel that is old or short of something: one that has no asynchronous flush, that takes
 * only part of what it is offered, or that refuses a single io.  The provider's source is compiled
 * in, with io_submit() replaced.
 */
#include <errno.h>
#include <libaio.h>
#include <stdbool.h>

static unsigned again;       /* so many calls take nothing */
static long at_most;         /* ios in one call; 0: any */
static bool no_flush;        /* as before Linux 4.18 */
static long long bad_offset; /* an io here is refused */
static unsigned flushes_refused;

static int old_kernel_submit(io_context_t context, long n, struct iocb **list)
{
	long good = 0;

	if (again) {
		again--;
		return -EAGAIN;
	}
	for (; good < n && (!at_most || good < at_most); good++) {
		struct iocb *iocb = list[good];
		bool flush = iocb->aio_lio_opcode == IO_CMD_FDSYNC;

		if ((flush && no_flush) || (!flush && iocb->u.c.offset == bad_offset)) {
			if (good)
				break;
			flushes_refused += flush;
			return flush ? -EINVAL : -EBADF;
		}
	}
	return io_submit(context, good, list);
}

#define io_submit old_kernel_submit
#include "bdev/aio.c"

#include <stdlib.h>

#include "test_bdev_util.h"

enum { IOS = 600 };

static struct rig *rig;
static struct bdev *b;
static struct bdev_channel *ch;

static int setup(void **state)
{
	struct bdev_file_opts opts = {.filename = test_file(TEST_DISK, 8 << 20)};
	struct err err;

	again = 0;
	at_most = 0;
	no_flush = false;
	bad_offset = -1;
	flushes_refused = 0;
	if (bdev_aio_create("x", &opts, &b, &err))
		return -1;
	rig = rig_start();
	ch = rig_open(rig, b);
	return 0;
}

static int teardown(void **state)
{
	rig_close(rig, ch);
	rig_stop(rig);
	bdev_delete_all();
	test_files_remove();
	return 0;
}

/* Writes and reads IOS blocks, each time all at once, the last of them a flush. */
static void check_data(int bad_result)
{
	char *data = test_alloc(IOS * 4096), *back = test_alloc(IOS * 4096);
	static struct bdev_io ios[IOS + 1];
	static struct iovec iovs[IOS];

	test_fill(data, 0, IOS * 4096, again);
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
		ios[IOS] = (struct bdev_io){.op = BDEV_FLUSH};
		rig_submit(rig, ch, ios, IOS + 1);
		for (unsigned i = 0; i < IOS + 1; i++) {
			bool bad = i < IOS && (long long)i * 4096 == bad_offset;

			assert_int_equal(ios[i].result, bad ? bad_result : 0);
			if (bad)
				memset(data + i * 4096, 0, 4096);
		}
	}
	assert_memory_equal(back, data, IOS * 4096);
	free(data);
	free(back);
}

static void test_again(void **state)
{
	char *data = test_alloc(4096);

	again = 50;
	check_data(0);
	assert_int_equal(again, 0);
	/* A lone io waits for as long as it takes; the reactor does not go to sleep over it. */
	again = 10000;
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, data, 4096), 0);
	assert_int_equal(again, 0);
	free(data);
}

static void test_few_at_a_time(void **state)
{
	at_most = 7;
	check_data(0);
}

static void test_one_refused(void **state)
{
	static const long long offsets[] = {0, 4096, 4096 * 127, 4096 * 128, 4096 * (IOS - 1)};

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		bad_offset = offsets[i];
		check_data(-EBADF);
	}
}

static void test_no_flush(void **state)
{
	no_flush = true;
	check_data(0);
	check_data(0);
	/* It is not asked again. */
	assert_int_equal(flushes_refused, 1);
	assert_int_equal(bdev_file_channel_of(ch)->queue->inflight, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_again),
		TEST(test_few_at_a_time),
		TEST(test_one_refused),
		TEST(test_no_flush),
	};

	return cmocka_run_group_tests_name("bdev_aio", tests, NULL, NULL);
}
