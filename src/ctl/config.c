/* SPDX-License-Identifier: BSD-2-Clause */
/* The file of bdevs and the queue of changes to it; config.h has the idea. */
#include "ctl/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "bdev/bdev.h"
#include "ctl/dirs.h"
#include "reactor/helper.h"

enum { FILE_VERSION = 1 };

struct config {
	char *path;
	struct reactor *reactor;
	struct helper_pool *helpers;
	struct list kinds;
	json_t *kept; /* entries of the file that could not be made */
	struct list queue;
	bool busy;                     /* a change is on its way, or its file is being written */
	struct config_change *current; /* whose file is being written; NULL: nobody's */
	/* The helper thread's while a file is being written. */
	struct helper_job job;
	char *text;
	int result;
	bool replaced; /* the file is the new one, even if the write failed later */
	struct err err;
};

static const char *entry_name(const json_t *entry)
{
	const char *name =
		json_string_value(json_object_get(json_object_get(entry, "params"), "name"));

	return name ? name : "";
}

void config_add_kind(struct config *c, struct config_kind *k)
{
	list_add_tail(&c->kinds, &k->node);
}

/* NULL: a bdev. */
static const struct config_kind *kind_of(const struct config *c, const json_t *entry)
{
	const char *method = json_string_value(json_object_get(entry, "method"));
	struct list *pos;

	list_for_each (pos, &c->kinds) {
		const struct config_kind *k = list_entry(pos, struct config_kind, node);

		if (method && !strcmp(method, k->method))
			return k;
	}
	return NULL;
}

/* Whether @entry is about what @name means. */
static bool names(const struct config *c, const json_t *entry, const char *name,
		  const struct config_kind *kind)
{
	return kind_of(c, entry) == kind && !strcmp(entry_name(entry), name);
}

bool config_keeps(const struct config *c, const char *name, const struct config_kind *kind)
{
	for (size_t i = 0; i < json_array_size(c->kept); i++)
		if (names(c, json_array_get(c->kept, i), name, kind))
			return true;
	return false;
}

void config_each_kept(const struct config *c, const struct config_kind *kind,
		      void (*each)(const json_t *params, void *arg), void *arg)
{
	for (size_t i = 0; i < json_array_size(c->kept); i++) {
		const json_t *entry = json_array_get(c->kept, i);

		if (kind_of(c, entry) == kind)
			each(json_object_get(entry, "params"), arg);
	}
}

static void drop_kept(struct config *c, const struct config_change *ch)
{
	for (size_t i = json_array_size(c->kept); i-- > 0;)
		if (names(c, json_array_get(c->kept, i), ch->name, ch->kind))
			json_array_remove(c->kept, i);
}

/* Writing */

static int add_entry(json_t *list, const char *method, json_t *params)
{
	if (!params || json_array_append_new(list, json_pack("{s:s, s:o}", "method", method,
							     "params", params)))
		return -ENOMEM;
	return 0;
}

static int add_live(json_t *bdevs, struct config_change *ch)
{
	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b)) {
		bool theirs = ch && !ch->kind && !strcmp(ch->name, b->name);
		const char *method;
		json_t *params;

		if (b->owner[0] || (theirs && ch->removes))
			continue;
		params = theirs && ch->config ? ch->config(ch, b, &method)
					      : b->ops->config(b, &method);
		if (add_entry(bdevs, method, params))
			return -ENOMEM;
	}
	return 0;
}

static int add_kind(json_t *entries, const struct config_kind *k, const struct config_change *ch)
{
	json_t *list = json_array();
	int rc = list ? k->describe(list, ch && ch->kind == k ? ch : NULL, k->arg) : -ENOMEM;

	for (size_t i = 0; !rc && i < json_array_size(list); i++)
		rc = add_entry(entries, k->method, json_incref(json_array_get(list, i)));
	json_decref(list);
	return rc;
}

