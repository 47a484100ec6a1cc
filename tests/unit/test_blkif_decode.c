/* SPDX-License-Identifier: BSD-2-Clause */
/* The judgement of requests: fields found in all layouts, each limit on both of its sides, and
 * noise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkif/decode.h"

static const struct blkif_layout *const layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64,
						     &blkif_layout_line};
enum { LAYOUTS = sizeof(layouts) / sizeof(layouts[0]) };

static const struct blkif_limits limits = {
	.sectors = 1000,
	.max_indirect_segments = 32,
	.flush = true,
};

/* A slot under construction; what is not set is noise. */
struct slot {
	const struct blkif_layout *l;
	uint8_t bytes[BLKIF_MAX_REQUEST_BYTES];
};

static void put(struct slot *s, unsigned offset, const void *value, size_t len)
{
	memcpy(s->bytes + offset, value, len);
}

static struct slot direct(const struct blkif_layout *l, uint8_t op, uint8_t nr, uint64_t sector)
{
	uint64_t id = 0xfedcba9876543210;
	struct slot s = {.l = l};

	memset(s.bytes, 0xa5, sizeof(s.bytes));
	s.bytes[BLKIF_REQ_OPERATION] = op;
	s.bytes[BLKIF_REQ_NR_SEGMENTS] = nr;
	put(&s, l->id, &id, sizeof(id));
	put(&s, l->sector, &sector, sizeof(sector));
	for (unsigned i = 0; i < nr && i < l->max_direct_segments; i++) {
		struct blkif_wire_segment seg = {.gref = 100 + i, .last_sect = 7};

		put(&s, l->segments + i * (unsigned)sizeof(seg), &seg, sizeof(seg));
	}
	return s;
}

static struct slot indirect(const struct blkif_layout *l, uint8_t inner, uint16_t nr,
			    uint64_t sector)
{
	struct slot s = direct(l, BLKIF_INDIRECT, 0, sector);
	uint32_t gref = 0xabcdef01;

	s.bytes[BLKIF_REQ_INDIRECT_OPERATION] = inner;
	put(&s, BLKIF_REQ_INDIRECT_NR_SEGMENTS, &nr, sizeof(nr));
	put(&s, l->indirect_grefs, &gref, sizeof(gref));
	return s;
}

static enum blkif_status decode(const struct slot *s, const struct blkif_limits *lim,
				struct blkif_request *req, struct blkif_wire_segment *segments)
{
	/* What decoding does not set must not count as set. */
	memset(req, 0xcc, sizeof(*req));
	return blkif_decode_request(s->l, s->bytes, lim, req, segments);
}

static void fields_are_found(void **state)
{
	struct blkif_wire_segment segments[BLKIF_MAX_DIRECT_SEGMENTS];
	struct blkif_request req;
	uint32_t bytes;
	struct slot s;

	for (unsigned l = 0; l < LAYOUTS; l++) {
		unsigned nr = layouts[l]->max_direct_segments;

		s = direct(layouts[l], BLKIF_WRITE, (uint8_t)nr, 912);
		assert_int_equal(decode(&s, &limits, &req, segments), BLKIF_OKAY);
		assert_true(req.id == 0xfedcba9876543210);
		assert_int_equal(req.operation, BLKIF_WRITE);
		assert_int_equal(req.kind, BLKIF_KIND_WRITE);
		assert_int_equal(req.sector, 912);
		assert_int_equal(req.nr_segments, nr);
		assert_false(req.indirect);
		assert_false(req.preflush);
		for (unsigned i = 0; i < nr; i++) {
			assert_int_equal(segments[i].gref, 100 + i);
			assert_int_equal(segments[i].first_sect, 0);
			assert_int_equal(segments[i].last_sect, 7);
		}
		assert_int_equal(blkif_decode_segments(&req, segments, &limits, &bytes),
				 BLKIF_OKAY);
		assert_int_equal(bytes, nr * 4096);

		s = indirect(layouts[l], BLKIF_READ, 32, 744);
		assert_int_equal(decode(&s, &limits, &req, segments), BLKIF_OKAY);
		assert_true(req.id == 0xfedcba9876543210);
		/* What the response has to carry is the inner one. */
		assert_int_equal(req.operation, BLKIF_READ);
		assert_int_equal(req.kind, BLKIF_KIND_READ);
		assert_int_equal(req.sector, 744);
		assert_int_equal(req.nr_segments, 32);
		assert_true(req.indirect);
		assert_int_equal(req.indirect_gref, 0xabcdef01);

		s = direct(layouts[l], BLKIF_FLUSH_DISKCACHE, 0, 0);
		assert_int_equal(decode(&s, &limits, &req, segments), BLKIF_OKAY);
		assert_int_equal(req.operation, BLKIF_FLUSH_DISKCACHE);
		assert_int_equal(req.kind, BLKIF_KIND_FLUSH);
		assert_int_equal(req.nr_segments, 0);
		assert_false(req.preflush);

		s = direct(layouts[l], BLKIF_FLUSH_DISKCACHE, 2, 5);
		assert_int_equal(decode(&s, &limits, &req, segments), BLKIF_OKAY);
		assert_int_equal(req.operation, BLKIF_FLUSH_DISKCACHE);
		assert_int_equal(req.kind, BLKIF_KIND_WRITE);
		assert_true(req.preflush);
	}
}

