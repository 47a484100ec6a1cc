/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker's end in a process: the greeting is read and judged, and then it is a pair's side.
 *
 * A worker may trust its manager no more than the manager trusts it. So the memory must be such
 * that nobody can cut it off under the mapping (a sealed memfd of plain shared memory), doorbells
 * must be eventfds and nothing that blocks, and what else comes is closed.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

struct process {
	struct sivshm_pair pair;
	struct sivshm_ringer ringer;
};

static void process_close(struct sivshm_pair *pair)
{
	struct process *process = SIVSHM_CONTAINER_OF(pair, struct process, pair);

	sivshm_pair_fini(pair);
	sivshm_ringer_fini(&process->ringer);
	if (pair->port.memory)
		munmap(pair->port.memory, pair->port.size);
	free(process);
}

/* A message that must have a descriptor, or none. */
static int receive(int socket, int64_t deadline, bool with_fd, int64_t *value, int *fd)
{
	int rc = sivshm_wire_receive(socket, deadline, value, fd);

	if (rc < 0)
		return rc;
	if ((*fd >= 0) == with_fd)
		return 0;
	sivshm_close_fd(fd);
	return -EPROTO;
}

static int receive_ids(struct sivshm_port *port, int socket, int64_t deadline)
{
	int64_t value;
	int fd, rc = receive(socket, deadline, false, &value, &fd);

	if (rc < 0)
		return rc;
	if (value != SIVSHM_WIRE_VERSION)
		return -EPROTO;
	rc = receive(socket, deadline, false, &value, &fd);
	if (rc < 0)
		return rc;
	if (value < 0 || value > SIVSHM_ID_MAX || !(value & 1))
		return -EPROTO;
	port->id = (unsigned)value;
	port->peer = port->id ^ 1;
	return 0;
}

/*
 * Memory that stays: sealed against being cut, and of the kind of which a hole that somebody
 * punches is just filled with zeros (huge pages of hugetlbfs can be missing then).
 */
static int map_memory(struct sivshm_port *port, int fd)
{
	struct stat st;
	struct statfs fs;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -EPROTO;
	if (fs.f_type != TMPFS_MAGIC || st.st_size < SIVSHM_SEGMENT_MIN ||
	    (st.st_size & (st.st_size - 1)))
		return -EPROTO;
	port->size = (size_t)st.st_size;
	port->memory = mmap(NULL, port->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (port->memory == MAP_FAILED) {
		port->memory = NULL;
		return errno == EACCES || errno == EPERM ? -EPROTO : -errno;
	}
	/* What this program starts is not the worker. */
	madvise(port->memory, port->size, MADV_DONTFORK);
	return 0;
}

static int receive_memory(struct sivshm_port *port, int socket, int64_t deadline)
{
	int64_t value;
	int fd, rc = receive(socket, deadline, true, &value, &fd);

	if (rc < 0)
		return rc;
	rc = value == SIVSHM_WIRE_MEMORY ? map_memory(port, fd) : -EPROTO;
	close(fd);
	return rc;
}

/*
 * How many doorbells there are is said nowhere: the manager's come first, and as many of one's own
 * end the greeting.
 */
static int receive_bells(struct process *process, int socket, int64_t deadline)
{
	struct sivshm_port *port = &process->pair.port;
	unsigned own = 0;

	do {
		int64_t value;
		int fd, rc = receive(socket, deadline, true, &value, &fd);
		bool theirs = rc == 0 && value == port->peer && !own;

		if (rc < 0)
			return rc;
		rc = sivshm_ringer_check(&process->ringer, fd);
		if (rc == 0 && theirs && port->vectors < SIVSHM_VECTORS_MAX)
			process->pair.out[port->vectors++] = fd;
		else if (rc == 0 && value == port->id && own < port->vectors)
			process->pair.in[own++] = fd;
		else {
			close(fd);
			return rc < 0 ? rc : -EPROTO;
		}
	} while (!own || own < port->vectors);
	return 0;
}

static int greet(struct process *process, int64_t deadline)
{
	struct sivshm_port *port = &process->pair.port;
	int socket = process->pair.socket;
	int rc = receive_ids(port, socket, deadline);

	if (rc == 0)
		rc = receive_memory(port, socket, deadline);
	if (rc == 0)
		rc = receive_bells(process, socket, deadline);
	return rc;
}

/* @socket is taken over. */
static int process_open(int socket, int64_t deadline, struct sivshm_port **out)
{
	struct process *process = malloc(sizeof(*process));
	int rc = -ENOMEM;

	if (!process)
		goto no_process;
	rc = sivshm_ringer_init(&process->ringer);
	if (rc < 0)
		goto no_ringer;
	rc = sivshm_pair_init(&process->pair, &process->ringer);
	if (rc < 0)
		goto no_pair;
	process->pair.close = process_close;
	rc = sivshm_pair_connect(&process->pair, socket);
	if (rc < 0)
		goto not_connected;
	rc = greet(process, deadline);
	if (rc < 0) {
		process_close(&process->pair);
		return rc;
	}
	*out = &process->pair.port;
	return 0;

not_connected:
	sivshm_pair_fini(&process->pair);
no_pair:
	sivshm_ringer_fini(&process->ringer);
no_ringer:
	free(process);
no_process:
	close(socket);
	return rc;
}

int sivshm_process_open_fd(int fd, int timeout_ms, struct sivshm_port **out)
{
	int domain, type;
	socklen_t len = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
		return -errno;
	len = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -errno;
	if (domain != AF_UNIX || type != SOCK_STREAM)
		return -EPROTOTYPE;
	/* It came through exec(); it goes no further. */
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return process_open(fd, sivshm_deadline(timeout_ms), out);
}

/* Connects to a listener whose backlog may be full for a while. */
static int connect_path(const char *path, int timeout_ms)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	if (!*path)
		return -EINVAL;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (timeout_ms >= 0) {
		struct timeval patience = {.tv_sec = timeout_ms / 1000,
					   .tv_usec = timeout_ms % 1000 * 1000 + 1};

		/* By this a connect() to a UNIX socket is bounded, too. */
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	}
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	rc = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return rc;
}

int sivshm_process_open_path(const char *path, int timeout_ms, struct sivshm_port **out)
{
	int64_t deadline = sivshm_deadline(timeout_ms);
	int fd = connect_path(path, timeout_ms);

	return fd < 0 ? fd : process_open(fd, deadline, out);
}
