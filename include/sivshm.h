/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sivshm: secure inter-VM shared memory.
 *
 * A manager gives each of its workers a segment of memory that only the two can reach, and eventfds
 * by which they wake each other directly. Workers are processes on the same host, or QEMU guests
 * with the stock device ivshmem-doorbell; they know nothing of each other, and nothing stands in
 * the middle.
 *
 *   manager   sivshm_manager_create(), sivshm_worker_add(), and then the worker's end goes to a
 *             process or to QEMU: sivshm_worker_take_socket(), or sivshm_worker_listen()
 *   worker    sivshm_open(), in a process as in a guest
 *   both      struct sivshm_port, one side of one segment: memory, ringing, waiting;
 *             struct sivshm_channel, messages both ways in a segment
 *
 * The library makes no thread, has no global state, prints nothing and changes no signal's action.
 * What can fail returns a negative errno. What the other side writes is hostile: nothing read from
 * a segment is trusted, and nothing the other side does with what it was given blocks this one or
 * ends it. An object is one thread's at a time; exceptions are named. All descriptors are
 * close-on-exec, and nothing here outlives fork(): a child that goes on has neither the segments
 * nor doorbells that it could ring.
 *
 * See sivshm(7), sivshm_manager(3), sivshm_port(3), sivshm_channel(3).
 */
#ifndef SIVSHM_H
#define SIVSHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

enum {
	SIVSHM_VECTORS_MAX = 64,  /* doorbells of each side */
	SIVSHM_ID_MAX = 65535,    /* the device's IDs have 16 bits */
	SIVSHM_SEGMENT_MIN = 4096 /* bytes */
};

/* Ports: one side of one segment, the same for both sides, in processes and in guests */

struct sivshm_port;

/* The segment: page-aligned, readable and writable, for both sides at all times. */
void *sivshm_port_memory(const struct sivshm_port *p);
/* Its bytes, a power of two. */
size_t sivshm_port_size(const struct sivshm_port *p);
/* This side's ID and the other's, which differ in their lowest bit; the manager's is even. */
unsigned sivshm_port_id(const struct sivshm_port *p);
unsigned sivshm_port_peer(const struct sivshm_port *p);
/* How many doorbells each side has: vectors 0 to this less one. */
unsigned sivshm_port_vectors(const struct sivshm_port *p);

/*
 * Rings the other side's doorbell @vector; rings that were not taken yet count as one. Never
 * blocks, whatever the other side has done to its descriptors. From any thread. Returns 0, -EINVAL
 * (no such vector), -EPIPE (the other side is known to be gone) or another negative errno.
 */
int sivshm_port_ring(struct sivshm_port *p, unsigned vector);
/*
 * A descriptor that polls readable while a ring of @vector waits to be taken; the port's own.
 * -EOPNOTSUPP: rings do not arrive here (a guest without VFIO), so that memory has to be looked at.
 */
int sivshm_port_fd(const struct sivshm_port *p, unsigned vector);
/* Takes what has been rung at @vector, without blocking. Returns 1, 0 (nothing), or -EOPNOTSUPP.
 * One thread a vector. */
int sivshm_port_take(struct sivshm_port *p, unsigned vector);
/*
 * Sleeps until @vector is rung, and takes that; at most @timeout_ms, negative: for ever. Returns 1,
 * 0 (the time is over), -EPIPE once the other side is gone, or -EINTR (a signal came). Where rings
 * do not arrive it naps, at most 1 ms, and returns 1, as something may have happened.
 */
int sivshm_port_wait(struct sivshm_port *p, unsigned vector, int timeout_ms);
/* A descriptor that polls readable when the other side is gone, or -EOPNOTSUPP (in a guest). It is
 * not to be read. */
int sivshm_port_liveness_fd(const struct sivshm_port *p);
/* Whether the other side is there: 1, 0 (also if nobody has come yet), or -EOPNOTSUPP (in a guest).
 */
int sivshm_port_is_alive(struct sivshm_port *p);

/* The worker's end */

/*
 * Opens a worker's port. @where: "fd:N" (a socket from sivshm_worker_take_socket()), "unix:PATH"
 * (one of sivshm_worker_listen()), "pci:ADDRESS" (an ivshmem device, by VFIO if it is bound to
 * vfio-pci, else by sysfs), or NULL: what the environment variable SIVSHM says, or else the only
 * ivshmem device of this machine. Waits for the manager's greeting up to @timeout_ms. Returns 0
 * and *@out, -ETIMEDOUT, -EPROTO (what came is no greeting of this protocol), -ENODEV (nothing to
 * open), -ECONNRESET (the manager has hung up, or does not want this process), -EINVAL, or another
 * negative errno. The socket of "fd:N" is the port's from here on, and closed on errors.
 */
