/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xengnttab.h>

#include "base/log.h"
#include "grant/library.h"

/* More than a pass of one busy reactor collects; 40 bytes each. */
enum { BATCH_MAX = 2048 };

struct grant_copier {
	xengnttab_handle *gnttab;
	struct log_limit log_limit;
	uint32_t len;
	int *status[BATCH_MAX]; /* of each operation */
	xengnttab_grant_copy_segment_t ops[BATCH_MAX];
};

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
	*out = c;
	return 0;
}

void grant_copier_destroy(struct grant_copier *c)
{
	xengnttab_close(c->gnttab);
	free(c);
}

void grant_copier_add(struct grant_copier *c, const struct grant_copy *copy)
{
	xengnttab_grant_copy_segment_t *op;

	if (c->len == BATCH_MAX)
		grant_copier_flush(c);
	op = &c->ops[c->len];
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
	c->status[c->len++] = copy->status;
}

void grant_copier_flush(struct grant_copier *c)
{
	bool failed;

	if (!c->len)
		return;
	failed = xengnttab_grant_copy(c->gnttab, c->len, c->ops) < 0;
	/*
	 * If the call as a whole fails (the host is short of memory, say), the statuses mean
	 * nothing: gntdev marks an operation as done when it queues it, and copies some operations
	 * later.
	 */
	if (failed)
		log_limited(&c->log_limit, LOG_LEVEL_ERROR, "grant copy of %u pieces failed: %s",
			    c->len, strerror(errno));
	for (uint32_t i = 0; i < c->len; i++)
		if (failed || c->ops[i].status != GNTST_okay)
			*c->status[i] = -EFAULT;
	c->len = 0;
}
