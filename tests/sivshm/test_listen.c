/* SPDX-License-Identifier: BSD-2-Clause */
/* Workers who come by a path: who is let in, who is not, and what becomes of the path. */
#include "../fds.h"
#include "desk.h"
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KIB = 1024, BYTES = 64 * KIB, VECTORS = 2 };

/* Bytes of a socket's buffer, if it is not to be the kernel's default. */
static int room;
static char dir[32], path[64], where[80];

static int setup(void **state)
{
	room = 0;
	strcpy(dir, "/tmp/sivshm-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/worker.sock", dir);
	snprintf(where, sizeof(where), "unix:%s", path);
	return desk_setup(state);
}

static int teardown(void **state)
{
	int rc = desk_teardown(state);

	unlink(path);
	return rmdir(dir) < 0 ? -1 : rc;
}

static struct sivshm_worker *add_listening(struct desk *desk, const struct sivshm_credentials *who)
{
	struct sivshm_worker *w = desk_add(desk, BYTES, VECTORS);

	assert_int_equal(sivshm_worker_listen(w, path, 0600, who), 0);
	return w;
}

static int connect_raw(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(addr.sun_path, path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	close(fd);
	return -errno;
}

int __real_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int got = __real_accept4(fd, addr, len, flags);

	if (got >= 0 && room)
		setsockopt(got, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	return got;
}

int __real_socketpair(int domain, int type, int protocol, int *ends);
int __wrap_socketpair(int domain, int type, int protocol, int *ends);

int __wrap_socketpair(int domain, int type, int protocol, int *ends)
{
	int rc = __real_socketpair(domain, type, protocol, ends);

	if (rc == 0 && room)
		setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	return rc;
}

/* Whether the other end was closed without a byte. */
static bool is_turned_away(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void lets_one_in(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = add_listening(desk, NULL);
	struct sivshm_port *mine = sivshm_worker_port(w);
	struct bare bare;
	int fd;

	assert_int_equal(sivshm_port_is_alive(mine), 0);
	assert_int_equal(sivshm_port_wait(mine, 0, 5), 0);
	assert_int_equal(sivshm_worker_take_socket(w), -EALREADY);
	assert_int_equal(sivshm_worker_listen(w, path, 0600, NULL), -EALREADY);
	/* What is rung before somebody is there waits for him. */
	assert_int_equal(sivshm_port_ring(mine, 1), 0);
	fd = connect_raw();
	assert_true(fd >= 0);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_JOINED), 1);
	assert_int_equal(sivshm_port_is_alive(mine), 1);
	bare = desk_read(fd, VECTORS);
	assert_int_equal(sivshm_eventfd_take(bare.listen[1]), 1);
	desk_drop(&bare);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
	assert_int_equal(desk->nr_notes, 2);
}

/* What a socket that lingers costs whoever closes it last is its maker's choice. */
static void takes_nothing_from_who_connects(void **state)
{
	static const char bytes[8];
	struct desk *desk = *state;
	struct sivshm_worker *w = add_listening(desk, NULL);
	int fd = connect_raw(), rights = 1;
	socklen_t len = sizeof(rights);
	bool can_refuse = !getsockopt(fd, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &rights, &len);
	struct bare bare;

	assert_true(fd >= 0);
	/* Before it is accepted. */
	assert_int_equal(desk_send_fd(fd, bytes, sizeof(bytes), fd), can_refuse ? -EPERM : 0);
	assert_int_equal(write(fd, "12345678", 8), 8);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_JOINED), 1);
	/* And after that. */
	assert_int_equal(desk_send_fd(fd, bytes, sizeof(bytes), fd), -EPIPE);
	assert_int_equal(sivshm_port_is_alive(sivshm_worker_port(w)), 1);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 0);
	bare = desk_read(fd, VECTORS);
	desk_drop(&bare);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
}

static void is_opened_by_its_path(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = add_listening(desk, NULL);
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct sivshm_port *p;

		_exit(sivshm_open(where, 2000, &p) == 0 && sivshm_port_ring(p, 1) == 0 &&
				      sivshm_port_wait(p, 0, 2000) == 1
			      ? 0
			      : 1);
	}
	while (!desk_count(desk, w, DESK_RUNG))
		assert_true(sivshm_manager_dispatch(desk->manager, 2000) > 0);
	sivshm_port_ring(sivshm_worker_port(w), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
}

