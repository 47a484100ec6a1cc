/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods about the second door's workers, disks for frontends that share a segment with us:
 *
 *   sivshm_create {name, bdev, segment_size=16777216, max_queues=0, sharing="auto",
 *                  readonly=false, shared=false, socket, uid, gid=-1, mode="0600"}
 *                                                                -> {name, socket}
 *   sivshm_delete {name, force=false}                            -> true, once the worker is gone
 *   sivshm_get_workers                                           -> array
 *   sivshm_get_iostat                                            -> array
 *
 * Sizes are in bytes, a uid or gid of -1 is anybody's, the mode is octal.  Without a socket there
 * is one in the door's directory, and without a uid it is for this process's own user.
 *
 * The set of workers is saved with that of bdevs, and what is answered with success has been saved.
 * A worker of the set that could not be made at start is listed as missing, and can be created
 * again by its name, or deleted; one that only waits for its bdev has been made.
 */
#ifndef SLUICE_SLUICED_SIVSHM_RPC_H
#define SLUICE_SLUICED_SIVSHM_RPC_H

#include "ctl/config.h"
#include "ctl/rpc.h"
#include "sivshm/door.h"

struct sivshm_rpc {
	struct sivshm_door *door;
	struct config *config;
	struct reactor *control;
	/* private */
	struct config_kind workers;
};

/* Has the workers saved in and made from @ctx->config, of which config_load() comes later. The
 * caller has filled in the public part. */
void sivshm_rpc_init(struct sivshm_rpc *ctx);
/* Registers the methods; @ctx must outlive the server. Returns 0 or a negative errno. */
int sivshm_rpc_register(struct rpc_server *s, struct sivshm_rpc *ctx);

#endif
