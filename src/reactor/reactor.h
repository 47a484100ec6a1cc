/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reactor: one thread that owns what it runs.
 *
 * A reactor goes round and round over its busy pollers, in the order in which they became busy;
 * a poller without work is, after a while, armed (it makes sure that a descriptor will wake it) and
 * costs nothing from then on.  When none is busy the reactor sleeps in epoll_wait(2).  How long a
 * poller spins before it is armed follows what spinning brought: it doubles when a wake-up came
 * shortly after arming and halves when the poller slept long.
 *
 * Threads meet in messages only: reactor_send() takes a caller's message, without a lock and
 * without allocating.  Every other function here belongs to the reactor's own thread, or to
 * its creator before reactor_start().  Nothing that runs on a reactor may block; what blocks goes
 * to helper threads (helper.h).
 *
 * The control thread is a reactor too, one without pollers.
 */
#ifndef SLUICE_REACTOR_REACTOR_H
#define SLUICE_REACTOR_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct reactor;
struct helper_pool;

/* A message; part of a larger object of the sender's, untouched by it until fn has run. */
struct reactor_msg {
	void (*fn)(struct reactor_msg *msg); /* runs on the receiving thread */
	/* private */
	struct reactor_msg *next;
};

struct poller {
	const char *name;
	/* Does what can be done now; returns how much that was, 0 for nothing. */
	int (*poll)(struct poller *p);
	/*
	 * Prepares to be woken (reactor_poller_wake()) by what comes from now on, then says whether
	 * something is already there: true keeps the poller busy.
	 */
	bool (*arm)(struct poller *p);
	/* Spins up to this long before it is armed; 0 arms at the first poll without work. */
	uint32_t spin_max_ns;
	/* private */
	struct list node;
	struct reactor *reactor;
	bool busy;
	uint32_t spin_ns;
	uint64_t idle_since_ns;
	uint64_t armed_at_ns;
};

struct reactor_fd {
	int fd;
	/* @events: EPOLLIN and so on. May remove itself or any other descriptor. */
	void (*ready)(struct reactor_fd *f, uint32_t events);
};

struct reactor_timer {
	void (*fire)(struct reactor_timer *t);
	/* private */
	struct list node;
	uint64_t when_ns;
	bool running;
};

struct reactor_stats {
	uint64_t passes;  /* rounds over the busy pollers */
	uint64_t worked;  /* of those, rounds in which some poller found work */
	uint64_t busy_ns; /* what those took; the rest of the thread's time went into waiting */
	uint64_t sleeps;  /* times it slept in epoll_wait */
	uint64_t msgs;    /* messages run */
	unsigned pollers; /* busy ones now */
};

/*
 * Creates a reactor named @name (copied; the thread's name), to be pinned to @cpu (-1: not pinned).
 * @helpers, which may be NULL, is what reactor_helpers() answers. Returns 0 and *@out, or a
 * negative errno.
 */
int reactor_create(const char *name, int cpu, struct helper_pool *helpers, struct reactor **out);
/* Starts the reactor's thread. Returns 0 or a negative errno (EINVAL: no such core). */
int reactor_start(struct reactor *r);
/* Runs the reactor on the calling thread until reactor_stop(). */
void reactor_run(struct reactor *r);
/*
 * One round on the calling thread: messages, descriptors, timers and busy pollers each get one
 * turn, and nothing waits. Returns whether there was something to do, or there is a poller that is
 * busy still. For who steps several reactors on one thread, in an order of their own, instead of
 * reactor_start() or reactor_run().
 */
bool reactor_step(struct reactor *r);
/* Makes the reactor return from its loop once the messages sent before are done. From any thread,
 * once. */
void reactor_stop(struct reactor *r);
/* Waits for the thread, if there is one, to end after reactor_stop(). */
void reactor_join(struct reactor *r);
/*
 * Joins the thread, if there is one, and frees the reactor. Its pollers and descriptors must be
 * gone, and no thread may still be in reactor_send() to it.
 */
void reactor_destroy(struct reactor *r);

/* Has @msg->fn run on @r's thread. From any thread; messages of one sender arrive in order. */
void reactor_send(struct reactor *r, struct reactor_msg *msg);

/* Adds a poller, busy at first. The caller has filled the public part. */
void reactor_poller_add(struct reactor *r, struct poller *p);
void reactor_poller_del(struct poller *p);
/* Makes an armed poller busy again; nothing happens to a busy one. On the reactor's thread. */
static inline void reactor_poller_wake(struct poller *p);

/* Watches @f->fd (level-triggered) for @events. Returns 0 or a negative errno. */
int reactor_fd_add(struct reactor *r, struct reactor_fd *f, uint32_t events);
int reactor_fd_modify(struct reactor *r, struct reactor_fd *f, uint32_t events);
void reactor_fd_del(struct reactor *r, struct reactor_fd *f);

/* Starts or restarts a timer that fires once, @delay_ns from now. */
void reactor_timer_start(struct reactor *r, struct reactor_timer *t, uint64_t delay_ns);
void reactor_timer_stop(struct reactor *r, struct reactor_timer *t);

/*
 * The time of this round, on the reactor's own thread: the clock is looked at once a round, if
 * anybody asks.
 */
uint64_t reactor_now_ns(struct reactor *r);
/*
 * The time now, on the reactor's own thread, at the price of a few instructions; never before what
 * either has answered.
 */
uint64_t reactor_clock_ns(struct reactor *r);

const char *reactor_name(const struct reactor *r);
int reactor_cpu(const struct reactor *r);
struct helper_pool *reactor_helpers(const struct reactor *r);
/* A copy of the counters; from any thread, each counter is whole but the set may be mid-pass. */
void reactor_get_stats(const struct reactor *r, struct reactor_stats *stats);

/* private */
void reactor_poller_wake_slow(struct poller *p);

static inline void reactor_poller_wake(struct poller *p)
{
	if (!p->busy)
		reactor_poller_wake_slow(p);
}

#endif
