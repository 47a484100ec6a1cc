/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A container is an address space for devices: each grow maps one more piece of the window there,
 * at an IOVA of our choice, and every device whose group joins finds all of it.  IOVAs are numbers
 * from a space of their own, which need not look like the virtual addresses: those may be wider
 * than an IOMMU's 39 or 48 bits.  They are taken first fit from the ranges that VFIO reports as
 * free of what the platform has reserved (interrupts' messages), from 4 GiB on if there is room:
 * a switch in front of the IOMMU may take lower ones for another device's registers.
 *
 * The kernel ties the address space to the groups in it: with the last one gone it forgets all
 * mappings.  So they are kept in a list, and made anew when a group joins an empty container.
 *
 * What devices may reach is pinned: it counts as locked memory, and each mapping counts against a
 * limit of its own (dma_entry_limit, 65535 by default), for which the window grows in large steps.
 */
#include "dma/vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"

enum {
	STEP_PAGES = 512, /* 2 MiB, for the sake of large pages */
	RANGES_MAX = 32,
	INFO_MAX = 64 << 10, /* bytes that the kernel may have to say about an IOMMU */
};

#define FIRST_IOVA  (4ULL << 30)
#define LOWEST_IOVA (2ULL << 20)
#define STEP_BYTES  ((size_t)STEP_PAGES * DMA_PAGE_SIZE)

struct range {
	uint64_t start;
	uint64_t end; /* the last byte */
};

struct mapping {
	struct list node; /* ascending by IOVA */
	uint64_t iova;
	uint64_t len;
	void *virt;
};

struct group {
	struct list node;
	int number;
	int fd;
	unsigned devices;
};

struct device {
	struct list node;
	struct group *group;
	int fd;
};

struct dma_vfio {
	struct dma dma;
	/*
	 * Who comes and goes: groups, devices, and mappings of others' memory. Taken before the
	 * dma's lock, and held while the kernel pins a large mapping, for which reactors that want
	 * a page of the window do not wait.
	 */
	pthread_mutex_t shape;
	int container;
	struct range ranges[RANGES_MAX];
	unsigned nr_ranges;
	struct list mappings;
	struct list groups;
	struct list devices;
	void *reserved; /* addresses, more than the window, which is aligned */
	size_t reserved_len;
};

static struct dma_vfio *vfio_of(struct dma *d)
{
	return container_of(d, struct dma_vfio, dma);
}

/* Mappings */

static int map(struct dma_vfio *v, const struct mapping *m)
{
	struct vfio_iommu_type1_dma_map arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)m->virt,
		.iova = m->iova,
		.size = m->len,
	};

	return ioctl(v->container, VFIO_IOMMU_MAP_DMA, &arg) ? -errno : 0;
}

static void unmap(struct dma_vfio *v, const struct mapping *m)
{
	struct vfio_iommu_type1_dma_unmap arg = {
		.argsz = sizeof(arg),
		.iova = m->iova,
		.size = m->len,
	};

	if (list_empty(&v->groups))
		return; /* the kernel has forgotten them all */
	if (ioctl(v->container, VFIO_IOMMU_UNMAP_DMA, &arg) || arg.size != m->len)
		log_error("VFIO does not unmap %#llx bytes at IOVA %#llx: %s",
			  (unsigned long long)m->len, (unsigned long long)m->iova, strerror(errno));
}

/* As much locked memory as may be had. Returns whether that is more than before. */
static bool raise_memlock(void)
{
	struct rlimit limit, wanted = {RLIM_INFINITY, RLIM_INFINITY};

	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return false;
	if (!setrlimit(RLIMIT_MEMLOCK, &wanted))
		return true;
	if (limit.rlim_cur == limit.rlim_max)
		return false;
	limit.rlim_cur = limit.rlim_max;
	return !setrlimit(RLIMIT_MEMLOCK, &limit);
}

static int map_or_say(struct dma_vfio *v, const struct mapping *m, struct err *err)
{
	int rc = map(v, m);

	if (rc == -ENOMEM && raise_memlock())
		rc = map(v, m);
	if (rc == -ENOMEM)
		return err_set(err, rc,
			       "%llu KiB of memory cannot be locked for a drive: raise the limit "
			       "(ulimit -l, or LimitMEMLOCK= of the service), or free memory",
			       (unsigned long long)m->len >> 10);
	if (rc == -ENOSPC)
		return err_set(err, rc,
			       "VFIO has no room for another mapping: raise "
			       "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit");
	if (rc)
		return err_set(err, rc,
			       "VFIO does not map memory for drives: %s (IOVA %#llx, %llu bytes)",
			       strerror(-rc), (unsigned long long)m->iova,
			       (unsigned long long)m->len);
	return 0;
}

