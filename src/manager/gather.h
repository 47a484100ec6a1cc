/* SPDX-License-Identifier: BSD-2-Clause */
/* Results: printed as they come, in the order of the items, or added up. */
#ifndef SLUICE_MANAGER_GATHER_H
#define SLUICE_MANAGER_GATHER_H

#include "manager/item.h"
#include "manager/options.h"
#include "manager/sum.h"

struct gather {
	bool ordered, summing;
	uint64_t next;         /* id of the item whose result is printed next */
	struct item_list held; /* done, and others before them are not */
	struct sum sum;
};

void gather_init(struct gather *g, const struct options *o);
void gather_destroy(struct gather *g);
/*
 * Takes an item that is done, if it returns 0. -EPROTO: its result is none; the item stays the
 * caller's. -EIO: the output failed, which was said.
 */
int gather_take(struct gather *g, struct item *i);
/* After the last item: prints what is left. Returns 0 or a failing exit status. */
int gather_finish(struct gather *g);

#endif
