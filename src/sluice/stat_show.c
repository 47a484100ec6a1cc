/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How statistics look.  Totals are much about few: a block of lines for each disk.  Rates are
 * little about many, again and again: one table, whose rows stay in place from sample to sample.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sluice/client.h"
#include "sluice/stat.h"
#include "sluice/text.h"

/* Totals */

static void add_totals(struct table *t, const json_t *counters, const char *name)
{
	static const char *const latencies[] = {"avg", "p50", "p99", "p999", "p9999", "max"};
	const json_t *op = json_object_get(counters, name);
	const json_t *latency = json_object_get(op, "latency_ns");
	char bytes[16];

	text_size((uint64_t)client_number(op, "bytes"), bytes);
	table_cell(t, "  %s", name);
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(op, "requests"));
	table_cell(t, "%s", bytes);
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(op, "errors"));
	for (unsigned i = 0; i < sizeof(latencies) / sizeof(latencies[0]); i++)
		table_cell(t, "%.1f",
			   json_number_value(json_object_get(latency, latencies[i])) / 1e3);
}

/* " (2.5 each)", or nothing where there is nothing to divide by. */
static void format_share(char *out, size_t room, double sum, json_int_t count, const char *what)
{
	out[0] = '\0';
	if (count > 0)
		snprintf(out, room, " (%.1f %s each)", sum / (double)count, what);
}

static void print_notifications(FILE *out, const json_t *counters)
{
	const json_t *n = json_object_get(counters, "notifications");
	json_int_t sent = client_number(n, "sent"), received = client_number(n, "received");
	double requests = (double)client_number(counters, "invalid");
	char each_sent[48], each_received[48];

	for (unsigned i = 0; i < STAT_OPS; i++)
		requests +=
			(double)client_number(json_object_get(counters, stat_ops[i]), "requests");
	format_share(each_sent, sizeof(each_sent), requests, sent, "responses");
	format_share(each_received, sizeof(each_received), requests, received, "requests");
	fprintf(out,
		"  notifications: %" JSON_INTEGER_FORMAT " sent%s, %" JSON_INTEGER_FORMAT
		" received%s, %" JSON_INTEGER_FORMAT " empty\n",
		sent, each_sent, received, each_received, client_number(n, "received_empty"));
}

static void print_memory(FILE *out, const json_t *counters)
{
	const json_t *m = json_object_get(counters, "memory");
	const json_t *guest = json_object_get(counters, "guest");
	json_int_t hits = client_number(m, "map_hits");
	json_int_t lookups = hits + client_number(m, "map_misses");

	fprintf(out,
		"  memory: %" JSON_INTEGER_FORMAT " bounce pages, %" JSON_INTEGER_FORMAT
		" mapped pages",
		client_number(m, "bounce_pages"), client_number(m, "mapped_pages"));
	if (lookups > 0)
		fprintf(out, " (%.1f%% of %" JSON_INTEGER_FORMAT " found mapped)",
			100.0 * (double)hits / (double)lookups, lookups);
	fputc('\n', out);
	if (guest)
		fprintf(out,
			"  %s: %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
			" bounce pages, %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
			" mapped pages\n",
			json_object_get(counters, "worker") ? "the worker"
							    : "all disks of the guest",
			client_number(guest, "bounce_pages"),
			client_number(guest, "bounce_pages_max"),
			client_number(guest, "mapped_pages"),
			client_number(guest, "mapped_pages_max"));
}

/* How much of the data went which way. */
static void print_ways(FILE *out, const json_t *counters)
{
	static const char *const ways[][2] = {
		{"copy", "copied"}, {"map", "mapped"}, {"dma", "mapped for the device"}};
	const json_t *shared = json_object_get(counters, "shared_by");
	const char *comma = "";
	char bytes[16];

	fputs("  data: ", out);
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		const json_t *way = json_object_get(shared, ways[i][0]);

		text_size((uint64_t)client_number(way, "bytes"), bytes);
		fprintf(out, "%s%s %s (%" JSON_INTEGER_FORMAT " requests)", comma, bytes,
			ways[i][1], client_number(way, "requests"));
		comma = ", ";
	}
	fputc('\n', out);
}

/* What a disk and a queue have in common, below their headline. */
static void print_counters(FILE *out, const json_t *counters)
{
	static const struct table_column columns[] = {
		{"  OP", false},     {"REQUESTS", true}, {"BYTES", true},  {"ERRORS", true},
		{"AVG/us", true},    {"P50/us", true},   {"P99/us", true}, {"P99.9/us", true},
		{"P99.99/us", true}, {"MAX/us", true},
	};
	struct table table;

	table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (unsigned i = 0; i < STAT_OPS; i++)
		add_totals(&table, counters, stat_ops[i]);
	table_print(&table, out);
	table_destroy(&table);
	fprintf(out,
		"  refused: %" JSON_INTEGER_FORMAT " invalid requests, %" JSON_INTEGER_FORMAT
		" whose pages could not be reached\n",
		client_number(counters, "invalid"), client_number(counters, "share_errors"));
	fprintf(out,
		"  waiting: %" JSON_INTEGER_FORMAT
		" now for a device in error, %" JSON_INTEGER_FORMAT
		" so far for memory; throttled %" JSON_INTEGER_FORMAT " times\n",
		client_number(counters, "parked"), client_number(counters, "starved"),
		client_number(counters, "throttled"));
	print_notifications(out, counters);
	print_ways(out, counters);
	print_memory(out, counters);
}

