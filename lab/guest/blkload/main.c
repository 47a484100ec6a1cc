/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blkload: a load generator for block devices that takes nothing on trust.
 *
 * A disk may fail in ways that no error status shows: a write is acknowledged and lost, or lands
 * somewhere else, or is torn in the middle, or a read returns what was there before.  A generator
 * that only counts completions sees none of it.  With --verify each sector that blkload writes
 * names itself (see verify.c): the region is filled, then read and written at random with each read
 * compared, and read once more as a whole in the end.  Requests in flight never overlap then: what
 * a read returns beside an unfinished write is nobody's promise.
 *
 * Without verification it measures, and then does as little besides as it can: it reads a clock
 * that costs nothing (clock.c), keeps no account of sectors, and tells the kernel of its buffers
 * beforehand (engine.c).  Several jobs may share a device, and several devices be used at once.
 * Each job is a process of its own, with a gate to the first, which lets all begin at the same
 * time; all count into records that are shared with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define REST_NS 150000000l /* for others to read counters, on each side of the load */

/* The processes that a signal to the first one is passed on to. */
static pid_t jobs[MAX_JOBS];
static volatile sig_atomic_t jobs_started;

static void on_signal(int number)
{
	phase_stopped = 1;
	for (int i = 0; i < jobs_started; i++)
		kill(jobs[i], number);
}

/* A job says that it has come to a gate, and waits until it may go on. */
static void pass_gate(const struct load *l)
{
	char byte = 0;

	while (write(l->gate, &byte, 1) < 0 && errno == EINTR)
		;
	while (read(l->gate, &byte, 1) < 0 && errno == EINTR)
		;
}

/* A job of several: the process does nothing else.  Ends with the status of the job. */
static void __attribute__((noreturn)) run_job(struct load *l)
{
	int rc;

	phase_prepare(l);
	pass_gate(l);
	rc = phase_run_load(l);
	pass_gate(l);
	if (rc < 0)
		refuse("%s: %s", l->device, strerror(-rc));
	_exit(0);
}

/* Waits until all jobs have come to a gate.  Returns false if one has died instead. */
static bool await_gates(const int *gates, unsigned count)
{
	char byte;

	for (unsigned i = 0; i < count; i++) {
		ssize_t n;

		do {
			n = read(gates[i], &byte, 1);
		} while (n < 0 && errno == EINTR);
		if (n != 1)
			return false;
	}
	return true;
}

static void open_gates(const int *gates, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		while (write(gates[i], "", 1) < 0 && errno == EINTR)
			;
	}
}

/* Waits for a job. Returns false if it has failed. */
static bool await_job(pid_t job)
{
	int status;

	while (waitpid(job, &status, 0) < 0) {
		if (errno != EINTR)
			return false;
	}
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

/* The interrupts so far of all lines with this name, on all processors. */
static uint64_t count_interrupts(const char *name)
{
	FILE *file = name ? fopen("/proc/interrupts", "r") : NULL;
	char line[4096];
	uint64_t sum = 0;

	while (file && fgets(line, sizeof(line), file)) {
		char *next = strchr(line, ':'), *end;

		if (!next || !strstr(next, name))
			continue;
		for (next++;; next = end) {
			uint64_t count = strtoull(next, &end, 10);

			if (end == next || (*end != ' ' && *end != '\n'))
				break;
			sum += count;
		}
	}
	if (file)
		fclose(file);
	return sum;
}

static void announce(const struct load *l, const char *what)
{
	struct timespec rest = {0, REST_NS};

	if (!l->announce)
		return;
	fprintf(stderr, "@%s %s\n", what, l->announce);
	nanosleep(&rest, NULL);
}

static pid_t start_job(struct load *l, unsigned number, struct outcome *out, int *gate)
{
	int ends[2];
	pid_t job;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		refuse("socketpair: %s", strerror(errno));
	job = fork();
	if (job < 0)
		refuse("fork: %s", strerror(errno));
	if (!job) {
		struct load mine = *l;

		/* The others' gates are theirs alone: they end with them. */
		for (unsigned i = 0; i < number; i++)
			close(gate[(int)i - (int)number]);
		close(ends[0]);
		jobs_started = 0;
		mine.gate = ends[1];
		mine.out = out;
		mine.device = l->devices[number / l->jobs];
		mine.part = number % l->jobs;
		mine.seed += number;
		run_job(&mine);
	}
	close(ends[1]);
	*gate = ends[0];
	return job;
}

/* Runs the jobs, each in a process. Returns whether all did what they were to do. */
static bool run_jobs(struct load *l)
{
	unsigned count = l->device_count * l->jobs;
	struct outcome *outcomes = mmap(NULL, count * sizeof(*outcomes), PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static int gates[MAX_JOBS];
	uint64_t interrupts;
	bool good;

	if (outcomes == MAP_FAILED)
		refuse("out of memory");
	for (unsigned i = 0; i < count; i++) {
		jobs[i] = start_job(l, i, &outcomes[i], &gates[i]);
		jobs_started++;
	}
	good = await_gates(gates, count);
	if (good) {
		announce(l, "begin");
		interrupts = count_interrupts(l->interrupts);
		open_gates(gates, count);
		good = await_gates(gates, count);
		l->out->interrupts = count_interrupts(l->interrupts) - interrupts;
		announce(l, "end");
	}
	for (unsigned i = 0; i < count; i++) {
		if (!good)
			kill(jobs[i], SIGTERM);
		close(gates[i]); /* which lets it go */
	}
	for (unsigned i = 0; i < count; i++) {
		good &= await_job(jobs[i]);
		add_outcome(l->out, &outcomes[i]);
	}
	return good;
}

int main(int argc, char **argv)
{
	static struct outcome outcome;
	struct load l = {.block_min = 8,
			 .block_max = 8,
			 .read_percent = 50,
			 .engine_name = "io_uring",
			 .depth = 16,
			 .batch = 1,
			 .jobs = 1,
			 .seed = 1,
			 .out = &outcome};
	struct sigaction action = {.sa_handler = on_signal};

	parse_options(&l, argc, argv);
	clock_begin(!l.verify);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (l.verify) {
		int rc = phase_run_verified(&l);

		if (rc < 0)
			refuse("%s: %s", l.device, strerror(-rc));
	} else if (!run_jobs(&l)) {
		exit(2); /* a job has said why */
	}
	print_result(&l, clock_end());
	return outcome.bad || outcome.failed;
}
