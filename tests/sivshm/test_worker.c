/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker can do with what it was given: all of it harms itself only.
 *
 * Here the workers are bare descriptors, used in every way that a program of ours would not.
 */
#include "../fds.h"
#include "desk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

enum { KIB = 1024, BYTES = 64 * KIB, VECTORS = 2 };

static struct bare hire_bare(struct desk *desk, unsigned vectors, struct sivshm_worker **w)
{
	int fd;

	*w = desk_add(desk, BYTES, vectors);
	fd = sivshm_worker_take_socket(*w);
	assert_true(fd >= 0);
	return desk_read(fd, vectors);
}

static char *memory_of(struct sivshm_worker *w)
{
	return sivshm_port_memory(sivshm_worker_port(w));
}

static void cannot_cut_its_segment(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct bare bare = hire_bare(desk, VECTORS, &w);

	assert_int_equal(ftruncate(bare.memfd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(bare.memfd, 2 * BYTES), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fallocate(bare.memfd, 0, 0, 2 * BYTES), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fallocate(bare.memfd, FALLOC_FL_KEEP_SIZE, BYTES, BYTES), -1);
	assert_int_equal(errno, EPERM);
	memset(memory_of(w), 1, BYTES);
	desk_drop(&bare);
}

/* One by which nobody could map the segment any more would keep a worker from being started. */
static void cannot_seal_it_further(void **state)
{
	static const int seals[] = {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_GROW};
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct bare bare = hire_bare(desk, VECTORS, &w);

	for (size_t i = 0; i < sizeof(seals) / sizeof(seals[0]); i++) {
		assert_int_equal(fcntl(bare.memfd, F_ADD_SEALS, seals[i]), -1);
		assert_int_equal(errno, EPERM);
	}
	/* Kernels that know it also keep it from becoming a program. */
	if (fcntl(bare.memfd, F_GET_SEALS) & F_SEAL_EXEC)
		assert_int_equal(fchmod(bare.memfd, 0777), -1);
	desk_drop(&bare);
}

static void punches_holes_into_its_own_only(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w[2];
	struct bare bare = hire_bare(desk, VECTORS, &w[0]), other = hire_bare(desk, VECTORS, &w[1]);

	memset(memory_of(w[0]), 1, BYTES);
	memset(memory_of(w[1]), 2, BYTES);
	assert_int_equal(
		fallocate(bare.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES), 0);
	for (unsigned i = 0; i < BYTES; i++) {
		assert_int_equal(memory_of(w[0])[i], 0);
		assert_int_equal(memory_of(w[1])[i], 2);
	}
	memset(memory_of(w[0]), 3, BYTES);
	desk_drop(&bare);
	desk_drop(&other);
}

/* What a doorbell's descriptors have in common for both sides is spoilt: count and flags. */
static void spoil(const struct bare *bare)
{
	for (unsigned i = 0; i < bare->vectors; i++) {
		int fds[] = {bare->listen[i], bare->ring[i]};

		for (unsigned j = 0; j < 2; j++) {
			uint64_t full = UINT64_MAX - 1;

			assert_int_equal(fcntl(fds[j], F_SETFL, 0), 0);
			if (j == 0)
				assert_int_equal(write(fds[j], &full, sizeof(full)), sizeof(full));
		}
	}
}

/* The test's alarm ends it if anything of this sleeps. */
static void cannot_make_the_manager_sleep(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w, *good;
	struct bare bare = hire_bare(desk, VECTORS, &w);
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &good);
	int64_t begin = desk_now_ms();

	spoil(&bare);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(sivshm_port_ring(sivshm_worker_port(w), i % VECTORS), 0);
		assert_int_equal(sivshm_port_take(sivshm_worker_port(w), i % VECTORS), 0);
		assert_int_equal(sivshm_port_ring(sivshm_worker_port(good), i % VECTORS), 0);
		assert_int_equal(sivshm_port_take(p, i % VECTORS), 1);
	}
	assert_int_equal(sivshm_port_wait(sivshm_worker_port(w), 0, 10), 0);
	desk_settle(desk);
	assert_true(desk_now_ms() - begin < 2000);
	desk_drop(&bare);
	sivshm_port_close(p);
}