/* In the table's nr: as many segments as a slot has room for, and one more. */
enum { FULL = 11, OVERFULL = 12 };

struct rule {
	uint8_t op;
	uint8_t inner; /* of an INDIRECT */
	uint16_t nr;
	enum blkif_status plain;
	enum blkif_status readonly;
	enum blkif_status bare; /* neither flush nor indirect are offered */
};

static const struct rule rules[] = {
	{BLKIF_READ, 0, 1, BLKIF_OKAY, BLKIF_OKAY, BLKIF_OKAY},
	{BLKIF_READ, 0, FULL, BLKIF_OKAY, BLKIF_OKAY, BLKIF_OKAY},
	{BLKIF_READ, 0, 0, BLKIF_ERROR, BLKIF_ERROR, BLKIF_ERROR},
	{BLKIF_READ, 0, OVERFULL, BLKIF_ERROR, BLKIF_ERROR, BLKIF_ERROR},
	{BLKIF_READ, 0, 255, BLKIF_ERROR, BLKIF_ERROR, BLKIF_ERROR},
	{BLKIF_WRITE, 0, 1, BLKIF_OKAY, BLKIF_ERROR, BLKIF_OKAY},
	{BLKIF_WRITE, 0, 0, BLKIF_ERROR, BLKIF_ERROR, BLKIF_ERROR},
	{BLKIF_WRITE, 0, OVERFULL, BLKIF_ERROR, BLKIF_ERROR, BLKIF_ERROR},
	{BLKIF_FLUSH_DISKCACHE, 0, 0, BLKIF_OKAY, BLKIF_OKAY, BLKIF_EOPNOTSUPP},
	{BLKIF_FLUSH_DISKCACHE, 0, 3, BLKIF_OKAY, BLKIF_ERROR, BLKIF_EOPNOTSUPP},
	{BLKIF_WRITE_BARRIER, 0, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
	{BLKIF_DISCARD, 0, 0, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
	{4, 0, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
	{7, 0, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
	{255, 0, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_READ, 1, BLKIF_OKAY, BLKIF_OKAY, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_READ, 32, BLKIF_OKAY, BLKIF_OKAY, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_WRITE, 32, BLKIF_OKAY, BLKIF_ERROR, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_READ, 0, BLKIF_ERROR, BLKIF_ERROR, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_READ, 33, BLKIF_ERROR, BLKIF_ERROR, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_WRITE, 65535, BLKIF_ERROR, BLKIF_ERROR, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_FLUSH_DISKCACHE, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP,
	 BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_DISCARD, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
	{BLKIF_INDIRECT, BLKIF_INDIRECT, 1, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP, BLKIF_EOPNOTSUPP},
};

static void operations_are_judged(void **state)
{
	struct blkif_limits readonly = limits, bare = limits;
	struct blkif_wire_segment segments[BLKIF_MAX_DIRECT_SEGMENTS];
	struct blkif_request req;

	readonly.readonly = true;
	bare.flush = false;
	bare.max_indirect_segments = 0;
	for (unsigned l = 0; l < LAYOUTS; l++) {
		for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
			const struct rule *r = &rules[i];
			bool is_indirect = r->op == BLKIF_INDIRECT;
			unsigned nr = r->nr == FULL || r->nr == OVERFULL
					      ? r->nr - FULL + layouts[l]->max_direct_segments
					      : r->nr;
			struct slot s = is_indirect ? indirect(layouts[l], r->inner, r->nr, 0)
						    : direct(layouts[l], r->op, (uint8_t)nr, 0);

			assert_int_equal((int)decode(&s, &limits, &req, segments), (int)r->plain);
			assert_int_equal((int)decode(&s, &readonly, &req, segments),
					 (int)r->readonly);
			assert_int_equal((int)decode(&s, &bare, &req, segments), (int)r->bare);
			/* Refused or not, the response finds its way. */
			assert_true(req.id == 0xfedcba9876543210);
			assert_int_equal(req.operation, is_indirect ? r->inner : r->op);
		}
	}
}

/* Those that a bdev or a toolstack may not want. */
static void barriers_and_discards_are_judged_if_offered(void **state)
{
	struct blkif_limits offered = limits, readonly = limits;
	struct blkif_wire_segment segments[BLKIF_MAX_DIRECT_SEGMENTS];
	struct blkif_request req;

	offered.barrier = true;
	offered.discard = true;
	readonly.readonly = true;
	readonly.barrier = true;
	for (unsigned l = 0; l < LAYOUTS; l++) {
		struct slot s = direct(layouts[l], BLKIF_WRITE_BARRIER, 2, 5);

		assert_int_equal(decode(&s, &offered, &req, segments), BLKIF_OKAY);
		assert_int_equal(req.operation, BLKIF_WRITE_BARRIER);
		assert_int_equal(req.kind, BLKIF_KIND_WRITE);
		assert_true(req.barrier && req.preflush && req.postflush);
		assert_int_equal(decode(&s, &readonly, &req, segments), BLKIF_ERROR);
		s = direct(layouts[l], BLKIF_WRITE_BARRIER, 0, 0);
		assert_int_equal(decode(&s, &offered, &req, segments), BLKIF_OKAY);
		assert_int_equal(req.kind, BLKIF_KIND_FLUSH);
		assert_true(req.barrier);
		assert_false(req.preflush || req.postflush);
		s = direct(layouts[l], BLKIF_WRITE_BARRIER,
			   (uint8_t)(layouts[l]->max_direct_segments + 1), 0);
		assert_int_equal(decode(&s, &offered, &req, segments), BLKIF_ERROR);
	}
}

static void ranges_of_discards_are_judged(void **state)
{
	static const struct {
		uint64_t sector, sectors;
		enum blkif_status status;
	} ranges[] = {
		{0, 1000, BLKIF_OKAY},
		{999, 1, BLKIF_OKAY},
		{5, 7, BLKIF_OKAY},
		{0, 0, BLKIF_ERROR},
		{0, 1001, BLKIF_ERROR},
		{1000, 1, BLKIF_ERROR},
		{999, 2, BLKIF_ERROR},
		{UINT64_MAX, 1, BLKIF_ERROR},
		{1, UINT64_MAX, BLKIF_ERROR},
		{UINT64_MAX, UINT64_MAX, BLKIF_ERROR},
		{500, UINT64_MAX - 400, BLKIF_ERROR},
	};
	struct blkif_limits lim = {.sectors = 1000, .discard = true};
	struct blkif_wire_segment segments[BLKIF_MAX_DIRECT_SEGMENTS];
	struct blkif_request req;

	for (unsigned l = 0; l < LAYOUTS; l++) {
		for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
			struct slot s = direct(layouts[l], BLKIF_DISCARD, 0, ranges[i].sector);

			memcpy(s.bytes + layouts[l]->discard_sectors, &ranges[i].sectors,
			       sizeof(uint64_t));
			lim.secure_discard = false;
			assert_int_equal((int)decode(&s, &lim, &req, segments),
					 (int)ranges[i].status);
			assert_int_equal(req.operation, BLKIF_DISCARD);
			assert_false(req.secure);
			if (ranges[i].status == BLKIF_OKAY)
				assert_int_equal(req.sectors, ranges[i].sectors);
			/* To erase is another promise. */
			s.bytes[BLKIF_REQ_DISCARD_FLAG] = BLKIF_DISCARD_SECURE;
			assert_int_equal(decode(&s, &lim, &req, segments), BLKIF_EOPNOTSUPP);
			lim.secure_discard = true;
			assert_int_equal((int)decode(&s, &lim, &req, segments),
					 (int)ranges[i].status);
			assert_true(req.secure);
		}
	}
}

static enum blkif_status judge_range(uint64_t sectors, uint64_t sector, unsigned nr, uint8_t first,
				     uint8_t last, uint32_t *bytes)
{
	struct blkif_limits lim = {.sectors = sectors, .max_indirect_segments = BLKIF_MAX_SEGMENTS};
	struct blkif_request req = {.nr_segments = (uint16_t)nr, .sector = sector};
	struct blkif_wire_segment segments[BLKIF_MAX_SEGMENTS];

	for (unsigned i = 0; i < nr; i++)
		segments[i] = (struct blkif_wire_segment){.first_sect = first, .last_sect = last};
	return blkif_decode_segments(&req, segments, &lim, bytes);
}

static void ranges_are_judged(void **state)
{
	static const uint64_t sizes[] = {
		1, 8, 1000, 1ULL << 32, 1ULL << 54, (1ULL << 55) - 1, UINT64_MAX - 8, UINT64_MAX};
	uint32_t bytes;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t n = sizes[i];

		assert_int_equal((int)judge_range(n, n - 1, 1, 3, 3, &bytes), BLKIF_OKAY);
		assert_int_equal(bytes, 512);
		assert_int_equal((int)judge_range(n, n, 1, 3, 3, &bytes), BLKIF_ERROR);
		assert_int_equal((int)judge_range(n, n - 1, 1, 3, 4, &bytes), BLKIF_ERROR);
		if (n < UINT64_MAX - 7) {
			assert_int_equal((int)judge_range(n, UINT64_MAX - 7, 1, 0, 7, &bytes),
					 BLKIF_ERROR);
			assert_int_equal((int)judge_range(n, UINT64_MAX, 1, 0, 0, &bytes),
					 BLKIF_ERROR);
		}
		if (n >= 2048) {
			assert_int_equal((int)judge_range(n, n - 2048, BLKIF_MAX_SEGMENTS, 0, 7,
							  &bytes),
					 BLKIF_OKAY);
			assert_int_equal(bytes, 1 << 20);
			assert_int_equal((int)judge_range(n, n - 2047, BLKIF_MAX_SEGMENTS, 0, 7,
							  &bytes),
					 BLKIF_ERROR);
		} else {
			assert_int_equal((int)judge_range(n, 0, BLKIF_MAX_SEGMENTS, 0, 7, &bytes),
					 BLKIF_ERROR);
		}
	}
}

static void segments_are_judged(void **state)
{
	uint32_t bytes;

	for (unsigned first = 0; first < 256; first++) {
		for (unsigned last = 0; last < 256; last++) {
			enum blkif_status status =
				judge_range(1000, 0, 2, (uint8_t)first, (uint8_t)last, &bytes);

			assert_int_equal((int)status,
					 first <= last && last < 8 ? BLKIF_OKAY : BLKIF_ERROR);
			if (status == BLKIF_OKAY)
				assert_int_equal(bytes, 2 * (last - first + 1) * 512);
		}
	}
}

/* The bad one may be any of them. */
static void each_segment_is_judged(void **state)
{
	struct blkif_limits lim = {.sectors = 10000};
	struct blkif_request req = {.nr_segments = BLKIF_MAX_SEGMENTS};
	struct blkif_wire_segment segments[BLKIF_MAX_SEGMENTS];
	uint32_t bytes;

	for (unsigned bad = 0; bad < BLKIF_MAX_SEGMENTS; bad++) {
		for (unsigned i = 0; i < BLKIF_MAX_SEGMENTS; i++)
			segments[i] = (struct blkif_wire_segment){.last_sect = 7};
		assert_int_equal((int)blkif_decode_segments(&req, segments, &lim, &bytes),
				 BLKIF_OKAY);
		segments[bad].last_sect = 8;
		assert_int_equal((int)blkif_decode_segments(&req, segments, &lim, &bytes),
				 BLKIF_ERROR);
		segments[bad].last_sect = 7;
		segments[bad].first_sect = 8;
		assert_int_equal((int)blkif_decode_segments(&req, segments, &lim, &bytes),
				 BLKIF_ERROR);
	}
}

/* A slot's judgement rests on the slot: what lies behind it in the ring is another request's. */
static void nothing_behind_the_slot_counts(void **state)
{
	static const uint8_t ops[] = {BLKIF_READ,    BLKIF_WRITE_BARRIER, BLKIF_FLUSH_DISKCACHE,
				      BLKIF_DISCARD, BLKIF_INDIRECT,      9};
	struct blkif_limits lim = limits;

	lim.barrier = true;
	lim.discard = true;
	for (unsigned l = 0; l < LAYOUTS; l++) {
		for (unsigned i = 0; i < 13 * sizeof(ops); i++) {
			uint8_t op = ops[i % sizeof(ops)], nr = (uint8_t)(i / sizeof(ops));
			struct blkif_wire_segment segments[2][BLKIF_MAX_DIRECT_SEGMENTS];
			struct slot s = direct(layouts[l], op, nr, 8);
			struct blkif_request req[2];
			enum blkif_status status[2];

			memset(segments, 0, sizeof(segments));
			for (int n = 0; n < 2; n++) {
				memset(s.bytes + layouts[l]->request_bytes, 0x11 * n,
				       sizeof(s.bytes) - layouts[l]->request_bytes);
				status[n] = decode(&s, &lim, &req[n], segments[n]);
			}
			assert_int_equal((int)status[0], (int)status[1]);
			assert_memory_equal(&req[0], &req[1], sizeof(req[0]));
			assert_memory_equal(segments[0], segments[1], sizeof(segments[0]));
		}
	}
}

/* Whatever passes keeps to the limits, whatever the bytes were. */
static void noise_is_harmless(void **state)
{
	static const uint8_t ops[] = {0, 1, 2, 3, 5, 6, 6, 6};
	unsigned short random[3] = {1, 2, 3};
	unsigned passed = 0;

	for (unsigned round = 0; round < 400000; round++) {
		struct blkif_wire_segment segments[BLKIF_MAX_SEGMENTS];
		struct slot s = {.l = layouts[round % LAYOUTS]};
		enum blkif_status status;
		struct blkif_request req;
		uint64_t sectors = 0;
		uint32_t bytes = 0;

		for (unsigned i = 0; i < sizeof(s.bytes); i += 4) {
			uint32_t r = (uint32_t)jrand48(random);

			memcpy(s.bytes + i, &r, 4);
		}
		for (unsigned i = 0; i < BLKIF_MAX_SEGMENTS; i++) {
			uint32_t r = (uint32_t)jrand48(random);

			segments[i].first_sect = r & 7;
			segments[i].last_sect = (uint8_t)(r >> 8 & 7) | (segments[i].first_sect);
		}
		/* Near enough to sense that some of it passes. */
		s.bytes[0] = ops[(uint32_t)jrand48(random) % 8];
		s.bytes[1] %= 16;
		if (s.bytes[0] == BLKIF_INDIRECT)
			s.bytes[3] = 0;
		if (round % 4)
			memset(s.bytes + s.l->sector + 1, 0, 7);
		status = blkif_decode_request(s.l, s.bytes, &limits, &req, segments);
		assert_in_range(-status, 0, 2);
		if (status != BLKIF_OKAY || !req.nr_segments)
			continue;
		assert_in_range(req.nr_segments, 1,
				req.indirect ? limits.max_indirect_segments
					     : s.l->max_direct_segments);
		if (blkif_decode_segments(&req, segments, &limits, &bytes) != BLKIF_OKAY)
			continue;
		for (unsigned i = 0; i < req.nr_segments; i++) {
			assert_in_range(segments[i].last_sect, segments[i].first_sect, 7);
			sectors += segments[i].last_sect - segments[i].first_sect + 1u;
		}
		assert_int_equal(bytes, sectors * 512);
		assert_true(req.sector < limits.sectors && sectors <= limits.sectors &&
			    req.sector + sectors <= limits.sectors);
		passed++;
	}
	assert_true(passed > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_found),
		cmocka_unit_test(operations_are_judged),
		cmocka_unit_test(barriers_and_discards_are_judged_if_offered),
		cmocka_unit_test(ranges_of_discards_are_judged),
		cmocka_unit_test(ranges_are_judged),
		cmocka_unit_test(segments_are_judged),
		cmocka_unit_test(each_segment_is_judged),
		cmocka_unit_test(nothing_behind_the_slot_counts),
		cmocka_unit_test(noise_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
