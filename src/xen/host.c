/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Reads the first word of a file of sysfs into @word; false if there is none. */
static bool read_word(const char *root, const char *path, char *word, size_t len)
{
	char full[PATH_MAX];
	ssize_t n;
	int fd;

	snprintf(full, sizeof(full), "%s%s", root, path);
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, word, len - 1);
	close(fd);
	if (n <= 0)
		return false;
	word[n] = '\0';
	word[strcspn(word, " \n")] = '\0';
	return true;
}

int xen_host_check(const char *root, struct err *err)
{
	static const char *const devices[][2] = {
		{"/dev/xen/evtchn", "xen-evtchn"},
		{"/dev/xen/gntdev", "xen-gntdev"},
	};
	char type[32], path[PATH_MAX];

	if (!read_word(root, "/sys/hypervisor/type", type, sizeof(type)) || strcmp(type, "xen"))
		return err_set(
			err, -ENODEV,
			"no Xen on this host: disks of Xen guests are served in a PV dom0 (boot "
			"the host with Xen)");
	if (read_word(root, "/sys/hypervisor/guest_type", type, sizeof(type)) && strcmp(type, "PV"))
		return err_set(
			err, -EOPNOTSUPP,
			"this domain is of type %s: sluiced needs a PV dom0 (boot Xen without "
			"dom0=pvh)",
			type);
	for (unsigned i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", root, devices[i][0]);
		if (access(path, R_OK | W_OK))
			return err_set(err, -ENOENT,
				       "cannot use %s: %s (modprobe %s, and run as root)",
				       devices[i][0], strerror(errno), devices[i][1]);
	}
	return 0;
}

int xen_host_kernel_has(const char *root, const char *device)
{
	char path[PATH_MAX], driver[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/sys/bus/xen-backend/devices/%s/driver", root, device);
	n = readlink(path, driver, sizeof(driver) - 1);
	if (n > 0)
		return 1;
	snprintf(path, sizeof(path), "%s/sys/bus/xen-backend/drivers/vbd", root);
	return access(path, F_OK) ? -1 : 0;
}

int xen_host_kernel_release(const char *root, const char *device, struct err *err)
{
	char path[PATH_MAX];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/sys/bus/xen-backend/devices/%s/driver/unbind", root,
		 device);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		rc = -errno;
	else if (write(fd, device, strlen(device)) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	/* ENODEV: it has let go by itself. */
	if (rc && rc != -ENODEV && rc != -ENOENT)
		return err_set(err, rc,
			       "the kernel's block backend has %s and does not let go: %s (rmmod "
			       "xen-blkback, or serve another kind by --backend)",
			       device, strerror(-rc));
	return 0;
}
