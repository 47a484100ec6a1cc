/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xenstore with paths by printf and numbers by the strict parser.  All of it blocks for a round
 * trip to xenstored, and belongs to the control thread.
 */
#ifndef SLUICE_XEN_STORE_H
#define SLUICE_XEN_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

enum { STORE_PATH_MAX = 256 };

/* A connection, and the transaction that what follows belongs to (XBT_NULL: none). */
struct store {
	struct xs_handle *xs;
	xs_transaction_t t;
};

/* The value at DIR/KEY, for free(); NULL with errno if there is none, or if it has a NUL inside. */
char *store_read(const struct store *s, const char *dir, const char *key);
/*
 * Its number. Returns 0, -ENOENT (no such key), -EINVAL (not a decimal number up to @max), or
 * another negative errno.
 */
int store_read_u32(const struct store *s, const char *dir, const char *key, uint32_t max,
		   uint32_t *value);
/* Whether the value is there and equals @text. */
bool store_equals(const struct store *s, const char *dir, const char *key, const char *text);
bool store_exists(const struct store *s, const char *path);
/* Whether xenstore says that there is no such path: false also when it cannot be asked. */
bool store_missing(const struct store *s, const char *path);
/* Writes DIR/KEY. Returns 0 or a negative errno. */
int store_write(const struct store *s, const char *dir, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Removes DIR/KEY (@key NULL: DIR), which need not be there. Returns 0 or a negative errno. */
int store_remove(const struct store *s, const char *dir, const char *key);

/*
 * Has @fn write within a transaction, again as long as others come between (up to a bound). @fn
 * returns 0, or a negative errno that ends it without effect. Returns 0 or a negative errno.
 */
int store_transact(struct store *s, int (*fn)(struct store *s, void *arg), void *arg);

#endif
