/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/load.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum {
	/* Rounds in which nothing came, between looks at the clock. */
	IDLE_ROUNDS = 4096,
	SLEEP_MS = 100,
	NO_PICK_MAX = 64, /* tries to find a block that nobody uses */
};

const char *const load_damage_names[LOAD_DAMAGES] = {
	[LOAD_LOST] = "lost",           [LOAD_STALE] = "stale",     [LOAD_TORN] = "torn",
	[LOAD_MISPLACED] = "misplaced", [LOAD_CORRUPT] = "corrupt",
};

struct place {
	struct front_req req;
	struct load *load;
	struct place *next; /* of those that have ended, are free, or have begun in this pass */
	enum load_kind kind;
	bool again; /* reads a block again that was old */
	uint64_t block;
	uint64_t since_ns;
	void *data;
	struct blkif_wire_segment *segments;
};

struct load {
	struct load_opts opts;
	struct place *ended; /* in the pass that is being made */
	struct place *free;
	struct place *new; /* begun in this pass */
	unsigned nr_closed;
	struct closed {
		struct hist *latency;
		uint64_t since_ns;
	} * closed; /* what ended in this pass, by the clock that is still to be read */
	unsigned outstanding;
	unsigned unpushed;
	uint64_t random;
	uint64_t next; /* block, of those that follow each other */
	unsigned writes_since_flush;
	unsigned nr_segments;
	uint64_t sectors_of_block;
	uint64_t begun;
	bool goes_on; /* with more requests; else those that are outstanding are the last */
	uint64_t patience_end_ns;
	uint64_t checked; /* blocks that load_check() has begun to read */
	struct load_result result;
	struct blkif_wire_segment *segments;
	uint32_t *refs;
	struct place places[];
};

static void request_is_done(struct front_req *req)
{
	struct place *p = req->arg;
	struct load *l = p->load;

	p->next = l->ended;
	l->ended = p;
}

static int prepare_place(struct load *l, struct place *p, unsigned n)
{
	const struct load_opts *o = &l->opts;
	unsigned pages = l->nr_segments;
	uint32_t left = o->block_bytes;

	p->load = l;
	p->data = o->pages_alloc(o->ctx, pages, l->refs);
	if (!p->data)
		return -ENOMEM;
	/* Something that is not the same everywhere, for writes that are not verified. */
	for (size_t i = 0; i < (size_t)pages * BLKIF_PAGE_SIZE; i += sizeof(uint64_t)) {
		uint64_t word = (o->seed + i + n) * 0x9e3779b97f4a7c15;

		memcpy((char *)p->data + i, &word, sizeof(word));
	}
	p->segments = l->segments + (size_t)n * pages;
	for (unsigned i = 0; i < pages; i++) {
		uint32_t piece = left < BLKIF_PAGE_SIZE ? left : BLKIF_PAGE_SIZE;

		p->segments[i] = (struct blkif_wire_segment){
			.gref = l->refs[i],
			.last_sect = (uint8_t)(piece / BLKIF_SECTOR_SIZE - 1),
		};
		left -= piece;
	}
	p->req.segments = p->segments;
	p->req.done = request_is_done;
	p->req.arg = p;
	p->next = l->free;
	l->free = p;
	return 0;
}

int load_create(const struct load_opts *opts, struct load **out)
{
	unsigned pages = (opts->block_bytes + BLKIF_PAGE_SIZE - 1) / BLKIF_PAGE_SIZE;
	struct load *l;

	if (!opts->depth || opts->depth > front_depth(opts->front) || !opts->nr_blocks ||
	    !opts->block_bytes || opts->block_bytes % BLKIF_SECTOR_SIZE ||
	    opts->read_percent > 100 || !opts->push_every)
		return -EINVAL;
	l = calloc(1, sizeof(*l) + opts->depth * sizeof(l->places[0]));
	if (!l)
		return -ENOMEM;
	l->opts = *opts;
	l->nr_segments = pages;
	l->sectors_of_block = opts->block_bytes / BLKIF_SECTOR_SIZE;
	l->random = opts->seed * 2 + 1;
	l->segments = calloc((size_t)opts->depth * pages, sizeof(l->segments[0]));
	l->refs = calloc(pages, sizeof(l->refs[0]));
	l->closed = calloc(opts->depth, sizeof(l->closed[0]));
	if (!l->segments || !l->refs || !l->closed)
		goto fail;
	for (unsigned n = 0; n < opts->depth; n++)
		if (prepare_place(l, &l->places[n], n))
			goto fail;
	*out = l;
	return 0;
fail:
	load_destroy(l);
	return -ENOMEM;
}

