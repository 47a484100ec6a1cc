/* SPDX-License-Identifier: BSD-2-Clause */
/* What sluiced asks of its host, and how it takes devices from the kernel: over a made-up /sys and
 * /dev. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "xen/host.h"

static char root[] = "/tmp/sluice-host-XXXXXX";

static const char *at(const char *path)
{
	static char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", root, path);
	return full;
}

static void put(const char *path, const char *text)
{
	int fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void make_dirs(const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "mkdir -p %s%s", root, path);
	assert_int_equal(system(full), 0);
}

static int setup(void **state)
{
	strcpy(root + strlen(root) - 6, "XXXXXX");
	assert_non_null(mkdtemp(root));
	make_dirs("/sys/hypervisor");
	make_dirs("/dev/xen");
	put("/sys/hypervisor/type", "xen\n");
	put("/sys/hypervisor/guest_type", "PV\n");
	put("/dev/xen/evtchn", "");
	put("/dev/xen/gntdev", "");
	return 0;
}

static int teardown(void **state)
{
	char command[PATH_MAX];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static void a_pv_dom0_will_do(void **state)
{
	struct err err;

	assert_int_equal(xen_host_check(root, &err), 0);
}

static void an_old_kernel_that_does_not_tell_its_type_will_do(void **state)
{
	struct err err;

	unlink(at("/sys/hypervisor/guest_type"));
	assert_int_equal(xen_host_check(root, &err), 0);
}

static void without_xen_the_line_says_so(void **state)
{
	struct err err;

	unlink(at("/sys/hypervisor/type"));
	assert_int_equal(xen_host_check(root, &err), -ENODEV);
	assert_non_null(strstr(err.text, "no Xen on this host"));
	put("/sys/hypervisor/type", "kvm\n");
	assert_int_equal(xen_host_check(root, &err), -ENODEV);
}

static void a_pvh_dom0_is_refused_with_the_remedy(void **state)
{
	struct err err;

	put("/sys/hypervisor/guest_type", "PVH\n");
	assert_int_equal(xen_host_check(root, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "PVH"));
	assert_non_null(strstr(err.text, "dom0=pvh"));
}

static void a_missing_device_names_its_module(void **state)
{
	struct err err;

	unlink(at("/dev/xen/gntdev"));
	assert_int_equal(xen_host_check(root, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/dev/xen/gntdev"));
	assert_non_null(strstr(err.text, "modprobe xen-gntdev"));
}

static void without_its_driver_the_kernel_never_gets_a_device(void **state)
{
	assert_int_equal(xen_host_kernel_has(root, "vbd-1-51712"), -1);
}

static void with_its_driver_the_kernel_gets_the_device_sooner_or_later(void **state)
{
	struct err err;
	char text[32] = "";
	int fd;

	make_dirs("/sys/bus/xen-backend/drivers/vbd");
	make_dirs("/sys/bus/xen-backend/devices/vbd-1-51712");
	put("/sys/bus/xen-backend/drivers/vbd/unbind", "");
	assert_int_equal(xen_host_kernel_has(root, "vbd-1-51712"), 0);
	assert_int_equal(symlink("../../drivers/vbd",
				 at("/sys/bus/xen-backend/devices/vbd-1-51712/driver")),
			 0);
	assert_int_equal(xen_host_kernel_has(root, "vbd-1-51712"), 1);
	assert_int_equal(xen_host_kernel_has(root, "vbd-1-51728"), 0);

	assert_int_equal(xen_host_kernel_release(root, "vbd-1-51712", &err), 0);
	fd = open(at("/sys/bus/xen-backend/drivers/vbd/unbind"), O_RDONLY);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	assert_string_equal(text, "vbd-1-51712");
}

static void a_device_that_the_kernel_keeps_is_an_error_with_the_remedy(void **state)
{
	struct err err;

	make_dirs("/sys/bus/xen-backend/drivers/vbd/unbind"); /* a folder cannot be written */
	make_dirs("/sys/bus/xen-backend/devices/vbd-1-51712");
	assert_int_equal(symlink("../../drivers/vbd",
				 at("/sys/bus/xen-backend/devices/vbd-1-51712/driver")),
			 0);
	assert_int_equal(xen_host_kernel_release(root, "vbd-1-51712", &err), -EISDIR);
	assert_non_null(strstr(err.text, "rmmod xen-blkback"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_pv_dom0_will_do),
		TEST(an_old_kernel_that_does_not_tell_its_type_will_do),
		TEST(without_xen_the_line_says_so),
		TEST(a_pvh_dom0_is_refused_with_the_remedy),
		TEST(a_missing_device_names_its_module),
		TEST(without_its_driver_the_kernel_never_gets_a_device),
		TEST(with_its_driver_the_kernel_gets_the_device_sooner_or_later),
		TEST(a_device_that_the_kernel_keeps_is_an_error_with_the_remedy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
