/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an idle disk costs.
 *
 * Memory is what the backend gives back when it ends: guests, their rings and xenstore are there
 * before and after, so that the difference is Sluice's own (and what the double's libraries keep of
 * its mappings and ports, as those of Xen would).  What does not depend on the number of disks
 * comes off by comparing two numbers of them, which is up to who runs this.
 *
 * CPU time is that of the reactors and the control thread while nobody does anything.
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "disks.h"
#include "usage.h"

/* What was used is kept for two periods of ten seconds, in case it is needed again. */
enum { BURSTS = 20, SETTLE_S = 1, IDLE_S = 23 };

/* Full rings of reads and writes of all disks at once, over and over: all that grows has grown. */
static void use_all(struct bench_world *w)
{
	uint64_t requests = BURSTS * DISK_SLOTS * w->disks[0].nr_queues;
	bool enough;

	for (unsigned n = 0; n < w->nr_disks; n++)
		disk_set_depth(&w->disks[n], DISK_SLOTS);
	do {
		enough = true;
		for (unsigned n = 0; n < w->nr_disks; n++) {
			disk_drive(&w->disks[n]);
			enough &= disk_answered(&w->disks[n]) >= requests;
		}
	} while (!enough);
	for (unsigned n = 0; n < w->nr_disks; n++)
		disk_settle(&w->disks[n]);
}

static struct reactor_stats all_reactors(struct bench_world *w, unsigned reactors)
{
	struct reactor_stats sum = {0};

	for (unsigned n = 0; n < reactors; n++) {
		struct reactor_stats s;

		reactor_get_stats(instance_reactor(w->daemon, n), &s);
		sum.passes += s.passes;
		sum.sleeps += s.sleeps;
	}
	return sum;
}

static void print_memory(const char *when, const struct usage *with, const struct usage *without)
{
	printf("resident_%s %ld\n", when, (long)(with->resident - without->resident));
	printf("allocated_%s %ld\n", when, (long)(with->allocated - without->allocated));
}

void bench_idle(const struct world_opts *opts)
{
	struct usage fresh, busy, used, ended;
	struct reactor_stats before, after;
	struct bench_world w;
	uint64_t cpu_ns;

	bench_boot(&w, opts);
	for (unsigned n = 0; n < w.nr_disks; n++)
		bench_attach(&w, n, opts->queues);
	sleep(SETTLE_S);
	fresh = usage_of_memory();
	use_all(&w);
	busy = usage_of_memory();
	sleep(IDLE_S);
	before = all_reactors(&w, opts->reactors);
	cpu_ns = usage_cpu_ns("reactor") + usage_cpu_ns("control");
	sleep(opts->seconds);
	cpu_ns = usage_cpu_ns("reactor") + usage_cpu_ns("control") - cpu_ns;
	after = all_reactors(&w, opts->reactors);
	used = usage_of_memory();
	instance_end(w.daemon);
	w.daemon = NULL;
	ended = usage_of_memory();
	print_memory("fresh", &fresh, &ended);
	print_memory("busy", &busy, &ended);
	print_memory("used", &used, &ended);
	printf("cpu_ns %lu\n", (unsigned long)cpu_ns);
	printf("passes %lu\n", (unsigned long)(after.passes - before.passes));
	printf("sleeps %lu\n", (unsigned long)(after.sleeps - before.sleeps));
	bench_end(&w);
}
