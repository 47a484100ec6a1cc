/* SPDX-License-Identifier: BSD-2-Clause */
/* A segment of its own for each worker. */
#include <stdio.h>
#include <unistd.h>

#include "bench.h"
#include "ports.h"
#include "transport.h"

const char *const ports_name = "sivshm";

static struct sivshm_manager *manager;
static struct sivshm_worker *workers[TRANSPORT_WORKERS_MAX];
static int sockets[TRANSPORT_WORKERS_MAX];

void ports_prepare(unsigned nr)
{
	struct sivshm_worker_opts opts = {.struct_bytes = sizeof(opts),
					  .segment_bytes = TRANSPORT_SEGMENT,
					  .vectors = 1,
					  .own_rings = true};

	bench_need(sivshm_manager_create(NULL, &manager), "sivshm_manager_create");
	for (unsigned i = 0; i < nr; i++) {
		bench_need(sivshm_worker_add(manager, &opts, &workers[i]), "sivshm_worker_add");
		sockets[i] = bench_need(sivshm_worker_take_socket(workers[i]),
					"sivshm_worker_take_socket");
	}
}

struct sivshm_port *ports_manager(unsigned worker, struct sivshm_channel_opts *opts)
{
	*opts = (struct sivshm_channel_opts){.struct_bytes = sizeof(*opts)};
	return sivshm_worker_port(workers[worker]);
}

struct sivshm_port *ports_worker(unsigned worker, struct sivshm_channel_opts *opts)
{
	struct sivshm_port *port;
	char where[16];

	*opts = (struct sivshm_channel_opts){.struct_bytes = sizeof(*opts)};
	snprintf(where, sizeof(where), "fd:%d", sockets[worker]);
	bench_need(sivshm_open(where, 1000, &port), "sivshm_open");
	return port;
}
