/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The backend's end of a ring, with Xen's own ring macros as the judge: of when to notify, when to
 * look again, and when a producer has gone too far; most of all where counters wrap.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "blkif/ring.h"

/* What Xen's header wants of its includer. */
#define mb()  atomic_thread_fence(memory_order_seq_cst)
#define rmb() atomic_thread_fence(memory_order_acquire)
#define wmb() atomic_thread_fence(memory_order_release)
#include <xen/io/ring.h>

struct slot_x86_64 {
	uint8_t bytes[112];
};
struct response_x86_64 {
	uint8_t bytes[16];
};
DEFINE_RING_TYPES(judge, struct slot_x86_64, struct response_x86_64);

enum { SLOTS = 32 };

/* Our ring's page, and the judge's, to which our counters are copied before it is asked. */
static _Alignas(64) uint8_t page[BLKIF_PAGE_SIZE];
static union {
	uint8_t bytes[BLKIF_PAGE_SIZE];
	struct judge_sring ring;
} judges;

static const uint32_t starts[] = {
	0, 1, 31, 32, 0x7ffffff0, 0x80000000, 0xfffffff0, 0xffffffe0, 0xffffffff,
};
enum { STARTS = sizeof(starts) / sizeof(starts[0]) };

static uint32_t get(uint16_t counter)
{
	return atomic_load(blkif_counter_at(page, counter));
}

static void set(uint16_t counter, uint32_t value)
{
	atomic_store(blkif_counter_at(page, counter), value);
}

/* A ring that begins at @start with nothing in it. */
static struct blkif_ring attach(const struct blkif_layout *layout, uint32_t start)
{
	struct blkif_ring ring;

	memset(page, 0, sizeof(page));
	set(layout->req_prod, start);
	set(layout->rsp_prod, start);
	set(layout->req_event, start + 1);
	set(layout->rsp_event, start + 1);
	assert_int_equal(blkif_ring_attach(&ring, layout, page, 1), 0);
	return ring;
}

static void produce(const struct blkif_layout *l, uint32_t n)
{
	set(l->req_prod, get(l->req_prod) + n);
}

/* The judge at @start, with our counters. */
static struct judge_back_ring call_judge(const struct blkif_layout *l, uint32_t start)
{
	struct judge_back_ring judge;

	judges.ring.req_prod = get(l->req_prod);
	judges.ring.req_event = get(l->req_event);
	judges.ring.rsp_prod = get(l->rsp_prod);
	judges.ring.rsp_event = get(l->rsp_event);
	BACK_RING_ATTACH(&judge, &judges.ring, start, sizeof(judges));
	return judge;
}

static void attaches_where_responses_stand(void **state)
{
	const struct blkif_layout *l = *state;
	struct blkif_ring ring;
	uint8_t slot[BLKIF_MAX_REQUEST_BYTES];

	for (unsigned i = 0; i < STARTS; i++) {
		memset(&page, 0, sizeof(page));
		set(l->rsp_prod, starts[i]);
		/* 5 requests that a predecessor has not taken. */
		set(l->req_prod, starts[i] + 5);
		assert_int_equal(blkif_ring_attach(&ring, l, page, 1), 0);
		assert_int_equal(ring.slots, SLOTS);
		assert_int_equal(blkif_ring_pending(&ring), 5);
		blkif_ring_take(&ring, slot);
		assert_int_equal(blkif_ring_pending(&ring), 4);
		/* Full, and one more. */
		set(l->req_prod, starts[i] + SLOTS);
		assert_int_equal(blkif_ring_attach(&ring, l, page, 1), 0);
		assert_int_equal(blkif_ring_pending(&ring), SLOTS);
		set(l->req_prod, starts[i] + SLOTS + 1);
		assert_int_equal(blkif_ring_attach(&ring, l, page, 1), -EPROTO);
		set(l->req_prod, starts[i] - 1);
		assert_int_equal(blkif_ring_attach(&ring, l, page, 1), -EPROTO);
	}
}

