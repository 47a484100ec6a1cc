/* SPDX-License-Identifier: BSD-2-Clause */
/* Making, removing and listing bdevs over RPC, and the file that keeps their set. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "bdev/bdev.h"
#include "ctl/bdev_rpc.h"
#include "ctl/config.h"
#include "ctl_harness.h"

static struct harness h;
static struct config *config;
static char state_path[128];
static char disk_path[128];

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
	struct err err;
	int fd;

	harness_init(&h, &(struct rpc_opts){0});
	snprintf(state_path, sizeof(state_path), "%s/lib/state.json", h.dir);
	snprintf(disk_path, sizeof(disk_path), "%s/disk.img", h.dir);
	fd = open(disk_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	assert_int_equal(config_create(state_path, h.reactor, h.helpers, &config, &err), 0);
	assert_int_equal(bdev_rpc_register(h.server, config), 0);
	return 0;
}

static int setup_and_start(void **state)
{
	setup(state);
	harness_start(&h);
	return 0;
}

static int teardown(void **state)
{
	harness_stop(&h);
	harness_end_helpers(&h);
	bdev_watch_stop();
	if (config)
		config_destroy(config);
	config = NULL;
	bdev_delete_all();
	harness_end(&h);
	return 0;
}

/* Fails unless the file is {"version":1,"bdevs":@bdevs}. */
static void expect_saved(const char *bdevs)
{
	json_t *got = json_load_file(state_path, 0, NULL);
	json_t *want = json_pack("{s:i, s:o}", "version", 1, "bdevs", json_loads(bdevs, 0, NULL));

	assert_non_null(want);
	if (!json_equal(got, want))
		fail_msg("expected %s saved, got %s", bdevs, json_dumps(got, JSON_COMPACT));
	json_decref(got);
	json_decref(want);
}

/* Sends a request with id 1. */
static void request(int fd, const char *method, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void request(int fd, const char *method, const char *fmt, ...)
{
	char params[512], text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text),
		 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}", method, params);
	harness_send(fd, text);
}

static void expect_result(int fd, const char *result)
{
	char text[1024];

	snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":%s}", result);
	harness_expect(fd, text);
}

