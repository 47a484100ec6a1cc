/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ringing and being rung by eventfds that the other side holds, too.
 *
 * An eventfd that is shared has its counter and its file-status flags in common: a peer can fill
 * the counter to the brim and clear O_NONBLOCK, and then write(2) on this side sleeps for as long
 * as the peer likes, and read(2) of an empty one does as well. There is no write that cannot be
 * made to block. But the kernel itself signals eventfds from where it may not sleep, and that can
 * be asked for: a completion of kernel AIO names an eventfd to be signalled. So to ring is to
 * submit a read of zero bytes of a file of one's own. It completes on the spot, whatever the
 * counter and the flags are.
 *
 * Each completion leaves an event in the context's ring, which nobody needs; when the ring is full,
 * submission says EAGAIN, and it is emptied. Both calls may be made by many threads at once.
 *
 * Taking is easier: preadv2() has a flag of its own that does not depend on the file's.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
	EVENTS = 64,
	/* Other threads may use up what was made free, but not for ever. */
	TRIES = 10000,
};

/* Old kernels cannot take without waiting. */
static int check_kernel(struct sivshm_ringer *r)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	int rc = fd < 0 ? -errno : sivshm_ringer_ring(r, fd);

	if (rc == 0 && (sivshm_eventfd_take(fd) != 1 || sivshm_eventfd_take(fd) != 0))
		rc = -ENOSYS;
	if (fd >= 0)
		close(fd);
	return rc;
}

int sivshm_ringer_init(struct sivshm_ringer *r)
{
	int rc;

	r->context = 0;
	r->file = memfd_create("sivshm-ringer", MFD_CLOEXEC);
	if (r->file < 0)
		return -errno;
	rc = syscall(SYS_io_setup, EVENTS, &r->context) < 0 ? -errno : check_kernel(r);
	if (rc < 0)
		sivshm_ringer_fini(r);
	return rc;
}

void sivshm_ringer_fini(struct sivshm_ringer *r)
{
	if (r->file < 0)
		return;
	if (r->context)
		syscall(SYS_io_destroy, r->context);
	close(r->file);
	r->file = -1;
}

static int submit(struct sivshm_ringer *r, struct iocb *cb)
{
	struct io_event events[EVENTS];
	struct timespec now = {0};

	for (int i = 0; i < TRIES; i++) {
		if (syscall(SYS_io_submit, r->context, 1L, &cb) == 1)
			return 0;
		if (errno != EAGAIN)
			return -errno;
		syscall(SYS_io_getevents, r->context, 0L, (long)EVENTS, events, &now);
	}
	return -EAGAIN;
}

int sivshm_ringer_ring(struct sivshm_ringer *r, int fd)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)r->file,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)fd,
	};

	return submit(r, &cb);
}

/*
 * The kernel looks up the eventfd first (EINVAL if it is none), and then the buffer: one that no
 * process can have is EFAULT, and what fails like this signals nothing.
 */
int sivshm_ringer_check(struct sivshm_ringer *r, int fd)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)r->file,
		.aio_buf = (uintptr_t)-4096,
		.aio_nbytes = 1,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)fd,
	};
	int rc = submit(r, &cb);

	return rc == -EFAULT ? 0 : rc == -EINVAL || rc == 0 ? -EPROTO : rc;
}

int sivshm_eventfd_take(int fd)
{
	uint64_t count;
	struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	if (n == (ssize_t)sizeof(count))
		return 1;
	return n < 0 && errno == EOPNOTSUPP ? -EOPNOTSUPP : 0;
}

int sivshm_eventfd_wait(int fd, int liveness, int timeout_ms)
{
	int64_t deadline = sivshm_deadline(timeout_ms);
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = liveness, .events = POLLIN}};

	for (;;) {
		int n, left, rc = sivshm_eventfd_take(fd);

		if (rc)
			return rc;
		/* What was rung before the end has just been looked for. */
		if (fds[1].revents)
			return -EPIPE;
		left = sivshm_deadline_left(deadline);
		n = poll(fds, 2, left);
		if (n < 0)
			return -errno;
		/* The other side could ring and take it back for ever. */
		if (n == 0 || (left == 0 && !fds[1].revents))
			return n ? sivshm_eventfd_take(fd) : 0;
	}
}
