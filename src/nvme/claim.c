/* SPDX-License-Identifier: BSD-2-Clause */
/* The files of sysfs that it takes; claim.h has the idea. */
#include "nvme/claim.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/parse.h"
#include "nvme/sysfs.h"

#define DEVICES "/sys/bus/pci/devices"
/* No driver has this name. */
#define NO_DRIVER   NVME_SYSFS_NO_DRIVER
#define VFIO_DRIVER "vfio-pci"

/* Files */

static int make_path(char *path, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int make_path(char *path, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(path, PATH_MAX, fmt, ap);
	va_end(ap);
	return len < 0 || len >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* The first line of a file, without blanks at its end; empty if there is none. */
static void read_text(const char *path, char *text, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, len - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	for (size_t end = strlen(text); end && text[end - 1] == ' '; end--)
		text[end - 1] = '\0';
	parse_make_printable(text);
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int device_path(const char *root, const char *address, const char *file, char *path)
{
	return make_path(path, "%s" DEVICES "/%s%s%s", root, address, *file ? "/" : "", file);
}

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

/* Calls @each for each name in a directory, sorted, until one returns true. */
static bool each_entry(const char *path, bool (*each)(const char *name, void *arg), void *arg)
{
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort);
	bool found = false;

	if (n < 0)
		return false;
	for (int i = 0; i < n; i++) {
		if (!found && list[i]->d_name[0] != '.')
			found = each(list[i]->d_name, arg);
		free(list[i]);
	}
	free(list);
	return found;
}

/* Drives */

static bool copy_name(const char *name, void *arg)
{
	struct claim_drive *d = arg;

	snprintf(d->name, sizeof(d->name), "%.31s", name);
	return true;
}

static void look(const char *root, struct claim_drive *d)
{
	char path[PATH_MAX];

	if (nvme_sysfs_driver(root, d->address.text, d->driver, sizeof(d->driver)))
		d->driver[0] = '\0';
	if (!device_path(root, d->address.text, "driver_override", path))
		read_text(path, d->override, sizeof(d->override));
	/* That is how the kernel spells none. */
	if (!strcmp(d->override, "(null)"))
		d->override[0] = '\0';
	d->claimed = !strcmp(d->override, d->driver[0] ? VFIO_DRIVER : NO_DRIVER) &&
		     (!d->driver[0] || !strcmp(d->driver, VFIO_DRIVER));
	if (!device_path(root, d->address.text, "nvme", path))
		each_entry(path, copy_name, d);
	if (!d->name[0])
		return;
	if (!make_path(path, "%s/sys/class/nvme/%s/model", root, d->name))
		read_text(path, d->model, sizeof(d->model));
	if (!make_path(path, "%s/sys/class/nvme/%s/serial", root, d->name))
		read_text(path, d->serial, sizeof(d->serial));
	if (!make_path(path, "%s/sys/class/nvme/%s/firmware_rev", root, d->name))
		read_text(path, d->firmware, sizeof(d->firmware));
}

int claim_look(const char *root, const char *address, struct claim_drive *d, struct err *err)
{
	int rc;

	*d = (struct claim_drive){0};
	rc = nvme_pci_parse_address(address, &d->address, err);
	if (!rc)
		rc = nvme_sysfs_check_class(root, d->address.text, err);
	if (!rc)
		look(root, d);
	return rc;
}

struct listing {
	const char *root;
	void (*each)(const struct claim_drive *d, void *arg);
	void *arg;
};

static bool list_one(const char *name, void *arg)
{
	const struct listing *l = arg;
	struct claim_drive d;

	if (!claim_look(l->root, name, &d, NULL))
		l->each(&d, l->arg);
	return false;
}

int claim_list(const char *root, void (*each)(const struct claim_drive *d, void *arg), void *arg,
	       struct err *err)
{
	struct listing l = {root, each, arg};
	char path[PATH_MAX];

	if (make_path(path, "%s" DEVICES, root) || !exists(path))
		return err_set(err, -ENODEV, "there is no %s" DEVICES ": mount sysfs there", root);
	each_entry(path, list_one, &l);
	return 0;
}

/* Block devices */

/* "nvme0n1"; a path of several to it, "nvme0c1n1", counts as what it leads to. */
static bool namespace_name(const char *name, char *out, size_t len)
{
	unsigned subsystem, path, nr;
	int end = 0;

	if (sscanf(name, "nvme%un%u%n", &subsystem, &nr, &end) == 2 && !name[end]) {
		snprintf(out, len, "%.31s", name);
		return true;
	}
	if (sscanf(name, "nvme%uc%un%u%n", &subsystem, &path, &nr, &end) == 3 && !name[end]) {
		snprintf(out, len, "nvme%un%u", subsystem, nr);
		return true;
	}
	return false;
}

struct blocks {
	const char *root;
	void (*each)(const struct blocks *b, const char *device);
	const char *parent;
	void (*use)(const char *device, const char *how, void *arg);
	void (*namespace)(const char *name, uint64_t bytes, void *arg);
	void *arg;
	unsigned *uses;
};

static bool visit_namespace(const char *name, void *arg)
{
	const struct blocks *b = arg;
	char device[32];

	if (namespace_name(name, device, sizeof(device)))
		b->each(b, device);
	return false;
}

static void each_namespace(const struct claim_drive *d, struct blocks *b)
{
	char path[PATH_MAX];

	if (d->name[0] && !make_path(path, "%s/sys/class/nvme/%s", b->root, d->name))
		each_entry(path, visit_namespace, b);
}

static void tell_namespace(const struct blocks *b, const char *device)
{
	char path[PATH_MAX], text[32] = "";
	uint64_t sectors;

	if (!make_path(path, "%s/sys/class/block/%s/size", b->root, device))
		read_text(path, text, sizeof(text));
	if (!parse_u64(text, INT64_MAX / 512, &sectors))
		sectors = 0;
	b->namespace(device, sectors * 512, b->arg);
}

void claim_namespaces(const char *root, const struct claim_drive *d,
		      void (*each)(const char *name, uint64_t bytes, void *arg), void *arg)
{
	struct blocks b = {.root = root, .each = tell_namespace, .namespace = each, .arg = arg};

	each_namespace(d, &b);
}

/* Uses */

static void found(const struct blocks *b, const char *device, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void found(const struct blocks *b, const char *device, const char *fmt, ...)
{
	char how[192];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(how, sizeof(how), fmt, ap);
	va_end(ap);
	parse_make_printable(how);
	++*b->uses;
	b->use(device, how, b->arg);
}

/* Has each line of a file judged, which may change it. */
static void each_line(const struct blocks *b, const char *file, const char *device, dev_t number,
		      void (*each)(const struct blocks *b, const char *device, dev_t number,
				   char *line))
{
	char path[PATH_MAX], *line = NULL;
	size_t room = 0;
	FILE *f;

	if (make_path(path, "%s%s", b->root, file))
		return;
	f = fopen(path, "re");
	if (!f)
		return;
	while (getline(&line, &room, f) > 0)
		each(b, device, number, line);
	free(line);
	fclose(f);
}

static bool names_device(const char *source, const char *device)
{
	return !strncmp(source, "/dev/", 5) && !strcmp(source + 5, device);
}

/* A line of mountinfo(5): by number, or by source where a file system has a number of its own. */
static void judge_mount(const struct blocks *b, const char *device, dev_t number, char *line)
{
	char *where = NULL, *dash = strstr(line, " - "), *source = NULL, *save;
	unsigned maj = 0, min = 0;

	/* After the dash: type, source, options. */
	if (dash) {
		strtok_r(dash + 3, " ", &save);
		source = strtok_r(NULL, " \n", &save);
		*dash = '\0';
	}
	/* Two numbers, the device's, root, mount point. */
	strtok_r(line, " ", &save);
	for (int field = 1; field <= 4; field++) {
		char *text = strtok_r(NULL, " ", &save);

		if (text && field == 2 && sscanf(text, "%u:%u", &maj, &min) != 2)
			maj = min = 0;
		where = text;
	}
	if (where && (makedev(maj, min) == number || (source && names_device(source, device))))
		found(b, device, "is mounted on %s", where);
}

static void judge_swap(const struct blocks *b, const char *device, dev_t number, char *line)
{
	line[strcspn(line, " \t\n")] = '\0';
	if (names_device(line, device))
		found(b, device, "is swap");
}

static bool find_holder(const char *name, void *arg)
{
	const struct blocks *b = arg;

	found(b, b->parent, "is part of %s", name);
	return false;
}

struct guests {
	const struct blocks *blocks;
	const char *device;
	dev_t number;
};

/* A disk of the kernel's block backend, "vbd-DOMID-DEVID". */
static bool find_guest(const char *name, void *arg)
{
	const struct guests *g = arg;
	char path[PATH_MAX], text[32] = "";
	unsigned maj, min, domid, devid;

	if (sscanf(name, "vbd-%u-%u", &domid, &devid) != 2)
		return false;
	if (!make_path(path, "%s/sys/bus/xen-backend/devices/%s/physical_device", g->blocks->root,
		       name))
		read_text(path, text, sizeof(text));
	if (sscanf(text, "%x:%x", &maj, &min) == 2 && makedev(maj, min) == g->number)
		found(g->blocks, g->device, "is a disk of domain %u, served by the kernel", domid);
	return false;
}

/* A loop device on the block device, which keeps nobody from opening that. */
static bool find_loop(const char *name, void *arg)
{
	const struct blocks *b = arg;
	char path[PATH_MAX], file[64] = "", wanted[48];

	if (strncmp(name, "loop", 4))
		return false;
	if (!make_path(path, "%s/sys/class/block/%s/loop/backing_file", b->root, name))
		read_text(path, file, sizeof(file));
	snprintf(wanted, sizeof(wanted), "/dev/%.32s", b->parent);
	if (!strcmp(file, wanted))
		found(b, b->parent, "is behind %s", name);
	return false;
}

struct process {
	const struct blocks *blocks;
	const char *name; /* its number */
	char wanted[48];
};

static bool is_wanted(const char *fd, void *arg)
{
	const struct process *p = arg;
	char path[PATH_MAX], file[sizeof(p->wanted)];
	ssize_t n = -1;

	if (!make_path(path, "%s/proc/%s/fd/%s", p->blocks->root, p->name, fd))
		n = readlink(path, file, sizeof(file) - 1);
	file[n > 0 ? n : 0] = '\0';
	return !strcmp(file, p->wanted);
}

/* A process that has it open, as programs that serve virtual machines do, and keeps nobody out. */
static bool find_process(const char *name, void *arg)
{
	const struct blocks *b = arg;
	struct process p = {.blocks = b, .name = name};
	char path[PATH_MAX], comm[32] = "";
	uint32_t pid;

	snprintf(p.wanted, sizeof(p.wanted), "/dev/%.32s", b->parent);
	if (!parse_u32(name, INT32_MAX, &pid) || make_path(path, "%s/proc/%s/fd", b->root, name) ||
	    !each_entry(path, is_wanted, &p))
		return false;
	if (!make_path(path, "%s/proc/%s/comm", b->root, name))
		read_text(path, comm, sizeof(comm));
	found(b, b->parent, "is open in process %s (%s)", name, comm);
	return true;
}

static dev_t device_number(const struct blocks *b, const char *device)
{
	char path[PATH_MAX], text[32] = "";
	unsigned maj, min;

	if (!make_path(path, "%s/sys/class/block/%s/dev", b->root, device))
		read_text(path, text, sizeof(text));
	return sscanf(text, "%u:%u", &maj, &min) == 2 ? makedev(maj, min) : 0;
}

/* The last question, which finds also what other mount namespaces hide: only one user can have it.
 */
static void find_opener(const struct blocks *b, const char *device)
{
	char path[PATH_MAX];
	int fd;

	if (make_path(path, "%s/dev/%s", b->root, device))
		return;
	fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	else if (errno == EBUSY)
		found(b, device, "is open, and kept from others");
}

static void find_uses(const struct blocks *b, const char *device)
{
	struct blocks here = *b;
	struct guests guests = {b, device, device_number(b, device)};
	unsigned before = *b->uses;
	char path[PATH_MAX];

	here.parent = device;
	if (guests.number) {
		each_line(b, "/proc/self/mountinfo", device, guests.number, judge_mount);
		if (!make_path(path, "%s/sys/bus/xen-backend/devices", b->root))
			each_entry(path, find_guest, &guests);
	}
	each_line(b, "/proc/swaps", device, guests.number, judge_swap);
	if (!make_path(path, "%s/sys/class/block/%s/holders", b->root, device))
		each_entry(path, find_holder, &here);
	if (!make_path(path, "%s/sys/class/block", b->root))
		each_entry(path, find_loop, &here);
	if (*b->uses == before && !make_path(path, "%s/proc", b->root))
		each_entry(path, find_process, &here);
	if (*b->uses == before)
		find_opener(b, device);
}

static bool visit_partition(const char *name, void *arg)
{
	const struct blocks *b = arg;
	char path[PATH_MAX];

	if (!make_path(path, "%s/sys/class/block/%s/%s/partition", b->root, b->parent, name) &&
	    exists(path))
		find_uses(b, name);
	return false;
}

static void find_all_uses(const struct blocks *b, const char *device)
{
	struct blocks here = *b;
	unsigned before = *b->uses;
	char path[PATH_MAX];

	here.parent = device;
	if (!make_path(path, "%s/sys/class/block/%s", b->root, device))
		each_entry(path, visit_partition, &here);
	/* A partition in use shows in the whole as well. */
	if (*b->uses == before)
		find_uses(b, device);
}

unsigned claim_uses(const char *root, const struct claim_drive *d,
		    void (*each)(const char *device, const char *how, void *arg), void *arg)
{
	unsigned uses = 0;
	struct blocks b = {
		.root = root, .each = find_all_uses, .use = each, .arg = arg, .uses = &uses};

	each_namespace(d, &b);
	return uses;
}

/* Taking */

static int set_override(const char *root, const char *address, const char *driver)
{
	char path[PATH_MAX];
	int rc = device_path(root, address, "driver_override", path);

	/* A newline alone clears it. */
	return rc ? rc : write_text(path, *driver ? driver : "\n");
}

static int unbind(const char *root, const char *address)
{
	char path[PATH_MAX];
	int rc = device_path(root, address, "driver/unbind", path);

	return rc ? rc : write_text(path, address);
}

/* Has the kernel look for the device's driver. */
static int probe(const char *root, const char *address)
{
	char path[PATH_MAX];
	int rc = make_path(path, "%s/sys/bus/pci/drivers_probe", root);

	return rc ? rc : write_text(path, address);
}

static void first_use(const char *device, const char *how, void *arg)
{
	char *text = arg;

	if (!*text)
		snprintf(text, 256, "%s %s", device, how);
}

static int check_free(const char *root, const struct claim_drive *d, struct err *err)
{
	char use[256] = "";
	unsigned uses = claim_uses(root, d, first_use, use);

	if (!uses)
		return 0;
	if (uses == 1)
		return err_set(err, -EBUSY,
			       "drive %s is in use: %s (end that, or lose it with --force)",
			       d->address.text, use);
	return err_set(err, -EBUSY,
		       "drive %s is in use: %s, and %u more (end all that, or lose it with "
		       "--force)",
		       d->address.text, use, uses - 1);
}

static int check_vfio(const char *root, const struct claim_drive *d, struct err *err)
{
	char path[PATH_MAX];

	if (device_path(root, d->address.text, "iommu_group", path) || !exists(path))
		return err_set(err, -EOPNOTSUPP,
			       "drive %s is behind no IOMMU: boot with intel_iommu=on or "
			       "amd_iommu=on, and switch it on in the firmware",
			       d->address.text);
	if (make_path(path, "%s/sys/bus/pci/drivers/" VFIO_DRIVER, root) || !exists(path))
		return err_set(err, -ENODEV,
			       "the kernel's driver " VFIO_DRIVER
			       " is not there: modprobe " VFIO_DRIVER);
	return 0;
}

/* Makes sure that the device has the driver @wanted, or none. */
static int check_bound(const char *root, const char *address, const char *wanted, struct err *err)
{
	char driver[32] = "?";
	int rc = nvme_sysfs_driver(root, address, driver, sizeof(driver));

	if (!rc && !strcmp(driver, wanted))
		return 0;
	return err_set(err, rc ? rc : -EBUSY,
		       "drive %s has the driver \"%s\" where \"%s\" was expected (see dmesg)",
		       address, driver, wanted);
}

/* The drive as it was before; what fails now has failed before, and is said there. */
static void undo(const char *root, const struct claim_drive *d)
{
	set_override(root, d->address.text, d->override);
	if (d->driver[0])
		probe(root, d->address.text);
}

static int take(const char *root, const struct claim_drive *d, bool vfio, struct err *err)
{
	const char *address = d->address.text;
	const char *driver = vfio ? VFIO_DRIVER : NO_DRIVER;
	int rc = set_override(root, address, driver);

	if (rc)
		return err_set(err, rc, "cannot set the driver of %s: %s (run as root)", address,
			       strerror(-rc));
	rc = d->driver[0] ? unbind(root, address) : 0;
	if (rc)
		err_set(err, rc, "the kernel's driver does not let go of drive %s: %s", address,
			strerror(-rc));
	if (!rc && vfio) {
		rc = probe(root, address);
		if (rc)
			err_set(err, rc, "cannot bind drive %s to " VFIO_DRIVER ": %s", address,
				strerror(-rc));
	}
	if (!rc)
		rc = check_bound(root, address, vfio ? VFIO_DRIVER : "", err);
	if (rc)
		undo(root, d);
	return rc;
}

int claim_take(const char *root, const char *address, bool vfio, bool force, struct err *err)
{
	struct claim_drive d;
	int lock, rc = claim_look(root, address, &d, err);

	if (rc)
		return rc;
	lock = nvme_sysfs_lock(root, d.address.text, err);
	if (lock < 0)
		return lock;
	/* Anew, behind the lock. */
	rc = claim_look(root, address, &d, err);
	if (!rc && !d.claimed) {
		if (d.driver[0] && strcmp(d.driver, "nvme"))
			rc = err_set(err, -EBUSY,
				     "drive %s belongs to the driver \"%s\": take it away from "
				     "whatever that serves first",
				     d.address.text, d.driver);
		if (!rc && vfio)
			rc = check_vfio(root, &d, err);
		if (!rc && !force)
			rc = check_free(root, &d, err);
		if (!rc)
			rc = take(root, &d, vfio, err);
	}
	close(lock);
	return rc;
}

/* Giving back */

/* Whether somebody has the device open by VFIO: unbinding would wait for him, for ever perhaps. */
static int check_vfio_free(const char *root, const char *address, struct err *err)
{
	char path[PATH_MAX], link[PATH_MAX];
	const char *group;
	ssize_t n;
	int fd;

	if (device_path(root, address, "iommu_group", path))
		return 0;
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0)
		return 0;
	link[n] = '\0';
	group = strrchr(link, '/');
	if (make_path(path, "%s/dev/vfio/%s", root, group ? group + 1 : link))
		return 0;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	else if (errno == EBUSY)
		return err_set(err, -EBUSY,
			       "drive %s is in use by way of VFIO (%s): end that process first",
			       address, path);
	return 0;
}

static void count_namespace(const char *name, uint64_t bytes, void *arg)
{
	unsigned *n = arg;

	++*n;
}

static int wait_for_kernel(const char *root, const char *address, unsigned timeout_ms,
			   struct err *err)
{
	uint64_t end = clock_now_ns() + timeout_ms * NSEC_PER_MSEC;
	struct claim_drive d;
	int rc;

	for (;;) {
		const struct timespec nap = {0, 20 * (long)NSEC_PER_MSEC};
		unsigned namespaces = 0;

		rc = claim_look(root, address, &d, err);
		if (rc)
			return rc;
		claim_namespaces(root, &d, count_namespace, &namespaces);
		if (namespaces)
			return 0;
		if (clock_now_ns() >= end)
			break;
		nanosleep(&nap, NULL);
	}
	if (!d.driver[0])
		return err_set(err, -ENODEV,
			       "drive %s is given back, but no driver takes it: modprobe nvme",
			       address);
	return err_set(err, -ETIMEDOUT,
		       "drive %s is given back, but driver %s shows no namespace of it after %u "
		       "s: see dmesg",
		       address, d.driver, timeout_ms / 1000);
}

static int give_back(const char *root, const struct claim_drive *d, unsigned timeout_ms,
		     struct err *err)
{
	const char *address = d->address.text;
	int rc = 0;

	if (d->driver[0])
		rc = check_vfio_free(root, address, err);
	if (rc)
		return rc;
	rc = set_override(root, address, "");
	if (rc)
		return err_set(err, rc, "cannot set the driver of %s: %s (run as root)", address,
			       strerror(-rc));
	rc = d->driver[0] ? unbind(root, address) : 0;
	if (rc) {
		set_override(root, address, d->driver);
		return err_set(err, rc, "driver %s does not let go of drive %s: %s", d->driver,
			       address, strerror(-rc));
	}
	rc = probe(root, address);
	if (rc)
		return err_set(err, rc, "the kernel's driver does not take drive %s back: %s",
			       address, strerror(-rc));
	return wait_for_kernel(root, address, timeout_ms, err);
}

int claim_give_back(const char *root, const char *address, unsigned timeout_ms, struct err *err)
{
	struct claim_drive d;
	int lock, rc = claim_look(root, address, &d, err);

	if (rc)
		return rc;
	lock = nvme_sysfs_lock(root, d.address.text, err);
	if (lock < 0)
		return lock;
	rc = claim_look(root, address, &d, err);
	if (!rc && strcmp(d.driver, "nvme")) {
		if (d.driver[0] && !d.claimed)
			rc = err_set(err, -EBUSY,
				     "drive %s belongs to the driver \"%s\", which was not bound "
				     "by \"sluice nvme claim\": unbind it by hand",
				     d.address.text, d.driver);
		else
			rc = give_back(root, &d, timeout_ms, err);
	}
	close(lock);
	return rc;
}
