/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PRPs, exhaustively over small shapes: each command is walked as a device walks it, byte for byte,
 * and cut where a naive reading of the rules, one block at a time, cuts it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dma_double.h"
#include "nvme/prp.h"

enum { PIECES = 4, LIST = 64 };

#define LIST_BUS 0x70007000ULL

static uint64_t list[LIST];

/* The bus address of the byte at @at of the pieces, or 0 behind their end. */
static uint64_t byte_at(const struct dma_piece *pieces, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; at -= pieces[i++].len)
		if (at < pieces[i].len)
			return pieces[i].bus + at;
	return 0;
}

/* Whether bytes @from to @to (both included) can be one command: pages turn only at page ends. */
static bool describable(const struct dma_piece *pieces, size_t n, uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at++) {
		uint64_t here = byte_at(pieces, n, at), next = byte_at(pieces, n, at + 1);

		if (!next)
			return false;
		if (here / 4096 == next / 4096 ? next != here + 1
					       : here % 4096 != 4095 || next % 4096)
			return false;
	}
	return true;
}

static uint32_t naive_cut(const struct dma_piece *pieces, size_t n, uint64_t from, uint64_t offset,
			  const struct nvme_prp_limits *limits)
{
	uint32_t len = 0;

	for (;;) {
		uint32_t more = len + limits->block_size;

		if (more > limits->max)
			return len;
		if (limits->stripe && len && (offset + len) % limits->stripe == 0)
			return len;
		if (!byte_at(pieces, n, from + more - 1) ||
		    !describable(pieces, n, from + (len ? len - 1 : 0), from + more - 1))
			return len;
		len = more;
	}
}

/* What a device reads or writes by @sqe as its byte @at. */
static uint64_t walk(const struct nvme_sqe *sqe, uint32_t len, uint32_t at)
{
	uint32_t first = 4096 - (uint32_t)(sqe->prp1 % 4096);

	if (at < first)
		return sqe->prp1 + at;
	at -= first;
	if (len - first <= 4096)
		return sqe->prp2 + at;
	assert_int_equal(sqe->prp2, LIST_BUS);
	return list[at / 4096] + at % 4096;
}

static unsigned long commands, refused;

static void check(const struct dma_piece *pieces, size_t n, uint64_t offset,
		  const struct nvme_prp_limits *limits)
{
	uint64_t total = 0, from = 0;
	uint32_t skip = 0;
	size_t i = 0;

	for (size_t j = 0; j < n; j++)
		total += pieces[j].len;
	while (from < total) {
		uint32_t len = nvme_prp_cut(&pieces[i], n - i, skip, offset + from, limits);
		struct nvme_sqe sqe;

		assert_int_equal(len, naive_cut(pieces, n, from, offset + from, limits));
		if (!len) {
			refused++;
			return;
		}
		commands++;
		memset(list, 0xee, sizeof(list));
		nvme_prp_build(&pieces[i], skip, len, &sqe, list, LIST_BUS);
		/* Both ends of each sector tell all there is. */
		for (uint32_t at = 0; at < len; at += 512) {
			assert_int_equal(walk(&sqe, len, at), byte_at(pieces, n, from + at));
			assert_int_equal(walk(&sqe, len, at + 511),
					 byte_at(pieces, n, from + at + 511));
		}
		if (sqe.prp1 % 4096 + len <= 4096)
			assert_int_equal(sqe.prp2, 0);
		from += len;
		for (skip += len; i < n && skip >= pieces[i].len; i++)
			skip -= pieces[i].len;
	}
}

static void test_shapes(void **state)
{
	static const struct {
		uint32_t offset, len;
	} kinds[] = {{0, 4096}, {0, 512}, {3584, 512}, {1024, 3072}, {512, 1024}, {2048, 2048}};
	static const struct nvme_prp_limits limits[] = {
		{4096, 512, 0},     {8192, 512, 0},     {65536, 512, 0},    {65536, 4096, 0},
		{65536, 512, 8192}, {8192, 4096, 4096}, {65536, 512, 1536},
	};
	enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

	for (unsigned shape = 0; shape < KINDS * KINDS * KINDS * KINDS; shape++) {
		struct dma_piece pieces[PIECES];
		unsigned left = shape;

		for (size_t i = 0; i < PIECES; i++, left /= KINDS)
			pieces[i] = (struct dma_piece){0x100000000ULL * (PIECES - i) + 4096 * i +
								kinds[left % KINDS].offset,
							kinds[left % KINDS].len};
		for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++)
			for (size_t n = 1; n <= PIECES; n++)
				check(pieces, n, limits[l].block_size * (shape % 3), &limits[l]);
	}
	print_message("%lu commands, %lu shapes for a bounce page\n", commands, refused);
	assert_true(commands > 10000 && refused > 100);
}

/* The longest command, not aligned to pages, fills its list and not more. */
static void test_longest(void **state)
{
	static struct dma_piece pieces[NVME_PRP_MAX / 4096 + 1];
	const struct nvme_prp_limits limits = {NVME_PRP_MAX, 512, 0};
	size_t n = sizeof(pieces) / sizeof(pieces[0]);
	static uint64_t big[NVME_PRP_MAX / 4096 + 1];
	struct nvme_sqe sqe;

	for (size_t i = 0; i < n; i++)
		pieces[i] = (struct dma_piece){(n - i) * 8192, 4096};
	pieces[0].bus += 3584;
	pieces[0].len = 512;
	assert_int_equal(nvme_prp_cut(pieces, n, 0, 0, &limits), NVME_PRP_MAX);
	big[n - 1] = 0x5a;
	nvme_prp_build(pieces, 0, NVME_PRP_MAX, &sqe, big, LIST_BUS);
	assert_int_equal(sqe.prp2, LIST_BUS);
	assert_int_equal(big[n - 2], pieces[n - 1].bus);
	assert_int_equal(big[n - 1], 0x5a);
}

static void test_pool(void **state)
{
	struct nvme_prp_pool pool;
	struct dma_double d;
	bool seen[10] = {false};
	struct err err;

	dma_double_init(&d, 4);
	assert_int_equal(nvme_prp_pool_init(&pool, &d.dma, 10, NVME_PRP_MAX, &err), 0);
	assert_int_equal(pool.slot_size, NVME_PRP_MAX / 4096 * 8);
	for (unsigned i = 0; i < 10; i++) {
		uint32_t slot = nvme_prp_pool_take(&pool);
		uint64_t bus = nvme_prp_pool_bus(&pool, slot);

		assert_in_range(slot, 0, 9);
		assert_false(seen[slot]);
		seen[slot] = true;
		/* Within one page, and the same memory by both names. */
		assert_ptr_equal(dma_double_reach(&d, bus, pool.slot_size),
				 nvme_prp_pool_virt(&pool, slot));
	}
	assert_int_equal(pool.free, 0);
	nvme_prp_pool_put(&pool, 7);
	assert_int_equal(nvme_prp_pool_take(&pool), 7);
	nvme_prp_pool_fini(&pool);
	/* Short commands have short lists; and no memory is an error. */
	assert_int_equal(nvme_prp_pool_init(&pool, &d.dma, 64, 4096, &err), 0);
	assert_int_equal(pool.slot_size, 64);
	nvme_prp_pool_fini(&pool);
	assert_int_equal(nvme_prp_pool_init(&pool, &d.dma, 64, NVME_PRP_MAX, &err), -ENOMEM);
	dma_double_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
