/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One daemon a name: whoever holds the lock is the instance.
 *
 * The kernel drops the lock with the process, however it dies, so there is no stale lock to judge.
 * The file itself stays: removing it would let two successors lock two different files.
 */
#ifndef SLUICE_CTL_INSTANCE_H
#define SLUICE_CTL_INSTANCE_H

#include "base/err.h"

/*
 * Locks the file @path (made with mode 0600 if need be, its directory too) for instance @name.
 * Returns 0 and *@fd, to be closed at the end; or a negative errno with the line in @err, -EEXIST
 * if another daemon holds it.
 */
int instance_lock(const char *path, const char *name, int *fd, struct err *err);

#endif
