/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON-RPC server as its clients, the well-meaning and the hostile, see it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "ctl/instance.h"
#include "ctl_harness.h"

enum { HELD_MAX = 1024 };

static struct harness h;
static struct rpc_request *held[HELD_MAX];
static unsigned held_len;
static unsigned pokes;

static void echo(struct rpc_request *req, const json_t *params, void *arg)
{
	rpc_reply(req, params ? json_deep_copy(params) : json_null());
}

static void hold(struct rpc_request *req, const json_t *params, void *arg)
{
	if (held_len == HELD_MAX)
		abort();
	held[held_len++] = req;
}

/* Answers what is held now, the last first; meanwhile more may come. */
static void let_go(void *arg)
{
	struct rpc_request *now[HELD_MAX];
	unsigned n = held_len;

	memcpy(now, held, n * sizeof(now[0]));
	held_len = 0;
	while (n)
		rpc_reply(now[--n], json_string("late"));
}

static void wait_held(unsigned n)
{
	for (unsigned tries = 0; __atomic_load_n(&held_len, __ATOMIC_RELAXED) < n; tries++) {
		assert_true(tries < 10000);
		usleep(1000);
	}
}

static void poke(struct rpc_request *req, const json_t *params, void *arg)
{
	__atomic_add_fetch(&pokes, 1, __ATOMIC_RELAXED);
	rpc_reply(req, json_true());
}

static void big(struct rpc_request *req, const json_t *params, void *arg)
{
	struct {
		uint32_t bytes;
	} p;
	static const struct params_field fields[] = {{"bytes", PARAMS_U32, false, 0}};
	json_t *text;
	char *x;

	if (!rpc_decode(req, params, fields, 1, &p))
		return;
	x = malloc(p.bytes);
	memset(x, 'x', p.bytes);
	text = json_stringn_nocheck(x, p.bytes);
	free(x);
	rpc_reply(req, text);
}

struct typed {
	const char *text;
	bool yes;
	uint32_t small;
	uint64_t large;
	const char *extra;
};

static void typed(struct rpc_request *req, const json_t *params, void *arg)
{
	static const struct params_field fields[] = {
		PARAMS_REQUIRED(struct typed, text, PARAMS_STRING),
		PARAMS_REQUIRED(struct typed, yes, PARAMS_BOOL),
		PARAMS_REQUIRED(struct typed, small, PARAMS_U32),
		PARAMS_REQUIRED(struct typed, large, PARAMS_U64),
		PARAMS_OPTIONAL(struct typed, extra, PARAMS_STRING),
	};
	struct typed t = {.extra = "default"};

	if (rpc_decode(req, params, fields, 5, &t))
		rpc_reply(req, json_pack("[s, b, I, I, s]", t.text, t.yes, (json_int_t)t.small,
					 (json_int_t)t.large, t.extra));
}

static void fail_badly(struct rpc_request *req, const json_t *params, void *arg)
{
	rpc_fail(req, -EBUSY, "%s", (const char *)arg);
}

static void no_memory(struct rpc_request *req, const json_t *params, void *arg)
{
	rpc_reply(req, NULL);
}

static const struct rpc_method methods[] = {
	{"echo", echo},           {"hold", hold},
	{"poke", poke},           {"big", big},
	{"typed", typed},         {"fail_badly", fail_badly},
	{"no_memory", no_memory},
};

static void start(const struct rpc_opts *opts)
{
	held_len = 0;
	pokes = 0;
	harness_init(&h, opts);
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		assert_int_equal(rpc_register(h.server, &methods[i], (void *)"caf\xe9"), 0);
	harness_start(&h);
}

static int setup(void **state)
{
	start(&(struct rpc_opts){0});
	return 0;
}

static int setup_small(void **state)
{
	start(&(struct rpc_opts){.clients_max = 2, .stall_ns = 200 * NSEC_PER_MSEC});
	return 0;
}

static int teardown(void **state)
{
	while (held_len)
		harness_call(&h, let_go, NULL);
	harness_end(&h);
	return 0;
}

static void answers_a_request(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd,
		     "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"echo\",\"params\":{\"a\":[1]}}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"a\":[1]}}");
	/* Identifiers come back as they were. */
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"echo\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":null}");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"echo\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":null}");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"echo\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"result\":null}");
	close(fd);
}