/* It counts up to the brim and beyond; what has been rung is taken all the same. */
static void overflows_its_own_count(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct bare bare = hire_bare(desk, VECTORS, &w);
	uint64_t full = UINT64_MAX - 1;

	assert_int_equal(write(bare.ring[0], &full, sizeof(full)), sizeof(full));
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_RUNG), 1);
	assert_int_equal(write(bare.listen[0], &full, sizeof(full)), sizeof(full));
	assert_int_equal(sivshm_port_ring(sivshm_worker_port(w), 0), 0);
	assert_int_equal(sivshm_eventfd_take(bare.listen[0]), 1);
	assert_int_equal(sivshm_port_ring(sivshm_worker_port(w), 0), 0);
	assert_int_equal(sivshm_eventfd_take(bare.listen[0]), 1);
	desk_drop(&bare);
}

struct storm {
	const struct bare *bare;
	atomic_bool over;
};

static void *ring_all(void *arg)
{
	struct storm *storm = arg;

	while (!atomic_load(&storm->over))
		for (unsigned i = 0; i < storm->bare->vectors; i++)
			eventfd_write(storm->bare->ring[i], 1);
	return NULL;
}

static void storms_leave_others_their_turn(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w, *good;
	struct bare bare = hire_bare(desk, SIVSHM_VECTORS_MAX, &w);
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &good);
	struct storm storm = {.bare = &bare};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ring_all, &storm), 0);
	for (unsigned i = 0; i < 100; i++) {
		unsigned turns = 0;

		sivshm_port_ring(p, 1);
		do {
			desk->nr_notes = 0;
			assert_true(sivshm_manager_dispatch(desk->manager, 0) >= 0);
			/* All of the storm's doorbells once, and then this one. */
			assert_in_range(++turns, 1, 3);
		} while (!desk_count(desk, good, DESK_RUNG));
	}
	atomic_store(&storm.over, true);
	pthread_join(thread, NULL);
	desk_drop(&bare);
	sivshm_port_close(p);
}

/* Sends 4 KiB and @fd. Returns 0 or a negative errno. */
static int send_garbage(int socket, int fd)
{
	static const char garbage[4096] = "garbage";

	return desk_send_fd(socket, garbage, sizeof(garbage), fd);
}

static void cannot_say_anything(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w, *good;
	struct bare bare = hire_bare(desk, VECTORS, &w);
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &good);
	struct pollfd gone = {.fd = sivshm_port_liveness_fd(sivshm_worker_port(w)),
			      .events = POLLIN};

	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(send_garbage(bare.socket, bare.memfd), -EPIPE);
		assert_int_equal(poll(&gone, 1, 0), 0);
		assert_int_equal(sivshm_port_is_alive(sivshm_worker_port(w)), 1);
		assert_int_equal(sivshm_port_ring(p, 0), 0);
		assert_int_equal(sivshm_manager_dispatch(desk->manager, 0), 1);
	}
	assert_int_equal(
		poll(&(struct pollfd){.fd = sivshm_manager_fd(desk->manager), .events = POLLIN}, 1,
		     0),
		0);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 0);
	/* So neither can it put its own socket where that would stay open. */
	assert_true(send_garbage(bare.socket, bare.socket) < 0);
	desk_drop(&bare);
	assert_int_equal(poll(&gone, 1, 0), 1);
	sivshm_manager_dispatch(desk->manager, 0);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
	sivshm_port_close(p);
}

static void can_shut_itself_out(void **state)
{
	static const int ways[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};
	struct desk *desk = *state;
	struct sivshm_worker *good;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &good);

	for (unsigned i = 0; i < 3; i++) {
		struct sivshm_worker *w;
		struct bare bare = hire_bare(desk, VECTORS, &w);

		desk->nr_notes = 0;
		assert_int_equal(shutdown(bare.socket, ways[i]), 0);
		desk_settle(desk);
		/* That it says no more is nothing new. */
		assert_int_equal(desk_count(desk, w, DESK_GONE), ways[i] != SHUT_WR);
		/* Neither does a message to the deaf raise SIGPIPE. */
		sivshm_worker_remove(w);
		desk_drop(&bare);
	}
	assert_int_equal(sivshm_port_ring(p, 0), 0);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, good, DESK_RUNG), 1);
	assert_int_equal(desk_count(desk, good, DESK_GONE), 0);
	sivshm_port_close(p);
}

