/* SPDX-License-Identifier: BSD-2-Clause */
/* Parameters of the kernel's grant drivers: numbers in files of sysfs. */
#ifndef SLUICE_GRANT_TUNABLE_H
#define SLUICE_GRANT_TUNABLE_H

#include <stdint.h>

/* The most pages that gntalloc grants for the whole host. */
#define GRANT_TUNABLE_SHARE_LIMIT "/sys/module/xen_gntalloc/parameters/limit"
/* How many pages a second the kernel takes back of those that were in use when they were freed. */
#define GRANT_TUNABLE_RECLAIM "/sys/module/grant_table/parameters/free_per_iteration"

/* Both return 0 or a negative errno; -ENOENT: this kernel has no such parameter. */
int grant_tunable_read(const char *path, uint32_t *value);
int grant_tunable_write(const char *path, uint32_t value);

#endif
