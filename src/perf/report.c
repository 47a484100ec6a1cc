/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/perf.h"

#include <errno.h>
#include <jansson.h>

#include "blkif/control_page.h"

static const char *const kind_names[LOAD_KINDS] = {
	[LOAD_READ] = "read", [LOAD_WRITE] = "write", [LOAD_FLUSH] = "flush"};

static const struct {
	const char *name;
	uint32_t per_million;
} percentiles[] = {{"p50", 500000}, {"p90", 900000}, {"p99", 990000}, {"p99_9", 999000}};
enum { PERCENTILES = sizeof(percentiles) / sizeof(percentiles[0]) };

static const char *layout_name(uint32_t layout)
{
	return layout == CONTROL_LAYOUT_LINE ? "line" : "x86_64";
}

static uint64_t errors_of(const struct load_result *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < LOAD_KINDS; i++)
		n += r->kinds[i].errors;
	return n;
}

bool perf_is_good(const struct perf_report *report)
{
	return !errors_of(&report->result) && !load_result_damages(&report->result);
}

static double per_second(uint64_t n, double seconds)
{
	return seconds > 0 ? (double)n / seconds : 0;
}

/* As JSON: rates a second, times in nanoseconds */

/* How large a part of all took no longer than so many nanoseconds, bucket by bucket. */
static json_t *describe_curve(const struct hist *h)
{
	json_t *curve = json_array();
	uint64_t seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		uint64_t ns = hist_edge(i);

		if (!h->buckets[i])
			continue;
		seen += h->buckets[i];
		json_array_append_new(
			curve, json_pack("[I, f]", (json_int_t)(ns < h->max_ns ? ns : h->max_ns),
					 (double)seen / (double)h->count));
	}
	return curve;
}

static json_t *describe_kind(const struct load_kind_result *k, double seconds, bool cdf)
{
	const struct hist *h = &k->latency;
	json_t *latency = json_pack("{s:f, s:I}", "mean",
				    h->count ? (double)h->sum_ns / (double)h->count : 0.0, "max",
				    (json_int_t)h->max_ns);

	for (unsigned i = 0; i < PERCENTILES; i++) {
		uint32_t p = percentiles[i].per_million;

		json_object_set_new(latency, percentiles[i].name,
				    hist_knows(h, p)
					    ? json_integer((json_int_t)hist_percentile(h, p))
					    : json_null());
	}
	if (cdf)
		json_object_set_new(latency, "cdf", describe_curve(h));
	return json_pack("{s:I, s:I, s:I, s:f, s:f, s:o}", "requests", (json_int_t)k->requests,
			 "bytes", (json_int_t)k->bytes, "errors", (json_int_t)k->errors, "iops",
			 per_second(k->requests, seconds), "bytes_per_second",
			 per_second(k->bytes, seconds), "latency_ns", latency);
}

static json_t *describe_verification(const struct load_result *r)
{
	json_t *v = json_pack("{s:I}", "reads", (json_int_t)r->verified);

	for (unsigned i = 0; i < LOAD_DAMAGES; i++)
		json_object_set_new(v, load_damage_names[i],
				    json_integer((json_int_t)r->damage[i]));
	if (load_result_damages(r))
		json_object_set_new(v, "first_sector", json_integer((json_int_t)r->damaged_sector));
	return v;
}

static json_t *describe_limits(const struct perf_options *o, const struct perf_report *p)
{
	json_t *limits = json_pack("{s:f, s:f, s:f}", "round_trip_ns", p->round_trip_ns,
				   "request_ns", p->request_ns, "ratio", p->ratio);

	if (!o->footprint)
		return limits;
	json_object_set_new(limits, "copy_bytes_per_second", json_real(p->copy_bytes_per_second));
	json_object_set_new(limits, "of_copy", json_real(p->of_copy));
	return limits;
}

