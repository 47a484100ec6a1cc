/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker as its manager has it: a segment, doorbells, and how the worker gets to know of them.
 *
 * The segment is a memfd of its own, and the worker is given that one descriptor: what it does not
 * have, it cannot reach. It is sealed against being cut or grown, since who maps memory that is cut
 * dies of it, and against further seals. A worker can still punch holes, which zeros its own
 * memory only.
 *
 * The handshake is written without waiting: into a socket pair, whole, before the worker has been
 * started, or to who connects, as far as there is room, and then on when there is more. The
 * manager's end stays open for as long as the worker is wanted. QEMU wants it so, and its end of
 * file is how a death is noticed.
 *
 * From the other side nothing is ever read there, and nothing can be sent: what a descriptor costs
 * that is received, or dropped, is what closing it costs, and that may be anything (a TCP socket
 * that lingers lets its last holder sleep, for as long as its maker has chosen).
 *
 * An eventfd that is closed here is still open in the worker and therefore still in the epoll set:
 * descriptors are always taken out of the set before they are closed.
 */
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum {
	PAIRS = (SIVSHM_ID_MAX + 1) / 2,
	/* Messages before the doorbells: version, ID, memory. */
	GREETING = 3,
	CHATTER = 4096, /* bytes that are dropped at once */
};

static int watch_as(struct sivshm_watch *watch, int op, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	return epoll_ctl(watch->worker->manager->epoll, op, fd, &event) < 0 ? -errno : 0;
}

static int watch(struct sivshm_watch *watch, int fd, uint32_t events)
{
	return watch_as(watch, EPOLL_CTL_ADD, fd, events);
}

static void unwatch(struct sivshm_worker *w, int fd)
{
	if (fd >= 0)
		epoll_ctl(w->manager->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* IDs */

static bool is_taken(const struct sivshm_manager *m, unsigned pair)
{
	for (const struct sivshm_worker *w = m->workers; w; w = w->next)
		if (w->pair.port.id / 2 == pair)
			return true;
	return false;
}

/* The next pair, round and round. Returns it, or -ENOSPC. */
static int next_pair(struct sivshm_manager *m)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		unsigned pair = m->next_pair;

		m->next_pair = (pair + 1) % PAIRS;
		if (!is_taken(m, pair))
			return (int)pair;
	}
	return -ENOSPC;
}

/* Making one */

