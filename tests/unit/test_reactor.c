/* SPDX-License-Identifier: BSD-2-Clause */
/* The reactor: messages, timers, descriptors, pollers and helpers, each where it could go wrong. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
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
#include "reactor/helper.h"
#include "reactor/reactor.h"

enum { SENDERS = 4, PER_SENDER = 50000 };

static void nap_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

static void wait_sem(sem_t *s)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	assert_int_equal(sem_timedwait(s, &until), 0);
}

/* A reactor that runs, for most tests. */
static struct reactor *reactor;

static int setup(void **state)
{
	return reactor_create("test", -1, NULL, &reactor) || reactor_start(reactor) ? -1 : 0;
}

static int teardown(void **state)
{
	reactor_stop(reactor);
	reactor_join(reactor);
	reactor_destroy(reactor);
	return 0;
}

/* Has @fn run on the reactor, and waits for it. */
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

static void on_reactor(void (*fn)(void *arg), void *arg)
{
	struct call call = {.msg.fn = call_msg, .fn = fn, .arg = arg};

	sem_init(&call.done, 0, 0);
	reactor_send(reactor, &call.msg);
	while (sem_wait(&call.done))
		;
	sem_destroy(&call.done);
}

/* Messages */

struct numbered {
	struct reactor_msg msg;
	unsigned sender;
	unsigned number;
};

static struct numbered messages[SENDERS][PER_SENDER];
static unsigned expected[SENDERS];
static bool out_of_order;
static atomic_uint arrived;

static void numbered_came(struct reactor_msg *msg)
{
	struct numbered *n = container_of(msg, struct numbered, msg);

	if (n->number != expected[n->sender]++)
		out_of_order = true;
	atomic_fetch_add(&arrived, 1);
}

static void *send_all(void *arg)
{
	struct numbered *mine = arg;

	for (unsigned i = 0; i < PER_SENDER; i++) {
		mine[i].number = i;
		mine[i].msg.fn = numbered_came;
		reactor_send(reactor, &mine[i].msg);
		/* Let it fall asleep now and then: that is where messages get lost. */
		if (i % 1000 == 0)
			sched_yield();
		if (i % 10000 == 0)
			nap_ms(1);
	}
	return NULL;
}

static void messages_arrive_in_order_and_all(void **state)
{
	pthread_t threads[SENDERS];
	uint64_t start = clock_now_ns();

	memset(expected, 0, sizeof(expected));
	out_of_order = false;
	atomic_store(&arrived, 0);
	for (unsigned s = 0; s < SENDERS; s++) {
		for (unsigned i = 0; i < PER_SENDER; i++)
			messages[s][i].sender = s;
		assert_int_equal(pthread_create(&threads[s], NULL, send_all, messages[s]), 0);
	}
	for (unsigned s = 0; s < SENDERS; s++)
		pthread_join(threads[s], NULL);
	while (atomic_load(&arrived) < SENDERS * PER_SENDER &&
	       clock_now_ns() - start < 10 * NSEC_PER_SEC)
		nap_ms(1);
	assert_int_equal(atomic_load(&arrived), SENDERS * PER_SENDER);
	assert_false(out_of_order);
}

/* One message at a time to a reactor that sleeps in between: one lost wake-up hangs it. */
static void nothing(void *arg)
{
}

static void sleeping_reactors_are_woken(void **state)
{
	struct reactor_stats stats;

	for (int i = 0; i < 20000; i++)
		on_reactor(nothing, NULL);
	reactor_get_stats(reactor, &stats);
	assert_true(stats.msgs >= 19999);
	assert_true(stats.sleeps > 0);
}

/* Two reactors that answer each other. */
struct pingpong {
	struct reactor_msg msg;
	struct reactor *to[2];
	unsigned left;
	sem_t done;
};

static void bounce(struct reactor_msg *msg)
{
	struct pingpong *p = container_of(msg, struct pingpong, msg);

	if (!--p->left)
		sem_post(&p->done);
	else
		reactor_send(p->to[p->left % 2], msg);
}

