/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libxengnttab's double.
 *
 * Errors are those of Linux' gntdev over Xen: a mapping fails as a whole, and does not tell which
 * page or what want (the hypervisor's table of mappings may be full) was the reason; it is undone
 * only as a whole, too.  A copy has a status for each segment.  The driver collects segments and
 * has Xen copy a batch of them at a time; it calls a segment okay when it collects it.  Should it
 * fail over one, because that crosses its granted page or memory is short, the call ends there:
 * batches before it are copied, what was collected since is not, and all of that is called okay.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xengnttab.h>

#include "internal.h"

enum { COPY_FAULTS = 16, COPY_BATCH = 16 };

struct mapping {
	struct list node;
	char *addr;
	uint32_t count;
	bool writable;
	struct {
		struct double_domain *domain;
		uint32_t ref;
	} pages[];
};

struct xengntdev_handle {
	struct list node;
	uint32_t max_grants; /* 0: no limit */
	uint32_t mapped;
	struct list mappings;
};

pthread_mutex_t double_gnttab_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list handles = LIST_INIT(handles);
static struct double_stats counters;
static unsigned map_limit;
static struct {
	unsigned domid;
	uint32_t ref;
	int16_t status;
	unsigned times;
} copy_faults[COPY_FAULTS];
static void (*copy_hook)(void *arg, unsigned domid, uint32_t ref);
static void *copy_hook_arg;
static double_map_fn *map_hook;
static void *map_hook_arg;

void double_gnttab_init(void)
{
	list_init(&handles);
	memset(&counters, 0, sizeof(counters));
	memset(copy_faults, 0, sizeof(copy_faults));
	map_limit = UINT32_MAX;
	copy_hook = NULL;
	map_hook = NULL;
}

void double_gnttab_tell_hook(bool map, const struct double_domain *d, uint32_t ref, bool writable)
{
	double_map_fn *hook = map_hook;
	void *arg = map_hook_arg;

	if (!hook)
		return;
	pthread_mutex_unlock(&double_gnttab_lock);
	hook(arg, map, d->id, ref, writable);
	pthread_mutex_lock(&double_gnttab_lock);
}

bool double_gnttab_has_room(uint32_t pages)
{
	return counters.mapped + double_device_mapped() + pages <= map_limit;
}

/* The library */

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned open_flags)
{
	xengnttab_handle *xgt;

	if (double_fails(DOUBLE_GNTTAB_OPEN, NULL))
		return NULL;
	xgt = calloc(1, sizeof(*xgt));
	if (!xgt)
		return NULL;
	list_init(&xgt->mappings);
	pthread_mutex_lock(&double_gnttab_lock);
	list_add_tail(&handles, &xgt->node);
	pthread_mutex_unlock(&double_gnttab_lock);
	return xgt;
}

static void unmap(xengnttab_handle *xgt, struct mapping *m)
{
	munmap(m->addr, (size_t)m->count * DOUBLE_PAGE_SIZE);
	for (uint32_t i = 0; i < m->count; i++) {
		struct double_grant *g = &m->pages[i].domain->grants[m->pages[i].ref];

		g->mapped--;
		g->mapped_writable -= m->writable;
	}
	xgt->mapped -= m->count;
	counters.mapped -= m->count;
	counters.unmaps += m->count;
	list_del(&m->node);
	free(m);
}

static void close_handle(xengnttab_handle *xgt)
{
	while (!list_empty(&xgt->mappings))
		unmap(xgt, list_entry(xgt->mappings.next, struct mapping, node));
	list_del(&xgt->node);
	free(xgt);
}

int xengnttab_close(xengnttab_handle *xgt)
{
	if (!xgt)
		return 0;
	pthread_mutex_lock(&double_gnttab_lock);
	counters.mapped_at_close += xgt->mapped;
	close_handle(xgt);
	pthread_mutex_unlock(&double_gnttab_lock);
	return 0;
}

