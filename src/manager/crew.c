/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/crew.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/say.h"
#include "manager/words.h"

enum {
	CREW_POLLS_FIXED = 3,  /* the library, signals, the caller's */
	CREW_POLLS_MEMBER = 3, /* its end, output, errors */
	CREW_LAST_READS = 64,  /* buffers of output taken from one that has ended */
};

struct crew {
	struct crew_opts opts;
	struct sivshm_manager *manager;
	int signals;
	int signal;
	unsigned running;
	struct pollfd *polls;
	struct member members[];
};

static void on_rung(struct sivshm_worker *w, unsigned vector, void *arg)
{
	struct member *m = arg;

	if (m->crew->opts.ops->rung)
		m->crew->opts.ops->rung(m, vector, m->crew->opts.arg);
	m->rang = true;
}

void crew_take_segment(struct member *m)
{
	struct sivshm_worker *segment = m->segment;

	if (!segment)
		return;
	/* lost() may come back here. */
	m->segment = NULL;
	if (m->crew->opts.ops->lost)
		m->crew->opts.ops->lost(m, m->crew->opts.arg);
	sivshm_worker_remove(segment);
	m->port = NULL;
}

static void on_gone(struct sivshm_worker *w, void *arg)
{
	crew_take_segment(arg);
}

static int block_signals(struct crew *crew)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action;
	sigset_t set;

	sigemptyset(&set);
	/* Who has started this by nohup(1), or in the background, wants them to be ignored. */
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!sigaction(signals[i], NULL, &action) && action.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	crew->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return crew->signals < 0 ? -errno : 0;
}

/* Room for all segments together, each aligned to its size. */
static uint64_t range_of(const struct crew_opts *opts)
{
	uint64_t bytes;

	if (__builtin_mul_overflow(opts->segment_bytes, (uint64_t)opts->workers + 1, &bytes))
		return UINT64_MAX;
	return bytes;
}

int crew_create(const struct crew_opts *opts, struct crew **out)
{
	const struct sivshm_manager_opts manager = {
		.struct_bytes = sizeof(manager),
		.range_bytes = range_of(opts),
	};
	struct crew *crew = calloc(1, sizeof(*crew) + opts->workers * sizeof(crew->members[0]));
	int rc = -ENOMEM;

	child_raise_limit();
	if (crew) {
		crew->opts = *opts;
		crew->signals = -1;
		crew->polls = calloc(CREW_POLLS_FIXED + CREW_POLLS_MEMBER * (size_t)opts->workers,
				     sizeof(crew->polls[0]));
		rc = crew->polls ? sivshm_manager_create(&manager, &crew->manager) : -ENOMEM;
	}
	/* Workers often run as the same user: keep them out of this process's descriptors. */
	if (!rc)
		rc = prctl(PR_SET_DUMPABLE, 0) ? -errno : block_signals(crew);
	if (rc) {
		crew_destroy(crew);
		return say_failure("cannot manage %u segments of %llu bytes: %s", opts->workers,
				   (unsigned long long)opts->segment_bytes, strerror(-rc));
	}
	for (unsigned i = 0; i < opts->workers; i++) {
		crew->members[i].crew = crew;
		crew->members[i].number = i;
	}
	*out = crew;
	return 0;
}

void crew_destroy(struct crew *crew)
{
	if (!crew)
		return;
	if (crew->running)
		crew_end(crew, 0, 0);
	if (crew->manager)
		sivshm_manager_destroy(crew->manager);
	if (crew->signals >= 0)
		close(crew->signals);
	free(crew->polls);
	free(crew);
}

struct member *crew_member(struct crew *crew, unsigned number)
{
	return &crew->members[number];
}

unsigned crew_running(const struct crew *crew)
{
	return crew->running;
}

int crew_signal(const struct crew *crew)
{
	return crew->signal;
}

static int make_segment(struct crew *crew, struct member *m)
{
	const struct sivshm_worker_opts opts = {
		.struct_bytes = sizeof(opts),
		.segment_bytes = crew->opts.segment_bytes,
		.vectors = crew->opts.vectors,
		.huge_pages = crew->opts.huge_pages,
		.rung = on_rung,
		.gone = on_gone,
		.arg = m,
	};
	int rc = sivshm_worker_add(crew->manager, &opts, &m->segment);

	if (rc)
		return rc;
	m->port = sivshm_worker_port(m->segment);
	return crew->opts.ops->prepare ? crew->opts.ops->prepare(m, crew->opts.arg) : 0;
}

static int start_process(struct crew *crew, struct member *m)
{
	char **command = crew->opts.ops->command(m->number, crew->opts.arg);
	int socket, rc;

	if (!command)
		return say_failure("out of memory");
	socket = sivshm_worker_take_socket(m->segment);
	rc = socket < 0 ? socket : child_start(&m->child, command, socket, m->number);
	if (rc)
		say("cannot start worker %u, '%s': %s", m->number, say_name(command[0]),
		    strerror(-rc));
	if (socket >= 0)
		close(socket);
	words_free(command);
	return rc;
}

