/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/reactor.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/near_clock.h"

enum {
	/*
	 * A busy reactor looks at its descriptors so often that an armed queue's guest does not
	 * wait for the others, and so rarely that the system call does not show: once in this many
	 * times what it takes, within bounds. It takes a fraction of a microsecond on bare metal,
	 * and a hundred times that in a PV domain in an emulator.
	 */
	CHECK_COSTS = 32,
	CHECK_AFTER_MIN_NS = 10000,
	CHECK_AFTER_MAX_NS = 500000,
	/* And at the clock after so many rounds in vain, each of which costs less than that. */
	IDLE_PASSES_PER_LOOK = 16,
	EVENTS_PER_CHECK = 64,
};

/* The first step of a spin that had shrunk to nothing. */
#define SPIN_MIN_NS 2000u

struct reactor {
	char name[16]; /* as long as a thread's name may be */
	int cpu;
	bool threaded;
	pthread_t thread;
	struct helper_pool *helpers;

	struct near_clock clock;
	uint64_t now_ns;
	uint64_t checked_ns; /* descriptors */
	uint64_t check_after_ns;
	unsigned idle_passes; /* since now_ns */
	bool worked_last;     /* since now_ns a round has found work */
	struct list busy;     /* pollers */
	struct list *next;    /* of busy: the one that poll_all() comes to next */
	struct list armed;    /* pollers */
	struct list timers;   /* by when_ns */
	int epoll_fd;
	/* What epoll_wait returned and has not been handed out yet; reactor_fd_del() blanks its
	 * own. */
	struct epoll_event events[EVENTS_PER_CHECK];
	int events_len;

	struct reactor_fd wake; /* eventfd */
	_Atomic(struct reactor_msg *) inbox;
	atomic_bool sleeping;
	atomic_bool stopping;
	struct reactor_msg stop;

	/* Written by this thread alone, read by others for statistics. */
	atomic_uint_fast64_t passes;
	atomic_uint_fast64_t worked;
	atomic_uint_fast64_t busy_ns;
	atomic_uint_fast64_t sleeps;
	atomic_uint_fast64_t msgs;
	atomic_uint busy_pollers;
};

/* A counter with one writer needs no locked instruction. */
static void count(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static void wake_ready(struct reactor_fd *f, uint32_t events)
{
	uint64_t ignored;

	/* Only empties the counter; the messages themselves are taken by the loop. */
	if (read(f->fd, &ignored, sizeof(ignored)) < 0)
		return;
}

int reactor_create(const char *name, int cpu, struct helper_pool *helpers, struct reactor **out)
{
	struct reactor *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	strncpy(r->name, name, sizeof(r->name) - 1);
	r->cpu = cpu;
	r->helpers = helpers;
	r->now_ns = near_clock_look(&r->clock);
	r->check_after_ns = CHECK_AFTER_MIN_NS;
	list_init(&r->busy);
	list_init(&r->armed);
	list_init(&r->timers);
	r->wake.ready = wake_ready;
	r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	r->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (r->epoll_fd < 0 || r->wake.fd < 0) {
		rc = -errno;
		goto fail;
	}
	rc = reactor_fd_add(r, &r->wake, EPOLLIN);
	if (rc)
		goto fail;
	*out = r;
	return 0;
fail:
	if (r->wake.fd >= 0)
		close(r->wake.fd);
	if (r->epoll_fd >= 0)
		close(r->epoll_fd);
	free(r);
	return rc;
}

void reactor_join(struct reactor *r)
{
	if (r->threaded)
		pthread_join(r->thread, NULL);
	r->threaded = false;
}

void reactor_destroy(struct reactor *r)
{
	reactor_join(r);
	close(r->wake.fd);
	close(r->epoll_fd);
	free(r);
}

/* Messages */

void reactor_send(struct reactor *r, struct reactor_msg *msg)
{
	uint64_t one = 1;

	msg->next = atomic_load_explicit(&r->inbox, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&r->inbox, &msg->next, msg,
						      memory_order_release, memory_order_relaxed))
		;
	/*
	 * Pairs with the fence in sleep_until_event(): either we see the flag and write the
	 * eventfd, or the reactor sees the message and does not sleep.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&r->sleeping, memory_order_relaxed)) {
		/* Fails only if the counter is full, and then it is readable anyway. */
		if (write(r->wake.fd, &one, sizeof(one)) < 0)
			return;
	}
}