static void reactors_answer_each_other(void **state)
{
	struct reactor *other;
	struct pingpong p = {.msg.fn = bounce, .left = 20000};

	assert_int_equal(reactor_create("other", -1, NULL, &other), 0);
	assert_int_equal(reactor_start(other), 0);
	p.to[0] = reactor;
	p.to[1] = other;
	sem_init(&p.done, 0, 0);
	reactor_send(reactor, &p.msg);
	wait_sem(&p.done);
	/* Nobody may be sending any more when a reactor ends. */
	on_reactor(nothing, NULL);
	reactor_stop(other);
	reactor_destroy(other);
}

/* What was sent before the stop is done before it. */
static atomic_uint before_stop;

static void count_before_stop(struct reactor_msg *msg)
{
	atomic_fetch_add(&before_stop, 1);
}

static void stopping_does_what_was_sent_before(void **state)
{
	for (int round = 0; round < 200; round++) {
		struct reactor_msg msgs[50];
		struct reactor *r;

		assert_int_equal(reactor_create("short", -1, NULL, &r), 0);
		atomic_store(&before_stop, 0);
		/* On this thread every other time. */
		if (round % 2)
			assert_int_equal(reactor_start(r), 0);
		for (unsigned i = 0; i < 50; i++) {
			msgs[i].fn = count_before_stop;
			reactor_send(r, &msgs[i]);
		}
		reactor_stop(r);
		if (round % 2)
			reactor_join(r);
		else
			reactor_run(r);
		assert_int_equal(atomic_load(&before_stop), 50);
		reactor_destroy(r);
	}
}

static void impossible_cores_are_refused(void **state)
{
	struct reactor *r;

	assert_int_equal(reactor_create("nowhere", 1023, NULL, &r), 0);
	assert_int_equal(reactor_start(r), -EINVAL);
	reactor_destroy(r);
}

/* Timers */

struct alarm {
	struct reactor_timer timer;
	int id;
	int again; /* so many times more */
	struct alarm *stops;
};

static int fired[64];
static unsigned nr_fired;
static sem_t last_fired;

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

static void start_alarms(void *arg)
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

static void timers_fire_in_order(void **state)
{
	static const int order[] = {4, 4, 4, 1, 0, 3, 9};
	uint64_t start = clock_now_ns();

	sem_init(&last_fired, 0, 0);
	on_reactor(start_alarms, NULL);
	wait_sem(&last_fired);
	assert_true(clock_now_ns() - start >= 500 * NSEC_PER_MSEC);
	assert_int_equal(nr_fired, sizeof(order) / sizeof(order[0]));
	assert_memory_equal(fired, order, sizeof(order));
}

/* Descriptors */

struct watched {
	struct reactor_fd fd;
	unsigned calls;
	struct watched *removes; /* when it is ready */
	sem_t ready;
};

static struct watched watched[3];

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

static void add_watched(void *arg)
{
	for (int i = 0; i < 3; i++)
		if (reactor_fd_add(reactor, &watched[i].fd, EPOLLIN))
			abort();
}

static void ring_all(void *arg)
{
	uint64_t one = 1;

	/* All are ready at one look of the reactor's. */
	for (int i = 0; i < 3; i++)
		if (write(watched[i].fd.fd, &one, sizeof(one)) != sizeof(one))
			abort();
}

static void del_watched(void *arg)
{
	for (int i = 0; i < 3; i++)
		reactor_fd_del(reactor, &watched[i].fd);
}

