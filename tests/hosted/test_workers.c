/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole daemon, main to end, on a host without Xen, and frontends in segments: how workers are
 * made, kept in the state file, waited for and deleted.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "front/segment.h"
#include "service.h"
#include "sivshm.h"

enum { DISK_BYTES = 8 << 20, PIECE = 64 << 10 };

static char disk_file[96];

static int setup(void **state)
{
	int fd;

	if (service_setup(state))
		return -1;
	snprintf(disk_file, sizeof(disk_file), "%s/disk", service.dir);
	fd = open(disk_file, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, DISK_BYTES))
		return -1;
	return close(fd);
}

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	free(service_command(line));
}

/* `sluice sivshm list` will print @text. */
static void wait_for(const char *text)
{
	uint64_t start = service_now_ms();
	bool there = false;

	while (!there) {
		char *out = service_command("sivshm list --json");

		there = strstr(out, text);
		if (!there && service_now_ms() - start > SERVICE_WAIT_MS)
			fail_msg("'%s' did not come: %s", text, out);
		free(out);
		if (!there)
			service_nap();
	}
}

/* A process's end of worker "w". */
struct peer {
	struct sivshm_port *port;
	struct front_segment *segment;
};

static void join(struct peer *p)
{
	const struct front_segment_opts opts = {
		.queues = 1,
		.max_segments = PIECE / 4096,
		.sync_pages = PIECE / 4096,
	};
	char where[160];
	int rc;

	snprintf(where, sizeof(where), "unix:%s/w.sock", service.sivshm);
	assert_int_equal(sivshm_open(where, SERVICE_WAIT_MS, &p->port), 0);
	assert_int_equal(front_segment_create(p->port, &opts, &p->segment), 0);
	rc = front_segment_connect(p->segment, SERVICE_WAIT_MS);
	if (rc)
		fail_msg("no connection: %d, %s", rc, front_segment_fault(p->segment));
}

static void leave(struct peer *p)
{
	front_segment_destroy(p->segment);
	sivshm_port_close(p->port);
}

/* Reads what lies at sector @at, or writes that; @seed tells one content from another. */
static void check_data(struct peer *p, uint8_t op, uint64_t at, char seed)
{
	static char data[PIECE];
	struct front *queue = front_segment_queue(p->segment, 0);

	memset(data, op == BLKIF_WRITE ? seed : ~seed, sizeof(data));
	assert_int_equal(front_rw_sync(queue, op, at, data, sizeof(data)), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		if (data[i] != seed)
			fail_msg("byte %zu is %d, not %d", i, data[i], seed);
}

static void wait_for_end(struct peer *p)
{
	uint64_t start = service_now_ms();
	int rc;

	while ((rc = front_segment_advance(p->segment)) == 1) {
		assert_true(service_now_ms() - start < SERVICE_WAIT_MS);
		service_nap();
	}
	assert_int_equal(rc, -ECONNREFUSED);
}

static void a_frontend_is_served_and_a_successor_has_its_worker(void **state)
{
	json_t *list, *op;
	struct peer p;

	service_start();
	run("bdev create uring disk %s", disk_file);
	run("sivshm create w disk --segment 4M --queues 2 --sharing copy --mode 0640 --uid any");
	join(&p);
	check_data(&p, BLKIF_WRITE, 8, 'a');
	check_data(&p, BLKIF_READ, 8, 'a');
	service_prints("sivshm list", "w disk 8M rw connected 4M 1 copy ", true);
	service_fails("bdev delete disk", "in use: detach its disk first, or delete its worker");
	list = service_result("sivshm_get_iostat", "{}");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "worker")),
			    "w");
	op = json_object_get(json_array_get(list, 0), "write");
	assert_true(json_integer_value(json_object_get(op, "requests")) > 0);
	assert_int_equal(json_integer_value(json_object_get(op, "bytes")), PIECE);
	json_decref(list);
	service_prints("stat", "worker w, bdev disk: 0 in flight\n", true);

	service_end();
	wait_for_end(&p);
	leave(&p);
	service_start();
	/* As it was asked for, in all. */
	service_prints("sivshm list", "w disk 8M rw listening 4M 0 copy ", true);
	service_prints("sivshm show w", "one process of user any and group any", true);
	service_prints("sivshm show w", "chardev=sluice-w,vectors=3\n", true);
	service_prints("sivshm list --json", "\"mode\": \"0640\"", true);
	join(&p);
	check_data(&p, BLKIF_READ, 8, 'a');
	assert_int_equal(front_segment_close(p.segment, SERVICE_WAIT_MS), 0);
	leave(&p);
	run("sivshm delete w");
	run("bdev delete disk");
	service_end();
}