static void makes_and_lists_bdevs(void **state)
{
	int fd = harness_connect(&h);
	char saved[1024];
	struct stat st;

	request(fd, "bdev_get_bdevs", "{}");
	expect_result(fd, "[]");
	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8,\"block_size\":4096}");
	expect_result(fd, "\"n\"");
	request(fd, "bdev_malloc_create", "{\"name\":\"m\",\"num_blocks\":2048}");
	expect_result(fd, "\"m\"");
	request(fd, "bdev_aio_create", "{\"name\":\"a\",\"filename\":\"%s\",\"readonly\":true}",
		disk_path);
	expect_result(fd, "\"a\"");
	request(fd, "bdev_get_bdevs", "{\"name\":\"n\"}");
	expect_result(fd, "[{\"name\":\"n\",\"product_name\":\"null\",\"block_size\":4096,"
			  "\"num_blocks\":8,\"claimed\":false,\"physical_block_size\":4096,"
			  "\"readonly\":false,\"shared\":false,\"write_cache\":false,"
			  "\"discard\":true,\"driver_specific\":{\"null\":{\"name\":\"n\","
			  "\"num_blocks\":8,\"block_size\":4096}}}]");
	snprintf(saved, sizeof(saved),
		 "[{\"method\":\"bdev_aio_create\",\"params\":{\"name\":\"a\",\"filename\":\"%s\","
		 "\"readonly\":true,\"shared\":false}},"
		 "{\"method\":\"bdev_malloc_create\",\"params\":{\"name\":\"m\","
		 "\"num_blocks\":2048,\"block_size\":512}},"
		 "{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\",\"num_blocks\":8,"
		 "\"block_size\":4096}}]",
		 disk_path);
	expect_saved(saved);
	assert_int_equal(stat(state_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	request(fd, "bdev_malloc_delete", "{\"name\":\"m\"}");
	expect_result(fd, "true");
	request(fd, "bdev_delete", "{\"name\":\"a\"}");
	expect_result(fd, "true");
	expect_saved("[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\","
		     "\"num_blocks\":8,\"block_size\":4096}}]");
	request(fd, "bdev_get_bdevs", "{\"name\":\"m\"}");
	harness_expect_error(fd, "1", -ENODEV, "no bdev 'm'");
	close(fd);
}

static void refuses_nonsense(void **state)
{
	static const struct {
		const char *method;
		const char *params;
		int code;
		const char *why;
	} cases[] = {
		{"bdev_null_create", "{\"num_blocks\":8}", RPC_INVALID_PARAMS, "'name'"},
		{"bdev_null_create", "{\"name\":\"n\"}", RPC_INVALID_PARAMS, "'num_blocks'"},
		{"bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8,\"filename\":\"/x\"}",
		 RPC_INVALID_PARAMS, "'filename'"},
		{"bdev_null_create", "{\"name\":\"\",\"num_blocks\":8}", -EINVAL, "name"},
		{"bdev_null_create", "{\"name\":\"../n\",\"num_blocks\":8}", -EINVAL, "name"},
		{"bdev_null_create", "{\"name\":\"n\",\"num_blocks\":0}", -EINVAL, "size"},
		{"bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8,\"block_size\":1000}",
		 -EINVAL, "1000"},
		{"bdev_null_create", "{\"name\":\"n\",\"num_blocks\":36028797018963969}", -EINVAL,
		 "36028797018963969 blocks of 512 bytes"},
		{"bdev_malloc_create",
		 "{\"name\":\"n\",\"num_blocks\":4503599627370497,\"block_size\":4096}", -EINVAL,
		 "4503599627370497 blocks of 4096 bytes"},
		{"bdev_aio_create", "{\"name\":\"n\",\"filename\":\"disk.img\"}", -EINVAL,
		 "absolute"},
		{"bdev_aio_create", "{\"name\":\"n\",\"filename\":\"\"}", -EINVAL, "absolute"},
		{"bdev_aio_create", "{\"name\":\"n\",\"filename\":\"/nowhere/at/all\"}", -ENOENT,
		 "/nowhere/at/all"},
		{"bdev_uring_create", "{\"name\":\"n\",\"filename\":\"/tmp\",\"shared\":1}",
		 RPC_INVALID_PARAMS, "'shared'"},
		{"bdev_uring_create", "{\"name\":\"n\",\"filename\":\"x\"}", -EINVAL, "absolute"},
		{"bdev_delete", "{\"name\":\"n\"}", -ENODEV, "no bdev 'n'"},
		{"bdev_null_delete", "{\"name\":\"n\"}", -ENODEV, "no bdev 'n'"},
		{"bdev_delete", "{}", RPC_INVALID_PARAMS, "'name'"},
		{"bdev_get_bdevs", "{\"name\":\"n\"}", -ENODEV, "no bdev 'n'"},
		{"bdev_get_bdevs", "{\"timeout\":1}", RPC_INVALID_PARAMS, "'timeout'"},
	};
	int fd = harness_connect(&h);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		request(fd, cases[i].method, "%s", cases[i].params);
		harness_expect_error(fd, "1", cases[i].code, cases[i].why);
	}
	request(fd, "bdev_get_bdevs", "{}");
	expect_result(fd, "[]");
	assert_int_equal(access(state_path, F_OK), -1);
	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8}");
	expect_result(fd, "\"n\"");
	request(fd, "bdev_malloc_create", "{\"name\":\"n\",\"num_blocks\":8}");
	harness_expect_error(fd, "1", -EEXIST, "n");
	request(fd, "bdev_malloc_delete", "{\"name\":\"n\"}");
	harness_expect_error(fd, "1", -EINVAL, "of kind null");
	request(fd, "bdev_null_delete", "{\"name\":\"n\"}");
	expect_result(fd, "true");
	close(fd);
}

static struct bdev *claimed;

static void claim(void *arg)
{
	claimed = bdev_find(arg);
	assert_non_null(claimed);
	assert_int_equal(bdev_claim(claimed, true, true, NULL), 0);
}

