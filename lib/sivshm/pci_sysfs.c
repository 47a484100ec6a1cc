/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device by sysfs: `enable` switches its memory on, `resource0` and `resource2` map it.  No
 * interrupt gets out of sysfs, so rings of the other side's do not arrive; ringing works.
 *
 * One process has the device at a time, as with VFIO: who has it holds a lock on `resource2`, which
 * goes with the process.
 */
#include "pci.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	CONFIG_LEN = 256,
	CAPABILITY_FIRST = 64,
};

static int open_file(const char *dir, const char *name, int flags)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Returns the bytes read or a negative errno. */
static ssize_t read_file(const char *dir, const char *name, void *data, size_t len)
{
	int fd = open_file(dir, name, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = pread(fd, data, len, 0);
	n = n < 0 ? -errno : n;
	close(fd);
	return n;
}

int sivshm_pci_sysfs_number(const char *dir, const char *name, uint64_t *out)
{
	char text[32], *end;
	ssize_t n = read_file(dir, name, text, sizeof(text) - 1);

	if (n < 0)
		return (int)n;
	text[n] = '\0';
	errno = 0;
	*out = strtoull(text, &end, 0);
	return errno || end == text ? -EIO : 0;
}

int sivshm_pci_sysfs_has_vfio(const char *dir)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *name;
	ssize_t n;

	if (snprintf(path, sizeof(path), "%s/driver", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	target[n] = '\0';
	name = strrchr(target, '/');
	return name && !strcmp(name, "/vfio-pci") ? 1 : -EBUSY;
}

static int write_file(const char *dir, const char *name, const char *text)
{
	int rc, fd = open_file(dir, name, O_WRONLY);

	if (fd < 0)
		return fd;
	rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* The kernel counts who enables; one count that a killed process has left is taken over. */
static int enable(struct sivshm_pci *pci)
{
	uint64_t count;
	int rc = sivshm_pci_sysfs_number(pci->dir, "enable", &count);

	if (!rc && !count) {
		rc = write_file(pci->dir, "enable", "1");
		pci->enabled = !rc;
	}
	return rc;
}

/* Its vectors are as many as it can signal, by the capability that says so. */
static int count_vectors(struct sivshm_pci *pci)
{
	uint8_t config[CONFIG_LEN];
	ssize_t n = read_file(pci->dir, "config", config, sizeof(config));
	unsigned at, left = CONFIG_LEN / PCI_CAP_SIZEOF;

	if (n < 0)
		return (int)n;
	if (n < CONFIG_LEN)
		return -EACCES; /* others than root are shown the first 64 bytes */
	at = config[PCI_CAPABILITY_LIST] & ~3u;
	for (; at >= CAPABILITY_FIRST && left; left--) {
		if (config[at] == PCI_CAP_ID_MSIX) {
			unsigned flags = config[at + PCI_MSIX_FLAGS] |
					 (unsigned)config[at + PCI_MSIX_FLAGS + 1] << 8;

			pci->port.vectors = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
			if (pci->port.vectors > SIVSHM_VECTORS_MAX)
				pci->port.vectors = SIVSHM_VECTORS_MAX;
			return 0;
		}
		at = config[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
	return -EPROTO;
}

/* Maps @len bytes of a BAR, or all of it with @len 0, as *@size says then. */
static int map_bar(int fd, size_t len, void **at, size_t *size)
{
	void *mapped;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!len) {
		if (!sivshm_pci_size_is_sane((uint64_t)st.st_size))
			return -EPROTO;
		len = (size_t)st.st_size;
		*size = len;
	}
	mapped = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped == MAP_FAILED)
		return -errno;
	*at = mapped;
	return 0;
}

static int map_registers(struct sivshm_pci *pci)
{
	int rc, fd = open_file(pci->dir, "resource0", O_RDWR);
	uint64_t start;

	if (fd < 0)
		return fd;
	/* What is mapped is the page in which they lie. */
	rc = sivshm_pci_sysfs_number(pci->dir, "resource", &start);
	if (!rc && start % SIVSHM_PCI_PAGE > SIVSHM_PCI_PAGE - SIVSHM_PCI_REGISTERS)
		rc = -EPROTO;
	if (!rc)
		rc = map_bar(fd, SIVSHM_PCI_PAGE, &pci->registers_page, NULL);
	if (!rc)
		pci->registers = (void *)((char *)pci->registers_page + start % SIVSHM_PCI_PAGE);
	close(fd);
	return rc;
}

static int map_memory(struct sivshm_pci *pci)
{
	int fd = open_file(pci->dir, "resource2", O_RDWR);

	if (fd < 0)
		return fd;
	pci->lock_fd = fd;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return map_bar(fd, 0, &pci->port.memory, &pci->port.size);
}

int sivshm_pci_sysfs_open(struct sivshm_pci *pci)
{
	/* The lock comes first: what another process has enabled is not ours to disable. */
	int rc = map_memory(pci);

	if (!rc)
		rc = enable(pci);
	if (!rc)
		rc = count_vectors(pci);
	if (!rc)
		rc = map_registers(pci);
	return rc;
}

void sivshm_pci_sysfs_close(struct sivshm_pci *pci)
{
	if (pci->enabled)
		write_file(pci->dir, "enable", "0");
	sivshm_close_fd(&pci->lock_fd);
}
