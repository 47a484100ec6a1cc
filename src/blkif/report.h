/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report: a disk's statistics as JSON, whichever door it is served at: see
 * sluiced/vbd_rpc.h.
 */
#ifndef SLUICE_BLKIF_REPORT_H
#define SLUICE_BLKIF_REPORT_H

#include <jansson.h>

#include "blkif/connection.h"

struct blkif_gather;

/*
 * Gathers the statistics of disks: begin, a call for each disk, end; then, when all reactors have
 * answered, perhaps before end returns, @done gets the reference to the list. Without memory begin
 * returns NULL, and @done has got NULL.
 */
struct blkif_gather *blkif_gather_begin(void (*done)(void *arg, json_t *stats), void *arg);
/*
 * @disk names it, and gets the rest; the reference is ours. @past: of connections that have ended;
 * @rings: its connection, started and not stopped, or NULL. @guest outlives the connection's
 * answer.
 */
void blkif_gather_disk(struct blkif_gather *g, json_t *disk, const struct blkif_guest *guest,
		       const struct blkif_stats *past, struct blkif_connection *rings);
void blkif_gather_end(struct blkif_gather *g);

#endif
