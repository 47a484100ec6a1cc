/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers that break the rules of items: each is ended with one line that names the rule, the
 * others do its work, and no result is lost or doubled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tool.h"

enum { BLOCKS = 24, BLOCK = 1 << 20 };

static char *input;

/* Blocks larger than a ring, so that one can be answered before it has ended. */
static int make_input(void **state)
{
	input = malloc((size_t)BLOCKS * BLOCK);
	for (unsigned i = 0; i < BLOCKS; i++)
		memset(input + (size_t)i * BLOCK, 'A' + (int)i, BLOCK);
	return 0;
}

static int free_input(void **state)
{
	free(input);
	return 0;
}

/* All blocks, in any order, each whole and once. */
static void check_blocks(const struct tool *t)
{
	bool seen[BLOCKS] = {0};

	assert_int_equal(t->out.n, (size_t)BLOCKS * BLOCK);
	for (unsigned i = 0; i < BLOCKS; i++) {
		const char *block = t->out.data + (size_t)i * BLOCK;
		unsigned n = (unsigned)(block[0] - 'A');

		assert_true(n < BLOCKS);
		assert_false(seen[n]);
		seen[n] = true;
		assert_memory_equal(block, input + (size_t)n * BLOCK, BLOCK);
	}
}

static void outlives(const char *how, const char *said)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  TOOL_ARGS("distribute", "--segment", "1M", "--workers", "3",
					    "--by", "round-robin", "--stall", "2", "--max-result",
					    "8M", "--blocks", "1M", "--", tool_worker(), "attack",
					    how),
				  input, (size_t)BLOCKS * BLOCK),
			 0);
	if (!strstr(t.err.data, said))
		fail_msg("for '%s' there should be '%s', not '%s'", how, said, t.err.data);
	assert_int_equal(tool_count(t.err.data, "\n"), tool_count(t.err.data, "worker 0 "));
	check_blocks(&t);
	tool_free(&t);
}

static void test_other_protocols(void **state)
{
	outlives("version", "worker 0 is ended: it speaks another protocol; 0 items");
	outlives("unasked", "worker 0 is ended: it speaks another protocol; 0 items");
	outlives("kind", "worker 0 is ended: it speaks another protocol; ");
	outlives("code", "worker 0 is ended: it speaks another protocol; ");
	outlives("text", "worker 0 is ended: it speaks another protocol; ");
}

static void test_wrong_items(void **state)
{
	outlives("unknown", "worker 0 is ended: it answers an item that it does not have; ");
	outlives("early", "worker 0 is ended: it has done an item before its end; ");
}

static void test_wrong_sizes(void **state)
{
	outlives("short", "worker 0 is ended: its message has a wrong size; ");
	outlives("long", "worker 0 is ended: its message has a wrong size; ");
	outlives("flood", "worker 0 is ended: its results are larger than --max-result; ");
}

static void test_a_broken_ring(void **state)
{
	outlives("ring", "worker 0 is ended: it has broken its ring; ");
}

static void test_no_word_at_all(void **state)
{
	outlives("silent", "worker 0 is ended: it has made no progress for 2 s; ");
	outlives("close", "worker 0 is gone; ");
}

static void test_another_group(void **state)
{
	outlives("move", "worker 0 is ended: it has made no progress for 2 s; ");
}

static void test_one_that_cannot_be_collected(void **state)
{
	outlives("held", "worker 0 is ended: it has made no progress for 2 s; ");
}

/* Others have their turn; the one that only rings has none. */
static void test_a_storm(void **state)
{
	outlives("storm", "worker 0 is ended: it has made no progress for 2 s; ");
}

/* The first answer is an empty result, as it may be; the second is none. */
static void test_a_second_answer(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  TOOL_ARGS("distribute", "--segment", "1M", "--workers", "2",
					    "--by", "round-robin", "--blocks", "1M", "--",
					    tool_worker(), "attack", "twice"),
				  input, (size_t)BLOCKS * BLOCK),
			 0);
	assert_non_null(strstr(t.err.data, "it answers an item that it does not have; "));
	assert_int_equal(t.out.n, (size_t)(BLOCKS - 1) * BLOCK);
	tool_free(&t);
}

static void test_wrong_sums(void **state)
{
	static const char *const wrong[] = {"no tab\n",    "\t5\n",   "k\t\n",
					    "k\t-1\n",     "k\t1x\n", "k\t18446744073709551616\n",
					    "good\t1\nk\n"};
	struct tool t;

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(tool_run(&t,
					  TOOL_ARGS("distribute", "--workers", "1", "--segment",
						    "1M", "--sum", "--", tool_worker(), "echo"),
					  wrong[i], strlen(wrong[i])),
				 1);
		assert_non_null(
			strstr(t.err.data, "its result has a line that is not KEY<TAB>NUMBER; "));
		assert_string_equal(t.out.data, "");
		tool_free(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_protocols),
		cmocka_unit_test(test_wrong_items),
		cmocka_unit_test(test_wrong_sizes),
		cmocka_unit_test(test_a_broken_ring),
		cmocka_unit_test(test_no_word_at_all),
		cmocka_unit_test(test_another_group),
		cmocka_unit_test(test_one_that_cannot_be_collected),
		cmocka_unit_test(test_a_storm),
		cmocka_unit_test(test_a_second_answer),
		cmocka_unit_test(test_wrong_sums),
	};

	return cmocka_run_group_tests(tests, make_input, free_input);
}
