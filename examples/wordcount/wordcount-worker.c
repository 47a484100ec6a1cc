/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Word count, the worker's part: counts the words of each item and answers lines WORD<TAB>COUNT,
 * which the manager adds up. A word is a run of ASCII letters, in lower case.
 *
 * The same program works as a process and in a guest: sivshm_items_open() finds its segment. It
 * knows no file, no network and no other worker.
 */
#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sivshm_items.h"

enum { OPEN_MS = 60000 };

struct word {
	uint64_t count;
	char *text;
};

struct counter {
	void *words; /* a tree of tsearch(3) */
	char *text;  /* of the word that is being read */
	size_t n, room;
	struct sivshm_items *items;
	int rc; /* of sending */
};

static void fail(const char *what, int rc)
{
	fprintf(stderr, "wordcount-worker: %s: %s\n", what, strerror(-rc));
	exit(EXIT_FAILURE);
}

static void *check_memory(void *p)
{
	if (!p)
		fail("counting", -ENOMEM);
	return p;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct word *)a)->text, ((const struct word *)b)->text);
}

static void end_word(struct counter *c)
{
	struct word wanted = {.text = c->text}, *w;
	void *const *found;

	if (!c->n)
		return;
	c->text[c->n] = '\0';
	c->n = 0;
	found = tfind(&wanted, &c->words, compare);
	if (found) {
		w = *found;
	} else {
		w = check_memory(calloc(1, sizeof(*w)));
		w->text = check_memory(strdup(c->text));
		check_memory(tsearch(w, &c->words, compare));
	}
	w->count++;
}

static void count(struct counter *c, const char *data, size_t bytes)
{
	for (; bytes; data++, bytes--) {
		/* Looked at once: the data lies in shared memory. */
		unsigned char letter = (unsigned char)(*(volatile const char *)data | 0x20);

		if (letter < 'a' || letter > 'z') {
			end_word(c);
			continue;
		}
		if (c->n + 1 >= c->room) {
			c->room = c->room ? 2 * c->room : 64;
			c->text = check_memory(realloc(c->text, c->room));
		}
		c->text[c->n++] = (char)letter;
	}
}

static void send_word(const void *node, VISIT visit, void *arg)
{
	const struct word *w = *(void *const *)node;
	struct counter *c = arg;
	char number[32];
	int n;

	if ((visit != postorder && visit != leaf) || c->rc)
		return;
	n = snprintf(number, sizeof(number), "\t%" PRIu64 "\n", w->count);
	c->rc = sivshm_items_write(c->items, w->text, strlen(w->text));
	if (!c->rc)
		c->rc = sivshm_items_write(c->items, number, (size_t)n);
}

static void free_word(void *word)
{
	free(((struct word *)word)->text);
	free(word);
}

static int do_item(struct counter *c)
{
	const void *data;
	size_t bytes;
	int rc;

	while ((rc = sivshm_items_read(c->items, &data, &bytes)) == 1)
		count(c, data, bytes);
	end_word(c);
	c->rc = 0;
	if (!rc)
		twalk_r(c->words, send_word, c);
	tdestroy(c->words, free_word);
	c->words = NULL;
	/* -EIO: the manager knows that the item has no result. */
	if (rc && rc != -EIO)
		return rc;
	return c->rc ? c->rc : sivshm_items_done(c->items, NULL);
}

int main(void)
{
	struct counter c = {0};
	struct sivshm_item item;
	int rc = sivshm_items_open(NULL, OPEN_MS, &c.items);

	if (rc)
		fail("cannot reach the manager", rc);
	while ((rc = sivshm_items_next(c.items, &item)) == 1) {
		rc = do_item(&c);
		if (rc)
			break;
	}
	if (rc)
		fail("the manager is lost", rc);
	sivshm_items_close(c.items);
	free(c.text);
	return 0;
}
