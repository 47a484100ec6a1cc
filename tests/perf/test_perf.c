/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command sluice-perf, against a backend played by hand: what it reports, and that it finds
 * each way in which a disk can lose data.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "perf/perf.h"
#include "player.h"

enum { SEGMENT = 4 << 20, ARGS_MAX = 32 };

static struct player player;
static char *out, *err_out;
static size_t out_len, err_len;

static int begin(void **state)
{
	player_start(&player, SEGMENT);
	return 0;
}

static int end(void **state)
{
	player_end(&player);
	free(out);
	free(err_out);
	out = err_out = NULL;
	return 0;
}

/* Calls the command with @line, words between single blanks. */
static int call(const char *line)
{
	char copy[512], *words = copy, *argv[ARGS_MAX + 1] = {(char *)(uintptr_t) "sluice-perf"};
	FILE *o, *e;
	int argc = 1, status;

	snprintf(copy, sizeof(copy), "%s", line);
	while (argc < ARGS_MAX && (argv[argc] = strsep(&words, " ")))
		argc++;
	free(out);
	free(err_out);
	o = open_memstream(&out, &out_len);
	e = open_memstream(&err_out, &err_len);
	status = perf_main(argc, argv, o, e);
	fclose(o);
	fclose(e);
	return status;
}

/* The same, with the played backend as the disk. */
static int load(const char *line)
{
	char full[600], where[32];
	int status;

	player_where(&player, where, sizeof(where));
	snprintf(full, sizeof(full), "--port %s %s", where, line);
	player_serve(&player);
	status = call(full);
	player_leave(&player);
	return status;
}

static json_t *report(void)
{
	json_t *root = json_loads(out, 0, NULL);

	assert_non_null(root);
	return root;
}

static long number(json_t *root, const char *object, const char *key)
{
	json_t *value = object ? json_object_get(json_object_get(root, object), key)
			       : json_object_get(root, key);

	assert_true(json_is_number(value));
	return (long)json_number_value(value);
}

static void reports_what_was_done(void **state)
{
	static const struct {
		const char *args;
		long reads, writes, bytes;
	} cases[] = {
		{"--rw randread --size 400k", 100, 0, 409600},
		{"--rw write --size 400k --bs 512 --depth 5", 0, 800, 409600},
		{"--rw read --size 1M --bs 64k --depth 3", 16, 0, 1 << 20},
		{"--rw randread --size 1M --bs 20k --depth 2 --sleep", 51, 0, 51 * 20480},
		{"--rw randwrite --size 400k --layout x86_64 --queues 4", 0, 100, 409600},
		{"--rw randread --size 400k --queues 4 --cpumask 1", 100, 0, 409600},
		{"--rw randread --size 400k --queues 3 --cpumask 3", 102, 0, 102 * 4096},
		{"--rw randread --size 400k --queues 4 --cpumask 1 --sleep", 100, 0, 409600},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char line[200];
		json_t *root;

		player_end(&player);
		player_start(&player, SEGMENT);
		snprintf(line, sizeof(line), "--json %s", cases[i].args);
		assert_int_equal(load(line), 0);
		root = report();
		assert_int_equal(number(root, "read", "requests"), cases[i].reads);
		assert_int_equal(number(root, "write", "requests"), cases[i].writes);
		assert_int_equal(number(root, "read", "bytes") + number(root, "write", "bytes"),
				 cases[i].bytes);
		assert_int_equal(number(root, "read", "errors"), 0);
		assert_int_equal(atomic_load(&player.requests), cases[i].reads + cases[i].writes);
		json_decref(root);
	}
}

static void mixes_and_flushes(void **state)
{
	json_t *root;
	long reads, writes;

	assert_int_equal(load("--json --rw randrw --mix 30 --size 8M --flush-every 10"), 0);
	root = report();
	reads = number(root, "read", "requests");
	writes = number(root, "write", "requests");
	assert_int_equal(reads + writes + number(root, "flush", "requests"), 2048);
	/* 30% of some 1900, give or take. */
	assert_in_range(reads * 100 / (reads + writes), 25, 35);
	assert_in_range(number(root, "flush", "requests"), writes / 10 - 1, writes / 10);
	assert_int_equal(number(root, "flush", "requests"), (long)atomic_load(&player.flushes));
	json_decref(root);
}

static void runs_by_the_clock(void **state)
{
	json_t *root;

	assert_int_equal(load("--json --time 1 --depth 4"), 0);
	root = report();
	assert_in_range(number(root, NULL, "seconds"), 0, 3);
	assert_true(number(root, "read", "requests") > 100);
	assert_true(number(json_object_get(root, "read"), "latency_ns", "p50") > 0);
	json_decref(root);
}

