/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole daemon, main to end, over the double: what sluiced(8) promises of its start, its
 * methods, SIGTERM and its successor.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest.h"
#include "host.h"
#include "load.h"
#include "sluice/client.h"
#include "sluiced/daemon.h"

enum { GUEST_DOMID = 7, XVDA = 51712, DISK_BYTES = 8 << 20 };

static struct host host;
static char dir[64], name[32], sock[96], state_file[96], disk_file[96], log_file[96], lock_file[96];

struct run {
	pthread_t thread;
	int status;
};
static struct run daemon_run;

static int call_daemon(const char *const *extra)
{
	char *argv[16] = {"sluiced", "--name",   name,           "--socket", sock,
			  "--state", state_file, "--bounce-mib", "2"};
	int argc = 9;

	for (; extra && *extra; extra++)
		argv[argc++] = (char *)*extra;
	argv[argc] = NULL;
	return daemon_main(argc, argv, host.root, NULL);
}

static void *daemon_thread(void *arg)
{
	daemon_run.status = call_daemon(NULL);
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

	strcpy(addr.sun_path, sock);
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

/* The result of a call that has to succeed. New reference. */
static json_t *result_of(const char *method, const char *params)
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

/* A call that has to be refused with this code, and words in its one line. */
static void refused(const char *method, const char *params, int code, const char *words)
{
	json_t *reply = call(method, params), *error = json_object_get(reply, "error");
	const char *line = json_string_value(json_object_get(error, "message"));

	assert_int_equal(json_integer_value(json_object_get(error, "code")), code);
	assert_non_null(line);
	if (!strstr(line, words) || strchr(line, '\n'))
		fail_msg("'%s' should say '%s' in one line", line, words);
	json_decref(reply);
}

static void start_daemon(void)
{
	uint64_t start = host_now_ms();
	json_t *reply;

	assert_int_equal(pthread_create(&daemon_run.thread, NULL, daemon_thread, NULL), 0);
	while (!(reply = call("rpc_get_methods", "{}"))) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
	}
	json_decref(reply);
}

/* As systemctl stop does. */
static void end_daemon(void)
{
	kill(getpid(), SIGTERM);
	pthread_join(daemon_run.thread, NULL);
	assert_int_equal(daemon_run.status, 0);
	assert_int_equal(access(sock, F_OK), -1);
}

static void create_disk(void)
{
	char params[256];

	snprintf(params, sizeof(params), "{\"name\":\"disk\",\"filename\":\"%s\"}", disk_file);
	json_decref(result_of("bdev_uring_create", params));
}

static int setup(void **state)
{
	int fd;

	guest_way = &guest_copied;
	host_create(&host);
	strcpy(dir, "/var/tmp/sluice-daemon-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(name, sizeof(name), "test-%d", getpid());
	snprintf(sock, sizeof(sock), "%s/sock", dir);
	snprintf(state_file, sizeof(state_file), "%s/state.json", dir);
	snprintf(disk_file, sizeof(disk_file), "%s/disk", dir);
	snprintf(log_file, sizeof(log_file), "%s/log", dir);
	snprintf(lock_file, sizeof(lock_file), "/run/sluice/%s.lock", name);
	fd = open(disk_file, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, DISK_BYTES))
		return -1;
	return close(fd);
}

static int teardown(void **state)
{
	char command[128];

	unlink(lock_file);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return host_destroy(&host) || system(command) ? -1 : 0;
}

