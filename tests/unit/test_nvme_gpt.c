/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Partition tables: as they should be, with each field wrong in turn, and with random damage behind
 * right checksums, which is what a hostile writer of a table has to offer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/gpt.h"

enum { BLOCKS = 4096, ENTRIES = 128 };

/* A drive's first and last blocks, as an administrator's tool would leave them. */
struct table {
	uint32_t block_size;
	uint64_t blocks;
	uint8_t mbr[512];
	uint8_t header[4096];
	uint8_t backup[4096];
	uint8_t entries[ENTRIES * 128];
};

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Another way to the same sum: by a table. */
static uint32_t crc32(const void *data, size_t len)
{
	static uint32_t sums[256];
	const uint8_t *p = data;
	uint32_t crc = UINT32_MAX;

	for (uint32_t i = 0; !sums[255] && i < 256; i++) {
		uint32_t v = i;

		for (int bit = 0; bit < 8; bit++)
			v = v & 1 ? v >> 1 ^ 0xedb88320u : v >> 1;
		sums[i] = v;
	}
	while (len--)
		crc = crc >> 8 ^ sums[(crc ^ *p++) & 0xff];
	return ~crc;
}

static void sign_header(struct table *t, uint8_t *header)
{
	uint32_t len = get32(header + 12);

	put32(header + 16, 0);
	if (len <= t->block_size)
		put32(header + 16, crc32(header, len));
}

static void sign(struct table *t)
{
	put32(t->header + 88, crc32(t->entries, sizeof(t->entries)));
	put32(t->backup + 88, crc32(t->entries, sizeof(t->entries)));
	sign_header(t, t->header);
	sign_header(t, t->backup);
}

static void make_header(const struct table *t, uint8_t *h, uint64_t lba, uint64_t other,
			uint64_t entries_lba)
{
	uint64_t table = sizeof(t->entries) / t->block_size;

	memcpy(h, "EFI PART", 8);
	put32(h + 8, 0x10000);
	put32(h + 12, 92);
	put64(h + 24, lba);
	put64(h + 32, other);
	put64(h + 40, 2 + table);
	put64(h + 48, t->blocks - 2 - table);
	put64(h + 72, entries_lba);
	put32(h + 80, ENTRIES);
	put32(h + 84, 128);
}

static uint8_t *entry(struct table *t, unsigned number)
{
	return t->entries + (number - 1) * 128;
}

static void set_range(struct table *t, unsigned number, uint64_t first, uint64_t last)
{
	put64(entry(t, number) + 32, first);
	put64(entry(t, number) + 40, last);
}

static void add_part(struct table *t, unsigned number, uint64_t first, uint64_t last,
		     const char *name)
{
	uint8_t *e = entry(t, number);

	memset(e, 0, 128);
	memset(e, 0x11, 16);
	for (uint8_t i = 0; i < 16; i++)
		e[16 + i] = i;
	for (size_t i = 0; name[i]; i++)
		e[56 + 2 * i] = (uint8_t)name[i];
	set_range(t, number, first, last);
}

/* A drive with partitions 1 and 3. */
static void make(struct table *t, uint32_t block_size)
{
	*t = (struct table){.block_size = block_size, .blocks = BLOCKS};
	t->mbr[446 + 4] = 0xee;
	put32(t->mbr + 446 + 8, 1);
	t->mbr[510] = 0x55;
	t->mbr[511] = 0xaa;
	make_header(t, t->header, 1, BLOCKS - 1, 2);
	make_header(t, t->backup, BLOCKS - 1, 1, BLOCKS - 1 - sizeof(t->entries) / block_size);
	add_part(t, 1, 40, 1039, "guest one");
	add_part(t, 3, 2048, 2048, "\x01");
	sign(t);
}

static int parse(const struct table *t, struct gpt_part *parts, unsigned *refused, struct err *err)
{
	struct gpt_header h;
	int rc = gpt_parse_header(t->header, t->block_size, 1, t->blocks, &h, err);

	*refused = 0;
	if (rc)
		return rc;
	if (gpt_entries_len(&h) > sizeof(t->entries))
		return err_set(err, -EINVAL, "larger than the test's");
	return gpt_parse_entries(&h, t->entries, parts, refused, err);
}

static void test_right(void **state)
{
	struct table *t = malloc(sizeof(*t));
	struct gpt_part parts[GPT_PARTS_MAX];
	struct gpt_header h;
	struct err err;
	unsigned refused;

	for (uint32_t block_size = 512; block_size <= 4096; block_size *= 8) {
		make(t, block_size);
		assert_int_equal(gpt_check_mbr(t->mbr), GPT_MBR_GUARD);
		assert_int_equal(gpt_parse_header(t->header, block_size, 1, BLOCKS, &h, &err), 0);
		assert_int_equal(h.entries_lba, 2);
		assert_int_equal(gpt_entries_len(&h), 16384);
		assert_int_equal(parse(t, parts, &refused, &err), 2);
		assert_int_equal(refused, 0);
		assert_int_equal(parts[0].number, 1);
		assert_int_equal(parts[0].first, 40);
		assert_int_equal(parts[0].blocks, 1000);
		assert_string_equal(parts[0].name, "guest one");
		assert_string_equal(parts[0].guid, "03020100-0504-0706-0809-0a0b0c0d0e0f");
		assert_int_equal(parts[1].number, 3);
		assert_int_equal(parts[1].blocks, 1);
		assert_string_equal(parts[1].name, "?");

		/* The other one, in its own place only. */
		assert_int_equal(
			gpt_parse_header(t->backup, block_size, BLOCKS - 1, BLOCKS, &h, &err), 0);
		assert_int_equal(h.entries_lba, BLOCKS - 1 - 16384 / block_size);
		assert_int_equal(gpt_parse_entries(&h, t->entries, parts, &refused, &err), 2);
		assert_int_equal(gpt_parse_header(t->backup, block_size, 1, BLOCKS, &h, &err),
				 -EINVAL);
	}
	free(t);
}

