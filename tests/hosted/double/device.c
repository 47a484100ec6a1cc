/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The double of hypercalls by libxencall, as far as they map grants for devices, and of gntalloc by
 * libxengnttab.
 *
 * Each page of a domain has a machine address that is not its number: runs of a few pages, each in
 * descending order, and the runs shuffled, so that nothing works that only seems to.  A device
 * reaches what is mapped for it and nothing else, as behind an IOMMU that confines domain 0, to a
 * fault of its driver's making the most merciless one.
 *
 * Handles are used again at once, so that one kept too long ends the wrong mapping.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define __XEN_INTERFACE_VERSION__ 0x0003020a
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/version.h>
#include <xen/xen.h>
#include <xencall.h>
#include <xengnttab.h>

#include "internal.h"

enum {
	HANDLES = 65536,
	MAP_FAULTS = 16,
	DOMAIN_FRAMES = 1 << 20, /* of machine memory for each domain */
	SHUFFLE = 5,
};

struct device_mapping {
	bool used;
	bool writable;
	struct double_domain *domain;
	uint32_t ref;
	uint64_t bus;
};

struct buffer {
	struct list node;
	char *at;
	size_t bytes;
};

struct xencall_handle {
	struct list node;
	struct list buffers;
};

struct share_handle {
	struct list node;
};

/* A page of domain 0's that gntalloc has granted. */
struct shared_page {
	bool used;
	bool late; /* unmapped by its owner; goes as soon as no device can reach it */
	uint32_t ref;
};

/* All of these under double_gnttab_lock. */
static struct list calls = LIST_INIT(calls);
static struct list shares = LIST_INIT(shares);
static struct device_mapping mappings[HANDLES];
static uint32_t free_handles[HANDLES]; /* a stack */
static uint32_t nr_free;
static struct shared_page shared[DOUBLE_DOMAIN_PAGES]; /* of domain 0 */
static struct double_stats counters;
static uint64_t faults;
static unsigned bus_run;
static bool pv;
static uint32_t share_limit;
static const char *share_limit_path;
static uint32_t own_grants;
static unsigned table_frames, table_version;
static struct {
	unsigned domid;
	uint32_t ref;
	int16_t status;
	unsigned times;
} map_faults[MAP_FAULTS];
static struct {
	int16_t status;
	unsigned skip;
	unsigned times;
} unmap_fault;

void double_device_init(void)
{
	list_init(&calls);
	list_init(&shares);
	memset(mappings, 0, sizeof(mappings));
	memset(shared, 0, sizeof(shared));
	memset(&counters, 0, sizeof(counters));
	memset(map_faults, 0, sizeof(map_faults));
	memset(&unmap_fault, 0, sizeof(unmap_fault));
	for (nr_free = 0; nr_free < HANDLES; nr_free++)
		free_handles[nr_free] = HANDLES - 1 - nr_free;
	faults = 0;
	bus_run = 8;
	pv = true;
	share_limit = UINT32_MAX;
	share_limit_path = NULL;
	own_grants = UINT32_MAX;
	table_frames = 64;
	table_version = 1;
}

uint32_t double_device_mapped(void)
{
	return HANDLES - nr_free;
}

/* Machine addresses */

static uint64_t page_to_bus(const struct double_domain *d, unsigned page)
{
	uint64_t frame =
		(uint64_t)(page / bus_run ^ SHUFFLE) * 2 * bus_run + bus_run - 1 - page % bus_run;

	return ((d->serial + 1) * (uint64_t)DOMAIN_FRAMES + frame) * DOUBLE_PAGE_SIZE;
}

/* DOUBLE_DOMAIN_PAGES: none is there. */
static unsigned bus_frame_to_page(uint64_t frame)
{
	uint64_t page =
		(frame / (2 * bus_run) ^ SHUFFLE) * bus_run + bus_run - 1 - frame % (2 * bus_run);

	return frame % (2 * bus_run) < bus_run && page < DOUBLE_DOMAIN_PAGES ? (unsigned)page
									     : DOUBLE_DOMAIN_PAGES;
}