static void release(void *arg)
{
	bdev_release(claimed);
}

static void keeps_what_is_in_use(void **state)
{
	int fd = harness_connect(&h);

	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8}");
	expect_result(fd, "\"n\"");
	harness_call(&h, claim, (void *)"n");
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	harness_expect_error(fd, "1", -EBUSY, "detach its disk first");
	expect_saved("[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\","
		     "\"num_blocks\":8,\"block_size\":512}}]");
	harness_call(&h, release, NULL);
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	expect_result(fd, "true");
	expect_saved("[]");
	close(fd);
}

static void does_changes_one_by_one(void **state)
{
	enum { CHANGES = 60 };
	int fd = harness_connect(&h);

	for (int i = 0; i < CHANGES; i++) {
		request(fd, "bdev_null_create", "{\"name\":\"n%d\",\"num_blocks\":8}", i);
		request(fd, "bdev_null_create", "{\"name\":\"n%d\",\"num_blocks\":9}", i);
		request(fd, "bdev_delete", "{\"name\":\"n%d\"}", i - 1);
	}
	for (int i = 0; i < CHANGES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "\"n%d\"", i);
		expect_result(fd, name);
		harness_expect_error(fd, "1", -EEXIST, "already");
		if (i)
			expect_result(fd, "true");
		else
			harness_expect_error(fd, "1", -ENODEV, "no bdev");
	}
	expect_saved("[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n59\","
		     "\"num_blocks\":8,\"block_size\":512}}]");
	close(fd);
}

/* Keeps the one helper thread from saving until it is told to go on. */
struct obstacle {
	struct helper_job job;
	int reached;
	int passed;
	int done;
};

static void obstacle_run(struct helper_job *job)
{
	struct obstacle *o = container_of(job, struct obstacle, job);

	__atomic_store_n(&o->reached, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&o->passed, __ATOMIC_ACQUIRE))
		usleep(1000);
}

static void obstacle_done(struct helper_job *job)
{
	struct obstacle *o = container_of(job, struct obstacle, job);

	__atomic_store_n(&o->done, 1, __ATOMIC_RELEASE);
}

static void obstruct(struct obstacle *o)
{
	*o = (struct obstacle){.job = {.run = obstacle_run, .done = obstacle_done}};
	helper_submit(h.helpers, h.reactor, &o->job);
	while (!__atomic_load_n(&o->reached, __ATOMIC_ACQUIRE))
		usleep(1000);
}

static void do_nothing(void *arg)
{
}

/* Waits for a save that follows what has been answered already. */
static void wait_saved(void)
{
	struct obstacle o;

	harness_call(&h, do_nothing, NULL);
	obstruct(&o);
	__atomic_store_n(&o.passed, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&o.done, __ATOMIC_ACQUIRE))
		usleep(1000);
}

static void count_bdevs(void *arg)
{
	unsigned *n = arg;

	*n = 0;
	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b))
		++*n;
}

static void wait_bdevs(unsigned wanted)
{
	unsigned n = wanted + 1;

	for (unsigned tries = 0; n != wanted; tries++) {
		assert_true(tries < 10000);
		usleep(1000);
		harness_call(&h, count_bdevs, &n);
	}
}

static void refuse_claim(void *arg)
{
	struct err err;

	assert_int_equal(bdev_claim(bdev_find(arg), true, true, &err), -EBUSY);
}

static void keeps_others_off_what_may_be_undone(void **state)
{
	int fd = harness_connect(&h), other = harness_connect(&h);
	struct obstacle o;

	obstruct(&o);
	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8}");
	wait_bdevs(1);
	harness_call(&h, refuse_claim, (void *)"n");
	/* Meanwhile the control thread serves others. */
	request(other, "sluice_get_version", "{}");
	json_decref(harness_read(other));
	__atomic_store_n(&o.passed, 1, __ATOMIC_RELEASE);
	expect_result(fd, "\"n\"");
	harness_call(&h, claim, (void *)"n");
	harness_call(&h, release, NULL);
	/* A client that leaves before its change is saved gets it all the same. */
	obstruct(&o);
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	close(fd);
	request(other, "bdev_null_create", "{\"name\":\"x\",\"num_blocks\":8}");
	__atomic_store_n(&o.passed, 1, __ATOMIC_RELEASE);
	expect_result(other, "\"x\"");
	expect_saved("[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"x\","
		     "\"num_blocks\":8,\"block_size\":512}}]");
	close(other);
}

