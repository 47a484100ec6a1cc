/* SPDX-License-Identifier: BSD-2-Clause */
/* The base: strict parsing at its edges, percentiles against sorted samples, lists, logs. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/copy.h"
#include "base/err.h"
#include "base/hist.h"
#include "base/list.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/sparse_hist.h"

/* parse.h */

static void parses_numbers(void **state)
{
	static const char *const bad[] = {"",
					  " ",
					  "1 ",
					  " 1",
					  "+1",
					  "-1",
					  "-0",
					  "0x1",
					  "1.0",
					  "1e3",
					  "1\n",
					  "\xd9\xa1",
					  "1K",
					  "18446744073709551616",
					  "99999999999999999999999999"};
	uint64_t v;
	uint32_t u;

	assert_true(parse_u64("0", 0, &v) && v == 0);
	assert_true(parse_u64("007", 7, &v) && v == 7);
	assert_true(parse_u64("18446744073709551615", UINT64_MAX, &v) && v == UINT64_MAX);
	assert_true(parse_u32("4294967295", UINT32_MAX, &u) && u == UINT32_MAX);
	assert_true(parse_u32("10", 10, &u) && u == 10);
	v = 42;
	u = 42;
	assert_false(parse_u64("8", 7, &v));
	assert_false(parse_u32("4294967296", UINT32_MAX, &u));
	assert_false(parse_u32("11", 10, &u));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(parse_u64(bad[i], UINT64_MAX, &v));
		assert_false(parse_u32(bad[i], UINT32_MAX, &u));
	}
	/* A refused text changes nothing. */
	assert_int_equal(v, 42);
	assert_int_equal(u, 42);
}

static void parses_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"512", 512},
		{"1K", 1024},
		{"3M", 3 << 20},
		{"2G", 2ULL << 30},
		{"8T", 8ULL << 40},
		{"16777215T", 16777215ULL << 40},
		{"18014398509481983K", 18014398509481983ULL << 10},
		{"18446744073709551615", UINT64_MAX},
	};
	static const char *const bad[] = {"",
					  "K",
					  "1KB",
					  "1k",
					  "1 K",
					  "-1K",
					  "1KK",
					  "1P",
					  "0x1",
					  "1.5G",
					  "16777216T",
					  "18014398509481984K",
					  "18446744073709551616",
					  "1B",

					  "1K "};
	uint64_t v = 0;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_true(parse_size(good[i].text, &v));
		assert_true(v == good[i].bytes);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (parse_size(bad[i], &v))
			fail_msg("parse_size took '%s'", bad[i]);
}