/* Not with one byte, and however many come, the place is kept for the one who is expected. */
static void turns_strangers_away(void **state)
{
	struct sivshm_credentials others[] = {
		{.uid = (int64_t)geteuid() + 1, .gid = -1, .pid = -1},
		{.uid = -1, .gid = (int64_t)getegid() + 1, .pid = -1},
		{.uid = -1, .gid = -1, .pid = (int64_t)getpid() + 1},
		{.uid = geteuid(), .gid = getegid(), .pid = (int64_t)getpid() + 1},
	};
	struct desk *desk = *state;

	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct sivshm_worker *w = add_listening(desk, &others[i]);
		struct sivshm_port *p;
		unsigned fds = fds_count();

		for (unsigned n = 0; n < 20; n++) {
			int fd = connect_raw();

			assert_true(fd >= 0);
			desk_settle(desk);
			assert_true(is_turned_away(fd));
			close(fd);
		}
		assert_int_equal(fds_count(), fds);
		assert_int_equal(desk->nr_notes, 0);
		assert_int_equal(sivshm_port_is_alive(sivshm_worker_port(w)), 0);
		assert_int_equal(sivshm_open(where, 0, &p), -ETIMEDOUT);
		sivshm_worker_remove(w);
	}
}

static void lets_the_expected_in_after_strangers(void **state)
{
	struct desk *desk = *state;
	struct sivshm_credentials who = {.uid = geteuid(), .gid = getegid(), .pid = 0};
	struct sivshm_worker *w;
	int go[2], status, fd;
	pid_t child;

	assert_int_equal(pipe(go), 0);
	child = fork();
	if (child == 0) {
		struct sivshm_port *p;
		char byte;

		_exit(read(go[0], &byte, 1) == 1 ? -sivshm_open(where, 2000, &p) : 1);
	}
	who.pid = child;
	w = add_listening(desk, &who);
	fd = connect_raw();
	desk_settle(desk);
	assert_true(is_turned_away(fd));
	close(fd);
	assert_int_equal(write(go[1], "", 1), 1);
	while (!desk_count(desk, w, DESK_GONE))
		assert_true(sivshm_manager_dispatch(desk->manager, 2000) >= 0);
	assert_int_equal(desk_count(desk, w, DESK_JOINED), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(go[0]);
	close(go[1]);
}

static void lets_nobody_in_after_the_first(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = add_listening(desk, NULL);
	int first = connect_raw(), early = connect_raw();

	/* Who came while the first was waiting is sent away, who comes later is refused. */
	assert_true(first >= 0 && early >= 0);
	desk_settle(desk);
	assert_true(is_turned_away(early));
	assert_int_equal(connect_raw(), -ECONNREFUSED);
	close(first);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
	assert_int_equal(connect_raw(), -ECONNREFUSED);
	assert_int_equal(desk->nr_notes, 2);
	close(early);
}

/* Leaves no place for another descriptor. Returns the limit that was. */
static struct rlimit use_up_descriptors(void)
{
	struct rlimit before, none;
	int next = fcntl(STDIN_FILENO, F_DUPFD, 0);

	assert_true(next >= 0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){(rlim_t)next, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(fcntl(STDIN_FILENO, F_DUPFD, 0), -1);
	return before;
}

/* Nobody is left waiting, and the manager not busy with him, while it has no descriptor to spare.
 */
static void receives_without_descriptors(void **state)
{
	struct desk *desk = *state;
	struct sivshm_credentials other = {.uid = -1, .gid = -1, .pid = (int64_t)getpid() + 1};
	struct sivshm_worker *strict = add_listening(desk, &other), *w;
	struct pollfd ready = {.fd = sivshm_manager_fd(desk->manager), .events = POLLIN};
	int strangers[3], fds[3];
	struct rlimit limit;

	for (unsigned i = 0; i < 3; i++)
		strangers[i] = connect_raw();
	limit = use_up_descriptors();
	desk_settle(desk);
	for (unsigned i = 0; i < 3; i++)
		sivshm_manager_dispatch(desk->manager, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(poll(&ready, 1, 0), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(is_turned_away(strangers[i]));
		close(strangers[i]);
	}
	sivshm_worker_remove(strict);
	w = add_listening(desk, NULL);
	for (unsigned i = 0; i < 3; i++)
		fds[i] = connect_raw();
	limit = use_up_descriptors();
	desk_settle(desk);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(desk_count(desk, w, DESK_JOINED), 1);
	assert_false(is_turned_away(fds[0]));
	assert_true(is_turned_away(fds[1]) && is_turned_away(fds[2]));
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
}

static void *read_all(void *arg)
{
	struct bare *bare = arg;

	*bare = desk_read(bare->socket, bare->vectors);
	return NULL;
}

/* One who does not read is waited for by nobody; when it reads, it gets all, in order. */
static void check_slow_reader(struct desk *desk, struct sivshm_worker *w, int socket)
{
	struct bare bare = {.socket = socket, .vectors = SIVSHM_VECTORS_MAX};
	struct pollfd ready = {.fd = sivshm_manager_fd(desk->manager), .events = POLLIN};
	struct sivshm_worker *good;
	struct sivshm_port *p = desk_hire(desk, BYTES, VECTORS, &good);
	pthread_t thread;

	desk_settle(desk);
	assert_in_range(w->written, 1, 2 * SIVSHM_VECTORS_MAX);
	assert_int_equal(desk->nr_notes, 0);
	assert_int_equal(sivshm_port_ring(p, 0), 0);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, good, DESK_RUNG), 1);
	/* It does not keep the manager busy meanwhile. */
	assert_int_equal(poll(&ready, 1, 0), 0);
	pthread_create(&thread, NULL, read_all, &bare);
	while (w->written < 3 + 2 * SIVSHM_VECTORS_MAX)
		assert_true(sivshm_manager_dispatch(desk->manager, 2000) >= 0);
	pthread_join(thread, NULL);
	assert_int_equal(bare.id, sivshm_port_peer(sivshm_worker_port(w)));
	assert_int_equal(poll(&ready, 1, 0), 0);
	desk_drop(&bare);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
	sivshm_port_close(p);
}

static void waits_for_no_slow_reader(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, BYTES, SIVSHM_VECTORS_MAX);

	assert_int_equal(sivshm_worker_listen(w, path, 0600, NULL), 0);
	room = 4608;
	check_slow_reader(desk, w, connect_raw());
	assert_int_equal(desk_count(desk, w, DESK_JOINED), 1);
}

