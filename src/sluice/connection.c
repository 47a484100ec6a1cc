/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's end of JSON-RPC: one request at a time, whose reply is one line.  Everything waits
 * with a limit, so that a daemon that hangs does not hang a script as well.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "sluice/client.h"

enum { REPLY_MAX = 64 << 20, READ_BYTES = 64 << 10 };

static const char *socket_path(const struct client *c, char *buffer, size_t room)
{
	if (c->socket)
		return c->socket;
	snprintf(buffer, room, "/run/sluice/%s.sock", c->instance);
	return buffer;
}

static int connect_daemon(struct client *c, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char buffer[128];
	const char *path = socket_path(c, buffer, sizeof(buffer));
	int rc;

	if (c->fd >= 0)
		return 0;
	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG,
			       "the socket's path has more than %zu bytes: use a shorter one",
			       sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd >= 0 && !connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)))
		return 0;
	rc = -errno;
	client_disconnect(c);
	if (rc == -EACCES)
		return err_set(err, rc, "cannot reach sluiced at %s: %s (run this as root)", path,
			       strerror(-rc));
	if (strcmp(c->instance, "sluice"))
		return err_set(err, rc,
			       "cannot reach sluiced at %s: %s (is it running? start it with "
			       "'sluiced --name %s')",
			       path, strerror(-rc), c->instance);
	return err_set(err, rc,
		       "cannot reach sluiced at %s: %s (is it running? start it with 'sluiced', "
		       "or name another with --name)",
		       path, strerror(-rc));
}

void client_disconnect(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	free(c->in);
	c->in = NULL;
	c->in_len = 0;
}

static int lost(struct err *err, int rc)
{
	return err_set(err, rc,
		       "the connection to sluiced broke (%s): its log tells whether it has ended",
		       rc == -EPIPE ? "closed" : strerror(-rc));
}

/* Waits until the socket is ready for @events. */
static int wait_ready(const struct client *c, short events, uint64_t deadline_ns,
		      unsigned timeout_ms, struct err *err)
{
	struct pollfd p = {.fd = c->fd, .events = events};

	for (;;) {
		uint64_t now = clock_now_ns();
		int n;

		if (now >= deadline_ns)
			return err_set(err, -ETIMEDOUT,
				       "no answer from sluiced within %u s: it may still do what "
				       "was asked, see 'sluice list' and its log",
				       timeout_ms / 1000);
		n = poll(&p, 1, (int)((deadline_ns - now) / NSEC_PER_MSEC) + 1);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return lost(err, -errno);
	}
}

static int send_request(struct client *c, const char *text, uint64_t deadline_ns,
			unsigned timeout_ms, struct err *err)
{
	size_t len = strlen(text), done = 0;

	while (done < len) {
		ssize_t n;
		int rc = wait_ready(c, POLLOUT, deadline_ns, timeout_ms, err);

		if (rc)
			return rc;
		n = send(c->fd, text + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			done += (size_t)n;
		else if (errno == EPIPE || errno == ECONNRESET)
			return 0; /* the daemon may have said why */
		else if (errno != EAGAIN && errno != EINTR)
			return lost(err, -errno);
	}
	return 0;
}

/* Waits for a whole line; returns its length with the newline, or a negative errno. */
static ssize_t receive_line(struct client *c, uint64_t deadline_ns, unsigned timeout_ms,
			    struct err *err)
{
	size_t seen = 0;

	for (;;) {
		const char *newline =
			c->in_len > seen ? memchr(c->in + seen, '\n', c->in_len - seen) : NULL;
		ssize_t n;
		char *in;
		int rc;

		if (newline)
			return newline + 1 - c->in;
		seen = c->in_len;
		if (c->in_len > REPLY_MAX)
			return err_set(err, -EMSGSIZE, "sluiced's answer has more than %d bytes",
				       REPLY_MAX);
		rc = wait_ready(c, POLLIN, deadline_ns, timeout_ms, err);
		if (rc)
			return rc;
		in = realloc(c->in, c->in_len + READ_BYTES);
		if (!in)
			return err_set(err, -ENOMEM, "out of memory");
		c->in = in;
		n = recv(c->fd, c->in + c->in_len, READ_BYTES, MSG_DONTWAIT);
		if (n > 0)
			c->in_len += (size_t)n;
		else if (!n)
			return lost(err, -EPIPE);
		else if (errno != EAGAIN && errno != EINTR)
			return lost(err, -errno);
	}
}

/* Takes the result, or the error, out of a reply. */
static int open_reply(const json_t *reply, unsigned id, json_t **result, struct err *err)
{
	const json_t *error = json_object_get(reply, "error");
	const json_t *reply_id = json_object_get(reply, "id");

	if (error) {
		json_int_t code = json_integer_value(json_object_get(error, "code"));
		const char *message = json_string_value(json_object_get(error, "message"));

		return err_set(err, code < 0 && code >= INT32_MIN ? (int)code : -EIO, "%s",
			       message ? message : "sluiced reports an error without a reason");
	}
	*result = json_object_get(reply, "result");
	if (!*result || !json_is_integer(reply_id) || json_integer_value(reply_id) != id)
		return err_set(err, -EPROTO,
			       "sluiced's answer makes no sense: is it of this "
			       "version ('sluice rpc sluice_get_version')?");
	json_incref(*result);
	return 0;
}

static int exchange(struct client *c, const char *text, unsigned id, unsigned timeout_ms,
		    json_t **result, struct err *err)
{
	uint64_t deadline_ns = clock_now_ns() + timeout_ms * NSEC_PER_MSEC;
	json_error_t error;
	json_t *reply;
	ssize_t len;
	int rc;

	rc = send_request(c, text, deadline_ns, timeout_ms, err);
	len = rc ? rc : receive_line(c, deadline_ns, timeout_ms, err);
	if (len < 0) {
		/* What comes on it later would answer the wrong question. */
		client_disconnect(c);
		return (int)len;
	}
	reply = json_loadb(c->in, (size_t)len, 0, &error);
	c->in_len -= (size_t)len;
	memmove(c->in, c->in + len, c->in_len);
	if (!reply)
		return err_set(err, -EPROTO,
			       "sluiced's answer is no JSON: is it sluiced that "
			       "serves this socket?");
	rc = open_reply(reply, id, result, err);
	json_decref(reply);
	return rc;
}

int client_call(struct client *c, const char *method, json_t *params, unsigned timeout_ms,
		json_t **result, struct err *err)
{
	unsigned id = ++c->last_id;
	json_t *request;
	char *text;
	int rc;

	request = params ? json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id", (int)id,
				     "method", method, "params", params)
			 : json_pack("{s:s, s:i, s:s}", "jsonrpc", "2.0", "id", (int)id, "method",
				     method);
	if (!request)
		return err_set(err, -EINVAL, "the arguments are no UTF-8 text");
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text)
		return err_set(err, -ENOMEM, "out of memory");
	rc = connect_daemon(c, err);
	if (!rc)
		rc = exchange(c, text, id, timeout_ms, result, err);
	free(text);
	return rc;
}