void *double_bus_to_memory(uint64_t bus, bool write)
{
	uint64_t frame = bus / DOUBLE_PAGE_SIZE % DOMAIN_FRAMES;
	uint64_t owner = bus / DOUBLE_PAGE_SIZE / DOMAIN_FRAMES;
	struct double_domain *d = NULL;
	char *memory = NULL;
	unsigned page;

	/* The domain may be dead: its memory is not, as long as it is mapped. */
	if (owner && owner <= UINT32_MAX)
		d = double_find_serial((unsigned)owner - 1);
	pthread_mutex_lock(&double_gnttab_lock);
	page = bus_frame_to_page(frame);
	if (d && page < DOUBLE_DOMAIN_PAGES &&
	    (write ? d->devices[page].writers : d->devices[page].readers))
		memory = d->host + page * DOUBLE_PAGE_SIZE + bus % DOUBLE_PAGE_SIZE;
	if (!memory)
		faults++;
	pthread_mutex_unlock(&double_gnttab_lock);
	return memory;
}

uint64_t double_take_dma_faults(void)
{
	uint64_t n;

	pthread_mutex_lock(&double_gnttab_lock);
	n = faults;
	faults = 0;
	pthread_mutex_unlock(&double_gnttab_lock);
	return n;
}

/* gntalloc */

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned open_flags)
{
	struct share_handle *s;

	if (double_fails(DOUBLE_SHARE_OPEN, NULL))
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	pthread_mutex_lock(&double_gnttab_lock);
	list_add_tail(&shares, &s->node);
	pthread_mutex_unlock(&double_gnttab_lock);
	return (void *)s;
}

int xengntshr_close(xengntshr_handle *xgs)
{
	struct share_handle *s = (void *)xgs;

	if (!s)
		return 0;
	pthread_mutex_lock(&double_gnttab_lock);
	list_del(&s->node);
	pthread_mutex_unlock(&double_gnttab_lock);
	free(s);
	return 0;
}

/* With the lock held. */
static uint32_t get_share_limit(void)
{
	unsigned limit = 0;
	FILE *f;

	if (!share_limit_path)
		return share_limit;
	f = fopen(share_limit_path, "re");
	if (!f || fscanf(f, "%u", &limit) != 1)
		double_abort("no number in %s", share_limit_path);
	fclose(f);
	return limit;
}

static bool may_share(uint32_t pages)
{
	bool may;

	pthread_mutex_lock(&double_gnttab_lock);
	may = counters.shared + pages <= get_share_limit() && counters.shared + pages <= own_grants;
	pthread_mutex_unlock(&double_gnttab_lock);
	return may;
}

void *xengntshr_share_pages(xengntshr_handle *xgs, uint32_t domid, int count, uint32_t *refs,
			    int writable)
{
	size_t bytes = (size_t)count * DOUBLE_PAGE_SIZE;
	struct double_domain *self = double_get_domain(0);
	char *pages, *area;

	if (double_fails(DOUBLE_SHARE, NULL))
		return NULL;
	if (count <= 0 || !may_share((uint32_t)count)) {
		errno = count <= 0 ? EINVAL : ENOSPC;
		return NULL;
	}
	pages = double_pages_alloc(0, (unsigned)count);
	area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, self->memfd,
		    pages - self->guest);
	if (area == MAP_FAILED)
		double_abort("mmap: %s", strerror(errno));
	for (int i = 0; i < count; i++) {
		char *page = pages + (size_t)i * DOUBLE_PAGE_SIZE;

		refs[i] = double_grant(0, page, domid, !writable);
		pthread_mutex_lock(&double_gnttab_lock);
		shared[(page - self->guest) / DOUBLE_PAGE_SIZE] =
			(struct shared_page){.used = true, .ref = refs[i]};
		counters.shared++;
		counters.shares_for_others += domid != 0;
		pthread_mutex_unlock(&double_gnttab_lock);
	}
	return area;
}

/* With the lock held. The owner is done with it: it goes unless a device may still reach it. */
static void let_go(struct double_domain *self, unsigned page)
{
	struct shared_page *s = &shared[page];

	if (self->grants[s->ref].mapped) {
		counters.shared_late += !s->late;
		s->late = true;
		return;
	}
	counters.shared_late -= s->late;
	counters.shared--;
	self->grants[s->ref].used = false;
	self->page_used[page] = false;
	*s = (struct shared_page){0};
}

/*
 * Which pages of domain 0's are mapped from @addr on: pages may have been moved since they were
 * shared, of which only the kernel knows.
 */
