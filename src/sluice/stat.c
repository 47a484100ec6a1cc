/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice stat`: when it asks, and what happened between two answers. */
#include "sluice/stat.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/parse.h"
#include "sluice/client.h"

enum { INTERVAL_MAX_S = 86400 };

const char *const stat_ops[STAT_OPS] = {"read", "write", "flush", "discard"};

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

/* How much counter @name has grown; one that went back has begun anew. */
static double growth(const json_t *before, const json_t *now, const char *name)
{
	json_int_t from = client_number(before, name), to = client_number(now, name);

	return (double)(from <= to ? to - from : to);
}

/* All requests that were answered meanwhile, also those that made no sense. */
static double answered(const json_t *before, const json_t *now)
{
	double sum = growth(before, now, "invalid");

	for (unsigned i = 0; i < STAT_OPS; i++)
		sum += growth(json_object_get(before, stat_ops[i]),
			      json_object_get(now, stat_ops[i]), "requests");
	return sum;
}

static json_t *notification_rates(const json_t *before, const json_t *now, double seconds)
{
	const json_t *from = json_object_get(before, "notifications");
	const json_t *to = json_object_get(now, "notifications");
	double requests = answered(before, now);
	double sent = growth(from, to, "sent"), received = growth(from, to, "received");

	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "sent_per_second", sent / seconds,
			 "received_per_second", received / seconds, "received_empty_per_second",
			 growth(from, to, "received_empty") / seconds, "responses_per_sent",
			 sent > 0 ? requests / sent : 0.0, "requests_per_received",
			 received > 0 ? requests / received : 0.0);
}

/* Adds to @rates (a disk's or a queue's) what happened there. Returns 0, or -1 without memory. */
static int add_rates(json_t *rates, const json_t *before, const json_t *now, double seconds)
{
	int rc = json_object_set_new(rates, "in_flight",
				     json_integer(client_number(now, "in_flight")));

	for (unsigned i = 0; i < STAT_OPS; i++)
		rc |= json_object_set_new(rates, stat_ops[i],
					  op_rates(json_object_get(before, stat_ops[i]),
						   json_object_get(now, stat_ops[i]), seconds));
	rc |= json_object_set_new(rates, "throttled",
				  json_integer((json_int_t)growth(before, now, "throttled")));
	return rc | json_object_set_new(rates, "notifications",
					notification_rates(before, now, seconds));
}

static const json_t *same_queue(const json_t *list, const json_t *queue)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *other = json_array_get(list, i);

		if (client_number(other, "queue") == client_number(queue, "queue"))
			return other;
	}
	return NULL;
}

/* Queues that were not there before count from zero: their connection is new. */
static json_t *queue_rates(const json_t *before, const json_t *now, double seconds)
{
	json_t *list = json_array();
	int rc = 0;

	for (size_t i = 0; i < json_array_size(now); i++) {
		const json_t *queue = json_array_get(now, i);
		json_t *rates = json_pack("{s:I, s:s}", "queue", client_number(queue, "queue"),
					  "reactor", client_text(queue, "reactor"));

		rc |= add_rates(rates, same_queue(before, queue), queue, seconds);
		rc |= json_array_append_new(list, rates);
	}
	if (!rc)
		return list;
	json_decref(list);
	return NULL;
}

static const json_t *same_disk(const json_t *list, const json_t *disk)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *other = json_array_get(list, i);

		/* Of a worker there is its name, and of a guest's disk there are numbers. */
		if (!strcmp(client_text(other, "worker"), client_text(disk, "worker")) &&
		    client_number(other, "domid") == client_number(disk, "domid") &&
		    client_number(other, "devid") == client_number(disk, "devid"))
			return other;
	}
	return NULL;
}

/* What a disk is called: a worker by its name, a guest's by where it is. */
static json_t *disk_names(const json_t *disk)
{
	if (json_object_get(disk, "worker"))
		return json_pack("{s:s, s:s}", "worker", client_text(disk, "worker"), "bdev",
				 client_text(disk, "bdev"));
	return json_pack("{s:I, s:s, s:I, s:s, s:s}", "domid", client_number(disk, "domid"),
			 "domain", client_text(disk, "domain"), "devid",
			 client_number(disk, "devid"), "vdev", client_text(disk, "vdev"), "bdev",
			 client_text(disk, "bdev"));
}

static json_t *disk_rates(const json_t *before, const json_t *now, double seconds)
{
	json_t *disk = disk_names(now);

	if (!json_object_set_new(disk, "seconds", json_real(seconds)) &&
	    !add_rates(disk, before, now, seconds) &&
	    !json_object_set_new(disk, "queues",
				 queue_rates(json_object_get(before, "queues"),
					     json_object_get(now, "queues"), seconds)))
		return disk;
	json_decref(disk);
	return NULL;
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

/* The command */

/* Of all disks: those of Xen guests, where there are any, and workers. */
static int sample(struct client *c, json_t **result)
{
	json_t *workers;
	struct err err;
	int rc;

	rc = client_call(c, "vbd_get_iostat", NULL, c->quick_ms, result, &err);
	if (rc == -ENODEV)
		*result = json_array();
	else if (rc)
		return client_fail(c, "%s", err.text);
	if (client_call(c, "sivshm_get_iostat", NULL, c->quick_ms, &workers, &err)) {
		json_decref(*result);
		return client_fail(c, "%s", err.text);
	}
	rc = json_array_extend(*result, workers);
	json_decref(workers);
	if (!rc)
		return 0;
	json_decref(*result);
	return client_fail(c, "out of memory");
}

static void sleep_until(uint64_t when_ns)
{
	struct timespec t = {.tv_sec = (time_t)(when_ns / NSEC_PER_SEC),
			     .tv_nsec = (long)(when_ns % NSEC_PER_SEC)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* One line (JSON) or one table a sample. */
static int print_sample(struct client *c, const json_t *before, const json_t *now, double seconds,
			bool queues)
{
	json_t *rates = stat_rates(before, now, seconds);

	if (!rates)
		return client_fail(c, "out of memory");
	if (c->json) {
		json_dumpf(rates, c->out, JSON_COMPACT | JSON_ENSURE_ASCII);
		fputc('\n', c->out);
	} else {
		stat_print_rates(c->out, rates, queues);
	}
	json_decref(rates);
	/* Into a pipe that nobody reads any more there is nothing to sample for. */
	return fflush(c->out) || ferror(c->out) ? client_fail(c, "cannot write the output") : 0;
}

static int watch(struct client *c, unsigned interval_s, uint32_t count, bool queues)
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
		rc = print_sample(c, before, now, (double)(now_ns - before_ns) / 1e9, queues);
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
	bool queues = false;
	const struct client_option options[] = {
		{"interval", NULL, &interval},
		{"count", NULL, &count},
		{"queues", &queues, NULL},
	};
	uint32_t interval_s = 0, times = 0;
	json_t *now;
	int rc;

	rc = client_parse(c, argc, argv, options, 3, NULL, 0, 0);
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
		return watch(c, interval_s, times, queues);
	rc = sample(c, &now);
	if (rc)
		return rc;
	if (c->json)
		client_print_json(c, now);
	else
		stat_print_totals(c->out, now, queues);
	json_decref(now);
	return 0;
}
