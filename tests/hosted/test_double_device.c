/* SPDX-License-Identifier: BSD-2-Clause */
/* The double's mappings for devices, by bare hypercalls: what Xen does and what it only says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <xen/features.h>
#include <xen/version.h>
#include <xen/xen.h>
#include <xencall.h>
#include <xengnttab.h>

#include "double.h"

enum { GUEST = 7, PAGE = 4096 };

static xencall_handle *xen;
static struct gnttab_map_grant_ref *maps;
static struct gnttab_unmap_grant_ref *unmaps;
static char *page;
static uint32_t ref;

static int setup(void **state)
{
	double_init();
	double_domain_create(GUEST, "guest");
	page = double_pages_alloc(GUEST, 1);
	ref = double_grant(GUEST, page, 0, false);
	xen = xencall_open(NULL, 0);
	maps = xencall_alloc_buffer_pages(xen, 2);
	unmaps = xencall_alloc_buffer_pages(xen, 1);
	return xen && maps && unmaps ? 0 : -1;
}

static int teardown(void **state)
{
	unsigned leaks;

	xencall_free_buffer_pages(xen, unmaps, 1);
	xencall_free_buffer_pages(xen, maps, 2);
	xencall_close(xen);
	leaks = double_leaks();
	double_fini();
	return leaks ? -1 : 0;
}

static int16_t map(uint32_t what, uint32_t flags)
{
	maps[0] = (struct gnttab_map_grant_ref){
		.flags = GNTMAP_device_map | flags, .ref = what, .dom = GUEST, .status = 1};
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)maps, 1),
			 0);
	return maps[0].status;
}

static int16_t unmap(uint32_t handle, uint64_t bus)
{
	unmaps[0] =
		(struct gnttab_unmap_grant_ref){.handle = handle, .dev_bus_addr = bus, .status = 1};
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref,
				  (uintptr_t)unmaps, 1),
			 0);
	return unmaps[0].status;
}

static void a_device_reaches_what_is_mapped(void **state)
{
	char *memory;
	uint64_t bus;

	assert_int_equal(map(ref, 0), GNTST_okay);
	bus = maps[0].dev_bus_addr;
	assert_int_equal(bus % PAGE, 0);
	memory = double_bus_to_memory(bus + 17, true);
	assert_non_null(memory);
	*memory = 99;
	assert_int_equal(page[17], 99);
	assert_null(double_bus_to_memory(bus + PAGE, false));
	assert_null(double_bus_to_memory(bus - PAGE, false));
	assert_null(double_bus_to_memory(0, false));
	assert_null(double_bus_to_memory(UINT64_MAX, false));
	assert_int_equal(unmap(maps[0].handle, bus), GNTST_okay);
	assert_null(double_bus_to_memory(bus, false));
	assert_int_equal(double_take_dma_faults(), 5);
	assert_int_equal(double_take_dma_faults(), 0);
}

static void a_fault_is_something_done_wrong(void **state)
{
	unsigned before = double_leaks();

	assert_null(double_bus_to_memory(PAGE, false));
	assert_int_equal(double_leaks(), before + 1);
	double_take_dma_faults();
}

static void a_mapping_to_read_is_not_written(void **state)
{
	uint32_t readonly = double_grant(GUEST, page, 0, true);
	uint64_t bus;

	assert_int_equal(map(readonly, 0), GNTST_general_error);
	assert_int_equal(map(readonly, GNTMAP_readonly), GNTST_okay);
	bus = maps[0].dev_bus_addr;
	assert_non_null(double_bus_to_memory(bus, false));
	assert_null(double_bus_to_memory(bus, true));
	assert_int_equal(double_take_dma_faults(), 1);
	/* Two mappings of one page have one address, and either goes by itself. */
	assert_int_equal(map(ref, 0), GNTST_okay);
	assert_int_equal(maps[0].dev_bus_addr, bus);
	assert_non_null(double_bus_to_memory(bus, true));
	assert_int_equal(unmap(maps[0].handle, bus), GNTST_okay);
	assert_non_null(double_bus_to_memory(bus, false));
	assert_null(double_bus_to_memory(bus, true));
	assert_int_equal(double_take_dma_faults(), 1);
	assert_int_equal(unmap(0, bus), GNTST_okay);
}

