/* SPDX-License-Identifier: BSD-2-Clause */
/* The decoder; gpt.h has the idea. All fields are little-endian and read where they lie. */
#include "nvme/gpt.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

enum {
	MBR_ENTRIES = 446,
	MBR_ENTRY_LEN = 16,
	MBR_TYPE = 4,
	MBR_TYPE_GUARD = 0xee,
	MBR_FIRST = 8,
	MBR_SIGNATURE = 510,

	/* 5.3.2, the header. */
	HEADER_REVISION = 8,
	HEADER_SIZE = 12,
	HEADER_CRC = 16,
	HEADER_MY_LBA = 24,
	HEADER_FIRST = 40,
	HEADER_LAST = 48,
	HEADER_ENTRIES_LBA = 72,
	HEADER_ENTRIES = 80,
	HEADER_ENTRY_SIZE = 84,
	HEADER_ENTRIES_CRC = 88,
	HEADER_LEN = 92, /* of what is defined; more may follow in the block */

	/* 5.3.3, an entry. */
	ENTRY_TYPE = 0,
	ENTRY_GUID = 16,
	ENTRY_FIRST = 32,
	ENTRY_LAST = 40,
	ENTRY_NAME = 56,
	ENTRY_NAME_LEN = 36, /* characters of two bytes */
	ENTRY_LEN = 128,
};

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