void double_gnttab_end_process(void)
{
	while (!list_empty(&handles))
		close_handle(list_entry(handles.next, xengnttab_handle, node));
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t nr_grants)
{
	pthread_mutex_lock(&double_gnttab_lock);
	xgt->max_grants = nr_grants;
	pthread_mutex_unlock(&double_gnttab_lock);
	return 0;
}

static int check_map(const struct double_domain *d, uint32_t ref, int prot)
{
	if (!d || ref >= DOUBLE_GRANTS || !d->grants[ref].used || d->grants[ref].to != 0)
		return EINVAL;
	if (d->grants[ref].readonly && (prot & PROT_WRITE))
		return EINVAL;
	if (d->grants[ref].mapped == DOUBLE_PINS_MAX)
		return EINVAL;
	return 0;
}

static void *map_refs(xengnttab_handle *xgt, uint32_t count, const uint32_t *domids, bool one_domid,
		      const uint32_t *refs, int prot)
{
	struct mapping *m = NULL;
	int error = 0;

	if (double_fails(DOUBLE_GNTTAB_MAP, NULL))
		return NULL;
	pthread_mutex_lock(&double_gnttab_lock);
	counters.map_calls++;
	if (!count || count > DOUBLE_GRANTS) {
		error = EINVAL;
		goto out;
	}
	if (!double_gnttab_has_room(count)) {
		error = EINVAL;
		goto out;
	}
	if (xgt->max_grants && xgt->mapped + count > xgt->max_grants) {
		error = ENOMEM;
		goto out;
	}
	m = calloc(1, sizeof(*m) + count * sizeof(m->pages[0]));
	if (!m)
		double_abort("out of memory");
	for (uint32_t i = 0; i < count && !error; i++) {
		m->pages[i].domain = double_find_domain(domids[one_domid ? 0 : i]);
		m->pages[i].ref = refs[i];
		error = check_map(m->pages[i].domain, refs[i], prot);
	}
	if (error)
		goto out;
	m->count = count;
	m->writable = prot & PROT_WRITE;
	m->addr = mmap(NULL, (size_t)count * DOUBLE_PAGE_SIZE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->addr == MAP_FAILED)
		double_abort("mmap: %s", strerror(errno));
	for (uint32_t i = 0; i < count; i++) {
		struct double_domain *d = m->pages[i].domain;
		struct double_grant *g = &d->grants[refs[i]];

		if (mmap(m->addr + (size_t)i * DOUBLE_PAGE_SIZE, DOUBLE_PAGE_SIZE, prot,
			 MAP_SHARED | MAP_FIXED, d->memfd,
			 (off_t)g->page * DOUBLE_PAGE_SIZE) == MAP_FAILED)
			double_abort("mmap: %s", strerror(errno));
		g->mapped++;
		g->mapped_writable += m->writable;
		g->maps++;
	}
	list_add_tail(&xgt->mappings, &m->node);
	xgt->mapped += count;
	counters.mapped += count;
	counters.maps += count;
	for (uint32_t i = 0; i < count; i++)
		double_gnttab_tell_hook(true, m->pages[i].domain, refs[i], m->writable);
out:
	pthread_mutex_unlock(&double_gnttab_lock);
	if (error) {
		free(m);
		errno = error;
		return NULL;
	}
	return m->addr;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
	return map_refs(xgt, 1, &domid, true, &ref, prot);
}

void *xengnttab_map_grant_refs(xengnttab_handle *xgt, uint32_t count, uint32_t *domids,
			       uint32_t *refs, int prot)
{
	return map_refs(xgt, count, domids, false, refs, prot);
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count, uint32_t domid,
				      uint32_t *refs, int prot)
{
	return map_refs(xgt, count, &domid, true, refs, prot);
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start_address, uint32_t count)
{
	struct list *pos, *next;
	int rc = -1;

	pthread_mutex_lock(&double_gnttab_lock);
	list_for_each_safe (pos, next, &xgt->mappings) {
		struct mapping *m = list_entry(pos, struct mapping, node);

		if (m->addr == start_address && m->count == count) {
			for (uint32_t i = 0; i < count; i++)
				double_gnttab_tell_hook(false, m->pages[i].domain, m->pages[i].ref,
							m->writable);
			unmap(xgt, m);
			rc = 0;
			break;
		}
	}
	pthread_mutex_unlock(&double_gnttab_lock);
	if (rc)
		errno = EINVAL;
	return rc;
}