static void an_unmap_names_handle_and_address(void **state)
{
	uint32_t handle;
	uint64_t bus;

	assert_int_equal(map(ref, 0), GNTST_okay);
	handle = maps[0].handle;
	bus = maps[0].dev_bus_addr;
	assert_int_equal(unmap(handle, bus + PAGE), GNTST_bad_dev_addr);
	assert_int_equal(unmap(handle + 1, bus), GNTST_bad_handle);
	assert_int_equal(unmap(UINT32_MAX, bus), GNTST_bad_handle);
	/* Xen says yes and ends nothing. */
	assert_int_equal(unmap(handle, 0), GNTST_okay);
	assert_int_equal(double_revoke(GUEST, ref), -EBUSY);
	assert_true(double_grant_is_mapped(GUEST, ref));
	assert_int_equal(unmap(handle, bus), GNTST_okay);
	assert_int_equal(unmap(handle, bus), GNTST_bad_handle);
	assert_int_equal(double_revoke(GUEST, ref), 0);
}

static void what_is_not_granted_is_not_mapped(void **state)
{
	uint32_t others = double_grant(GUEST, page, 3, false);

	assert_int_equal(map(others, 0), GNTST_general_error);
	assert_int_equal(map(UINT32_MAX, 0), GNTST_bad_gntref);
	assert_int_equal(double_revoke(GUEST, ref), 0);
	assert_int_equal(map(ref, 0), GNTST_general_error);
	double_domain_destroy(GUEST);
	assert_int_equal(map(ref, 0), GNTST_bad_domain);
}

static void a_mapping_outlives_its_guest(void **state)
{
	uint64_t bus;

	assert_int_equal(map(ref, 0), GNTST_okay);
	bus = maps[0].dev_bus_addr;
	double_domain_destroy(GUEST);
	double_domain_create(GUEST, "next");
	assert_non_null(double_bus_to_memory(bus, true));
	page = double_pages_alloc(GUEST, 1);
	ref = double_grant(GUEST, page, 0, false);
	assert_int_equal(map(ref, 0), GNTST_okay);
	assert_int_not_equal(maps[0].dev_bus_addr, bus);
	assert_int_equal(unmap(maps[0].handle, maps[0].dev_bus_addr), GNTST_okay);
	assert_int_equal(unmap(0, bus), GNTST_okay);
}

static void pins_are_counted(void **state)
{
	struct double_grant_use use;
	uint64_t bus = 0;

	for (unsigned i = 0; i < 255; i++) {
		assert_int_equal(map(ref, 0), GNTST_okay);
		bus = maps[0].dev_bus_addr;
	}
	assert_int_equal(map(ref, 0), GNTST_general_error);
	double_grant_get_use(GUEST, ref, &use);
	assert_int_equal(use.mapped, 255);
	assert_int_equal(use.mapped_for_devices, 255);
	for (uint32_t i = 0; i < 255; i++)
		assert_int_equal(unmap(i, bus), GNTST_okay);
	double_grant_get_use(GUEST, ref, &use);
	assert_int_equal(use.mapped, 0);
	assert_int_equal(use.mapped_writable, 0);
	assert_int_equal(use.maps, 255);
}

static void a_domain_that_is_not_pv_has_none(void **state)
{
	struct xen_feature_info *info = (void *)maps;

	for (unsigned i = 0; i < 2; i++) {
		double_set_pv(!i);
		assert_int_equal(map(ref, 0), i ? GNTST_general_error : GNTST_okay);
		if (!i)
			assert_int_equal(unmap(maps[0].handle, maps[0].dev_bus_addr), GNTST_okay);
		info->submap_idx = 0;
		assert_int_equal(xencall2(xen, __HYPERVISOR_xen_version, XENVER_get_features,
					  (uintptr_t)info),
				 0);
		assert_int_equal(info->submap >> XENFEAT_auto_translated_physmap & 1, i);
	}
}

static void operations_lie_in_a_buffer(void **state)
{
	struct gnttab_map_grant_ref elsewhere = {.flags = GNTMAP_device_map, .dom = GUEST};

	elsewhere.ref = ref;
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)&elsewhere, 1),
			 -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)maps, 2 * PAGE / sizeof(maps[0]) + 1),
			 -1);
	assert_false(double_grant_is_mapped(GUEST, ref));
}

static void a_call_fails_as_a_whole_after_some_were_done(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		maps[i] = (struct gnttab_map_grant_ref){
			.flags = GNTMAP_device_map, .ref = ref, .dom = GUEST, .status = 1};
	double_fail(DOUBLE_DEVICE_MAP, EFAULT, 0, 1, NULL);
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)maps, 3),
			 -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(maps[0].status, GNTST_okay);
	assert_int_equal(maps[1].status, GNTST_okay);
	assert_int_equal(maps[2].status, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(unmap(maps[i].handle, maps[i].dev_bus_addr), GNTST_okay);
}

