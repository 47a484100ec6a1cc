/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A drive's registers by VFIO: the device is a file in memory, with the BAR at its beginning and
 * the configuration space behind it, and what the kernel says of its regions is made up here.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"

struct dma;

static int fake_ioctl(int fd, unsigned long request, void *arg);
static int fake_check_class(const char *root, const char *address, struct err *err);
static int fake_driver(const char *root, const char *address, char *driver, size_t len);
static int fake_lock(const char *root, const char *address, struct err *err);
static int fake_open_device(struct dma *d, const char *address, struct err *err);
static void fake_close_device(struct dma *d, int fd);

/* Their headers first: only what vfio.c says itself is to be replaced. */
#include "dma/vfio.h"
#include "nvme/sysfs.h"
#include <sys/ioctl.h>
#define ioctl                  fake_ioctl
#define nvme_sysfs_check_class fake_check_class
#define nvme_sysfs_driver      fake_driver
#define nvme_sysfs_lock        fake_lock
#define dma_vfio_open_device   fake_open_device
#define dma_vfio_close_device  fake_close_device
#include "nvme/vfio.c"
#undef ioctl

enum { BAR = 0x10000, CONFIG = 0x40000, BAR_LEN = 0x4000 };

static struct {
	const char *driver;
	int lock_rc;
	int device_rc;
	bool regions_fail;
	uint32_t flags; /* of the BAR */
	uint64_t size;
	struct vfio_region_sparse_mmap_area areas[2];
	unsigned nr_areas;
	int fd;
	int lock_fd;
	unsigned devices; /* open */
} kernel;

static int fake_check_class(const char *root, const char *address, struct err *err)
{
	return 0;
}

static int fake_driver(const char *root, const char *address, char *driver, size_t len)
{
	snprintf(driver, len, "%s", kernel.driver);
	return 0;
}

static int fake_lock(const char *root, const char *address, struct err *err)
{
	assert_string_equal(address, "0000:04:00.0");
	if (kernel.lock_rc)
		return err_set(err, kernel.lock_rc, "locked");
	kernel.lock_fd = memfd_create("lock", MFD_CLOEXEC);
	return kernel.lock_fd;
}

static int fake_open_device(struct dma *d, const char *address, struct err *err)
{
	if (kernel.device_rc)
		return err_set(err, kernel.device_rc, "no device");
	kernel.devices++;
	return kernel.fd;
}

static void fake_close_device(struct dma *d, int fd)
{
	assert_int_equal(fd, kernel.fd);
	kernel.devices--;
}

static int fake_ioctl(int fd, unsigned long request, void *arg)
{
	struct vfio_region_info *info = arg;
	struct vfio_region_info_cap_sparse_mmap *sparse = (void *)(info + 1);
	struct vfio_info_cap_header *other;
	size_t len = sizeof(*info);

	assert_int_equal(fd, kernel.fd);
	assert_int_equal(request, VFIO_DEVICE_GET_REGION_INFO);
	if (kernel.regions_fail) {
		errno = EIO;
		return -1;
	}
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	info->cap_offset = 0;
	if (info->index == VFIO_PCI_CONFIG_REGION_INDEX) {
		info->size = 256;
		info->offset = CONFIG;
		return 0;
	}
	assert_int_equal(info->index, VFIO_PCI_BAR0_REGION_INDEX);
	info->size = kernel.size;
	info->offset = BAR;
	info->flags |= kernel.flags;
	if (!kernel.nr_areas)
		return 0;
	info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
	len += sizeof(*sparse) + kernel.nr_areas * sizeof(sparse->areas[0]) + sizeof(*other);
	if (info->argsz >= len) {
		/* Behind one that says something else. */
		other = (void *)(info + 1);
		*other = (struct vfio_info_cap_header){.id = 77,
						       .next = sizeof(*info) + sizeof(*other)};
		sparse = (void *)(other + 1);
		sparse->header = (struct vfio_info_cap_header){
			.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1};
		sparse->nr_areas = kernel.nr_areas;
		memcpy(sparse->areas, kernel.areas, kernel.nr_areas * sizeof(kernel.areas[0]));
		info->cap_offset = sizeof(*info);
	}
	info->argsz = (uint32_t)len;
	return 0;
}

