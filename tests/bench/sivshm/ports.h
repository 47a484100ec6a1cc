/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where channels lie. A program has one of the two: segments of libsivshm's (ports_direct.c), or
 * parts of the classic distributor's common memory (ports_common.c), with the same
 * lib/sivshm/channel.c.
 */
#ifndef SIVSHM_BENCH_PORTS_H
#define SIVSHM_BENCH_PORTS_H

#include "sivshm.h"

extern const char *const ports_name;

/* Manager: before workers are started. */
void ports_prepare(unsigned workers);
/* Manager: its side of @worker's, and where its channel lies in there. */
struct sivshm_port *ports_manager(unsigned worker, struct sivshm_channel_opts *opts);
/* Worker: its side, and where the channel lies. */
struct sivshm_port *ports_worker(unsigned worker, struct sivshm_channel_opts *opts);

#endif
