/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xsd: the double of xenstored, by which that of the library (xenstore.c) works.
 *
 * A transaction works on its own copy of the tree and keeps a list of what it did and of what it
 * looked at.  At its end, each node that it looked at must still be what it was; then what it did
 * is done to the real tree, and only then do watches fire.
 *
 * All functions are called with the lock, but for those about paths.
 */
#ifndef SLUICE_TEST_DOUBLE_XSD_H
#define SLUICE_TEST_DOUBLE_XSD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

#include "base/list.h"
#include "tree.h"

enum op_kind { OP_WRITE, OP_MKDIR, OP_RM, OP_PERMS };

struct op {
	struct list node;
	enum op_kind kind;
	char *path;
	unsigned char *value;
	unsigned len;
	struct xs_permissions *perms;
	unsigned nr_perms;
};

struct access {
	struct list node;
	char *path;
	uint64_t generation; /* when the transaction began; 0: there was none */
};

struct transaction {
	struct list node;
	xs_transaction_t id;
	struct node *root; /* the tree as it was at its start and the transaction has changed it */
	struct list ops;
	struct list accesses;
};

struct watch {
	struct list node;
	struct xs_handle *xs;
	char *path;    /* absolute, or special with '@' */
	bool relative; /* registered below the caller's home, and reported so */
	char *token;
};

struct event {
	struct list node;
	char *path;
	char *token;
};

struct xs_handle {
	struct list node;
	unsigned domid;
	bool tested; /* opened by who is tested: faults and hooks are for it */
	int fd;
	struct list events;
	struct list transactions;
};

struct xsd {
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t event_came;
	struct node *root;
	xs_transaction_t last_transaction;
	struct list handles;
	struct list watches;
	uint64_t calls;
	uint64_t conflicts;
	void (*hook)(void *arg, bool write, const char *path);
	void *hook_arg;
};
extern struct xsd xsd;

bool xsd_is_special(const char *path);
/* The absolute path that @path means to @domid, or NULL with errno if it is none. */
char *xsd_absolute(unsigned domid, const char *path, bool special_too);
bool xsd_is_below(const char *path, const char *above);

/* Tells whoever has the watch of @path. */
void xsd_queue_event(struct watch *w, const char *path);

struct op *xsd_new_op(enum op_kind kind, const char *path);
void xsd_free_op(struct op *op);
/* On a transaction's tree, or on the real one with all that follows from it. */
void xsd_perform(const struct op *op, struct node *tree, unsigned domid);

/* NULL: there is none of that number. */
struct transaction *xsd_find_transaction(struct xs_handle *xs, xs_transaction_t t);
void xsd_end_transaction(struct transaction *t);
/* Remembers that the transaction depends on @path, and if that is not there on the nodes above. */
void xsd_note_access(struct transaction *t, const char *path);
/* What the transaction removes it depends on, all of it: it cannot be looked up later. */
void xsd_note_removal(struct transaction *t, const struct node *n);
/* Whether all that it depends on is as it was. */
bool xsd_is_current(struct transaction *t);

#endif
