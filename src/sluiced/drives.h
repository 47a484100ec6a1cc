/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * drives: how NVMe drives are had in a PV dom0: registers by sysfs, memory that the domain has
 * granted to itself, and a ledger of both for who comes after a crash.
 */
#ifndef SLUICE_SLUICED_DRIVES_H
#define SLUICE_SLUICED_DRIVES_H

#include <stddef.h>

#include "nvme/drive.h"

struct grant_ledger;
struct xen_backend;

struct drives {
	const char *root;        /* where /sys is; "" but in tests */
	size_t max_pages;        /* of device memory */
	struct xen_backend *xen; /* told from which size on mapping is worth the while */
	/* private */
	struct grant_ledger *ledger; /* NULL: no drives can be had, for this reason: */
	struct err why;
};

/*
 * Opens the ledger at @path and ends what a predecessor has left in it: drives are stopped, then
 * what they could reach is released. Where that fails, nothing that needs the ledger can be had
 * from now on, and that is logged. The caller has filled in the public part, but for @d->xen.
 */
void drives_open(struct drives *d, const char *path);
/* No drive is attached any more, and nothing is mapped. */
void drives_close(struct drives *d);
/* The ways to drives, by @d, which must outlive them. */
struct nvme_ways drives_ways(struct drives *d);

#endif
