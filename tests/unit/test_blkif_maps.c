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
static bool to_read; /* mapped for the CPU, which only reads */

static void *fake_map(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr,
		      bool writable)
{
	calls++;
	assert_int_equal(peer, PEER);
	assert_int_equal(nr, 1);
	assert_int_equal(writable, !to_read);
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

/* Mappings for devices: nothing is done before the flush. */
enum { STEPS_MAX = 4096 };
static struct dma_piece *starts[STEPS_MAX];
static uint32_t start_refs[STEPS_MAX], ends[STEPS_MAX];
static unsigned nr_starts, nr_ends, flushes;

static uint64_t bus_of(uint32_t ref)
{
	return (0x7000 + ref) * 4096ULL;
}

static void fake_dma_map(struct share *s, uint32_t peer, uint32_t ref, bool writable,
			 struct dma_piece *piece)
{
	calls++;
	assert_int_equal(peer, PEER);
	assert_true(writable);
	starts[nr_starts] = piece;
	start_refs[nr_starts++] = ref;
}

static void fake_dma_unmap(struct share *s, const struct dma_piece *piece)
{
	assert_int_equal(piece->bus, bus_of(piece->handle));
	ends[nr_ends++] = piece->handle;
}

static void fake_flush(struct share *s)
{
	flushes++;
	for (unsigned i = 0; i < nr_ends; i++) {
		assert_int_equal(mapped[ends[i]], 1);
		mapped[ends[i]]--;
	}
	for (unsigned i = 0; i < nr_starts; i++) {
		starts[i]->bus = refuse ? DMA_NO_BUS : bus_of(start_refs[i]);
		starts[i]->handle = start_refs[i];
		mapped[start_refs[i]] += !refuse;
	}
	nr_ends = nr_starts = 0;
}

static const struct share_ops ops = {
	.map = fake_map,
	.unmap = fake_unmap,
	.flush = fake_flush,
	.dma_map = fake_dma_map,
	.dma_unmap = fake_dma_unmap,
};
static struct share share = {.ops = &ops};
static struct blkif_guest guest;
static struct blkif_maps maps;
static bool for_devices;

static int setup(void **state)
{
	for_devices = *state;
	nr_starts = nr_ends = flushes = 0;
	memset(mapped, 0, sizeof(mapped));
	refuse = false;
	calls = 0;
	memset(&guest, 0, sizeof(guest));
	guest.maps.max = REFS;
	blkif_maps_init(&maps, &share, PEER, &guest,
			for_devices ? BLKIF_MAPS_FOR_DEVICES : BLKIF_MAPS_TO_WRITE);
	return 0;
}

static size_t used(void)
{
	return atomic_load(&guest.maps.used);
}

static int teardown(void **state)
{
	blkif_maps_fini(&maps);
	assert_int_equal(nr_ends, 0);
	for (unsigned i = 0; i < REFS; i++)
		if (mapped[i])
			return -1;
	return used() ? -1 : 0;
}

/* A page as its user has it, after the flush of its pass. */
static struct blkif_map *get(uint32_t ref, uint64_t now_ns)
{
	struct blkif_map *map = blkif_maps_get(&maps, ref, now_ns);

	if (for_devices)
		fake_flush(&share);
	return map;
}

static void use(uint32_t ref, uint64_t now_ns)
{
	struct blkif_map *map = get(ref, now_ns);

	assert_non_null(map);
	if (for_devices)
		assert_int_equal(map->piece.bus, bus_of(ref));
	else
		assert_ptr_equal(map->addr, &pages[ref]);
	blkif_maps_put(&maps, map, now_ns);
}

static void a_page_is_mapped_once(void **state)
{
	struct blkif_map *a = get(5, 1), *b = get(5, 1);

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
	struct blkif_map *held = get(0, 0);

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
			struct blkif_map *map = get(ref, round * 1000);

			if (!map)
				continue;
			found++;
			blkif_maps_put(&maps, map, round * 1000);
		}
	assert_true(found > asked * 9 / 10);
	assert_int_equal(calls, BLKIF_MAPS_MAX);
}

