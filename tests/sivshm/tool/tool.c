/* SPDX-License-Identifier: BSD-2-Clause */
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { ARGS_MAX = 64, NAP_US = 5000, NOBODY = 65534 };

bool tool_unprivileged;
static char scratch[64];

static const char *setting(const char *name)
{
	const char *value = getenv(name);

	if (!value)
		fail_msg("%s is not set: run this by meson test", name);
	return value;
}

const char *tool_worker(void)
{
	return setting("SIVSHM_TEST_WORKER");
}

const char *tool_wordcount(void)
{
	return setting("SIVSHM_TEST_WORDCOUNT");
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void tool_start(struct tool *t, const char *const *args)
{
	char *argv[ARGS_MAX] = {(char *)setting("SIVSHM_TEST_TOOL")};
	int in[2], out[2], err[2];

	for (int i = 0; args[i]; i++) {
		assert_true(i + 2 < ARGS_MAX);
		argv[i + 1] = (char *)args[i];
	}
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	*t = (struct tool){.in = in[1], .out.fd = out[0], .err.fd = err[0]};
	signal(SIGPIPE, SIG_IGN);
	t->pid = fork();
	assert_true(t->pid >= 0);
	if (!t->pid) {
		signal(SIGPIPE, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(err[1], STDERR_FILENO);
		if (tool_unprivileged && !geteuid() && (setgid(NOBODY) || setuid(NOBODY)))
			_exit(TOOL_CANNOT_START);
		execv(argv[0], argv);
		_exit(TOOL_CANNOT_START);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	fcntl(t->in, F_SETFL, O_NONBLOCK);
}

static void take(struct text *text)
{
	char piece[65536];
	ssize_t n = read(text->fd, piece, sizeof(piece));

	assert_true(n >= 0);
	if (!n) {
		close(text->fd);
		text->fd = -1;
		return;
	}
	if (text->room - text->n <= (size_t)n) {
		text->room = 2 * text->room + sizeof(piece) + 1;
		text->data = realloc(text->data, text->room);
		assert_non_null(text->data);
	}
	memcpy(text->data + text->n, piece, (size_t)n);
	text->n += (size_t)n;
	text->data[text->n] = '\0';
}

/* Feeds and reads once; false if the time is over. */
static bool pass(struct tool *t, const char **input, size_t *bytes, uint64_t end_ms)
{
	struct pollfd p[3] = {
		{t->out.fd, POLLIN, 0}, {t->err.fd, POLLIN, 0}, {*bytes ? t->in : -1, POLLOUT, 0}};
	uint64_t now = now_ms();

	if (now >= end_ms || !poll(p, 3, (int)(end_ms - now)))
		return false;
	if (p[0].revents)
		take(&t->out);
	if (p[1].revents)
		take(&t->err);
	if (p[2].revents) {
		ssize_t n = write(t->in, *input, *bytes);

		if (n < 0 && errno == EPIPE)
			n = (ssize_t)*bytes;
		assert_true(n >= 0 || errno == EAGAIN);
		*input += n > 0 ? n : 0;
		*bytes -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

static const char *said(const struct text *text)
{
	return text->data ? text->data : "";
}

static void give_up(struct tool *t, const char *what)
{
	kill(t->pid, SIGKILL);
	fail_msg("waited in vain for %s; the tool said: %s", what, said(&t->err));
}

void tool_await(struct tool *t, const char *text)
{
	uint64_t end = now_ms() + TOOL_WAIT_MS;
	const char *none = NULL;
	size_t no_bytes = 0;

	while (!strstr(said(&t->out), text) && !strstr(said(&t->err), text))
		if ((t->out.fd < 0 && t->err.fd < 0) || !pass(t, &none, &no_bytes, end))
			give_up(t, text);
}

int tool_finish(struct tool *t, const char *input, size_t bytes)
{
	uint64_t end = now_ms() + TOOL_WAIT_MS;

	while (t->out.fd >= 0 || t->err.fd >= 0) {
		if (!bytes && t->in >= 0) {
			close(t->in);
			t->in = -1;
		}
		if (!pass(t, &input, &bytes, end))
			give_up(t, "its end");
	}
	if (t->in >= 0)
		close(t->in);
	assert_int_equal(waitpid(t->pid, &t->status, 0), t->pid);
	/* For comparing without ado. */
	if (!t->out.data)
		t->out.data = strdup("");
	if (!t->err.data)
		t->err.data = strdup("");
	return WIFSIGNALED(t->status) ? 128 + WTERMSIG(t->status) : WEXITSTATUS(t->status);
}

void tool_free(struct tool *t)
{
	free(t->out.data);
	free(t->err.data);
}

int tool_run(struct tool *t, const char *const *args, const char *input, size_t bytes)
{
	tool_start(t, args);
	return tool_finish(t, input, bytes);
}

unsigned tool_count(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
		n++;
	return n;
}

unsigned tool_children(const struct tool *t, pid_t *pids, unsigned max)
{
	char path[64];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", t->pid, t->pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (n < max && fscanf(f, "%d", &pids[n]) == 1)
		n++;
	fclose(f);
	return n;
}

unsigned tool_segments(const struct tool *t)
{
	char path[64], line[512];
	unsigned n = 0;
	FILE *f;

	if (geteuid())
		skip();
	snprintf(path, sizeof(path), "/proc/%d/maps", t->pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, "/memfd:sivshm ") != NULL;
	fclose(f);
	return n;
}

unsigned tool_descriptors(pid_t pid, const char *word)
{
	char path[64], target[PATH_MAX];
	struct dirent *e;
	unsigned count = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = '\0';
		count += strstr(target, word) != NULL;
	}
	closedir(d);
	return count;
}

/* One that nobody has collected yet has ended, too. */
static bool has_ended(pid_t pid)
{
	char path[64], text[512], *state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return true;
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	state = strrchr(text, ')');
	return !state || state[2] == 'Z' || state[2] == 'X';
}

void tool_await_end(pid_t pid)
{
	uint64_t end = now_ms() + TOOL_WAIT_MS;

	while (!has_ended(pid)) {
		if (now_ms() >= end)
			fail_msg("process %d lives on", pid);
		usleep(NAP_US);
	}
}

const char *tool_scratch(void)
{
	if (!scratch[0]) {
		strcpy(scratch, "/tmp/sivshm-tool-XXXXXX");
		assert_non_null(mkdtemp(scratch));
	}
	return scratch;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

void tool_remove_scratch(void)
{
	if (scratch[0])
		nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	scratch[0] = '\0';
}

const char *tool_write(const char *name, const void *data, size_t bytes)
{
	static char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", tool_scratch(), name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, bytes, f), bytes);
	assert_int_equal(fclose(f), 0);
	return path;
}