int crew_start(struct crew *crew, unsigned number)
{
	struct member *m = &crew->members[number];
	int rc = make_segment(crew, m);

	m->rang = false;
	m->started_ns = clock_now_ns();
	lines_init(&m->out, number, crew->opts.out);
	lines_init(&m->err, number, stderr);
	if (rc)
		say("cannot make worker %u's segment of %llu bytes: %s", number,
		    (unsigned long long)crew->opts.segment_bytes, strerror(-rc));
	else
		rc = start_process(crew, m);
	if (rc) {
		crew_take_segment(m);
		return EXIT_FAILURE;
	}
	crew->running++;
	return 0;
}

int crew_start_all(struct crew *crew)
{
	int rc = 0;

	for (unsigned i = 0; i < crew->opts.workers && !rc; i++)
		rc = crew_start(crew, i);
	return rc;
}

void crew_kill(struct member *m)
{
	child_signal(&m->child, SIGKILL);
	crew_take_segment(m);
}

static void take_output(struct lines *l, int *fd)
{
	if (lines_read(l, *fd))
		return;
	close(*fd);
	*fd = -1;
}

/* What has been printed before the end; a stranger that holds the pipe open is not waited for. */
static void take_last_output(struct lines *l, int fd)
{
	for (int i = 0; fd >= 0 && i < CREW_LAST_READS; i++)
		if (lines_read(l, fd) != 1)
			break;
	lines_flush(l);
}

static void collect(struct member *m)
{
	struct crew *crew = m->crew;

	take_last_output(&m->out, m->child.out);
	take_last_output(&m->err, m->child.err);
	m->status = child_collect(&m->child);
	crew->running--;
	crew_take_segment(m);
	crew->opts.ops->ended(m, crew->opts.arg);
}

static void fill_polls(struct crew *crew, const struct pollfd *extra)
{
	struct pollfd *p = crew->polls;

	*p++ = (struct pollfd){sivshm_manager_fd(crew->manager), POLLIN, 0};
	*p++ = (struct pollfd){crew->signals, POLLIN, 0};
	*p++ = extra ? *extra : (struct pollfd){-1, 0, 0};
	for (unsigned i = 0; i < crew->opts.workers; i++) {
		const struct child *c = &crew->members[i].child;
		bool there = c->pid;

		*p++ = (struct pollfd){there ? c->pidfd : -1, POLLIN, 0};
		*p++ = (struct pollfd){there ? c->out : -1, POLLIN, 0};
		*p++ = (struct pollfd){there ? c->err : -1, POLLIN, 0};
	}
}

static void serve_member(struct member *m, const struct pollfd *p)
{
	if (p[1].revents)
		take_output(&m->out, &m->child.out);
	if (p[2].revents)
		take_output(&m->err, &m->child.err);
	if (p[0].revents)
		collect(m);
}

int crew_poll(struct crew *crew, struct pollfd *extra, int timeout_ms)
{
	struct signalfd_siginfo info;
	int rc;

	fill_polls(crew, extra);
	rc = poll(crew->polls, CREW_POLLS_FIXED + CREW_POLLS_MEMBER * (nfds_t)crew->opts.workers,
		  timeout_ms);
	if (rc < 0 && errno != EINTR)
		return say_failure("cannot wait for the workers: %m");
	if (rc <= 0)
		return 0;
	if (extra)
		extra->revents = crew->polls[2].revents;
	if (crew->polls[1].revents && read(crew->signals, &info, sizeof(info)) == sizeof(info))
		crew->signal = (int)info.ssi_signo;
	rc = crew->polls[0].revents ? sivshm_manager_dispatch(crew->manager, 0) : 0;
	if (rc < 0 && rc != -EINTR)
		return say_failure("cannot wait for the workers: %s", strerror(-rc));
	for (unsigned i = 0; i < crew->opts.workers; i++)
		serve_member(&crew->members[i],
			     &crew->polls[CREW_POLLS_FIXED + CREW_POLLS_MEMBER * i]);
	return 0;
}

static void signal_all(struct crew *crew, int signal)
{
	for (unsigned i = 0; i < crew->opts.workers; i++)
		child_signal(&crew->members[i].child, signal);
}

/* Until all have ended, the time is over, or a signal comes. */
static void await_end(struct crew *crew, int timeout_ms)
{
	uint64_t start = clock_now_ns();

	crew->signal = 0;
	while (crew->running && !crew->signal) {
		uint64_t waited = (clock_now_ns() - start) / NSEC_PER_MSEC;

		if (waited >= (uint64_t)timeout_ms)
			break;
		if (crew_poll(crew, NULL, timeout_ms - (int)waited))
			break;
	}
}

void crew_end(struct crew *crew, int signal, int grace_ms)
{
	int asked = crew->signal;

	if (signal)
		signal_all(crew, signal);
	await_end(crew, grace_ms);
	signal_all(crew, SIGKILL);
	for (unsigned i = 0; i < crew->opts.workers; i++)
		if (crew->members[i].child.pid)
			collect(&crew->members[i]);
	crew->signal = asked ? asked : crew->signal;
}
