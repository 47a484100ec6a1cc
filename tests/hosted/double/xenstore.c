/* SPDX-License-Identifier: BSD-2-Clause */
/* libxenstore's double: the calls, with their faults and hooks, on xenstored's double (xsd.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xenstore.h>

#include "internal.h"
#include "tree.h"
#include "xsd.h"

static void call_hook(bool write, const char *path)
{
	void (*hook)(void *arg, bool write, const char *path);
	void *arg;

	pthread_mutex_lock(&xsd.lock);
	hook = xsd.hook;
	arg = xsd.hook_arg;
	pthread_mutex_unlock(&xsd.lock);
	if (hook)
		hook(arg, write, path);
}

/*
 * Begins a call: takes the lock, finds path and tree, and lets faults have their way. Returns the
 * absolute path, or NULL with errno and without the lock.
 */
static char *enter(struct xs_handle *xs, xs_transaction_t t, const char *path,
		   enum double_call call, struct transaction **tr, struct node **tree)
{
	char *abs;

	if (xs->tested && double_fails(call, path))
		return NULL;
	abs = xsd_absolute(xs->domid, path, false);
	if (!abs)
		return NULL;
	if (xs->tested)
		call_hook(call != DOUBLE_XS_READ && call != DOUBLE_XS_DIRECTORY, abs);
	pthread_mutex_lock(&xsd.lock);
	xsd.calls++;
	*tr = NULL;
	*tree = xsd.root;
	if (t != XBT_NULL) {
		*tr = xsd_find_transaction(xs, t);
		if (!*tr) {
			pthread_mutex_unlock(&xsd.lock);
			free(abs);
			errno = ENOENT;
			return NULL;
		}
		*tree = (*tr)->root;
		xsd_note_access(*tr, abs);
	}
	return abs;
}

static void leave(char *abs)
{
	int error = errno;

	pthread_mutex_unlock(&xsd.lock);
	free(abs);
	errno = error;
}

/* The node if @xs may do @wanted with it; else NULL with errno. */
static struct node *permitted(struct xs_handle *xs, struct node *tree, const char *path,
			      unsigned wanted)
{
	struct node *last = tree;
	struct node *n = tree_find(tree, path, &last);

	/* Where there is nothing, whoever may not even look learns nothing. */
	if (!n) {
		errno = tree_permissions(last, xs->domid) & wanted ? ENOENT : EACCES;
		return NULL;
	}
	if ((tree_permissions(n, xs->domid) & wanted) != wanted) {
		errno = EACCES;
		return NULL;
	}
	return n;
}

static void change(struct xs_handle *xs, struct transaction *t, struct node *tree, struct op *op)
{
	if (t && op->kind == OP_RM)
		xsd_note_removal(t, tree_find(tree, op->path, NULL));
	xsd_perform(op, tree, xs->domid);
	if (t)
		list_add_tail(&t->ops, &op->node);
	else
		xsd_free_op(op);
}

struct xs_handle *double_xs_open(unsigned domid)
{
	struct xs_handle *xs = tree_must(calloc(1, sizeof(*xs)));

	xs->domid = domid;
	xs->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (xs->fd < 0)
		double_abort("eventfd: %s", strerror(errno));
	list_init(&xs->events);
	list_init(&xs->transactions);
	pthread_mutex_lock(&xsd.lock);
	list_add_tail(&xsd.handles, &xs->node);
	pthread_mutex_unlock(&xsd.lock);
	return xs;
}

struct xs_handle *xs_open(unsigned long flags)
{
	struct xs_handle *xs;

	if (double_fails(DOUBLE_XS_OPEN, NULL))
		return NULL;
	xs = double_xs_open(0);
	xs->tested = true;
	return xs;
}

void double_on_store(void (*fn)(void *arg, bool write, const char *path), void *arg)
{
	pthread_mutex_lock(&xsd.lock);
	xsd.hook = fn;
	xsd.hook_arg = arg;
	pthread_mutex_unlock(&xsd.lock);
}

static void free_watch(struct watch *w)
{
	list_del(&w->node);
	free(w->path);
	free(w->token);
	free(w);
}

static void free_event(struct event *ev)
{
	free(ev->path);
	free(ev->token);
	free(ev);
}

