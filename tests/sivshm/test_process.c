/* SPDX-License-Identifier: BSD-2-Clause */
/* The worker's end in a process: ringing and waiting, and managers that greet in evil ways. */
#include "../fds.h"
#include "desk.h"
#include "sivshm_items.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KIB = 1024, BYTES = 64 * KIB, VECTORS = 3 };

static void shares_memory_both_ways(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w), *mine = sivshm_worker_port(w);
	char *theirs = sivshm_port_memory(p), *here = sivshm_port_memory(mine);

	assert_int_equal(sivshm_port_size(p), BYTES);
	assert_int_equal(sivshm_port_vectors(p), VECTORS);
	assert_int_equal(sivshm_port_vectors(mine), VECTORS);
	assert_int_equal(sivshm_port_id(p), sivshm_port_peer(mine));
	assert_int_equal(sivshm_port_peer(p), sivshm_port_id(mine));
	assert_int_equal((uintptr_t)theirs % 4096, 0);
	assert_ptr_not_equal(theirs, here);
	here[BYTES - 1] = 1;
	assert_int_equal(theirs[BYTES - 1], 1);
	theirs[0] = 2;
	assert_int_equal(here[0], 2);
	sivshm_port_close(p);
	sivshm_port_close(NULL);
}

static void leaves_children_without(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w);
	pid_t child;
	int ends[2], status;

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], sivshm_port_memory(p), 1), 1);
	child = fork();
	if (child == 0)
		_exit(write(ends[1], sivshm_port_memory(p), 1) == 1 || sivshm_port_ring(p, 0) == 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(close(ends[0]) | close(ends[1]), 0);
	sivshm_port_close(p);
}

/* Every doorbell is one's own, both ways, and is rung and taken once. */
static void check_bells(struct sivshm_port *from, struct sivshm_port *to)
{
	for (unsigned v = 0; v < VECTORS; v++) {
		assert_int_equal(sivshm_port_take(to, v), 0);
		assert_int_equal(sivshm_port_ring(from, v), 0);
		assert_int_equal(sivshm_port_ring(from, v), 0);
		for (unsigned i = 0; i < VECTORS; i++) {
			struct pollfd ready = {.fd = sivshm_port_fd(to, i), .events = POLLIN};

			assert_int_equal(poll(&ready, 1, 0), i == v);
		}
		assert_int_equal(sivshm_port_take(to, v), 1);
		assert_int_equal(sivshm_port_take(to, v), 0);
		assert_int_equal(sivshm_port_take(from, v), 0);
	}
	assert_int_equal(sivshm_port_ring(from, VECTORS), -EINVAL);
	assert_int_equal(sivshm_port_take(from, VECTORS), -EINVAL);
	assert_int_equal(sivshm_port_fd(from, VECTORS), -EINVAL);
	assert_int_equal(sivshm_port_wait(from, VECTORS, 0), -EINVAL);
}

static void rings_both_ways(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w);

	check_bells(p, sivshm_worker_port(w));
	check_bells(sivshm_worker_port(w), p);
	sivshm_port_close(p);
}

enum { RINGS = 20000, RINGERS = 3 };

static void *ring_often(void *arg)
{
	for (unsigned i = 0; i < RINGS; i++)
		if (sivshm_port_ring(arg, 0) < 0)
			return arg;
	return NULL;
}

/* From several threads at once, and more often than the kernel keeps account of. */
static void rings_from_any_thread(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w);
	pthread_t threads[RINGERS];

	for (unsigned i = 0; i < RINGERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ring_often, p), 0);
	for (unsigned i = 0; i < RINGERS; i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(sivshm_port_take(sivshm_worker_port(w), 0), 1);
	assert_int_equal(sivshm_port_take(sivshm_worker_port(w), 0), 0);
	sivshm_port_close(p);
}

static void *ring_later(void *arg)
{
	usleep(20000);
	sivshm_port_ring(arg, 1);
	return NULL;
}

static void *remove_later(void *arg)
{
	usleep(20000);
	sivshm_worker_remove(arg);
	return NULL;
}