static bool run_messages(struct reactor *r)
{
	struct reactor_msg *stack, *msg, *next, *in_order = NULL;
	uint64_t n = 0;

	if (!atomic_load_explicit(&r->inbox, memory_order_relaxed))
		return false;
	/* The inbox is a stack: turn it round, so that messages run in the order they were sent. */
	stack = atomic_exchange_explicit(&r->inbox, NULL, memory_order_acquire);
	for (msg = stack; msg; msg = next) {
		next = msg->next;
		msg->next = in_order;
		in_order = msg;
	}
	for (msg = in_order; msg; msg = next, n++) {
		next = msg->next;
		msg->fn(msg); /* may free it */
	}
	count(&r->msgs, n);
	return true;
}

/* Timers: there are few, so a sorted list does. */

void reactor_timer_start(struct reactor *r, struct reactor_timer *t, uint64_t delay_ns)
{
	struct list *pos;

	reactor_timer_stop(r, t);
	t->when_ns = near_clock_tell(&r->clock) + delay_ns;
	list_for_each (pos, &r->timers) {
		if (list_entry(pos, struct reactor_timer, node)->when_ns > t->when_ns)
			break;
	}
	list_insert(&t->node, pos->prev, pos);
	t->running = true;
}

void reactor_timer_stop(struct reactor *r, struct reactor_timer *t)
{
	if (!t->running)
		return;
	list_del(&t->node);
	t->running = false;
}

static bool fire_timers(struct reactor *r)
{
	bool fired = false;

	/* A timer that starts itself again is due later than now, so this ends. */
	while (!list_empty(&r->timers)) {
		struct reactor_timer *t = list_entry(r->timers.next, struct reactor_timer, node);

		if (t->when_ns > r->now_ns)
			break;
		reactor_timer_stop(r, t);
		t->fire(t);
		fired = true;
	}
	return fired;
}

/* Milliseconds until the next timer, rounded up; -1 without one. */
static int next_timeout_ms(struct reactor *r)
{
	uint64_t when, now = near_clock_tell(&r->clock), ms;

	if (list_empty(&r->timers))
		return -1;
	when = list_entry(r->timers.next, struct reactor_timer, node)->when_ns;
	if (when <= now)
		return 0;
	ms = (when - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* Descriptors */

int reactor_fd_add(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};

	return epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, f->fd, &ev) ? -errno : 0;
}

int reactor_fd_modify(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};

	return epoll_ctl(r->epoll_fd, EPOLL_CTL_MOD, f->fd, &ev) ? -errno : 0;
}

void reactor_fd_del(struct reactor *r, struct reactor_fd *f)
{
	epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL);
	for (int i = 0; i < r->events_len; i++)
		if (r->events[i].data.ptr == f)
			r->events[i].data.ptr = NULL;
}

static bool check_descriptors(struct reactor *r, int timeout_ms)
{
	int n = epoll_wait(r->epoll_fd, r->events, EVENTS_PER_CHECK, timeout_ms);

	/* Counters may sleep, too. */
	if (timeout_ms)
		near_clock_look(&r->clock);
	if (n < 0)
		return false; /* EINTR: the caller comes again */
	r->events_len = n;
	for (int i = 0; i < n; i++) {
		struct reactor_fd *f = r->events[i].data.ptr;

		if (f)
			f->ready(f, r->events[i].events);
	}
	r->events_len = 0;
	return n > 0;
}

