/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bar: a drive's registers as memory, which stays memory when the drive is pulled.
 *
 * When a device leaves, the kernel takes the mappings of its BARs away, and the next access is a
 * SIGBUS, which would end the daemon and all its guests' disks for one drive's sake.  So the ranges
 * where BARs are mapped are known here, and a fault in one puts memory full of ones in its place:
 * that is what the bus itself answers for a device that is not there, and what the driver takes for
 * that.  Any other fault goes on as it would have.
 *
 * What is written to a BAR that is gone may be read back from it.  The driver judges by CSTS, which
 * it never writes.
 */
#ifndef SLUICE_NVME_BAR_H
#define SLUICE_NVME_BAR_H

#include <stddef.h>
#include <sys/types.h>

/* What is mapped of a BAR at most: registers, and the doorbells of 64 queues 256 bytes apart. */
enum { NVME_BAR_MAX = 64 << 10 };

/*
 * Maps @len bytes, a multiple of the page size up to NVME_BAR_MAX, of @fd from @offset on. Returns
 * 0 and *@bar, or a negative errno; -ENOSPC: more BARs than the table holds. From any thread.
 */
int nvme_bar_map(int fd, off_t offset, size_t len, volatile void **bar);
/* No thread uses it any more. */
void nvme_bar_unmap(volatile void *bar);

#endif