static void slots_come_in_order_and_whole(void **state)
{
	const struct blkif_layout *l = *state;
	size_t bytes = l->request_bytes;

	for (unsigned i = 0; i < STARTS; i++) {
		struct blkif_ring ring = attach(l, starts[i]);

		for (uint32_t n = 0; n < 3 * SLOTS; n++) {
			uint32_t index = (starts[i] + n) % SLOTS;
			uint8_t sent[BLKIF_MAX_REQUEST_BYTES];
			uint8_t got[BLKIF_MAX_REQUEST_BYTES + 1];

			for (unsigned b = 0; b < bytes; b++)
				sent[b] = (uint8_t)(n * 31 + b);
			memcpy(page + l->header_bytes + index * bytes, sent, bytes);
			produce(l, 1);
			memset(got, 0x77, sizeof(got));
			blkif_ring_take(&ring, got);
			assert_memory_equal(got, sent, bytes);
			assert_int_equal(got[bytes], 0x77);
			blkif_ring_respond(&ring, n, 0, 0);
			blkif_ring_push(&ring);
		}
		assert_int_equal(blkif_ring_pending(&ring), 0);
	}
}

/* Every byte of a response is written, and none beside it. */
static void responses_are_whole(void **state)
{
	const struct blkif_layout *l = *state;
	size_t slot = l->request_bytes;
	size_t len = l->response_bytes;

	for (unsigned i = 0; i < STARTS; i++) {
		struct blkif_ring ring = attach(l, starts[i]);
		size_t at = l->header_bytes + (starts[i] % SLOTS) * slot;
		uint64_t id = 0x1122334455667788;
		int16_t status = BLKIF_EOPNOTSUPP;

		memset(page + l->header_bytes, 0xee, sizeof(page) - l->header_bytes);
		produce(l, 1);
		blkif_ring_take(&ring, (uint8_t[BLKIF_MAX_REQUEST_BYTES]){0});
		blkif_ring_respond(&ring, id, 200, status);
		/* Nobody sees it before the push. */
		assert_int_equal(get(l->rsp_prod), starts[i]);
		blkif_ring_push(&ring);
		assert_int_equal(get(l->rsp_prod), starts[i] + 1);
		assert_memory_equal(page + at, &id, 8);
		assert_int_equal(page[at + 8], 200);
		assert_memory_equal(page + at + 10, &status, 2);
		assert_int_equal(page[at + 9], 0);
		for (size_t b = 12; b < len; b++)
			assert_int_equal(page[at + b], 0);
		for (size_t b = l->header_bytes; b < sizeof(page); b++)
			if (b < at || b >= at + len)
				assert_int_equal(page[b], 0xee);
	}
}

/* Producers: Xen's RING_REQUEST_PROD_OVERFLOW is the judge of the distance. */
static void impossible_producers_are_seen(void **state)
{
	const struct blkif_layout *l = *state;
	for (unsigned i = 0; i < STARTS; i++) {
		for (uint32_t taken = 0; taken <= SLOTS; taken += 8) {
			for (int64_t d = -70; d <= 70; d++) {
				struct blkif_ring ring = attach(l, starts[i]);
				struct judge_back_ring judge;
				uint32_t req_prod = starts[i] + (uint32_t)d;
				bool overflow, back;

				produce(l, taken);
				for (uint32_t n = 0; n < taken; n++)
					blkif_ring_take(&ring,
							(uint8_t[BLKIF_MAX_REQUEST_BYTES]){0});
				judge = call_judge(l, starts[i]);
				judge.req_cons = starts[i] + taken;
				set(l->req_prod, req_prod);
				overflow = RING_REQUEST_PROD_OVERFLOW(&judge, req_prod);
				/* A producer that takes back what was taken is as false. */
				back = !overflow && (uint32_t)d < taken;
				if (overflow || back) {
					assert_int_equal(blkif_ring_pending(&ring), -EPROTO);
					assert_true(blkif_ring_arm(&ring));
				} else {
					assert_int_equal(blkif_ring_pending(&ring),
							 (uint32_t)d - taken);
				}
			}
		}
	}
}