static void sleeps_until_it_is_rung(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w);
	int64_t begin = desk_now_ms();
	pthread_t thread;

	assert_int_equal(sivshm_port_wait(p, 1, 0), 0);
	assert_int_equal(sivshm_port_wait(p, 1, 30), 0);
	assert_true(desk_now_ms() - begin >= 29);
	pthread_create(&thread, NULL, ring_later, sivshm_worker_port(w));
	assert_int_equal(sivshm_port_wait(p, 1, -1), 1);
	pthread_join(thread, NULL);
	assert_int_equal(sivshm_port_wait(p, 1, 0), 0);
	/* What was rung before the end is had before it. */
	assert_int_equal(sivshm_port_is_alive(p), 1);
	sivshm_port_ring(sivshm_worker_port(w), 2);
	pthread_create(&thread, NULL, remove_later, w);
	assert_int_equal(sivshm_port_wait(p, 1, -1), -EPIPE);
	pthread_join(thread, NULL);
	assert_int_equal(sivshm_port_wait(p, 2, -1), 1);
	assert_int_equal(sivshm_port_wait(p, 2, -1), -EPIPE);
	assert_int_equal(sivshm_port_ring(p, 0), -EPIPE);
	/* The memory is there until it is closed. */
	memset(sivshm_port_memory(p), 1, BYTES);
	sivshm_port_close(p);
}

struct storm {
	struct sivshm_port *port;
	atomic_bool over;
};

static void *ring_on(void *arg)
{
	struct storm *storm = arg;

	while (!atomic_load(&storm->over))
		sivshm_port_ring(storm->port, 0);
	return NULL;
}

/* Rings, which in a guest may be naps, are no measure of time. */
static void awaits_items_as_long_as_it_is_told(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, 1024 * KIB, 1);
	struct storm storm = {.port = sivshm_worker_port(w)};
	struct sivshm_items *s;
	pthread_t thread;
	int64_t begin;
	char where[16];

	snprintf(where, sizeof(where), "fd:%d", sivshm_worker_take_socket(w));
	pthread_create(&thread, NULL, ring_on, &storm);
	begin = desk_now_ms();
	assert_int_equal(sivshm_items_open(where, 300, &s), -ETIMEDOUT);
	begin = desk_now_ms() - begin;
	atomic_store(&storm.over, true);
	pthread_join(thread, NULL);
	assert_true(begin >= 300);
}

static void notices_the_end(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w), *mine = sivshm_worker_port(w);
	struct pollfd theirs = {.fd = sivshm_port_liveness_fd(p), .events = POLLIN};
	struct pollfd here = {.fd = sivshm_port_liveness_fd(mine), .events = POLLIN};

	assert_int_equal(sivshm_port_is_alive(p), 1);
	assert_int_equal(sivshm_port_is_alive(mine), 1);
	assert_int_equal(poll(&theirs, 1, 0), 0);
	assert_int_equal(poll(&here, 1, 0), 0);
	sivshm_port_close(p);
	assert_int_equal(poll(&here, 1, 0), 1);
	assert_int_equal(sivshm_port_wait(mine, 0, -1), -EPIPE);
	assert_int_equal(sivshm_port_is_alive(mine), 0);
	assert_int_equal(sivshm_port_ring(mine, 0), -EPIPE);
	p = desk_hire(desk, BYTES, VECTORS, &w);
	theirs.fd = sivshm_port_liveness_fd(p);
	sivshm_worker_remove(w);
	assert_int_equal(poll(&theirs, 1, 0), 1);
	assert_int_equal(sivshm_port_is_alive(p), 0);
	sivshm_port_close(p);
}

static void on_alarm(int signal)
{
}

static void is_woken_by_signals(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &w);
	struct sigaction action = {.sa_handler = on_alarm};

	alarm(0);
	sigaction(SIGALRM, &action, NULL);
	ualarm(20000, 0);
	assert_int_equal(sivshm_port_wait(p, 0, 5000), -EINTR);
	ualarm(20000, 0);
	assert_int_equal(sivshm_manager_dispatch(desk->manager, 5000), -EINTR);
	signal(SIGALRM, SIG_DFL);
	sivshm_port_close(p);
}

