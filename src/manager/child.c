/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
	CHILD_REPORT = CHILD_SOCKET + 1, /* where exec's failure is written to */
	CHILD_ABOVE = 16,                /* descriptors are moved up here before they are placed */
	CHILD_END_MS = 2000,             /* for one that was killed to end */
	CHILD_HELD_MS = 50,              /* for one that has ended to be collectable */
};

static struct rlimit limit_before;

struct ends {
	int socket, out, err, report;
};

void child_raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit_before))
		return;
	limit = limit_before;
	limit.rlim_cur = limit.rlim_max;
	/* With fewer it works, too, for fewer workers. */
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* Puts descriptors in their places and closes all others. */
static int place(const struct ends *ends)
{
	const struct {
		int from, to;
	} moves[] = {{open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO},
		     {ends->out, STDOUT_FILENO},
		     {ends->err, STDERR_FILENO},
		     {ends->socket, CHILD_SOCKET},
		     {ends->report, CHILD_REPORT}};
	enum { MOVES = sizeof(moves) / sizeof(moves[0]) };
	int high[MOVES];

	for (int i = 0; i < MOVES; i++) {
		high[i] = fcntl(moves[i].from, F_DUPFD_CLOEXEC, CHILD_ABOVE);
		if (high[i] < 0)
			return -errno;
	}
	for (int i = 0; i < MOVES; i++)
		if (dup3(high[i], moves[i].to, moves[i].to == CHILD_REPORT ? O_CLOEXEC : 0) < 0)
			return -errno;
	return close_range(CHILD_REPORT + 1, ~0U, 0) ? -errno : 0;
}

static int prepare(const struct ends *ends, unsigned number, pid_t parent)
{
	char where[16], text[16];
	sigset_t none;

	setpgid(0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return -errno;
	/* The parent may have died before that. */
	if (getppid() != parent)
		return -ESRCH;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	snprintf(where, sizeof(where), "fd:%d", CHILD_SOCKET);
	snprintf(text, sizeof(text), "%u", number);
	if (setenv("SIVSHM", where, 1) || setenv("SIVSHM_WORKER", text, 1))
		return -errno;
	return place(ends);
}

static void __attribute__((noreturn))
become(char *const argv[], const struct ends *ends, unsigned number, pid_t parent)
{
	/* Out of the way of those that are placed, should that fail. */
	int report = fcntl(ends->report, F_DUPFD_CLOEXEC, CHILD_ABOVE);
	int rc = prepare(ends, number, parent);

	if (!rc) {
		report = CHILD_REPORT;
		/* Not before, as descriptors beyond it were in use. */
		if (limit_before.rlim_cur)
			(void)setrlimit(RLIMIT_NOFILE, &limit_before);
		execvp(argv[0], argv);
		rc = -errno;
	}
	/* The reader takes silence for success, so it has to be told; a short write cannot be. */
	if (write(report, &rc, sizeof(rc)) != sizeof(rc))
		kill(getpid(), SIGKILL);
	_exit(127);
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Waits until the child executes its program. Returns 0, or why it does not. */
static int await_exec(int fd)
{
	int rc = 0;
	ssize_t n;

	do {
		n = read(fd, &rc, sizeof(rc));
	} while (n < 0 && errno == EINTR);
	return n == sizeof(rc) ? rc : 0;
}

static int fork_child(struct child *c, char *const argv[], struct ends *ends, int report,
		      unsigned number)
{
	pid_t parent = getpid();
	int rc;

	c->pid = fork();
	if (c->pid < 0) {
		rc = -errno;
		c->pid = 0;
		return rc;
	}
	if (!c->pid)
		become(argv, ends, number, parent);
	/* Here, too: whoever is first. */
	setpgid(c->pid, c->pid);
	close_end(&ends->report);
	rc = await_exec(report);
	if (!rc) {
		c->pidfd = pidfd_open(c->pid, 0);
		rc = c->pidfd < 0 ? -errno : 0;
	}
	return rc;
}

int child_start(struct child *c, char *const argv[], int socket, unsigned number)
{
	int out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1}, rc = 0;
	struct ends ends;

	*c = (struct child){.pidfd = -1, .out = -1, .err = -1};
	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || pipe2(report, O_CLOEXEC) ||
	    fcntl(out[0], F_SETFL, O_NONBLOCK) || fcntl(err[0], F_SETFL, O_NONBLOCK))
		rc = -errno;
	ends = (struct ends){socket, out[1], err[1], report[1]};
	c->out = out[0];
	c->err = err[0];
	if (!rc)
		rc = fork_child(c, argv, &ends, report[0], number);
	close_end(&ends.out);
	close_end(&ends.err);
	close_end(&ends.report);
	close_end(&report[0]);
	if (rc && c->pid) {
		child_signal(c, SIGKILL);
		child_collect(c);
	} else if (rc) {
		close_end(&c->out);
		close_end(&c->err);
	}
	return rc;
}

void child_signal(const struct child *c, int signal)
{
	/* Without a process this would mean the manager's own group. */
	if (c->pid <= 0)
		return;
	kill(-c->pid, signal);
	/* It may have gone to another group, and could come and go between two looks. */
	if (signal == SIGKILL || getpgid(c->pid) != c->pid)
		kill(c->pid, signal);
}

/*
 * Whether it has ended and can be collected. A worker can see to it that it cannot: what is traced
 * is its tracer's to collect, and a system call that it has arranged may never end.
 */
static bool await_end(const struct child *c)
{
	const struct timespec nap = {.tv_nsec = NSEC_PER_MSEC};
	struct pollfd ended = {c->pidfd, POLLIN, 0};

	for (int ms = 0; ms < CHILD_END_MS; ms++) {
		siginfo_t info = {0};

		if (!waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT | WNOHANG) && info.si_pid)
			return true;
		if (ms >= CHILD_HELD_MS && poll(&ended, 1, 0) == 1)
			return false;
		nanosleep(&nap, NULL);
	}
	return false;
}

int child_collect(struct child *c)
{
	int status = SIGKILL;
	bool ended = await_end(c);

	/* The group is killed while its leader's number is still taken. */
	child_signal(c, SIGKILL);
	if (ended)
		waitpid(c->pid, &status, WNOHANG);
	close_end(&c->pidfd);
	close_end(&c->out);
	close_end(&c->err);
	c->pid = 0;
	return status;
}
