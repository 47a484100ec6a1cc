/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool of ios: how it grows and shrinks, and how a queue goes on that gets nothing from it. */
#include "blkif/io_pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "front/front.h"

enum { CHUNK = BLKIF_IO_POOL_CHUNK, TAKEN = 2 * CHUNK + 8, DEPTH = 8, PEER = 3, PAGES = 64 };

static bool no_memory;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
	return no_memory ? NULL : __real_calloc(n, size);
}

static struct reactor *reactor;
static struct blkif_io_pool pool;
static struct blkif_io *taken[TAKEN];

static int setup(void **state)
{
	no_memory = false;
	return reactor_create("test", -1, NULL, &reactor) || blkif_io_pool_init(&pool, reactor);
}

static int teardown(void **state)
{
	no_memory = false;
	blkif_io_pool_stop(&pool);
	blkif_io_pool_fini(&pool);
	reactor_destroy(reactor);
	return 0;
}

static void take_all(void)
{
	for (unsigned i = 0; i < TAKEN; i++) {
		taken[i] = blkif_io_pool_take(&pool);
		assert_non_null(taken[i]);
		for (unsigned j = 0; j < i; j++)
			assert_ptr_not_equal(taken[i], taken[j]);
	}
}

static void put_all(unsigned from)
{
	for (unsigned i = from; i < TAKEN; i++)
		blkif_io_pool_put(&pool, taken[i]);
}

static void the_last_one_put_is_taken_first(void **state)
{
	struct blkif_io *a = blkif_io_pool_take(&pool), *b = blkif_io_pool_take(&pool);

	blkif_io_pool_put(&pool, a);
	blkif_io_pool_put(&pool, b);
	assert_ptr_equal(blkif_io_pool_take(&pool), b);
	blkif_io_pool_put(&pool, b);
}

static void it_grows_by_chunks(void **state)
{
	assert_int_equal(pool.nr_chunks, 1);
	assert_false(pool.timer.running);
	take_all();
	assert_int_equal(pool.nr_chunks, 3);
	assert_int_equal(pool.nr_free, 3 * CHUNK - TAKEN);
	assert_true(pool.timer.running);
	put_all(0);
	assert_int_equal(pool.nr_free, 3 * CHUNK);
}

static void what_was_needed_in_a_period_stays_for_the_next(void **state)
{
	take_all();
	put_all(0);
	blkif_io_pool_trim(&pool);
	assert_int_equal(pool.nr_chunks, 3);
	/* Now two chunks' worth, all of the time. */
	for (unsigned i = 0; i < 2 * CHUNK; i++)
		taken[i] = blkif_io_pool_take(&pool);
	for (unsigned i = 0; i < 2 * CHUNK; i++)
		blkif_io_pool_put(&pool, taken[i]);
	blkif_io_pool_trim(&pool);
	assert_int_equal(pool.nr_chunks, 2);
	assert_int_equal(pool.nr_free, 2 * CHUNK);
	take_all();
	put_all(0);
}

static void a_chunk_that_is_in_use_stays(void **state)
{
	take_all();
	taken[0]->bytes = 4711;
	put_all(1);
	blkif_io_pool_trim(&pool);
	blkif_io_pool_trim(&pool);
	assert_int_equal(pool.nr_chunks, 1);
	assert_int_equal(pool.nr_free, CHUNK - 1);
	assert_int_equal(taken[0]->bytes, 4711);
	/* Those that are left are its neighbours. */
	for (unsigned i = 1; i < CHUNK; i++) {
		taken[i] = blkif_io_pool_take(&pool);
		assert_ptr_equal(taken[i]->chunk, taken[0]->chunk);
	}
	for (unsigned i = 0; i < CHUNK; i++)
		blkif_io_pool_put(&pool, taken[i]);
}

static void its_timer_ends_with_the_last_that_can_go(void **state)
{
	take_all();
	put_all(0);
	reactor_timer_stop(reactor, &pool.timer);
	pool.timer.fire(&pool.timer);
	assert_true(pool.timer.running);
	reactor_timer_stop(reactor, &pool.timer);
	pool.timer.fire(&pool.timer);
	assert_int_equal(pool.nr_chunks, 1);
	assert_false(pool.timer.running);
}

static void without_memory_it_says_so(void **state)
{
	for (unsigned i = 0; i < CHUNK; i++)
		taken[i] = blkif_io_pool_take(&pool);
	no_memory = true;
	assert_null(blkif_io_pool_take(&pool));
	assert_int_equal(blkif_io_pool_grow(&pool), -ENOMEM);
	no_memory = false;
	taken[CHUNK] = blkif_io_pool_take(&pool);
	assert_non_null(taken[CHUNK]);
	for (unsigned i = 0; i <= CHUNK; i++)
		blkif_io_pool_put(&pool, taken[i]);
}

/* A queue whose guest's pages are an array. */