static int make_memory(struct sivshm_worker *w)
{
	size_t bytes = w->opts.segment_bytes;
	int rc;

	w->memfd = memfd_create("sivshm", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (w->memfd < 0 && errno == EINVAL)
		w->memfd = memfd_create("sivshm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (w->memfd < 0)
		return -errno;
	if (ftruncate(w->memfd, (off_t)bytes) < 0 ||
	    fcntl(w->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	rc = sivshm_range_map(&w->manager->range, w->memfd, bytes, &w->span);
	if (rc < 0)
		return rc;
	w->pair.port.memory = w->manager->range.base + w->span.offset;
	w->pair.port.size = bytes;
	/* It is a wish: without it the memory is the same. */
	if (w->opts.huge_pages)
		madvise(w->pair.port.memory, bytes, MADV_HUGEPAGE);
	return 0;
}

static int make_bells(struct sivshm_worker *w)
{
	for (unsigned i = 0; i < w->opts.vectors; i++) {
		w->bells[i] = (struct sivshm_watch){w, SIVSHM_WATCH_BELL, i};
		w->pair.in[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		w->pair.out[i] = w->pair.in[i] < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (w->pair.out[i] < 0)
			return -errno;
		if (!w->opts.own_rings) {
			int rc = watch(&w->bells[i], w->pair.in[i], EPOLLIN);

			if (rc < 0)
				return rc;
		}
	}
	w->pair.port.vectors = w->opts.vectors;
	return 0;
}

static bool are_valid(const struct sivshm_worker_opts *opts)
{
	return opts->struct_bytes == sizeof(*opts) && opts->segment_bytes >= SIVSHM_SEGMENT_MIN &&
	       !(opts->segment_bytes & (opts->segment_bytes - 1)) && opts->vectors >= 1 &&
	       opts->vectors <= SIVSHM_VECTORS_MAX;
}

static void unwatch_bells(struct sivshm_worker *w)
{
	for (unsigned i = 0; i < w->opts.vectors && !w->opts.own_rings; i++)
		unwatch(w, w->pair.in[i]);
}

/* Gives back all but the segment's place and the struct. */
static void let_go(struct sivshm_worker *w)
{
	unwatch_bells(w);
	unwatch(w, w->pair.socket);
	unwatch(w, w->listener.fd);
	sivshm_listener_fini(&w->listener);
	sivshm_close_fd(&w->memfd);
	sivshm_pair_fini(&w->pair);
}

int sivshm_worker_add(struct sivshm_manager *m, const struct sivshm_worker_opts *opts,
		      struct sivshm_worker **out)
{
	struct sivshm_worker *w;
	int rc;

	if (!are_valid(opts))
		return -EINVAL;
	if (opts->segment_bytes > m->range.bytes)
		return -ENOSPC;
	sivshm_manager_sweep(m);
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->manager = m;
	w->opts = *opts;
	w->memfd = w->listener.fd = w->listener.spare = -1;
	w->socket_watch = (struct sivshm_watch){w, SIVSHM_WATCH_SOCKET, 0};
	w->listener_watch = (struct sivshm_watch){w, SIVSHM_WATCH_LISTENER, 0};
	rc = sivshm_pair_init(&w->pair, &m->ringer);
	if (rc == 0)
		rc = make_bells(w);
	if (rc == 0)
		rc = next_pair(m);
	if (rc >= 0) {
		w->pair.port.id = 2 * (unsigned)rc;
		w->pair.port.peer = w->pair.port.id + 1;
		rc = make_memory(w);
	}
	if (rc < 0) {
		let_go(w);
		free(w);
		return rc;
	}
	w->next = m->workers;
	if (w->next)
		w->next->prev = w;
	m->workers = w;
	*out = w;
	return 0;
}

/* The handshake */

/* Its message @index: version, the worker's ID, memory, the manager's doorbells, the worker's. */
static int send_message(struct sivshm_worker *w, unsigned index)
{
	const struct sivshm_port *port = &w->pair.port;

	switch (index) {
	case 0:
		return sivshm_wire_send(w->pair.socket, SIVSHM_WIRE_VERSION, -1);
	case 1:
		return sivshm_wire_send(w->pair.socket, port->peer, -1);
	case 2:
		return sivshm_wire_send(w->pair.socket, SIVSHM_WIRE_MEMORY, w->memfd);
	}
	index -= GREETING;
	return index < port->vectors ? sivshm_wire_send(w->pair.socket, port->id, w->pair.in[index])
				     : sivshm_wire_send(w->pair.socket, port->peer,
							w->pair.out[index - port->vectors]);
}

static bool is_written(const struct sivshm_worker *w)
{
	return w->written == GREETING + 2 * w->opts.vectors;
}

/* Writes as much as there is room for. Returns 0, or a negative errno: this will never do. */
static int write_greeting(struct sivshm_worker *w)
{
	int rc = 0;

	while (!is_written(w) && rc == 0) {
		rc = send_message(w, w->written);
		if (rc == 0)
			w->written++;
	}
	return rc == -EAGAIN ? 0 : rc;
}

/* Lets the worker say nothing from now on, and drops what it said before it was accepted. */
static void turn_deaf(int socket)
{
	char chatter[CHATTER];

	shutdown(socket, SHUT_RD);
	while (recv(socket, chatter, sizeof(chatter), MSG_DONTWAIT) > 0)
		;
}

/* Begins to talk at @socket, which is the worker's from here on unless it fails. */
static int begin(struct sivshm_worker *w, int socket)
{
	int rc;

	turn_deaf(socket);
	rc = sivshm_pair_connect(&w->pair, socket);
	w->written = 0;
	if (rc == 0)
		rc = write_greeting(w);
	/* Its end is told unasked. */
	if (rc == 0)
		rc = watch(&w->socket_watch, socket, is_written(w) ? 0 : EPOLLOUT);
	if (rc < 0)
		w->pair.socket = -1;
	else if (is_written(w))
		sivshm_close_fd(&w->memfd);
	return rc;
}

int sivshm_worker_take_socket(struct sivshm_worker *w)
{
	int ends[2], rc;

	if (w->promised)
		return -EALREADY;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	rc = begin(w, ends[0]);
	if (rc < 0) {
		close(ends[0]);
		close(ends[1]);
		return rc;
	}
	w->promised = true;
	return ends[1];
}

int sivshm_worker_listen(struct sivshm_worker *w, const char *path, mode_t mode,
			 const struct sivshm_credentials *who)
{
	int rc;

	if (w->promised)
		return -EALREADY;
	rc = sivshm_listener_init(&w->listener, path, mode, who);
	if (rc == 0)
		rc = watch(&w->listener_watch, w->listener.fd, EPOLLIN);
	if (rc < 0)
		sivshm_listener_fini(&w->listener);
	w->promised = rc == 0;
	return rc;
}

/* What happens */

/* The last that is said of it: rings that came before it come before it here, too. */
static int end(struct sivshm_worker *w)
{
	int called = 0;

	w->ended = true;
	atomic_store(&w->pair.gone, true);
	unwatch(w, w->pair.socket);
	unwatch_bells(w);
	for (unsigned i = 0; i < w->opts.vectors && !w->opts.own_rings && w->opts.rung; i++) {
		if (w->removed)
			return called;
		if (sivshm_eventfd_take(w->pair.in[i]) == 1) {
			w->opts.rung(w, i, w->opts.arg);
			called++;
		}
	}
	if (w->removed || !w->opts.gone)
		return called;
	w->opts.gone(w, w->opts.arg);
	return called + 1;
}

static int handle_bell(struct sivshm_worker *w, unsigned vector)
{
	if (sivshm_eventfd_take(w->pair.in[vector]) != 1 || !w->opts.rung)
		return 0;
	w->opts.rung(w, vector, w->opts.arg);
	return 1;
}

static int say_joined(struct sivshm_worker *w)
{
	if (w->listener.fd < 0 || !w->opts.joined)
		return 0;
	w->opts.joined(w, w->opts.arg);
	return 1;
}

static int handle_socket(struct sivshm_worker *w, uint32_t events)
{
	if (events & (EPOLLHUP | EPOLLERR))
		return end(w);
	if (is_written(w))
		return 0;
	if (write_greeting(w) < 0)
		return end(w);
	if (!is_written(w))
		return 0;
	sivshm_close_fd(&w->memfd);
	watch_as(&w->socket_watch, EPOLL_CTL_MOD, w->pair.socket, 0);
	return say_joined(w);
}

static int handle_listener(struct sivshm_worker *w)
{
	int rc, fd = sivshm_listener_accept(&w->listener);

	if (fd < 0)
		return 0;
	unwatch(w, w->listener.fd);
	rc = begin(w, fd);
	if (rc < 0)
		close(fd);
	/* Not before: the memory's descriptor may be needed by those who are sent away. */
	sivshm_listener_shut(&w->listener);
	if (rc < 0)
		return end(w);
	return is_written(w) ? say_joined(w) : 0;
}

int sivshm_worker_handle(struct sivshm_watch *watch, uint32_t events)
{
	struct sivshm_worker *w = watch->worker;

	if (w->removed || w->ended)
		return 0;
	switch (watch->kind) {
	case SIVSHM_WATCH_BELL:
		return handle_bell(w, watch->vector);
	case SIVSHM_WATCH_SOCKET:
		return handle_socket(w, events);
	case SIVSHM_WATCH_LISTENER:
		return handle_listener(w);
	}
	return 0;
}

void sivshm_worker_remove(struct sivshm_worker *w)
{
	struct sivshm_manager *m = w->manager;

	/* A QEMU that lives on learns that its peer has left; half a handshake it would not
	 * understand. */
	if (w->pair.socket >= 0 && is_written(w) && !w->ended)
		sivshm_wire_send(w->pair.socket, w->pair.port.id, -1);
	let_go(w);
	*(w->prev ? &w->prev->next : &m->workers) = w->next;
	if (w->next)
		w->next->prev = w->prev;
	w->removed = true;
	w->next = m->removed;
	m->removed = w;
	sivshm_manager_sweep(m);
}

struct sivshm_port *sivshm_worker_port(struct sivshm_worker *w)
{
	return &w->pair.port;
}

size_t sivshm_worker_offset(const struct sivshm_worker *w)
{
	return w->span.offset;
}
