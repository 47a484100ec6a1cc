/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device by VFIO: a group in a container, regions of one descriptor, and an eventfd for each
 * message-signalled interrupt.  The device reaches no memory of ours: nothing is mapped for it.
 *
 * Rings that came before the interrupts were switched on are lost in the device.  A process would
 * have found them in its eventfds; so each vector begins as rung, and whoever opens a port looks at
 * the memory once more than may be needed.
 */
#include "pci.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int open_group(struct sivshm_pci *pci)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	char path[PATH_MAX], target[PATH_MAX];
	const char *name;
	ssize_t n;

	if (snprintf(path, sizeof(path), "%s/iommu_group", pci->dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	name = strrchr(target, '/');
	snprintf(path, sizeof(path), "/dev/vfio/%.16s", name ? name + 1 : target);
	pci->group = open(path, O_RDWR | O_CLOEXEC);
	if (pci->group < 0)
		return -errno;
	if (ioctl(pci->group, VFIO_GROUP_GET_STATUS, &status))
		return -errno;
	/* Another device of the group has a driver of the kernel's. */
	return status.flags & VFIO_GROUP_FLAGS_VIABLE ? 0 : -EBUSY;
}

static int open_device(struct sivshm_pci *pci)
{
	const char *address = strrchr(pci->dir, '/');
	int rc = open_group(pci);

	if (rc)
		return rc;
	pci->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (pci->container < 0)
		return -errno;
	/* The second comes with a module of its own, vfio_iommu_type1. */
	if (ioctl(pci->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(pci->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0)
		return -EOPNOTSUPP;
	if (ioctl(pci->group, VFIO_GROUP_SET_CONTAINER, &pci->container) ||
	    ioctl(pci->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return -errno;
	pci->fd = ioctl(pci->group, VFIO_GROUP_GET_DEVICE_FD, address ? address + 1 : pci->dir);
	return pci->fd < 0 ? -errno : 0;
}

static int region(const struct sivshm_pci *pci, uint32_t index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){.argsz = sizeof(*info), .index = index};
	return ioctl(pci->fd, VFIO_DEVICE_GET_REGION_INFO, info) ? -errno : 0;
}

static int map_region(const struct sivshm_pci *pci, const struct vfio_region_info *info, size_t len,
		      void **at)
{
	void *mapped;

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return -EOPNOTSUPP;
	mapped = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, pci->fd, (off_t)info->offset);
	if (mapped == MAP_FAILED)
		return -errno;
	*at = mapped;
	return 0;
}

static int map_bars(struct sivshm_pci *pci)
{
	struct vfio_region_info info;
	int rc = region(pci, VFIO_PCI_BAR0_REGION_INDEX, &info);

	if (!rc && info.size < SIVSHM_PCI_REGISTERS)
		rc = -EPROTO;
	/* The kernel lets registers be mapped that have their page for themselves. */
	if (!rc)
		rc = map_region(pci, &info, SIVSHM_PCI_PAGE, &pci->registers_page);
	if (rc)
		return rc;
	pci->registers = pci->registers_page;
	rc = region(pci, VFIO_PCI_BAR2_REGION_INDEX, &info);
	if (!rc && !sivshm_pci_size_is_sane(info.size))
		rc = -EPROTO;
	if (!rc)
		rc = map_region(pci, &info, (size_t)info.size, &pci->port.memory);
	if (!rc)
		pci->port.size = (size_t)info.size;
	return rc;
}

/* Interrupts are writes of the device's, so it has to be a bus master. */
static int set_command(const struct sivshm_pci *pci)
{
	struct vfio_region_info info;
	uint8_t command[2];
	int rc = region(pci, VFIO_PCI_CONFIG_REGION_INDEX, &info);
	off_t at = (off_t)info.offset + PCI_COMMAND;

	if (rc)
		return rc;
	if (pread(pci->fd, command, sizeof(command), at) != sizeof(command))
		return -EIO;
	command[0] |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	return pwrite(pci->fd, command, sizeof(command), at) == sizeof(command) ? 0 : -EIO;
}

static int open_vectors(struct sivshm_pci *pci)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX};
	union {
		struct vfio_irq_set set;
		char room[sizeof(struct vfio_irq_set) + sizeof(pci->fds)];
	} irqs;
	size_t len;

	if (ioctl(pci->fd, VFIO_DEVICE_GET_IRQ_INFO, &info))
		return -errno;
	if (!info.count || !(info.flags & VFIO_IRQ_INFO_EVENTFD))
		return -EPROTO;
	pci->port.vectors = info.count < SIVSHM_VECTORS_MAX ? info.count : SIVSHM_VECTORS_MAX;
	for (unsigned i = 0; i < pci->port.vectors; i++) {
		pci->fds[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		if (pci->fds[i] < 0)
			return -errno;
	}
	len = sizeof(irqs.set) + pci->port.vectors * sizeof(pci->fds[0]);
	irqs.set = (struct vfio_irq_set){
		.argsz = (uint32_t)len,
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
		.count = pci->port.vectors,
	};
	memcpy(irqs.room + sizeof(irqs.set), pci->fds, pci->port.vectors * sizeof(pci->fds[0]));
	return ioctl(pci->fd, VFIO_DEVICE_SET_IRQS, &irqs.set) ? -errno : 0;
}

int sivshm_pci_vfio_open(struct sivshm_pci *pci)
{
	int rc = open_device(pci);

	if (!rc)
		rc = map_bars(pci);
	if (!rc)
		rc = set_command(pci);
	if (!rc)
		rc = open_vectors(pci);
	return rc;
}

void sivshm_pci_vfio_close(struct sivshm_pci *pci)
{
	/* With the device's descriptor its interrupts are off. */
	sivshm_close_fd(&pci->fd);
	sivshm_close_fd(&pci->group);
	sivshm_close_fd(&pci->container);
	for (unsigned i = 0; i < SIVSHM_VECTORS_MAX; i++)
		sivshm_close_fd(&pci->fds[i]);
}
