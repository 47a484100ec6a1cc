/* SPDX-License-Identifier: BSD-2-Clause */
/* Mapping granted pages: all of a call or none, as asked, and no more than a process can bear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "double.h"
#include "grant/map.h"

enum {
	GUEST = 7,
	PAGES = 250,
	/* What src/grant/map.c allows, of 65530 that Linux gives a process. */
	BOUND = 32768,
};

static struct grant_mapper *mapper, *other;
static char *pages;
static uint32_t refs[PAGES];

static int setup(void **state)
{
	struct err err;

	double_init();
	double_domain_create(GUEST, "guest");
	pages = double_pages_alloc(GUEST, PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		refs[i] = double_grant(GUEST, pages + (size_t)i * 4096, 0, i == PAGES - 1);
		memset(pages + (size_t)i * 4096, (int)i, 4096);
	}
	return grant_mapper_create(&mapper, &err) || grant_mapper_create(&other, &err);
}

static int teardown(void **state)
{
	unsigned leaks;

	grant_mapper_destroy(mapper);
	grant_mapper_destroy(other);
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(double_revoke(GUEST, refs[i]), 0);
	double_pages_free(GUEST, pages, PAGES);
	leaks = double_leaks();
	double_fini();
	return leaks ? -1 : 0;
}

static void pages_follow_each_other(void **state)
{
	static const uint32_t some[] = {3, 1, 4, 1, 5};
	uint32_t list[5];
	unsigned char *addr;

	for (unsigned i = 0; i < 5; i++)
		list[i] = refs[some[i]];
	addr = grant_mapper_map(mapper, GUEST, list, 5, true);
	assert_non_null(addr);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(addr[i * 4096 + 17], some[i]);
	addr[4096] = 99;
	assert_int_equal(pages[4096], 99);
	grant_mapper_unmap(mapper, addr, 5);
	assert_false(double_grant_is_mapped(GUEST, refs[1]));
}

static void one_bad_reference_is_enough(void **state)
{
	uint32_t list[3] = {refs[0], 3999, refs[1]};
	void *addr;

	assert_null(grant_mapper_map(mapper, GUEST, list, 3, false));
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
	assert_null(grant_mapper_map(mapper, GUEST, &refs[PAGES - 1], 1, true));
	addr = grant_mapper_map(mapper, GUEST, &refs[PAGES - 1], 1, false);
	assert_non_null(addr);
	grant_mapper_unmap(mapper, addr, 1);
}

/* Guests together cannot take all that Linux lets a process map; what is given back can be had. */
static void there_is_a_bound_over_all(void **state)
{
	static void *addrs[BOUND];

	for (unsigned i = 0; i < BOUND; i++) {
		addrs[i] = grant_mapper_map(i & 1 ? mapper : other, GUEST, &refs[i % (PAGES - 1)],
					    1, true);
		if (!addrs[i])
			fail_msg("mapping %u was refused", i);
	}
	assert_null(grant_mapper_map(mapper, GUEST, refs, 1, true));
	assert_null(grant_mapper_map(other, GUEST, refs, 1, true));
	grant_mapper_unmap(other, addrs[0], 1);
	addrs[0] = grant_mapper_map(other, GUEST, refs, 1, true);
	assert_non_null(addrs[0]);
	assert_null(grant_mapper_map(mapper, GUEST, refs, 1, true));
	for (unsigned i = 0; i < BOUND; i++)
		grant_mapper_unmap(i & 1 ? mapper : other, addrs[i], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pages_follow_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(one_bad_reference_is_enough, setup, teardown),
		cmocka_unit_test_setup_teardown(there_is_a_bound_over_all, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