static void answers_requests_cut_anywhere(void **state)
{
	static const char text[] = " {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":"
				   "{\"k\\\"]}\":\"\\\\\\\"{[\"}}\n\n";
	int fd = harness_connect(&h);

	for (const char *c = text; *c; c++)
		harness_send(fd, (char[]){*c, '\0'});
	harness_expect(fd,
		       "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"k\\\"]}\":\"\\\\\\\"{[\"}}");
	close(fd);
}

static void answers_requests_in_one_piece(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}"
			 "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\"}\r\n"
			 "[{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"echo\"}]"
			 "{\"jsonrpc\":\"2.0\",\"id\":4,");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":null}");
	harness_expect(fd, "[{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":null}]");
	harness_send(fd, "\"method\":\"echo\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":null}");
	close(fd);
}

static void serves_clients_side_by_side(void **state)
{
	int a = harness_connect(&h), b = harness_connect(&h);

	harness_send(a, "{\"jsonrpc\":\"2.0\",\"id\":1,");
	harness_send(b, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\"}");
	harness_expect(b, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":null}");
	harness_send(a, "\"method\":\"echo\"}");
	harness_expect(a, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	close(a);
	close(b);
}

static void answers_what_was_asked_before_the_end(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	wait_held(1);
	harness_call(&h, let_go, NULL);
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"late\"}");
	harness_expect_end(fd);
	close(fd);
}

/* Each of these leaves the server unable to tell where the next request begins. */
static void refuses_malformed_json(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} cases[] = {
		{"hello\n", "an object or an array"},
		{"\"text\"", "an object or an array"},
		{"]", "an object or an array"},
		{"{\"jsonrpc\":\"2.0\" \"id\":1}", "expected near"},
		{"{\"a\":1,}", "malformed request"},
		{"[1,]", "malformed request"},
		{"[}", "malformed request"},
		{"{\"a\":\"\xff\"}", "malformed request"},
		{"{\"a\":\"\\u0000\"}", "malformed request"},
		{"{\"a\":1e999}", "malformed request"},
		{"{\"a\":99999999999999999999}", "malformed request"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"echo\"}", "duplicate"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"a\":1,\"a\":1}}",
		 "duplicate"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = harness_connect(&h);

		harness_send(fd, cases[i].text);
		harness_expect_error(fd, "null", RPC_PARSE_ERROR, cases[i].why);
		harness_expect_end(fd);
		close(fd);
	}
}

static void refuses_half_a_request(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	harness_expect_error(fd, "null", RPC_PARSE_ERROR, "ends in the middle");
	harness_expect_end(fd);
	close(fd);
}

static void refuses_deep_nesting(void **state)
{
	enum { DEPTH = 100000 };
	char *text = malloc(2 * DEPTH + 1);
	int fd = harness_connect(&h);

	memset(text, '[', DEPTH);
	memset(text + DEPTH, ']', DEPTH);
	text[2 * DEPTH] = '\0';
	harness_send(fd, text);
	harness_expect_error(fd, "null", RPC_PARSE_ERROR, "depth");
	harness_expect_end(fd);
	close(fd);
	free(text);
}

/* A request of exactly @len bytes. */
static char *request_of(size_t len)
{
	static const char head[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"poke\",\"params\":"
				   "{\"a\":\"";
	static const char tail[] = "\"}}";
	char *text = malloc(len + 1);

	memset(text, 'a', len);
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + len - sizeof(tail) + 1, tail, sizeof(tail));
	return text;
}

static void bounds_a_request(void **state)
{
	char *fits = request_of(RPC_REQUEST_MAX), *exceeds = request_of(RPC_REQUEST_MAX + 1);
	int fd = harness_connect(&h);
	ssize_t sent;

	harness_send(fd, fits);
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":true}");
	/* The server may close before it has all of it. */
	sent = send(fd, exceeds, RPC_REQUEST_MAX + 1, MSG_NOSIGNAL);
	assert_true(sent > 0);
	harness_expect_error(fd, "null", RPC_INVALID_REQUEST, "at most 1048576 bytes");
	harness_expect_end(fd);
	assert_int_equal(pokes, 1);
	close(fd);
	/* Nor does a request that never ends fill the memory. */
	fd = harness_connect(&h);
	sent = send(fd, exceeds, RPC_REQUEST_MAX, MSG_NOSIGNAL);
	assert_true(sent > 0);
	harness_expect_error(fd, "null", RPC_INVALID_REQUEST, "at most 1048576 bytes");
	harness_expect_end(fd);
	close(fd);
	free(fits);
	free(exceeds);
}