int sivshm_open(const char *where, int timeout_ms, struct sivshm_port **out);
/* Ends a port of sivshm_open(): for the manager the worker is gone. */
void sivshm_port_close(struct sivshm_port *p);

/* The manager's end */

struct sivshm_manager;
struct sivshm_worker;

struct sivshm_manager_opts {
	size_t struct_bytes; /* sizeof(struct sivshm_manager_opts) */
	/* Addresses to reserve for all segments together; 0: 64 GiB. No memory is used for it. */
	uint64_t range_bytes;
};

/* @opts may be NULL. Returns 0 and *@out, -EINVAL, -ENOMEM, or -ENOSYS (a kernel that is too old).
 */
int sivshm_manager_create(const struct sivshm_manager_opts *opts, struct sivshm_manager **out);
/* Removes all workers. Not from a callback. */
void sivshm_manager_destroy(struct sivshm_manager *m);
/* All segments lie in this range, each aligned to its size; between them is nothing to be read. */
void *sivshm_manager_base(const struct sivshm_manager *m);
size_t sivshm_manager_range(const struct sivshm_manager *m);
/* A descriptor that polls readable while sivshm_manager_dispatch() has something to do. */
int sivshm_manager_fd(const struct sivshm_manager *m);
/*
 * Waits up to @timeout_ms (0: not at all; negative: for ever) for workers that come, ring or go,
 * and calls their callbacks, which may add and remove workers. However much one worker rings, each
 * has its turn. Returns how many callbacks were called, which may be none, or a negative errno:
 * -EINTR (a signal came), -EBUSY (from a callback).
 */
int sivshm_manager_dispatch(struct sivshm_manager *m, int timeout_ms);

struct sivshm_worker_opts {
	size_t struct_bytes;    /* sizeof(struct sivshm_worker_opts) */
	uint64_t segment_bytes; /* a power of two from SIVSHM_SEGMENT_MIN on */
	unsigned vectors;       /* 1 to SIVSHM_VECTORS_MAX */
	/* Ask for transparent huge pages; the kernel's shmem_enabled has to allow advice. */
	bool huge_pages;
	/*
	 * The caller waits for rings itself, by sivshm_port_fd(): rung is not called. Such a
	 * descriptor has to leave the caller's epoll set before the worker is removed, as the
	 * worker may have it still.
	 */
	bool own_rings;
	/* From sivshm_manager_dispatch(); each may be NULL. */
	void (*joined)(struct sivshm_worker *w, void *arg); /* one has connected to its path */
	void (*rung)(struct sivshm_worker *w, unsigned vector, void *arg);
	void (*gone)(struct sivshm_worker *w,
		     void *arg); /* once; its segment stays until removed */
	void *arg;
};

/*
 * Makes a worker's segment, zeroed and sealed, and its doorbells. IDs are new ones, which no worker
 * of this manager had before, until all have been used. Returns 0 and *@out, -EINVAL, -ENOMEM,
 * -ENOSPC (the range is full), -EMFILE or another negative errno.
 */
int sivshm_worker_add(struct sivshm_manager *m, const struct sivshm_worker_opts *opts,
		      struct sivshm_worker **out);
/*
 * Ends it: the other side sees the end of its socket, and the memory is the system's again as soon
 * as the other side has let go of it, too. Also from the worker's own callbacks.
 */
void sivshm_worker_remove(struct sivshm_worker *w);
/* The manager's side of the segment; valid until the worker is removed. */
struct sivshm_port *sivshm_worker_port(struct sivshm_worker *w);
/* Where its segment begins in the manager's range, in bytes. */
size_t sivshm_worker_offset(const struct sivshm_worker *w);

/*
 * The worker's end of a socket into which all of the handshake has been written: for QEMU's
 * `-chardev socket,fd=N` or sivshm_open("fd:N"). The caller's, with close-on-exec, once: then
 * -EALREADY, also after sivshm_worker_listen(). When the worker has it, the caller's copy has to be
 * closed, or else its end would not be seen. -ETOOMANYREFS: more descriptors are under way in
 * sockets than this user may have open.
 */
int sivshm_worker_take_socket(struct sivshm_worker *w);

