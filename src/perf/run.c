/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/perf.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "blkif/control_page.h"
#include "perf/measure.h"
#include "sivshm.h"

enum {
	CONNECT_MS = 10000,
	CLOSE_MS = 10000,
	PATIENCE_MS = 30000,
	/* With limits: load, then the limits, in turns; short, so that the median is of rounds
	   in which nobody else had the cores. */
	ROUND_MS = 50,
	LIMIT_MS = 10, /* for each limit */
	/* By then the backend has let its core go: it polls for a millisecond as a rule. */
	SETTLE_MS = 5,
	ROUNDS_MAX = 4096,
};
#define VERIFY_AREA (UINT64_C(1) << 30)

/* A thread, and its share of the queues: some that follow each other. */
struct worker {
	struct run *run;
	unsigned first;
	unsigned nr;
	int cpu; /* -1: any */
	bool check;
	unsigned failed; /* of its queues; with rc */
	int rc;
	pthread_t thread;
};

struct run {
	const struct perf_options *o;
	struct sivshm_port *port;
	struct front_segment *segment;
	const atomic_bool *stop;
	uint64_t end_ns;   /* of the round */
	uint64_t requests; /* of each queue; 0: until the run's end */
	struct load *loads[PERF_QUEUES_MAX];
	struct verifier *verifiers[PERF_QUEUES_MAX];
	struct worker workers[PERF_QUEUES_MAX];
	unsigned nr_workers;
};

static void *pages_alloc(void *ctx, unsigned nr, uint32_t *refs)
{
	struct run *r = ctx;

	return front_segment_pages_alloc(r->segment, nr, refs);
}

static bool is_alive(void *ctx)
{
	struct run *r = ctx;

	/* In a guest nobody can tell whether the other side is there. */
	return sivshm_port_is_alive(r->port) != 0 && !front_segment_is_over(r->segment);
}

static bool is_closing(void *ctx)
{
	struct run *r = ctx;

	return front_segment_is_closing(r->segment);
}

/* Before the load */

static unsigned ring_order(unsigned depth)
{
	unsigned order = 0;

	while (order < CONTROL_RING_ORDER_MAX &&
	       blkif_layout_slots(&blkif_layout_line, 1u << order) < depth)
		order++;
	return order;
}

static int connect_disk(struct run *r, struct err *err)
{
	const struct perf_options *o = r->o;
	unsigned pages = (o->block_bytes + BLKIF_PAGE_SIZE - 1) / BLKIF_PAGE_SIZE;
	struct front_segment_opts opts = {
		.queues = o->queues,
		.ring_order = ring_order(o->depth),
		.layouts = o->layouts,
		/* Only what is needed: each slot has pages for it. */
		.max_segments = pages > blkif_layout_line.max_direct_segments ? pages : 0,
	};
	int rc = front_segment_create(r->port, &opts, &r->segment);

	if (rc)
		return err_set(err, rc, "the segment makes no disk: %s", strerror(-rc));
	rc = front_segment_connect(r->segment, CONNECT_MS);
	if (rc == -ETIMEDOUT)
		return err_set(err, rc, "nobody answered in %d s: is sluiced serving this segment?",
			       CONNECT_MS / 1000);
	if (rc)
		return err_set(err, rc, "cannot connect to the disk: %s",
			       front_segment_fault(r->segment));
	return 0;
}

static int judge_disk(const struct run *r, struct err *err)
{
	const struct front_segment_disk *disk = front_segment_disk(r->segment);
	const struct perf_options *o = r->o;
	unsigned pages = (o->block_bytes + BLKIF_PAGE_SIZE - 1) / BLKIF_PAGE_SIZE;
	unsigned direct = disk->layout == CONTROL_LAYOUT_LINE
				  ? blkif_layout_line.max_direct_segments
				  : blkif_layout_x86_64.max_direct_segments;

	if (disk->queues < o->queues)
		return err_set(err, -EINVAL, "the disk has %u queues, not %u: use --queues %u",
			       disk->queues, o->queues, disk->queues);
	if (disk->depth < o->depth)
		return err_set(err, -EINVAL, "a queue takes %u requests, not %u: use --depth %u",
			       disk->depth, o->depth, disk->depth);
	if (pages > direct && pages > disk->max_segments)
		return err_set(err, -EINVAL,
			       "the disk takes at most %u KiB in a request: use a smaller --bs",
			       (disk->max_segments > direct ? disk->max_segments : direct) *
				       (BLKIF_PAGE_SIZE / 1024));
	if (o->block_bytes % disk->sector_size)
		return err_set(err, -EINVAL, "the disk's sectors are of %u bytes: choose --bs so",
			       disk->sector_size);
	if (disk->features & CONTROL_READONLY && o->read_percent < 100)
		return err_set(err, -EROFS, "the disk is read-only: use --rw read or randread");
	if (o->flush_every && !(disk->features & CONTROL_FLUSH))
		return err_set(err, -EOPNOTSUPP, "the disk takes no flushes: leave --flush-every");
	return 0;
}

