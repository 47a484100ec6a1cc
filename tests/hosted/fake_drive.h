/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An NVMe drive of the host's: the model of a controller, behind files as sysfs has them, with a
 * thread of its own.  It reaches memory as a device does that the double's IOMMU watches.
 */
#ifndef SLUICE_TEST_FAKE_DRIVE_H
#define SLUICE_TEST_FAKE_DRIVE_H

#include "../nvme/model.h"
#include "host.h"

#define FAKE_DRIVE "0000:00:04.0"

/* Puts a drive of @blocks blocks, which is claimed, into @host. There is one at a time. */
struct model *fake_drive_create(struct host *host, uint32_t block_size, uint64_t blocks);
/* Pulls it; it must have been let go. */
void fake_drive_destroy(void);
/* Whether the controller is enabled, and may reach memory. */
bool fake_drive_enabled(void);
bool fake_drive_is_master(void);
/* As a daemon that was killed would leave it. */
void fake_drive_leave_running(void);

#endif
