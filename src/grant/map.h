/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapping granted pages into this process (by way of gntdev).  One call maps all of a request's
 * pages or none: gntdev tells no status a page.  A mapper belongs to one thread.
 */
#ifndef SLUICE_GRANT_MAP_H
#define SLUICE_GRANT_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct grant_mapper;

/* Returns 0 and *@out, or a negative errno with the remedy. */
int grant_mapper_create(struct grant_mapper **out, struct err *err);
/* Nothing is mapped any more. */
void grant_mapper_destroy(struct grant_mapper *m);

/*
 * Maps @nr pages of domain @domid, one behind the other, to be read and, if @writable, written.
 * Returns the first, or NULL: a reference is bad, or the host has no more mappings to give.
 */
void *grant_mapper_map(struct grant_mapper *m, uint16_t domid, const uint32_t *refs, unsigned nr,
		       bool writable);
/* Unmaps what one call has mapped. */
void grant_mapper_unmap(struct grant_mapper *m, void *addr, unsigned nr);

#endif
