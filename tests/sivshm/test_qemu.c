/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Real QEMUs as workers, without guests: QEMU's own test protocol does with the device what a guest
 * could do, word by word, also what a guest that means well would not.
 *
 * Interrupts are seen, too: the test is what programs the MSI-X table, and it has the device write
 * its messages into the guest's memory.
 */
#include "desk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	MIB = 1024 * 1024,
	VECTORS = 2,
	PATIENCE_MS = 20000,
	/* The device's place, and where this test puts its registers and memory. */
	SLOT = 4,
	BAR0 = 0xfe000000,
	BAR1 = 0xfe001000,
	/* Its registers. */
	IV_POSITION = 8,
	DOORBELL = 12,
	/* Where its interrupts are to be written in the guest's memory. */
	MESSAGES = 0x10000,
};

static const uint64_t BAR2 = 0xe0000000;

static const char *qemu_path(void)
{
	static const char *const paths[] = {"/usr/bin/qemu-system-x86_64",
					    "/usr/local/bin/qemu-system-x86_64"};

	for (unsigned i = 0; i < 2; i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}

struct qemu {
	pid_t pid;
	FILE *to, *from;
	struct sivshm_worker *worker;
};

/* @device: what it inherits, or -1. */
static void run(struct qemu *qemu, const char *chardev, int device)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	qemu->pid = fork();
	if (qemu->pid == 0) {
		/* Whatever ends this test ends it, too. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ends[1], 0);
		dup2(ends[1], 1);
		fcntl(device, F_SETFD, 0);
		execl(qemu_path(), "qemu", "-machine", "q35,accel=tcg", "-S", "-m", "32",
		      "-display", "none", "-nodefaults", "-sandbox",
		      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		      "-qtest", "stdio", "-qtest-log", "/dev/null", "-chardev", chardev, "-device",
		      "ivshmem-doorbell,chardev=iv,vectors=2,addr=04.0", NULL);
		_exit(127);
	}
	close(ends[1]);
	qemu->to = fdopen(ends[0], "w");
	qemu->from = fdopen(dup(ends[0]), "r");
	setvbuf(qemu->to, NULL, _IOLBF, BUFSIZ);
}

static void start(struct desk *desk, struct qemu *qemu)
{
	char chardev[64];
	int device;

	qemu->worker = desk_add(desk, MIB, VECTORS);
	device = sivshm_worker_take_socket(qemu->worker);
	assert_true(device >= 0);
	snprintf(chardev, sizeof(chardev), "socket,id=iv,fd=%d", device);
	run(qemu, chardev, device);
	close(device);
}

static void stop(struct qemu *qemu)
{
	kill(qemu->pid, SIGKILL);
	waitpid(qemu->pid, NULL, 0);
	fclose(qemu->to);
	fclose(qemu->from);
}

/* A command of the test protocol; its answer is OK and perhaps a number. */
static uint64_t ask(struct qemu *qemu, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static uint64_t ask(struct qemu *qemu, const char *fmt, ...)
{
	char line[256];
	uint64_t value = 0;
	va_list args;

	va_start(args, fmt);
	vfprintf(qemu->to, fmt, args);
	va_end(args);
	fputc('\n', qemu->to);
	assert_int_equal(fflush(qemu->to), 0);
	assert_non_null(fgets(line, sizeof(line), qemu->from));
	assert_memory_equal(line, "OK", 2);
	sscanf(line, "OK %" SCNi64, (int64_t *)&value);
	return value;
}

static uint32_t config_read(struct qemu *qemu, unsigned at)
{
	ask(qemu, "outl 0xcf8 %#x", 0x80000000u | SLOT << 11 | (at & ~3u));
	return (uint32_t)ask(qemu, "inl 0xcfc");
}

static void config_write(struct qemu *qemu, unsigned at, uint32_t value)
{
	ask(qemu, "outl 0xcf8 %#x", 0x80000000u | SLOT << 11 | at);
	ask(qemu, "outl 0xcfc %#x", value);
}

/* Finds the device and does what firmware and driver would do. */
static void set_up(struct qemu *qemu)
{
	unsigned cap;

	assert_int_equal(config_read(qemu, 0), 0x11101af4);
	config_write(qemu, 0x10, BAR0);
	config_write(qemu, 0x14, BAR1);
	config_write(qemu, 0x18, (uint32_t)BAR2);
	config_write(qemu, 0x1c, 0);
	/* Memory and bus mastering. */
	config_write(qemu, 0x04, 6);
	for (cap = config_read(qemu, 0x34) & 0xff; cap; cap = config_read(qemu, cap) >> 8 & 0xff)
		if ((config_read(qemu, cap) & 0xff) == 0x11)
			break;
	assert_int_not_equal(cap, 0);
	for (unsigned v = 0; v < VECTORS; v++) {
		ask(qemu, "writel %#x %#x", BAR1 + 16 * v, MESSAGES + 4 * v);
		ask(qemu, "writel %#x 0", BAR1 + 16 * v + 4);
		ask(qemu, "writel %#x %#x", BAR1 + 16 * v + 8, 0x600d0000 + v);
		ask(qemu, "writel %#x 0", BAR1 + 16 * v + 12);
	}
	config_write(qemu, cap, config_read(qemu, cap) | 0x80000000u);
}

static void ring_from_guest(struct qemu *qemu, unsigned peer, unsigned vector)
{
	ask(qemu, "writel %#x %#x", BAR0 + DOORBELL, peer << 16 | vector);
}

/* Takes what interrupt @vector has written; waits for it if it is to come. */
static bool take_message(struct qemu *qemu, unsigned vector, bool wait)
{
	int64_t end = desk_now_ms() + PATIENCE_MS;
	uint64_t message;

	do
		message = ask(qemu, "readl %#x", MESSAGES + 4 * vector);
	while (!message && wait && desk_now_ms() < end);
	if (message)
		assert_int_equal(message, 0x600d0000 + vector);
	ask(qemu, "writel %#x 0", MESSAGES + 4 * vector);
	return message;
}

/* Dispatches until @nr notes are there. */
static void expect_notes(struct desk *desk, unsigned nr)
{
	int64_t end = desk_now_ms() + PATIENCE_MS;

	while (desk->nr_notes < nr && desk_now_ms() < end)
		assert_true(sivshm_manager_dispatch(desk->manager, 100) >= 0);
	assert_int_equal(desk->nr_notes, nr);
}

/* How many of QEMU's descriptors lead to something whose name begins so. */
static unsigned count_fds(const struct qemu *qemu, const char *prefix)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++) {
		char path[64], to[256];
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)qemu->pid, fd);
		len = readlink(path, to, sizeof(to));
		n += len > 0 && strncmp(to, prefix, strlen(prefix)) == 0;
	}
	return n;
}

