/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A drive by sysfs: its files under /sys/bus/pci/devices are all it takes to drive a device from
 * user space where the hypervisor hands out the bus addresses.  `resource0` maps the registers,
 * `config` is the configuration space, and `enable` has the kernel switch on the device's memory
 * and wake it up.
 *
 * sysfs itself gives these files to anybody who is root, so two processes could drive one drive.  A
 * lock in /run/sluice keeps those away from each other that ask.  The kernel's driver is seen by
 * the link `driver`; and so that none comes later, with a rescan of the bus for instance, the drive
 * is said to want a driver that does not exist (driver_override).  `sluice nvme claim` has said so
 * already, as a rule.
 */
#include "nvme/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "nvme/bar.h"
#include "nvme/spec.h"

#define DEVICES "/sys/bus/pci/devices"
#define LOCKS   "/run/sluice"

struct sysfs {
	struct nvme_pci pci;
	struct nvme_pci_address address;
	char dir[PATH_MAX];
	int lock_fd;
	int config_fd;
	bool enabled;
};

static struct sysfs *sysfs_of(struct nvme_pci *pci)
{
	return container_of(pci, struct sysfs, pci);
}

static int config_read(struct nvme_pci *pci, unsigned offset, void *data, size_t len)
{
	ssize_t n = pread(sysfs_of(pci)->config_fd, data, len, (off_t)offset);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

static int config_write(struct nvme_pci *pci, unsigned offset, const void *data, size_t len)
{
	ssize_t n = pwrite(sysfs_of(pci)->config_fd, data, len, (off_t)offset);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

/* Reads the first line of a file in @dir to @text. Returns 0 or a negative errno. */
static int read_line(const char *dir, const char *name, char *text, size_t len)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd, rc = 0;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, len - 1);
	if (n < 0)
		rc = -errno;
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	close(fd);
	return rc;
}

static int write_text(const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX];
	int fd, rc = 0;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int device_dir(const char *root, const char *address, char *dir, size_t len)
{
	return snprintf(dir, len, "%s" DEVICES "/%s", root, address) < (int)len ? 0 : -ENAMETOOLONG;
}

int nvme_sysfs_check_class(const char *root, const char *address, struct err *err)
{
	char dir[PATH_MAX], class[16];
	int rc = device_dir(root, address, dir, sizeof(dir));

	if (!rc)
		rc = read_line(dir, "class", class, sizeof(class));
	if (rc == -ENOENT)
		return err_set(
			err, -ENODEV,
			"there is no PCI device %s: see which drives there are with \"sluice "
			"nvme list\"",
			address);
	if (rc)
		return err_set(err, rc, "cannot look at PCI device %s: %s", address, strerror(-rc));
	if (strtoul(class, NULL, 16) != NVME_PCI_CLASS_CODE)
		return err_set(err, -ENODEV,
			       "PCI device %s is no NVMe controller (its class is %s): see which "
			       "there are with \"sluice nvme list\"",
			       address, class);
	return 0;
}

int nvme_sysfs_driver(const char *root, const char *address, char *driver, size_t len)
{
	char dir[PATH_MAX], path[PATH_MAX], target[PATH_MAX];
	const char *name;
	ssize_t n;

	driver[0] = '\0';
	if (device_dir(root, address, dir, sizeof(dir)) ||
	    snprintf(path, sizeof(path), "%s/driver", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	target[n] = '\0';
	name = strrchr(target, '/');
	snprintf(driver, len, "%s", name ? name + 1 : target);
	return 0;
}

/* Who says in the lock's file to have it. */
static long lock_holder(int fd)
{
	char text[24] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	return pid > 0 ? pid : 0;
}

int nvme_sysfs_lock(const char *root, const char *address, struct err *err)
{
	char path[PATH_MAX], text[24];
	int fd, rc, len;

	snprintf(path, sizeof(path), "%s" LOCKS, root);
	if (mkdir(path, 0755) && errno != EEXIST)
		return err_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
	snprintf(path, sizeof(path), "%s" LOCKS "/pci-%s.lock", root, address);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(err, -errno, "cannot open %s: %s (run as root)", path,
			       strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		long pid = lock_holder(fd);

		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		if (rc == -EBUSY && pid)
			return err_set(err, rc,
				       "drive %s is in use by process %ld: detach it there (sluice "
				       "nvme detach), or end that process",
				       address, pid);
		return err_set(err, rc, "cannot lock %s: %s", path, strerror(-rc));
	}
	/* The file stays when the lock goes: to remove it would let two have one each. */
	len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)len, 0) != len)
		log_warning("cannot write to %s: %s", path, strerror(errno));
	return fd;
}