static void find_pages(const struct double_domain *self, uintptr_t addr, uint32_t count,
		       size_t *pages)
{
	unsigned long start, end, offset, inode;
	char line[512];
	struct stat st;
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	if (!f || fstat(self->memfd, &st))
		double_abort("cannot read /proc/self/maps");
	for (uint32_t i = 0; i < count; i++)
		pages[i] = DOUBLE_DOMAIN_PAGES;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx %*s %lu", &start, &end, &offset, &inode) != 4 ||
		    inode != st.st_ino)
			continue;
		for (uint32_t i = 0; i < count; i++) {
			uintptr_t at = addr + (uintptr_t)i * DOUBLE_PAGE_SIZE;

			if (at >= start && at < end)
				pages[i] = (offset + at - start) / DOUBLE_PAGE_SIZE;
		}
	}
	fclose(f);
}

int xengntshr_unshare(xengntshr_handle *xgs, void *start_address, uint32_t count)
{
	struct double_domain *self = double_get_domain(0);
	size_t *pages = calloc(count, sizeof(*pages));

	if (!pages)
		double_abort("out of memory");
	find_pages(self, (uintptr_t)start_address, count, pages);
	pthread_mutex_lock(&double_gnttab_lock);
	for (uint32_t i = 0; i < count; i++) {
		if (pages[i] >= DOUBLE_DOMAIN_PAGES || !shared[pages[i]].used ||
		    shared[pages[i]].late)
			double_abort("what is to be unshared is no shared page");
		let_go(self, (unsigned)pages[i]);
	}
	munmap(start_address, (size_t)count * DOUBLE_PAGE_SIZE);
	pthread_mutex_unlock(&double_gnttab_lock);
	free(pages);
	return 0;
}

/* Hypercalls */

xencall_handle *xencall_open(struct xentoollog_logger *logger, unsigned open_flags)
{
	xencall_handle *x;

	if (double_fails(DOUBLE_CALL_OPEN, NULL))
		return NULL;
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	list_init(&x->buffers);
	pthread_mutex_lock(&double_gnttab_lock);
	list_add_tail(&calls, &x->node);
	pthread_mutex_unlock(&double_gnttab_lock);
	return x;
}

/* With the lock held. */
static void close_call(xencall_handle *x)
{
	struct list *node;

	while ((node = list_pop(&x->buffers))) {
		munmap(list_entry(node, struct buffer, node)->at,
		       list_entry(node, struct buffer, node)->bytes);
		free(list_entry(node, struct buffer, node));
	}
	list_del(&x->node);
	free(x);
}

int xencall_close(xencall_handle *x)
{
	if (!x)
		return 0;
	pthread_mutex_lock(&double_gnttab_lock);
	if (!list_empty(&x->buffers))
		double_abort("a hypercall handle is closed before its buffers are freed");
	close_call(x);
	pthread_mutex_unlock(&double_gnttab_lock);
	return 0;
}

void *xencall_alloc_buffer_pages(xencall_handle *x, size_t nr_pages)
{
	struct buffer *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->bytes = nr_pages * DOUBLE_PAGE_SIZE;
	b->at = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->at == MAP_FAILED)
		double_abort("mmap: %s", strerror(errno));
	pthread_mutex_lock(&double_gnttab_lock);
	list_add_tail(&x->buffers, &b->node);
	pthread_mutex_unlock(&double_gnttab_lock);
	return b->at;
}

static struct buffer *find_buffer(xencall_handle *x, const char *at, size_t bytes)
{
	struct list *pos;

	list_for_each (pos, &x->buffers) {
		struct buffer *b = list_entry(pos, struct buffer, node);

		if (at >= b->at && (size_t)(at - b->at) <= b->bytes &&
		    bytes <= b->bytes - (size_t)(at - b->at))
			return b;
	}
	return NULL;
}

void xencall_free_buffer_pages(xencall_handle *x, void *p, size_t nr_pages)
{
	struct buffer *b;

	pthread_mutex_lock(&double_gnttab_lock);
	b = find_buffer(x, p, nr_pages * DOUBLE_PAGE_SIZE);
	if (!b || b->at != p || b->bytes != nr_pages * DOUBLE_PAGE_SIZE)
		double_abort("no such hypercall buffer");
	munmap(b->at, b->bytes);
	list_del(&b->node);
	free(b);
	pthread_mutex_unlock(&double_gnttab_lock);
}

