/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree.h"

#include <stdlib.h>
#include <string.h>

#include "internal.h"

static uint64_t generation;

void *tree_must(void *allocated)
{
	if (!allocated)
		double_abort("out of memory");
	return allocated;
}

void *tree_copy_bytes(const void *from, size_t len)
{
	char *to = tree_must(malloc(len + 1));

	if (len)
		memcpy(to, from, len);
	to[len] = '\0';
	return to;
}

/* Bytes that several nodes share; all under the lock. */
struct shared {
	size_t users;
	char bytes[];
};

static void *share_new(const void *from, size_t len)
{
	struct shared *s = tree_must(malloc(sizeof(*s) + len + 1));

	s->users = 1;
	if (len)
		memcpy(s->bytes, from, len);
	s->bytes[len] = '\0';
	return s->bytes;
}

static void *share(void *bytes)
{
	container_of(bytes, struct shared, bytes)->users++;
	return bytes;
}

static void share_drop(void *bytes)
{
	struct shared *s = bytes ? container_of(bytes, struct shared, bytes) : NULL;

	if (s && !--s->users)
		free(s);
}

/* Nodes */

struct node *tree_new_node(struct node *parent, const char *name, size_t name_len)
{
	struct node *n = tree_must(calloc(1, sizeof(*n)));

	n->name = share_new(name, name_len);
	n->parent = parent;
	if (parent) {
		parent->children = tree_must(realloc(
			parent->children, (parent->nr_children + 1) * sizeof(parent->children[0])));
		parent->children[parent->nr_children++] = n;
	}
	return n;
}

void tree_free(struct node *n)
{
	for (unsigned i = 0; i < n->nr_children; i++)
		tree_free(n->children[i]);
	free(n->children);
	share_drop(n->name);
	share_drop(n->value);
	share_drop(n->perms);
	free(n);
}

struct node *tree_copy(const struct node *from, struct node *parent)
{
	struct node *n = tree_must(malloc(sizeof(*n)));

	*n = *from;
	n->parent = parent;
	share(n->name);
	share(n->value);
	share(n->perms);
	n->before = from->generation;
	n->children = NULL;
	if (from->nr_children)
		n->children = tree_must(malloc(from->nr_children * sizeof(n->children[0])));
	for (unsigned i = 0; i < from->nr_children; i++)
		n->children[i] = tree_copy(from->children[i], n);
	return n;
}

static struct node *find_child(const struct node *n, const char *name, size_t len)
{
	for (unsigned i = 0; i < n->nr_children; i++)
		if (strlen(n->children[i]->name) == len && !memcmp(n->children[i]->name, name, len))
			return n->children[i];
	return NULL;
}

struct node *tree_find(struct node *from, const char *path, struct node **last)
{
	struct node *n = from;

	while (n && path[0] == '/' && path[1]) {
		size_t len = strcspn(path + 1, "/");

		if (last)
			*last = n;
		n = find_child(n, path + 1, len);
		path += 1 + len;
	}
	if (n && last)
		*last = n;
	return n;
}

unsigned tree_permissions(const struct node *n, unsigned domid)
{
	if (domid == 0 || n->perms[0].id == domid)
		return XS_PERM_READ | XS_PERM_WRITE | XS_PERM_OWNER;
	for (unsigned i = 1; i < n->nr_perms; i++)
		if (n->perms[i].id == domid)
			return n->perms[i].perms;
	return n->perms[0].perms;
}

void tree_set_value(struct node *n, const void *value, unsigned len)
{
	share_drop(n->value);
	n->value = share_new(value, len);
	n->len = len;
	n->generation = ++generation;
}

void tree_set_perms(struct node *n, const struct xs_permissions *perms, unsigned nr)
{
	struct xs_permissions *copy = share_new(perms, nr * sizeof(perms[0]));

	share_drop(n->perms);
	n->perms = copy;
	n->nr_perms = nr;
	n->generation = ++generation;
}

struct node *tree_make(struct node *from, const char *path, unsigned domid)
{
	struct node *n = from;

	while (path[0] == '/' && path[1]) {
		size_t len = strcspn(path + 1, "/");
		struct node *child = find_child(n, path + 1, len);

		if (!child) {
			child = tree_new_node(n, path + 1, len);
			n->generation = ++generation;
			tree_set_value(child, "", 0);
			tree_set_perms(child, n->perms, n->nr_perms);
			if (domid)
				child->perms[0].id = domid;
		}
		n = child;
		path += 1 + len;
	}
	return n;
}

void tree_remove(struct node *n)
{
	struct node *parent = n->parent;
	unsigned i = 0;

	while (parent->children[i] != n)
		i++;
	memmove(&parent->children[i], &parent->children[i + 1],
		(parent->nr_children - i - 1) * sizeof(parent->children[0]));
	parent->nr_children--;
	parent->generation = ++generation;
	tree_free(n);
}

void tree_forget_generations(void)
{
	generation = 0;
}