static int add_kinds(json_t *entries, const struct config *c, const struct config_change *ch)
{
	struct list *pos;
	int rc = 0;

	list_for_each (pos, &c->kinds)
		if (!rc)
			rc = add_kind(entries, list_entry(pos, struct config_kind, node), ch);
	return rc;
}

static int add_kept(json_t *bdevs, const struct config *c, const struct config_change *ch)
{
	for (size_t i = 0; i < json_array_size(c->kept); i++) {
		json_t *entry = json_array_get(c->kept, i);

		if (ch && names(c, entry, ch->name, ch->kind))
			continue;
		if (json_array_append(bdevs, entry))
			return -ENOMEM;
	}
	return 0;
}

/* The file's text as it will be once @ch (NULL: none) is done; NULL without memory. */
static char *describe(const struct config *c, struct config_change *ch)
{
	json_t *bdevs = json_array(), *root;
	char *text;

	if (!bdevs || add_live(bdevs, ch) || add_kinds(bdevs, c, ch) || add_kept(bdevs, c, ch)) {
		json_decref(bdevs);
		return NULL;
	}
	root = json_pack("{s:i, s:o}", "version", FILE_VERSION, "bdevs", bdevs);
	text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	return text;
}

static int write_synced(const char *path, const char *text)
{
	size_t len = strlen(text), done = 0;
	int fd, rc = 0;

	unlink(path); /* what a crash has left */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	while (!rc && done < len) {
		ssize_t n = write(fd, text + done, len - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			rc = -errno;
	}
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	if (rc)
		unlink(path);
	return rc;
}

static int sync_directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX] = ".";
	int fd, rc = 0;

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path) + 1, path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd))
		rc = -errno;
	close(fd);
	return rc;
}

static int replace_file(const char *path, const char *text, bool *replaced)
{
	char temporary[PATH_MAX];
	int rc;

	*replaced = false;
	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.tmp", path) >= sizeof(temporary))
		return -ENAMETOOLONG;
	rc = write_synced(temporary, text);
	if (rc)
		return rc;
	if (rename(temporary, path)) {
		rc = -errno;
		unlink(temporary);
		return rc;
	}
	*replaced = true;
	return sync_directory_of(path);
}

static void save_run(struct helper_job *job)
{
	struct config *c = container_of(job, struct config, job);

	c->result = replace_file(c->path, c->text, &c->replaced);
}

/* Changes */

static void save(struct config *c);
static void run_queue(struct config *c);

static void save_done(struct helper_job *job)
{
	struct config *c = container_of(job, struct config, job);
	struct config_change *ch = c->current;
	bool stale = false;
	int rc = c->result;

	free(c->text);
	c->text = NULL;
	if (rc)
		err_set(&c->err, rc,
			"cannot save the set of bdevs in %s: %s: make room there, or choose "
			"another file with --state",
			c->path, strerror(-rc));
	if (!ch) {
		if (rc)
			log_error("%s", c->err.text);
	} else {
		/* @stale: the file holds what memory does not, or the other way round. */
		if (rc) {
			ch->undo(ch, &c->err);
			stale = c->replaced;
		} else {
			rc = ch->commit(ch, &c->err);
			stale = rc;
		}
		if (!rc)
			drop_kept(c, ch);
		c->current = NULL;
		ch->done(ch, rc, &c->err);
	}
	if (stale) {
		save(c);
		return;
	}
	c->busy = false;
	run_queue(c);
}

/* Writes the file for the current change. */
static void save(struct config *c)
{
	c->replaced = false;
	c->text = describe(c, c->current);
	if (!c->text) {
		c->result = -ENOMEM;
		save_done(&c->job);
		return;
	}
	c->job.run = save_run;
	c->job.done = save_done;
	helper_submit(c->helpers, c->reactor, &c->job);
}

static void run_queue(struct config *c)
{
	while (!c->busy && !list_empty(&c->queue)) {
		struct config_change *ch =
			list_entry(list_pop(&c->queue), struct config_change, node);
		struct err err;
		int rc;

		/* Also while done runs, which may submit the next. */
		c->busy = true;
		rc = ch->apply(ch, &err);
		if (!rc) {
			c->current = ch;
			save(c);
			return;
		}
		ch->done(ch, rc, &err);
		c->busy = false;
	}
}

