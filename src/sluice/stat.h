/* SPDX-License-Identifier: BSD-2-Clause */
/* The arithmetic of `sluice stat`, apart from its clock. */
#ifndef SLUICE_SLUICE_STAT_H
#define SLUICE_SLUICE_STAT_H

#include <jansson.h>

/*
 * What happened between two results of vbd_get_iostat, @seconds apart: for each disk in both an
 * object with its names, "in_flight", and for read, write, flush and discard "iops",
 * "bytes_per_second", "errors" and "latency_ns_avg". A disk whose counters went back is a new one
 * and counts from zero. New reference; NULL without memory.
 */
json_t *stat_rates(const json_t *before, const json_t *now, double seconds);

#endif