/* Notification: RING_PUSH_RESPONSES_AND_CHECK_NOTIFY is the judge. */
static void notifies_when_xen_would(void **state)
{
	const struct blkif_layout *l = *state;
	unsigned yes = 0, no = 0;

	for (unsigned i = 0; i < STARTS; i++) {
		for (uint32_t n = 0; n <= SLOTS; n++) {
			for (int event = -40; event <= 40; event++) {
				struct blkif_ring ring = attach(l, starts[i]);
				struct judge_back_ring judge;
				bool notify;
				int expected;

				produce(l, n);
				for (uint32_t k = 0; k < n; k++) {
					blkif_ring_take(&ring,
							(uint8_t[BLKIF_MAX_REQUEST_BYTES]){0});
					blkif_ring_respond(&ring, k, 0, 0);
				}
				set(l->rsp_event, starts[i] + (uint32_t)event);
				judge = call_judge(l, starts[i]);
				judge.rsp_prod_pvt = starts[i] + n;
				RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&judge, expected);
				set(l->rsp_prod, starts[i]);
				notify = blkif_ring_push(&ring);
				assert_int_equal(notify, expected);
				assert_int_equal(get(l->rsp_prod), starts[i] + n);
				*(notify ? &yes : &no) += 1;
			}
		}
	}
	assert_true(yes && no);
}

/* A second push with nothing new never notifies; one with something new counts from the last. */
static void pushes_count_from_the_last(void **state)
{
	const struct blkif_layout *l = *state;
	struct blkif_ring ring = attach(l, 0xfffffffe);
	uint8_t slot[BLKIF_MAX_REQUEST_BYTES];

	produce(l, 4);
	for (int n = 0; n < 4; n++)
		blkif_ring_take(&ring, slot);
	assert_false(blkif_ring_push(&ring));
	blkif_ring_respond(&ring, 1, 0, 0);
	assert_true(blkif_ring_push(&ring)); /* rsp_event was the first */
	assert_false(blkif_ring_push(&ring));
	set(l->rsp_event, 0xffffffff + 2); /* the third */
	blkif_ring_respond(&ring, 2, 0, 0);
	assert_false(blkif_ring_push(&ring));
	blkif_ring_respond(&ring, 3, 0, 0);
	assert_true(blkif_ring_push(&ring));
	blkif_ring_respond(&ring, 4, 0, 0);
	assert_false(blkif_ring_push(&ring));
	assert_int_equal(get(l->rsp_prod), 2);
}

/* Arming: RING_FINAL_CHECK_FOR_REQUESTS is the judge. */
static void arms_as_xen_would(void **state)
{
	const struct blkif_layout *l = *state;
	for (unsigned i = 0; i < STARTS; i++) {
		for (uint32_t taken = 0; taken <= 8; taken++) {
			for (uint32_t more = 0; more <= 8; more++) {
				struct blkif_ring ring = attach(l, starts[i]);
				struct judge_back_ring judge;
				uint32_t judges_event;
				int expected;
				bool armed;

				produce(l, taken + more);
				for (uint32_t n = 0; n < taken; n++)
					blkif_ring_take(&ring,
							(uint8_t[BLKIF_MAX_REQUEST_BYTES]){0});
				judge = call_judge(l, starts[i]);
				judge.req_cons = starts[i] + taken;
				RING_FINAL_CHECK_FOR_REQUESTS(&judge, expected);
				/* Xen's sets the event only if there is nothing. */
				judges_event = judges.ring.req_event;
				set(l->req_event, 0x12345678);
				armed = blkif_ring_arm(&ring);
				assert_int_equal(armed, expected != 0);
				if (!armed)
					assert_int_equal(get(l->req_event), judges_event);
			}
		}
	}
}

