/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver alone: each completion submits the next request, at a random place, from pages that
 * the drive reaches by their bus addresses.  No data is looked at.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hist.h"
#include "drive-load.h"

struct request {
	struct bdev_io io;
	struct bench_job *job;
	struct dma_piece *pieces;
	struct iovec iov;
	uint64_t since_ns;
};

struct bench_job {
	struct worker *worker;
	const struct load_options *opts;
	struct dma_memory mem;
	struct request *requests;
	uint64_t random;
	uint64_t end_ns;
	uint64_t done;
	uint64_t errors;
	int error; /* the first */
	unsigned in_flight;
	struct hist latency;
};

static void submit(struct request *r, uint64_t now)
{
	struct bench_job *job = r->job;
	const struct load_options *opts = job->opts;

	r->io.op = opts->rw[0] == 'r'                                    ? BDEV_READ
		   : opts->rw[0] == 'w' || next_random(&job->random) & 1 ? BDEV_WRITE
									 : BDEV_READ;
	r->io.offset = next_random(&job->random) % (opts->region / opts->block) * opts->block;
	r->since_ns = now;
	job->in_flight++;
	bdev_submit(job->worker->channel, &r->io);
}

static void done(struct bdev_io *io)
{
	struct request *r = container_of(io, struct request, io);
	struct bench_job *job = r->job;
	uint64_t now = clock_now_ns();

	job->in_flight--;
	job->done++;
	if (io->result && !job->errors++) {
		job->error = io->result;
		job->end_ns = now;
	}
	hist_add(&job->latency, now - r->since_ns);
	if (now < job->end_ns)
		submit(r, now);
	else if (!job->in_flight)
		rig_over(job->worker, 0);
}

static void begin(struct worker *w)
{
	struct bench_job *job = w->job;
	uint64_t now = clock_now_ns();

	job->end_ns = now + job->opts->seconds * NSEC_PER_SEC;
	for (unsigned i = 0; i < job->opts->depth; i++)
		submit(&job->requests[i], now);
}

static void make_job(struct rig *rig, struct worker *w, const struct load_options *opts)
{
	struct bench_job *job = calloc(1, sizeof(*job));
	size_t pages = (opts->block + DMA_PAGE_SIZE - 1) / DMA_PAGE_SIZE;

	if (!job)
		die("no memory left");
	job->worker = w;
	job->opts = opts;
	job->random = opts->seed + 0x9e3779b97f4a7c15 * (w->number + 1);
	rig_alloc(rig, pages * opts->depth, &job->mem);
	job->requests = calloc(opts->depth, sizeof(*job->requests));
	for (unsigned i = 0; job->requests && i < opts->depth; i++) {
		struct request *r = &job->requests[i];
		uint32_t left = opts->block;

		r->job = job;
		r->pieces = calloc(pages, sizeof(*r->pieces));
		for (size_t p = 0; r->pieces && p < pages; p++) {
			r->pieces[p].bus = job->mem.bus[i * pages + p];
			r->pieces[p].len = left < DMA_PAGE_SIZE ? left : DMA_PAGE_SIZE;
			left -= r->pieces[p].len;
		}
		r->io.len = opts->block;
		if (opts->iov) {
			r->iov.iov_base = (char *)job->mem.virt + i * pages * DMA_PAGE_SIZE;
			r->iov.iov_len = opts->block;
			r->io.iov = &r->iov;
			r->io.iovcnt = 1;
		} else {
			r->io.pieces = r->pieces;
			r->io.nr_pieces = (uint32_t)pages;
		}
		r->io.done = done;
	}
	w->job = job;
}

void report_bench(const struct load_options *opts, const char *how, uint64_t requests, uint64_t ns,
		  const struct hist *latency)
{
	printf("{\"way\":\"%s\",\"rw\":\"%s\",\"block\":%u,\"depth\":%u,\"requests\":%llu,"
	       "\"bytes\":%llu,\"seconds\":%.3f,\"iops\":%.0f,\"mean_us\":%.1f,\"p50_us\":%.1f,"
	       "\"p99_us\":%.1f,\"max_us\":%.1f}\n",
	       how, opts->rw, opts->block, opts->depth, (unsigned long long)requests,
	       (unsigned long long)requests * opts->block, (double)ns / NSEC_PER_SEC,
	       (double)requests * NSEC_PER_SEC / (double)ns,
	       requests ? (double)latency->sum_ns / (double)requests / 1000 : 0.0,
	       (double)hist_percentile(latency, 500000) / 1000,
	       (double)hist_percentile(latency, 990000) / 1000, (double)latency->max_ns / 1000);
}

void bench(struct rig *rig, const struct load_options *opts)
{
	uint64_t requests = 0, begun, ns;
	struct hist latency = {0};

	for (unsigned i = 0; i < rig->nr_workers; i++)
		make_job(rig, &rig->workers[i], opts);
	begun = clock_now_ns();
	rig_run(rig, begin);
	ns = clock_now_ns() - begun;
	for (unsigned i = 0; i < rig->nr_workers; i++) {
		struct bench_job *job = rig->workers[i].job;

		if (job->error)
			die("%llu requests have failed, the first with: %s",
			    (unsigned long long)job->errors, strerror(-job->error));
		requests += job->done;
		hist_merge(&latency, &job->latency);
		dma_free(rig->dma, &job->mem);
		for (unsigned r = 0; r < opts->depth; r++)
			free(job->requests[r].pieces);
		free(job->requests);
		free(job);
	}
	report_bench(opts, opts->iov ? "iov" : "pieces", requests, ns, &latency);
}
