/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Holds src/blkif/wire.c's tables against the facts that the compiler reads in Xen's headers, and
 * the layout of our own against what it promises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <xen/io/protocols.h>

#include "blkif/wire.h"
#include "test_blkif_wire_facts.h"

static void check_layout(const struct blkif_layout *layout, const struct wire_facts *xen)
{
	assert_int_equal(layout->request_bytes, xen->slot_bytes);
	/* The request is the larger half of a slot, so one number serves as both. */
	assert_int_equal(xen->slot_bytes, xen->request_bytes);
	assert_int_equal(layout->response_bytes, xen->response_bytes);
	assert_int_equal(layout->id, xen->id);
	assert_int_equal(layout->id, xen->indirect_id);
	assert_int_equal(layout->id, xen->discard_id);
	assert_int_equal(layout->sector, xen->sector);
	assert_int_equal(layout->sector, xen->indirect_sector);
	assert_int_equal(layout->sector, xen->discard_sector);
	assert_int_equal(layout->segments, xen->segments);
	assert_int_equal(layout->indirect_handle, xen->indirect_handle);
	assert_int_equal(layout->indirect_grefs, xen->indirect_grefs);
	assert_int_equal(layout->discard_sectors, xen->discard_sectors);
	assert_in_range(layout->request_bytes, 1, BLKIF_MAX_REQUEST_BYTES);
	/* What the compiler has found equal to Xen's, see test_blkif_wire_facts.h. */
	assert_int_equal(layout->header_bytes, BLKIF_RING_HEADER_BYTES);
	assert_int_equal(layout->req_prod, offsetof(struct blkif_sring, req_prod));
	assert_int_equal(layout->req_event, offsetof(struct blkif_sring, req_event));
	assert_int_equal(layout->rsp_prod, offsetof(struct blkif_sring, rsp_prod));
	assert_int_equal(layout->rsp_event, offsetof(struct blkif_sring, rsp_event));
	assert_int_equal(layout->max_direct_segments, BLKIF_MAX_DIRECT_SEGMENTS);
}

static void layouts_are_xens(void **state)
{
	check_layout(&blkif_layout_x86_32, &wire_facts_x86_32);
	check_layout(&blkif_layout_x86_64, &wire_facts_x86_64);
}

static void check_slots(const struct blkif_layout *layout, const struct wire_facts *xen)
{
	assert_int_equal(blkif_layout_slots(layout, 1), xen->slots_1_page);
	assert_int_equal(blkif_layout_slots(layout, 2), xen->slots_2_pages);
	assert_int_equal(blkif_layout_slots(layout, 3), xen->slots_3_pages);
	assert_int_equal(blkif_layout_slots(layout, BLKIF_MAX_RING_PAGES), xen->slots_16_pages);
}

static void slot_counts_are_xens(void **state)
{
	check_slots(&blkif_layout_x86_32, &wire_facts_x86_32);
	check_slots(&blkif_layout_x86_64, &wire_facts_x86_64);
	/* And a number from the specification, should both sides be wrong together. */
	assert_int_equal(blkif_layout_slots(&blkif_layout_x86_32, 1), 32);
	assert_int_equal(blkif_layout_slots(&blkif_layout_x86_64, 1), 32);
	assert_int_equal(blkif_layout_slots(&blkif_layout_x86_64, BLKIF_MAX_RING_PAGES), 512);
}

/* Slots never reach beyond the ring's pages, whatever their number. */
static void slots_stay_inside_pages(void **state)
{
	const struct blkif_layout *layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64,
						&blkif_layout_line};

	for (unsigned l = 0; l < 3; l++) {
		for (unsigned pages = 1; pages <= BLKIF_MAX_RING_PAGES; pages++) {
			uint32_t slots = blkif_layout_slots(layouts[l], pages);

			assert_int_equal(slots & (slots - 1), 0);
			assert_in_range(layouts[l]->header_bytes +
						slots * layouts[l]->request_bytes,
					1, pages * BLKIF_PAGE_SIZE);
		}
	}
}

/* The numbers of doc/sivshm-blkif.md: others write frontends by them. */
static void line_keeps_its_promises(void **state)
{
	const struct blkif_layout *l = &blkif_layout_line, *xens = &blkif_layout_x86_64;
	enum { LINE = 64, PAIR = 128 };

	/* A slot is a line, and its five segments end with it. */
	assert_int_equal(l->request_bytes, LINE);
	assert_int_equal(l->header_bytes, 256);
	assert_int_equal(l->max_direct_segments, 5);
	assert_int_equal(l->segments + 5 * sizeof(struct blkif_wire_segment), LINE);
	assert_in_range(l->indirect_grefs + BLKIF_MAX_INDIRECT_PAGES * sizeof(uint32_t), 1, LINE);
	assert_in_range(l->discard_sectors + sizeof(uint64_t), 1, LINE);
	/* Else it is x86_64's. */
	assert_int_equal(l->response_bytes, xens->response_bytes);
	assert_int_equal(l->id, xens->id);
	assert_int_equal(l->sector, xens->sector);
	assert_int_equal(l->segments, xens->segments);
	assert_int_equal(l->indirect_handle, xens->indirect_handle);
	assert_int_equal(l->indirect_grefs, xens->indirect_grefs);
	assert_int_equal(l->discard_sectors, xens->discard_sectors);
	/* What the frontend writes of the head, and what the backend writes. */
	assert_int_equal(l->req_prod, 0);
	assert_int_equal(l->rsp_event, 4);
	assert_int_equal(l->rsp_prod, PAIR);
	assert_int_equal(l->req_event, PAIR + 4);
	assert_int_equal(blkif_layout_slots(l, 1), 32);
	assert_int_equal(blkif_layout_slots(l, 2), 64);
	assert_int_equal(blkif_layout_slots(l, BLKIF_MAX_RING_PAGES), BLKIF_MAX_SLOTS);
}

static void protocol_names_find_layouts(void **state)
{
	assert_ptr_equal(blkif_layout_find(XEN_IO_PROTO_ABI_X86_32), &blkif_layout_x86_32);
	assert_ptr_equal(blkif_layout_find(XEN_IO_PROTO_ABI_X86_64), &blkif_layout_x86_64);
	/* No key means i386 on x86. */
	assert_ptr_equal(blkif_layout_find(NULL), &blkif_layout_x86_32);
	assert_null(blkif_layout_find(""));
	assert_null(blkif_layout_find(XEN_IO_PROTO_ABI_ARM));
	assert_null(blkif_layout_find("x86_64-abi "));
	assert_null(blkif_layout_find("X86_64-ABI"));
	/* Ours is not Xen's to negotiate. */
	assert_null(blkif_layout_find(blkif_layout_line.protocol));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts_are_xens),
		cmocka_unit_test(slot_counts_are_xens),
		cmocka_unit_test(slots_stay_inside_pages),
		cmocka_unit_test(line_keeps_its_promises),
		cmocka_unit_test(protocol_names_find_layouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
