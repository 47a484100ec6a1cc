/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nvme: a namespace of a controller as a bdev, and a part of one (a partition) as another.
 *
 * A part is not stacked on its namespace's bdev: it sends the same commands on the same queues, and
 * only begins elsewhere.  Each io is checked against the part's own bounds before (bdev_submit()).
 */
#ifndef SLUICE_NVME_BDEV_NVME_H
#define SLUICE_NVME_BDEV_NVME_H

#include "bdev/bdev.h"
#include "nvme/controller.h"

/*
 * Registers namespace @nsid of @ctrl, which must be live and outlive the bdev. -ENOENT: it has no
 * such namespace; -EOPNOTSUPP: one of a format that is not served; both with the line in @err. On
 * the controller's home reactor, which is to be the control thread.
 */
int bdev_nvme_create(const char *name, struct nvme_ctrl *ctrl, uint32_t nsid, struct bdev **out,
		     struct err *err);
/*
 * Registers @size bytes of the namespace's bdev @whole from @start on. -EINVAL: they are not in it,
 * or no whole blocks, or @whole is no namespace's.
 */
int bdev_nvme_create_part(const char *name, struct bdev *whole, uint64_t start, uint64_t size,
			  struct bdev **out, struct err *err);
/*
 * After NVME_CHANGED_NAMESPACES: bdevs grow with their namespaces; one whose namespace is gone, or
 * another one now, or of another format, fails all its ios with -ENODEV from then on.
 */
void bdev_nvme_update(struct nvme_ctrl *ctrl);

/* Where it comes from; NULL: it is no nvme bdev. */
struct nvme_ctrl *bdev_nvme_ctrl(const struct bdev *b);
uint32_t bdev_nvme_nsid(const struct bdev *b);
/* Bytes of the namespace before its first. */
uint64_t bdev_nvme_start(const struct bdev *b);

#endif