static struct qemu qemus[2];

static int setup(void **state)
{
	memset(qemus, 0, sizeof(qemus));
	return desk_setup(state);
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		if (qemus[i].pid)
			stop(&qemus[i]);
	return desk_teardown(state);
}

static void start_two(struct desk *desk)
{
	if (!qemu_path())
		skip();
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < 2; i++)
		start(desk, &qemus[i]);
	for (unsigned i = 0; i < 2; i++)
		set_up(&qemus[i]);
}

static void shares_memory_with_the_manager_only(void **state)
{
	struct desk *desk = *state;

	start_two(desk);
	for (unsigned i = 0; i < 2; i++) {
		struct sivshm_port *port = sivshm_worker_port(qemus[i].worker);
		volatile uint64_t *memory = sivshm_port_memory(port);

		assert_int_equal(ask(&qemus[i], "readl %#x", BAR0 + IV_POSITION),
				 sivshm_port_peer(port));
		memory[0] = 0x1111 * (i + 1);
		ask(&qemus[i], "writeq %#" PRIx64 " %#x", BAR2 + MIB - 8, 0x2222 * (i + 1));
	}
	for (unsigned i = 0; i < 2; i++) {
		volatile uint64_t *memory = sivshm_port_memory(sivshm_worker_port(qemus[i].worker));

		assert_int_equal(ask(&qemus[i], "readq %#" PRIx64, BAR2), 0x1111 * (i + 1));
		assert_int_equal(memory[MIB / 8 - 1], 0x2222 * (i + 1));
		/* The window ends with the segment. */
		config_write(&qemus[i], 0x18, 0xffffffff);
		assert_int_equal(config_read(&qemus[i], 0x18) & ~0xfu, (uint32_t)-MIB);
		assert_int_equal(count_fds(&qemus[i], "/memfd:sivshm"), 1);
		/* Doorbells of two sides, and a few of QEMU's own. */
		assert_in_range(count_fds(&qemus[i], "anon_inode:[eventfd]"), 2 * VECTORS,
				2 * VECTORS + 6);
	}
}

static void rings_both_ways(void **state)
{
	struct desk *desk = *state;

	start_two(desk);
	for (unsigned i = 0; i < 2; i++) {
		struct sivshm_port *port = sivshm_worker_port(qemus[i].worker);

		for (unsigned v = 0; v < VECTORS; v++) {
			desk->nr_notes = 0;
			ring_from_guest(&qemus[i], sivshm_port_id(port), v);
			expect_notes(desk, 1);
			assert_ptr_equal(desk->notes[0].worker, qemus[i].worker);
			assert_int_equal(desk->notes[0].vector, v);
			assert_int_equal(sivshm_port_ring(port, v), 0);
			assert_true(take_message(&qemus[i], v, true));
			assert_false(take_message(&qemus[i], 1 - v, false));
			assert_false(take_message(&qemus[1 - i], v, false));
		}
	}
}