static void descriptors_are_watched(void **state)
{
	for (int i = 0; i < 3; i++) {
		memset(&watched[i], 0, sizeof(watched[i]));
		watched[i].fd.fd = eventfd(0, EFD_NONBLOCK);
		watched[i].fd.ready = watched_ready;
		sem_init(&watched[i].ready, 0, 0);
	}
	on_reactor(add_watched, NULL);
	on_reactor(ring_all, NULL);
	for (int i = 0; i < 3; i++)
		wait_sem(&watched[i].ready);

	/* Whichever comes first takes away itself, or another that is ready at the same time. */
	watched[0].removes = &watched[0];
	watched[1].removes = &watched[2];
	watched[2].removes = &watched[1];
	on_reactor(ring_all, NULL);
	wait_sem(&watched[0].ready);
	nap_ms(20);
	on_reactor(nothing, NULL);
	assert_int_equal(watched[0].calls, 2);
	assert_int_equal(watched[1].calls + watched[2].calls, 3);

	/* What was removed is not heard of again. */
	on_reactor(del_watched, NULL);
	on_reactor(ring_all, NULL);
	nap_ms(20);
	on_reactor(nothing, NULL);
	assert_int_equal(watched[0].calls + watched[1].calls + watched[2].calls, 5);
	for (int i = 0; i < 3; i++) {
		close(watched[i].fd.fd);
		sem_destroy(&watched[i].ready);
	}
}

/* Pollers */

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

static struct worker workers[3];

static void reset_workers(void)
{
	memset(workers, 0, sizeof(workers));
	for (int i = 0; i < 3; i++)
		workers[i].poller =
			(struct poller){.name = "worker", .poll = worker_poll, .arm = worker_arm};
}

static void add_worker(void *arg)
{
	struct worker *w = arg;

	reactor_poller_add(reactor, &w->poller);
}

static void del_worker(void *arg)
{
	struct worker *w = arg;

	w->deleted = true;
	reactor_poller_del(&w->poller);
}

static void wake_worker(void *arg)
{
	struct worker *w = arg;

	reactor_poller_wake(&w->poller);
}

static void give_work(void *arg)
{
	workers[0].work = 3;
	reactor_poller_wake(&workers[0].poller);
	/* A second time is no harm. */
	reactor_poller_wake(&workers[0].poller);
}

static void stop_refusing(void *arg)
{
	workers[0].refuse = false;
}

/* How often it was polled until the reactor had come to rest. */
static unsigned polls_of(struct worker *w)
{
	uint64_t start = clock_now_ns();
	struct reactor_stats stats;

	do {
		on_reactor(nothing, NULL);
		reactor_get_stats(reactor, &stats);
	} while (stats.pollers && clock_now_ns() - start < 10 * NSEC_PER_SEC);
	return w->polls;
}

static void idle_pollers_cost_nothing(void **state)
{
	struct reactor_stats before, after;
	unsigned polls;

	reset_workers();
	on_reactor(add_worker, &workers[0]);
	polls = polls_of(&workers[0]);
	assert_true(polls >= 1);
	assert_int_equal(workers[0].arms, 1);
	reactor_get_stats(reactor, &before);
	assert_int_equal(before.pollers, 0);
	nap_ms(50);
	reactor_get_stats(reactor, &after);
	assert_int_equal(after.passes, before.passes);
	assert_int_equal(workers[0].polls, polls);

	/* Woken, it works as long as there is work, and one time in vain. */
	on_reactor(give_work, NULL);
	assert_int_equal(polls_of(&workers[0]), polls + 4);
	assert_int_equal(workers[0].arms, 2);
	on_reactor(del_worker, &workers[0]);
}

/* Rounds with work count as busy time, spinning and sleeping do not. */
static void busy_time_is_what_work_took(void **state)
{
	struct reactor_stats before, after;
	uint64_t start;

	reset_workers();
	workers[0].poller.spin_max_ns = 20 * NSEC_PER_MSEC;
	on_reactor(add_worker, &workers[0]);
	polls_of(&workers[0]);
	reactor_get_stats(reactor, &before);
	start = clock_now_ns();
	workers[0].work_ms = 10;
	on_reactor(give_work, NULL);
	polls_of(&workers[0]);
	nap_ms(50);
	on_reactor(nothing, NULL);
	reactor_get_stats(reactor, &after);
	assert_int_equal(after.worked, before.worked + 3);
	assert_true(after.busy_ns - before.busy_ns >= 30 * NSEC_PER_MSEC);
	assert_true(after.busy_ns - before.busy_ns <= clock_now_ns() - start - 50 * NSEC_PER_MSEC);
	on_reactor(del_worker, &workers[0]);
}

