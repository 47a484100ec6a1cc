/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a job does: it fills its region, loads it, and checks it.
 *
 * A phase is one loop: choose requests as long as there are free slots, hand them over, wait for
 * some, judge them.  Where everything is verified, no two requests in flight overlap; that is what
 * the account of busy sectors is for, which a job that measures does without.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define SWEEP 256u /* sectors a request, at least, where the whole region is gone through */

volatile sig_atomic_t phase_stopped;

/* SplitMix64: small, seedable, and good enough to choose sectors. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static bool is_busy(const struct load *l, uint64_t sector, uint32_t sectors)
{
	return l->busy && memchr(l->busy + sector, 1, sectors);
}

/* The size of requests that fill and check the region. */
static uint32_t sweep_sectors(const struct load *l)
{
	return l->block_max > SWEEP ? l->block_max : SWEEP / l->grain * l->grain;
}

/* The next piece of the region, for a phase that goes through all of it. */
static bool choose_sweep(struct load *l, enum phase phase, struct slot *slot)
{
	if (l->cursor == l->sectors)
		return false;
	slot->op = phase == PHASE_FILL ? OP_WRITE : OP_READ;
	slot->sector = l->cursor;
	slot->sectors = sweep_sectors(l);
	if (slot->sectors > l->sectors - l->cursor)
		slot->sectors = (uint32_t)(l->sectors - l->cursor);
	if (is_busy(l, slot->sector, slot->sectors))
		return false;
	l->cursor += slot->sectors;
	return true;
}

/*
 * Chooses the next request of a phase into a slot.  Returns false where there is none now: the
 * phase is over, or every sector tried is busy.
 */
static bool choose(struct load *l, enum phase phase, struct slot *slot)
{
	uint32_t blocks = (l->block_max - l->block_min) / l->grain + 1;

	if (phase != PHASE_LOAD)
		return choose_sweep(l, phase, slot);
	if (l->flush_every && l->writes_since_flush >= l->flush_every) {
		l->writes_since_flush = 0;
		slot->op = OP_FLUSH;
		slot->sector = slot->sectors = 0;
		return true;
	}
	slot->op = next_random(&l->random) % 100 < l->read_percent ? OP_READ : OP_WRITE;
	slot->sectors = l->block_min + (uint32_t)(next_random(&l->random) % blocks) * l->grain;
	for (unsigned tries = 0; tries < 16; tries++) {
		/* Blocks of one size lie side by side, others wherever the device allows. */
		uint32_t step = blocks == 1 ? slot->sectors : l->grain;

		if (l->sequential) {
			if (l->cursor + slot->sectors > l->sectors)
				l->cursor = 0;
			slot->sector = l->cursor;
		} else {
			slot->sector = next_random(&l->random) %
				       ((l->sectors - slot->sectors) / step + 1) * step;
		}
		if (!is_busy(l, slot->sector, slot->sectors)) {
			l->cursor = slot->sector + slot->sectors;
			return true;
		}
		if (l->sequential)
			return false;
	}
	return false;
}

static bool issue(struct load *l, enum phase phase)
{
	struct slot *slot;

	if (!l->idles)
		return false;
	slot = &l->slots[l->idle[l->idles - 1]];
	if (!choose(l, phase, slot) ||
	    !engine_queue(l->engine, slot, (l->first + slot->sector) * SECTOR))
		return false;
	l->idles--;
	l->issued++;
	if (slot->op == OP_WRITE)
		l->writes_since_flush++;
	if (l->verify) {
		memset(l->busy + slot->sector, 1, slot->sectors);
		if (slot->op == OP_WRITE)
			stamp_slot(l, slot);
	}
	slot->started = clock_ticks();
	return true;
}

static void complain(const struct load *l, const struct slot *slot, int result)
{
	fprintf(stderr, "blkload: %s %s of %" PRIu32 " sectors at %" PRIu64 ": %s\n", l->device,
		(const char *[]){"read", "write", "flush"}[slot->op], slot->sectors,
		l->first + slot->sector, result < 0 ? strerror(-result) : "too short");
}