static void saves_again_what_could_not_be_removed(void **state)
{
	int fd = harness_connect(&h);
	struct obstacle o;
	char saved[512];

	request(fd, "bdev_aio_create", "{\"name\":\"a\",\"filename\":\"%s\",\"shared\":true}",
		disk_path);
	expect_result(fd, "\"a\"");
	obstruct(&o);
	request(fd, "bdev_delete", "{\"name\":\"a\"}");
	/* A request that is answered behind it shows that the removal is on its way. */
	request(fd, "bdev_get_bdevs", "{\"name\":\"-\"}");
	harness_expect_error(fd, "1", -ENODEV, "no bdev");
	harness_call(&h, claim, (void *)"a");
	__atomic_store_n(&o.passed, 1, __ATOMIC_RELEASE);
	harness_expect_error(fd, "1", -EBUSY, "in use");
	wait_saved();
	snprintf(saved, sizeof(saved),
		 "[{\"method\":\"bdev_aio_create\",\"params\":{\"name\":\"a\",\"filename\":\"%s\","
		 "\"readonly\":false,\"shared\":true}}]",
		 disk_path);
	expect_saved(saved);
	harness_call(&h, release, NULL);
	close(fd);
}

static struct rlimit no_limit;

/* From now on a file can have no byte: as on a full disk, writing begins and fails. */
static void fill_disk(bool full)
{
	struct rlimit limit = no_limit;

	if (full) {
		signal(SIGXFSZ, SIG_IGN);
		assert_int_equal(getrlimit(RLIMIT_FSIZE, &no_limit), 0);
		limit = no_limit;
		limit.rlim_cur = 10;
	}
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void undoes_what_cannot_be_saved(void **state)
{
	static const char one[] = "[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\","
				  "\"num_blocks\":8,\"block_size\":512}}]";
	int fd = harness_connect(&h);
	char temporary[160], dir[128];
	struct obstacle o;

	snprintf(temporary, sizeof(temporary), "%s.tmp", state_path);
	snprintf(dir, sizeof(dir), "%s/lib", h.dir);
	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8}");
	expect_result(fd, "\"n\"");
	fill_disk(true);
	request(fd, "bdev_null_create", "{\"name\":\"x\",\"num_blocks\":8}");
	harness_expect_error(fd, "1", -EFBIG, state_path);
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	harness_expect_error(fd, "1", -EFBIG, "--state");
	/* All is as before, in memory and on disk, and nothing is left beside. */
	wait_bdevs(1);
	expect_saved(one);
	assert_int_equal(access(temporary, F_OK), -1);
	/* A sharer that came meanwhile keeps its bdev, and the error says so. */
	obstruct(&o);
	request(fd, "bdev_aio_create", "{\"name\":\"a\",\"filename\":\"%s\",\"shared\":true}",
		disk_path);
	wait_bdevs(2);
	harness_call(&h, claim, (void *)"a");
	__atomic_store_n(&o.passed, 1, __ATOMIC_RELEASE);
	harness_expect_error(fd, "1", -EFBIG, "'a' has a user already and stays");
	fill_disk(false);
	harness_call(&h, release, NULL);
	request(fd, "bdev_delete", "{\"name\":\"a\"}");
	expect_result(fd, "true");
	expect_saved(one);
	/* A directory that has gone, and one that cannot be written to. */
	assert_int_equal(unlink(state_path), 0);
	assert_int_equal(rmdir(dir), 0);
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	harness_expect_error(fd, "1", -ENOENT, state_path);
	write_text(dir, "");
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	harness_expect_error(fd, "1", -ENOTDIR, state_path);
	wait_bdevs(1);
	assert_int_equal(unlink(dir), 0);
	assert_int_equal(mkdir(dir, 0700), 0);
	request(fd, "bdev_delete", "{\"name\":\"n\"}");
	expect_result(fd, "true");
	expect_saved("[]");
	close(fd);
}

