/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's port: the device ivshmem-doorbell, found on the PCI bus, by VFIO if it is bound to
 * vfio-pci, and else by sysfs.
 *
 * What the device says comes from the host, which can do with its guest what it likes; but a
 * program in the guest should end with an error then, and not by a signal.  So sizes are judged,
 * and the own ID: the device of an ordinary IVSHMEM server, whose memory others reach too, is seen
 * by an ID that no worker has.
 *
 * The device says nothing of peers that come and go, so a guest never knows that the manager is
 * gone; the manager sees the end of a guest at its QEMU's socket.
 */
#include "pci.h"

#include <ctype.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"

enum {
	VENDOR = 0x1af4,
	DEVICE = 0x1110,
	NAP_NS = 250000,
};

static struct sivshm_pci *pci_of(struct sivshm_port *p)
{
	return SIVSHM_CONTAINER_OF(p, struct sivshm_pci, port);
}

static int pci_ring(struct sivshm_port *p, unsigned vector)
{
	/* What was written to the segment comes before it: both are memory, and the compiler's to
	 * move. */
	atomic_thread_fence(memory_order_seq_cst);
	pci_of(p)->registers[SIVSHM_PCI_DOORBELL] = htole32(p->peer << 16 | vector);
	return 0;
}

static int pci_fd(const struct sivshm_port *p, unsigned vector)
{
	const struct sivshm_pci *pci = SIVSHM_CONTAINER_OF(p, const struct sivshm_pci, port);

	return pci->fds[vector] < 0 ? -EOPNOTSUPP : pci->fds[vector];
}

static int pci_take(struct sivshm_port *p, unsigned vector)
{
	int fd = pci_fd(p, vector);

	return fd < 0 ? fd : sivshm_eventfd_take(fd);
}

static int pci_wait(struct sivshm_port *p, unsigned vector, int timeout_ms)
{
	struct timespec nap = {.tv_nsec = NAP_NS};
	int fd = pci_fd(p, vector);

	if (fd >= 0)
		return sivshm_eventfd_wait(fd, -1, timeout_ms);
	if (timeout_ms)
		nanosleep(&nap, NULL);
	return 1;
}

static int pci_liveness_fd(const struct sivshm_port *p)
{
	(void)p;
	return -EOPNOTSUPP;
}

static int pci_is_alive(struct sivshm_port *p)
{
	(void)p;
	return -EOPNOTSUPP;
}

static void pci_close(struct sivshm_port *p)
{
	struct sivshm_pci *pci = pci_of(p);

	if (p->memory)
		munmap(p->memory, p->size);
	if (pci->registers_page)
		munmap(pci->registers_page, SIVSHM_PCI_PAGE);
	sivshm_pci_sysfs_close(pci);
	sivshm_pci_vfio_close(pci);
	free(pci);
}

static const struct sivshm_port_ops pci_ops = {
	.ring = pci_ring,
	.fd = pci_fd,
	.take = pci_take,
	.wait = pci_wait,
	.liveness_fd = pci_liveness_fd,
	.is_alive = pci_is_alive,
	.close = pci_close,
};

/* Finding it */

/* Returns 1 if the device of @dir is an ivshmem device, 0, or a negative errno. */
static int is_ivshmem(const char *dir)
{
	uint64_t vendor, device;
	int rc = sivshm_pci_sysfs_number(dir, "vendor", &vendor);

	if (!rc)
		rc = sivshm_pci_sysfs_number(dir, "device", &device);
	return rc ? rc : vendor == VENDOR && device == DEVICE;
}

static int device_dir(const char *root, const char *address, char *dir)
{
	return snprintf(dir, SIVSHM_PCI_DIR_LEN, "%s" DEVICES "/%s", root, address) <
			       SIVSHM_PCI_DIR_LEN
		       ? 0
		       : -ENAMETOOLONG;
}

/* An address as the kernel writes it, or without the domain; nothing that leads elsewhere. */
static int find_address(const char *root, const char *address, char *dir)
{
	char whole[32];
	unsigned colons = 0;
	int rc;

	for (const char *c = address; *c; c++) {
		if (!isxdigit((unsigned char)*c) && *c != ':' && *c != '.')
			return -EINVAL;
		colons += *c == ':';
	}
	if (colons < 1 || colons > 2 || !isxdigit((unsigned char)*address) ||
	    snprintf(whole, sizeof(whole), "%s%s", colons == 1 ? "0000:" : "", address) >=
		    (int)sizeof(whole))
		return -EINVAL;
	rc = device_dir(root, whole, dir);
	if (!rc)
		rc = is_ivshmem(dir);
	return rc == 1 ? 0 : rc == 0 || rc == -ENOENT ? -ENODEV : rc;
}

static int find_only(const char *root, char *dir)
{
	char devices[SIVSHM_PCI_DIR_LEN], candidate[SIVSHM_PCI_DIR_LEN];
	struct dirent *entry;
	int rc = 0, found = 0;
	DIR *d;

	if (snprintf(devices, sizeof(devices), "%s" DEVICES, root) >= (int)sizeof(devices))
		return -ENAMETOOLONG;
	d = opendir(devices);
	if (!d)
		return errno == ENOENT ? -ENODEV : -errno;
	while (!rc && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' || device_dir(root, entry->d_name, candidate) ||
		    is_ivshmem(candidate) != 1)
			continue;
		if (found++)
			rc = -ENOTUNIQ;
		strcpy(dir, candidate);
	}
	closedir(d);
	return rc ? rc : found ? 0 : -ENODEV;
}

/* A worker's ID is odd, and the manager's the one before it. */
static int read_position(struct sivshm_pci *pci)
{
	uint32_t position = le32toh(pci->registers[SIVSHM_PCI_POSITION]);

	if (position > SIVSHM_ID_MAX || !(position & 1))
		return -EPROTO;
	pci->port.id = position;
	pci->port.peer = position ^ 1;
	return 0;
}

int sivshm_pci_open_below(const char *root, const char *address, struct sivshm_port **out)
{
	struct sivshm_pci *pci = calloc(1, sizeof(*pci));
	int rc;

	if (!pci)
		return -ENOMEM;
	pci->port.ops = &pci_ops;
	pci->lock_fd = pci->container = pci->group = pci->fd = -1;
	for (unsigned i = 0; i < SIVSHM_VECTORS_MAX; i++)
		pci->fds[i] = -1;
	rc = address ? find_address(root, address, pci->dir) : find_only(root, pci->dir);
	if (!rc)
		rc = sivshm_pci_sysfs_has_vfio(pci->dir);
	if (rc == 1)
		rc = sivshm_pci_vfio_open(pci);
	else if (!rc)
		rc = sivshm_pci_sysfs_open(pci);
	if (!rc)
		rc = read_position(pci);
	if (rc) {
		pci_close(&pci->port);
		return rc;
	}
	*out = &pci->port;
	return 0;
}

int sivshm_pci_open(const char *address, struct sivshm_port **out)
{
	return sivshm_pci_open_below("", address, out);
}
