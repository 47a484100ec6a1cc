/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"

/* Others' transactions conflict with ours only now and then: so often in a row is a fault. */
enum { TRANSACTION_TRIES = 100 };

static bool join(char *path, const char *dir, const char *key)
{
	int n = key ? snprintf(path, STORE_PATH_MAX, "%s/%s", dir, key)
		    : snprintf(path, STORE_PATH_MAX, "%s", dir);

	if (n < 0 || n >= STORE_PATH_MAX) {
		errno = ENAMETOOLONG;
		return false;
	}
	return true;
}

char *store_read(const struct store *s, const char *dir, const char *key)
{
	char path[STORE_PATH_MAX];
	unsigned len;
	char *value;

	if (!join(path, dir, key))
		return NULL;
	value = xs_read(s->xs, s->t, path, &len);
	/* libxenstore ends it with a NUL of its own; one inside would hide what follows. */
	if (value && strlen(value) != len) {
		free(value);
		errno = EINVAL;
		return NULL;
	}
	return value;
}

int store_read_u32(const struct store *s, const char *dir, const char *key, uint32_t max,
		   uint32_t *value)
{
	char *text = store_read(s, dir, key);
	bool ok;

	if (!text)
		return -errno;
	ok = parse_u32(text, max, value);
	free(text);
	return ok ? 0 : -EINVAL;
}

bool store_equals(const struct store *s, const char *dir, const char *key, const char *text)
{
	char *value = store_read(s, dir, key);
	bool equal = value && !strcmp(value, text);

	free(value);
	return equal;
}

bool store_exists(const struct store *s, const char *path)
{
	unsigned len;
	char *value = xs_read(s->xs, s->t, path, &len);

	free(value);
	return value != NULL;
}

bool store_missing(const struct store *s, const char *path)
{
	return !store_exists(s, path) && errno == ENOENT;
}

int store_write(const struct store *s, const char *dir, const char *key, const char *fmt, ...)
{
	char path[STORE_PATH_MAX], value[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(value) || !join(path, dir, key))
		return -ENAMETOOLONG;
	return xs_write(s->xs, s->t, path, value, (unsigned)n) ? 0 : -errno;
}

int store_remove(const struct store *s, const char *dir, const char *key)
{
	char path[STORE_PATH_MAX];

	if (!join(path, dir, key))
		return -ENAMETOOLONG;
	return xs_rm(s->xs, s->t, path) || errno == ENOENT ? 0 : -errno;
}

int store_transact(struct store *s, int (*fn)(struct store *s, void *arg), void *arg)
{
	for (int i = 0; i < TRANSACTION_TRIES; i++) {
		int rc;

		s->t = xs_transaction_start(s->xs);
		if (s->t == XBT_NULL)
			return -errno;
		rc = fn(s, arg);
		if (!xs_transaction_end(s->xs, s->t, rc != 0) && !rc)
			rc = -errno;
		s->t = XBT_NULL;
		if (rc != -EAGAIN)
			return rc;
	}
	return -EAGAIN;
}
