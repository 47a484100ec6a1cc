/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ways to hand requests to the kernel.
 *
 * io_uring is what a program takes today that wants speed: many requests a system call, and when it
 * measures also buffers and a file that the kernel knows beforehand, and completions that are
 * processed only when they are asked for.  Where the kernel or the limits of a user refuse these,
 * it goes on without, and the result says so.  libaio is what most programs still have; its two
 * system calls are made here without the library, which adds nothing to them.
 */
#include <errno.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "load.h"

struct engine {
	struct load *l;
	bool aio;
	bool fixed;
	struct io_uring ring;

	aio_context_t context;
	struct iocb *iocbs;   /* one a slot */
	struct iocb **queued; /* prepared ones */
	unsigned queued_count;
	struct io_event *events;
	unsigned reapable;
};

static bool fix(struct engine *e, size_t buffer)
{
	struct load *l = e->l;
	struct iovec *vectors = allocate(l->depth, sizeof(*vectors));
	bool good;

	for (unsigned i = 0; i < l->depth; i++)
		vectors[i] = (struct iovec){l->slots[i].buffer, buffer};
	good = io_uring_register_files(&e->ring, &l->fd, 1) == 0 &&
	       io_uring_register_buffers(&e->ring, vectors, l->depth) == 0;
	free(vectors);
	return good;
}

static void open_ring(struct engine *e, size_t buffer)
{
	struct load *l = e->l;
	int rc = -EINVAL;

	if (!l->verify)
		rc = io_uring_queue_init(l->depth, &e->ring,
					 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (rc < 0)
		rc = io_uring_queue_init(l->depth, &e->ring, 0);
	if (rc < 0)
		refuse("io_uring: %s", strerror(-rc));
	if (l->verify)
		return;
	e->fixed = fix(e, buffer);
	if (e->fixed)
		return;
	io_uring_queue_exit(&e->ring);
	rc = io_uring_queue_init(l->depth, &e->ring, 0);
	if (rc < 0)
		refuse("io_uring: %s", strerror(-rc));
}

struct engine *engine_open(struct load *l, size_t buffer)
{
	struct engine *e = allocate(1, sizeof(*e));

	e->l = l;
	e->aio = !strcmp(l->engine_name, "libaio");
	if (!e->aio) {
		open_ring(e, buffer);
		return e;
	}
	e->iocbs = allocate(l->depth, sizeof(*e->iocbs));
	e->queued = allocate(l->depth, sizeof(*e->queued));
	e->events = allocate(l->depth, sizeof(*e->events));
	if (syscall(SYS_io_setup, l->depth, &e->context) < 0)
		refuse("io_setup: %s", strerror(errno));
	return e;
}

static void queue_aio(struct engine *e, struct slot *slot, uint64_t offset)
{
	struct iocb *iocb = &e->iocbs[slot - e->l->slots];

	*iocb = (struct iocb){.aio_data = (uintptr_t)slot,
			      .aio_fildes = (uint32_t)e->l->fd,
			      .aio_buf = (uintptr_t)slot->buffer,
			      .aio_nbytes = slot->sectors * SECTOR,
			      .aio_offset = (int64_t)offset,
			      .aio_lio_opcode = slot->op == OP_READ    ? IOCB_CMD_PREAD
						: slot->op == OP_WRITE ? IOCB_CMD_PWRITE
								       : IOCB_CMD_FDSYNC};
	if (slot->op == OP_FLUSH)
		iocb->aio_buf = iocb->aio_nbytes = 0;
	e->queued[e->queued_count++] = iocb;
}

bool engine_queue(struct engine *e, struct slot *slot, uint64_t offset)
{
	struct load *l = e->l;
	uint32_t bytes = slot->sectors * SECTOR;
	int index = (int)(slot - l->slots), fd = e->fixed ? 0 : l->fd;
	struct io_uring_sqe *sqe;

	if (e->aio) {
		queue_aio(e, slot, offset);
		return true;
	}
	sqe = io_uring_get_sqe(&e->ring);
	if (!sqe)
		return false;
	if (slot->op == OP_FLUSH)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (slot->op == OP_READ && e->fixed)
		io_uring_prep_read_fixed(sqe, fd, slot->buffer, bytes, offset, index);
	else if (slot->op == OP_READ)
		io_uring_prep_read(sqe, fd, slot->buffer, bytes, offset);
	else if (e->fixed)
		io_uring_prep_write_fixed(sqe, fd, slot->buffer, bytes, offset, index);
	else
		io_uring_prep_write(sqe, fd, slot->buffer, bytes, offset);
	if (e->fixed)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, slot);
	return true;
}

unsigned engine_queued(const struct engine *e)
{
	return e->aio ? e->queued_count : io_uring_sq_ready(&e->ring);
}

static int submit_aio(struct engine *e, unsigned wait)
{
	unsigned sent = 0;
	long rc;

	while (sent < e->queued_count) {
		rc = syscall(SYS_io_submit, e->context, e->queued_count - sent, e->queued + sent);
		if (rc < 0)
			return -errno;
		sent += (unsigned)rc;
	}
	e->queued_count = 0;
	if (!wait)
		return 0;
	rc = syscall(SYS_io_getevents, e->context, wait, e->l->depth, e->events, NULL);
	if (rc < 0 && errno != EINTR)
		return -errno;
	e->reapable = rc > 0 ? (unsigned)rc : 0;
	return 0;
}

int engine_submit(struct engine *e, unsigned wait)
{
	int rc;

	if (e->aio)
		return submit_aio(e, wait);
	rc = wait ? io_uring_submit_and_wait(&e->ring, wait) : io_uring_submit(&e->ring);
	return rc < 0 && rc != -EINTR ? rc : 0;
}

void engine_reap(struct engine *e, void (*done)(struct load *, struct slot *, int result))
{
	struct io_uring_cqe *cqe;
	unsigned head, reaped = 0;

	for (unsigned i = 0; i < e->reapable; i++)
		done(e->l, (void *)(uintptr_t)e->events[i].data, (int)e->events[i].res);
	e->reapable = 0;
	if (e->aio)
		return;
	io_uring_for_each_cqe(&e->ring, head, cqe)
	{
		done(e->l, io_uring_cqe_get_data(cqe), cqe->res);
		reaped++;
	}
	io_uring_cq_advance(&e->ring, reaped);
}

bool engine_is_fixed(const struct engine *e)
{
	return e->fixed;
}
