/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The time, as cheaply as it can be had.
 *
 * A generator asks for the time twice a request.  Where the kernel has no clock that programs can
 * read for themselves (in PV guests under Xen, for one), each time is a system call; at some tens
 * of microseconds in an emulated guest that would be more than the disk takes, and the figures
 * would be those of the clock.  So what measures reads the processor's time stamp counter, if it
 * proves to go at a steady pace in two intervals before the load.  The tolerance is wide: in a
 * guest whose host is busy it is the system's clock that wavers, by ten percent and more. Latencies
 * are converted by the pace over the whole run, and how that compares with the first is told, for
 * who wants to know what they are worth.  What verifies is in no hurry, and its ticks are the
 * system's nanoseconds.
 */
#include <time.h>

#include "load.h"

#define INTERVAL_NS 10000000 /* of calibration */
#define TOLERANCE   0.3

struct instant {
	uint64_t ticks;
	uint64_t ns;
};

static bool tsc;
static struct instant start;
static double ns_per_tick = 1;

uint64_t clock_system_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t read_tsc(void)
{
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	return 0;
#endif
}

/* Both clocks at one instant: of some tries, the one in which least time went by in between. */
static struct instant take_instant(void)
{
	struct instant best = {0, 0};
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < 8; i++) {
		uint64_t before = read_tsc(), ns = clock_system_ns(), took = read_tsc() - before;

		if (took < least) {
			least = took;
			best = (struct instant){before + took / 2, ns};
		}
	}
	return best;
}

static double pace(struct instant from, struct instant to)
{
	return to.ticks > from.ticks ? (double)(to.ns - from.ns) / (double)(to.ticks - from.ticks)
				     : 0;
}

static bool agree(double a, double b)
{
	return a > 0 && b > 0 && a < b * (1 + TOLERANCE) && b < a * (1 + TOLERANCE);
}

void clock_begin(bool measuring)
{
	struct timespec interval = {0, INTERVAL_NS};
	struct instant middle, end;

	start = take_instant();
	if (!measuring)
		return;
	nanosleep(&interval, NULL);
	middle = take_instant();
	nanosleep(&interval, NULL);
	end = take_instant();
	ns_per_tick = pace(start, end);
	tsc = agree(pace(start, middle), pace(middle, end));
	if (!tsc)
		ns_per_tick = 1;
}

uint64_t clock_ticks(void)
{
	return tsc ? read_tsc() : clock_system_ns();
}

uint64_t clock_ticks_of(uint64_t ns)
{
	return (uint64_t)((double)ns / ns_per_tick);
}

double clock_end(void)
{
	double overall, change;

	if (!tsc)
		return 1;
	overall = pace(start, take_instant());
	change = overall / ns_per_tick;
	ns_per_tick = overall;
	return change;
}

double clock_ns(double ticks)
{
	return ticks * ns_per_tick;
}

bool clock_is_tsc(void)
{
	return tsc;
}
