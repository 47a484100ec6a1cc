/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xengnttab.h>

#include "base/log.h"

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
	c->gnttab = xengnttab_open(NULL, 0);
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
	/* The kernel sets it for each operation that it comes to. */
	op->status = GNTST_general_error;
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
	if (!c->len)
		return;
	if (xengnttab_grant_copy(c->gnttab, c->len, c->ops) < 0) {
		/* Our own doing or the host's want of memory: what was not done stays an error. */
		log_limited(&c->log_limit, LOG_LEVEL_ERROR, "grant copy of %u pieces failed: %s",
			    c->len, strerror(errno));
	}
	for (uint32_t i = 0; i < c->len; i++)
		if (c->ops[i].status != GNTST_okay)
			*c->status[i] = -EFAULT;
	c->len = 0;
}