/* As long as arming finds something, the poller stays busy. */
static void refused_arming_keeps_it_busy(void **state)
{
	struct reactor_stats stats;
	unsigned polls;

	reset_workers();
	workers[0].refuse = true;
	on_reactor(add_worker, &workers[0]);
	for (int i = 0; i < 100; i++)
		on_reactor(nothing, NULL);
	/* At least once between any two messages, when nothing else keeps it. */
	assert_true(workers[0].polls >= 50);
	reactor_get_stats(reactor, &stats);
	assert_int_equal(stats.pollers, 1);
	on_reactor(stop_refusing, NULL);
	polls = polls_of(&workers[0]);
	assert_int_equal(polls_of(&workers[0]), polls);
	on_reactor(del_worker, &workers[0]);
}

/* It spins for its time before it is armed, and not much longer. */
static void spinning_ends(void **state)
{
	uint64_t start;

	reset_workers();
	workers[0].poller.spin_max_ns = 30 * NSEC_PER_MSEC;
	start = clock_now_ns();
	on_reactor(add_worker, &workers[0]);
	nap_ms(5);
	on_reactor(nothing, NULL);
	if (clock_now_ns() - start < 25 * NSEC_PER_MSEC)
		assert_int_equal(workers[0].arms, 0);
	nap_ms(100);
	on_reactor(nothing, NULL);
	assert_int_equal(workers[0].arms, 1);
	assert_true(workers[0].polls > 10);
	on_reactor(del_worker, &workers[0]);
}

/* Pollers that take themselves or each other away, in a pass in which all are busy. */
static void add_three(void *arg)
{
	for (int i = 0; i < 3; i++) {
		workers[i].work = 1;
		reactor_poller_add(reactor, &workers[i].poller);
	}
}

static void pollers_delete_each_other(void **state)
{
	static const int pairs[][2] = {{0, 0}, {0, 1}, {0, 2}, {1, 0}, {1, 1},
				       {1, 2}, {2, 0}, {2, 1}, {2, 2}};

	for (unsigned p = 0; p < sizeof(pairs) / sizeof(pairs[0]); p++) {
		reset_workers();
		workers[pairs[p][0]].deletes = &workers[pairs[p][1]];
		on_reactor(add_three, NULL);
		for (int i = 0; i < 3; i++) {
			polls_of(&workers[i]);
			if (i != pairs[p][1]) {
				assert_true(workers[i].polls >= 2);
				assert_int_equal(workers[i].arms, 1);
				on_reactor(del_worker, &workers[i]);
			} else {
				assert_true(workers[i].deleted);
			}
		}
	}
}

/* One that wakes another in its poll. */
static void pollers_wake_each_other(void **state)
{
	reset_workers();
	on_reactor(add_worker, &workers[1]);
	assert_int_equal(polls_of(&workers[1]), 1);
	workers[0].wakes = &workers[1];
	on_reactor(add_worker, &workers[0]);
	assert_int_equal(polls_of(&workers[0]), 1);
	assert_int_equal(polls_of(&workers[1]), 2);
	on_reactor(wake_worker, &workers[0]);
	assert_int_equal(polls_of(&workers[0]), 2);
	on_reactor(del_worker, &workers[0]);
	on_reactor(del_worker, &workers[1]);
}

/*
 * A reactor that is busy all the time, or that goes round in vain, still hears of messages, timers
 * and descriptors.
 */
