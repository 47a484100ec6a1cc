/* SPDX-License-Identifier: BSD-2-Clause */
/* `sivshm run`, and the command line. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tool.h"

#define RUN(...) TOOL_ARGS("run", "--segment", "1M", __VA_ARGS__)

static void test_gives_each_its_number_and_one_descriptor(void **state)
{
	struct tool t;
	/* Not closed by exec, and where the worker's own are not. */
	int leak = fcntl(STDIN_FILENO, F_DUPFD, 40);

	assert_true(leak >= 40);
	/* The last descriptor is that of ls itself. */
	assert_int_equal(tool_run(&t,
				  RUN("--workers", "2", "--", "sh", "-c",
				      "echo $SIVSHM as $SIVSHM_WORKER; ls /proc/self/fd | xargs"),
				  NULL, 0),
			 0);
	close(leak);
	assert_non_null(strstr(t.out.data, "0: fd:3 as 0\n"));
	assert_non_null(strstr(t.out.data, "1: fd:3 as 1\n"));
	assert_non_null(strstr(t.out.data, "0: 0 1 2 3 4\n"));
	assert_non_null(strstr(t.out.data, "1: 0 1 2 3 4\n"));
	assert_non_null(strstr(t.err.data, "worker 0 exited with status 0; its memory is free\n"));
	tool_free(&t);
}

/* Two segments of one's own: what a worker maps is its memory and no other. */
static void test_lets_workers_open_their_segments(void **state)
{
	struct tool t;

	assert_int_equal(
		tool_run(&t,
			 RUN("--workers", "3", "--vectors", "5", "--", tool_worker(), "describe"),
			 NULL, 0),
		0);
	assert_non_null(strstr(t.out.data, "0: id 1 peer 0 vectors 5 bytes 1048576 memfds 1\n"));
	assert_non_null(strstr(t.out.data, "2: id 5 peer 4 vectors 5 bytes 1048576 memfds 1\n"));
	tool_free(&t);
}

static void test_echoes_rings(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t, RUN("--workers", "2", "--echo", "--", tool_worker(), "ring"),
				  NULL, 0),
			 0);
	assert_int_equal(tool_count(t.out.data, ": rung back\n"), 2);
	tool_free(&t);
	assert_int_equal(tool_run(&t, RUN("--workers", "1", "--", tool_worker(), "ring"), NULL, 0),
			 1);
	tool_free(&t);
}

static void test_passes_output_on_harmlessly(void **state)
{
	struct tool t;

	assert_int_equal(
		tool_run(&t,
			 RUN("--workers", "1", "--", "sh", "-c",
			     "printf 'a\\033[31mb\\302\\233c\\tf\\303\\274r\\r\\n'; "
			     "printf 'no end'; printf 'on stderr' >&2; head -c 5000 /dev/zero"),
			 NULL, 0),
		0);
	assert_non_null(strstr(t.out.data, "0: a?[31mb\302?c\tf\303\274r\n"));
	assert_non_null(strstr(t.out.data, "0: no end???"));
	assert_null(memchr(t.out.data, '\033', t.out.n));
	assert_non_null(strstr(t.err.data, "0: on stderr\n"));
	/* A line without end is cut. */
	assert_int_equal(tool_count(t.out.data, "\n"), 3);
	tool_free(&t);
}

static void test_notices_a_dead_worker_and_frees_its_memory(void **state)
{
	pid_t pids[3];
	struct tool t;

	tool_start(&t, RUN("--workers", "3", "--keep-going", "--", tool_worker(), "hold"));
	tool_await(&t, "0: holding\n");
	tool_await(&t, "1: holding\n");
	tool_await(&t, "2: holding\n");
	assert_int_equal(tool_children(&t, pids, 3), 3);
	assert_int_equal(tool_segments(&t), 3);
	kill(pids[1], SIGKILL);
	tool_await(&t, "worker 1 was killed by signal 9 (Killed); its memory is free\n");
	assert_int_equal(tool_segments(&t), 2);
	assert_int_equal(tool_children(&t, pids, 3), 2);
	kill(t.pid, SIGTERM);
	assert_int_equal(tool_finish(&t, NULL, 0), 128 + SIGTERM);
	assert_int_equal(tool_count(t.err.data, "was killed by signal 15"), 2);
	tool_free(&t);
}

