/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xl as a tool of ours: a disk that xl has not attached is lost on save, migrate and block-list, so
 * where xl manages a guest it must be asked.
 */
#ifndef SLUICE_SLUICE_XL_H
#define SLUICE_SLUICE_XL_H

#include <stdbool.h>

#include "sluice/client.h"

/*
 * Whether @vdev has the form of a disk's name in a guest ("xvda", "hdb1", "sdc") or of a device
 * number; whether there is such a disk is the daemon's to say.
 */
bool xl_vdev_valid(const char *vdev);

/* xl's description of a disk of ours, for the caller to free. All strings have been checked. */
char *xl_disk_spec(const char *vdev, bool readonly, const char *target);

/* The path of xl, found by PATH, for the caller to free; NULL if there is none. */
char *xl_find(void);

/*
 * Runs @xl with @args (NULL-terminated, without the program's name) and waits. What it says is
 * shown, on stderr, only if it fails. Returns 0, or exit status 1 after one line of ours.
 */
int xl_run(struct client *c, const char *xl, const char *const *args);

#endif
