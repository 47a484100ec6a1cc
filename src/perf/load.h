/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * load: one queue's load, made and measured by one thread, which may take turns over several.
 *
 * As many requests as the depth are kept outstanding; each that ends is begun anew at another
 * place.  A pass over the responses looks at the clock once, when what follows has been pushed:
 * what ended in the pass ended then, and what follows began then.  So latencies include this side's
 * own part, and reading the clock costs nobody any time.
 */
#ifndef SLUICE_PERF_LOAD_H
#define SLUICE_PERF_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hist.h"
#include "front/front.h"
#include "perf/verify.h"

struct load_opts {
	struct front *front;
	/* Pages for data, as front_segment_pages_alloc(); they are its owner's to take back. */
	void *(*pages_alloc)(void *ctx, unsigned nr, uint32_t *refs);
	/* Whether the backend is there; looked at while nothing comes. */
	bool (*is_alive)(void *ctx);
	/* Whether it wants the load to end; looked at in each pass. */
	bool (*is_closing)(void *ctx);
	void *ctx;
	bool random;           /* places; else one after the other */
	unsigned read_percent; /* of the requests that carry data */
	uint32_t block_bytes;  /* a multiple of 512 */
	unsigned depth;
	uint64_t first_block;
	uint64_t nr_blocks;
	unsigned flush_every; /* writes between two flushes; 0: none */
	unsigned push_every;  /* requests at most, before the backend is told of them */
	bool sleep;           /* wait for responses by the doorbell, not in a loop */
	uint64_t seed;
	struct verifier *verifier; /* NULL: data is not looked at */
	unsigned patience_ms;      /* without any response: then the backend is given up */
};

enum load_kind { LOAD_READ, LOAD_WRITE, LOAD_FLUSH, LOAD_KINDS };

/* What verification found. */
enum load_damage {
	LOAD_LOST,
	LOAD_STALE,
	LOAD_TORN,
	LOAD_MISPLACED,
	LOAD_CORRUPT,
	LOAD_DAMAGES,
};
extern const char *const load_damage_names[LOAD_DAMAGES];

struct load_result {
	struct load_kind_result {
		uint64_t requests; /* that ended well */
		uint64_t bytes;
		uint64_t errors; /* that the backend failed */
		struct hist latency;
	} kinds[LOAD_KINDS];
	uint64_t verified; /* reads that were judged, and were of blocks that had been written */
	uint64_t damage[LOAD_DAMAGES];
	uint64_t damaged_sector; /* the first on the disk, whenever it was found */
	uint64_t passes;         /* over responses that were there */
};

struct load;

/* Returns 0 and *@out, -ENOMEM (also if there are no pages), or -EINVAL. */
int load_create(const struct load_opts *opts, struct load **out);
/* Nothing is outstanding, or the backend is known to write no more. */
void load_destroy(struct load *l);
/*
 * Runs @nr loads on the calling thread, by turns, each until @end_ns (0: not by the clock), until
 * it has begun @requests (0: without bound), or @stop, and then until nothing of it is outstanding.
 * Only a load that runs alone may sleep. Returns 0, -EPROTO (see front_fault()), -EPIPE (the
 * backend is gone), or -ETIMEDOUT (it answers no more), with *@failed, whose load it was.
 */
int load_run(struct load *const *loads, unsigned nr, uint64_t end_ns, uint64_t requests,
	     const atomic_bool *stop, unsigned *failed);
/* Reads all that these loads have written, and judges it. Returns as load_run(). */
int load_check(struct load *const *loads, unsigned nr, const atomic_bool *stop, unsigned *failed);
const struct load_result *load_result(const struct load *l);
/* Forgets what was measured and found so far. */
void load_forget(struct load *l);
/* Adds @from to @to; the second only errors, and what verification found. */
void load_result_add(struct load_result *to, const struct load_result *from);
void load_result_add_found(struct load_result *to, const struct load_result *from);
uint64_t load_result_damages(const struct load_result *r);

#endif
