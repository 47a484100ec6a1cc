/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * measure: what the machine itself does, which figures are to be held against.
 *
 * R is the time in which a cache line goes from one core to another and back: whatever two cores
 * tell each other through memory costs at least half of it.  It differs from pair to pair, and on
 * rented machines from minute to minute, so that a figure and its R belong into one run.
 */
#ifndef SLUICE_PERF_MEASURE_H
#define SLUICE_PERF_MEASURE_H

#include <stdint.h>

/*
 * Measures R between two cores for @ms: the median of many short series, in ns. The calling thread
 * is pinned to @cpu_a meanwhile. Returns 0 or a negative errno (-EINVAL: no such core, or one
 * only).
 */
int measure_round_trip(int cpu_a, int cpu_b, unsigned ms, double *ns);
/*
 * Copies blocks of @block bytes from one half of @footprint bytes to the other, for @ms, on the
 * calling thread, which is pinned to @cpu meanwhile (-1: it is not). *@bytes_per_second: the median
 * of many series. Returns 0 or a negative errno (-EINVAL: no such core, or no room).
 */
int measure_memcpy(uint64_t block, uint64_t footprint, int cpu, unsigned ms,
		   double *bytes_per_second);
/* The median of @n values, which it sorts; 0 if there are none. */
double measure_median(double *values, unsigned n);

#endif