static void reads_where_to_open(void **state)
{
	static const char *const bad[] = {"",       "fd:",   "fd:-1",    "fd:3x", "fd: 3",
					  "fd:0x1", "pipe:", "socket:3", "unix:", "fd:99999999999"};
	char where[32];
	struct sivshm_port *p;
	int pipe_ends[2], dgram = socket(AF_UNIX, SOCK_DGRAM, 0);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sivshm_open(bad[i], 0, &p), -EINVAL);
	assert_int_equal(sivshm_open("fd:1000", 0, &p), -EBADF);
	assert_int_equal(pipe(pipe_ends), 0);
	snprintf(where, sizeof(where), "fd:%d", pipe_ends[0]);
	assert_int_equal(sivshm_open(where, 0, &p), -ENOTSOCK);
	snprintf(where, sizeof(where), "fd:%d", dgram);
	assert_int_equal(sivshm_open(where, 0, &p), -EPROTOTYPE);
	assert_int_equal(sivshm_open("unix:/nowhere/at/all", 0, &p), -ENOENT);
	setenv("SIVSHM", "fd:1000", 1);
	assert_int_equal(sivshm_open(NULL, 0, &p), -EBADF);
	unsetenv("SIVSHM");
	/* What is not a socket remains its owner's. */
	assert_int_equal(close(pipe_ends[0]) | close(pipe_ends[1]) | close(dgram), 0);
}

/* A manager that means harm: a stage on which each test greets as it likes. */
struct stage {
	int here, there;
	int memfd, bell;
	unsigned fds;
};