static void grows_bdevs(void **state)
{
	static const char saved[] =
		"[{\"method\":\"bdev_malloc_create\",\"params\":{\"name\":\"m\","
		"\"num_blocks\":%s,\"block_size\":512}},"
		"{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\","
		"\"num_blocks\":%s,\"block_size\":4096}}]";
	int fd = harness_connect(&h);
	char text[512];

	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8,\"block_size\":4096}");
	expect_result(fd, "\"n\"");
	request(fd, "bdev_malloc_create", "{\"name\":\"m\",\"num_blocks\":2048}");
	expect_result(fd, "\"m\"");
	request(fd, "bdev_null_resize", "{\"name\":\"n\",\"new_size\":65536}");
	expect_result(fd, "{\"name\":\"n\",\"num_blocks\":16,\"block_size\":4096}");
	snprintf(text, sizeof(text), saved, "2048", "16");
	expect_saved(text);
	request(fd, "bdev_malloc_resize", "{\"name\":\"m\",\"new_size\":2097152}");
	expect_result(fd, "{\"name\":\"m\",\"num_blocks\":4096,\"block_size\":512}");
	snprintf(text, sizeof(text), saved, "4096", "16");
	expect_saved(text);
	/* To what it is: as good. */
	request(fd, "bdev_malloc_resize", "{\"name\":\"m\",\"new_size\":2097152}");
	expect_result(fd, "{\"name\":\"m\",\"num_blocks\":4096,\"block_size\":512}");
	request(fd, "bdev_null_resize", "{\"name\":\"n\",\"new_size\":32768}");
	harness_expect_error(fd, "1", -EINVAL, "cannot shrink");
	request(fd, "bdev_null_resize", "{\"name\":\"n\",\"new_size\":66048}");
	harness_expect_error(fd, "1", -EINVAL, "multiple of the block size, 4096");
	request(fd, "bdev_null_resize", "{\"name\":\"m\",\"new_size\":4194304}");
	harness_expect_error(fd, "1", -EINVAL, "'m' is of kind ram: use 'sluice resize'");
	request(fd, "bdev_null_resize", "{\"name\":\"x\",\"new_size\":4194304}");
	harness_expect_error(fd, "1", -ENODEV, "no bdev 'x'");
	request(fd, "bdev_null_resize", "{\"name\":\"n\"}");
	harness_expect_error(fd, "1", RPC_INVALID_PARAMS, "new_size");
	expect_saved(text);
	/* What turns out to be too much only when it is saved is taken back. */
	request(fd, "bdev_malloc_resize", "{\"name\":\"m\",\"new_size\":1125899906842624}");
	harness_expect_error(fd, "1", -ENOMEM, "choose a smaller size");
	wait_saved();
	expect_saved(text);
	/* And what cannot be saved is not done. */
	fill_disk(true);
	request(fd, "bdev_null_resize", "{\"name\":\"n\",\"new_size\":131072}");
	harness_expect_error(fd, "1", -EFBIG, "cannot save");
	fill_disk(false);
	expect_saved(text);
	request(fd, "bdev_get_bdevs", "{\"name\":\"n\"}");
	json_t *reply = harness_read(fd);
	assert_int_equal(
		json_integer_value(json_object_get(
			json_array_get(json_object_get(reply, "result"), 0), "num_blocks")),
		16);
	json_decref(reply);
	close(fd);
}

static void start_watch(void *arg)
{
	bdev_watch_start(h.reactor);
}

