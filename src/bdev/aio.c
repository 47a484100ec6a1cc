/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * aio: files and block devices by Linux's older asynchronous I/O, for kernels without io_uring.
 *
 * One context a reactor.  Completions are counted on an eventfd, which wakes a sleeping reactor;
 * awake, libaio looks into the context's ring in memory and makes a system call only when
 * something is there.  What this interface cannot do without blocking (allocating writes, anything
 * through the page cache) blocks the reactor, which is why it is second choice.
 */
#include <errno.h>
#include <libaio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bdev/queue.h"

enum {
	/* In flight at most; taken from the host's fs.aio-max-nr (65536). */
	DEPTH = 1024,
	/* In one system call. */
	BATCH = 128,
};

struct aio_queue {
	struct bdev_queue q;
	io_context_t context;
	bool flush_refused; /* the kernel (before 4.18) has no asynchronous fdatasync */
};

static struct aio_queue *aio_of(struct bdev_queue *q)
{
	return container_of(q, struct aio_queue, q);
}

static int aio_open(struct bdev_queue *q)
{
	struct aio_queue *a = aio_of(q);
	int rc;

	q->fd.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (q->fd.fd < 0) {
		rc = -errno;
		log_error("reactor %s: no eventfd: %s", reactor_name(q->reactor), strerror(-rc));
		return rc;
	}
	rc = io_setup(DEPTH, &a->context);
	if (rc) {
		log_error("reactor %s: no aio context: %s%s", reactor_name(q->reactor),
			  strerror(-rc), rc == -EAGAIN ? ": raise the sysctl fs.aio-max-nr" : "");
		close(q->fd.fd);
		return rc;
	}
	q->depth = DEPTH;
	return 0;
}

static void aio_close(struct bdev_queue *q)
{
	io_destroy(aio_of(q)->context);
	close(q->fd.fd);
}

static void prepare(struct iocb *iocb, struct bdev_io *io, int event_fd)
{
	int fd = bdev_file_of(io->ch->bdev)->fd;
	struct bdev_rest rest;

	if (io->op == BDEV_FLUSH) {
		io_prep_fdsync(iocb, fd);
	} else {
		bool write = io->op == BDEV_WRITE;
		long long offset;

		bdev_queue_get_rest(io, &rest);
		offset = (long long)rest.offset;
		if (rest.iovcnt > 1 && write)
			io_prep_pwritev(iocb, fd, rest.iov, rest.iovcnt, offset);
		else if (rest.iovcnt > 1)
			io_prep_preadv(iocb, fd, rest.iov, rest.iovcnt, offset);
		else if (write)
			io_prep_pwrite(iocb, fd, rest.iov->iov_base, rest.iov->iov_len, offset);
		else
			io_prep_pread(iocb, fd, rest.iov->iov_base, rest.iov->iov_len, offset);
	}
	io_set_eventfd(iocb, event_fd);
	iocb->data = io;
}

/* The kernel refused this io itself, with @rc. */
static void refuse(struct aio_queue *a, struct bdev_io *io, int rc)
{
	if (io->op == BDEV_FLUSH && (rc == -EINVAL || rc == -EOPNOTSUPP)) {
		a->flush_refused = true;
		a->q.inflight--;
		bdev_file_flush(io);
		return;
	}
	bdev_queue_complete(&a->q, io, rc);
}

static int aio_submit(struct bdev_queue *q)
{
	struct aio_queue *a = aio_of(q);
	struct bdev_io *ios[BATCH];
	struct iocb iocbs[BATCH];
	struct iocb *list[BATCH];
	int taken = 0;

	for (;;) {
		int rc, n = 0;

		while (n < BATCH && (ios[n] = bdev_queue_take(q))) {
			if (ios[n]->op == BDEV_FLUSH && a->flush_refused) {
				refuse(a, ios[n], -EINVAL);
				taken++;
				continue;
			}
			prepare(&iocbs[n], ios[n], q->fd.fd);
			list[n] = &iocbs[n];
			n++;
		}
		if (!n)
			return taken;
		rc = io_submit(a->context, n, list);
		for (int i = n; i-- > (rc > 0 ? rc : 0);)
			bdev_queue_put_back(q, ios[i]);
		if (rc > 0) {
			taken += rc;
			continue;
		}
		if (rc == -EAGAIN || rc == -EINTR)
			return taken; /* room comes with completions */
		/* It is the first that the kernel does not like. */
		refuse(a, bdev_queue_take(q), rc ? rc : -EIO);
		taken++;
	}
}

static int aio_reap(struct bdev_queue *q)
{
	struct io_event events[BATCH];
	struct timespec now = {0, 0};
	int rc, n = 0;

	do {
		/* Without a system call when there are none: libaio looks first. */
		rc = io_getevents(aio_of(q)->context, 0, BATCH, events, &now);
		for (int i = 0; i < rc; i++)
			bdev_queue_complete(q, events[i].data, (long)events[i].res);
		n += rc > 0 ? rc : 0;
	} while (rc == BATCH);
	return n;
}

static bool aio_arm(struct bdev_queue *q)
{
	uint64_t completed;

	/*
	 * Empties the counter.  If it was not, completions may have come since the last poll: the
	 * next one takes them and the next arming finds it empty.  What completes after this
	 * read makes it readable again.
	 */
	return read(q->fd.fd, &completed, sizeof(completed)) > 0;
}

static const struct bdev_queue_ops queue_ops = {
	.name = "aio",
	.size = sizeof(struct aio_queue),
	.open = aio_open,
	.close = aio_close,
	.submit = aio_submit,
	.reap = aio_reap,
	.arm = aio_arm,
};

static _Thread_local struct bdev_queue *queue;

static int aio_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	return bdev_queue_channel_open(&queue_ops, &queue, r, ch);
}

static json_t *aio_config(const struct bdev *b, const char **method)
{
	*method = "bdev_aio_create";
	return bdev_file_config(b);
}

static const struct bdev_ops aio_ops = {
	.product = "aio",
	.destroy = bdev_file_destroy,
	.channel_open = aio_channel_open,
	.channel_close = bdev_queue_channel_close,
	.submit = bdev_queue_submit,
	.probe_open = bdev_file_probe_open,
	.probe_measure = bdev_file_probe_measure,
	.config = aio_config,
};

/* Whether a reactor will get its context. */
static int check_kernel(struct err *err)
{
	io_context_t context = NULL;
	int rc = io_setup(DEPTH, &context);

	if (!rc)
		io_destroy(context);
	if (rc == -ENOSYS)
		return err_set(err, rc, "this kernel has no Linux aio: use \"uring\"");
	if (rc == -EAGAIN)
		return err_set(err, rc,
			       "no room for another aio context: raise the sysctl fs.aio-max-nr");
	if (rc)
		return err_set(err, rc, "Linux aio does not start: %s: use \"uring\"",
			       strerror(-rc));
	return 0;
}

int bdev_aio_create(const char *name, const struct bdev_file_opts *opts, struct bdev **out,
		    struct err *err)
{
	int rc = check_kernel(err);

	return rc ? rc : bdev_file_create(&aio_ops, name, opts, out, err);
}
