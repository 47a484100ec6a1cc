/* SPDX-License-Identifier: BSD-2-Clause */
#include "xsd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

struct xsd xsd = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.event_came = PTHREAD_COND_INITIALIZER,
	.handles = LIST_INIT(xsd.handles),
	.watches = LIST_INIT(xsd.watches),
};

struct record {
	struct list node;
	char *path;
	char *values;
};

static struct list records = LIST_INIT(records);

/* Paths */

bool xsd_is_special(const char *path)
{
	return path[0] == '@';
}

char *xsd_absolute(unsigned domid, const char *path, bool special_too)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-/_@";
	size_t len = strlen(path);
	char *abs;

	if (special_too && xsd_is_special(path))
		return tree_copy_bytes(path, len);
	if (!len || strspn(path, allowed) != len || strstr(path, "//") ||
	    (len > 1 && path[len - 1] == '/') ||
	    len >= (path[0] == '/' ? XENSTORE_ABS_PATH_MAX : XENSTORE_REL_PATH_MAX)) {
		errno = EINVAL;
		return NULL;
	}
	if (path[0] == '/')
		return tree_copy_bytes(path, len);
	if (asprintf(&abs, "/local/domain/%u/%s", domid, path) < 0)
		double_abort("out of memory");
	return abs;
}

bool xsd_is_below(const char *path, const char *above)
{
	size_t len = strlen(above);

	if (!strcmp(above, "/"))
		return path[0] == '/';
	return !strncmp(path, above, len) && (path[len] == '/' || path[len] == '\0');
}

static char *path_of(const struct node *n)
{
	char *above, *path;

	if (!n->parent)
		return tree_copy_bytes("", 0);
	above = path_of(n->parent);
	if (asprintf(&path, "%s/%s", above, n->name) < 0)
		double_abort("out of memory");
	free(above);
	return path;
}

/* Watches */

void xsd_queue_event(struct watch *w, const char *path)
{
	struct event *ev = tree_must(calloc(1, sizeof(*ev)));
	uint64_t one = 1;

	if (w->relative && !xsd_is_special(path)) {
		/* "/local/domain/N/" */
		for (unsigned slashes = 0; slashes < 4; path++)
			slashes += *path == '/';
	}
	ev->path = tree_copy_bytes(path, strlen(path));
	ev->token = tree_copy_bytes(w->token, strlen(w->token));
	list_add_tail(&w->xs->events, &ev->node);
	if (write(w->xs->fd, &one, sizeof(one)) < 0)
		double_abort("eventfd: %s", strerror(errno));
	pthread_cond_broadcast(&xsd.event_came);
}

/* @exact: a node below one that is being removed; its removal is news only to who watches itself.
 */
static void fire(const char *path, bool exact)
{
	struct node *last = xsd.root;
	struct list *pos;

	if (!xsd_is_special(path))
		tree_find(xsd.root, path, &last);
	list_for_each (pos, &xsd.watches) {
		struct watch *w = list_entry(pos, struct watch, node);

		if (exact ? strcmp(path, w->path) : !xsd_is_below(path, w->path))
			continue;
		if (!xsd_is_special(path) && !(tree_permissions(last, w->xs->domid) & XS_PERM_READ))
			continue;
		xsd_queue_event(w, path);
	}
}

static void fire_removal(const struct node *n, bool exact)
{
	char *path = path_of(n);

	fire(path, exact);
	for (unsigned i = 0; i < n->nr_children; i++)
		fire_removal(n->children[i], true);
	free(path);
}

/* History */