void load_destroy(struct load *l)
{
	free(l->segments);
	free(l->refs);
	free(l->closed);
	free(l);
}

/* Requests */

static uint64_t draw(struct load *l, uint64_t below)
{
	/* splitmix64; the product spreads it over what is below without a division. */
	uint64_t x = l->random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	x ^= x >> 31;
	return (uint64_t)((unsigned __int128)x * below >> 64);
}

static uint64_t pick_block(struct load *l)
{
	uint64_t n;

	if (l->opts.random)
		return l->opts.first_block + draw(l, l->opts.nr_blocks);
	n = l->next;
	l->next = n + 1 == l->opts.nr_blocks ? 0 : n + 1;
	return l->opts.first_block + n;
}

static void submit(struct load *l, struct place *p)
{
	p->next = l->new;
	l->new = p;
	/* There are as many places as the ring takes, or fewer. */
	(void)front_submit(l->opts.front, &p->req);
	l->outstanding++;
	if (++l->unpushed >= l->opts.push_every) {
		l->unpushed = 0;
		front_push(l->opts.front);
	}
}

static void submit_data(struct load *l, struct place *p)
{
	bool write = p->kind == LOAD_WRITE;

	p->req.op = write ? BLKIF_WRITE : BLKIF_READ;
	p->req.nr_segments = l->nr_segments;
	p->req.sector = p->block * l->sectors_of_block;
	if (l->opts.verifier && write)
		verify_begin_write(l->opts.verifier, p->block, p->data);
	else if (l->opts.verifier)
		verify_begin_read(l->opts.verifier, p->block, p->data);
	submit(l, p);
}

/* Begins what comes next, with @p. False: nothing can be begun now. */
static bool begin(struct load *l, struct place *p)
{
	const struct load_opts *o = &l->opts;

	p->again = false;
	if (o->flush_every && l->writes_since_flush >= o->flush_every) {
		l->writes_since_flush = 0;
		p->kind = LOAD_FLUSH;
		p->req.op = BLKIF_FLUSH_DISKCACHE;
		p->req.nr_segments = 0;
		p->req.sector = 0;
		submit(l, p);
		return true;
	}
	p->kind = LOAD_READ;
	if (o->read_percent < 100 && (!o->read_percent || draw(l, 100) >= o->read_percent))
		p->kind = LOAD_WRITE;
	p->block = pick_block(l);
	for (unsigned i = 0; o->verifier; i++) {
		if (verify_may_begin(o->verifier, p->block, p->kind == LOAD_WRITE))
			break;
		if (i == NO_PICK_MAX)
			return false;
		p->block = pick_block(l);
	}
	l->writes_since_flush += p->kind == LOAD_WRITE;
	submit_data(l, p);
	return true;
}

/* Begins to read the next block that was written. False: there is none any more. */
static bool begin_check(struct load *l, struct place *p)
{
	while (l->checked < l->opts.nr_blocks &&
	       !verify_is_written(l->opts.verifier, l->opts.first_block + l->checked))
		l->checked++;
	if (l->checked == l->opts.nr_blocks)
		return false;
	p->again = false;
	p->kind = LOAD_READ;
	p->block = l->opts.first_block + l->checked++;
	submit_data(l, p);
	return true;
}

static void found(struct load *l, enum load_damage damage, uint64_t sector)
{
	if (!load_result_damages(&l->result) || sector < l->result.damaged_sector)
		l->result.damaged_sector = sector;
	l->result.damage[damage]++;
}

