/* SPDX-License-Identifier: BSD-2-Clause */
/* trial: a request of world.guest's with pages of its own, to be spoiled, sent and looked at. */
#ifndef SLUICE_TEST_TRIAL_H
#define SLUICE_TEST_TRIAL_H

#include "world.h"

enum { TRIAL_PAGE = 4096, TRIAL_SEGMENTS_MAX = 64 };

struct trial {
	struct front_req req;
	struct blkif_wire_segment segments[TRIAL_SEGMENTS_MAX];
	struct guest_page pages[TRIAL_SEGMENTS_MAX];
	unsigned nr_pages;
};

/* A request with @nr whole pages, all 'p', which the backend may write to. */
void trial_init(struct trial *t, uint8_t op, unsigned nr, uint64_t sector);
/* Takes its pages back. */
void trial_fini(struct trial *t);
/* Puts it into the ring, and lets the backend know. */
void trial_send(struct trial *t);
/* Waits until all that was sent is answered. */
void trial_collect(void);

#endif
