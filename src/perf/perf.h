/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * perf: the command sluice-perf, all but its main().
 *
 * A run opens a port, connects to the disk, and has a thread a queue make the load.  The load runs
 * in rounds, one if nothing else is to be measured; between rounds nothing is outstanding, so that
 * the machine's own limits can be measured on the same two cores.
 */
#ifndef SLUICE_PERF_PERF_H
#define SLUICE_PERF_PERF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "front/segment.h"
#include "perf/load.h"
#include "perf/options.h"

struct sivshm_port;

struct perf_report {
	struct front_segment_disk disk;
	uint64_t sectors;
	struct load_result result;
	double seconds;     /* that load was made */
	double cpu_seconds; /* of this process, meanwhile */
	/* With limits, medians over the rounds: */
	double round_trip_ns;
	double request_ns; /* of the wall's time for each request that ended */
	double ratio;
	/* And with a footprint: */
	double copy_bytes_per_second;
	double of_copy; /* what the load moved of that */
};

/* Connects through @port, which stays the caller's, makes the load and fills in @report. @stop ends
 * it early. Returns 0, or a negative errno with the reason. */
int perf_run(const struct perf_options *o, struct sivshm_port *port, const atomic_bool *stop,
	     struct perf_report *report, struct err *err);
/* Writes the report for people, or as JSON. Returns 0 or -ENOMEM. */
int perf_print(const struct perf_options *o, const struct perf_report *report, FILE *out);
/* Whether all went well: no error, and no damage found. */
bool perf_is_good(const struct perf_report *report);

/*
 * The whole command. Returns the exit status: 0, 1 (it failed, or the disk did), or 2 (it was
 * called wrongly).
 */
int perf_main(int argc, char **argv, FILE *out, FILE *err_out);

#endif
