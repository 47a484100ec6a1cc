/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl_harness.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

void harness_init(struct harness *h, const struct rpc_opts *opts)
{
	struct rpc_opts mine = *opts;
	struct err err;
	int rc;

	strcpy(h->dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	snprintf(h->socket, sizeof(h->socket), "%s/test.sock", h->dir);
	mine.socket = h->socket;
	assert_int_equal(helper_pool_create(1, &h->helpers), 0);
	assert_int_equal(reactor_create("control", -1, h->helpers, &h->reactor), 0);
	rc = rpc_server_create(h->reactor, &mine, &h->server, &err);
	if (rc)
		fail_msg("rpc_server_create: %s", err.text);
}

void harness_start(struct harness *h)
{
	assert_int_equal(reactor_start(h->reactor), 0);
	h->started = true;
}

struct call {
	struct reactor_msg msg;
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int done;
};

static void run_call(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call, msg);

	call->fn(call->arg);
	pthread_mutex_lock(&call->lock);
	call->done = 1;
	pthread_cond_signal(&call->changed);
	pthread_mutex_unlock(&call->lock);
}

void harness_call(struct harness *h, void (*fn)(void *arg), void *arg)
{
	struct call call = {
		.msg.fn = run_call,
		.fn = fn,
		.arg = arg,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};

	reactor_send(h->reactor, &call.msg);
	pthread_mutex_lock(&call.lock);
	while (!call.done)
		pthread_cond_wait(&call.changed, &call.lock);
	pthread_mutex_unlock(&call.lock);
}

static void destroy_server(void *arg)
{
	struct harness *h = arg;

	rpc_server_destroy(h->server);
}

void harness_end_server(struct harness *h)
{
	harness_call(h, destroy_server, h);
	h->server = NULL;
	assert_int_equal(access(h->socket, F_OK), -1);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void harness_stop(struct harness *h)
{
	if (h->stopped)
		return;
	if (!h->started)
		harness_start(h);
	if (h->server)
		harness_end_server(h);
	reactor_stop(h->reactor);
	reactor_join(h->reactor);
	h->stopped = true;
}

void harness_end_helpers(struct harness *h)
{
	if (h->helpers)
		helper_pool_destroy(h->helpers);
	h->helpers = NULL;
}

void harness_end(struct harness *h)
{
	harness_stop(h);
	harness_end_helpers(h);
	reactor_destroy(h->reactor);
	assert_int_equal(nftw(h->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
	*h = (struct harness){0};
}

int harness_connect(const struct harness *h)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = 10};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(addr.sun_path, h->socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)), 0);
	return fd;
}

void harness_send(int fd, const char *text)
{
	size_t len = strlen(text);

	assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

json_t *harness_read(int fd)
{
	char *line = NULL, *newline = NULL;
	json_error_t error;
	json_t *value;
	size_t len = 0;

	while (!newline) {
		ssize_t n;

		line = realloc(line, len + 4096);
		assert_non_null(line);
		/* Looks first, so that nothing after the newline is taken. */
		n = recv(fd, line + len, 4096, MSG_PEEK);
		if (n < 0)
			fail_msg("no reply: %s", strerror(errno));
		if (!n)
			fail_msg("the server closed the connection instead of replying");
		newline = memchr(line + len, '\n', (size_t)n);
		if (newline)
			n = newline + 1 - (line + len);
		assert_int_equal(recv(fd, line + len, (size_t)n, 0), n);
		len += (size_t)n;
	}
	value = json_loadb(line, len, 0, &error);
	if (!value)
		fail_msg("the reply is no JSON: %s", error.text);
	free(line);
	return value;
}

void harness_expect(int fd, const char *expected)
{
	json_t *want = json_loads(expected, 0, NULL);
	json_t *got = harness_read(fd);

	assert_non_null(want);
	if (!json_equal(want, got))
		fail_msg("expected %s, got %s", expected, json_dumps(got, JSON_COMPACT));
	json_decref(want);
	json_decref(got);
}

void harness_expect_error(int fd, const char *id, int code, const char *text)
{
	json_t *got = harness_read(fd), *want_id = json_loads(id, JSON_DECODE_ANY, NULL);
	json_t *error = json_object_get(got, "error");
	const char *message = json_string_value(json_object_get(error, "message"));

	assert_non_null(want_id);
	if (!error || !message || json_object_get(got, "result") ||
	    !json_equal(json_object_get(got, "id"), want_id) ||
	    json_integer_value(json_object_get(error, "code")) != code || !strstr(message, text))
		fail_msg("expected error %d '%s' for %s, got %s", code, text, id,
			 json_dumps(got, JSON_COMPACT));
	json_decref(want_id);
	json_decref(got);
}

void harness_expect_end(int fd)
{
	char byte;

	/* Unread requests make Linux report a reset in place of the end. */
	if (recv(fd, &byte, 1, 0) != 0 && errno != ECONNRESET)
		fail_msg("expected the end, got a byte or: %s", strerror(errno));
}