static bool is_same_file(int a, int b)
{
	struct stat x, y;

	assert_int_equal(fstat(a, &x), 0);
	assert_int_equal(fstat(b, &y), 0);
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whoever has another's socket has what was in it, and that is all. */
static void loses_only_itself_with_its_socket(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w[3];
	struct bare others[2] = {hire_bare(desk, VECTORS, &w[0]), hire_bare(desk, VECTORS, &w[1])};
	struct bare stolen;
	unsigned before;
	int64_t value;
	int socket, fd;

	w[2] = desk_add(desk, BYTES, VECTORS);
	socket = sivshm_worker_take_socket(w[2]);
	before = fds_count();
	stolen = desk_read(socket, VECTORS);
	assert_int_equal(fds_count(), before + 1 + 2 * VECTORS);
	assert_int_equal(stolen.id, sivshm_port_peer(sivshm_worker_port(w[2])));
	/* There is nothing more to be had, whatever one says. */
	while (!send_garbage(socket, stolen.memfd))
		;
	for (unsigned i = 0; i < 100; i++)
		sivshm_manager_dispatch(desk->manager, 0);
	assert_int_equal(sivshm_wire_receive(socket, 0, &value, &fd), -ETIMEDOUT);
	assert_int_equal(sivshm_worker_take_socket(w[2]), -EALREADY);
	assert_int_equal(sivshm_worker_listen(w[2], "/nowhere/s", 0600, NULL), -EALREADY);
	/* And none of it is anybody else's. */
	for (unsigned i = 0; i < 2; i++)
		assert_false(is_same_file(stolen.memfd, others[i].memfd));
	for (unsigned v = 0; v < VECTORS; v++) {
		eventfd_write(stolen.ring[v], 1);
		eventfd_write(stolen.listen[v], 1);
	}
	desk_settle(desk);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(desk_count(desk, w[i], DESK_RUNG), 0);
		for (unsigned v = 0; v < VECTORS; v++)
			assert_int_equal(sivshm_eventfd_take(others[i].listen[v]), 0);
		desk_drop(&others[i]);
	}
	assert_int_equal(desk_count(desk, w[2], DESK_RUNG), VECTORS);
	desk_drop(&stolen);
}

/* All that comes over the socket is what the protocol has; then, on removal, that its peer left. */
static void hears_that_the_manager_left(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct bare bare = hire_bare(desk, VECTORS, &w);
	int64_t value;
	int fd;

	sivshm_worker_remove(w);
	assert_int_equal(sivshm_wire_receive(bare.socket, 0, &value, &fd), 0);
	assert_int_equal(value, bare.id ^ 1);
	assert_int_equal(fd, -1);
	assert_int_equal(sivshm_wire_receive(bare.socket, 0, &value, &fd), -ECONNRESET);
	desk_drop(&bare);
}

/* How many descriptors a program would have that this process starts. */
static unsigned inheritable(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++) {
		int flags = fcntl(fd, F_GETFD);

		n += flags >= 0 && !(flags & FD_CLOEXEC);
	}
	return n;
}

/* A program that the manager or a worker starts has nothing of all this. */
static void leaks_no_descriptor(void **state)
{
	unsigned before = inheritable();
	void *inner = NULL;
	struct desk *desk;
	struct sivshm_worker *w, *waiting;
	struct sivshm_port *p;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/sivshm-test-XXXXXX", path[64];
	int taken, come = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	assert_int_equal(desk_setup(&inner), 0);
	desk = inner;
	p = desk_hire(desk, BYTES, VECTORS, &w);
	taken = sivshm_worker_take_socket(desk_add(desk, BYTES, VECTORS));
	waiting = desk_add(desk, BYTES, VECTORS);
	assert_int_equal(sivshm_worker_listen(waiting, path, 0600, NULL), 0);
	assert_int_equal(inheritable(), before);
	strcpy(addr.sun_path, path);
	assert_int_equal(connect(come, (struct sockaddr *)&addr, sizeof(addr)), 0);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, waiting, DESK_JOINED), 1);
	assert_int_equal(inheritable(), before);
	close(come);
	close(taken);
	sivshm_port_close(p);
	desk_teardown(&inner);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
		TEST(cannot_cut_its_segment),
		TEST(cannot_seal_it_further),
		TEST(punches_holes_into_its_own_only),
		TEST(cannot_make_the_manager_sleep),
		TEST(overflows_its_own_count),
		TEST(storms_leave_others_their_turn),
		TEST(cannot_say_anything),
		TEST(can_shut_itself_out),
		TEST(loses_only_itself_with_its_socket),
		TEST(hears_that_the_manager_left),
		TEST(leaks_no_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
