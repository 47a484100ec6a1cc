/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where a PV domain has its device memory from.  Nobody tells such a domain's user space machine
 * addresses: /proc/self/pagemap has the kernel's own numbers for frames, and a hugepage is not huge
 * on the bus.  But the hypervisor tells the machine address of each granted page to whoever maps it
 * for a device, and who grants a page to himself may do that.  gntalloc makes such pages.
 *
 * The kernel hands them out in any order.  Each lot is sorted by address and moved into the window
 * in that order, neighbours by one step, so that runs of frames are runs of pages.
 *
 * After the process's death the pages stay what they are, because the hypervisor still counts them
 * as mapped: a write of the drive that comes late harms nobody.  The kernel takes them back once a
 * successor has ended the mappings (grant/ledger.h).
 */
#include "dma/granted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xengnttab.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "grant/copy.h"
#include "grant/device.h"
#include "grant/library.h"
#include "grant/self.h"
#include "grant/tunable.h"

enum {
	STEP = 64,         /* pages that are added at least, if there is room */
	OWN_SHARE = 2,     /* one of so many grants of the domain may be ours */
	SEARCH = 8,        /* times what is wanted: how many pages a run is looked for in */
	SAMPLE_PAGES = 32, /* of the larger sample: 128 KiB, an unmodified Linux guest's largest */
	WARM_UPS = 5,
	SAMPLES = 25,
	MAP_FROM_MAX = 1024 * 1024,
};

struct granted {
	struct dma dma;
	struct grant_ledger *ledger;
	struct grant_device *device; /* belongs to who holds dma's lock */
	xengntshr_handle *shr;
	uint16_t self;
	bool bounded;   /* by the domain's grants, to less than was asked for */
	uint32_t *refs; /* of each page in the window */
	uint32_t *handles;
};

/* A page on its way into the window. */
struct fresh {
	char *virt;
	uint64_t bus;
	uint32_t ref;
	uint32_t handle;
};

/*
 * gntalloc says ENOSPC both at its own limit, which is the host's and may be raised, and when the
 * domain has no grant left.  So the limit is raised by what is wanted: who is refused even then
 * lacks the other.
 */
static char *share_beyond_limit(struct granted *g, uint32_t pages, uint32_t *refs, struct err *err)
{
	uint32_t limit = 0;
	int rc = grant_tunable_read(GRANT_TUNABLE_SHARE_LIMIT, &limit);
	char *area = NULL;

	if (!rc)
		rc = limit > UINT32_MAX - pages
			     ? -ERANGE
			     : grant_tunable_write(GRANT_TUNABLE_SHARE_LIMIT, limit + pages);
	if (rc) {
		err_set(err, -ENOSPC,
			"gntalloc has no %u pages left, and its limit cannot be raised: %s (write "
			"more than %u to %s)",
			pages, strerror(-rc), limit, GRANT_TUNABLE_SHARE_LIMIT);
		return NULL;
	}
	area = xengntshr_share_pages(g->shr, g->self, (int)pages, refs, 1);
	if (!area) {
		grant_tunable_write(GRANT_TUNABLE_SHARE_LIMIT, limit);
		err_set(err, -ENOSPC,
			"domain %u has no %u grants left for device memory: raise "
			"gnttab_max_frames "
			"on Xen's command line (max_grant_frames for a driver domain)",
			g->self, pages);
	}
	return area;
}

/* Adds @pages granted pages to @fresh, mapped for devices as far as that could be done. */
static int share(struct granted *g, struct fresh *fresh, size_t pages, struct err *err)
{
	uint32_t *refs = calloc(pages, sizeof(*refs));
	char *area;
	int rc = 0;

	if (!refs)
		return err_set(err, -ENOMEM, "no memory for %zu grant references", pages);
	area = xengntshr_share_pages(g->shr, g->self, (int)pages, refs, 1);
	if (!area && errno == ENOSPC) {
		area = share_beyond_limit(g, (uint32_t)pages, refs, err);
		rc = area ? 0 : -ENOSPC;
	} else if (!area) {
		rc = err_set(err, -errno, "cannot get %zu pages of device memory from gntalloc: %s",
			     pages, strerror(errno));
	}
	for (size_t i = 0; i < pages && !rc; i++)
		fresh[i] = (struct fresh){.virt = area + i * DMA_PAGE_SIZE, .ref = refs[i]};
	free(refs);
	return rc;
}