static int make_memory(size_t bytes, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static struct stage stage_make(void)
{
	struct stage stage = {.fds = fds_count()};
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	stage.here = ends[0];
	stage.there = ends[1];
	stage.memfd = make_memory(BYTES, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	stage.bell = eventfd(0, EFD_CLOEXEC);
	return stage;
}

static void say(const struct stage *stage, int64_t value, int fd)
{
	assert_int_equal(sivshm_wire_send(stage->here, value, fd), 0);
}

/* Opens it, which fails with @rc, and leaves no descriptor behind. */
static void expect(struct stage *stage, int rc)
{
	struct sivshm_port *p = NULL;
	char where[32];

	snprintf(where, sizeof(where), "fd:%d", stage->there);
	assert_int_equal(sivshm_open(where, 20, &p), rc);
	assert_null(p);
	close(stage->here);
	close(stage->memfd);
	close(stage->bell);
	assert_int_equal(fds_count(), stage->fds);
}

static void waits_no_longer_than_told(void **state)
{
	/* How many of the messages come. */
	for (unsigned n = 0; n <= 5; n++) {
		struct stage stage = stage_make();
		int64_t begin = desk_now_ms();

		for (unsigned i = 0; i < n; i++)
			say(&stage, (const int64_t[]){0, 7, -1, 6, 6}[i],
			    (const int[]){-1, -1, stage.memfd, stage.bell, stage.bell}[i]);
		expect(&stage, -ETIMEDOUT);
		assert_true(desk_now_ms() - begin >= 19);
	}
}

static void notices_an_end_in_the_midst(void **state)
{
	for (unsigned n = 0; n <= 4; n++) {
		struct stage stage = stage_make();

		for (unsigned i = 0; i < n; i++)
			say(&stage, (const int64_t[]){0, 7, -1, 6}[i],
			    (const int[]){-1, -1, stage.memfd, stage.bell}[i]);
		shutdown(stage.here, SHUT_WR);
		expect(&stage, -ECONNRESET);
	}
}

/* A message torn in two is one message. */
static void puts_torn_messages_together(void **state)
{
	struct stage stage = stage_make();
	uint64_t version = 0, id = 8;

	assert_int_equal(write(stage.here, &version, 3), 3);
	assert_int_equal(write(stage.here, &version, 5), 5);
	assert_int_equal(write(stage.here, &id, 7), 7);
	expect(&stage, -ETIMEDOUT);
}

enum { MEMORY = -2, BELL = -3, PIPE = -4, EPOLL = -5 };

struct said {
	int64_t value;
	int fd; /* -1: none; or one of the above */
};

struct greeting {
	const char *what;
	struct said said[8];
	unsigned n;
};

static const struct greeting wrong[] = {
	{"another version", {{1, -1}}, 1},
	{"a negative version", {{-1, -1}}, 1},
	{"a version with a descriptor", {{0, BELL}}, 1},
	{"a negative ID", {{0, -1}, {-1, -1}}, 2},
	{"too large an ID", {{0, -1}, {65537, -1}}, 2},
	{"a manager's ID", {{0, -1}, {6, -1}}, 2},
	{"an ID with a descriptor", {{0, -1}, {7, BELL}}, 2},
	{"no memory", {{0, -1}, {7, -1}, {6, BELL}}, 3},
	{"memory without a descriptor", {{0, -1}, {7, -1}, {-1, -1}}, 3},
	{"memory that is an eventfd", {{0, -1}, {7, -1}, {-1, BELL}}, 3},
	{"memory that is a pipe", {{0, -1}, {7, -1}, {-1, PIPE}}, 3},
	{"memory by another name", {{0, -1}, {7, -1}, {-2, MEMORY}}, 3},
	{"own doorbells first", {{0, -1}, {7, -1}, {-1, MEMORY}, {7, BELL}}, 4},
	{"a doorbell without a descriptor", {{0, -1}, {7, -1}, {-1, MEMORY}, {6, -1}}, 4},
	{"a doorbell that is memory", {{0, -1}, {7, -1}, {-1, MEMORY}, {6, MEMORY}}, 4},
	{"a doorbell that is a pipe", {{0, -1}, {7, -1}, {-1, MEMORY}, {6, PIPE}}, 4},
	{"a doorbell that is an epoll set", {{0, -1}, {7, -1}, {-1, MEMORY}, {6, EPOLL}}, 4},
	{"a stranger's doorbell", {{0, -1}, {7, -1}, {-1, MEMORY}, {6, BELL}, {4, BELL}}, 5},
	{"memory twice", {{0, -1}, {7, -1}, {-1, MEMORY}, {6, BELL}, {-1, MEMORY}}, 5},
	{"an own doorbell that is a pipe",
	 {{0, -1}, {7, -1}, {-1, MEMORY}, {6, BELL}, {7, PIPE}},
	 5},
	{"the manager's after one's own",
	 {{0, -1}, {7, -1}, {-1, MEMORY}, {6, BELL}, {6, BELL}, {7, BELL}, {6, BELL}},
	 7},
};

static void refuses_what_is_no_greeting(void **state)
{
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct stage stage = stage_make();
		int ends[2], set = epoll_create1(EPOLL_CLOEXEC);

		print_message("%s\n", wrong[i].what);
		assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
		for (unsigned n = 0; n < wrong[i].n; n++) {
			int kind = wrong[i].said[n].fd;

			say(&stage, wrong[i].said[n].value,
			    kind == MEMORY  ? stage.memfd
			    : kind == BELL  ? stage.bell
			    : kind == PIPE  ? ends[0]
			    : kind == EPOLL ? set
					    : -1);
		}
		close(ends[0]);
		close(ends[1]);
		close(set);
		expect(&stage, -EPROTO);
	}
}

/* Memory under which the ground could be pulled away, or which is not what it must be. */
static void refuses_memory_it_cannot_rely_on(void **state)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int bad[] = {
		make_memory(BYTES, 0),
		make_memory(BYTES, F_SEAL_GROW | F_SEAL_SEAL),
		make_memory(BYTES + 4096, all),
		make_memory(2048, all),
		make_memory(0, all),
		make_memory(BYTES, all | F_SEAL_WRITE),
		/* Its pages can run out; where there is no such memory, nothing is it. */
		memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB),
	};

	if (bad[6] >= 0 && ftruncate(bad[6], 2048 * KIB) == 0)
		assert_int_equal(fcntl(bad[6], F_ADD_SEALS, all), 0);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct stage stage = stage_make();

		say(&stage, 0, -1);
		say(&stage, 7, -1);
		say(&stage, -1, bad[i]);
		expect(&stage, -EPROTO);
		close(bad[i]);
	}
}

