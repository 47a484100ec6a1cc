/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Histogram, percentiles, and the line of JSON that a run ends with.
 *
 * A percentile is a claim about the rare cases, and needs some of them: one with less than a
 * hundred latencies beyond it is null.  Who wants more of it merges the histograms of several runs
 * (--histogram).
 */
#include <inttypes.h>
#include <stdio.h>

#include "load.h"

#define BEYOND 100.0 /* latencies that a percentile needs beyond it */

/* A histogram whose buckets grow with the value: 32 to each power of two, 3% wide. */
static unsigned bucket_of(uint64_t ticks)
{
	unsigned log;

	if (ticks < BUCKETS_PER_LOG)
		return (unsigned)ticks;
	log = 63 - (unsigned)__builtin_clzll(ticks);
	return (log - 4) * BUCKETS_PER_LOG + (unsigned)(ticks >> (log - 5)) % BUCKETS_PER_LOG;
}

static uint64_t bucket_end(unsigned bucket)
{
	unsigned log = bucket / BUCKETS_PER_LOG + 4;

	if (bucket < BUCKETS_PER_LOG)
		return bucket;
	return ((uint64_t)(BUCKETS_PER_LOG + bucket % BUCKETS_PER_LOG + 1) << (log - 5)) - 1;
}

void count_latency(struct outcome *out, uint64_t ticks)
{
	out->histogram[bucket_of(ticks)]++;
	out->latencies++;
	out->latency_sum += ticks;
	if (ticks > out->latency_max)
		out->latency_max = ticks;
}

void add_outcome(struct outcome *sum, const struct outcome *job)
{
	const struct counts *load = &job->counts[PHASE_LOAD];

	for (unsigned op = 0; op < OP_KINDS; op++) {
		sum->counts[PHASE_LOAD].requests[op] += load->requests[op];
		sum->counts[PHASE_LOAD].sectors[op] += load->sectors[op];
	}
	sum->failed += job->failed;
	sum->fixed = job->fixed;
	sum->latencies += job->latencies;
	sum->latency_sum += job->latency_sum;
	if (job->latency_max > sum->latency_max)
		sum->latency_max = job->latency_max;
	if (job->load_seconds > sum->load_seconds)
		sum->load_seconds = job->load_seconds;
	for (unsigned i = 0; i < BUCKETS; i++)
		sum->histogram[i] += job->histogram[i];
}

static void print_percentile(const struct outcome *out, const char *name, double percent)
{
	double beyond = (double)out->latencies * (100 - percent) / 100;
	uint64_t wanted = (uint64_t)((double)out->latencies * percent / 100), seen = 0;
	unsigned bucket = 0;

	if (beyond < BEYOND - 0.001) {
		printf("\"%s\":null,", name);
		return;
	}
	while (seen + out->histogram[bucket] <= wanted)
		seen += out->histogram[bucket++];
	printf("\"%s\":%.1f,", name, clock_ns((double)bucket_end(bucket)) / 1000);
}

/* Pairs of a bucket's greatest microseconds and its latencies, in one flat list. */
static void print_histogram(const struct outcome *out)
{
	const char *comma = "";

	printf("\"histogram\":[");
	for (unsigned i = 0; i < BUCKETS; i++) {
		if (out->histogram[i]) {
			printf("%s%.6g,%" PRIu64, comma, clock_ns((double)bucket_end(i)) / 1000,
			       out->histogram[i]);
			comma = ",";
		}
	}
	printf("],");
}

void print_result(const struct load *l, double pace)
{
	const struct outcome *out = l->out;
	const struct counts *load = &out->counts[PHASE_LOAD];
	uint64_t requests = 0, sectors = 0, total_requests = 0, total_sectors = 0;

	for (unsigned op = 0; op < OP_KINDS; op++) {
		requests += load->requests[op];
		sectors += load->sectors[op];
		for (unsigned phase = 0; phase < PHASES; phase++) {
			total_requests += out->counts[phase].requests[op];
			total_sectors += out->counts[phase].sectors[op];
		}
	}
	printf("{");
	if (l->announce)
		printf("\"announced\":\"%s\",", l->announce);
	printf("\"requests\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f,\"iops\":%.0f,"
	       "\"avg_us\":%.1f,",
	       requests, sectors * SECTOR, out->load_seconds,
	       out->load_seconds > 0 ? (double)requests / out->load_seconds : 0,
	       out->latencies ? clock_ns((double)out->latency_sum) / (double)out->latencies / 1000
			      : 0);
	print_percentile(out, "p50_us", 50);
	print_percentile(out, "p99_us", 99);
	print_percentile(out, "p99_9_us", 99.9);
	printf("\"max_us\":%.1f,\"clock\":\"%s\",\"pace\":%.3f,\"fixed\":%s,",
	       clock_ns((double)out->latency_max) / 1000, clock_is_tsc() ? "tsc" : "system", pace,
	       out->fixed ? "true" : "false");
	if (l->interrupts)
		printf("\"interrupts\":%" PRIu64 ",", out->interrupts);
	if (l->histogram)
		print_histogram(out);
	printf("\"reads\":%" PRIu64 ",\"writes\":%" PRIu64 ",\"flushes\":%" PRIu64
	       ",\"total_requests\":%" PRIu64 ",\"total_bytes\":%" PRIu64
	       ",\"checked_sectors\":%" PRIu64 ",\"bad_sectors\":%" PRIu64
	       ",\"failed_requests\":%" PRIu64 ",\"errors\":%" PRIu64 "}\n",
	       load->requests[OP_READ], load->requests[OP_WRITE], load->requests[OP_FLUSH],
	       total_requests, total_sectors * SECTOR, out->checked, out->bad, out->failed,
	       out->bad + out->failed);
}
