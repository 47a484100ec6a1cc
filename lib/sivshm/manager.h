/* SPDX-License-Identifier: BSD-2-Clause */
/* The manager's parts: the range, the workers in it, and what dispatching asks of them. */
#ifndef SIVSHM_MANAGER_H
#define SIVSHM_MANAGER_H

#include "internal.h"

#include <sys/stat.h>

/* The range (range.c): addresses for all segments, of which each takes a piece. */

struct sivshm_span {
	size_t offset;
	size_t bytes;
	struct sivshm_span *next; /* by offset */
};

struct sivshm_range {
	char *base;
	size_t bytes;
	struct sivshm_span *spans;
};

/* Returns 0, -EINVAL or -ENOMEM. */
int sivshm_range_init(struct sivshm_range *range, uint64_t bytes);
void sivshm_range_fini(struct sivshm_range *range);
/* Maps @memfd whole, @bytes, at a place aligned to its size. Returns 0, -ENOSPC, or another
 * negative errno. */
int sivshm_range_map(struct sivshm_range *range, int memfd, size_t bytes, struct sivshm_span *span);
/* Puts nothing in its place. Returns 0, or a negative errno and it is as before. */
int sivshm_range_unmap(struct sivshm_range *range, struct sivshm_span *span);

/* Who a path is for (listen.c). */
struct sivshm_listener {
	int fd;    /* -1: none */
	int spare; /* a descriptor's place, for when there are no more; -1: none */
	struct sivshm_credentials who;
	char *path;
	dev_t dev; /* of the socket's file */
	ino_t ino;
};

/* Returns as sivshm_worker_listen(). */
int sivshm_listener_init(struct sivshm_listener *l, const char *path, mode_t mode,
			 const struct sivshm_credentials *who);
/* Also removes the file, if it is still the same. */
void sivshm_listener_fini(struct sivshm_listener *l);
/* Returns a socket to one who may connect, -EAGAIN if there is none, or -EPERM: one was sent away.
 */
int sivshm_listener_accept(struct sivshm_listener *l);
/* Lets nobody in any more; the path stays taken. */
void sivshm_listener_shut(struct sivshm_listener *l);

/* What an event's data points to. */
enum sivshm_watch_kind { SIVSHM_WATCH_BELL, SIVSHM_WATCH_SOCKET, SIVSHM_WATCH_LISTENER };

struct sivshm_watch {
	struct sivshm_worker *worker;
	enum sivshm_watch_kind kind;
	unsigned vector;
};

struct sivshm_worker {
	struct sivshm_pair pair;
	struct sivshm_manager *manager;
	struct sivshm_worker *prev, *next; /* in the manager's list, or next of the removed */
	struct sivshm_worker_opts opts;
	struct sivshm_span span;
	struct sivshm_listener listener;
	struct sivshm_watch socket_watch, listener_watch;
	struct sivshm_watch bells[SIVSHM_VECTORS_MAX];
	int memfd;        /* until the handshake is written; then -1 */
	unsigned written; /* messages of the handshake */
	bool promised;    /* by a socket or a path */
	bool ended;       /* the other side has gone, and that was said */
	bool removed;
};

struct sivshm_manager {
	int epoll;
	struct sivshm_ringer ringer;
	struct sivshm_range range;
	struct sivshm_worker *workers;
	/* Removed while events that name them were being dispatched, or whose place could not be
	 * emptied. */
	struct sivshm_worker *removed;
	unsigned next_pair; /* of IDs */
	bool dispatching;
};

/* Something happened to a worker (worker.c). Returns how many callbacks were called. */
int sivshm_worker_handle(struct sivshm_watch *watch, uint32_t events);
/* Frees those of manager->removed that can be. */
void sivshm_manager_sweep(struct sivshm_manager *m);

#endif
