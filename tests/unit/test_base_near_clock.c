/* SPDX-License-Identifier: BSD-2-Clause */
/* The near clock, over a clock and a counter that do what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/near_clock.h"

enum { TICKS_PER_NS = 3 };

/* What a pace that was measured is off by. */
static const uint64_t near_ns = 100;

static uint64_t true_ns;
static unsigned looks;

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	assert_int_equal(id, CLOCK_MONOTONIC);
	t->tv_sec = (time_t)(true_ns / NSEC_PER_SEC);
	t->tv_nsec = (long)(true_ns % NSEC_PER_SEC);
	looks++;
	return 0;
}

static int setup(void **state)
{
	true_ns = 1000 * NSEC_PER_SEC;
	looks = 0;
	return 0;
}

/* Goes on for @ns, a microsecond at a time, with a counter that does @step in each. */
static void go_on(struct near_clock *c, uint64_t ns, uint64_t *ticks, uint64_t step, uint64_t lag)
{
	uint64_t last = 0, told;

	for (uint64_t end = true_ns + ns; true_ns < end; true_ns += NSEC_PER_USEC) {
		told = near_clock_tell_at(c, *ticks);
		assert_true(told >= last);
		assert_true(told <= true_ns + NEAR_CLOCK_WINDOW_NS);
		assert_true(told + lag >= true_ns);
		last = told;
		*ticks += step;
	}
}

static const uint64_t right_step = TICKS_PER_NS * NSEC_PER_USEC;

static void test_tells_time_with_few_looks(void **state)
{
	struct near_clock c = {0};
	uint64_t ticks = 12345, told;

	go_on(&c, 10 * NSEC_PER_MSEC, &ticks, right_step, near_ns);
	looks = 0;
	for (int i = 0; i < 1000000; i++) {
		told = near_clock_tell_at(&c, ticks);
		assert_in_range(told, true_ns - 100, true_ns + 100);
		true_ns += NSEC_PER_USEC;
		ticks += right_step;
	}
	/* One a window, and what rounding brings. */
	assert_in_range(looks, 990, 1010);
}

/* Until its pace is known, each answer is a look. */
static void test_looks_until_pace_is_known(void **state)
{
	struct near_clock c = {0};
	uint64_t ticks = 1;

	for (int i = 1; i <= 1000; i++) {
		assert_int_equal(near_clock_tell_at(&c, ticks), true_ns);
		assert_int_equal(looks, i);
		true_ns += NSEC_PER_USEC;
		ticks += right_step;
	}
}

/* It changes its pace, and that is found out, at the next look at the latest. */
static void test_counter_changes_pace(void **state)
{
	static const uint64_t paces[] = {
		0, 1, right_step / 10, right_step / 2, right_step * 2, right_step * 100};

	for (size_t i = 0; i < sizeof(paces) / sizeof(paces[0]); i++) {
		struct near_clock c = {0};
		uint64_t ticks = 1000;

		go_on(&c, 200 * NSEC_PER_MSEC, &ticks, right_step, near_ns);
		/* Looked at from time to time, it lags no longer than until then. */
		for (int j = 0; j < 200; j++) {
			go_on(&c, NEAR_CLOCK_WINDOW_NS, &ticks, paces[i], NEAR_CLOCK_WINDOW_NS);
			near_clock_look_at(&c, ticks);
		}
		/* The new pace is known by now, or it is looked at each time. */
		go_on(&c, NEAR_CLOCK_WINDOW_NS, &ticks, paces[i], near_ns);
		/* And back again, where what is left of the window may be a hundred of them. */
		go_on(&c, 400 * NSEC_PER_MSEC, &ticks, right_step, 100 * NEAR_CLOCK_WINDOW_NS);
		go_on(&c, NEAR_CLOCK_WINDOW_NS, &ticks, right_step, near_ns);
	}
}

static void test_counter_jumps(void **state)
{
	static const uint64_t to[] = {0, 1, 1000 * NSEC_PER_SEC, UINT64_MAX / 2,
				      UINT64_MAX - 10 * right_step};

	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		struct near_clock c = {0};
		uint64_t ticks = 1000000;

		go_on(&c, 201 * NSEC_PER_MSEC, &ticks, right_step, near_ns);
		ticks = to[i];
		assert_int_equal(near_clock_tell_at(&c, ticks), true_ns);
		go_on(&c, 400 * NSEC_PER_MSEC, &ticks, right_step, near_ns);
	}
}

static void test_pace_is_forgotten(void **state)
{
	struct near_clock c = {0};
	uint64_t ticks = 1;

	go_on(&c, 10 * NSEC_PER_MSEC, &ticks, right_step, near_ns);
	looks = 0;
	near_clock_forget_pace(&c);
	for (unsigned i = 1; i <= 1000; i++) {
		near_clock_tell_at(&c, ticks);
		assert_int_equal(looks, i);
		true_ns += NSEC_PER_USEC;
		ticks += right_step;
	}
}

/* The real counter and the real clock have to agree somewhere: here is what they are called. */
static void test_ticks_move(void **state)
{
	uint64_t before = near_clock_ticks(), after = before;

	for (int i = 0; i < 1000 && after == before; i++)
		after = near_clock_ticks();
	assert_true(after > before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_tells_time_with_few_looks, setup),
		cmocka_unit_test_setup(test_looks_until_pace_is_known, setup),
		cmocka_unit_test_setup(test_counter_changes_pace, setup),
		cmocka_unit_test_setup(test_counter_jumps, setup),
		cmocka_unit_test_setup(test_pace_is_forgotten, setup),
		cmocka_unit_test(test_ticks_move),
	};

	return cmocka_run_group_tests_name("base_near_clock", tests, NULL, NULL);
}
