/* SPDX-License-Identifier: BSD-2-Clause */
#include "classic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench.h"
#include "wire.h"

enum { PEERS_MAX = 65536, EVENTS = 16, BACKLOG = 1024 };

struct peer {
	struct peer *next;
	int64_t id;
	int socket;
	int doorbells[];
};

struct classic {
	struct peer *peers;
	struct peer **last;
	int64_t next_id;
	unsigned vectors;
	int memory;
	int listener;
	int epoll;
};

struct classic *classic_create(const char *path, unsigned vectors, size_t bytes)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct classic *c = calloc(1, sizeof(*c));

	if (!c)
		bench_die("no memory");
	if (strlen(path) >= sizeof(address.sun_path))
		bench_die("%s is too long for a socket's path", path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	c->last = &c->peers;
	c->vectors = vectors;
	c->memory = bench_must(memfd_create("ivshmem", MFD_CLOEXEC), "memfd_create");
	bench_must(ftruncate(c->memory, (off_t)bytes), "ftruncate");
	c->listener = bench_must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
				 "socket");
	unlink(path);
	bench_must(bind(c->listener, (struct sockaddr *)&address, sizeof(address)), path);
	bench_must(listen(c->listener, BACKLOG), path);
	c->epoll = bench_must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	bench_must(epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->listener,
			     &(struct epoll_event){.events = EPOLLIN}),
		   "epoll_ctl");
	return c;
}

/* Tells @to of @about. What does not fit is lost, as with the well-known one. */
static void introduce(const struct classic *c, const struct peer *to, const struct peer *about)
{
	for (unsigned v = 0; v < c->vectors; v++)
		wire_send(to->socket, about->id, about->doorbells[v]);
}

static void come(struct classic *c)
{
	int socket = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct peer *peer;

	if (socket < 0)
		return;
	if (c->next_id == PEERS_MAX)
		bench_die("no IDs are left");
	peer = malloc(sizeof(*peer) + c->vectors * sizeof(int));
	if (!peer)
		bench_die("no memory");
	peer->next = NULL;
	peer->id = c->next_id++;
	peer->socket = socket;
	for (unsigned v = 0; v < c->vectors; v++)
		peer->doorbells[v] = bench_must(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
	wire_send(socket, 0, -1);
	wire_send(socket, peer->id, -1);
	wire_send(socket, -1, c->memory);
	for (struct peer *other = c->peers; other; other = other->next)
		introduce(c, other, peer);
	for (struct peer *other = c->peers; other; other = other->next)
		introduce(c, peer, other);
	introduce(c, peer, peer);
	*c->last = peer;
	c->last = &peer->next;
	bench_must(epoll_ctl(c->epoll, EPOLL_CTL_ADD, socket,
			     &(struct epoll_event){.events = EPOLLIN, .data.ptr = peer}),
		   "epoll_ctl");
}

static void go(struct classic *c, struct peer *peer)
{
	struct peer **at = &c->peers;

	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
	if (c->last == &peer->next)
		c->last = at;
	close(peer->socket);
	for (unsigned v = 0; v < c->vectors; v++)
		close(peer->doorbells[v]);
	for (struct peer *other = c->peers; other; other = other->next)
		wire_send(other->socket, peer->id, -1);
	free(peer);
}

void classic_serve(struct classic *c)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int n = epoll_wait(c->epoll, events, EVENTS, -1);

		if (n < 0 && errno != EINTR)
			bench_die("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			if (events[i].data.ptr)
				/* Peers say nothing: that is their end. */
				go(c, events[i].data.ptr);
			else
				come(c);
	}
}