static void parses_cpumasks(void **state)
{
	static const char *const bad[] = {"",
					  "0",
					  "0x",
					  "0x0",
					  "g",
					  "0xg",
					  "-1",
					  "1 ",
					  " 1",
					  "1,2",
					  "x1",
					  "00x1",
					  "10000000000000000",
					  "0x1ffffffffffffffff"};
	uint64_t m = 0;

	assert_true(parse_cpumask("3", &m) && m == 3);
	assert_true(parse_cpumask("0xf", &m) && m == 0xf);
	assert_true(parse_cpumask("0XaB", &m) && m == 0xab);
	assert_true(parse_cpumask("0000000000000000000001", &m) && m == 1);
	assert_true(parse_cpumask("ffffffffffffffff", &m) && m == UINT64_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (parse_cpumask(bad[i], &m))
			fail_msg("parse_cpumask took '%s'", bad[i]);
}

static void parses_names(void **state)
{
	static const char *const good[] = {"a", "0", "_", ":", "a-b.c:d_E9"};
	static const char *const bad[] = {"",    "-a",  ".a",       "..", "a b", "a/b",   "a@b",
					  "a,b", "a\n", "\xc3\xa4", "a*", "a=b", "\x1b[m"};
	char name[66];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(parse_name(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (parse_name(bad[i]))
			fail_msg("parse_name took '%s'", bad[i]);
	memset(name, 'a', sizeof(name));
	name[63] = '\0';
	assert_true(parse_name(name));
	name[63] = 'a';
	name[64] = '\0';
	assert_false(parse_name(name));
}

static void makes_texts_printable(void **state)
{
	char text[] = " az~\x1b[m\n\t\x7f\x80\xc3\xa4\xff";

	parse_make_printable(text);
	assert_string_equal(text, " az~?[m????"
				  "???");
}

/* err.h */

static void sets_errors(void **state)
{
	struct err err;
	char text[1000];

	assert_int_equal(err_set(&err, -EBUSY, "%s is %d", "it", 5), -EBUSY);
	assert_string_equal(err.text, "it is 5");
	assert_int_equal(err_set(NULL, -EIO, "unheard"), -EIO);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(err_set(&err, -EIO, "%s", text), -EIO);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

/* hist.h */

static uint64_t random_state = 88172645463325252ULL;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void knows_percentiles(void **state)
{
	static const uint32_t wanted[] = {1,      10000,  500000, 900000,
					  990000, 999000, 999999, 1000000};
	enum { SAMPLES = 10007 };
	static uint64_t samples[SAMPLES];
	static struct hist h;

	/* Samples over many orders of magnitude, as latencies are, and then narrower ones. */
	for (unsigned round = 0; round < 36; round++) {
		uint64_t sum = 0;

		memset(&h, 0, sizeof(h));
		for (unsigned i = 0; i < SAMPLES; i++) {
			samples[i] = next_random() >> (28 + next_random() % (36 - round));
			hist_add(&h, samples[i]);
			sum += samples[i];
		}
		qsort(samples, SAMPLES, sizeof(samples[0]), compare);
		assert_int_equal(h.count, SAMPLES);
		assert_true(h.sum_ns == sum);
		assert_true(h.max_ns == samples[SAMPLES - 1]);
		for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
			uint64_t rank = ((uint64_t)SAMPLES * wanted[i] + 999999) / 1000000;
			uint64_t exact = samples[rank - 1];
			uint64_t got = hist_percentile(&h, wanted[i]);

			/* Never below the truth, and at most a sixteenth above it. */
			assert_true(got >= exact);
			assert_true(got <= exact + exact / 16);
		}
	}
}

/* A percentile is known from the 100th sample beyond it. */
static void knows_what_it_knows(void **state)
{
	static const struct {
		uint32_t per_million;
		uint64_t samples;
	} wanted[] = {{0, 100}, {500000, 200}, {990000, 10000}, {999000, 100000}};
	struct hist h = {0};

	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		h.count = wanted[i].samples - 1;
		assert_false(hist_knows(&h, wanted[i].per_million));
		h.count++;
		assert_true(hist_knows(&h, wanted[i].per_million));
	}
	h.count = UINT64_MAX;
	assert_true(hist_knows(&h, 999999));
	assert_false(hist_knows(&h, 1000000));
}

static void has_a_bucket_for_all(void **state)
{
	static const uint64_t edges[] = {
		0, 1, 15, 16, 17, 31, 32, 1000, (1ULL << HIST_TOP_BITS) - 1};

	static struct hist h, other;

	memset(&h, 0, sizeof(h));
	assert_int_equal(hist_percentile(&h, 990000), 0);
	for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		memset(&h, 0, sizeof(h));
		assert_true(hist_bucket(edges[i]) < HIST_BUCKETS);
		hist_add(&h, edges[i]);
		/* A single sample is its own every percentile. */
		assert_true(hist_percentile(&h, 1) == edges[i]);
		assert_true(hist_percentile(&h, 1000000) == edges[i]);
	}
	for (unsigned shift = 0; shift < HIST_TOP_BITS - 1; shift++)
		assert_true(hist_bucket((2ULL << shift) - 1) + 1 == hist_bucket(2ULL << shift));
	/* What takes longer than the last bucket counts there. */
	memset(&h, 0, sizeof(h));
	assert_int_equal(hist_bucket(1ULL << HIST_TOP_BITS), HIST_BUCKETS - 1);
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
	hist_add(&h, UINT64_MAX);
	assert_true(h.max_ns == UINT64_MAX);
	assert_true(hist_percentile(&h, 990000) == (1ULL << HIST_TOP_BITS) - 1);
	memset(&h, 0, sizeof(h));
	memset(&other, 0, sizeof(other));
	hist_add(&h, 10);
	hist_add(&other, 5);
	hist_add(&other, 12);
	hist_merge(&h, &other);
	assert_int_equal(h.count, 3);
	assert_int_equal(h.sum_ns, 27);
	assert_int_equal(h.max_ns, 12);
	assert_int_equal(hist_percentile(&h, 333333), 5);
	assert_int_equal(hist_percentile(&h, 333334), 10);
	assert_int_equal(hist_percentile(&h, 1000000), 12);
}

/* Wherever samples fall, it knows of them what the histogram of fixed size does. */
static void has_parts_for_all(void **state)
{
	static struct hist flat[2], got;
	struct sparse_hist sparse[2] = {0};

	memset(flat, 0, sizeof(flat));
	for (unsigned i = 0; i < 20000; i++) {
		/* The first in few powers of two, the other in all of them and beyond. */
		uint64_t ns = i % 2 ? next_random() >> (next_random() % 64)
				    : 20000 + next_random() % 20000;

		hist_add(&flat[i % 2], ns);
		sparse_hist_add(&sparse[i % 2], ns);
	}
	assert_int_equal(sparse[0].nr_parts, 2);
	assert_int_equal(sparse[1].nr_parts, SPARSE_HIST_PARTS);
	for (unsigned i = 0; i < 2; i++) {
		sparse_hist_get(&sparse[i], &got);
		assert_memory_equal(&got, &flat[i], sizeof(got));
	}
	hist_merge(&flat[0], &flat[1]);
	sparse_hist_merge(&sparse[0], &sparse[1]);
	sparse_hist_get(&sparse[0], &got);
	assert_memory_equal(&got, &flat[0], sizeof(got));
	for (unsigned i = 0; i < 2; i++)
		sparse_hist_fini(&sparse[i]);
	memset(&flat[0], 0, sizeof(flat[0]));
	sparse_hist_get(&sparse[0], &got);
	assert_memory_equal(&got, &flat[0], sizeof(got));
}

/* list.h */

struct item {
	int value;
	struct list node;
};

static void expect_items(struct list *head, const int *values, size_t n)
{
	struct list *pos;
	size_t i = 0;

	list_for_each (pos, head) {
		assert_true(i < n);
		assert_int_equal(list_entry(pos, struct item, node)->value, values[i++]);
	}
	assert_int_equal(i, n);
	for (pos = head->prev; pos != head; pos = pos->prev)
		assert_int_equal(list_entry(pos, struct item, node)->value, values[--i]);
	assert_int_equal(i, 0);
}

static void keeps_lists(void **state)
{
	struct list a = LIST_INIT(a), b, *pos, *tmp;
	struct item items[5];

	list_init(&b);
	assert_true(list_empty(&a));
	assert_null(list_pop(&a));
	for (int i = 0; i < 5; i++)
		items[i].value = i;
	list_add_tail(&a, &items[1].node);
	list_add_tail(&a, &items[2].node);
	list_add_head(&a, &items[0].node);
	expect_items(&a, (int[]){0, 1, 2}, 3);
	list_splice_tail(&a, &b);
	expect_items(&a, (int[]){0, 1, 2}, 3);
	list_add_tail(&b, &items[3].node);
	list_add_tail(&b, &items[4].node);
	list_splice_tail(&a, &b);
	assert_true(list_empty(&b));
	expect_items(&a, (int[]){0, 1, 2, 3, 4}, 5);
	list_splice_tail(&b, &a);
	assert_true(list_empty(&a));
	expect_items(&b, (int[]){0, 1, 2, 3, 4}, 5);
	list_del(&items[2].node);
	list_del(&items[2].node);
	expect_items(&b, (int[]){0, 1, 3, 4}, 4);
	list_for_each_safe (pos, tmp, &b)
		if (list_entry(pos, struct item, node)->value % 2)
			list_del(pos);
	expect_items(&b, (int[]){0, 4}, 2);
	assert_ptr_equal(list_pop(&b), &items[0].node);
	assert_ptr_equal(list_pop(&b), &items[4].node);
	assert_true(list_empty(&b));
}

/* log.h */

static int saved_stderr;
static int log_file;

static int catch_log(void **state)
{
	log_file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	saved_stderr = dup(STDERR_FILENO);
	unsetenv("JOURNAL_STREAM");
	log_set_level(LOG_LEVEL_INFO);
	return dup2(log_file, STDERR_FILENO) < 0;
}

static int release_log(void **state)
{
	unsetenv("JOURNAL_STREAM");
	log_set_level(LOG_LEVEL_INFO);
	close(log_file);
	return dup2(saved_stderr, STDERR_FILENO) < 0 || close(saved_stderr);
}

/* What has been logged since the last call. */
static const char *logged(void)
{
	static char text[16384];
	ssize_t n = pread(log_file, text, sizeof(text) - 1, 0);

	assert_true(n >= 0);
	text[n] = '\0';
	assert_int_equal(ftruncate(log_file, 0), 0);
	assert_int_equal(lseek(log_file, 0, SEEK_SET), 0);
	return text;
}

static unsigned lines_of(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void logs_by_level(void **state)
{
	enum log_level level;
	const char *text;

	log_debug("hidden");
	assert_string_equal(logged(), "");
	log_error("one %d", 1);
	text = logged();
	/* Time, level, text: "01:02:03.456 error: one 1". */
	assert_int_equal(strlen("01:02:03.456 "), strcspn(text, "e"));
	assert_string_equal(text + strlen("01:02:03.456 "), "error: one 1\n");
	setenv("JOURNAL_STREAM", "8:1", 1);
	log_set_level(LOG_LEVEL_DEBUG);
	log_error("e");
	log_warning("w");
	log_info("i");
	log_debug("d");
	assert_string_equal(logged(), "<3>e\n<4>w\n<6>i\n<7>d\n");
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("w");
	assert_string_equal(logged(), "");
	for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
		static const char *const names[] = {"error", "warning", "info", "debug"};

		assert_true(log_parse_level(names[i], &level));
		assert_int_equal(level, i);
	}
	assert_false(log_parse_level("", &level));
	assert_false(log_parse_level("Error", &level));
	assert_false(log_parse_level("err", &level));
}

static void makes_control_characters_harmless(void **state)
{
	char text[5000];

	setenv("JOURNAL_STREAM", "8:1", 1);
	log_info("%s", "a\nb\rc\x1b[31md\x7f\te\x01");
	assert_string_equal(logged(), "<6>a?b?c?[31md??e?\n");
	/* A long line is cut, and is one line all the same. */
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_info("%s", text);
	assert_int_equal(lines_of(logged()), 1);
	log_info("after");
	assert_string_equal(logged(), "<6>after\n");
}

static void limits_lines(void **state)
{
	struct log_limit a = {0}, b = {0};

	setenv("JOURNAL_STREAM", "8:1", 1);
	for (int i = 0; i < 100; i++)
		log_limited(&a, LOG_LEVEL_INFO, "from a");
	assert_int_equal(lines_of(logged()), 10);
	/* Another source has its own allowance. */
	log_limited(&b, LOG_LEVEL_INFO, "from b");
	assert_string_equal(logged(), "<6>from b\n");
	/* What is below the level counts for nothing. */
	log_limited(&b, LOG_LEVEL_DEBUG, "hidden");
	assert_int_equal(b.lines, 1);
	/* Ten seconds later, as far as the limiter knows. */
	a.window_start_ns -= 11 * NSEC_PER_SEC;
	log_limited(&a, LOG_LEVEL_INFO, "again");
	assert_string_equal(logged(), "<6>90 similar lines left out\n<6>again\n");
	a.window_start_ns -= 11 * NSEC_PER_SEC;
	log_limited(&a, LOG_LEVEL_INFO, "and again");
	assert_string_equal(logged(), "<6>and again\n");
}

/* Of lengths around those at which it is done otherwise, from and to wherever. */
static void copies_each_byte_and_no_other(void **state)
{
	enum { MARGIN = 16, MOST = 3 * COPY_BULK_FROM };
	static uint8_t from[MOST + 2 * MARGIN], to[MOST + 2 * MARGIN], wanted[sizeof(to)];
	static const size_t lengths[] = {0, 1, COPY_BULK_FROM, 2 * COPY_BULK_FROM};

	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)(i * 7 + i / 251);
	for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++) {
		for (size_t at = 0; at < MARGIN * MARGIN; at++) {
			size_t here = at % MARGIN, there = at / MARGIN;
			size_t bytes = lengths[n] + at % 11 - (lengths[n] ? 1 : 0);

			memset(to, 0xee, sizeof(to));
			memset(wanted, 0xee, sizeof(wanted));
			for (size_t i = 0; i < bytes; i++)
				wanted[there + i] = from[here + i];
			copy_bulk(to + there, from + here, bytes);
			assert_memory_equal(to, wanted, sizeof(to));
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_numbers),
		cmocka_unit_test(parses_sizes),
		cmocka_unit_test(parses_cpumasks),
		cmocka_unit_test(parses_names),
		cmocka_unit_test(makes_texts_printable),
		cmocka_unit_test(sets_errors),
		cmocka_unit_test(knows_percentiles),
		cmocka_unit_test(knows_what_it_knows),
		cmocka_unit_test(has_a_bucket_for_all),
		cmocka_unit_test(has_parts_for_all),
		cmocka_unit_test(keeps_lists),
		cmocka_unit_test(copies_each_byte_and_no_other),
		cmocka_unit_test_setup_teardown(logs_by_level, catch_log, release_log),
		cmocka_unit_test_setup_teardown(makes_control_characters_harmless, catch_log,
						release_log),
		cmocka_unit_test_setup_teardown(limits_lines, catch_log, release_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
