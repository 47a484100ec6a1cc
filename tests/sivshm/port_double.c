/* SPDX-License-Identifier: BSD-2-Clause */
#include "port_double.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

struct sivshm_port {
	struct sivshm_port *peer;
	uint8_t *memory;
	size_t size;
	int fds[PORT_DOUBLE_VECTORS];
	atomic_uint rings[PORT_DOUBLE_VECTORS];
	bool lost;
	void (*last_words)(void);
};

static void must(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	abort();
}

static struct sivshm_port *port_make(uint8_t *memory, size_t size)
{
	struct sivshm_port *p = calloc(1, sizeof(*p));

	must(p, "calloc");
	p->memory = memory;
	p->size = size;
	for (unsigned v = 0; v < PORT_DOUBLE_VECTORS; v++) {
		p->fds[v] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		must(p->fds[v] >= 0, "eventfd");
	}
	return p;
}

struct port_pair port_pair_make(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct port_pair pair;
	uint8_t *memory;

	memory = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED, "mmap");
	must(!mprotect(memory + page, bytes, PROT_READ | PROT_WRITE), "mprotect");
	pair.manager = port_make(memory + page, bytes);
	pair.worker = port_make(memory + page, bytes);
	pair.manager->peer = pair.worker;
	pair.worker->peer = pair.manager;
	return pair;
}

static void port_free(struct sivshm_port *p)
{
	for (unsigned v = 0; v < PORT_DOUBLE_VECTORS; v++)
		close(p->fds[v]);
	free(p);
}

void port_pair_free(struct port_pair pair)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	munmap(pair.manager->memory - page, pair.manager->size + 2 * page);
	port_free(pair.manager);
	port_free(pair.worker);
}

unsigned port_double_rings(const struct sivshm_port *p, unsigned vector)
{
	return atomic_load(&p->rings[vector]);
}

void port_double_lose_peer(struct sivshm_port *p, void (*last_words)(void))
{
	p->lost = true;
	p->last_words = last_words;
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
	return PORT_DOUBLE_VECTORS;
}

int sivshm_port_ring(struct sivshm_port *p, unsigned vector)
{
	atomic_fetch_add(&p->peer->rings[vector], 1);
	must(!eventfd_write(p->peer->fds[vector], 1), "eventfd_write");
	return 0;
}

int sivshm_port_wait(struct sivshm_port *p, unsigned vector, int timeout_ms)
{
	struct pollfd pfd = {.fd = p->fds[vector], .events = POLLIN};
	eventfd_t count;

	if (p->lost) {
		if (p->last_words)
			p->last_words();
		return -EPIPE;
	}
	if (poll(&pfd, 1, timeout_ms) <= 0)
		return 0;
	return eventfd_read(p->fds[vector], &count) ? 0 : 1;
}
