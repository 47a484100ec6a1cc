/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bdev/bdev.h"
#include "ctl/bdev_rpc.h"
#include "ctl/config.h"
#include "sluice/client.h"

struct fake fake;
static struct config *config;
static char *saved_path;
static struct rpc_request *unanswered;

json_t *fake_json(const char *text)
{
	char *copy = strdup(text);
	json_error_t error;
	json_t *value;

	for (char *c = copy; *c; c++)
		if (*c == '\'')
			*c = '"';
	value = json_loads(copy, JSON_DECODE_ANY, &error);
	if (!value)
		fail_msg("no JSON (%s): %s", error.text, text);
	free(copy);
	return value;
}

/* The command */

int fake_run(const char *line)
{
	char copy[512], *argv[24] = {(char *)"sluice", (char *)"--socket", fake.h.socket};
	size_t out_len, said_len;
	struct client c;
	int argc = 3, status;
	FILE *f, *e;

	free(fake.out);
	free(fake.said);
	f = open_memstream(&fake.out, &out_len);
	e = open_memstream(&fake.said, &said_len);
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *save, *word = strtok_r(copy, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	client_init(&c, f, e);
	c.settle_ms = fake.settle_ms;
	c.quick_ms = fake.quick_ms;
	status = client_run(&c, argc, argv);
	fclose(f);
	fclose(e);
	return status;
}

void fake_expect(const char *line, int status, const char *output, const char *error)
{
	int got = fake_run(line);

	if (got != status || strcmp(fake.out, output) || !strstr(fake.said, error) ||
	    (!*error && *fake.said))
		fail_msg("'sluice %s' returned %d, printed:\n%s\nand said:\n%s", line, got,
			 fake.out, fake.said);
}

void fake_expect_error(const char *line, int status, const char *error)
{
	fake_expect(line, status, "", error);
	if (strncmp(fake.said, "sluice: ", 8) ||
	    strchr(fake.said, '\n') != fake.said + strlen(fake.said) - 1)
		fail_msg("'sluice %s' said more than a line: %s", line, fake.said);
}

void fake_expect_params(const char *method, const char *params)
{
	json_t *want = fake_json(params);

	assert_string_equal(fake.last_method, method);
	if (!json_equal(want, fake.last_params))
		fail_msg("expected %s, got %s", params, json_dumps(fake.last_params, JSON_COMPACT));
	json_decref(want);
}

/* Files */

bool fake_file_exists(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", fake.h.dir, name);
	return !access(path, F_OK);
}

const char *fake_file_text(const char *name)
{
	static char text[1024];
	char path[128];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", fake.h.dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return text;
}

void fake_make_file(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", fake.h.dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, 0755);
}

void fake_remove_file(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", fake.h.dir, name);
	unlink(path);
}

/* Methods */

/* Domain 1 is xl's, domain 2 is nobody's, domain 3 has a bad name. */
static void get_domain(struct rpc_request *req, const json_t *params, void *arg)
{
	const char *name = json_string_value(json_object_get(params, "domain"));

	if (!strcmp(name, "guest") || !strcmp(name, "1"))
		rpc_reply(req, json_pack("{s:i, s:s, s:s}", "domid", 1, "name", "guest",
					 "toolstack", "xl"));
	else if (!strcmp(name, "2"))
		rpc_reply(req, json_pack("{s:i, s:s, s:s}", "domid", 2, "name", "plain",
					 "toolstack", "none"));
	else if (!strcmp(name, "3"))
		rpc_reply(req, json_pack("{s:i, s:s, s:s}", "domid", 3, "name", "e\x1b[31mvil",
					 "toolstack", "none"));
	else if (!strcmp(name, "0"))
		rpc_reply(req, json_pack("{s:i, s:s, s:s}", "domid", 0, "name", "Domain-0",
					 "toolstack", "xl"));
	else
		rpc_fail(req, -ENOENT, "there is no domain '%s' (xl list shows them)", name);
}

/* Disks of another guest: two on bdevs of theirs, one that shares, one that got nothing. */
static const char others[] =
	"{'domid': 9, 'domain': 'other', 'vdev': 'xvdw', 'bdev': 'open', 'shared': false,"
	" 'error': null},"
	"{'domid': 9, 'domain': 'other', 'vdev': 'xvdx', 'bdev': 'own', 'shared': false,"
	" 'error': null},"
	"{'domid': 9, 'domain': 'other', 'vdev': 'xvdy', 'bdev': 'common', 'shared': true,"
	" 'error': null},"
	"{'domid': 9, 'domain': 'other', 'vdev': 'xvdz', 'bdev': 'common', 'shared': false,"
	" 'error': 'in use'}";

static const char attached[] =
	"{'domid': 1, 'domain': 'guest', 'devid': 51712, 'vdev': 'xvda', 'backend': 'vbd',"
	" 'bdev': 'disk', 'readonly': false, 'shared': true, 'state': 'Connected',"
	" 'frontend_state': 'Connected', 'protocol': 'x86_64-abi', 'queues': 1, 'sectors': 2048,"
	" 'sharing': 'copy', 'persistent': false, 'on_error': 'report', 'paused': false,"
	" 'waiting': null, 'limits': {'rw_ios_per_sec': 0, 'rw_bytes_per_sec': 0}, 'error': ";

/* By files: "others" are there; xl has "attached" the disk, and it is "broken". */
static void get_vbds(struct rpc_request *req, const json_t *params, void *arg)
{
	bool with_others = fake_file_exists("others"), with_disk = fake_file_exists("attached");
	char list[2048];

	snprintf(list, sizeof(list), "[%s%s%s%s%s]", with_others ? others : "",
		 with_others && with_disk ? "," : "", with_disk ? attached : "",
		 !with_disk                   ? ""
		 : fake_file_exists("broken") ? "'the frontend\\u001b is mad'"
					      : "null",
		 with_disk ? "}" : "");
	rpc_reply(req, fake_json(fake.vbds ? fake.vbds : list));
}

static void remember(const struct rpc_request *req, const json_t *params)
{
	fake.last_method = rpc_request_method(req)->name;
	json_decref(fake.last_params);
	fake.last_params = json_deep_copy(params);
}

static void attach(struct rpc_request *req, const json_t *params, void *arg)
{
	remember(req, params);
	if (!strcmp(json_string_value(json_object_get(params, "bdev")), "used"))
		rpc_fail(req, -EBUSY, "bdev 'used' is in use");
	else
		rpc_reply(req, fake_json("{'domid': 2, 'devid': 51712, 'vdev': 'xvda',"
					 " 'backend': 'vbd'}"));
}

/* Takes orders for xvda; there is no other disk. @arg: what it answers. */
static void obey(struct rpc_request *req, const json_t *params, void *arg)
{
	remember(req, params);
	if (strcmp(json_string_value(json_object_get(params, "vdev")), "xvda"))
		rpc_fail(req, -ENOENT, "there is no such disk");
	else
		rpc_reply(req, fake_json(arg));
}

/* Each time it is asked, a thousand requests more. */
static void get_iostat(struct rpc_request *req, const json_t *params, void *arg)
{
	json_t *disks, *op;

	if (!fake.iostat) {
		rpc_fail(req, -ENODEV, "no Xen on this host");
		return;
	}
	disks = fake_json(fake.iostat);
	op = json_object_get(json_array_get(disks, 0), "read");
	json_object_set_new(op, "requests", json_integer(10 + 1000 * fake.samples));
	json_object_set_new(op, "bytes", json_integer(40960 + 4096000 * fake.samples));
	fake.samples++;
	rpc_reply(req, disks);
}

static void get_workers(struct rpc_request *req, const json_t *params, void *arg)
{
	rpc_reply(req, fake_json(fake.workers ? fake.workers : "[]"));
}

static void get_worker_iostat(struct rpc_request *req, const json_t *params, void *arg)
{
	rpc_reply(req, fake_json(fake.worker_iostat ? fake.worker_iostat : "[]"));
}

/* "w" is a new name, and can be deleted; any other is not. */
static void create_worker(struct rpc_request *req, const json_t *params, void *arg)
{
	remember(req, params);
	if (strcmp(json_string_value(json_object_get(params, "name")), "w"))
		rpc_fail(req, -EEXIST, "there is such a worker already");
	else
		rpc_reply(req, fake_json("{'name': 'w', 'socket': '/run/w.sock'}"));
}

static void delete_worker(struct rpc_request *req, const json_t *params, void *arg)
{
	remember(req, params);
	if (strcmp(json_string_value(json_object_get(params, "name")), "w"))
		rpc_fail(req, -ENODEV, "no such worker");
	else
		rpc_reply(req, json_true());
}

static void silence(struct rpc_request *req, const json_t *params, void *arg)
{
	unanswered = req;
}

void fake_break_silence(void *arg)
{
	rpc_reply(unanswered, json_true());
}

static const struct {
	struct rpc_method method;
	const char *arg;
} methods[] = {
	{{"xen_get_domain", get_domain}, NULL},
	{{"vbd_get_vbds", get_vbds}, NULL},
	{{"vbd_attach", attach}, NULL},
	{{"vbd_detach", obey}, "true"},
	{{"vbd_pause", obey}, "true"},
	{{"vbd_resume", obey}, "true"},
	{{"vbd_set_limit", obey}, "{'rw_ios_per_sec': 500, 'rw_bytes_per_sec': 10485760}"},
	{{"vbd_get_iostat", get_iostat}, NULL},
	{{"sivshm_create", create_worker}, NULL},
	{{"sivshm_delete", delete_worker}, NULL},
	{{"sivshm_get_workers", get_workers}, NULL},
	{{"sivshm_get_iostat", get_worker_iostat}, NULL},
	{{"silence", silence}, NULL},
};

/* What it is asked is in xl.asked; it fails where there is a file xl.fails. */
static const char xl_script[] =
	"#!/bin/sh\n"
	"cd \"${0%/*}\" || exit 1\n"
	"echo \"$@\" > xl.asked\n"
	"if [ -e xl.fails ]; then cat xl.fails; echo more on stderr >&2; exit 3; fi\n"
	"echo chatter\n"
	"case $1 in\n"
	"block-attach) : > attached ;;\n"
	"block-detach) [ -e xl.stuck ] || rm attached ;;\n"
	"esac\n"
	"sleep 100 & echo $! >> xl.children\n";

int fake_setup(void **state)
{
	char path[128];
	struct err err;

	fake = (struct fake){.settle_ms = 10000, .quick_ms = 10000};
	harness_init(&fake.h, &(struct rpc_opts){0});
	snprintf(path, sizeof(path), "%s/state.json", fake.h.dir);
	assert_int_equal(config_create(path, fake.h.reactor, fake.h.helpers, &config, &err), 0);
	assert_int_equal(bdev_rpc_register(fake.h.server, config), 0);
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		assert_int_equal(
			rpc_register(fake.h.server, &methods[i].method, (void *)methods[i].arg), 0);
	harness_start(&fake.h);
	fake_make_file("xl", xl_script);
	snprintf(path, sizeof(path), "%s:/usr/bin:/bin", fake.h.dir);
	saved_path = strdup(getenv("PATH"));
	setenv("PATH", path, 1);
	return 0;
}

int fake_teardown(void **state)
{
	/* What xl has left running. */
	for (const char *child = fake_file_text("xl.children"); *child;
	     child = strchr(child, '\n') + 1)
		kill(atoi(child), SIGKILL);
	setenv("PATH", saved_path, 1);
	free(saved_path);
	free(fake.out);
	free(fake.said);
	fake.out = fake.said = NULL;
	json_decref(fake.last_params);
	harness_stop(&fake.h);
	harness_end_helpers(&fake.h);
	config_destroy(config);
	bdev_delete_all();
	harness_end(&fake.h);
	return 0;
}
