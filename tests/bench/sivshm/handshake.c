/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-handshake classic|handed|connected PEERS VECTORS: how long it takes until PEERS clients
 * know all that they are to know, in how many messages, and how many of these got lost.
 *
 *   classic    a distributor introduces all peers to each other
 *   handed     direct: each client gets a socket into which its handshake was written ahead
 *   connected  direct: each client connects to a path of its own, with credentials checked
 *
 * Clients only speak the protocol.  All are in one process on one core, the other side is another
 * process on another core: the same code for the three, which takes what comes from all sockets in
 * turns and keeps every descriptor.  (So the classic's clients read faster than so many processes
 * on one core would; what it loses, it loses all the same.)
 *
 * The clock runs from before the first connects, or before the first worker is added, until the
 * last message has been taken.  When nothing has come for QUIET_MS, what is missing is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "classic.h"
#include "sivshm.h"
#include "wire.h"

enum {
	QUIET_MS = 300,
	PEERS_MAX = 4096,
	SEGMENT = 1 << 20,
	PATH_BYTES = 100,
	EVENTS = 16,
	KEPT_MAX = 15000 /* descriptors of a process */
};

enum way { CLASSIC, HANDED, CONNECTED };
static const char *const ways[] = {"classic", "handed", "connected"};

static enum way way;
static unsigned peers, vectors;
static char folder[PATH_BYTES / 2];

static struct shared {
	atomic_uint ready;
	atomic_bool go;
	_Atomic uint64_t start, end;
	atomic_ulong taken;
} * shared;

static void path_of(unsigned peer, char path[PATH_BYTES])
{
	snprintf(path, PATH_BYTES, "%s/%u", folder, way == CLASSIC ? 0 : peer);
}

/* The clients */

static unsigned long expected_of_each(void)
{
	return way == CLASSIC ? 3 + vectors + (peers - 1) * vectors : 3 + 2 * vectors;
}

/* Takes what there is of @socket. */
static unsigned long take(int socket)
{
	unsigned long taken = 0;
	int64_t value;
	int fd, rc;

	while ((rc = wire_receive(socket, &value, &fd)) > 0)
		taken++;
	if (rc != -EAGAIN)
		bench_die("a handshake ended: %s", rc ? strerror(-rc) : "closed");
	return taken;
}

static int open_client(int control, unsigned peer)
{
	char path[PATH_BYTES];
	int64_t value;
	int socket;

	if (way == HANDED) {
		int rc;

		/* A program inherits its socket when it is started. That it is handed over here is
		 * not to cost the manager a wake-up. */
		while ((rc = wire_receive(control, &value, &socket)) == -EAGAIN)
			bench_pause();
		if (rc != 1 || socket < 0)
			bench_die("the manager handed nothing over");
	} else {
		path_of(peer, path);
		socket = bench_need(wire_connect(path), path);
	}
	bench_must(fcntl(socket, F_SETFL, O_NONBLOCK), "fcntl");
	return socket;
}

static void run_clients(int control, unsigned first, unsigned nr)
{
	unsigned long expected = nr * expected_of_each(), taken = 0;
	struct epoll_event events[EVENTS];
	uint64_t end = 0, none = 0, latest;
	int epoll = bench_must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"), n;

	bench_allow_descriptors(expected + 1000);
	bench_pin(1);
	atomic_fetch_add(&shared->ready, 1);
	while (!atomic_load(&shared->go))
		sched_yield();
	if (way != HANDED)
		atomic_compare_exchange_strong(&shared->start, &none, bench_now_ns());
	for (unsigned i = 0; i < nr; i++) {
		int socket = open_client(control, first + i);

		bench_must(epoll_ctl(epoll, EPOLL_CTL_ADD, socket,
				     &(struct epoll_event){.events = EPOLLIN, .data.fd = socket}),
			   "epoll_ctl");
	}
	while (taken < expected && (n = epoll_wait(epoll, events, EVENTS, QUIET_MS)) > 0)
		for (int i = 0; i < n; i++) {
			taken += take(events[i].data.fd);
			end = bench_now_ns();
		}
	atomic_fetch_add(&shared->taken, taken);
	latest = atomic_load(&shared->end);
	while (end > latest && !atomic_compare_exchange_weak(&shared->end, &latest, end))
		;
	/* Nobody's end is to be seen as long as others are at work. */
	atomic_fetch_sub(&shared->ready, 1);
	while (atomic_load(&shared->ready))
		usleep(1000);
	exit(0);
}

/* Starts all clients. Returns how many processes these are. */
static unsigned start_clients(int control)
{
	unsigned long all = peers * (3 + (unsigned long)peers * vectors);
	unsigned nr = (unsigned)((all + KEPT_MAX - 1) / KEPT_MAX);

	for (unsigned i = 0; i < nr; i++) {
		unsigned first = peers * i / nr;
		pid_t pid = bench_must(fork(), "fork");

		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			run_clients(control, first, peers * (i + 1) / nr - first);
		}
	}
	while (atomic_load(&shared->ready) < nr)
		usleep(1000);
	return nr;
}