static void finish(struct load *l, enum phase phase, struct slot *slot, int result)
{
	bool good = result == (int)(slot->sectors * SECTOR);

	l->out->counts[phase].requests[slot->op]++;
	l->out->counts[phase].sectors[slot->op] += slot->sectors;
	if (phase == PHASE_LOAD)
		count_latency(l->out, clock_ticks() - slot->started);
	if (!good && l->out->failed++ < MAX_COMPLAINTS)
		complain(l, slot, result);
	if (l->verify) {
		check_slot(l, slot, good);
		memset(l->busy + slot->sector, 0, slot->sectors);
	}
	l->idle[l->idles++] = (unsigned)(slot - l->slots);
}

static void finish_load(struct load *l, struct slot *slot, int result)
{
	finish(l, PHASE_LOAD, slot, result);
}

static void finish_fill(struct load *l, struct slot *slot, int result)
{
	finish(l, PHASE_FILL, slot, result);
}

static void finish_check(struct load *l, struct slot *slot, int result)
{
	finish(l, PHASE_CHECK, slot, result);
}

static bool is_over(const struct load *l, enum phase phase, uint64_t deadline)
{
	if (phase == PHASE_CHECK)
		return false;
	if (phase_stopped)
		return true;
	return phase == PHASE_LOAD && ((l->max_requests && l->issued >= l->max_requests) ||
				       (deadline && clock_ticks() >= deadline));
}

static void tell_progress(const struct load *l, uint64_t *next)
{
	if (!l->progress || clock_ticks() < *next)
		return;
	*next = clock_ticks() + clock_ticks_of(l->progress * 1000000000ull);
	printf("blkload: %" PRIu64 " requests, %" PRIu64 " errors\n", l->issued,
	       l->out->bad + l->out->failed);
	fflush(stdout);
}

/* Runs a phase to its end, with nothing left in flight.  Returns 0 or a negative errno. */
static int run_phase(struct load *l, enum phase phase)
{
	static void (*const done[])(struct load *, struct slot *, int) = {
		[PHASE_FILL] = finish_fill,
		[PHASE_LOAD] = finish_load,
		[PHASE_CHECK] = finish_check,
	};
	uint64_t began = clock_system_ns(), start = clock_ticks();
	uint64_t next_progress = start + clock_ticks_of(l->progress * 1000000000ull);
	uint64_t deadline = l->seconds ? start + clock_ticks_of(l->seconds * 1000000000ull) : 0;

	l->cursor = l->issued = 0;
	for (;;) {
		unsigned flying;
		int rc = 0;

		while (!rc && !is_over(l, phase, deadline) && issue(l, phase)) {
			if (l->submit && engine_queued(l->engine) >= l->submit)
				rc = engine_submit(l->engine, 0);
		}
		flying = l->depth - l->idles;
		if (!flying)
			break;
		if (!rc)
			rc = engine_submit(l->engine, flying < l->batch ? flying : l->batch);
		if (rc < 0)
			return rc;
		engine_reap(l->engine, done[phase]);
		tell_progress(l, &next_progress);
	}
	if (phase == PHASE_LOAD)
		l->out->load_seconds = (double)(clock_system_ns() - began) / 1e9;
	return 0;
}

void phase_prepare(struct load *l)
{
	size_t buffer;

	open_device(l);
	buffer = (size_t)(l->verify ? sweep_sectors(l) : l->block_max) * SECTOR;
	l->slots = allocate(l->depth, sizeof(*l->slots));
	l->idle = allocate(l->depth, sizeof(*l->idle));
	if (l->verify) {
		l->expected = allocate(l->sectors, sizeof(*l->expected));
		l->busy = allocate(l->sectors, 1);
	}
	l->random = l->seed;
	for (unsigned i = 0; i < l->depth; i++) {
		if (posix_memalign((void **)&l->slots[i].buffer, 4096, buffer))
			refuse("out of memory");
		memset(l->slots[i].buffer, (int)i, buffer);
		l->idle[l->idles++] = i;
	}
	l->engine = engine_open(l, buffer);
	l->out->fixed = engine_is_fixed(l->engine);
}

int phase_run_load(struct load *l)
{
	return run_phase(l, PHASE_LOAD);
}

int phase_run_verified(struct load *l)
{
	int rc = 0;

	phase_prepare(l);
	if (l->load_file)
		load_table(l);
	else
		rc = run_phase(l, PHASE_FILL);
	if (!rc)
		rc = run_phase(l, PHASE_LOAD);
	if (!rc)
		rc = run_phase(l, PHASE_CHECK);
	if (!rc && l->save_file)
		save_table(l);
	return rc;
}