static void measures_files_anew(void **state)
{
	int fd = harness_connect(&h);

	harness_call(&h, start_watch, NULL);
	request(fd, "bdev_aio_create", "{\"name\":\"a\",\"filename\":\"%s\"}", disk_path);
	expect_result(fd, "\"a\"");
	request(fd, "bdev_aio_rescan", "{\"name\":\"a\"}");
	expect_result(fd, "{\"name\":\"a\",\"num_blocks\":2048,\"block_size\":512}");
	assert_int_equal(truncate(disk_path, 3 << 20), 0);
	request(fd, "bdev_aio_rescan", "{\"name\":\"a\"}");
	expect_result(fd, "{\"name\":\"a\",\"num_blocks\":6144,\"block_size\":512}");
	assert_int_equal(truncate(disk_path, 1 << 20), 0);
	request(fd, "bdev_aio_rescan", "{\"name\":\"a\"}");
	harness_expect_error(fd, "1", -EINVAL, "has shrunk");
	request(fd, "bdev_uring_rescan", "{\"name\":\"a\"}");
	harness_expect_error(fd, "1", -EINVAL, "'a' is of kind aio: use 'sluice resize'");
	request(fd, "bdev_aio_rescan", "{\"name\":\"b\"}");
	harness_expect_error(fd, "1", -ENODEV, "no bdev 'b'");
	request(fd, "bdev_aio_rescan", "{\"name\":\"a\",\"new_size\":1}");
	harness_expect_error(fd, "1", RPC_INVALID_PARAMS, "new_size");
	close(fd);
}

static void undoes_what_the_end_overtakes(void **state)
{
	int fd = harness_connect(&h);
	struct obstacle o;

	obstruct(&o);
	request(fd, "bdev_null_create", "{\"name\":\"n\",\"num_blocks\":8}");
	request(fd, "bdev_null_create", "{\"name\":\"m\",\"num_blocks\":8}");
	wait_bdevs(1);
	/* The reactor's thread goes before the helper's, and takes nothing from it any more. */
	harness_stop(&h);
	__atomic_store_n(&o.passed, 1, __ATOMIC_RELEASE);
	harness_end_helpers(&h);
	assert_non_null(bdev_find("n"));
	config_destroy(config);
	config = NULL;
	assert_null(bdev_next(NULL));
	close(fd);
}

/* What follows loads before the reactor runs. */

static void loads_what_was_saved(void **state)
{
	char text[1100], saved[1024];
	struct err err;
	int fd;

	assert_int_equal(config_load(config, bdev_rpc_create, &err), 0); /* no file yet */
	snprintf(saved, sizeof(saved),
		 "[{\"method\":\"bdev_aio_create\",\"params\":{\"name\":\"a\",\"filename\":\"%s\","
		 "\"readonly\":false,\"shared\":true}},"
		 "{\"method\":\"bdev_malloc_create\",\"params\":{\"name\":\"m\","
		 "\"num_blocks\":2048,\"block_size\":512}},"
		 "{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\",\"num_blocks\":8,"
		 "\"block_size\":4096}}]",
		 disk_path);
	snprintf(text, sizeof(text), "{\"version\":1,\"bdevs\":%s}", saved);
	write_text(state_path, text);
	assert_int_equal(config_load(config, bdev_rpc_create, &err), 0);
	assert_non_null(bdev_find("a"));
	assert_true(bdev_find("a")->shared);
	assert_int_equal(bdev_find("a")->size, 1 << 20);
	assert_int_equal(bdev_find("m")->size, 1 << 20);
	assert_int_equal(bdev_find("n")->limits.block_size, 4096);
	/* The next save writes the same again, and what is new. */
	harness_start(&h);
	fd = harness_connect(&h);
	request(fd, "bdev_null_create", "{\"name\":\"z\",\"num_blocks\":8}");
	expect_result(fd, "\"z\"");
	request(fd, "bdev_delete", "{\"name\":\"z\"}");
	expect_result(fd, "true");
	expect_saved(saved);
	close(fd);
}

