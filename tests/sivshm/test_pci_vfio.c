/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's port by VFIO: the device is a file in memory, with its configuration space, registers
 * and segment one behind the other, and what the kernel says of it is made up here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "pci_tree.h"

static int fake_open(const char *path, int flags);
static int fake_ioctl(int fd, unsigned long request, ...);

#define open  fake_open
#define ioctl fake_ioctl
#include "pci_vfio.c"
#undef open
#undef ioctl

enum {
	CONFIG_AT = 0,
	REGISTERS_AT = 0x10000,
	SEGMENT_AT = 0x20000,
};

static struct {
	int device; /* the file behind it */
	int container;
	int group;
	bool not_viable;
	int api;
	bool no_type1;
	int iommu_errno;
	int device_errno;
	uint64_t registers_size;
	uint64_t segment_size;
	uint32_t registers_flags;
	uint32_t segment_flags;
	uint32_t vectors;
	uint32_t irq_flags;
	int irqs_errno;
	struct vfio_irq_set irqs; /* that were asked for */
	int fds[SIVSHM_VECTORS_MAX];
} kernel;

static int failed(int error)
{
	errno = error;
	return -1;
}

static int fake_open(const char *path, int flags)
{
	assert_true(flags & O_CLOEXEC);
	if (!strcmp(path, "/dev/vfio/vfio"))
		return kernel.container = memfd_create("container", MFD_CLOEXEC);
	if (!strcmp(path, "/dev/vfio/3"))
		return kernel.group = memfd_create("group", MFD_CLOEXEC);
	return failed(ENOENT);
}

static int region_info(struct vfio_region_info *info)
{
	switch (info->index) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		info->offset = CONFIG_AT;
		info->size = 256;
		return 0;
	case VFIO_PCI_BAR0_REGION_INDEX:
		info->offset = REGISTERS_AT;
		info->size = kernel.registers_size;
		info->flags = kernel.registers_flags;
		return 0;
	case VFIO_PCI_BAR2_REGION_INDEX:
		info->offset = SEGMENT_AT;
		info->size = kernel.segment_size;
		info->flags = kernel.segment_flags;
		return 0;
	}
	return failed(EINVAL);
}

static int irq_info(struct vfio_irq_info *info)
{
	if (info->index != VFIO_PCI_MSIX_IRQ_INDEX)
		return failed(EINVAL);
	info->count = kernel.vectors;
	info->flags = kernel.irq_flags;
	return 0;
}

static int set_irqs(const struct vfio_irq_set *set)
{
	if (kernel.irqs_errno)
		return failed(kernel.irqs_errno);
	kernel.irqs = *set;
	assert_true(set->count <= SIVSHM_VECTORS_MAX);
	assert_int_equal(set->argsz, sizeof(*set) + set->count * sizeof(int));
	memcpy(kernel.fds, set->data, set->count * sizeof(int));
	return 0;
}

static int fake_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	switch (request) {
	case VFIO_GROUP_GET_STATUS:
		((struct vfio_group_status *)arg)->flags =
			kernel.not_viable ? 0 : VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GET_API_VERSION:
		return kernel.api;
	case VFIO_CHECK_EXTENSION:
		return !kernel.no_type1 && (intptr_t)arg == VFIO_TYPE1v2_IOMMU;
	case VFIO_GROUP_SET_CONTAINER:
		assert_int_equal(fd, kernel.group);
		assert_int_equal(*(int *)arg, kernel.container);
		return 0;
	case VFIO_SET_IOMMU:
		assert_int_equal(fd, kernel.container);
		return kernel.iommu_errno ? failed(kernel.iommu_errno) : 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		assert_string_equal(arg, PCI_TREE_ADDRESS);
		return kernel.device_errno ? failed(kernel.device_errno)
					   : fcntl(kernel.device, F_DUPFD_CLOEXEC, 0);
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return irq_info(arg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(arg);
	}
	return failed(ENOTTY);
}

static int setup(void **state)
{
	uint32_t id = PCI_TREE_ID;

	if (pci_tree_setup(state))
		return -1;
	pci_tree_link("driver", "../../../../bus/pci/drivers/vfio-pci");
	pci_tree_link("iommu_group", "../../../../kernel/iommu_groups/3");
	memset(&kernel, 0, sizeof(kernel));
	kernel.registers_size = 256;
	kernel.segment_size = PCI_TREE_SEGMENT;
	kernel.registers_flags = kernel.segment_flags = VFIO_REGION_INFO_FLAG_READ |
							VFIO_REGION_INFO_FLAG_WRITE |
							VFIO_REGION_INFO_FLAG_MMAP;
	kernel.vectors = PCI_TREE_VECTORS;
	kernel.irq_flags = VFIO_IRQ_INFO_EVENTFD;
	kernel.device = memfd_create("device", MFD_CLOEXEC);
	return ftruncate(kernel.device, SEGMENT_AT + PCI_TREE_SEGMENT) ||
	       pwrite(kernel.device, &id, sizeof(id), REGISTERS_AT + 8) != sizeof(id);
}

static int teardown(void **state)
{
	close(kernel.device);
	return pci_tree_teardown(state);
}

static void refused(int rc)
{
	unsigned descriptors = pci_tree_descriptors();
	struct sivshm_port *p = NULL;

	assert_int_equal(sivshm_pci_open_below(pci_tree_root, NULL, &p), rc);
	assert_null(p);
	assert_int_equal(pci_tree_descriptors(), descriptors);
}

static struct sivshm_port *open_port(void)
{
	struct sivshm_port *p;

	assert_int_equal(sivshm_pci_open_below(pci_tree_root, NULL, &p), 0);
	return p;
}

