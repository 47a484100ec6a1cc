/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice stat` apart from its clock: the arithmetic of rates, and how totals and rates look.
 */
#ifndef SLUICE_SLUICE_STAT_H
#define SLUICE_SLUICE_STAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum { STAT_OPS = 4 };
extern const char *const stat_ops[STAT_OPS]; /* "read", ... */

/*
 * What happened between two results of vbd_get_iostat or sivshm_get_iostat, @seconds apart: for
 * each disk in both an object with its names, "in_flight", "throttled" (times), for read, write,
 * flush and discard "iops", "bytes_per_second", "errors" and "latency_ns_avg", as "notifications"
 * "sent_per_second", "received_per_second", "received_empty_per_second", "responses_per_sent" and
 * "requests_per_received"; and all of these for each of its "queues". Counters that went back are
 * a new disk's or connection's, and count from zero. New reference; NULL without memory.
 */
json_t *stat_rates(const json_t *before, const json_t *now, double seconds);

/* Prints a block for each disk of such a result; @queues: and one for each queue. */
void stat_print_totals(FILE *out, const json_t *disks, bool queues);
/* Prints a table of what stat_rates() returned; @queues: with rows for each queue. */
void stat_print_rates(FILE *out, const json_t *rates, bool queues);

#endif