/* A table without pages has no memory, as it had at first, and can be used again. */
static void an_empty_table_takes_no_memory(void **state)
{
	for (unsigned round = 0; round < 2; round++) {
		struct blkif_map *held;

		assert_null(maps.chunks);
		assert_null(maps.buckets);
		for (uint32_t ref = 0; ref < 100; ref++)
			use(ref, 1);
		held = get(5, 1);
		assert_true(maps.nr_entries >= 100 && maps.nr_entries < BLKIF_MAPS_MAX);
		blkif_maps_expire(&maps, 10);
		assert_int_equal(maps.mapped, 1);
		assert_non_null(maps.chunks);
		blkif_maps_put(&maps, held, 2);
		blkif_maps_expire(&maps, 10);
		assert_int_equal(maps.mapped, 0);
	}
	assert_null(maps.chunks);
	assert_null(maps.buckets);
	assert_int_equal(maps.nr_entries, 0);
}

/* Nor has one whose pages cannot be mapped: nothing would expire, and so nothing be given back. */
static void pages_in_vain_take_no_memory(void **state)
{
	struct blkif_map *map;

	refuse = true;
	map = get(5, 0);
	assert_int_equal(map != NULL, for_devices);
	if (map)
		blkif_maps_put(&maps, map, 0);
	refuse = false;
	assert_int_equal(maps.mapped, 0);
	assert_null(maps.chunks);
	assert_null(maps.buckets);
	guest.maps.max = 0;
	assert_null(get(6, NSEC_PER_SEC));
	assert_null(maps.chunks);
	assert_null(maps.buckets);
	guest.maps.max = REFS;
	use(7, NSEC_PER_SEC);
	assert_int_equal(maps.mapped, 1);
}

