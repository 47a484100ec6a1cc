/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The server's insides.
 *
 * A client's bytes become a message (one value: a request or a batch), and a message one request
 * or several.  A message lives until its last request is answered, and then writes its one line;
 * it may outlive its client, whose pointer is then NULL.
 *
 * A client is freed in one place only, client_settle(), which every entry from outside (bytes
 * arrived, room to write, the stall timer, a late answer) ends with.  What happens further down
 * the stack marks the client and returns, so that nothing is freed under a caller's feet.
 */
#include "ctl/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "ctl/dirs.h"
#include "ctl/framer.h"
#include "reactor/reactor.h"

enum {
	CLIENTS_MAX = 64,
	READ_BYTES = 64 << 10, /* taken from a client at a time */
	/*
	 * A client with more unanswered requests or more unread bytes of replies is not served
	 * further for now, so that what it can pile up here is bounded by its next message.
	 */
	UNANSWERED_MAX = 256,
	UNSENT_PAUSE = 64 << 10,
};
#define STALL_NS        (10 * NSEC_PER_SEC)
#define ACCEPT_RETRY_NS (100 * NSEC_PER_MSEC)

struct bytes {
	char *data;
	size_t start; /* of what is still wanted */
	size_t end;
	size_t room;
};

struct rpc_server {
	struct reactor *reactor;
	char *path;
	struct reactor_fd listener;
	struct reactor_timer accept_retry;
	struct list clients;
	unsigned clients_len;
	unsigned clients_max;
	uint64_t stall_ns;
	struct registered {
		const struct rpc_method *method;
		void *arg;
	} * methods;
	size_t methods_len;
};

struct client {
	struct list node; /* of the server's clients */
	struct rpc_server *server;
	struct reactor_fd socket;
	uint32_t events; /* what the reactor watches for */
	struct reactor_timer stall;
	struct bytes in;
	struct bytes out;
	struct framer framer;
	size_t framed; /* bytes of `in` that the framer has seen, from in.start */
	struct list messages;
	unsigned unanswered;
	bool settling; /* client_settle() is on the stack */
	bool ending;   /* takes nothing more; goes when all is answered and sent */
	bool eof;      /* the client will send nothing more */
	bool gone;     /* it will not read either: goes once what it has sent is taken */
	bool dead;     /* goes now */
};

struct message {
	struct list node; /* of the client's messages */
	struct client *client;
	bool batch;
	unsigned unanswered;
	json_t *replies; /* array */
};

struct rpc_request {
	struct message *message;
	const struct rpc_method *method;
	json_t *id; /* NULL: a notification */
	json_t *params;
};

static void client_settle(struct client *c);

/* Bytes */

static size_t bytes_len(const struct bytes *b)
{
	return b->end - b->start;
}

static void bytes_drop(struct bytes *b, size_t n)
{
	b->start += n;
	if (b->start < b->end)
		return;
	/* Empty: give a large request's memory back. */
	free(b->data);
	*b = (struct bytes){0};
}

/* Makes room for @n more bytes after end. */
static int bytes_reserve(struct bytes *b, size_t n)
{
	size_t len = bytes_len(b), room;
	char *data;

	if (b->room - b->end >= n)
		return 0;
	if (b->start) {
		memmove(b->data, b->data + b->start, len);
		b->start = 0;
		b->end = len;
	}
	if (b->room - b->end >= n)
		return 0;
	room = b->room * 2 > len + n ? b->room * 2 : len + n;
	data = realloc(b->data, room);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->room = room;
	return 0;
}

/* Replies */

static int append_dump(const char *text, size_t len, void *arg)
{
	struct client *c = arg;

	if (bytes_len(&c->out) + len > RPC_REPLIES_MAX || bytes_reserve(&c->out, len))
		return -1;
	memcpy(c->out.data + c->out.end, text, len);
	c->out.end += len;
	return 0;
}

/* Queues @reply as one line, taking its reference. */
static void client_write(struct client *c, json_t *reply)
{
	if (!c->dead && (!reply || json_dump_callback(reply, append_dump, c, JSON_COMPACT) ||
			 append_dump("\n", 1, c))) {
		log_warning("rpc: no room for a reply: its client is disconnected");
		c->dead = true;
	}
	json_decref(reply);
}

json_t *rpc_text(const char *text)
{
	json_t *string = json_string(text);
	size_t len = strlen(text);
	char *ascii;

	if (string)
		return string;
	ascii = malloc(len + 1);
	if (!ascii)
		return NULL;
	for (size_t i = 0; i <= len; i++)
		ascii[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	string = json_string(ascii);
	free(ascii);
	return string;
}

/* Both take the reference to @id (NULL: null) and to their last argument. */
static json_t *result_reply(json_t *id, json_t *result)
{
	return json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id", id ? id : json_null(), "result",
			 result);
}