static void test_ends_all_when_one_fails(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  RUN("--workers", "2", "--", "sh", "-c",
				      "[ $SIVSHM_WORKER = 1 ] && exit 3; sleep 1000"),
				  NULL, 0),
			 1);
	assert_non_null(strstr(t.err.data, "worker 1 exited with status 3"));
	assert_non_null(strstr(t.err.data, "the other workers are ended, too"));
	assert_non_null(strstr(t.err.data, "worker 0 was killed by signal 15"));
	tool_free(&t);
}

/* A worker that will not end, one that is stopped, and what they have started. */
static void test_ends_all_on_a_signal(void **state)
{
	pid_t pids[2], grandchild;
	char path[160];
	struct tool t;
	FILE *f;

	snprintf(path, sizeof(path), "%s/pid", tool_scratch());
	setenv("PID_FILE", path, 1);
	tool_start(&t,
		   RUN("--workers", "2", "--", "sh", "-c",
		       "trap '' TERM; sleep 1000 & [ $SIVSHM_WORKER = 1 ] || echo $! >$PID_FILE;"
		       "echo ready; [ $SIVSHM_WORKER = 0 ] || kill -STOP $$; wait; wait"));
	tool_await(&t, "0: ready");
	tool_await(&t, "1: ready");
	assert_int_equal(tool_children(&t, pids, 2), 2);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &grandchild), 1);
	fclose(f);
	kill(t.pid, SIGINT);
	assert_int_equal(tool_finish(&t, NULL, 0), 128 + SIGINT);
	assert_int_equal(tool_count(t.err.data, "was killed by signal 9"), 2);
	tool_await_end(pids[0]);
	tool_await_end(pids[1]);
	tool_await_end(grandchild);
	tool_free(&t);
}

static void test_leaves_ignored_signals_alone(void **state)
{
	struct tool t;

	signal(SIGHUP, SIG_IGN);
	tool_start(&t, RUN("--workers", "1", "--", "sh", "-c", "echo ready; exec sleep 1000"));
	signal(SIGHUP, SIG_DFL);
	tool_await(&t, "0: ready");
	kill(t.pid, SIGHUP);
	kill(t.pid, SIGTERM);
	assert_int_equal(tool_finish(&t, NULL, 0), 128 + SIGTERM);
	tool_free(&t);
}

/* Who ignores the ends of children lets their statuses go. */
static void test_knows_how_workers_end(void **state)
{
	struct tool t;

	signal(SIGCHLD, SIG_IGN);
	tool_start(&t, RUN("--workers", "1", "--", "sh", "-c", "sleep 0.2; exit 3"));
	signal(SIGCHLD, SIG_DFL);
	assert_int_equal(tool_finish(&t, NULL, 0), 1);
	assert_non_null(strstr(t.err.data, "worker 0 exited with status 3"));
	tool_free(&t);
}

static void test_takes_the_workers_along(void **state)
{
	pid_t pids[2];
	struct tool t;

	tool_start(&t, RUN("--workers", "2", "--", "sh", "-c", "echo ready; exec sleep 1000"));
	tool_await(&t, "0: ready");
	tool_await(&t, "1: ready");
	assert_int_equal(tool_children(&t, pids, 2), 2);
	kill(t.pid, SIGKILL);
	assert_int_equal(tool_finish(&t, NULL, 0), 128 + SIGKILL);
	tool_await_end(pids[0]);
	tool_await_end(pids[1]);
	tool_free(&t);
}

