/* SPDX-License-Identifier: BSD-2-Clause */
#include "test_bdev_util.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

struct rig *rig_start(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	assert_int_equal(helper_pool_create(2, &rig->helpers), 0);
	assert_int_equal(reactor_create("test", -1, rig->helpers, &rig->reactor), 0);
	assert_int_equal(reactor_start(rig->reactor), 0);
	return rig;
}

void rig_stop(struct rig *rig)
{
	reactor_stop(rig->reactor);
	reactor_destroy(rig->reactor);
	helper_pool_destroy(rig->helpers);
	free(rig);
}

struct call {
	struct reactor_msg msg;
	void (*fn)(void *arg);
	void *arg;
	sem_t over;
};

static void call_run(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call, msg);

	call->fn(call->arg);
	sem_post(&call->over);
}

void rig_call(struct rig *rig, void (*fn)(void *arg), void *arg)
{
	struct call call = {.msg.fn = call_run, .fn = fn, .arg = arg};

	sem_init(&call.over, 0, 0);
	reactor_send(rig->reactor, &call.msg);
	sem_wait(&call.over);
	sem_destroy(&call.over);
}

struct channel_call {
	struct bdev *b;
	struct reactor *r;
	struct bdev_channel *ch;
	int rc;
};

static void open_channel(void *arg)
{
	struct channel_call *call = arg;

	call->rc = bdev_channel_open(call->b, call->r, &call->ch);
}

struct bdev_channel *rig_open(struct rig *rig, struct bdev *b)
{
	struct channel_call call = {.b = b, .r = rig->reactor};

	rig_call(rig, open_channel, &call);
	assert_int_equal(call.rc, 0);
	return call.ch;
}

static void close_channel(void *arg)
{
	bdev_channel_close(arg);
}

void rig_close(struct rig *rig, struct bdev_channel *ch)
{
	rig_call(rig, close_channel, ch);
}

static sem_t ios_over;

static void io_done(struct bdev_io *io)
{
	sem_post(&ios_over);
}

struct submit_call {
	struct bdev_channel *ch;
	struct bdev_io *ios;
	unsigned n;
};

static void submit_ios(void *arg)
{
	struct submit_call *call = arg;

	for (unsigned i = 0; i < call->n; i++)
		bdev_submit(call->ch, &call->ios[i]);
}

void rig_submit(struct rig *rig, struct bdev_channel *ch, struct bdev_io *ios, unsigned n)
{
	struct submit_call call = {ch, ios, n};

	sem_init(&ios_over, 0, 0);
	for (unsigned i = 0; i < n; i++) {
		ios[i].done = io_done;
		ios[i].result = 1; /* which no io may end with */
	}
	rig_call(rig, submit_ios, &call);
	for (unsigned i = 0; i < n; i++)
		sem_wait(&ios_over);
	sem_destroy(&ios_over);
}

int rig_io(struct rig *rig, struct bdev_channel *ch, enum bdev_op op, uint64_t offset, void *data,
	   uint64_t len)
{
	struct iovec iov = {data, len};
	struct bdev_io io = {.op = op, .offset = offset, .len = len, .iov = &iov, .iovcnt = 1};

	rig_submit(rig, ch, &io, 1);
	return io.result;
}

void *test_alloc(size_t size)
{
	void *data = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);

	assert_non_null(data);
	return data;
}

void test_fill(void *data, uint64_t offset, uint64_t len, uint32_t generation)
{
	uint32_t *words = data;

	for (uint64_t i = 0; i < len / sizeof(*words); i++)
		words[i] = (uint32_t)((offset / sizeof(*words) + i) * 2654435761u) ^ generation;
}

static char paths[64][96];
static unsigned paths_len;

const char *test_file(enum test_place place, uint64_t size)
{
	const char *dir = place == TEST_SHM ? "/dev/shm" : "/var/tmp";
	struct statfs fs;
	char *path;
	int fd;

	if (statfs(dir, &fs) || access(dir, W_OK) ||
	    (fs.f_type == TMPFS_MAGIC) != (place == TEST_SHM)) {
		print_message("[  SKIPPED ] %s is not there, or not the kind of file system\n",
			      dir);
		skip();
	}
	assert_true(paths_len < sizeof(paths) / sizeof(paths[0]));
	path = paths[paths_len++];
	snprintf(path, sizeof(paths[0]), "%s/sluice-test-XXXXXX", dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	return path;
}

void test_files_remove(void)
{
	while (paths_len)
		unlink(paths[--paths_len]);
}
