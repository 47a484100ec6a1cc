/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/wire.h"

#include <stddef.h>
#include <string.h>

/* i386 aligns u64 to 4 bytes, x86-64 to 8: all differences follow from that. */
const struct blkif_layout blkif_layout_x86_32 = {
	.protocol = "x86_32-abi",
	.request_bytes = 108,
	.response_bytes = 12,
	.header_bytes = BLKIF_RING_HEADER_BYTES,
	.req_prod = offsetof(struct blkif_sring, req_prod),
	.req_event = offsetof(struct blkif_sring, req_event),
	.rsp_prod = offsetof(struct blkif_sring, rsp_prod),
	.rsp_event = offsetof(struct blkif_sring, rsp_event),
	.max_direct_segments = BLKIF_MAX_DIRECT_SEGMENTS,
	.id = 4,
	.sector = 12,
	.segments = 20,
	.indirect_handle = 20,
	.indirect_grefs = 24,
	.discard_sectors = 20,
};

const struct blkif_layout blkif_layout_x86_64 = {
	.protocol = "x86_64-abi",
	.request_bytes = 112,
	.response_bytes = 16,
	.header_bytes = BLKIF_RING_HEADER_BYTES,
	.req_prod = offsetof(struct blkif_sring, req_prod),
	.req_event = offsetof(struct blkif_sring, req_event),
	.rsp_prod = offsetof(struct blkif_sring, rsp_prod),
	.rsp_event = offsetof(struct blkif_sring, rsp_event),
	.max_direct_segments = BLKIF_MAX_DIRECT_SEGMENTS,
	.id = 8,
	.sector = 16,
	.segments = 24,
	.indirect_handle = 24,
	.indirect_grefs = 28,
	.discard_sectors = 24,
};

/*
 * 128 bytes lie between what the frontend writes and what the backend writes, since processors
 * fetch lines in pairs.  A slot ends with its fifth segment.
 */
const struct blkif_layout blkif_layout_line = {
	.protocol = "line",
	.request_bytes = BLKIF_LINE_BYTES,
	.response_bytes = 16,
	.header_bytes = 256,
	.req_prod = 0,
	.rsp_event = 4,
	.rsp_prod = 128,
	.req_event = 132,
	.max_direct_segments = 5,
	.id = 8,
	.sector = 16,
	.segments = 24,
	.indirect_handle = 24,
	.indirect_grefs = 28,
	.discard_sectors = 24,
};

const struct blkif_layout *blkif_layout_find(const char *protocol)
{
	if (!protocol || !strcmp(protocol, blkif_layout_x86_32.protocol))
		return &blkif_layout_x86_32;
	if (!strcmp(protocol, blkif_layout_x86_64.protocol))
		return &blkif_layout_x86_64;
	return NULL;
}

uint32_t blkif_layout_slots(const struct blkif_layout *layout, unsigned pages)
{
	uint32_t fit = (pages * BLKIF_PAGE_SIZE - layout->header_bytes) / layout->request_bytes;

	return 1u << (31 - __builtin_clz(fit));
}
