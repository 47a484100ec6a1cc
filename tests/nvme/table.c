/* SPDX-License-Identifier: BSD-2-Clause */
#include "table.h"

#include <string.h>

static uint32_t crc32(const uint8_t *p, size_t len)
{
	uint32_t crc = UINT32_MAX;

	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
	}
	return ~crc;
}

static void put(uint8_t *p, uint64_t value, size_t len)
{
	memcpy(p, &value, len);
}

static void put_header(uint8_t *disk, uint32_t block_size, uint64_t lba, uint64_t entries_lba)
{
	uint8_t *h = disk + lba * block_size;

	memcpy(h, "EFI PART", 8);
	put(h + 8, 0x10000, 4);
	put(h + 12, 92, 4);
	put(h + 24, lba, 8);
	put(h + 40, 40, 8);
	put(h + 48, RACK_BLOCKS - 41, 8);
	put(h + 72, entries_lba, 8);
	put(h + 80, 4, 4);
	put(h + 84, 128, 4);
	put(h + 88, crc32(disk + entries_lba * block_size, 512), 4);
	put(h + 16, 0, 4);
	put(h + 16, crc32(h, 92), 4);
}

void table_put(uint8_t *disk, uint32_t block_size, const struct table_part *parts, unsigned n)
{
	disk[446 + 4] = 0xee;
	disk[446 + 8] = 1;
	disk[510] = 0x55;
	disk[511] = 0xaa;
	for (int copy = 0; copy < 2; copy++) {
		uint64_t entries_lba = copy ? RACK_BLOCKS - 20 : 2;

		memset(disk + entries_lba * block_size, 0, 512);
		for (unsigned i = 0; i < n; i++) {
			uint8_t *e = disk + entries_lba * block_size + (parts[i].number - 1) * 128;

			e[0] = 1;
			put(e + 32, parts[i].first, 8);
			put(e + 40, parts[i].last, 8);
			e[56] = (uint8_t)parts[i].name;
		}
		put_header(disk, block_size, copy ? RACK_BLOCKS - 1 : 1, entries_lba);
	}
}

void table_put_two(uint8_t *disk, uint32_t block_size)
{
	static const struct table_part parts[] = {{1, 64, 127, 'a'}, {3, 128, 191, 'b'}};

	table_put(disk, block_size, parts, 2);
}
