/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pollers: that those at rest cost nothing, that those at work or in vain do not keep the reactor
 * from the rest, and what a round is that they share.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "reactor_harness.h"

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
	open_watched();
	on_reactor(add_watched, NULL);
	assert_int_equal(write(watched[0].fd.fd, &one, sizeof(one)), sizeof(one));
	wait_sem(&watched[0].ready);
	on_reactor(del_watched, NULL);
	on_reactor(del_worker, &workers[0]);
	close_watched();
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(idle_pollers_cost_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_time_is_what_work_took, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_arming_keeps_it_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(spinning_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(pollers_delete_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(pollers_wake_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_reactors_hear_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_cost_a_share, setup, teardown),
		cmocka_unit_test_setup_teardown(time_is_the_round_s, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