void config_submit(struct config *c, struct config_change *ch)
{
	list_add_tail(&c->queue, &ch->node);
	run_queue(c);
}

/* Loading */

typedef int (*create_bdev)(const char *method, const json_t *params, struct err *err);

static void load_entry(struct config *c, json_t *entry, const struct config_kind *kind,
		       create_bdev create)
{
	const char *method = json_string_value(json_object_get(entry, "method"));
	const json_t *params = json_object_get(entry, "params");
	struct err err;
	int rc;

	if (!method)
		rc = err_set(&err, -EINVAL, "the entry has no method");
	else if (!json_is_object(params))
		rc = err_set(&err, -EINVAL, "the entry has no parameters");
	else
		rc = kind ? kind->create(params, kind->arg, &err) : create(method, params, &err);
	if (!rc)
		return;
	log_error("%s '%s' of %s cannot be made and is kept for later: %s",
		  kind ? kind->noun : "bdev", entry_name(entry), c->path, err.text);
	if (json_array_append(c->kept, entry))
		log_error("out of memory: the next save will lose '%s'", entry_name(entry));
}

static void load_kind(struct config *c, const json_t *entries, const struct config_kind *kind,
		      create_bdev create)
{
	for (size_t i = 0; i < json_array_size(entries); i++)
		if (kind_of(c, json_array_get(entries, i)) == kind)
			load_entry(c, json_array_get(entries, i), kind, create);
}

int config_load(struct config *c,
		int (*create)(const char *method, const json_t *params, struct err *err),
		struct err *err)
{
	json_t *root, *bdevs;
	json_error_t error;
	struct list *pos;
	int fd, rc;

	fd = open(c->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOENT)
			return 0;
		rc = -errno;
		return err_set(err, rc, "cannot read the saved bdevs in %s: %s", c->path,
			       strerror(-rc));
	}
	root = json_loadfd(fd, JSON_REJECT_DUPLICATES, &error);
	close(fd);
	/* Going on without them would overwrite them at the next change. */
	if (!root)
		return err_set(err, -EINVAL,
			       "the saved bdevs in %s make no sense (line %d: %.160s): repair the "
			       "file, or move it away to start without bdevs",
			       c->path, error.line, error.text);
	bdevs = json_object_get(root, "bdevs");
	if (json_integer_value(json_object_get(root, "version")) != FILE_VERSION ||
	    !json_is_array(bdevs)) {
		json_decref(root);
		return err_set(err, -EINVAL,
			       "%s is not of version %d of the saved bdevs: use the sluiced that "
			       "wrote it, or move it away to start without bdevs",
			       c->path, FILE_VERSION);
	}
	load_kind(c, bdevs, NULL, create);
	list_for_each (pos, &c->kinds)
		load_kind(c, bdevs, list_entry(pos, struct config_kind, node), create);
	json_decref(root);
	return 0;
}

int config_create(const char *path, struct reactor *r, struct helper_pool *helpers,
		  struct config **out, struct err *err)
{
	struct config *c;
	int rc = dirs_make_parent(path, 0700, err);

	if (rc)
		return rc;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->reactor = r;
	c->helpers = helpers;
	list_init(&c->kinds);
	list_init(&c->queue);
	c->path = strdup(path);
	c->kept = json_array();
	if (!c->path || !c->kept) {
		config_destroy(c);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*out = c;
	return 0;
}

void config_destroy(struct config *c)
{
	struct err err = {"sluiced is ending"};
	struct list *node;

	if (c->current) {
		c->current->undo(c->current, &err);
		c->current->done(c->current, -ECANCELED, &err);
	}
	while ((node = list_pop(&c->queue))) {
		struct config_change *ch = list_entry(node, struct config_change, node);

		ch->done(ch, -ECANCELED, &err);
	}
	json_decref(c->kept);
	free(c->text);
	free(c->path);
	free(c);
}
