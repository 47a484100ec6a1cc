/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define __XEN_INTERFACE_VERSION__ 0x0003020a
#include <xen/grant_table.h>
#include <xen/xen.h>
#include <xencall.h>
#include <xengnttab.h>

#include "base/log.h"
#include "grant/library.h"

enum {
	BATCH_MAX = 2048, /* more than a pass of one busy reactor collects; 40 bytes each */
	XEN_PAGE = 4096,
	DIRECT_PAGES = BATCH_MAX * sizeof(struct gnttab_copy) / XEN_PAGE,
	NOT_DONE = 1, /* as a status; the hypervisor's are 0 and below */
};

/* Copies whose local side only the kernel knows. */
struct by_gntdev {
	uint32_t len;
	int *status[BATCH_MAX]; /* of each operation */
	xengnttab_grant_copy_segment_t ops[BATCH_MAX];
};

/* Those of which we know both sides; the hypervisor reads and writes them in place. */
struct direct {
	uint32_t len;
	struct grant_copy copies[BATCH_MAX]; /* of each operation */
	struct gnttab_copy *ops;
};

struct grant_copier {
	xengnttab_handle *gnttab;
	xencall_handle *xen; /* NULL: all goes by gntdev */
	struct log_limit log_limit;
	struct by_gntdev by_gntdev;
	struct direct direct;
};

/* Whoever has no access to hypercalls can still copy. */
static void open_direct(struct grant_copier *c)
{
	c->xen = xencall_open(grant_library_get_logger(), XENCALL_OPENFLAG_NON_REENTRANT);
	if (!c->xen)
		return;
	c->direct.ops = xencall_alloc_buffer_pages(c->xen, DIRECT_PAGES);
	if (c->direct.ops)
		return;
	xencall_close(c->xen);
	c->xen = NULL;
}

int grant_copier_create(struct grant_copier **out, struct err *err)
{
	struct grant_copier *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, -ENOMEM, "no memory for a grant copier");
	c->gnttab = grant_library_open();
	if (!c->gnttab) {
		int rc = -errno;

		free(c);
		return err_set(
			err, rc,
			"cannot open /dev/xen/gntdev: %s (load the module xen-gntdev and run "
			"as root)",
			strerror(-rc));
	}
	open_direct(c);
	*out = c;
	return 0;
}

void grant_copier_destroy(struct grant_copier *c)
{
	if (c->xen) {
		xencall_free_buffer_pages(c->xen, c->direct.ops, DIRECT_PAGES);
		xencall_close(c->xen);
	}
	xengnttab_close(c->gnttab);
	free(c);
}

static void flush_by_gntdev(struct grant_copier *c)
{
	struct by_gntdev *g = &c->by_gntdev;
	bool failed;

	if (!g->len)
		return;
	failed = xengnttab_grant_copy(c->gnttab, g->len, g->ops) < 0;
	/*
	 * If the call as a whole fails (the host is short of memory, say), the statuses mean
	 * nothing: gntdev marks an operation as done when it queues it, and copies some operations
	 * later.
	 */
	if (failed)
		log_limited(&c->log_limit, LOG_LEVEL_ERROR, "grant copy of %u pieces failed: %s",
			    g->len, strerror(errno));
	for (uint32_t i = 0; i < g->len; i++)
		if (failed || g->ops[i].status != GNTST_okay)
			*g->status[i] = -EFAULT;
	g->len = 0;
}

static void add_by_gntdev(struct grant_copier *c, const struct grant_copy *copy)
{
	struct by_gntdev *g = &c->by_gntdev;
	xengnttab_grant_copy_segment_t *op;

	if (g->len == BATCH_MAX)
		flush_by_gntdev(c);
	op = &g->ops[g->len];
	memset(op, 0, sizeof(*op));
	op->len = copy->len;
	if (copy->to_guest) {
		op->flags = GNTCOPY_dest_gref;
		op->source.virt = copy->local;
		op->dest.foreign.ref = copy->ref;
		op->dest.foreign.offset = copy->offset;
		op->dest.foreign.domid = copy->domid;
	} else {
		op->flags = GNTCOPY_source_gref;
		op->dest.virt = copy->local;
		op->source.foreign.ref = copy->ref;
		op->source.foreign.offset = copy->offset;
		op->source.foreign.domid = copy->domid;
	}
	g->status[g->len++] = copy->status;
}

static void flush_direct(struct grant_copier *c)
{
	struct direct *d = &c->direct;

	if (!d->len)
		return;
	if (xencall3(c->xen, __HYPERVISOR_grant_table_op, GNTTABOP_copy, (uintptr_t)d->ops, d->len))
		log_limited(&c->log_limit, LOG_LEVEL_ERROR, "grant copy of %u pieces failed: %s",
			    d->len, strerror(errno));
	/* Whatever became of the call: what the hypervisor says of an operation holds. */
	for (uint32_t i = 0; i < d->len; i++) {
		/* The page is with the guest's pager, and the kernel knows how to wait for it. */
		if (d->ops[i].status == GNTST_eagain)
			add_by_gntdev(c, &d->copies[i]);
		else if (d->ops[i].status != GNTST_okay)
			*d->copies[i].status = -EFAULT;
	}
	d->len = 0;
}

static void add_direct(struct grant_copier *c, const struct grant_copy *copy)
{
	struct direct *d = &c->direct;
	struct gnttab_copy *op;
	struct gnttab_copy_ptr guest = {
		.u.ref = copy->ref, .domid = copy->domid, .offset = copy->offset};
	struct gnttab_copy_ptr own = {.u.gmfn = copy->bus / XEN_PAGE,
				      .domid = DOMID_SELF,
				      .offset = (uint16_t)(copy->bus % XEN_PAGE)};

	if (d->len == BATCH_MAX)
		flush_direct(c);
	op = &d->ops[d->len];
	*op = (struct gnttab_copy){
		.source = copy->to_guest ? own : guest,
		.dest = copy->to_guest ? guest : own,
		.len = copy->len,
		.flags = copy->to_guest ? GNTCOPY_dest_gref : GNTCOPY_source_gref,
		.status = NOT_DONE,
	};
	d->copies[d->len++] = *copy;
}

void grant_copier_add(struct grant_copier *c, const struct grant_copy *copy)
{
	if (c->xen && copy->bus)
		add_direct(c, copy);
	else
		add_by_gntdev(c, copy);
}

void grant_copier_flush(struct grant_copier *c)
{
	/* First, as it may leave some to gntdev. */
	flush_direct(c);
	flush_by_gntdev(c);
}
