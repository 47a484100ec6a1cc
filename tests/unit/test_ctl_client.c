/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command `sluice`, run in this process against a server whose Xen side is made up, with an xl
 * that is a script of ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "ctl/bdev_rpc.h"
#include "ctl/config.h"
#include "ctl_harness.h"
#include "sluice/client.h"
#include "sluice/stat.h"
#include "sluice/text.h"
#include "sluice/xl.h"

/* Texts and tables */

static void expect_clean(const char *text, bool lines, const char *expected)
{
	char *clean = text_clean(text, lines);

	assert_string_equal(clean, expected);
	free(clean);
}

static void makes_text_harmless(void **state)
{
	expect_clean("plain ~", false, "plain ~");
	expect_clean("a\x1b[2J\r\n\tb\x7f", false, "a?[2J???b?");
	expect_clean("a\n\tb\r\x1b", true, "a\n\tb??");
	/* Letters of all sizes stay. */
	expect_clean("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", false,
		     "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	/* CSI as one character, U+009B; a right-to-left override; a line separator. */
	expect_clean("\xc2\x9b"
		     "31m",
		     false, "?31m");
	expect_clean("\xe2\x80\xae"
		     "abc",
		     false, "?abc");
	expect_clean("\xe2\x80\xa8", true, "?");
	/* No UTF-8: cut, overlong, a surrogate, beyond the last, a stray byte. */
	expect_clean("\xc3", false, "?");
	expect_clean("\xe2\x82", false, "??");
	expect_clean("\xc0\x9b"
		     "a",
		     false, "??a");
	expect_clean("\xe0\x82\x9b", false, "???");
	expect_clean("\xed\xa0\x80", false, "???");
	expect_clean("\xf4\x90\x80\x80", false, "????");
	expect_clean("\xff\x80"
		     "a",
		     false, "??a");
	assert_int_equal(text_width("a\xc3\xa4\xe2\x82\xac"), 3);
}

static void writes_sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0"},           {1023, "1023"},      {1024, "1K"},
		{1536, "1.5K"},     {10 << 20, "10M"},   {(5ULL << 30) + (3 << 26), "5.2G"},
		{1ULL << 40, "1T"}, {UINT64_MAX, "16E"},
	};
	char text[16];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		text_size(cases[i].bytes, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void aligns_tables(void **state)
{
	static const struct table_column columns[] = {
		{"NAME", false}, {"SIZE", true}, {"FILE", false}};
	struct table t;
	char *out;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	table_init(&t, columns, 3);
	table_print(&t, f);
	table_cell(&t, "%s", "a");
	table_cell(&t, "%d", 12345);
	table_cell(&t, "%s", "/x\x1b[m");
	table_cell(&t, "%s", "l\xc3\xa4nger");
	table_cell(&t, "%d", 1);
	table_cell(&t, "-");
	table_print(&t, f);
	table_destroy(&t);
	fclose(f);
	assert_string_equal(out, "NAME  SIZE  FILE\n"
				 "NAME     SIZE  FILE\n"
				 "a       12345  /x?[m\n"
				 "l\xc3\xa4nger      1  -\n");
	free(out);
}

/* xl */

static void expect_spec(const char *instance, bool readonly, bool shared, const char *expected)
{
	char *spec = xl_disk_spec("xvdb", "disk.1", instance, readonly, shared);

	assert_string_equal(spec, expected);
	free(spec);
}

static void describes_disks_to_xl(void **state)
{
	static const char *const vdevs[] = {"xvda", "xvdzzz", "xvdq15", "hdb1",
					    "sda",  "51712",  "0"};
	static const char *const no_vdevs[] = {
		"",       "xvd",         "xvdabcd", "xvda1000", "nonsense", "vda",         "xvdA",
		"xvda1b", "-xvda",       "xvd1",    " xvda",    "xvda,x",   "xvd\xc3\xa4", "0x1",
		"1a",     "12345678901", "hd",      "xvda=",    "a",
	};

	expect_spec("sluice", false, false,
		    "vdev=xvdb,script=block-sluice,access=rw,target=disk.1");
	expect_spec("sluice", true, false, "vdev=xvdb,script=block-sluice,access=ro,target=disk.1");
	expect_spec("fast", false, false,
		    "vdev=xvdb,script=block-sluice,access=rw,target=disk.1@fast");
	expect_spec("fast", true, true,
		    "vdev=xvdb,script=block-sluice,access=ro,target=disk.1@fast,shared");
	expect_spec("sluice", false, true,
		    "vdev=xvdb,script=block-sluice,access=rw,target=disk.1,shared");
	for (size_t i = 0; i < sizeof(vdevs) / sizeof(vdevs[0]); i++)
		if (!xl_vdev_valid(vdevs[i]))
			fail_msg("'%s' was refused", vdevs[i]);
	for (size_t i = 0; i < sizeof(no_vdevs) / sizeof(no_vdevs[0]); i++)
		if (xl_vdev_valid(no_vdevs[i]))
			fail_msg("'%s' was taken", no_vdevs[i]);
}

/* Rates */

static json_t *iostat(json_int_t domid, json_int_t requests, json_int_t bytes, double avg)
{
	json_t *op = json_pack("{s:I, s:I, s:i, s:{s:f}}", "requests", requests, "bytes", bytes,
			       "errors", 1, "latency_ns", "avg", avg);

	return json_pack("[{s:I, s:s, s:i, s:s, s:s, s:i, s:o}]", "domid", domid, "domain", "g",
			 "devid", 51712, "vdev", "xvda", "bdev", "d", "in_flight", 2, "read", op);
}

static double rate(const json_t *rates, const char *op, const char *name)
{
	return json_number_value(
		json_object_get(json_object_get(json_array_get(rates, 0), op), name));
}

static bool about(double a, double b)
{
	return a - b < 1e-6 && b - a < 1e-6;
}

static void computes_rates(void **state)
{
	json_t *before = iostat(1, 100, 1000, 500.0), *now = iostat(1, 300, 9000, 700.0);
	json_t *other = iostat(2, 300, 9000, 700.0);
	json_t *rates = stat_rates(before, now, 2.0);

	assert_int_equal(json_array_size(rates), 1);
	assert_true(about(rate(rates, "read", "iops"), 100.0));
	assert_true(about(rate(rates, "read", "bytes_per_second"), 4000.0));
	assert_true(about(rate(rates, "read", "errors"), 0.0));
	/* 300 at 700 less 100 at 500, over 200. */
	assert_true(about(rate(rates, "read", "latency_ns_avg"), 800.0));
	assert_true(about(rate(rates, "write", "iops"), 0.0));
	assert_true(about(rate(rates, "write", "latency_ns_avg"), 0.0));
	json_decref(rates);
	/* Counters that went back are a new disk's. */
	rates = stat_rates(now, before, 2.0);
	assert_true(about(rate(rates, "read", "iops"), 50.0));
	assert_true(about(rate(rates, "read", "bytes_per_second"), 500.0));
	assert_true(about(rate(rates, "read", "errors"), 0.5 * 2));
	assert_true(about(rate(rates, "read", "latency_ns_avg"), 500.0));
	json_decref(rates);
	/* A disk that was not there before has no rate yet. */
	rates = stat_rates(before, other, 2.0);
	assert_int_equal(json_array_size(rates), 0);
	json_decref(rates);
	/* Without requests there is no latency. */
	rates = stat_rates(now, now, 2.0);
	assert_true(about(rate(rates, "read", "iops"), 0.0));
	assert_true(about(rate(rates, "read", "latency_ns_avg"), 0.0));
	json_decref(rates);
	json_decref(before);
	json_decref(now);
	json_decref(other);
}

/* The whole command */

static struct harness h;
static struct config *config;
static char *out;
static char *said;
static unsigned settle_ms, quick_ms;

/* Runs `sluice --socket SOCKET @line`; its output is then in out and said. */
static int run(const char *line)
{
	char copy[512], *argv[24] = {(char *)"sluice", (char *)"--socket", h.socket};
	size_t out_len, said_len;
	struct client c;
	int argc = 3, status;
	FILE *f, *e;

	free(out);
	free(said);
	f = open_memstream(&out, &out_len);
	e = open_memstream(&said, &said_len);
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *save, *word = strtok_r(copy, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	client_init(&c, f, e);
	c.settle_ms = settle_ms;
	c.quick_ms = quick_ms;
	status = client_run(&c, argc, argv);
	fclose(f);
	fclose(e);
	return status;
}

/* Fails unless the command does what it should: @status, all of stdout, and a part of stderr. */
static void expect(const char *line, int status, const char *output, const char *error)
{
	int got = run(line);

	if (got != status || strcmp(out, output) || !strstr(said, error) || (!*error && *said))
		fail_msg("'sluice %s' returned %d, printed:\n%s\nand said:\n%s", line, got, out,
			 said);
}

/* An error is one line that begins with our name. */
static void expect_error(const char *line, int status, const char *error)
{
	expect(line, status, "", error);
	if (strncmp(said, "sluice: ", 8) || strchr(said, '\n') != said + strlen(said) - 1)
		fail_msg("'sluice %s' said more than a line: %s", line, said);
}

static bool file_exists(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", h.dir, name);
	return !access(path, F_OK);
}

static const char *file_text(const char *name)
{
	static char text[1024];
	char path[128];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", h.dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return text;
}

static void make_file(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", h.dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, 0755);
}

static void remove_file(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", h.dir, name);
	unlink(path);
}

/* Domain 1 is xl's, domain 2 is nobody's, domain 3 has a bad name. */
static void fake_get_domain(struct rpc_request *req, const json_t *params, void *arg)
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

static void fake_get_vbds(struct rpc_request *req, const json_t *params, void *arg)
{
	json_t *list = json_array(), *error = json_null();

	/* Disks of another guest: two on bdevs of theirs, one that shares, one that got nothing. */
	if (file_exists("others")) {
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:b, s:n}", "domid", 9,
						      "domain", "other", "vdev", "xvdw", "bdev",
						      "open", "shared", 0, "error"));
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:b, s:n}", "domid", 9,
						      "domain", "other", "vdev", "xvdx", "bdev",
						      "own", "shared", 0, "error"));
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:b, s:n}", "domid", 9,
						      "domain", "other", "vdev", "xvdy", "bdev",
						      "common", "shared", 1, "error"));
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:b, s:s}", "domid", 9,
						      "domain", "other", "vdev", "xvdz", "bdev",
						      "common", "shared", 0, "error", "in use"));
	}
	if (file_exists("broken"))
		error = json_string("the frontend\x1b is mad");
	if (file_exists("attached"))
		json_array_append_new(
			list,
			json_pack("{s:i, s:s, s:i, s:s, s:s, s:s, s:b, s:b, s:s, s:s, s:o, s:s, "
				  "s:i}",
				  "domid", 1, "domain", "guest", "devid", 51712, "vdev", "xvda",
				  "backend", "vbd", "bdev", "disk", "readonly", 0, "shared", 1,
				  "state", "Connected", "frontend_state", "Connected", "error",
				  error, "protocol", "x86_64-abi", "queues", 1));
	else
		json_decref(error);
	rpc_reply(req, list);
}