static void record(const char *path, const char *value)
{
	const char *name = strrchr(path, '/') + 1;
	struct record *r = NULL;
	struct list *pos;
	char *values;

	if (strcmp(name, "state") && strcmp(name, "online") && strcmp(name, "error"))
		return;
	list_for_each (pos, &records)
		if (!strcmp(list_entry(pos, struct record, node)->path, path))
			r = list_entry(pos, struct record, node);
	if (!r) {
		r = tree_must(calloc(1, sizeof(*r)));
		r->path = tree_copy_bytes(path, strlen(path));
		r->values = tree_copy_bytes("", 0);
		list_add_tail(&records, &r->node);
	}
	if (asprintf(&values, "%s%s%s", r->values, *r->values ? " " : "", value) < 0)
		double_abort("out of memory");
	free(r->values);
	r->values = values;
}

static void record_removal(const struct node *n)
{
	char *path = path_of(n);

	record(path, "-");
	for (unsigned i = 0; i < n->nr_children; i++)
		record_removal(n->children[i]);
	free(path);
}

void double_xs_forget_history(void)
{
	struct list *node;

	pthread_mutex_lock(&xsd.lock);
	while ((node = list_pop(&records))) {
		struct record *r = list_entry(node, struct record, node);

		free(r->path);
		free(r->values);
		free(r);
	}
	pthread_mutex_unlock(&xsd.lock);
}

char *double_xs_history(const char *path)
{
	char *values = NULL;
	struct list *pos;

	pthread_mutex_lock(&xsd.lock);
	list_for_each (pos, &records)
		if (!strcmp(list_entry(pos, struct record, node)->path, path))
			values = tree_copy_bytes(
				list_entry(pos, struct record, node)->values,
				strlen(list_entry(pos, struct record, node)->values));
	pthread_mutex_unlock(&xsd.lock);
	return values ? values : tree_copy_bytes("", 0);
}

/* Operations and transactions */

void xsd_perform(const struct op *op, struct node *tree, unsigned domid)
{
	bool real = tree == xsd.root;
	struct node *n = tree_find(tree, op->path, NULL);

	switch (op->kind) {
	case OP_WRITE:
		tree_set_value(tree_make(tree, op->path, domid), op->value, op->len);
		if (real)
			record(op->path, (const char *)op->value);
		break;
	case OP_MKDIR:
		if (n)
			return;
		tree_make(tree, op->path, domid);
		break;
	case OP_PERMS:
		if (!n)
			return;
		tree_set_perms(n, op->perms, op->nr_perms);
		break;
	case OP_RM:
		if (!n)
			return;
		if (real) {
			record_removal(n);
			fire_removal(n, false);
		}
		tree_remove(n);
		return;
	}
	if (real)
		fire(op->path, false);
}

void xsd_free_op(struct op *op)
{
	free(op->path);
	free(op->value);
	free(op->perms);
	free(op);
}

struct transaction *xsd_find_transaction(struct xs_handle *xs, xs_transaction_t t)
{
	struct list *pos;

	list_for_each (pos, &xs->transactions) {
		struct transaction *tr = list_entry(pos, struct transaction, node);

		if (tr->id == t)
			return tr;
	}
	return NULL;
}

void xsd_end_transaction(struct transaction *t)
{
	struct list *node;

	while ((node = list_pop(&t->ops)))
		xsd_free_op(list_entry(node, struct op, node));
	while ((node = list_pop(&t->accesses))) {
		struct access *a = list_entry(node, struct access, node);

		free(a->path);
		free(a);
	}
	list_del(&t->node);
	tree_free(t->root);
	free(t);
}

void xsd_note_access(struct transaction *t, const char *path)
{
	struct access *a;
	struct list *pos;
	struct node *n;
	char *above;

	list_for_each (pos, &t->accesses)
		if (!strcmp(list_entry(pos, struct access, node)->path, path))
			return;
	a = tree_must(calloc(1, sizeof(*a)));
	a->path = tree_copy_bytes(path, strlen(path));
	n = tree_find(t->root, path, NULL);
	a->generation = n ? n->before : 0;
	list_add_tail(&t->accesses, &a->node);
	if (!a->generation && strcmp(path, "/")) {
		above = tree_copy_bytes(path, strlen(path));
		*strrchr(above, '/') = '\0';
		xsd_note_access(t, *above ? above : "/");
		free(above);
	}
}