static void it_serves_and_is_succeeded(void **state)
{
	struct disk_opts opts = {.target = "disk", .instance = name};
	struct guest g;
	struct load *l;
	json_t *list, *disk;
	char *data;
	int fd;

	start_daemon();
	create_disk();
	guest_create(&g, &host, GUEST_DOMID, &opts);
	assert_true(guest_connect(&g, &(struct guest_opts){0}));
	l = load_create(&g, &(struct load_opts){.max_segments = 32, .flushes = true});
	assert_null(load_run(l, 500));

	list = result_of("vbd_get_vbds", "{}");
	assert_int_equal(json_array_size(list), 1);
	disk = json_array_get(list, 0);
	assert_int_equal(json_integer_value(json_object_get(disk, "domid")), GUEST_DOMID);
	assert_string_equal(json_string_value(json_object_get(disk, "vdev")), "xvda");
	assert_string_equal(json_string_value(json_object_get(disk, "state")), "Connected");
	assert_string_equal(json_string_value(json_object_get(disk, "bdev")), "disk");
	assert_true(json_is_null(json_object_get(disk, "error")));
	json_decref(list);

	list = result_of("vbd_get_iostat", "{}");
	disk = json_array_get(list, 0);
	assert_in_range(
		json_integer_value(json_object_get(json_object_get(disk, "write"), "requests")), 50,
		500);
	assert_in_range(
		json_integer_value(json_object_get(json_object_get(disk, "read"), "requests")), 50,
		500);
	json_decref(list);

	list = result_of("framework_get_reactors", "{}");
	assert_int_equal(json_array_size(json_object_get(list, "reactors")), 1);
	json_decref(list);
	refused("bdev_delete", "{\"name\":\"disk\"}", -EBUSY, "disk");

	/* Its successor has the bdev, and goes on with what the guest has asked meanwhile. */
	load_fill(l);
	end_daemon();
	load_step(l);
	load_fill(l);
	start_daemon();
	assert_null(load_finish(l));
	assert_null(load_run(l, 500));

	fd = open(disk_file, O_RDONLY);
	data = mmap(NULL, DISK_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	assert_ptr_not_equal(data, MAP_FAILED);
	assert_null(load_compare(l, data));
	munmap(data, DISK_BYTES);
	load_destroy(l);

	assert_true(guest_close(&g));
	assert_true(guest_free_front(&g));
	assert_true(toolstack_remove(&g.disk, HOST_WAIT_MS));
	guest_destroy(&g);
	json_decref(result_of("bdev_delete", "{\"name\":\"disk\"}"));
	end_daemon();
}

static void disks_are_attached_and_detached_by_method(void **state)
{
	/* One character more than there may be. */
	static const char long_name[] = "0123456789abcdef0123456789abcdef"
					"0123456789abcdef0123456789abcdef";
	struct disk_opts opts = {.target = "disk", .instance = name};
	struct guest g;
	char params[160];
	json_t *result;

	start_daemon();
	create_disk();
	json_decref(result_of("bdev_null_create", "{\"name\":\"other\",\"num_blocks\":2048}"));
	guest_create(&g, &host, GUEST_DOMID, &opts);

	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdb\",\"bdev\":\"other\"}",
		 GUEST_DOMID);
	result = result_of("vbd_attach", params);
	assert_int_equal(json_integer_value(json_object_get(result, "devid")), XVDA + 16);
	json_decref(result);
	refused("vbd_attach", params, -EBUSY, "other");

	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdc\",\"bdev\":\"none\"}",
		 GUEST_DOMID);
	refused("vbd_attach", params, -ENOENT, "no bdev named none");
	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"disk\",\"bdev\":\"other\"}",
		 GUEST_DOMID);
	refused("vbd_attach", params, -EINVAL, "'disk'");
	/* A name is not cut to one that there is. */
	snprintf(params, sizeof(params), "{\"name\":\"%.63s\",\"num_blocks\":2048}", long_name);
	json_decref(result_of("bdev_null_create", params));
	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdc\",\"bdev\":\"%s\"}",
		 GUEST_DOMID, long_name);
	refused("vbd_attach", params, -ENOENT, "no bdev is named");
	refused("vbd_attach", "{\"domain\":\"99\",\"vdev\":\"xvdc\",\"bdev\":\"other\"}", -ENOENT,
		"no domain 99");
	refused("vbd_attach", "{\"domain\":\"99\",\"vdev\":\"xvdc\"}", -32602, "bdev");
	refused("xen_get_domain", "{\"domain\":\"nobody\"}", -ENOENT, "no domain nobody");

	/* Its guest never looked at it: only force helps at once. */
	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdb\",\"force\":true}",
		 GUEST_DOMID);
	result = result_of("vbd_detach", params);
	assert_true(json_is_true(result));
	json_decref(result);
	refused("vbd_detach", params, -ENOENT, "no disk xvdb");
	toolstack_remove_by_force(&g.disk);
	guest_destroy(&g);
	end_daemon();
}

