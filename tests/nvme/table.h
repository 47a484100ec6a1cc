/* SPDX-License-Identifier: BSD-2-Clause */
/* Partition tables (GPT) for tests of drives, for disks of RACK_BLOCKS. */
#ifndef SLUICE_TESTS_NVME_TABLE_H
#define SLUICE_TESTS_NVME_TABLE_H

#include <stdint.h>

#include "rack.h"

struct table_part {
	unsigned number;
	uint64_t first, last; /* blocks */
	char name;
};

/* Writes a table of @n partitions, and the copy of it. */
void table_put(uint8_t *disk, uint32_t block_size, const struct table_part *parts, unsigned n);
/* One with partitions 1, of blocks 64 to 127, and 3, of 128 to 191. */
void table_put_two(uint8_t *disk, uint32_t block_size);

#endif
