/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fuzz target of the judgement alone, in all layouts: whatever bytes a slot and an indirect
 * page have, what is let through keeps to the limits, and what lies behind a slot has no say.
 *
 * An input is a byte that chooses the layout, one that says what is offered, two of the disk's
 * size, then a slot, and then segments of an indirect page.
 */
#include <string.h>

#include "blkif/decode.h"
#include "fuzz.h"

static const struct blkif_layout *const layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64,
						     &blkif_layout_line};
enum { LAYOUTS = sizeof(layouts) / sizeof(layouts[0]), HEADER = 4 };

static struct blkif_limits choose_limits(const uint8_t *data)
{
	return (struct blkif_limits){
		.sectors = (uint64_t)(data[2] | data[3] << 8) << (data[1] & 0x40 ? 47 : 0),
		.max_indirect_segments = data[1] & 1 ? 32 : 0,
		.readonly = data[1] & 2,
		.flush = data[1] & 4,
		.barrier = data[1] & 8,
		.discard = data[1] & 16,
		.secure_discard = data[1] & 32,
	};
}

static void judge_offered(const struct blkif_request *req, const struct blkif_limits *limits)
{
	bool writes = req->kind == BLKIF_KIND_WRITE;

	if (writes && limits->readonly)
		fuzz_fail("a write to a read-only disk");
	if (req->kind == BLKIF_KIND_DISCARD &&
	    (!limits->discard || (req->secure && !limits->secure_discard)))
		fuzz_fail("a discard that was not offered");
	if (req->barrier && !limits->barrier)
		fuzz_fail("a barrier that was not offered");
	if (req->indirect && !limits->max_indirect_segments)
		fuzz_fail("an indirect request that was not offered");
	if (req->kind == BLKIF_KIND_DISCARD && (!req->sectors || req->sectors > limits->sectors ||
						req->sector > limits->sectors - req->sectors))
		fuzz_fail("a discard beyond the end");
}

static void judge_segments(const struct blkif_layout *layout, const struct blkif_request *req,
			   const struct blkif_wire_segment *segments,
			   const struct blkif_limits *limits)
{
	unsigned most = req->indirect ? limits->max_indirect_segments : layout->max_direct_segments;
	uint64_t sectors = 0;
	uint32_t bytes = 0;

	if (req->nr_segments > most)
		fuzz_fail("%u segments where %u fit", req->nr_segments, most);
	if (!req->nr_segments || blkif_decode_segments(req, segments, limits, &bytes) != BLKIF_OKAY)
		return;
	for (unsigned i = 0; i < req->nr_segments; i++) {
		if (segments[i].first_sect > segments[i].last_sect || segments[i].last_sect > 7)
			fuzz_fail("a segment that is none");
		sectors += segments[i].last_sect - segments[i].first_sect + 1u;
	}
	if (bytes != sectors * BLKIF_SECTOR_SIZE)
		fuzz_fail("%u bytes of %lu sectors", bytes, (unsigned long)sectors);
	if (sectors > limits->sectors || req->sector > limits->sectors - sectors)
		fuzz_fail("data beyond the end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct blkif_wire_segment segments[2][BLKIF_MAX_SEGMENTS];
	uint8_t slot[2][BLKIF_MAX_REQUEST_BYTES];
	const struct blkif_layout *layout;
	struct blkif_request req[2];
	enum blkif_status status[2];
	struct blkif_limits limits;
	size_t bytes, rest;

	if (size < HEADER)
		return 0;
	layout = layouts[data[0] % LAYOUTS];
	limits = choose_limits(data);
	size -= HEADER;
	bytes = size < layout->request_bytes ? size : layout->request_bytes;
	rest = size - bytes < sizeof(segments[0]) ? size - bytes : sizeof(segments[0]);
	for (int n = 0; n < 2; n++) {
		memset(slot[n], n ? 0xff : 0, sizeof(slot[n]));
		memset(slot[n], 0, layout->request_bytes);
		memcpy(slot[n], data + HEADER, bytes);
		memset(segments[n], 0, sizeof(segments[n]));
		memset(&req[n], 0, sizeof(req[n]));
		status[n] = blkif_decode_request(layout, slot[n], &limits, &req[n], segments[n]);
	}
	if (status[0] != status[1] || memcmp(&req[0], &req[1], sizeof(req[0])) ||
	    memcmp(segments[0], segments[1], sizeof(segments[0])))
		fuzz_fail("what lies behind the slot was read");
	if (status[0] != BLKIF_OKAY && status[0] != BLKIF_ERROR && status[0] != BLKIF_EOPNOTSUPP)
		fuzz_fail("status %d", status[0]);
	if (status[0] != BLKIF_OKAY)
		return 0;
	judge_offered(&req[0], &limits);
	if (req[0].indirect)
		memcpy(segments[0], data + HEADER + bytes, rest);
	judge_segments(layout, &req[0], segments[0], &limits);
	return 0;
}