/* The part of the disk that is used, in blocks. */
static int choose_area(const struct run *r, uint64_t *blocks, struct err *err)
{
	const struct perf_options *o = r->o;
	uint64_t sectors = front_segment_sectors(r->segment);
	uint64_t bytes = sectors < UINT64_MAX / BLKIF_SECTOR_SIZE ? sectors * BLKIF_SECTOR_SIZE : 0;
	uint64_t area = o->area ? o->area : bytes;

	if (o->verify && !o->area && area > VERIFY_AREA)
		area = VERIFY_AREA;
	if (area > bytes)
		return err_set(err, -EINVAL, "the disk has only %lu bytes: use a smaller --area",
			       (unsigned long)bytes);
	*blocks = area / o->block_bytes / o->queues;
	/* A write has its block to itself: enough others have to be left. */
	if (!*blocks || (o->verify && *blocks < 4ULL * o->depth))
		return err_set(err, -EINVAL,
			       "%lu bytes are too small an area for %u queues of depth %u",
			       (unsigned long)area, o->queues, o->depth);
	return 0;
}

/* The @n-th core of the mask, and from the beginning again. */
static int cpu_of(uint64_t mask, unsigned n)
{
	if (!mask)
		return -1;
	n %= (unsigned)__builtin_popcountll(mask);
	while (n--)
		mask &= mask - 1;
	return __builtin_ctzll(mask);
}

static int make_queue(struct run *r, unsigned n, uint64_t blocks, uint64_t run_id, struct err *err)
{
	const struct perf_options *o = r->o;
	struct load_opts opts = {
		.front = front_segment_queue(r->segment, n),
		.pages_alloc = pages_alloc,
		.is_alive = is_alive,
		.is_closing = is_closing,
		.ctx = r,
		.random = o->random,
		.read_percent = o->read_percent,
		.block_bytes = o->block_bytes,
		.depth = o->depth,
		.first_block = n * blocks,
		.nr_blocks = blocks,
		.flush_every = o->flush_every,
		.push_every = o->push_every,
		.sleep = o->sleep,
		.seed = o->seed + n,
		.patience_ms = PATIENCE_MS,
	};
	int rc;

	if (o->verify) {
		r->verifiers[n] =
			verify_create(run_id, n, o->block_bytes, opts.first_block, blocks);
		if (!r->verifiers[n])
			return err_set(
				err, -ENOMEM,
				"no memory to remember so many blocks: use a smaller --area");
		opts.verifier = r->verifiers[n];
	}
	rc = load_create(&opts, &r->loads[n]);
	if (rc == -ENOMEM)
		return err_set(err, rc,
			       "the segment is too small for %u queues of %u requests of %u bytes: "
			       "use less of them, or make the worker with a larger --segment",
			       o->queues, o->depth, o->block_bytes);
	if (rc)
		return err_set(err, rc, "no load can be made so: %s", strerror(-rc));
	return 0;
}

/*
 * Threads that poll get in each other's way on one core, so there each core has one; those that
 * sleep do not, and can wait for one queue only.
 */
static void share_out(struct run *r)
{
	const struct perf_options *o = r->o;
	unsigned cores = (unsigned)__builtin_popcountll(o->cpumask);

	r->nr_workers = o->sleep || !cores || cores > o->queues ? o->queues : cores;
	for (unsigned n = 0; n < r->nr_workers; n++) {
		struct worker *w = &r->workers[n];

		w->run = r;
		w->cpu = cpu_of(o->cpumask, n);
		w->first = n * o->queues / r->nr_workers;
		w->nr = (n + 1) * o->queues / r->nr_workers - w->first;
	}
	if (o->size)
		r->requests = (o->size / o->block_bytes + o->queues - 1) / o->queues;
	if (o->size && !r->requests)
		r->requests = 1;
}

/* The load */