void xs_close(struct xs_handle *xs)
{
	struct list *pos, *next;

	if (!xs)
		return;
	pthread_mutex_lock(&xsd.lock);
	list_for_each_safe (pos, next, &xsd.watches)
		if (list_entry(pos, struct watch, node)->xs == xs)
			free_watch(list_entry(pos, struct watch, node));
	while ((pos = list_pop(&xs->events)))
		free_event(list_entry(pos, struct event, node));
	while (!list_empty(&xs->transactions))
		xsd_end_transaction(list_entry(xs->transactions.next, struct transaction, node));
	list_del(&xs->node);
	pthread_mutex_unlock(&xsd.lock);
	close(xs->fd);
	free(xs);
}

char **xs_directory(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned int *num)
{
	struct transaction *tr;
	struct node *tree, *n;
	char **names = NULL;
	char *abs = enter(xs, t, path, DOUBLE_XS_DIRECTORY, &tr, &tree);

	if (!abs)
		return NULL;
	n = permitted(xs, tree, abs, XS_PERM_READ);
	if (n) {
		/* One block, for one free(): pointers, then strings. */
		size_t bytes = 1 + n->nr_children * sizeof(names[0]);
		char *at;

		for (unsigned i = 0; i < n->nr_children; i++)
			bytes += strlen(n->children[i]->name) + 1;
		names = tree_must(malloc(bytes));
		at = (char *)&names[n->nr_children];
		for (unsigned i = 0; i < n->nr_children; i++) {
			names[i] = at;
			at = stpcpy(at, n->children[i]->name) + 1;
		}
		*num = n->nr_children;
	}
	leave(abs);
	return names;
}

void *xs_read(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned int *len)
{
	struct transaction *tr;
	struct node *tree, *n;
	void *value = NULL;
	char *abs = enter(xs, t, path, DOUBLE_XS_READ, &tr, &tree);

	if (!abs)
		return NULL;
	n = permitted(xs, tree, abs, XS_PERM_READ);
	if (n) {
		value = tree_copy_bytes(n->value, n->len);
		if (len)
			*len = n->len;
	}
	leave(abs);
	return value;
}

bool xs_write(struct xs_handle *xs, xs_transaction_t t, const char *path, const void *data,
	      unsigned int len)
{
	struct transaction *tr;
	struct node *tree;
	bool done = false;
	char *abs;

	if (len + strlen(path) + 1 > XENSTORE_PAYLOAD_MAX) {
		errno = E2BIG;
		return false;
	}
	abs = enter(xs, t, path, DOUBLE_XS_WRITE, &tr, &tree);
	if (!abs)
		return false;
	if (permitted(xs, tree, abs, XS_PERM_WRITE) || errno == ENOENT) {
		struct op *op = xsd_new_op(OP_WRITE, abs);

		op->value = tree_copy_bytes(data, len);
		op->len = len;
		change(xs, tr, tree, op);
		done = true;
	}
	leave(abs);
	return done;
}

bool xs_mkdir(struct xs_handle *xs, xs_transaction_t t, const char *path)
{
	struct transaction *tr;
	struct node *tree;
	bool done = false;
	char *abs = enter(xs, t, path, DOUBLE_XS_MKDIR, &tr, &tree);

	if (!abs)
		return false;
	if (permitted(xs, tree, abs, XS_PERM_WRITE) || errno == ENOENT) {
		change(xs, tr, tree, xsd_new_op(OP_MKDIR, abs));
		done = true;
	}
	leave(abs);
	return done;
}

bool xs_rm(struct xs_handle *xs, xs_transaction_t t, const char *path)
{
	struct transaction *tr;
	struct node *tree;
	bool done = false;
	char *abs = enter(xs, t, path, DOUBLE_XS_RM, &tr, &tree);

	if (!abs)
		return false;
	if (!strcmp(abs, "/")) {
		errno = EINVAL;
	} else if (permitted(xs, tree, abs, XS_PERM_WRITE)) {
		change(xs, tr, tree, xsd_new_op(OP_RM, abs));
		done = true;
	} else if (errno == ENOENT) {
		/* No need to remove what is not there, as long as its parent is. */
		char *last = strrchr(abs, '/');

		*last = '\0';
		done = tree_find(tree, abs, NULL);
	}
	leave(abs);
	return done;
}

