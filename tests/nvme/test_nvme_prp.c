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

static uint32_t naive_cut(const struct dma_piece *pieces, size_t n, uint64_t from, uint32_t max,
			  uint32_t block_size)
{
	uint32_t len = 0;

	for (;;) {
		uint32_t more = len + block_size;

		if (more > max)
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

/* Both ends of each sector tell all there is. */
#define CHECK_SECTORS(walk_expr)                                                            \
	do {                                                                                \
		for (uint32_t sector = 0; sector < len; sector += 512)                      \
			for (uint32_t at = sector; at <= sector + 511; at += 511)           \
				assert_int_equal(walk_expr, byte_at(pieces, n, from + at)); \
	} while (0)

static void check_prps(const struct dma_piece *pieces, uint32_t n, uint64_t total, uint32_t max,
		       uint32_t block_size)
{
	struct nvme_cursor cursor = {0};
	struct nvme_sqe sqe = {0};
	uint32_t len;

	for (uint64_t from = 0; from < total; from += len) {
		memset(list, 0xee, sizeof(list));
		len = nvme_prps_build(pieces, n, &cursor, max, block_size, &sqe, list, LIST_BUS);
		assert_int_equal(len, naive_cut(pieces, n, from, max, block_size));
		if (!len) {
			refused++;
			return;
		}
		commands++;
		assert_int_equal(sqe.flags, 0);
		CHECK_SECTORS(walk(&sqe, len, at));
		if (sqe.prp1 % 4096 + len <= 4096)
			assert_int_equal(sqe.prp2, 0);
	}
	assert_int_equal(cursor.index, n);
	assert_int_equal(cursor.skip, 0);
}

static struct nvme_sgl sgl[LIST];

static uint64_t walk_sgl(const struct nvme_sqe *sqe, uint32_t at)
{
	const struct nvme_sgl *d = &sqe->sgl;
	uint32_t n = 1;

	if (d->type == NVME_SGL_LAST_SEGMENT) {
		assert_int_equal(d->bus, LIST_BUS);
		assert_int_equal(d->len % 16, 0);
		n = d->len / 16;
		assert_true(n > 1);
		d = sgl;
	}
	for (; n--; at -= d++->len) {
		assert_int_equal(d->type, NVME_SGL_DATA);
		if (at < d->len)
			return d->bus + at;
	}
	return 0;
}

static unsigned long sgl_commands;

/* What a command may be ends with its size and its list, never with a gap. */
static void check_sgl(const struct dma_piece *pieces, uint32_t n, uint64_t total, uint32_t max,
		      uint32_t block_size, uint32_t list_len)
{
	struct nvme_cursor cursor = {0};
	uint32_t len;

	for (uint64_t from = 0; from + block_size <= total; from += len) {
		struct nvme_sqe sqe = {0};

		len = nvme_sgl_build(pieces, n, &cursor, max, block_size, &sqe, sgl, list_len,
				     LIST_BUS);
		if (!len) {
			refused++;
			return;
		}
		sgl_commands++;
		assert_int_equal(len % block_size, 0);
		assert_int_equal(sqe.flags, NVME_SQE_SGL);
		if (list_len >= n)
			assert_int_equal(
				len, max < total - from ? max : (total - from) & ~(block_size - 1));
		CHECK_SECTORS(walk_sgl(&sqe, at));
		assert_int_equal(walk_sgl(&sqe, len), 0);
	}
}

static void test_shapes(void **state)
{
	static const struct {
		uint32_t offset, len;
	} kinds[] = {{0, 4096}, {0, 512}, {3584, 512}, {1024, 3072}, {512, 1024}, {2048, 2048}};
	static const struct {
		uint32_t max, block_size;
	} limits[] = {{512, 512},   {4096, 512},   {8192, 512},
		      {65536, 512}, {65536, 4096}, {4096, 4096}};
	enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

	for (unsigned shape = 0; shape < KINDS * KINDS * KINDS * KINDS; shape++) {
		struct dma_piece pieces[PIECES];
		unsigned left = shape;
		uint64_t total = 0;

		for (uint32_t i = 0; i < PIECES; i++, left /= KINDS) {
			pieces[i] = (struct dma_piece){0x100000000ULL * (PIECES - i) + 4096 * i +
							       kinds[left % KINDS].offset,
						       kinds[left % KINDS].len, 0};
			/* Some go on where the one before ends. */
			if (i && (shape >> i) % 5 == 0 &&
			    (pieces[i - 1].bus + pieces[i - 1].len) % 4096 + pieces[i].len <= 4096)
				pieces[i].bus = pieces[i - 1].bus + pieces[i - 1].len;
			total += pieces[i].len;
			for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
				check_prps(pieces, i + 1, total, limits[l].max,
					   limits[l].block_size);
				check_sgl(pieces, i + 1, total, limits[l].max, limits[l].block_size,
					  2 + shape % 3);
			}
		}
	}
	print_message("%lu commands by PRPs, %lu by SGLs, %lu shapes refused\n", commands,
		      sgl_commands, refused);
	assert_true(commands > 10000 && sgl_commands > 10000 && refused > 100);
}

/* The longest command, not aligned to pages, fills its list and not more. */
static void test_longest(void **state)
{
	static struct dma_piece pieces[NVME_PRP_MAX / 4096 + 1];
	uint32_t n = sizeof(pieces) / sizeof(pieces[0]);
	static uint64_t big[NVME_PRP_MAX / 4096 + 1];
	struct nvme_cursor cursor = {0};
	struct nvme_sqe sqe = {0};

	for (uint32_t i = 0; i < n; i++)
		pieces[i] = (struct dma_piece){(n - i) * 8192, 4096, 0};
	pieces[0].bus += 3584;
	pieces[0].len = 512;
	big[n - 1] = 0x5a;
	assert_int_equal(nvme_prps_build(pieces, n, &cursor, NVME_PRP_MAX, 512, &sqe, big,
					 LIST_BUS),
			 NVME_PRP_MAX);
	assert_int_equal(sqe.prp2, LIST_BUS);
	assert_int_equal(big[n - 2], pieces[n - 1].bus);
	assert_int_equal(big[n - 1], 0x5a);
	assert_int_equal(cursor.index, n - 1);
	assert_int_equal(cursor.skip, 4096 - 512);
}

static void test_slots(void **state)
{
	struct nvme_slots slots;
	struct dma_double d;
	struct err err;

	dma_double_init(&d, 4);
	assert_int_equal(nvme_slots_init(&slots, &d.dma, 10, NVME_PRP_MAX, &err), 0);
	assert_int_equal(slots.size, NVME_PRP_MAX / 4096 * 8);
	assert_int_equal(dma_double_used(&d), nvme_slots_pages(10, NVME_PRP_MAX));
	/* Within one page, and the same memory by both names. */
	for (uint32_t i = 0; i < 10; i++)
		assert_ptr_equal(dma_double_reach(&d, nvme_slot_bus(&slots, i), slots.size),
				 nvme_slot_virt(&slots, i));
	nvme_slots_fini(&slots);
	/* Short commands have short lists; and no memory is an error. */
	assert_int_equal(nvme_slots_init(&slots, &d.dma, 64, 4096, &err), 0);
	assert_int_equal(slots.size, 64);
	nvme_slots_fini(&slots);
	assert_int_equal(nvme_slots_init(&slots, &d.dma, 64, NVME_PRP_MAX, &err), -ENOMEM);
	dma_double_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
