/* SPDX-License-Identifier: BSD-2-Clause */
#include "service.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "sluice/client.h"
#include "sluiced/daemon.h"

struct service service;

struct run {
	pthread_t thread;
	int status;
};
static struct run daemon_run;

static int call_daemon(const char *const *extra)
{
	char *argv[24] = {"sluiced",    "--name",       service.name,  "--socket",
			  service.sock, "--state",      service.state, "--bounce-mib",
			  "2",          "--sivshm-dir", service.sivshm};
	int argc = 11;

	for (; extra && *extra; extra++)
		argv[argc++] = (char *)*extra;
	argv[argc] = NULL;
	return daemon_main(argc, argv, service.root, NULL);
}

static void *daemon_thread(void *arg)
{
	daemon_run.status = call_daemon(service.more);
	return NULL;
}

/* A call of @method with @params (JSON text). New reference to the whole reply. */
static json_t *call(const char *method, const char *params)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[65536];
	size_t len;
	ssize_t n;

	strcpy(addr.sun_path, service.sock);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return NULL;
	}
	len = (size_t)snprintf(text, sizeof(text),
			       "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}",
			       method, params);
	assert_int_equal(write(fd, text, len), len);
	for (len = 0; (n = read(fd, text + len, sizeof(text) - 1 - len)) > 0;) {
		len += (size_t)n;
		if (text[len - 1] == '\n')
			break;
	}
	close(fd);
	text[len] = '\0';
	return json_loads(text, 0, NULL);
}

json_t *service_result(const char *method, const char *params)
{
	json_t *reply = call(method, params);
	json_t *result = json_incref(json_object_get(reply, "result"));

	if (!result) {
		char *text = json_dumps(reply, 0);

		fail_msg("%s failed: %s", method, text);
	}
	json_decref(reply);
	return result;
}

void service_refuses(const char *method, const char *params, int code, const char *words)
{
	json_t *reply = call(method, params), *error = json_object_get(reply, "error");
	const char *line = json_string_value(json_object_get(error, "message"));

	assert_int_equal(json_integer_value(json_object_get(error, "code")), code);
	assert_non_null(line);
	if (!strstr(line, words) || strchr(line, '\n'))
		fail_msg("'%s' should say '%s' in one line", line, words);
	json_decref(reply);
}

uint64_t service_now_ms(void)
{
	return clock_now_ns() / NSEC_PER_MSEC;
}

void service_nap(void)
{
	struct timespec nap = {.tv_nsec = 200000};

	nanosleep(&nap, NULL);
}

void service_start(void)
{
	uint64_t start = service_now_ms();
	json_t *reply;

	assert_int_equal(pthread_create(&daemon_run.thread, NULL, daemon_thread, NULL), 0);
	while (!(reply = call("rpc_get_methods", "{}"))) {
		assert_true(service_now_ms() - start < SERVICE_WAIT_MS);
		service_nap();
	}
	json_decref(reply);
}

void service_end(void)
{
	kill(getpid(), SIGTERM);
	pthread_join(daemon_run.thread, NULL);
	assert_int_equal(daemon_run.status, 0);
	assert_int_equal(access(service.sock, F_OK), -1);
}

/* Runs `sluice @line`; *@out and *@said are to be freed. Returns the exit status. */
static int run_client(const char *line, char **out, char **said)
{
	char copy[256], *argv[24] = {"sluice", "--socket", service.sock};
	size_t out_len, said_len;
	struct client c;
	int argc = 3, status;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *save, *word = strtok_r(copy, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	client_init(&c, open_memstream(out, &out_len), open_memstream(said, &said_len));
	c.root = service.root;
	status = client_run(&c, argc, argv);
	fclose(c.out);
	fclose(c.err);
	return status;
}

char *service_command(const char *line)
{
	char *out, *said;

	if (run_client(line, &out, &said))
		fail_msg("'sluice %s' said: %s", line, said);
	free(said);
	return out;
}

void service_fails(const char *line, const char *words)
{
	char *out, *said;
	int status = run_client(line, &out, &said);

	if (status != 1 || !strstr(said, words) || strchr(said, '\n') != said + strlen(said) - 1)
		fail_msg("'sluice %s' returned %d and said: %s", line, status, said);
	free(out);
	free(said);
}

void service_prints(const char *line, const char *text, bool wanted)
{
	char *out = service_command(line), *to = out;

	for (const char *from = out; *from; from++)
		if (*from != ' ' || from[1] != ' ')
			*to++ = *from;
	*to = '\0';
	if (!strstr(out, text) == wanted)
		fail_msg("'sluice %s' should %sprint '%s' but printed:\n%s", line,
			 wanted ? "" : "not ", text, out);
	free(out);
}

void service_ends_with(const char *const *extra, int status, const char *words)
{
	int err = dup(STDERR_FILENO), fd = open(service.log, O_RDWR | O_CREAT | O_TRUNC, 0600), rc;
	char text[1024] = "";
	ssize_t n;

	dup2(fd, STDERR_FILENO);
	rc = call_daemon(extra);
	dup2(err, STDERR_FILENO);
	close(err);
	n = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	assert_int_equal(rc, status);
	assert_true(n > 0);
	assert_ptr_equal(strchr(text, '\n'), text + n - 1);
	if (!strstr(text, words))
		fail_msg("'%s' should say '%s'", text, words);
}

int service_setup(void **state)
{
	memset(&service, 0, sizeof(service));
	strcpy(service.dir, "/var/tmp/sluice-daemon-XXXXXX");
	if (!mkdtemp(service.dir))
		return -1;
	snprintf(service.name, sizeof(service.name), "test-%d", getpid());
	snprintf(service.sock, sizeof(service.sock), "%s/sock", service.dir);
	snprintf(service.state, sizeof(service.state), "%s/state.json", service.dir);
	snprintf(service.root, sizeof(service.root), "%s/root", service.dir);
	snprintf(service.sivshm, sizeof(service.sivshm), "%s/sivshm", service.dir);
	snprintf(service.log, sizeof(service.log), "%s/log", service.dir);
	snprintf(service.lock, sizeof(service.lock), "/run/sluice/%s.lock", service.name);
	snprintf(service.ledger, sizeof(service.ledger), "/run/sluice/%s.ledger", service.name);
	return 0;
}

int service_teardown(void **state)
{
	char command[128];
	/* Nothing is noted in it that would keep it. */
	bool clean = access(service.ledger, F_OK);

	unlink(service.ledger);
	unlink(service.lock);
	snprintf(command, sizeof(command), "rm -rf %s", service.dir);
	return system(command) || !clean ? -1 : 0;
}

bool service_prepare(void)
{
	sigset_t set;

	if (geteuid()) {
		fprintf(stderr, "skipped: /run/sluice needs root\n");
		return false;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return true;
}
