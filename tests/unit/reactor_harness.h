/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What tests of the reactor share: a reactor that runs, calls to it, and what it may have to do:
 * alarms, watched descriptors and workers.  There is one of each at a time.
 */
#ifndef SLUICE_TESTS_REACTOR_HARNESS_H
#define SLUICE_TESTS_REACTOR_HARNESS_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "reactor/reactor.h"

/* A reactor that runs, for most tests. */
extern struct reactor *reactor;

int setup(void **state);
int teardown(void **state);

/* Has @fn run on the reactor, and waits for it. */
void on_reactor(void (*fn)(void *arg), void *arg);
/* For on_reactor(): to know that it has gone round. */
void nothing(void *arg);

void nap_ms(unsigned ms);
/* Fails the test when nobody posts @s within 10 s. */
void wait_sem(sem_t *s);

/* Alarms: which went off, in order; the last posts @last_fired, which the test initialises. */
extern int fired[64];
extern unsigned nr_fired;
extern sem_t last_fired;

/* For on_reactor(). */
void start_alarms(void *arg);

/* Descriptors that are read when they are ready. */
struct watched {
	struct reactor_fd fd;
	unsigned calls;
	struct watched *removes; /* when it is ready */
	sem_t ready;
};

extern struct watched watched[3];

void open_watched(void);
void close_watched(void);
/* For on_reactor(). */
void add_watched(void *arg);
void del_watched(void *arg);

/* Pollers that find as much work as the test wants. */
struct worker {
	struct poller poller;
	int work;    /* polls that find some */
	int work_ms; /* how long each takes */
	bool refuse; /* arm says that something is there */
	atomic_uint polls;
	atomic_uint arms;
	struct worker *deletes; /* at its next poll */
	struct worker *wakes;
	bool deleted;
};

extern struct worker workers[3];

void reset_workers(void);

#endif
