/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * drives: how NVMe drives are had on this host, of which there are two ways.
 *
 * In a PV domain of Xen: registers by sysfs, memory that the domain has granted to itself, and a
 * ledger of both for who comes after a crash.  Anywhere else by VFIO, where the kernel itself stops
 * the drives of a process that has died, and takes back what they could reach.
 */
#ifndef SLUICE_SLUICED_DRIVES_H
#define SLUICE_SLUICED_DRIVES_H

#include <stddef.h>

#include "nvme/drive.h"

struct grant_ledger;
struct xen_backend;

struct drives_xen {
	const char *root;        /* where /sys is; "" but in tests */
	size_t max_pages;        /* of device memory */
	struct xen_backend *xen; /* told from which size on mapping is worth the while; or NULL */
	/* private */
	struct grant_ledger *ledger; /* NULL: no drives can be had, for this reason: */
	struct err why;
};

/*
 * Opens the ledger at @path and ends what a predecessor has left in it: drives are stopped, then
 * what they could reach is released. Where that fails, nothing that needs the ledger can be had
 * from now on, and that is logged. The caller has filled in the public part, but for @d->xen.
 */
void drives_xen_open(struct drives_xen *d, const char *path);
/* No drive is attached any more, and nothing is mapped. Also if it was never opened. */
void drives_xen_close(struct drives_xen *d);
/* The ways to drives, by @d, which must outlive them. */
struct nvme_ways drives_xen_ways(struct drives_xen *d);

struct drives_vfio {
	size_t max_pages; /* of device memory */
};

/* The ways to drives, by @d, which must outlive them. */
struct nvme_ways drives_vfio_ways(struct drives_vfio *d);

#endif
