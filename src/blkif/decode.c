/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/decode.h"

#include <string.h>

static uint8_t get_u8(const uint8_t *slot, unsigned offset)
{
	return slot[offset];
}

static uint16_t get_u16(const uint8_t *slot, unsigned offset)
{
	uint16_t value;

	memcpy(&value, slot + offset, sizeof(value));
	return value;
}

static uint32_t get_u32(const uint8_t *slot, unsigned offset)
{
	uint32_t value;

	memcpy(&value, slot + offset, sizeof(value));
	return value;
}

static uint64_t get_u64(const uint8_t *slot, unsigned offset)
{
	uint64_t value;

	memcpy(&value, slot + offset, sizeof(value));
	return value;
}

static enum blkif_status decode_rw(const struct blkif_limits *limits, struct blkif_request *req,
				   uint8_t operation)
{
	req->kind = operation == BLKIF_READ ? BLKIF_KIND_READ : BLKIF_KIND_WRITE;
	if (req->kind == BLKIF_KIND_WRITE && limits->readonly)
		return BLKIF_ERROR;
	return BLKIF_OKAY;
}

static enum blkif_status decode_indirect(const struct blkif_layout *layout, const uint8_t *slot,
					 const struct blkif_limits *limits,
					 struct blkif_request *req)
{
	uint8_t inner = get_u8(slot, BLKIF_REQ_INDIRECT_OPERATION);

	/* Linux drops the disk for good unless the response names the inner operation. */
	req->operation = inner;
	req->sector = get_u64(slot, layout->sector);
	req->nr_segments = get_u16(slot, BLKIF_REQ_INDIRECT_NR_SEGMENTS);
	req->indirect = true;
	/* BLKIF_MAX_SEGMENTS fit into one indirect page: the other references are never needed. */
	req->indirect_gref = get_u32(slot, layout->indirect_grefs);
	if (!limits->max_indirect_segments || (inner != BLKIF_READ && inner != BLKIF_WRITE))
		return BLKIF_EOPNOTSUPP;
	if (!req->nr_segments || req->nr_segments > limits->max_indirect_segments)
		return BLKIF_ERROR;
	return decode_rw(limits, req, inner);
}

static enum blkif_status decode_discard(const struct blkif_layout *layout, const uint8_t *slot,
					const struct blkif_limits *limits,
					struct blkif_request *req)
{
	req->kind = BLKIF_KIND_DISCARD;
	req->secure = get_u8(slot, BLKIF_REQ_DISCARD_FLAG) & BLKIF_DISCARD_SECURE;
	req->sector = get_u64(slot, layout->sector);
	req->sectors = get_u64(slot, layout->discard_sectors);
	/* Only what was offered: EOPNOTSUPP makes Linux do without from then on. */
	if (!limits->discard || (req->secure && !limits->secure_discard))
		return BLKIF_EOPNOTSUPP;
	/* In this order nothing can overflow. */
	if (!req->sectors || req->sectors > limits->sectors ||
	    req->sector > limits->sectors - req->sectors)
		return BLKIF_ERROR;
	return BLKIF_OKAY;
}

enum blkif_status blkif_decode_request(const struct blkif_layout *layout, const void *slot_bytes,
				       const struct blkif_limits *limits, struct blkif_request *req,
				       struct blkif_wire_segment *segments)
{
	const uint8_t *slot = slot_bytes;

	memset(req, 0, sizeof(*req));
	req->id = get_u64(slot, layout->id);
	req->operation = get_u8(slot, BLKIF_REQ_OPERATION);
	switch (req->operation) {
	case BLKIF_INDIRECT:
		return decode_indirect(layout, slot, limits, req);
	case BLKIF_DISCARD:
		return decode_discard(layout, slot, limits, req);
	case BLKIF_READ:
	case BLKIF_WRITE:
	case BLKIF_WRITE_BARRIER:
	case BLKIF_FLUSH_DISKCACHE:
		break;
	default:
		return BLKIF_EOPNOTSUPP;
	}

	req->sector = get_u64(slot, layout->sector);
	req->nr_segments = get_u8(slot, BLKIF_REQ_NR_SEGMENTS);
	if (req->nr_segments > layout->max_direct_segments)
		return BLKIF_ERROR;
	/* The most common is one, and copied without a call. */
	if (req->nr_segments == 1)
		memcpy(segments, slot + layout->segments, sizeof(segments[0]));
	else
		memcpy(segments, slot + layout->segments, req->nr_segments * sizeof(segments[0]));

	if (req->operation == BLKIF_READ || req->operation == BLKIF_WRITE) {
		if (!req->nr_segments)
			return BLKIF_ERROR;
		return decode_rw(limits, req, req->operation);
	}
	if (req->operation == BLKIF_WRITE_BARRIER) {
		if (!limits->barrier)
			return BLKIF_EOPNOTSUPP;
		/* When it is answered all is durable, itself included: frontends take it for FUA.
		 */
		req->barrier = true;
		req->postflush = true;
	} else if (!limits->flush) {
		return BLKIF_EOPNOTSUPP;
	}
	if (!req->nr_segments) {
		req->postflush = false;
		req->kind = BLKIF_KIND_FLUSH;
		return BLKIF_OKAY;
	}
	/* With data: what was written before is flushed first, then this is written. */
	req->preflush = true;
	return decode_rw(limits, req, BLKIF_WRITE);
}

enum blkif_status blkif_decode_segments(const struct blkif_request *req,
					const struct blkif_wire_segment *segments,
					const struct blkif_limits *limits, uint32_t *bytes)
{
	uint32_t sectors = 0; /* at most 256 * 8 */

	for (unsigned i = 0; i < req->nr_segments; i++) {
		if (segments[i].first_sect > segments[i].last_sect ||
		    segments[i].last_sect >= BLKIF_SECTORS_PER_PAGE)
			return BLKIF_ERROR;
		sectors += segments[i].last_sect - segments[i].first_sect + 1u;
	}
	/* In this order nothing can overflow. */
	if (sectors > limits->sectors || req->sector > limits->sectors - sectors)
		return BLKIF_ERROR;
	*bytes = sectors * BLKIF_SECTOR_SIZE;
	return BLKIF_OKAY;
}
