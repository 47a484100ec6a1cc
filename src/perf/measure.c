/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/measure.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"

enum {
	SERIES_MAX = 4096,
	ROUND_TRIPS = 256, /* of a series */
	COPIED = 16 << 20, /* bytes of a series, at least one block */
	HUGE = 2 << 20,
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double measure_median(double *values, unsigned n)
{
	qsort(values, n, sizeof(values[0]), compare);
	return n ? values[n / 2] : 0;
}

/* Each in lines of its own, two for processors that fetch them in pairs. */
struct balls {
	_Alignas(128) atomic_uint ping;
	_Alignas(128) atomic_uint pong;
	_Alignas(128) atomic_bool over;
};

static void *answer(void *arg)
{
	struct balls *balls = arg;
	unsigned seen = 0;

	for (;;) {
		unsigned ping = atomic_load_explicit(&balls->ping, memory_order_acquire);

		if (ping != seen)
			atomic_store_explicit(&balls->pong, seen = ping, memory_order_release);
		else if (atomic_load_explicit(&balls->over, memory_order_relaxed))
			return NULL;
	}
}

static double play(struct balls *balls, unsigned *ball)
{
	uint64_t since_ns = clock_now_ns();

	for (unsigned i = 0; i < ROUND_TRIPS; i++) {
		atomic_store_explicit(&balls->ping, ++*ball, memory_order_release);
		while (atomic_load_explicit(&balls->pong, memory_order_acquire) != *ball)
			continue;
	}
	return (double)(clock_now_ns() - since_ns) / ROUND_TRIPS;
}

static int start_answering(struct balls *balls, int cpu, pthread_t *thread)
{
	pthread_attr_t attr;
	cpu_set_t cpus;
	int rc;

	CPU_ZERO(&cpus);
	CPU_SET((unsigned)cpu, &cpus);
	pthread_attr_init(&attr);
	rc = pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	if (!rc)
		rc = pthread_create(thread, &attr, answer, balls);
	pthread_attr_destroy(&attr);
	return -rc;
}

/* Pins the calling thread; *@before is where it may go again afterwards. */
static int pin(int cpu, cpu_set_t *before)
{
	cpu_set_t here;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return -EINVAL;
	CPU_ZERO(&here);
	CPU_SET((unsigned)cpu, &here);
	if (sched_getaffinity(0, sizeof(*before), before) ||
	    sched_setaffinity(0, sizeof(here), &here))
		return -errno;
	return 0;
}

int measure_round_trip(int cpu_a, int cpu_b, unsigned ms, double *ns)
{
	struct balls balls = {.ping = 0};
	uint64_t end_ns = clock_now_ns() + ms * NSEC_PER_MSEC;
	double *series;
	cpu_set_t before;
	pthread_t thread;
	unsigned ball = 0, n = 0;
	int rc;

	if (cpu_a == cpu_b || cpu_b < 0 || cpu_b >= CPU_SETSIZE)
		return -EINVAL;
	series = calloc(SERIES_MAX, sizeof(series[0]));
	if (!series)
		return -ENOMEM;
	rc = pin(cpu_a, &before);
	if (rc)
		goto out;
	rc = start_answering(&balls, cpu_b, &thread);
	if (!rc) {
		play(&balls, &ball); /* until the other is there */
		do
			series[n++] = play(&balls, &ball);
		while (n < SERIES_MAX && clock_now_ns() < end_ns);
		atomic_store(&balls.over, true);
		pthread_join(thread, NULL);
		*ns = measure_median(series, n);
	}
	sched_setaffinity(0, sizeof(before), &before);
out:
	free(series);
	return rc;
}

static void copy_for(char *memory, uint64_t block, uint64_t half, unsigned ms, double *series,
		     unsigned *nr)
{
	uint64_t blocks = half / block, each = COPIED / block + 1, at = 0;
	uint64_t end_ns = clock_now_ns() + ms * NSEC_PER_MSEC;

	do {
		uint64_t since_ns = clock_now_ns();

		for (uint64_t i = 0; i < each; i++) {
			memcpy(memory + half + at * block, memory + at * block, block);
			at = at + 1 == blocks ? 0 : at + 1;
			/* The compiler may not find that nobody looks. */
			__asm__ volatile("" : : "r"(memory) : "memory");
		}
		series[(*nr)++] = (double)(each * block) * (double)NSEC_PER_SEC /
				  (double)(clock_now_ns() - since_ns);
	} while (*nr < SERIES_MAX && clock_now_ns() < end_ns);
}

int measure_memcpy(uint64_t block, uint64_t footprint, int cpu, unsigned ms,
		   double *bytes_per_second)
{
	double *series;
	cpu_set_t before;
	unsigned n = 0;
	char *memory;
	int rc = 0;

	if (!block || footprint / 2 < block || footprint > SIZE_MAX / 2)
		return -EINVAL;
	series = calloc(SERIES_MAX, sizeof(series[0]));
	memory = mmap(NULL, footprint, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!series || memory == MAP_FAILED) {
		free(series);
		return -ENOMEM;
	}
	/* Where the kernel does it, misses of the TLB are not counted in. */
	if (footprint >= HUGE)
		madvise(memory, footprint, MADV_HUGEPAGE);
	if (cpu >= 0)
		rc = pin(cpu, &before);
	if (!rc) {
		memset(memory, 1, footprint);
		copy_for(memory, block, footprint / 2, ms, series, &n);
		*bytes_per_second = measure_median(series, n);
	}
	if (!rc && cpu >= 0)
		sched_setaffinity(0, sizeof(before), &before);
	munmap(memory, footprint);
	free(series);
	return rc;
}