static void test_mbr(void **state)
{
	struct table t;

	make(&t, 512);
	t.mbr[446 + 8] = 2;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_LEGACY);
	t.mbr[446 + 4] = 0x83;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_LEGACY);
	/* A hybrid one has the guard in any place. */
	t.mbr[446 + 32 + 4] = 0xee;
	t.mbr[446 + 32 + 8] = 1;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_GUARD);
	t.mbr[446] = 0x80;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_GUARD);
	t.mbr[446] = 0x33;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_NONE);
	t.mbr[446] = 0;
	t.mbr[511] = 0;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_NONE);
	memset(t.mbr, 0, sizeof(t.mbr));
	t.mbr[510] = 0x55;
	t.mbr[511] = 0xaa;
	assert_int_equal(gpt_check_mbr(t.mbr), GPT_MBR_NONE);
}

static void test_bad_headers(void **state)
{
	/* A field's new value, in a header whose sums are right. */
	static const struct {
		unsigned offset, bytes;
		uint64_t value;
		const char *says;
	} bad[] = {
		{0, 4, 0, "no header"},
		{8, 4, 0x20000, "revision"},
		{12, 4, 91, "91 bytes"},
		{12, 4, 513, "513 bytes"},
		{12, 4, UINT32_MAX, "bytes"},
		{24, 8, 2, "place"},
		{40, 8, 1, "do not fit"},
		{40, 8, 0, "do not fit"},
		{40, 8, 4063, "do not fit"},
		{40, 8, UINT64_MAX, "do not fit"},
		{48, 8, BLOCKS - 1, "do not fit"},
		{48, 8, UINT64_MAX, "do not fit"},
		{48, 8, 33, "do not fit"},
		{72, 8, 0, "lie outside"},
		{72, 8, 1, "lie outside"},
		{72, 8, 3, "lie outside"},
		{72, 8, 100, "lie outside"},
		{72, 8, BLOCKS - 32, "lie outside"},
		{72, 8, BLOCKS, "lie outside"},
		{72, 8, UINT64_MAX, "lie outside"},
		{72, 8, UINT64_MAX - 31, "lie outside"},
		{80, 4, 0, "are not served"},
		{80, 4, 1025, "are not served"},
		{80, 4, UINT32_MAX, "are not served"},
		{84, 4, 0, "are not served"},
		{84, 4, 64, "are not served"},
		{84, 4, 192, "are not served"},
		{84, 4, 1024, "are not served"},
		{84, 4, 1u << 31, "are not served"},
	};
	struct table t;
	struct gpt_header h;
	struct err err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		make(&t, 512);
		memcpy(t.header + bad[i].offset, &bad[i].value, bad[i].bytes);
		sign(&t);
		if (gpt_parse_header(t.header, 512, 1, BLOCKS, &h, &err) != -EINVAL)
			fail_msg("case %zu was taken", i);
		if (!strstr(err.text, bad[i].says))
			fail_msg("case %zu: \"%s\"", i, err.text);
	}
	make(&t, 512);
	t.header[60] ^= 1;
	assert_int_equal(gpt_parse_header(t.header, 512, 1, BLOCKS, &h, &err), -EINVAL);
	assert_non_null(strstr(err.text, "damaged (CRC)"));
	/* A drive that has shrunk, and one too small for anything. */
	make(&t, 512);
	assert_int_equal(gpt_parse_header(t.header, 512, 1, BLOCKS - 33, &h, &err), -EINVAL);
	assert_int_equal(gpt_parse_header(t.header, 512, 1, 3, &h, &err), -EINVAL);
	assert_int_equal(gpt_parse_header(t.header, 512, 1, 0, &h, &err), -EINVAL);
}

