/* SPDX-License-Identifier: BSD-2-Clause */
/* Mapping granted pages for devices: addresses, outcomes, what the ledger holds of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <xen/grant_table.h>

#include "double.h"
#include "grant/device.h"
#include "grant/ledger.h"
#include "scratch.h"

enum {
	GUEST = 7,
	PAGES = 40,
	MANY = 3000, /* more than two batches */
	PINS_MAX = 255,
};

const char scratch_stands_for[] = "";
static struct grant_ledger *ledger;
static struct grant_device *device;
static char *pages;
static uint32_t refs[PAGES];

static int setup(void **state)
{
	struct err err;

	double_init();
	double_domain_create(GUEST, "guest");
	pages = double_pages_alloc(GUEST, PAGES);
	for (unsigned i = 0; i < PAGES; i++)
		refs[i] = double_grant(GUEST, pages + (size_t)i * 4096, 0, i == PAGES - 1);
	return grant_ledger_open(scratch_ledger, &ledger, &err) ||
	       grant_device_create(ledger, &device, &err);
}

/* Whether the ledger is gone, having nothing to tell. */
static bool close_ledger(void)
{
	grant_ledger_close(ledger);
	return access(scratch_ledger, F_OK) != 0;
}

static int teardown(void **state)
{
	unsigned leaks = 0;

	grant_device_destroy(device);
	leaks += !close_ledger();
	leaks += double_leaks();
	double_fini();
	return leaks ? -1 : 0;
}

static bool map(uint32_t ref, bool writable, uint64_t *bus, uint32_t *handle)
{
	grant_device_map(device, GUEST, ref, writable, bus, handle);
	grant_device_flush(device);
	return *bus != GRANT_NO_BUS;
}

static void unmap(uint64_t bus, uint32_t handle)
{
	grant_device_unmap(device, bus, handle);
	grant_device_flush(device);
}

static void a_mapped_page_is_reached_by_its_address(void **state)
{
	uint64_t bus[3];
	uint32_t handle[3];

	for (unsigned i = 0; i < 3; i++)
		grant_device_map(device, GUEST, refs[i], true, &bus[i], &handle[i]);
	grant_device_flush(device);
	for (unsigned i = 0; i < 3; i++) {
		char *memory = double_bus_to_memory(bus[i] + 100, true);

		assert_non_null(memory);
		*memory = (char)(i + 1);
		assert_int_equal(pages[i * 4096 + 100], i + 1);
		assert_int_equal(double_revoke(GUEST, refs[i]), -EBUSY);
	}
	for (unsigned i = 0; i < 3; i++)
		grant_device_unmap(device, bus[i], handle[i]);
	assert_non_null(double_bus_to_memory(bus[0], true));
	grant_device_flush(device);
	for (unsigned i = 0; i < 3; i++) {
		assert_null(double_bus_to_memory(bus[i], false));
		assert_int_equal(double_revoke(GUEST, refs[i]), 0);
	}
	assert_int_equal(double_take_dma_faults(), 3);
}

static void a_page_that_is_only_read_is_not_written(void **state)
{
	uint32_t handle;
	uint64_t bus;

	/* Both by our own choice and because the guest allows no more. */
	assert_false(map(refs[PAGES - 1], true, &bus, &handle));
	for (unsigned i = 0; i < 2; i++) {
		assert_true(map(refs[i ? PAGES - 1 : 0], false, &bus, &handle));
		assert_non_null(double_bus_to_memory(bus, false));
		assert_null(double_bus_to_memory(bus, true));
		assert_int_equal(double_take_dma_faults(), 1);
		unmap(bus, handle);
	}
}

