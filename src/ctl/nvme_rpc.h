/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods for NVMe drives, under SPDK's names:
 *
 *   bdev_nvme_attach_controller           {name, trtype = "PCIe", traddr}  -> names of its bdevs
 *   bdev_nvme_detach_controller           {name}                           -> true
 *   bdev_nvme_rescan_controller           {name}                           -> names of its bdevs
 *   bdev_nvme_get_controllers             {name?}                          -> array
 *   bdev_nvme_get_controller_health_info  {name}                           -> object
 *
 * The set of drives is saved with that of bdevs, and what is answered with success has been saved.
 * A drive of the set that could not be had at start is listed as missing, and can be attached again
 * by its name, or detached.
 */
#ifndef SLUICE_CTL_NVME_RPC_H
#define SLUICE_CTL_NVME_RPC_H

#include "ctl/config.h"
#include "ctl/rpc.h"
#include "nvme/drive.h"

struct nvme_rpc {
	struct nvme_drives *drives;
	struct config *config;
	struct reactor *control;
	/* private */
	struct config_kind drives_kind;
};

/*
 * Has the drives saved in and made from @n->config, of which config_load() comes later; that waits
 * for each drive by stepping @n->control by hand. The caller has filled in the public part.
 */
void nvme_rpc_init(struct nvme_rpc *n);
/* Registers the methods; @n must outlive the server. Returns 0 or a negative errno. */
int nvme_rpc_register(struct rpc_server *s, struct nvme_rpc *n);

#endif
