/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A manager at work, for tests: it notes what it is told, and workers are ports in the same
 * process, or bare descriptors in the hands of somebody who means harm.
 */
#ifndef SIVSHM_TEST_DESK_H
#define SIVSHM_TEST_DESK_H

#include "internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { DESK_NOTES = 4096 };

enum desk_event { DESK_JOINED, DESK_RUNG, DESK_GONE };

struct desk_note {
	struct sivshm_worker *worker;
	enum desk_event event;
	unsigned vector;
};

struct desk {
	struct sivshm_manager *manager;
	struct desk_note notes[DESK_NOTES];
	unsigned nr_notes;
	/* Called after each note, if it is there. */
	void (*then)(struct desk *desk, const struct desk_note *note);
	void *arg;
};

/* What a worker was given, as it came. */
struct bare {
	int socket;
	int memfd;
	int64_t id;
	unsigned vectors;
	int ring[SIVSHM_VECTORS_MAX];   /* the manager's doorbells */
	int listen[SIVSHM_VECTORS_MAX]; /* one's own */
};

/* For cmocka: *@state becomes a struct desk, with a range of 1 GiB. A test that hangs is ended. */
int desk_setup(void **state);
int desk_teardown(void **state);
/* Options that note everything. */
struct sivshm_worker_opts desk_opts(struct desk *desk, size_t bytes, unsigned vectors);
struct sivshm_worker *desk_add(struct desk *desk, size_t bytes, unsigned vectors);
/* Adds one and opens its other side in this process. */
struct sivshm_port *desk_hire(struct desk *desk, size_t bytes, unsigned vectors,
			      struct sivshm_worker **w);
/* Opens the other side of a worker. */
struct sivshm_port *desk_open(struct sivshm_worker *w);
/* Dispatches, without waiting, until nothing more happens. */
void desk_settle(struct desk *desk);
/* How often that was noted. */
unsigned desk_count(const struct desk *desk, const struct sivshm_worker *w, enum desk_event event);
/* Reads a whole handshake of @vectors. */
struct bare desk_read(int socket, unsigned vectors);
void desk_drop(struct bare *bare);
/* Sends @len bytes and the descriptor @fd, without waiting. Returns 0 or a negative errno. */
int desk_send_fd(int socket, const void *data, size_t len, int fd);
/* Bytes of shared memory in use on this machine. */
long desk_shmem(void);
int64_t desk_now_ms(void);

#endif
