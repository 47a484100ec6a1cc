/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The crew: workers, each a process with a segment. They are started, watched and ended here; what
 * is done with them is the caller's. A member's segment and its process end at different times, as
 * either can be seen first: lost() is called before the segment goes, ended() after the process.
 */
#ifndef SLUICE_MANAGER_CREW_H
#define SLUICE_MANAGER_CREW_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "manager/child.h"
#include "manager/lines.h"
#include "sivshm.h"

struct crew;

struct member {
	struct crew *crew;
	unsigned number;
	struct sivshm_worker *segment; /* NULL: none (any more) */
	struct sivshm_port *port;      /* of the segment */
	struct child child;            /* pid 0: none (any more) */
	uint64_t started_ns;
	bool rang;  /* has rung since it was started */
	int status; /* waitpid()'s, once the process has ended */
	struct lines out, err;
};

struct crew_ops {
	/* The program and its arguments for worker @number; the crew frees it by words_free(). */
	char **(*command)(unsigned number, void *arg);
	/* The segment is made, and the process is not there yet. 0 or a negative errno. NULL: fine.
	 */
	int (*prepare)(struct member *m, void *arg);
	/* The worker has rung; NULL: nobody listens. */
	void (*rung)(struct member *m, unsigned vector, void *arg);
	/* The segment, valid still, goes after this. NULL: as you like. */
	void (*lost)(struct member *m, void *arg);
	/* The process has ended with m->status. */
	void (*ended)(struct member *m, void *arg);
};

struct crew_opts {
	unsigned workers;
	uint64_t segment_bytes;
	unsigned vectors;
	bool huge_pages;
	FILE *out; /* where the workers' standard output goes */
	const struct crew_ops *ops;
	void *arg;
};

/* Makes the crew and blocks SIGINT, SIGTERM and SIGHUP, which crew_signal() reports from here on.
 * Returns 0 and *@out, or a failing exit status after saying why. */
int crew_create(const struct crew_opts *opts, struct crew **out);
/* Kills whoever is left. */
void crew_destroy(struct crew *crew);
struct member *crew_member(struct crew *crew, unsigned number);

/* Starts (or, after ended(), starts again) a worker. Returns 0 or a failing exit status after
 * saying why. */
int crew_start(struct crew *crew, unsigned number);
int crew_start_all(struct crew *crew);
/* How many processes there are. */
unsigned crew_running(const struct crew *crew);
/* Takes the segment from a member; lost() is called. */
void crew_take_segment(struct member *m);
/* Kills a member and takes its segment; ended() follows. */
void crew_kill(struct member *m);

/*
 * Waits up to @timeout_ms for the workers and for @extra (NULL: none), and does what is to be done
 * for them. Returns 0 or a failing exit status after saying why.
 */
int crew_poll(struct crew *crew, struct pollfd *extra, int timeout_ms);
/* The signal that asks the tool to end, or 0. */
int crew_signal(const struct crew *crew);
/*
 * Ends all: @signal first (0: none), and after @grace_ms SIGKILL, or when a signal comes.
 * ended() is called for each.
 */
void crew_end(struct crew *crew, int signal, int grace_ms);

#endif
