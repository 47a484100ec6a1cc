/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A double of Xen for tests: libxenstore, libxenevtchn, libxengnttab and libxencall without a
 * hypervisor.
 *
 * Sluice's own code links with it unchanged, by the symbols and headers of Xen's libraries.  All
 * domains live in this one process: a guest's memory is a memfd, its grants and event channels are
 * tables, and xenstore is a tree in memory.  What matters about the real things is kept:
 *
 * - a watch fires once when it is set and then for each change at or below its path, never before a
 *   transaction is committed; a transaction that saw nodes which have changed since ends in EAGAIN;
 *   permissions hold for guests; values may contain any byte;
 * - an event channel that was delivered is masked until it is unmasked, what came meanwhile is
 *   delivered then; binding delivers one event at once; closing one end leaves the other unbound,
 *   ready to be bound again, and what is sent to it meanwhile is dropped without an error;
 * - a grant has one domain it is for and may be read-only or revoked; each segment of a copy has
 *   its own status; a mapping is another view of the guest's own page, and outlives the guest;
 * - a mapping for devices gives the page an address on the bus, by which a model of a device finds
 *   it; it outlives the process.
 *
 * The library side acts as domain 0.  This header is the other side: what guests, the toolstack and
 * the hypervisor do, faults to inject, and counters.  Everything is thread-safe.  A mistake in a
 * test (an unknown domain, say) aborts.
 */
#ifndef SLUICE_TEST_DOUBLE_H
#define SLUICE_TEST_DOUBLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xs_handle;

/* Makes a world with domain 0 and an empty xenstore. */
void double_init(void);
/*
 * How many things domain 0 has left open or done wrong, each told on stderr: handles, watches,
 * transactions, event channels, mapped grants, granted pages, copies beyond a page's end, a
 * device's accesses to what is not mapped for it.
 */
unsigned double_leaks(void);
/* Ends the world. */
void double_fini(void);

/* Domains */

/* With a home in xenstore, readable by the guest; its `device` and `data` belong to the guest. */
void double_domain_create(unsigned domid, const char *name);
/*
 * The guest is gone: its home vanishes, its ends of event channels are closed, no grant of it can
 * be mapped or copied any more; what is mapped stays mapped.  Its own pages stay readable for the
 * test until double_fini().
 */
void double_domain_destroy(unsigned domid);

/* Guests' memory and grants */

/* Zeroed pages of the guest's, @nr that follow each other. */
void *double_pages_alloc(unsigned domid, unsigned nr);
void double_pages_free(unsigned domid, void *pages, unsigned nr);
/* Grants @page to domain @to; returns the reference, never below 8. */
uint32_t double_grant(unsigned domid, void *page, unsigned to, bool readonly);
/* Ends the grant. -EBUSY while it is mapped, and then it stays. */
int double_revoke(unsigned domid, uint32_t ref);
/* Takes the grant away even while it is mapped, as no hypervisor would; the mapping stays. */
void double_revoke_by_force(unsigned domid, uint32_t ref);
bool double_grant_is_mapped(unsigned domid, uint32_t ref);
/* What domain 0 has made of a grant. */
struct double_grant_use {
	unsigned mapped;             /* mappings now; Xen allows 255 */
	unsigned mapped_writable;    /* of these, so many that can be written through */
	unsigned mapped_for_devices; /* of these, so many without an address for the CPU */
	uint64_t maps;               /* so far */
};
void double_grant_get_use(unsigned domid, uint32_t ref, struct double_grant_use *use);

/* Devices */

/*
 * The memory that a device finds at an address on the bus, up to its page's end: domain 0's own
 * pages and guests' as long as they are mapped for devices, for writing if it wants to @write. NULL
 * else: the IOMMU has stopped it, which is counted as something done wrong. Any thread; the memory
 * stays until double_fini().
 */
void *double_bus_to_memory(uint64_t bus, bool write);
/* How often the IOMMU had to, since the last call; then it was no fault. */
uint64_t double_take_dma_faults(void);
/*
 * How many pages follow each other on the bus: a power of 2, 8 unless told. They do it against the
 * order in which they are handed out. Before there are pages of any use.
 */
void double_set_bus_run(unsigned pages);
/* Whether domain 0 is PV, as it is unless told; else nothing is mapped for devices. */
void double_set_pv(bool pv);
/*
 * At most @pages may be granted by gntalloc at a time. With a @path that is the number in that file
 * instead, as it is when it is looked at.
 */
void double_limit_shares(uint32_t pages, const char *path);
/* The same for the grants that domain 0 has left, which no file changes. */
void double_limit_own_grants(uint32_t pages);
/* How large Xen says that domain 0's grant table can be: 64 frames of version 1 unless told. */
void double_set_grant_table(unsigned frames, unsigned version);
/* Gives the next @times mappings of that page for devices a status (GNTST_...). */
void double_fail_device_map(unsigned domid, uint32_t ref, int16_t status, unsigned times);
/* The same for whatever page comes after @skip others. */
void double_fail_device_unmap(int16_t status, unsigned skip, unsigned times);
/*
 * Domain 0's process is dead: the kernel closes what it has open of grant tables and hypercalls,
 * ends mappings for the CPU, and takes back pages that it has granted, but those that devices may
 * still reach only later. What is left of the process must not call the double any more.
 */
