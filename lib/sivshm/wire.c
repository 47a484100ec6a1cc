/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of IVSHMEM's protocol: a little-endian signed 64-bit integer each, with at most one
 * descriptor.
 *
 * They are written as QEMU wants them, a sendmsg() each. They are read as if the writer meant harm:
 * torn anywhere, with more descriptors than room, or none where one is due. No descriptor outlives
 * a message that is refused, and each is close-on-exec from its first moment.
 */
#include "internal.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for one descriptor, which alignment makes two; the kernel drops what is beyond. */
union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int sivshm_wire_send(int socket, int64_t value, int fd)
{
	uint64_t wire = htole64((uint64_t)value);
	union control control = {0};
	struct iovec iov = {.iov_base = &wire, .iov_len = sizeof(wire)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	do
		n = sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	/* The kernel takes so few bytes whole or not at all. */
	return n < 0 ? -errno : n == (ssize_t)sizeof(wire) ? 0 : -EIO;
}

/* Takes what descriptors came; @fd gets the first. Returns 0, or -EPROTO if it is too many. */
static int take_fds(struct msghdr *msg, int *fd)
{
	int rc = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t nr = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < nr; i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof(got), sizeof(got));
			if (*fd < 0) {
				*fd = got;
				continue;
			}
			close(got);
			rc = -EPROTO;
		}
	}
	return rc;
}

/* Reads up to @bytes. Returns how many, or a negative errno. */
static ssize_t receive_part(int socket, int64_t deadline, void *data, size_t bytes, int *fd)
{
	struct pollfd ready = {.fd = socket, .events = POLLIN};
	union control control;
	struct iovec iov = {.iov_base = data, .iov_len = bytes};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	ssize_t n = poll(&ready, 1, sivshm_deadline_left(deadline));
	int rc;

	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	n = recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN ? -EINTR : -errno;
	rc = take_fds(&msg, fd);
	if (rc < 0)
		return rc;
	return n ? n : -ECONNRESET;
}

int sivshm_wire_receive(int socket, int64_t deadline, int64_t *value, int *fd)
{
	uint64_t wire;
	size_t got = 0;

	*fd = -1;
	while (got < sizeof(wire)) {
		ssize_t n =
			receive_part(socket, deadline, (char *)&wire + got, sizeof(wire) - got, fd);

		if (n == -EINTR)
			continue;
		if (n < 0) {
			sivshm_close_fd(fd);
			return (int)n;
		}
		got += (size_t)n;
	}
	*value = (int64_t)le64toh(wire);
	return 0;
}