static void keeps_what_cannot_be_made_today(void **state)
{
	static const char with_new[] =
		"[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\",\"num_blocks\":8,"
		"\"block_size\":512}},"
		"{\"method\":\"bdev_aio_create\",\"params\":{\"name\":\"gone\","
		"\"filename\":\"/nowhere/at/all\"}},"
		"{\"method\":\"bdev_future_create\",\"params\":{\"name\":\"later\"}},7,"
		"{\"method\":\"bdev_null_create\"}]";
	struct err err;
	int fd;

	write_text(state_path,
		   "{\"version\":1,\"bdevs\":["
		   "{\"method\":\"bdev_aio_create\",\"params\":{\"name\":\"gone\","
		   "\"filename\":\"/nowhere/at/all\"}},"
		   "{\"method\":\"bdev_future_create\",\"params\":{\"name\":\"later\"}},7,"
		   "{\"method\":\"bdev_null_create\"},"
		   "{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\","
		   "\"num_blocks\":8}}]}");
	assert_int_equal(config_load(config, bdev_rpc_create, &err), 0);
	assert_non_null(bdev_find("n"));
	assert_null(bdev_find("gone"));
	assert_true(config_keeps(config, "gone", NULL));
	assert_true(config_keeps(config, "later", NULL));
	assert_false(config_keeps(config, "n", NULL));
	harness_start(&h);
	fd = harness_connect(&h);
	request(fd, "bdev_null_create", "{\"name\":\"x\",\"num_blocks\":8}");
	expect_result(fd, "\"x\"");
	request(fd, "bdev_delete", "{\"name\":\"x\"}");
	expect_result(fd, "true");
	expect_saved(with_new);
	/* What fails leaves them alone, too. */
	request(fd, "bdev_aio_create", "{\"name\":\"gone\",\"filename\":\"/nowhere/else\"}");
	harness_expect_error(fd, "1", -ENOENT, "/nowhere/else");
	fill_disk(true);
	request(fd, "bdev_delete", "{\"name\":\"later\"}");
	harness_expect_error(fd, "1", -EFBIG, state_path);
	fill_disk(false);
	expect_saved(with_new);
	/* A new one takes the name, and what is no longer wanted can be deleted. */
	request(fd, "bdev_null_create", "{\"name\":\"gone\",\"num_blocks\":8}");
	expect_result(fd, "\"gone\"");
	request(fd, "bdev_delete", "{\"name\":\"later\"}");
	expect_result(fd, "true");
	expect_saved("[{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"gone\","
		     "\"num_blocks\":8,\"block_size\":512}},"
		     "{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"n\","
		     "\"num_blocks\":8,\"block_size\":512}},7,{\"method\":\"bdev_null_create\"}]");
	request(fd, "bdev_delete", "{\"name\":\"later\"}");
	harness_expect_error(fd, "1", -ENODEV, "no bdev 'later'");
	close(fd);
}

/* Two kinds of things beside bdevs: their names, in the order in which they were made. */
struct other {
	struct config_kind kind;
	char made[64];
};

static int other_create(const json_t *params, void *arg, struct err *err)
{
	struct other *o = arg;
	const char *name = json_string_value(json_object_get(params, "name"));

	assert_non_null(name);
	/* All bdevs are there by then. */
	if (!bdev_find("n"))
		return err_set(err, -ENODEV, "no bdev 'n'");
	if (!strcmp(name, "bad"))
		return err_set(err, -EIO, "it is bad");
	strcat(o->made, name);
	return 0;
}

static int other_describe(json_t *list, const struct config_change *ch, void *arg)
{
	struct other *o = arg;

	assert_null(ch);
	for (const char *name = o->made; *name; name++)
		if (json_array_append_new(list, json_pack("{s:s%}", "name", name, (size_t)1)))
			return -ENOMEM;
	return 0;
}

static void note_kept(const json_t *params, void *arg)
{
	strcat(arg, json_string_value(json_object_get(params, "name")));
}