struct sivshm_credentials {
	/* Of the process that connects; -1: any. */
	int64_t uid;
	int64_t gid;
	int64_t pid;
};
/*
 * Lets one process connect to the UNIX socket @path, which is made with mode @mode and removed with
 * the worker. Others, those that the kernel does not vouch to be as @who (NULL: of this process's
 * user) says, are turned away without a byte, and so is whoever comes after the first. Returns 0,
 * -EADDRINUSE (somebody listens there, or something other than a socket is there), -EALREADY,
 * -ENAMETOOLONG, or another negative errno.
 */
int sivshm_worker_listen(struct sivshm_worker *w, const char *path, mode_t mode,
			 const struct sivshm_credentials *who);

/*
 * Channels: messages of any size both ways in a part of a segment, one ring each way, each written
 * by one side and read by the other.
 */

struct sivshm_channel;

struct sivshm_channel_opts {
	size_t struct_bytes; /* sizeof(struct sivshm_channel_opts) */
	size_t offset;       /* in the segment, a multiple of 64 */
	/* Of the segment, for both rings and what they need, at least SIVSHM_CHANNEL_MIN; 0: all
	 * from
	 * @offset on. */
	size_t bytes;
	unsigned vector; /* by which each side rings the other */
};

enum { SIVSHM_CHANNEL_MIN = 4096 };

/*
 * The manager's side lays the channel out, and the worker's finds it: -EAGAIN if it is not there
 * yet, -EPROTO if what is there makes no sense. It may be attached to again, by one at a time, and
 * goes on where it was left; messages that were not given back come again. Also -EINVAL, -ENOMEM.
 * @opts may be NULL: all of the segment, vector 0. The port outlives it.
 */
int sivshm_channel_create(struct sivshm_port *p, const struct sivshm_channel_opts *opts,
			  struct sivshm_channel **out);
int sivshm_channel_attach(struct sivshm_port *p, const struct sivshm_channel_opts *opts,
			  struct sivshm_channel **out);
void sivshm_channel_destroy(struct sivshm_channel *c);
/* Bytes of the largest message. */
size_t sivshm_channel_max(const struct sivshm_channel *c);

/*
 * Sending. What was reserved is committed before more is reserved; what was committed can be read
 * at once, but the other side is woken, if it sleeps, by sivshm_channel_push(): once a batch.
 */

/* *@out: room for a message of up to @bytes, 8-byte aligned, from 512 bytes on 64-byte aligned.
 * Returns 0, -EAGAIN (no room now), -EMSGSIZE (never), or -EPROTO. */
int sivshm_channel_reserve(struct sivshm_channel *c, size_t bytes, void **out);
/* The message has @bytes, at most those reserved. */
void sivshm_channel_commit(struct sivshm_channel *c, size_t bytes);
/* Returns 0 or what sivshm_port_ring() says. */
int sivshm_channel_push(struct sivshm_channel *c);
/* Reserves, copies and commits. Returns as sivshm_channel_reserve(). */
int sivshm_channel_send(struct sivshm_channel *c, const void *data, size_t bytes);
/* Asks to be rung when there is room for @bytes. Returns 1 if there is already, 0, or -EPROTO. */
int sivshm_channel_arm_room(struct sivshm_channel *c, size_t bytes);
/* Pushes, and sleeps until there is. Returns 1, 0 (the time is over), -EPIPE, -EINTR (a signal
 * came) or -EPROTO. */
int sivshm_channel_wait_room(struct sivshm_channel *c, size_t bytes, int timeout_ms);

/*
 * Receiving. A message is read where it lies, and the other side can write there as long as it
 * likes: what is looked at twice must be copied first, once.
 */

/* The next message. Returns 1 with *@data and *@bytes, 0 (none), or -EPROTO: the other side has
 * broken the ring, for good. */
int sivshm_channel_receive(struct sivshm_channel *c, const void **data, size_t *bytes);
/* Gives back the room of all messages that were received. */
void sivshm_channel_release(struct sivshm_channel *c);
/* Copies the next message to @data and gives its room back. Returns its bytes, -EAGAIN (none),
 * -EMSGSIZE (it has more than @max, and stays), or -EPROTO. */
ssize_t sivshm_channel_recv(struct sivshm_channel *c, void *data, size_t max);
/* Asks to be rung by the next message. Returns 1 if there is one already, 0, or -EPROTO. */
int sivshm_channel_arm(struct sivshm_channel *c);
/* Pushes, and sleeps until there is one. Returns 1, 0 (the time is over), -EPIPE, -EINTR (a signal
 * came) or -EPROTO. */
int sivshm_channel_wait(struct sivshm_channel *c, int timeout_ms);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
