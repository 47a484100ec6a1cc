/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where items come from: each file is one, or the contents of files or of standard input are cut
 * into lines or blocks, and kept in memory until somebody has done them.
 */
#ifndef SLUICE_MANAGER_SOURCE_H
#define SLUICE_MANAGER_SOURCE_H

#include "manager/item.h"
#include "manager/options.h"

struct source;

/* Returns 0 and *@out, or a failing exit status after saying why. */
int source_create(const struct options *o, struct source **out);
void source_destroy(struct source *s);
/*
 * The next item, which is the caller's. Returns 1 and *@out, 0 (not yet: source_fd() is to be
 * waited for), -ENODATA (there are no more), or -EIO (after saying why there are no more).
 */
int source_next(struct source *s, struct item **out);
/* The descriptor that source_next() reads from. */
int source_fd(const struct source *s);
/* How many files could not be had, which was said. */
unsigned source_failures(const struct source *s);

#endif