static void *interrupt_soon(void *arg)
{
	while (!atomic_load(&player.requests))
		sched_yield();
	raise(SIGINT);
	return NULL;
}

/* What was done until then is reported, and the next interrupt is the caller's again. */
static void an_interrupt_ends_it(void **state)
{
	struct sigaction action;
	pthread_t thread;
	json_t *root;

	signal(SIGINT, SIG_IGN);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, NULL), 0);
	assert_int_equal(load("--json --time 600"), 0);
	pthread_join(thread, NULL);
	root = report();
	assert_true(number(root, "read", "requests") > 0);
	assert_in_range(number(root, NULL, "seconds"), 0, 60);
	json_decref(root);
	sigaction(SIGINT, NULL, &action);
	signal(SIGINT, SIG_DFL);
	assert_true(action.sa_handler == SIG_IGN);
}

static void reports_for_people(void **state)
{
	assert_int_equal(load("--size 40k --depth 2"), 0);
	assert_non_null(
		strstr(out, "randread of 4096 bytes, 1 queue of depth 2, layout line, polling"));
	assert_non_null(strstr(out, "\nread  "));
	assert_null(strstr(out, "\nwrite "));
	assert_string_equal(err_out, "");
}

/*
 * A write that went wrong is out of sight once another has followed it to the same place: where
 * places are random some have to go wrong for one to be seen.
 */
struct damage {
	enum player_fault fault;
	unsigned times;
	const char *name;
	const char *args;
};

static const struct damage damages[] = {
	{PLAYER_LOSES_WRITE, 1, "lost", "--rw write --size 1M"},
	{PLAYER_LOSES_WRITE, 30, "lost", "--rw randrw --mix 50 --size 8M --area 256k"},
	{PLAYER_READS_STALE, 1, "stale", "--rw randrw --mix 50 --size 8M --area 256k"},
	{PLAYER_READS_NOTHING, 1, "stale", "--rw randrw --mix 50 --size 8M --area 256k"},
	{PLAYER_TEARS_WRITE, 1, "torn", "--rw write --size 1M"},
	{PLAYER_TEARS_WRITE, 30, "torn", "--rw randrw --mix 50 --size 8M --area 256k"},
	{PLAYER_TEARS_WRITE, 1, "torn", "--rw write --size 1M --bs 2k --layout x86_64"},
	{PLAYER_MISPLACES_WRITE, 1, "misplaced", "--rw write --size 1M"},
	{PLAYER_MISPLACES_WRITE, 30, "misplaced", "--rw randrw --mix 50 --size 8M --area 256k"},
	{PLAYER_FLIPS_BIT, 1, "corrupt", "--rw randrw --mix 50 --size 8M --area 256k"},
};

static void verification_finds_each_damage(void **state)
{
	for (unsigned i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		for (int planted = 0; planted < 2; planted++) {
			char line[200];
			json_t *root, *v;
			int status;

			player_end(&player);
			player_start(&player, SEGMENT);
			player.fault = planted ? damages[i].fault : PLAYER_FAITHFUL;
			player.fault_times = damages[i].times;
			/* By then each block of the small areas is written. */
			player.fault_after = strstr(damages[i].args, "8M") ? 1000 : 50;
			snprintf(line, sizeof(line), "--json --verify --depth 8 %s",
				 damages[i].args);
			status = load(line);
			root = report();
			v = json_object_get(root, "verify");
			assert_true(number(v, NULL, "reads") > 20);
			if (status != planted || (player.failed > 0) != planted ||
			    (number(v, NULL, damages[i].name) > 0) != planted)
				fail_msg("%s, planted: %d, status %d: %s", damages[i].name, planted,
					 status, out);
			assert_int_equal(json_is_integer(json_object_get(v, "first_sector")),
					 planted);
			json_decref(root);
		}
	}
}

static void damage_is_told_to_people(void **state)
{
	player.fault = PLAYER_TEARS_WRITE;
	assert_int_equal(load("--verify --rw write --size 1M"), 1);
	assert_non_null(strstr(out, "1 torn; the first at sector 1\n"));
}

static void failures_are_counted(void **state)
{
	json_t *root;

	player.fault = PLAYER_FAILS;
	player.fault_after = 50;
	assert_int_equal(load("--json --verify --rw randwrite --size 1M"), 1);
	root = report();
	assert_int_equal(number(root, "write", "errors"), 1);
	/* A write that failed may be there or not: that is no damage. */
	assert_int_equal(number(root, "verify", "lost"), 0);
	assert_int_equal(number(root, "verify", "stale"), 0);
	json_decref(root);
}

