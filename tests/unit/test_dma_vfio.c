/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Device memory by VFIO, against a kernel that is made up here: containers, groups and devices are
 * entries of small tables, and what is mapped is kept as the kernel keeps it: without overlaps,
 * inside the ranges, and until the container's last group has gone.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static int fake_open(const char *path, int flags, ...);
static int fake_close(int fd);
static int fake_ioctl(int fd, unsigned long request, ...);
static ssize_t fake_readlink(const char *path, char *target, size_t len);
static int fake_setrlimit(int resource, const struct rlimit *limit);
static int fake_getrlimit(int resource, struct rlimit *limit);

#define open      fake_open
#define close     fake_close
#define ioctl     fake_ioctl
#define readlink  fake_readlink
#define setrlimit fake_setrlimit
#define getrlimit fake_getrlimit
#include "dma/vfio.c"
#undef open
#undef close
#undef ioctl
#undef readlink
#undef setrlimit
#undef getrlimit

enum {
	CONTAINER = 1000,
	GROUP = 2000,  /* and the group's number */
	DEVICE = 3000, /* and the device's */
	GROUPS = 4,
	DEVICES = 4,
	MAPS = 64,
};

#define GIB (1ULL << 30)

static struct {
	bool container_open;
	bool iommu;
	bool no_type1;
	bool no_interrupt_remapping;
	struct {
		bool open, joined, in_use, not_viable, alien;
	} groups[GROUPS];
	bool device_open[DEVICES];
	struct {
		uint64_t iova, len;
		uintptr_t virt;
	} maps[MAPS];
	unsigned nr_maps;
	unsigned max_maps;
	uint64_t memlock; /* bytes that may be pinned */
	bool memlock_fixed;
	struct range allowed[4];
	unsigned nr_allowed;
	unsigned told;    /* ranges, of those, while group 1 has joined; 0: all */
	unsigned refused; /* mappings */
	struct dma *busy; /* while it maps and unmaps, somebody takes a page of this */
	unsigned taken;
} kernel;

/* Device "0000:00:0N.0" is in group N / 2. */
static int device_number(const char *address)
{
	return address[9] - '0';
}

static int failed(int error)
{
	errno = error;
	return -1;
}

static int fake_open(const char *path, int flags, ...)
{
	int number;

	if (!strcmp(path, "/dev/vfio/vfio")) {
		kernel.container_open = true;
		return CONTAINER;
	}
	assert_int_equal(sscanf(path, "/dev/vfio/%d", &number), 1);
	if (number >= GROUPS)
		return failed(ENOENT);
	if (kernel.groups[number].in_use || kernel.groups[number].open)
		return failed(EBUSY);
	kernel.groups[number].open = true;
	return GROUP + number;
}

static void forget(void)
{
	for (unsigned i = 0; i < GROUPS; i++)
		if (kernel.groups[i].joined)
			return;
	kernel.nr_maps = 0;
	kernel.iommu = false;
}

static int fake_close(int fd)
{
	if (fd >= DEVICE) {
		assert_true(kernel.device_open[fd - DEVICE]);
		kernel.device_open[fd - DEVICE] = false;
	} else if (fd >= GROUP) {
		assert_true(kernel.groups[fd - GROUP].open);
		kernel.groups[fd - GROUP].open = false;
		kernel.groups[fd - GROUP].joined = false;
		forget();
	} else {
		assert_int_equal(fd, CONTAINER);
		kernel.container_open = false;
	}
	return 0;
}

static ssize_t fake_readlink(const char *path, char *target, size_t len)
{
	int n = device_number(path + strlen("/sys/bus/pci/devices/"));

	if (n >= 8)
		return failed(ENOENT); /* no IOMMU before it */
	return snprintf(target, len, "../../../kernel/iommu_groups/%d", n / 2);
}

static int fake_getrlimit(int resource, struct rlimit *limit)
{
	assert_int_equal(resource, RLIMIT_MEMLOCK);
	limit->rlim_cur = kernel.memlock;
	limit->rlim_max = kernel.memlock_fixed ? kernel.memlock : RLIM_INFINITY;
	return 0;
}

static int fake_setrlimit(int resource, const struct rlimit *limit)
{
	if (kernel.memlock_fixed && limit->rlim_max > kernel.memlock)
		return failed(EPERM);
	kernel.memlock = limit->rlim_cur;
	return 0;
}

static uint64_t pinned(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < kernel.nr_maps; i++)
		sum += kernel.maps[i].len;
	return sum;
}

static void *take_page(void *arg)
{
	struct dma_memory mem;
	struct err err;

	if (!dma_alloc(arg, 1, false, &mem, &err)) {
		kernel.taken++;
		dma_free(arg, &mem);
	}
	return NULL;
}

