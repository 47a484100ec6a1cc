/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A daemon for tests of the command `sluice`: the real RPC server and real bdevs, but guests and
 * disks that are made up, and an xl that is a script. The command runs in this process.
 */
#ifndef SLUICE_TESTS_FAKE_H
#define SLUICE_TESTS_FAKE_H

#include <jansson.h>
#include <stdbool.h>

#include "ctl_harness.h"

struct fake {
	struct harness h;
	/* What the command printed, and what it said on stderr. */
	char *out;
	char *said;
	/* How long it waits. */
	unsigned settle_ms, quick_ms;
	/* What the daemon was asked last to do with a disk; the reference is ours. */
	const char *last_method;
	json_t *last_params;
	/* If set: what the daemon lists, as fake_json() takes it. */
	const char *vbds;
	/* What the daemon has counted; the first disk reads a thousand times more for each sample.
	 */
	const char *iostat; /* NULL: there is no Xen */
	unsigned samples;
	/* The same of workers; NULL: there are none. */
	const char *workers;
	const char *worker_iostat;
};
extern struct fake fake;

/* cmocka's fixtures. */
int fake_setup(void **state);
int fake_teardown(void **state);
/* The answer to the call of the method "silence", which gets none otherwise. For harness_call(). */
void fake_break_silence(void *arg);

/* JSON, with ' in place of ", or a test that fails. New reference. */
json_t *fake_json(const char *text);

/* Runs `sluice --socket SOCKET @line` and returns its exit status. */
int fake_run(const char *line);
/* Fails unless the command does what it should: @status, all of stdout, and a part of stderr. */
void fake_expect(const char *line, int status, const char *output, const char *error);
/* The same for an error, which is one line that begins with our name. */
void fake_expect_error(const char *line, int status, const char *error);
/* Fails unless @method, with @params as fake_json() takes them, was the last asked of a disk. */
void fake_expect_params(const char *method, const char *params);

/* Files in the daemon's directory, which is also where xl is. */
bool fake_file_exists(const char *name);
const char *fake_file_text(const char *name);
void fake_make_file(const char *name, const char *text);
void fake_remove_file(const char *name);

#endif
