/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the partition table of a namespace's bdev, block by block, on the control reactor. */
#ifndef SLUICE_NVME_DRIVE_TABLE_H
#define SLUICE_NVME_DRIVE_TABLE_H

#include "bdev/bdev.h"
#include "nvme/gpt.h"

struct drive_table;

/*
 * Reads the table of @whole, which must stay, by a channel on @r. Returns 0, and calls @done later
 * (perhaps before this returns): with 0 or more partitions, which are valid for the call, and how
 * many more the table names that cannot be served; or with a negative errno and the line in @err.
 * Returns a negative errno if there is no memory or no channel; then @done is not called.
 */
int drive_table_read(struct bdev *whole, struct reactor *r,
		     void (*done)(void *arg, int rc, const struct gpt_part *parts, unsigned refused,
				  const struct err *err),
		     void *arg, struct err *err);

#endif
