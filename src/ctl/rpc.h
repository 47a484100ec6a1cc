/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * JSON-RPC 2.0 server on a UNIX stream socket, as SPDK's clients speak it: requests one after the
 * other without framing, with blanks or newlines between them or without; batches; notifications.
 * Each reply, or batch of replies, is one line.
 *
 * Everything runs on one reactor, the control thread's, and no client can hold it up: sockets do
 * not block, a request is at most RPC_REQUEST_MAX bytes, and a client whose replies pile up is
 * not served further until it reads them, nor kept if it does not read at all.  A handler answers
 * at once or later; the client may be gone by then, and the answer is dropped quietly.
 *
 * The socket has mode 0600: who can open it may do anything the daemon can.  That a client is
 * trusted so far does not mean that its bytes are; they are parsed as a stranger's.
 */
#ifndef SLUICE_CTL_RPC_H
#define SLUICE_CTL_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "ctl/params.h"

struct reactor;
struct rpc_server;
struct rpc_request;

enum {
	RPC_REQUEST_MAX = 1 << 20, /* bytes of one request or batch */
	RPC_BATCH_MAX = 256,       /* requests of one batch */
	RPC_REPLIES_MAX = 16 << 20 /* bytes of unsent replies before the client is dropped */
};

/* JSON-RPC's own error codes; all others are negative errno values, as with SPDK. */
enum {
	RPC_PARSE_ERROR = -32700,
	RPC_INVALID_REQUEST = -32600,
	RPC_METHOD_NOT_FOUND = -32601,
	RPC_INVALID_PARAMS = -32602,
	RPC_INTERNAL_ERROR = -32603,
};

struct rpc_method {
	const char *name;
	/*
	 * Must have rpc_reply() or rpc_fail() called exactly once for @req, now or later, on the
	 * server's reactor. @params, an object or NULL, lives as long as @req. @arg is what the
	 * method was registered with.
	 */
	void (*handle)(struct rpc_request *req, const json_t *params, void *arg);
};

struct rpc_opts {
	const char *socket;   /* path; copied */
	unsigned clients_max; /* 0: 64 */
	uint64_t stall_ns;    /* a client that takes nothing for so long is dropped; 0: 10 s */
};

/*
 * Listens on the socket, replacing one that a dead daemon left. Makes the socket's directory if
 * only that is missing. Returns 0 and *@out; or a negative errno with the line in @err, -EADDRINUSE
 * if somebody answers there. The methods rpc_get_methods, sluice_get_version and log_set_level are
 * built in. Called on @r's thread or before it runs, as all functions here.
 */
int rpc_server_create(struct reactor *r, const struct rpc_opts *opts, struct rpc_server **out,
		      struct err *err);
/*
 * Drops the clients and removes the socket. Requests that wait for an answer stay valid and must
 * still be answered. Not from a handler.
 */
void rpc_server_destroy(struct rpc_server *s);

/* Adds @m, which must outlive the server. Returns 0, -EEXIST or -ENOMEM. */
int rpc_register(struct rpc_server *s, const struct rpc_method *m, void *arg);

/* Answers with @result, whose reference it takes; NULL (no memory to build it) becomes an error. */
void rpc_reply(struct rpc_request *req, json_t *result);
/* Answers with an error: @code a negative errno or one of JSON-RPC's, and one line of text. */
void rpc_fail(struct rpc_request *req, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The method whose handler @req was given to: one handler can serve several. */
const struct rpc_method *rpc_request_method(const struct rpc_request *req);

/*
 * params_decode() for a handler: false means that the request has been answered with
 * RPC_INVALID_PARAMS and is gone.
 */
bool rpc_decode(struct rpc_request *req, const json_t *params, const struct params_field *fields,
		size_t fields_len, void *dest);

/*
 * A JSON string of @text, whatever its bytes are (a guest's, say): if they are no UTF-8, '?'
 * stands for all that are not ASCII. New reference; NULL without memory.
 */
json_t *rpc_text(const char *text);

#endif