struct xs_permissions *xs_get_permissions(struct xs_handle *xs, xs_transaction_t t,
					  const char *path, unsigned int *num)
{
	struct transaction *tr;
	struct node *tree, *n;
	struct xs_permissions *perms = NULL;
	char *abs = enter(xs, t, path, DOUBLE_XS_READ, &tr, &tree);

	if (!abs)
		return NULL;
	n = permitted(xs, tree, abs, XS_PERM_READ);
	if (n) {
		perms = tree_copy_bytes(n->perms, n->nr_perms * sizeof(perms[0]));
		*num = n->nr_perms;
	}
	leave(abs);
	return perms;
}

bool xs_set_permissions(struct xs_handle *xs, xs_transaction_t t, const char *path,
			struct xs_permissions *perms, unsigned int num_perms)
{
	struct transaction *tr;
	struct node *tree;
	bool done = false;
	char *abs = enter(xs, t, path, DOUBLE_XS_WRITE, &tr, &tree);

	if (!abs)
		return false;
	if (!num_perms || (xs->domid && perms[0].id != xs->domid)) {
		errno = num_perms ? EPERM : EINVAL;
	} else if (permitted(xs, tree, abs, XS_PERM_OWNER)) {
		struct op *op = xsd_new_op(OP_PERMS, abs);

		op->perms = tree_copy_bytes(perms, num_perms * sizeof(perms[0]));
		op->nr_perms = num_perms;
		change(xs, tr, tree, op);
		done = true;
	}
	leave(abs);
	return done;
}

bool xs_watch(struct xs_handle *xs, const char *path, const char *token)
{
	struct watch *w;
	struct list *pos;
	char *abs;

	if (xs->tested && double_fails(DOUBLE_XS_WATCH, path))
		return false;
	abs = xsd_absolute(xs->domid, path, true);
	if (!abs)
		return false;
	pthread_mutex_lock(&xsd.lock);
	xsd.calls++;
	list_for_each (pos, &xsd.watches) {
		w = list_entry(pos, struct watch, node);
		if (w->xs == xs && !strcmp(w->path, abs) && !strcmp(w->token, token)) {
			errno = EEXIST;
			leave(abs);
			return false;
		}
	}
	w = tree_must(calloc(1, sizeof(*w)));
	w->xs = xs;
	w->path = abs;
	w->relative = path[0] != '/' && !xsd_is_special(path);
	w->token = tree_copy_bytes(token, strlen(token));
	list_add_tail(&xsd.watches, &w->node);
	/* Whoever watches looks at once: what was there before is news, too. */
	xsd_queue_event(w, w->path);
	pthread_mutex_unlock(&xsd.lock);
	return true;
}

bool xs_unwatch(struct xs_handle *xs, const char *path, const char *token)
{
	char *abs = xsd_absolute(xs->domid, path, true);
	struct list *pos, *next;
	bool found = false;

	if (!abs)
		return false;
	pthread_mutex_lock(&xsd.lock);
	xsd.calls++;
	list_for_each_safe (pos, next, &xsd.watches) {
		struct watch *w = list_entry(pos, struct watch, node);

		/* Its events that are queued stay: so does the library unless asked otherwise. */
		if (w->xs == xs && !strcmp(w->path, abs) && !strcmp(w->token, token)) {
			free_watch(w);
			found = true;
		}
	}
	if (!found)
		errno = ENOENT;
	leave(abs);
	return found;
}

int xs_fileno(struct xs_handle *xs)
{
	return xs->fd;
}

/* The oldest event, or NULL. Called with the lock. */
static char **take_event(struct xs_handle *xs)
{
	struct list *node = list_pop(&xs->events);
	struct event *ev;
	uint64_t ignored;
	char **vec;
	char *at;

	if (list_empty(&xs->events) && read(xs->fd, &ignored, sizeof(ignored)) < 0 &&
	    errno != EAGAIN)
		double_abort("eventfd: %s", strerror(errno));
	if (!node) {
		errno = EAGAIN;
		return NULL;
	}
	ev = list_entry(node, struct event, node);
	vec = tree_must(malloc(2 * sizeof(vec[0]) + strlen(ev->path) + strlen(ev->token) + 2));
	at = (char *)&vec[2];
	vec[XS_WATCH_PATH] = at;
	at = stpcpy(at, ev->path) + 1;
	vec[XS_WATCH_TOKEN] = at;
	strcpy(at, ev->token);
	free_event(ev);
	return vec;
}