/* The first place for @len bytes from @from on; the mapping before which it lies in *@next. */
static bool find_iova(struct dma_vfio *v, uint64_t from, uint64_t len, uint64_t *iova,
		      struct list **next)
{
	for (unsigned i = 0; i < v->nr_ranges; i++) {
		const struct range *r = &v->ranges[i];
		uint64_t at = r->start > from ? r->start : from;
		struct list *pos;

		list_for_each (pos, &v->mappings) {
			const struct mapping *m = list_entry(pos, struct mapping, node);

			if (m->iova + m->len <= at)
				continue;
			if (m->iova >= at && m->iova - at >= len)
				break;
			at = m->iova + m->len;
		}
		/* Large pages of the IOMMU's need both addresses aligned. */
		if (len >= STEP_BYTES && at % STEP_BYTES) {
			uint64_t aligned = (at + STEP_BYTES - 1) & ~(uint64_t)(STEP_BYTES - 1);
			const struct mapping *m = list_entry(pos, struct mapping, node);

			if (pos == &v->mappings || m->iova - aligned >= len)
				at = aligned;
		}
		if (at <= r->end && r->end - at >= len - 1) {
			*iova = at;
			*next = pos;
			return true;
		}
	}
	return false;
}

/* Finds an IOVA for @m and keeps it in the list: nobody else can have the place. */
static int place_mapping(struct dma_vfio *v, struct mapping *m, struct err *err)
{
	struct list *next;

	if (list_empty(&v->groups))
		return err_set(err, -ENODEV, "VFIO has no memory before a drive is there");
	if (!find_iova(v, FIRST_IOVA, m->len, &m->iova, &next) &&
	    !find_iova(v, LOWEST_IOVA, m->len, &m->iova, &next))
		return err_set(err, -ENOSPC,
			       "the IOMMU has no room for %llu KiB more: use fewer or shallower "
			       "queues",
			       (unsigned long long)m->len >> 10);
	list_add_tail(next, &m->node); /* in front of it */
	return 0;
}

static struct mapping *new_mapping(void *virt, size_t pages)
{
	struct mapping *m = calloc(1, sizeof(*m));

	if (m) {
		m->virt = virt;
		m->len = (uint64_t)pages * DMA_PAGE_SIZE;
	}
	return m;
}

/* The window */

static int grow(struct dma *d, size_t pages, bool contiguous, struct err *err)
{
	struct dma_vfio *v = vfio_of(d);
	size_t left = d->window - d->pages;
	size_t n = (pages + STEP_PAGES - 1) / STEP_PAGES * STEP_PAGES;
	char *at = d->base + d->pages * DMA_PAGE_SIZE;
	struct mapping *m;
	uint64_t *bus;
	int rc;

	if (n > left)
		n = left;
	if (n < pages)
		return err_set(err, -ENOMEM,
			       "%zu MiB of device memory are all taken: allow more by "
			       "--device-memory-mib, or use fewer or shallower queues",
			       d->window >> 8);
	bus = calloc(n, sizeof(*bus));
	m = new_mapping(at, n);
	if (!bus || !m) {
		rc = err_set(err, -ENOMEM, "no memory left for device memory");
		goto fail;
	}
	if (mprotect(at, n * DMA_PAGE_SIZE, PROT_READ | PROT_WRITE)) {
		rc = err_set(err, -errno, "no memory left for device memory: %s", strerror(errno));
		goto fail;
	}
	/* A child would take the pinned pages from us when it writes to them. */
	madvise(at, n * DMA_PAGE_SIZE, MADV_DONTFORK);
	madvise(at, n * DMA_PAGE_SIZE, MADV_DONTDUMP);
	/* Better with it, as good without: not every kernel has large pages. */
	madvise(at, n * DMA_PAGE_SIZE, MADV_HUGEPAGE);
	rc = place_mapping(v, m, err);
	if (!rc) {
		rc = map_or_say(v, m, err);
		if (rc)
			list_del(&m->node);
	}
	if (rc) {
		mprotect(at, n * DMA_PAGE_SIZE, PROT_NONE);
		goto fail;
	}
	for (size_t i = 0; i < n; i++)
		bus[i] = m->iova + i * DMA_PAGE_SIZE;
	dma_add(d, bus, n);
	free(bus);
	return 0;
fail:
	free(bus);
	free(m);
	return rc;
}

