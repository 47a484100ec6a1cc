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
 *
 * Where guests' pages are always there (a segment), nothing is mapped for a request and nothing
 * counted: the device is told where they are.
 *
 * Pages are mapped for the CPU, whose addresses the device's driver takes; or for devices only, and
 * then what becomes of a request's pieces are bus addresses, at which nobody but the device ever
 * looks (though a page that stays mapped may have been one of segments, too, which the CPU reads:
 * frontends take both from one pool).  The latter is done by the share's flush, for the requests of
 * a pass together.
 */
#ifndef SLUICE_BLKIF_DATA_H
#define SLUICE_BLKIF_DATA_H

#include <stdbool.h>

struct blkif_io;
struct share;
struct share_piece;

/* Adds the copy of the indirect page. */
void blkif_data_fetch(struct blkif_io *io);
/*
 * Reads it at once, where guests' pages are always there, or it stays mapped. False: it has to be
 * fetched.
 */
bool blkif_data_read_indirect(struct blkif_io *io);
/* Adds the copies of all segments, by the share's copy_in or copy_out. */
void blkif_data_copy(struct blkif_io *io,
		     void (*add)(struct share *s, const struct share_piece *piece));
/* Describes the bounce pages to the device. */
void blkif_data_describe(struct blkif_io *io);
/*
 * Maps the request's pages for the CPU and describes them to the device; or prepares to map them
 * for devices, which the request's way then says. What is always there is only described. False:
 * it has to be copied.
 */
bool blkif_data_map(struct blkif_io *io);
/* Whether it is on its way of being mapped for devices, or is. */
bool blkif_data_is_dma(const struct blkif_io *io);
/* Adds the mappings for devices; after the flush, the other describes them. False: it has to be
 * copied, once its pages are unmapped. */
void blkif_data_add_maps(struct blkif_io *io);
bool blkif_data_take_maps(struct blkif_io *io);
/* Lets go of what was mapped; pages that were mapped for devices are free after the next flush. */
void blkif_data_unmap(struct blkif_io *io);

#endif