static void makes_other_kinds_after_bdevs(void **state)
{
	static const char bad[] = "{\"method\":\"first\",\"params\":{\"name\":\"bad\"}}";
	static const char c[] = "{\"method\":\"first\",\"params\":{\"name\":\"c\"}}";
	static const char a[] = "{\"method\":\"second\",\"params\":{\"name\":\"a\"}}";
	static const char b[] = "{\"method\":\"second\",\"params\":{\"name\":\"b\"}}";
	static const char bdev[] = "{\"method\":\"bdev_null_create\",\"params\":{\"name\":\"%s\","
				   "\"num_blocks\":8,\"block_size\":512}}";
	struct other first = {.kind = {.method = "first", .noun = "f", .create = other_create}};
	struct other second = {.kind = {.method = "second", .noun = "s", .create = other_create}};
	char n[128], same[128], text[1024], kept[32] = "";
	struct err err;
	int fd;

	first.kind.describe = second.kind.describe = other_describe;
	first.kind.arg = &first;
	second.kind.arg = &second;
	config_add_kind(config, &first.kind);
	config_add_kind(config, &second.kind);
	/* Whatever the order in the file, which may have kept some for later. */
	snprintf(n, sizeof(n), bdev, "n");
	snprintf(text, sizeof(text), "{\"version\":1,\"bdevs\":[%s,%s,%s,%s,%s]}", a, bad, b, n, c);
	write_text(state_path, text);
	assert_int_equal(config_load(config, bdev_rpc_create, &err), 0);
	assert_string_equal(first.made, "c");
	assert_string_equal(second.made, "ab");
	assert_true(config_keeps(config, "bad", &first.kind));
	assert_false(config_keeps(config, "bad", &second.kind));
	assert_false(config_keeps(config, "bad", NULL));
	config_each_kept(config, &first.kind, note_kept, kept);
	config_each_kept(config, &second.kind, note_kept, kept);
	assert_string_equal(kept, "bad");
	harness_start(&h);
	fd = harness_connect(&h);
	/* Names of different kinds have nothing to do with each other. */
	request(fd, "bdev_null_create", "{\"name\":\"bad\",\"num_blocks\":8}");
	expect_result(fd, "\"bad\"");
	snprintf(same, sizeof(same), bdev, "bad");
	snprintf(text, sizeof(text), "[%s,%s,%s,%s,%s,%s]", same, n, c, a, b, bad);
	expect_saved(text);
	close(fd);
}

static void refuses_a_damaged_file(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} cases[] = {
		{"", "make no sense"},
		{"{\"version\":1,\"bdevs\":[", "make no sense"},
		{"{\"version\":1,\"version\":1,\"bdevs\":[]}", "make no sense"},
		{"[]", "version 1"},
		{"{\"bdevs\":[]}", "version 1"},
		{"{\"version\":2,\"bdevs\":[]}", "version 1"},
		{"{\"version\":1}", "version 1"},
		{"{\"version\":1,\"bdevs\":{}}", "version 1"},
	};
	struct err err;
	struct stat st;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_text(state_path, cases[i].text);
		assert_int_equal(config_load(config, bdev_rpc_create, &err), -EINVAL);
		assert_non_null(strstr(err.text, state_path));
		assert_non_null(strstr(err.text, cases[i].why));
		assert_int_equal(stat(state_path, &st), 0);
		assert_int_equal(st.st_size, strlen(cases[i].text));
	}
	assert_int_equal(unlink(state_path), 0);
	assert_int_equal(mkdir(state_path, 0700), 0);
	assert_true(config_load(config, bdev_rpc_create, &err) < 0);
	harness_start(&h);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define RUNNING(test) cmocka_unit_test_setup_teardown(test, setup_and_start, teardown)
#define STOPPED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
		RUNNING(makes_and_lists_bdevs),
		RUNNING(refuses_nonsense),
		RUNNING(keeps_what_is_in_use),
		RUNNING(does_changes_one_by_one),
		RUNNING(keeps_others_off_what_may_be_undone),
		RUNNING(saves_again_what_could_not_be_removed),
		RUNNING(undoes_what_cannot_be_saved),
		RUNNING(grows_bdevs),
		RUNNING(measures_files_anew),
		RUNNING(undoes_what_the_end_overtakes),
		STOPPED(loads_what_was_saved),
		STOPPED(keeps_what_cannot_be_made_today),
		STOPPED(makes_other_kinds_after_bdevs),
		STOPPED(refuses_a_damaged_file),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
