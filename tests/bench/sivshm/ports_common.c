/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels side by side in the classic distributor's memory, which all peers have: the manager is
 * its first peer, and worker i's channel lies i segments behind the memory's start and has vector
 * i. Rings are plain writes of eventfds.  This is where the library's port comes from in this
 * program.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "classic.h"
#include "ports.h"
#include "transport.h"
#include "wire.h"

const char *const ports_name = "common";

struct sivshm_port {
	uint8_t *memory;
	size_t size;
	unsigned vectors;
	int own[TRANSPORT_WORKERS_MAX];
	int *peer; /* its doorbells */
};

static char path[64];
static unsigned all;
static atomic_uint *turn; /* whose it is to join: IDs are given in this order */

/* This process as a peer: all that the distributor has told it. */
static struct sivshm_port self;
static int doorbells[TRANSPORT_WORKERS_MAX + 1][TRANSPORT_WORKERS_MAX];

static pid_t distributor, distributors_parent;

static void end_distributor(void)
{
	if (getpid() != distributors_parent)
		return;
	kill(distributor, SIGKILL);
	waitpid(distributor, NULL, 0);
	unlink(path);
}

void ports_prepare(unsigned nr)
{
	struct classic *c;
	pid_t parent = getpid();

	all = nr;
	turn = bench_shared(sizeof(*turn));
	snprintf(path, sizeof(path), "/tmp/bench-common-%d", (int)parent);
	c = classic_create(path, nr, (size_t)nr * TRANSPORT_SEGMENT);
	distributors_parent = parent;
	atexit(end_distributor);
	distributor = bench_must(fork(), "fork");
	if (!distributor) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			exit(1);
		classic_serve(c);
	}
}

/* Joins as peer @id, and hears of all others. */
static void join(unsigned id)
{
	unsigned long left = 3 + (unsigned long)(all + 1) * all;
	unsigned got[TRANSPORT_WORKERS_MAX + 1] = {0};
	int64_t value;
	int socket, fd;

	while (atomic_load(turn) != id)
		usleep(100);
	socket = bench_need(wire_connect(path), path);
	for (unsigned n = 0; n < left; n++) {
		if (wire_receive(socket, &value, &fd) != 1)
			bench_die("the distributor has ended");
		if (n == 1) {
			if (value != id)
				bench_die("this is peer %d, not %u", (int)value, id);
			atomic_store(turn, id + 1);
		}
		if (fd < 0)
			continue;
		if (value < 0) {
			self.size = (size_t)lseek(fd, 0, SEEK_END);
			self.memory =
				mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			if (self.memory == MAP_FAILED)
				bench_die("mmap");
		} else if (value <= all && got[value] < all) {
			doorbells[value][got[value]++] = fd;
		}
	}
	self.vectors = all;
	for (unsigned v = 0; v < all; v++)
		self.own[v] = doorbells[id][v];
}

static void place(unsigned worker, struct sivshm_channel_opts *opts)
{
	*opts = (struct sivshm_channel_opts){.struct_bytes = sizeof(*opts),
					     .offset = (size_t)worker * TRANSPORT_SEGMENT,
					     .bytes = TRANSPORT_SEGMENT,
					     .vector = worker};
}

struct sivshm_port *ports_manager(unsigned worker, struct sivshm_channel_opts *opts)
{
	struct sivshm_port *port = malloc(sizeof(*port));

	if (!port)
		bench_die("no memory");
	if (!worker)
		join(0);
	*port = self;
	port->peer = doorbells[1 + worker];
	place(worker, opts);
	return port;
}

struct sivshm_port *ports_worker(unsigned worker, struct sivshm_channel_opts *opts)
{
	join(1 + worker);
	self.peer = doorbells[0];
	place(worker, opts);
	return &self;
}

void *sivshm_port_memory(const struct sivshm_port *p)
{
	return p->memory;
}

size_t sivshm_port_size(const struct sivshm_port *p)
{
	return p->size;
}

unsigned sivshm_port_vectors(const struct sivshm_port *p)
{
	return p->vectors;
}

int sivshm_port_ring(struct sivshm_port *p, unsigned vector)
{
	return eventfd_write(p->peer[vector], 1) ? -errno : 0;
}

int sivshm_port_take(struct sivshm_port *p, unsigned vector)
{
	eventfd_t count;

	return eventfd_read(p->own[vector], &count) ? 0 : 1;
}

int sivshm_port_wait(struct sivshm_port *p, unsigned vector, int timeout_ms)
{
	struct pollfd pfd = {.fd = p->own[vector], .events = POLLIN};

	/* There may be one already, as most often when much is sent. */
	if (sivshm_port_take(p, vector))
		return 1;
	if (poll(&pfd, 1, timeout_ms) <= 0)
		return 0;
	return sivshm_port_take(p, vector);
}
