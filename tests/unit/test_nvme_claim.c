/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking drives from the kernel, on a made-up host: a tree of files, and a kernel that does what it
 * would do when one of them is written or opened (the linker sends both here).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nvme/claim.h"
#include "sluice/client.h"

#define ADDRESS "0000:00:04.0"
#define OTHER   "0000:00:05.0"

static char root[64];
static struct {
	int override_rc, unbind_rc, probe_rc;
	bool unbind_does_nothing;
	bool no_driver;    /* probing finds none */
	bool no_namespace; /* the driver finds none */
	const char *open;  /* device file that somebody else has */
	unsigned unbinds, probes, overrides;
} kernel;

/* Files */

static const char *in_root(const char *path)
{
	static char full[4][PATH_MAX];
	static unsigned next;
	char *out = full[next++ % 4];

	snprintf(out, PATH_MAX, "%s%s", root, path);
	return out;
}

static void make_dirs(const char *path)
{
	char copy[PATH_MAX];

	snprintf(copy, sizeof(copy), "%s", in_root(path));
	for (char *slash = strchr(copy + strlen(root) + 1, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) && errno != EEXIST)
			fail_msg("mkdir %s: %s", copy, strerror(errno));
		*slash = '/';
	}
}

static void put(const char *path, const char *text)
{
	FILE *f;

	make_dirs(path);
	f = fopen(in_root(path), "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void put_link(const char *path, const char *target)
{
	make_dirs(path);
	unlink(in_root(path));
	assert_int_equal(symlink(target, in_root(path)), 0);
}

static const char *get(const char *path)
{
	static char text[256];
	int fd = open(in_root(path), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(in_root(path), remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The kernel */

static void bind_nvme(void)
{
	put_link("/sys/bus/pci/devices/" ADDRESS "/driver", "../../drivers/nvme");
	put("/sys/bus/pci/drivers/nvme/unbind", "");
	put("/sys/bus/pci/devices/" ADDRESS "/nvme/nvme0/x", "");
	put("/sys/class/nvme/nvme0/model", "Fast drive          \n");
	put("/sys/class/nvme/nvme0/serial", "S\x1b"
					    "1\n");
	put("/sys/class/nvme/nvme0/firmware_rev", "1.0\n");
	if (kernel.no_namespace)
		return;
	put("/sys/class/nvme/nvme0/nvme0n1/x", "");
	put("/sys/class/nvme/nvme0/hwmon0/x", "");
	put("/sys/class/block/nvme0n1/size", "2048\n");
	put("/sys/class/block/nvme0n1/dev", "259:0\n");
	put("/sys/class/block/nvme0n1/nvme0n1p1/partition", "1\n");
	put("/sys/class/block/nvme0n1p1/dev", "259:1\n");
	put("/sys/class/block/nvme0n1p1/size", "1024\n");
}

static void unbind(void)
{
	unlink(in_root("/sys/bus/pci/devices/" ADDRESS "/driver"));
	remove_tree("/sys/bus/pci/devices/" ADDRESS "/nvme");
	remove_tree("/sys/class/nvme/nvme0");
	remove_tree("/sys/class/block");
}

static int do_unbind(void)
{
	kernel.unbinds++;
	if (kernel.unbind_rc)
		return kernel.unbind_rc;
	if (!kernel.unbind_does_nothing)
		unbind();
	return 0;
}

static int do_probe(void)
{
	const char *override = get("/sys/bus/pci/devices/" ADDRESS "/driver_override");

	kernel.probes++;
	if (kernel.probe_rc)
		return kernel.probe_rc;
	if (!access(in_root("/sys/bus/pci/devices/" ADDRESS "/driver"), F_OK) || kernel.no_driver)
		return 0;
	if (!strcmp(override, "(null)\n"))
		bind_nvme();
	else if (!strcmp(override, "vfio-pci\n"))
		put_link("/sys/bus/pci/devices/" ADDRESS "/driver", "../../drivers/vfio-pci");
	return 0;
}

static int do_override(const char *text)
{
	char line[96];

	/* That is how the field without a name is read, but a name like any other to write. */
	assert_string_not_equal(text, "(null)");
	kernel.overrides++;
	if (kernel.override_rc)
		return kernel.override_rc;
	snprintf(line, sizeof(line), "%.64s\n", strcmp(text, "\n") ? text : "(null)");
	put("/sys/bus/pci/devices/" ADDRESS "/driver_override", line);
	return 0;
}

/* The linker's names for what write() is to mean, and for the real one. */
ssize_t __wrap_write(int fd, const void *data, size_t len);
ssize_t __real_write(int fd, const void *data, size_t len);

static bool ends_with(const char *path, const char *end)
{
	size_t len = strlen(path), end_len = strlen(end);

	return len >= end_len && !strcmp(path + len - end_len, end);
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
	char link[64], path[PATH_MAX], text[64];
	ssize_t n;
	int rc = 0;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	if (strncmp(path, root, strlen(root)) || !strstr(path, "/sys/"))
		return __real_write(fd, data, len);
	snprintf(text, sizeof(text), "%.*s", (int)len, (const char *)data);
	if (ends_with(path, "/driver_override")) {
		rc = do_override(text);
	} else if (ends_with(path, "/unbind")) {
		assert_string_equal(text, ADDRESS);
		rc = do_unbind();
	} else if (ends_with(path, "/drivers_probe")) {
		assert_string_equal(text, ADDRESS);
		rc = do_probe();
	} else {
		fail_msg("nobody should write to %s", path);
	}
	if (rc) {
		errno = -rc;
		return -1;
	}
	return (ssize_t)len;
}

/* The same for open(). */
int __wrap_open64(const char *path, int flags, mode_t mode);
int __real_open64(const char *path, int flags, mode_t mode);

int __wrap_open64(const char *path, int flags, mode_t mode)
{
	/* A block device is kept only from those who want it for themselves. */
	if (!kernel.open || !ends_with(path, kernel.open) ||
	    (!strstr(path, "vfio") && !(flags & O_EXCL)))
		return __real_open64(path, flags, mode);
	errno = EBUSY;
	return -1;
}

static int setup(void **state)
{
	strcpy(root, "/tmp/sluice-claim-XXXXXX");
	assert_non_null(mkdtemp(root));
	memset(&kernel, 0, sizeof(kernel));
	put("/run/x", "");
	put("/sys/bus/pci/drivers_probe", "");
	put("/sys/bus/pci/devices/" ADDRESS "/class", "0x010802\n");
	put("/sys/bus/pci/devices/" ADDRESS "/driver_override", "(null)\n");
	bind_nvme();
	put("/sys/bus/pci/devices/" OTHER "/class", "0x020000\n");
	put("/proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	put("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n");
	return 0;
}

static int teardown(void **state)
{
	return nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

#define OVERRIDE "/sys/bus/pci/devices/" ADDRESS "/driver_override"

static bool has_driver(const char *name)
{
	char target[PATH_MAX];
	ssize_t n = readlink(in_root("/sys/bus/pci/devices/" ADDRESS "/driver"), target,
			     sizeof(target) - 1);

	target[n > 0 ? n : 0] = '\0';
	return *name ? ends_with(target, name) : n < 0;
}

static void taken(bool vfio, bool force)
{
	struct claim_drive d;
	struct err err;

	if (claim_take(root, "00:04.0", vfio, force, &err))
		fail_msg("not claimed: %s", err.text);
	assert_true(has_driver(vfio ? "/vfio-pci" : ""));
	assert_string_equal(get(OVERRIDE), vfio ? "vfio-pci\n" : "sluice\n");
	assert_int_equal(claim_look(root, ADDRESS, &d, &err), 0);
	assert_true(d.claimed);
	assert_string_equal(d.name, "");
}

/* Refused, and all is as before. */
static void not_taken(bool vfio, int rc, const char *text)
{
	struct err err;

	assert_int_equal(claim_take(root, ADDRESS, vfio, false, &err), rc);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" does not say \"%s\"", err.text, text);
	assert_true(has_driver("/nvme"));
	assert_string_equal(get(OVERRIDE), "(null)\n");
}

static void given_back(void)
{
	struct err err;

	if (claim_give_back(root, ADDRESS, 1000, &err))
		fail_msg("not given back: %s", err.text);
	assert_true(has_driver("/nvme"));
	assert_string_equal(get(OVERRIDE), "(null)\n");
}

/* Tests */

static void add_name(const struct claim_drive *d, void *arg)
{
	assert_string_equal(d->address.text, ADDRESS);
	assert_string_equal(d->driver, "nvme");
	assert_string_equal(d->name, "nvme0");
	assert_string_equal(d->model, "Fast drive");
	assert_string_equal(d->serial, "S?1");
	assert_string_equal(d->firmware, "1.0");
	assert_false(d->claimed);
	++*(unsigned *)arg;
}

static void add_namespace(const char *name, uint64_t bytes, void *arg)
{
	assert_string_equal(name, "nvme0n1");
	assert_int_equal(bytes, 1 << 20);
	++*(unsigned *)arg;
}

static void test_list(void **state)
{
	struct claim_drive d;
	unsigned n = 0;
	struct err err;

	assert_int_equal(claim_list(root, add_name, &n, &err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(claim_look(root, ADDRESS, &d, &err), 0);
	n = 0;
	claim_namespaces(root, &d, add_namespace, &n);
	assert_int_equal(n, 1);
	/* By several paths to it. */
	remove_tree("/sys/class/nvme/nvme0/nvme0n1");
	put("/sys/class/nvme/nvme0/nvme0c3n1/x", "");
	n = 0;
	claim_namespaces(root, &d, add_namespace, &n);
	assert_int_equal(n, 1);
	assert_int_equal(claim_look(root, OTHER, &d, &err), -ENODEV);
	assert_non_null(strstr(err.text, "is no NVMe controller"));
	assert_int_equal(claim_look(root, "0000:00:06.0", &d, &err), -ENODEV);
	assert_int_equal(claim_look(root, "../" ADDRESS, &d, &err), -EINVAL);
	remove_tree("/sys");
	assert_int_equal(claim_list(root, add_name, &n, &err), -ENODEV);
}

static void test_take_and_give_back(void **state)
{
	taken(false, false);
	assert_int_equal(kernel.probes, 0);
	/* Again: there is nothing to do. */
	taken(false, false);
	assert_int_equal(kernel.unbinds, 1);
	given_back();
	given_back();
	assert_int_equal(kernel.probes, 1);
	taken(false, true);
	given_back();
}

static void test_vfio(void **state)
{
	struct err err;

	not_taken(true, -EOPNOTSUPP, "intel_iommu=on");
	put_link("/sys/bus/pci/devices/" ADDRESS "/iommu_group",
		 "../../../../kernel/iommu_groups/7");
	put("/sys/kernel/iommu_groups/7/x", "");
	not_taken(true, -ENODEV, "modprobe vfio-pci");
	assert_int_equal(kernel.overrides, 0);
	put("/sys/bus/pci/drivers/vfio-pci/unbind", "");
	kernel.probe_rc = -EINVAL;
	/* Nor does the way back work then, but what can be undone is. */
	assert_int_equal(claim_take(root, ADDRESS, true, false, NULL), -EINVAL);
	assert_string_equal(get(OVERRIDE), "(null)\n");
	kernel.probe_rc = 0;
	given_back();
	taken(true, false);
	taken(true, false);
	/* Somebody, a virtual machine perhaps, drives it. */
	kernel.open = "/dev/vfio/7";
	assert_int_equal(claim_give_back(root, ADDRESS, 1000, &err), -EBUSY);
	assert_non_null(strstr(err.text, "in use by way of VFIO"));
	assert_true(has_driver("/vfio-pci"));
	assert_string_equal(get(OVERRIDE), "vfio-pci\n");
	kernel.open = NULL;
	kernel.unbind_rc = -EIO;
	assert_int_equal(claim_give_back(root, ADDRESS, 1000, &err), -EIO);
	assert_string_equal(get(OVERRIDE), "vfio-pci\n");
	kernel.unbind_rc = 0;
	given_back();
}

struct uses {
	unsigned n;
	char text[512];
};

static void add_use(const char *device, const char *how, void *arg)
{
	struct uses *u = arg;
	size_t len = strlen(u->text);

	u->n++;
	snprintf(u->text + len, sizeof(u->text) - len, "%s %s;", device, how);
}

static void in_use(const char *text)
{
	struct uses u = {0};
	struct claim_drive d;
	struct err err;

	assert_int_equal(claim_look(root, ADDRESS, &d, &err), 0);
	assert_int_equal(claim_uses(root, &d, add_use, &u), 1);
	assert_int_equal(u.n, 1);
	assert_string_equal(u.text, text);
	not_taken(false, -EBUSY, "is in use: ");
	assert_int_equal(kernel.overrides, 0);
}

static void test_mounted(void **state)
{
	put("/proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
				    "30 21 259:1 / /srv\\040a rw,x shared:1 - ext4 /dev/root rw\n");
	in_use("nvme0n1p1 is mounted on /srv\\040a;");
	/* A file system that has a number of its own. */
	put("/proc/self/mountinfo",
	    "30 21 0:33 /sub /srv rw shared:1 master:2 - btrfs /dev/nvme0n1p1 rw\n");
	in_use("nvme0n1p1 is mounted on /srv;");
	put("/proc/self/mountinfo", "30 21 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n");
	in_use("nvme0n1 is mounted on /srv;");
	/* Lines that make no sense. */
	put("/proc/self/mountinfo", "\n-\n - \n1 2 3\n1 2 259:1\n1 2 259:1 /\n - - - - \n");
	taken(false, false);
}

static void test_swap_and_holders(void **state)
{
	put("/proc/swaps", "Filename Type Size Used Priority\n"
			   "/dev/nvme0n1p1\tpartition\t1\t0\t-2\n");
	in_use("nvme0n1p1 is swap;");
	put("/proc/swaps", "/dev/nvme0n1p11 partition\n/dev/nvme0n12 partition\n");
	put("/sys/class/block/nvme0n1p1/holders/dm-3/x", "");
	in_use("nvme0n1p1 is part of dm-3;");
	remove_tree("/sys/class/block/nvme0n1p1/holders/dm-3");
	put("/sys/class/block/nvme0n1/holders/md0/x", "");
	in_use("nvme0n1 is part of md0;");
	remove_tree("/sys/class/block/nvme0n1/holders/md0");
	taken(false, false);
}

static void test_guests(void **state)
{
	/* The kernel's numbers are hexadecimal there. */
	put("/sys/bus/xen-backend/devices/vbd-7-51712/physical_device", "103:1\n");
	put("/sys/bus/xen-backend/devices/vbd-8-51712/physical_device", "259:1\n");
	put("/sys/bus/xen-backend/devices/vbd-9-51712/physical_device", "\n");
	put("/sys/bus/xen-backend/devices/vif-9-0/physical_device", "103:1\n");
	in_use("nvme0n1p1 is a disk of domain 7, served by the kernel;");
	put("/sys/bus/xen-backend/devices/vbd-7-51712/physical_device", "103:0\n");
	in_use("nvme0n1 is a disk of domain 7, served by the kernel;");
	put("/sys/bus/xen-backend/devices/vbd-7-51712/physical_device", "103:2\n");
	taken(false, false);
}

static void test_loops(void **state)
{
	put("/sys/class/block/loop0/loop/backing_file", "/srv/image\n");
	put("/sys/class/block/loop1/loop/backing_file", "/dev/nvme0n1p11\n");
	put("/sys/class/block/loop2/loop/backing_file", "/dev/nvme0n1p1\n");
	in_use("nvme0n1p1 is behind loop2;");
	put("/sys/class/block/loop2/loop/backing_file", "/dev/nvme0n1\n");
	in_use("nvme0n1 is behind loop2;");
	put("/sys/class/block/loop2/loop/backing_file", "\n");
	taken(false, false);
}

static void test_processes(void **state)
{
	put("/proc/12/comm", "cat\n");
	put_link("/proc/12/fd/0", "/dev/nvme0n1p1-not");
	put_link("/proc/12/fd/1", "/dev/nvme0");
	put("/proc/1234/comm", "qemu\x1b[1m\n");
	put_link("/proc/1234/fd/0", "pipe:[1]");
	put_link("/proc/1234/fd/17", "/dev/nvme0n1p1");
	in_use("nvme0n1p1 is open in process 1234 (qemu?[1m);");
	put_link("/proc/1234/fd/17", "/dev/nvme0n1");
	in_use("nvme0n1 is open in process 1234 (qemu?[1m);");
	/* One use is enough to tell of. */
	put("/proc/swaps", "/dev/nvme0n1 partition\n");
	in_use("nvme0n1 is swap;");
	put("/proc/swaps", "");
	remove_tree("/proc/1234");
	taken(false, false);
}

static void test_open(void **state)
{
	kernel.open = "/dev/nvme0n1p1";
	in_use("nvme0n1p1 is open, and kept from others;");
	kernel.open = "/dev/nvme0n1";
	in_use("nvme0n1 is open, and kept from others;");
	kernel.open = "/dev/nvme0";
	taken(false, false);
}

/* Two uses at once, and force. */
static void test_force(void **state)
{
	struct err err;

	put("/proc/self/mountinfo", "30 21 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw\n");
	put("/proc/swaps", "/dev/nvme0n1p1 partition\n");
	assert_int_equal(claim_take(root, ADDRESS, false, false, &err), -EBUSY);
	assert_non_null(strstr(err.text, "mounted on /srv, and 1 more (end all that"));
	taken(false, true);
}

static void test_other_driver(void **state)
{
	struct err err;

	put_link("/sys/bus/pci/devices/" ADDRESS "/driver", "../../drivers/pciback");
	assert_int_equal(claim_take(root, ADDRESS, false, true, &err), -EBUSY);
	assert_non_null(strstr(err.text, "belongs to the driver \"pciback\""));
	assert_int_equal(claim_give_back(root, ADDRESS, 100, &err), -EBUSY);
	assert_non_null(strstr(err.text, "pciback"));
	/* VFIO of somebody else's making. */
	put_link("/sys/bus/pci/devices/" ADDRESS "/driver", "../../drivers/vfio-pci");
	assert_int_equal(claim_give_back(root, ADDRESS, 100, &err), -EBUSY);
	assert_int_equal(kernel.overrides + kernel.unbinds + kernel.probes, 0);
}

static void test_undone(void **state)
{
	kernel.override_rc = -EACCES;
	not_taken(false, -EACCES, "run as root");
	assert_int_equal(kernel.unbinds, 0);
	kernel.override_rc = 0;
	kernel.unbind_rc = -EIO;
	not_taken(false, -EIO, "does not let go");
	kernel.unbind_rc = 0;
	kernel.unbind_does_nothing = true;
	not_taken(false, -EBUSY, "has the driver \"nvme\" where \"\" was expected");
	kernel.unbind_does_nothing = false;
	taken(false, false);
}

static void test_undone_vfio(void **state)
{
	put_link("/sys/bus/pci/devices/" ADDRESS "/iommu_group",
		 "../../../../kernel/iommu_groups/7");
	put("/sys/kernel/iommu_groups/7/x", "");
	put("/sys/bus/pci/drivers/vfio-pci/unbind", "");
	kernel.no_driver = true;
	/* VFIO does not take it; then nobody does, until there is a driver again. */
	assert_int_equal(claim_take(root, ADDRESS, true, false, NULL), -EBUSY);
	assert_string_equal(get(OVERRIDE), "(null)\n");
	assert_int_equal(kernel.probes, 2);
}

static void test_locked(void **state)
{
	struct err err;
	int fd;

	put("/run/sluice/pci-" ADDRESS ".lock", "1234\n");
	fd = open(in_root("/run/sluice/pci-" ADDRESS ".lock"), O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	not_taken(false, -EBUSY, "in use by process 1234");
	close(fd);
	taken(false, false);
	put("/run/sluice/pci-" ADDRESS ".lock", "1234\n");
	fd = open(in_root("/run/sluice/pci-" ADDRESS ".lock"), O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(claim_give_back(root, ADDRESS, 100, &err), -EBUSY);
	assert_non_null(strstr(err.text, "in use by process 1234"));
	assert_string_equal(get(OVERRIDE), "sluice\n");
	close(fd);
	given_back();
}

static void test_not_back(void **state)
{
	struct err err;

	taken(false, false);
	kernel.no_driver = true;
	assert_int_equal(claim_give_back(root, ADDRESS, 50, &err), -ENODEV);
	assert_non_null(strstr(err.text, "modprobe nvme"));
	kernel.no_driver = false;
	kernel.no_namespace = true;
	assert_int_equal(claim_give_back(root, ADDRESS, 50, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "shows no namespace"));
	unbind();
	kernel.no_namespace = false;
	given_back();
}

/* The commands */

static char *out, *said;

static int run(int argc, char **argv)
{
	size_t out_len, said_len;
	struct client c;
	FILE *f, *e;
	int status;

	free(out);
	free(said);
	f = open_memstream(&out, &out_len);
	e = open_memstream(&said, &said_len);
	client_init(&c, f, e);
	c.root = root;
	c.socket = "/nonexistent";
	status = client_run(&c, argc, argv);
	fclose(f);
	fclose(e);
	return status;
}

#define RUN(...)                                                              \
	run(sizeof((const char *[]){"sluice", __VA_ARGS__}) / sizeof(char *), \
	    (char *[]){(char *)"sluice", __VA_ARGS__})

static void test_commands(void **state)
{
	put("/sys/hypervisor/type", "xen\n");
	put("/sys/hypervisor/guest_type", "PV\n");
	put("/proc/swaps", "/dev/nvme0n1p1 partition\n");
	assert_int_equal(RUN("nvme", "list"), 0);
	assert_string_equal(out,
			    "ADDRESS       OWNER   NAME   MODEL       SERIAL  CONTENTS\n" ADDRESS
			    "  kernel  nvme0  Fast drive  S?1     nvme0n1 1M\n"
			    "    in use: nvme0n1p1 is swap\n");
	assert_int_equal(RUN("nvme", "show", ADDRESS), 1);
	assert_non_null(strstr(said, "nvme smart-log /dev/nvme0"));
	assert_int_equal(RUN("nvme", "claim", "00:04.0"), 1);
	assert_non_null(strstr(said, "--force"));
	assert_int_equal(RUN("nvme", "claim", "00:04.0", "--force"), 0);
	assert_string_equal(out, "drive " ADDRESS " claimed\n");
	assert_string_equal(get(OVERRIDE), "sluice\n");
	assert_int_equal(RUN("nvme", "list"), 0);
	assert_string_equal(out, "ADDRESS       OWNER    NAME  MODEL  SERIAL  CONTENTS\n" ADDRESS
				 "  claimed  -     -      -       -\n");
	assert_int_equal(RUN("nvme", "show", ADDRESS), 1);
	assert_non_null(strstr(said, "sluice bdev create nvme " ADDRESS));
	assert_int_equal(RUN("--json", "nvme", "release", ADDRESS), 0);
	assert_non_null(strstr(out, "\"owner\": \"released\""));
	assert_true(has_driver("/nvme"));

	assert_int_equal(RUN("nvme", "claim", OTHER), 1);
	assert_non_null(strstr(said, "is no NVMe controller"));
	assert_int_equal(RUN("nvme", "claim", "nvme0"), 1);
	assert_non_null(strstr(said, "is no PCI address"));
	put("/sys/hypervisor/guest_type", "PVH\n");
	assert_int_equal(RUN("nvme", "claim", ADDRESS), 1);
	assert_non_null(strstr(said, "without dom0=pvh"));
	/* Without Xen by VFIO. */
	remove_tree("/sys/hypervisor");
	assert_int_equal(RUN("nvme", "claim", ADDRESS, "--force"), 1);
	assert_non_null(strstr(said, "behind no IOMMU"));
	free(out);
	free(said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_take_and_give_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vfio, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mounted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_swap_and_holders, setup, teardown),
		cmocka_unit_test_setup_teardown(test_guests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_processes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_force, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_driver, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undone_vfio, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
