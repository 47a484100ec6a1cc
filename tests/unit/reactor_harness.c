/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor_harness.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

void nap_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

void wait_sem(sem_t *s)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	assert_int_equal(sem_timedwait(s, &until), 0);
}

struct reactor *reactor;

int setup(void **state)
{
	return reactor_create("test", -1, NULL, &reactor) || reactor_start(reactor) ? -1 : 0;
}

int teardown(void **state)
{
	reactor_stop(reactor);
	reactor_join(reactor);
	reactor_destroy(reactor);
	return 0;
}

struct call {
	struct reactor_msg msg;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void call_msg(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call, msg);

	call->fn(call->arg);
	sem_post(&call->done);
}

void on_reactor(void (*fn)(void *arg), void *arg)
{
	struct call call = {.msg.fn = call_msg, .fn = fn, .arg = arg};

	sem_init(&call.done, 0, 0);
	reactor_send(reactor, &call.msg);
	while (sem_wait(&call.done))
		;
	sem_destroy(&call.done);
}

void nothing(void *arg)
{
}

/* Alarms */

struct alarm {
	struct reactor_timer timer;
	int id;
	int again; /* so many times more */
	struct alarm *stops;
};

int fired[64];
unsigned nr_fired;
sem_t last_fired;

static void fire(struct reactor_timer *t)
{
	struct alarm *a = container_of(t, struct alarm, timer);

	fired[nr_fired++] = a->id;
	if (a->stops)
		reactor_timer_stop(reactor, &a->stops->timer);
	if (a->again) {
		a->again--;
		reactor_timer_start(reactor, t, 0);
	} else if (a->id == 9) {
		sem_post(&last_fired);
	}
}

static struct alarm alarms[6];

void start_alarms(void *arg)
{
	static const uint64_t delays_ms[] = {300, 200, 250, 220, 5, 500};

	nr_fired = 0;
	for (int i = 0; i < 6; i++) {
		alarms[i] = (struct alarm){.timer.fire = fire, .id = i};
		reactor_timer_start(reactor, &alarms[i].timer, delays_ms[i] * NSEC_PER_MSEC);
	}
	alarms[5].id = 9;
	/* 1 (at 200 ms) stops 2 (at 250); 4 comes three times; 3 is put off until 400. */
	alarms[1].stops = &alarms[2];
	alarms[4].again = 2;
	reactor_timer_start(reactor, &alarms[3].timer, 400 * NSEC_PER_MSEC);
	/* Stopping one that does not run is no harm. */
	reactor_timer_stop(reactor, &(struct reactor_timer){0});
}

/* Descriptors */

struct watched watched[3];

static void watched_ready(struct reactor_fd *f, uint32_t events)
{
	struct watched *w = container_of(f, struct watched, fd);
	uint64_t ignored;

	w->calls++;
	assert(events & EPOLLIN);
	if (w->removes) {
		reactor_fd_del(reactor, &w->removes->fd);
		w->removes = NULL;
	}
	if (read(f->fd, &ignored, sizeof(ignored)) < 0)
		return;
	sem_post(&w->ready);
}

void add_watched(void *arg)
{
	for (int i = 0; i < 3; i++)
		if (reactor_fd_add(reactor, &watched[i].fd, EPOLLIN))
			abort();
}

void open_watched(void)
{
	for (int i = 0; i < 3; i++) {
		memset(&watched[i], 0, sizeof(watched[i]));
		watched[i].fd.fd = eventfd(0, EFD_NONBLOCK);
		watched[i].fd.ready = watched_ready;
		sem_init(&watched[i].ready, 0, 0);
	}
}

void close_watched(void)
{
	for (int i = 0; i < 3; i++) {
		close(watched[i].fd.fd);
		sem_destroy(&watched[i].ready);
	}
}

void del_watched(void *arg)
{
	for (int i = 0; i < 3; i++)
		reactor_fd_del(reactor, &watched[i].fd);
}

/* Workers */

static int worker_poll(struct poller *p)
{
	struct worker *w = container_of(p, struct worker, poller);

	w->polls++;
	assert(!w->deleted);
	if (w->wakes) {
		reactor_poller_wake(&w->wakes->poller);
		w->wakes = NULL;
	}
	if (w->deletes) {
		struct worker *other = w->deletes;

		w->deletes = NULL;
		other->deleted = true;
		reactor_poller_del(&other->poller);
		/* As its owner may do: nobody looks at it any more. */
		if (other != w)
			memset(&other->poller, 0x5a, sizeof(other->poller));
	}
	if (w->work)
		nap_ms(w->work_ms);
	return w->work ? w->work-- : 0;
}

static bool worker_arm(struct poller *p)
{
	struct worker *w = container_of(p, struct worker, poller);

	w->arms++;
	return w->refuse;
}

struct worker workers[3];

void reset_workers(void)
{
	memset(workers, 0, sizeof(workers));
	for (int i = 0; i < 3; i++)
		workers[i].poller =
			(struct poller){.name = "worker", .poll = worker_poll, .arm = worker_arm};
}
