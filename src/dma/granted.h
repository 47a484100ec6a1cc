/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Device memory in a PV dom0 (or driver domain): pages of gntalloc, granted by the domain to itself
 * and mapped for devices, so that the hypervisor names their machine addresses.  It grows as it is
 * asked for.  Each page takes one of the domain's grant entries and counts against gntalloc's
 * `limit`, which is raised if that can be done.
 */
#ifndef SLUICE_DMA_GRANTED_H
#define SLUICE_DMA_GRANTED_H

#include "dma/dma.h"

struct grant_ledger;

/*
 * At most @max_pages pages, and half of those that the domain can grant. Returns 0 and *@out, or a
 * negative errno with the line in @err: a PVH domain, no module xen-gntalloc, a limit.
 */
int dma_granted_create(size_t max_pages, struct grant_ledger *ledger, struct dma **out,
		       struct err *err);
/* All its memory was freed, and no device uses it. */
void dma_granted_destroy(struct dma *d);

/*
 * From how many bytes of a request on mapping its pages for devices (and ending that) is cheaper
 * here than copying them: measured once, by both on pages of @d. UINT32_MAX: it never is. A
 * multiple of 4096, at most 1 MiB else.
 */
int dma_granted_measure(struct dma *d, uint32_t *map_from_bytes, struct err *err);

#endif