static void each_has_its_own_outcome(void **state)
{
	uint32_t others = double_grant(GUEST, pages, 3, false);
	const uint32_t list[] = {refs[0], UINT32_MAX, refs[1], others, refs[2], refs[3], refs[4]};
	uint64_t bus[7];
	uint32_t handle[7];

	assert_int_equal(double_revoke(GUEST, refs[2]), 0);
	double_fail_device_map(GUEST, refs[3], GNTST_no_device_space, 1);
	for (unsigned i = 0; i < 7; i++) {
		bus[i] = 1;
		grant_device_map(device, GUEST, list[i], true, &bus[i], &handle[i]);
	}
	grant_device_flush(device);
	for (unsigned i = 0; i < 7; i++) {
		if (i == 0 || i == 2 || i == 6) {
			assert_non_null(double_bus_to_memory(bus[i], true));
			grant_device_unmap(device, bus[i], handle[i]);
		} else {
			assert_true(bus[i] == GRANT_NO_BUS);
		}
	}
	grant_device_flush(device);
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
}

static void no_page_of_nobody(void **state)
{
	uint32_t handle;
	uint64_t bus;

	double_domain_destroy(GUEST);
	assert_false(map(refs[0], true, &bus, &handle));
}

/* What ends makes room for what begins, in whatever order they were added. */
static void ends_come_first(void **state)
{
	uint64_t bus[2];
	uint32_t handle[2];

	double_limit_maps(1);
	assert_true(map(refs[0], true, &bus[0], &handle[0]));
	grant_device_map(device, GUEST, refs[1], true, &bus[1], &handle[1]);
	grant_device_unmap(device, bus[0], handle[0]);
	grant_device_flush(device);
	assert_true(bus[1] != GRANT_NO_BUS);
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
	assert_false(map(refs[2], true, &bus[0], &handle[0]));
	unmap(bus[1], handle[1]);
}

static void a_flush_takes_a_call_for_each_kind(void **state)
{
	struct double_stats stats;
	uint64_t bus[PAGES];
	uint32_t handle[PAGES];

	grant_device_flush(device);
	double_get_stats(&stats);
	assert_int_equal(stats.device_calls, 0);
	for (unsigned i = 0; i < 20; i++)
		grant_device_map(device, GUEST, refs[i], true, &bus[i], &handle[i]);
	grant_device_flush(device);
	double_get_stats(&stats);
	assert_int_equal(stats.device_calls, 1);
	for (unsigned i = 0; i < 20; i++) {
		grant_device_unmap(device, bus[i], handle[i]);
		grant_device_map(device, GUEST, refs[i], false, &bus[i], &handle[i]);
	}
	grant_device_flush(device);
	double_get_stats(&stats);
	assert_int_equal(stats.device_calls, 3);
	for (unsigned i = 0; i < 20; i++)
		grant_device_unmap(device, bus[i], handle[i]);
	grant_device_flush(device);
	double_get_stats(&stats);
	assert_int_equal(stats.device_calls, 4);
	assert_int_equal(stats.device_unmaps, 40);
	assert_int_equal(stats.device_unmaps_refused, 0);
}

/* Xen's answer and operations share memory. */
static void a_question_loses_no_operation(void **state)
{
	uint64_t bus[2];
	uint32_t handle[2], grants = 0;
	struct err err;

	assert_true(map(refs[0], true, &bus[0], &handle[0]));
	grant_device_unmap(device, bus[0], handle[0]);
	grant_device_map(device, GUEST, refs[1], true, &bus[1], &handle[1]);
	double_set_grant_table(3, 1);
	assert_int_equal(grant_device_get_own_grants(device, &grants, &err), 0);
	assert_int_equal(grants, 3 * 512);
	grant_device_flush(device);
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
	assert_true(double_grant_is_mapped(GUEST, refs[1]));
	unmap(bus[1], handle[1]);
}

static void any_number_can_be_added(void **state)
{
	static uint64_t bus[MANY];
	static uint32_t handle[MANY];
	struct double_stats stats;

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < MANY; i++) {
			if (round)
				grant_device_unmap(device, bus[i], handle[i]);
			grant_device_map(device, GUEST, refs[i % 30], true, &bus[i], &handle[i]);
		}
		grant_device_flush(device);
		for (unsigned i = 0; i < MANY; i++)
			assert_non_null(double_bus_to_memory(bus[i], true));
		double_get_stats(&stats);
		assert_int_equal(stats.device_mapped, MANY);
	}
	for (unsigned i = 0; i < MANY; i++)
		grant_device_unmap(device, bus[i], handle[i]);
	grant_device_flush(device);
	double_get_stats(&stats);
	assert_int_equal(stats.device_mapped, 0);
	assert_true(stats.device_calls <= 15);
}