static void test_bad_entries(void **state)
{
	struct gpt_part parts[GPT_PARTS_MAX];
	struct table t;
	struct err err;
	unsigned refused;

	make(&t, 512);
	t.entries[300] ^= 1;
	assert_int_equal(parse(&t, parts, &refused, &err), -EINVAL);
	assert_non_null(strstr(err.text, "damaged (CRC)"));

	static const uint64_t bad[][2] = {{33, 1039},          {0, 10},
					  {1039, 40},          {40, BLOCKS - 33},
					  {40, UINT64_MAX},    {UINT64_MAX, UINT64_MAX},
					  {UINT64_MAX, 40},    {0, UINT64_MAX},
					  {BLOCKS, BLOCKS + 1}};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		make(&t, 512);
		set_range(&t, 1, bad[i][0], bad[i][1]);
		sign(&t);
		assert_int_equal(parse(&t, parts, &refused, &err), 1);
		assert_int_equal(refused, 1);
		assert_int_equal(parts[0].number, 3);
	}
	/* The largest that may be. */
	make(&t, 512);
	set_range(&t, 1, 34, 2047);
	set_range(&t, 3, 2048, BLOCKS - 34);
	sign(&t);
	assert_int_equal(parse(&t, parts, &refused, &err), 2);
}

static void test_overlaps(void **state)
{
	struct gpt_part parts[GPT_PARTS_MAX];
	struct table t;
	struct err err;
	unsigned refused;

	/* Both go, on whichever side; who overlaps neither stays. */
	static const uint64_t with_3[][2] = {{2048, 2048}, {2000, 2048}, {2048, 3000}, {40, 3000}};

	for (size_t i = 0; i < sizeof(with_3) / sizeof(with_3[0]); i++) {
		make(&t, 512);
		set_range(&t, 1, with_3[i][0], with_3[i][1]);
		add_part(&t, 128, 3001, 3002, "");
		sign(&t);
		assert_int_equal(parse(&t, parts, &refused, &err), 1);
		assert_int_equal(refused, 2);
		assert_int_equal(parts[0].number, 128);
	}
	make(&t, 512);
	for (unsigned i = 1; i <= ENTRIES; i++)
		add_part(&t, i, 100 + i, 100 + i, "");
	sign(&t);
	assert_int_equal(parse(&t, parts, &refused, &err), ENTRIES);
	assert_int_equal(refused, 0);
	set_range(&t, 64, 100, 300);
	sign(&t);
	assert_int_equal(parse(&t, parts, &refused, &err), 0);
	assert_int_equal(refused, ENTRIES);
}

/* More entries than are served, each larger than it need be. */
static void test_many(void **state)
{
	struct gpt_part parts[GPT_PARTS_MAX];
	struct table t;
	struct gpt_header h;
	struct err err;
	unsigned refused;
	uint8_t *entries = calloc(1, GPT_ENTRIES_MAX);

	make(&t, 512);
	put64(t.header + 40, 2048);
	put32(t.header + 80, GPT_ENTRIES_MAX / 512);
	put32(t.header + 84, 512);
	for (uint32_t i = 0; i < GPT_ENTRIES_MAX / 512; i++) {
		entries[i * 512] = 1;
		put64(entries + i * 512 + 32, 2048 + i);
		put64(entries + i * 512 + 40, 2048 + i);
	}
	put32(t.header + 88, crc32(entries, GPT_ENTRIES_MAX));
	sign_header(&t, t.header);
	assert_int_equal(gpt_parse_header(t.header, 512, 1, BLOCKS, &h, &err), 0);
	assert_int_equal(gpt_entries_len(&h), GPT_ENTRIES_MAX);
	assert_int_equal(gpt_parse_entries(&h, entries, parts, &refused, &err), GPT_PARTS_MAX);
	assert_int_equal(refused, GPT_ENTRIES_MAX / 512 - GPT_PARTS_MAX);
	assert_int_equal(parts[GPT_PARTS_MAX - 1].first, 2048 + GPT_PARTS_MAX - 1);
	free(entries);
}

/* Whatever is there, no partition lies where it must not, and none on another. */
static void test_damage(void **state)
{
	static const uint8_t favourites[] = {0, 1, 2, 0x7f, 0x80, 0xff};
	struct gpt_part parts[GPT_PARTS_MAX];
	struct table *t = malloc(sizeof(*t));
	unsigned refused, taken = 0;
	struct err err;

	srand(1);
	for (unsigned round = 0; round < 20000; round++) {
		int n;

		make(t, round & 1 ? 512 : 4096);
		for (int i = rand() % 8; i >= 0; i--) {
			uint8_t value = favourites[(unsigned)rand() % sizeof(favourites)];

			if (rand() % 3)
				t->entries[rand() % 640] = value;
			else
				t->header[rand() % 96] = value;
		}
		if (round % 16)
			sign(t);
		n = parse(t, parts, &refused, &err);
		for (int i = 0; i < n; i++) {
			assert_true(parts[i].first >= 2 && parts[i].blocks);
			assert_true(parts[i].first < BLOCKS && parts[i].blocks < BLOCKS);
			assert_true(parts[i].first + parts[i].blocks < BLOCKS);
			assert_true(strlen(parts[i].name) <= 36);
			for (int k = 0; k < i; k++)
				assert_true(parts[i].first >= parts[k].first + parts[k].blocks ||
					    parts[k].first >= parts[i].first + parts[i].blocks);
			taken++;
		}
	}
	/* Not all for nothing. */
	assert_true(taken > 1000);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right),       cmocka_unit_test(test_mbr),
		cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_bad_entries),
		cmocka_unit_test(test_overlaps),    cmocka_unit_test(test_many),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
