/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A share for tests of tables of mappings: it counts what it is asked for, knows what is mapped,
 * and can refuse.  There is one at a time.
 */
#ifndef SLUICE_TESTS_FAKE_SHARE_H
#define SLUICE_TESTS_FAKE_SHARE_H

#include "blkif/share.h"

enum { REFS = 4096, PEER = 7 };

struct fake_share {
	char pages[REFS];      /* a byte stands for a page: only its address counts */
	unsigned mapped[REFS]; /* how often */
	unsigned calls;
	bool refuse;
	bool writable; /* what mappings must be */
};

extern struct fake_share fake;

/* Nothing is mapped, and nothing was asked for. */
void fake_reset(bool writable);
bool fake_is_unmapped(void);

/* For struct share_ops: one page of PEER's at a time, as writable as it has to be. */
void *fake_map(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr, bool writable);
void fake_unmap(struct share *s, void *addr, unsigned nr);

#endif