/* The same with a socket that is handed over before all is in it. */
static void waits_for_no_slow_child(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, BYTES, SIVSHM_VECTORS_MAX);
	int socket;

	room = 4608;
	socket = sivshm_worker_take_socket(w);
	room = 0;
	check_slow_reader(desk, w, socket);
	assert_int_equal(desk_count(desk, w, DESK_JOINED), 0);
}

static void gives_up_on_who_leaves_early(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = add_listening(desk, NULL);
	struct sivshm_port *p;

	assert_int_equal(sivshm_open(where, 0, &p), -ETIMEDOUT);
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
}

static void makes_the_path_as_told(void **state)
{
	static const mode_t modes[] = {0600, 0666, 0777, 0};
	struct desk *desk = *state;
	mode_t mask = umask(027);

	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct sivshm_worker *w = desk_add(desk, BYTES, VECTORS);
		struct stat st;

		assert_int_equal(sivshm_worker_listen(w, path, modes[i], NULL), 0);
		assert_int_equal(lstat(path, &st), 0);
		assert_int_equal(st.st_mode, S_IFSOCK | modes[i]);
		sivshm_worker_remove(w);
		assert_int_equal(lstat(path, &st), -1);
	}
	umask(mask);
}

static void refuses_bad_paths(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, BYTES, VECTORS);
	char line[256];
	unsigned fds = fds_count();

	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = 0;
	assert_int_equal(sivshm_worker_listen(w, line, 0600, NULL), -ENAMETOOLONG);
	assert_int_equal(sivshm_worker_listen(w, "", 0600, NULL), -EINVAL);
	assert_int_equal(sivshm_worker_listen(w, path, 04600, NULL), -EINVAL);
	assert_int_equal(sivshm_worker_listen(w, "/nowhere/at/all", 0600, NULL), -ENOENT);
	assert_int_equal(fds_count(), fds);
	/* It can still go another way. */
	fds = (unsigned)sivshm_worker_take_socket(w);
	assert_int_equal(close((int)fds), 0);
}