static void refuses_what_is_no_request(void **state)
{
	static const struct {
		const char *text;
		const char *id;
		const char *why;
	} cases[] = {
		{"{}", "null", "jsonrpc"},
		{"{\"id\":1,\"method\":\"echo\"}", "1", "jsonrpc"},
		{"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}", "1", "jsonrpc"},
		{"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"echo\"}", "1", "jsonrpc"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1}", "1", "method"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":1}", "1", "method"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":1}", "1", "params"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":null}", "1",
		 "params"},
		{"{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"echo\"}", "null", "id"},
		{"{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"echo\"}", "null", "id"},
		{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"parms\":{}}", "1", "only"},
		{"{\"jsonrpc\":\"2.0\",\"method\":1}", "null", "method"},
	};
	int fd = harness_connect(&h);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		harness_send(fd, cases[i].text);
		harness_expect_error(fd, cases[i].id, RPC_INVALID_REQUEST, cases[i].why);
	}
	/* The connection goes on. */
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"echo\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":null}");
	close(fd);
}

static void names_the_unknown_method(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ech\"}");
	harness_expect_error(fd, "1", RPC_METHOD_NOT_FOUND, "'ech'");
	close(fd);
}

static void takes_batches(void **state)
{
	int fd = harness_connect(&h);

	/* The examples of the JSON-RPC 2.0 specification, section 7. */
	harness_send(fd, "[1,2,3]");
	harness_expect(fd,
		       "[{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":"
		       "\"a request is an object\"}},"
		       "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":"
		       "\"a request is an object\"}},"
		       "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":"
		       "\"a request is an object\"}}]");
	/* Notifications have no reply, and a batch of nothing else no answer at all. */
	harness_send(fd, "[{\"jsonrpc\":\"2.0\",\"method\":\"poke\"},"
			 "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}]");
	harness_send(fd, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"},"
			 "{\"jsonrpc\":\"2.0\",\"method\":\"poke\"},"
			 "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"poke\"}]");
	wait_held(1);
	harness_call(&h, let_go, NULL);
	harness_expect(fd, "[{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":true},"
			   "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"late\"}]");
	assert_int_equal(pokes, 3);
	harness_send(fd, "[]");
	harness_expect_error(fd, "null", RPC_INVALID_REQUEST, "1 to 256");
	harness_expect_end(fd);
	close(fd);
}

static void bounds_a_batch(void **state)
{
	static const char one[] = "{\"jsonrpc\":\"2.0\",\"method\":\"poke\"},";
	char *text = malloc((RPC_BATCH_MAX + 1) * sizeof(one) + 3);
	int fd = harness_connect(&h);
	size_t len = 0;

	text[len++] = '[';
	for (unsigned i = 0; i < RPC_BATCH_MAX; i++, len += sizeof(one) - 1)
		memcpy(text + len, one, sizeof(one));
	strcpy(text + len - 1, "]{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
	harness_send(fd, text);
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	assert_int_equal(pokes, RPC_BATCH_MAX);
	strcpy(text + len - 1, ",1]");
	harness_send(fd, text);
	harness_expect_error(fd, "null", RPC_INVALID_REQUEST, "1 to 256");
	harness_expect_end(fd);
	assert_int_equal(pokes, RPC_BATCH_MAX);
	close(fd);
	free(text);
}

static void is_silent_on_notifications(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"poke\"}"
			 "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}"
			 "{\"jsonrpc\":\"2.0\",\"method\":\"typed\"}"
			 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	assert_int_equal(pokes, 1);
	close(fd);
}

static void does_what_was_asked_by_one_who_left(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"poke\"}");
	close(fd);
	for (unsigned tries = 0; !__atomic_load_n(&pokes, __ATOMIC_RELAXED); tries++) {
		assert_true(tries < 10000);
		usleep(1000);
	}
}