/* What the kernel does takes time, in which others go on: if they wait, the alarm ends it. */
static void take_time(void)
{
	pthread_t thread;

	if (!kernel.busy)
		return;
	assert_int_equal(pthread_create(&thread, NULL, take_page, kernel.busy), 0);
	alarm(10);
	pthread_join(thread, NULL);
	alarm(0);
}

static int fake_map(const struct vfio_iommu_type1_dma_map *map)
{
	bool allowed = false;

	assert_true(kernel.iommu);
	assert_int_equal(map->flags, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
	assert_int_equal((map->iova | map->size | map->vaddr) % 4096, 0);
	for (unsigned i = 0; i < kernel.nr_allowed; i++)
		if (map->iova >= kernel.allowed[i].start &&
		    map->iova + map->size - 1 <= kernel.allowed[i].end)
			allowed = true;
	for (unsigned i = 0; i < kernel.nr_maps; i++)
		if (map->iova < kernel.maps[i].iova + kernel.maps[i].len &&
		    kernel.maps[i].iova < map->iova + map->size)
			allowed = false;
	if (!allowed) {
		kernel.refused++;
		return failed(EINVAL);
	}
	if (kernel.nr_maps == kernel.max_maps)
		return failed(ENOSPC);
	if (pinned() + map->size > kernel.memlock)
		return failed(ENOMEM);
	kernel.maps[kernel.nr_maps].iova = map->iova;
	kernel.maps[kernel.nr_maps].len = map->size;
	kernel.maps[kernel.nr_maps++].virt = (uintptr_t)map->vaddr;
	return 0;
}

static int fake_unmap(struct vfio_iommu_type1_dma_unmap *unmap)
{
	for (unsigned i = 0; i < kernel.nr_maps; i++) {
		if (kernel.maps[i].iova != unmap->iova || kernel.maps[i].len != unmap->size)
			continue;
		kernel.maps[i] = kernel.maps[--kernel.nr_maps];
		return 0;
	}
	unmap->size = 0;
	return 0;
}

/* Says how much there is to say, and says it if there is room. */
static int fake_info(struct vfio_iommu_type1_info *info)
{
	size_t len = sizeof(*info) + sizeof(struct vfio_info_cap_header) +
		     sizeof(struct vfio_iommu_type1_info_cap_iova_range) +
		     kernel.nr_allowed * sizeof(struct vfio_iova_range);
	struct vfio_iommu_type1_info_cap_iova_range *ranges;
	struct vfio_info_cap_header *other = (void *)(info + 1);
	unsigned told = kernel.told && kernel.groups[1].joined ? kernel.told : kernel.nr_allowed;

	info->flags = VFIO_IOMMU_INFO_PGSIZES;
	info->iova_pgsizes = 4096 | 2 << 20;
	if (kernel.nr_allowed) {
		info->flags |= VFIO_IOMMU_INFO_CAPS;
		info->cap_offset = 0;
		if (info->argsz >= len) {
			info->cap_offset = sizeof(*info);
			*other = (struct vfio_info_cap_header){
				.id = 77, .next = sizeof(*info) + sizeof(*other)};
			ranges = (void *)(other + 1);
			ranges->header = (struct vfio_info_cap_header){
				.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1};
			ranges->nr_iovas = told;
			for (unsigned i = 0; i < told; i++)
				ranges->iova_ranges[i] = (struct vfio_iova_range){
					kernel.allowed[i].start, kernel.allowed[i].end};
		}
		info->argsz = (uint32_t)len;
	}
	return 0;
}

static int fake_ioctl(int fd, unsigned long request, ...)
{
	struct vfio_group_status *status;
	va_list args;
	void *arg;
	int n;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	switch (request) {
	case VFIO_GET_API_VERSION:
		return VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return !kernel.no_type1;
	case VFIO_SET_IOMMU:
		if (kernel.no_interrupt_remapping)
			return failed(EPERM);
		kernel.iommu = true;
		return 0;
	case VFIO_IOMMU_GET_INFO:
		return fake_info(arg);
	case VFIO_IOMMU_MAP_DMA:
		take_time();
		return fake_map(arg);
	case VFIO_IOMMU_UNMAP_DMA:
		take_time();
		return fake_unmap(arg);
	case VFIO_GROUP_GET_STATUS:
		status = arg;
		status->flags = kernel.groups[fd - GROUP].not_viable ? 0 : VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		if (kernel.groups[fd - GROUP].alien)
			return failed(EINVAL);
		kernel.groups[fd - GROUP].joined = true;
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		n = device_number(arg);
		assert_int_equal(n / 2, fd - GROUP);
		assert_true(kernel.groups[fd - GROUP].joined && kernel.iommu);
		if (n == 3)
			return failed(ENODEV); /* not bound to vfio-pci */
		kernel.device_open[n] = true;
		return DEVICE + n;
	}
	fail_msg("an ioctl that nobody knows: %#lx", request);
	return -1;
}

static struct dma *create(size_t pages)
{
	struct dma *d;
	struct err err;

	memset(&kernel, 0, sizeof(kernel));
	kernel.max_maps = MAPS;
	kernel.memlock = UINT64_MAX;
	kernel.allowed[0] = (struct range){0, 0xfedfffff};
	kernel.allowed[1] = (struct range){0xfef00000, (1ULL << 39) - 1};
	kernel.nr_allowed = 2;
	assert_int_equal(dma_vfio_create(pages, &d, &err), 0);
	return d;
}

static void destroy(struct dma *d)
{
	dma_vfio_destroy(d);
	assert_false(kernel.container_open);
	for (unsigned i = 0; i < GROUPS; i++)
		assert_false(kernel.groups[i].open);
}

/* What the kernel has mapped at @bus; NULL: nothing. */
static void *reached(uint64_t bus)
{
	for (unsigned i = 0; i < kernel.nr_maps; i++)
		if (bus - kernel.maps[i].iova < kernel.maps[i].len)
			return (void *)(kernel.maps[i].virt + (bus - kernel.maps[i].iova));
	return NULL;
}

static int attach(struct dma *d, int number)
{
	char address[] = "0000:00:00.0";
	struct err err = {""};
	int fd;

	address[9] = (char)('0' + number);
	fd = dma_vfio_open_device(d, address, &err);
	assert_true(fd >= 0);
	assert_int_equal(fd, DEVICE + number);
	return fd;
}

static void alloc(struct dma *d, size_t pages, struct dma_memory *mem)
{
	struct err err = {""};

	assert_int_equal(dma_alloc(d, pages, true, mem, &err), 0);
	for (size_t i = 0; i < pages; i++) {
		assert_ptr_equal(reached(mem->bus[i]), (char *)mem->virt + i * DMA_PAGE_SIZE);
		assert_int_equal(dma_translate(d, (char *)mem->virt + i * DMA_PAGE_SIZE + 5),
				 mem->bus[i] + 5);
	}
}

static void memory_comes_with_the_first_drive(void **state)
{
	struct dma *d = create(2048);
	struct dma_memory mem, other;
	struct err err;
	int fd;

	assert_int_equal(dma_alloc(d, 1, false, &mem, &err), -ENODEV);
	fd = attach(d, 0);
	alloc(d, 1, &mem);
	memset(mem.virt, 1, DMA_PAGE_SIZE);
	/* In large steps: the next comes out of the same mapping. */
	alloc(d, 500, &other);
	assert_int_equal(kernel.nr_maps, 1);
	/* Where a switch might have other uses for the address it is not. */
	assert_true(mem.bus[0] >= 4 * GIB);
	dma_free(d, &mem);
	dma_free(d, &other);
	/* More than a step, and the end of the window. */
	alloc(d, 1300, &other);
	assert_int_equal(dma_alloc(d, 2000, false, &mem, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "--device-memory-mib"));
	dma_free(d, &other);
	dma_vfio_close_device(d, fd);
	destroy(d);
}

static void iovas_come_from_the_ranges(void **state)
{
	struct dma *d = create(4096);
	struct dma_memory mem[4];
	struct err err;
	int fd;

	/* 3 MiB, then 2: the first step fits into either, and the second into one. */
	kernel.allowed[0] = (struct range){0, (8ULL << 20) - 1};
	kernel.allowed[1] = (struct range){4 * GIB + 0x100000, 4 * GIB + 0x3fffff};
	fd = attach(d, 0);
	alloc(d, 512, &mem[0]);
	assert_true(mem[0].bus[0] >= 4 * GIB);
	alloc(d, 512, &mem[1]);
	assert_true(mem[1].bus[0] >= 2 << 20 && mem[1].bus[511] < 8 << 20);
	alloc(d, 512, &mem[2]);
	alloc(d, 512, &mem[3]);
	dma_free(d, &mem[3]);
	alloc(d, 512, &mem[3]);
	assert_int_equal(dma_alloc(d, 1024, false, &(struct dma_memory){0}, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "IOMMU has no room"));
	assert_int_equal(kernel.refused, 0);
	for (int i = 0; i < 4; i++)
		dma_free(d, &mem[i]);
	dma_vfio_close_device(d, fd);
	destroy(d);
}

static void a_kernel_without_ranges_has_usual_ones(void **state)
{
	struct dma *d = create(512);
	struct dma_memory mem;
	int fd;

	kernel.nr_allowed = 0;
	fd = attach(d, 0);
	kernel.allowed[0] = (struct range){4 * GIB, (1ULL << 39) - 1};
	kernel.nr_allowed = 1;
	alloc(d, 1, &mem);
	dma_free(d, &mem);
	dma_vfio_close_device(d, fd);
	destroy(d);
}

static void mappings_outlive_the_last_drive(void **state)
{
	struct dma *d = create(2048);
	struct dma_memory mem, large;
	uint64_t shared;
	struct err err;
	void *page = aligned_alloc(4096, 8192);
	int fd = attach(d, 0);

	alloc(d, 1, &mem);
	alloc(d, 600, &large);
	assert_true(dma_can_map(d));
	assert_int_equal(dma_map_memory(d, page, 2, &shared, &err), 0);
	assert_int_equal(kernel.nr_maps, 3);
	dma_vfio_close_device(d, fd);
	assert_int_equal(kernel.nr_maps, 0);
	assert_false(kernel.groups[0].open);
	/* The drivers know the addresses: they are the same for the next drive. */
	fd = attach(d, 2);
	assert_int_equal(kernel.nr_maps, 3);
	assert_ptr_equal(reached(mem.bus[0]), mem.virt);
	assert_ptr_equal(reached(large.bus[599]), (char *)large.virt + 599 * DMA_PAGE_SIZE);
	assert_ptr_equal(reached(shared + 4096), (char *)page + 4096);
	dma_unmap_memory(d, shared, 2);
	assert_null(reached(shared));
	dma_free(d, &mem);
	dma_free(d, &large);
	dma_vfio_close_device(d, fd);
	destroy(d);
	free(page);
}

static void drives_share_a_container(void **state)
{
	struct dma *d = create(512);
	struct dma_memory mem;
	int fd[3] = {attach(d, 0), attach(d, 1), attach(d, 2)};

	alloc(d, 1, &mem);
	/* A group stays as long as one of its drives does. */
	dma_vfio_close_device(d, fd[0]);
	assert_true(kernel.groups[0].open);
	assert_false(kernel.device_open[0]);
	dma_vfio_close_device(d, fd[1]);
	assert_false(kernel.groups[0].open);
	assert_ptr_equal(reached(mem.bus[0]), mem.virt);
	fd[0] = attach(d, 0);
	assert_int_equal(kernel.nr_maps, 1);
	dma_vfio_close_device(d, fd[0]);
	dma_free(d, &mem);
	dma_vfio_close_device(d, fd[2]);
	destroy(d);
}

static void holes_are_used_again(void **state)
{
	struct dma *d = create(512);
	void *pages = aligned_alloc(4096, 8 * 4096);
	uint64_t bus[4], again;
	struct err err;
	int fd = attach(d, 0);

	for (int i = 0; i < 4; i++)
		assert_int_equal(dma_vfio_map(d, (char *)pages + 8192 * i, 2, &bus[i], &err), 0);
	dma_vfio_unmap(d, bus[1], 2);
	assert_int_equal(kernel.nr_maps, 3);
	/* Not by another length than it was mapped. */
	dma_vfio_unmap(d, bus[2], 1);
	assert_int_equal(kernel.nr_maps, 3);
	assert_int_equal(dma_vfio_map(d, pages, 1, &again, &err), 0);
	assert_int_equal(again, bus[1]);
	assert_int_equal(kernel.refused, 0);
	dma_vfio_close_device(d, fd);
	destroy(d);
	free(pages);
}

/* To pin a segment can take long, and reactors want pages of the window meanwhile. */
static void nobody_waits_for_a_large_mapping(void **state)
{
	struct dma *d = create(2048);
	void *pages = aligned_alloc(4096, 8 * 4096);
	struct dma_memory mem;
	uint64_t bus, other;
	struct err err;
	int fd = attach(d, 0);

	alloc(d, 1, &mem);
	kernel.busy = d;
	assert_int_equal(dma_vfio_map(d, pages, 8, &bus, &err), 0);
	dma_vfio_unmap(d, bus, 8);
	assert_int_equal(kernel.taken, 2);
	/* One that fails leaves its place. */
	kernel.max_maps = kernel.nr_maps;
	assert_int_equal(dma_vfio_map(d, pages, 8, &other, &err), -ENOSPC);
	kernel.max_maps = MAPS;
	assert_int_equal(dma_vfio_map(d, pages, 8, &other, &err), 0);
	assert_int_equal(other, bus);
	kernel.busy = NULL;
	dma_vfio_unmap(d, other, 8);
	dma_free(d, &mem);
	dma_vfio_close_device(d, fd);
	destroy(d);
	free(pages);
}

static void limits_are_raised_or_told(void **state)
{
	struct dma *d = create(4096);
	struct dma_memory mem, more;
	struct err err;
	int fd = attach(d, 0);

	kernel.memlock = 1 << 20;
	alloc(d, 1, &mem);
	kernel.memlock = pinned();
	kernel.memlock_fixed = true;
	assert_int_equal(dma_alloc(d, 512, false, &more, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "LimitMEMLOCK"));
	kernel.memlock_fixed = false;
	kernel.max_maps = 1;
	assert_int_equal(dma_alloc(d, 512, false, &more, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "dma_entry_limit"));
	/* Nothing is lost by that. */
	kernel.max_maps = MAPS;
	alloc(d, 512, &more);
	dma_free(d, &mem);
	dma_free(d, &more);
	dma_vfio_close_device(d, fd);
	destroy(d);
}

static void refused(struct dma *d, const char *address, int rc, const char *words)
{
	struct err err = {""};

	assert_int_equal(dma_vfio_open_device(d, address, &err), rc);
	if (!strstr(err.text, words))
		fail_msg("not in the line: \"%s\"; it is: \"%s\"", words, err.text);
}

static void what_cannot_be_had_is_told(void **state)
{
	struct dma *d = create(512);
	struct dma_memory mem;
	int fd;

	refused(d, "0000:00:09.0", -ENODEV, "boot with intel_iommu=on");
	kernel.groups[0].in_use = true;
	refused(d, "0000:00:00.0", -EBUSY, "in use by another process");
	kernel.groups[0].in_use = false;
	kernel.groups[0].not_viable = true;
	refused(d, "0000:00:00.0", -EBUSY, "/sys/kernel/iommu_groups/0/devices");
	assert_false(kernel.groups[0].open);
	kernel.groups[0].not_viable = false;
	kernel.no_interrupt_remapping = true;
	refused(d, "0000:00:00.0", -EPERM, "interrupt remapping");
	assert_false(kernel.groups[0].open);
	kernel.no_interrupt_remapping = false;
	refused(d, "0000:00:03.0", -ENODEV, "bound to vfio-pci");
	assert_false(kernel.groups[1].open);
	fd = attach(d, 0);
	kernel.groups[1].alien = true;
	refused(d, "0000:00:02.0", -EINVAL, "group 1 of drive 0000:00:02.0");
	kernel.groups[1].alien = false;
	/* Another drive's platform reserves what is in use. */
	alloc(d, 1, &mem);
	kernel.allowed[1].start = mem.bus[0] + DMA_PAGE_SIZE;
	refused(d, "0000:00:02.0", -ENOSPC, "attach this drive first");
	assert_false(kernel.groups[1].open);
	dma_free(d, &mem);
	dma_vfio_close_device(d, fd);
	destroy(d);
}

static void a_refused_drive_takes_no_room(void **state)
{
	struct dma *d = create(1024);
	struct dma_memory mem, more;
	int fd = attach(d, 0);

	alloc(d, 512, &mem);
	/* All that is in use lies in the second range. */
	kernel.told = 1;
	refused(d, "0000:00:02.0", -ENOSPC, "attach this drive first");
	alloc(d, 512, &more);
	assert_true(more.bus[0] >= 4 * GIB);
	dma_free(d, &mem);
	dma_free(d, &more);
	dma_vfio_close_device(d, fd);
	destroy(d);
}

static void a_kernel_without_type_1_is_told(void **state)
{
	struct dma *d;
	struct err err;

	memset(&kernel, 0, sizeof(kernel));
	kernel.no_type1 = true;
	assert_int_equal(dma_vfio_create(512, &d, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "vfio_iommu_type1"));
	assert_false(kernel.container_open);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_comes_with_the_first_drive),
		cmocka_unit_test(iovas_come_from_the_ranges),
		cmocka_unit_test(a_kernel_without_ranges_has_usual_ones),
		cmocka_unit_test(mappings_outlive_the_last_drive),
		cmocka_unit_test(drives_share_a_container),
		cmocka_unit_test(holes_are_used_again),
		cmocka_unit_test(nobody_waits_for_a_large_mapping),
		cmocka_unit_test(limits_are_raised_or_told),
		cmocka_unit_test(what_cannot_be_had_is_told),
		cmocka_unit_test(a_refused_drive_takes_no_room),
		cmocka_unit_test(a_kernel_without_type_1_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
