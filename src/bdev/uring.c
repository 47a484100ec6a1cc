/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uring: files and block devices by io_uring.
 *
 * One ring a reactor.  Its descriptor is in the reactor's epoll set, so the reactor can sleep while
 * the disk works; awake, it sees completions in the ring's memory without a system call.
 *
 * Plain buffers and plain descriptors, by figures (tests/bench/bench_uring_buffers: Linux 6.18, 2
 * cores not to ourselves, direct I/O on ext4 on a virtio disk, medians of 15 runs in turns,
 * thousands of operations a second, plain and then with registered buffers): 4 KiB reads at depth
 * 1 20.1 and 21.3, at depth 32 59.6 and 59.5, 4 KiB writes 79.2 and 78.5, 128 KiB reads 6.5
 * and 6.2, all well inside their spread, as with a registered file.  What registering does save is
 * time in the kernel: 6 of 13 us for 128 KiB, 1 of 4 us for 4 KiB.  For that the buffers would have
 * to be known beforehand and an io's be one piece, where bounce pages are scattered, and on
 * Linux 6.1 pages of gntalloc or gntdev cannot be registered at all.
 */
#include <errno.h>
#include <liburing.h>
#include <string.h>

#include "bdev/queue.h"

enum {
	SQ_ENTRIES = 256,
	/* Also how many ios are in flight at most, so that completions always have room. */
	CQ_ENTRIES = 1024,
};

struct uring_queue {
	struct bdev_queue q;
	struct io_uring ring;
	struct log_limit errors;
};

static struct uring_queue *uring_of(struct bdev_queue *q)
{
	return container_of(q, struct uring_queue, q);
}

/*
 * Linux finishes an io in the context of the thread that submitted it.  By default it interrupts
 * that thread, on another core by an inter-processor interrupt; COOP_TASKRUN spares that (a tenth
 * to a third less time in the kernel at depth 1, no difference at depth 32), and TASKRUN_FLAG has
 * the kernel say in the ring's memory that something waits to be finished, which a thread that
 * spins without system calls would otherwise not notice for long.  SINGLE_ISSUER promises that one
 * thread alone submits.  DEFER_TASKRUN, which finishes nothing until it is asked to, measured no
 * better.  Kernels before 6.0 and 5.19 know fewer of these.
 */
static const unsigned setups[] = {
	IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SINGLE_ISSUER,
	IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_CQSIZE,
};

static int ring_init(struct io_uring *ring)
{
	int rc = -EINVAL;

	for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]) && rc == -EINVAL; i++) {
		struct io_uring_params params = {.flags = setups[i], .cq_entries = CQ_ENTRIES};

		rc = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
	}
	return rc;
}

static int uring_open(struct bdev_queue *q)
{
	struct uring_queue *u = uring_of(q);
	int rc = ring_init(&u->ring);

	if (rc) {
		log_error("reactor %s: no io_uring: %s", reactor_name(q->reactor), strerror(-rc));
		return rc;
	}
	q->depth = CQ_ENTRIES;
	q->fd.fd = u->ring.ring_fd;
	return 0;
}

static void uring_close(struct bdev_queue *q)
{
	io_uring_queue_exit(&uring_of(q)->ring);
}

static void prepare(struct io_uring_sqe *sqe, struct bdev_io *io)
{
	int fd = bdev_file_of(io->ch->bdev)->fd;
	struct bdev_rest rest;

	if (io->op == BDEV_FLUSH) {
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	} else {
		bool write = io->op == BDEV_WRITE;
		unsigned n;

		bdev_queue_get_rest(io, &rest);
		n = (unsigned)rest.iovcnt;
		if (n > 1 && write)
			io_uring_prep_writev(sqe, fd, rest.iov, n, rest.offset);
		else if (n > 1)
			io_uring_prep_readv(sqe, fd, rest.iov, n, rest.offset);
		else if (write)
			io_uring_prep_write(sqe, fd, rest.iov->iov_base,
					    (unsigned)rest.iov->iov_len, rest.offset);
		else
			io_uring_prep_read(sqe, fd, rest.iov->iov_base, (unsigned)rest.iov->iov_len,
					   rest.offset);
	}
	io_uring_sqe_set_data(sqe, io);
}