/* Pollers */

static void unlink_poller(struct poller *p)
{
	if (p->reactor->next == &p->node)
		p->reactor->next = p->node.next;
	list_del(&p->node);
}

static void set_busy(struct poller *p, bool busy)
{
	struct reactor *r = p->reactor;
	unsigned n = atomic_load_explicit(&r->busy_pollers, memory_order_relaxed);

	unlink_poller(p);
	list_add_tail(busy ? &r->busy : &r->armed, &p->node);
	if (busy != p->busy)
		atomic_store_explicit(&r->busy_pollers, busy ? n + 1 : n - 1, memory_order_relaxed);
	p->busy = busy;
	p->idle_since_ns = 0;
}

void reactor_poller_add(struct reactor *r, struct poller *p)
{
	p->reactor = r;
	p->busy = false;
	p->spin_ns = p->spin_max_ns;
	list_init(&p->node);
	set_busy(p, true);
}

void reactor_poller_del(struct poller *p)
{
	if (p->busy)
		set_busy(p, false);
	unlink_poller(p);
	p->reactor = NULL;
}

void reactor_poller_wake_slow(struct poller *p)
{
	uint64_t slept = near_clock_tell(&p->reactor->clock) - p->armed_at_ns;

	if (slept < p->spin_max_ns) {
		/* A little more spinning would have met this work. */
		p->spin_ns = p->spin_ns ? p->spin_ns * 2 : SPIN_MIN_NS;
		if (p->spin_ns > p->spin_max_ns)
			p->spin_ns = p->spin_max_ns;
	} else {
		p->spin_ns = p->spin_ns / 2 < SPIN_MIN_NS ? 0 : p->spin_ns / 2;
	}
	set_busy(p, true);
}

static void poller_was_idle(struct reactor *r, struct poller *p)
{
	if (p->spin_ns) {
		if (!p->idle_since_ns) {
			p->idle_since_ns = r->now_ns;
			return;
		}
		if (r->now_ns - p->idle_since_ns < p->spin_ns)
			return;
	}
	if (!p->arm(p)) {
		p->armed_at_ns = r->now_ns;
		set_busy(p, false);
	}
}

/* One round over the busy pollers. Returns whether some found work. */
static bool poll_all(struct reactor *r)
{
	bool worked = false;

	/* A poller may delete itself or any other, and wake others, which join at the list's end.
	 */
	for (struct list *pos = r->busy.next; pos != &r->busy; pos = r->next) {
		struct poller *p = list_entry(pos, struct poller, node);

		r->next = pos->next;
		if (p->poll(p) > 0) {
			worked = true;
			if (p->reactor)
				p->idle_since_ns = 0;
			continue;
		}
		if (p->reactor && p->busy)
			poller_was_idle(r, p);
	}
	count(&r->passes, 1);
	if (worked)
		count(&r->worked, 1);
	r->worked_last = worked;
	return worked;
}

/* A round's end is the next one's beginning: one look at the clock does for both. */
static void read_clock(struct reactor *r)
{
	uint64_t now = near_clock_tell(&r->clock);

	if (r->worked_last)
		count(&r->busy_ns, now - r->now_ns);
	r->worked_last = false;
	r->now_ns = now;
	r->idle_passes = 0;
}

uint64_t reactor_now_ns(struct reactor *r)
{
	if (r->idle_passes)
		read_clock(r);
	return r->now_ns;
}

static void sleep_until_event(struct reactor *r)
{
	atomic_store_explicit(&r->sleeping, true, memory_order_relaxed);
	/* Pairs with the fence in reactor_send(). */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&r->inbox, memory_order_relaxed) &&
	    !atomic_load_explicit(&r->stopping, memory_order_relaxed)) {
		count(&r->sleeps, 1);
		check_descriptors(r, next_timeout_ms(r));
	}
	atomic_store_explicit(&r->sleeping, false, memory_order_relaxed);
	read_clock(r);
}