/* Ends the program if one that has ended has failed. Returns how many are left. */
static unsigned reap(unsigned left, int options)
{
	int status;

	while (left && waitpid(-1, &status, options) > 0) {
		if (status)
			bench_die("a client has failed");
		left--;
	}
	return left;
}

/* The other side */

static struct sivshm_worker *add_worker(struct sivshm_manager *m)
{
	struct sivshm_worker_opts opts = {
		.struct_bytes = sizeof(opts), .segment_bytes = SEGMENT, .vectors = vectors};
	struct sivshm_worker *w;

	bench_need(sivshm_worker_add(m, &opts, &w), "sivshm_worker_add");
	return w;
}

static void run_manager(int control, unsigned clients)
{
	struct sivshm_manager *m;

	bench_need(sivshm_manager_create(NULL, &m), "sivshm_manager_create");
	if (way == HANDED) {
		atomic_store(&shared->go, true);
		atomic_store(&shared->start, bench_now_ns());
		for (unsigned i = 0; i < peers; i++) {
			int socket = bench_need(sivshm_worker_take_socket(add_worker(m)),
						"sivshm_worker_take_socket");
			int rc;

			while ((rc = wire_send(control, 0, socket)) == -EAGAIN)
				bench_pause();
			bench_need(rc, "handing over");
			close(socket);
		}
	} else {
		/* As a manager does that has its workers known before they come. The classic's
		 * clock does not run while it makes itself ready, either. */
		for (unsigned i = 0; i < peers; i++) {
			char path[PATH_BYTES];

			path_of(i, path);
			bench_need(sivshm_worker_listen(add_worker(m), path, 0600, NULL), path);
		}
		atomic_store(&shared->go, true);
	}
	while ((clients = reap(clients, WNOHANG)))
		bench_need(sivshm_manager_dispatch(m, 10), "sivshm_manager_dispatch");
	sivshm_manager_destroy(m);
}

static void run_distributor(unsigned clients)
{
	pid_t distributor, self = getpid();
	char path[PATH_BYTES];
	struct classic *c;

	path_of(0, path);
	c = classic_create(path, vectors, SEGMENT);
	distributor = bench_must(fork(), "fork");
	if (!distributor) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			exit(1);
		classic_serve(c);
	}
	atomic_store(&shared->go, true);
	while (clients) {
		int status;
		pid_t pid = bench_must(waitpid(-1, &status, 0), "waitpid");

		if (pid == distributor || status)
			bench_die("the distributor or a client has failed");
		clients--;
	}
	kill(distributor, SIGKILL);
	waitpid(distributor, NULL, 0);
	unlink(path);
}

int main(int argc, char **argv)
{
	unsigned long expected;
	unsigned clients;
	int control[2];

	if (argc != 4)
		bench_die("usage: bench-handshake classic|handed|connected PEERS VECTORS");
	while (strcmp(argv[1], ways[way]))
		if (++way > CONNECTED)
			bench_die("no way '%s'", argv[1]);
	peers = (unsigned)bench_number(argv[2], 1);
	vectors = (unsigned)bench_number(argv[3], 1);
	if (peers > PEERS_MAX || vectors > SIVSHM_VECTORS_MAX)
		bench_die("at most %d peers with %d vectors", PEERS_MAX, SIVSHM_VECTORS_MAX);
	snprintf(folder, sizeof(folder), "/tmp/bench-handshake-XXXXXX");
	if (!mkdtemp(folder))
		bench_die("%s: %s", folder, strerror(errno));
	signal(SIGPIPE, SIG_IGN);
	/* Of doorbells the other side keeps two a peer and vector, and some more. */
	bench_allow_descriptors(peers * (2 * vectors + 8UL) + 1000);
	shared = bench_shared(sizeof(*shared));
	bench_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control), "socketpair");
	bench_must(fcntl(control[1], F_SETFL, O_NONBLOCK), "fcntl");
	clients = start_clients(control[1]);
	bench_pin(0);
	if (way == CLASSIC)
		run_distributor(clients);
	else
		run_manager(control[0], clients);
	rmdir(folder);
	expected = peers * expected_of_each();
	printf("{\"way\": \"%s\", \"peers\": %u, \"vectors\": %u, \"ms\": %.3f, \"messages\": %lu, "
	       "\"lost\": %lu}\n",
	       argv[1], peers, vectors,
	       (double)(atomic_load(&shared->end) - atomic_load(&shared->start)) / 1e6, expected,
	       expected - atomic_load(&shared->taken));
	return 0;
}