/* Returns whether the block is being read again. */
static bool judge(struct load *l, struct place *p)
{
	uint64_t sector = 0;

	if (p->req.status != BLKIF_OKAY)
		return false;
	switch (verify_judge(l->opts.verifier, p->block, p->data, &sector)) {
	case VERIFY_OLD:
		if (p->again) {
			found(l, LOAD_LOST, sector);
			break;
		}
		/* Was the read wrong, or the write? The next one will tell. */
		verify_end_read(l->opts.verifier, p->block);
		p->again = true;
		submit_data(l, p);
		return true;
	case VERIFY_TORN:
		found(l, LOAD_TORN, sector);
		break;
	case VERIFY_MISPLACED:
		found(l, LOAD_MISPLACED, sector);
		break;
	case VERIFY_CORRUPT:
		found(l, LOAD_CORRUPT, sector);
		break;
	case VERIFY_GOOD:
		if (p->again)
			found(l, LOAD_STALE, p->block * l->sectors_of_block);
		l->result.verified++;
		break;
	default:
		break;
	}
	return false;
}

/* Returns whether the place is in use again. */
static bool finish(struct load *l, struct place *p)
{
	struct load_kind_result *kind = &l->result.kinds[p->kind];

	l->outstanding--;
	if (p->req.status == BLKIF_OKAY) {
		kind->requests++;
		l->closed[l->nr_closed++] = (struct closed){&kind->latency, p->since_ns};
		if (p->kind != LOAD_FLUSH)
			kind->bytes += l->opts.block_bytes;
	} else {
		kind->errors++;
	}
	if (!l->opts.verifier || p->kind == LOAD_FLUSH)
		return false;
	if (p->kind == LOAD_WRITE) {
		verify_end_write(l->opts.verifier, p->block, p->req.status != BLKIF_OKAY);
		return false;
	}
	if (judge(l, p))
		return true;
	verify_end_read(l->opts.verifier, p->block);
	return false;
}

/* What a turn of load is made of. */

typedef bool (*begin_fn)(struct load *l, struct place *p);

struct job {
	begin_fn next;
	uint64_t end_ns;
	uint64_t requests;
	const atomic_bool *stop;
};

static int wait_asleep(struct load *l)
{
	for (;;) {
		int n = front_wait(l->opts.front, SLEEP_MS);

		if (n)
			return n;
		if (!l->opts.is_alive(l->opts.ctx))
			return -EPIPE;
		if (clock_now_ns() > l->patience_end_ns)
			return -ETIMEDOUT;
	}
}

/* Takes what has ended in this pass. */
static void take_ended(struct load *l)
{
	struct place *p;

	l->result.passes++;
	while ((p = l->ended)) {
		l->ended = p->next;
		if (finish(l, p))
			continue;
		p->next = l->free;
		l->free = p;
	}
}

/* Begins as much as can be begun. Returns false once there is nothing more to begin at all. */
static bool begin_all(struct load *l, begin_fn next, uint64_t requests)
{
	while (l->free) {
		struct place *p = l->free, *rest = p->next;

		if (requests && l->begun == requests)
			return false;
		/* With nothing outstanding it says so only if there is nothing left. */
		if (!next(l, p))
			return l->outstanding;
		l->free = rest;
		l->begun++;
	}
	return true;
}

/*
 * Reads the clock for what has ended in this pass and what has begun: after the push, so that the
 * new requests are on their way meanwhile.
 */
static uint64_t take_time(struct load *l)
{
	uint64_t now_ns = clock_now_ns();

	for (unsigned i = 0; i < l->nr_closed; i++)
		hist_add(l->closed[i].latency, now_ns - l->closed[i].since_ns);
	l->nr_closed = 0;
	for (struct place *p = l->new; p; p = p->next)
		p->since_ns = now_ns;
	l->new = NULL;
	return now_ns;
}