/* Every number that a doorbell takes: what is not the manager's own wakes nobody. */
static void rings_nobody_else(void **state)
{
	static const unsigned vectors[] = {0, 1, 2, 3, 63, 64, 255, 65535};
	struct desk *desk = *state;
	unsigned id;

	start_two(desk);
	id = sivshm_port_id(sivshm_worker_port(qemus[0].worker));
	for (unsigned peer = 0; peer < 65536; peer += peer < 16 || peer > 65530 ? 1 : 8191) {
		for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
			bool own = peer == id + 1 && vectors[i] < VECTORS;

			if (peer == id && vectors[i] < VECTORS)
				continue;
			ring_from_guest(&qemus[0], peer, vectors[i]);
			if (own)
				assert_true(take_message(&qemus[0], vectors[i], true));
		}
	}
	/* After what it may ring, all that came before has been seen. */
	ring_from_guest(&qemus[0], id, 1);
	expect_notes(desk, 1);
	assert_ptr_equal(desk->notes[0].worker, qemus[0].worker);
	assert_int_equal(desk->notes[0].vector, 1);
	for (unsigned v = 0; v < VECTORS; v++) {
		assert_false(take_message(&qemus[0], v, false));
		assert_false(take_message(&qemus[1], v, false));
	}
	/* The other still works. */
	assert_int_equal(sivshm_port_ring(sivshm_worker_port(qemus[1].worker), 0), 0);
	assert_true(take_message(&qemus[1], 0, true));
}

static void dies_alone(void **state)
{
	struct desk *desk = *state;
	struct sivshm_port *other;

	start_two(desk);
	kill(qemus[0].pid, SIGKILL);
	expect_notes(desk, 1);
	assert_ptr_equal(desk->notes[0].worker, qemus[0].worker);
	assert_int_equal(desk->notes[0].event, DESK_GONE);
	sivshm_worker_remove(qemus[0].worker);
	other = sivshm_worker_port(qemus[1].worker);
	assert_int_equal(sivshm_port_is_alive(other), 1);
	ring_from_guest(&qemus[1], sivshm_port_id(other), 0);
	expect_notes(desk, 2);
}

/* QEMU lives on when its manager leaves it, and a new one gets new IDs. */
static void survives_its_removal(void **state)
{
	struct desk *desk = *state;
	unsigned id;

	start_two(desk);
	id = sivshm_port_id(sivshm_worker_port(qemus[0].worker));
	sivshm_worker_remove(qemus[0].worker);
	for (unsigned i = 0; i < 100; i++) {
		ring_from_guest(&qemus[0], id, i % VECTORS);
		assert_int_equal(ask(&qemus[0], "readl %#x", BAR0 + IV_POSITION), id + 1);
	}
	ask(&qemus[0], "writeq %#" PRIx64 " 5", BAR2);
	assert_int_equal(ask(&qemus[0], "readq %#" PRIx64, BAR2), 5);
	stop(&qemus[0]);
	start(desk, &qemus[0]);
	set_up(&qemus[0]);
	assert_true(sivshm_port_id(sivshm_worker_port(qemus[0].worker)) > id + 3);
	assert_int_equal(ask(&qemus[0], "readq %#" PRIx64, BAR2), 0);
	ring_from_guest(&qemus[0], sivshm_port_id(sivshm_worker_port(qemus[0].worker)), 1);
	expect_notes(desk, 1);
}

/* By a path, where QEMU waits for the manager's turn. */
static void comes_by_a_path(void **state)
{
	struct desk *desk = *state;
	char dir[] = "/tmp/sivshm-test-XXXXXX", path[64], chardev[128];
	struct qemu *qemu = &qemus[0];

	if (!qemu_path())
		skip();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(chardev, sizeof(chardev), "socket,id=iv,path=%s", path);
	qemu->worker = desk_add(desk, MIB, VECTORS);
	assert_int_equal(sivshm_worker_listen(qemu->worker, path, 0600, NULL), 0);
	run(qemu, chardev, -1);
	expect_notes(desk, 1);
	assert_int_equal(desk->notes[0].event, DESK_JOINED);
	set_up(qemu);
	ring_from_guest(qemu, sivshm_port_id(sivshm_worker_port(qemu->worker)), 1);
	expect_notes(desk, 2);
	assert_int_equal(sivshm_port_ring(sivshm_worker_port(qemu->worker), 1), 0);
	assert_true(take_message(qemu, 1, true));
	sivshm_worker_remove(qemu->worker);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(shares_memory_with_the_manager_only),
		TEST(rings_both_ways),
		TEST(rings_nobody_else),
		TEST(dies_alone),
		TEST(survives_its_removal),
		TEST(comes_by_a_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
