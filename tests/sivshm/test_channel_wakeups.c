/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A search for wake-ups that get lost.
 *
 * Two processes sleep whenever they can, for room and for messages, in a ring so small that they
 * always have to.  Who sleeps for seconds while the other has done its part has missed its ring.
 *
 * And they run a race, again and again: one publishes while the other goes to sleep, both from one
 * mark on, give or take some instructions.  When both are done, who is going to sleep has been
 * rung, or has seen what the other did.
 *
 * `test_channel_wakeups SEED SECONDS` searches longer, and elsewhere.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sivshm.h"

enum { LONG_MS = 5000, LAST = 0xff, CHANNEL_BYTES = 4096, SEGMENT = 2 * CHANNEL_BYTES };

static unsigned seed = 1, milliseconds = 400;
static const struct sivshm_channel_opts channel_opts = {.struct_bytes = sizeof(channel_opts),
							.bytes = CHANNEL_BYTES};

static struct sivshm_manager *m;
static struct sivshm_worker *w;
static struct sivshm_channel *channel;
static pid_t worker;

struct dice {
	unsigned state;
};

static unsigned chance(struct dice *d, unsigned n)
{
	return (unsigned)rand_r(&d->state) % n;
}

/* Takes so long as it takes the other side to get into any place of what it does. */
static void dawdle(struct dice *d)
{
	for (volatile unsigned n = chance(d, 8) ? 0 : chance(d, 1000); n; n--)
		;
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "process %d: %s\n", (int)getpid(), what);
	_exit(1);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* One message with a number, in a batch that is not pushed yet. Returns how often it slept. */
static unsigned put(struct sivshm_channel *c, struct dice *d, uint32_t number, uint8_t what)
{
	size_t bytes = 8 + chance(d, 200);
	unsigned slept = 0;
	uint8_t *to;
	int rc;

	while ((rc = sivshm_channel_reserve(c, bytes, (void **)&to)) == -EAGAIN) {
		must(!sivshm_channel_push(c), "push");
		dawdle(d);
		must(sivshm_channel_wait_room(c, bytes, LONG_MS) == 1, "no room in a long time");
		slept++;
	}
	must(!rc, "reserve");
	memcpy(to, &number, sizeof(number));
	to[4] = what;
	sivshm_channel_commit(c, bytes);
	return slept;
}

/* The next message. Returns its what. */
static uint8_t get(struct sivshm_channel *c, struct dice *d, uint32_t number, unsigned *slept)
{
	const uint8_t *from;
	uint32_t got;
	size_t bytes;
	int rc;

	while (!(rc = sivshm_channel_receive(c, (const void **)&from, &bytes))) {
		sivshm_channel_release(c);
		dawdle(d);
		must(sivshm_channel_wait(c, LONG_MS) == 1, "no message in a long time");
		++*slept;
	}
	must(rc == 1 && bytes >= 8, "receive");
	memcpy(&got, from, sizeof(got));
	must(got == number, "another message's number");
	return from[4];
}

static unsigned send_all(struct sivshm_channel *c, struct dice *d)
{
	uint64_t end = now_ms() + milliseconds;
	unsigned slept = 0;
	uint32_t n = 0;

	while (n % 64 || now_ms() < end) {
		slept += put(c, d, n++, 0);
		if (!chance(d, 4))
			must(!sivshm_channel_push(c), "push");
		dawdle(d);
	}
	slept += put(c, d, n, LAST);
	must(!sivshm_channel_push(c), "push");
	return slept;
}

static unsigned receive_all(struct sivshm_channel *c, struct dice *d)
{
	unsigned slept = 0;
	uint32_t n = 0;

	while (get(c, d, n++, &slept) != LAST) {
		if (!chance(d, 4))
			sivshm_channel_release(c);
		dawdle(d);
	}
	sivshm_channel_release(c);
	return slept;
}

/* Each sends one and sleeps until the other has sent one. */
static unsigned take_turns(struct sivshm_channel *c, struct dice *d, bool first)
{
	uint64_t end = now_ms() + milliseconds;
	unsigned slept = 0;
	uint8_t what = 0;

	for (uint32_t n = 0; what != LAST; n++) {
		if (!first) {
			what = get(c, d, n, &slept);
			sivshm_channel_release(c);
		} else if (now_ms() >= end) {
			what = LAST;
		}
		dawdle(d);
		slept += put(c, d, n, what);
		must(!sivshm_channel_push(c), "push");
		if (first) {
			must(get(c, d, n, &slept) == what, "another answer");
			sivshm_channel_release(c);
		}
	}
	return slept;
}

/* Behind the channel in the segment: where each of the two has got to. */
struct track {
	_Alignas(64) atomic_uint at[2][64 / sizeof(atomic_uint)];
};

