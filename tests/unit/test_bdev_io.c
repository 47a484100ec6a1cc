/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data through the engines: the same tests for uring and aio, each on a file on a disk (direct
 * I/O) and on tmpfs.
 */
#include "test_bdev_util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ULL << 20)

struct setting {
	int (*create)(const char *name, const struct bdev_file_opts *opts, struct bdev **out,
		      struct err *err);
	enum test_place place;
	const char *method;
};

static struct setting uring_disk = {bdev_uring_create, TEST_DISK, "bdev_uring_create"};
static struct setting uring_shm = {bdev_uring_create, TEST_SHM, "bdev_uring_create"};
static struct setting aio_disk = {bdev_aio_create, TEST_DISK, "bdev_aio_create"};
static struct setting aio_shm = {bdev_aio_create, TEST_SHM, "bdev_aio_create"};

static struct rig *rig;

static int group_setup(void **state)
{
	rig = rig_start();
	return 0;
}

static int group_teardown(void **state)
{
	rig_stop(rig);
	return 0;
}

static int teardown(void **state)
{
	bdev_delete_all();
	test_files_remove();
	return 0;
}

/* Creates bdev "x" on a new file; skips the test where the engine is not to be had. */
static struct bdev *create_on(const struct setting *s, const char *path, bool readonly)
{
	struct bdev_file_opts opts = {.filename = path, .readonly = readonly};
	struct bdev *b = NULL;
	struct err err;
	int rc = s->create("x", &opts, &b, &err);

	if (rc == -ENOSYS) {
		print_message("[  SKIPPED ] %s\n", err.text);
		test_files_remove();
		skip();
	}
	if (rc)
		print_error("%s\n", err.text);
	assert_int_equal(rc, 0);
	return b;
}

static struct bdev *create(const struct setting *s, uint64_t size)
{
	return create_on(s, test_file(s->place, size), false);
}

static void test_boundaries(void **state)
{
	const uint64_t size = 4 * MIB;
	struct bdev *b = create(*state, size);
	struct bdev_channel *ch = rig_open(rig, b);
	uint32_t block = b->limits.block_size;
	const uint64_t at[] = {0, block, 4096 - block, 4096, MIB - block, size - block};
	char *data = test_alloc(MIB), *back = test_alloc(MIB);

	assert_int_equal(b->size, size);
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		test_fill(data, at[i], block, (uint32_t)i);
		assert_int_equal(rig_io(rig, ch, BDEV_WRITE, at[i], data, block), 0);
		memset(back, 0xff, block);
		assert_int_equal(rig_io(rig, ch, BDEV_READ, at[i], back, block), 0);
		assert_memory_equal(back, data, block);
	}
	/* The last MiB, to the last byte; its other blocks are still zeros. */
	memset(data, 0, MIB);
	test_fill(data + MIB - block, size - block, block, 5);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, size - MIB, back, MIB), 0);
	assert_memory_equal(back, data, MIB);

	assert_int_equal(rig_io(rig, ch, BDEV_READ, size, back, block), -EINVAL);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, size - block, data, 2 * block), -EINVAL);
	rig_close(rig, ch);
	free(data);
	free(back);
}