int xencall2(xencall_handle *x, unsigned int op, uint64_t arg1, uint64_t arg2)
{
	struct xen_feature_info *info = (void *)(uintptr_t)arg2;

	if (op != __HYPERVISOR_xen_version || arg1 != XENVER_get_features)
		double_abort("hypercall %u is not in the double", op);
	if (!find_buffer(x, (char *)info, sizeof(*info))) {
		errno = EFAULT;
		return -1;
	}
	info->submap = pv ? 0 : 1U << XENFEAT_auto_translated_physmap;
	return 0;
}

static int16_t take_map_fault(unsigned domid, uint32_t ref)
{
	for (unsigned i = 0; i < MAP_FAULTS; i++) {
		if (map_faults[i].times && map_faults[i].domid == domid &&
		    map_faults[i].ref == ref) {
			map_faults[i].times--;
			return map_faults[i].status;
		}
	}
	return GNTST_okay;
}

static int16_t check_map(const struct gnttab_map_grant_ref *op, const struct double_domain *d)
{
	const struct double_grant *g;
	int16_t status;

	if (!d)
		return GNTST_bad_domain;
	status = take_map_fault(op->dom, op->ref);
	if (status)
		return status;
	if (!pv)
		return GNTST_general_error;
	if (op->ref >= DOUBLE_GRANTS)
		return GNTST_bad_gntref;
	g = &d->grants[op->ref];
	if (!g->used || g->to != 0 || (g->readonly && !(op->flags & GNTMAP_readonly)) ||
	    g->mapped == DOUBLE_PINS_MAX)
		return GNTST_general_error;
	return nr_free && double_gnttab_has_room(1) ? GNTST_okay : GNTST_no_space;
}

/* With the lock held, which is let go for the hook. */
static void map_one(struct gnttab_map_grant_ref *op)
{
	struct double_domain *d = double_find_domain(op->dom);
	bool writable = !(op->flags & GNTMAP_readonly);
	struct double_grant *g;

	if ((op->flags | GNTMAP_readonly) != (GNTMAP_device_map | GNTMAP_readonly))
		double_abort("a mapping that is not only for devices is not in the double");
	op->status = check_map(op, d);
	if (op->status)
		return;
	g = &d->grants[op->ref];
	g->mapped++;
	g->mapped_writable += writable;
	g->mapped_for_devices++;
	g->maps++;
	d->devices[g->page].readers++;
	d->devices[g->page].writers += writable;
	op->handle = free_handles[--nr_free];
	op->dev_bus_addr = page_to_bus(d, g->page);
	mappings[op->handle] = (struct device_mapping){.used = true,
						       .writable = writable,
						       .domain = d,
						       .ref = op->ref,
						       .bus = op->dev_bus_addr};
	counters.device_maps++;
	double_gnttab_tell_hook(true, d, op->ref, writable);
}

static int16_t take_unmap_fault(void)
{
	if (!unmap_fault.times)
		return GNTST_okay;
	if (unmap_fault.skip) {
		unmap_fault.skip--;
		return GNTST_okay;
	}
	unmap_fault.times--;
	return unmap_fault.status;
}

/* The same. What has no address on the bus is ignored, and the answer is yes. */
static void unmap_one(struct gnttab_unmap_grant_ref *op)
{
	struct device_mapping *m = &mappings[op->handle % HANDLES];
	struct double_grant *g;

	op->status = take_unmap_fault();
	if (!op->status && (op->handle >= HANDLES || !m->used))
		op->status = GNTST_bad_handle;
	if (!op->status && op->dev_bus_addr && op->dev_bus_addr != m->bus)
		op->status = GNTST_bad_dev_addr;
	counters.device_unmaps_refused += op->status != GNTST_okay;
	if (op->status || !op->dev_bus_addr)
		return;
	double_gnttab_tell_hook(false, m->domain, m->ref, m->writable);
	g = &m->domain->grants[m->ref];
	g->mapped--;
	g->mapped_writable -= m->writable;
	g->mapped_for_devices--;
	m->domain->devices[g->page].readers--;
	m->domain->devices[g->page].writers -= m->writable;
	if (m->domain->serial == 0 && shared[g->page].late)
		let_go(m->domain, g->page);
	m->used = false;
	free_handles[nr_free++] = op->handle;
	counters.device_unmaps++;
}