/* What a shell or systemd gives a program is few, and what it may have is many. */
static void descriptors_are_not_wanting(void **state)
{
	struct rlimit limit, few;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_max < 1024)
		skip();
	few = limit;
	few.rlim_cur = 256;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	service_start();
	run("bdev create null disk --size 1G");
	for (unsigned i = 0; i < 4; i++)
		run("sivshm create w%u disk --segment 64K --queues 63 --shared", i);
	service_end();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void what_is_wrong_is_said(void **state)
{
	static const struct {
		const char *params;
		int code;
		const char *words;
	} cases[] = {
		{"{\"name\":\"w\"}", -32602, "'bdev'"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"size\":1}", -32602, "'size'"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"uid\":\"root\"}", -32602, "'uid'"},
		{"{\"name\":\"w\",\"bdev\":\"none\"}", -ENOENT, "no bdev named none"},
		{"{\"name\":\"taken\",\"bdev\":\"disk\"}", -EEXIST, "choose another name"},
		{"{\"name\":\"w\",\"bdev\":\"disk\"}", -EBUSY, "(worker taken is on it)"},
		{"{\"name\":\"../w\",\"bdev\":\"disk\"}", -EINVAL, "no worker's name"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"segment_size\":0}", -EINVAL, "0 bytes"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"segment_size\":3000000}", -EINVAL,
		 "no power of two between"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"max_queues\":64}", -EINVAL, "more than 63"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"sharing\":\"none\"}", -EINVAL,
		 "auto, copy, map and dma"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"mode\":\"0\"}", -EINVAL, "octal"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"mode\":\"0800\"}", -EINVAL, "octal"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"mode\":\"1777\"}", -EINVAL, "octal"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"mode\":\"\"}", -EINVAL, "octal"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"uid\":4294967295}", -EINVAL, "no uid"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"gid\":-2}", -EINVAL, "no gid"},
		{"{\"name\":\"w\",\"bdev\":\"disk\",\"socket\":\"here\"}", -EINVAL,
		 "no absolute path"},
	};
	char line[192];

	service_start();
	run("bdev create ram disk --size 8M");
	run("bdev create ram other --size 8M");
	run("sivshm create taken disk");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		service_refuses("sivshm_create", cases[i].params, cases[i].code, cases[i].words);
	snprintf(line, sizeof(line), "sivshm create w other --socket %s/taken.sock",
		 service.sivshm);
	service_fails(line, "taken.sock");
	service_fails("sivshm create w other --socket /no/such/place/sock", "/no/such/place");
	service_fails("sivshm delete w", "no worker 'w'");
	service_fails("sivshm show w", "no worker 'w'");
	service_prints("sivshm list", "w other", false);
	/* None of these has left anything. */
	run("sivshm create w other");
	service_end();
}

static void a_worker_waits_for_its_bdev(void **state)
{
	char away[128];
	struct peer p;

	service_start();
	run("bdev create uring disk %s", disk_file);
	run("sivshm create w disk");
	service_end();
	snprintf(away, sizeof(away), "%s.away", disk_file);
	assert_int_equal(rename(disk_file, away), 0);
	service_start();
	service_prints("sivshm list", "w disk - rw waiting ", true);
	/* What is saved for another reason forgets neither. */
	run("bdev create ram other --size 8M");
	service_end();
	service_start();
	service_prints("sivshm list", "w disk - rw waiting ", true);
	assert_int_equal(rename(away, disk_file), 0);
	run("bdev create uring disk %s", disk_file);
	wait_for("\"state\": \"listening\"");
	join(&p);
	check_data(&p, BLKIF_READ, 0, 0);
	leave(&p);
	service_end();
	/* To wait is no reason to stay. */
	assert_int_equal(rename(disk_file, away), 0);
	service_start();
	run("sivshm delete w");
	service_prints("sivshm list", "disk", false);
	service_end();
	service_start();
	service_prints("sivshm list", "disk", false);
	service_end();
}

