/* SPDX-License-Identifier: BSD-2-Clause */
/* The page pool: which pages come first, and that none is lost or given twice. */
#include "base/page_pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGE = PAGE_POOL_PAGE_SIZE, PAGES_MAX = 4096 };

static struct page_pool pool;
static void *pages[PAGES_MAX];

static int setup(void **state)
{
	memset(&pool, 0x5a, sizeof(pool));
	page_pool_init(&pool);
	return 0;
}

static int teardown(void **state)
{
	page_pool_fini(&pool);
	return 0;
}

static void assert_ascending(void **p, size_t n)
{
	for (size_t i = 1; i < n; i++)
		assert_ptr_equal(p[i], (char *)p[i - 1] + PAGE);
}

static int compare(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t) * (void *const *)a, y = (uintptr_t) * (void *const *)b;

	return x < y ? -1 : x > y;
}

/* No two of @p share a byte. */
static void assert_apart(void **p, size_t n)
{
	static void *sorted[PAGES_MAX];

	memcpy(sorted, p, n * sizeof(p[0]));
	qsort(sorted, n, sizeof(sorted[0]), compare);
	for (size_t i = 1; i < n; i++)
		assert_true((char *)sorted[i] - (char *)sorted[i - 1] >= PAGE);
}

static void it_begins_empty(void **state)
{
	assert_int_equal(pool.pages, 0);
	assert_int_equal(pool.free, 0);
}

static void new_pages_ascend(void **state)
{
	assert_int_equal(page_pool_grow(&pool, 64), 0);
	assert_int_equal(pool.pages, 64);
	assert_int_equal(pool.free, 64);
	page_pool_take(&pool, pages, 11);
	page_pool_take(&pool, pages + 11, 53);
	assert_int_equal(pool.free, 0);
	assert_ascending(pages, 64);
	/* They are zero, whole, and the caller's to write. */
	for (unsigned i = 0; i < 64; i++) {
		unsigned char *page = pages[i];

		for (unsigned byte = 0; byte < PAGE; byte++)
			assert_int_equal(page[byte], 0);
		memset(page, (int)i, PAGE);
	}
	page_pool_put(&pool, pages, 64);
}

static void warm_pages_come_first_and_in_their_order(void **state)
{
	void *again[16];

	assert_int_equal(page_pool_grow(&pool, 64), 0);
	page_pool_take(&pool, pages, 16);
	page_pool_take(&pool, pages + 16, 16);
	/* The last that came back are the first to go, */
	page_pool_put(&pool, pages, 16);
	page_pool_put(&pool, pages + 16, 16);
	page_pool_take(&pool, again, 16);
	assert_memory_equal(again, pages + 16, sizeof(again));
	/* and before those that came back earlier, which are before those that never were used. */
	page_pool_take(&pool, again, 16);
	assert_memory_equal(again, pages, sizeof(again));
	page_pool_take(&pool, again, 16);
	assert_ptr_equal(again[0], (char *)pages[31] + PAGE);
	assert_ascending(again, 16);
}

static void pages_added_later_come_last(void **state)
{
	void *first[8], *kept[4];

	assert_int_equal(page_pool_grow(&pool, 8), 0);
	page_pool_take(&pool, first, 8);
	page_pool_put(&pool, first + 4, 4);
	/* It grows while some are out: those that are here stay uppermost, in their order. */
	assert_int_equal(page_pool_grow(&pool, 100), 0);
	assert_int_equal(pool.pages, 108);
	assert_int_equal(pool.free, 104);
	page_pool_take(&pool, kept, 4);
	assert_memory_equal(kept, first + 4, sizeof(kept));
	page_pool_put(&pool, kept, 4);
	page_pool_put(&pool, first, 4);
	page_pool_take(&pool, pages, 108);
	assert_memory_equal(pages, first, sizeof(first));
	assert_ascending(pages + 8, 100);
	assert_apart(pages, 108);
	page_pool_put(&pool, pages, 108);
}