static void hear_the_rest(int work)
{
	uint64_t one = 1;

	reset_workers();
	workers[0].work = work;
	workers[0].refuse = true;
	on_reactor(add_worker, &workers[0]);
	sem_init(&last_fired, 0, 0);
	on_reactor(start_alarms, NULL);
	wait_sem(&last_fired);
	memset(&watched[0], 0, sizeof(watched[0]));
	for (int i = 0; i < 3; i++) {
		watched[i].fd.fd = eventfd(0, EFD_NONBLOCK);
		watched[i].fd.ready = watched_ready;
		sem_init(&watched[i].ready, 0, 0);
	}
	on_reactor(add_watched, NULL);
	assert_int_equal(write(watched[0].fd.fd, &one, sizeof(one)), sizeof(one));
	wait_sem(&watched[0].ready);
	on_reactor(del_watched, NULL);
	on_reactor(del_worker, &workers[0]);
	for (int i = 0; i < 3; i++) {
		close(watched[i].fd.fd);
		sem_destroy(&watched[i].ready);
	}
}

static void busy_reactors_hear_the_rest(void **state)
{
	hear_the_rest(INT32_MAX);
	hear_the_rest(0);
}

/* While somebody is busy a look at the descriptors takes as long as the test wants. */
static atomic_uint look_us;
static atomic_uint looks;
static atomic_uint_fast64_t looker_cpu_ns; /* the processor time of who looks */

int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
	uint64_t end = clock_now_ns() + look_us * NSEC_PER_USEC;
	struct timespec cpu;

	if (!timeout_ms) {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
		looker_cpu_ns = (uint64_t)cpu.tv_sec * NSEC_PER_SEC + (uint64_t)cpu.tv_nsec;
		looks++;
	}
	while (!timeout_ms && clock_now_ns() < end)
		;
	return __real_epoll_wait(fd, events, max, timeout_ms);
}

/* Others may have the processor: at most so many in a second, at least in one of its own. */
static void assert_looks_a_second(uint64_t least, uint64_t most)
{
	uint64_t begin_ns, begin_cpu_ns;
	unsigned before = looks, n;

	/* What is known before may be the time of another test's reactor. */
	while (looks == before)
		nap_ms(1);
	begin_ns = clock_now_ns();
	begin_cpu_ns = looker_cpu_ns;
	before = looks;
	nap_ms(300);
	n = looks - before;
	assert_true(n * NSEC_PER_SEC <= most * (clock_now_ns() - begin_ns));
	assert_true(n * NSEC_PER_SEC >= least * (looker_cpu_ns - begin_cpu_ns));
	assert_true(n > 0);
}

/* The dearer a look at the descriptors, the rarer; but never so rare that they wait for long. */
static void descriptors_cost_a_share(void **state)
{
	reset_workers();
	workers[0].refuse = true;
	look_us = 0;
	on_reactor(add_worker, &workers[0]);
	assert_looks_a_second(200, 100000);
	look_us = 10;
	nap_ms(10);
	/* Each takes 10 us and lets 320 pass. */
	assert_looks_a_second(100, 3200);
	look_us = 2000;
	nap_ms(10);
	/* And no more than half a millisecond passes between two: not 64. */
	assert_looks_a_second(100, 500);
	look_us = 0;
	on_reactor(del_worker, &workers[0]);
}

/* A poller that asks for the time. */
struct asker {
	struct poller poller;
	uint64_t last_ns; /* the time when it was asked last */
	atomic_uint rounds;
	unsigned late; /* rounds that were told a time from before them */
	unsigned two;  /* or two times */
};

static int ask(struct poller *p)
{
	struct asker *a = container_of(p, struct asker, poller);
	unsigned n = a->rounds++;
	uint64_t now_ns;

	/* Nobody asks in some rounds, and some find work. */
	if (n % 7 > 2) {
		now_ns = reactor_now_ns(p->reactor);
		a->late += now_ns < a->last_ns;
		a->two += reactor_now_ns(p->reactor) != now_ns;
	}
	a->last_ns = reactor_clock_ns(p->reactor);
	return n % 5 == 0;
}

static bool goes_on(struct poller *p)
{
	return true;
}

static void add_asker(void *arg)
{
	reactor_poller_add(reactor, arg);
}