/* Pieces scattered over memory, of which some are one block and some are many. */
static void test_pieces(void **state)
{
	struct bdev *b = create(*state, 4 * MIB);
	struct bdev_channel *ch = rig_open(rig, b);
	uint32_t block = b->limits.block_size;
	char *data = test_alloc(MIB), *scattered = test_alloc(2 * MIB), *back = test_alloc(MIB);
	struct iovec iov[32];
	struct bdev_io io = {.op = BDEV_WRITE, .offset = MIB + block, .iov = iov, .iovcnt = 32};
	uint64_t at = 0;

	test_fill(data, io.offset, MIB, 3);
	for (unsigned i = 0; i < 32; i++) {
		iov[i].iov_base = scattered + (31 - i) * 65536;
		iov[i].iov_len = i % 3 ? block : (size_t)block * (i % 8 + 1);
		memcpy(iov[i].iov_base, data + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	io.len = at;
	rig_submit(rig, ch, &io, 1);
	assert_int_equal(io.result, 0);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, io.offset, back, io.len), 0);
	assert_memory_equal(back, data, io.len);
	memset(scattered, 0, 2 * MIB);
	io.op = BDEV_READ;
	rig_submit(rig, ch, &io, 1);
	assert_int_equal(io.result, 0);
	at = 0;
	for (unsigned i = 0; i < 32; i++) {
		assert_memory_equal(iov[i].iov_base, data + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	rig_close(rig, ch);
	free(data);
	free(scattered);
	free(back);
}

/*
 * Random reads and writes, many at once, none of which touch the same slot of the device; a model
 * in memory says what every read must give.
 */
enum { SLOTS = 256, SLOT_SIZE = 32768, AT_ONCE = 64, ROUNDS = 40 };

static void test_random(void **state)
{
	struct bdev *b = create(*state, SLOTS * SLOT_SIZE);
	struct bdev_channel *ch = rig_open(rig, b);
	uint32_t block = b->limits.block_size;
	char *model = calloc(SLOTS, SLOT_SIZE), *data = test_alloc(AT_ONCE * SLOT_SIZE);
	static struct bdev_io ios[AT_ONCE];
	static struct iovec iovs[AT_ONCE][2];
	unsigned reads = 0;

	srandom(1);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		unsigned first = (unsigned)random() % SLOTS;

		for (unsigned i = 0; i < AT_ONCE; i++) {
			struct bdev_io *io = &ios[i];
			/* 37 has no factor in common with SLOTS: no slot twice in a round. */
			uint64_t slot = (first + i * 37) % SLOTS;
			uint32_t blocks = SLOT_SIZE / block;
			uint32_t skip = (uint32_t)random() % blocks;
			uint32_t n = (uint32_t)random() % (blocks - skip) + 1;
			uint32_t half = n / 2 * block;
			char *at = data + i * SLOT_SIZE;

			*io = (struct bdev_io){.op = random() % 2 ? BDEV_READ : BDEV_WRITE,
					       .offset = slot * SLOT_SIZE + skip * block,
					       .len = (uint64_t)n * block,
					       .iov = iovs[i],
					       .iovcnt = half ? 2 : 1};
			iovs[i][0] = (struct iovec){at, half ? half : io->len};
			iovs[i][1] = (struct iovec){at + half, io->len - half};
			if (io->op == BDEV_WRITE) {
				test_fill(at, io->offset, io->len, round + 1);
				memcpy(model + io->offset, at, io->len);
			} else {
				memset(at, 0xff, io->len);
				reads++;
			}
		}
		rig_submit(rig, ch, ios, AT_ONCE);
		for (unsigned i = 0; i < AT_ONCE; i++) {
			assert_int_equal(ios[i].result, 0);
			assert_memory_equal(data + i * SLOT_SIZE, model + ios[i].offset,
					    ios[i].len);
		}
		if (round % 8 == 7)
			assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	}
	assert_true(reads > AT_ONCE * ROUNDS / 3);
	/* And all of it, from the file itself and not by way of the engine. */
	for (unsigned i = 0; i < SLOTS; i++) {
		assert_int_equal(rig_io(rig, ch, BDEV_READ, i * SLOT_SIZE, data, SLOT_SIZE), 0);
		assert_memory_equal(data, model + i * SLOT_SIZE, SLOT_SIZE);
	}
	rig_close(rig, ch);
	free(model);
	free(data);
}

/* More at once than an engine has room for. */
static void test_crowd(void **state)
{
	enum { CROWD = 5000 };
	struct bdev *b = create(*state, CROWD * 4096);
	struct bdev_channel *ch = rig_open(rig, b);
	char *data = test_alloc(CROWD * 4096), *back = test_alloc(CROWD * 4096);
	struct bdev_io *ios = calloc(CROWD, sizeof(*ios));
	struct iovec *iovs = calloc(CROWD, sizeof(*iovs));

	test_fill(data, 0, CROWD * 4096, 1);
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < CROWD; i++) {
			iovs[i] = (struct iovec){(pass ? back : data) + i * 4096, 4096};
			ios[i] = (struct bdev_io){.op = pass ? BDEV_READ : BDEV_WRITE,
						  .offset = i * 4096ULL,
						  .len = 4096,
						  .iov = &iovs[i],
						  .iovcnt = 1};
		}
		rig_submit(rig, ch, ios, CROWD);
		for (unsigned i = 0; i < CROWD; i++)
			assert_int_equal(ios[i].result, 0);
	}
	assert_memory_equal(back, data, CROWD * 4096);
	rig_close(rig, ch);
	free(data);
	free(back);
	free(ios);
	free(iovs);
}

