/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/map.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xengnttab.h>

#include "base/log.h"
#include "grant/library.h"

/*
 * Mappings of the process, over all mappers. Each is an area of its own to Linux, which gives a
 * process 65530 (vm.max_map_count): half of them stay for all else, so that whatever guests have
 * mapped, a ring or a bdev can still be.
 */
enum { MAPPINGS_MAX = 32768 };
static atomic_uint mappings;

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
	m->gnttab = grant_library_open();
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
	void *addr = NULL;

	if (atomic_fetch_add_explicit(&mappings, 1, memory_order_relaxed) < MAPPINGS_MAX)
		/* The library only reads the references. */
		addr = xengnttab_map_domain_grant_refs(m->gnttab, nr, domid, (uint32_t *)refs,
						       writable ? PROT_READ | PROT_WRITE
								: PROT_READ);
	if (!addr)
		atomic_fetch_sub_explicit(&mappings, 1, memory_order_relaxed);
	return addr;
}

void grant_mapper_unmap(struct grant_mapper *m, void *addr, unsigned nr)
{
	atomic_fetch_sub_explicit(&mappings, 1, memory_order_relaxed);
	if (xengnttab_unmap(m->gnttab, addr, nr))
		log_limited(&m->log_limit, LOG_LEVEL_ERROR, "cannot unmap %u granted pages: %s", nr,
			    strerror(errno));
}
