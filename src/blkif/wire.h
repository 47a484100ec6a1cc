/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The blkif protocol's bytes: the shared ring page, requests and responses in both x86 layouts, and
 * in one of Sluice's own.
 *
 * A layout is a table of offsets rather than a set of structs: the same code then serves all, and
 * a request is only ever read from a private copy.  All integers are little-endian, as is every
 * machine this builds for.  tests/unit/test_blkif_wire*.c hold every offset of Xen's layouts
 * against Xen's own headers.
 *
 * What a small request costs between two cores that poll is cache lines that change hands, and in
 * Xen's layouts they are many: a slot of 112 bytes lies across two or three, and all four
 * counters share one, so that each side's store takes it away from the other's loop.  In the layout
 * LINE a slot is a cache line, and what one side writes of the ring's head has a line of its own.
 * It is x86_64's otherwise, with five segments in the slot and no more.  Only segments offer it
 * (blkif/control_page.h): Xen's frontends know nothing of it.
 *
 * Reference: Xen public headers, io/blkif.h and io/ring.h.  Two corrections to blkif.h of Xen 4.17:
 * sectors are units of 512 bytes whatever `sector-size` says, and the response to an INDIRECT
 * request carries the inner operation.
 */
#ifndef SLUICE_BLKIF_WIRE_H
#define SLUICE_BLKIF_WIRE_H

#include <stdatomic.h>
#include <stdint.h>

enum blkif_wire_op {
	BLKIF_READ = 0,
	BLKIF_WRITE = 1,
	BLKIF_WRITE_BARRIER = 2,
	BLKIF_FLUSH_DISKCACHE = 3,
	BLKIF_DISCARD = 5,
	BLKIF_INDIRECT = 6,
};

enum blkif_status {
	BLKIF_OKAY = 0,
	BLKIF_ERROR = -1,
	BLKIF_EOPNOTSUPP = -2,
};

enum {
	BLKIF_PAGE_SIZE = 4096,
	BLKIF_SECTOR_SIZE = 512,
	BLKIF_SECTORS_PER_PAGE = BLKIF_PAGE_SIZE / BLKIF_SECTOR_SIZE,
	BLKIF_MAX_DIRECT_SEGMENTS = 11, /* in any layout: a layout may have fewer */
	BLKIF_MAX_INDIRECT_PAGES = 8,
	BLKIF_SEGMENTS_PER_INDIRECT_PAGE = 512,
	BLKIF_MAX_REQUEST_BYTES = 112, /* of one slot, in the larger layout */
	BLKIF_LINE_BYTES = 64,         /* of one slot of LINE */
	BLKIF_RING_HEADER_BYTES = 64,  /* in Xen's layouts */
	BLKIF_MAX_RING_PAGES = 16,
	BLKIF_MAX_SLOTS = 512,    /* of that many, in any layout */
	BLKIF_DISCARD_SECURE = 1, /* flag of a DISCARD */
};

/* The head of the ring's first page in Xen's layouts; slots follow at BLKIF_RING_HEADER_BYTES. */
struct blkif_sring {
	atomic_uint_least32_t req_prod;  /* frontend: requests produced */
	atomic_uint_least32_t req_event; /* backend: notify when req_prod passes this */
	atomic_uint_least32_t rsp_prod;  /* backend: responses produced */
	atomic_uint_least32_t rsp_event; /* frontend: notify when rsp_prod passes this */
	uint8_t pad[48];
};

/* One segment of a request, the same in both layouts and in indirect pages. */
struct blkif_wire_segment {
	uint32_t gref;
	uint8_t first_sect; /* first and last sector in the page, both inclusive */
	uint8_t last_sect;
	uint16_t pad;
};

/* Offsets in bytes from the start of a slot. operation (u8) is at 0 in all requests. */
struct blkif_layout {
	const char *protocol;    /* value of the frontend's `protocol` key */
	uint16_t request_bytes;  /* a slot's size: the larger of request and response */
	uint16_t response_bytes; /* id u64 at 0, operation u8 at 8, status s16 at 10 */
	uint16_t header_bytes;   /* of the ring's head: where slots begin */
	uint16_t req_prod;       /* u32 in the ring's head; see struct blkif_sring */
	uint16_t req_event;
	uint16_t rsp_prod;
	uint16_t rsp_event;
	uint8_t max_direct_segments; /* at most BLKIF_MAX_DIRECT_SEGMENTS */
	uint8_t id;                  /* u64, in all requests */
	uint8_t sector;              /* u64, in all requests that have one */
	uint8_t segments;        /* READ, WRITE: struct blkif_wire_segment[max_direct_segments] */
	uint8_t indirect_handle; /* INDIRECT: u16 */
	uint8_t indirect_grefs;  /* INDIRECT: u32[8] */
	uint8_t discard_sectors; /* DISCARD: u64 */
};

enum {
	BLKIF_REQ_OPERATION = 0,
	BLKIF_REQ_NR_SEGMENTS = 1,          /* u8; READ, WRITE, WRITE_BARRIER, FLUSH_DISKCACHE */
	BLKIF_REQ_HANDLE = 2,               /* u16; the same */
	BLKIF_REQ_INDIRECT_OPERATION = 1,   /* u8; INDIRECT */
	BLKIF_REQ_INDIRECT_NR_SEGMENTS = 2, /* u16; INDIRECT */
	BLKIF_REQ_DISCARD_FLAG = 1,         /* u8; DISCARD */
	BLKIF_RSP_ID = 0,
	BLKIF_RSP_OPERATION = 8,
	BLKIF_RSP_STATUS = 10,
};

extern const struct blkif_layout blkif_layout_x86_32;
extern const struct blkif_layout blkif_layout_x86_64;
extern const struct blkif_layout blkif_layout_line;

/* The layout that the frontend's `protocol` key names (NULL: no key, hence x86_32), or NULL. */
const struct blkif_layout *blkif_layout_find(const char *protocol);

/* A counter in the ring's head. */
static inline atomic_uint_least32_t *blkif_counter_at(void *pages, uint16_t offset)
{
	return (atomic_uint_least32_t *)(void *)((char *)pages + offset);
}

/*
 * Fetches a slot that the other side has written, and that this side will write next, at once for
 * writing: else reading it and writing to it would each cost a turn between the processors.
 */
static inline void blkif_prefetch_slot(const void *slot)
{
#ifdef __x86_64__
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)slot));
#else
	__builtin_prefetch(slot, 1);
#endif
}

/* Slots of a ring of @pages pages: the largest power of two that fits. */
uint32_t blkif_layout_slots(const struct blkif_layout *layout, unsigned pages);

#endif