static void *work(void *arg)
{
	struct worker *w = arg;
	struct run *r = w->run;

	if (w->check)
		w->rc = load_check(&r->loads[w->first], w->nr, r->stop, &w->failed);
	else
		w->rc = load_run(&r->loads[w->first], w->nr, r->end_ns, r->requests, r->stop,
				 &w->failed);
	return NULL;
}

static int start_worker(struct worker *w)
{
	pthread_attr_t attr;
	cpu_set_t cpus;
	int rc = 0;

	pthread_attr_init(&attr);
	if (w->cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET((unsigned)w->cpu, &cpus);
		rc = pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	}
	if (!rc)
		rc = pthread_create(&w->thread, &attr, work, w);
	pthread_attr_destroy(&attr);
	return -rc;
}

/* It is gone, or has closed the disk, or is about to. */
static int explain_end(struct run *r, struct err *err)
{
	if (!sivshm_port_is_alive(r->port))
		return err_set(err, -EPIPE, "the backend is gone");
	if (front_segment_advance(r->segment) < 0)
		return err_set(err, -EPIPE, "the disk is gone: %s",
			       front_segment_fault(r->segment));
	return err_set(err, -EPIPE, "the disk is being taken away");
}

static int explain(struct run *r, unsigned n, int rc, struct err *err)
{
	const char *fault = front_fault(front_segment_queue(r->segment, n));

	switch (rc) {
	case -EPROTO:
		return err_set(err, rc, "queue %u: the backend broke the protocol: %s", n,
			       fault ? fault : "impossible counters");
	case -EPIPE:
		return explain_end(r, err);
	case -ETIMEDOUT:
		return err_set(err, rc, "queue %u: no answer for %d s", n, PATIENCE_MS / 1000);
	default:
		return err_set(err, rc, "queue %u: %s", n, strerror(-rc));
	}
}

/* All queues at once, until each is done. */
static int load_all(struct run *r, bool check, struct err *err)
{
	unsigned started = 0;
	int rc = 0;

	for (; started < r->nr_workers && !rc; started++) {
		r->workers[started].check = check;
		rc = start_worker(&r->workers[started]);
		if (rc)
			break;
	}
	if (rc)
		err_set(err, rc, "no thread for queue %u on core %d: %s", r->workers[started].first,
			r->workers[started].cpu, strerror(-rc));
	for (unsigned n = 0; n < started; n++) {
		pthread_join(r->workers[n].thread, NULL);
		if (!rc && r->workers[n].rc)
			rc = explain(r, r->workers[n].first + r->workers[n].failed,
				     r->workers[n].rc, err);
	}
	if (!rc && front_segment_is_closing(r->segment))
		rc = explain_end(r, err);
	return rc;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static uint64_t requests_of(const struct run *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < r->o->queues; i++)
		for (unsigned kind = 0; kind < LOAD_KINDS; kind++)
			n += load_result(r->loads[i])->kinds[kind].requests;
	return n;
}

static uint64_t bytes_of(const struct run *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < r->o->queues; i++)
		for (unsigned kind = 0; kind < LOAD_KINDS; kind++)
			n += load_result(r->loads[i])->kinds[kind].bytes;
	return n;
}

/* What a round of load came to, or what the machine itself does, before or after one. */
struct pace {
	double request_ns; /* of the wall's time for each request that ended */
	double bytes_per_second;
};
struct machine {
	double round_trip_ns;
	double bytes_per_second;
};

/* One round of @ns; 0: until it is over by itself. */
static int run_round(struct run *r, uint64_t ns, struct perf_report *report, struct pace *pace,
		     struct err *err)
{
	uint64_t requests = requests_of(r), bytes = bytes_of(r);
	uint64_t since_ns = clock_now_ns(), took_ns;
	double cpu = cpu_seconds();
	int rc;

	r->end_ns = ns ? since_ns + ns : 0;
	rc = load_all(r, false, err);
	took_ns = clock_now_ns() - since_ns;
	report->seconds += (double)took_ns / (double)NSEC_PER_SEC;
	report->cpu_seconds += cpu_seconds() - cpu;
	requests = requests_of(r) - requests;
	bytes = bytes_of(r) - bytes;
	pace->request_ns = requests ? (double)took_ns / (double)requests : 0;
	pace->bytes_per_second = (double)bytes * (double)NSEC_PER_SEC / (double)took_ns;
	return rc;
}

