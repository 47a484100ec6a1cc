/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods that make, change, remove and list bdevs, under SPDK's names where it has them:
 *
 *   bdev_null_create, bdev_malloc_create   {name, num_blocks, block_size = 512}      -> name
 *   bdev_uring_create, bdev_aio_create     {name, filename, readonly = false,
 *                                           shared = false}                          -> name
 *   bdev_delete, and bdev_KIND_delete, which checks the kind   {name}                -> true
 *   bdev_null_resize, bdev_malloc_resize   {name, new_size in bytes}                 -> shape
 *   bdev_uring_rescan, bdev_aio_rescan     {name}                                    -> shape
 *   bdev_get_bdevs                         {name?}                                   -> array
 *
 * A shape is {name, num_blocks, block_size}.  What is answered with success has been saved.
 */
#ifndef SLUICE_CTL_BDEV_RPC_H
#define SLUICE_CTL_BDEV_RPC_H

#include "ctl/config.h"
#include "ctl/rpc.h"

/* Registers the methods; @c must outlive the server. Returns 0 or a negative errno. */
int bdev_rpc_register(struct rpc_server *s, struct config *c);

/* Makes a bdev as method @method would, but saves nothing: for config_load(). */
int bdev_rpc_create(const char *method, const json_t *params, struct err *err);

#endif