static void one_that_cannot_be_made_is_kept(void **state)
{
	FILE *f = fopen(service.state, "w");

	assert_non_null(f);
	fputs("{\"version\":1,\"bdevs\":[{\"method\":\"sivshm_create\",\"params\":{\"name\":\"w\","
	      "\"bdev\":\"disk\",\"segment_size\":17}},{\"method\":\"sivshm_create\"}]}",
	      f);
	fclose(f);
	service_start();
	service_prints("sivshm list",
		       "w disk - - missing - - - -\n error: it could not be made at the start: see",
		       true);
	service_fails("sivshm show w", "worker 'w' is missing: it could not be made");
	run("bdev create ram disk --size 8M");
	run("sivshm create w disk");
	service_prints("sivshm list", "w disk 8M rw listening ", true);
	service_prints("sivshm list", "missing", false);
	run("sivshm delete w");
	service_prints("sivshm list", "disk", false);
	service_fails("sivshm delete w", "no worker 'w'");
	service_end();
}

static void what_cannot_be_saved_is_not_done(void **state)
{
	char in_the_way[128], socket[128];
	struct peer p;

	snprintf(in_the_way, sizeof(in_the_way), "%s.tmp", service.state);
	snprintf(socket, sizeof(socket), "%s/w.sock", service.sivshm);
	service_start();
	run("bdev create uring disk %s", disk_file);
	assert_int_equal(mkdir(in_the_way, 0700), 0);
	service_fails("sivshm create w disk", "cannot save");
	service_prints("sivshm list", "disk", false);
	assert_int_equal(access(socket, F_OK), -1);
	assert_int_equal(rmdir(in_the_way), 0);
	run("sivshm create w disk");
	assert_int_equal(mkdir(in_the_way, 0700), 0);
	service_fails("sivshm delete w --force", "cannot save");
	join(&p);
	check_data(&p, BLKIF_READ, 0, 0);
	leave(&p);
	assert_int_equal(rmdir(in_the_way), 0);
	service_end();
}

static void *delete_patiently(void *arg)
{
	return service_command("sivshm delete w");
}

static void a_worker_is_deleted_when_its_frontend_lets_go(void **state)
{
	uint64_t start = service_now_ms();
	pthread_t thread;
	struct peer p;
	void *out;

	service_start();
	run("bdev create uring disk %s", disk_file);
	run("sivshm create w disk");
	join(&p);
	assert_int_equal(pthread_create(&thread, NULL, delete_patiently, NULL), 0);
	while (!front_segment_is_closing(p.segment)) {
		assert_true(service_now_ms() - start < SERVICE_WAIT_MS);
		service_nap();
	}
	service_prints("sivshm list", "w disk 8M rw closing ", true);
	/* It goes on until then, and is not to come back. */
	check_data(&p, BLKIF_WRITE, 8, 'b');
	assert_int_equal(front_segment_close(p.segment, SERVICE_WAIT_MS), 0);
	assert_int_equal(pthread_join(thread, &out), 0);
	assert_string_equal(out, "worker w deleted\n");
	free(out);
	leave(&p);
	service_prints("sivshm list", "disk", false);

	run("sivshm create w disk");
	join(&p);
	check_data(&p, BLKIF_READ, 8, 'b');
	run("sivshm delete w --force");
	wait_for_end(&p);
	leave(&p);
	run("bdev delete disk");
	service_end();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, service_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_frontend_is_served_and_a_successor_has_its_worker),
		TEST(descriptors_are_not_wanting),
		TEST(what_is_wrong_is_said),
		TEST(a_worker_waits_for_its_bdev),
		TEST(one_that_cannot_be_made_is_kept),
		TEST(what_cannot_be_saved_is_not_done),
		TEST(a_worker_is_deleted_when_its_frontend_lets_go),
	};

	if (!service_prepare())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
