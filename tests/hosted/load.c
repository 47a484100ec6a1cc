/* SPDX-License-Identifier: BSD-2-Clause */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SECTOR = BLKIF_SECTOR_SIZE,
	PER_PAGE = BLKIF_SECTORS_PER_PAGE,
	SEGMENTS_MAX = 256,
	/* Most of all, so that there is something to read. */
	WRITE_PERCENT = 50,
	FLUSH_PERCENT = 5,
};

struct lane {
	struct load *load;
	struct front_req req;
	bool busy;
	uint64_t first; /* of its stretch of sectors */
	uint64_t len;
	unsigned char *pages;
	uint32_t refs[SEGMENTS_MAX];
	struct blkif_wire_segment segments[SEGMENTS_MAX];
};

struct load {
	struct guest *g;
	struct load_opts opts;
	unsigned short random[3];
	uint32_t *versions; /* of each sector: how often it was written */
	unsigned answered;
	char fault[160];
	unsigned nr_lanes;
	struct lane lanes[];
};

static unsigned pick(struct load *l, unsigned below)
{
	return (unsigned)((uint32_t)jrand48(l->random) % below);
}

static void stamp(unsigned char *sector, uint64_t number, uint32_t version)
{
	uint64_t words[SECTOR / 8];

	/* Zero is what was never written. */
	for (unsigned i = 0; i < SECTOR / 8; i++)
		words[i] = version ? (number << 20 | i << 10) + version * 0x9e3779b97f4a7c15ULL : 0;
	memcpy(sector, words, SECTOR);
}

static bool is_stamped(const unsigned char *sector, uint64_t number, uint32_t version)
{
	unsigned char expected[SECTOR];

	stamp(expected, number, version);
	return !memcmp(sector, expected, SECTOR);
}

struct load *load_create(struct guest *g, const struct load_opts *opts)
{
	unsigned lanes = opts->depth ? opts->depth : front_depth(g->front);
	struct load *l = calloc(1, sizeof(*l) + lanes * sizeof(l->lanes[0]));
	uint64_t stretch = g->sectors / lanes;

	if (!l || opts->max_segments > SEGMENTS_MAX)
		abort();
	l->g = g;
	l->opts = *opts;
	l->random[0] = (unsigned short)opts->seed;
	l->nr_lanes = lanes;
	l->versions = calloc(g->sectors, sizeof(l->versions[0]));
	if (!l->versions)
		abort();
	for (unsigned i = 0; i < lanes; i++) {
		struct lane *lane = &l->lanes[i];

		lane->load = l;
		lane->first = i * stretch;
		/* The last one goes to the very end of the disk. */
		lane->len = i + 1 == lanes ? g->sectors - lane->first : stretch;
		lane->pages = g->ops.pages_alloc(g, opts->max_segments, false, lane->refs);
	}
	return l;
}

void load_destroy(struct load *l)
{
	for (unsigned i = 0; i < l->nr_lanes; i++)
		l->g->ops.pages_free(l->g, l->lanes[i].pages, l->opts.max_segments,
				     l->lanes[i].refs);
	free(l->versions);
	free(l);
}

static const char *fail(struct load *l, const char *what, uint64_t sector)
{
	if (!l->fault[0])
		snprintf(l->fault, sizeof(l->fault), "%s, sector %lu", what, (unsigned long)sector);
	return l->fault;
}

/* Calls @fn for each sector of the request with its place in the guest's pages. */
static void for_each_sector(struct lane *lane,
			    void (*fn)(struct lane *lane, unsigned char *data, uint64_t sector))
{
	uint64_t sector = lane->req.sector;

	for (unsigned i = 0; i < lane->req.nr_segments; i++)
		for (unsigned s = lane->segments[i].first_sect; s <= lane->segments[i].last_sect;
		     s++)
			fn(lane, lane->pages + (size_t)i * BLKIF_PAGE_SIZE + s * SECTOR, sector++);
}

static void fill_sector(struct lane *lane, unsigned char *data, uint64_t sector)
{
	stamp(data, sector, ++lane->load->versions[sector]);
}

static void check_sector(struct lane *lane, unsigned char *data, uint64_t sector)
{
	if (!is_stamped(data, sector, lane->load->versions[sector]))
		fail(lane->load, "a read brought wrong data", sector);
}

