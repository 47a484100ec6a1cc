/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Xen's public headers say about blkif's layouts, gathered by a compiler.
 *
 * Each of test_blkif_wire_x86_32.c and test_blkif_wire_x86_64.c defines WIRE_FACTS and includes
 * this file after Xen's <xen/io/blkif.h>, seen with that machine's alignment; the test then
 * compares src/blkif/wire.c's tables with the two sets of facts.  What is a constant expression on
 * both sides is compared right here, at compile time.
 */
#ifndef SLUICE_TEST_BLKIF_WIRE_FACTS_H
#define SLUICE_TEST_BLKIF_WIRE_FACTS_H

#include <stddef.h>
#include <stdint.h>

struct wire_facts {
	size_t slot_bytes;
	size_t request_bytes;
	size_t response_bytes;
	size_t id;
	size_t sector;
	size_t segments;
	size_t indirect_handle;
	size_t indirect_grefs;
	size_t discard_sectors;
	size_t discard_sector;
	size_t discard_id;
	size_t indirect_sector;
	size_t indirect_id;
	uint32_t slots_1_page;
	uint32_t slots_2_pages;
	uint32_t slots_3_pages;
	uint32_t slots_16_pages;
};

extern const struct wire_facts wire_facts_x86_32;
extern const struct wire_facts wire_facts_x86_64;

#endif

#ifdef WIRE_FACTS

#define SAME(ours, xens) _Static_assert((ours) == (xens), #ours " differs from Xen's " #xens)

/* The ring's head. xen_sring is Xen's struct blkif_sring, renamed by the includer. */
SAME(offsetof(struct blkif_sring, req_prod), offsetof(struct xen_sring, req_prod));
SAME(offsetof(struct blkif_sring, req_event), offsetof(struct xen_sring, req_event));
SAME(offsetof(struct blkif_sring, rsp_prod), offsetof(struct xen_sring, rsp_prod));
SAME(offsetof(struct blkif_sring, rsp_event), offsetof(struct xen_sring, rsp_event));
SAME(sizeof(((struct blkif_sring *)0)->req_prod), sizeof(RING_IDX));
SAME(BLKIF_RING_HEADER_BYTES, offsetof(struct xen_sring, ring));
SAME(sizeof(struct blkif_sring), offsetof(struct xen_sring, ring));

SAME(sizeof(struct blkif_wire_segment), sizeof(struct blkif_request_segment));
SAME(offsetof(struct blkif_wire_segment, gref), offsetof(struct blkif_request_segment, gref));
SAME(offsetof(struct blkif_wire_segment, first_sect),
     offsetof(struct blkif_request_segment, first_sect));
SAME(offsetof(struct blkif_wire_segment, last_sect),
     offsetof(struct blkif_request_segment, last_sect));

SAME(BLKIF_REQ_OPERATION, offsetof(struct blkif_request, operation));
SAME(BLKIF_REQ_OPERATION, offsetof(struct blkif_request_indirect, operation));
SAME(BLKIF_REQ_OPERATION, offsetof(struct blkif_request_discard, operation));
SAME(BLKIF_REQ_NR_SEGMENTS, offsetof(struct blkif_request, nr_segments));
SAME(BLKIF_REQ_HANDLE, offsetof(struct blkif_request, handle));
SAME(BLKIF_REQ_INDIRECT_OPERATION, offsetof(struct blkif_request_indirect, indirect_op));
SAME(BLKIF_REQ_INDIRECT_NR_SEGMENTS, offsetof(struct blkif_request_indirect, nr_segments));
SAME(BLKIF_REQ_DISCARD_FLAG, offsetof(struct blkif_request_discard, flag));
SAME(sizeof(((struct blkif_request *)0)->nr_segments), 1);
SAME(sizeof(((struct blkif_request_indirect *)0)->nr_segments), 2);
SAME(sizeof(((struct blkif_request *)0)->handle), 2);
SAME(BLKIF_RSP_ID, offsetof(struct blkif_response, id));
SAME(BLKIF_RSP_OPERATION, offsetof(struct blkif_response, operation));
SAME(BLKIF_RSP_STATUS, offsetof(struct blkif_response, status));
SAME(sizeof(((struct blkif_response *)0)->status), 2);

SAME(BLKIF_READ, BLKIF_OP_READ);
SAME(BLKIF_WRITE, BLKIF_OP_WRITE);
SAME(BLKIF_WRITE_BARRIER, BLKIF_OP_WRITE_BARRIER);
SAME(BLKIF_FLUSH_DISKCACHE, BLKIF_OP_FLUSH_DISKCACHE);
SAME(BLKIF_DISCARD, BLKIF_OP_DISCARD);
SAME(BLKIF_INDIRECT, BLKIF_OP_INDIRECT);
SAME(BLKIF_OKAY, BLKIF_RSP_OKAY);
SAME(BLKIF_ERROR, BLKIF_RSP_ERROR);
SAME(BLKIF_EOPNOTSUPP, BLKIF_RSP_EOPNOTSUPP);
SAME(OUR_DISCARD_SECURE, BLKIF_DISCARD_SECURE);
SAME(BLKIF_MAX_DIRECT_SEGMENTS, BLKIF_MAX_SEGMENTS_PER_REQUEST);
SAME(BLKIF_MAX_INDIRECT_PAGES, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST);
SAME(BLKIF_SEGMENTS_PER_INDIRECT_PAGE, BLKIF_PAGE_SIZE / sizeof(struct blkif_request_segment));
_Static_assert(BLKIF_MAX_REQUEST_BYTES >= sizeof(union xen_sring_entry), "a slot has to fit");

#define WIRE_RING_SIZE(pages) __CONST_RING_SIZE(xen, (pages)*BLKIF_PAGE_SIZE)

const struct wire_facts WIRE_FACTS = {
	.slot_bytes = sizeof(union xen_sring_entry),
	.request_bytes = sizeof(struct blkif_request),
	.response_bytes = sizeof(struct blkif_response),
	.id = offsetof(struct blkif_request, id),
	.sector = offsetof(struct blkif_request, sector_number),
	.segments = offsetof(struct blkif_request, seg),
	.indirect_handle = offsetof(struct blkif_request_indirect, handle),
	.indirect_grefs = offsetof(struct blkif_request_indirect, indirect_grefs),
	.discard_sectors = offsetof(struct blkif_request_discard, nr_sectors),
	.discard_sector = offsetof(struct blkif_request_discard, sector_number),
	.discard_id = offsetof(struct blkif_request_discard, id),
	.indirect_sector = offsetof(struct blkif_request_indirect, sector_number),
	.indirect_id = offsetof(struct blkif_request_indirect, id),
	.slots_1_page = WIRE_RING_SIZE(1),
	.slots_2_pages = WIRE_RING_SIZE(2),
	.slots_3_pages = WIRE_RING_SIZE(3),
	.slots_16_pages = WIRE_RING_SIZE(16),
};

#endif
