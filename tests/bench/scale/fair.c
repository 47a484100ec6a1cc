/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What others cost a busy disk: one beside idle ones, and all busy at once.
 *
 * Fairness is only asked for if the reactor is what limits; so it is told how many of the driver's
 * looks at a ring were in vain: few, and it was the driver that shared out.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "disks.h"

enum { WARM_UP_MS = 300 };

static void print_latency(const char *prefix, const struct hist *h)
{
	printf("%sp50_ns %lu\n", prefix, (unsigned long)hist_percentile(h, 500000));
	/* A percentile with fewer samples beyond it says nothing. */
	if (h->count >= 10000)
		printf("%sp99_ns %lu\n", prefix, (unsigned long)hist_percentile(h, 990000));
	if (h->count >= 100000)
		printf("%sp99_9_ns %lu\n", prefix, (unsigned long)hist_percentile(h, 999000));
}

static void drive_one_for(struct bench_disk *d, uint64_t ns)
{
	uint64_t end = clock_now_ns() + ns;

	while (clock_now_ns() < end)
		disk_drive(d);
}

void bench_busy(const struct world_opts *opts)
{
	struct hist *latency = calloc(1, sizeof(*latency));
	struct bench_world w;
	struct bench_disk *d;
	uint64_t begun, ns, answered;

	if (!latency)
		bench_die("out of memory");
	bench_boot(&w, opts);
	for (unsigned n = 0; n < w.nr_disks; n++)
		bench_attach(&w, n, opts->queues);
	d = &w.disks[w.nr_disks / 2];
	d->queues[0].depth = opts->depth;
	/* One queue: a guest that does little does it on one processor. */
	d->nr_queues = 1;
	disk_set_depth(d, opts->depth);
	drive_one_for(d, WARM_UP_MS * NSEC_PER_MSEC);
	d->queues[0].latency = latency;
	answered = disk_answered(d);
	begun = clock_now_ns();
	drive_one_for(d, opts->seconds * NSEC_PER_SEC);
	ns = clock_now_ns() - begun;
	printf("ns %.1f\n", (double)ns / (double)(disk_answered(d) - answered));
	disk_settle(d);
	d->nr_queues = opts->queues;
	print_latency("", latency);
	bench_end(&w);
	free(latency);
}

/* All busy */

struct looks {
	uint64_t all;
	uint64_t empty;
};

static void drive_all_for(struct bench_world *w, uint64_t ns, struct looks *looks)
{
	uint64_t end = clock_now_ns() + ns;

	while (clock_now_ns() < end)
		for (unsigned n = 0; n < w->nr_disks; n++) {
			looks->all++;
			looks->empty += !disk_drive(&w->disks[n]);
		}
}

static void print_shares(const struct bench_world *w, unsigned first, const uint64_t *before)
{
	double least = 1e300, most = 0, sum = 0, mean;

	for (unsigned n = first; n < w->nr_disks; n++) {
		double did = (double)(disk_answered(&w->disks[n]) - before[n]);

		sum += did;
		least = did < least ? did : least;
		most = did > most ? did : most;
	}
	mean = sum / (w->nr_disks - first);
	printf("mean %.1f\nleast %.0f\nmost %.0f\n", mean, least, most);
	printf("deviation %.4f\n", most - mean > mean - least ? most / mean - 1 : 1 - least / mean);
}

/*
 * @opts->depth 0: all at full depth on all queues; else the first one is, and the others have that
 * depth on one queue.
 */
void bench_fair(const struct world_opts *opts)
{
	uint64_t *before = calloc(opts->disks, sizeof(before[0]));
	struct hist *latency = calloc(1, sizeof(*latency));
	struct bench_world w;
	struct looks looks = {0}, ignored;

	if (!before || !latency)
		bench_die("out of memory");
	bench_boot(&w, opts);
	for (unsigned n = 0; n < w.nr_disks; n++)
		bench_attach(&w, n, opts->queues);
	for (unsigned n = 0; n < w.nr_disks; n++) {
		struct bench_disk *d = &w.disks[n];

		if (opts->depth && n)
			d->nr_queues = 1;
		disk_set_depth(d, opts->depth && n ? opts->depth : DISK_SLOTS);
	}
	drive_all_for(&w, WARM_UP_MS * NSEC_PER_MSEC, &ignored);
	for (unsigned n = 0; n < w.nr_disks; n++)
		before[n] = disk_answered(&w.disks[n]);
	w.disks[w.nr_disks - 1].queues[0].latency = latency;
	drive_all_for(&w, opts->seconds * NSEC_PER_SEC, &looks);
	print_shares(&w, opts->depth ? 1 : 0, before);
	if (opts->depth)
		printf("deep %lu\n", (unsigned long)(disk_answered(&w.disks[0]) - before[0]));
	printf("looked_in_vain %.3f\n", (double)looks.empty / (double)looks.all);
	for (unsigned n = 0; n < w.nr_disks; n++)
		disk_settle(&w.disks[n]);
	print_latency("", latency);
	for (unsigned n = 0; n < w.nr_disks; n++)
		w.disks[n].nr_queues = opts->queues;
	bench_end(&w);
	free(before);
	free(latency);
}