static uint64_t allocated(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_discard(void **state)
{
	const struct setting *s = *state;
	const char *path = test_file(s->place, 8 * MIB);
	struct bdev *b = create_on(s, path, false);
	struct bdev_channel *ch = rig_open(rig, b);
	uint32_t block = b->limits.block_size;
	char *data = test_alloc(8 * MIB), *back = test_alloc(8 * MIB);
	uint64_t full;

	if (!b->limits.discard) {
		print_message("[  SKIPPED ] this file system cannot punch holes\n");
		rig_close(rig, ch);
		free(data);
		free(back);
		skip();
	}
	test_fill(data, 0, 8 * MIB, 2);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 0, data, 8 * MIB), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	full = allocated(path);
	assert_true(full >= 8 * MIB);
	assert_int_equal(rig_io(rig, ch, BDEV_DISCARD, MIB + block, NULL, 4 * MIB), 0);
	memset(data + MIB + block, 0, 4 * MIB);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	assert_in_range(full - allocated(path), 4 * MIB - 65536, 4 * MIB);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, back, 8 * MIB), 0);
	assert_memory_equal(back, data, 8 * MIB);
	/* The file keeps its size, also when its end is discarded. */
	assert_int_equal(rig_io(rig, ch, BDEV_DISCARD, 7 * MIB, NULL, MIB), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 8 * MIB - block, data, block), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_DISCARD, 0, NULL, b->limits.discard_max + block),
			 -EINVAL);
	rig_close(rig, ch);
	free(data);
	free(back);
}

static void test_readonly(void **state)
{
	const struct setting *s = *state;
	const char *path = test_file(s->place, MIB);
	char *data = test_alloc(4096), *back = test_alloc(4096);
	struct bdev_channel *ch;
	struct bdev *b;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	test_fill(data, 0, 4096, 1);
	assert_int_equal(pwrite(fd, data, 4096, 8192), 4096);
	close(fd);
	b = create_on(s, path, true);
	assert_false(b->limits.discard);
	ch = rig_open(rig, b);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 8192, back, 4096), 0);
	assert_memory_equal(back, data, 4096);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 0, data, 4096), -EROFS);
	assert_int_equal(rig_io(rig, ch, BDEV_DISCARD, 0, NULL, 4096), -EROFS);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	rig_close(rig, ch);
	free(data);
	free(back);
}

/* Somebody cuts the file under us: an error, no wrong data, and no end of trying. */
static void test_file_cut(void **state)
{
	const struct setting *s = *state;
	const char *path = test_file(s->place, MIB);
	struct bdev *b = create_on(s, path, false);
	struct bdev_channel *ch = rig_open(rig, b);
	char *data = test_alloc(65536);

	test_fill(data, 0, 65536, 1);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 0, data, 65536), 0);
	assert_int_equal(truncate(path, 32768), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, data, 32768), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, data, 65536), -EIO);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 32768, data, 4096), -EIO);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, MIB - 4096, data, 4096), -EIO);
	rig_close(rig, ch);
	free(data);
}

/* A bdev that two reactors use, and two bdevs that share a reactor's queue. */
static void test_channels(void **state)
{
	const struct setting *s = *state;
	struct bdev *b = create(s, MIB), *c;
	struct bdev_file_opts opts = {.filename = test_file(s->place, MIB)};
	struct rig *other = rig_start();
	struct bdev_channel *one, *two, *three;
	char *data = test_alloc(4096), *back = test_alloc(4096);
	struct err err;

	assert_int_equal(s->create("y", &opts, &c, &err), 0);
	one = rig_open(rig, b);
	two = rig_open(other, b);
	three = rig_open(rig, c);
	test_fill(data, 0, 4096, 1);
	assert_int_equal(rig_io(rig, one, BDEV_WRITE, 0, data, 4096), 0);
	assert_int_equal(rig_io(other, two, BDEV_READ, 0, back, 4096), 0);
	assert_memory_equal(back, data, 4096);
	assert_int_equal(rig_io(rig, three, BDEV_READ, 0, back, 4096), 0);
	memset(data, 0, 4096);
	assert_memory_equal(back, data, 4096);
	/* The queue outlives the first of its channels, and is made anew after the last. */
	rig_close(rig, one);
	assert_int_equal(rig_io(rig, three, BDEV_READ, 0, back, 4096), 0);
	rig_close(rig, three);
	three = rig_open(rig, c);
	assert_int_equal(rig_io(rig, three, BDEV_READ, 0, back, 4096), 0);
	rig_close(rig, three);
	rig_close(other, two);
	rig_stop(other);
	free(data);
	free(back);
}

