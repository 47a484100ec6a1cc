/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libxenstore's double, and xenstored's.
 *
 * A transaction works on its own copy of the tree and keeps a list of what it did and of what it
 * looked at.  At its end, each node that it looked at must still be what it was; then what it did
 * is done to the real tree, and only then do watches fire.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xenstore.h>

#include "internal.h"
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

struct record {
	struct list node;
	char *path;
	char *values;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static pthread_cond_t event_came = PTHREAD_COND_INITIALIZER;
static struct node *root;
static xs_transaction_t last_transaction;
static struct list handles = LIST_INIT(handles);
static struct list watches = LIST_INIT(watches);
static struct list records = LIST_INIT(records);
static uint64_t calls;
static uint64_t conflicts;
static void (*store_hook)(void *arg, bool write, const char *path);
static void *store_hook_arg;

/* Paths */

static bool is_special(const char *path)
{
	return path[0] == '@';
}

/* The absolute path that @path means to @domid, or NULL with errno if it is none. */
static char *absolute(unsigned domid, const char *path, bool special_too)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-/_@";
	size_t len = strlen(path);
	char *abs;

	if (special_too && is_special(path))
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

static bool is_below(const char *path, const char *above)
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

static void queue_event(struct watch *w, const char *path)
{
	struct event *ev = tree_must(calloc(1, sizeof(*ev)));
	uint64_t one = 1;

	if (w->relative && !is_special(path)) {
		/* "/local/domain/N/" */
		for (unsigned slashes = 0; slashes < 4; path++)
			slashes += *path == '/';
	}
	ev->path = tree_copy_bytes(path, strlen(path));
	ev->token = tree_copy_bytes(w->token, strlen(w->token));
	list_add_tail(&w->xs->events, &ev->node);
	if (write(w->xs->fd, &one, sizeof(one)) < 0)
		double_abort("eventfd: %s", strerror(errno));
	pthread_cond_broadcast(&event_came);
}

/* @exact: a node below one that is being removed; its removal is news only to who watches itself.
 */
static void fire(const char *path, bool exact)
{
	struct node *last = root;
	struct list *pos;

	if (!is_special(path))
		tree_find(root, path, &last);
	list_for_each (pos, &watches) {
		struct watch *w = list_entry(pos, struct watch, node);

		if (exact ? strcmp(path, w->path) : !is_below(path, w->path))
			continue;
		if (!is_special(path) && !(tree_permissions(last, w->xs->domid) & XS_PERM_READ))
			continue;
		queue_event(w, path);
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

char *double_xs_history(const char *path)
{
	char *values = NULL;
	struct list *pos;

	pthread_mutex_lock(&lock);
	list_for_each (pos, &records)
		if (!strcmp(list_entry(pos, struct record, node)->path, path))
			values = tree_copy_bytes(
				list_entry(pos, struct record, node)->values,
				strlen(list_entry(pos, struct record, node)->values));
	pthread_mutex_unlock(&lock);
	return values ? values : tree_copy_bytes("", 0);
}

/* Operations: on a transaction's tree, or on the real one with all that follows from it. */

static void perform(const struct op *op, struct node *tree, unsigned domid)
{
	bool real = tree == root;
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

static void free_op(struct op *op)
{
	free(op->path);
	free(op->value);
	free(op->perms);
	free(op);
}

static struct transaction *find_transaction(struct xs_handle *xs, xs_transaction_t t)
{
	struct list *pos;

	list_for_each (pos, &xs->transactions) {
		struct transaction *tr = list_entry(pos, struct transaction, node);

		if (tr->id == t)
			return tr;
	}
	return NULL;
}

static void end_transaction(struct transaction *t)
{
	struct list *node;

	while ((node = list_pop(&t->ops)))
		free_op(list_entry(node, struct op, node));
	while ((node = list_pop(&t->accesses))) {
		struct access *a = list_entry(node, struct access, node);

		free(a->path);
		free(a);
	}
	list_del(&t->node);
	tree_free(t->root);
	free(t);
}

/* Remembers that the transaction depends on @path, and if that is not there on the nodes above. */
static void note_access(struct transaction *t, const char *path)
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
		note_access(t, *above ? above : "/");
		free(above);
	}
}

/* What the transaction removes it depends on, all of it: it cannot be looked up later. */
static void note_removal(struct transaction *t, const struct node *n)
{
	char *path = path_of(n);

	note_access(t, path);
	free(path);
	for (unsigned i = 0; i < n->nr_children; i++)
		note_removal(t, n->children[i]);
}

static bool is_current(struct transaction *t)
{
	struct list *pos;

	list_for_each (pos, &t->accesses) {
		struct access *a = list_entry(pos, struct access, node);
		struct node *n = tree_find(root, a->path, NULL);

		if ((n ? n->generation : 0) != a->generation)
			return false;
	}
	return true;
}

static void call_hook(bool write, const char *path)
{
	void (*hook)(void *arg, bool write, const char *path);
	void *arg;

	pthread_mutex_lock(&lock);
	hook = store_hook;
	arg = store_hook_arg;
	pthread_mutex_unlock(&lock);
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
	abs = absolute(xs->domid, path, false);
	if (!abs)
		return NULL;
	if (xs->tested)
		call_hook(call != DOUBLE_XS_READ && call != DOUBLE_XS_DIRECTORY, abs);
	pthread_mutex_lock(&lock);
	calls++;
	*tr = NULL;
	*tree = root;
	if (t != XBT_NULL) {
		*tr = find_transaction(xs, t);
		if (!*tr) {
			pthread_mutex_unlock(&lock);
			free(abs);
			errno = ENOENT;
			return NULL;
		}
		*tree = (*tr)->root;
		note_access(*tr, abs);
	}
	return abs;
}

static void leave(char *abs)
{
	int error = errno;

	pthread_mutex_unlock(&lock);
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
		note_removal(t, tree_find(tree, op->path, NULL));
	perform(op, tree, xs->domid);
	if (t)
		list_add_tail(&t->ops, &op->node);
	else
		free_op(op);
}

static struct op *new_op(enum op_kind kind, const char *path)
{
	struct op *op = tree_must(calloc(1, sizeof(*op)));

	op->kind = kind;
	op->path = tree_copy_bytes(path, strlen(path));
	return op;
}

/* The library */

struct xs_handle *double_xs_open(unsigned domid)
{
	struct xs_handle *xs = tree_must(calloc(1, sizeof(*xs)));

	xs->domid = domid;
	xs->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (xs->fd < 0)
		double_abort("eventfd: %s", strerror(errno));
	list_init(&xs->events);
	list_init(&xs->transactions);
	pthread_mutex_lock(&lock);
	list_add_tail(&handles, &xs->node);
	pthread_mutex_unlock(&lock);
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
	pthread_mutex_lock(&lock);
	store_hook = fn;
	store_hook_arg = arg;
	pthread_mutex_unlock(&lock);
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
	pthread_mutex_lock(&lock);
	list_for_each_safe (pos, next, &watches)
		if (list_entry(pos, struct watch, node)->xs == xs)
			free_watch(list_entry(pos, struct watch, node));
	while ((pos = list_pop(&xs->events)))
		free_event(list_entry(pos, struct event, node));
	while (!list_empty(&xs->transactions))
		end_transaction(list_entry(xs->transactions.next, struct transaction, node));
	list_del(&xs->node);
	pthread_mutex_unlock(&lock);
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
		struct op *op = new_op(OP_WRITE, abs);

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
		change(xs, tr, tree, new_op(OP_MKDIR, abs));
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
		change(xs, tr, tree, new_op(OP_RM, abs));
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
		struct op *op = new_op(OP_PERMS, abs);

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
	abs = absolute(xs->domid, path, true);
	if (!abs)
		return false;
	pthread_mutex_lock(&lock);
	calls++;
	list_for_each (pos, &watches) {
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
	w->relative = path[0] != '/' && !is_special(path);
	w->token = tree_copy_bytes(token, strlen(token));
	list_add_tail(&watches, &w->node);
	/* Whoever watches looks at once: what was there before is news, too. */
	queue_event(w, w->path);
	pthread_mutex_unlock(&lock);
	return true;
}

bool xs_unwatch(struct xs_handle *xs, const char *path, const char *token)
{
	char *abs = absolute(xs->domid, path, true);
	struct list *pos, *next;
	bool found = false;

	if (!abs)
		return false;
	pthread_mutex_lock(&lock);
	calls++;
	list_for_each_safe (pos, next, &watches) {
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

	pthread_mutex_lock(&lock);
	vec = take_event(xs);
	pthread_mutex_unlock(&lock);
	return vec;
}

char **xs_read_watch(struct xs_handle *xs, unsigned int *num)
{
	char **vec;

	pthread_mutex_lock(&lock);
	while (list_empty(&xs->events))
		pthread_cond_wait(&event_came, &lock);
	vec = take_event(xs);
	pthread_mutex_unlock(&lock);
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
	pthread_mutex_lock(&lock);
	calls++;
	t->root = tree_copy(root, NULL);
	id = ++last_transaction;
	t->id = id;
	list_add_tail(&xs->transactions, &t->node);
	pthread_mutex_unlock(&lock);
	return id;
}

bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t id, bool abandon)
{
	bool interfere = !abandon && xs->tested && double_fails(DOUBLE_XS_TRANSACTION_END, NULL);
	int injected = errno;
	struct transaction *t;
	bool done = false;
	struct list *pos;

	pthread_mutex_lock(&lock);
	calls++;
	t = find_transaction(xs, id);
	if (!t) {
		errno = ENOENT;
		leave(NULL);
		return false;
	}
	if (abandon) {
		done = true;
	} else if (interfere) {
		conflicts++;
		errno = injected;
	} else if (!is_current(t)) {
		conflicts++;
		errno = EAGAIN;
	} else {
		list_for_each (pos, &t->ops)
			perform(list_entry(pos, struct op, node), root, xs->domid);
		done = true;
	}
	injected = errno;
	end_transaction(t);
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
	return is_below(child, parent);
}

/* The world's side */

void double_store_init(void)
{
	static const struct xs_permissions nobody_else = {.id = 0, .perms = XS_PERM_NONE};

	/* What a failed test has left behind is not the next one's trouble. */
	list_init(&handles);
	list_init(&watches);
	store_hook = NULL;
	tree_forget_generations();
	calls = 0;
	conflicts = 0;
	root = tree_new_node(NULL, "", 0);
	tree_set_value(root, "", 0);
	tree_set_perms(root, &nobody_else, 1);
}

void double_store_fini(void)
{
	struct list *node;

	while ((node = list_pop(&records))) {
		struct record *r = list_entry(node, struct record, node);

		free(r->path);
		free(r->values);
		free(r);
	}
	tree_free(root);
	root = NULL;
}

static void toolstack_write(unsigned domid, const char *key, const char *value,
			    struct xs_permissions *perms, unsigned nr_perms)
{
	struct op *op;
	char *path;

	if (asprintf(&path, "/local/domain/%u%s", domid, key) < 0)
		double_abort("out of memory");
	op = new_op(OP_WRITE, path);
	op->value = tree_copy_bytes(value, strlen(value));
	op->len = (unsigned)strlen(value);
	perform(op, root, 0);
	free_op(op);
	op = new_op(OP_PERMS, path);
	op->perms = tree_copy_bytes(perms, nr_perms * sizeof(perms[0]));
	op->nr_perms = nr_perms;
	perform(op, root, 0);
	free_op(op);
	free(path);
}

void double_store_add_domain(unsigned domid, const char *name)
{
	struct xs_permissions readable[2] = {{.id = 0, .perms = XS_PERM_NONE},
					     {.id = domid, .perms = XS_PERM_READ}};
	struct xs_permissions own = {.id = domid, .perms = XS_PERM_NONE};
	char number[16];

	snprintf(number, sizeof(number), "%u", domid);
	pthread_mutex_lock(&lock);
	toolstack_write(domid, "", "", readable, 2);
	toolstack_write(domid, "/name", name, readable, 2);
	toolstack_write(domid, "/domid", number, readable, 2);
	toolstack_write(domid, "/device", "", readable, 2);
	toolstack_write(domid, "/data", "", &own, 1);
	fire("@introduceDomain", false);
	pthread_mutex_unlock(&lock);
}

void double_store_remove_domain(unsigned domid)
{
	struct op *op;
	char *path;

	if (asprintf(&path, "/local/domain/%u", domid) < 0)
		double_abort("out of memory");
	op = new_op(OP_RM, path);
	pthread_mutex_lock(&lock);
	perform(op, root, 0);
	fire("@releaseDomain", false);
	pthread_mutex_unlock(&lock);
	free_op(op);
	free(path);
}

unsigned double_store_leaks(void)
{
	unsigned leaks = 0;
	struct list *pos, *t;

	pthread_mutex_lock(&lock);
	list_for_each (pos, &handles) {
		struct xs_handle *xs = list_entry(pos, struct xs_handle, node);

		leaks += double_leak("an open xenstore handle of domain %u", xs->domid);
		list_for_each (t, &xs->transactions)
			leaks += double_leak("an open transaction");
	}
	list_for_each (pos, &watches)
		leaks += double_leak("a watch on %s", list_entry(pos, struct watch, node)->path);
	pthread_mutex_unlock(&lock);
	return leaks;
}

void double_store_add_stats(struct double_stats *stats)
{
	pthread_mutex_lock(&lock);
	stats->xs_calls = calls;
	stats->xs_conflicts = conflicts;
	pthread_mutex_unlock(&lock);
}
