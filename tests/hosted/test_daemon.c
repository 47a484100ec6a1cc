/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole daemon, main to end, over the double: what sluiced(8) promises of its start, its
 * methods, SIGTERM and its successor.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dom0.h"
#include "guest.h"
#include "load.h"

enum { GUEST_DOMID = 7, XVDA = 51712, DISK_BYTES = 8 << 20 };

static char disk_file[96];

static void create_disk(void)
{
	char params[256];

	snprintf(params, sizeof(params), "{\"name\":\"disk\",\"filename\":\"%s\"}", disk_file);
	json_decref(service_result("bdev_uring_create", params));
}

static int setup(void **state)
{
	int fd;

	guest_way = &guest_copied;
	if (dom0_setup(state))
		return -1;
	snprintf(disk_file, sizeof(disk_file), "%s/disk", service.dir);
	fd = open(disk_file, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, DISK_BYTES))
		return -1;
	return close(fd);
}

static void it_serves_and_is_succeeded(void **state)
{
	struct disk_opts opts = {.target = "disk", .instance = service.name};
	struct guest g;
	struct load *l;
	json_t *list, *disk;
	char *data;
	int fd;

	service_start();
	create_disk();
	guest_create(&g, &dom0, GUEST_DOMID, &opts);
	assert_true(guest_connect(&g, &(struct guest_opts){0}));
	l = load_create(&g, &(struct load_opts){.max_segments = 32, .flushes = true});
	assert_null(load_run(l, 500));

	list = service_result("vbd_get_vbds", "{}");
	assert_int_equal(json_array_size(list), 1);
	disk = json_array_get(list, 0);
	assert_int_equal(json_integer_value(json_object_get(disk, "domid")), GUEST_DOMID);
	assert_string_equal(json_string_value(json_object_get(disk, "vdev")), "xvda");
	assert_string_equal(json_string_value(json_object_get(disk, "state")), "Connected");
	assert_string_equal(json_string_value(json_object_get(disk, "bdev")), "disk");
	assert_true(json_is_null(json_object_get(disk, "error")));
	json_decref(list);

	list = service_result("vbd_get_iostat", "{}");
	disk = json_array_get(list, 0);
	assert_in_range(
		json_integer_value(json_object_get(json_object_get(disk, "write"), "requests")), 50,
		500);
	assert_in_range(
		json_integer_value(json_object_get(json_object_get(disk, "read"), "requests")), 50,
		500);
	json_decref(list);

	list = service_result("framework_get_reactors", "{}");
	assert_int_equal(json_array_size(json_object_get(list, "reactors")), 1);
	json_decref(list);
	service_refuses("bdev_delete", "{\"name\":\"disk\"}", -EBUSY, "disk");

	/* Its successor has the bdev, and goes on with what the guest has asked meanwhile. */
	load_fill(l);
	service_end();
	load_step(l);
	load_fill(l);
	service_start();
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
	json_decref(service_result("bdev_delete", "{\"name\":\"disk\"}"));
	service_end();
}