/* All 16 pages. */
static void large_rings(void **state)
{
	const struct blkif_layout *l = *state;
	static uint8_t pages[BLKIF_MAX_RING_PAGES * BLKIF_PAGE_SIZE];
	uint8_t slot[BLKIF_MAX_REQUEST_BYTES];
	struct blkif_ring ring;

	size_t bytes = l->request_bytes;

	memset(pages, 0, sizeof(pages));
	atomic_store(blkif_counter_at(pages, l->rsp_prod), 0xffffff80);
	atomic_store(blkif_counter_at(pages, l->req_prod), 0xffffff80 + 512);
	assert_int_equal(blkif_ring_attach(&ring, l, pages, 16), 0);
	assert_int_equal(blkif_ring_pending(&ring), 512);
	for (uint32_t n = 0; n < 512; n++)
		pages[l->header_bytes + ((0xffffff80 + n) % 512) * bytes] = (uint8_t)(n / 2);
	for (uint32_t n = 0; n < 512; n++) {
		blkif_ring_take(&ring, slot);
		assert_int_equal(slot[0], (uint8_t)(n / 2));
	}
	assert_int_equal(blkif_ring_pending(&ring), 0);
	atomic_store(blkif_counter_at(pages, l->req_prod), 0xffffff80 + 513);
	assert_int_equal(blkif_ring_pending(&ring), -EPROTO);
}

/*
 * Some of those taken are answered, in another order, and the others given back: whoever attaches
 * next finds those, and then what was never taken.
 */
static void given_back_requests_are_found_again(void **state)
{
	const struct blkif_layout *l = *state;
	enum { TAKEN = 12, ANSWERED = 5, NEVER = 20 };

	for (unsigned s = 0; s < STARTS; s++) {
		struct blkif_ring ring = attach(l, starts[s]);
		uint8_t slots[TAKEN][BLKIF_MAX_REQUEST_BYTES], slot[BLKIF_MAX_REQUEST_BYTES];
		unsigned bytes = l->request_bytes;
		const void *back[TAKEN - ANSWERED];

		for (uint32_t i = 0; i < TAKEN + NEVER; i++)
			memset(page + l->header_bytes + (size_t)((starts[s] + i) % SLOTS) * bytes,
			       (int)i + 1, bytes);
		set(l->req_prod, starts[s] + TAKEN + NEVER);
		for (unsigned i = 0; i < TAKEN; i++)
			blkif_ring_take(&ring, slots[i]);
		/* The last ones were answered first: over the slots of the first ones. */
		for (unsigned i = 0; i < ANSWERED; i++)
			blkif_ring_respond(&ring, i, BLKIF_READ, BLKIF_OKAY);
		blkif_ring_push(&ring);
		for (unsigned i = 0; i < TAKEN - ANSWERED; i++)
			back[i] = slots[i];
		blkif_ring_give_back(&ring, back, TAKEN - ANSWERED);

		assert_int_equal(blkif_ring_attach(&ring, l, page, 1), 0);
		assert_int_equal(blkif_ring_pending(&ring), TAKEN - ANSWERED + NEVER);
		for (unsigned i = 0; i < TAKEN - ANSWERED; i++) {
			blkif_ring_take(&ring, slot);
			assert_memory_equal(slot, slots[i], bytes);
		}
		for (unsigned i = 0; i < NEVER; i++) {
			blkif_ring_take(&ring, slot);
			assert_int_equal(slot[0], TAKEN + i + 1);
		}
	}
}

#define IN(layout, test)                                                   \
	{                                                                  \
		.name = #test " in " #layout, .test_func = test,           \
		.initial_state = (void *)(uintptr_t)&blkif_layout_##layout \
	}
#define IN_EACH_LAYOUT(test) IN(x86_32, test), IN(x86_64, test), IN(line, test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_EACH_LAYOUT(attaches_where_responses_stand),
		IN_EACH_LAYOUT(slots_come_in_order_and_whole),
		IN_EACH_LAYOUT(responses_are_whole),
		IN_EACH_LAYOUT(impossible_producers_are_seen),
		IN_EACH_LAYOUT(notifies_when_xen_would),
		IN_EACH_LAYOUT(pushes_count_from_the_last),
		IN_EACH_LAYOUT(arms_as_xen_would),
		IN_EACH_LAYOUT(large_rings),
		IN_EACH_LAYOUT(given_back_requests_are_found_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
