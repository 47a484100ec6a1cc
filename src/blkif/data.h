/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to src/blkif.
 *
 * data: where a request's data is, for the device, and the steps of the share that bring it there.
 *
 * Copied data is packed into bounce pages: local memory has no gaps, whatever the guest's pages
 * have.  Mapped data stays where it is: the device is given the guest's own pages, as they lie.
 * Whatever stands against that (a page that cannot be mapped, pieces that the device does not take,
 * the guest's quota) is no error: the request is copied instead, and then it shows whether its
 * references are good.
 */
#ifndef SLUICE_BLKIF_DATA_H
#define SLUICE_BLKIF_DATA_H

#include <stdbool.h>

struct blkif_io;
struct share;
struct share_piece;

/* Adds the copy of the indirect page, or reads it, if it is mapped. */
void blkif_data_fetch(struct blkif_io *io);
/* Adds the copies of all segments, by the share's copy_in or copy_out. */
void blkif_data_copy(struct blkif_io *io,
		     void (*add)(struct share *s, const struct share_piece *piece));
/* Describes the bounce pages to the device. */
void blkif_data_describe(struct blkif_io *io);
/* Maps the request's pages and describes them to the device; false: it has to be copied. */
bool blkif_data_map(struct blkif_io *io);
/* Lets go of what was mapped. */
void blkif_data_unmap(struct blkif_io *io);

#endif