void double_end_process(void);

/* Guests' event channels */

/* A new port of @domid's for domain @remote to bind to. */
uint32_t double_evtchn_alloc(unsigned domid, unsigned remote);
void double_evtchn_close(unsigned domid, uint32_t port);
void double_evtchn_notify(unsigned domid, uint32_t port);
/* Waits for an event on the port and consumes it; false after @timeout_ms. */
bool double_evtchn_wait(unsigned domid, uint32_t port, unsigned timeout_ms);
/* How often the other end has notified this port. */
uint64_t double_evtchn_received(unsigned domid, uint32_t port);
bool double_evtchn_is_bound(unsigned domid, uint32_t port);

/* Xenstore */

/* A connection as @domid: the xs_ functions work on it, with that domain's permissions. */
struct xs_handle *double_xs_open(unsigned domid);
/*
 * All values that were committed to @path so far, joined by ' '; "-" stands for a removal. To be
 * freed. Only paths that end in one of the names `state`, `online` or `error` are recorded.
 */
char *double_xs_history(const char *path);
/* Forgets all of that, as it would be memory that grows. */
void double_xs_forget_history(void);

/* Faults */

enum double_call {
	DOUBLE_XS_OPEN,
	DOUBLE_XS_READ,
	DOUBLE_XS_WRITE,
	DOUBLE_XS_MKDIR,
	DOUBLE_XS_RM,
	DOUBLE_XS_DIRECTORY,
	DOUBLE_XS_WATCH,
	DOUBLE_XS_TRANSACTION_START,
	DOUBLE_XS_TRANSACTION_END, /* EAGAIN: as if somebody else had interfered */
	DOUBLE_EVTCHN_OPEN,
	DOUBLE_EVTCHN_BIND,
	DOUBLE_GNTTAB_OPEN,
	DOUBLE_GNTTAB_MAP,
	DOUBLE_GNTTAB_COPY, /* the whole call, at its last segment; see gnttab.c */
	DOUBLE_SHARE_OPEN,
	DOUBLE_SHARE,
	DOUBLE_CALL_OPEN,
	/* A whole hypercall, at its last operation: those before are done. */
	DOUBLE_DEVICE_MAP,
	DOUBLE_DEVICE_UNMAP,
	DOUBLE_CALLS,
};

/*
 * Lets @skip more calls pass and then fails @times of them with @error. For xenstore only calls by
 * handles of xs_open() count, whose path contains @match (NULL: any).
 */
void double_fail(enum double_call call, int error, unsigned skip, unsigned times,
		 const char *match);
/* Gives the next @times copies from or to that page a status (GNTST_...) and copies nothing. */
void double_fail_copy(unsigned domid, uint32_t ref, int16_t status, unsigned times);
/*
 * At most @pages may be mapped at a time, as if Xen's table of domain 0's mappings were no larger:
 * what is beyond fails with EINVAL, as any mapping that Xen refuses.
 */
void double_limit_maps(unsigned pages);
/*
 * Called, without a lock, before each segment of a copy is performed: the moment for a guest to
 * change its mind. NULL ends that.
 */
void double_on_copy(void (*fn)(void *arg, unsigned domid, uint32_t ref), void *arg);
/*
 * Called, without a lock, for each page that domain 0 maps (for devices, too), once it is, and for
 * each that it unmaps, before it is. NULL ends that.
 */
typedef void double_map_fn(void *arg, bool map, unsigned domid, uint32_t ref, bool writable);
void double_on_map(double_map_fn *fn, void *arg);

/*
 * Called, without a lock, before each read or write of xenstore by a handle of xs_open(): the
 * moment for somebody else to change it. @path is absolute.
 */
void double_on_store(void (*fn)(void *arg, bool write, const char *path), void *arg);

/* Counters of domain 0's doings. */
struct double_stats {
	uint64_t copy_calls;        /* by gntdev */
	uint64_t direct_copy_calls; /* hypercalls */
	uint64_t copy_segments;
	uint64_t copy_failed;   /* segments with a status other than okay */
	uint64_t copy_bad_args; /* segments that no sane caller asks for */
	uint64_t map_calls;
	uint64_t maps; /* pages */
	uint64_t unmaps;
	uint64_t mapped;          /* pages now */
	uint64_t mapped_at_close; /* pages that their handle's end had to unmap */
	uint64_t device_calls;    /* hypercalls that map or unmap for devices */
	uint64_t device_maps;
	uint64_t device_unmaps;
	uint64_t device_unmaps_refused;
	uint64_t device_mapped;     /* pages now */
	uint64_t shared;            /* domain 0's own pages of gntalloc now */
	uint64_t shared_late;       /* of these, given back while devices may still reach them */
	uint64_t shares_for_others; /* pages of gntalloc so far that were not for domain 0 */
	uint64_t notifies;
	uint64_t notifies_dropped; /* of these, to an unbound end */
	uint64_t xs_calls;
	uint64_t xs_conflicts;
};
void double_get_stats(struct double_stats *stats);

#endif