static const struct dma_ops vfio_ops = {
	.name = "VFIO",
	.grow = grow,
	.map = dma_vfio_map,
	.unmap = dma_vfio_unmap,
};

int dma_vfio_create(size_t max_pages, struct dma **out, struct err *err)
{
	struct dma_vfio *v = calloc(1, sizeof(*v));
	uintptr_t base;
	int rc;

	if (!v)
		return err_set(err, -ENOMEM, "no memory left for device memory");
	list_init(&v->mappings);
	list_init(&v->groups);
	list_init(&v->devices);
	v->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (v->container < 0) {
		rc = err_set(err, -errno,
			     "cannot open /dev/vfio/vfio: %s (modprobe vfio-pci, and "
			     "run as root)",
			     strerror(errno));
		goto fail_open;
	}
	if (ioctl(v->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(v->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0) {
		rc = err_set(
			err, -EOPNOTSUPP,
			"the kernel's VFIO has no IOMMU of type 1 (modprobe vfio_iommu_type1)");
		goto fail;
	}
	v->reserved_len = max_pages * DMA_PAGE_SIZE + STEP_BYTES;
	v->reserved = mmap(NULL, v->reserved_len, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->reserved == MAP_FAILED) {
		rc = err_set(err, -errno, "no addresses left for device memory");
		goto fail;
	}
	base = ((uintptr_t)v->reserved + STEP_BYTES - 1) & ~(uintptr_t)(STEP_BYTES - 1);
	rc = dma_init(&v->dma, &vfio_ops, (void *)base, max_pages);
	if (rc) {
		munmap(v->reserved, v->reserved_len);
		err_set(err, rc, "no memory left for device memory");
		goto fail;
	}
	pthread_mutex_init(&v->shape, NULL);
	*out = &v->dma;
	return 0;
fail:
	close(v->container);
fail_open:
	free(v);
	return rc;
}

void dma_vfio_destroy(struct dma *d)
{
	struct dma_vfio *v = vfio_of(d);
	struct list *node;

	/* Without a group the kernel has forgotten them. */
	while ((node = list_pop(&v->mappings)))
		free(list_entry(node, struct mapping, node));
	close(v->container);
	munmap(v->reserved, v->reserved_len);
	dma_fini(d);
	pthread_mutex_destroy(&v->shape);
	free(v);
}

/* What the kernel says of the address space */

static void read_ranges(struct dma_vfio *v, const struct vfio_iommu_type1_info_cap_iova_range *cap)
{
	for (uint32_t i = 0; i < cap->nr_iovas && v->nr_ranges < RANGES_MAX; i++)
		v->ranges[v->nr_ranges++] = (struct range){
			.start = cap->iova_ranges[i].start,
			.end = cap->iova_ranges[i].end,
		};
}

static int read_info(struct dma_vfio *v, struct err *err)
{
	struct vfio_iommu_type1_info *info, head = {.argsz = sizeof(head)};
	uint32_t at;

	/* The first call tells how much there is to say. */
	if (ioctl(v->container, VFIO_IOMMU_GET_INFO, &head))
		return err_set(err, -errno, "VFIO says nothing of its IOMMU: %s", strerror(errno));
	if (head.flags & VFIO_IOMMU_INFO_PGSIZES && !(head.iova_pgsizes & DMA_PAGE_SIZE))
		return err_set(err, -EOPNOTSUPP, "the IOMMU has no pages of 4 KiB");
	if (head.argsz < sizeof(head) || head.argsz > INFO_MAX)
		head.argsz = sizeof(head);
	info = calloc(1, head.argsz);
	if (!info)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	info->argsz = head.argsz;
	v->nr_ranges = 0;
	if (!ioctl(v->container, VFIO_IOMMU_GET_INFO, info) && info->flags & VFIO_IOMMU_INFO_CAPS) {
		for (at = info->cap_offset;
		     at && at <= head.argsz - sizeof(struct vfio_info_cap_header);) {
			const struct vfio_info_cap_header *cap =
				(const void *)((const char *)info + at);

			if (cap->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
				read_ranges(v, (const void *)cap);
			at = cap->next > at ? cap->next : 0;
		}
	}
	free(info);
	/* Kernels before 5.4 do not tell: what every IOMMU has, and no interrupt's message. */
	if (!v->nr_ranges)
		v->ranges[v->nr_ranges++] = (struct range){FIRST_IOVA, (1ULL << 39) - 1};
	return 0;
}

static bool in_ranges(const struct dma_vfio *v, const struct mapping *m)
{
	for (unsigned i = 0; i < v->nr_ranges; i++)
		if (m->iova >= v->ranges[i].start && m->iova + m->len - 1 <= v->ranges[i].end)
			return true;
	return false;
}

/* Groups */

static struct group *find_group(struct dma_vfio *v, int number)
{
	struct list *pos;

	list_for_each (pos, &v->groups) {
		struct group *g = list_entry(pos, struct group, node);

		if (g->number == number)
			return g;
	}
	return NULL;
}

static int group_of(const char *address, int *number, struct err *err)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *name;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", address);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return err_set(err, -ENODEV,
			       "no IOMMU stands before PCI device %s: switch it on in the firmware "
			       "(VT-d, AMD-Vi), and boot with intel_iommu=on",
			       address);
	target[n] = '\0';
	name = strrchr(target, '/');
	*number = atoi(name ? name + 1 : target);
	return 0;
}

/* Puts the group into the container, and makes of that an address space with all we have in it. */
static int join(struct dma_vfio *v, struct group *g, const char *address, struct err *err)
{
	bool first = list_empty(&v->groups);
	struct list *pos;
	int rc;

	if (ioctl(g->fd, VFIO_GROUP_SET_CONTAINER, &v->container))
		return err_set(err, -errno,
			       "IOMMU group %d of drive %s cannot be used together with the other "
			       "drives': %s",
			       g->number, address, strerror(errno));
	if (first && ioctl(v->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) {
		if (errno == EPERM)
			return err_set(
				err, -EPERM,
				"the platform does not remap interrupts, so VFIO refuses drive "
				"%s: switch interrupt remapping on in the firmware",
				address);
		return err_set(err, -errno, "VFIO does not set up the IOMMU for drive %s: %s",
			       address, strerror(errno));
	}
	rc = read_info(v, err);
	/* What is there has to stay where it is: drivers know the addresses. */
	list_for_each (pos, &v->mappings) {
		const struct mapping *m = list_entry(pos, struct mapping, node);

		if (!rc && !in_ranges(v, m))
			rc = err_set(err, -ENOSPC,
				     "the IOMMU has addresses reserved for drive %s that others "
				     "use: attach this drive first",
				     address);
		if (!rc && first)
			rc = map_or_say(v, m, err);
	}
	return rc;
}

static int open_group(struct dma_vfio *v, int number, const char *address, struct group **out,
		      struct err *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	struct group *g = calloc(1, sizeof(*g));
	char path[64];
	int rc;

	if (!g)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	g->number = number;
	snprintf(path, sizeof(path), "/dev/vfio/%d", number);
	g->fd = open(path, O_RDWR | O_CLOEXEC);
	if (g->fd < 0) {
		rc = -errno;
		free(g);
		if (rc == -EBUSY)
			return err_set(err, rc,
				       "IOMMU group %d of drive %s is in use by another process: "
				       "end that",
				       number, address);
		if (rc == -ENOENT)
			return err_set(
				err, rc,
				"drive %s is not bound to vfio-pci: take it by \"sluice nvme "
				"claim %s\"",
				address, address);
		return err_set(err, rc, "cannot open %s for drive %s: %s (run as root)", path,
			       address, strerror(-rc));
	}
	if (ioctl(g->fd, VFIO_GROUP_GET_STATUS, &status))
		rc = err_set(err, -errno, "VFIO says nothing of group %d: %s", number,
			     strerror(errno));
	else if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		rc = err_set(err, -EBUSY,
			     "IOMMU group %d of drive %s has other devices that drivers use: bind "
			     "all of /sys/kernel/iommu_groups/%d/devices to vfio-pci or to nothing",
			     number, address, number);
	else
		rc = join(v, g, address, err);
	if (rc) {
		close(g->fd);
		free(g);
		/* Without it there may be more room again. */
		if (!list_empty(&v->groups))
			read_info(v, NULL);
		return rc;
	}
	list_add_tail(&v->groups, &g->node);
	*out = g;
	return 0;
}

static void put_group(struct group *g)
{
	if (g->devices)
		return;
	list_del(&g->node);
	/* Leaves the container with that; and a group that is held keeps its drives from others. */
	close(g->fd);
	free(g);
}

int dma_vfio_open_device(struct dma *d, const char *address, struct err *err)
{
	struct dma_vfio *v = vfio_of(d);
	struct device *dev = calloc(1, sizeof(*dev));
	struct group *g;
	int number, rc;

	if (!dev)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	rc = group_of(address, &number, err);
	if (rc) {
		free(dev);
		return rc;
	}
	pthread_mutex_lock(&v->shape);
	pthread_mutex_lock(&d->lock);
	g = find_group(v, number);
	if (!g)
		rc = open_group(v, number, address, &g, err);
	if (!rc) {
		dev->fd = ioctl(g->fd, VFIO_GROUP_GET_DEVICE_FD, address);
		if (dev->fd < 0) {
			rc = err_set(
				err, -errno,
				"VFIO does not give out drive %s: %s (is it bound to vfio-pci? "
				"sluice nvme claim %s)",
				address, strerror(errno), address);
			put_group(g);
		}
	}
	if (!rc) {
		dev->group = g;
		g->devices++;
		list_add_tail(&v->devices, &dev->node);
		rc = dev->fd;
	} else {
		free(dev);
	}
	pthread_mutex_unlock(&d->lock);
	pthread_mutex_unlock(&v->shape);
	return rc;
}

void dma_vfio_close_device(struct dma *d, int fd)
{
	struct dma_vfio *v = vfio_of(d);
	struct list *pos, *tmp;

	pthread_mutex_lock(&v->shape);
	pthread_mutex_lock(&d->lock);
	list_for_each_safe (pos, tmp, &v->devices) {
		struct device *dev = list_entry(pos, struct device, node);

		if (dev->fd != fd)
			continue;
		list_del(pos);
		close(fd);
		dev->group->devices--;
		put_group(dev->group);
		free(dev);
	}
	pthread_mutex_unlock(&d->lock);
	pthread_mutex_unlock(&v->shape);
}

/* Memory of others' */

static void forget_mapping(struct dma_vfio *v, struct mapping *m)
{
	pthread_mutex_lock(&v->dma.lock);
	list_del(&m->node);
	pthread_mutex_unlock(&v->dma.lock);
}

/* NULL: there is none like that. */
static struct mapping *find_mapping(struct dma_vfio *v, uint64_t bus, size_t pages)
{
	struct mapping *found = NULL;
	struct list *pos;

	pthread_mutex_lock(&v->dma.lock);
	list_for_each (pos, &v->mappings) {
		struct mapping *m = list_entry(pos, struct mapping, node);

		if (m->iova == bus && m->len == (uint64_t)pages * DMA_PAGE_SIZE)
			found = m;
	}
	pthread_mutex_unlock(&v->dma.lock);
	return found;
}

int dma_vfio_map(struct dma *d, void *virt, size_t pages, uint64_t *bus, struct err *err)
{
	struct dma_vfio *v = vfio_of(d);
	struct mapping *m = new_mapping(virt, pages);
	int rc;

	if (!m)
		return err_set(err, -ENOMEM, "no memory left for a mapping");
	pthread_mutex_lock(&v->shape);
	pthread_mutex_lock(&d->lock);
	rc = place_mapping(v, m, err);
	pthread_mutex_unlock(&d->lock);
	if (!rc) {
		rc = map_or_say(v, m, err);
		if (rc)
			forget_mapping(v, m);
	}
	pthread_mutex_unlock(&v->shape);
	if (rc)
		free(m);
	else
		*bus = m->iova;
	return rc;
}

void dma_vfio_unmap(struct dma *d, uint64_t bus, size_t pages)
{
	struct dma_vfio *v = vfio_of(d);
	struct mapping *m;

	pthread_mutex_lock(&v->shape);
	m = find_mapping(v, bus, pages);
	if (m) {
		/* First, so that its place is nobody else's yet. */
		unmap(v, m);
		forget_mapping(v, m);
		free(m);
	}
	pthread_mutex_unlock(&v->shape);
}
