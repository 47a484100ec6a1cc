/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations wait in two buffers that the hypervisor reads and writes in place.  Each bears a
 * status of ours until the hypervisor writes its own: whatever becomes of a call as a whole, what
 * it says of an operation holds, and an operation that it says nothing of was not done.
 */
#include "grant/device.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The first with GNTTABOP_get_version; the headers keep to the oldest unless told. */
#define __XEN_INTERFACE_VERSION__ 0x0003020a
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/version.h>
#include <xen/xen.h>
#include <xencall.h>

#include "base/log.h"
#include "grant/ledger.h"
#include "grant/library.h"

enum {
	BATCH_MAX = 1024, /* more than a pass of one busy reactor collects */
	XEN_PAGE = 4096,
	MAP_PAGES = BATCH_MAX * sizeof(struct gnttab_map_grant_ref) / XEN_PAGE,
	UNMAP_PAGES = BATCH_MAX * sizeof(struct gnttab_unmap_grant_ref) / XEN_PAGE,
	NOT_DONE = 1, /* as a status; the hypervisor's are 0 and below */
};

struct grant_device {
	xencall_handle *xen;
	struct grant_ledger *ledger;
	unsigned who; /* to the ledger */
	struct log_limit log_limit;
	uint32_t nr_maps;
	uint32_t nr_unmaps;
	struct gnttab_map_grant_ref *maps;
	struct gnttab_unmap_grant_ref *unmaps;
	struct {
		uint64_t *bus;
		uint32_t *handle;
	} results[BATCH_MAX]; /* of each of @maps */
};

static atomic_uint creations;

/* A domain whose frames are numbers of its own has no mappings for devices: PVH, and HVM. */
static int check_pv(struct grant_device *d, struct err *err)
{
	struct xen_feature_info *info = (void *)d->maps; /* any memory that it can write to */

	*info = (struct xen_feature_info){.submap_idx = 0};
	if (xencall2(d->xen, __HYPERVISOR_xen_version, XENVER_get_features, (uintptr_t)info) < 0)
		return err_set(err, -errno, "cannot ask Xen what this domain is: %s (run as root)",
			       strerror(errno));
	if (info->submap & 1U << XENFEAT_auto_translated_physmap)
		return err_set(err, -EOPNOTSUPP,
			       "Xen maps pages for devices in PV domains only, and this is none "
			       "(boot Xen without dom0=pvh)");
	return 0;
}

int grant_device_create(struct grant_ledger *ledger, struct grant_device **out, struct err *err)
{
	struct grant_device *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return err_set(err, -ENOMEM, "no memory for device mappings");
	d->ledger = ledger;
	d->who = atomic_fetch_add(&creations, 1) % GRANT_LEDGER_ENDERS + 1;
	d->xen = xencall_open(grant_library_get_logger(), XENCALL_OPENFLAG_NON_REENTRANT);
	if (!d->xen) {
		rc = err_set(err, -errno,
			     "cannot open /dev/xen/privcmd: %s (load the module xen-privcmd and "
			     "run as root)",
			     strerror(errno));
		free(d);
		return rc;
	}
	d->maps = xencall_alloc_buffer_pages(d->xen, MAP_PAGES);
	d->unmaps = xencall_alloc_buffer_pages(d->xen, UNMAP_PAGES);
	if (d->maps && d->unmaps)
		rc = check_pv(d, err);
	else
		rc = err_set(err, -ENOMEM, "no memory for hypercalls");
	if (rc) {
		grant_device_destroy(d);
		return rc;
	}
	*out = d;
	return 0;
}

void grant_device_destroy(struct grant_device *d)
{
	if (d->unmaps)
		xencall_free_buffer_pages(d->xen, d->unmaps, UNMAP_PAGES);
	if (d->maps)
		xencall_free_buffer_pages(d->xen, d->maps, MAP_PAGES);
	xencall_close(d->xen);
	free(d);
}

static void call(struct grant_device *d, unsigned op, void *ops, uint32_t nr)
{
	if (xencall3(d->xen, __HYPERVISOR_grant_table_op, op, (uintptr_t)ops, nr))
		log_limited(&d->log_limit, LOG_LEVEL_ERROR, "%s %u pages for devices failed: %s",
			    op == GNTTABOP_map_grant_ref ? "mapping" : "unmapping", nr,
			    strerror(errno));
}

/* What the hypervisor says no longer exists needs no entry; what it did not end does. */
static void end_one(struct grant_device *d, const struct gnttab_unmap_grant_ref *op)
{
	if (op->status != GNTST_okay)
		log_limited(&d->log_limit, LOG_LEVEL_ERROR,
			    "cannot unmap page %#llx (handle %u) for devices: status %d",
			    (unsigned long long)op->dev_bus_addr, op->handle, op->status);
	if (op->status == GNTST_okay || op->status == GNTST_bad_handle)
		grant_ledger_forget(d->ledger, op->handle, op->dev_bus_addr, d->who);
}