static int setup(void **state)
{
	memset(&kernel, 0, sizeof(kernel));
	kernel.driver = "vfio-pci";
	kernel.flags = VFIO_REGION_INFO_FLAG_MMAP;
	kernel.size = BAR_LEN;
	kernel.lock_fd = -1;
	kernel.fd = memfd_create("device", MFD_CLOEXEC);
	assert_int_equal(ftruncate(kernel.fd, CONFIG + 256), 0);
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(kernel.devices, 0);
	/* The lock went with the drive. */
	if (kernel.lock_fd >= 0)
		assert_int_equal(fcntl(kernel.lock_fd, F_GETFD), -1);
	close(kernel.fd);
	return 0;
}

static struct nvme_pci *open_drive(void)
{
	struct nvme_pci *pci;
	struct err err = {""};

	if (nvme_vfio_open("04:00.0", NULL, &pci, &err))
		fail_msg("%s", err.text);
	return pci;
}

static void regions_are_found_where_the_kernel_says(void **state)
{
	uint32_t value = 0x12345678;
	struct nvme_pci *pci;

	assert_int_equal(pwrite(kernel.fd, &value, 4, BAR + 0x1c), 4);
	pci = open_drive();
	assert_string_equal(pci->name, "0000:04:00.0");
	assert_int_equal(pci->bar_len, BAR_LEN);
	assert_int_equal(*(volatile uint32_t *)((volatile char *)pci->bar + 0x1c), 0x12345678);
	value = 0xaabbccdd;
	assert_int_equal(pci->ops->config_write(pci, 4, &value, 4), 0);
	value = 0;
	assert_int_equal(pread(kernel.fd, &value, 4, CONFIG + 4), 4);
	assert_int_equal(value, 0xaabbccdd);
	value = 0;
	assert_int_equal(pci->ops->config_read(pci, 4, &value, 4), 0);
	assert_int_equal(value, 0xaabbccdd);
	assert_int_equal(pci->ops->config_read(pci, 254, &value, 4), -EIO);
	nvme_pci_close(pci);
}

static void a_large_bar_is_mapped_in_part(void **state)
{
	struct nvme_pci *pci;

	kernel.size = 16 << 20;
	assert_int_equal(ftruncate(kernel.fd, BAR + (16 << 20)), 0);
	pci = open_drive();
	assert_int_equal(pci->bar_len, NVME_BAR_MAX);
	nvme_pci_close(pci);
}

/* Older kernels leave the pages of the interrupts' table out. */
static void a_bar_with_a_hole_is_mapped_up_to_it(void **state)
{
	struct nvme_pci *pci;

	kernel.nr_areas = 2;
	kernel.areas[0] = (struct vfio_region_sparse_mmap_area){0x3000, 0x1000};
	kernel.areas[1] = (struct vfio_region_sparse_mmap_area){0, 0x2000};
	pci = open_drive();
	assert_int_equal(pci->bar_len, 0x2000);
	nvme_pci_close(pci);
}

static void refused(int rc, const char *words)
{
	struct nvme_pci *pci;
	struct err err = {""};

	assert_int_equal(nvme_vfio_open("04:00.0", NULL, &pci, &err), rc);
	if (!strstr(err.text, words))
		fail_msg("not in the line: \"%s\"; it is: \"%s\"", words, err.text);
	/* Nothing is left open. */
	teardown(NULL);
	setup(NULL);
}

static void what_cannot_be_opened_is_told(void **state)
{
	kernel.driver = "nvme";
	refused(-EBUSY, "driver \"nvme\": take it by \"sluice nvme claim 0000:04:00.0\"");
	kernel.lock_rc = -EBUSY;
	refused(-EBUSY, "locked");
	kernel.device_rc = -EPERM;
	refused(-EPERM, "no device");
	kernel.regions_fail = true;
	refused(-EIO, "VFIO says nothing");
	kernel.flags = 0;
	refused(-EOPNOTSUPP, "does not map the registers");
	kernel.nr_areas = 1;
	kernel.areas[0] = (struct vfio_region_sparse_mmap_area){0x3000, 0x1000};
	refused(-EOPNOTSUPP, "does not map the registers");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(regions_are_found_where_the_kernel_says, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_large_bar_is_mapped_in_part, setup, teardown),
		cmocka_unit_test_setup_teardown(a_bar_with_a_hole_is_mapped_up_to_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_opened_is_told, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
