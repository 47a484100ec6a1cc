/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/sum.h"

#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "manager/say.h"

struct key {
	uint64_t sum;
	const char *text; /* follows here, but in a key that is only looked for */
	size_t bytes;
};

struct line {
	const char *key;
	size_t bytes; /* of key */
	uint64_t number;
};

static int compare(const void *left, const void *right)
{
	const struct key *a = left, *b = right;
	size_t n = a->bytes < b->bytes ? a->bytes : b->bytes;
	int order = memcmp(a->text, b->text, n);

	return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Takes the next line of *@at to @end. False if it is wrong. */
static bool parse_line(const char **at, const char *end, struct line *line)
{
	const char *newline = memchr(*at, '\n', (size_t)(end - *at));
	const char *stop = newline ? newline : end;
	const char *tab = memrchr(*at, '\t', (size_t)(stop - *at));
	char digits[24];
	size_t n = tab ? (size_t)(stop - tab - 1) : 0;

	if (!tab || tab == *at || n >= sizeof(digits))
		return false;
	memcpy(digits, tab + 1, n);
	digits[n] = '\0';
	*line = (struct line){.key = *at, .bytes = (size_t)(tab - *at)};
	*at = newline ? newline + 1 : end;
	return strlen(digits) == n && parse_u64(digits, UINT64_MAX, &line->number);
}

static struct key *find_or_make(struct sum *s, const struct line *line)
{
	struct key wanted = {.text = line->key, .bytes = line->bytes}, *made;
	void *const *found = tfind(&wanted, &s->keys, compare);

	if (found)
		return *found;
	made = malloc(sizeof(*made) + line->bytes);
	if (!made)
		return NULL;
	*made = (struct key){.text = (char *)(made + 1), .bytes = line->bytes};
	memcpy(made + 1, line->key, line->bytes);
	if (tsearch(made, &s->keys, compare))
		return made;
	free(made);
	return NULL;
}

int sum_add(struct sum *s, const char *data, size_t bytes)
{
	const char *at = data, *end = data + bytes;
	struct line line;

	while (at < end)
		if (!parse_line(&at, end, &line))
			return -EPROTO;
	for (at = data; at < end;) {
		struct key *key;

		parse_line(&at, end, &line);
		key = find_or_make(s, &line);
		if (!key)
			return -ENOMEM;
		if (__builtin_add_overflow(key->sum, line.number, &key->sum)) {
			key->sum = UINT64_MAX;
			s->full = true;
		}
	}
	return 0;
}

static void print_key(const void *node, VISIT visit, void *arg)
{
	const struct key *key = *(void *const *)node;

	if (visit != postorder && visit != leaf)
		return;
	fwrite(key->text, 1, key->bytes, stdout);
	printf("\t%" PRIu64 "\n", key->sum);
}

int sum_print(struct sum *s)
{
	twalk_r(s->keys, print_key, NULL);
	if (ferror(stdout))
		return say_failure("cannot write results: %m");
	if (s->full)
		return say_failure("sums that do not fit 64 bits are given as %" PRIu64,
				   UINT64_MAX);
	return 0;
}

void sum_destroy(struct sum *s)
{
	tdestroy(s->keys, free);
	s->keys = NULL;
}