/* The granted bytes as the hypervisor sees them, or NULL and the status to report. */
static char *resolve(unsigned domid, uint32_t ref, unsigned offset, bool write, int16_t *status)
{
	struct double_domain *d = double_find_domain(domid);

	if (!d) {
		*status = GNTST_bad_domain;
		return NULL;
	}
	for (unsigned i = 0; i < COPY_FAULTS; i++) {
		if (copy_faults[i].times && copy_faults[i].domid == domid &&
		    copy_faults[i].ref == ref) {
			copy_faults[i].times--;
			*status = copy_faults[i].status;
			return NULL;
		}
	}
	if (ref >= DOUBLE_GRANTS) {
		*status = GNTST_bad_gntref;
		return NULL;
	}
	if (!d->grants[ref].used || d->grants[ref].to != 0 || (write && d->grants[ref].readonly)) {
		*status = GNTST_general_error;
		return NULL;
	}
	return d->host + (size_t)d->grants[ref].page * DOUBLE_PAGE_SIZE + offset;
}

static bool is_sane(const xengnttab_grant_copy_segment_t *seg)
{
	bool from_grant = seg->flags & GNTCOPY_source_gref;
	bool to_grant = seg->flags & GNTCOPY_dest_gref;

	return (from_grant || to_grant) &&
	       (!from_grant || seg->source.foreign.offset + seg->len <= DOUBLE_PAGE_SIZE) &&
	       (!to_grant || seg->dest.foreign.offset + seg->len <= DOUBLE_PAGE_SIZE);
}

static void copy_segment(xengnttab_grant_copy_segment_t *seg)
{
	const char *from = seg->source.virt;
	char *to = seg->dest.virt;

	if (!seg->len)
		return;
	if (seg->flags & GNTCOPY_source_gref)
		from = resolve(seg->source.foreign.domid, seg->source.foreign.ref,
			       seg->source.foreign.offset, false, &seg->status);
	if (from && seg->flags & GNTCOPY_dest_gref)
		to = resolve(seg->dest.foreign.domid, seg->dest.foreign.ref,
			     seg->dest.foreign.offset, true, &seg->status);
	if (seg->status == GNTST_okay)
		memcpy(to, from, seg->len);
	else
		counters.copy_failed++;
}

/* With the lock held, which is let go for the hook. */
static void tell_copy_hook(unsigned domid, uint32_t ref)
{
	void (*hook)(void *arg, unsigned domid, uint32_t ref) = copy_hook;
	void *arg = copy_hook_arg;

	if (!hook)
		return;
	pthread_mutex_unlock(&double_gnttab_lock);
	hook(arg, domid, ref);
	pthread_mutex_lock(&double_gnttab_lock);
}

int16_t double_gnttab_copy(unsigned domid, uint32_t ref, unsigned offset, char *local, unsigned len,
			   bool to_grant)
{
	int16_t status = GNTST_okay;
	char *granted;

	counters.copy_segments++;
	tell_copy_hook(domid, ref);
	granted = resolve(domid, ref, offset, to_grant, &status);
	if (!granted)
		counters.copy_failed++;
	else
		memcpy(to_grant ? granted : local, to_grant ? local : granted, len);
	return status;
}

static void copy_batch(xengnttab_grant_copy_segment_t *segs, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		bool from_grant = segs[i].flags & GNTCOPY_source_gref;

		tell_copy_hook(from_grant ? segs[i].source.foreign.domid
					  : segs[i].dest.foreign.domid,
			       from_grant ? segs[i].source.foreign.ref : segs[i].dest.foreign.ref);
		copy_segment(&segs[i]);
	}
}

