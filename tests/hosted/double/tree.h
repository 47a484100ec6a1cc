/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tree: xenstore's nodes, for the double of xenstored, which keeps the lock that all of this is
 * under.  Whoever cannot have memory aborts.
 */
#ifndef SLUICE_TEST_DOUBLE_TREE_H
#define SLUICE_TEST_DOUBLE_TREE_H

#include <stddef.h>
#include <stdint.h>
#include <xenstore.h>

/* Names, values and permissions are never changed, only replaced; copies of a tree share them. */
struct node {
	char *name; /* last part of its path; "" for the root */
	struct node *parent;
	unsigned char *value;
	unsigned len;
	struct xs_permissions *perms;
	unsigned nr_perms;
	uint64_t generation; /* of its last change; a new child is a change, too */
	uint64_t before;     /* in a transaction's copy: that of the real node; 0: there is none */
	struct node **children;
	unsigned nr_children;
};

/* @allocated, unless it is NULL. */
void *tree_must(void *allocated);
/* A copy with a NUL behind it, to be freed. */
void *tree_copy_bytes(const void *from, size_t len);

struct node *tree_new_node(struct node *parent, const char *name, size_t name_len);
/* Frees the node and all below it, which nobody refers to. */
void tree_free(struct node *n);
struct node *tree_copy(const struct node *from, struct node *parent);
/* The node at @path, or NULL; *@last is the deepest one on the way that exists. */
struct node *tree_find(struct node *from, const char *path, struct node **last);
/* What domain @domid may do: XS_PERM_READ and so on. */
unsigned tree_permissions(const struct node *n, unsigned domid);
void tree_set_value(struct node *n, const void *value, unsigned len);
void tree_set_perms(struct node *n, const struct xs_permissions *perms, unsigned nr);
/* Makes the node at @path and what is missing above it, as domain @domid's. */
struct node *tree_make(struct node *from, const char *path, unsigned domid);
/* Takes the node out of its tree, and frees it. */
void tree_remove(struct node *n);
/* Counts changes from the beginning again. */
void tree_forget_generations(void);

#endif