static void del_asker(void *arg)
{
	reactor_poller_del(arg);
}

static void time_is_the_round_s(void **state)
{
	struct asker a = {.poller = {.poll = ask, .arm = goes_on}};

	on_reactor(add_asker, &a.poller);
	while (a.rounds < 10000)
		nap_ms(1);
	on_reactor(del_asker, &a.poller);
	assert_int_equal(a.late, 0);
	assert_int_equal(a.two, 0);
}

/* Helpers */

struct job {
	struct helper_job job;
	pthread_t ran_on;
	pthread_t done_on;
	unsigned runs;
	unsigned dones;
};

static atomic_uint jobs_done;

static void job_run(struct helper_job *base)
{
	struct job *j = container_of(base, struct job, job);

	j->ran_on = pthread_self();
	j->runs++;
}

static void job_done(struct helper_job *base)
{
	struct job *j = container_of(base, struct job, job);

	j->done_on = pthread_self();
	j->dones++;
	atomic_fetch_add(&jobs_done, 1);
}

static void whose_thread(void *arg)
{
	*(pthread_t *)arg = pthread_self();
}

static void helpers_do_all_jobs(void **state)
{
	static struct job jobs[1000];
	struct helper_pool *pool;
	pthread_t thread;
	uint64_t start;

	memset(jobs, 0, sizeof(jobs));
	atomic_store(&jobs_done, 0);
	on_reactor(whose_thread, &thread);
	assert_int_equal(helper_pool_create(3, &pool), 0);
	for (unsigned i = 0; i < 1000; i++) {
		jobs[i].job.run = job_run;
		jobs[i].job.done = job_done;
		helper_submit(pool, reactor, &jobs[i].job);
	}
	/* Ending waits for what was submitted. */
	helper_pool_destroy(pool);
	start = clock_now_ns();
	while (atomic_load(&jobs_done) < 1000 && clock_now_ns() - start < 10 * NSEC_PER_SEC)
		nap_ms(1);
	on_reactor(nothing, NULL);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(jobs[i].runs, 1);
		assert_int_equal(jobs[i].dones, 1);
		assert_true(pthread_equal(jobs[i].done_on, thread));
		assert_false(pthread_equal(jobs[i].ran_on, thread));
	}
}

/* Bulk jobs that block keep one thread less than there are: the others' jobs go on. */

static atomic_uint bulk_running, bulk_most;
static atomic_bool bulk_go;

static void bulk_run(struct helper_job *job)
{
	unsigned now = atomic_fetch_add(&bulk_running, 1) + 1;

	if (now > atomic_load(&bulk_most))
		atomic_store(&bulk_most, now);
	while (!atomic_load(&bulk_go))
		nap_ms(1);
	atomic_fetch_sub(&bulk_running, 1);
	job_run(job);
}

static void wait_for_jobs(unsigned n)
{
	uint64_t start = clock_now_ns();

	while (atomic_load(&jobs_done) < n && clock_now_ns() - start < 10 * NSEC_PER_SEC)
		nap_ms(1);
	assert_int_equal(atomic_load(&jobs_done), n);
}

static void bulk_leaves_a_thread_to_others(void **state)
{
	enum { BULK = 20, OTHERS = 50 };
	static struct job jobs[BULK + OTHERS];
	struct helper_pool *pool;

	for (unsigned threads = 2; threads <= 3; threads++) {
		memset(jobs, 0, sizeof(jobs));
		atomic_store(&jobs_done, 0);
		atomic_store(&bulk_most, 0);
		atomic_store(&bulk_go, false);
		assert_int_equal(helper_pool_create(threads, &pool), 0);
		for (unsigned i = 0; i < BULK + OTHERS; i++) {
			jobs[i].job.run = i < BULK ? bulk_run : job_run;
			jobs[i].job.done = job_done;
			if (i < BULK)
				helper_submit_bulk(pool, reactor, &jobs[i].job);
			else
				helper_submit(pool, reactor, &jobs[i].job);
		}
		wait_for_jobs(OTHERS);
		atomic_store(&bulk_go, true);
		helper_pool_destroy(pool);
		wait_for_jobs(BULK + OTHERS);
		assert_int_equal(atomic_load(&bulk_most), threads - 1);
		on_reactor(nothing, NULL);
	}
}

