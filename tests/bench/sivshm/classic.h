/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The classic: a distributor of IVSHMEM, written from its protocol.
 *
 * It stands in the middle: all peers get the same memory, and when one comes it is introduced to
 * all others and they to it, one message a doorbell.  Like the well-known one it never blocks: what
 * does not fit into a peer's socket is dropped, and nobody is told.  The order is its, too:
 * version, own ID, memory; the new one to the others; the others to the new one; its own doorbells.
 */
#ifndef SIVSHM_BENCH_CLASSIC_H
#define SIVSHM_BENCH_CLASSIC_H

#include <stddef.h>
#include <stdint.h>

struct classic;

/* Listens at @path, which is replaced, with a memory of @bytes and @vectors doorbells a peer. */
struct classic *classic_create(const char *path, unsigned vectors, size_t bytes);
/* Serves for ever; ends the program when something goes wrong. */
void classic_serve(struct classic *c) __attribute__((noreturn));

#endif
