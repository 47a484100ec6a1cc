/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks that come and go beside one that is busy: what each coming and going takes, what grows by
 * it, and what the busy one notices.  Of the time a part is the double's, whose xenstore copies its
 * tree for each transaction, and the guest's, who looks at the state every few microseconds.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "disks.h"
#include "double.h"
#include "usage.h"

enum { BUSY, COMES, DISKS, WARM_UP = 100, BEFORE_MS = 1000, FORGOTTEN_MS = 100 };

struct busy {
	struct bench_disk *disk;
	struct hist *latency[2]; /* before, and meanwhile */
	atomic_uint phase;
	atomic_bool end;
};

static void *busy_main(void *arg)
{
	struct busy *b = arg;

	while (!atomic_load(&b->end)) {
		b->disk->queues[0].latency = b->latency[atomic_load(&b->phase)];
		disk_drive(b->disk);
	}
	disk_settle(b->disk);
	return NULL;
}

static unsigned count_nodes(struct xs_handle *xs, const char *path)
{
	unsigned n = 0, nodes = 1;
	char **names = xs_directory(xs, XBT_NULL, path, &n);

	for (unsigned i = 0; names && i < n; i++) {
		char child[512];

		snprintf(child, sizeof(child), "%s/%s", strcmp(path, "/") ? path : "", names[i]);
		nodes += count_nodes(xs, child);
	}
	free(names);
	return nodes;
}

static void nap_ms(unsigned ms)
{
	struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&nap, NULL);
}

struct left {
	struct usage usage;
	uint64_t mapped;
	unsigned nodes;
};

static struct left look(struct bench_world *w)
{
	struct double_stats stats;
	struct left left;

	/* The backend has heard of the last one's end, and forgotten it. */
	nap_ms(FORGOTTEN_MS);
	/* It is no part of what is measured, and grows. */
	double_xs_forget_history();
	double_get_stats(&stats);
	left.usage = usage_of_memory();
	left.mapped = stats.mapped;
	left.nodes = count_nodes(w->host.xs, "/");
	return left;
}

static void print_times(const char *name, const struct hist *h)
{
	printf("%s_ns %lu\n", name, (unsigned long)hist_percentile(h, 500000));
	if (h->count >= 1000)
		printf("%s_p90_ns %lu\n", name, (unsigned long)hist_percentile(h, 900000));
	printf("%s_max_ns %lu\n", name, (unsigned long)h->max_ns);
}

static struct hist *make_hist(void)
{
	struct hist *h = calloc(1, sizeof(*h));

	if (!h)
		bench_die("out of memory");
	return h;
}

static void print_busy(const char *when, const struct hist *h)
{
	printf("busy_%s_p50_ns %lu\n", when, (unsigned long)hist_percentile(h, 500000));
	if (h->count >= 10000)
		printf("busy_%s_p99_ns %lu\n", when, (unsigned long)hist_percentile(h, 990000));
	if (h->count >= 100000)
		printf("busy_%s_p99_9_ns %lu\n", when, (unsigned long)hist_percentile(h, 999000));
}

void bench_churn(const struct world_opts *opts)
{
	struct world_opts two = *opts;
	struct hist *attach = make_hist(), *detach = make_hist();
	struct busy busy = {.latency = {make_hist(), make_hist()}};
	struct left before, after;
	struct bench_world w;
	pthread_t thread;

	two.disks = DISKS;
	bench_boot(&w, &two);
	bench_attach(&w, BUSY, 1);
	busy.disk = &w.disks[BUSY];
	disk_set_depth(busy.disk, 1);
	if (pthread_create(&thread, NULL, busy_main, &busy))
		bench_die("no thread");
	nap_ms(BEFORE_MS);
	atomic_store(&busy.phase, 1);
	for (unsigned i = 0; i < opts->times + WARM_UP; i++) {
		uint64_t begun = clock_now_ns(), attached, used;

		if (i == WARM_UP)
			before = look(&w);
		bench_attach(&w, COMES, opts->queues);
		attached = clock_now_ns();
		disk_set_depth(&w.disks[COMES], 1);
		disk_drive(&w.disks[COMES]);
		disk_settle(&w.disks[COMES]);
		used = clock_now_ns();
		bench_detach(&w, COMES);
		if (i < WARM_UP)
			continue;
		hist_add(attach, attached - begun);
		hist_add(detach, clock_now_ns() - used);
	}
	atomic_store(&busy.phase, 0);
	after = look(&w);
	atomic_store(&busy.end, true);
	pthread_join(thread, NULL);
	print_times("attach", attach);
	print_times("detach", detach);
	print_busy("before", busy.latency[0]);
	print_busy("meanwhile", busy.latency[1]);
	printf("more_allocated %ld\n", (long)(after.usage.allocated - before.usage.allocated));
	printf("more_resident %ld\n", (long)(after.usage.resident - before.usage.resident));
	printf("more_descriptors %d\n", (int)(after.usage.descriptors - before.usage.descriptors));
	printf("more_mapped %ld\n", (long)(after.mapped - before.mapped));
	printf("more_nodes %d\n", (int)(after.nodes - before.nodes));
	bench_end(&w);
	free(attach);
	free(detach);
	free(busy.latency[0]);
	free(busy.latency[1]);
}
