/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs the tool `sivshm` as a user would, and looks at what it says. */
#ifndef SLUICE_TESTS_SIVSHM_TOOL_H
#define SLUICE_TESTS_SIVSHM_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct text {
	char *data; /* ends in a zero byte */
	size_t n, room;
	int fd;
};

struct tool {
	pid_t pid;
	int in; /* its standard input; -1: closed */
	struct text out, err;
	int status; /* waitpid()'s */
};

enum {
	TOOL_WAIT_MS = 30000,
	TOOL_CANNOT_START = 126, /* an exit status */
};

/* The test's worker program and the example's; all paths come from the environment. */
const char *tool_worker(void);
const char *tool_wordcount(void);

/* Whether tool_start() is to give up the rights of root. */
extern bool tool_unprivileged;
/* Starts the tool with these arguments, which end in NULL. */
void tool_start(struct tool *t, const char *const *args);
/* Waits until it has said @text on standard error or output. */
void tool_await(struct tool *t, const char *text);
/* Gives it all of its input and waits until it ends. Returns its exit status, or 128 + signal. */
int tool_finish(struct tool *t, const char *input, size_t bytes);
void tool_free(struct tool *t);
/* All at once. */
int tool_run(struct tool *t, const char *const *args, const char *input, size_t bytes);

/* How often @word stands in @text. */
unsigned tool_count(const char *text, const char *word);
/* The processes whose parent is the tool; at most @max. */
unsigned tool_children(const struct tool *t, pid_t *pids, unsigned max);
/* How many segments the tool has; needs the rights of root, and skips the test without them. */
unsigned tool_segments(const struct tool *t);
/* How many descriptors of @pid refer to something whose name has @word in it. */
unsigned tool_descriptors(pid_t pid, const char *word);
/* Waits until @pid has ended, whether or not somebody has collected it. */
void tool_await_end(pid_t pid);
/* A directory of the test's own, removed at the end by tool_remove_scratch(). */
const char *tool_scratch(void);
void tool_remove_scratch(void);
/* Writes a file there; returns its path, valid until the next call. */
const char *tool_write(const char *name, const void *data, size_t bytes);

#define TOOL_ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
