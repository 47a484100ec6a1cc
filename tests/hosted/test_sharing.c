/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's pages: how each way of reaching them treats them, and what they keep for themselves.
 */
#include "trial.h"

#include <errno.h>
#include <string.h>

static void connect_way(const struct guest_opts *opts)
{
	world_connect_disk(&(struct disk_opts){.target = "disk"}, opts);
}

static bool key_is(const char *key, const char *value)
{
	return disk_key_is(&world.guest.disk, world.guest.disk.back, key, value);
}

static void persistent_is_offered_where_mappings_persist(void **state)
{
	connect_way(&(struct guest_opts){0});
	assert_true(
		key_is("feature-persistent", guest_way->options[0] || guest_way->dma ? "1" : "0"));
}

/* What domain 0 maps of one page, beside the responses that are there at that time. */
struct watch {
	uint32_t ref; /* of the page */
	unsigned maps, unmaps;
	bool writable;
	uint32_t answers_at_unmap;
};

static void watch_map(void *arg, bool map, unsigned domid, uint32_t ref, bool writable)
{
	struct watch *w = arg;

	if (ref != w->ref)
		return;
	if (map) {
		w->maps++;
		w->writable = writable;
		return;
	}
	w->unmaps++;
	w->answers_at_unmap = atomic_load(&front_sring(world.guest.front)->rsp_prod);
}

static struct watch run_watched(uint8_t op, unsigned nr, uint32_t *answers_before)
{
	struct watch w;
	struct trial t;

	trial_init(&t, op, nr, 0);
	t.req.indirect = nr > 11;
	w = (struct watch){.ref = t.pages[nr - 1].ref};
	*answers_before = atomic_load(&front_sring(world.guest.front)->rsp_prod);
	double_on_map(watch_map, &w);
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	double_on_map(NULL, NULL);
	trial_fini(&t);
	return w;
}

/* A frontend that finds its page in use after the response gives the disk up. */
static void pages_are_let_go_before_the_response(void **state)
{
	uint32_t before;

	connect_way(&(struct guest_opts){0});
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		for (unsigned nr = 1; nr < 32; nr += 10) {
			struct watch w = run_watched(op, nr, &before);

			assert_int_equal(w.maps, 1);
			assert_int_equal(w.unmaps, 1);
			assert_int_equal(w.answers_at_unmap, before);
		}
	}
}

static void what_is_only_read_is_mapped_read_only(void **state)
{
	uint32_t before;

	connect_way(&(struct guest_opts){0});
	assert_false(run_watched(BLKIF_WRITE, 3, &before).writable);
	assert_false(run_watched(BLKIF_WRITE, 20, &before).writable);
	assert_true(run_watched(BLKIF_READ, 3, &before).writable);
}

static void copied_pages_are_never_mapped(void **state)
{
	uint32_t before;

	connect_way(&(struct guest_opts){0});
	assert_int_equal(run_watched(BLKIF_WRITE, 20, &before).maps, 0);
	assert_int_equal(run_watched(BLKIF_READ, 3, &before).maps, 0);
}

/* Mapped once however often it is used, until the end. */
static void persistent_pages_are_mapped_once(void **state)
{
	struct double_grant_use use;
	struct trial t;

	connect_way(&(struct guest_opts){0});
	trial_init(&t, BLKIF_WRITE, 1, 0);
	for (unsigned i = 0; i < 100; i++) {
		t.req.op = i % 2 ? BLKIF_READ : BLKIF_WRITE;
		t.req.sector = i;
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	}
	double_grant_get_use(WORLD_GUEST, t.pages[0].ref, &use);
	assert_int_equal(use.maps, 1);
	assert_int_equal(use.mapped, 1);
	assert_int_equal(world_stat("memory", "mapped_pages"), 1);
	assert_int_equal(world_stat("memory", "map_hits"), 99);
	assert_true(guest_close(&world.guest));
	double_grant_get_use(WORLD_GUEST, t.pages[0].ref, &use);
	assert_int_equal(use.mapped, 0);
	assert_int_equal(double_revoke(WORLD_GUEST, t.pages[0].ref), 0);
	t.pages[0].ref = 0;
	trial_fini(&t);
}

