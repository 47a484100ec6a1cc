/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/near_clock.h"

/*
 * The pace is measured from one look to one that is long after it, so that what a look takes does
 * not show; at the beginning something is better than nothing.
 */
#define FIRST_MEASURE_NS (2 * NSEC_PER_MSEC)
#define MEASURE_NS       (100 * NSEC_PER_MSEC)

static void begin_measure(struct near_clock *c, uint64_t ns, uint64_t ticks)
{
	c->measure_ns = ns;
	c->measure_ticks = ticks;
}

/*
 * What @ticks in @ns make of the pace. A counter that hardly moves has none, and one that has
 * changed its mind (it jumped, it belongs to another processor) is measured anew first.
 */
static void set_pace(struct near_clock *c, uint64_t ns, uint64_t ticks)
{
	uint64_t old = c->window_ticks ? c->ns_per_tick : 0, pace = 0;

	c->window_ticks = 0;
	if (ticks && ns / ticks < NSEC_PER_MSEC)
		pace = (uint64_t)((double)ns / (double)ticks * 4294967296.0);
	if (!pace || (old && (pace > old + old / 8 || pace < old - old / 8)))
		return;
	c->ns_per_tick = pace;
	c->window_ticks = (NEAR_CLOCK_WINDOW_NS << 32) / pace;
}

uint64_t near_clock_look_at(struct near_clock *c, uint64_t ticks)
{
	uint64_t ns = clock_now_ns();
	uint64_t least_ns = c->window_ticks ? MEASURE_NS : FIRST_MEASURE_NS;

	if (!c->measure_ns || ticks < c->look_ticks) {
		c->window_ticks = 0;
		begin_measure(c, ns, ticks);
	} else if (ns - c->measure_ns >= least_ns) {
		set_pace(c, ns - c->measure_ns, ticks - c->measure_ticks);
		begin_measure(c, ns, ticks);
	}
	c->look_ns = ns;
	c->look_ticks = ticks;
	if (ns > c->told_ns)
		c->told_ns = ns;
	return c->told_ns;
}
