/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's own directories (/run/sluice, /var/lib/sluice) come into being at first use. */
#ifndef SLUICE_CTL_DIRS_H
#define SLUICE_CTL_DIRS_H

#include <sys/types.h>

#include "base/err.h"

/*
 * Makes the directory that holds the file @path, with @mode, unless it exists; never more than
 * that one level, so that a mistyped path does not grow a tree. Returns 0 or a negative errno.
 */
int dirs_make_parent(const char *path, mode_t mode, struct err *err);

#endif