static json_t *last_params;

static void fake_attach(struct rpc_request *req, const json_t *params, void *arg)
{
	json_decref(last_params);
	last_params = json_deep_copy(params);
	if (!strcmp(json_string_value(json_object_get(params, "bdev")), "used"))
		rpc_fail(req, -EBUSY, "bdev 'used' is in use");
	else
		rpc_reply(req, json_pack("{s:i, s:i, s:s, s:s}", "domid", 2, "devid", 51712, "vdev",
					 "xvda", "backend", "vbd"));
}

static void fake_detach(struct rpc_request *req, const json_t *params, void *arg)
{
	json_decref(last_params);
	last_params = json_deep_copy(params);
	rpc_reply(req, json_true());
}

static void fake_iostat(struct rpc_request *req, const json_t *params, void *arg)
{
	static int calls;
	json_t *latency = json_pack("{s:f, s:i, s:i, s:i, s:i}", "avg", 1500.0, "p50", 1000, "p99",
				    2000, "p999", 3000, "max", 4000);
	json_t *op = json_pack("{s:i, s:i, s:i, s:O}", "requests", 10 + 1000 * calls, "bytes",
			       40960 + (4096000 * calls), "errors", 0, "latency_ns", latency);
	json_t *none = json_pack("{s:i, s:i, s:i, s:o}", "requests", 0, "bytes", 0, "errors", 0,
				 "latency_ns", latency);

	/* Asked once more, a thousand requests more. */
	if (file_exists("busy"))
		calls++;
	rpc_reply(req, json_pack("[{s:i, s:s, s:i, s:s, s:s, s:i, s:O, s:O, s:O, s:o, s:i}]",
				 "domid", 1, "domain", "guest", "devid", 51712, "vdev", "xvda",
				 "bdev", "disk", "in_flight", 3, "read", op, "write", none, "flush",
				 op, "discard", none, "invalid", 7));
	json_decref(op);
}