static void names_the_wrong_parameter(void **state)
{
	static const struct {
		const char *params;
		const char *why;
	} cases[] = {
		{"{\"text\":1,\"yes\":true,\"small\":1,\"large\":1}", "'text' must be a string"},
		{"{\"text\":null,\"yes\":true,\"small\":1,\"large\":1}", "'text' must be a string"},
		{"{\"text\":\"\",\"yes\":1,\"small\":1,\"large\":1}",
		 "'yes' must be true or false"},
		{"{\"text\":\"\",\"yes\":\"true\",\"small\":1,\"large\":1}", "'yes' must be"},
		{"{\"text\":\"\",\"yes\":true,\"small\":\"1\",\"large\":1}",
		 "'small' must be a whole number from 0 to 4294967295"},
		{"{\"text\":\"\",\"yes\":true,\"small\":1.0,\"large\":1}", "'small' must be"},
		{"{\"text\":\"\",\"yes\":true,\"small\":-1,\"large\":1}", "'small' must be"},
		{"{\"text\":\"\",\"yes\":true,\"small\":4294967296,\"large\":1}",
		 "'small' must be"},
		{"{\"text\":\"\",\"yes\":true,\"small\":1,\"large\":-1}",
		 "'large' must be a whole number from 0 to 9223372036854775807"},
		{"{\"text\":\"\",\"yes\":true,\"small\":1,\"large\":{}}", "'large' must be"},
		{"{\"text\":\"\",\"yes\":true,\"small\":1,\"large\":1,\"extra\":false}",
		 "'extra' must be a string"},
		{"{\"text\":\"\",\"yes\":true,\"small\":1,\"large\":1,\"other\":1}",
		 "unknown parameter 'other'"},
		{"{\"text\":\"\",\"yes\":true,\"large\":1}", "missing parameter 'small'"},
		{"{}", "missing parameter 'text'"},
		{"[]", "'params' must be an object"},
		{"[\"\",true,1,1]", "'params' must be an object"},
	};
	int fd = harness_connect(&h);
	char text[256];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text),
			 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"typed\",\"params\":%s}",
			 cases[i].params);
		harness_send(fd, text);
		harness_expect_error(fd, "1", RPC_INVALID_PARAMS, cases[i].why);
	}
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"typed\"}");
	harness_expect_error(fd, "1", RPC_INVALID_PARAMS, "missing parameter 'text'");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"typed\",\"params\":"
			 "{\"text\":\"t\",\"yes\":true,\"small\":4294967295,"
			 "\"large\":9223372036854775807}}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":"
			   "[\"t\",true,4294967295,9223372036854775807,\"default\"]}");
	close(fd);
}

static void passes_errors_on(void **state)
{
	int fd = harness_connect(&h);

	/* The text is no UTF-8: still a reply that can be parsed. */
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"fail_badly\"}");
	harness_expect_error(fd, "1", -EBUSY, "caf?");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"no_memory\"}");
	harness_expect_error(fd, "1", RPC_INTERNAL_ERROR, "out of memory");
	close(fd);
}

static void drops_the_answer_of_one_who_left(void **state)
{
	int fd = harness_connect(&h), other;

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}"
			 "[{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hold\"},"
			 "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"hold\"}]");
	wait_held(3);
	close(fd);
	/* By the time another client is served the server has seen the first one go. */
	other = harness_connect(&h);
	harness_send(other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
	harness_expect(other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	harness_call(&h, let_go, NULL);
	harness_send(other, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\"}");
	harness_expect(other, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":null}");
	close(other);
}

static void drops_its_clients_at_its_end(void **state)
{
	int fd = harness_connect(&h);

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}");
	wait_held(1);
	harness_end_server(&h);
	harness_expect_end(fd);
	/* What still waits is answered to nobody. */
	harness_call(&h, let_go, NULL);
	close(fd);
}

static void bounds_what_waits(void **state)
{
	enum { ASKED = 1000 };
	static const char one[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}";
	char *text = malloc(ASKED * sizeof(one));
	int fd = harness_connect(&h);

	/* In one piece: a UNIX socket has room for some hundred pieces only, however small. */
	for (unsigned i = 0; i < ASKED; i++)
		strcpy(text + i * (sizeof(one) - 1), one);
	harness_send(fd, text);
	free(text);
	wait_held(256);
	usleep(100000);
	assert_int_equal(__atomic_load_n(&held_len, __ATOMIC_RELAXED), 256);
	/* Answers make room for more, and all are served in the end. */
	for (unsigned seen = 0; seen < ASKED; seen++) {
		if (!(seen % 256)) {
			wait_held(ASKED - seen < 256 ? ASKED - seen : 256);
			harness_call(&h, let_go, NULL);
		}
		harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"late\"}");
	}
	close(fd);
}

static void waits_for_a_slow_reader(void **state)
{
	enum { ASKED = 50 };
	int fd = harness_connect(&h);

	for (unsigned i = 0; i < ASKED; i++)
		harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"poke\"}"
				 "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"big\",\"params\":"
				 "{\"bytes\":100000}}");
	usleep(300000);
	/* What is not read holds up what is asked. */
	assert_true(__atomic_load_n(&pokes, __ATOMIC_RELAXED) < ASKED / 2);
	for (unsigned i = 0; i < ASKED; i++) {
		json_t *reply;

		harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":true}");
		reply = harness_read(fd);
		assert_int_equal(json_string_length(json_object_get(reply, "result")), 100000);
		json_decref(reply);
	}
	assert_int_equal(pokes, ASKED);
	close(fd);
}