static void end(struct grant_device *d)
{
	if (!d->nr_unmaps)
		return;
	for (uint32_t i = 0; i < d->nr_unmaps; i++)
		grant_ledger_end(d->ledger, d->unmaps[i].handle, d->unmaps[i].dev_bus_addr, d->who);
	call(d, GNTTABOP_unmap_grant_ref, d->unmaps, d->nr_unmaps);
	for (uint32_t i = 0; i < d->nr_unmaps; i++)
		end_one(d, &d->unmaps[i]);
	d->nr_unmaps = 0;
}

int grant_device_get_own_grants(struct grant_device *d, uint32_t *grants, struct err *err)
{
	struct {
		struct gnttab_query_size size;
		struct gnttab_get_version version;
	} *query = (void *)d->unmaps; /* any memory that Xen can write to */
	size_t entry = sizeof(grant_entry_v1_t);

	end(d); /* what has waited in that memory */
	query->size = (struct gnttab_query_size){.dom = DOMID_SELF};
	query->version = (struct gnttab_get_version){.dom = DOMID_SELF};
	if (xencall3(d->xen, __HYPERVISOR_grant_table_op, GNTTABOP_query_size,
		     (uintptr_t)&query->size, 1) ||
	    xencall3(d->xen, __HYPERVISOR_grant_table_op, GNTTABOP_get_version,
		     (uintptr_t)&query->version, 1))
		return err_set(err, -errno, "cannot ask Xen for the size of the grant table: %s",
			       strerror(errno));
	if (query->size.status != GNTST_okay)
		return err_set(err, -EIO, "Xen does not tell the size of the grant table: %d",
			       query->size.status);
	if (query->version.version == 2)
		entry = sizeof(grant_entry_v2_t);
	*grants = query->size.max_nr_frames * (uint32_t)(XEN_PAGE / entry);
	return 0;
}

uint32_t grant_device_count(const struct grant_device *d)
{
	return grant_ledger_count(d->ledger) + d->nr_maps;
}

void grant_device_map(struct grant_device *d, uint16_t domid, uint32_t ref, bool writable,
		      uint64_t *bus, uint32_t *handle)
{
	if (d->nr_maps == BATCH_MAX)
		grant_device_flush(d);
	d->maps[d->nr_maps] = (struct gnttab_map_grant_ref){
		.flags = GNTMAP_device_map | (writable ? 0 : GNTMAP_readonly),
		.ref = ref,
		.dom = domid,
		.status = NOT_DONE,
	};
	d->results[d->nr_maps].bus = bus;
	d->results[d->nr_maps].handle = handle;
	d->nr_maps++;
}

void grant_device_unmap(struct grant_device *d, uint64_t bus, uint32_t handle)
{
	if (d->nr_unmaps == BATCH_MAX)
		end(d);
	d->unmaps[d->nr_unmaps++] = (struct gnttab_unmap_grant_ref){
		.dev_bus_addr = bus,
		.handle = handle,
		.status = NOT_DONE,
	};
}

static void complain(struct grant_device *d, const struct gnttab_map_grant_ref *op)
{
	switch (op->status) {
	case GNTST_no_space:
		log_limited(&d->log_limit, LOG_LEVEL_WARNING,
			    "Xen's table of this domain's mappings is full: raise "
			    "gnttab_max_maptrack_frames on Xen's command line");
		break;
	case GNTST_no_device_space:
		log_limited(&d->log_limit, LOG_LEVEL_WARNING,
			    "the IOMMU has no room for page %u of domain %u", op->ref, op->dom);
		break;
	default: /* what guests have granted is their affair */
		log_limited(&d->log_limit, LOG_LEVEL_DEBUG,
			    "cannot map page %u of domain %u for devices: status %d", op->ref,
			    op->dom, op->status);
	}
}

static void begin(struct grant_device *d)
{
	if (!d->nr_maps)
		return;
	call(d, GNTTABOP_map_grant_ref, d->maps, d->nr_maps);
	for (uint32_t i = 0; i < d->nr_maps; i++) {
		const struct gnttab_map_grant_ref *op = &d->maps[i];

		*d->results[i].bus = GRANT_NO_BUS;
		if (op->status != GNTST_okay) {
			complain(d, op);
		} else if (grant_ledger_note(d->ledger, op->handle, op->dev_bus_addr)) {
			log_limited(&d->log_limit, LOG_LEVEL_WARNING,
				    "the ledger has no room for mapping %u: free memory in /run",
				    op->handle);
			grant_device_unmap(d, op->dev_bus_addr, op->handle);
		} else {
			*d->results[i].bus = op->dev_bus_addr;
			*d->results[i].handle = op->handle;
		}
	}
	d->nr_maps = 0;
	end(d);
}

void grant_device_flush(struct grant_device *d)
{
	end(d);
	begin(d);
}