char **xs_check_watch(struct xs_handle *xs)
{
	char **vec;

	pthread_mutex_lock(&xsd.lock);
	vec = take_event(xs);
	pthread_mutex_unlock(&xsd.lock);
	return vec;
}

char **xs_read_watch(struct xs_handle *xs, unsigned int *num)
{
	char **vec;

	pthread_mutex_lock(&xsd.lock);
	while (list_empty(&xs->events))
		pthread_cond_wait(&xsd.event_came, &xsd.lock);
	vec = take_event(xs);
	pthread_mutex_unlock(&xsd.lock);
	if (num)
		*num = 2;
	return vec;
}

xs_transaction_t xs_transaction_start(struct xs_handle *xs)
{
	struct transaction *t;
	xs_transaction_t id;

	if (xs->tested && double_fails(DOUBLE_XS_TRANSACTION_START, NULL))
		return XBT_NULL;
	t = tree_must(calloc(1, sizeof(*t)));
	list_init(&t->ops);
	list_init(&t->accesses);
	pthread_mutex_lock(&xsd.lock);
	xsd.calls++;
	t->root = tree_copy(xsd.root, NULL);
	id = ++xsd.last_transaction;
	t->id = id;
	list_add_tail(&xs->transactions, &t->node);
	pthread_mutex_unlock(&xsd.lock);
	return id;
}

bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t id, bool abandon)
{
	bool interfere = !abandon && xs->tested && double_fails(DOUBLE_XS_TRANSACTION_END, NULL);
	int injected = errno;
	struct transaction *t;
	bool done = false;
	struct list *pos;

	pthread_mutex_lock(&xsd.lock);
	xsd.calls++;
	t = xsd_find_transaction(xs, id);
	if (!t) {
		errno = ENOENT;
		leave(NULL);
		return false;
	}
	if (abandon) {
		done = true;
	} else if (interfere) {
		xsd.conflicts++;
		errno = injected;
	} else if (!xsd_is_current(t)) {
		xsd.conflicts++;
		errno = EAGAIN;
	} else {
		list_for_each (pos, &t->ops)
			xsd_perform(list_entry(pos, struct op, node), xsd.root, xs->domid);
		done = true;
	}
	injected = errno;
	xsd_end_transaction(t);
	errno = injected;
	leave(NULL);
	return done;
}

char *xs_get_domain_path(struct xs_handle *xs, unsigned int domid)
{
	char *path;

	/* It need not exist to have one. */
	if (asprintf(&path, "/local/domain/%u", domid) < 0)
		return NULL;
	return path;
}

bool xs_is_domain_introduced(struct xs_handle *xs, unsigned int domid)
{
	return double_find_domain(domid);
}

bool xs_path_is_subpath(const char *parent, const char *child)
{
	return xsd_is_below(child, parent);
}

unsigned double_store_leaks(void)
{
	unsigned leaks = 0;
	struct list *pos, *t;

	pthread_mutex_lock(&xsd.lock);
	list_for_each (pos, &xsd.handles) {
		struct xs_handle *xs = list_entry(pos, struct xs_handle, node);

		leaks += double_leak("an open xenstore handle of domain %u", xs->domid);
		list_for_each (t, &xs->transactions)
			leaks += double_leak("an open transaction");
	}
	list_for_each (pos, &xsd.watches)
		leaks += double_leak("a watch on %s", list_entry(pos, struct watch, node)->path);
	pthread_mutex_unlock(&xsd.lock);
	return leaks;
}

void double_store_add_stats(struct double_stats *stats)
{
	pthread_mutex_lock(&xsd.lock);
	stats->xs_calls = xsd.calls;
	stats->xs_conflicts = xsd.conflicts;
	pthread_mutex_unlock(&xsd.lock);
}