static void test_starts_workers_again(void **state)
{
	struct tool t;

	assert_int_equal(
		tool_run(&t, RUN("--workers", "1", "--restart", "--", tool_worker(), "describe"),
			 NULL, 0),
		0);
	assert_int_equal(tool_count(t.err.data, "worker 0 is started again\n"), 2);
	assert_non_null(strstr(t.err.data, "worker 0 has ended 3 times within a second"));
	/* A new segment with new IDs each time. */
	assert_non_null(strstr(t.out.data, "0: id 1 "));
	assert_non_null(strstr(t.out.data, "0: id 3 "));
	assert_non_null(strstr(t.out.data, "0: id 5 "));
	tool_free(&t);
}

static void test_fails_when_one_cannot_be_started_again(void **state)
{
	static const char script[] = "#!/bin/sh\nrm -f \"$0\"\n";
	const char *path = tool_write("once", script, sizeof(script) - 1);
	struct tool t;

	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(tool_run(&t, RUN("--workers", "1", "--restart", "--", path), NULL, 0), 1);
	assert_non_null(strstr(t.err.data, "worker 0 exited with status 0"));
	assert_non_null(strstr(t.err.data, "cannot start worker 0, "));
	tool_free(&t);
}

/* What makes no sense costs one line that says what to do. */
static void refuses(const char *const *args, int status, const char *words)
{
	struct tool t;

	assert_int_equal(tool_run(&t, args, NULL, 0), status);
	if (!strstr(t.err.data, words))
		fail_msg("'%s' should say '%s'", t.err.data, words);
	assert_int_equal(tool_count(t.err.data, "\n"), 1);
	assert_string_equal(t.out.data, "");
	tool_free(&t);
}

static void test_refuses_what_makes_no_sense(void **state)
{
	refuses((const char *const[]){NULL}, 2, "the command is missing");
	refuses(TOOL_ARGS("rnu"), 2, "'rnu' is no command");
	refuses(TOOL_ARGS("run", "--", "true"), 2, "--workers is missing");
	refuses(TOOL_ARGS("run", "--workers", "0", "--", "true"), 2, "from 1 to 4096, not '0'");
	refuses(TOOL_ARGS("run", "--workers", "-1", "--", "true"), 2, "from 1 to 4096, not '-1'");
	refuses(TOOL_ARGS("run", "--workers"), 2, "--workers takes a value");
	refuses(TOOL_ARGS("run", "--workers", "2"), 2, "the program is missing");
	refuses(TOOL_ARGS("run", "--workers", "2", "--"), 2, "the program is missing");
	refuses(TOOL_ARGS("run", "--workers", "2", "true"), 2, "put -- before it");
	refuses(TOOL_ARGS("run", "--wrokers", "2", "--", "true"), 2, "option '--wrokers'");
	refuses(TOOL_ARGS("run", "--workers", "2", "--kernel", "x", "--", "true"), 2,
		"option '--kernel'");
	refuses(TOOL_ARGS("run", "--workers", "2", "--segment", "3M", "--", "true"), 2,
		"a power of two");
	refuses(TOOL_ARGS("run", "--workers", "2", "--segment", "2K", "--", "true"), 2,
		"a power of two from 4096 on");
	refuses(TOOL_ARGS("run", "--workers", "2", "--segment", "\033[1m", "--", "true"), 2,
		"not '?[1m'");
	refuses(TOOL_ARGS("run", "--workers", "2", "--vectors", "65", "--", "true"), 2,
		"from 1 to 64");
	refuses(TOOL_ARGS("run", "--workers", "2", "--", "/no/such"), 1,
		"cannot start worker 0, '/no/such': No such file or directory");
	refuses(TOOL_ARGS("qemu", "--workers", "2"), 2, "give --kernel");
	refuses(TOOL_ARGS("qemu", "--workers", "2", "--kernel", "/no/such"), 1,
		"cannot read the kernel '/no/such'");
	refuses(TOOL_ARGS("qemu", "--workers", "2", "disk"), 2, "QEMU's own arguments");
	refuses(TOOL_ARGS("distribute", "--workers", "2"), 2, "program is missing");
	refuses(TOOL_ARGS("distribute", "--workers", "2", "--kernel", "x", "--", "true"), 2,
		"need --guests");
	refuses(TOOL_ARGS("distribute", "--workers", "2", "--guests"), 2, "give --kernel");
	refuses(TOOL_ARGS("distribute", "--workers", "2", "--by", "size", "--", "true"), 2,
		"demand, round-robin or hash, not 'size'");
	refuses(TOOL_ARGS("distribute", "--workers", "2", "--lines", "--blocks", "1K", "--",
			  "true"),
		2, "one of --files, --lines and --blocks");
	refuses(TOOL_ARGS("distribute", "--workers", "2", "--sum", "--ordered", "--", "true"), 2,
		"one of --ordered and --sum");
	refuses(TOOL_ARGS("distribute", "--workers", "2", "--segment", "64K", "--", "true"), 2,
		"at least 1M");
}

