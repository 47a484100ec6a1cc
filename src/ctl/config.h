/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The set of bdevs, kept in a file so that the next daemon has it again.
 *
 * The file holds what a client would have to send to get there: {"version": 1, "bdevs":
 * [{"method": "bdev_uring_create", "params": {...}}, ...]}.  It is replaced whole: written beside,
 * synced, renamed, and its directory synced, so that a crash leaves the old set or the new one.
 *
 * A change is done when it is saved, and not before: it is applied in memory, the file is written
 * by a helper thread (a sync can take seconds on a busy disk), and then the change is committed or
 * undone.  Changes wait for each other, so that a file never holds half of one.
 *
 * A bdev that cannot be made at start, because its disk is not there today, say, stays in the
 * file until it is deleted, or created anew under its name.
 *
 * Beside bdevs the file holds what bdevs come and go with, NVMe controllers say, and what uses
 * them. Each kind of these has a method of its own, and names that bdevs may have as well.  Bdevs
 * are made first, then the others, kind by kind.
 */
#ifndef SLUICE_CTL_CONFIG_H
#define SLUICE_CTL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/list.h"

struct bdev;
struct config;
struct reactor;
struct helper_pool;

/* Part of a larger object of the submitter's. All functions run on the control reactor. */
struct config_change {
	const char *name;               /* of the one thing that it makes, changes or removes */
	const struct config_kind *kind; /* of what kind that is; NULL: a bdev */
	bool removes;
	/*
	 * Optional: what is to be saved of the bdev, in place of its own config, for a change that
	 * is made only when it is saved. As in struct bdev_ops.
	 */
	json_t *(*config)(struct config_change *ch, const struct bdev *b, const char **method);
	/* Makes the change in memory. On error nothing has changed and only done follows. */
	int (*apply)(struct config_change *ch, struct err *err);
	/* The set without (@removes) or with the bdev is saved. May fail; the set is saved again.
	 */
	int (*commit)(struct config_change *ch, struct err *err);
	/* Saving failed, for the reason in @err, to which it may add. */
	void (*undo)(struct config_change *ch, struct err *err);
	/* Last: 0, or a negative errno with the line in @err. May free the change. */
	void (*done)(struct config_change *ch, int result, const struct err *err);
	/* private */
	struct list node;
};

/* Things in the file that are no bdevs: one kind of them. */
struct config_kind {
	const char *method; /* of their entries */
	const char *noun;   /* what the log calls one of them */
	/* As the argument of config_load(). */
	int (*create)(const json_t *params, void *arg, struct err *err);
	/*
	 * Appends to @list the parameters of each that is to be in the file once @ch is done; NULL:
	 * no change of theirs is being made. Returns 0 or -ENOMEM.
	 */
	int (*describe)(json_t *list, const struct config_change *ch, void *arg);
	void *arg;
	/* private */
	struct list node;
};

/*
 * @path is the file; its directory is made if only that is missing. Writes are done by @helpers.
 * Returns 0 and *@out, or a negative errno with the line in @err.
 */
int config_create(const char *path, struct reactor *r, struct helper_pool *helpers,
		  struct config **out, struct err *err);
/*
 * Changes that are not done yet are undone, done() tells them -ECANCELED. The helper threads must
 * have ended, for they may be writing the file.
 */
void config_destroy(struct config *c);

/* Before config_load(), which makes kinds in the order in which they were added. @k outlives @c. */
void config_add_kind(struct config *c, struct config_kind *k);

/*
 * Makes the bdevs that the file holds, by @create(method, params, err), whose params are an object
 * and which returns 0 or a negative errno. What cannot be made is logged and kept. Returns 0 (also
 * without a file), or a negative errno with the line in @err if the file cannot be read or makes no
 * sense. Before the reactor runs.
 */
int config_load(struct config *c,
		int (*create)(const char *method, const json_t *params, struct err *err),
		struct err *err);

/* Starts @ch now, or when those before it are done. */
void config_submit(struct config *c, struct config_change *ch);

/* Calls @each with the parameters of each of @kind that could not be made. */
void config_each_kept(const struct config *c, const struct config_kind *kind,
		      void (*each)(const json_t *params, void *arg), void *arg);

/* Whether the file has one of that name that could not be made, of @kind (NULL: a bdev). */
bool config_keeps(const struct config *c, const char *name, const struct config_kind *kind);

#endif
