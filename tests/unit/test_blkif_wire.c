/* SPDX-License-Identifier: BSD-2-Clause */
/* Holds src/blkif/wire.c's tables against the facts that the compiler reads in Xen's headers. */
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
	const struct blkif_layout *layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64};

	for (unsigned l = 0; l < 2; l++) {
		for (unsigned pages = 1; pages <= BLKIF_MAX_RING_PAGES; pages++) {
			uint32_t slots = blkif_layout_slots(layouts[l], pages);

			assert_int_equal(slots & (slots - 1), 0);
			assert_in_range(BLKIF_RING_HEADER_BYTES + slots * layouts[l]->request_bytes,
					1, pages * BLKIF_PAGE_SIZE);
		}
	}
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
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts_are_xens),
		cmocka_unit_test(slot_counts_are_xens),
		cmocka_unit_test(slots_stay_inside_pages),
		cmocka_unit_test(protocol_names_find_layouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