static void a_backend_that_lies_ends_it(void **state)
{
	player.fault = PLAYER_WRONG_ID;
	player.fault_after = 10;
	assert_int_equal(load("--size 1M"), 1);
	assert_non_null(strstr(err_out, "queue 0: the backend broke the protocol: a response to no "
					"request"));
	assert_string_equal(out, "");
}

/* Two threads have two queues each; the other queues' requests are forgotten. */
static void the_queue_at_fault_is_named(void **state)
{
	char says[80];

	for (unsigned n = 0; n < PLAYER_QUEUES; n++) {
		player_end(&player);
		player_start(&player, SEGMENT);
		player.fault = PLAYER_WRONG_ID;
		player.fault_queue = n + 1;
		assert_int_equal(load("--size 1M --queues 4 --cpumask 3"), 1);
		snprintf(says, sizeof(says), "queue %u: the backend broke the protocol", n);
		if (!strstr(err_out, says))
			fail_msg("%u: %s", n, err_out);
	}
}

static void a_disk_that_goes_ends_it(void **state)
{
	for (int sleeps = 0; sleeps < 2; sleeps++) {
		const char *line = sleeps ? "--time 600 --sleep" : "--time 600";

		player.fault = PLAYER_CLOSING;
		player.fault_after = 1000;
		assert_int_equal(load(line), 1);
		assert_string_equal(err_out, "sluice-perf: the disk is being taken away\n");
		/* It said that it has finished. */
		assert_int_equal(player.page->backend.state, CONTROL_BACKEND_CLOSED);
		player_end(&player);
		player_start(&player, SEGMENT);
		player.fault = PLAYER_CLOSED;
		player.fault_after = 1000;
		assert_int_equal(load(line), 1);
		assert_string_equal(err_out, "sluice-perf: the disk is gone: closed by the "
					     "backend: enough\n");
		player_end(&player);
		player_start(&player, SEGMENT);
	}
}

/* Of 1000 requests 500 take longer than the median, 100 than p90 and only 10 than p99. */
static void percentiles_that_are_chance_are_not_told(void **state)
{
	json_t *root, *latency, *curve, *last;

	assert_int_equal(load("--json --cdf --rw write --size 4000k --depth 8"), 0);
	root = report();
	latency = json_object_get(json_object_get(root, "write"), "latency_ns");
	assert_true(json_is_integer(json_object_get(latency, "p50")));
	assert_true(json_is_integer(json_object_get(latency, "p90")));
	assert_true(json_is_null(json_object_get(latency, "p99")));
	assert_true(json_is_null(json_object_get(latency, "p99_9")));
	curve = json_object_get(latency, "cdf");
	assert_true(json_array_size(curve) > 0);
	for (size_t i = 1; i < json_array_size(curve); i++) {
		json_t *a = json_array_get(curve, i - 1), *b = json_array_get(curve, i);

		assert_true(json_integer_value(json_array_get(a, 0)) <
			    json_integer_value(json_array_get(b, 0)));
		assert_true(json_real_value(json_array_get(a, 1)) <
			    json_real_value(json_array_get(b, 1)));
	}
	last = json_array_get(curve, json_array_size(curve) - 1);
	assert_int_equal(json_integer_value(json_array_get(last, 0)),
			 json_integer_value(json_object_get(latency, "max")));
	assert_true(json_real_value(json_array_get(last, 1)) == 1);
	json_decref(root);

	player_end(&player);
	player_start(&player, SEGMENT);
	assert_int_equal(load("--rw write --size 4000k --depth 8"), 0);
	assert_non_null(strstr(out, "         -         - "));
}

static void limits_are_measured_in_turns(void **state)
{
	json_t *root;

	assert_int_equal(load("--json --time 1 --depth 8 --cpumask 1 --limits 1"), 0);
	root = report();
	assert_in_range(number(root, "limits", "round_trip_ns"), 10, 1000000);
	assert_true(number(root, "limits", "request_ns") > 0);
	assert_true(json_real_value(json_object_get(json_object_get(root, "limits"), "ratio")) > 0);
	assert_null(json_object_get(json_object_get(root, "limits"), "of_copy"));
	json_decref(root);

	player_end(&player);
	player_start(&player, SEGMENT);
	assert_int_equal(load("--json --time 1 --cpumask 1 --limits 1 --footprint 1M"), 0);
	root = report();
	assert_true(number(root, "limits", "copy_bytes_per_second") > 10000000);
	assert_true(json_real_value(json_object_get(json_object_get(root, "limits"), "of_copy")) >
		    0);
	json_decref(root);
}