/* What Xen says of domain 0's own grant table; false: something else was asked. */
static bool query(xencall_handle *x, uint64_t what, void *arg)
{
	struct gnttab_query_size *size = arg;
	struct gnttab_get_version *version = arg;

	if (what == GNTTABOP_query_size && find_buffer(x, arg, sizeof(*size)) &&
	    size->dom == DOMID_SELF) {
		size->max_nr_frames = table_frames;
		size->status = GNTST_okay;
	} else if (what == GNTTABOP_get_version && find_buffer(x, arg, sizeof(*version)) &&
		   version->dom == DOMID_SELF) {
		version->version = table_version;
	} else {
		return false;
	}
	return true;
}

/* One side is a grant, the other a frame of domain 0's own, as far as it is gntalloc's. */
static int16_t copy_one(const struct gnttab_copy *op)
{
	bool to_grant = op->flags == GNTCOPY_dest_gref;
	const struct gnttab_copy_ptr *grant = to_grant ? &op->dest : &op->source;
	const struct gnttab_copy_ptr *own = to_grant ? &op->source : &op->dest;
	struct double_domain *self = double_get_domain(0);
	uint64_t frame = own->u.gmfn % DOMAIN_FRAMES;
	unsigned page = bus_frame_to_page(frame);

	if ((!to_grant && op->flags != GNTCOPY_source_gref) || own->domid != DOMID_SELF || !pv)
		double_abort("a copy of this kind is not in the double");
	if (own->offset + op->len > DOUBLE_PAGE_SIZE || grant->offset + op->len > DOUBLE_PAGE_SIZE)
		return GNTST_bad_copy_arg;
	if (own->u.gmfn / DOMAIN_FRAMES != self->serial + 1 || page >= DOUBLE_DOMAIN_PAGES ||
	    !shared[page].used || shared[page].late)
		return GNTST_general_error;
	return double_gnttab_copy(grant->domid, grant->u.ref, grant->offset,
				  self->host + (size_t)page * DOUBLE_PAGE_SIZE + own->offset,
				  op->len, to_grant);
}

static int copy_all(xencall_handle *x, struct gnttab_copy *ops, uint64_t nr)
{
	bool fails = double_fails(DOUBLE_GNTTAB_COPY, NULL);
	int error = fails ? errno : 0;

	pthread_mutex_lock(&double_gnttab_lock);
	counters.direct_copy_calls++;
	if (!find_buffer(x, (char *)ops, nr * sizeof(*ops))) {
		error = EFAULT;
		nr = 0;
	}
	for (uint64_t i = 0; i + fails < nr; i++)
		ops[i].status = copy_one(&ops[i]);
	pthread_mutex_unlock(&double_gnttab_lock);
	errno = error;
	return error ? -1 : 0;
}

int xencall3(xencall_handle *x, unsigned int op, uint64_t arg1, uint64_t arg2, uint64_t arg3)
{
	bool map = arg1 == GNTTABOP_map_grant_ref;
	struct gnttab_map_grant_ref *maps = (void *)(uintptr_t)arg2;
	struct gnttab_unmap_grant_ref *unmaps = (void *)(uintptr_t)arg2;
	bool fails;
	int error;

	if (op == __HYPERVISOR_grant_table_op && arg3 == 1 && query(x, arg1, maps))
		return 0;
	if (op == __HYPERVISOR_grant_table_op && arg1 == GNTTABOP_copy)
		return copy_all(x, (void *)(uintptr_t)arg2, arg3);
	if (op != __HYPERVISOR_grant_table_op || (!map && arg1 != GNTTABOP_unmap_grant_ref))
		double_abort("hypercall %u, %lu is not in the double", op, (unsigned long)arg1);
	fails = double_fails(map ? DOUBLE_DEVICE_MAP : DOUBLE_DEVICE_UNMAP, NULL);
	error = fails ? errno : 0;
	pthread_mutex_lock(&double_gnttab_lock);
	counters.device_calls++;
	if (!find_buffer(x, (char *)maps, arg3 * (map ? sizeof(*maps) : sizeof(*unmaps)))) {
		error = EFAULT;
		arg3 = 0;
	}
	for (uint64_t i = 0; i + fails < arg3; i++) {
		if (map)
			map_one(&maps[i]);
		else
			unmap_one(&unmaps[i]);
	}
	pthread_mutex_unlock(&double_gnttab_lock);
	errno = error;
	return error ? -1 : 0;
}

/* The world's side */

