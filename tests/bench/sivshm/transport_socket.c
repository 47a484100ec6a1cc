/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * By stream sockets: TCP on loopback, and UNIX. A batch is one system call here, too, and so is
 * what a receiver takes; sizes of buffers are the kernel's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench.h"
#include "source.h"
#include "transport.h"

enum { TAKEN_MAX = 256 << 10, BATCH_MAX = 256 };

/* Of a pair's two ends; TCP's are connected one after the other, when all is prepared. */
static int manager_ends[TRANSPORT_WORKERS_MAX], worker_ends[TRANSPORT_WORKERS_MAX];
/* What the kernel has taken a part of. */
static struct rest {
	const uint8_t *at;
	size_t bytes;
} rests[TRANSPORT_WORKERS_MAX];
static int own; /* a worker's */

static void unix_prepare(unsigned workers)
{
	for (unsigned i = 0; i < workers; i++) {
		int ends[2];

		bench_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
		manager_ends[i] = ends[0];
		worker_ends[i] = ends[1];
	}
}

static void tcp_prepare(unsigned workers)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = bench_must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	int on = 1;

	bench_must(bind(listener, (struct sockaddr *)&address, sizeof(address)), "bind");
	bench_must(listen(listener, (int)workers), "listen");
	bench_must(getsockname(listener, (struct sockaddr *)&address, &length), "getsockname");
	for (unsigned i = 0; i < workers; i++) {
		worker_ends[i] =
			bench_must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
		bench_must(connect(worker_ends[i], (struct sockaddr *)&address, sizeof(address)),
			   "connect");
		manager_ends[i] = bench_must(accept(listener, NULL, NULL), "accept");
		setsockopt(worker_ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(manager_ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	close(listener);
}

static void socket_open(unsigned workers)
{
	own = manager_ends[0];
}

static void socket_join(unsigned worker)
{
	struct timeval wait = {.tv_usec = 50000};

	own = worker_ends[worker];
	bench_must(setsockopt(own, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), "setsockopt");
}

static bool socket_finish(unsigned worker)
{
	struct rest *rest = &rests[worker];
	ssize_t sent;

	if (!rest->bytes)
		return true;
	sent = send(manager_ends[worker], rest->at, rest->bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		bench_die("send: %s", strerror(errno));
	if (sent > 0) {
		rest->at += sent;
		rest->bytes -= (size_t)sent;
	}
	return !rest->bytes;
}

static unsigned socket_send(unsigned worker, uint64_t number, unsigned nr, size_t bytes)
{
	struct iovec iov[BATCH_MAX];
	struct msghdr msg = {.msg_iov = iov};
	unsigned begun;
	ssize_t sent;

	if (nr > BATCH_MAX)
		nr = BATCH_MAX;
	for (unsigned i = 0; i < nr; i++)
		iov[i] = (struct iovec){.iov_base = (void *)source_message(number + i),
					.iov_len = bytes};
	msg.msg_iovlen = nr;
	sent = sendmsg(manager_ends[worker], &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		bench_die("sendmsg: %s", strerror(errno));
	if (sent <= 0)
		return 0;
	begun = (unsigned)(((size_t)sent + bytes - 1) / bytes);
	rests[worker].bytes = begun * bytes - (size_t)sent;
	rests[worker].at = source_message(number + begun - 1) + bytes - rests[worker].bytes;
	return begun;
}

static void socket_consume(unsigned worker, bool alone, struct transport_board *board)
{
	struct transport_report *report = &board->reports[worker];
	uint8_t *data = aligned_alloc(4096, TAKEN_MAX);
	size_t left = 0;

	if (!data)
		bench_die("no memory");
	for (;;) {
		ssize_t got = recv(own, data + left, TAKEN_MAX - left, 0);
		size_t whole;

		if (got < 0 && errno != EAGAIN)
			bench_die("recv: %s", strerror(errno));
		if (got <= 0) {
			if (!got || atomic_load(&board->stop))
				return;
			continue;
		}
		/* Lines of the source's, as if they had come in one piece. */
		whole = (left + (size_t)got) / SOURCE_LINE * SOURCE_LINE;
		transport_note(report, whole, source_touch(data, whole));
		left = left + (size_t)got - whole;
		memcpy(data, data + whole, left);
	}
}

static void socket_say(size_t bytes)
{
	if (send(own, source_message(0), bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		bench_die("send: %s", strerror(errno));
}

static void socket_hear(size_t bytes, bool poll)
{
	uint8_t data[4096];
	size_t had = 0;

	while (had < bytes) {
		ssize_t got = recv(own, data, bytes - had, poll ? MSG_DONTWAIT : 0);

		if (!got || (got < 0 && errno != EAGAIN))
			bench_die("recv: %s", got ? strerror(errno) : "closed");
		if (got > 0)
			had += (size_t)got;
	}
}

static const struct transport tcp = {
	.prepare = tcp_prepare,
	.open = socket_open,
	.join = socket_join,
	.send = socket_send,
	.finish = socket_finish,
	.consume = socket_consume,
	.say = socket_say,
	.hear = socket_hear,
};

const struct transport *transport_socket(const char *name)
{
	static struct transport local;

	if (!strcmp(name, "tcp"))
		return &tcp;
	if (strcmp(name, "unix"))
		return NULL;
	local = tcp;
	local.prepare = unix_prepare;
	return &local;
}
