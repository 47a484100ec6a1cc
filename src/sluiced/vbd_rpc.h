/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods about disks of Xen guests:
 *
 *   xen_get_domain {domain}                                      -> {domid, name, toolstack}
 *   vbd_attach {domain, vdev, bdev, readonly=false, shared=false, sharing="auto",
 *               persistent=true, on_error="report", rw_ios_per_sec=0, rw_bytes_per_sec=0}
 *                                                                -> {domid, devid, vdev, backend}
 *   vbd_detach {domain, vdev, force=false}                       -> true, once the disk is gone
 *   vbd_pause {domain, vdev}                                     -> true, once the disk is quiet
 *   vbd_resume {domain, vdev}                                    -> true
 *   vbd_set_limit {domain, vdev, rw_ios_per_sec, rw_bytes_per_sec} (0: none; missing: as it is)
 *                                                                -> {both, as they are now}
 *   vbd_get_vbds                                                 -> array
 *   vbd_get_iostat                                               -> array
 *
 * Where no such guests are served each answers -ENODEV and why that is.
 */
#ifndef SLUICE_SLUICED_VBD_RPC_H
#define SLUICE_SLUICED_VBD_RPC_H

#include "ctl/rpc.h"
#include "xen/backend.h"

struct vbd_rpc {
	struct xen_backend *be; /* NULL: there is none, for this reason: */
	const char *why;
	struct reactor *control;
};

/* Registers the methods; @ctx must outlive the server. Returns 0 or a negative errno. */
int vbd_rpc_register(struct rpc_server *s, struct vbd_rpc *ctx);

#endif
