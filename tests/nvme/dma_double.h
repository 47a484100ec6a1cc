/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A provider of device memory for tests.  Its bus addresses are made up: far above any virtual
 * address, rarely neighbours, and never a page's own by chance, so that a driver that takes one
 * name of a page for the other is found out at once.  Only dma_double_reach(), the device's side,
 * knows the way back, and it lets nothing through that is not handed out at that moment.
 */
#ifndef SLUICE_TEST_NVME_DMA_DOUBLE_H
#define SLUICE_TEST_NVME_DMA_DOUBLE_H

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dma/dma.h"

struct dma_double {
	struct dma dma;
	size_t limit;    /* pages that it may still grow by */
	unsigned denied; /* growths refused for that reason */
	bool no_runs;    /* no neighbours but two at a time, whoever asks for more */
};

/* @pages pages at most. */
void dma_double_init(struct dma_double *d, size_t pages);
/* All memory must be back: asserted. */
void dma_double_fini(struct dma_double *d);
size_t dma_double_used(struct dma_double *d);
/* What a device finds at @bus, @len bytes within one page; NULL: nothing that it may touch. */
void *dma_double_reach(struct dma_double *d, uint64_t bus, size_t len);

#endif