static void limits_alone(void **state)
{
	json_t *root;

	assert_int_equal(call("limits --json --bs 4k --footprint 1M"), 0);
	root = report();
	assert_in_range(number(root, NULL, "round_trip_ns"), 10, 1000000);
	assert_true(number(root, "memcpy", "bytes_per_second") > 10000000);
	assert_int_equal(number(root, "memcpy", "block_bytes"), 4096);
	json_decref(root);
	assert_int_equal(call("limits --cpus 0,1023"), 1);
	assert_non_null(strstr(err_out, "cannot measure between cores 0 and 1023"));
}

/* What the disk cannot do is said before anything is done. */
static void wishes_that_the_disk_cannot_fulfil(void **state)
{
	static const struct {
		const char *args, *says;
		uint32_t features, sector_size;
	} cases[] = {
		{"--queues 5", "use --queues 4", 0, 512},
		{"--bs 132k", "at most 128 KiB", 0, 512},
		{"--bs 512", "sectors are of 4096", 0, 4096},
		{"--rw write", "read-only", CONTROL_READONLY, 512},
		{"--rw write --flush-every 3", "no flushes", 0, 512},
		{"--area 2M", "only 1048576 bytes", 0, 512},
		{"--rw rw --verify --area 256k", "too small an area", 0, 512},
		{"--bs 128k --depth 40", "segment is too small", 0, 512},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		player_end(&player);
		player_start(&player, SEGMENT);
		player.offer.features = cases[i].features;
		player.offer.sector_size = cases[i].sector_size;
		assert_int_equal(load(cases[i].args), 1);
		if (!strstr(err_out, cases[i].says))
			fail_msg("%s: %s", cases[i].args, err_out);
		assert_int_equal(atomic_load(&player.requests), 0);
	}
}

static void refusals_are_passed_on(void **state)
{
	player.refuses = true;
	strcpy(player.offer.error, "no such luck");
	assert_int_equal(load("--size 1M"), 1);
	assert_string_equal(err_out, "sluice-perf: cannot connect to the disk: refused: no such "
				     "luck\n");
}

static void wrong_calls_are_explained(void **state)
{
	static const struct {
		const char *line, *says;
	} cases[] = {
		{"--rw randomread", "--rw takes randread"},
		{"--mix 101", "--mix takes a number from 0 to 100"},
		{"--mix 30", "does not mix"},
		{"--bs 100", "--bs takes a multiple of 512"},
		{"--bs 4x", "--bs takes a number of bytes"},
		{"--bs 32M", "at most 16M"},
		{"--depth 0", "--depth takes a number from 1 to 512"},
		{"--depth 513", "--depth takes a number from 1 to 512"},
		{"--queues 64", "--queues takes a number from 1 to 63"},
		{"--time 5 --size 1M", "not both"},
		{"--time 0", "--time takes"},
		{"--verify", "--verify needs writes"},
		{"--layout x86_32", "--layout takes line or x86_64"},
		{"--cpumask zz", "--cpumask takes"},
		{"--limits 0", "--limits needs --cpumask"},
		{"--limits 0 --cpumask 1", "--limits takes the backend's core"},
		{"--limits 1 --cpumask 1 --size 1M", "--limits goes with --time"},
		{"--footprint 1M", "--footprint goes with --limits"},
		{"--limits 1 --cpumask 1 --footprint 7k", "--footprint has to have room"},
		{"--cdf", "--cdf goes with --json"},
		{"--worker ../x", "--worker takes"},
		{"--frobnicate", "bad option --frobnicate"},
		{"fast", "what is 'fast'?"},
		{"limits --cpus 1,1", "--cpus takes two cores"},
		{"limits --cpus 1", "--cpus takes two cores"},
		{"limits --footprint 64k", "--footprint has to have room"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(call(cases[i].line), 2);
		if (!strstr(err_out, cases[i].says))
			fail_msg("%s: %s", cases[i].line, err_out);
		assert_string_equal(out, "");
	}
	assert_int_equal(call("--worker no-such-worker-here"), 1);
	assert_non_null(strstr(err_out, "nobody listens at"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(reports_what_was_done),
		TEST(mixes_and_flushes),
		TEST(runs_by_the_clock),
		TEST(an_interrupt_ends_it),
		TEST(reports_for_people),
		TEST(verification_finds_each_damage),
		TEST(damage_is_told_to_people),
		TEST(failures_are_counted),
		TEST(a_backend_that_lies_ends_it),
		TEST(the_queue_at_fault_is_named),
		TEST(a_disk_that_goes_ends_it),
		TEST(percentiles_that_are_chance_are_not_told),
		TEST(limits_are_measured_in_turns),
		TEST(limits_alone),
		TEST(wishes_that_the_disk_cannot_fulfil),
		TEST(refusals_are_passed_on),
		TEST(wrong_calls_are_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
