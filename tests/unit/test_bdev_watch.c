/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bdevs that grow with what is behind them: when asked to, and by themselves. The rig's reactor is
 * the control thread.
 */
#include "../fds.h"
#include "test_bdev_util.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define MIB (1ULL << 20)

static struct rig *rig;

/* What the observer has seen. */
static _Atomic(unsigned) resized;
static _Atomic(uint64_t) resized_to;

static void note_resized(struct bdev *b, void *arg)
{
	resized_to = bdev_get_size(b);
	resized++;
}

static struct bdev_observer observer = {.resized = note_resized};

static void start_watch(void *arg)
{
	bdev_observe(&observer);
	bdev_watch_start(rig->reactor);
}

static int setup(void **state)
{
	resized = 0;
	rig = rig_start();
	rig_call(rig, start_watch, NULL);
	return 0;
}

static int teardown(void **state)
{
	reactor_stop(rig->reactor);
	reactor_join(rig->reactor);
	helper_pool_destroy(rig->helpers);
	bdev_watch_stop();
	reactor_destroy(rig->reactor);
	free(rig);
	bdev_unobserve(&observer);
	bdev_delete_all();
	test_files_remove();
	return 0;
}

/* A rescan, and what came of it. */
struct asked {
	struct bdev_rescan rescan;
	struct bdev *b;
	unsigned done;
	int result;
	struct err err;
	sem_t over;
};

static void asked_done(struct bdev_rescan *r, int result, const struct err *err)
{
	struct asked *a = container_of(r, struct asked, rescan);

	a->done++;
	a->result = result;
	if (result)
		a->err = *err;
	sem_post(&a->over);
}

static void ask_run(void *arg)
{
	struct asked *a = arg;

	bdev_rescan(a->b, &a->rescan);
}

static void ask(struct asked *a, struct bdev *b)
{
	*a = (struct asked){.rescan.done = asked_done, .b = b};
	sem_init(&a->over, 0, 0);
	rig_call(rig, ask_run, a);
}

/* Waits up to 10 s for its end; returns its result. */
static int answer(struct asked *a)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	assert_int_equal(sem_timedwait(&a->over, &until), 0);
	assert_int_equal(a->done, 1);
	return a->result;
}

static struct bdev *create(const char *path)
{
	struct bdev_file_opts opts = {.filename = path};
	struct bdev *b;
	struct err err;

	if (bdev_aio_create("file", &opts, &b, &err))
		fail_msg("%s", err.text);
	return b;
}

static void claim(void *arg)
{
	struct err err;

	if (bdev_claim(arg, true, false, &err))
		abort();
}

static void release(void *arg)
{
	bdev_release(arg);
}

static void test_rescan(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);
	struct bdev *b = create(path), *null;
	char *data = test_alloc(4096);
	struct bdev_channel *ch = rig_open(rig, b);
	unsigned fds;
	struct asked a;
	struct err err;

	ask(&a, b);
	assert_int_equal(answer(&a), 0);
	fds = fds_count();
	assert_int_equal(resized, 0);
	memset(data, 1, 4096);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, MIB, data, 4096), -EINVAL);
	assert_int_equal(truncate(path, 3 * MIB), 0);
	ask(&a, b);
	assert_int_equal(answer(&a), 0);
	assert_int_equal(bdev_get_size(b), 3 * MIB);
	assert_int_equal(resized, 1);
	assert_int_equal(resized_to, 3 * MIB);
	assert_int_equal(rig_io(rig, ch, BDEV_WRITE, 3 * MIB - 4096, data, 4096), 0);
	/* Half a block more is none. */
	assert_int_equal(truncate(path, 3 * MIB + 256), 0);
	ask(&a, b);
	assert_int_equal(answer(&a), 0);
	assert_int_equal(bdev_get_size(b), 3 * MIB);
	/* It never shrinks, and still grows later. */
	assert_int_equal(truncate(path, 2 * MIB), 0);
	ask(&a, b);
	assert_int_equal(answer(&a), -EINVAL);
	assert_non_null(strstr(a.err.text, "\"file\" has shrunk from 3145728 to 2097152 bytes"));
	assert_int_equal(bdev_get_size(b), 3 * MIB);
	assert_int_equal(resized, 1);
	/* By whatever name, or none. */
	assert_int_equal(truncate(path, 4 * MIB), 0);
	assert_int_equal(unlink(path), 0);
	ask(&a, b);
	assert_int_equal(answer(&a), 0);
	assert_int_equal(bdev_get_size(b), 4 * MIB);
	assert_int_equal(resized, 2);
	assert_int_equal(fds_count(), fds);
	rig_close(rig, ch);

	assert_int_equal(bdev_null_create("null", MIB, 512, &null, &err), 0);
	ask(&a, null);
	assert_int_equal(answer(&a), -EOPNOTSUPP);
	assert_non_null(strstr(a.err.text, "of kind null"));
	free(data);
}