/* Memory that was given is used as any other, and still the giver's when the pool has ended. */
static void given_memory_stays_the_givers(void **state)
{
	char *given = aligned_alloc(PAGE, 8 * PAGE);

	assert_non_null(given);
	assert_int_equal(page_pool_grow(&pool, 4), 0);
	assert_int_equal(page_pool_add(&pool, given, 8), 0);
	assert_int_equal(pool.pages, 12);
	page_pool_take(&pool, pages, 12);
	for (unsigned i = 0; i < 8; i++)
		assert_ptr_equal(pages[4 + i], given + (size_t)i * PAGE);
	memset(given, 'g', 8 * PAGE);
	page_pool_put(&pool, pages, 12);
	assert_int_equal(page_pool_trim(&pool, 0, 12), 0);
	assert_int_equal(page_pool_trim(&pool, 0, 12), 0);
	page_pool_fini(&pool);
	page_pool_init(&pool);
	assert_int_equal(given[0], 'g');
	assert_int_equal(given[8 * PAGE - 1], 'g');
	free(given);
}

static void fill(void **p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		memset(p[i], 'f', PAGE);
}

static bool is_zero(void *page)
{
	for (size_t i = 0; i < PAGE; i++)
		if (((char *)page)[i])
			return false;
	return true;
}

/* What was free for a whole period loses its memory, the last to be used first. */
static void idle_pages_give_their_memory_back(void **state)
{
	void *again[64];

	assert_int_equal(page_pool_grow(&pool, 100), 0);
	page_pool_take(&pool, pages, 64);
	fill(pages, 64);
	assert_int_equal(page_pool_count_warm(&pool), 64);
	page_pool_put(&pool, pages, 64);
	/* They came back in the period that ends here. */
	assert_int_equal(page_pool_trim(&pool, 8, 1000), 0);
	assert_int_equal(page_pool_count_warm(&pool), 64);
	/* Ten of them are used in the next, and so were free for a part of it only. */
	page_pool_take(&pool, again, 10);
	page_pool_put(&pool, again, 10);
	assert_int_equal(page_pool_trim(&pool, 8, 30), 16);
	assert_int_equal(page_pool_trim(&pool, 8, 30), 0);
	assert_int_equal(page_pool_count_warm(&pool), 18);
	assert_int_equal(pool.free, 100);
	/* Their order is as it was, and what has lost its memory is zero. */
	page_pool_take(&pool, again, 64);
	assert_memory_equal(again, pages, sizeof(again));
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(is_zero(again[i]), i >= 18);
	assert_int_equal(page_pool_count_warm(&pool), 64);
	page_pool_put(&pool, again, 64);
}

/* What the pool tells: how often, and how many pages had memory the last time. */
struct told {
	unsigned times;
	size_t warm;
};

static void tell(void *arg)
{
	struct told *told = arg;

	told->times++;
	told->warm = page_pool_count_warm(&pool);
}

static void grow_telling(struct told *told, size_t n)
{
	pool.warmed = tell;
	pool.arg = told;
	assert_int_equal(page_pool_grow(&pool, n), 0);
}

/* Who trims is told when there may be something to trim, and of no page twice. */
static void new_memory_is_told_of(void **state)
{
	struct told told = {0};

	grow_telling(&told, 8);
	page_pool_take(&pool, pages, 4);
	assert_int_equal(told.times, 4);
	page_pool_put(&pool, pages, 4);
	page_pool_take(&pool, pages, 4);
	assert_int_equal(told.times, 4);
	page_pool_put(&pool, pages, 4);
	assert_int_equal(page_pool_trim(&pool, 0, 8), 0);
	assert_int_equal(page_pool_trim(&pool, 0, 8), 0);
	page_pool_take(&pool, pages, 2);
	assert_int_equal(told.times, 6);
	page_pool_put(&pool, pages, 2);
}