static int map_for_devices(struct granted *g, struct fresh *fresh, size_t pages, struct err *err)
{
	for (size_t i = 0; i < pages; i++)
		grant_device_map(g->device, g->self, fresh[i].ref, true, &fresh[i].bus,
				 &fresh[i].handle);
	grant_device_flush(g->device);
	for (size_t i = 0; i < pages; i++)
		if (fresh[i].bus == GRANT_NO_BUS)
			return err_set(
				err, -ENOMEM,
				"Xen does not map this domain's own pages for devices (if its "
				"table is full, as the log then says, raise "
				"gnttab_max_maptrack_frames on Xen's command line)");
	return 0;
}

static void take_back(struct granted *g, struct fresh *fresh, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		if (fresh[i].bus != GRANT_NO_BUS)
			grant_device_unmap(g->device, fresh[i].bus, fresh[i].handle);
	grant_device_flush(g->device);
	for (size_t i = 0; i < pages; i++)
		xengntshr_unshare(g->shr, fresh[i].virt, 1);
}

static int compare_bus(const void *a, const void *b)
{
	const struct fresh *x = a, *y = b;

	return (x->bus > y->bus) - (x->bus < y->bus);
}

static bool has_run(const struct fresh *fresh, size_t n, size_t pages)
{
	size_t run = 0;

	for (size_t i = 0; i < n && run < pages; i++)
		run = run && fresh[i].bus == fresh[i - 1].bus + DMA_PAGE_SIZE ? run + 1 : 1;
	return run >= pages;
}