uint64_t reactor_clock_ns(struct reactor *r)
{
	return near_clock_tell(&r->clock);
}

/* Looks at the descriptors if it is time, and learns from a look in vain what looking costs. */
static void check_now_and_then(struct reactor *r)
{
	uint64_t cost_ns;

	if (r->now_ns < r->checked_ns + r->check_after_ns)
		return;
	r->checked_ns = near_clock_tell(&r->clock);
	if (check_descriptors(r, 0))
		return;
	cost_ns = near_clock_tell(&r->clock) - r->checked_ns;
	r->check_after_ns = cost_ns * CHECK_COSTS;
	if (r->check_after_ns < CHECK_AFTER_MIN_NS)
		r->check_after_ns = CHECK_AFTER_MIN_NS;
	if (r->check_after_ns > CHECK_AFTER_MAX_NS)
		r->check_after_ns = CHECK_AFTER_MAX_NS;
}

void reactor_run(struct reactor *r)
{
	for (;;) {
		if (!run_messages(r) && atomic_load_explicit(&r->stopping, memory_order_relaxed))
			break;
		if (list_empty(&r->busy)) {
			if (r->worked_last)
				read_clock(r);
			sleep_until_event(r);
			fire_timers(r);
			continue;
		}
		if (r->worked_last || r->idle_passes == IDLE_PASSES_PER_LOOK)
			read_clock(r);
		else
			r->idle_passes++;
		poll_all(r);
		check_now_and_then(r);
		fire_timers(r);
	}
}

bool reactor_step(struct reactor *r)
{
	bool did;

	/* Whoever steps may have made the clock stand, or go as he likes. */
	near_clock_forget_pace(&r->clock);
	did = run_messages(r);
	read_clock(r);
	did |= check_descriptors(r, 0);
	did |= fire_timers(r);
	did |= poll_all(r);
	return did || !list_empty(&r->busy);
}

static void *thread_main(void *arg)
{
	struct reactor *r = arg;

	pthread_setname_np(pthread_self(), r->name);
	reactor_run(r);
	return NULL;
}

int reactor_start(struct reactor *r)
{
	pthread_attr_t attr;
	cpu_set_t cpus;
	int rc;

	rc = pthread_attr_init(&attr);
	if (rc)
		return -rc;
	if (r->cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET((size_t)r->cpu, &cpus);
		rc = pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	}
	if (!rc)
		rc = pthread_create(&r->thread, &attr, thread_main, r);
	pthread_attr_destroy(&attr);
	if (!rc)
		r->threaded = true;
	return -rc;
}

static void stop_now(struct reactor_msg *msg)
{
	struct reactor *r = container_of(msg, struct reactor, stop);

	atomic_store_explicit(&r->stopping, true, memory_order_relaxed);
}

void reactor_stop(struct reactor *r)
{
	r->stop.fn = stop_now;
	reactor_send(r, &r->stop);
}

const char *reactor_name(const struct reactor *r)
{
	return r->name;
}

int reactor_cpu(const struct reactor *r)
{
	return r->cpu;
}

struct helper_pool *reactor_helpers(const struct reactor *r)
{
	return r->helpers;
}

void reactor_get_stats(const struct reactor *r, struct reactor_stats *stats)
{
	stats->passes = atomic_load_explicit(&r->passes, memory_order_relaxed);
	stats->worked = atomic_load_explicit(&r->worked, memory_order_relaxed);
	stats->busy_ns = atomic_load_explicit(&r->busy_ns, memory_order_relaxed);
	stats->sleeps = atomic_load_explicit(&r->sleeps, memory_order_relaxed);
	stats->msgs = atomic_load_explicit(&r->msgs, memory_order_relaxed);
	stats->pollers = atomic_load_explicit(&r->busy_pollers, memory_order_relaxed);
}