static struct rpc_request *unanswered;

static void fake_silence(struct rpc_request *req, const json_t *params, void *arg)
{
	unanswered = req;
}

static void break_silence(void *arg)
{
	rpc_reply(unanswered, json_true());
}

static const struct rpc_method fakes[] = {
	{"xen_get_domain", fake_get_domain}, {"vbd_get_vbds", fake_get_vbds},
	{"vbd_attach", fake_attach},         {"vbd_detach", fake_detach},
	{"vbd_get_iostat", fake_iostat},     {"silence", fake_silence},
};

static char *saved_path;

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

static int setup(void **state)
{
	char path[128];
	struct err err;

	harness_init(&h, &(struct rpc_opts){0});
	snprintf(path, sizeof(path), "%s/state.json", h.dir);
	assert_int_equal(config_create(path, h.reactor, h.helpers, &config, &err), 0);
	assert_int_equal(bdev_rpc_register(h.server, config), 0);
	for (size_t i = 0; i < sizeof(fakes) / sizeof(fakes[0]); i++)
		assert_int_equal(rpc_register(h.server, &fakes[i], NULL), 0);
	harness_start(&h);
	make_file("xl", xl_script);
	snprintf(path, sizeof(path), "%s:/usr/bin:/bin", h.dir);
	saved_path = strdup(getenv("PATH"));
	setenv("PATH", path, 1);
	settle_ms = 10000;
	quick_ms = 10000;
	return 0;
}

