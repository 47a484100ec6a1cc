/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice stat`: totals, or rates between samples. */
#include "sluice/stat.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/parse.h"
#include "sluice/client.h"
#include "sluice/text.h"

enum { INTERVAL_MAX_S = 86400 };

static const char *const ops[] = {"read", "write", "flush", "discard"};
enum { OPS = sizeof(ops) / sizeof(ops[0]) };

static double average_ns(const json_t *op)
{
	return json_number_value(json_object_get(json_object_get(op, "latency_ns"), "avg"));
}

/* Rates */

static json_t *op_rates(const json_t *before, const json_t *now, double seconds)
{
	double requests = (double)client_number(now, "requests");
	double bytes = (double)client_number(now, "bytes");
	double sum_ns = average_ns(now) * requests;
	json_int_t errors = client_number(now, "errors");

	if (client_number(before, "requests") <= client_number(now, "requests")) {
		sum_ns -= average_ns(before) * (double)client_number(before, "requests");
		requests -= (double)client_number(before, "requests");
		bytes -= (double)client_number(before, "bytes");
		errors -= client_number(before, "errors");
	}
	return json_pack("{s:f, s:f, s:I, s:f}", "iops", requests / seconds, "bytes_per_second",
			 bytes / seconds, "errors", errors, "latency_ns_avg",
			 requests > 0 && sum_ns > 0 ? sum_ns / requests : 0.0);
}

static const json_t *same_disk(const json_t *list, const json_t *disk)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *other = json_array_get(list, i);

		if (client_number(other, "domid") == client_number(disk, "domid") &&
		    client_number(other, "devid") == client_number(disk, "devid"))
			return other;
	}
	return NULL;
}

static json_t *disk_rates(const json_t *before, const json_t *now, double seconds)
{
	json_t *disk = json_pack("{s:I, s:s, s:I, s:s, s:s, s:f, s:I}", "domid",
				 client_number(now, "domid"), "domain", client_text(now, "domain"),
				 "devid", client_number(now, "devid"), "vdev",
				 client_text(now, "vdev"), "bdev", client_text(now, "bdev"),
				 "seconds", seconds, "in_flight", client_number(now, "in_flight"));

	for (unsigned i = 0; disk && i < OPS; i++) {
		if (json_object_set_new(disk, ops[i],
					op_rates(json_object_get(before, ops[i]),
						 json_object_get(now, ops[i]), seconds))) {
			json_decref(disk);
			return NULL;
		}
	}
	return disk;
}

json_t *stat_rates(const json_t *before, const json_t *now, double seconds)
{
	json_t *rates = json_array();

	for (size_t i = 0; rates && i < json_array_size(now); i++) {
		const json_t *disk = json_array_get(now, i), *earlier = same_disk(before, disk);

		if (earlier && json_array_append_new(rates, disk_rates(earlier, disk, seconds))) {
			json_decref(rates);
			return NULL;
		}
	}
	return rates;
}

/* Tables */

static void add_names(struct table *t, const json_t *disk)
{
	table_cell(t, "%s", client_text(disk, "domain"));
	table_cell(t, "%s", client_text(disk, "vdev"));
	table_cell(t, "%s", client_text(disk, "bdev"));
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(disk, "in_flight"));
}

static void print_rates(struct client *c, const json_t *rates)
{
	static const struct table_column columns[] = {
		{"DOMAIN", false},   {"VDEV", false},  {"BDEV", false},
		{"IN-FLIGHT", true}, {"OP", false},    {"IOPS", true},
		{"BYTES/S", true},   {"ERRORS", true}, {"AVG/us", true},
	};
	struct table table;

	table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < json_array_size(rates); i++) {
		const json_t *disk = json_array_get(rates, i);

		for (unsigned k = 0; k < OPS; k++) {
			const json_t *op = json_object_get(disk, ops[k]);
			double iops = json_number_value(json_object_get(op, "iops"));
			char bytes[16];

			/* Reads and writes always, so that the rows stay in place. */
			if (k >= 2 && iops <= 0)
				continue;
			text_size((uint64_t)json_number_value(
					  json_object_get(op, "bytes_per_second")),
				  bytes);
			add_names(&table, disk);
			table_cell(&table, "%s", ops[k]);
			table_cell(&table, "%.0f", iops);
			table_cell(&table, "%s", bytes);
			table_cell(&table, "%" JSON_INTEGER_FORMAT, client_number(op, "errors"));
			table_cell(&table, "%.1f",
				   json_number_value(json_object_get(op, "latency_ns_avg")) / 1e3);
		}
	}
	table_print(&table, c->out);
	table_destroy(&table);
}

static void add_totals(struct table *t, const json_t *disk, const char *name)
{
	static const char *const latencies[] = {"avg", "p50", "p99", "p999", "max"};
	const json_t *op = json_object_get(disk, name);
	const json_t *latency = json_object_get(op, "latency_ns");
	char bytes[16];

	text_size((uint64_t)client_number(op, "bytes"), bytes);
	add_names(t, disk);
	table_cell(t, "%s", name);
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(op, "requests"));
	table_cell(t, "%s", bytes);
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(op, "errors"));
	for (unsigned i = 0; i < sizeof(latencies) / sizeof(latencies[0]); i++)
		table_cell(t, "%.1f",
			   json_number_value(json_object_get(latency, latencies[i])) / 1e3);
}

/* What the guest asked that made no sense. */
static void add_invalid(struct table *t, const json_t *disk)
{
	add_names(t, disk);
	table_cell(t, "invalid");
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(disk, "invalid"));
	for (unsigned i = 0; i < 7; i++)
		table_cell(t, "-");
}

static void print_totals(struct client *c, const json_t *disks)
{
	static const struct table_column columns[] = {
		{"DOMAIN", false}, {"VDEV", false},    {"BDEV", false},  {"IN-FLIGHT", true},
		{"OP", false},     {"REQUESTS", true}, {"BYTES", true},  {"ERRORS", true},
		{"AVG/us", true},  {"P50/us", true},   {"P99/us", true}, {"P99.9/us", true},
		{"MAX/us", true},
	};
	struct table table;

	table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < json_array_size(disks); i++) {
		const json_t *disk = json_array_get(disks, i);

		for (unsigned k = 0; k < OPS; k++)
			if (k < 2 || client_number(json_object_get(disk, ops[k]), "requests"))
				add_totals(&table, disk, ops[k]);
		if (client_number(disk, "invalid"))
			add_invalid(&table, disk);
	}
	table_print(&table, c->out);
	table_destroy(&table);
}

/* The command */

static int sample(struct client *c, json_t **result)
{
	struct err err;

	if (client_call(c, "vbd_get_iostat", NULL, c->quick_ms, result, &err))
		return client_fail(c, "%s", err.text);
	return 0;
}

static void sleep_until(uint64_t when_ns)
{
	struct timespec t = {.tv_sec = (time_t)(when_ns / NSEC_PER_SEC),
			     .tv_nsec = (long)(when_ns % NSEC_PER_SEC)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* One line (JSON) or one table a sample. */
static int print_sample(struct client *c, const json_t *before, const json_t *now, double seconds)
{
	json_t *rates = stat_rates(before, now, seconds);

	if (!rates)
		return client_fail(c, "out of memory");
	if (c->json) {
		json_dumpf(rates, c->out, JSON_COMPACT | JSON_ENSURE_ASCII);
		fputc('\n', c->out);
	} else {
		print_rates(c, rates);
	}
	json_decref(rates);
	/* Into a pipe that nobody reads any more there is nothing to sample for. */
	return fflush(c->out) || ferror(c->out) ? client_fail(c, "cannot write the output") : 0;
}

static int watch(struct client *c, unsigned interval_s, uint32_t count)
{
	uint64_t before_ns = clock_now_ns(), due_ns = before_ns;
	json_t *before, *now;
	int rc = sample(c, &before);

	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && (!count || i < count); i++) {
		uint64_t now_ns;

		due_ns += interval_s * NSEC_PER_SEC;
		sleep_until(due_ns);
		rc = sample(c, &now);
		if (rc)
			break;
		now_ns = clock_now_ns();
		if (i && !c->json)
			fputc('\n', c->out);
		rc = print_sample(c, before, now, (double)(now_ns - before_ns) / 1e9);
		json_decref(before);
		before = now;
		before_ns = now_ns;
	}
	json_decref(before);
	return rc;
}

int stat_command(struct client *c, int argc, char **argv)
{
	const char *interval = NULL, *count = NULL;
	const struct client_option options[] = {
		{"interval", NULL, &interval},
		{"count", NULL, &count},
	};
	uint32_t interval_s = 0, times = 0;
	json_t *now;
	int rc;

	rc = client_parse(c, argc, argv, options, 2, NULL, 0, 0);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (interval && (!parse_u32(interval, INTERVAL_MAX_S, &interval_s) || !interval_s))
		return client_misuse(c, "the interval is 1 to %d seconds, not '%s'", INTERVAL_MAX_S,
				     interval);
	if (count && (!parse_u32(count, UINT32_MAX, &times) || !times))
		return client_misuse(c, "the count is a number from 1, not '%s'", count);
	if (count && !interval)
		return client_misuse(c, "--count needs --interval");
	if (interval)
		return watch(c, interval_s, times);
	rc = sample(c, &now);
	if (rc)
		return rc;
	if (c->json)
		client_print_json(c, now);
	else
		print_totals(c, now);
	json_decref(now);
	return 0;
}
