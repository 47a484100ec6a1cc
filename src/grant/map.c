/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xengnttab.h>

#include "base/log.h"

struct grant_mapper {
	xengnttab_handle *gnttab;
	struct log_limit log_limit;
};

int grant_mapper_create(struct grant_mapper **out, struct err *err)
{
	struct grant_mapper *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return err_set(err, -ENOMEM, "no memory for a grant mapper");
	m->gnttab = xengnttab_open(NULL, 0);
	if (!m->gnttab) {
		rc = -errno;
		free(m);
		return err_set(err, rc,
			       "cannot open /dev/xen/gntdev: %s (load the module xen-gntdev and "
			       "run as root)",
			       strerror(-rc));
	}
	*out = m;
	return 0;
}

void grant_mapper_destroy(struct grant_mapper *m)
{
	xengnttab_close(m->gnttab);
	free(m);
}

void *grant_mapper_map(struct grant_mapper *m, uint16_t domid, const uint32_t *refs, unsigned nr,
		       bool writable)
{
	/* The library only reads them. */
	return xengnttab_map_domain_grant_refs(m->gnttab, nr, domid, (uint32_t *)refs,
					       writable ? PROT_READ | PROT_WRITE : PROT_READ);
}

void grant_mapper_unmap(struct grant_mapper *m, void *addr, unsigned nr)
{
	if (xengnttab_unmap(m->gnttab, addr, nr))
		log_limited(&m->log_limit, LOG_LEVEL_ERROR, "cannot unmap %u granted pages: %s", nr,
			    strerror(errno));
}
