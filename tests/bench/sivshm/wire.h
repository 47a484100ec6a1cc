/* SPDX-License-Identifier: BSD-2-Clause */
/* A message of IVSHMEM's protocol: a number, and at most one descriptor. */
#ifndef SIVSHM_BENCH_WIRE_H
#define SIVSHM_BENCH_WIRE_H

#include <stdint.h>

/* Never blocks. @fd may be -1. Returns 0 or a negative errno. */
int wire_send(int socket, int64_t value, int fd);
/* Blocks if the socket does; *@fd is -1 if there is none. Returns 1, 0 (the end) or a negative
 * errno. */
int wire_receive(int socket, int64_t *value, int *fd);
int wire_connect(const char *path);

#endif
