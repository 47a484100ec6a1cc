/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gpt: the GUID partition table of a drive (UEFI specification 2.10, chapter 5), from its bytes.
 *
 * A guest that has the whole drive may have written the table, and the next guests are told by it
 * where they may write.  So it is read as a stranger's: nothing lies outside the drive, on the
 * table itself, or in two partitions at once, or it is not a partition.  What else was written
 * there is refused rather than guessed at.
 *
 * Reading takes three steps, for each of which the caller reads blocks: the first block says
 * whether there is to be a table, the second (or the drive's last, if that is damaged) where its
 * entries are, and the entries are partitions.
 */
#ifndef SLUICE_NVME_GPT_H
#define SLUICE_NVME_GPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
	GPT_PARTS_MAX = 128,       /* partitions of a drive that are served */
	GPT_ENTRIES_MAX = 1 << 17, /* bytes of entries that are read */
};

struct gpt_header {
	uint64_t blocks; /* of the drive */
	uint64_t first;  /* block that a partition may have, */
	uint64_t last;   /* to this one */
	uint64_t entries_lba;
	uint32_t entries;
	uint32_t entry_size;
	uint32_t entries_crc;
};

struct gpt_part {
	uint32_t number; /* its entry's, from 1 */
	uint64_t first;  /* block */
	uint64_t blocks;
	char name[37]; /* printable ASCII */
	char guid[37]; /* its own, as text */
};

enum gpt_mbr {
	GPT_MBR_NONE,   /* no partition table at all */
	GPT_MBR_LEGACY, /* partitions of another age, which are not served */
	GPT_MBR_GUARD,  /* the protective one: a GUID partition table follows */
};

/* What the drive's first block, of 512 bytes or more, announces. */
enum gpt_mbr gpt_check_mbr(const void *block);

/*
 * Decodes a header of @block_size bytes that was read from block @lba of a drive of @blocks.
 * Returns 0, or -EINVAL with the reason in @err.
 */
int gpt_parse_header(const void *block, uint32_t block_size, uint64_t lba, uint64_t blocks,
		     struct gpt_header *h, struct err *err);
/* Bytes of the entries, which begin with block @h->entries_lba; at most GPT_ENTRIES_MAX. */
uint32_t gpt_entries_len(const struct gpt_header *h);
/*
 * Decodes entries, gpt_entries_len() bytes of them, to at most GPT_PARTS_MAX partitions, ascending
 * by number. Returns how many, and in *@refused how many more were left out as they lie where none
 * may, or are too many; or -EINVAL with the reason in @err.
 */
int gpt_parse_entries(const struct gpt_header *h, const void *entries, struct gpt_part *parts,
		      unsigned *refused, struct err *err);

#endif