/* What the kernel does not take now stays in the ring, and is offered with the next. */
static int uring_submit(struct bdev_queue *q)
{
	struct uring_queue *u = uring_of(q);
	struct bdev_io *io;
	int rc, taken = 0;

	do {
		while (io_uring_sq_space_left(&u->ring) && (io = bdev_queue_take(q)))
			prepare(io_uring_get_sqe(&u->ring), io);
		rc = io_uring_submit(&u->ring);
		if (rc > 0)
			taken += rc;
	} while (rc > 0);
	/* Short of memory or of room for completions is a matter of time. */
	if (rc && rc != -EAGAIN && rc != -EBUSY && rc != -EINTR)
		log_limited(&u->errors, LOG_LEVEL_ERROR, "reactor %s: io_uring takes nothing: %s",
			    reactor_name(q->reactor), strerror(-rc));
	return taken;
}

/* Whether completions wait where only the kernel can get at them. */
static bool must_enter(struct uring_queue *u)
{
	return IO_URING_READ_ONCE(*u->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static int uring_reap(struct bdev_queue *q)
{
	struct uring_queue *u = uring_of(q);
	struct io_uring_cqe *cqe;
	int n = 0;

	if (must_enter(u))
		io_uring_get_events(&u->ring);
	for (; io_uring_cq_ready(&u->ring) && !io_uring_peek_cqe(&u->ring, &cqe); n++) {
		struct bdev_io *io = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		bdev_queue_complete(q, io, res);
	}
	return n;
}

static bool uring_arm(struct bdev_queue *q)
{
	struct uring_queue *u = uring_of(q);

	/* The ring's descriptor is readable as long as there are completions: nothing to prepare.
	 */
	return io_uring_sq_ready(&u->ring) || io_uring_cq_ready(&u->ring) || must_enter(u);
}

static const struct bdev_queue_ops queue_ops = {
	.name = "uring",
	.size = sizeof(struct uring_queue),
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.reap = uring_reap,
	.arm = uring_arm,
};

static _Thread_local struct bdev_queue *queue;

static int uring_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	return bdev_queue_channel_open(&queue_ops, &queue, r, ch);
}

static json_t *uring_config(const struct bdev *b, const char **method)
{
	*method = "bdev_uring_create";
	return bdev_file_config(b);
}

static const struct bdev_ops uring_ops = {
	.product = "uring",
	.destroy = bdev_file_destroy,
	.channel_open = uring_channel_open,
	.channel_close = bdev_queue_channel_close,
	.submit = bdev_queue_submit,
	.probe_open = bdev_file_probe_open,
	.probe_measure = bdev_file_probe_measure,
	.config = uring_config,
};

/* Whether this kernel has io_uring, allows it, and knows the operations. */
static int check_kernel(struct err *err)
{
	static const int needed[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV,
				     IORING_OP_WRITEV, IORING_OP_FSYNC};
	struct io_uring_probe *probe;
	struct io_uring ring;
	bool all;
	int rc;

	rc = io_uring_queue_init(8, &ring, 0);
	if (rc == -ENOSYS)
		return err_set(err, -ENOSYS, "this kernel has no io_uring: use \"aio\"");
	if (rc == -EPERM || rc == -EACCES)
		return err_set(
			err, -ENOSYS,
			"this system forbids io_uring (kernel.io_uring_disabled, or a seccomp "
			"filter): allow it, or use \"aio\"");
	if (rc)
		return err_set(err, rc,
			       "io_uring does not start: %s: raise the limits of locked memory and "
			       "open files, or use \"aio\"",
			       strerror(-rc));
	probe = io_uring_get_probe_ring(&ring);
	all = probe;
	for (size_t i = 0; all && i < sizeof(needed) / sizeof(needed[0]); i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
	if (!all)
		return err_set(err, -ENOSYS,
			       "this kernel's io_uring is too old (before 5.6): use \"aio\"");
	return 0;
}

int bdev_uring_create(const char *name, const struct bdev_file_opts *opts, struct bdev **out,
		      struct err *err)
{
	int rc = check_kernel(err);

	return rc ? rc : bdev_file_create(&uring_ops, name, opts, out, err);
}
