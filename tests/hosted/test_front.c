/* SPDX-License-Identifier: BSD-2-Clause */
/* The frontend that tests lean on: it has to notice each way in which a backend could be wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "front/front.h"

/* Pages that are shared with nobody, and a doorbell that counts. */
struct fake {
	unsigned pages;
	unsigned notified;
	uint32_t next_ref;
};

static void *pages_alloc(void *ctx, unsigned nr, bool readonly, uint32_t *refs)
{
	struct fake *f = ctx;

	for (unsigned i = 0; i < nr; i++)
		refs[i] = f->next_ref++;
	f->pages += nr;
	return calloc(nr, BLKIF_PAGE_SIZE);
}

static void pages_free(void *ctx, void *pages, unsigned nr, const uint32_t *refs)
{
	struct fake *f = ctx;

	f->pages -= nr;
	free(pages);
}

static void notify(void *ctx)
{
	struct fake *f = ctx;

	f->notified++;
}

static bool wait(void *ctx, unsigned timeout_ms)
{
	return false;
}

static const struct front_ops ops = {
	.pages_alloc = pages_alloc,
	.pages_free = pages_free,
	.notify = notify,
	.wait = wait,
};

static const struct blkif_layout *const layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64,
						     &blkif_layout_line};
enum { LAYOUTS = sizeof(layouts) / sizeof(layouts[0]) };

static atomic_uint_least32_t *counter(struct front *f, uint16_t offset)
{
	return blkif_counter_at(front_sring(f), offset);
}

static struct front *create(struct fake *fake, const struct blkif_layout *layout, uint32_t first)
{
	struct front_opts opts = {
		.layout = layout,
		.ring_pages = 1,
		.max_segments = 600,
		.first_index = first,
		.ops = &ops,
		.ctx = fake,
	};
	struct front *f;

	memset(fake, 0, sizeof(*fake));
	assert_int_equal(front_create(&opts, &f), 0);
	return f;
}

/* The backend's part, by hand: writes the next response and publishes it. */
static void respond(struct front *f, const struct blkif_layout *layout, const uint8_t *response)
{
	uint32_t at = atomic_load(counter(f, layout->rsp_prod));

	memcpy(front_slot(f, at), response, layout->response_bytes);
	atomic_store(counter(f, layout->rsp_prod), at + 1);
}

/* The right answer to the request at @index, as it stands in the ring. */
static void answer(struct front *f, const struct blkif_layout *layout, uint32_t index,
		   uint8_t response[16])
{
	const uint8_t *slot = front_slot(f, index);

	memset(response, 0, 16);
	memcpy(response, slot + layout->id, 8);
	response[8] = slot[0] == BLKIF_INDIRECT ? slot[1] : slot[0];
}

static void good_answers_are_taken(void **state)
{
	struct fake fake;

	for (unsigned l = 0; l < LAYOUTS; l++) {
		struct front *f = create(&fake, layouts[l], 0xfffffff0);

		for (unsigned round = 0; round < 100; round++) {
			struct front_req req = {.op = BLKIF_FLUSH_DISKCACHE, .status = 77};
			uint32_t index = front_next_index(f);
			uint8_t response[16];
			int16_t status = (int16_t) - (int)(round % 3);

			assert_int_equal(front_submit(f, &req), 0);
			assert_int_equal(front_outstanding(f), 1);
			/* Nobody sees it before the push. */
			assert_int_equal(atomic_load(counter(f, layouts[l]->req_prod)), index);
			front_push(f);
			assert_int_equal(atomic_load(counter(f, layouts[l]->req_prod)), index + 1);
			assert_int_equal(front_poll(f), 0);
			answer(f, layouts[l], index, response);
			memcpy(response + 10, &status, 2);
			respond(f, layouts[l], response);
			assert_int_equal(front_poll(f), 1);
			assert_int_equal(req.status, status);
			assert_int_equal(front_outstanding(f), 0);
		}
		assert_null(front_fault(f));
		front_destroy(f);
		assert_int_equal(fake.pages, 0);
	}
}

struct wrong {
	const char *name;
	unsigned byte;
	uint8_t flip;
	bool long_only; /* a byte that only the longer response has */
};

