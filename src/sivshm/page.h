/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page: the backend's use of the control page (blkif/control_page.h).
 *
 * The other side can change any byte of it at any time, our half included: what we have said we
 * remember elsewhere and never read back, and of the other half each field is read once, and judged
 * as a copy.
 */
#ifndef SLUICE_SIVSHM_PAGE_H
#define SLUICE_SIVSHM_PAGE_H

#include "base/err.h"
#include "blkif/control_page.h"
#include "blkif/decode.h"

/* What the frontend can choose from, and what it is to know. */
struct sivshm_offer {
	uint32_t pages; /* of the segment */
	uint32_t max_queues;
	struct blkif_limits limits;
	uint32_t physical_sector_size;
	uint32_t discard_granularity;
	uint32_t discard_alignment;
};

/* What it has chosen, judged. */
struct sivshm_choice {
	const struct blkif_layout *layout;
	unsigned nr_queues;
	unsigned ring_pages;
	uint32_t rings[CONTROL_QUEUES_MAX]; /* the first page of each */
};

/* Fills in what does not depend on a life: the page can be recognized. It is all zero before. */
void sivshm_page_init(struct control_page *page, const struct sivshm_offer *offer);
/* Answers the life @epoch: state OFFER. */
void sivshm_page_offer(struct control_page *page, const struct sivshm_offer *offer, uint32_t epoch);
/* Says the state, with what goes with it (NULL: nothing). */
void sivshm_page_say(struct control_page *page, enum control_backend_state state,
		     const char *error);
/* The disk is that large now; @revision is another than any before in this segment. */
void sivshm_page_resize(struct control_page *page, uint64_t sectors, uint32_t revision);

/*
 * Where the frontend stands. The state is of that epoch, or NONE, and may be one that does not
 * exist.
 */
void sivshm_page_look(const struct control_page *page, uint32_t *epoch, uint32_t *state);
/* Reads and judges its choice. Returns 0, or -EINVAL with the reason. */
int sivshm_page_read(const struct control_page *page, const struct sivshm_offer *offer,
		     struct sivshm_choice *choice, struct err *err);

#endif
