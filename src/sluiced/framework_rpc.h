/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The method about the daemon's reactors, which serve whoever there is:
 *
 *   framework_get_reactors                                       -> {reactors: array}
 */
#ifndef SLUICE_SLUICED_FRAMEWORK_RPC_H
#define SLUICE_SLUICED_FRAMEWORK_RPC_H

#include "ctl/rpc.h"
#include "reactor/reactor.h"

struct framework_rpc {
	struct reactor **reactors;
	unsigned nr_reactors;
};

/* Registers the method; @ctx must outlive the server. Returns 0 or a negative errno. */
int framework_rpc_register(struct rpc_server *s, struct framework_rpc *ctx);

#endif
