/* SPDX-License-Identifier: BSD-2-Clause */
/* Device memory of granted pages: addresses in order, limits, what is left after the process. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <xen/grant_table.h>
#include <xenstore.h>

#include "dma/granted.h"
#include "double.h"
#include "grant/ledger.h"
#include "scratch.h"

enum { MAX_PAGES = 1024, STEP = 64, RUN = 8, PAGE = 4096 };

const char scratch_stands_for[] = "/sys/module/xen_gntalloc/parameters/limit";
static struct grant_ledger *ledger;
static struct dma *dma;
static struct dma_memory memory[8];
static struct dma *volatile lost; /* of a dead process: nobody calls it, nor frees it */
static unsigned moves_left;       /* before a page cannot be moved */

/* A process has only so many mappings. */
void *__real_mremap(void *from, size_t old_len, size_t len, int flags, ...);
void *__wrap_mremap(void *from, size_t old_len, size_t len, int flags, ...);
void *__wrap_mremap(void *from, size_t old_len, size_t len, int flags, ...)
{
	va_list ap;
	void *to;

	va_start(ap, flags);
	to = va_arg(ap, void *);
	va_end(ap);
	if (!moves_left) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	moves_left--;
	return __real_mremap(from, old_len, len, flags, to);
}

static void write_limit(unsigned limit)
{
	FILE *f = fopen(scratch_parameter, "w");

	assert_non_null(f);
	fprintf(f, "%u\n", limit);
	fclose(f);
}

static unsigned read_limit(void)
{
	unsigned limit = 0;
	FILE *f = fopen(scratch_parameter, "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &limit), 1);
	fclose(f);
	return limit;
}

static int setup(void **state)
{
	struct err err;

	double_init();
	write_limit(1024);
	moves_left = UINT32_MAX;
	memset(memory, 0, sizeof(memory));
	return grant_ledger_open(scratch_ledger, &ledger, &err) ||
	       dma_granted_create(MAX_PAGES, ledger, &dma, &err);
}

static void free_all(void)
{
	for (unsigned i = 0; i < sizeof(memory) / sizeof(memory[0]); i++)
		dma_free(dma, &memory[i]);
}

static int teardown(void **state)
{
	unsigned leaks;

	free_all();
	dma_granted_destroy(dma);
	grant_ledger_close(ledger);
	leaks = double_leaks() + !access(scratch_ledger, F_OK);
	unlink(scratch_ledger);
	double_fini();
	return leaks ? -1 : 0;
}

static struct double_stats get_stats(void)
{
	struct double_stats stats;

	double_get_stats(&stats);
	return stats;
}

/* Each page under the address that it is said to have, and no other. */
static void check_addresses(const struct dma_memory *m)
{
	for (size_t i = 0; i < m->pages; i++) {
		char *cpu = (char *)m->virt + i * PAGE + 24;
		char *device = double_bus_to_memory(m->bus[i] + 24, true);

		assert_non_null(device);
		*cpu = (char)(i + 1);
		assert_int_equal(*device, (char)(i + 1));
		assert_true(dma_translate(dma, cpu) == m->bus[i] + 24);
	}
}

static void a_device_finds_what_the_cpu_has_written(void **state)
{
	struct err err;

	assert_int_equal(dma_alloc(dma, 3, false, &memory[0], &err), 0);
	assert_int_equal(dma_alloc(dma, 100, false, &memory[1], &err), 0);
	check_addresses(&memory[0]);
	check_addresses(&memory[1]);
	/* Zeroed, whatever the last one has left there. */
	dma_free(dma, &memory[1]);
	assert_int_equal(dma_alloc(dma, 100, false, &memory[1], &err), 0);
	for (size_t i = 0; i < 100 * (size_t)PAGE; i++)
		assert_int_equal(((char *)memory[1].virt)[i], 0);
}

static void no_page_is_taken_before_it_is_wanted(void **state)
{
	struct err err;

	assert_int_equal(get_stats().shared, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(dma_alloc(dma, STEP / 4, false, &memory[i], &err), 0);
	assert_int_equal(get_stats().shared, STEP);
	assert_int_equal(get_stats().device_mapped, STEP);
	assert_int_equal(get_stats().device_calls, 1);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[4], &err), 0);
	assert_int_equal(get_stats().shared, 2 * STEP);
	assert_int_equal(get_stats().device_calls, 2);
}