static void replaces_a_dead_listener_only(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w[2] = {add_listening(desk, NULL), desk_add(desk, BYTES, VECTORS)};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	/* Live, before and after its one has come; asking does not take up the place. */
	assert_int_equal(sivshm_worker_listen(w[1], path, 0600, NULL), -EADDRINUSE);
	desk_settle(desk);
	assert_int_equal(desk->nr_notes, 0);
	fd = connect_raw();
	desk_settle(desk);
	assert_int_equal(desk_count(desk, w[0], DESK_JOINED), 1);
	assert_int_equal(sivshm_worker_listen(w[1], path, 0600, NULL), -EADDRINUSE);
	close(fd);
	sivshm_worker_remove(w[0]);
	/* A file that is no socket. */
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(sivshm_worker_listen(w[1], path, 0600, NULL), -EADDRINUSE);
	assert_int_equal(unlink(path), 0);
	/* A socket that nobody is bound to any more. */
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	assert_int_equal(sivshm_worker_listen(w[1], path, 0600, NULL), 0);
}

/* What has taken the path's name meanwhile is not the worker's to remove. */
static void removes_its_own_path_only(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = add_listening(desk, NULL);
	struct stat st;

	assert_int_equal(unlink(path), 0);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	sivshm_worker_remove(w);
	assert_int_equal(lstat(path, &st), 0);
}

static void is_added_again_under_its_path(void **state)
{
	struct desk *desk = *state;
	int64_t last = -1;

	for (unsigned i = 0; i < 10; i++) {
		struct sivshm_worker *w = add_listening(desk, NULL);
		int fd = connect_raw();
		struct bare bare;

		desk_settle(desk);
		bare = desk_read(fd, VECTORS);
		assert_true(bare.id > last);
		last = bare.id;
		desk_drop(&bare);
		desk_settle(desk);
		assert_int_equal(desk->notes[desk->nr_notes - 1].event, DESK_GONE);
		sivshm_worker_remove(w);
	}
}

/* Joined may be the moment in which it is decided that nobody is wanted. */
static void remove_it(struct desk *desk, const struct desk_note *note)
{
	if (note->event == DESK_JOINED)
		sivshm_worker_remove(note->worker);
}

static void can_be_removed_when_it_joins(void **state)
{
	struct desk *desk = *state;
	struct bare bare;
	int64_t value;
	int fd;

	desk->then = remove_it;
	add_listening(desk, NULL);
	fd = connect_raw();
	desk_settle(desk);
	assert_int_equal(desk->nr_notes, 1);
	bare = desk_read(fd, VECTORS);
	assert_int_equal(sivshm_wire_receive(fd, 0, &value, &fd), 0);
	assert_int_equal(value, bare.id ^ 1);
	desk_drop(&bare);
	assert_int_equal(connect_raw(), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(lets_one_in),
		TEST(takes_nothing_from_who_connects),
		TEST(is_opened_by_its_path),
		TEST(turns_strangers_away),
		TEST(lets_the_expected_in_after_strangers),
		TEST(lets_nobody_in_after_the_first),
		TEST(receives_without_descriptors),
		TEST(waits_for_no_slow_reader),
		TEST(waits_for_no_slow_child),
		TEST(gives_up_on_who_leaves_early),
		TEST(makes_the_path_as_told),
		TEST(refuses_bad_paths),
		TEST(replaces_a_dead_listener_only),
		TEST(removes_its_own_path_only),
		TEST(is_added_again_under_its_path),
		TEST(can_be_removed_when_it_joins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
