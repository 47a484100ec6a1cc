/* SPDX-License-Identifier: BSD-2-Clause */
/* An item: a piece of work, from its source to its result. */
#ifndef SLUICE_MANAGER_ITEM_H
#define SLUICE_MANAGER_ITEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct item {
	struct item *next;
	uint64_t id; /* from 1 on, in the order of the source */
	char *name;
	char *data;    /* NULL: in the file @name */
	size_t bytes;  /* of data */
	uint64_t hash; /* of what decides on its worker when hashing */

	/* Since it was handed out the last time */
	uint64_t sent; /* bytes of its data */
	bool ended;    /* all of it is on its way */
	bool failed;   /* has no result, and that was said */
	char *result;
	size_t result_bytes, result_room;
};

/* Adds to its result. Returns 0 or -ENOMEM. */
int item_add_result(struct item *i, const void *data, size_t bytes);
/* Forgets what a worker has done with it. */
void item_reset(struct item *i);
void item_free(struct item *i);
/* A name for messages; valid until the next call. */
const char *item_shown(const struct item *i);

uint64_t item_hash(const void *data, size_t bytes);

/* A list in the order of its items' ids; adding is quick at its end. */
struct item_list {
	struct item *first, *last;
};
void item_list_add(struct item_list *l, struct item *i);
struct item *item_list_take(struct item_list *l);

#endif