/* Moves sorted pages into the window and counts them. Returns how many, which an error cuts. */
static size_t place(struct granted *g, struct fresh *fresh, size_t n, struct err *err)
{
	size_t done = 0;

	while (done < n) {
		char *from = fresh[done].virt;
		char *to = g->dma.base + g->dma.pages * DMA_PAGE_SIZE;
		size_t len = 1;

		while (done + len < n && fresh[done + len].virt == from + len * DMA_PAGE_SIZE)
			len++;
		if (mremap(from, len * DMA_PAGE_SIZE, len * DMA_PAGE_SIZE,
			   MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
			err_set(err, -errno,
				"cannot arrange pages of device memory: %s (raise "
				"vm.max_map_count)",
				strerror(errno));
			break;
		}
		/* Neither in a dump nor in a child is there use for what devices write to. */
		madvise(to, len * DMA_PAGE_SIZE, MADV_DONTDUMP);
		madvise(to, len * DMA_PAGE_SIZE, MADV_DONTFORK);
		for (size_t i = done; i < done + len; i++) {
			g->refs[g->dma.pages] = fresh[i].ref;
			g->handles[g->dma.pages] = fresh[i].handle;
			dma_add(&g->dma, &fresh[i].bus, 1);
		}
		done += len;
	}
	return done;
}

/* Fills @fresh, which has room for @max pages, until it holds what is wanted. */
static int gather(struct granted *g, size_t pages, bool contiguous, struct fresh *fresh, size_t max,
		  size_t *n, struct err *err)
{
	do {
		size_t more = *n ? STEP : pages < STEP ? STEP : pages;
		int rc;

		if (more > max - *n)
			more = max - *n;
		rc = share(g, &fresh[*n], more, err);
		if (rc)
			return rc;
		rc = map_for_devices(g, &fresh[*n], more, err);
		*n += more;
		if (rc)
			return rc;
		qsort(fresh, *n, sizeof(*fresh), compare_bus);
	} while (contiguous && !has_run(fresh, *n, pages) && *n < max);
	if (contiguous && !has_run(fresh, *n, pages))
		return err_set(err, -ENOMEM,
			       "found no %zu contiguous pages among %zu: use shallower queues",
			       pages, *n);
	return 0;
}

static int grow(struct dma *dma, size_t pages, bool contiguous, struct err *err)
{
	struct granted *g = container_of(dma, struct granted, dma);
	size_t room = dma->window - dma->pages;
	size_t max = contiguous && pages > 1 ? pages * SEARCH : pages;
	size_t n = 0, placed = 0;
	struct fresh *fresh;
	int rc;

	if (pages > room)
		return err_set(err, -ENOMEM,
			       "the device memory of this process, %zu MiB, is used up: raise %s",
			       dma->window * DMA_PAGE_SIZE / (1024 * 1024),
			       g->bounded ? "gnttab_max_frames on Xen's command line"
					  : "it by --device-memory-mib");
	if (max < STEP)
		max = STEP;
	if (max > room)
		max = room;
	fresh = calloc(max, sizeof(*fresh));
	if (!fresh)
		return err_set(err, -ENOMEM, "no memory for a list of pages");
	rc = gather(g, pages, contiguous, fresh, max, &n, err);
	if (!rc) {
		placed = place(g, fresh, n, err);
		rc = placed < n ? -ENOMEM : 0;
	}
	take_back(g, &fresh[placed], n - placed);
	free(fresh);
	return rc;
}

static const struct dma_ops granted_ops = {.name = "granted", .grow = grow};

static void close_all(struct granted *g)
{
	if (g->shr)
		xengntshr_close(g->shr);
	if (g->device)
		grant_device_destroy(g->device);
	free(g->refs);
	free(g->handles);
	free(g);
}

/*
 * Linux does not bear to run out of grants: 6.1's gntalloc, refused once for want of them, was
 * refused everything from then on. So a good part is left to others.
 */
static int bound(struct granted *g, size_t *max_pages, struct err *err)
{
	uint32_t grants;
	int rc = grant_device_get_own_grants(g->device, &grants, err);

	if (rc)
		return rc;
	g->bounded = *max_pages > grants / OWN_SHARE;
	if (!g->bounded)
		return 0;
	*max_pages = grants / OWN_SHARE;
	log_warning("device memory is bounded to %zu MiB, as this domain can grant no more than %u "
		    "pages (gnttab_max_frames on Xen's command line)",
		    *max_pages * DMA_PAGE_SIZE / (1024 * 1024), grants);
	return 0;
}

static int open_all(struct granted *g, size_t max_pages, struct err *err)
{
	void *base;
	int rc;

	rc = grant_device_create(g->ledger, &g->device, err);
	if (rc)
		return rc;
	rc = bound(g, &max_pages, err);
	if (rc)
		return rc;
	rc = grant_self_get_domid(&g->self, err);
	if (rc)
		return rc;
	g->shr = xengntshr_open(grant_library_get_logger(), 0);
	if (!g->shr)
		return err_set(err, -errno,
			       "cannot open /dev/xen/gntalloc: %s (load the module xen-gntalloc "
			       "and run as root)",
			       strerror(errno));
	g->refs = calloc(max_pages, sizeof(*g->refs));
	g->handles = calloc(max_pages, sizeof(*g->handles));
	base = mmap(NULL, max_pages * DMA_PAGE_SIZE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return err_set(err, -errno, "no addresses for %zu pages of device memory: %s",
			       max_pages, strerror(errno));
	rc = g->refs && g->handles ? dma_init(&g->dma, &granted_ops, base, max_pages) : -ENOMEM;
	if (rc) {
		munmap(base, max_pages * DMA_PAGE_SIZE);
		return err_set(err, rc, "no memory for a list of %zu pages", max_pages);
	}
	return 0;
}

int dma_granted_create(size_t max_pages, struct grant_ledger *ledger, struct dma **out,
		       struct err *err)
{
	struct granted *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return err_set(err, -ENOMEM, "no memory for device memory");
	g->ledger = ledger;
	rc = open_all(g, max_pages, err);
	if (rc) {
		close_all(g);
		return rc;
	}
	*out = &g->dma;
	return 0;
}

void dma_granted_destroy(struct dma *d)
{
	struct granted *g = container_of(d, struct granted, dma);
	size_t filled = d->pages * DMA_PAGE_SIZE;

	for (size_t i = 0; i < d->pages; i++)
		grant_device_unmap(g->device, d->bus[i], g->handles[i]);
	grant_device_flush(g->device);
	if (filled)
		xengntshr_unshare(g->shr, d->base, (uint32_t)d->pages);
	munmap(d->base + filled, d->window * DMA_PAGE_SIZE - filled);
	dma_fini(d);
	close_all(g);
}

/* What moving a request's pages takes, either way, tried on our own. */
struct trial {
	const struct granted *granted;
	struct grant_device *device;
	struct grant_copier *copier;
	const uint32_t *refs;   /* of the pages that stand for a guest's */
	struct dma_memory *own; /* where they are copied to */
	int status;
};

static void copy_pages(struct trial *t, size_t pages)
{
	for (size_t i = 0; i < pages; i++) {
		const struct grant_copy copy = {
			.domid = t->granted->self,
			.ref = t->refs[i],
			.len = DMA_PAGE_SIZE,
			.local = (char *)t->own->virt + i * DMA_PAGE_SIZE,
			.bus = t->own->bus[i],
			.status = &t->status,
		};

		grant_copier_add(t->copier, &copy);
	}
	grant_copier_flush(t->copier);
}

static void map_pages(struct trial *t, size_t pages)
{
	uint64_t bus[SAMPLE_PAGES];
	uint32_t handles[SAMPLE_PAGES];

	for (size_t i = 0; i < pages; i++)
		grant_device_map(t->device, t->granted->self, t->refs[i], true, &bus[i],
				 &handles[i]);
	grant_device_flush(t->device);
	for (size_t i = 0; i < pages; i++) {
		if (bus[i] == GRANT_NO_BUS)
			t->status = -ENOMEM;
		else
			grant_device_unmap(t->device, bus[i], handles[i]);
	}
	grant_device_flush(t->device);
}

static int compare_ns(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* What is measured: both ways, and either for one page and for many. */
static const struct {
	void (*fn)(struct trial *t, size_t pages);
	size_t pages;
} ways[] = {
	{copy_pages, 1},
	{map_pages, 1},
	{copy_pages, SAMPLE_PAGES},
	{map_pages, SAMPLE_PAGES},
};
enum { COPY_ONE, MAP_ONE, COPY_MANY, MAP_MANY, WAYS };

/* In turns, so that a disturbance meets all alike; medians, so that it does not count. */
static void measure(struct trial *t, double ns[WAYS])
{
	uint64_t samples[WAYS][SAMPLES];

	for (unsigned i = 0; i < WARM_UPS + SAMPLES; i++) {
		for (unsigned w = 0; w < WAYS; w++) {
			uint64_t start = clock_now_ns();

			ways[w].fn(t, ways[w].pages);
			if (i >= WARM_UPS)
				samples[w][i - WARM_UPS] = clock_now_ns() - start;
		}
	}
	for (unsigned w = 0; w < WAYS; w++) {
		qsort(samples[w], SAMPLES, sizeof(samples[w][0]), compare_ns);
		ns[w] = (double)samples[w][SAMPLES / 2];
	}
}

/* Each way costs something a request and something a page: where the two lines cross. */
static uint32_t find_crossing(const double ns[WAYS])
{
	double copy_page = (ns[COPY_MANY] - ns[COPY_ONE]) / (SAMPLE_PAGES - 1);
	double map_page = (ns[MAP_MANY] - ns[MAP_ONE]) / (SAMPLE_PAGES - 1);
	double pages;

	if (map_page >= copy_page)
		return UINT32_MAX;
	pages = 1 + (ns[MAP_ONE] - ns[COPY_ONE]) / (copy_page - map_page);
	if (pages <= 1)
		return DMA_PAGE_SIZE;
	if (pages > MAP_FROM_MAX / DMA_PAGE_SIZE)
		return UINT32_MAX;
	return ((uint32_t)pages + (pages > (uint32_t)pages)) * DMA_PAGE_SIZE;
}

int dma_granted_measure(struct dma *d, uint32_t *map_from_bytes, struct err *err)
{
	struct granted *g = container_of(d, struct granted, dma);
	struct trial t = {.granted = g};
	struct dma_memory theirs = {0}, own = {0};
	double ns[WAYS];
	int rc;

	rc = grant_copier_create(&t.copier, err);
	if (!rc)
		rc = grant_device_create(g->ledger, &t.device, err);
	if (!rc)
		rc = dma_alloc(d, SAMPLE_PAGES, false, &theirs, err);
	if (!rc)
		rc = dma_alloc(d, SAMPLE_PAGES, false, &own, err);
	if (!rc) {
		t.refs = &g->refs[theirs.bus - d->bus];
		t.own = &own;
		measure(&t, ns);
		if (t.status)
			rc = err_set(err, t.status,
				     "cannot try how long copying and mapping pages takes: %s",
				     strerror(-t.status));
		else
			*map_from_bytes = find_crossing(ns);
	}
	dma_free(d, &own);
	dma_free(d, &theirs);
	if (t.device)
		grant_device_destroy(t.device);
	if (t.copier)
		grant_copier_destroy(t.copier);
	return rc;
}
