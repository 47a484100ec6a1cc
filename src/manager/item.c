/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/item.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "manager/say.h"

enum { RESULT_START = 4096 };

int item_add_result(struct item *i, const void *data, size_t bytes)
{
	size_t room = i->result_room ? i->result_room : RESULT_START;
	char *result;

	while (room - i->result_bytes < bytes)
		room *= 2;
	if (room != i->result_room) {
		result = realloc(i->result, room);
		if (!result)
			return -ENOMEM;
		i->result = result;
		i->result_room = room;
	}
	memcpy(i->result + i->result_bytes, data, bytes);
	i->result_bytes += bytes;
	return 0;
}

void item_reset(struct item *i)
{
	free(i->result);
	i->result = NULL;
	i->result_bytes = 0;
	i->result_room = 0;
	i->sent = 0;
	i->ended = false;
	i->failed = false;
}

void item_free(struct item *i)
{
	free(i->result);
	free(i->data);
	free(i->name);
	free(i);
}

const char *item_shown(const struct item *i)
{
	return say_name(i->name);
}

/* FNV-1a. */
uint64_t item_hash(const void *data, size_t bytes)
{
	const unsigned char *at = data;
	uint64_t hash = 0xcbf29ce484222325;

	while (bytes--)
		hash = (hash ^ *at++) * 0x100000001b3;
	/* The low bits alone choose a worker. */
	return hash ^ hash >> 32;
}

void item_list_add(struct item_list *l, struct item *i)
{
	struct item **at = &l->first;

	if (l->first && l->last->id < i->id)
		at = &l->last->next;
	while (*at && (*at)->id < i->id)
		at = &(*at)->next;
	i->next = *at;
	*at = i;
	if (!i->next)
		l->last = i;
}

struct item *item_list_take(struct item_list *l)
{
	struct item *i = l->first;

	if (i)
		l->first = i->next;
	return i;
}