/* Begins what is to be begun after a pass. Returns whether something is outstanding. */
static bool go_on(struct load *l, const struct job *job)
{
	uint64_t now_ns;

	if (l->goes_on)
		l->goes_on = begin_all(l, job->next, job->requests);
	if (l->unpushed) {
		l->unpushed = 0;
		front_push(l->opts.front);
	}
	now_ns = take_time(l);
	if ((job->end_ns && now_ns >= job->end_ns) ||
	    atomic_load_explicit(job->stop, memory_order_relaxed) ||
	    l->opts.is_closing(l->opts.ctx))
		l->goes_on = false;
	l->patience_end_ns = now_ns + l->opts.patience_ms * NSEC_PER_MSEC;
	return l->outstanding;
}

/* Nothing has come for many rounds: is there anybody? */
static int look_around(struct load *const *loads, unsigned nr, unsigned *failed)
{
	uint64_t now_ns = clock_now_ns();

	for (unsigned i = 0; i < nr; i++) {
		const struct load *l = loads[i];

		*failed = i;
		if (!l->outstanding)
			continue;
		if (now_ns > l->patience_end_ns)
			return -ETIMEDOUT;
		if (!l->opts.is_alive(l->opts.ctx))
			return -EPIPE;
	}
	/* The backend may have to run on this very core. */
	sched_yield();
	return 0;
}

static int run(struct load *const *loads, unsigned nr, const struct job *job, unsigned *failed)
{
	unsigned busy = 0, idle = 0;
	int rc = 0;

	for (unsigned i = 0; i < nr; i++) {
		loads[i]->begun = 0;
		loads[i]->goes_on = true;
		busy += go_on(loads[i], job);
	}
	while (busy && !rc) {
		bool came = false;

		for (unsigned i = 0; i < nr; i++) {
			struct load *l = loads[i];
			int n;

			if (!l->outstanding)
				continue;
			n = l->opts.sleep ? wait_asleep(l) : front_poll(l->opts.front);
			if (n < 0) {
				*failed = i;
				return n;
			}
			if (!n)
				continue;
			came = true;
			take_ended(l);
			busy -= !go_on(l, job);
		}
		if (came) {
			idle = 0;
			continue;
		}
		__builtin_ia32_pause();
		if (++idle == IDLE_ROUNDS) {
			idle = 0;
			rc = look_around(loads, nr, failed);
		}
	}
	return rc;
}

int load_run(struct load *const *loads, unsigned nr, uint64_t end_ns, uint64_t requests,
	     const atomic_bool *stop, unsigned *failed)
{
	struct job job = {.next = begin, .end_ns = end_ns, .requests = requests, .stop = stop};

	return run(loads, nr, &job, failed);
}

int load_check(struct load *const *loads, unsigned nr, const atomic_bool *stop, unsigned *failed)
{
	struct job job = {.next = begin_check, .stop = stop};

	for (unsigned i = 0; i < nr; i++)
		loads[i]->checked = 0;
	return run(loads, nr, &job, failed);
}

const struct load_result *load_result(const struct load *l)
{
	return &l->result;
}

void load_forget(struct load *l)
{
	memset(&l->result, 0, sizeof(l->result));
}

uint64_t load_result_damages(const struct load_result *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < LOAD_DAMAGES; i++)
		n += r->damage[i];
	return n;
}

void load_result_add_found(struct load_result *to, const struct load_result *from)
{
	if (!load_result_damages(to) ||
	    (load_result_damages(from) && from->damaged_sector < to->damaged_sector))
		to->damaged_sector = from->damaged_sector;
	for (unsigned i = 0; i < LOAD_DAMAGES; i++)
		to->damage[i] += from->damage[i];
	for (unsigned i = 0; i < LOAD_KINDS; i++)
		to->kinds[i].errors += from->kinds[i].errors;
	to->verified += from->verified;
}

void load_result_add(struct load_result *to, const struct load_result *from)
{
	for (unsigned i = 0; i < LOAD_KINDS; i++) {
		to->kinds[i].requests += from->kinds[i].requests;
		to->kinds[i].bytes += from->kinds[i].bytes;
		hist_merge(&to->kinds[i].latency, &from->kinds[i].latency);
	}
	to->passes += from->passes;
	load_result_add_found(to, from);
}