static void drops_one_who_does_not_read(void **state)
{
	int fd = harness_connect(&h), other = harness_connect(&h);
	char bytes[4096];
	size_t total = 0;
	ssize_t n;

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"big\",\"params\":"
			 "{\"bytes\":4000000}}");
	/* Its stall time is 200 ms here; others are served meanwhile. */
	for (unsigned i = 0; i < 8; i++) {
		usleep(100000);
		harness_send(other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
		harness_expect(other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	}
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		total += (size_t)n;
	assert_int_equal(n, 0);
	assert_true(total < 4000000);
	close(fd);
	close(other);
}

static void drops_one_whose_replies_are_too_large(void **state)
{
	int fd = harness_connect(&h);
	char bytes[4096];
	ssize_t n;

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"big\",\"params\":"
			 "{\"bytes\":17000000}}");
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		;
	assert_int_equal(n, 0);
	close(fd);
}

static void bounds_its_clients(void **state)
{
	int a = harness_connect(&h), b = harness_connect(&h), c;

	harness_send(a, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
	harness_expect(a, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}");
	c = harness_connect(&h);
	harness_expect_error(c, "null", -EUSERS, "2 clients");
	harness_expect_end(c);
	close(c);
	close(b);
	/* The place is free again once the server has noticed. */
	for (unsigned tries = 0;; tries++) {
		json_t *reply;
		bool served;

		assert_true(tries < 1000);
		c = harness_connect(&h);
		if (send(c, "[1]", 3, MSG_NOSIGNAL) != 3) {
			close(c);
			continue;
		}
		reply = harness_read(c);
		served = json_is_array(reply);
		json_decref(reply);
		close(c);
		if (served)
			break;
		usleep(1000);
	}
	close(a);
}

static void lists_its_methods(void **state)
{
	int fd = harness_connect(&h);
	enum log_level before = log_get_level();

	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc_get_methods\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[\"rpc_get_methods\","
			   "\"sluice_get_version\",\"log_set_level\",\"echo\",\"hold\",\"poke\","
			   "\"big\",\"typed\",\"fail_badly\",\"no_memory\"]}");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc_get_methods\","
			 "\"params\":{\"a\":1}}");
	harness_expect_error(fd, "1", RPC_INVALID_PARAMS, "unknown parameter 'a'");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sluice_get_version\"}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"version\":\"" SLUICE_VERSION
			   "\"}}");
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"log_set_level\",\"params\":"
			 "{\"level\":\"debug\"}}");
	harness_expect(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":true}");
	assert_int_equal(log_get_level(), LOG_LEVEL_DEBUG);
	harness_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"log_set_level\",\"params\":"
			 "{\"level\":\"loud\"}}");
	harness_expect_error(fd, "1", RPC_INVALID_PARAMS, "'level'");
	assert_int_equal(rpc_register(h.server, &methods[0], NULL), -EEXIST);
	log_set_level(before);
	close(fd);
}