static void disks_are_attached_and_detached_by_method(void **state)
{
	/* One character more than there may be. */
	static const char long_name[] = "0123456789abcdef0123456789abcdef"
					"0123456789abcdef0123456789abcdef";
	struct disk_opts opts = {.target = "disk", .instance = service.name};
	struct guest g;
	char params[160];
	json_t *result;

	service_start();
	create_disk();
	json_decref(service_result("bdev_null_create", "{\"name\":\"other\",\"num_blocks\":2048}"));
	guest_create(&g, &dom0, GUEST_DOMID, &opts);

	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdb\",\"bdev\":\"other\"}",
		 GUEST_DOMID);
	result = service_result("vbd_attach", params);
	assert_int_equal(json_integer_value(json_object_get(result, "devid")), XVDA + 16);
	json_decref(result);
	service_refuses("vbd_attach", params, -EBUSY, "other");

	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdc\",\"bdev\":\"none\"}",
		 GUEST_DOMID);
	service_refuses("vbd_attach", params, -ENOENT, "no bdev named none");
	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"disk\",\"bdev\":\"other\"}",
		 GUEST_DOMID);
	service_refuses("vbd_attach", params, -EINVAL, "'disk'");
	/* A name is not cut to one that there is. */
	snprintf(params, sizeof(params), "{\"name\":\"%.63s\",\"num_blocks\":2048}", long_name);
	json_decref(service_result("bdev_null_create", params));
	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdc\",\"bdev\":\"%s\"}",
		 GUEST_DOMID, long_name);
	service_refuses("vbd_attach", params, -ENOENT, "no bdev is named");
	service_refuses("vbd_attach", "{\"domain\":\"99\",\"vdev\":\"xvdc\",\"bdev\":\"other\"}",
			-ENOENT, "no domain 99");
	service_refuses("vbd_attach", "{\"domain\":\"99\",\"vdev\":\"xvdc\"}", -32602, "bdev");
	service_refuses("xen_get_domain", "{\"domain\":\"nobody\"}", -ENOENT, "no domain nobody");

	/* Its guest never looked at it: only force helps at once. */
	snprintf(params, sizeof(params), "{\"domain\":\"%d\",\"vdev\":\"xvdb\",\"force\":true}",
		 GUEST_DOMID);
	result = service_result("vbd_detach", params);
	assert_true(json_is_true(result));
	json_decref(result);
	service_refuses("vbd_detach", params, -ENOENT, "no disk xvdb");
	toolstack_remove_by_force(&g.disk);
	guest_destroy(&g);
	service_end();
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
		.instance = service.name,
	};
	struct guest g;
	struct load *l;

	guest_way = &guest_persistent;
	service_start();
	create_disk();
	free(service_command("bdev create null other --size 1M"));
	guest_create(&g, &dom0, GUEST_DOMID, &opts);
	assert_true(guest_connect(&g, &(struct guest_opts){0}));
	l = load_create(&g, &(struct load_opts){.max_segments = 32});
	assert_null(load_run(l, 200));
	service_prints("list", "8M rw Connected Connected 1 persistent retry:30\n", true);
	service_prints("list", "\n limits: 100000 requests/s\n", true);
	/* To be shown, limits need not be set: then the target still says what they are. */
	service_prints("limit 7 xvda", "100000 requests/s", true);
	assert_true(disk_key_is(&g.disk, g.disk.back, "sluice-iops", NULL));
	service_prints("limit 7 xvda --bandwidth 64M", "100000 requests/s, 64M bytes/s", true);

	load_fill(l);
	service_prints("pause 7 xvda", "xvda of guest7 (domain 7) paused\n", true);
	expect_stillness(l);
	service_prints("stat", "bdev disk: 0 in flight\n", true);
	service_end();
	service_start();
	service_prints("list", "Connected Connected", true);
	service_prints("list", "\n paused: 'sluice resume 7 xvda'", true);
	service_prints("list", "\n limits: 100000 requests/s, 64M bytes/s\n", true);
	expect_stillness(l);
	service_prints("resume 7 xvda", "xvda of guest7 (domain 7) resumed\n", true);
	assert_null(load_finish(l));
	assert_null(load_run(l, 200));
	service_prints("list", "paused", false);
	service_prints("stat --queues", "\nxvda of guest7, queue 0 on reactor0: 0 in flight\n",
		       true);
	service_prints("stat", "notifications: 0 sent", false);
	service_prints("stat", ", 0 received", false);
	service_prints("stat", "of 2048 bounce pages", true);

	free(service_command(
		"attach 7 xvdb other --readonly --sharing copy --on-error stop --iops 7 "
		"--bandwidth 1M"));
	service_prints("list", "1M ro InitWait Initialising 0 copy stop\n", true);
	service_prints("list", "\n limits: 7 requests/s, 1M bytes/s\n", true);
	free(service_command("detach 7 xvdb --force"));

	/* Its pages stay mapped until it is disconnected. */
	assert_true(guest_close(&g));
	load_destroy(l);
	assert_true(guest_free_front(&g));
	assert_true(toolstack_remove(&g.disk, HOST_WAIT_MS));
	guest_destroy(&g);
	free(service_command("bdev delete disk"));
	service_end();
}

static void a_bad_start_says_why_and_leaves_nothing(void **state)
{
	char type[128];
	int fd;

	service_ends_with((const char *const[]){"--cpumask", "8000000000000000", NULL}, 1,
			  "--cpumask");
	assert_int_equal(access(service.sock, F_OK), -1);
	service_ends_with((const char *const[]){"--socket", "/no/such/place/sock", NULL}, 1,
			  "/no/such/place");
	service_ends_with((const char *const[]){"--state", "/no/such/place/state.json", NULL}, 1,
			  "/no/such/place");
	service_ends_with((const char *const[]){"--loud", NULL}, 2, "--loud");

	fd = open(service.state, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, "{", 1), 1);
	close(fd);
	service_ends_with(NULL, 1, service.state);
	unlink(service.state);

	snprintf(type, sizeof(type), "%s/sys/hypervisor/guest_type", dom0.root);
	fd = open(type, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, "PVH\n", 4), 4);
	close(fd);
	service_ends_with((const char *const[]){"--backend", "vbd", NULL}, 1, "dom0=pvh");
	unlink(type);
	/* What a PV dom0 only lacks for the moment is not done without. */
	snprintf(type, sizeof(type), "%s/dev/xen/gntdev", dom0.root);
	assert_int_equal(unlink(type), 0);
	service_ends_with(NULL, 1, "modprobe xen-gntdev");
	host_write_file(&dom0, "/dev/xen/gntdev", "");

	/* None of these holds anything: it can start. */
	service_start();
	service_end();
}

static void a_second_of_the_name_is_refused(void **state)
{
	char other[128];

	service_start();
	service_ends_with(NULL, 1, service.name);
	/* Another socket does not make it another instance. */
	snprintf(other, sizeof(other), "%s/other", service.dir);
	service_ends_with((const char *const[]){"--socket", other, NULL}, 1, service.name);
	service_end();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, dom0_teardown)
	const struct CMUnitTest tests[] = {
		TEST(it_serves_and_is_succeeded),
		TEST(disks_are_attached_and_detached_by_method),
		TEST(the_client_steers_disks),
		TEST(a_bad_start_says_why_and_leaves_nothing),
		TEST(a_second_of_the_name_is_refused),
	};

	if (!service_prepare())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