/* As from gntalloc: the pages may be moved, and go when neither owner nor device has them. */
static void own_pages_go_when_nobody_reaches_them(void **state)
{
	xengntshr_handle *shr = xengntshr_open(NULL, 0);
	struct double_stats stats;
	uint32_t refs[3];
	char *pages, *to;
	uint64_t bus;

	double_limit_shares(3, NULL);
	pages = xengntshr_share_pages(shr, 0, 3, refs, 1);
	assert_non_null(pages);
	assert_null(xengntshr_share_pages(shr, 0, 1, refs, 1));
	assert_int_equal(errno, ENOSPC);
	maps[0] = (struct gnttab_map_grant_ref){.flags = GNTMAP_device_map, .ref = refs[1]};
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)maps, 1),
			 0);
	assert_int_equal(maps[0].status, GNTST_okay);
	bus = maps[0].dev_bus_addr;
	to = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_equal(mremap(pages + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	to[5] = 42;
	assert_int_equal(((char *)double_bus_to_memory(bus, false))[5], 42);
	xengntshr_unshare(shr, pages, 1);
	xengntshr_unshare(shr, pages + 2 * (size_t)PAGE, 1);
	xengntshr_unshare(shr, to, 1);
	double_get_stats(&stats);
	assert_int_equal(stats.shared, 1);
	assert_int_equal(stats.shared_late, 1);
	assert_non_null(double_bus_to_memory(bus, true));
	assert_int_equal(unmap(maps[0].handle, bus), GNTST_okay);
	double_get_stats(&stats);
	assert_int_equal(stats.shared, 0);
	assert_int_equal(stats.shared_late, 0);
	xengntshr_close(shr);
}

/* What a dead process had is the kernel's to take, but for what the hypervisor keeps. */
static void mappings_outlive_the_process(void **state)
{
	xengnttab_handle *gnttab = xengnttab_open(NULL, 0);
	xengntshr_handle *shr = xengntshr_open(NULL, 0);
	struct double_grant_use use;
	struct double_stats stats;
	uint32_t handle, own[2];
	uint64_t bus;

	assert_non_null(xengnttab_map_grant_ref(gnttab, GUEST, ref, PROT_READ));
	assert_non_null(xengntshr_share_pages(shr, 0, 2, own, 1));
	assert_int_equal(map(ref, 0), GNTST_okay);
	handle = maps[0].handle;
	bus = maps[0].dev_bus_addr;
	maps[0] = (struct gnttab_map_grant_ref){.flags = GNTMAP_device_map, .ref = own[0]};
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)maps, 1),
			 0);
	assert_int_equal(unmap(maps[0].handle + 1, 1), GNTST_bad_handle);
	double_end_process();
	xen = xencall_open(NULL, 0);
	maps = xencall_alloc_buffer_pages(xen, 2);
	unmaps = xencall_alloc_buffer_pages(xen, 1);
	double_grant_get_use(GUEST, ref, &use);
	assert_int_equal(use.mapped, 1);
	assert_int_equal(use.mapped_for_devices, 1);
	double_get_stats(&stats);
	assert_int_equal(stats.shared, 1);
	assert_int_equal(stats.device_mapped, 2);
	assert_non_null(double_bus_to_memory(bus, true));
	assert_int_equal(unmap(handle, bus), GNTST_okay);
	double_grant_get_use(0, own[0], &use);
	assert_int_equal(use.mapped_for_devices, 1);
	/* The next one's mapping of the page tells the address, too. */
	maps[0] = (struct gnttab_map_grant_ref){.flags = GNTMAP_device_map, .ref = own[0]};
	assert_int_equal(xencall3(xen, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
				  (uintptr_t)maps, 1),
			 0);
	bus = maps[0].dev_bus_addr;
	assert_int_equal(unmap(maps[0].handle, bus), GNTST_okay);
	assert_int_equal(unmap(1, bus), GNTST_okay);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_device_reaches_what_is_mapped, setup, teardown),
		cmocka_unit_test_setup_teardown(a_fault_is_something_done_wrong, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mapping_to_read_is_not_written, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unmap_names_handle_and_address, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_granted_is_not_mapped, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mapping_outlives_its_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(pins_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_domain_that_is_not_pv_has_none, setup, teardown),
		cmocka_unit_test_setup_teardown(operations_lie_in_a_buffer, setup, teardown),
		cmocka_unit_test_setup_teardown(a_call_fails_as_a_whole_after_some_were_done, setup,
						teardown),
		cmocka_unit_test_setup_teardown(own_pages_go_when_nobody_reaches_them, setup,
						teardown),
		cmocka_unit_test_setup_teardown(mappings_outlive_the_process, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