/* Waits up to 10 s for the observer to have been called @n times. */
static bool wait_resized(unsigned n)
{
	for (int i = 0; i < 1000 && resized < n; i++)
		usleep(10000);
	return resized == n;
}

/* Lines of the file at @path that contain @text. */
static unsigned count_lines(const char *path, const char *text)
{
	FILE *f = fopen(path, "re");
	char line[1024];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void test_grows_by_itself(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);
	struct bdev *b = create(path);
	const char *log = test_file(TEST_DISK, 0);
	int errors = dup(2), fd = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
	struct timespec slept = {3, 0};

	/* Nobody uses it: nobody asks. Then somebody does. */
	assert_int_equal(truncate(path, 2 * MIB), 0);
	nanosleep(&slept, NULL);
	assert_int_equal(resized, 0);
	rig_call(rig, claim, b);
	assert_true(wait_resized(1));
	assert_int_equal(resized_to, 2 * MIB);
	assert_int_equal(truncate(path, 3 * MIB), 0);
	assert_true(wait_resized(2));
	assert_int_equal(resized_to, 3 * MIB);
	/* What has shrunk is told once. */
	dup2(fd, 2);
	assert_int_equal(truncate(path, MIB), 0);
	nanosleep(&slept, NULL);
	nanosleep(&slept, NULL);
	dup2(errors, 2);
	assert_int_equal(count_lines(log, "has shrunk"), 1);
	assert_int_equal(truncate(path, 4 * MIB), 0);
	assert_true(wait_resized(3));
	rig_call(rig, release, b);
	assert_int_equal(truncate(path, 5 * MIB), 0);
	nanosleep(&slept, NULL);
	assert_int_equal(resized, 3);
	close(fd);
	close(errors);
}

/* A provider that answers when it is let. */

static sem_t hung, go;

static int hung_open(const struct bdev *b)
{
	return dup(0);
}

static int hung_measure(int fd, uint64_t *size)
{
	sem_post(&hung);
	sem_wait(&go);
	*size = 2 * MIB;
	return 0;
}

static void hung_destroy(struct bdev *b)
{
	free(b);
}

static const struct bdev_ops hung_ops = {
	.product = "hung",
	.destroy = hung_destroy,
	.probe_open = hung_open,
	.probe_measure = hung_measure,
};

static struct bdev *create_hung(void)
{
	struct bdev *b = calloc(1, sizeof(*b));
	struct err err;

	assert_non_null(b);
	strcpy(b->name, "hung");
	b->ops = &hung_ops;
	b->size = MIB;
	b->limits.block_size = 512;
	assert_int_equal(bdev_register(b, &err), 0);
	sem_init(&hung, 0, 0);
	sem_init(&go, 0, 0);
	return b;
}

static void delete_hung(void *arg)
{
	struct err err;

	*(int *)arg = bdev_delete("hung", &err);
}

static void test_hangs(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);
	struct bdev *b = create(path), *stuck = create_hung();
	struct asked a, c, d;
	int rc;

	assert_int_equal(truncate(path, 2 * MIB), 0);
	ask(&a, stuck);
	sem_wait(&hung);
	/* The control thread goes on, and the bdev can be deleted; others wait. */
	ask(&c, stuck);
	ask(&d, b);
	rig_call(rig, delete_hung, &rc);
	assert_int_equal(rc, 0);
	usleep(100000);
	assert_int_equal(a.done + c.done + d.done, 0);
	sem_post(&go);
	assert_int_equal(answer(&a), -ENODEV);
	assert_non_null(strstr(a.err.text, "deleted meanwhile"));
	assert_int_equal(answer(&c), -ENODEV);
	assert_int_equal(answer(&d), 0);
	assert_int_equal(bdev_get_size(b), 2 * MIB);
	assert_int_equal(resized, 1);
}

static void test_ends(void **state)
{
	struct bdev *stuck = create_hung();
	struct asked a, c;

	ask(&a, stuck);
	ask(&c, stuck);
	sem_wait(&hung);
	reactor_stop(rig->reactor);
	reactor_join(rig->reactor);
	sem_post(&go);
	helper_pool_destroy(rig->helpers);
	assert_int_equal(a.done + c.done, 0);
	bdev_watch_stop();
	assert_int_equal(answer(&a), -ECANCELED);
	assert_int_equal(answer(&c), -ECANCELED);
	/* For the teardown. */
	assert_int_equal(helper_pool_create(1, &rig->helpers), 0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rescan),
		TEST(test_hangs),
		TEST(test_ends),
		TEST(test_grows_by_itself),
	};

	log_set_level(LOG_LEVEL_WARNING);
	return cmocka_run_group_tests_name("bdev_watch", tests, NULL, NULL);
}