/* Runs `sluice @line`, which has to succeed, and returns what it printed; to be freed. */
static char *command(const char *line)
{
	char copy[256], *argv[16] = {"sluice", "--socket", sock}, *out, *said;
	size_t out_len, said_len;
	struct client c;
	int argc = 3, status;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *save, *word = strtok_r(copy, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	client_init(&c, open_memstream(&out, &out_len), open_memstream(&said, &said_len));
	status = client_run(&c, argc, argv);
	fclose(c.out);
	fclose(c.err);
	if (status)
		fail_msg("'sluice %s' said: %s", line, said);
	free(said);
	return out;
}

/* The same, and it has to print @text, or not to; each run of blanks counts as one. */
static void command_prints(const char *line, const char *text, bool wanted)
{
	char *out = command(line), *to = out;

	for (const char *from = out; *from; from++)
		if (*from != ' ' || from[1] != ' ')
			*to++ = *from;
	*to = '\0';
	if (!strstr(out, text) == wanted)
		fail_msg("'sluice %s' should %sprint '%s' but printed:\n%s", line,
			 wanted ? "" : "not ", text, out);
	free(out);
}

/* Nothing of the load is answered any more. */
static void expect_stillness(struct load *l)
{
	uint64_t start = host_now_ms();
	unsigned answered;

	assert_null(load_step(l));
	answered = load_answered(l);
	while (host_now_ms() - start < 100)
		assert_null(load_step(l));
	assert_int_equal(load_answered(l), answered);
}

static void the_client_steers_disks(void **state)
{
	struct disk_opts opts = {
		.target = "disk,sharing=map,on-error=retry:30,iops=100000",
		.instance = name,
	};
	struct guest g;
	struct load *l;

	guest_way = &guest_persistent;
	start_daemon();
	create_disk();
	free(command("bdev create null other --size 1M"));
	guest_create(&g, &host, GUEST_DOMID, &opts);
	assert_true(guest_connect(&g, &(struct guest_opts){0}));
	l = load_create(&g, &(struct load_opts){.max_segments = 32});
	assert_null(load_run(l, 200));
	command_prints("list", "8M rw Connected Connected 1 persistent retry:30\n", true);
	command_prints("list", "\n limits: 100000 requests/s\n", true);
	/* To be shown, limits need not be set: then the target still says what they are. */
	command_prints("limit 7 xvda", "100000 requests/s", true);
	assert_true(disk_key_is(&g.disk, g.disk.back, "sluice-iops", NULL));
	command_prints("limit 7 xvda --bandwidth 64M", "100000 requests/s, 64M bytes/s", true);

	load_fill(l);
	command_prints("pause 7 xvda", "xvda of guest7 (domain 7) paused\n", true);
	expect_stillness(l);
	command_prints("stat", "bdev disk: 0 in flight\n", true);
	end_daemon();
	start_daemon();
	command_prints("list", "Connected Connected", true);
	command_prints("list", "\n paused: 'sluice resume 7 xvda'", true);
	command_prints("list", "\n limits: 100000 requests/s, 64M bytes/s\n", true);
	expect_stillness(l);
	command_prints("resume 7 xvda", "xvda of guest7 (domain 7) resumed\n", true);
	assert_null(load_finish(l));
	assert_null(load_run(l, 200));
	command_prints("list", "paused", false);
	command_prints("stat --queues", "\nxvda of guest7, queue 0 on reactor0: 0 in flight\n",
		       true);
	command_prints("stat", "notifications: 0 sent", false);
	command_prints("stat", ", 0 received", false);
	command_prints("stat", "of 2048 bounce pages", true);

	free(command("attach 7 xvdb other --readonly --sharing copy --on-error stop --iops 7 "
		     "--bandwidth 1M"));
	command_prints("list", "1M ro InitWait Initialising 0 copy stop\n", true);
	command_prints("list", "\n limits: 7 requests/s, 1M bytes/s\n", true);
	free(command("detach 7 xvdb --force"));

	/* Its pages stay mapped until it is disconnected. */
	assert_true(guest_close(&g));
	load_destroy(l);
	assert_true(guest_free_front(&g));
	assert_true(toolstack_remove(&g.disk, HOST_WAIT_MS));
	guest_destroy(&g);
	free(command("bdev delete disk"));
	end_daemon();
}

/* Runs a daemon that has to end at once with @status, after one line that says @words. */
static void ends_with(const char *const *extra, int status, const char *words)
{
	int err = dup(STDERR_FILENO), fd = open(log_file, O_RDWR | O_CREAT | O_TRUNC, 0600), rc;
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

static void a_bad_start_says_why_and_leaves_nothing(void **state)
{
	char type[128];
	int fd;

	ends_with((const char *const[]){"--cpumask", "8000000000000000", NULL}, 1, "--cpumask");
	assert_int_equal(access(sock, F_OK), -1);
	ends_with((const char *const[]){"--socket", "/no/such/place/sock", NULL}, 1,
		  "/no/such/place");
	ends_with((const char *const[]){"--state", "/no/such/place/state.json", NULL}, 1,
		  "/no/such/place");
	ends_with((const char *const[]){"--loud", NULL}, 2, "--loud");

	fd = open(state_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, "{", 1), 1);
	close(fd);
	ends_with(NULL, 1, state_file);
	unlink(state_file);

	snprintf(type, sizeof(type), "%s/sys/hypervisor/guest_type", host.root);
	fd = open(type, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, "PVH\n", 4), 4);
	close(fd);
	ends_with(NULL, 1, "dom0=pvh");
	unlink(type);

	/* None of these holds anything: it can start. */
	start_daemon();
	end_daemon();
}

static void a_second_of_the_name_is_refused(void **state)
{
	char other[128];

	start_daemon();
	ends_with(NULL, 1, name);
	/* Another socket does not make it another instance. */
	snprintf(other, sizeof(other), "%s/other", dir);
	ends_with((const char *const[]){"--socket", other, NULL}, 1, name);
	end_daemon();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(it_serves_and_is_succeeded),
		TEST(disks_are_attached_and_detached_by_method),
		TEST(the_client_steers_disks),
		TEST(a_bad_start_says_why_and_leaves_nothing),
		TEST(a_second_of_the_name_is_refused),
	};
	sigset_t set;

	if (geteuid()) {
		fprintf(stderr, "skipped: /run/sluice needs root\n");
		return 77;
	}
	/* The daemon takes these from a descriptor: no other thread may die of them. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
