/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command `sluice`, run in this process: how it is called, bdevs, any method, and daemons that
 * are not what they should be.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "bdev/bdev.h"
#include "fake.h"
#include "sluice/client.h"

static void helps(void **state)
{
	assert_int_equal(fake_run("--help"), 0);
	assert_non_null(strstr(fake.out, "bdev create"));
	assert_string_equal(fake.said, "");
	assert_int_equal(fake_run("attach --help"), 0);
	assert_non_null(strstr(fake.out, "usage: sluice [OPTION...] attach DOMAIN VDEV BDEV"));
	assert_non_null(strstr(fake.out, "--toolstack"));
	assert_int_equal(fake_run("bdev create -h"), 0);
	assert_non_null(strstr(fake.out, "uring|aio NAME FILE"));
	fake_expect("--version", 0, "sluice " SLUICE_VERSION "\n", "");
	fake_expect("list --version", 0, "sluice " SLUICE_VERSION "\n", "");
}

static void explains_wrong_calls(void **state)
{
	static const struct {
		const char *line;
		const char *why;
	} cases[] = {
		{"", "what to do is missing (see 'sluice --help')"},
		{"fly", "no command 'fly'"},
		{"attach guest xvda disk --sharing mapped", "copy, map, dma or auto, not 'mapped'"},
		{"attach guest xvda disk --persistent maybe", "yes or no, not 'maybe'"},
		{"attach guest xvda disk --on-error retry", "(1 to 86400) or stop, not 'retry'"},
		{"attach guest xvda disk --on-error retry:", "not 'retry:'"},
		{"attach guest xvda disk --on-error retry:0", "not 'retry:0'"},
		{"attach guest xvda disk --on-error retry:1s", "not 'retry:1s'"},
		{"attach guest xvda disk --on-error retry:86401", "not 'retry:86401'"},
		{"attach guest xvda disk --on-error stop,iops=5", "not 'stop,iops=5'"},
		{"attach guest xvda disk --iops 5K", "'5K' is no number of requests"},
		{"attach guest xvda disk --iops 9223372036854775808",
		 "'9223372036854775808' is no number"},
		{"attach guest xvda disk --bandwidth 1.5M", "'1.5M' is no number of bytes"},
		{"attach guest xvda disk --bandwidth 8388608T", "'8388608T' is no number"},
		{"pause guest", "arguments are missing (see 'sluice pause --help')"},
		{"pause guest disk", "'disk' is no name for a disk in a guest"},
		{"resume guest xvda xvdb", "'xvdb' is one argument too many"},
		{"resume guest xv,da", "'xv,da' is no name"},
		{"limit guest", "arguments are missing"},
		{"limit guest xvda=", "'xvda=' is no name"},
		{"limit guest xvda --iops -1", "'-1' is no number"},
		{"limit guest xvda --bandwidth fast", "'fast' is no number"},
		{"list guest", "'guest' is one argument too many"},
		{"stat --queues=1", "--queues takes no value"},
		{"bdev", "create, delete or list"},
		{"bdev fly", "create, delete or list"},
		{"--fly list", "no option --fly (see 'sluice --help')"},
		{"list --fly", "no option --fly (see 'sluice list --help')"},
		{"list -x", "no option -x"},
		{"list it", "'it' is one argument too many"},
		{"list -- --json", "'--json' is one argument too many"},
		{"list --json=yes", "--json takes no value"},
		{"list --name", "--name needs a value"},
		{"--name a/b list", "'a/b' is no name"},
		{"--name=-x list", "'-x' is no name"},
		{"list \xff", "argument 4, '?', is no UTF-8"},
		{"attach guest xvda", "arguments are missing (see 'sluice attach --help')"},
		{"attach guest xvda disk more", "'more' is one argument too many"},
		{"attach guest xv,da disk", "'xv,da' is no name"},
		{"attach guest xvda disk,shared", "'disk,shared' is no name"},
		{"attach guest xvda disk@x", "'disk@x' is no name"},
		{"attach guest xvda disk --toolstack xapi", "'xapi'"},
		{"detach guest", "arguments are missing"},
		{"detach guest xvda=", "'xvda=' is no name"},
		{"bdev create disk n --size 1M", "'disk' is no kind"},
		{"bdev create null n", "--size is missing"},
		{"bdev create null n --size 1Q", "'1Q' is no size"},
		{"bdev create null n --size 0", "'0' is no size"},
		{"bdev create null n --size 8388608T", "'8388608T' is no size"},
		{"bdev create null n --size 1M --block-size 1000", "'1000'"},
		{"bdev create null n --size 1000", "no multiple of the block size, 512"},
		{"bdev create null n --size 512 --block-size 4096", "block size, 4096"},
		{"bdev create null n /tmp/x --size 1M", "'/tmp/x' is one argument too many"},
		{"bdev create null a/b --size 1M", "'a/b' is no name"},
		{"bdev create ram n --size 1M --readonly", "for files only"},
		{"bdev create ram n --size 1M --shared", "for files only"},
		{"bdev create uring n", "the file is missing"},
		{"bdev create aio n /tmp/x --size 1M", "a file has its own size"},
		{"bdev create aio n /tmp/x --block-size 512", "a file has its own size"},
		{"bdev delete", "arguments are missing"},
		{"stat --interval 0", "not '0'"},
		{"stat --interval 1.5", "not '1.5'"},
		{"stat --interval 86401", "not '86401'"},
		{"stat --interval 1 --count 0", "not '0'"},
		{"stat --count 3", "--count needs --interval"},
		{"rpc", "arguments are missing"},
		{"rpc x {", "no JSON"},
		{"rpc x {\"a\":1,\"a\":2}", "duplicate"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		fake_expect_error(cases[i].line, 2, cases[i].why);
}

static void manages_bdevs(void **state)
{
	char line[256], table[512];

	fake_expect("bdev list", 0, "NAME  KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n", "");
	fake_expect("bdev create null n --size=8M --block-size 4096", 0, "bdev n created\n", "");
	fake_expect("--json bdev create ram memory --size 1536K", 0, "\"memory\"\n", "");
	fake_make_file("disk.img", "");
	snprintf(line, sizeof(line), "%s/disk.img", fake.h.dir);
	assert_int_equal(truncate(line, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio a %s/disk.img --readonly --shared",
		 fake.h.dir);
	fake_expect(line, 0, "bdev a created\n", "");
	snprintf(table, sizeof(table),
		 "NAME    KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n"
		 "a       aio     1M    512  ro      yes     no      %s/disk.img\n"
		 "memory  ram   1.5M    512  rw      no      no      -\n"
		 "n       null    8M   4096  rw      no      no      -\n",
		 fake.h.dir);
	fake_expect("bdev list", 0, table, "");
	/* Options may stand anywhere; the output is JSON. */
	assert_int_equal(fake_run("bdev list --json"), 0);
	assert_non_null(strstr(fake.out, "\"product_name\": \"null\""));
	fake_expect("bdev delete memory", 0, "bdev memory deleted\n", "");
	fake_expect("bdev delete n --json", 0, "true\n", "");
	/* The daemon's reasons are passed on. */
	fake_expect_error("bdev delete n", 1, "no bdev 'n'");
	fake_expect_error("bdev create aio b /nowhere/at/all", 1, "/nowhere/at/all");
	/* A path is made absolute here, for the daemon is elsewhere. */
	assert_int_equal(chdir(fake.h.dir), 0);
	fake_expect_error("bdev create aio b nothing.img", 1, fake.h.dir);
	assert_int_equal(chdir("/"), 0);
}

static void start_watch(void *arg)
{
	bdev_watch_start(fake.h.reactor);
}

static void stop_watch(void *arg)
{
	bdev_watch_stop();
}

static void grows_bdevs(void **state)
{
	char path[128], line[256];

	harness_call(&fake.h, start_watch, NULL);
	fake_expect("bdev create null n --size=8M --block-size 4096", 0, "bdev n created\n", "");
	fake_expect("bdev create ram m --size=1M", 0, "bdev m created\n", "");
	fake_expect("resize n 1536M", 0, "bdev n has 1.5G now\n", "");
	fake_expect("resize m 2M", 0, "bdev m has 2M now\n", "");
	assert_int_equal(fake_run("--json resize m 4194304"), 0);
	assert_non_null(strstr(fake.out, "\"num_blocks\": 8192"));
	fake_expect_error("resize m 2M", 1, "cannot shrink");
	fake_expect_error("resize m", 2, "the size is missing, as bdev 'm' is of kind ram");
	fake_expect_error("resize m 2Q", 2, "'2Q' is no size");
	fake_expect_error("resize m 0", 2, "'0' is no size");
	fake_expect_error("resize x 2M", 1, "no bdev 'x'");
	fake_expect_error("resize", 2, "arguments are missing");
	fake_make_file("disk.img", "");
	snprintf(path, sizeof(path), "%s/disk.img", fake.h.dir);
	assert_int_equal(truncate(path, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio a %s", path);
	fake_expect(line, 0, "bdev a created\n", "");
	assert_int_equal(truncate(path, 3 << 20), 0);
	fake_expect_error("resize a 3M", 2, "as large as its file or device");
	fake_expect("resize a", 0, "bdev a has 3M now\n", "");
	assert_int_equal(truncate(path, 2 << 20), 0);
	fake_expect_error("resize a", 1, "has shrunk");
	harness_call(&fake.h, stop_watch, NULL);
}

static void calls_any_method(void **state)
{
	fake_expect("rpc sluice_get_version", 0, "{\n  \"version\": \"" SLUICE_VERSION "\"\n}\n",
		    "");
	fake_expect("rpc log_set_level {\"level\":\"error\"}", 0, "true\n", "");
	fake_expect_error("rpc log_set_level {\"level\":\"loud\"}", 1, "'level'");
	fake_expect_error("rpc fly", 1, "no method 'fly'");
	fake_expect_error("rpc fly []", 1, "no method 'fly'");
}

static void gives_up_on_a_silent_daemon(void **state)
{
	struct client c;
	json_t *result;
	struct err err;

	client_init(&c, stdout, stderr);
	c.socket = fake.h.socket;
	assert_int_equal(client_call(&c, "silence", NULL, 200, &result, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "no answer from sluiced within"));
	/* The late answer is not taken for another's. */
	harness_call(&fake.h, fake_break_silence, NULL);
	assert_int_equal(client_call(&c, "sluice_get_version", NULL, 10000, &result, &err), 0);
	assert_string_equal(client_text(result, "version"), SLUICE_VERSION);
	json_decref(result);
	client_disconnect(&c);
}

static void notices_a_lost_output(void **state)
{
	struct client c;
	size_t len;
	char *argv[] = {(char *)"sluice", (char *)"--version", NULL};
	FILE *full = fopen("/dev/full", "w");

	free(fake.said);
	client_init(&c, full, open_memstream(&fake.said, &len));
	assert_int_equal(client_run(&c, 2, argv), 1);
	fclose(c.err);
	fclose(full);
	assert_string_equal(fake.said, "sluice: cannot write the output\n");
}

/* Daemons that are not what they should be */

struct impostor {
	pthread_t thread;
	int listener;
	const char *answer;
};

static void *impostor_main(void *arg)
{
	struct impostor *i = arg;
	int fd = accept4(i->listener, NULL, NULL, SOCK_CLOEXEC);
	char request[256];

	if (recv(fd, request, sizeof(request), 0) > 0)
		send(fd, i->answer, strlen(i->answer), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static void expect_of_impostor(const char *answer, const char *error)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct impostor i = {.answer = answer};

	unlink(fake.h.socket);
	strcpy(addr.sun_path, fake.h.socket);
	i.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(i.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(i.listener, 1), 0);
	pthread_create(&i.thread, NULL, impostor_main, &i);
	fake_expect_error("list", 1, error);
	pthread_join(i.thread, NULL);
	close(i.listener);
}

static void doubts_strange_daemons(void **state)
{
	char name[64];

	strcpy(fake.h.dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(fake.h.dir));
	snprintf(fake.h.socket, sizeof(fake.h.socket), "%s/test.sock", fake.h.dir);
	fake.quick_ms = 10000;
	expect_of_impostor("", "the connection to sluiced broke (closed)");
	expect_of_impostor("{\"jsonrpc\":\"2.0\"", "the connection to sluiced broke");
	expect_of_impostor("hello\n", "sluiced's answer is no JSON");
	expect_of_impostor("{}\n", "makes no sense");
	expect_of_impostor("[]\n", "makes no sense");
	expect_of_impostor("{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":[]}\n", "makes no sense");
	expect_of_impostor("{\"id\":1,\"error\":5}\n", "an error without a reason");
	expect_of_impostor("{\"id\":1,\"error\":{\"code\":-5,\"message\":\"a\\u001b[2J\\nb\"}}\n",
			   "sluice: a?[2J?b\n");
	/* Nobody there at all. */
	fake_expect_error("list", 1, "Connection refused (is it running? start it with 'sluiced'");
	unlink(fake.h.socket);
	fake_expect_error("list", 1, "cannot reach sluiced at /tmp/");
	fake_expect_error("--name fast list", 1, "start it with 'sluiced --name fast')");
	fake_expect_error("--socket /nowhere/x.sock list", 1, "/nowhere/x.sock: No such file");
	snprintf(name, sizeof(name), "%s", fake.h.dir);
	assert_int_equal(rmdir(name), 0);
	free(fake.out);
	free(fake.said);
	fake.out = fake.said = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
		WITH_SERVER(helps),
		WITH_SERVER(explains_wrong_calls),
		WITH_SERVER(manages_bdevs),
		WITH_SERVER(grows_bdevs),
		WITH_SERVER(calls_any_method),
		WITH_SERVER(gives_up_on_a_silent_daemon),
		WITH_SERVER(notices_a_lost_output),
		cmocka_unit_test(doubts_strange_daemons),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