/* The double hands pages out in an order that has no two neighbours in a row. */
static void pages_lie_in_the_order_of_their_addresses(void **state)
{
	struct err err;

	assert_int_equal(dma_alloc(dma, STEP, false, &memory[0], &err), 0);
	for (unsigned i = 1; i < STEP; i++)
		assert_true(memory[0].bus[i] > memory[0].bus[i - 1]);
	dma_free(dma, &memory[0]);
	assert_int_equal(dma_alloc(dma, RUN, true, &memory[0], &err), 0);
	for (unsigned i = 0; i < RUN; i++)
		assert_true(memory[0].bus[i] == memory[0].bus[0] + i * (uint64_t)PAGE);
	check_addresses(&memory[0]);
	assert_int_equal(get_stats().shared, STEP);
}

static void what_is_not_contiguous_is_given_back(void **state)
{
	struct err err;

	assert_int_equal(dma_alloc(dma, 1, false, &memory[1], &err), 0);
	assert_int_equal(dma_alloc(dma, RUN + 1, true, &memory[0], &err), -ENOMEM);
	assert_non_null(strstr(err.text, "contiguous"));
	assert_int_equal(get_stats().shared, STEP);
	assert_int_equal(get_stats().device_mapped, STEP);
}

/* A run that is not in the first lot is looked for in more. */
static void a_run_is_searched_for(void **state)
{
	struct err err;

	double_set_bus_run(128);
	assert_int_equal(dma_alloc(dma, STEP, false, &memory[1], &err), 0);
	assert_int_equal(dma_alloc(dma, 96, true, &memory[0], &err), 0);
	for (unsigned i = 0; i < 96; i++)
		assert_true(memory[0].bus[i] == memory[0].bus[0] + i * (uint64_t)PAGE);
	check_addresses(&memory[0]);
	assert_int_equal(get_stats().shared, STEP + 96 + STEP);
}

static void there_is_no_more_than_was_agreed(void **state)
{
	struct err err;

	assert_int_equal(dma_alloc(dma, MAX_PAGES - STEP / 2, false, &memory[0], &err), 0);
	assert_int_equal(dma_alloc(dma, STEP / 2 + 1, false, &memory[1], &err), -ENOMEM);
	assert_non_null(strstr(err.text, "--device-memory-mib"));
	assert_int_equal(dma_alloc(dma, STEP / 2 - 1, false, &memory[1], &err), 0);
	assert_int_equal(get_stats().shared, MAX_PAGES);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[2], &err), 0);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[3], &err), -ENOMEM);
	check_addresses(&memory[0]);
	check_addresses(&memory[1]);
}

/* Whoever uses up a domain's grants leaves none for others, and Linux in trouble. */
static void half_of_the_grants_are_left_to_others(void **state)
{
	struct dma *other;
	struct err err;

	for (unsigned version = 1; version <= 2; version++) {
		/* Of 8 bytes, or of 16. */
		size_t half = version == 1 ? 512 : 256;

		double_set_grant_table(2, version);
		assert_int_equal(dma_granted_create(half + 1, ledger, &other, &err), 0);
		assert_int_equal(other->window, half);
		assert_int_equal(dma_alloc(other, half + 1, false, &memory[0], &err), -ENOMEM);
		assert_non_null(strstr(err.text, "gnttab_max_frames"));
		assert_int_equal(dma_alloc(other, half, false, &memory[0], &err), 0);
		dma_free(other, &memory[0]);
		dma_granted_destroy(other);
	}
	double_set_grant_table(4, 1);
	assert_int_equal(dma_granted_create(MAX_PAGES, ledger, &other, &err), 0);
	assert_int_equal(other->window, MAX_PAGES);
	assert_int_equal(dma_alloc(other, MAX_PAGES + 1, false, &memory[0], &err), -ENOMEM);
	assert_non_null(strstr(err.text, "--device-memory-mib"));
	dma_granted_destroy(other);
}

