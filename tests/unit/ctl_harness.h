/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What tests of the control plane share: an RPC server on a reactor's own thread, under a
 * temporary directory, and a plain blocking client that speaks raw bytes to it.
 */
#ifndef SLUICE_TESTS_CTL_HARNESS_H
#define SLUICE_TESTS_CTL_HARNESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "ctl/rpc.h"
#include "reactor/helper.h"
#include "reactor/reactor.h"

struct harness {
	char dir[64];     /* a fresh directory, removed with what is in it */
	char socket[128]; /* in it */
	struct helper_pool *helpers;
	struct reactor *reactor;
	struct rpc_server *server;
	bool started;
	bool stopped;
};

/* Makes all but starts nothing yet, so that the test can register methods. */
void harness_init(struct harness *h, const struct rpc_opts *opts);
/* Lets the reactor's thread run. */
void harness_start(struct harness *h);
/* Runs @fn(@arg) on the reactor's thread and waits for it. */
void harness_call(struct harness *h, void (*fn)(void *arg), void *arg);
/* Ends the server alone. */
void harness_end_server(struct harness *h);
/* Ends the server and the reactor's thread. */
void harness_stop(struct harness *h);
/* Waits for the helper threads and ends them. */
void harness_end_helpers(struct harness *h);
/* Ends what has not been ended, and removes the directory. */
void harness_end(struct harness *h);

/* A blocking connection; reads give up, and fail the test, after 10 s. */
int harness_connect(const struct harness *h);
void harness_send(int fd, const char *text);
/* The next line, which must come, parsed. New reference. */
json_t *harness_read(int fd);
/* Fails unless the next line is the JSON value @expected. */
void harness_expect(int fd, const char *expected);
/* Fails unless the next line is an error of @code whose message contains @text. @id as JSON. */
void harness_expect_error(int fd, const char *id, int code, const char *text);
/* Fails unless the server has closed the connection and nothing more is to be read. */
void harness_expect_end(int fd);

#endif
