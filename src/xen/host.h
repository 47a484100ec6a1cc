/* SPDX-License-Identifier: BSD-2-Clause */
/* What sluiced needs of its host: that it is a PV domain of Xen with the right devices. */
#ifndef SLUICE_XEN_HOST_H
#define SLUICE_XEN_HOST_H

#include "base/err.h"

/*
 * Looks at /sys/hypervisor and /dev/xen below @root ("" on a real host). Returns 0, -ENODEV (no Xen
 * here), -EOPNOTSUPP (a PVH or HVM domain), or -ENOENT (a device is missing), with the remedy.
 */
int xen_host_check(const char *root, struct err *err);

/*
 * Whether the kernel's own block backend has (1), will get (0), or never gets (-1) the device
 * "vbd-DOMID-DEVID" of the bus xen-backend. It gets every vbd while its driver is loaded.
 */
int xen_host_kernel_has(const char *root, const char *device);

/* Takes the device from the kernel's backend. Returns 0 or a negative errno with the remedy. */
int xen_host_kernel_release(const char *root, const char *device, struct err *err);

#endif
