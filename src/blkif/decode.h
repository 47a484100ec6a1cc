/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a private copy of a slot to a request that is safe to serve.  This is the one place where
 * a frontend's numbers are judged; what has passed here needs no second look.
 */
#ifndef SLUICE_BLKIF_DECODE_H
#define SLUICE_BLKIF_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "blkif/wire.h"

enum {
	/* What one request may carry: 1 MiB. More would gain nothing and bind more memory. */
	BLKIF_MAX_SEGMENTS = 256,
};

/* What the disk can take. Sectors are of 512 bytes. */
struct blkif_limits {
	uint64_t sectors;
	uint16_t max_indirect_segments; /* as advertised, at most BLKIF_MAX_SEGMENTS; 0: none */
	bool readonly;
	/* What was advertised: FLUSH_DISKCACHE, WRITE_BARRIER, DISCARD, and its flag SECURE. */
	bool flush;
	bool barrier;
	bool discard;
	bool secure_discard;
};

enum blkif_kind {
	BLKIF_KIND_READ,
	BLKIF_KIND_WRITE,
	BLKIF_KIND_FLUSH,
	BLKIF_KIND_DISCARD,
	BLKIF_KINDS,
};

struct blkif_request {
	uint64_t id;
	uint8_t operation; /* what the response must carry: of an INDIRECT the inner one */
	enum blkif_kind kind;
	bool preflush;  /* a WRITE that a flush must precede */
	bool postflush; /* and one that a flush must follow */
	/* What came before it on its ring ends before it begins; what comes after begins then. */
	bool barrier;
	bool secure;   /* a DISCARD that has to erase */
	bool indirect; /* its segments are in the page that indirect_gref names */
	uint16_t nr_segments;
	uint32_t indirect_gref;
	uint64_t sector;
	uint64_t sectors; /* of a DISCARD, its range checked */
};

/*
 * Decodes the request in @slot. Fills at least id and operation of @req whatever it returns:
 * BLKIF_OKAY, or the status with which the request has to be answered. The segments of a direct
 * request go, still unchecked, to @segments (BLKIF_MAX_DIRECT_SEGMENTS of them).
 */
enum blkif_status blkif_decode_request(const struct blkif_layout *layout, const void *slot,
				       const struct blkif_limits *limits, struct blkif_request *req,
				       struct blkif_wire_segment *segments);

/*
 * Checks the segments of a READ or WRITE and its range. Returns BLKIF_OKAY and the request's length
 * in *@bytes, or the status to answer with. @segments is private memory.
 */
enum blkif_status blkif_decode_segments(const struct blkif_request *req,
					const struct blkif_wire_segment *segments,
					const struct blkif_limits *limits, uint32_t *bytes);

#endif
