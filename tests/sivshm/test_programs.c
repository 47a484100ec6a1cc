/* SPDX-License-Identifier: BSD-2-Clause */
/* Workers that are programs of their own: what they have, what they inherit, and how they end. */
#include "desk.h"
#include "probe.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1024 * 1024, WORKERS = 3, PATIENCE_MS = 5000 };

static const char *probe;

static pid_t start(struct sivshm_worker *w)
{
	int fd = sivshm_worker_take_socket(w);
	char where[32];
	pid_t pid;

	assert_true(fd >= 0);
	snprintf(where, sizeof(where), "fd:%d", fd);
	pid = fork();
	if (pid == 0) {
		setenv("SIVSHM", where, 1);
		fcntl(fd, F_SETFD, 0);
		execl(probe, probe, (char *)NULL);
		_exit(127);
	}
	close(fd);
	return pid;
}

static void expect(struct desk *desk, const struct sivshm_worker *w, enum desk_event event)
{
	int64_t end = desk_now_ms() + PATIENCE_MS;

	while (!desk_count(desk, w, event) && desk_now_ms() < end)
		assert_true(sivshm_manager_dispatch(desk->manager, 100) >= 0);
	assert_int_equal(desk_count(desk, w, event), 1);
}

static int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/*
 * Its standard descriptors and the socket; one mapping, one's own; and a program that it starts has
 * nothing of it.
 */
static void have_their_own_and_nothing_else(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w[WORKERS];
	pid_t pids[WORKERS];

	/* All are there before the first is started: what leaks, leaks. */
	for (unsigned i = 0; i < WORKERS; i++)
		w[i] = desk_add(desk, MIB, 4);
	for (unsigned i = 0; i < WORKERS; i++)
		pids[i] = start(w[i]);
	for (unsigned i = 0; i < WORKERS; i++) {
		const struct probe_report *report = sivshm_port_memory(sivshm_worker_port(w[i]));

		expect(desk, w[i], DESK_RUNG);
		assert_int_equal(report->fds_before, 4);
		assert_int_equal(report->memory_fds, 0);
		assert_int_equal(report->maps, 1);
		assert_int_equal(report->own_map, 1);
		assert_int_equal(report->child_fds, 3);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		assert_int_equal(sivshm_port_ring(sivshm_worker_port(w[i]), 0), 0);
		assert_int_equal(wait_for(pids[i]), 0);
		expect(desk, w[i], DESK_GONE);
	}
}

/* Rounds enough to stand out from what others do meanwhile. */
static void give_their_memory_back_when_killed(void **state)
{
	enum { ROUNDS = 6, BYTES = 64 * MIB };
	struct desk *desk = *state;
	long before = desk_shmem();

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct sivshm_worker *w = desk_add(desk, BYTES, 1);
		const char *memory = sivshm_port_memory(sivshm_worker_port(w));
		pid_t pid;
		int64_t begin;

		desk->nr_notes = 0;
		pid = start(w);
		expect(desk, w, DESK_RUNG);
		kill(pid, SIGKILL);
		begin = desk_now_ms();
		expect(desk, w, DESK_GONE);
		assert_true(desk_now_ms() - begin < 2000);
		assert_true(WIFSIGNALED(wait_for(pid)));
		/* What it has left is there until it is removed. */
		assert_int_equal(memory[BYTES - 1], 0x5a);
		sivshm_worker_remove(w);
	}
	assert_true(desk_shmem() - before < (long)ROUNDS * BYTES / 2);
}

/* It hears of it, and ends by itself. */
static void end_when_they_are_removed(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, MIB, 1);
	pid_t pid = start(w);

	expect(desk, w, DESK_RUNG);
	sivshm_worker_remove(w);
	assert_int_equal(WEXITSTATUS(wait_for(pid)), 3);
}

/* One that is stopped takes nobody's time; rings wait for it. */
static void hold_nobody_up_when_stopped(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, MIB, 1), *good;
	struct sivshm_port *p = desk_hire(desk, MIB, 1, &good);
	pid_t pid = start(w);
	int64_t begin;

	expect(desk, w, DESK_RUNG);
	kill(pid, SIGSTOP);
	begin = desk_now_ms();
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(sivshm_port_ring(sivshm_worker_port(w), 0), 0);
		assert_int_equal(sivshm_port_ring(p, 0), 0);
		assert_int_equal(sivshm_manager_dispatch(desk->manager, 1000), 1);
	}
	assert_true(desk_now_ms() - begin < 2000);
	kill(pid, SIGCONT);
	assert_int_equal(wait_for(pid), 0);
	sivshm_port_close(p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
		TEST(have_their_own_and_nothing_else),
		TEST(give_their_memory_back_when_killed),
		TEST(end_when_they_are_removed),
		TEST(hold_nobody_up_when_stopped),
	};

	if (argc != 2)
		return 2;
	probe = argv[1];
	/* What the test itself was given is not the library's leak. */
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
