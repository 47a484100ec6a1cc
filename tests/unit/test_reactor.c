/* SPDX-License-Identifier: BSD-2-Clause */
/* The reactor: messages, timers, descriptors, stops and steps, each where it could go wrong. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "reactor_harness.h"

enum { SENDERS = 4, PER_SENDER = 50000 };

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

static void ring_all(void *arg)
{
	uint64_t one = 1;

	/* All are ready at one look of the reactor's. */
	for (int i = 0; i < 3; i++)
		if (write(watched[i].fd.fd, &one, sizeof(one)) != sizeof(one))
			abort();
}

static void descriptors_are_watched(void **state)
{
	open_watched();
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
	close_watched();
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
		cmocka_unit_test(steps_do_what_is_due),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