static void a_page_can_be_pinned_often_but_not_for_ever(void **state)
{
	uint64_t bus[PINS_MAX + 1];
	uint32_t handle[PINS_MAX + 1];

	for (unsigned i = 0; i <= PINS_MAX; i++)
		assert_int_equal(map(refs[0], true, &bus[i], &handle[i]), i < PINS_MAX);
	unmap(bus[0], handle[0]);
	assert_true(map(refs[0], true, &bus[0], &handle[0]));
	for (unsigned i = 0; i < PINS_MAX; i++)
		grant_device_unmap(device, bus[i], handle[i]);
	grant_device_flush(device);
}

static int nobody_to_stop(const char *address, void *arg, struct err *err)
{
	return err_set(err, -EINVAL, "there is no drive %s", address);
}

static void recover(void)
{
	struct err err;

	assert_int_equal(grant_ledger_recover(ledger, nobody_to_stop, NULL, &err), 0);
}

/* What was mapped before a call failed is mapped, and can be ended. */
static void a_call_that_fails_in_its_midst_loses_nothing(void **state)
{
	uint64_t bus[3];
	uint32_t handle[3];

	double_fail(DOUBLE_DEVICE_MAP, EFAULT, 0, 1, NULL);
	for (unsigned i = 0; i < 3; i++)
		grant_device_map(device, GUEST, refs[i], true, &bus[i], &handle[i]);
	grant_device_flush(device);
	assert_true(bus[0] != GRANT_NO_BUS && bus[1] != GRANT_NO_BUS);
	assert_true(bus[2] == GRANT_NO_BUS);

	double_fail(DOUBLE_DEVICE_UNMAP, EFAULT, 0, 1, NULL);
	grant_device_unmap(device, bus[0], handle[0]);
	grant_device_unmap(device, bus[1], handle[1]);
	grant_device_flush(device);
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
	assert_true(double_grant_is_mapped(GUEST, refs[1]));
	recover();
	assert_false(double_grant_is_mapped(GUEST, refs[1]));
}

static void an_end_that_is_refused_stays_noted(void **state)
{
	uint32_t handle;
	uint64_t bus;

	assert_true(map(refs[0], true, &bus, &handle));
	double_fail_device_unmap(GNTST_general_error, 0, 1);
	unmap(bus, handle);
	assert_true(double_grant_is_mapped(GUEST, refs[0]));
	recover();
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
	/* Nor is it forgotten for a wrong address. */
	assert_true(map(refs[0], true, &bus, &handle));
	unmap(bus + 4096, handle);
	assert_true(double_grant_is_mapped(GUEST, refs[0]));
	recover();
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
}

/* The ledger, which is gone at the test's end, must not keep what does not exist. */
static void what_xen_does_not_know_is_forgotten(void **state)
{
	assert_int_equal(grant_ledger_note(ledger, 77, 0x1000), 0);
	unmap(0x1000, 77);
}

/* Another thread, which maps a page while the first is about to end its mappings. */
static struct {
	struct grant_device *device;
	uint32_t ref;
	uint64_t bus;
	uint32_t handle;
	unsigned countdown;
	bool ends; /* tries to unmap it as well, in vain */
} other;

static void map_meanwhile(void *arg, bool mapping, unsigned domid, uint32_t ref, bool writable)
{
	if (mapping || !other.countdown || --other.countdown)
		return;
	grant_device_map(other.device, GUEST, other.ref, true, &other.bus, &other.handle);
	grant_device_flush(other.device);
	if (!other.ends)
		return;
	double_fail_device_unmap(GNTST_general_error, 0, 1);
	grant_device_unmap(other.device, other.bus, other.handle);
	grant_device_flush(other.device);
}