/* However many are taken at once: there may be no later time to be told of them. */
static void it_is_told_when_they_count(void **state)
{
	struct told told = {0};

	grow_telling(&told, 100);
	page_pool_take(&pool, pages, 40);
	assert_int_equal(told.warm, 40);
	page_pool_take(&pool, pages + 40, 30);
	assert_int_equal(told.warm, 70);
	page_pool_put(&pool, pages, 70);
	/* Some that have memory, and some that have none yet. */
	page_pool_take(&pool, pages, 75);
	assert_int_equal(told.warm, 75);
	page_pool_put(&pool, pages, 75);
}

/* Takes, puts and grows at random: at each moment all pages are either out or here, once. */
static void nothing_is_lost(void **state)
{
	static unsigned char marks[PAGES_MAX];
	unsigned short random[3] = {1, 2, 3};
	size_t out = 0;

	for (unsigned i = 0; i < 20000; i++) {
		size_t n = 1 + (size_t)((uint32_t)jrand48(random) % 32);

		switch ((uint32_t)jrand48(random) % 8) {
		case 0:
			page_pool_trim(&pool, n, n);
			if (pool.pages + n <= PAGES_MAX)
				assert_int_equal(page_pool_grow(&pool, n), 0);
			break;
		case 1:
		case 2:
		case 3:
		case 4:
			if (n > pool.free)
				n = pool.free;
			page_pool_take(&pool, pages + out, n);
			for (size_t k = 0; k < n; k++, out++) {
				marks[out] = (unsigned char)jrand48(random);
				memset(pages[out], marks[out], 16);
			}
			break;
		default:
			if (n > out)
				n = out;
			/* Nobody else has written to them. */
			for (size_t k = out - n; k < out; k++)
				assert_int_equal(*(unsigned char *)pages[k], marks[k]);
			out -= n;
			page_pool_put(&pool, pages + out, n);
			break;
		}
		assert_int_equal(pool.free + out, pool.pages);
	}
	assert_true(pool.pages > PAGES_MAX / 2);
	page_pool_take(&pool, pages + out, pool.free);
	assert_apart(pages, pool.pages);
	for (size_t k = 0; k < pool.pages; k++)
		memset(pages[k], 0xff, PAGE);
	page_pool_put(&pool, pages, pool.pages);
}

/* Without memory for more, it is as it was. */
static void growing_in_vain_changes_nothing(void **state)
{
	unsigned long now_pages;
	struct rlimit saved, tight;
	void *again[8];
	FILE *f;
	int rc;

	assert_int_equal(page_pool_grow(&pool, 8), 0);
	page_pool_take(&pool, pages, 8);
	page_pool_put(&pool, pages, 8);
	f = fopen("/proc/self/statm", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &now_pages), 1);
	fclose(f);
	assert_int_equal(getrlimit(RLIMIT_AS, &saved), 0);
	tight = saved;
	tight.rlim_cur = (rlim_t)now_pages * (rlim_t)sysconf(_SC_PAGESIZE) + (2 << 20);
	assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
	rc = page_pool_grow(&pool, PAGES_MAX);
	assert_int_equal(setrlimit(RLIMIT_AS, &saved), 0);
	assert_int_equal(rc, -ENOMEM);
	assert_int_equal(pool.pages, 8);
	assert_int_equal(pool.free, 8);
	page_pool_take(&pool, again, 8);
	assert_memory_equal(again, pages, sizeof(again));
	page_pool_put(&pool, again, 8);
	assert_int_equal(page_pool_grow(&pool, 8), 0);
	page_pool_take(&pool, pages, 16);
	assert_memory_equal(pages, again, sizeof(again));
	assert_apart(pages, 16);
	page_pool_put(&pool, pages, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_begins_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(new_pages_ascend, setup, teardown),
		cmocka_unit_test_setup_teardown(warm_pages_come_first_and_in_their_order, setup,
						teardown),
		cmocka_unit_test_setup_teardown(pages_added_later_come_last, setup, teardown),
		cmocka_unit_test_setup_teardown(given_memory_stays_the_givers, setup, teardown),
		cmocka_unit_test_setup_teardown(idle_pages_give_their_memory_back, setup, teardown),
		cmocka_unit_test_setup_teardown(new_memory_is_told_of, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_told_when_they_count, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(growing_in_vain_changes_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
