/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of persistent mappings, over a share that counts and can refuse. */
#include "blkif/maps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

enum { REFS = 4096, PEER = 7 };

static char pages[REFS]; /* a byte stands for a page: only its address counts */
static unsigned mapped[REFS];
static unsigned calls;
static bool refuse;

static void *fake_map(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr,
		      bool writable)
{
	calls++;
	assert_int_equal(peer, PEER);
	assert_int_equal(nr, 1);
	assert_true(writable);
	if (refuse)
		return NULL;
	mapped[refs[0]]++;
	return &pages[refs[0]];
}

static void fake_unmap(struct share *s, void *addr, unsigned nr)
{
	assert_int_equal(nr, 1);
	assert_int_equal(mapped[(char *)addr - pages], 1);
	mapped[(char *)addr - pages]--;
}

static const struct share_ops ops = {.map = fake_map, .unmap = fake_unmap};
static struct share share = {.ops = &ops};
static struct blkif_guest guest;
static struct blkif_maps maps;

static int setup(void **state)
{
	memset(mapped, 0, sizeof(mapped));
	refuse = false;
	calls = 0;
	memset(&guest, 0, sizeof(guest));
	guest.maps.max = REFS;
	return blkif_maps_init(&maps, &share, PEER, &guest);
}

static size_t used(void)
{
	return atomic_load(&guest.maps.used);
}

static int teardown(void **state)
{
	blkif_maps_fini(&maps);
	for (unsigned i = 0; i < REFS; i++)
		if (mapped[i])
			return -1;
	return used() ? -1 : 0;
}

static void use(uint32_t ref, uint64_t now_ns)
{
	struct blkif_map *map = blkif_maps_get(&maps, ref, now_ns);

	assert_non_null(map);
	assert_ptr_equal(map->addr, &pages[ref]);
	blkif_maps_put(&maps, map, now_ns);
}

static void a_page_is_mapped_once(void **state)
{
	struct blkif_map *a = blkif_maps_get(&maps, 5, 1), *b = blkif_maps_get(&maps, 5, 1);

	assert_non_null(a);
	assert_ptr_equal(a, b);
	blkif_maps_put(&maps, a, 2);
	blkif_maps_put(&maps, b, 3);
	use(5, 4);
	assert_int_equal(calls, 1);
	assert_int_equal(maps.hits, 2);
	assert_int_equal(maps.misses, 1);
	assert_int_equal(maps.mapped, 1);
	assert_int_equal(used(), 1);
}

/* The table is full: what was not used for longest makes room, what is in use does not. */
static void the_least_recently_used_makes_room(void **state)
{
	const uint64_t s = NSEC_PER_SEC;
	struct blkif_map *held = blkif_maps_get(&maps, 0, 0);

	for (uint32_t ref = 1; ref < BLKIF_MAPS_MAX; ref++)
		use(ref, ref * s);
	use(1, BLKIF_MAPS_MAX * s);
	assert_int_equal(maps.mapped, BLKIF_MAPS_MAX);
	use(2000, (BLKIF_MAPS_MAX + 1) * s);
	assert_int_equal(maps.mapped, BLKIF_MAPS_MAX);
	assert_int_equal(mapped[0], 1);
	assert_int_equal(mapped[1], 1);
	assert_int_equal(mapped[2], 0);
	assert_int_equal(mapped[2000], 1);
	blkif_maps_put(&maps, held, (BLKIF_MAPS_MAX + 2) * s);
}

/* Going round more pages than fit, most are found mapped, and few calls are made. */
static void a_round_of_too_many_pages_does_not_thrash(void **state)
{
	unsigned found = 0, asked = 0;

	for (unsigned round = 0; round < 100; round++)
		for (uint32_t ref = 0; ref < BLKIF_MAPS_MAX + 50; ref++, asked++) {
			struct blkif_map *map = blkif_maps_get(&maps, ref, round * 1000);

			if (!map)
				continue;
			found++;
			blkif_maps_put(&maps, map, round * 1000);
		}
	assert_true(found > asked * 9 / 10);
	assert_int_equal(calls, BLKIF_MAPS_MAX);
}

/* All in use: one more is no error, but not to be had. */
static void a_full_table_says_no(void **state)
{
	static struct blkif_map *held[BLKIF_MAPS_MAX];

	for (uint32_t ref = 0; ref < BLKIF_MAPS_MAX; ref++)
		assert_non_null(held[ref] = blkif_maps_get(&maps, ref, 0));
	assert_null(blkif_maps_get(&maps, 2000, 0));
	assert_int_equal(mapped[2000], 0);
	for (uint32_t ref = 0; ref < BLKIF_MAPS_MAX; ref++)
		blkif_maps_put(&maps, held[ref], 1);
	assert_null(blkif_maps_get(&maps, 2000, 2));
	use(2000, NSEC_PER_SEC + 1);
}

static void the_guests_quota_holds_over_queues(void **state)
{
	guest.maps.max = 10;
	atomic_store(&guest.maps.used, 7); /* by other queues */
	for (uint32_t ref = 0; ref < 20; ref++)
		use(ref, ref * NSEC_PER_SEC);
	assert_int_equal(maps.mapped, 3);
	assert_int_equal(used(), 10);
	atomic_store(&guest.maps.used, 3);
}

static void what_is_idle_expires(void **state)
{
	struct blkif_map *held = blkif_maps_get(&maps, 9, 0);

	use(1, 100);
	use(2, 200);
	use(3, 300);
	blkif_maps_expire(&maps, 200);
	assert_int_equal(mapped[1], 0);
	assert_int_equal(mapped[2], 1);
	assert_int_equal(mapped[3], 1);
	blkif_maps_expire(&maps, UINT64_MAX);
	assert_int_equal(maps.mapped, 1);
	assert_int_equal(mapped[9], 1);
	blkif_maps_put(&maps, held, 400);
}

/* A host without mappings, or a guest with bad references, costs a call now and then. */
static void a_failure_is_not_tried_again_at_once(void **state)
{
	use(1, 0);
	refuse = true;
	assert_null(blkif_maps_get(&maps, 2, NSEC_PER_SEC));
	assert_int_equal(used(), 1);
	refuse = false;
	for (unsigned i = 0; i < 100; i++)
		assert_null(blkif_maps_get(&maps, 3, NSEC_PER_SEC + i));
	assert_int_equal(calls, 2);
	use(1, NSEC_PER_SEC);
	use(3, 2 * NSEC_PER_SEC);
	assert_int_equal(maps.mapped, 2);
}

/* References of one bucket are told apart, and can go in any order. */
static void references_that_collide(void **state)
{
	for (uint32_t ref = 11; ref < REFS; ref += 1024)
		use(ref, ref);
	assert_int_equal(maps.mapped, 4);
	use(11, REFS);
	blkif_maps_expire(&maps, REFS);
	assert_int_equal(maps.mapped, 1);
	assert_int_equal(mapped[11], 1);
	use(1035, REFS);
	assert_int_equal(maps.mapped, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_page_is_mapped_once, setup, teardown),
		cmocka_unit_test_setup_teardown(the_least_recently_used_makes_room, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_round_of_too_many_pages_does_not_thrash, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_full_table_says_no, setup, teardown),
		cmocka_unit_test_setup_teardown(the_guests_quota_holds_over_queues, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_idle_expires, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failure_is_not_tried_again_at_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(references_that_collide, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
