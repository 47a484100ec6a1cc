/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * service: the whole daemon, main to end, and its client: started, called, and ended as systemd
 * would.  Its host has nothing, Xen least of all, unless the test says which (dom0.h).
 */
#ifndef SLUICE_TEST_SERVICE_H
#define SLUICE_TEST_SERVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { SERVICE_WAIT_MS = 10000 }; /* for anything that has to happen */

struct service {
	char root[96]; /* where the host's /sys and /dev are */
	char dir[64];  /* for files of the test's */
	char name[32];
	char sock[96], state[96], log[96], lock[96], ledger[96], sivshm[96];
	const char *const *more; /* arguments for who starts next, NULL at the end; or NULL */
};
extern struct service service; /* there is but one */

/* cmocka's fixtures. */
int service_setup(void **state);
int service_teardown(void **state);
/*
 * For main(): false if the daemon cannot be run here, which has then been said; such a test is
 * skipped (exit status 77). From now on no thread dies of the signals that the daemon takes from a
 * descriptor.
 */
bool service_prepare(void);

/* Milliseconds since some start; sleeps a little, for loops that wait. */
uint64_t service_now_ms(void);
void service_nap(void);

void service_start(void);
/* As systemctl stop does. */
void service_end(void);
/* Runs a daemon that has to end at once with @status, after one line that says @words. */
void service_ends_with(const char *const *extra, int status, const char *words);

/* The result of a call of @method, with @params as JSON, that has to succeed. New reference. */
json_t *service_result(const char *method, const char *params);
/* A call that has to be refused with this code, and words in its one line. */
void service_refuses(const char *method, const char *params, int code, const char *words);

/* Runs `sluice @line`, which has to succeed, and returns what it printed; to be freed. */
char *service_command(const char *line);
/* The same, and it has to print @text, or not to; each run of blanks counts as one. */
void service_prints(const char *line, const char *text, bool wanted);
/* It has to fail, and to say @words in one line. */
void service_fails(const char *line, const char *words);

#endif
