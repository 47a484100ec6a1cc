/* SPDX-License-Identifier: BSD-2-Clause */
#include "disks.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "bdev/bdev.h"
#include "double.h"

enum { DEVID = 51712, SECTORS_A_PAGE = 8, BOUNCE_PAGES = 4096, GUEST_BOUNCE_PAGES = 2048 };

/* As sluiced's --poll-us is unless told. */
#define SPIN_MAX_NS NSEC_PER_MSEC

void bench_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("bench-scale: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

static unsigned domid_of(unsigned n)
{
	return DISK_FIRST_DOMID + n;
}

/* The fixture looks every 200 us, which is longer than what is to be measured. */
static void wait_state(struct disk *d, unsigned state)
{
	uint64_t start = clock_now_ns();
	struct timespec nap = {.tv_nsec = 10000};
	char text[8];

	snprintf(text, sizeof(text), "%u", state);
	while (!disk_key_is(d, d->back, "state", text)) {
		if (clock_now_ns() - start > 10 * NSEC_PER_SEC)
			bench_die("%s is not in state %u", d->back, state);
		nanosleep(&nap, NULL);
	}
}

void bench_boot(struct bench_world *w, const struct world_opts *opts)
{
	struct instance_opts instance = {
		.reactors = opts->reactors,
		.bounce_pages = BOUNCE_PAGES,
		.guest_bounce_pages = GUEST_BOUNCE_PAGES,
		.spin_max_ns = SPIN_MAX_NS,
	};
	struct err err;

	memset(w, 0, sizeof(*w));
	w->nr_disks = opts->disks;
	w->ram = opts->ram;
	w->segments = opts->segments;
	w->disks = calloc(w->nr_disks, sizeof(w->disks[0]));
	if (!w->disks)
		bench_die("out of memory");
	host_create(&w->host);
	if (instance_start(&w->host, &instance, &w->daemon, &err))
		bench_die("%s", err.text);
	for (unsigned n = 0; n < w->nr_disks; n++) {
		char name[16];

		snprintf(name, sizeof(name), "guest%u", n);
		double_domain_create(domid_of(n), name);
	}
}

struct make_bdev {
	unsigned n;
	bool ram;
};

static void make_bdev(void *arg)
{
	const struct make_bdev *make = arg;
	struct err err;
	char name[16];
	int rc;

	snprintf(name, sizeof(name), "disk%u", make->n);
	if (bdev_find(name))
		return;
	rc = make->ram ? bdev_ram_create(name, 1 << 20, 512, NULL, &err)
		       : bdev_null_create(name, 1 << 20, 512, NULL, &err);
	if (rc)
		bench_die("%s", err.text);
}

static void init_queue(struct bench_disk *d, struct disk_queue *q, unsigned nr_segments)
{
	struct front_opts opts = {
		.layout = &blkif_layout_x86_64,
		.ring_pages = 1,
		.ops = &q->guest.ops,
		.ctx = &q->guest,
	};

	memset(q, 0, sizeof(*q));
	q->guest = d->guest;
	if (front_create(&opts, &q->guest.front))
		bench_die("out of memory");
	q->guest.port = double_evtchn_alloc(d->guest.disk.domid, 0);
	q->page = guest_page_new(&q->guest, false);
	q->nr_segments = nr_segments;
	for (unsigned i = 0; i < nr_segments; i++)
		q->segments[i] = (struct blkif_wire_segment){.gref = q->page.ref,
							     .last_sect = SECTORS_A_PAGE - 1};
}

static void publish_queue(struct bench_disk *d, unsigned n)
{
	struct disk_queue *q = &d->queues[n];
	char prefix[24] = "", key[64];

	if (d->nr_queues > 1)
		snprintf(prefix, sizeof(prefix), "queue-%u/", n);
	snprintf(key, sizeof(key), "%sring-ref", prefix);
	guest_write_number(&d->guest, key, front_ring_refs(q->guest.front)[0]);
	snprintf(key, sizeof(key), "%sevent-channel", prefix);
	guest_write_number(&d->guest, key, q->guest.port);
}

void bench_attach(struct bench_world *w, unsigned n, unsigned queues)
{
	struct make_bdev make = {.n = n, .ram = w->ram};
	struct bench_disk *d = &w->disks[n];
	struct disk_opts opts = {.instance = "sluice"};
	char target[16];

	host_run(&w->host, make_bdev, &make);
	snprintf(target, sizeof(target), "disk%u", n);
	opts.target = target;
	guest_add_disk(&d->guest, &w->host, domid_of(n), DEVID, &opts);
	wait_state(&d->guest.disk, 2);
	d->nr_queues = queues;
	for (unsigned i = 0; i < queues; i++) {
		init_queue(d, &d->queues[i], w->segments);
		publish_queue(d, i);
	}
	if (queues > 1)
		guest_write_number(&d->guest, "multi-queue-num-queues", queues);
	guest_write(&d->guest, "protocol", blkif_layout_x86_64.protocol);
	guest_set_state(&d->guest, 3);
	wait_state(&d->guest.disk, 4);
	guest_read_disk(&d->guest);
}

static void free_queues(struct bench_disk *d)
{
	for (unsigned i = 0; i < d->nr_queues; i++) {
		struct disk_queue *q = &d->queues[i];

		if (double_evtchn_is_bound(d->guest.disk.domid, q->guest.port))
			bench_die("%s: an event channel is bound still", d->guest.disk.back);
		guest_page_free(&q->guest, &q->page);
		if (!guest_free_front(&q->guest))
			bench_die("%s: a ring is mapped still", d->guest.disk.back);
	}
	d->nr_queues = 0;
	xs_close(d->guest.xs);
}

void bench_detach(struct bench_world *w, unsigned n)
{
	struct bench_disk *d = &w->disks[n];

	toolstack_ask(&d->guest.disk);
	guest_set_state(&d->guest, 6);
	wait_state(&d->guest.disk, 6);
	toolstack_remove_by_force(&d->guest.disk);
	free_queues(d);
}

void bench_end(struct bench_world *w)
{
	if (w->daemon)
		instance_end(w->daemon);
	for (unsigned n = 0; n < w->nr_disks; n++)
		if (w->disks[n].nr_queues)
			free_queues(&w->disks[n]);
	if (host_destroy(&w->host))
		bench_die("something was left over");
	free(w->disks);
}

/* Driving */

static void answered(struct front_req *req)
{
	struct disk_slot *slot = container_of(req, struct disk_slot, req);
	struct disk_queue *q = slot->queue;

	if (req->status != BLKIF_OKAY)
		bench_die("a request failed: %d", req->status);
	if (q->latency)
		hist_add(q->latency, clock_now_ns() - slot->begun_ns);
	q->answered++;
	q->stack[q->idle++] = slot;
}

void disk_set_depth(struct bench_disk *d, unsigned depth)
{
	for (unsigned i = 0; i < d->nr_queues; i++) {
		struct disk_queue *q = &d->queues[i];

		q->depth = depth;
		q->idle = 0;
		for (unsigned n = 0; n < depth; n++) {
			q->slots[n] = (struct disk_slot){
				.req = {.op = n % 2 ? BLKIF_WRITE : BLKIF_READ,
					.sector = (uint64_t)n * SECTORS_A_PAGE,
					.segments = q->segments,
					.nr_segments = q->nr_segments,
					.done = answered},
				.queue = q,
			};
			q->stack[q->idle++] = &q->slots[n];
		}
	}
}

static void begin_all(struct disk_queue *q)
{
	uint64_t now_ns = q->latency ? clock_now_ns() : 0;

	if (!q->idle)
		return;
	while (q->idle) {
		struct disk_slot *slot = q->stack[--q->idle];

		slot->begun_ns = now_ns;
		if (front_submit(q->guest.front, &slot->req))
			bench_die("a ring is full");
	}
	front_push(q->guest.front);
}

static unsigned collect(struct disk_queue *q)
{
	int n = front_poll(q->guest.front);

	if (n < 0)
		bench_die("%s", front_fault(q->guest.front));
	return (unsigned)n;
}

unsigned disk_drive(struct bench_disk *d)
{
	unsigned done = 0;

	for (unsigned i = 0; i < d->nr_queues; i++) {
		done += collect(&d->queues[i]);
		begin_all(&d->queues[i]);
	}
	return done;
}

void disk_settle(struct bench_disk *d)
{
	uint64_t start = clock_now_ns();

	for (unsigned i = 0; i < d->nr_queues; i++)
		while (front_outstanding(d->queues[i].guest.front)) {
			collect(&d->queues[i]);
			if (clock_now_ns() - start > 10 * NSEC_PER_SEC)
				bench_die("%s does not answer", d->guest.disk.back);
		}
}

uint64_t disk_answered(const struct bench_disk *d)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < d->nr_queues; i++)
		n += d->queues[i].answered;
	return n;
}
