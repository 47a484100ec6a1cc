/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rings: a frontend's rings that remember what was asked, and judge each response.
 *
 * As long as a ring is used as the protocol has it, each response must name a request that is
 * outstanding and the operation that was asked for.  Once the frontend has written over what the
 * backend may be reading, or its counters lie, the ring is marred: then anything may be answered,
 * and only that nothing else comes to harm is of interest.
 */
#ifndef SLUICE_TEST_FUZZ_RINGS_H
#define SLUICE_TEST_FUZZ_RINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "blkif/wire.h"

enum { RING_PAGES_MAX = 4, RING_SLOTS_MAX = 128 };

struct ring {
	const struct blkif_layout *layout;
	unsigned domid;
	unsigned nr_pages;
	unsigned slots;
	char *pages; /* NULL: there is none yet */
	uint32_t refs[RING_PAGES_MAX];
	uint32_t port;
	uint32_t prod;   /* requests written */
	uint32_t pushed; /* of those, what the backend may see */
	uint32_t seen;   /* responses collected */
	bool marred;
	unsigned nr_asked;
	struct {
		uint64_t id;
		uint8_t operation;
	} asked[RING_SLOTS_MAX];
};

/* A new ring in new pages of domain @domid, its counters beginning at @first. */
void ring_make(struct ring *r, unsigned domid, const struct blkif_layout *layout, unsigned nr_pages,
	       uint32_t first);
/* The next free slot, for a request with @id to be answered with @operation; NULL: it is full. */
uint8_t *ring_next(struct ring *r, uint64_t id, uint8_t operation);
void ring_push(struct ring *r, bool notify_always);
void ring_notify(const struct ring *r);
/* Writes @len bytes at an offset, as no frontend should. */
void ring_overwrite(struct ring *r, unsigned offset, const void *bytes, unsigned len);
struct blkif_sring *ring_shared(const struct ring *r);
/* Collects responses, and aborts if one is wrong. */
void ring_collect(struct ring *r);

#endif