/* "xvda of guest", "worker w1" */
static void format_disk(const json_t *disk, char *out, size_t room)
{
	if (json_object_get(disk, "worker"))
		snprintf(out, room, "worker %s", client_text(disk, "worker"));
	else
		snprintf(out, room, "%s of %s", client_text(disk, "vdev"),
			 client_text(disk, "domain"));
}

void stat_print_totals(FILE *out, const json_t *disks, bool queues)
{
	for (size_t i = 0; i < json_array_size(disks); i++) {
		const json_t *disk = json_array_get(disks, i);
		const json_t *list = queues ? json_object_get(disk, "queues") : NULL;
		char name[384], domain[40] = "";

		if (i)
			fputc('\n', out);
		format_disk(disk, name, sizeof(name));
		if (!json_object_get(disk, "worker"))
			snprintf(domain, sizeof(domain), " (domain %" JSON_INTEGER_FORMAT ")",
				 client_number(disk, "domid"));
		text_print(out, "%s%s, bdev %s: %" JSON_INTEGER_FORMAT " in flight", name, domain,
			   client_text(disk, "bdev"), client_number(disk, "in_flight"));
		print_counters(out, disk);
		for (size_t k = 0; k < json_array_size(list); k++) {
			const json_t *queue = json_array_get(list, k);

			fputc('\n', out);
			text_print(out,
				   "%s, queue %" JSON_INTEGER_FORMAT " on %s: "
				   "%" JSON_INTEGER_FORMAT " in flight",
				   name, client_number(queue, "queue"),
				   client_text(queue, "reactor"),
				   client_number(queue, "in_flight"));
			print_counters(out, queue);
		}
	}
}

/* Rates */

/* The rows of a disk, or of @queue of it. */
static void add_rates(struct table *t, const json_t *disk, const json_t *queue, bool queues)
{
	const char *worker = json_string_value(json_object_get(disk, "worker"));
	const json_t *rates = queue ? queue : disk;
	const json_t *n = json_object_get(rates, "notifications");

	for (unsigned k = 0; k < STAT_OPS; k++) {
		const json_t *op = json_object_get(rates, stat_ops[k]);
		double iops = json_number_value(json_object_get(op, "iops"));
		char bytes[16];

		/* Reads and writes always, so that the rows stay in place. */
		if (k >= 2 && iops <= 0)
			continue;
		text_size((uint64_t)json_number_value(json_object_get(op, "bytes_per_second")),
			  bytes);
		table_cell(t, "%s", worker ? "-" : client_text(disk, "domain"));
		table_cell(t, "%s", worker ? worker : client_text(disk, "vdev"));
		table_cell(t, "%s", client_text(disk, "bdev"));
		if (queue)
			table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(queue, "queue"));
		else if (queues)
			table_cell(t, "all");
		table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(rates, "in_flight"));
		table_cell(t, "%s", stat_ops[k]);
		table_cell(t, "%.0f", iops);
		table_cell(t, "%s", bytes);
		table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(op, "errors"));
		table_cell(t, "%.1f",
			   json_number_value(json_object_get(op, "latency_ns_avg")) / 1e3);
	}
	if (queue)
		return;
	table_note(t,
		   "notifications/s: %.1f sent (%.1f responses each), %.1f received (%.1f requests "
		   "each), %.1f empty",
		   json_number_value(json_object_get(n, "sent_per_second")),
		   json_number_value(json_object_get(n, "responses_per_sent")),
		   json_number_value(json_object_get(n, "received_per_second")),
		   json_number_value(json_object_get(n, "requests_per_received")),
		   json_number_value(json_object_get(n, "received_empty_per_second")));
}

void stat_print_rates(FILE *out, const json_t *rates, bool queues)
{
	static const struct table_column columns[] = {
		{"DOMAIN", false},   {"VDEV", false},  {"BDEV", false},
		{"IN-FLIGHT", true}, {"OP", false},    {"IOPS", true},
		{"BYTES/S", true},   {"ERRORS", true}, {"AVG/us", true},
	};
	static const struct table_column queue_columns[] = {
		{"DOMAIN", false},   {"VDEV", false},  {"BDEV", false}, {"QUEUE", true},
		{"IN-FLIGHT", true}, {"OP", false},    {"IOPS", true},  {"BYTES/S", true},
		{"ERRORS", true},    {"AVG/us", true},
	};
	struct table table;

	table_init(&table, queues ? queue_columns : columns,
		   (queues ? sizeof(queue_columns) : sizeof(columns)) / sizeof(columns[0]));
	for (size_t i = 0; i < json_array_size(rates); i++) {
		const json_t *disk = json_array_get(rates, i);
		const json_t *list = queues ? json_object_get(disk, "queues") : NULL;

		add_rates(&table, disk, NULL, queues);
		for (size_t k = 0; k < json_array_size(list); k++)
			add_rates(&table, disk, json_array_get(list, k), queues);
	}
	table_print(&table, out);
	table_destroy(&table);
}