/* CRC-32 as Ethernet's, bit by bit: it runs over 17 KiB once a drive. */
static uint32_t crc32_add(uint32_t crc, const uint8_t *p, size_t len)
{
	for (; len; len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return crc;
}

static uint32_t crc32(const uint8_t *p, size_t len)
{
	return ~crc32_add(UINT32_MAX, p, len);
}

/* The header's, which counts as 0 itself. */
static uint32_t header_crc(const uint8_t *h, size_t len)
{
	static const uint8_t zeros[4];
	uint32_t crc = crc32_add(UINT32_MAX, h, HEADER_CRC);

	crc = crc32_add(crc, zeros, sizeof(zeros));
	return ~crc32_add(crc, h + HEADER_CRC + 4, len - HEADER_CRC - 4);
}

enum gpt_mbr gpt_check_mbr(const void *block)
{
	const uint8_t *mbr = block;
	enum gpt_mbr found = GPT_MBR_NONE;

	if (mbr[MBR_SIGNATURE] != 0x55 || mbr[MBR_SIGNATURE + 1] != 0xaa)
		return GPT_MBR_NONE;
	for (int i = 0; i < 4; i++) {
		const uint8_t *entry = mbr + MBR_ENTRIES + i * MBR_ENTRY_LEN;

		/* A file system's boot sector has the same signature, and code in this place. */
		if (entry[0] & 0x7f)
			return GPT_MBR_NONE;
		if (entry[MBR_TYPE] == MBR_TYPE_GUARD && get32(entry + MBR_FIRST) == 1)
			return GPT_MBR_GUARD;
		if (entry[MBR_TYPE])
			found = GPT_MBR_LEGACY;
	}
	return found;
}

uint32_t gpt_entries_len(const struct gpt_header *h)
{
	return h->entries * h->entry_size;
}

int gpt_parse_header(const void *block, uint32_t block_size, uint64_t lba, uint64_t blocks,
		     struct gpt_header *h, struct err *err)
{
	const uint8_t *p = block;
	uint32_t len = get32(p + HEADER_SIZE);
	uint64_t table;

	if (memcmp(p, "EFI PART", 8))
		return err_set(err, -EINVAL, "block %" PRIu64 " holds no header", lba);
	if (len < HEADER_LEN || len > block_size)
		return err_set(err, -EINVAL, "the header in block %" PRIu64 " has %u bytes", lba,
			       len);
	if (header_crc(p, len) != get32(p + HEADER_CRC))
		return err_set(err, -EINVAL, "the header in block %" PRIu64 " is damaged (CRC)",
			       lba);
	if (get32(p + HEADER_REVISION) >> 16 != 1 || get64(p + HEADER_MY_LBA) != lba)
		return err_set(err, -EINVAL,
			       "the header in block %" PRIu64 " is of another revision or place",
			       lba);
	*h = (struct gpt_header){
		.blocks = blocks,
		.first = get64(p + HEADER_FIRST),
		.last = get64(p + HEADER_LAST),
		.entries_lba = get64(p + HEADER_ENTRIES_LBA),
		.entries = get32(p + HEADER_ENTRIES),
		.entry_size = get32(p + HEADER_ENTRY_SIZE),
		.entries_crc = get32(p + HEADER_ENTRIES_CRC),
	};
	/* The last block is the backup header's, also where this drive's table says otherwise. */
	if (blocks < 4 || h->first < 2 || h->first > h->last || h->last >= blocks - 1)
		return err_set(err, -EINVAL,
			       "partitions from block %" PRIu64 " to %" PRIu64
			       " do not fit the drive, which has %" PRIu64 " blocks",
			       h->first, h->last, blocks);
	if (h->entry_size < ENTRY_LEN || h->entry_size & (h->entry_size - 1) ||
	    h->entry_size > block_size || !h->entries ||
	    h->entries > GPT_ENTRIES_MAX / h->entry_size)
		return err_set(err, -EINVAL, "%u entries of %u bytes are not served", h->entries,
			       h->entry_size);
	table = (gpt_entries_len(h) + block_size - 1) / block_size;
	if (h->entries_lba < 2 || h->entries_lba >= blocks || table >= blocks - h->entries_lba ||
	    (h->entries_lba <= h->last && h->entries_lba + table > h->first))
		return err_set(err, -EINVAL,
			       "the entries at block %" PRIu64
			       " lie outside the drive or among the partitions",
			       h->entries_lba);
	return 0;
}

/* A GUID's text: its first three fields are little-endian numbers. */
static void format_guid(const uint8_t *g, char *text, size_t len)
{
	snprintf(text, len, "%08x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", get32(g),
		 g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
}

static void copy_name(const uint8_t *from, char *name)
{
	int i;

	for (i = 0; i < ENTRY_NAME_LEN && (from[2 * i] || from[2 * i + 1]); i++)
		name[i] = from[2 * i + 1] ? '?' : (char)from[2 * i];
	name[i] = '\0';
	parse_make_printable(name);
}

static bool overlap(const struct gpt_part *a, const struct gpt_part *b)
{
	return a->first < b->first + b->blocks && b->first < a->first + a->blocks;
}

/*
 * Leaves out those that share blocks with another: which of the two is meant cannot be told, and
 * two guests would be given them.
 */
static unsigned drop_overlapping(struct gpt_part *parts, unsigned n)
{
	bool bad[GPT_PARTS_MAX] = {false};
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < i; k++) {
			if (overlap(&parts[i], &parts[k]))
				bad[i] = bad[k] = true;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		if (!bad[i])
			parts[left++] = parts[i];
	}
	return left;
}

int gpt_parse_entries(const struct gpt_header *h, const void *entries, struct gpt_part *parts,
		      unsigned *refused, struct err *err)
{
	static const uint8_t unused[16];
	unsigned n = 0, left;

	*refused = 0;
	if (crc32(entries, gpt_entries_len(h)) != h->entries_crc)
		return err_set(err, -EINVAL, "the entries at block %" PRIu64 " are damaged (CRC)",
			       h->entries_lba);
	for (uint32_t i = 0; i < h->entries; i++) {
		const uint8_t *entry = (const uint8_t *)entries + (size_t)i * h->entry_size;
		uint64_t first = get64(entry + ENTRY_FIRST), last = get64(entry + ENTRY_LAST);

		if (!memcmp(entry + ENTRY_TYPE, unused, sizeof(unused)))
			continue;
		if (first < h->first || last < first || last > h->last || n == GPT_PARTS_MAX) {
			++*refused;
			continue;
		}
		parts[n].number = i + 1;
		parts[n].first = first;
		parts[n].blocks = last - first + 1;
		copy_name(entry + ENTRY_NAME, parts[n].name);
		format_guid(entry + ENTRY_GUID, parts[n].guid, sizeof(parts[n].guid));
		n++;
	}
	left = drop_overlapping(parts, n);
	*refused += n - left;
	return (int)left;
}
