/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to src/nvme: what both ways to a drive's registers begin with. */
#ifndef SLUICE_NVME_SYSFS_H
#define SLUICE_NVME_SYSFS_H

#include "nvme/pci.h"

/* The driver of a drive that is to have none: no driver of the kernel's is called that. */
#define NVME_SYSFS_NO_DRIVER "sluice"

/* What "/sys" and "/run" are below: "" but in tests. */
int nvme_sysfs_open_in(const char *root, const char *address, struct nvme_pci **out,
		       struct err *err);

/*
 * Makes sure that @address is an NVMe controller's. -ENODEV with the line in @err: there is no such
 * device, or it is something else.
 */
int nvme_sysfs_check_class(const char *root, const char *address, struct err *err);
/*
 * The driver that has the device: its name in @driver, which is empty if there is none. Returns 0
 * or a negative errno.
 */
int nvme_sysfs_driver(const char *root, const char *address, char *driver, size_t len);
/*
 * Locks the drive for this process, by the file pci-ADDRESS.lock in /run/sluice, which says whose
 * it is. Returns the descriptor, which is the lock; -EBUSY: another process has it; or another
 * negative errno; with the line in @err.
 */
int nvme_sysfs_lock(const char *root, const char *address, struct err *err);

#endif