static const struct wrong wrongs[] = {
	{"another id", 0, 1, false},    {"an id of another time", 5, 1, false},
	{"the operation", 8, 1, false}, {"padding", 9, 0x40, false},
	{"status 1", 10, 1, false},     {"status -256", 11, 0xff, false},
	{"padding 12", 12, 0x80, true}, {"padding 15", 15, 1, true},
};

static void wrong_answers_are_noticed(void **state)
{
	struct fake fake;

	for (unsigned l = 0; l < LAYOUTS; l++) {
		for (unsigned i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
			struct front *f = create(&fake, layouts[l], 5);
			struct front_req req = {.op = BLKIF_FLUSH_DISKCACHE};
			uint8_t response[16];

			if (wrongs[i].long_only && layouts[l]->response_bytes == 12) {
				front_destroy(f);
				continue;
			}
			assert_int_equal(front_submit(f, &req), 0);
			front_push(f);
			answer(f, layouts[l], 5, response);
			response[wrongs[i].byte] ^= wrongs[i].flip;
			respond(f, layouts[l], response);
			if (front_poll(f) != -EPROTO)
				fail_msg("not noticed: %s", wrongs[i].name);
			assert_non_null(front_fault(f));
			/* From then on nothing is believed. */
			assert_int_equal(front_poll(f), -EPROTO);
			front_destroy(f);
		}
	}
}

static void answers_come_once(void **state)
{
	struct front_req req[2] = {{.op = BLKIF_FLUSH_DISKCACHE}, {.op = BLKIF_FLUSH_DISKCACHE}};
	const struct blkif_layout *layout = &blkif_layout_x86_64;
	struct fake fake;
	struct front *f = create(&fake, layout, 0);
	uint8_t response[16];

	for (int i = 0; i < 2; i++)
		assert_int_equal(front_submit(f, &req[i]), 0);
	front_push(f);
	answer(f, layout, 0, response);
	respond(f, layout, response);
	respond(f, layout, response);
	assert_int_equal(front_poll(f), -EPROTO);
	front_destroy(f);

	/* More answers than requests. */
	f = create(&fake, layout, 0);
	assert_int_equal(front_submit(f, &req[0]), 0);
	front_push(f);
	atomic_store(&front_sring(f)->rsp_prod, 2);
	assert_int_equal(front_poll(f), -EPROTO);
	front_destroy(f);

	/* One that was not pushed yet cannot be answered. */
	f = create(&fake, layout, 0);
	assert_int_equal(front_submit(f, &req[0]), 0);
	answer(f, layout, 0, response);
	respond(f, layout, response);
	assert_int_equal(front_poll(f), -EPROTO);
	front_destroy(f);
}

static void rings_fill_up(void **state)
{
	const struct blkif_layout *layout = &blkif_layout_x86_32;
	struct front_req req[33];
	struct fake fake;
	struct front *f = create(&fake, layout, 0xffffffff);
	uint8_t responses[32][16];

	assert_int_equal(front_depth(f), 32);
	for (int i = 0; i < 33; i++) {
		req[i] = (struct front_req){.op = BLKIF_FLUSH_DISKCACHE};
		assert_int_equal(front_submit(f, &req[i]), i < 32 ? 0 : -EAGAIN);
	}
	front_push(f);
	assert_int_equal(fake.notified, 1);
	/* In any order; answers take the places of requests, so they are all made first. */
	for (uint32_t n = 0; n < 32; n++)
		answer(f, layout, 0xffffffff + n, responses[n]);
	for (uint32_t n = 0; n < 32; n++)
		respond(f, layout, responses[n * 7 % 32]);
	assert_int_equal(front_poll(f), 32);
	assert_int_equal(front_submit(f, &req[32]), 0);
	front_destroy(f);
}