int xengnttab_grant_copy(xengnttab_handle *xgt, uint32_t count,
			 xengnttab_grant_copy_segment_t *segs)
{
	bool fails = double_fails(DOUBLE_GNTTAB_COPY, NULL);
	int error = fails ? errno : 0;
	uint32_t copied = 0;

	pthread_mutex_lock(&double_gnttab_lock);
	counters.copy_calls++;
	for (uint32_t i = 0; i < count; i++) {
		if (i - copied == COPY_BATCH) {
			copy_batch(&segs[copied], COPY_BATCH);
			copied = i;
		}
		counters.copy_segments++;
		segs[i].status = GNTST_okay;
		if (!is_sane(&segs[i])) {
			counters.copy_bad_args++;
			error = EINVAL;
			break;
		}
	}
	/* A fault strikes at the last segment: as much as possible looks as if it were done. */
	if (!error)
		copy_batch(&segs[copied], count - copied);
	pthread_mutex_unlock(&double_gnttab_lock);
	if (!error)
		return 0;
	errno = error;
	return -1;
}

/* The guests' side */

void *double_pages_alloc(unsigned domid, unsigned nr)
{
	struct double_domain *d = double_get_domain(domid);
	unsigned found = 0, at = 0;

	pthread_mutex_lock(&double_gnttab_lock);
	for (unsigned i = 0; i < DOUBLE_DOMAIN_PAGES && found < nr; i++) {
		at = d->next_page++ % DOUBLE_DOMAIN_PAGES;
		found = d->page_used[at] ? 0 : at ? found + 1 : 1;
	}
	if (found < nr)
		double_abort("domain %u is out of memory", domid);
	at -= nr - 1;
	memset(&d->page_used[at], true, nr);
	pthread_mutex_unlock(&double_gnttab_lock);
	memset(d->guest + (size_t)at * DOUBLE_PAGE_SIZE, 0, (size_t)nr * DOUBLE_PAGE_SIZE);
	return d->guest + (size_t)at * DOUBLE_PAGE_SIZE;
}

static unsigned page_number(const struct double_domain *d, const void *page)
{
	size_t n = (size_t)((const char *)page - d->guest) / DOUBLE_PAGE_SIZE;

	if ((const char *)page < d->guest || n >= DOUBLE_DOMAIN_PAGES || !d->page_used[n])
		double_abort("not a page of domain %u", d->id);
	return (unsigned)n;
}

void double_pages_free(unsigned domid, void *pages, unsigned nr)
{
	struct double_domain *d = double_get_domain(domid);

	pthread_mutex_lock(&double_gnttab_lock);
	for (unsigned i = 0; i < nr; i++)
		d->page_used[page_number(d, (char *)pages + (size_t)i * DOUBLE_PAGE_SIZE)] = false;
	pthread_mutex_unlock(&double_gnttab_lock);
}

uint32_t double_grant(unsigned domid, void *page, unsigned to, bool readonly)
{
	struct double_domain *d = double_get_domain(domid);
	uint32_t found = 0;

	pthread_mutex_lock(&double_gnttab_lock);
	for (unsigned i = 0; i < DOUBLE_GRANTS && !found; i++) {
		uint32_t ref = d->next_grant++ % DOUBLE_GRANTS;
		struct double_grant *g = &d->grants[ref];

		if (ref < DOUBLE_FIRST_GRANT || g->used || g->mapped)
			continue;
		g->used = true;
		g->readonly = readonly;
		g->to = to;
		g->page = page_number(d, page);
		g->maps = 0;
		found = ref;
	}
	pthread_mutex_unlock(&double_gnttab_lock);
	if (!found)
		double_abort("domain %u has no grant left", domid);
	return found;
}

static int end_grant(unsigned domid, uint32_t ref, bool force)
{
	struct double_domain *d = double_get_domain(domid);
	int rc = 0;

	pthread_mutex_lock(&double_gnttab_lock);
	if (ref >= DOUBLE_GRANTS || !d->grants[ref].used)
		double_abort("domain %u has no grant %u", domid, ref);
	if (d->grants[ref].mapped && !force)
		rc = -EBUSY;
	else
		d->grants[ref].used = false;
	pthread_mutex_unlock(&double_gnttab_lock);
	return rc;
}