static void gntallocs_limit_is_raised_by_what_is_wanted(void **state)
{
	struct err err;

	double_limit_shares(0, scratch_parameter);
	write_limit(70);
	assert_int_equal(dma_alloc(dma, 60, false, &memory[0], &err), 0);
	assert_int_equal(read_limit(), 70);
	assert_int_equal(dma_alloc(dma, 100, false, &memory[1], &err), 0);
	assert_int_equal(read_limit(), 170);
	check_addresses(&memory[1]);
}

static void a_limit_that_cannot_be_raised_is_told(void **state)
{
	struct err err;

	double_limit_shares(10, NULL);
	unlink(scratch_parameter);
	assert_int_equal(dma_alloc(dma, 3, false, &memory[0], &err), -ENOSPC);
	assert_non_null(strstr(err.text, "/sys/module/xen_gntalloc/parameters/limit"));
	write_limit(UINT32_MAX);
	assert_int_equal(dma_alloc(dma, 3, false, &memory[0], &err), -ENOSPC);
	assert_non_null(strstr(err.text, "4294967295"));
	assert_int_equal(read_limit(), UINT32_MAX);
	assert_int_equal(get_stats().shared, 0);
}

/* Who is refused with a limit that was raised lacks grants; then the limit stays as it was. */
static void a_full_grant_table_is_told_apart(void **state)
{
	struct err err;

	double_limit_shares(0, scratch_parameter);
	double_limit_own_grants(STEP - 1);
	write_limit(20);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[0], &err), -ENOSPC);
	assert_non_null(strstr(err.text, "gnttab_max_frames"));
	assert_int_equal(read_limit(), 20);
}

static void no_memory_is_told(void **state)
{
	struct err err;

	double_fail(DOUBLE_SHARE, ENOMEM, 0, 1, NULL);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[0], &err), -ENOMEM);
	assert_non_null(strstr(err.text, "gntalloc"));
	assert_int_equal(dma_alloc(dma, 1, false, &memory[0], &err), 0);
}

static void pages_that_xen_does_not_map_are_given_back(void **state)
{
	struct err err;

	double_limit_maps(STEP / 2);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[0], &err), -ENOMEM);
	assert_non_null(strstr(err.text, "gnttab_max_maptrack_frames"));
	assert_int_equal(get_stats().shared, 0);
	assert_int_equal(get_stats().device_mapped, 0);
	double_limit_maps(UINT32_MAX);
	assert_int_equal(dma_alloc(dma, 1, false, &memory[0], &err), 0);
}

/* What was moved stays for the next, and all of it is what it says. */
static void a_move_that_fails_loses_nothing(void **state)
{
	struct err err;

	moves_left = 5;
	assert_int_equal(dma_alloc(dma, 50, false, &memory[0], &err), -ENOMEM);
	assert_non_null(strstr(err.text, "vm.max_map_count"));
	assert_int_equal(get_stats().shared, 5);
	assert_int_equal(get_stats().device_mapped, 5);
	moves_left = UINT32_MAX;
	assert_int_equal(dma_alloc(dma, 5, false, &memory[0], &err), 0);
	assert_int_equal(get_stats().shared, 5);
	assert_int_equal(dma_alloc(dma, 50, false, &memory[1], &err), 0);
	check_addresses(&memory[0]);
	check_addresses(&memory[1]);
}

/* Whether the mapping at @addr bears that flag of smaps. */
static bool has_flag(const void *addr, const char *flag)
{
	unsigned long start, end;
	bool here = false, found = false;
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t)addr >= start && (uintptr_t)addr < end;
		found |= here && !strncmp(line, "VmFlags:", 8) && strstr(line, flag);
	}
	fclose(f);
	return found;
}

/* Nobody but the process itself has a use for pages that a drive writes to. */
static void they_are_in_no_child_and_no_dump(void **state)
{
	struct err err;

	assert_int_equal(dma_alloc(dma, STEP, false, &memory[0], &err), 0);
	for (unsigned i = 0; i < STEP; i++) {
		const char *page = (char *)memory[0].virt + (size_t)i * PAGE;

		assert_true(has_flag(page, " dc"));
		assert_true(has_flag(page, " dd"));
	}
	assert_false(has_flag(dma, " dc"));
}

