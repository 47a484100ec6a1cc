/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of indirect pages, over a share that counts and can refuse. */
#include "blkif/indirect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "fake_share.h"

enum { SETS = BLKIF_INDIRECT_SETS, WAYS = BLKIF_INDIRECT_WAYS };

static const struct share_ops ops = {.map = fake_map, .unmap = fake_unmap};
static struct share share = {.ops = &ops};
static struct blkif_guest guest;
static struct blkif_indirect in;

static int setup(void **state)
{
	fake_reset(false);
	memset(&guest, 0, sizeof(guest));
	guest.maps.max = REFS;
	blkif_indirect_init(&in, &share, PEER, &guest);
	return 0;
}

static size_t used(void)
{
	return atomic_load(&guest.maps.used);
}

static int teardown(void **state)
{
	blkif_indirect_fini(&in);
	return fake_is_unmapped() && !used() ? 0 : -1;
}

static void a_page_is_mapped_once(void **state)
{
	for (unsigned i = 0; i < 10; i++)
		assert_ptr_equal(blkif_indirect_get(&in, 5, i), &fake.pages[5]);
	assert_int_equal(fake.calls, 1);
	assert_int_equal(used(), 1);
	assert_int_equal(in.mapped, 1);
}

/* One page more than a set has places is not mapped as long as all others are in use. */
static void places_change_hands_slowly(void **state)
{
	uint32_t one_more = 5 + WAYS * SETS;
	uint64_t now = 10 * NSEC_PER_SEC;

	for (unsigned i = 0; i < WAYS; i++)
		assert_ptr_equal(blkif_indirect_get(&in, 5 + i * SETS, now + i),
				 &fake.pages[5 + i * SETS]);
	assert_null(blkif_indirect_get(&in, one_more, now + WAYS));
	assert_ptr_equal(blkif_indirect_get(&in, 6, now + WAYS), &fake.pages[6]);
	assert_int_equal(fake.calls, WAYS + 1);
	/* All of them are used again but one. */
	for (unsigned i = 0; i < WAYS; i++)
		if (i != 3)
			assert_non_null(
				blkif_indirect_get(&in, 5 + i * SETS, now + NSEC_PER_SEC / 2));
	assert_null(blkif_indirect_get(&in, one_more, now + NSEC_PER_SEC));
	assert_int_equal(fake.calls, WAYS + 1);
	assert_ptr_equal(blkif_indirect_get(&in, one_more, now + NSEC_PER_SEC + 4),
			 &fake.pages[one_more]);
	for (unsigned i = 0; i < WAYS; i++)
		assert_int_equal(fake.mapped[5 + i * SETS], i != 3);
	assert_int_equal(used(), WAYS + 1);
	assert_int_equal(in.mapped, WAYS + 1);
}

static void what_cannot_be_mapped_is_left_alone_for_a_while(void **state)
{
	uint64_t now = 10 * NSEC_PER_SEC;

	fake.refuse = true;
	assert_null(blkif_indirect_get(&in, 5, now));
	fake.refuse = false;
	assert_null(blkif_indirect_get(&in, 6, now + NSEC_PER_MSEC));
	assert_int_equal(fake.calls, 1);
	assert_int_equal(used(), 0);
	assert_non_null(blkif_indirect_get(&in, 6, now + NSEC_PER_SEC));
}

/* Nothing would expire, and so nothing be given back. */
static void what_cannot_be_mapped_takes_no_memory(void **state)
{
	uint64_t now = 10 * NSEC_PER_SEC;

	fake.refuse = true;
	assert_null(blkif_indirect_get(&in, 5, now));
	assert_null(in.pages);
	fake.refuse = false;
	assert_null(blkif_indirect_get(&in, 6, now + NSEC_PER_MSEC));
	assert_null(in.pages);
	guest.maps.max = 0;
	assert_null(blkif_indirect_get(&in, 6, now + NSEC_PER_SEC));
	assert_null(in.pages);
	guest.maps.max = 1;
	assert_non_null(blkif_indirect_get(&in, 6, now + 2 * NSEC_PER_SEC));
	/* One that is mapped stays, whatever becomes of others. */
	assert_null(blkif_indirect_get(&in, 7, now + 2 * NSEC_PER_SEC));
	assert_ptr_equal(blkif_indirect_get(&in, 6, now + 2 * NSEC_PER_SEC), &fake.pages[6]);
}

static void the_guest_has_a_quota(void **state)
{
	guest.maps.max = 1;
	assert_non_null(blkif_indirect_get(&in, 5, 1));
	assert_null(blkif_indirect_get(&in, 6, 1));
	assert_int_equal(fake.calls, 1);
	assert_int_equal(used(), 1);
	assert_non_null(blkif_indirect_get(&in, 5, 1));
}

static void what_is_not_used_expires(void **state)
{
	for (unsigned i = 0; i < 100; i++)
		assert_non_null(blkif_indirect_get(&in, i, 100 + i));
	assert_int_equal(in.mapped, 100);
	blkif_indirect_expire(&in, 110);
	assert_int_equal(in.mapped, 90);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(fake.mapped[i], i >= 10);
	assert_int_equal(used(), 90);
	blkif_indirect_expire(&in, 1000);
	assert_int_equal(used(), 0);
	assert_null(in.pages);
	assert_ptr_equal(blkif_indirect_get(&in, 7, 2000), &fake.pages[7]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_page_is_mapped_once, setup, teardown),
		cmocka_unit_test_setup_teardown(places_change_hands_slowly, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_mapped_is_left_alone_for_a_while,
						setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_mapped_takes_no_memory, setup,
						teardown),
		cmocka_unit_test_setup_teardown(the_guest_has_a_quota, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_used_expires, setup, teardown),
	};

	return cmocka_run_group_tests_name("blkif_indirect", tests, NULL, NULL);
}