static int print_json(const struct perf_options *o, const struct perf_report *p, FILE *out)
{
	json_t *root =
		json_pack("{s:s, s:I, s:I, s:I, s:s, s:s, s:I, s:I, s:f, s:f}", "rw", o->rw,
			  "block_bytes", (json_int_t)o->block_bytes, "depth", (json_int_t)o->depth,
			  "queues", (json_int_t)p->disk.queues, "layout",
			  layout_name(p->disk.layout), "waiting", o->sleep ? "sleep" : "poll",
			  "sectors", (json_int_t)p->sectors, "passes", (json_int_t)p->result.passes,
			  "seconds", p->seconds, "cpu_seconds", p->cpu_seconds);
	int rc;

	for (unsigned i = 0; i < LOAD_KINDS; i++)
		json_object_set_new(root, kind_names[i],
				    describe_kind(&p->result.kinds[i], p->seconds, o->cdf));
	if (o->verify)
		json_object_set_new(root, "verify", describe_verification(&p->result));
	if (o->with_limits)
		json_object_set_new(root, "limits", describe_limits(o, p));
	rc = root ? json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : -1;
	json_decref(root);
	fputc('\n', out);
	return rc ? -ENOMEM : 0;
}

/* For people: times in microseconds */

static void print_kind(const char *name, const struct load_kind_result *k, double seconds,
		       FILE *out)
{
	const struct hist *h = &k->latency;

	if (!k->requests && !k->errors)
		return;
	fprintf(out, "%-6s %12.0f %10.1f %9.2f", name, per_second(k->requests, seconds),
		per_second(k->bytes, seconds) / 1e6,
		h->count ? (double)h->sum_ns / (double)h->count / 1e3 : 0.0);
	for (unsigned i = 0; i < PERCENTILES; i++) {
		uint32_t per_million = percentiles[i].per_million;

		if (hist_knows(h, per_million))
			fprintf(out, " %9.2f", (double)hist_percentile(h, per_million) / 1e3);
		else
			fprintf(out, " %9s", "-");
	}
	fprintf(out, " %9.2f %8lu\n", (double)h->max_ns / 1e3, (unsigned long)k->errors);
}

static void print_verification(const struct load_result *r, FILE *out)
{
	uint64_t damages = load_result_damages(r);
	const char *comma = "";

	fprintf(out, "verified %lu reads: ", (unsigned long)r->verified);
	if (!damages) {
		fprintf(out, "no damage\n");
		return;
	}
	for (unsigned i = 0; i < LOAD_DAMAGES; i++) {
		if (!r->damage[i])
			continue;
		fprintf(out, "%s%lu %s", comma, (unsigned long)r->damage[i], load_damage_names[i]);
		comma = ", ";
	}
	fprintf(out, "; the first at sector %lu\n", (unsigned long)r->damaged_sector);
}

static void print_text(const struct perf_options *o, const struct perf_report *p, FILE *out)
{
	fprintf(out, "%s of %u bytes, %u queue%s of depth %u, layout %s, %s, %.1f s\n", o->rw,
		o->block_bytes, p->disk.queues, p->disk.queues == 1 ? "" : "s", o->depth,
		layout_name(p->disk.layout), o->sleep ? "sleeping" : "polling", p->seconds);
	fprintf(out, "%-6s %12s %10s %9s %9s %9s %9s %9s %9s %8s\n", "", "requests/s", "MB/s",
		"mean us", "p50", "p90", "p99", "p99.9", "max", "errors");
	for (unsigned i = 0; i < LOAD_KINDS; i++)
		print_kind(kind_names[i], &p->result.kinds[i], p->seconds, out);
	fprintf(out, "cpu    %12.2f cores here; the backend's are its own\n",
		p->seconds > 0 ? p->cpu_seconds / p->seconds : 0.0);
	if (o->with_limits)
		fprintf(out, "limits R %.1f ns, a request %.1f ns: %.2f R\n", p->round_trip_ns,
			p->request_ns, p->ratio);
	if (o->footprint)
		fprintf(out, "copied %.0f MB/s in %lu bytes: the load moved %.2f of that\n",
			p->copy_bytes_per_second / 1e6, (unsigned long)o->footprint, p->of_copy);
	if (o->verify)
		print_verification(&p->result, out);
}

int perf_print(const struct perf_options *o, const struct perf_report *report, FILE *out)
{
	if (o->json)
		return print_json(o, report, out);
	print_text(o, report, out);
	return 0;
}