/* Data and segments, whose pages a frontend may grant read-only. */
static void persistent_pages_of_indirect_requests_are_mapped_once(void **state)
{
	struct double_stats before, after;
	struct trial t;

	connect_way(&(struct guest_opts){0});
	trial_init(&t, BLKIF_WRITE, 32, 0);
	double_get_stats(&before);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	double_get_stats(&after);
	/* And a page of segments for each of the ring's places at most, as its frontend has it. */
	assert_in_range(after.maps - before.maps, 32 + 1, 32 + 32);
	assert_int_equal(after.copy_segments, before.copy_segments);
	assert_int_equal(world_stat("shared_by/map", "requests"), 100);
	assert_int_equal(world_stat("shared_by/copy", "requests"), 0);
	trial_fini(&t);
}

/* Sectors of a page that no segment names stay as they are, and so does the disk beside them. */
static void only_the_named_sectors_are_touched(void **state)
{
	struct trial t;

	connect_way(&(struct guest_opts){0});
	for (unsigned first = 0; first < 8; first++) {
		for (unsigned last = first; last < 8; last++) {
			memset(held_data(world.disk), 'd', 2 * TRIAL_PAGE);
			trial_init(&t, BLKIF_READ, 2, 0);
			t.segments[1].first_sect = (uint8_t)first;
			t.segments[1].last_sect = (uint8_t)last;
			assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
			for (unsigned s = 0; s < 8; s++) {
				unsigned char c = s >= first && s <= last ? 'd' : 'p';

				assert_int_equal(t.pages[1].data[s * 512], c);
				assert_int_equal(t.pages[1].data[s * 512 + 511], c);
			}
			memset(t.pages[0].data, 'p', TRIAL_PAGE);
			memset(t.pages[1].data, 'p', TRIAL_PAGE);
			t.req.op = BLKIF_WRITE;
			assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
			for (unsigned s = 0; s < 16; s++)
				assert_int_equal(held_data(world.disk)[s * 512],
						 s < 8 + last - first + 1 ? 'p' : 'd');
			trial_fini(&t);
		}
	}
}

/* Whatever stands against mapping, the guest does not notice. */
static void what_cannot_be_mapped_is_copied(void **state)
{
	struct double_stats before, after;

	connect_way(&(struct guest_opts){0});
	double_get_stats(&before);
	double_limit_maps((unsigned)before.mapped);
	world_run_load(&(struct load_opts){.max_segments = 32}, 500);
	double_get_stats(&after);
	assert_int_equal(after.maps, before.maps);
	assert_true(after.copy_segments > before.copy_segments);
	assert_int_equal(after.copy_bad_args, 0);
	assert_int_equal(world_stat(NULL, "share_errors"), 0);
}

static void now_and_then_mapping_fails(void **state)
{
	struct double_stats before, after;

	connect_way(&(struct guest_opts){0});
	double_get_stats(&before);
	double_limit_maps((unsigned)before.mapped + 40);
	world_run_load(&(struct load_opts){.max_segments = 32}, 1000);
	double_get_stats(&after);
	assert_true(after.maps > before.maps);
	assert_true(after.copy_segments > before.copy_segments);
}

/* Each try costs several system calls: a guest does not make them cheaply with nonsense. */
static void references_that_cannot_be_mapped_are_seldom_tried(void **state)
{
	struct double_stats before, after;
	uint64_t start = host_now_ms();
	struct trial t;

	connect_way(&(struct guest_opts){0});
	trial_init(&t, BLKIF_WRITE, 1, 0);
	t.segments[0].gref = 999999;
	double_get_stats(&before);
	for (int i = 0; i < 100; i++) {
		trial_send(&t);
		trial_collect();
		assert_int_equal(t.req.status, BLKIF_ERROR);
	}
	double_get_stats(&after);
	assert_in_range(after.map_calls - before.map_calls, 1, 2 + (host_now_ms() - start) / 100);
	trial_fini(&t);
}

