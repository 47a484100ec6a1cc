/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-transport and bench-transport-common, the former with libsivshm's ports, the latter with
 * the classic distributor's memory:
 *
 *   stream WAY BYTES WORKERS MS    messages of BYTES from one manager to WORKERS in turns
 *   trip WAY BYTES polled|asleep MS   a message of BYTES there and one back, again and again
 *   copy BYTES MS                  memcpy() of what `stream` has a manager write: from the same
 * source to memory of a ring's size line MS                        a cache line there and back, as
 * a counter that two cores raise
 *
 * WAY is sivshm, tcp or unix, or else common.  The manager has core 0 for itself, its workers core
 * 1; one worker alone polls a while before it sleeps, several sleep at once when there is nothing.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "ports.h"
#include "source.h"
#include "transport.h"

enum {
	WARM_MS = 30,
	/* What is handed over between two looks at the clock, and with one ring or system call. */
	BATCH_BYTES = 1 << 20,
	BATCH_MAX = 256,
	/* A ring's bytes in a channel over a whole segment, about. */
	RING_BYTES = TRANSPORT_SEGMENT / 2,
	TRIPS = 100,
};

static const struct transport *way;

static void find_way(const char *name)
{
	way = transport_channel(name);
	if (!way)
		way = transport_socket(name);
	if (!way)
		bench_die("no way '%s' here", name);
}

static pid_t pids[TRANSPORT_WORKERS_MAX];

/* Starts a worker that does @run. */
static void start(unsigned worker, void (*run)(unsigned worker, void *arg), void *arg)
{
	pid_t parent = getpid();

	pids[worker] = bench_must(fork(), "fork");
	if (pids[worker])
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(1);
	bench_pin(1);
	run(worker, arg);
	exit(0);
}

static void end(unsigned workers)
{
	int status;

	for (unsigned i = 0; i < workers; i++)
		if (waitpid(pids[i], &status, 0) < 0 || status)
			bench_die("worker %u has failed", i);
}

/* Streams */

struct stream {
	struct transport_board board;
	atomic_uint joined;
	unsigned workers;
};

static void consume(unsigned worker, void *arg)
{
	struct stream *s = arg;

	way->join(worker);
	atomic_fetch_add(&s->joined, 1);
	way->consume(worker, s->workers == 1, &s->board);
}

struct sent {
	uint64_t numbers[TRANSPORT_WORKERS_MAX]; /* the next message of each */
	uint64_t bytes;
	uint64_t sum;
};

static void send_until(struct sent *sent, unsigned workers, size_t bytes, uint64_t until)
{
	unsigned batch = (unsigned)(BATCH_BYTES / bytes);

	if (batch < 1)
		batch = 1;
	if (batch > BATCH_MAX)
		batch = BATCH_MAX;
	while (bench_now_ns() < until) {
		unsigned all = 0;

		for (unsigned w = 0; w < workers; w++) {
			uint64_t *number = &sent->numbers[w];
			unsigned n;

			if (!way->finish(w))
				continue;
			n = way->send(w, *number, batch, bytes);
			for (unsigned i = 0; i < n; i++)
				sent->sum += source_sum((*number)++);
			all += n;
		}
		sent->bytes += all * bytes;
		if (!all)
			bench_pause();
	}
}

static uint64_t consumed(struct stream *s, uint64_t *sum)
{
	uint64_t bytes = 0;

	*sum = 0;
	for (unsigned w = 0; w < s->workers; w++) {
		bytes += atomic_load(&s->board.reports[w].bytes);
		*sum += atomic_load(&s->board.reports[w].sum);
	}
	return bytes;
}

static void stream(const char *name, size_t bytes, unsigned workers, unsigned long ms)
{
	struct stream *s = bench_shared(sizeof(*s));
	uint64_t begun, ended, before, got, sum;
	struct sent sent = {0};

	if (workers > TRANSPORT_WORKERS_MAX)
		bench_die("at most %d workers", TRANSPORT_WORKERS_MAX);
	find_way(name);
	source_make(bytes);
	s->workers = workers;
	way->prepare(workers);
	for (unsigned w = 0; w < workers; w++)
		start(w, consume, s);
	bench_pin(0);
	way->open(workers);
	while (atomic_load(&s->joined) < workers)
		usleep(100);

	send_until(&sent, workers, bytes, bench_now_ns() + WARM_MS * UINT64_C(1000000));
	before = consumed(s, &sum);
	begun = bench_now_ns();
	send_until(&sent, workers, bytes, begun + ms * 1000000);
	ended = bench_now_ns();
	got = consumed(s, &sum) - before;

	for (unsigned w = 0; w < workers; w++)
		while (!way->finish(w))
			;
	atomic_store(&s->board.stop, true);
	end(workers);
	if (consumed(s, &sum) != sent.bytes || sum != sent.sum)
		bench_die("%s: what arrived is not what was sent", name);
	printf("{\"way\": \"%s\", \"bytes\": %zu, \"workers\": %u, \"mb_per_s\": %.2f}\n", name,
	       bytes, workers, (double)got * 1e3 / (double)(ended - begun));
}