void xsd_note_removal(struct transaction *t, const struct node *n)
{
	char *path = path_of(n);

	xsd_note_access(t, path);
	free(path);
	for (unsigned i = 0; i < n->nr_children; i++)
		xsd_note_removal(t, n->children[i]);
}

bool xsd_is_current(struct transaction *t)
{
	struct list *pos;

	list_for_each (pos, &t->accesses) {
		struct access *a = list_entry(pos, struct access, node);
		struct node *n = tree_find(xsd.root, a->path, NULL);

		if ((n ? n->generation : 0) != a->generation)
			return false;
	}
	return true;
}

struct op *xsd_new_op(enum op_kind kind, const char *path)
{
	struct op *op = tree_must(calloc(1, sizeof(*op)));

	op->kind = kind;
	op->path = tree_copy_bytes(path, strlen(path));
	return op;
}

/* The world's side */

void double_store_init(void)
{
	static const struct xs_permissions nobody_else = {.id = 0, .perms = XS_PERM_NONE};

	/* What a failed test has left behind is not the next one's trouble. */
	list_init(&xsd.handles);
	list_init(&xsd.watches);
	xsd.hook = NULL;
	tree_forget_generations();
	xsd.calls = 0;
	xsd.conflicts = 0;
	xsd.root = tree_new_node(NULL, "", 0);
	tree_set_value(xsd.root, "", 0);
	tree_set_perms(xsd.root, &nobody_else, 1);
}

void double_store_fini(void)
{
	double_xs_forget_history();
	tree_free(xsd.root);
	xsd.root = NULL;
}

static void toolstack_write(unsigned domid, const char *key, const char *value,
			    struct xs_permissions *perms, unsigned nr_perms)
{
	struct op *op;
	char *path;

	if (asprintf(&path, "/local/domain/%u%s", domid, key) < 0)
		double_abort("out of memory");
	op = xsd_new_op(OP_WRITE, path);
	op->value = tree_copy_bytes(value, strlen(value));
	op->len = (unsigned)strlen(value);
	xsd_perform(op, xsd.root, 0);
	xsd_free_op(op);
	op = xsd_new_op(OP_PERMS, path);
	op->perms = tree_copy_bytes(perms, nr_perms * sizeof(perms[0]));
	op->nr_perms = nr_perms;
	xsd_perform(op, xsd.root, 0);
	xsd_free_op(op);
	free(path);
}

void double_store_add_domain(unsigned domid, const char *name)
{
	struct xs_permissions readable[2] = {{.id = 0, .perms = XS_PERM_NONE},
					     {.id = domid, .perms = XS_PERM_READ}};
	struct xs_permissions own = {.id = domid, .perms = XS_PERM_NONE};
	char number[16];

	snprintf(number, sizeof(number), "%u", domid);
	pthread_mutex_lock(&xsd.lock);
	toolstack_write(domid, "", "", readable, 2);
	toolstack_write(domid, "/name", name, readable, 2);
	toolstack_write(domid, "/domid", number, readable, 2);
	toolstack_write(domid, "/device", "", readable, 2);
	toolstack_write(domid, "/data", "", &own, 1);
	fire("@introduceDomain", false);
	pthread_mutex_unlock(&xsd.lock);
}

void double_store_remove_domain(unsigned domid)
{
	struct op *op;
	char *path;

	if (asprintf(&path, "/local/domain/%u", domid) < 0)
		double_abort("out of memory");
	op = xsd_new_op(OP_RM, path);
	pthread_mutex_lock(&xsd.lock);
	xsd_perform(op, xsd.root, 0);
	fire("@releaseDomain", false);
	pthread_mutex_unlock(&xsd.lock);
	xsd_free_op(op);
	free(path);
}
