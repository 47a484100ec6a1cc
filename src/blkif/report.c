/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/report.h"

#include <stdlib.h>

#include "reactor/reactor.h"

static json_t *way_json(const struct blkif_way_stats *w)
{
	return json_pack("{s:I,s:I}", "requests", (json_int_t)w->requests, "bytes",
			 (json_int_t)w->bytes);
}

static json_t *kind_json(const struct blkif_kind_stats *k)
{
	struct hist hist, *h = &hist;

	sparse_hist_get(&k->latency, h);
	return json_pack("{s:I,s:I,s:I,s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I}}", "requests",
			 (json_int_t)k->requests, "bytes", (json_int_t)k->bytes, "errors",
			 (json_int_t)k->errors, "latency_ns", "avg",
			 (json_int_t)(h->count ? h->sum_ns / h->count : 0), "p50",
			 (json_int_t)hist_percentile(h, 500000), "p90",
			 (json_int_t)hist_percentile(h, 900000), "p99",
			 (json_int_t)hist_percentile(h, 990000), "p999",
			 (json_int_t)hist_percentile(h, 999000), "p9999",
			 (json_int_t)hist_percentile(h, 999900), "max", (json_int_t)h->max_ns);
}

static void fill(json_t *to, const struct blkif_stats *stats)
{
	static const char *const kinds[BLKIF_KINDS] = {"read", "write", "flush", "discard"};

	for (unsigned i = 0; i < BLKIF_KINDS; i++)
		json_object_set_new(to, kinds[i], kind_json(&stats->kinds[i]));
	json_object_set_new(to, "shared_by",
			    json_pack("{s:o,s:o,s:o}", "copy",
				      way_json(&stats->ways[BLKIF_WAY_COPY]), "map",
				      way_json(&stats->ways[BLKIF_WAY_MAP]), "dma",
				      way_json(&stats->ways[BLKIF_WAY_DMA])));
	json_object_update_new(
		to, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "in_flight",
			      (json_int_t)stats->in_flight, "invalid", (json_int_t)stats->invalid,
			      "share_errors", (json_int_t)stats->share_errors, "parked",
			      (json_int_t)stats->parked, "throttled", (json_int_t)stats->throttled,
			      "starved", (json_int_t)stats->starved));
	json_object_set_new(to, "notifications",
			    json_pack("{s:I,s:I,s:I}", "sent", (json_int_t)stats->notified,
				      "received", (json_int_t)stats->rung, "received_empty",
				      (json_int_t)stats->rung_empty));
	json_object_set_new(to, "memory",
			    json_pack("{s:I,s:I,s:I,s:I}", "bounce_pages",
				      (json_int_t)stats->bounce_pages, "mapped_pages",
				      (json_int_t)stats->mapped_pages, "map_hits",
				      (json_int_t)stats->map_hits, "map_misses",
				      (json_int_t)stats->map_misses));
}

static json_int_t used(const struct blkif_quota *q)
{
	return (json_int_t)atomic_load_explicit(&q->used, memory_order_relaxed);
}

static void fill_disk(json_t *disk, const struct blkif_guest *g, const struct blkif_stats *sum,
		      json_t *queues)
{
	fill(disk, sum);
	json_object_set_new(disk, "guest",
			    json_pack("{s:I,s:I,s:I,s:I}", "bounce_pages", used(&g->bounce),
				      "bounce_pages_max", (json_int_t)g->bounce.max, "mapped_pages",
				      used(&g->maps), "mapped_pages_max", (json_int_t)g->maps.max));
	json_object_set_new(disk, "queues", queues);
}

/* One request for statistics: a call to each connection, and the list when all are back. */
struct blkif_gather {
	unsigned waiting;
	json_t *list;
	void (*done)(void *arg, json_t *stats);
	void *arg;
};

struct gather_one {
	struct blkif_gather *gather;
	const struct blkif_connection *rings;
	const struct blkif_guest *guest;
	json_t *disk; /* borrowed from the list */
	struct blkif_stats sum;
};

struct blkif_gather *blkif_gather_begin(void (*done)(void *arg, json_t *stats), void *arg)
{
	struct blkif_gather *g = calloc(1, sizeof(*g));

	if (g)
		*g = (struct blkif_gather){
			.waiting = 1,
			.list = json_array(),
			.done = done,
			.arg = arg,
		};
	else
		done(arg, NULL);
	return g;
}

void blkif_gather_end(struct blkif_gather *g)
{
	if (--g->waiting)
		return;
	g->done(g->arg, g->list);
	free(g);
}

static void gather_one_done(void *arg, const struct blkif_stats *queues, unsigned nr)
{
	struct gather_one *one = arg;
	struct blkif_gather *g = one->gather;
	json_t *list = json_array();

	for (unsigned n = 0; n < nr; n++) {
		const struct reactor *r = blkif_connection_get_reactor(one->rings, n);
		json_t *queue = json_pack("{s:i,s:s}", "queue", (int)n, "reactor", reactor_name(r));

		fill(queue, &queues[n]);
		json_array_append_new(list, queue);
		blkif_stats_add(&one->sum, &queues[n]);
	}
	fill_disk(one->disk, one->guest, &one->sum, list);
	blkif_stats_fini(&one->sum);
	free(one);
	blkif_gather_end(g);
}

/* Asks the disk's queues; false: there is no memory. */
static bool ask(struct blkif_gather *g, json_t *disk, const struct blkif_guest *guest,
		const struct blkif_stats *past, struct blkif_connection *rings)
{
	struct gather_one *one = calloc(1, sizeof(*one));

	if (!one)
		return false;
	*one = (struct gather_one){
		.gather = g,
		.rings = rings,
		.guest = guest,
		.disk = disk,
	};
	if (blkif_connection_get_stats(rings, gather_one_done, one)) {
		free(one);
		return false;
	}
	blkif_stats_add(&one->sum, past);
	g->waiting++;
	return true;
}

void blkif_gather_disk(struct blkif_gather *g, json_t *disk, const struct blkif_guest *guest,
		       const struct blkif_stats *past, struct blkif_connection *rings)
{
	json_array_append_new(g->list, disk);
	if (!rings || !ask(g, disk, guest, past, rings))
		fill_disk(disk, guest, past, json_array());
}