static void test_open(void **state)
{
	unsigned descriptors = pci_tree_descriptors();
	struct sivshm_port *p = open_port();
	uint16_t command;
	char text[6];

	assert_int_equal(sivshm_port_id(p), PCI_TREE_ID);
	assert_int_equal(sivshm_port_vectors(p), PCI_TREE_VECTORS);
	assert_int_equal(sivshm_port_size(p), PCI_TREE_SEGMENT);
	memcpy((char *)sivshm_port_memory(p) + PCI_TREE_SEGMENT - 6, "there", 6);
	assert_int_equal(pread(kernel.device, text, 6, SEGMENT_AT + PCI_TREE_SEGMENT - 6), 6);
	assert_string_equal(text, "there");
	/* Without it no interrupt comes. */
	assert_int_equal(pread(kernel.device, &command, 2, CONFIG_AT + PCI_COMMAND), 2);
	assert_int_equal(command, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	sivshm_port_close(p);
	assert_int_equal(pci_tree_descriptors(), descriptors);
}

static void test_command_keeps_the_rest(void **state)
{
	uint16_t command = PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_SERR;

	assert_int_equal(pwrite(kernel.device, &command, 2, CONFIG_AT + PCI_COMMAND), 2);
	sivshm_port_close(open_port());
	assert_int_equal(pread(kernel.device, &command, 2, CONFIG_AT + PCI_COMMAND), 2);
	assert_int_equal(command, PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_SERR | PCI_COMMAND_MASTER |
					  PCI_COMMAND_MEMORY);
}

static void test_rings(void **state)
{
	struct sivshm_port *p = open_port();
	uint64_t one = 1;
	uint32_t value;

	assert_int_equal(kernel.irqs.flags,
			 VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER);
	assert_int_equal(kernel.irqs.index, VFIO_PCI_MSIX_IRQ_INDEX);
	assert_int_equal(kernel.irqs.start, 0);
	assert_int_equal(kernel.irqs.count, PCI_TREE_VECTORS);
	for (unsigned v = 0; v < PCI_TREE_VECTORS; v++) {
		/* Something may have been rung before. */
		assert_int_equal(sivshm_port_take(p, v), 1);
		assert_int_equal(sivshm_port_take(p, v), 0);
		assert_int_equal(sivshm_port_fd(p, v), kernel.fds[v]);
	}
	assert_int_equal(sivshm_port_wait(p, 2, 10), 0);
	assert_int_equal(write(kernel.fds[2], &one, sizeof(one)), sizeof(one));
	assert_int_equal(sivshm_port_take(p, 1), 0);
	assert_int_equal(sivshm_port_wait(p, 2, 5000), 1);
	assert_int_equal(sivshm_port_wait(p, 2, 0), 0);
	assert_int_equal(sivshm_port_ring(p, 3), 0);
	assert_int_equal(pread(kernel.device, &value, 4, REGISTERS_AT + 12), 4);
	assert_int_equal(value, (PCI_TREE_ID ^ 1) << 16 | 3);
	sivshm_port_close(p);
}

static void test_many_vectors(void **state)
{
	struct sivshm_port *p;

	kernel.vectors = 200;
	p = open_port();
	assert_int_equal(sivshm_port_vectors(p), SIVSHM_VECTORS_MAX);
	assert_int_equal(kernel.irqs.count, SIVSHM_VECTORS_MAX);
	sivshm_port_close(p);
}

static void test_no_interrupts(void **state)
{
	kernel.vectors = 0;
	refused(-EPROTO);
	kernel.vectors = 2;
	kernel.irq_flags = 0;
	refused(-EPROTO);
	kernel.irq_flags = VFIO_IRQ_INFO_EVENTFD;
	kernel.irqs_errno = ENOSPC;
	refused(-ENOSPC);
}

static void test_hostile_regions(void **state)
{
	static const uint64_t sizes[] = {0, 2048, 3 * 4096, 1ULL << 63, UINT64_MAX};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		kernel.segment_size = sizes[i];
		refused(-EPROTO);
	}
	kernel.segment_size = PCI_TREE_SEGMENT;
	kernel.segment_flags = 0;
	refused(-EOPNOTSUPP);
	kernel.segment_flags = VFIO_REGION_INFO_FLAG_MMAP;
	kernel.registers_size = 16;
	refused(-EPROTO);
	kernel.registers_size = 256;
	kernel.registers_flags = 0;
	refused(-EOPNOTSUPP);
}

static void test_id_of_others(void **state)
{
	uint32_t id = 4;

	assert_int_equal(pwrite(kernel.device, &id, sizeof(id), REGISTERS_AT + 8), sizeof(id));
	refused(-EPROTO);
}

static void test_groups(void **state)
{
	kernel.not_viable = true;
	refused(-EBUSY);
	kernel.not_viable = false;
	kernel.api = 1;
	refused(-EOPNOTSUPP);
	kernel.api = VFIO_API_VERSION;
	kernel.no_type1 = true;
	refused(-EOPNOTSUPP);
	kernel.no_type1 = false;
	/* Interrupts are not remapped. */
	kernel.iommu_errno = EPERM;
	refused(-EPERM);
	kernel.iommu_errno = 0;
	kernel.device_errno = ENODEV;
	refused(-ENODEV);
	kernel.device_errno = 0;
	pci_tree_link("iommu_group", "../../../../kernel/iommu_groups/4");
	refused(-ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open),          TEST(test_command_keeps_the_rest),
		TEST(test_rings),         TEST(test_many_vectors),
		TEST(test_no_interrupts), TEST(test_hostile_regions),
		TEST(test_id_of_others),  TEST(test_groups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