static void lane_done(struct front_req *req)
{
	struct lane *lane = req->arg;
	struct load *l = lane->load;

	lane->busy = false;
	l->answered++;
	if (req->status != BLKIF_OKAY)
		fail(l, "a request failed", req->sector);
	else if (req->op == BLKIF_READ)
		for_each_sector(lane, check_sector);
}

/* Random segments that fit into the lane's stretch. */
static void shape(struct load *l, struct lane *lane)
{
	unsigned wanted = 1 + pick(l, l->opts.max_segments);
	uint64_t sectors = 0;
	unsigned n = 0;

	for (; n < wanted; n++) {
		struct blkif_wire_segment *seg = &lane->segments[n];
		unsigned first = pick(l, 4) ? 0 : pick(l, PER_PAGE);
		unsigned last = pick(l, 4) ? PER_PAGE - 1 : first + pick(l, PER_PAGE - first);

		if (sectors + last - first + 1 > lane->len)
			break;
		*seg = (struct blkif_wire_segment){.gref = lane->refs[n],
						   .first_sect = (uint8_t)first,
						   .last_sect = (uint8_t)last};
		sectors += last - first + 1;
	}
	lane->req.nr_segments = n;
	lane->req.segments = lane->segments;
	/* Often at an end, where mistakes are. */
	switch (pick(l, 8)) {
	case 0:
		lane->req.sector = lane->first;
		break;
	case 1:
		lane->req.sector = lane->first + lane->len - sectors;
		break;
	default:
		lane->req.sector = lane->first + pick(l, (unsigned)(lane->len - sectors + 1));
		break;
	}
}

static void issue(struct load *l, struct lane *lane)
{
	lane->req.done = lane_done;
	lane->req.arg = lane;
	lane->req.indirect = false;
	if (l->opts.flushes && pick(l, 100) < FLUSH_PERCENT) {
		lane->req.op = BLKIF_FLUSH_DISKCACHE;
		lane->req.nr_segments = 0;
		lane->req.sector = 0;
	} else {
		shape(l, lane);
		if (!lane->req.nr_segments)
			return;
		lane->req.op = pick(l, 100) < WRITE_PERCENT ? BLKIF_WRITE : BLKIF_READ;
		/* Now and then a small one goes indirectly, too. */
		lane->req.indirect =
			l->opts.max_segments > BLKIF_MAX_DIRECT_SEGMENTS && !pick(l, 4);
		if (lane->req.op == BLKIF_WRITE)
			for_each_sector(lane, fill_sector);
	}
	lane->busy = !front_submit(l->g->front, &lane->req);
	if (!lane->busy)
		fail(l, "a request could not be submitted", lane->req.sector);
}

void load_fill(struct load *l)
{
	for (unsigned i = 0; i < l->nr_lanes; i++)
		if (!l->lanes[i].busy && !l->fault[0])
			issue(l, &l->lanes[i]);
	front_push(l->g->front);
}

static const char *outcome(struct load *l)
{
	if (front_fault(l->g->front) && !l->fault[0])
		snprintf(l->fault, sizeof(l->fault), "%s", front_fault(l->g->front));
	return l->fault[0] ? l->fault : NULL;
}

const char *load_step(struct load *l)
{
	load_fill(l);
	front_wait(l->g->front, 1);
	return outcome(l);
}

const char *load_finish(struct load *l)
{
	while (front_outstanding(l->g->front)) {
		int n = front_wait(l->g->front, HOST_WAIT_MS);

		if (n < 0)
			return outcome(l);
		if (!n)
			return fail(l, "requests were never answered", 0);
	}
	return outcome(l);
}

const char *load_run(struct load *l, unsigned requests)
{
	unsigned until = l->answered + requests;

	while ((int)(until - l->answered) > 0) {
		int n;

		load_fill(l);
		n = front_wait(l->g->front, HOST_WAIT_MS);
		if (n < 0 || l->fault[0])
			return outcome(l);
		if (!n)
			return fail(l, "no response came", 0);
	}
	return load_finish(l);
}

unsigned load_answered(const struct load *l)
{
	return l->answered;
}

const char *load_compare(const struct load *l, const char *data)
{
	for (uint64_t i = 0; i < l->g->sectors; i++)
		if (!is_stamped((const unsigned char *)data + i * SECTOR, i, l->versions[i]))
			return "the disk's contents differ from what was written";
	return NULL;
}