static _Alignas(BLKIF_PAGE_SIZE) char pages[PAGES][BLKIF_PAGE_SIZE];
static unsigned next_page;
static unsigned answered;

static void *pages_alloc(void *ctx, unsigned nr, bool readonly, uint32_t *refs)
{
	void *first = pages[next_page];

	for (unsigned i = 0; i < nr; i++)
		refs[i] = next_page++;
	return first;
}

static void pages_free(void *ctx, void *memory, unsigned nr, const uint32_t *refs)
{
}

static void ring_backend(void *ctx)
{
}

static const struct share_window *share_window(struct share *s, uint32_t peer)
{
	static const struct share_window window = {
		.pages = PAGES,
		.base = pages[0],
		.bus = DMA_NO_BUS,
	};

	assert_int_equal(peer, PEER);
	return &window;
}

static void nothing(struct share *s)
{
}

static void bell_nothing(struct doorbell *d)
{
}

static void request_done(struct front_req *req)
{
	assert_int_equal(req->status, BLKIF_OKAY);
	answered++;
}

static void queue_stopped(void *arg)
{
	*(bool *)arg = true;
}

static void a_queue_without_memory_goes_on_with_one_request(void **state)
{
	static const struct share_ops share_ops = {.flush = nothing, .window = share_window};
	static const struct doorbell_ops bell_ops = {.notify = bell_nothing, .arm = bell_nothing};
	static const struct front_ops front_ops = {pages_alloc, pages_free, ring_backend, NULL};
	static struct blkif_ledger_entry ledger[BLKIF_MAX_SLOTS];
	static struct blkif_guest guest;
	static struct blkif_limiter limiter;
	struct front_opts front_opts = {
		.layout = &blkif_layout_x86_64,
		.ring_pages = 1,
		.ops = &front_ops,
	};
	struct share share = {.ops = &share_ops};
	struct doorbell bell = {.ops = &bell_ops};
	struct blkif_wire_segment segment = {.last_sect = 7};
	struct front_req reqs[DEPTH] = {0};
	struct blkif_queue_opts opts = {
		.limits.sectors = 2048,
		.peer = PEER,
		.label = "test",
		.doorbell = &bell,
		.layout = &blkif_layout_x86_64,
		.ring_nr = 1,
		.ledger = ledger,
		.sharing = BLKIF_SHARE_DIRECT,
		.guest = &guest,
		.limiter = &limiter,
	};
	bool stopped = false;
	struct front *front;
	struct blkif_queue *q;
	struct blkif_io *io;
	struct err err;

	assert_int_equal(blkif_engine_create(reactor, &share, 1, &opts.engine), 0);
	assert_int_equal(bdev_null_create("null", 1 << 20, 512, &opts.bdev, &err), 0);
	assert_int_equal(front_create(&front_opts, &front), 0);
	opts.ring_pages = pages[front_ring_refs(front)[0]];
	assert_int_equal(blkif_queue_create(&opts, &q), 0);
	blkif_engine_start(opts.engine);
	assert_int_equal(blkif_queue_start(q), 0);
	pages_alloc(NULL, 1, false, &segment.gref);
	for (unsigned i = 0; i < DEPTH; i++) {
		reqs[i].op = BLKIF_READ;
		reqs[i].segments = &segment;
		reqs[i].nr_segments = 1;
		reqs[i].done = request_done;
		assert_int_equal(front_submit(front, &reqs[i]), 0);
	}
	front_push(front);
	/* Others have all there is. */
	no_memory = true;
	while ((io = blkif_io_pool_take(blkif_engine_ios(opts.engine))))
		taken[answered++] = io;
	assert_int_equal(answered, CHUNK);
	answered = 0;
	for (unsigned i = 1; i <= DEPTH; i++) {
		reactor_step(reactor);
		reactor_step(reactor);
		front_poll(front);
		assert_in_range(answered, i, 2 * i);
	}
	assert_int_equal(answered, DEPTH);
	for (unsigned i = 0; i < CHUNK; i++)
		blkif_io_pool_put(blkif_engine_ios(opts.engine), taken[i]);

	blkif_queue_stop(q, false, queue_stopped, &stopped);
	assert_true(stopped);
	blkif_queue_destroy(q);
	front_destroy(front);
	bdev_delete_all();
	blkif_engine_stop(opts.engine);
	blkif_engine_destroy(opts.engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_last_one_put_is_taken_first, setup, teardown),
		cmocka_unit_test_setup_teardown(it_grows_by_chunks, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_needed_in_a_period_stays_for_the_next,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_chunk_that_is_in_use_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(its_timer_ends_with_the_last_that_can_go, setup,
						teardown),
		cmocka_unit_test_setup_teardown(without_memory_it_says_so, setup, teardown),
		cmocka_unit_test_setup_teardown(a_queue_without_memory_goes_on_with_one_request,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