/* Round trips */

struct trip {
	atomic_bool joined;
	size_t bytes;
	bool poll;
};

static void answer(unsigned worker, void *arg)
{
	struct trip *t = arg;

	way->join(0);
	atomic_store(&t->joined, true);
	for (;;) {
		way->hear(t->bytes, t->poll);
		way->say(t->bytes);
	}
}

static bool is_polled(const char *how)
{
	if (strcmp(how, "polled") && strcmp(how, "asleep"))
		bench_die("'%s' is neither polled nor asleep", how);
	return !strcmp(how, "polled");
}

/* Does @once for @ms, after a while of warming up. Returns the mean in nanoseconds. */
static double time_trips(void (*once)(void *arg), void *arg, unsigned long ms)
{
	uint64_t begun = bench_now_ns(), until = begun + WARM_MS * UINT64_C(1000000), now, n;

	for (unsigned round = 0; round < 2; round++) {
		n = 0;
		do {
			for (unsigned i = 0; i < TRIPS; i++)
				once(arg);
			n += TRIPS;
			now = bench_now_ns();
		} while (now < until);
		if (round == 0) {
			begun = bench_now_ns();
			until = begun + ms * 1000000;
		}
	}
	return (double)(now - begun) / (double)n;
}

static void ask(void *arg)
{
	const struct trip *t = arg;

	way->say(t->bytes);
	way->hear(t->bytes, t->poll);
}

static void trip(const char *name, size_t bytes, const char *how, unsigned long ms)
{
	struct trip *t = bench_shared(sizeof(*t));

	if (bytes > 4096)
		bench_die("trips are of at most 4096 bytes");
	find_way(name);
	source_make((bytes + SOURCE_LINE - 1) / SOURCE_LINE * SOURCE_LINE);
	t->bytes = bytes;
	t->poll = is_polled(how);
	way->prepare(1);
	start(0, answer, t);
	bench_pin(0);
	way->open(1);
	while (!atomic_load(&t->joined))
		usleep(100);
	printf("{\"way\": \"%s\", \"bytes\": %zu, \"how\": \"%s\", \"ns\": %.1f}\n", name, bytes,
	       how, time_trips(ask, t, ms));
	kill(pids[0], SIGKILL);
	waitpid(pids[0], NULL, 0);
}

/* What it is to be measured by */

struct copy {
	uint8_t *to;
	size_t bytes, at;
	uint64_t number;
};

static void copy_once(void *arg)
{
	struct copy *c = arg;

	memcpy(c->to + c->at, source_message(c->number++), c->bytes);
	c->at += c->bytes;
	if (c->at + c->bytes > RING_BYTES)
		c->at = 0;
	/* All copies are wanted, whether somebody looks at them or not. */
	__asm__ volatile("" : : "r"(c->to) : "memory");
}

static void copy(size_t bytes, unsigned long ms)
{
	struct copy c = {.bytes = bytes, .to = bench_shared(RING_BYTES)};

	bench_pin(0);
	source_make(bytes);
	printf("{\"way\": \"memcpy\", \"bytes\": %zu, \"mb_per_s\": %.2f}\n", bytes,
	       (double)bytes * 1e3 / time_trips(copy_once, &c, ms));
}

/* Whose turn it is, as in a game of ball. */
struct line {
	_Alignas(128) _Atomic uint64_t count;
	_Alignas(128) atomic_bool over;
};

static void return_line(unsigned worker, void *arg)
{
	struct line *l = arg;
	uint64_t count = 0;

	while (!atomic_load_explicit(&l->over, memory_order_relaxed))
		if (atomic_load_explicit(&l->count, memory_order_acquire) == count + 1)
			atomic_store_explicit(&l->count, count += 2, memory_order_release);
}

static void play_line(void *arg)
{
	struct line *l = arg;
	uint64_t count = atomic_load_explicit(&l->count, memory_order_relaxed);

	atomic_store_explicit(&l->count, count + 1, memory_order_release);
	while (atomic_load_explicit(&l->count, memory_order_acquire) != count + 2)
		;
}

static void line(unsigned long ms)
{
	struct line *l = bench_shared(sizeof(*l));

	start(0, return_line, l);
	bench_pin(0);
	printf("{\"way\": \"line\", \"ns\": %.1f}\n", time_trips(play_line, l, ms));
	atomic_store(&l->over, true);
	end(1);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(what, "stream") && argc == 6)
		stream(argv[2], bench_number(argv[3], SOURCE_LINE),
		       (unsigned)bench_number(argv[4], 1), bench_number(argv[5], 1));
	else if (!strcmp(what, "trip") && argc == 6)
		trip(argv[2], bench_number(argv[3], 1), argv[4], bench_number(argv[5], 1));
	else if (!strcmp(what, "copy") && argc == 4)
		copy(bench_number(argv[2], SOURCE_LINE), bench_number(argv[3], 1));
	else if (!strcmp(what, "line") && argc == 3)
		line(bench_number(argv[2], 1));
	else
		bench_die("usage: see the head of tests/bench/sivshm/transport.c");
	return 0;
}