void double_set_bus_run(unsigned pages)
{
	if (!pages || pages & (pages - 1) || pages > DOUBLE_DOMAIN_PAGES / (SHUFFLE + 1))
		double_abort("a run of %u pages is none", pages);
	bus_run = pages;
}

void double_set_pv(bool value)
{
	pv = value;
}

void double_limit_shares(uint32_t pages, const char *path)
{
	pthread_mutex_lock(&double_gnttab_lock);
	share_limit = pages;
	share_limit_path = path;
	pthread_mutex_unlock(&double_gnttab_lock);
}

void double_limit_own_grants(uint32_t pages)
{
	pthread_mutex_lock(&double_gnttab_lock);
	own_grants = pages;
	pthread_mutex_unlock(&double_gnttab_lock);
}

void double_set_grant_table(unsigned frames, unsigned version)
{
	table_frames = frames;
	table_version = version;
}

void double_fail_device_map(unsigned domid, uint32_t ref, int16_t status, unsigned times)
{
	unsigned i = 0;

	pthread_mutex_lock(&double_gnttab_lock);
	while (i < MAP_FAULTS && map_faults[i].times)
		i++;
	if (i == MAP_FAULTS)
		double_abort("too many faults of mappings");
	map_faults[i].domid = domid;
	map_faults[i].ref = ref;
	map_faults[i].status = status;
	map_faults[i].times = times;
	pthread_mutex_unlock(&double_gnttab_lock);
}

void double_fail_device_unmap(int16_t status, unsigned skip, unsigned times)
{
	pthread_mutex_lock(&double_gnttab_lock);
	unmap_fault.status = status;
	unmap_fault.skip = skip;
	unmap_fault.times = times;
	pthread_mutex_unlock(&double_gnttab_lock);
}

/* The pages of gntalloc that are mapped somewhere, as the process's end unmaps them. */
static void unmap_shared(struct double_domain *self)
{
	unsigned long start, end, offset, inode;
	char line[512];
	struct stat st;
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	if (!f || fstat(self->memfd, &st))
		double_abort("cannot read /proc/self/maps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx %*s %lu", &start, &end, &offset, &inode) != 4 ||
		    inode != st.st_ino || start == (uintptr_t)self->guest ||
		    start == (uintptr_t)self->host)
			continue;
		munmap((void *)start, end - start);
	}
	fclose(f);
}

void double_device_end_process(void)
{
	struct double_domain *self = double_get_domain(0);

	unmap_shared(self);
	pthread_mutex_lock(&double_gnttab_lock);
	for (unsigned i = 0; i < DOUBLE_DOMAIN_PAGES; i++)
		if (shared[i].used)
			let_go(self, i);
	while (!list_empty(&calls))
		close_call(list_entry(calls.next, xencall_handle, node));
	while (!list_empty(&shares)) {
		struct share_handle *s = list_entry(shares.next, struct share_handle, node);

		list_del(&s->node);
		free(s);
	}
	pthread_mutex_unlock(&double_gnttab_lock);
}

unsigned double_device_leaks(void)
{
	unsigned leaks = 0;
	struct list *pos;

	pthread_mutex_lock(&double_gnttab_lock);
	list_for_each (pos, &calls)
		leaks += double_leak("an open hypercall handle");
	list_for_each (pos, &shares)
		leaks += double_leak("an open handle of gntalloc");
	if (double_device_mapped())
		leaks +=
			double_leak("%u pages that are mapped for devices", double_device_mapped());
	if (counters.shared)
		leaks += double_leak("%lu pages of gntalloc", (unsigned long)counters.shared);
	if (faults)
		leaks += double_leak("%lu faults of the IOMMU", (unsigned long)faults);
	pthread_mutex_unlock(&double_gnttab_lock);
	return leaks;
}

void double_device_add_stats(struct double_stats *stats)
{
	pthread_mutex_lock(&double_gnttab_lock);
	stats->direct_copy_calls = counters.direct_copy_calls;
	stats->device_calls = counters.device_calls;
	stats->device_maps = counters.device_maps;
	stats->device_unmaps = counters.device_unmaps;
	stats->device_unmaps_refused = counters.device_unmaps_refused;
	stats->device_mapped = double_device_mapped();
	stats->shared = counters.shared;
	stats->shared_late = counters.shared_late;
	stats->shares_for_others = counters.shares_for_others;
	pthread_mutex_unlock(&double_gnttab_lock);
}