/* A handle is free for others before who had it has seen that its mapping has ended. */
static void a_handle_used_again_stays_noted(void **state)
{
	uint64_t bus[2];
	uint32_t handle[2];
	struct err err;

	assert_int_equal(grant_device_create(ledger, &other.device, &err), 0);
	for (unsigned round = 0; round < 3; round++) {
		/* Of another page, and of the very same, and that is about to be unmapped, too. */
		other.ref = refs[round ? 0 : 5];
		other.ends = round == 2;
		for (unsigned i = 0; i < 2; i++)
			assert_true(map(refs[i], true, &bus[i], &handle[i]));
		other.countdown = 2;
		double_on_map(map_meanwhile, NULL);
		grant_device_unmap(device, bus[0], handle[0]);
		grant_device_unmap(device, bus[1], handle[1]);
		grant_device_flush(device);
		double_on_map(NULL, NULL);
		assert_int_equal(other.handle, handle[0]);
		assert_int_equal(other.bus == bus[0], round != 0);
		assert_true(double_grant_is_mapped(GUEST, other.ref));
		recover();
		assert_false(double_grant_is_mapped(GUEST, other.ref));
	}
	grant_device_destroy(other.device);
}

/* What was to be ended when the process died is still there to be ended. */
static void an_end_cut_short_is_made_up_for(void **state)
{
	uint32_t handle;
	uint64_t bus;

	assert_true(map(refs[0], true, &bus, &handle));
	grant_ledger_end(ledger, handle, bus, GRANT_LEDGER_ENDERS);
	recover();
	assert_false(double_grant_is_mapped(GUEST, refs[0]));
}

static void the_dead_process_cannot_end_them_the_next_can(void **state)
{
	static struct grant_device *lost; /* nothing calls it any more, nor frees it */
	struct err err;
	uint32_t handle;
	uint64_t bus;

	assert_true(map(refs[0], true, &bus, &handle));
	assert_true(map(refs[1], false, &bus, &handle));
	lost = device;
	double_end_process();
	assert_false(close_ledger());
	assert_int_equal(double_revoke(GUEST, refs[0]), -EBUSY);

	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), 0);
	recover();
	assert_int_equal(double_revoke(GUEST, refs[0]), 0);
	assert_int_equal(double_revoke(GUEST, refs[1]), 0);
	free(lost);
	assert_int_equal(grant_device_create(ledger, &device, &err), 0);
}

static void a_domain_that_is_not_pv_is_refused(void **state)
{
	struct grant_device *none;
	struct err err;

	double_set_pv(false);
	assert_int_equal(grant_device_create(ledger, &none, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "dom0=pvh"));
	double_set_pv(true);
	double_fail(DOUBLE_CALL_OPEN, ENOENT, 0, 1, NULL);
	assert_int_equal(grant_device_create(ledger, &none, &err), -ENOENT);
	assert_non_null(strstr(err.text, "xen-privcmd"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_mapped_page_is_reached_by_its_address, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_page_that_is_only_read_is_not_written, setup,
						teardown),
		cmocka_unit_test_setup_teardown(each_has_its_own_outcome, setup, teardown),
		cmocka_unit_test_setup_teardown(no_page_of_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_come_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_flush_takes_a_call_for_each_kind, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_question_loses_no_operation, setup, teardown),
		cmocka_unit_test_setup_teardown(any_number_can_be_added, setup, teardown),
		cmocka_unit_test_setup_teardown(a_page_can_be_pinned_often_but_not_for_ever, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_call_that_fails_in_its_midst_loses_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_end_that_is_refused_stays_noted, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_xen_does_not_know_is_forgotten, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_handle_used_again_stays_noted, setup, teardown),
		cmocka_unit_test_setup_teardown(an_end_cut_short_is_made_up_for, setup, teardown),
		cmocka_unit_test_setup_teardown(the_dead_process_cannot_end_them_the_next_can,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_domain_that_is_not_pv_is_refused, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