/* By hand: each round does what is due, and does not wait for what is not. */

static unsigned stepped;

static void count_msg(struct reactor_msg *msg)
{
	stepped++;
}

static void count_fd(struct reactor_fd *f, uint32_t events)
{
	uint64_t ignored;

	stepped += 10;
	assert_int_equal(read(f->fd, &ignored, sizeof(ignored)), sizeof(ignored));
}

static void count_timer(struct reactor_timer *t)
{
	stepped += 100;
}

static void steps_do_what_is_due(void **state)
{
	struct reactor_msg msg = {.fn = count_msg};
	struct reactor_fd fd = {.fd = eventfd(0, EFD_CLOEXEC), .ready = count_fd};
	struct reactor_timer due = {.fire = count_timer}, later = {.fire = count_timer};
	uint64_t one = 1;
	struct reactor *r;

	assert_int_equal(reactor_create("steps", -1, NULL, &r), 0);
	assert_int_equal(reactor_fd_add(r, &fd, EPOLLIN), 0);
	stepped = 0;
	assert_false(reactor_step(r));
	reactor_send(r, &msg);
	assert_true(reactor_step(r));
	assert_int_equal(stepped, 1);
	assert_int_equal(write(fd.fd, &one, sizeof(one)), sizeof(one));
	assert_true(reactor_step(r));
	assert_int_equal(stepped, 11);
	reactor_timer_start(r, &later, 3600 * NSEC_PER_SEC);
	reactor_timer_start(r, &due, 0);
	assert_true(reactor_step(r));
	assert_int_equal(stepped, 111);
	assert_false(reactor_step(r));

	/* A poller has one turn a round; one with more to do, or that cannot be armed, says so. */
	reset_workers();
	workers[0].work = 1;
	reactor_poller_add(r, &workers[0].poller);
	assert_true(reactor_step(r));
	assert_int_equal(workers[0].polls, 1);
	workers[0].refuse = true;
	assert_true(reactor_step(r));
	assert_int_equal(workers[0].polls, 2);
	workers[0].refuse = false;
	assert_false(reactor_step(r));
	assert_false(reactor_step(r));
	assert_int_equal(workers[0].polls, 3);
	/* Its last turn counts, too. */
	workers[0].work = 1;
	workers[0].deletes = &workers[0];
	reactor_poller_wake(&workers[0].poller);
	assert_true(reactor_step(r));
	assert_false(reactor_step(r));
	reactor_timer_stop(r, &later);
	reactor_fd_del(r, &fd);
	close(fd.fd);
	reactor_destroy(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(messages_arrive_in_order_and_all, setup, teardown),
		cmocka_unit_test_setup_teardown(sleeping_reactors_are_woken, setup, teardown),
		cmocka_unit_test_setup_teardown(reactors_answer_each_other, setup, teardown),
		cmocka_unit_test(stopping_does_what_was_sent_before),
		cmocka_unit_test(impossible_cores_are_refused),
		cmocka_unit_test_setup_teardown(timers_fire_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_are_watched, setup, teardown),
		cmocka_unit_test_setup_teardown(idle_pollers_cost_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_time_is_what_work_took, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_arming_keeps_it_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(spinning_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(pollers_delete_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(pollers_wake_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_reactors_hear_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_cost_a_share, setup, teardown),
		cmocka_unit_test_setup_teardown(time_is_the_round_s, setup, teardown),
		cmocka_unit_test_setup_teardown(bulk_leaves_a_thread_to_others, setup, teardown),
		cmocka_unit_test_setup_teardown(helpers_do_all_jobs, setup, teardown),
		cmocka_unit_test(steps_do_what_is_due),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