/* The doorbell rings when the backend has asked for it, and not else. */
static void notifies_as_asked(void **state)
{
	struct front_req req[4] = {{.op = BLKIF_FLUSH_DISKCACHE},
				   {.op = BLKIF_FLUSH_DISKCACHE},
				   {.op = BLKIF_FLUSH_DISKCACHE},
				   {.op = BLKIF_FLUSH_DISKCACHE}};
	struct fake fake;
	struct front *f = create(&fake, &blkif_layout_x86_64, 0xfffffffe);

	front_push(f);
	assert_int_equal(fake.notified, 0);
	assert_int_equal(front_submit(f, &req[0]), 0);
	front_push(f);
	assert_int_equal(fake.notified, 1);
	/* The backend is at work, and left its event where it was. */
	assert_int_equal(front_submit(f, &req[1]), 0);
	front_push(f);
	assert_int_equal(fake.notified, 1);
	/* It wants to know of the next but one. */
	atomic_store(&front_sring(f)->req_event, 2);
	assert_int_equal(front_submit(f, &req[2]), 0);
	front_push(f);
	assert_int_equal(fake.notified, 1);
	assert_int_equal(front_submit(f, &req[3]), 0);
	front_push(f);
	assert_int_equal(fake.notified, 2);

	assert_false(front_arm(f));
	assert_int_equal(atomic_load(&front_sring(f)->rsp_event), 0xffffffff);
	atomic_store(&front_sring(f)->rsp_prod, 0xffffffff);
	assert_true(front_arm(f));
	front_destroy(f);
}

/* The largest request of a slot, and the first that no slot holds. */
static void more_than_a_slot_holds_goes_indirect(void **state)
{
	static struct blkif_wire_segment segments[12];
	struct fake fake;

	for (unsigned l = 0; l < LAYOUTS; l++) {
		const struct blkif_layout *layout = layouts[l];
		struct front *f = create(&fake, layout, 0);
		struct front_req req[3] = {{0}};
		uint8_t *slot = front_slot(f, 0);

		for (unsigned n = 0; n < 12; n++)
			segments[n].gref = n + 1;
		for (unsigned n = 0; n < 3; n++) {
			req[n].op = BLKIF_WRITE;
			req[n].segments = segments;
			req[n].nr_segments = layout->max_direct_segments + (n == 1);
		}
		assert_int_equal(front_submit(f, &req[0]), 0);
		assert_int_equal(slot[0], BLKIF_WRITE);
		assert_int_equal(slot[1], layout->max_direct_segments);
		assert_memory_equal(slot + layout->segments, segments,
				    layout->max_direct_segments * sizeof(segments[0]));
		assert_int_equal(front_submit(f, &req[1]), 0);
		assert_int_equal(slot[layout->request_bytes], BLKIF_INDIRECT);
		/* And neither beside its slot. */
		assert_int_equal(front_submit(f, &req[2]), 0);
		assert_int_equal(slot[layout->request_bytes], BLKIF_INDIRECT);
		assert_int_equal(slot[2u * layout->request_bytes], BLKIF_WRITE);
		front_destroy(f);
	}
}

/* Indirect requests with more than a page of segments. */
static void segments_fill_indirect_pages(void **state)
{
	static struct blkif_wire_segment segments[600];
	struct front_req req = {.op = BLKIF_WRITE, .segments = segments, .nr_segments = 600};
	const struct blkif_layout *layout = &blkif_layout_x86_64;
	struct fake fake;
	struct front *f = create(&fake, layout, 0);
	const uint8_t *slot = front_slot(f, 0);
	uint32_t grefs[2];

	assert_int_equal(front_submit(f, &req), 0);
	assert_int_equal(slot[0], BLKIF_INDIRECT);
	assert_int_equal(slot[1], BLKIF_WRITE);
	assert_int_equal(slot[2] | slot[3] << 8, 600);
	memcpy(grefs, slot + layout->indirect_grefs, sizeof(grefs));
	assert_int_equal(grefs[1], grefs[0] + 1);
	assert_int_equal(req.answer, BLKIF_WRITE);
	req.nr_segments = 601;
	assert_int_equal(front_submit(f, &req), -EINVAL);
	front_destroy(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_answers_are_taken),
		cmocka_unit_test(wrong_answers_are_noticed),
		cmocka_unit_test(answers_come_once),
		cmocka_unit_test(rings_fill_up),
		cmocka_unit_test(notifies_as_asked),
		cmocka_unit_test(more_than_a_slot_holds_goes_indirect),
		cmocka_unit_test(segments_fill_indirect_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