/* A guest has no more pages mapped than it may, over all its disks. */
struct peak {
	uint64_t mapped, most;
};

static void watch_peak(void *arg, bool map, unsigned domid, uint32_t ref, bool writable)
{
	struct peak *p = arg;

	if (domid != WORLD_GUEST)
		return;
	p->mapped += map ? 1 : -1;
	if (p->mapped > p->most)
		p->most = p->mapped;
}

static void a_guest_maps_no_more_than_it_may(void **state)
{
	struct peak peak = {0};

	world_start(&(struct instance_opts){.guest_maps = 40});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){0}));
	double_on_map(watch_peak, &peak);
	world_run_load(&(struct load_opts){.max_segments = 32}, 1000);
	double_on_map(NULL, NULL);
	assert_in_range(peak.most, 20, 40);
}

/* Pieces that the device does not take as they lie are put together in memory of our own. */
static void pieces_that_the_device_does_not_take_are_copied(void **state)
{
	struct double_stats before, after;
	struct trial t;

	held_bdev(world.disk)->limits.mem_align = 4096;
	connect_way(&(struct guest_opts){0});
	trial_init(&t, BLKIF_WRITE, 2, 0);
	t.segments[1].first_sect = 1;
	t.segments[1].last_sect = 2;
	double_get_stats(&before);
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	double_get_stats(&after);
	assert_int_equal(after.maps, before.maps);
	t.segments[1].first_sect = 0;
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	double_get_stats(&after);
	assert_int_equal(after.maps, before.maps + 2);
	trial_fini(&t);
}

/* The guest dies while the device works in its pages: they stay until the device is done. */
static void mapped_pages_outlive_their_guest(void **state)
{
	struct double_stats stats;
	struct trial t[4];

	connect_way(&(struct guest_opts){0});
	trial_hold(t, 4);
	guest_kill(&world.guest);
	world_settle();
	double_get_stats(&stats);
	assert_int_equal(stats.mapped, 1 + 4 * 3);
	held_release(world.disk, false);
	assert_true(world_wait_disks(world.daemon, 0));
	double_get_stats(&stats);
	assert_int_equal(stats.mapped, 0);
}

#define in_mapped(fn)         world_test_in(fn, &guest_mapped, ", mapped")
#define in_persistent(fn)     world_test_in(fn, &guest_persistent, ", persistent")
#define in_dma(fn)            world_test_in(fn, &guest_dma, ", dma")
#define in_dma_persistent(fn) world_test_in(fn, &guest_dma_persistent, ", dma persistent")

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(persistent_is_offered_where_mappings_persist),
		in_mapped(pages_are_let_go_before_the_response),
		in_dma(pages_are_let_go_before_the_response),
		in_mapped(what_is_only_read_is_mapped_read_only),
		in_dma(what_is_only_read_is_mapped_read_only),
		world_test(copied_pages_are_never_mapped),
		in_persistent(persistent_pages_are_mapped_once),
		in_persistent(persistent_pages_of_indirect_requests_are_mapped_once),
		world_tests(only_the_named_sectors_are_touched),
		in_mapped(what_cannot_be_mapped_is_copied),
		in_persistent(what_cannot_be_mapped_is_copied),
		in_mapped(now_and_then_mapping_fails),
		in_persistent(now_and_then_mapping_fails),
		in_mapped(references_that_cannot_be_mapped_are_seldom_tried),
		in_persistent(references_that_cannot_be_mapped_are_seldom_tried),
		in_mapped(a_guest_maps_no_more_than_it_may),
		in_persistent(a_guest_maps_no_more_than_it_may),
		in_dma(a_guest_maps_no_more_than_it_may),
		in_dma_persistent(a_guest_maps_no_more_than_it_may),
		in_mapped(pieces_that_the_device_does_not_take_are_copied),
		in_persistent(pieces_that_the_device_does_not_take_are_copied),
		in_mapped(mapped_pages_outlive_their_guest),
		in_persistent(mapped_pages_outlive_their_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