static void what_is_missing_is_told(void **state)
{
	static const struct {
		enum double_call call;
		int error;
		const char *remedy;
	} faults[] = {
		{DOUBLE_CALL_OPEN, ENOENT, "xen-privcmd"},
		{DOUBLE_SHARE_OPEN, ENOENT, "xen-gntalloc"},
		{DOUBLE_XS_OPEN, ENOENT, "xenstored"},
		{DOUBLE_XS_READ, ENOENT, "xen-init-dom0"},
	};
	struct dma *other;
	struct err err;

	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		double_fail(faults[i].call, faults[i].error, 0, 1, NULL);
		assert_int_equal(dma_granted_create(8, ledger, &other, &err), -faults[i].error);
		assert_non_null(strstr(err.text, faults[i].remedy));
	}
	double_set_pv(false);
	assert_int_equal(dma_granted_create(8, ledger, &other, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "dom0=pvh"));
}

/* Pages are granted to who we are, not to domain 0. */
static void a_driver_domain_grants_to_itself(void **state)
{
	struct xs_handle *xs = double_xs_open(0);
	static const char *const sayings[] = {"9", "nine", "32752", "-1", ""};
	struct dma *other;
	struct err err;

	for (unsigned i = 0; i < sizeof(sayings) / sizeof(sayings[0]); i++) {
		assert_true(xs_write(xs, XBT_NULL, "/local/domain/0/domid", sayings[i],
				     (unsigned)strlen(sayings[i])));
		assert_int_equal(dma_granted_create(8, ledger, &other, &err), i ? -ENOENT : 0);
		if (i)
			continue;
		/* The double is domain 0 and may not map what is granted to another. */
		assert_int_equal(dma_alloc(other, 1, false, &memory[0], &err), -ENOMEM);
		assert_int_equal(get_stats().shares_for_others, 8);
		memory[0] = (struct dma_memory){0};
		dma_granted_destroy(other);
	}
	xs_close(xs);
}

static int stop(const char *address, void *arg, struct err *err)
{
	/* Until the drive is stopped its writes must find their page. */
	assert_non_null(double_bus_to_memory(*(uint64_t *)arg, true));
	return 0;
}

/* A drive that still writes when its driver is dead finds the same page, until it is stopped. */
static void pages_outlive_the_process(void **state)
{
	struct err err;
	uint64_t bus;

	assert_int_equal(dma_alloc(dma, 3, false, &memory[0], &err), 0);
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:00:04.0"), 0);
	bus = memory[0].bus[1];
	lost = dma;
	double_end_process();
	grant_ledger_close(ledger);
	assert_int_equal(get_stats().shared_late, STEP);
	assert_non_null(double_bus_to_memory(bus, true));

	memset(memory, 0, sizeof(memory));
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), 0);
	assert_int_equal(grant_ledger_recover(ledger, stop, &bus, &err), 0);
	assert_int_equal(get_stats().shared, 0);
	assert_null(double_bus_to_memory(bus, true));
	assert_int_equal(double_take_dma_faults(), 1);
	assert_int_equal(dma_granted_create(MAX_PAGES, ledger, &dma, &err), 0);
	assert_int_equal(dma_alloc(dma, 3, false, &memory[0], &err), 0);
	check_addresses(&memory[0]);
}

/* What hypercalls cost, in microseconds, by a clock that nothing else moves. */
static struct {
	unsigned copy_page;
	unsigned map_page;
	unsigned map_call;
	uint64_t calls;
	uint64_t now_us; /* 0: the real clock */
} costs;

int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	if (!costs.now_us)
		return __real_clock_gettime(id, now);
	*now = (struct timespec){.tv_sec = (time_t)(costs.now_us / 1000000),
				 .tv_nsec = (long)(costs.now_us % 1000000) * 1000};
	return 0;
}

static void copying(void *arg, unsigned domid, uint32_t ref)
{
	costs.now_us += costs.copy_page;
}

