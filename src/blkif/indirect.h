/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to src/blkif.
 *
 * indirect: the indirect pages that one queue has mapped for the CPU.
 *
 * Where data pages are mapped for devices and stay so (persistent grants), the lists of segments
 * are all that the CPU has to read of a guest's memory, and copying each would be the one hypercall
 * left on a large request's way.  A frontend that grants persistently does so with these pages,
 * too, and takes the ones it has used last again, so that few are in use.  Each may have one of a
 * few places, by its number.  If others have used all of those a moment ago, it is copied and not
 * mapped: to map costs more than many copies.
 */
#ifndef SLUICE_BLKIF_INDIRECT_H
#define SLUICE_BLKIF_INDIRECT_H

#include <stdint.h>

#include "blkif/guest.h"
#include "blkif/share.h"

enum {
	/* Four times the requests of a ring of one page: hardly ever nine meet in one set. */
	BLKIF_INDIRECT_SETS = 16,
	BLKIF_INDIRECT_WAYS = 8,
	BLKIF_INDIRECT_PLACES = BLKIF_INDIRECT_SETS * BLKIF_INDIRECT_WAYS,
};

struct blkif_indirect_page {
	const void *addr; /* NULL: none */
	uint64_t used_ns;
	uint32_t ref;
};

struct blkif_indirect {
	uint32_t mapped; /* pages now */
	/* private */
	struct share *share;
	struct blkif_guest *guest;
	uint32_t peer;
	uint64_t retry_at_ns;              /* after a failure, nothing is mapped until then */
	struct blkif_indirect_page *pages; /* NULL: none is mapped */
};

/* @share and @guest stay the caller's. It takes memory when it is used, and gives it back. */
void blkif_indirect_init(struct blkif_indirect *in, struct share *share, uint32_t peer,
			 struct blkif_guest *guest);
/* Unmaps all. Nothing happens to one that is all zero. */
void blkif_indirect_fini(struct blkif_indirect *in);

/* The page that @ref names, until the next call; NULL if it is not mapped, and cannot be now. */
const void *blkif_indirect_get(struct blkif_indirect *in, uint32_t ref, uint64_t now_ns);
/* Unmaps what has not been used since @since_ns. */
void blkif_indirect_expire(struct blkif_indirect *in, uint64_t since_ns);

#endif