/* Descriptors for more workers than the limit seems to allow; theirs is what it was. */
static void test_many_workers(void **state)
{
	struct rlimit before, low;
	struct tool t;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	if (before.rlim_max < 2000)
		skip();
	low = (struct rlimit){200, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	tool_start(&t, TOOL_ARGS("run", "--workers", "100", "--segment", "4K", "--", "sh", "-c",
				 "echo has $(ulimit -n)"));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(tool_finish(&t, NULL, 0), 0);
	assert_int_equal(tool_count(t.out.data, ": has 200\n"), 100);
	tool_free(&t);
}

/* Workers of the same user do not get at the manager's descriptors, and so at the segments. */
static void test_keeps_workers_out_of_itself(void **state)
{
	struct tool t;
	int rc;

	tool_unprivileged = true;
	rc = tool_run(&t,
		      RUN("--workers", "1", "--", "sh", "-c",
			  "ls /proc/$$/fd >/dev/null && echo mine; ls /proc/$PPID/fd; exit 0"),
		      NULL, 0);
	tool_unprivileged = false;
	if (rc == TOOL_CANNOT_START) {
		tool_free(&t);
		skip();
	}
	assert_int_equal(rc, 0);
	assert_string_equal(t.out.data, "0: mine\n");
	assert_non_null(strstr(t.err.data, "Permission denied"));
	tool_free(&t);
}

static void test_helps(void **state)
{
	static const char *const commands[] = {"run", "qemu", "distribute"};
	struct tool t;

	assert_int_equal(tool_run(&t, TOOL_ARGS("--help"), NULL, 0), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_non_null(strstr(t.out.data, commands[i]));
	tool_free(&t);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(tool_run(&t, TOOL_ARGS(commands[i], "--help"), NULL, 0), 0);
		assert_non_null(strstr(t.out.data, "--workers N"));
		assert_string_equal(t.err.data, "");
		tool_free(&t);
	}
}

static int leave(void **state)
{
	tool_remove_scratch();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gives_each_its_number_and_one_descriptor),
		cmocka_unit_test(test_lets_workers_open_their_segments),
		cmocka_unit_test(test_echoes_rings),
		cmocka_unit_test(test_passes_output_on_harmlessly),
		cmocka_unit_test(test_notices_a_dead_worker_and_frees_its_memory),
		cmocka_unit_test(test_ends_all_when_one_fails),
		cmocka_unit_test(test_ends_all_on_a_signal),
		cmocka_unit_test(test_leaves_ignored_signals_alone),
		cmocka_unit_test(test_knows_how_workers_end),
		cmocka_unit_test(test_takes_the_workers_along),
		cmocka_unit_test(test_starts_workers_again),
		cmocka_unit_test(test_fails_when_one_cannot_be_started_again),
		cmocka_unit_test(test_refuses_what_makes_no_sense),
		cmocka_unit_test(test_many_workers),
		cmocka_unit_test(test_keeps_workers_out_of_itself),
		cmocka_unit_test(test_helps),
	};

	return cmocka_run_group_tests(tests, NULL, leave);
}
