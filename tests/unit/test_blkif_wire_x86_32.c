/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Xen's blkif structures as an i386 frontend sees them.
 *
 * i386 differs from x86-64 in one thing that matters here: it aligns 64-bit integers to 4 bytes.
 * Packing to 4 does the same (no member is larger than 8 bytes, none asks for more than 8).  That
 * this reasoning holds is checked, too: where the compiler can, the tests also compile this file
 * for i386, without the packing, against the same numbers below.
 */
#include "blkif/wire.h"

/* Before Xen's macro of that name hides it; and Xen's ring types give way to ours. */
enum { OUR_DISCARD_SECURE = BLKIF_DISCARD_SECURE };
#define blkif_sring       xen_sring
#define blkif_sring_entry xen_sring_entry
/* What blkif.h includes has to be read as it is, so it is read first. */
#include <xen/grant_table.h>
#include <xen/io/ring.h>
#ifdef __i386__
#include <xen/io/blkif.h>
#else
#define __i386__ /* one member of blkif.h exists for i386 only */
#pragma pack(push, 4)
#include <xen/io/blkif.h>
#pragma pack(pop)
#undef __i386__
#endif
#undef blkif_sring
#undef blkif_sring_entry

#define WIRE_FACTS wire_facts_x86_32
#include "test_blkif_wire_facts.h"

_Static_assert(sizeof(struct blkif_request) == 108, "size of a request");
_Static_assert(sizeof(struct blkif_response) == 12, "size of a response");
_Static_assert(sizeof(union xen_sring_entry) == 108, "size of a slot");
_Static_assert(offsetof(struct blkif_request, id) == 4, "id");
_Static_assert(offsetof(struct blkif_request, sector_number) == 12, "sector_number");
_Static_assert(offsetof(struct blkif_request, seg) == 20, "seg");
_Static_assert(sizeof(struct blkif_request_indirect) == 64, "size of an indirect request");
_Static_assert(offsetof(struct blkif_request_indirect, id) == 4, "indirect id");
_Static_assert(offsetof(struct blkif_request_indirect, sector_number) == 12, "indirect sector");
_Static_assert(offsetof(struct blkif_request_indirect, handle) == 20, "indirect handle");
_Static_assert(offsetof(struct blkif_request_indirect, indirect_grefs) == 24, "indirect grefs");
_Static_assert(offsetof(struct blkif_request_discard, id) == 4, "discard id");
_Static_assert(offsetof(struct blkif_request_discard, sector_number) == 12, "discard sector");
_Static_assert(offsetof(struct blkif_request_discard, nr_sectors) == 20, "discard sectors");
_Static_assert(offsetof(struct blkif_response, operation) == 8, "response operation");
_Static_assert(offsetof(struct blkif_response, status) == 10, "response status");
_Static_assert(offsetof(struct xen_sring, ring) == 64, "ring header");
