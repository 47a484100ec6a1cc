/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * claim: taking NVMe drives from the kernel, and giving them back.
 *
 * A drive that user space is to drive must have no driver of the kernel's, now and after the next
 * rescan of the bus.  sysfs has a field for that, driver_override: the name of the one driver that
 * the device may be bound to.  In a PV dom0 it becomes one that does not exist, elsewhere that of
 * vfio-pci, which is then bound.  The field is also how a claimed drive is told from one that has
 * no driver for another reason.
 *
 * A drive whose blocks somebody uses must not be taken, so whatever can use a block device is
 * looked for first: mounts, swap, stacked devices, the kernel's block backend, processes that have
 * it open, and at last whoever has it open for himself.
 *
 * All of it is files below /sys, /proc, /dev and /run, all below @root: "" but in tests.
 */
#ifndef SLUICE_NVME_CLAIM_H
#define SLUICE_NVME_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "nvme/pci.h"

struct claim_drive {
	struct nvme_pci_address address;
	char driver[32];   /* empty: none */
	char override[32]; /* the only one it may have; empty: any */
	bool claimed;      /* it has no driver, or vfio-pci, because we said so */
	/* What the kernel's driver tells of it, empty without. Printable. */
	char name[32]; /* "nvme0" */
	char model[64];
	char serial[64];
	char firmware[32];
};

/* Calls @each for all NVMe controllers, by address. Returns 0 or a negative errno. */
int claim_list(const char *root, void (*each)(const struct claim_drive *d, void *arg), void *arg,
	       struct err *err);
/* One of them. -ENODEV: there is none at @address. */
int claim_look(const char *root, const char *address, struct claim_drive *d, struct err *err);
/* Calls @each for the namespaces of @d that the kernel has as block devices. */
void claim_namespaces(const char *root, const struct claim_drive *d,
		      void (*each)(const char *name, uint64_t bytes, void *arg), void *arg);
/*
 * Calls @each for each use of a block device on @d: "nvme0n1p1", "is mounted on /srv". Returns how
 * many there are.
 */
unsigned claim_uses(const char *root, const struct claim_drive *d,
		    void (*each)(const char *device, const char *how, void *arg), void *arg);

/*
 * Takes the drive from the kernel: to no driver, or to vfio-pci if @vfio. Nothing happens to one
 * that is claimed already. @force: also if its blocks are in use. Returns 0; or a negative errno
 * with the line in @err, and the drive is as it was.
 */
int claim_take(const char *root, const char *address, bool vfio, bool force, struct err *err);
/*
 * Gives it back, and waits up to @timeout_ms for its namespaces to be block devices again. -EBUSY:
 * somebody drives it.
 */
int claim_give_back(const char *root, const char *address, unsigned timeout_ms, struct err *err);

#endif
