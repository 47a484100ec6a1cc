/* SPDX-License-Identifier: BSD-2-Clause */
#include <time.h>

#include "base/clock.h"
#include "fuzz.h"

/* The linker calls these for clock_gettime(), and clock_gettime() for __real_clock_gettime(). */
int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);

/* Each look takes a little, so that who waits for time to pass does not wait for ever. */
enum { NS_PER_LOOK = 50 };

static bool virtual;
static uint64_t now_ns;

void fuzz_clock_start(void)
{
	virtual = true;
	now_ns = 1000 * NSEC_PER_SEC;
}

void fuzz_clock_stop(void)
{
	virtual = false;
}

void fuzz_clock_advance(uint64_t ns)
{
	now_ns += ns;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	if (!virtual)
		return __real_clock_gettime(id, now);
	now_ns += NS_PER_LOOK;
	now->tv_sec = (time_t)(now_ns / NSEC_PER_SEC);
	now->tv_nsec = (long)(now_ns % NSEC_PER_SEC);
	return 0;
}
