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

/* Starts an instance and a guest with the disk, and connects them. */
void trial_connect(void);
/* A request with @nr whole pages, all 'p', which the backend may write to. */
void trial_init(struct trial *t, uint8_t op, unsigned nr, uint64_t sector);
/* @nr of them, reads and writes by turns, each of eleven pages at a place of its own. */
void trial_init_batch(struct trial *t, unsigned nr);
/* Takes its pages back. */
void trial_fini(struct trial *t);
/* Puts it into the ring, and lets the backend know. */
void trial_send(struct trial *t);
/* The same with @nr of them: the backend finds all at once. */
void trial_send_batch(struct trial *t, unsigned nr);
/* @nr of three pages, reads and writes by turns, one after the other: world.disk has and holds
 * them. */
void trial_hold(struct trial *t, unsigned nr);
/* Waits until all that was sent is answered. */
void trial_collect(void);
/* Sends it, waits until it is answered, and says whether it went by the bus. */
bool trial_goes_by_bus(struct trial *t);
/* What is mapped, and was, of a page that the guest grants. */
struct double_grant_use trial_use_of(uint32_t ref);

#endif
