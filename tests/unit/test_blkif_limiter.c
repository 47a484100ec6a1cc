/* SPDX-License-Identifier: BSD-2-Clause */
/* The limiter: what it lets through in simulated time, whatever the sizes and pauses. */
#include "blkif/limiter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

static struct blkif_limiter limiter;

static int setup(void **state)
{
	memset(&limiter, 0, sizeof(limiter));
	return 0;
}

/* Takes requests of @bytes as fast as allowed from @from_ns for @ns; returns how many. */
static uint64_t run(uint64_t from_ns, uint64_t ns, uint64_t bytes)
{
	uint64_t now_ns = from_ns, taken = 0;

	while (now_ns < from_ns + ns) {
		uint64_t wait_ns = blkif_limiter_wait_ns(&limiter, now_ns);

		if (wait_ns) {
			now_ns += wait_ns;
			continue;
		}
		blkif_limiter_charge(&limiter, 1, bytes, now_ns);
		taken++;
		now_ns += 10; /* a fast guest */
	}
	return taken;
}

static void assert_within(uint64_t value, uint64_t want, unsigned percent)
{
	assert_in_range(value, want - want * percent / 100, want + want * percent / 100);
}

static void without_limits_nothing_waits(void **state)
{
	assert_false(blkif_limiter_is_on(&limiter));
	blkif_limiter_charge(&limiter, UINT64_MAX, UINT64_MAX, NSEC_PER_SEC);
	assert_int_equal(blkif_limiter_wait_ns(&limiter, NSEC_PER_SEC), 0);
}

/* Over a long time the rate is the limit; what a burst adds is a tenth of a second's. */
static void requests_keep_to_their_limit(void **state)
{
	static const uint64_t rates[] = {1, 7, 100, 12345, 1000000};

	for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		blkif_limiter_set(&limiter, rates[i], 0);
		assert_true(blkif_limiter_is_on(&limiter));
		assert_within(run((i + 1) * 1000 * NSEC_PER_SEC, 100 * NSEC_PER_SEC, 4096),
			      rates[i] * 100, 2);
	}
}

static void bytes_keep_to_their_limit(void **state)
{
	static const uint64_t sizes[] = {512, 4096, 65536, 1 << 20};

	blkif_limiter_set(&limiter, 0, 10 << 20);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_within(run((i + 1) * 1000 * NSEC_PER_SEC, 100 * NSEC_PER_SEC, sizes[i]) *
				      sizes[i],
			      1000 << 20, 2);
}

static void the_tighter_limit_counts(void **state)
{
	blkif_limiter_set(&limiter, 1000, 1 << 20);
	assert_within(run(1000 * NSEC_PER_SEC, 100 * NSEC_PER_SEC, 512), 100000, 2);
	assert_within(run(5000 * NSEC_PER_SEC, 100 * NSEC_PER_SEC, 65536), 1600, 2);
}

/* However long a disk was idle, it may be ahead by no more than a tenth of a second. */
static void a_burst_is_bounded(void **state)
{
	blkif_limiter_set(&limiter, 1000, 0);
	assert_in_range(run(3600 * NSEC_PER_SEC, NSEC_PER_MSEC, 512), 100, 103);
}

/* The largest discard at the lowest rate is no way to wrap around, and a new limit forgets it. */
static void a_huge_charge_waits_long_and_is_forgotten(void **state)
{
	blkif_limiter_set(&limiter, 0, 1);
	blkif_limiter_charge(&limiter, 1, 1 << 30, NSEC_PER_SEC);
	assert_true(blkif_limiter_wait_ns(&limiter, NSEC_PER_SEC) > 3600 * NSEC_PER_SEC);
	blkif_limiter_set(&limiter, 0, 1 << 30);
	assert_int_equal(blkif_limiter_wait_ns(&limiter, NSEC_PER_SEC), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(without_limits_nothing_waits, setup),
		cmocka_unit_test_setup(requests_keep_to_their_limit, setup),
		cmocka_unit_test_setup(bytes_keep_to_their_limit, setup),
		cmocka_unit_test_setup(the_tighter_limit_counts, setup),
		cmocka_unit_test_setup(a_burst_is_bounded, setup),
		cmocka_unit_test_setup(a_huge_charge_waits_long_and_is_forgotten, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
