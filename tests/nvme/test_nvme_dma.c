/* SPDX-License-Identifier: BSD-2-Clause */
/* Device memory: every page has its own bus address, runs are found, and nothing is lost. */
#include <errno.h>
#include <string.h>

#include "dma_double.h"

static struct dma_double d;

static int setup(void **state)
{
	dma_double_init(&d, 64);
	return 0;
}

static int teardown(void **state)
{
	dma_double_fini(&d);
	return 0;
}

static void test_addresses(void **state)
{
	struct dma_memory mem;
	bool gap = false;

	assert_int_equal(dma_alloc(&d.dma, 8, false, &mem, NULL), 0);
	for (size_t i = 0; i < 8; i++) {
		char *page = (char *)mem.virt + i * DMA_PAGE_SIZE;

		assert_int_equal(dma_translate(&d.dma, page), mem.bus[i]);
		assert_int_equal(dma_translate(&d.dma, page + 4095), mem.bus[i] + 4095);
		assert_ptr_equal(dma_double_reach(&d, mem.bus[i] + 16, 4080), page + 16);
		gap |= i && mem.bus[i] != mem.bus[i - 1] + DMA_PAGE_SIZE;
	}
	assert_true(gap);
	assert_null(dma_double_reach(&d, mem.bus[0] + 16, 4081));
	assert_int_equal(dma_translate(&d.dma, &mem), DMA_NO_BUS);
	assert_int_equal(dma_translate(&d.dma, d.dma.base - 1), DMA_NO_BUS);
	assert_int_equal(dma_translate(&d.dma, d.dma.base + 8 * DMA_PAGE_SIZE), DMA_NO_BUS);
	dma_free(&d.dma, &mem);
	assert_null(mem.virt);
	dma_free(&d.dma, &mem);
}

static void test_contiguous(void **state)
{
	struct dma_memory one, pair, run;

	assert_int_equal(dma_alloc(&d.dma, 1, false, &one, NULL), 0);
	assert_int_equal(dma_alloc(&d.dma, 7, false, &pair, NULL), 0);
	dma_free(&d.dma, &pair);
	/* Of the pages there are, two and two are neighbours; a pair is found among them. */
	assert_int_equal(dma_alloc(&d.dma, 2, true, &pair, NULL), 0);
	assert_int_equal(pair.bus[1], pair.bus[0] + DMA_PAGE_SIZE);
	assert_int_equal(d.dma.pages, 8);
	assert_int_equal(dma_alloc(&d.dma, 4, true, &run, NULL), 0);
	for (size_t i = 1; i < 4; i++)
		assert_int_equal(run.bus[i], run.bus[i - 1] + DMA_PAGE_SIZE);
	assert_int_equal(d.dma.pages, 12);
	dma_free(&d.dma, &run);
	dma_free(&d.dma, &pair);
	dma_free(&d.dma, &one);
}

static void test_clean_and_bounded(void **state)
{
	static const char zeros[DMA_PAGE_SIZE];
	struct dma_memory all, more;
	struct err err;

	assert_int_equal(dma_alloc(&d.dma, 64, false, &all, NULL), 0);
	memset(all.virt, 0x5a, 64 * DMA_PAGE_SIZE);
	assert_int_equal(dma_alloc(&d.dma, 1, false, &more, &err), -ENOMEM);
	assert_int_equal(more.pages, 0);
	assert_int_equal(d.denied, 1);
	dma_free(&d.dma, &all);
	assert_null(dma_double_reach(&d, d.dma.bus[0], 1));
	assert_int_equal(dma_alloc(&d.dma, 1, false, &more, &err), 0);
	assert_memory_equal(more.virt, zeros, DMA_PAGE_SIZE);
	dma_free(&d.dma, &more);
	/* A provider that gives what it has, and no run as long as that. */
	d.dma.ops = &(const struct dma_ops){.name = "fixed"};
	assert_int_equal(dma_alloc(&d.dma, 3, true, &more, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "no 3 contiguous pages of device memory (fixed)"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_contiguous, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clean_and_bounded, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
