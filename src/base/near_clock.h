/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * near_clock: the clock, for who looks at it all the time.
 *
 * Where the kernel's clock can be read without entering the kernel, reading it costs next to
 * nothing.  In a PV domain of Xen's, dom0 among them, it often is a system call, which a thread
 * that polls would make every few microseconds.  So between two looks at the clock time is told by
 * the processor's cycle counter, whose pace the looks measure.
 *
 * The counter is not believed for longer than a window after a look.  So whatever it does, the time
 * told is never more than a window ahead; it lags only by what the counter has lost since the look,
 * should it slow down or stop; and it never goes back.  Who may have slept looks
 * (near_clock_look()), since some counters sleep, too.
 *
 * A near clock belongs to one thread.
 */
#ifndef SLUICE_BASE_NEAR_CLOCK_H
#define SLUICE_BASE_NEAR_CLOCK_H

#include "base/clock.h"

/* How long the counter is believed. */
#define NEAR_CLOCK_WINDOW_NS NSEC_PER_MSEC

/* All zero at first. */
struct near_clock {
	/* private */
	uint64_t told_ns; /* the last answer */
	uint64_t look_ns; /* the last look, and the counter then */
	uint64_t look_ticks;
	uint64_t window_ticks; /* 0: the pace is not known yet */
	uint64_t ns_per_tick;  /* times 2^32 */
	uint64_t measure_ns;   /* the look from which on the pace is measured */
	uint64_t measure_ticks;
};

static inline uint64_t near_clock_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_ia32_rdtsc();
#else
	return clock_now_ns();
#endif
}

/* Looks at the clock, at the counter's stand @ticks; returns nanoseconds. */
uint64_t near_clock_look_at(struct near_clock *c, uint64_t ticks);

/* The time in nanoseconds, comparable with clock_now_ns(), at the counter's stand @ticks. */
static inline uint64_t near_clock_tell_at(struct near_clock *c, uint64_t ticks)
{
	uint64_t since = ticks - c->look_ticks, ns;

	if (since >= c->window_ticks)
		return near_clock_look_at(c, ticks);
	ns = c->look_ns + (since * c->ns_per_tick >> 32);
	if (ns > c->told_ns)
		c->told_ns = ns;
	return c->told_ns;
}

static inline uint64_t near_clock_look(struct near_clock *c)
{
	return near_clock_look_at(c, near_clock_ticks());
}

/* Has the next answers be looks, until the pace was measured anew. */
static inline void near_clock_forget_pace(struct near_clock *c)
{
	c->window_ticks = 0;
	c->measure_ns = 0;
}

static inline uint64_t near_clock_tell(struct near_clock *c)
{
	return near_clock_tell_at(c, near_clock_ticks());
}

#endif
