/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sivshm distribute` with workers that are processes: every item is answered, and its answer
 * counted once, whatever becomes of workers.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tool.h"

enum { LINES = 20000 };

#define DISTRIBUTE(...) TOOL_ARGS("distribute", "--segment", "1M", __VA_ARGS__)

static char *lines; /* "line 0\n" and so on */
static size_t lines_bytes;

static int make_lines(void **state)
{
	FILE *f = open_memstream(&lines, &lines_bytes);

	for (unsigned i = 0; i < LINES; i++)
		fprintf(f, "line %u\n", i);
	return fclose(f);
}

static int free_lines(void **state)
{
	free(lines);
	tool_remove_scratch();
	return 0;
}

/* Every line is in @out exactly once, and nothing else. */
static void check_lines(const struct text *out)
{
	unsigned char *seen = calloc(LINES, 1);
	char *at = out->data, *end;
	unsigned n = 0, number;

	for (; (end = strchr(at, '\n')); at = end + 1, n++) {
		*end = '\0';
		if (sscanf(at, "line %u", &number) != 1 || number >= LINES || seen[number]++)
			fail_msg("'%s' is wrong, or not the first of its kind", at);
	}
	assert_int_equal(*at, '\0');
	assert_int_equal(n, LINES);
	free(seen);
}

static void gives_all(const char *const *args)
{
	struct tool t;

	assert_int_equal(tool_run(&t, args, lines, lines_bytes), 0);
	check_lines(&t.out);
	assert_string_equal(t.err.data, "");
	tool_free(&t);
}

static void test_lines(void **state)
{
	gives_all(DISTRIBUTE("--workers", "1", "--", tool_worker(), "echo"));
	gives_all(DISTRIBUTE("--workers", "3", "--", tool_worker(), "echo"));
	gives_all(DISTRIBUTE("--workers", "3", "--lines", "-", "--", tool_worker(), "echo"));
	gives_all(DISTRIBUTE("--workers", "3", "--by", "round-robin", "--batch", "100", "--",
			     tool_worker(), "echo"));
	gives_all(DISTRIBUTE("--workers", "3", "--by", "hash", "--batch", "1", "--", tool_worker(),
			     "echo"));
	gives_all(DISTRIBUTE("--workers", "2", "--in-flight", "1", "--", tool_worker(), "echo"));
	/* What a worker may answer before it is done is less than what it does in all. */
	gives_all(DISTRIBUTE("--workers", "1", "--batch", "1000", "--max-result", "8K", "--",
			     tool_worker(), "echo"));
}

static void test_keeps_the_order(void **state)
{
	static const char *const ways[] = {"demand", "round-robin", "hash"};
	struct tool t;

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tool_run(&t,
					  DISTRIBUTE("--workers", "3", "--ordered", "--batch",
						     "300", "--by", ways[i], "--", tool_worker(),
						     "echo"),
					  lines, lines_bytes),
				 0);
		assert_int_equal(t.out.n, lines_bytes);
		assert_memory_equal(t.out.data, lines, lines_bytes);
		tool_free(&t);
	}
	/* Blocks of any size make up the whole again. */
	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "3", "--ordered", "--blocks", "777", "--",
					     tool_worker(), "echo"),
				  lines, lines_bytes),
			 0);
	assert_int_equal(t.out.n, lines_bytes);
	assert_memory_equal(t.out.data, lines, lines_bytes);
	tool_free(&t);
}

/* An item much larger than the ring, and a last line without its end. */
static void test_large_items(void **state)
{
	size_t bytes = 20 << 20;
	char *data = malloc(bytes + 1);
	struct tool t;

	for (size_t i = 0; i < bytes; i++)
		data[i] = (char)(i * 2654435761U >> 24 | 0x80);
	data[bytes] = '\0';
	assert_int_equal(tool_run(&t, DISTRIBUTE("--workers", "2", "--", tool_worker(), "echo"),
				  data, bytes),
			 0);
	assert_int_equal(t.out.n, bytes + 1);
	assert_memory_equal(t.out.data, data, bytes);
	assert_int_equal(t.out.data[bytes], '\n');
	tool_free(&t);
	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", tool_write("large", data, bytes),
					     "--", tool_worker(), "echo"),
				  NULL, 0),
			 0);
	assert_int_equal(t.out.n, bytes);
	assert_memory_equal(t.out.data, data, bytes);
	tool_free(&t);
	free(data);
}

static void test_nothing_is_no_error(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t, DISTRIBUTE("--workers", "2", "--", tool_worker(), "echo"),
				  NULL, 0),
			 0);
	assert_string_equal(t.out.data, "");
	assert_string_equal(t.err.data, "");
	tool_free(&t);
}

/* Results of what is there already do not wait for what is not. */
static void test_a_slow_input(void **state)
{
	struct tool t;

	tool_start(&t, DISTRIBUTE("--workers", "2", "--batch", "1", "--", tool_worker(), "echo"));
	assert_int_equal(write(t.in, "first\n", 6), 6);
	tool_await(&t, "first\n");
	assert_int_equal(write(t.in, "second\nthi", 10), 10);
	tool_await(&t, "second\n");
	assert_int_equal(tool_finish(&t, "rd\n", 3), 0);
	assert_string_equal(t.out.data, "first\nsecond\nthird\n");
	tool_free(&t);
}

/* How often workers 0 to 2 had an item; @out has lines of `name`. */
static void shares(const struct tool *t, unsigned *n)
{
	const char *at = t->out.data;

	n[0] = n[1] = n[2] = 0;
	for (; at && *at; at = strchr(at, '\n') + 1)
		n[*at - '0']++;
}

/* Signals that a worker handles itself are no end of it. */
static void test_signals_in_a_worker(void **state)
{
	struct tool t;

	tool_start(&t, DISTRIBUTE("--workers", "1", "--batch", "1", "--", tool_worker(), "alarms"));
	assert_int_equal(write(t.in, "first\n", 6), 6);
	tool_await(&t, "first\n");
	usleep(50000);
	assert_int_equal(tool_finish(&t, "second\n", 7), 0);
	assert_string_equal(t.out.data, "first\nsecond\n");
	tool_free(&t);
}

static void test_round_robin(void **state)
{
	struct tool t;
	unsigned n[3];

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "3", "--by", "round-robin", "--blocks",
					     "1", "--", tool_worker(), "name"),
				  lines, 300),
			 0);
	shares(&t, n);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(n[i], 100);
	assert_non_null(strstr(t.out.data, "2 -@5 6\n"));
	tool_free(&t);
}

/* The same first word, the same worker; different ones, different workers. */
static void test_hash(void **state)
{
	enum { WORDS = 8, ROUNDS = 10 };
	bool used[3] = {false};
	char input[WORDS * ROUNDS * 16], wanted[32];
	size_t n = 0;
	struct tool t;

	for (unsigned i = 0; i < WORDS * ROUNDS; i++)
		n += (size_t)sprintf(input + n, "%c%s%u\n", 'a' + (int)(i % WORDS),
				     i & 1 ? " " : "\t", i / WORDS);
	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "3", "--by", "hash", "--batch", "1", "--",
					     tool_worker(), "which"),
				  input, n),
			 0);
	assert_int_equal(tool_count(t.out.data, "\n"), WORDS * ROUNDS);
	for (unsigned word = 0; word < WORDS; word++) {
		unsigned owners = 0;

		for (unsigned worker = 0; worker < 3; worker++) {
			unsigned mine;

			snprintf(wanted, sizeof(wanted), "%u %c%s", worker, 'a' + (int)word,
				 word & 1 ? " " : "\t");
			mine = tool_count(t.out.data, wanted);
			assert_true(mine == 0 || mine == ROUNDS);
			owners += mine != 0;
			used[worker] |= mine != 0;
		}
		assert_int_equal(owners, 1);
	}
	assert_true(used[0] + used[1] + used[2] > 1);
	tool_free(&t);
}

static void test_files(void **state)
{
	char dir[160], path[200];
	struct tool t;

	snprintf(dir, sizeof(dir), "%s/tree", tool_scratch());
	mkdir(dir, 0700);
	for (unsigned i = 0; i < 50; i++) {
		char name[32], text[32];

		snprintf(name, sizeof(name), "tree/f%02u", i);
		snprintf(text, sizeof(text), "text %02u\n", i);
		tool_write(name, text, strlen(text));
	}
	snprintf(path, sizeof(path), "%s/link", dir);
	unlink(path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	snprintf(path, sizeof(path), "%s/fifo", dir);
	mkfifo(path, 0600);
	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "3", "--ordered", dir, "--",
					     tool_worker(), "echo"),
				  NULL, 0),
			 0);
	/* Neither links nor what is no file. */
	assert_int_equal(tool_count(t.out.data, "\n"), 50);
	assert_int_equal(strncmp(t.out.data, "text 00\ntext 01\n", 16), 0);
	assert_non_null(strstr(t.out.data, "text 49\n"));
	tool_free(&t);
	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "--ordered", "--lines", dir, dir,
					     "--", tool_worker(), "echo"),
				  NULL, 0),
			 0);
	assert_int_equal(tool_count(t.out.data, "text 17\n"), 2);
	tool_free(&t);
}

static void test_files_that_cannot_be_read(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "/no/such",
					     tool_write("good", "good\n", 5), "/dev/null", "--",
					     tool_worker(), "echo"),
				  NULL, 0),
			 1);
	assert_string_equal(t.out.data, "good\n");
	assert_non_null(strstr(t.err.data, "cannot read '/no/such': No such file or directory\n"));
	assert_non_null(strstr(t.err.data, "cannot read '/dev/null': it is no file"));
	assert_non_null(strstr(t.err.data, "items without a result: 2\n"));
	tool_free(&t);
	/* A file that opens, but cannot be read. */
	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "/proc/self/mem",
					     tool_write("good", "good\n", 5), "--", tool_worker(),
					     "echo"),
				  NULL, 0),
			 1);
	assert_string_equal(t.out.data, "good\n");
	assert_non_null(strstr(t.err.data, "cannot read '/proc/self/mem'"));
	assert_int_equal(tool_count(t.err.data, ": incomplete\n"), 1);
	tool_free(&t);
	assert_int_equal(
		tool_run(&t, DISTRIBUTE("--workers", "2", "--files", "--", tool_worker(), "echo"),
			 lines, lines_bytes),
		1);
	assert_non_null(strstr(t.err.data, "--files needs files"));
	tool_free(&t);
}

static void test_sums(void **state)
{
	static const char *const input = "b\t1\na\t2\nb\t40\nword with blanks\t7\na\t0\n"
					 "tab\tin it\t5\nbig\t18446744073709551615\n";
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "--sum", "--batch", "1", "--",
					     tool_worker(), "echo"),
				  input, strlen(input)),
			 0);
	assert_string_equal(t.out.data, "a\t2\nb\t41\nbig\t18446744073709551615\n"
					"tab\tin it\t5\nword with blanks\t7\n");
	tool_free(&t);
	assert_int_equal(
		tool_run(&t, DISTRIBUTE("--workers", "1", "--sum", "--", tool_worker(), "echo"),
			 "k\t18446744073709551615\nk\t1\n", 27),
		1);
	assert_string_equal(t.out.data, "k\t18446744073709551615\n");
	assert_non_null(strstr(t.err.data, "do not fit 64 bits"));
	tool_free(&t);
}

static void test_word_count(void **state)
{
	static const char *const text = "The quick brown fox; the lazy dog.\nTHE END -- don't\n";
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "--sum",
					     tool_write("words", text, strlen(text)), "--",
					     tool_wordcount()),
				  NULL, 0),
			 0);
	assert_string_equal(t.out.data, "brown\t1\ndog\t1\ndon\t1\nend\t1\nfox\t1\nlazy\t1\n"
					"quick\t1\nt\t1\nthe\t3\n");
	tool_free(&t);
}

static void test_a_worker_that_cannot(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "--by", "round-robin", "--batch",
					     "1", "--", tool_worker(), "fail"),
				  "one\ntwo\nthree\nfour\n", 19),
			 1);
	assert_null(strstr(t.out.data, "one"));
	assert_non_null(strstr(t.out.data, "two\n"));
	assert_null(strstr(t.out.data, "three"));
	assert_non_null(strstr(t.out.data, "four\n"));
	assert_non_null(strstr(t.err.data, "a worker could not do 'lines-1': no?luck\n"));
	assert_non_null(strstr(t.err.data, "items without a result: 2\n"));
	tool_free(&t);
}

static void survives(const char *mode, const char *said)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "3", "--by", "round-robin", "--stall",
					     "1", "--batch", "1000", "--", tool_worker(), mode),
				  lines, lines_bytes),
			 0);
	check_lines(&t.out);
	if (!strstr(t.err.data, said))
		fail_msg("'%s' should say '%s'", t.err.data, said);
	tool_free(&t);
}

/* What they have sent of a result is not gathered. */
static void test_a_worker_that_dies(void **state)
{
	survives("die", "worker 0 was killed by signal 9 (Killed)\n");
}

static void test_a_worker_that_stops(void **state)
{
	survives("stop", "worker 0 is ended: it has made no progress for 1 s; ");
}

/* What it has done before it ended is done. */
static void test_last_words(void **state)
{
	struct tool t;
	pid_t pid;

	tool_start(&t, DISTRIBUTE("--workers", "1", "--batch", "1", "--", tool_worker(), "last"));
	assert_int_equal(write(t.in, "last words\n", 11), 11);
	close(t.in);
	t.in = -1;
	while (!tool_children(&t, &pid, 1))
		usleep(1000);
	tool_await_end(pid);
	assert_int_equal(kill(t.pid, SIGCONT), 0);
	assert_int_equal(tool_finish(&t, NULL, 0), 0);
	assert_string_equal(t.out.data, "last words\n");
	tool_free(&t);
}

static void test_killed_from_outside(void **state)
{
	pid_t pids[3];
	struct tool t;

	tool_start(&t,
		   DISTRIBUTE("--workers", "3", "--batch", "10000", "--", tool_worker(), "slow"));
	assert_int_equal(write(t.in, lines, 60000), 60000);
	tool_await(&t, "line");
	assert_int_equal(tool_children(&t, pids, 3), 3);
	kill(pids[0], SIGKILL);
	kill(pids[2], SIGKILL);
	assert_int_equal(tool_finish(&t, lines + 60000, lines_bytes - 60000), 0);
	check_lines(&t.out);
	assert_int_equal(tool_count(t.err.data, "was killed by signal 9"), 2);
	tool_free(&t);
}

/* Processor time of the tool, in clock ticks. */
static unsigned long ticks(const struct tool *t)
{
	unsigned long user = 0, system = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", t->pid);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f,
				"%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
				&user, &system),
			 2);
	fclose(f);
	return user + system;
}

/* More input does not keep it busy while what a lost worker had can go to nobody yet. */
static void test_waits_with_input_at_hand(void **state)
{
	unsigned long before;
	pid_t pids[2];
	struct tool t;

	tool_start(&t, DISTRIBUTE("--workers", "2", "--in-flight", "1", "--by", "round-robin",
				  "--batch", "1", "--", tool_worker(), "echo"));
	assert_int_equal(write(t.in, "a\nb\n", 4), 4);
	tool_await(&t, "a\n");
	tool_await(&t, "b\n");
	assert_int_equal(tool_children(&t, pids, 2), 2);
	kill(pids[0], SIGSTOP);
	kill(pids[1], SIGSTOP);
	assert_int_equal(write(t.in, "c\nd\n", 4), 4);
	usleep(300000);
	kill(pids[0], SIGKILL);
	tool_await(&t, "was killed by signal 9");
	before = ticks(&t);
	assert_int_equal(write(t.in, "e\n", 2), 2);
	sleep(1);
	assert_true(ticks(&t) - before < (unsigned long)sysconf(_SC_CLK_TCK) / 10);
	kill(pids[1], SIGCONT);
	assert_int_equal(tool_finish(&t, NULL, 0), 0);
	assert_int_equal(tool_count(t.out.data, "\n"), 5);
	tool_free(&t);
}

static void test_no_worker_is_left(void **state)
{
	struct tool t;

	assert_int_equal(
		tool_run(&t, DISTRIBUTE("--workers", "3", "--", "false"), lines, lines_bytes), 1);
	assert_int_equal(tool_count(t.err.data, "exited with status 1\n"), 3);
	assert_non_null(strstr(t.err.data, "no worker is left, and not all is done\n"));
	tool_free(&t);
	/* One that takes work, and dies of it. */
	assert_int_equal(
		tool_run(&t,
			 DISTRIBUTE("--workers", "1", "--batch", "100", "--", tool_worker(), "die"),
			 lines, lines_bytes),
		1);
	assert_non_null(strstr(t.err.data, "no worker is left"));
	assert_null(strstr(t.out.data, "partial"));
	tool_free(&t);
}

static void test_a_signal_ends_it(void **state)
{
	pid_t pids[2];
	struct tool t;

	tool_start(&t, DISTRIBUTE("--workers", "2", "--batch", "1", "--", tool_worker(), "echo"));
	assert_int_equal(write(t.in, "x\n", 2), 2);
	tool_await(&t, "x\n");
	assert_int_equal(tool_children(&t, pids, 2), 2);
	kill(t.pid, SIGTERM);
	assert_int_equal(tool_finish(&t, NULL, 0), 128 + SIGTERM);
	tool_await_end(pids[0]);
	tool_await_end(pids[1]);
	tool_free(&t);
}

static void test_output_that_is_full(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "--", "sh", "-c", "exec \"$0\" echo",
					     tool_worker()),
				  lines, lines_bytes),
			 0);
	tool_free(&t);
	tool_start(&t, DISTRIBUTE("--workers", "2", "--batch", "1", "--", tool_worker(), "echo"));
	close(t.out.fd);
	t.out.fd = -1;
	assert_int_equal(tool_finish(&t, lines, lines_bytes), 1);
	assert_non_null(strstr(t.err.data, "cannot write results: Broken pipe\n"));
	tool_free(&t);
}

/* A reader that takes its time makes no worker a sluggard, least of all one whose turn was before
 * that of the one whose results nobody took. */
static void test_slow_output(void **state)
{
	struct tool t;

	tool_start(&t, DISTRIBUTE("--workers", "8", "--stall", "1", "--batch", "1500", "--lines",
				  tool_write("lines", lines, lines_bytes), "--", tool_worker(),
				  "echo"));
	sleep(3);
	assert_int_equal(tool_finish(&t, NULL, 0), 0);
	assert_string_equal(t.err.data, "");
	check_lines(&t.out);
	tool_free(&t);
}

static void test_progress(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  DISTRIBUTE("--workers", "2", "--progress", "--batch", "100000",
					     "--", tool_worker(), "slow"),
				  lines, 400000 < lines_bytes ? 400000 : lines_bytes),
			 0);
	assert_non_null(strstr(t.err.data, " items, 2 of 2 workers alive, 0 in flight\n"));
	tool_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_keeps_the_order),
		cmocka_unit_test(test_large_items),
		cmocka_unit_test(test_nothing_is_no_error),
		cmocka_unit_test(test_a_slow_input),
		cmocka_unit_test(test_signals_in_a_worker),
		cmocka_unit_test(test_round_robin),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_files_that_cannot_be_read),
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_word_count),
		cmocka_unit_test(test_a_worker_that_cannot),
		cmocka_unit_test(test_a_worker_that_dies),
		cmocka_unit_test(test_a_worker_that_stops),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_killed_from_outside),
		cmocka_unit_test(test_waits_with_input_at_hand),
		cmocka_unit_test(test_no_worker_is_left),
		cmocka_unit_test(test_a_signal_ends_it),
		cmocka_unit_test(test_output_that_is_full),
		cmocka_unit_test(test_slow_output),
		cmocka_unit_test(test_progress),
	};

	return cmocka_run_group_tests(tests, make_lines, free_lines);
}
