/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Items: work that a manager hands out to its workers, over a channel of sivshm.h. A manager is
 * `sivshm distribute`; a worker is a program like this:
 *
 *	struct sivshm_items *s;
 *	struct sivshm_item item;
 *
 *	if (sivshm_items_open(NULL, 10000, &s))
 *		...
 *	while (sivshm_items_next(s, &item) == 1) {
 *		while (sivshm_items_read(s, &data, &bytes) == 1)
 *			...
 *		sivshm_items_write(s, result, result_bytes);
 *		sivshm_items_done(s, NULL);
 *	}
 *	sivshm_items_close(s);
 *
 * The protocol: each message of the channel begins with struct sivshm_items_head, in little-endian
 * order. Both sides say hello first, the manager at once; it hands out nothing before it has been
 * answered. An item comes as one ITEM, any number of DATA and one END, and all of it comes before
 * the next; several may be on the way. The worker answers an item that has ended, or is still
 * coming, with any number of RESULT, and when it has seen the END, with one DONE; only then do its
 * results count. Items are answered in any order. An item whose worker goes away before DONE goes
 * to another one. After FINISH nothing comes, and the worker ends. What breaks these rules is the
 * end of the worker that sent it.
 */
#ifndef SIVSHM_ITEMS_H
#define SIVSHM_ITEMS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

enum {
	SIVSHM_ITEMS_VERSION = 1,
	SIVSHM_ITEMS_MESSAGE_MAX = 65536, /* bytes of a message with its head, both ways */
	SIVSHM_ITEMS_NAME_MAX = 4095,     /* bytes */
	SIVSHM_ITEMS_TEXT_MAX = 512,      /* bytes of what is said of a failure */
};

enum sivshm_items_kind {
	SIVSHM_ITEMS_HELLO = 1,  /* both ways; code: the version */
	SIVSHM_ITEMS_ITEM = 2,   /* manager; followed by the name, which need not be text */
	SIVSHM_ITEMS_DATA = 3,   /* manager; followed by a piece of the data */
	SIVSHM_ITEMS_END = 4,    /* manager; code: 0, or 1 when the data could not all be had */
	SIVSHM_ITEMS_FINISH = 5, /* manager */
	SIVSHM_ITEMS_RESULT = 6, /* worker; followed by a piece of the result */
	SIVSHM_ITEMS_DONE = 7,   /* worker; code: 0, or 1 with a text that says why not */
};

struct sivshm_items_head {
	uint32_t kind;
	uint32_t code;
	uint64_t item; /* which item this is about; 0 in HELLO and FINISH */
};

/* The worker's side. One thread's at a time. */

struct sivshm_items;

struct sivshm_item {
	uint64_t id;
	const char *name; /* ends in a zero byte; valid until the next item */
};

/*
 * Opens the port as sivshm_open() does, its channel (the whole segment, vector 0), and exchanges
 * greetings; each may take @timeout_ms. Returns 0 and *@out, or what sivshm_open() says; -EPROTO
 * also stands for a manager that speaks no items, or another version.
 */
int sivshm_items_open(const char *where, int timeout_ms, struct sivshm_items **out);
/* @s may be NULL. */
void sivshm_items_close(struct sivshm_items *s);
/*
 * Waits for the next item. The one before must be done. Returns 1 and *@item, 0 (there is nothing
 * more to do), -EPIPE (the manager is gone), -EPROTO, or -EINVAL (an item is not done yet).
 */
int sivshm_items_next(struct sivshm_items *s, struct sivshm_item *item);
/*
 * Waits for the item's next piece of data, which lies in the segment and is valid until the next
 * call. Returns 1, 0 (that was all), -EIO (the manager could not read all of it: the item is to be
 * done without a result), -EPIPE, -EPROTO, or -EINVAL (no item).
 */
int sivshm_items_read(struct sivshm_items *s, const void **data, size_t *bytes);
/*
 * Adds to the item's result; it is sent when enough has come together. Waits for room. Returns 0,
 * -EPIPE, -EPROTO, or -EINVAL (no item).
 */
int sivshm_items_write(struct sivshm_items *s, const void *data, size_t bytes);
/*
 * The item is done: its result counts from here on, or @failure (NULL: none) says why there is
 * none. What was not read of it is skipped. Returns 0, -EPIPE, -EPROTO, or -EINVAL (no item).
 */
int sivshm_items_done(struct sivshm_items *s, const char *failure);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