/* Has the kernel switch the device's memory on, and wake it up. */
static int enable(struct sysfs *s, struct err *err)
{
	char text[16];
	int rc;

	/* So that nothing puts it to sleep again; a kernel without power management has no such
	 * file. */
	rc = write_text(s->dir, "power/control", "on");
	if (rc && rc != -ENOENT)
		log_warning("%s: cannot keep it awake: %s", s->address.text, strerror(-rc));
	rc = read_line(s->dir, "enable", text, sizeof(text));
	/* It counts. One that a killed process has left is taken over. */
	if (!rc && !strcmp(text, "0"))
		rc = write_text(s->dir, "enable", "1");
	s->enabled = !rc;
	if (rc)
		return err_set(err, rc, "cannot enable PCI device %s: %s (run as root)",
			       s->address.text, strerror(-rc));
	if (!read_line(s->dir, "power_state", text, sizeof(text)) && text[0] == 'D' &&
	    strcmp(text, "D0"))
		return err_set(err, -EIO,
			       "PCI device %s stays in power state %s: power-cycle the host",
			       s->address.text, text);
	return 0;
}

static int keep_drivers_away(struct sysfs *s, struct err *err)
{
	char text[64];
	int rc = read_line(s->dir, "driver_override", text, sizeof(text));

	if (!rc && strcmp(text, NVME_SYSFS_NO_DRIVER))
		rc = write_text(s->dir, "driver_override", NVME_SYSFS_NO_DRIVER);
	if (rc)
		return err_set(err, rc,
			       "cannot keep the kernel's drivers away from drive %s: %s (run as "
			       "root)",
			       s->address.text, strerror(-rc));
	return 0;
}

static int open_config(struct sysfs *s, struct err *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%.*s/config", PATH_MAX - 16, s->dir);
	s->config_fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->config_fd < 0)
		return err_set(err, -errno, "cannot open %s: %s (run as root)", path,
			       strerror(errno));
	return 0;
}

static int map_bar(struct sysfs *s, struct err *err)
{
	char path[PATH_MAX];
	struct stat st;
	int fd, rc;

	snprintf(path, sizeof(path), "%.*s/resource0", PATH_MAX - 16, s->dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
	rc = fstat(fd, &st) ? -errno : 0;
	if (!rc) {
		s->pci.bar_len = st.st_size < NVME_BAR_MAX ? (size_t)st.st_size : NVME_BAR_MAX;
		rc = nvme_bar_map(fd, 0, s->pci.bar_len, &s->pci.bar);
	}
	close(fd);
	if (rc == -EPERM)
		return err_set(err, rc,
			       "the kernel does not let %s be mapped: boot without Secure Boot's "
			       "lockdown, and without iomem=strict",
			       path);
	if (rc)
		return err_set(err, rc, "cannot map %s: %s", path, strerror(-rc));
	return 0;
}

static void sysfs_close(struct nvme_pci *pci)
{
	struct sysfs *s = sysfs_of(pci);

	if (pci->bar)
		nvme_bar_unmap(pci->bar);
	if (s->config_fd >= 0)
		close(s->config_fd);
	/* That fails if the drive is gone, and does not matter then. */
	if (s->enabled)
		write_text(s->dir, "enable", "0");
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s);
}

static const struct nvme_pci_ops sysfs_ops = {config_read, config_write, sysfs_close};

static int check_driver(const char *root, const char *address, struct err *err)
{
	char driver[64];
	int rc = nvme_sysfs_driver(root, address, driver, sizeof(driver));

	if (rc)
		return err_set(err, rc, "cannot look at PCI device %s: %s", address, strerror(-rc));
	if (driver[0])
		return err_set(
			err, -EBUSY,
			"drive %s belongs to the kernel's driver \"%s\": take it by \"sluice "
			"nvme claim %s\"",
			address, driver, address);
	return 0;
}

int nvme_sysfs_open_in(const char *root, const char *address, struct nvme_pci **out,
		       struct err *err)
{
	struct sysfs *s = calloc(1, sizeof(*s));
	const char *name;
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	s->lock_fd = s->config_fd = -1;
	s->pci.ops = &sysfs_ops;
	s->pci.name = name = s->address.text;
	rc = nvme_pci_parse_address(address, &s->address, err);
	if (!rc && device_dir(root, name, s->dir, sizeof(s->dir)))
		rc = err_set(err, -ENAMETOOLONG, "%s: its path is too long", name);
	if (!rc)
		rc = nvme_sysfs_check_class(root, name, err);
	if (!rc) {
		s->lock_fd = nvme_sysfs_lock(root, name, err);
		rc = s->lock_fd < 0 ? s->lock_fd : 0;
	}
	/* Behind the lock, which whoever gives drives back takes as well; and none comes between.
	 */
	if (!rc)
		rc = check_driver(root, name, err);
	if (!rc)
		rc = keep_drivers_away(s, err);
	if (!rc)
		rc = check_driver(root, name, err);
	if (!rc)
		rc = enable(s, err);
	if (!rc)
		rc = open_config(s, err);
	if (!rc)
		rc = map_bar(s, err);
	if (rc) {
		sysfs_close(&s->pci);
		return rc;
	}
	*out = &s->pci;
	return 0;
}

int nvme_sysfs_open(const char *address, struct nvme_pci **out, struct err *err)
{
	return nvme_sysfs_open_in("", address, out, err);
}
