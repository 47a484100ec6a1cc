/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/source.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manager/say.h"

enum {
	SOURCE_READ = 64 << 10,
	SOURCE_LINE_MAX = 64 << 20, /* bytes of a line */
};

struct buffer {
	char *data;
	size_t n, room;
};

struct source {
	enum split split;
	size_t limit;     /* bytes of a block or a batch of lines */
	unsigned buckets; /* batches that are collected at once */
	FTS *files;       /* NULL: standard input */
	uint64_t ids;
	unsigned failures;
	bool over; /* nothing more can be read */
	bool broken;
	/* What is being cut into items */
	int fd;
	char *name;
	uint64_t offset; /* of the next block in it */
	struct buffer line, *batches;
	struct item_list ready;
};

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

int source_create(const struct options *o, struct source **out)
{
	struct source *s = calloc(1, sizeof(*s));
	bool files = o->words[0] && strcmp(o->words[0], "-");

	if (!s)
		return say_failure("out of memory");
	s->fd = -1;
	s->split = o->split != SPLIT_DEFAULT ? o->split : files ? SPLIT_FILES : SPLIT_LINES;
	s->limit = s->split == SPLIT_BLOCKS ? o->block_bytes : o->batch_bytes;
	s->buckets = o->by == BY_HASH && s->split == SPLIT_LINES ? o->workers : 1;
	s->batches = calloc(s->buckets, sizeof(s->batches[0]));
	if (files)
		s->files = fts_open(o->words, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	if (!s->batches || (files && !s->files)) {
		source_destroy(s);
		return say_failure("cannot look for files: %s", strerror(errno));
	}
	if (!files) {
		s->fd = STDIN_FILENO;
		s->name = strdup("-");
	}
	*out = s;
	return 0;
}

void source_destroy(struct source *s)
{
	struct item *i;

	if (!s)
		return;
	while ((i = item_list_take(&s->ready)))
		item_free(i);
	for (unsigned b = 0; s->batches && b < s->buckets; b++)
		free(s->batches[b].data);
	free(s->batches);
	free(s->line.data);
	if (s->fd > STDIN_FILENO)
		close(s->fd);
	if (s->files)
		fts_close(s->files);
	free(s->name);
	free(s);
}

int source_fd(const struct source *s)
{
	return s->fd;
}

unsigned source_failures(const struct source *s)
{
	return s->failures;
}

static int out_of_memory(struct source *s)
{
	say("out of memory while reading '%s'", say_name(s->name ? s->name : "-"));
	s->broken = true;
	return -EIO;
}

/* Adds an item with this name and data, which it takes, to those that are ready. */
static int make_item(struct source *s, char *name, char *data, size_t bytes, uint64_t hash)
{
	struct item *i = calloc(1, sizeof(*i));

	if (!i || !name) {
		free(i);
		free(name);
		free(data);
		return out_of_memory(s);
	}
	i->id = ++s->ids;
	i->name = name;
	i->data = data;
	i->bytes = bytes;
	i->hash = hash;
	item_list_add(&s->ready, i);
	return 0;
}

static int append(struct source *s, struct buffer *b, const char *data, size_t n)
{
	size_t room = b->room ? b->room : SOURCE_READ;
	char *grown;

	while (room - b->n < n)
		room *= 2;
	if (room != b->room) {
		grown = realloc(b->data, room);
		if (!grown)
			return out_of_memory(s);
		b->data = grown;
		b->room = room;
	}
	memcpy(b->data + b->n, data, n);
	b->n += n;
	return 0;
}

/* The next file under what was named, after complaints about what is none. NULL: no more. */
static const FTSENT *next_file(struct source *s)
{
	FTSENT *e;

	while ((e = fts_read(s->files))) {
		const char *why = NULL;

		switch (e->fts_info) {
		case FTS_F:
			return e;
		case FTS_DNR:
		case FTS_ERR:
		case FTS_NS:
			why = strerror(e->fts_errno);
			break;
		case FTS_SLNONE:
			why = e->fts_level ? NULL : strerror(ENOENT);
			break;
		case FTS_DEFAULT:
			why = e->fts_level ? NULL : "it is no file; standard input takes streams";
			break;
		case FTS_DC:
			why = "the directory is within itself";
			break;
		default:
			break;
		}
		if (!why)
			continue;
		say("cannot read '%s': %s", say_name(e->fts_path), why);
		s->failures++;
	}
	return NULL;
}

static int next_whole_file(struct source *s)
{
	const FTSENT *e;
	char *name;

	if (!s->files) {
		/* Standard input as one item would have to be kept whole. */
		say("--files needs files: standard input is cut by --lines or --blocks");
		s->broken = true;
		return -EIO;
	}
	e = next_file(s);
	if (!e) {
		s->over = true;
		return 0;
	}
	name = strdup(e->fts_path);
	return make_item(s, name, NULL, 0, item_hash(e->fts_path, e->fts_pathlen));
}

static int finish_block(struct source *s)
{
	struct buffer *b = &s->batches[0];
	char *name = NULL;
	uint64_t hash;
	int rc;

	if (!b->n)
		return 0;
	if (asprintf(&name, "%s@%llu", s->name, (unsigned long long)s->offset) < 0)
		name = NULL;
	s->offset += b->n;
	hash = name ? item_hash(name, strlen(name)) : 0;
	rc = make_item(s, name, b->data, b->n, hash);
	*b = (struct buffer){0};
	return rc;
}

static int cut_blocks(struct source *s, const char *data, size_t n)
{
	struct buffer *b = &s->batches[0];
	int rc = 0;

	while (n && !rc) {
		size_t piece = s->limit - b->n < n ? s->limit - b->n : n;

		rc = append(s, b, data, piece);
		data += piece;
		n -= piece;
		if (!rc && b->n == s->limit)
			rc = finish_block(s);
	}
	return rc;
}

static int finish_batch(struct source *s, unsigned bucket)
{
	struct buffer *b = &s->batches[bucket];
	char *name = NULL;
	int rc;

	if (!b->n)
		return 0;
	if (asprintf(&name, "lines-%llu", (unsigned long long)s->ids + 1) < 0)
		name = NULL;
	rc = make_item(s, name, b->data, b->n, bucket);
	*b = (struct buffer){0};
	return rc;
}

/* The worker of a line is that of its first word. */
static unsigned bucket_of(const struct source *s, const char *line, size_t n)
{
	size_t word = 0;

	if (s->buckets == 1)
		return 0;
	while (word < n && line[word] != ' ' && line[word] != '\t' && line[word] != '\n')
		word++;
	return (unsigned)(item_hash(line, word) % s->buckets);
}

static int finish_line(struct source *s, const char *line, size_t n)
{
	unsigned bucket = bucket_of(s, line, n);
	struct buffer *b = &s->batches[bucket];
	int rc = 0;

	if (b->n && b->n + n > s->limit)
		rc = finish_batch(s, bucket);
	if (!rc)
		rc = append(s, b, line, n);
	if (!rc && b->n >= s->limit)
		rc = finish_batch(s, bucket);
	return rc;
}

static int cut_lines(struct source *s, const char *data, size_t n)
{
	const char *end;
	int rc = 0;

	while (!rc && n && (end = memchr(data, '\n', n))) {
		size_t piece = (size_t)(end - data) + 1;

		if (s->line.n) {
			rc = append(s, &s->line, data, piece);
			if (!rc)
				rc = finish_line(s, s->line.data, s->line.n);
			s->line.n = 0;
		} else {
			rc = finish_line(s, data, piece);
		}
		data += piece;
		n -= piece;
	}
	if (rc || !n)
		return rc;
	if (s->line.n + n > SOURCE_LINE_MAX) {
		say("'%s' has a line of more than %d bytes: use --blocks", say_name(s->name),
		    SOURCE_LINE_MAX);
		s->broken = true;
		return -EIO;
	}
	return append(s, &s->line, data, n);
}

/* The end of a file is the end of its last line or block. */
static int end_input(struct source *s)
{
	int rc = 0;

	if (s->split == SPLIT_BLOCKS)
		rc = finish_block(s);
	else if (s->line.n)
		rc = cut_lines(s, "\n", 1);
	if (s->fd > STDIN_FILENO)
		close(s->fd);
	s->fd = -1;
	if (!s->files)
		s->over = true;
	for (unsigned b = 0; s->over && !rc && s->split == SPLIT_LINES && b < s->buckets; b++)
		rc = finish_batch(s, b);
	return rc;
}

static int open_next(struct source *s)
{
	const FTSENT *e = next_file(s);

	if (!e) {
		s->over = true;
		return end_input(s);
	}
	free(s->name);
	s->name = strdup(e->fts_path);
	s->offset = 0;
	if (!s->name)
		return out_of_memory(s);
	s->fd = open(s->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (s->fd < 0) {
		say("cannot read '%s': %m", say_name(s->name));
		s->failures++;
	}
	return 0;
}

/* Reads some; 0 also when there is nothing yet, with *@waits. */
static int read_some(struct source *s, bool *waits)
{
	struct pollfd ready = {s->fd, POLLIN, 0};
	char data[SOURCE_READ];
	ssize_t n;

	*waits = poll(&ready, 1, 0) <= 0;
	if (*waits)
		return 0;
	n = read(s->fd, data, sizeof(data));
	if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
		*waits = true;
		return 0;
	}
	if (n < 0) {
		say("cannot read '%s': %m", say_name(s->name));
		s->failures++;
	}
	if (n <= 0)
		return end_input(s);
	return s->split == SPLIT_BLOCKS ? cut_blocks(s, data, (size_t)n)
					: cut_lines(s, data, (size_t)n);
}

int source_next(struct source *s, struct item **out)
{
	bool waits = false;
	int rc = 0;

	while (!rc && !waits && !s->ready.first && !s->over && !s->broken) {
		if (s->split == SPLIT_FILES)
			rc = next_whole_file(s);
		else if (s->fd < 0)
			rc = open_next(s);
		else
			rc = read_some(s, &waits);
	}
	*out = item_list_take(&s->ready);
	if (*out)
		return 1;
	return s->broken ? -EIO : s->over ? -ENODATA : 0;
}
