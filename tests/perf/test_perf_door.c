/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sluice-perf over the second door itself: the whole way of a request, verified, in each layout and
 * manner of waiting, alone and beside others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../door/stage.h"
#include "perf/perf.h"

enum { ARGS_MAX = 32 };

struct outcome {
	int status;
	json_t *report; /* NULL: there was none */
	char *err;
};

static struct outcome call(const char *worker, const char *line)
{
	char copy[512], *words = copy, *argv[ARGS_MAX + 1] = {(char *)(uintptr_t) "sluice-perf"};
	struct outcome result = {0};
	size_t out_len, err_len;
	json_t *entry = stage_list(worker);
	FILE *o, *e;
	char *out;
	int argc = 1;

	snprintf(copy, sizeof(copy), "--json --socket %s %s",
		 json_string_value(json_object_get(entry, "socket")), line);
	json_decref(entry);
	while (argc < ARGS_MAX && (argv[argc] = strsep(&words, " ")))
		argc++;
	o = open_memstream(&out, &out_len);
	e = open_memstream(&result.err, &err_len);
	result.status = perf_main(argc, argv, o, e);
	fclose(o);
	fclose(e);
	result.report = json_loads(out, 0, NULL);
	free(out);
	return result;
}

static void end(struct outcome *result)
{
	json_decref(result->report);
	free(result->err);
}

static json_int_t number(json_t *report, const char *object, const char *key)
{
	json_t *value = json_object_get(json_object_get(report, object), key);

	assert_true(json_is_integer(value));
	return json_integer_value(value);
}

static void data_is_what_was_written(void **state)
{
	static const struct {
		const char *line;
		enum sivshm_door_sharing sharing;
	} cases[] = {
		{"--rw randrw --size 32M", SIVSHM_DOOR_SHARING_AUTO},
		{"--rw randrw --size 32M --layout x86_64", SIVSHM_DOOR_SHARING_COPY},
		{"--rw rw --mix 50 --size 32M --bs 20k --depth 5", SIVSHM_DOOR_SHARING_MAP},
		{"--rw randrw --size 64M --bs 100k --depth 8", SIVSHM_DOOR_SHARING_AUTO},
		{"--rw randrw --size 8M --bs 512 --depth 128 --sleep", SIVSHM_DOOR_SHARING_AUTO},
		{"--rw randrw --size 32M --queues 2 --flush-every 20", SIVSHM_DOOR_SHARING_AUTO},
		{"--rw randwrite --size 32M --bs 2k --depth 1", SIVSHM_DOOR_SHARING_COPY},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char line[200], name[8];
		struct outcome result;

		snprintf(name, sizeof(name), "w%u", i);
		stage_add((struct sivshm_door_worker){.name = name,
						      .bdev = "ram",
						      .sharing = cases[i].sharing,
						      .max_queues = 2,
						      .segment_bytes = 64 << 20});
		snprintf(line, sizeof(line), "--verify %s", cases[i].line);
		result = call(name, line);
		if (result.status)
			fail_msg("%s: %s", line, result.err);
		assert_true(number(result.report, "verify", "reads") > 100);
		assert_int_equal(number(result.report, "write", "errors"), 0);
		end(&result);
		stage_remove(name, false);
		stage_wait_removed();
	}
}

/* A disk that keeps nothing is found out. */
static void null_loses_everything(void **state)
{
	struct outcome result;

	stage_add((struct sivshm_door_worker){.name = "w", .bdev = "null"});
	result = call("w", "--verify --rw write --size 1M --area 1M");
	assert_int_equal(result.status, 1);
	assert_int_equal(number(result.report, "verify", "lost"), 256);
	assert_int_equal(number(result.report, "verify", "first_sector"), 0);
	end(&result);
}

/* One frontend after the other; each leaves the worker free for the next. */
static void one_follows_another(void **state)
{
	stage_add((struct sivshm_door_worker){.name = "w", .bdev = "null"});
	for (int i = 0; i < 5; i++) {
		struct outcome result = call("w", "--size 4M");

		if (result.status)
			fail_msg("%s", result.err);
		assert_int_equal(number(result.report, "read", "requests"), 1024);
		end(&result);
	}
}

static void what_the_worker_is_not_is_said(void **state)
{
	struct outcome result;

	stage_add((struct sivshm_door_worker){.name = "w", .bdev = "null", .readonly = true});
	result = call("w", "--rw write --size 1M");
	assert_int_equal(result.status, 1);
	assert_non_null(strstr(result.err, "the disk is read-only"));
	end(&result);
	result = call("w", "--bs 1M --depth 32 --size 1M");
	assert_int_equal(result.status, 1);
	assert_non_null(strstr(result.err, "the segment is too small"));
	end(&result);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)
	const struct CMUnitTest tests[] = {
		TEST(data_is_what_was_written),
		TEST(null_loses_everything),
		TEST(one_follows_another),
		TEST(what_the_worker_is_not_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