static void lets_nobody_else_in(void **state)
{
	struct stat st;

	assert_int_equal(stat(h.socket, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
}

/* The next ones start servers of their own. */

static int setup_dir(void **state)
{
	umask(0); /* hides no mistake */
	strcpy(h.dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(h.dir));
	snprintf(h.socket, sizeof(h.socket), "%s/test.sock", h.dir);
	assert_int_equal(reactor_create("control", -1, NULL, &h.reactor), 0);
	return 0;
}

static int teardown_dir(void **state)
{
	reactor_destroy(h.reactor);
	unlink(h.socket);
	return rmdir(h.dir);
}

static void replaces_a_stale_socket(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct rpc_server *s;
	struct err err;
	struct stat st;

	strcpy(addr.sun_path, h.socket);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	/* As long as somebody listens, it is theirs. */
	assert_int_equal(rpc_server_create(h.reactor, &(struct rpc_opts){.socket = h.socket}, &s,
					   &err),
			 -EADDRINUSE);
	assert_non_null(strstr(err.text, "--name"));
	close(fd);
	assert_int_equal(
		rpc_server_create(h.reactor, &(struct rpc_opts){.socket = h.socket}, &s, &err), 0);
	assert_int_equal(stat(h.socket, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	rpc_server_destroy(s);
	assert_int_equal(access(h.socket, F_OK), -1);
}

static void leaves_other_files_alone(void **state)
{
	struct rpc_server *s;
	struct err err;

	close(open(h.socket, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(rpc_server_create(h.reactor, &(struct rpc_opts){.socket = h.socket}, &s,
					   &err),
			 -EEXIST);
	assert_non_null(strstr(err.text, "no socket"));
	assert_int_equal(access(h.socket, F_OK), 0);
}

static void makes_one_directory(void **state)
{
	char path[128], dir[128], far[128];
	struct rpc_server *s;
	struct err err;

	snprintf(dir, sizeof(dir), "%s/run", h.dir);
	snprintf(path, sizeof(path), "%s/run/a.sock", h.dir);
	snprintf(far, sizeof(far), "%s/x/y/a.sock", h.dir);
	assert_int_equal(rpc_server_create(h.reactor, &(struct rpc_opts){.socket = path}, &s, &err),
			 0);
	rpc_server_destroy(s);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(rpc_server_create(h.reactor, &(struct rpc_opts){.socket = far}, &s, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "/x/y"));
}

static void refuses_a_long_path(void **state)
{
	struct rpc_server *s;
	struct err err;
	char path[200];

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(rpc_server_create(h.reactor, &(struct rpc_opts){.socket = path}, &s, &err),
			 -ENAMETOOLONG);
	assert_int_equal(rpc_server_create(h.reactor, &(struct rpc_opts){.socket = ""}, &s, &err),
			 -ENAMETOOLONG);
}

static void allows_one_instance_a_name(void **state)
{
	char path[128], pid[32];
	struct err err;
	struct stat st;
	int fd, other, status;
	pid_t child;

	snprintf(path, sizeof(path), "%s/a.lock", h.dir);
	assert_int_equal(instance_lock(path, "a", &fd, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(instance_lock(path, "a", &other, &err), -EEXIST);
	assert_non_null(strstr(err.text, "'a' is already running"));
	assert_non_null(strstr(err.text, "--name"));
	snprintf(pid, sizeof(pid), "process %d", getpid());
	assert_non_null(strstr(err.text, pid));
	close(fd);
	/* A holder that dies, however it does, leaves no lock. */
	child = fork();
	if (!child) {
		if (instance_lock(path, "a", &fd, NULL))
			_exit(1);
		abort();
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_int_equal(instance_lock(path, "a", &fd, &err), 0);
	close(fd);
	unlink(path);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define WITH_SMALL(test)  cmocka_unit_test_setup_teardown(test, setup_small, teardown)
#define WITH_DIR(test)    cmocka_unit_test_setup_teardown(test, setup_dir, teardown_dir)
		WITH_SERVER(answers_a_request),
		WITH_SERVER(answers_requests_cut_anywhere),
		WITH_SERVER(answers_requests_in_one_piece),
		WITH_SERVER(serves_clients_side_by_side),
		WITH_SERVER(answers_what_was_asked_before_the_end),
		WITH_SERVER(refuses_malformed_json),
		WITH_SERVER(refuses_half_a_request),
		WITH_SERVER(refuses_deep_nesting),
		WITH_SERVER(bounds_a_request),
		WITH_SERVER(refuses_what_is_no_request),
		WITH_SERVER(names_the_unknown_method),
		WITH_SERVER(takes_batches),
		WITH_SERVER(bounds_a_batch),
		WITH_SERVER(is_silent_on_notifications),
		WITH_SERVER(does_what_was_asked_by_one_who_left),
		WITH_SERVER(names_the_wrong_parameter),
		WITH_SERVER(passes_errors_on),
		WITH_SERVER(drops_the_answer_of_one_who_left),
		WITH_SERVER(drops_its_clients_at_its_end),
		WITH_SERVER(bounds_what_waits),
		WITH_SERVER(waits_for_a_slow_reader),
		WITH_SMALL(drops_one_who_does_not_read),
		WITH_SERVER(drops_one_whose_replies_are_too_large),
		WITH_SMALL(bounds_its_clients),
		WITH_SERVER(lists_its_methods),
		WITH_SERVER(lets_nobody_else_in),
		WITH_DIR(replaces_a_stale_socket),
		WITH_DIR(leaves_other_files_alone),
		WITH_DIR(makes_one_directory),
		WITH_DIR(refuses_a_long_path),
		WITH_DIR(allows_one_instance_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
