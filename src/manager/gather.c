/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "manager/say.h"

void gather_init(struct gather *g, const struct options *o)
{
	*g = (struct gather){.ordered = o->ordered, .summing = o->sum, .next = 1};
}

void gather_destroy(struct gather *g)
{
	struct item *i;

	while ((i = item_list_take(&g->held)))
		item_free(i);
	sum_destroy(&g->sum);
}

static int print(const void *data, size_t bytes)
{
	/* An empty result may lie nowhere. */
	if (!bytes || fwrite(data, 1, bytes, stdout) == bytes)
		return 0;
	say("cannot write results: %m");
	return -EIO;
}

static int print_item(struct item *i)
{
	int rc = i->failed ? 0 : print(i->result, i->result_bytes);

	item_free(i);
	return rc;
}

static int take_sum(struct gather *g, struct item *i)
{
	int rc = i->failed ? 0 : sum_add(&g->sum, i->result, i->result_bytes);

	if (rc == -ENOMEM)
		say("out of memory for sums");
	if (rc)
		return rc == -EPROTO ? rc : -EIO;
	item_free(i);
	return 0;
}

int gather_take(struct gather *g, struct item *i)
{
	int rc = 0;

	if (g->summing)
		return take_sum(g, i);
	if (!g->ordered)
		return print_item(i);
	item_list_add(&g->held, i);
	while (!rc && g->held.first && g->held.first->id == g->next) {
		g->next++;
		rc = print_item(item_list_take(&g->held));
	}
	return rc;
}

int gather_finish(struct gather *g)
{
	int rc = g->summing ? sum_print(&g->sum) : 0;

	if (fflush(stdout) && !rc)
		rc = say_failure("cannot write results: %m");
	return rc;
}
