/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a channel lies in a segment; sivshm_channel(3) is the specification.
 *
 *   descriptor | manager's side | worker's side | manager's ring | worker's ring
 *
 * A side's ring holds what that side sends, one message after the other, each a header of eight
 * bytes, some bytes to align what follows, and the payload.  A position counts bytes from the
 * channel's beginning on and never wraps; a position modulo the ring's size is a place in it.  A
 * message never wraps either: where it would, a header says that the rest of the ring is left out.
 */
#ifndef SIVSHM_CHANNEL_LAYOUT_H
#define SIVSHM_CHANNEL_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* "SIVSHMCH", and so byte-swapped on a machine of the other byte order, which is refused by it. */
#define CHANNEL_MAGIC UINT64_C(0x48434d4853564953)

/* As a wanted position: none. */
#define CHANNEL_NEVER UINT64_MAX

enum {
	CHANNEL_VERSION = 1,
	CHANNEL_WORD = 8, /* a header's bytes, and what every place is a multiple of */
	CHANNEL_LINE = 64,
	CHANNEL_MANAGER = 0,
	CHANNEL_WORKER = 1,
	/* A header: payload's bytes, then how far behind the header's start they begin, then what.
	 */
	CHANNEL_LEAD_SHIFT = 32,
	CHANNEL_KIND_SHIFT = 48,
	CHANNEL_KIND_MESSAGE = 1,
	CHANNEL_KIND_WRAP = 2, /* go on at the ring's start */
	CHANNEL_LEAD_MAX = CHANNEL_LINE,
	/* A receiver has at most this part of a ring read and not yet said so: 1 / 16. */
	CHANNEL_LAG_SHIFT = 4,
};

struct channel_descriptor {
	_Alignas(CHANNEL_LINE) _Atomic uint64_t magic; /* last */
	uint32_t version;
	uint32_t head_bytes; /* of all that lies before the rings */
	uint64_t bytes;      /* of the channel */
	uint64_t ring_bytes; /* of each ring */
	uint8_t pad[96];
};

/*
 * What one side writes; the other only reads it. Parts that different ones look at lie two lines
 * apart: a processor that fetches one may fetch its neighbour, too.
 */
struct channel_side {
	/* Looked at by a sender that seems to have no room. */
	_Alignas(CHANNEL_LINE) _Atomic uint64_t consumed; /* received and given back, lazily */
	uint8_t pad[120];
	/* Looked at when it is to be decided whether to ring; written only by those who sleep. */
	_Atomic uint64_t message_wanted; /* to be rung when more than this was sent */
	_Atomic uint64_t room_wanted;    /* to be rung when at least this was consumed */
	uint8_t pad2[112];
	/* For this side itself, should its program be started again. */
	_Atomic uint64_t sent;
	uint8_t pad3[120];
};

struct channel_head {
	struct channel_descriptor descriptor;
	struct channel_side sides[2];
};

static_assert(offsetof(struct channel_head, sides) == 128, "see sivshm_channel(3)");
static_assert(offsetof(struct channel_side, message_wanted) == 128, "see sivshm_channel(3)");
static_assert(offsetof(struct channel_side, sent) == 256, "see sivshm_channel(3)");
static_assert(sizeof(struct channel_head) == 896, "see sivshm_channel(3)");

#endif