static int teardown(void **state)
{
	/* What xl has left running. */
	for (const char *child = file_text("xl.children"); *child; child = strchr(child, '\n') + 1)
		kill(atoi(child), SIGKILL);
	setenv("PATH", saved_path, 1);
	free(saved_path);
	free(out);
	free(said);
	out = said = NULL;
	json_decref(last_params);
	last_params = NULL;
	harness_stop(&h);
	harness_end_helpers(&h);
	config_destroy(config);
	bdev_delete_all();
	harness_end(&h);
	return 0;
}

static void helps(void **state)
{
	assert_int_equal(run("--help"), 0);
	assert_non_null(strstr(out, "bdev create"));
	assert_string_equal(said, "");
	assert_int_equal(run("attach --help"), 0);
	assert_non_null(strstr(out, "usage: sluice [OPTION...] attach DOMAIN VDEV BDEV"));
	assert_non_null(strstr(out, "--toolstack"));
	assert_int_equal(run("bdev create -h"), 0);
	assert_non_null(strstr(out, "uring|aio NAME FILE"));
	expect("--version", 0, "sluice " SLUICE_VERSION "\n", "");
	expect("list --version", 0, "sluice " SLUICE_VERSION "\n", "");
}

static void explains_wrong_calls(void **state)
{
	static const struct {
		const char *line;
		const char *why;
	} cases[] = {
		{"", "what to do is missing (see 'sluice --help')"},
		{"fly", "no command 'fly'"},
		{"bdev", "create, delete or list"},
		{"bdev fly", "create, delete or list"},
		{"--fly list", "no option --fly (see 'sluice --help')"},
		{"list --fly", "no option --fly (see 'sluice list --help')"},
		{"list -x", "no option -x"},
		{"list it", "'it' is one argument too many"},
		{"list -- --json", "'--json' is one argument too many"},
		{"list --json=yes", "--json takes no value"},
		{"list --name", "--name needs a value"},
		{"--name a/b list", "'a/b' is no name"},
		{"--name=-x list", "'-x' is no name"},
		{"list \xff", "argument 4, '?', is no UTF-8"},
		{"attach guest xvda", "arguments are missing (see 'sluice attach --help')"},
		{"attach guest xvda disk more", "'more' is one argument too many"},
		{"attach guest xv,da disk", "'xv,da' is no name"},
		{"attach guest xvda disk,shared", "'disk,shared' is no name"},
		{"attach guest xvda disk@x", "'disk@x' is no name"},
		{"attach guest xvda disk --toolstack xapi", "'xapi'"},
		{"detach guest", "arguments are missing"},
		{"detach guest xvda=", "'xvda=' is no name"},
		{"bdev create disk n --size 1M", "'disk' is no kind"},
		{"bdev create null n", "--size is missing"},
		{"bdev create null n --size 1Q", "'1Q' is no size"},
		{"bdev create null n --size 0", "'0' is no size"},
		{"bdev create null n --size 8388608T", "'8388608T' is no size"},
		{"bdev create null n --size 1M --block-size 1000", "'1000'"},
		{"bdev create null n --size 1000", "no multiple of the block size, 512"},
		{"bdev create null n --size 512 --block-size 4096", "block size, 4096"},
		{"bdev create null n /tmp/x --size 1M", "'/tmp/x' is one argument too many"},
		{"bdev create null a/b --size 1M", "'a/b' is no name"},
		{"bdev create ram n --size 1M --readonly", "for files only"},
		{"bdev create ram n --size 1M --shared", "for files only"},
		{"bdev create uring n", "the file is missing"},
		{"bdev create aio n /tmp/x --size 1M", "a file has its own size"},
		{"bdev create aio n /tmp/x --block-size 512", "a file has its own size"},
		{"bdev delete", "arguments are missing"},
		{"stat --interval 0", "not '0'"},
		{"stat --interval 1.5", "not '1.5'"},
		{"stat --interval 86401", "not '86401'"},
		{"stat --interval 1 --count 0", "not '0'"},
		{"stat --count 3", "--count needs --interval"},
		{"rpc", "arguments are missing"},
		{"rpc x {", "no JSON"},
		{"rpc x {\"a\":1,\"a\":2}", "duplicate"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_error(cases[i].line, 2, cases[i].why);
}

static void manages_bdevs(void **state)
{
	char line[256], table[512];

	expect("bdev list", 0, "NAME  KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n", "");
	expect("bdev create null n --size=8M --block-size 4096", 0, "bdev n created\n", "");
	expect("--json bdev create ram memory --size 1536K", 0, "\"memory\"\n", "");
	make_file("disk.img", "");
	snprintf(line, sizeof(line), "%s/disk.img", h.dir);
	assert_int_equal(truncate(line, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio a %s/disk.img --readonly --shared", h.dir);
	expect(line, 0, "bdev a created\n", "");
	snprintf(table, sizeof(table),
		 "NAME    KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n"
		 "a       aio     1M    512  ro      yes     no      %s/disk.img\n"
		 "memory  ram   1.5M    512  rw      no      no      -\n"
		 "n       null    8M   4096  rw      no      no      -\n",
		 h.dir);
	expect("bdev list", 0, table, "");
	/* Options may stand anywhere; the output is JSON. */
	assert_int_equal(run("bdev list --json"), 0);
	assert_non_null(strstr(out, "\"product_name\": \"null\""));
	expect("bdev delete memory", 0, "bdev memory deleted\n", "");
	expect("bdev delete n --json", 0, "true\n", "");
	/* The daemon's reasons are passed on. */
	expect_error("bdev delete n", 1, "no bdev 'n'");
	expect_error("bdev create aio b /nowhere/at/all", 1, "/nowhere/at/all");
	/* A path is made absolute here, for the daemon is elsewhere. */
	assert_int_equal(chdir(h.dir), 0);
	expect_error("bdev create aio b nothing.img", 1, h.dir);
	assert_int_equal(chdir("/"), 0);
}

static void calls_any_method(void **state)
{
	expect("rpc sluice_get_version", 0, "{\n  \"version\": \"" SLUICE_VERSION "\"\n}\n", "");
	expect("rpc log_set_level {\"level\":\"error\"}", 0, "true\n", "");
	expect_error("rpc log_set_level {\"level\":\"loud\"}", 1, "'level'");
	expect_error("rpc fly", 1, "no method 'fly'");
	expect_error("rpc fly []", 1, "no method 'fly'");
}

static void attaches_by_xl(void **state)
{
	expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	expect("attach guest xvda disk", 0, "bdev disk attached to guest (domain 1) as xvda\n", "");
	assert_string_equal(file_text("xl.asked"),
			    "block-attach 1 vdev=xvda,script=block-sluice,access=rw,target=disk\n");
	assert_null(last_params);
	/* It is there now: no second one. */
	expect_error("attach 1 51712 disk", 1, "has 51712 already, which is bdev 'disk'");
	expect_error("attach 1 xvda disk", 1,
		     "guest (domain 1) has xvda already, which is bdev 'disk'");
	expect("list", 0,
	       "DOMAIN  ID  VDEV  BDEV  ACCESS     BACKEND  STATE      FRONTEND   QUEUES  ERROR\n"
	       "guest    1  xvda  disk  rw,shared  vbd      Connected  Connected       1  -\n",
	       "");
	assert_int_equal(run("list --json"), 0);
	assert_non_null(strstr(out, "\"protocol\": \"x86_64-abi\""));
	expect("detach guest xvda", 0, "xvda detached from guest (domain 1)\n", "");
	assert_string_equal(file_text("xl.asked"), "block-detach 1 xvda\n");
	expect_error("detach guest xvda", 1, "has no xvda of this sluiced");
	/* Options reach xl, and with --json the output is JSON only. */
	assert_int_equal(run("--json --name fast attach 1 xvda disk --readonly --shared"), 0);
	assert_non_null(strstr(out, "\"vdev\": \"xvda\""));
	assert_string_equal(file_text("xl.asked"),
			    "block-attach 1 vdev=xvda,script=block-sluice,access=ro,target=disk@"
			    "fast,shared\n");
	expect("detach 1 xvda --force --json", 0, "true\n", "");
	assert_string_equal(file_text("xl.asked"), "block-detach --force 1 xvda\n");
	assert_null(last_params);
}

static void checks_before_xl_runs(void **state)
{
	char line[256];

	expect_error("attach nobody xvda disk", 1, "no domain 'nobody'");
	expect_error("attach guest xvda disk", 1, "no bdev 'disk'");
	make_file("disk.img", "");
	snprintf(line, sizeof(line), "%s/disk.img", h.dir);
	assert_int_equal(truncate(line, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio fixed %s/disk.img --readonly", h.dir);
	expect(line, 0, "bdev fixed created\n", "");
	expect_error("attach guest xvda fixed", 1,
		     "'fixed' is read-only: attach it with --readonly");
	make_file("others", "");
	expect("bdev create null own --size 1M", 0, "bdev own created\n", "");
	expect("bdev create null common --size 1M", 0, "bdev common created\n", "");
	snprintf(line, sizeof(line), "%s/open.img", h.dir);
	make_file("open.img", "");
	assert_int_equal(truncate(line, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio open %s/open.img --shared", h.dir);
	expect(line, 0, "bdev open created\n", "");
	expect_error("attach guest xvda own", 1, "'own' is in use as xvdx of other: detach that");
	expect_error("attach guest xvda own --shared", 1, "'own' is in use as xvdx of other");
	expect_error("attach guest xvda common", 1, "'common' is in use as xvdy of other");
	expect_error("detach guest xvda", 1, "has no xvda of this sluiced");
	assert_false(file_exists("xl.asked"));
	expect("attach guest xvda common --shared", 0,
	       "bdev common attached to guest (domain 1) as xvda\n", "");
	assert_true(file_exists("xl.asked"));
	remove_file("attached");
	expect("attach guest xvda open", 0, "bdev open attached to guest (domain 1) as xvda\n", "");
	remove_file("attached");
	setenv("PATH", ":/nowhere", 1);
	expect_error("attach guest xvda disk --toolstack xl", 1, "no xl on PATH");
	/* Nothing is done behind its back. */
	json_decref(last_params);
	last_params = NULL;
	expect_error("attach guest xvda fixed --readonly", 1, "no xl on PATH");
	assert_null(last_params);
	expect("attach guest xvda fixed --readonly --toolstack none", 0,
	       "bdev fixed attached to guest (domain 1) as xvda\n", "");
	assert_non_null(last_params);
}

static void passes_on_what_xl_says(void **state)
{
	expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	make_file("xl.fails", "libxl: error: \x1b[31mred\nsecond line");
	expect("attach guest xvda disk", 1, "",
	       "libxl: error: ?[31mred\nsecond linemore on stderr\n"
	       "sluice: 'xl block-attach' failed with exit status 3: its messages");
	remove_file("xl.fails");
	make_file("xl", "#!/bin/sh\nkill -9 $$\n");
	expect("attach guest xvda disk", 1, "", "sluice: 'xl block-attach' was ended by signal 9");
	make_file("xl", "no program");
	expect("attach guest xvda disk", 1, "",
	       "sluice: 'xl block-attach' failed with exit status");
}

static void waits_until_the_daemon_agrees(void **state)
{
	settle_ms = 300;
	expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	make_file("broken", "");
	expect_error(
		"attach guest xvda disk", 1,
		"it does not work: the frontend? is mad; 'sluice detach 1 xvda' takes it away");
	make_file("xl.stuck", "");
	expect_error("detach guest xvda", 1, "sluiced still serves it");
	remove_file("attached");
	make_file("xl", "#!/bin/sh\nexit 0\n");
	expect_error("attach guest xvda disk", 1, "it does not work: sluiced does not see it");
	/* It may come later, but not too late. */
	remove_file("broken");
	settle_ms = 10000;
	make_file("xl", "#!/bin/sh\ncd \"${0%/*}\"\n(sleep 0.3; : > attached) &\n");
	expect("attach guest xvda disk", 0, "bdev disk attached to guest (domain 1) as xvda\n", "");
}

static void expect_params(const char *expected)
{
	json_t *want = json_loads(expected, 0, NULL);

	assert_non_null(want);
	if (!json_equal(want, last_params))
		fail_msg("expected %s, got %s", expected, json_dumps(last_params, JSON_COMPACT));
	json_decref(want);
}

static void attaches_without_xl(void **state)
{
	expect("attach 2 xvda disk", 0, "bdev disk attached to plain (domain 2) as xvda\n", "");
	expect_params("{\"domain\":\"2\",\"vdev\":\"xvda\",\"bdev\":\"disk\",\"readonly\":false,"
		      "\"shared\":false}");
	expect("attach --readonly --shared 0 xvda disk", 0,
	       "bdev disk attached to Domain-0 (domain 0) as xvda\n", "");
	expect_params("{\"domain\":\"0\",\"vdev\":\"xvda\",\"bdev\":\"disk\",\"readonly\":true,"
		      "\"shared\":true}");
	expect("attach guest xvda disk --toolstack none", 0,
	       "bdev disk attached to guest (domain 1) as xvda\n", "");
	expect("attach 3 xvda disk", 0, "bdev disk attached to e?[31mvil (domain 3) as xvda\n", "");
	expect_error("attach 2 xvda used", 1, "bdev 'used' is in use");
	assert_int_equal(run("attach 2 xvda disk --json"), 0);
	assert_non_null(strstr(out, "\"backend\": \"vbd\""));
	expect("detach 2 xvda", 0, "xvda detached from plain (domain 2)\n", "");
	expect_params("{\"domain\":\"2\",\"vdev\":\"xvda\",\"force\":false}");
	expect("detach guest xvda --force --toolstack none", 0,
	       "xvda detached from guest (domain 1)\n", "");
	expect_params("{\"domain\":\"1\",\"vdev\":\"xvda\",\"force\":true}");
	assert_false(file_exists("xl.asked"));
	settle_ms = 200;
	expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	expect("attach 2 xvda disk --toolstack xl", 1, "", "xl has attached xvda to plain");
	assert_true(file_exists("xl.asked"));
}

static void shows_statistics(void **state)
{
	double elapsed, seconds = 0.0;
	uint64_t start_ns;
	json_t *rates;

	expect("stat", 0,
	       "DOMAIN  VDEV  BDEV  IN-FLIGHT  OP       REQUESTS  BYTES  ERRORS  AVG/us  P50/us  "
	       "P99/us  P99.9/us  MAX/us\n"
	       "guest   xvda  disk          3  read           10    40K       0     1.5     1.0  "
	       "   2.0       3.0     4.0\n"
	       "guest   xvda  disk          3  write           0      0       0     1.5     1.0  "
	       "   2.0       3.0     4.0\n"
	       "guest   xvda  disk          3  flush          10    40K       0     1.5     1.0  "
	       "   2.0       3.0     4.0\n"
	       "guest   xvda  disk          3  invalid         7      -       -       -       -  "
	       "     -         -       -\n",
	       "");
	assert_int_equal(run("stat --json"), 0);
	assert_non_null(strstr(out, "\"p999\": 3000"));
	make_file("busy", "");
	/* A thousand requests a sample, however late a busy machine takes it. */
	start_ns = clock_now_ns();
	assert_int_equal(run("stat --interval 1 --count 2 --json"), 0);
	elapsed = (double)(clock_now_ns() - start_ns) / 1e9;
	for (const char *line = out; *line; line = strchr(line, '\n') + 1) {
		double own;

		rates = json_loadb(line, strcspn(line, "\n"), 0, NULL);
		own = json_number_value(json_object_get(json_array_get(rates, 0), "seconds"));
		seconds += own;
		assert_true(rate(rates, "read", "iops") * own > 999.9);
		assert_true(rate(rates, "read", "iops") * own < 1000.1);
		assert_true(about(rate(rates, "read", "latency_ns_avg"), 1500.0));
		json_decref(rates);
	}
	/* The samples follow each other without gap or overlap. */
	assert_true(seconds >= 2.0 && seconds <= elapsed);
	assert_int_equal(run("stat --interval 1 --count 1"), 0);
	assert_non_null(strstr(out, "OP     IOPS  BYTES/S  ERRORS  AVG/us\n"));
	assert_non_null(strstr(out, "  read "));
	assert_non_null(strstr(out, "  write   "));
	assert_null(strstr(out, "discard"));
}

static void gives_up_on_a_silent_daemon(void **state)
{
	struct client c;
	json_t *result;
	struct err err;

	client_init(&c, stdout, stderr);
	c.socket = h.socket;
	assert_int_equal(client_call(&c, "silence", NULL, 200, &result, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "no answer from sluiced within"));
	/* The late answer is not taken for another's. */
	harness_call(&h, break_silence, NULL);
	assert_int_equal(client_call(&c, "sluice_get_version", NULL, 10000, &result, &err), 0);
	assert_string_equal(client_text(result, "version"), SLUICE_VERSION);
	json_decref(result);
	client_disconnect(&c);
}

static void notices_a_lost_output(void **state)
{
	struct client c;
	size_t len;
	char *argv[] = {(char *)"sluice", (char *)"--version", NULL};
	FILE *full = fopen("/dev/full", "w");

	free(said);
	client_init(&c, full, open_memstream(&said, &len));
	assert_int_equal(client_run(&c, 2, argv), 1);
	fclose(c.err);
	fclose(full);
	assert_string_equal(said, "sluice: cannot write the output\n");
}

/* Daemons that are not what they should be */

struct impostor {
	pthread_t thread;
	int listener;
	const char *answer;
};

static void *impostor_main(void *arg)
{
	struct impostor *i = arg;
	int fd = accept4(i->listener, NULL, NULL, SOCK_CLOEXEC);
	char request[256];

	if (recv(fd, request, sizeof(request), 0) > 0)
		send(fd, i->answer, strlen(i->answer), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static void expect_of_impostor(const char *answer, const char *error)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct impostor i = {.answer = answer};

	unlink(h.socket);
	strcpy(addr.sun_path, h.socket);
	i.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(i.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(i.listener, 1), 0);
	pthread_create(&i.thread, NULL, impostor_main, &i);
	expect_error("list", 1, error);
	pthread_join(i.thread, NULL);
	close(i.listener);
}

static void doubts_strange_daemons(void **state)
{
	char name[64];

	strcpy(h.dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(h.dir));
	snprintf(h.socket, sizeof(h.socket), "%s/test.sock", h.dir);
	quick_ms = 10000;
	expect_of_impostor("", "the connection to sluiced broke (closed)");
	expect_of_impostor("{\"jsonrpc\":\"2.0\"", "the connection to sluiced broke");
	expect_of_impostor("hello\n", "sluiced's answer is no JSON");
	expect_of_impostor("{}\n", "makes no sense");
	expect_of_impostor("[]\n", "makes no sense");
	expect_of_impostor("{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":[]}\n", "makes no sense");
	expect_of_impostor("{\"id\":1,\"error\":5}\n", "an error without a reason");
	expect_of_impostor("{\"id\":1,\"error\":{\"code\":-5,\"message\":\"a\\u001b[2J\\nb\"}}\n",
			   "sluice: a?[2J?b\n");
	/* Nobody there at all. */
	expect_error("list", 1, "Connection refused (is it running? start it with 'sluiced'");
	unlink(h.socket);
	expect_error("list", 1, "cannot reach sluiced at /tmp/");
	expect_error("--name fast list", 1, "start it with 'sluiced --name fast')");
	expect_error("--socket /nowhere/x.sock list", 1, "/nowhere/x.sock: No such file");
	snprintf(name, sizeof(name), "%s", h.dir);
	assert_int_equal(rmdir(name), 0);
	free(out);
	free(said);
	out = said = NULL;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
		cmocka_unit_test(makes_text_harmless),
		cmocka_unit_test(writes_sizes),
		cmocka_unit_test(aligns_tables),
		cmocka_unit_test(describes_disks_to_xl),
		cmocka_unit_test(computes_rates),
		WITH_SERVER(helps),
		WITH_SERVER(explains_wrong_calls),
		WITH_SERVER(manages_bdevs),
		WITH_SERVER(calls_any_method),
		WITH_SERVER(attaches_by_xl),
		WITH_SERVER(checks_before_xl_runs),
		WITH_SERVER(passes_on_what_xl_says),
		WITH_SERVER(waits_until_the_daemon_agrees),
		WITH_SERVER(attaches_without_xl),
		WITH_SERVER(shows_statistics),
		WITH_SERVER(gives_up_on_a_silent_daemon),
		WITH_SERVER(notices_a_lost_output),
		cmocka_unit_test(doubts_strange_daemons),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