static int measure_machine(const struct run *r, struct machine *m, struct err *err)
{
	const struct perf_options *o = r->o;
	int here = r->workers[0].cpu, rc;

	usleep(SETTLE_MS * 1000);
	rc = measure_round_trip(here, o->backend_cpu, LIMIT_MS, &m->round_trip_ns);
	if (rc)
		return err_set(err, rc, "cannot measure between cores %d and %d: %s", here,
			       o->backend_cpu, strerror(-rc));
	if (!o->footprint)
		return 0;
	rc = measure_memcpy(o->copy_block, o->footprint, o->backend_cpu, LIMIT_MS,
			    &m->bytes_per_second);
	if (rc)
		return err_set(err, rc, "cannot measure copying in %lu bytes: %s",
			       (unsigned long)o->footprint, strerror(-rc));
	return 0;
}

/*
 * Load and limits in turns.  Each round is held against what was measured right before and after
 * it: what a core is worth changes with whoever else is on the machine.
 */
static int run_with_limits(struct run *r, struct perf_report *report, struct err *err)
{
	static double trips[ROUNDS_MAX], requests[ROUNDS_MAX], ratios[ROUNDS_MAX];
	static double copies[ROUNDS_MAX], of_copies[ROUNDS_MAX];
	struct machine before = {0}, after = {0};
	struct pace pace;
	uint64_t end_ns;
	unsigned n = 0;
	int rc;

	rc = measure_machine(r, &before, err);
	end_ns = clock_now_ns() + r->o->seconds * NSEC_PER_SEC;
	while (!rc && n < ROUNDS_MAX && clock_now_ns() < end_ns && !atomic_load(r->stop)) {
		rc = run_round(r, ROUND_MS * NSEC_PER_MSEC, report, &pace, err);
		if (!rc)
			rc = measure_machine(r, &after, err);
		if (rc)
			break;
		trips[n] = (before.round_trip_ns + after.round_trip_ns) / 2;
		requests[n] = pace.request_ns;
		ratios[n] = requests[n] / trips[n];
		copies[n] = (before.bytes_per_second + after.bytes_per_second) / 2;
		of_copies[n] = copies[n] > 0 ? pace.bytes_per_second / copies[n] : 0;
		before = after;
		n++;
	}
	report->round_trip_ns = measure_median(trips, n);
	report->request_ns = measure_median(requests, n);
	report->ratio = measure_median(ratios, n);
	report->copy_bytes_per_second = measure_median(copies, n);
	report->of_copy = measure_median(of_copies, n);
	return rc;
}

static int run_load(struct run *r, struct perf_report *report, struct err *err)
{
	struct pace pace;
	int rc;

	if (r->o->with_limits)
		rc = run_with_limits(r, report, err);
	else
		rc = run_round(r, r->o->seconds * NSEC_PER_SEC, report, &pace, err);
	for (unsigned n = 0; n < r->o->queues; n++)
		load_result_add(&report->result, load_result(r->loads[n]));
	if (rc || !r->o->verify)
		return rc;
	/* What was measured is in the report; what the last look finds comes in addition. */
	for (unsigned n = 0; n < r->o->queues; n++)
		load_forget(r->loads[n]);
	rc = load_all(r, true, err);
	for (unsigned n = 0; n < r->o->queues; n++)
		load_result_add_found(&report->result, load_result(r->loads[n]));
	return rc;
}

int perf_run(const struct perf_options *o, struct sivshm_port *port, const atomic_bool *stop,
	     struct perf_report *report, struct err *err)
{
	struct run r = {.o = o, .port = port, .stop = stop};
	uint64_t blocks = 0, run_id;
	int rc;

	memset(report, 0, sizeof(*report));
	if (getrandom(&run_id, sizeof(run_id), 0) != sizeof(run_id))
		return err_set(err, -EIO, "the kernel gives no random numbers");
	rc = connect_disk(&r, err);
	if (!rc)
		rc = judge_disk(&r, err);
	if (!rc)
		rc = choose_area(&r, &blocks, err);
	for (unsigned n = 0; !rc && n < o->queues; n++)
		rc = make_queue(&r, n, blocks, run_id, err);
	if (!rc) {
		share_out(&r);
		report->disk = *front_segment_disk(r.segment);
		report->sectors = front_segment_sectors(r.segment);
		rc = run_load(&r, report, err);
	}
	if (r.segment)
		front_segment_close(r.segment, CLOSE_MS);
	for (unsigned n = 0; n < o->queues; n++) {
		if (r.loads[n])
			load_destroy(r.loads[n]);
		verify_destroy(r.verifiers[n]);
	}
	if (r.segment)
		front_segment_destroy(r.segment);
	return rc;
}