/* All in use: one more is no error, but not to be had. */
static void a_full_table_says_no(void **state)
{
	static struct blkif_map *held[BLKIF_MAPS_MAX];

	for (uint32_t ref = 0; ref < BLKIF_MAPS_MAX; ref++)
		assert_non_null(held[ref] = get(ref, 0));
	assert_null(get(2000, 0));
	assert_int_equal(mapped[2000], 0);
	for (uint32_t ref = 0; ref < BLKIF_MAPS_MAX; ref++)
		blkif_maps_put(&maps, held[ref], 1);
	assert_null(get(2000, 2));
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
	struct blkif_map *held = get(9, 0);

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

/* What several requests of one pass name is mapped once, by the flush that they share. */
static void requests_of_a_pass_share_a_mapping(void **state)
{
	struct blkif_map *a = blkif_maps_get(&maps, 5, 1), *b = blkif_maps_get(&maps, 5, 1);
	struct blkif_map *c = blkif_maps_get(&maps, 6, 1);

	assert_ptr_equal(a, b);
	assert_int_equal(calls, 2);
	assert_int_equal(mapped[5], 0);
	fake_flush(&share);
	assert_int_equal(a->piece.bus, bus_of(5));
	assert_int_equal(c->piece.bus, bus_of(6));
	blkif_maps_put(&maps, a, 1);
	blkif_maps_put(&maps, b, 1);
	blkif_maps_put(&maps, c, 1);
	assert_int_equal(maps.mapped, 2);
}

static void what_is_only_read_is_mapped_to_read(void **state)
{
	struct blkif_map *map;

	to_read = true;
	blkif_maps_init(&maps, &share, PEER, &guest, BLKIF_MAPS_TO_READ);
	map = blkif_maps_get(&maps, 5, 1);
	to_read = false;
	assert_non_null(map);
	assert_ptr_equal(map->addr, &pages[5]);
	blkif_maps_put(&maps, map, 1);
}

/* However many pages a frontend has in turn for it, most of its quota is left to others. */
static void few_are_kept_to_be_read(void **state)
{
	blkif_maps_init(&maps, &share, PEER, &guest, BLKIF_MAPS_TO_READ);
	to_read = true;
	for (uint32_t ref = 1; ref <= BLKIF_MAPS_TO_READ_MAX; ref++)
		use(ref, ref);
	assert_null(blkif_maps_get(&maps, BLKIF_MAPS_TO_READ_MAX + 1, BLKIF_MAPS_TO_READ_MAX + 1));
	assert_int_equal(used(), BLKIF_MAPS_TO_READ_MAX);
	assert_int_equal(maps.mapped, BLKIF_MAPS_TO_READ_MAX);
	/* The one that was not used for longest makes room. */
	use(BLKIF_MAPS_TO_READ_MAX + 1, 2 * NSEC_PER_SEC);
	to_read = false;
	assert_int_equal(mapped[1], 0);
	assert_int_equal(used(), BLKIF_MAPS_TO_READ_MAX);
}

/* All that have a page which cannot be mapped learn it; nothing of it is left, and it costs a try
 * now and then. */
static void what_cannot_be_mapped_for_devices_is_forgotten(void **state)
{
	struct blkif_map *a, *b;

	use(1, 0);
	refuse = true;
	a = blkif_maps_get(&maps, 2, NSEC_PER_SEC);
	b = blkif_maps_get(&maps, 2, NSEC_PER_SEC);
	fake_flush(&share);
	refuse = false;
	assert_ptr_equal(a, b);
	assert_int_equal(a->piece.bus, DMA_NO_BUS);
	blkif_maps_put(&maps, a, NSEC_PER_SEC);
	/* Somebody has it still: nobody else gets it. */
	assert_null(blkif_maps_get(&maps, 2, 2 * NSEC_PER_SEC));
	blkif_maps_put(&maps, b, NSEC_PER_SEC);
	assert_int_equal(used(), 1);
	assert_int_equal(maps.mapped, 1);
	assert_null(blkif_maps_get(&maps, 2, NSEC_PER_SEC + 1));
	assert_int_equal(calls, 2);
	use(2, 2 * NSEC_PER_SEC);
	assert_int_equal(maps.mapped, 2);
}

/* Nobody else would flush the end of mappings outside of a pass. */
static void expiring_is_done_when_it_returns(void **state)
{
	use(1, 0);
	flushes = 0;
	blkif_maps_expire(&maps, 1);
	assert_int_equal(mapped[1], 0);
	assert_int_equal(flushes, 1);
	blkif_maps_expire(&maps, 1);
	assert_int_equal(flushes, 1);
}

#define in_cpu(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define in_devices(fn)                                                               \
	{                                                                            \
		.name = #fn ", for devices", .test_func = (fn), .setup_func = setup, \
		.teardown_func = teardown, .initial_state = &for_devices             \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_cpu(a_page_is_mapped_once),
		in_devices(a_page_is_mapped_once),
		in_cpu(the_least_recently_used_makes_room),
		in_devices(the_least_recently_used_makes_room),
		in_cpu(a_round_of_too_many_pages_does_not_thrash),
		in_devices(a_round_of_too_many_pages_does_not_thrash),
		in_cpu(an_empty_table_takes_no_memory),
		in_cpu(a_full_table_says_no),
		in_devices(an_empty_table_takes_no_memory),
		in_cpu(pages_in_vain_take_no_memory),
		in_devices(pages_in_vain_take_no_memory),
		in_devices(a_full_table_says_no),
		in_cpu(the_guests_quota_holds_over_queues),
		in_devices(the_guests_quota_holds_over_queues),
		in_cpu(what_is_idle_expires),
		in_devices(what_is_idle_expires),
		in_cpu(a_failure_is_not_tried_again_at_once),
		in_cpu(references_that_collide),
		in_devices(references_that_collide),
		in_cpu(what_is_only_read_is_mapped_to_read),
		in_cpu(few_are_kept_to_be_read),
		in_devices(requests_of_a_pass_share_a_mapping),
		in_devices(what_cannot_be_mapped_for_devices_is_forgotten),
		in_devices(expiring_is_done_when_it_returns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
