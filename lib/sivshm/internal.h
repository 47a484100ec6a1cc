/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What libsivshm's files share: what a port is underneath, and the parts of those made of eventfds.
 *
 * A port is a struct of plain values with a table of functions behind it. There are two kinds:
 * a pair's side (pair.c), which is two sets of eventfds and a socket, for the manager and for
 * worker processes; and an ivshmem device (pci.c), for workers in guests.
 */
#ifndef SIVSHM_INTERNAL_H
#define SIVSHM_INTERNAL_H

#include "sivshm.h"

#include <linux/aio_abi.h>
#include <stdatomic.h>

/*
 * All may be called with a vector below port->vectors only; sivshm_port_*() have seen to that. They
 * return what the public function of that name says.
 */
struct sivshm_port_ops {
	int (*ring)(struct sivshm_port *p, unsigned vector);
	int (*fd)(const struct sivshm_port *p, unsigned vector);
	int (*take)(struct sivshm_port *p, unsigned vector);
	int (*wait)(struct sivshm_port *p, unsigned vector, int timeout_ms);
	int (*liveness_fd)(const struct sivshm_port *p);
	int (*is_alive)(struct sivshm_port *p);
	void (*close)(struct sivshm_port *p);
};

/* The first member of each kind of port. */
struct sivshm_port {
	const struct sivshm_port_ops *ops;
	void *memory;
	size_t size;
	unsigned id;
	unsigned peer;
	unsigned vectors;
};

#define SIVSHM_CONTAINER_OF(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* A device's port; @address as in 0000:00:04.0, or NULL: the only one of this machine. */
int sivshm_pci_open(const char *address, struct sivshm_port **out);
/* A process's port, by a socket (which is taken over, also on errors), or by a path. */
int sivshm_process_open_fd(int fd, int timeout_ms, struct sivshm_port **out);
int sivshm_process_open_path(const char *path, int timeout_ms, struct sivshm_port **out);

/* Closes a descriptor, unless it is -1, which it is then. */
void sivshm_close_fd(int *fd);

/* Time: what is left of a timeout. */

/* Milliseconds of the monotonic clock at which @timeout_ms from now is over; -1: never. */
int64_t sivshm_deadline(int timeout_ms);
/* What poll() is to wait so as not to miss it: 0 if it is over, -1: for ever. */
int sivshm_deadline_left(int64_t deadline);

/* Eventfds (eventfd.c) */

/* Rings eventfds without ever blocking; from any thread. */
struct sivshm_ringer {
	aio_context_t context;
	int file; /* from which nothing is read */
};

/* Returns 0, or a negative errno: -ENOSYS without kernel AIO, -EAGAIN if fs.aio-max-nr is used up.
 */
int sivshm_ringer_init(struct sivshm_ringer *r);
void sivshm_ringer_fini(struct sivshm_ringer *r);
/* Returns 0 or a negative errno. */
int sivshm_ringer_ring(struct sivshm_ringer *r, int fd);
/* Whether @fd is an eventfd; it is not rung. Returns 0 or a negative errno, -EPROTO if it is not.
 */
int sivshm_ringer_check(struct sivshm_ringer *r, int fd);
/* Empties an eventfd, never blocking. Returns 1, 0 (it was empty), or -EOPNOTSUPP (an old kernel).
 */
int sivshm_eventfd_take(int fd);
/*
 * Sleeps until the eventfd @fd can be taken, and takes it, or until @liveness (-1: none) is
 * readable. Returns 1, 0 at the @timeout_ms, -EPIPE, or -EINTR.
 */
int sivshm_eventfd_wait(int fd, int liveness, int timeout_ms);

/* Pairs (pair.c): one side of a pair of which each holds the other's eventfds. */

struct sivshm_pair {
	struct sivshm_port port;
	struct sivshm_ringer *ringer;
	void (*close)(struct sivshm_pair *pair); /* NULL: not the caller's to end */
	int socket;                              /* -1 until the other side has come */
	int liveness; /* an epoll set that is ready when the other side has hung up */
	atomic_bool gone;
	int in[SIVSHM_VECTORS_MAX];  /* which the other side rings */
	int out[SIVSHM_VECTORS_MAX]; /* which this side rings */
};

/* Makes a pair without descriptors or memory. Returns 0 or a negative errno. */
int sivshm_pair_init(struct sivshm_pair *pair, struct sivshm_ringer *ringer);
/* Closes all descriptors; memory is the caller's to unmap. */
void sivshm_pair_fini(struct sivshm_pair *pair);
/* The other side is at the end of @socket, which is the pair's from here on, unless it fails. */
int sivshm_pair_connect(struct sivshm_pair *pair, int socket);

/* The wire (wire.c): messages of IVSHMEM's protocol, one way, from the manager. */

enum { SIVSHM_WIRE_VERSION = 0, SIVSHM_WIRE_MEMORY = -1 };

/* Sends one message, with a descriptor unless @fd is -1, without blocking. Returns 0 or a negative
 * errno: -EAGAIN if there is no room. */
int sivshm_wire_send(int socket, int64_t value, int fd);
/*
 * Receives one message by @deadline; *@fd: its descriptor, with close-on-exec, or -1. Returns 0,
 * -ETIMEDOUT, -ECONNRESET (it ends here), -EPROTO (more than one descriptor), or another negative
 * errno.
 */
int sivshm_wire_receive(int socket, int64_t deadline, int64_t *value, int *fd);

#endif