static void nap(unsigned ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&time, NULL);
}

/* Without work the reactor sleeps, and an io finds it asleep and comes back all the same. */
static void test_sleep(void **state)
{
	struct bdev *b = create(*state, MIB);
	struct bdev_channel *ch = rig_open(rig, b);
	struct reactor_stats before, after;
	char *data = test_alloc(4096);

	for (int i = 0; i < 20; i++) {
		nap(5);
		test_fill(data, 0, 4096, (uint32_t)i);
		assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 0, data, 4096), 0);
		assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
		assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, data, 4096), 0);
	}
	nap(50);
	reactor_get_stats(rig->reactor, &before);
	nap(200);
	reactor_get_stats(rig->reactor, &after);
	assert_int_equal(after.pollers, 0);
	assert_int_equal(after.passes, before.passes);
	assert_true(after.sleeps > 20);
	rig_close(rig, ch);
	free(data);
}

/* A reactor without helper threads does itself what would be theirs. */
static void test_no_helpers(void **state)
{
	struct bdev *b = create(*state, MIB);
	struct rig alone = {.helpers = NULL};
	struct bdev_channel *ch;
	char *data = test_alloc(8192), *zeros = calloc(1, 8192);

	assert_int_equal(reactor_create("alone", -1, NULL, &alone.reactor), 0);
	assert_int_equal(reactor_start(alone.reactor), 0);
	ch = rig_open(&alone, b);
	test_fill(data, 0, 8192, 1);
	assert_int_equal(rig_io(&alone, ch, BDEV_WRITE, 0, data, 8192), 0);
	assert_int_equal(rig_io(&alone, ch, BDEV_DISCARD, 0, NULL, 8192), 0);
	assert_int_equal(rig_io(&alone, ch, BDEV_READ, 0, data, 8192), 0);
	assert_memory_equal(data, zeros, 8192);
	rig_close(&alone, ch);
	reactor_stop(alone.reactor);
	reactor_destroy(alone.reactor);
	free(data);
	free(zeros);
}

static void test_limits(void **state)
{
	const struct setting *s = *state;
	const char *path = test_file(s->place, MIB), *method;
	struct bdev *b = create_on(s, path, false);
	const struct bdev_limits *limits = &b->limits;
	json_t *config;

	assert_true(limits->block_size == 512 || limits->block_size == 4096);
	assert_true(limits->physical_block_size >= limits->block_size);
	assert_int_equal(__builtin_popcount(limits->mem_align), 1);
	assert_true(limits->mem_align <= 4096);
	assert_true(limits->write_cache);
	assert_false(limits->volatile_data);
	assert_true(limits->max_iov >= 32);
	config = b->ops->config(b, &method);
	assert_string_equal(method, s->method);
	assert_string_equal(json_string_value(json_object_get(config, "name")), "x");
	assert_string_equal(json_string_value(json_object_get(config, "filename")), path);
	assert_true(json_is_false(json_object_get(config, "readonly")));
	assert_true(json_is_false(json_object_get(config, "shared")));
	json_decref(config);
}

#define TEST(f, s)                                  \
	{                                           \
#f " on " #s, f, NULL, teardown, &s \
	}
#define TESTS(s)                                                                                   \
	TEST(test_boundaries, s), TEST(test_pieces, s), TEST(test_random, s), TEST(test_crowd, s), \
		TEST(test_discard, s), TEST(test_readonly, s), TEST(test_file_cut, s),             \
		TEST(test_channels, s), TEST(test_sleep, s), TEST(test_no_helpers, s),             \
		TEST(test_limits, s)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TESTS(uring_disk),
		TESTS(uring_shm),
		TESTS(aio_disk),
		TESTS(aio_shm),
	};

	return cmocka_run_group_tests_name("bdev_io", tests, group_setup, group_teardown);
}