static json_t *error_reply(json_t *id, int code, json_t *text)
{
	return json_pack("{s:s, s:o, s:{s:i, s:o}}", "jsonrpc", "2.0", "id", id ? id : json_null(),
			 "error", "code", code, "message", text);
}

static json_t *error_reply_fmt(json_t *id, int code, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
static json_t *error_reply_fmt(json_t *id, int code, const char *fmt, va_list ap)
{
	struct err line;

	vsnprintf(line.text, sizeof(line.text), fmt, ap);
	return error_reply(id, code, rpc_text(line.text));
}

/* Answers what is no request at all, and takes nothing more from a client that has lost its way. */
static void client_reject(struct client *c, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void client_reject(struct client *c, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	client_write(c, error_reply_fmt(NULL, code, fmt, ap));
	va_end(ap);
	c->ending = true;
}

/* Messages and requests */

static void message_answered(struct message *m)
{
	struct client *c = m->client;

	if (c)
		c->unanswered--;
	if (--m->unanswered)
		return;
	if (c) {
		list_del(&m->node);
		if (m->batch && json_array_size(m->replies))
			client_write(c, json_incref(m->replies));
		else if (json_array_size(m->replies))
			client_write(c, json_incref(json_array_get(m->replies, 0)));
	}
	json_decref(m->replies);
	free(m);
	if (c && !c->settling)
		client_settle(c);
}

static void message_add_reply(struct message *m, json_t *reply)
{
	if (m->client && (!reply || json_array_append(m->replies, reply)))
		m->client->dead = true; /* no memory: a client that misses a reply must notice */
	json_decref(reply);
}

static void request_answered(struct rpc_request *req, json_t *reply)
{
	struct message *m = req->message;

	if (req->id)
		message_add_reply(m, reply);
	else
		json_decref(reply);
	json_decref(req->id);
	json_decref(req->params);
	free(req);
	message_answered(m);
}

void rpc_reply(struct rpc_request *req, json_t *result)
{
	if (!result) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	request_answered(req, result_reply(json_incref(req->id), result));
}

void rpc_fail(struct rpc_request *req, int code, const char *fmt, ...)
{
	json_t *reply;
	va_list ap;

	va_start(ap, fmt);
	reply = error_reply_fmt(json_incref(req->id), code, fmt, ap);
	va_end(ap);
	request_answered(req, reply);
}

const struct rpc_method *rpc_request_method(const struct rpc_request *req)
{
	return req->method;
}

bool rpc_decode(struct rpc_request *req, const json_t *params, const struct params_field *fields,
		size_t fields_len, void *dest)
{
	struct err err;

	if (!params_decode(params, fields, fields_len, dest, &err))
		return true;
	rpc_fail(req, RPC_INVALID_PARAMS, "%s", err.text);
	return false;
}

static const struct registered *find_method(const struct rpc_server *s, const char *name)
{
	for (size_t i = 0; i < s->methods_len; i++)
		if (!strcmp(s->methods[i].method->name, name))
			return &s->methods[i];
	return NULL;
}

/* What makes @value no request, or NULL; fills in its parts. */
static const char *take_apart(const json_t *value, json_t **id, const char **method,
			      json_t **params)
{
	json_t *object = (json_t *)value; /* jansson iterates over plain pointers only */
	const char *version = NULL;

	*id = NULL;
	*method = NULL;
	*params = NULL;
	if (!json_is_object(value))
		return "a request is an object";
	*id = json_object_get(value, "id");
	if (*id && !json_is_string(*id) && !json_is_number(*id) && !json_is_null(*id)) {
		*id = NULL;
		return "'id' must be a string, a number or null";
	}
	for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
		const char *key = json_object_iter_key(it);
		json_t *member = json_object_iter_value(it);

		if (!strcmp(key, "jsonrpc"))
			version = json_string_value(member);
		else if (!strcmp(key, "method"))
			*method = json_string_value(member);
		else if (!strcmp(key, "params"))
			*params = member;
		else if (strcmp(key, "id"))
			return "a request has 'jsonrpc', 'method', 'params' and 'id' only";
	}
	if (!version || strcmp(version, "2.0"))
		return "'jsonrpc' must be \"2.0\"";
	if (!*method)
		return "'method' must be a string";
	if (*params && !json_is_object(*params) && !json_is_array(*params))
		return "'params' must be an object";
	return NULL;
}

static void request_start(struct message *m, json_t *value)
{
	const struct registered *r;
	struct rpc_request *req;
	const char *method, *flaw;
	json_t *id, *params;

	m->unanswered++;
	m->client->unanswered++;
	flaw = take_apart(value, &id, &method, &params);
	if (flaw) {
		message_add_reply(m, error_reply(json_incref(id), RPC_INVALID_REQUEST,
						 rpc_text(flaw)));
		message_answered(m);
		return;
	}
	req = calloc(1, sizeof(*req));
	if (!req) {
		message_add_reply(m, error_reply(json_incref(id), RPC_INTERNAL_ERROR,
						 rpc_text("out of memory")));
		message_answered(m);
		return;
	}
	req->message = m;
	req->id = json_incref(id);
	req->params = json_incref(params);
	r = find_method(m->client->server, method);
	req->method = r ? r->method : NULL;
	if (!r)
		rpc_fail(req, RPC_METHOD_NOT_FOUND,
			 "no method '%.64s' (rpc_get_methods lists them)", method);
	else if (json_is_array(params))
		rpc_fail(req, RPC_INVALID_PARAMS, "'params' must be an object, by name");
	else
		r->method->handle(req, params, r->arg);
}

static void client_take_message(struct client *c, const char *text, size_t len)
{
	json_error_t error;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	size_t n = json_is_array(root) ? json_array_size(root) : 1;
	struct message *m;

	if (!root) {
		client_reject(c, RPC_PARSE_ERROR, "malformed request: %s", error.text);
		return;
	}
	if (!n || n > RPC_BATCH_MAX) {
		client_reject(c, RPC_INVALID_REQUEST, "a batch has 1 to %d requests",
			      RPC_BATCH_MAX);
		json_decref(root);
		return;
	}
	m = calloc(1, sizeof(*m));
	if (!m || !(m->replies = json_array())) {
		free(m);
		json_decref(root);
		client_reject(c, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	m->client = c;
	m->batch = json_is_array(root);
	list_add_tail(&c->messages, &m->node);
	/* One for ourselves, lest the message ends while requests are still being started. */
	m->unanswered = 1;
	c->unanswered++;
	for (size_t i = 0; i < n; i++)
		request_start(m, m->batch ? json_array_get(root, i) : root);
	json_decref(root);
	message_answered(m);
}

/* Clients */

static bool client_paused(const struct client *c)
{
	return c->unanswered >= UNANSWERED_MAX || bytes_len(&c->out) >= UNSENT_PAUSE;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Takes what complete messages there are, as long as the client is not paused. */
static void client_take(struct client *c)
{
	while (!c->dead && !c->ending && !client_paused(c)) {
		enum framer_result result;
		const char *text;
		size_t len, used;

		if (!c->framed)
			while (bytes_len(&c->in) && is_blank(c->in.data[c->in.start]))
				bytes_drop(&c->in, 1);
		len = bytes_len(&c->in);
		if (!len) {
			c->ending |= c->eof;
			return;
		}
		text = c->in.data + c->in.start;
		result = framer_feed(&c->framer, text + c->framed, len - c->framed, &used);
		c->framed += used;
		if (c->framed > RPC_REQUEST_MAX ||
		    (result == FRAMER_MORE && len >= RPC_REQUEST_MAX)) {
			client_reject(c, RPC_INVALID_REQUEST, "a request has at most %d bytes",
				      RPC_REQUEST_MAX);
			return;
		}
		switch (result) {
		case FRAMER_MORE:
			if (c->eof)
				client_reject(c, RPC_PARSE_ERROR,
					      "malformed request: it ends in the middle");
			return;
		case FRAMER_GARBAGE:
			client_reject(c, RPC_PARSE_ERROR,
				      "malformed request: it is an object or an array");
			return;
		case FRAMER_COMPLETE:
			client_take_message(c, text, c->framed);
			bytes_drop(&c->in, c->framed);
			c->framed = 0;
			c->framer = (struct framer){0};
			break;
		}
	}
}

static void client_read(struct client *c)
{
	ssize_t n;

	if (bytes_reserve(&c->in, READ_BYTES)) {
		c->dead = true;
		return;
	}
	n = recv(c->socket.fd, c->in.data + c->in.end, READ_BYTES, 0);
	if (n > 0)
		c->in.end += (size_t)n;
	else if (!n)
		c->eof = true;
	else if (errno != EAGAIN && errno != EINTR)
		c->dead = true;
}

static void client_send(struct client *c)
{
	while (!c->dead && bytes_len(&c->out)) {
		ssize_t n = send(c->socket.fd, c->out.data + c->out.start, bytes_len(&c->out),
				 MSG_NOSIGNAL);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN)
				c->dead = true;
			return;
		}
		reactor_timer_stop(c->server->reactor, &c->stall);
		bytes_drop(&c->out, (size_t)n);
	}
}

static void client_free(struct client *c)
{
	struct rpc_server *s = c->server;
	struct list *node;

	while ((node = list_pop(&c->messages)))
		list_entry(node, struct message, node)->client = NULL;
	reactor_timer_stop(s->reactor, &c->stall);
	reactor_fd_del(s->reactor, &c->socket);
	close(c->socket.fd);
	list_del(&c->node);
	s->clients_len--;
	free(c->in.data);
	free(c->out.data);
	free(c);
}

/* Brings the client to rest: takes and sends all it can, then waits for what is missing, or ends.
 */
static void client_settle(struct client *c)
{
	struct reactor *r = c->server->reactor;
	uint32_t events = 0;
	bool paused;

	c->settling = true;
	do {
		client_take(c);
		paused = client_paused(c);
		client_send(c);
	} while (!c->dead && paused && !client_paused(c));
	c->settling = false;

	if (c->gone || (c->ending && !c->unanswered && !bytes_len(&c->out)))
		c->dead = true;
	if (!c->ending && !c->eof && !client_paused(c))
		events |= EPOLLIN;
	if (bytes_len(&c->out)) {
		events |= EPOLLOUT;
		if (!c->stall.running)
			reactor_timer_start(r, &c->stall, c->server->stall_ns);
	}
	if (!c->dead && events != c->events && reactor_fd_modify(r, &c->socket, events))
		c->dead = true;
	c->events = events;
	if (c->dead)
		client_free(c);
}

static void client_ready(struct reactor_fd *f, uint32_t events)
{
	struct client *c = container_of(f, struct client, socket);

	/* Even a client that has hung up may have left requests, which are done in any case. */
	if (c->events & EPOLLIN)
		client_read(c);
	if (events & (EPOLLHUP | EPOLLERR) && (!(c->events & EPOLLIN) || c->eof))
		c->gone = true;
	client_settle(c);
}

static void client_stalled(struct reactor_timer *t)
{
	struct client *c = container_of(t, struct client, stall);

	log_warning("rpc: a client does not read its replies: it is disconnected");
	c->dead = true;
	client_settle(c);
}

/* Takes over @fd. */
static int client_create(struct rpc_server *s, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->server = s;
	c->socket.fd = fd;
	c->socket.ready = client_ready;
	c->events = EPOLLIN;
	c->stall.fire = client_stalled;
	list_init(&c->messages);
	rc = reactor_fd_add(s->reactor, &c->socket, c->events);
	if (rc) {
		free(c);
		return rc;
	}
	list_add_tail(&s->clients, &c->node);
	s->clients_len++;
	return 0;
}

/* The server */

static void refuse_client(int fd, unsigned clients_max)
{
	char line[160];
	int len = snprintf(line, sizeof(line),
			   "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":%d,\"message\":"
			   "\"%u clients are connected already: end some\"}}\n",
			   -EUSERS, clients_max);

	/* A fresh socket has room for a line; if not, the client sees only that it was closed. */
	if (send(fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("rpc: cannot tell a client why it was refused: %s", strerror(errno));
	close(fd);
}

static void listener_ready(struct reactor_fd *f, uint32_t events)
{
	struct rpc_server *s = container_of(f, struct rpc_server, listener);
	int fd = accept4(f->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		/* Out of descriptors, say: the caller stays in the queue, and we must not spin. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
			log_warning("rpc: cannot accept a client: %s", strerror(errno));
			reactor_fd_del(s->reactor, &s->listener);
			reactor_timer_start(s->reactor, &s->accept_retry, ACCEPT_RETRY_NS);
		}
		return;
	}
	if (s->clients_len >= s->clients_max)
		refuse_client(fd, s->clients_max);
	else if (client_create(s, fd))
		close(fd);
}

static void accept_again(struct reactor_timer *t)
{
	struct rpc_server *s = container_of(t, struct rpc_server, accept_retry);

	if (reactor_fd_add(s->reactor, &s->listener, EPOLLIN))
		reactor_timer_start(s->reactor, &s->accept_retry, ACCEPT_RETRY_NS);
}

int rpc_register(struct rpc_server *s, const struct rpc_method *m, void *arg)
{
	struct registered *methods;

	if (find_method(s, m->name))
		return -EEXIST;
	methods = reallocarray(s->methods, s->methods_len + 1, sizeof(*methods));
	if (!methods)
		return -ENOMEM;
	methods[s->methods_len] = (struct registered){m, arg};
	s->methods = methods;
	s->methods_len++;
	return 0;
}

static void get_methods(struct rpc_request *req, const json_t *params, void *arg)
{
	const struct rpc_server *s = arg;
	json_t *names;

	if (!rpc_decode(req, params, NULL, 0, NULL))
		return;
	names = json_array();
	for (size_t i = 0; names && i < s->methods_len; i++) {
		if (json_array_append_new(names, json_string(s->methods[i].method->name))) {
			json_decref(names);
			names = NULL;
		}
	}
	rpc_reply(req, names);
}

static void get_version(struct rpc_request *req, const json_t *params, void *arg)
{
	if (rpc_decode(req, params, NULL, 0, NULL))
		rpc_reply(req, json_pack("{s:s}", "version", SLUICE_VERSION));
}

static void set_log_level(struct rpc_request *req, const json_t *params, void *arg)
{
	struct {
		const char *level;
	} p;
	static const struct params_field fields[] = {{"level", PARAMS_STRING, false, 0}};
	enum log_level level;

	if (!rpc_decode(req, params, fields, 1, &p))
		return;
	if (!log_parse_level(p.level, &level)) {
		rpc_fail(req, RPC_INVALID_PARAMS,
			 "parameter 'level' must be error, warning, info or debug");
		return;
	}
	log_set_level(level);
	rpc_reply(req, json_true());
}

static const struct rpc_method builtin[] = {
	{"rpc_get_methods", get_methods},
	{"sluice_get_version", get_version},
	{"log_set_level", set_log_level},
};

/* Removes a socket that nobody listens on any more. */
static int remove_stale(const char *path, const struct sockaddr_un *addr, struct err *err)
{
	struct stat st;
	int fd, rc;

	if (lstat(path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST,
			       "%s exists and is no socket: remove it, or choose "
			       "another path with --socket",
			       path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	rc = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? -errno : 0;
	close(fd);
	if (rc != -ECONNREFUSED)
		return err_set(err, -EADDRINUSE,
			       "another process serves %s: choose another path "
			       "with --socket, or another instance with --name",
			       path);
	if (unlink(path))
		return err_set(err, -errno, "cannot remove the stale socket %s: %s", path,
			       strerror(errno));
	return 0;
}

static int listen_on(const char *path, int *out, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc;

	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "the socket's path must have 1 to %zu bytes",
			       sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	rc = dirs_make_parent(path, 0755, err);
	if (rc)
		return rc;
	rc = remove_stale(path, &addr, err);
	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/*
	 * On Linux bind() gives the file the mode of the socket itself, so that there is no moment
	 * in which others may connect, and no umask to change under other threads.
	 */
	if (fd < 0 || fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(fd, SOMAXCONN)) {
		rc = err_set(err, -errno, "cannot listen on %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

int rpc_server_create(struct reactor *r, const struct rpc_opts *opts, struct rpc_server **out,
		      struct err *err)
{
	struct rpc_server *s = calloc(1, sizeof(*s));
	int rc = -ENOMEM;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->reactor = r;
	s->listener.fd = -1;
	s->listener.ready = listener_ready;
	s->accept_retry.fire = accept_again;
	s->clients_max = opts->clients_max ? opts->clients_max : CLIENTS_MAX;
	s->stall_ns = opts->stall_ns ? opts->stall_ns : STALL_NS;
	list_init(&s->clients);
	s->path = strdup(opts->socket);
	if (!s->path) {
		err_set(err, rc, "out of memory");
		goto fail;
	}
	for (size_t i = 0; i < sizeof(builtin) / sizeof(builtin[0]); i++) {
		rc = rpc_register(s, &builtin[i], s);
		if (rc) {
			err_set(err, rc, "out of memory");
			goto fail;
		}
	}
	rc = listen_on(s->path, &s->listener.fd, err);
	if (rc)
		goto fail;
	rc = reactor_fd_add(r, &s->listener, EPOLLIN);
	if (rc) {
		err_set(err, rc, "cannot watch %s: %s", s->path, strerror(-rc));
		unlink(s->path);
		goto fail;
	}
	*out = s;
	return 0;
fail:
	if (s->listener.fd >= 0)
		close(s->listener.fd);
	free(s->methods);
	free(s->path);
	free(s);
	return rc;
}

void rpc_server_destroy(struct rpc_server *s)
{
	while (!list_empty(&s->clients))
		client_free(list_entry(s->clients.next, struct client, node));
	reactor_timer_stop(s->reactor, &s->accept_retry);
	reactor_fd_del(s->reactor, &s->listener);
	unlink(s->path);
	close(s->listener.fd);
	free(s->methods);
	free(s->path);
	free(s);
}
