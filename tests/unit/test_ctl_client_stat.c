/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice stat`: rates, and how totals and rates look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "fake.h"
#include "sluice/stat.h"

/* Rates */

static json_t *iostat(json_int_t domid, json_int_t requests, json_int_t bytes, double avg)
{
	json_t *op = json_pack("{s:I, s:I, s:i, s:{s:f}}", "requests", requests, "bytes", bytes,
			       "errors", 1, "latency_ns", "avg", avg);

	return json_pack("[{s:I, s:s, s:i, s:s, s:s, s:i, s:o}]", "domid", domid, "domain", "g",
			 "devid", 51712, "vdev", "xvda", "bdev", "d", "in_flight", 2, "read", op);
}

static double rate(const json_t *rates, const char *op, const char *name)
{
	return json_number_value(
		json_object_get(json_object_get(json_array_get(rates, 0), op), name));
}

static bool about(double a, double b)
{
	return a - b < 1e-6 && b - a < 1e-6;
}

static void computes_rates(void **state)
{
	json_t *before = iostat(1, 100, 1000, 500.0), *now = iostat(1, 300, 9000, 700.0);
	json_t *other = iostat(2, 300, 9000, 700.0);
	json_t *rates = stat_rates(before, now, 2.0);

	assert_int_equal(json_array_size(rates), 1);
	assert_true(about(rate(rates, "read", "iops"), 100.0));
	assert_true(about(rate(rates, "read", "bytes_per_second"), 4000.0));
	assert_true(about(rate(rates, "read", "errors"), 0.0));
	/* 300 at 700 less 100 at 500, over 200. */
	assert_true(about(rate(rates, "read", "latency_ns_avg"), 800.0));
	assert_true(about(rate(rates, "write", "iops"), 0.0));
	assert_true(about(rate(rates, "write", "latency_ns_avg"), 0.0));
	json_decref(rates);
	/* Counters that went back are a new disk's. */
	rates = stat_rates(now, before, 2.0);
	assert_true(about(rate(rates, "read", "iops"), 50.0));
	assert_true(about(rate(rates, "read", "bytes_per_second"), 500.0));
	assert_true(about(rate(rates, "read", "errors"), 0.5 * 2));
	assert_true(about(rate(rates, "read", "latency_ns_avg"), 500.0));
	json_decref(rates);
	/* A disk that was not there before has no rate yet. */
	rates = stat_rates(before, other, 2.0);
	assert_int_equal(json_array_size(rates), 0);
	json_decref(rates);
	/* Without requests there is no latency. */
	rates = stat_rates(now, now, 2.0);
	assert_true(about(rate(rates, "read", "iops"), 0.0));
	assert_true(about(rate(rates, "read", "latency_ns_avg"), 0.0));
	json_decref(rates);
	json_decref(before);
	json_decref(now);
	json_decref(other);
}

/* Two disks: one busy with two queues, one of a guest that nobody hears of. */
static const char counted[] =
	"[{'domid': 1, 'domain': 'gu\\u001best', 'devid': 51712, 'vdev': 'xvda', 'bdev': 'disk',"
	" 'in_flight': 3,"
	" 'read': {'requests': 0, 'bytes': 0, 'errors': 1, 'latency_ns': {'avg': 1500,"
	"  'p50': 1000, 'p90': 1900, 'p99': 2000, 'p999': 3000, 'p9999': 4000000,"
	"  'max': 123456789}},"
	" 'write': {'requests': 80, 'bytes': 1610612736, 'errors': 0, 'latency_ns': {'avg': 20,"
	"  'p50': 10, 'p90': 30, 'p99': 40, 'p999': 50, 'p9999': 60, 'max': 70}},"
	" 'flush': {'requests': 0, 'bytes': 0, 'errors': 0, 'latency_ns': {}},"
	" 'discard': {'requests': 0, 'bytes': 0, 'errors': 0, 'latency_ns': {}},"
	" 'invalid': 7, 'share_errors': 2, 'parked': 1, 'throttled': 5, 'starved': 4,"
	" 'notifications': {'sent': 10, 'received': 4, 'received_empty': 1},"
	" 'shared_by': {'copy': {'requests': 3, 'bytes': 5120}, 'map': {'requests': 0, 'bytes': 0},"
	"  'dma': {'requests': 70, 'bytes': 73400320}},"
	" 'memory': {'bounce_pages': 12, 'mapped_pages': 34, 'map_hits': 199, 'map_misses': 1},"
	" 'guest': {'bounce_pages': 13, 'bounce_pages_max': 4096, 'mapped_pages': 35,"
	"  'mapped_pages_max': 1056},"
	" 'queues': ["
	"  {'queue': 0, 'reactor': 'reactor_0', 'in_flight': 1, 'read': {'requests': 6}},"
	"  {'queue': 1, 'reactor': 'reactor_1', 'in_flight': 2, 'invalid': 5,"
	"   'notifications': {'sent': 2}}]},"
	"{'domid': 2, 'domain': 'other', 'devid': 51712, 'vdev': 'xvda', 'bdev': 'b',"
	" 'in_flight': 0, 'guest': {}, 'queues': []}]";

static const char totals_xvda[] =
	"xvda of gu?est (domain 1), bdev disk: 3 in flight\n"
	"  OP       REQUESTS  BYTES  ERRORS  AVG/us  P50/us  P99/us  P99.9/us  P99.99/us    "
	"MAX/us\n"
	"  read           10    40K       1     1.5     1.0     2.0       3.0     4000.0  "
	"123456.8\n"
	"  write          80   1.5G       0     0.0     0.0     0.0       0.1        0.1       "
	"0.1\n"
	"  flush           0      0       0     0.0     0.0     0.0       0.0        0.0       "
	"0.0\n"
	"  discard         0      0       0     0.0     0.0     0.0       0.0        0.0       "
	"0.0\n"
	"  refused: 7 invalid requests, 2 whose pages could not be reached\n"
	"  waiting: 1 now for a device in error, 4 so far for memory; throttled 5 times\n"
	"  notifications: 10 sent (9.7 responses each), 4 received (24.2 requests each),"
	" 1 empty\n"
	"  data: 5K copied (3 requests), 0 mapped (0 requests), 70M mapped for the device (70"
	" requests)\n"
	"  memory: 12 bounce pages, 34 mapped pages (99.5% of 200 found mapped)\n"
	"  all disks of the guest: 13 of 4096 bounce pages, 35 of 1056 mapped pages\n"
	"\n";

#define NO_OPS                                                                                 \
	"  write           0      0       0     0.0     0.0     0.0       0.0        0.0     " \
	"0.0\n"                                                                                \
	"  flush           0      0       0     0.0     0.0     0.0       0.0        0.0     " \
	"0.0\n"                                                                                \
	"  discard         0      0       0     0.0     0.0     0.0       0.0        0.0     " \
	"0.0\n"
#define OPS                                                                                 \
	"  OP       REQUESTS  BYTES  ERRORS  AVG/us  P50/us  P99/us  P99.9/us  P99.99/us  " \
	"MAX/us\n"
#define NO_DATA                                                              \
	"  data: 0 copied (0 requests), 0 mapped (0 requests), 0 mapped for" \
	" the device (0 requests)\n"
#define NO_WAITING \
	"  waiting: 0 now for a device in error, 0 so far for memory; throttled 0 times\n"

static const char totals_queues[] =
	"xvda of gu?est, queue 0 on reactor_0: 1 in flight\n" OPS
	"  read            6      0       0     0.0     0.0     0.0       0.0        0.0     "
	"0.0\n" NO_OPS
	"  refused: 0 invalid requests, 0 whose pages could not be reached\n" NO_WAITING
	"  notifications: 0 sent, 0 received, 0 empty\n" NO_DATA
	"  memory: 0 bounce pages, 0 mapped pages\n"
	"\n"
	"xvda of gu?est, queue 1 on reactor_1: 2 in flight\n" OPS
	"  read            0      0       0     0.0     0.0     0.0       0.0        0.0     "
	"0.0\n" NO_OPS
	"  refused: 5 invalid requests, 0 whose pages could not be reached\n" NO_WAITING
	"  notifications: 2 sent (2.5 responses each), 0 received, 0 empty\n" NO_DATA
	"  memory: 0 bounce pages, 0 mapped pages\n"
	"\n";

static const char totals_other[] =
	"xvda of other (domain 2), bdev b: 0 in flight\n" OPS
	"  read            0      0       0     0.0     0.0     0.0       0.0        0.0     "
	"0.0\n" NO_OPS
	"  refused: 0 invalid requests, 0 whose pages could not be reached\n" NO_WAITING
	"  notifications: 0 sent, 0 received, 0 empty\n" NO_DATA
	"  memory: 0 bounce pages, 0 mapped pages\n"
	"  all disks of the guest: 0 of 0 bounce pages, 0 of 0 mapped pages\n";

static void shows_totals(void **state)
{
	char expected[8192];

	fake.iostat = counted;
	snprintf(expected, sizeof(expected), "%s%s", totals_xvda, totals_other);
	fake_expect("stat", 0, expected, "");
	fake.samples = 0;
	snprintf(expected, sizeof(expected), "%s%s%s", totals_xvda, totals_queues, totals_other);
	fake_expect("stat --queues", 0, expected, "");
	/* JSON is what the daemon says, all of it. */
	assert_int_equal(fake_run("stat --json"), 0);
	assert_non_null(strstr(fake.out, "\"p90\": 1900"));
	assert_non_null(strstr(fake.out, "\"reactor\": \"reactor_1\""));
}

static const char worker_counted[] =
	"[{'worker': 'w1', 'bdev': 'd', 'in_flight': 1, 'guest': {'bounce_pages': 1},"
	" 'queues': [{'queue': 0, 'reactor': 'r', 'in_flight': 1}]}]";

static const char totals_worker[] =
	"worker w1, bdev d: 1 in flight\n" OPS
	"  read            0      0       0     0.0     0.0     0.0       0.0        0.0     "
	"0.0\n" NO_OPS
	"  refused: 0 invalid requests, 0 whose pages could not be reached\n" NO_WAITING
	"  notifications: 0 sent, 0 received, 0 empty\n" NO_DATA
	"  memory: 0 bounce pages, 0 mapped pages\n"
	"  the worker: 1 of 0 bounce pages, 0 of 0 mapped pages\n";

static void shows_workers_beside_disks(void **state)
{
	char expected[8192];

	fake.iostat = counted;
	fake.worker_iostat = worker_counted;
	snprintf(expected, sizeof(expected), "%s%s\n%s", totals_xvda, totals_other, totals_worker);
	fake_expect("stat", 0, expected, "");
	/* Also where there is no Xen. */
	fake.iostat = NULL;
	fake_expect("stat", 0, totals_worker, "");
	assert_int_equal(fake_run("stat --queues"), 0);
	assert_non_null(strstr(fake.out, "\nworker w1, queue 0 on r: 1 in flight\n"));
	assert_int_equal(fake_run("stat --json"), 0);
	assert_non_null(strstr(fake.out, "\"worker\": \"w1\""));
	fake.worker_iostat = NULL;
	fake_expect("stat", 0, "", "");
}

static void shows_rates(void **state)
{
	double elapsed, seconds = 0.0;
	uint64_t start_ns;
	json_t *rates;

	fake.iostat = counted;
	/* A thousand requests a sample, however late a busy machine takes it. */
	start_ns = clock_now_ns();
	assert_int_equal(fake_run("stat --interval 1 --count 2 --json"), 0);
	elapsed = (double)(clock_now_ns() - start_ns) / 1e9;
	for (const char *line = fake.out; *line; line = strchr(line, '\n') + 1) {
		double own;

		rates = json_loadb(line, strcspn(line, "\n"), 0, NULL);
		own = json_number_value(json_object_get(json_array_get(rates, 0), "seconds"));
		seconds += own;
		assert_true(rate(rates, "read", "iops") * own > 999.9);
		assert_true(rate(rates, "read", "iops") * own < 1000.1);
		assert_true(about(rate(rates, "read", "latency_ns_avg"), 1500.0));
		json_decref(rates);
	}
	/* The samples follow each other without gap or overlap. */
	assert_true(seconds >= 2.0 && seconds <= elapsed);
	assert_int_equal(fake_run("stat --interval 1 --count 1"), 0);
	assert_non_null(strstr(fake.out, "OP     IOPS  BYTES/S  ERRORS  AVG/us\n"));
	assert_int_equal(fake_run("stat --interval 1 --count 1 --queues"), 0);
	assert_non_null(strstr(fake.out, "BDEV  QUEUE  IN-FLIGHT"));
}

static json_t *one_sample(unsigned factor, unsigned queue)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "[{'domid': 1, 'domain': 'g', 'devid': 51712, 'vdev': 'xvda', 'bdev': 'd',"
		 " 'in_flight': 2, 'read': {'requests': %u, 'bytes': %u},"
		 " 'write': {'requests': %u}, 'invalid': %u, 'throttled': %u,"
		 " 'notifications': {'sent': %u, 'received': %u, 'received_empty': %u},"
		 " 'queues': [{'queue': 5, 'reactor': 'r', 'in_flight': 9,"
		 " 'flush': {'requests': 1}}, {'queue': %u, 'reactor': 'r', 'in_flight': 1,"
		 " 'flush': {'requests': %u}, 'notifications': {'sent': %u}}]}]",
		 40 * factor, 4096 * factor, 6 * factor, 4 * factor, 3 * factor, 10 * factor,
		 5 * factor, factor, queue, 2 * factor, factor);
	return fake_json(text);
}

static void expect_rates(const json_t *before, const json_t *now, bool queues, const char *expected)
{
	json_t *rates = stat_rates(before, now, 2.0);
	size_t len;
	char *text;
	FILE *f = open_memstream(&text, &len);

	stat_print_rates(f, rates, queues);
	fclose(f);
	assert_string_equal(text, expected);
	free(text);
	json_decref(rates);
}

static void rates_cover_notifications_and_queues(void **state)
{
	json_t *one = one_sample(1, 0), *three = one_sample(3, 0), *moved = one_sample(3, 1);

	expect_rates(
		one, three, false,
		"DOMAIN  VDEV  BDEV  IN-FLIGHT  OP     IOPS  BYTES/S  ERRORS  AVG/us\n"
		"g       xvda  d             2  read     40       4K       0     0.0\n"
		"g       xvda  d             2  write     6        0       0     0.0\n"
		"    notifications/s: 10.0 sent (5.0 responses each), 5.0 received (10.0 requests"
		" each), 1.0 empty\n");
	expect_rates(
		one, three, true,
		"DOMAIN  VDEV  BDEV  QUEUE  IN-FLIGHT  OP     IOPS  BYTES/S  ERRORS  AVG/us\n"
		"g       xvda  d       all          2  read     40       4K       0     0.0\n"
		"g       xvda  d       all          2  write     6        0       0     0.0\n"
		"    notifications/s: 10.0 sent (5.0 responses each), 5.0 received (10.0 requests"
		" each), 1.0 empty\n"
		"g       xvda  d         5          9  read      0        0       0     0.0\n"
		"g       xvda  d         5          9  write     0        0       0     0.0\n"
		"g       xvda  d         0          1  read      0        0       0     0.0\n"
		"g       xvda  d         0          1  write     0        0       0     0.0\n"
		"g       xvda  d         0          1  flush     2        0       0     0.0\n");
	/* A disk that begins anew, and a queue that is new. */
	expect_rates(
		moved, one, true,
		"DOMAIN  VDEV  BDEV  QUEUE  IN-FLIGHT  OP     IOPS  BYTES/S  ERRORS  AVG/us\n"
		"g       xvda  d       all          2  read     20       2K       0     0.0\n"
		"g       xvda  d       all          2  write     3        0       0     0.0\n"
		"    notifications/s: 5.0 sent (5.0 responses each), 2.5 received (10.0 requests"
		" each), 0.5 empty\n"
		"g       xvda  d         5          9  read      0        0       0     0.0\n"
		"g       xvda  d         5          9  write     0        0       0     0.0\n"
		"g       xvda  d         0          1  read      0        0       0     0.0\n"
		"g       xvda  d         0          1  write     0        0       0     0.0\n"
		"g       xvda  d         0          1  flush     1        0       0     0.0\n");
	/* Nothing happened: nothing to divide by. */
	expect_rates(
		one, one, false,
		"DOMAIN  VDEV  BDEV  IN-FLIGHT  OP     IOPS  BYTES/S  ERRORS  AVG/us\n"
		"g       xvda  d             2  read      0        0       0     0.0\n"
		"g       xvda  d             2  write     0        0       0     0.0\n"
		"    notifications/s: 0.0 sent (0.0 responses each), 0.0 received (0.0 requests"
		" each), 0.0 empty\n");
	json_decref(one);
	json_decref(three);
	json_decref(moved);
}

static void rates_tell_workers_by_their_names(void **state)
{
	json_t *before = fake_json("[{'worker': 'w1', 'bdev': 'd', 'read': {'requests': 2}},"
				   " {'worker': 'w2', 'bdev': 'e', 'read': {'requests': 9}}]");
	json_t *now = fake_json("[{'worker': 'w2', 'bdev': 'e', 'read': {'requests': 19}},"
				" {'worker': 'w1', 'bdev': 'd', 'read': {'requests': 42}},"
				" {'worker': 'w3', 'bdev': 'f', 'read': {'requests': 1}}]");
	json_t *rates = stat_rates(before, now, 2.0), *first = json_array_get(rates, 0);

	assert_int_equal(json_array_size(rates), 2);
	assert_string_equal(json_string_value(json_object_get(first, "worker")), "w2");
	assert_null(json_object_get(first, "domid"));
	json_decref(rates);
	expect_rates(
		before, now, false,
		"DOMAIN  VDEV  BDEV  IN-FLIGHT  OP     IOPS  BYTES/S  ERRORS  AVG/us\n"
		"-       w2    e             0  read      5        0       0     0.0\n"
		"-       w2    e             0  write     0        0       0     0.0\n"
		"    notifications/s: 0.0 sent (0.0 responses each), 0.0 received (0.0 requests"
		" each), 0.0 empty\n"
		"-       w1    d             0  read     20        0       0     0.0\n"
		"-       w1    d             0  write     0        0       0     0.0\n"
		"    notifications/s: 0.0 sent (0.0 responses each), 0.0 received (0.0 requests"
		" each), 0.0 empty\n");
	json_decref(before);
	json_decref(now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
		cmocka_unit_test(computes_rates),
		cmocka_unit_test(rates_cover_notifications_and_queues),
		cmocka_unit_test(rates_tell_workers_by_their_names),
		WITH_SERVER(shows_totals),
		WITH_SERVER(shows_workers_beside_disks),
		WITH_SERVER(shows_rates),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