static void mapping(void *arg, bool map, unsigned domid, uint32_t ref, bool writable)
{
	struct double_stats stats = get_stats();

	/* What a call costs is spent at its first page. */
	if (stats.device_calls != costs.calls)
		costs.now_us += costs.map_call;
	costs.calls = stats.device_calls;
	costs.now_us += costs.map_page;
}

static uint32_t measure(unsigned copy_page, unsigned map_page, unsigned map_call)
{
	uint32_t from = 1;
	struct err err;
	int rc;

	costs.copy_page = copy_page;
	costs.map_page = map_page;
	costs.map_call = map_call;
	costs.now_us = 1000000;
	rc = dma_granted_measure(dma, &from, &err);
	costs.now_us = 0;
	assert_int_equal(rc, 0);
	return from;
}

static void the_measure_is_where_mapping_becomes_cheaper(void **state)
{
	double_on_copy(copying, NULL);
	double_on_map(mapping, NULL);
	/* Two calls of 100 us against 25 - 2 * 2 us a page. */
	assert_int_equal(measure(25, 2, 100), 10 * PAGE);
	assert_int_equal(measure(24, 2, 100), 10 * PAGE);
	assert_int_equal(measure(23, 2, 100), 11 * PAGE);
	/* More a page, as much a page, less a page and a call. */
	assert_int_equal(measure(10, 10, 0), UINT32_MAX);
	assert_int_equal(measure(20, 10, 0), UINT32_MAX);
	assert_int_equal(measure(20, 0, 0), PAGE);
	assert_int_equal(measure(40, 1, 1), PAGE);
	/* The largest request there is, and one more. */
	assert_int_equal(measure(4, 1, 256), 256 * PAGE);
	assert_int_equal(measure(4, 1, 257), UINT32_MAX);
	double_on_copy(NULL, NULL);
	double_on_map(NULL, NULL);
	assert_int_equal(get_stats().device_mapped, get_stats().shared);
}

static void what_cannot_be_measured_is_told(void **state)
{
	uint32_t from = 1;
	struct err err;

	double_fail(DOUBLE_GNTTAB_OPEN, EACCES, 0, 1, NULL);
	assert_int_equal(dma_granted_measure(dma, &from, &err), -EACCES);
	double_fail(DOUBLE_GNTTAB_COPY, EFAULT, 0, 1, NULL);
	assert_int_equal(dma_granted_measure(dma, &from, &err), -EFAULT);
	double_fail(DOUBLE_DEVICE_MAP, EFAULT, 1, 1, NULL);
	assert_int_equal(dma_granted_measure(dma, &from, &err), -ENOMEM);
	double_fail(DOUBLE_SHARE, ENOMEM, 0, 99, NULL);
	assert_int_equal(dma_alloc(dma, 20, false, &memory[0], &err), 0);
	assert_int_equal(dma_granted_measure(dma, &from, &err), -ENOMEM);
	assert_int_equal(from, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_device_finds_what_the_cpu_has_written, setup,
						teardown),
		cmocka_unit_test_setup_teardown(no_page_is_taken_before_it_is_wanted, setup,
						teardown),
		cmocka_unit_test_setup_teardown(pages_lie_in_the_order_of_their_addresses, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_not_contiguous_is_given_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_run_is_searched_for, setup, teardown),
		cmocka_unit_test_setup_teardown(there_is_no_more_than_was_agreed, setup, teardown),
		cmocka_unit_test_setup_teardown(half_of_the_grants_are_left_to_others, setup,
						teardown),
		cmocka_unit_test_setup_teardown(gntallocs_limit_is_raised_by_what_is_wanted, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_limit_that_cannot_be_raised_is_told, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_full_grant_table_is_told_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(no_memory_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(pages_that_xen_does_not_map_are_given_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_move_that_fails_loses_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(they_are_in_no_child_and_no_dump, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_missing_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_driver_domain_grants_to_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(pages_outlive_the_process, setup, teardown),
		cmocka_unit_test_setup_teardown(the_measure_is_where_mapping_becomes_cheaper, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_measured_is_told, setup, teardown),
	};

	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