int double_revoke(unsigned domid, uint32_t ref)
{
	return end_grant(domid, ref, false);
}

void double_revoke_by_force(unsigned domid, uint32_t ref)
{
	end_grant(domid, ref, true);
}

bool double_grant_is_mapped(unsigned domid, uint32_t ref)
{
	struct double_domain *d = double_get_domain(domid);
	bool mapped;

	pthread_mutex_lock(&double_gnttab_lock);
	mapped = d->grants[ref].mapped;
	pthread_mutex_unlock(&double_gnttab_lock);
	return mapped;
}

void double_grant_get_use(unsigned domid, uint32_t ref, struct double_grant_use *use)
{
	struct double_domain *d = double_get_domain(domid);

	pthread_mutex_lock(&double_gnttab_lock);
	use->mapped = d->grants[ref].mapped;
	use->mapped_writable = d->grants[ref].mapped_writable;
	use->mapped_for_devices = d->grants[ref].mapped_for_devices;
	use->maps = d->grants[ref].maps;
	pthread_mutex_unlock(&double_gnttab_lock);
}

/* Faults and counters */

void double_fail_copy(unsigned domid, uint32_t ref, int16_t status, unsigned times)
{
	pthread_mutex_lock(&double_gnttab_lock);
	for (unsigned i = 0; i < COPY_FAULTS; i++) {
		if (!copy_faults[i].times) {
			copy_faults[i].domid = domid;
			copy_faults[i].ref = ref;
			copy_faults[i].status = status;
			copy_faults[i].times = times;
			pthread_mutex_unlock(&double_gnttab_lock);
			return;
		}
	}
	double_abort("too many copy faults");
}

void double_limit_maps(unsigned pages)
{
	pthread_mutex_lock(&double_gnttab_lock);
	map_limit = pages;
	pthread_mutex_unlock(&double_gnttab_lock);
}

void double_on_copy(void (*fn)(void *arg, unsigned domid, uint32_t ref), void *arg)
{
	pthread_mutex_lock(&double_gnttab_lock);
	copy_hook = fn;
	copy_hook_arg = arg;
	pthread_mutex_unlock(&double_gnttab_lock);
}

void double_on_map(double_map_fn *fn, void *arg)
{
	pthread_mutex_lock(&double_gnttab_lock);
	map_hook = fn;
	map_hook_arg = arg;
	pthread_mutex_unlock(&double_gnttab_lock);
}

unsigned double_gnttab_leaks(void)
{
	unsigned leaks = 0;
	struct list *pos;

	pthread_mutex_lock(&double_gnttab_lock);
	list_for_each (pos, &handles)
		leaks += double_leak("an open grant table handle");
	if (counters.mapped)
		leaks += double_leak("%lu mapped grants", (unsigned long)counters.mapped);
	if (counters.mapped_at_close)
		leaks += double_leak("%lu grants were mapped when their handle was closed",
				     (unsigned long)counters.mapped_at_close);
	if (counters.copy_bad_args)
		leaks += double_leak("%lu copies were beyond a page or between local buffers",
				     (unsigned long)counters.copy_bad_args);
	pthread_mutex_unlock(&double_gnttab_lock);
	return leaks;
}

void double_gnttab_add_stats(struct double_stats *stats)
{
	pthread_mutex_lock(&double_gnttab_lock);
	stats->copy_calls = counters.copy_calls;
	stats->copy_segments = counters.copy_segments;
	stats->copy_failed = counters.copy_failed;
	stats->copy_bad_args = counters.copy_bad_args;
	stats->map_calls = counters.map_calls;
	stats->maps = counters.maps;
	stats->unmaps = counters.unmaps;
	stats->mapped = counters.mapped;
	stats->mapped_at_close = counters.mapped_at_close;
	pthread_mutex_unlock(&double_gnttab_lock);
}
