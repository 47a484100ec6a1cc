/* SPDX-License-Identifier: BSD-2-Clause */
/* nvme: a namespace of a controller as a bdev. */
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
/* After NVME_CHANGED_NAMESPACES: bdevs grow with their namespaces. */
void bdev_nvme_update(struct nvme_ctrl *ctrl);

#endif