/* Two descriptors with one message, or as many as go: none is left over. */
static void refuses_too_many_descriptors(void **state)
{
	for (unsigned n = 2; n <= 200; n += 99) {
		struct stage stage = stage_make();
		union {
			char bytes[CMSG_SPACE(200 * sizeof(int))];
			struct cmsghdr align;
		} control = {0};
		int64_t value = 0;
		struct iovec iov = {.iov_base = &value, .iov_len = sizeof(value)};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control.bytes,
				     .msg_controllen = CMSG_SPACE(n * sizeof(int))};

		control.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)),
						 .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS};
		for (unsigned i = 0; i < n; i++)
			memcpy(CMSG_DATA(&control.align) + i * sizeof(int),
			       i ? &stage.bell : &stage.memfd, sizeof(int));
		say(&stage, 0, -1);
		say(&stage, 7, -1);
		value = -1;
		assert_int_equal(sendmsg(stage.here, &msg, 0), sizeof(value));
		expect(&stage, -EPROTO);
	}
}

static void refuses_too_many_doorbells(void **state)
{
	struct stage stage = stage_make();

	say(&stage, 0, -1);
	say(&stage, 7, -1);
	say(&stage, -1, stage.memfd);
	for (unsigned i = 0; i <= SIVSHM_VECTORS_MAX; i++)
		say(&stage, 6, stage.bell);
	expect(&stage, -EPROTO);
}

/* As many as there may be come through, and what follows the greeting is left alone. */
static void takes_a_greeting_in_full(void **state)
{
	struct stage stage = stage_make();
	struct sivshm_port *p;
	char where[32];

	say(&stage, 0, -1);
	say(&stage, 65535, -1);
	say(&stage, -1, stage.memfd);
	for (unsigned i = 0; i < SIVSHM_VECTORS_MAX; i++)
		say(&stage, 65534, stage.bell);
	for (unsigned i = 0; i < SIVSHM_VECTORS_MAX; i++)
		say(&stage, 65535, stage.bell);
	say(&stage, 3, stage.memfd);
	snprintf(where, sizeof(where), "fd:%d", stage.there);
	assert_int_equal(sivshm_open(where, 0, &p), 0);
	assert_int_equal(sivshm_port_id(p), 65535);
	assert_int_equal(sivshm_port_vectors(p), SIVSHM_VECTORS_MAX);
	/* Nothing was rung by finding out that these are doorbells. */
	assert_int_equal(sivshm_eventfd_take(stage.bell), 0);
	assert_int_equal(fcntl(stage.there, F_GETFD), FD_CLOEXEC);
	sivshm_port_close(p);
	close(stage.here);
	close(stage.memfd);
	close(stage.bell);
	assert_int_equal(fds_count(), stage.fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
		TEST(shares_memory_both_ways),
		TEST(leaves_children_without),
		TEST(rings_both_ways),
		TEST(rings_from_any_thread),
		TEST(sleeps_until_it_is_rung),
		TEST(awaits_items_as_long_as_it_is_told),
		TEST(notices_the_end),
		TEST(is_woken_by_signals),
		TEST(reads_where_to_open),
		TEST(waits_no_longer_than_told),
		TEST(notices_an_end_in_the_midst),
		TEST(puts_torn_messages_together),
		TEST(refuses_what_is_no_greeting),
		TEST(refuses_memory_it_cannot_rely_on),
		TEST(refuses_too_many_descriptors),
		TEST(refuses_too_many_doorbells),
		TEST(takes_a_greeting_in_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
