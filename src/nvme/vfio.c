/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A drive by VFIO: its regions are parts of one descriptor.  The registers are mapped from there,
 * the configuration space is read and written.  The kernel has woken and reset the drive when that
 * descriptor was opened, and resets it again when it is closed, also by a process that dies.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/list.h"
#include "dma/vfio.h"
#include "nvme/bar.h"
#include "nvme/sysfs.h"

struct vfio {
	struct nvme_pci pci;
	struct nvme_pci_address address;
	struct dma *dma;
	int lock_fd;
	int fd;          /* of the device; -1: not open */
	uint64_t config; /* where that lies in it */
};

/* Bytes that the kernel may have to say about a region. */
enum { INFO_MAX = 64 << 10 };

static struct vfio *vfio_of(struct nvme_pci *pci)
{
	return container_of(pci, struct vfio, pci);
}

static int config_read(struct nvme_pci *pci, unsigned offset, void *data, size_t len)
{
	const struct vfio *v = vfio_of(pci);
	ssize_t n = pread(v->fd, data, len, (off_t)(v->config + offset));

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

static int config_write(struct nvme_pci *pci, unsigned offset, const void *data, size_t len)
{
	const struct vfio *v = vfio_of(pci);
	ssize_t n = pwrite(v->fd, data, len, (off_t)(v->config + offset));

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

static void vfio_close(struct nvme_pci *pci)
{
	struct vfio *v = vfio_of(pci);

	if (pci->bar)
		nvme_bar_unmap(pci->bar);
	if (v->fd >= 0)
		dma_vfio_close_device(v->dma, v->fd);
	if (v->lock_fd >= 0)
		close(v->lock_fd);
	free(v);
}

static const struct nvme_pci_ops vfio_ops = {config_read, config_write, vfio_close};

/* How much from the region's beginning on can be mapped: all of it, or what comes before a hole. */
static uint64_t mappable(const struct vfio_region_info *info, size_t len)
{
	uint32_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return 0;
	while (at && at <= len - sizeof(struct vfio_info_cap_header)) {
		const struct vfio_info_cap_header *head = (const void *)((const char *)info + at);

		if (head->id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
			const struct vfio_region_info_cap_sparse_mmap *cap = (const void *)head;

			for (uint32_t i = 0; i < cap->nr_areas; i++)
				if (!cap->areas[i].offset)
					return cap->areas[i].size;
			return 0;
		}
		at = head->next > at ? head->next : 0;
	}
	return info->size;
}

static int map_bar(struct vfio *v, struct err *err)
{
	struct vfio_region_info *info,
		head = {.argsz = sizeof(head), .index = VFIO_PCI_BAR0_REGION_INDEX};
	uint64_t len;
	int rc;

	/* The first call tells how much there is to say. */
	if (ioctl(v->fd, VFIO_DEVICE_GET_REGION_INFO, &head))
		return err_set(err, -errno, "VFIO says nothing of the registers of drive %s: %s",
			       v->pci.name, strerror(errno));
	if (head.argsz < sizeof(head) || head.argsz > INFO_MAX)
		head.argsz = sizeof(head);
	info = calloc(1, head.argsz);
	if (!info)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	info->argsz = head.argsz;
	info->index = head.index;
	rc = ioctl(v->fd, VFIO_DEVICE_GET_REGION_INFO, info) ? -errno : 0;
	len = rc ? 0 : mappable(info, head.argsz) & ~4095ULL;
	v->pci.bar_len = len < NVME_BAR_MAX ? (size_t)len : NVME_BAR_MAX;
	if (!rc && !len)
		rc = -EOPNOTSUPP;
	if (!rc)
		rc = nvme_bar_map(v->fd, (off_t)info->offset, v->pci.bar_len, &v->pci.bar);
	free(info);
	if (rc)
		return err_set(err, rc, "VFIO does not map the registers of drive %s: %s",
			       v->pci.name, strerror(-rc));
	return 0;
}

static int find_config(struct vfio *v, struct err *err)
{
	struct vfio_region_info info = {.argsz = sizeof(info),
					.index = VFIO_PCI_CONFIG_REGION_INDEX};

	if (ioctl(v->fd, VFIO_DEVICE_GET_REGION_INFO, &info))
		return err_set(err, -errno,
			       "VFIO says nothing of the configuration space of drive %s: %s",
			       v->pci.name, strerror(errno));
	v->config = info.offset;
	return 0;
}

static int check_driver(const char *address, struct err *err)
{
	char driver[64];
	int rc = nvme_sysfs_driver("", address, driver, sizeof(driver));

	if (rc)
		return err_set(err, rc, "cannot look at PCI device %s: %s", address, strerror(-rc));
	if (driver[0] && strcmp(driver, "vfio-pci"))
		return err_set(
			err, -EBUSY,
			"drive %s belongs to the kernel's driver \"%s\": take it by \"sluice "
			"nvme claim %s\"",
			address, driver, address);
	return 0;
}

int nvme_vfio_open(const char *address, struct dma *dma, struct nvme_pci **out, struct err *err)
{
	struct vfio *v = calloc(1, sizeof(*v));
	const char *name;
	int rc;

	if (!v)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	v->dma = dma;
	v->fd = v->lock_fd = -1;
	v->pci.ops = &vfio_ops;
	v->pci.name = name = v->address.text;
	rc = nvme_pci_parse_address(address, &v->address, err);
	if (!rc)
		rc = nvme_sysfs_check_class("", name, err);
	if (!rc) {
		v->lock_fd = nvme_sysfs_lock("", name, err);
		rc = v->lock_fd < 0 ? v->lock_fd : 0;
	}
	if (!rc)
		rc = check_driver(name, err);
	if (!rc) {
		v->fd = dma_vfio_open_device(dma, name, err);
		rc = v->fd < 0 ? v->fd : 0;
	}
	if (!rc)
		rc = find_config(v, err);
	if (!rc)
		rc = map_bar(v, err);
	if (rc) {
		vfio_close(&v->pci);
		return rc;
	}
	*out = &v->pci;
	return 0;
}