static void meet(struct track *t, unsigned who)
{
	unsigned mark = atomic_fetch_add(&t->at[who][0], 1) + 1;
	uint64_t end = 0;

	for (unsigned n = 1; atomic_load(&t->at[!who][0]) < mark; n++) {
		if (n % 10000)
			continue;
		sched_yield();
		if (!end)
			end = now_ms() + LONG_MS;
		must(now_ms() < end, "the other has not come");
	}
}

/* Whether both go on with race @nr, which the first says. */
static bool go_on(struct track *t, unsigned who, unsigned nr, uint64_t end)
{
	if (!who && now_ms() >= end)
		atomic_store(&t->at[0][nr], 1);
	meet(t, who);
	return !atomic_load(&t->at[0][nr]);
}

static void stagger(struct dice *d)
{
	for (volatile unsigned n = chance(d, 50); n; n--)
		;
}

/* What is waited for is there, or the ring that says so. */
static void race_sleeper(struct sivshm_port *p, int armed, unsigned *rung, unsigned *seen)
{
	int taken = sivshm_port_take(p, 0);

	must(armed || taken, "a ring was lost");
	++*(armed ? seen : rung);
}

static void race(struct sivshm_channel *c, struct sivshm_port *p, struct dice *d, bool sends)
{
	struct track *t = (void *)((uint8_t *)sivshm_port_memory(p) + CHANNEL_BYTES);
	uint64_t end = now_ms() + milliseconds, data = 0;
	unsigned rung = 0, seen = 0;

	/* One sends, while the other goes to sleep. */
	while (go_on(t, sends, 1, end)) {
		int armed = 0;

		meet(t, sends);
		stagger(d);
		if (sends) {
			must(!sivshm_channel_send(c, &data, sizeof(data)), "send");
			must(!sivshm_channel_push(c), "push");
		} else {
			armed = sivshm_channel_arm(c);
		}
		meet(t, sends);
		if (!sends) {
			race_sleeper(p, armed, &rung, &seen);
			must(sivshm_channel_recv(c, &data, sizeof(data)) == 8, "receive");
		}
	}
	must(sends || (rung && seen), "the same was always first, with messages");

	/* One reads all that there is, while the other goes to sleep for room. */
	rung = seen = 0;
	end = now_ms() + milliseconds;
	while (go_on(t, sends, 2, end)) {
		int armed = 0, rc;

		while (sends && !(rc = sivshm_channel_send(c, &data, sizeof(data))))
			;
		meet(t, sends);
		stagger(d);
		if (sends)
			armed = sivshm_channel_arm_room(c, sizeof(data));
		else
			while ((rc = sivshm_channel_recv(c, &data, sizeof(data))) == 8)
				;
		meet(t, sends);
		if (sends)
			race_sleeper(p, armed, &rung, &seen);
	}
	must(!sends || (rung && seen), "the same was always first, with room");
}

static int run_worker(const char *where)
{
	struct dice d = {seed + 1};
	struct sivshm_channel *c;
	struct sivshm_port *p;

	must(!sivshm_open(where, LONG_MS, &p), "open");
	must(!sivshm_channel_attach(p, &channel_opts, &c), "attach");
	must(receive_all(c, &d) > 0, "never slept for a message");
	must(send_all(c, &d) > 0, "never slept for room");
	must(take_turns(c, &d, false) > 0, "never slept for its turn");
	race(c, p, &d, false);
	sivshm_channel_destroy(c);
	sivshm_port_close(p);
	return 0;
}

static void start(void)
{
	struct sivshm_worker_opts opts = {
		.struct_bytes = sizeof(opts), .segment_bytes = SEGMENT, .vectors = 1};
	char where[16];
	int fd;

	assert_int_equal(sivshm_manager_create(NULL, &m), 0);
	assert_int_equal(sivshm_worker_add(m, &opts, &w), 0);
	assert_int_equal(sivshm_channel_create(sivshm_worker_port(w), &channel_opts, &channel), 0);
	fd = sivshm_worker_take_socket(w);
	assert_true(fd >= 0);
	snprintf(where, sizeof(where), "fd:%d", fd);
	worker = fork();
	assert_true(worker >= 0);
	if (!worker)
		_exit(run_worker(where));
	close(fd);
}

static void no_wakeup_is_lost(void **state)
{
	struct dice d = {seed};
	int status;

	start();
	assert_true(send_all(channel, &d) > 0);
	assert_true(receive_all(channel, &d) > 0);
	assert_true(take_turns(channel, &d, true) > 0);
	race(channel, sivshm_worker_port(w), &d, true);
	assert_int_equal(waitpid(worker, &status, 0), worker);
	assert_int_equal(status, 0);
	/* It is gone, and who waits is told. */
	assert_int_equal(sivshm_channel_wait(channel, LONG_MS), -EPIPE);
	sivshm_channel_destroy(channel);
	sivshm_manager_destroy(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(no_wakeup_is_lost)};

	if (argc > 1)
		seed = (unsigned)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		milliseconds = 1000 * (unsigned)strtoul(argv[2], NULL, 10) / 5;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
