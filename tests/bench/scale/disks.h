/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disks: many guests, each with one disk and its queues, on one instance of Sluice's Xen backend
 * over the double; and a driver for all of them on one thread, which is as cheap as can be, so that
 * the reactor is what limits them.  Mistakes abort.
 */
#ifndef SLUICE_BENCH_SCALE_DISKS_H
#define SLUICE_BENCH_SCALE_DISKS_H

#include "base/hist.h"
#include "guest.h"
#include "host.h"

enum { DISK_QUEUES_MAX = 4, DISK_SLOTS = 32, DISK_FIRST_DOMID = 10, DISK_SEGMENTS_MAX = 8 };

struct disk_queue;

struct disk_slot {
	struct front_req req;
	struct disk_queue *queue;
	uint64_t begun_ns;
};

struct disk_queue {
	struct guest guest; /* one of this queue alone, as the fixture knows it */
	struct guest_page page;
	/* All segments of all requests of the queue are the one page. */
	struct blkif_wire_segment segments[DISK_SEGMENTS_MAX];
	unsigned nr_segments;
	unsigned depth;
	unsigned idle; /* slots that wait to be submitted: entries of stack */
	uint64_t answered;
	struct hist *latency; /* or NULL */
	struct disk_slot *stack[DISK_SLOTS];
	struct disk_slot slots[DISK_SLOTS];
};

struct bench_disk {
	struct guest guest;
	unsigned nr_queues;
	struct disk_queue queues[DISK_QUEUES_MAX];
};

struct world_opts {
	unsigned disks;
	unsigned queues; /* of each: 1, or up to DISK_QUEUES_MAX */
	unsigned reactors;
	bool ram;          /* on ram bdevs; else on null */
	unsigned segments; /* pages of a request, up to DISK_SEGMENTS_MAX */
	unsigned seconds;
	unsigned times;
	unsigned depth;
};

struct bench_world {
	struct host host;
	struct instance *daemon;
	unsigned nr_disks;
	struct bench_disk *disks;
	bool ram;
	unsigned segments;
};

/* Boots it with such an instance, but no disks; the guests' domains are made. */
void bench_boot(struct bench_world *w, const struct world_opts *opts);
/* Makes the bdev of disk @n, attaches it to a guest of its own, and connects. */
void bench_attach(struct bench_world *w, unsigned n, unsigned queues);
/* The toolstack detaches it, and the guest lets go. */
void bench_detach(struct bench_world *w, unsigned n);
/* Takes the guests' frontends away, whose backend has gone; ends the world. Aborts if anything was
 * left over. */
void bench_end(struct bench_world *w);

/* How many requests are kept outstanding in each queue; 0: none. */
void disk_set_depth(struct bench_disk *d, unsigned depth);
/* Collects answers and begins as many requests, of READs and WRITEs in turns. Returns how many were
 * answered. */
unsigned disk_drive(struct bench_disk *d);
/* Collects what is outstanding; begins nothing. */
void disk_settle(struct bench_disk *d);
uint64_t disk_answered(const struct bench_disk *d);

void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The measurements; each prints lines of a name and a number. */
void bench_idle(const struct world_opts *opts);
void bench_busy(const struct world_opts *opts);
void bench_fair(const struct world_opts *opts);
void bench_churn(const struct world_opts *opts);

#endif
