/* SPDX-License-Identifier: BSD-2-Clause */
/* The ledger as a file: what it keeps, what it takes for its own, and what a successor does. */
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "double.h"
#include "grant/device.h"
#include "grant/ledger.h"
#include "scratch.h"

enum {
	GUEST = 7,
	HANDLES = 4 << 20, /* of a ledger */
	DRIVES = 32,
	PAGE = 4096,
	BOOT_AT = 16, /* where the file says which boot it is of */
};

const char scratch_stands_for[] = "/sys/module/grant_table/parameters/free_per_iteration";
static struct grant_ledger *ledger;
static bool disk_full, survived;

/* A file system that has no room left. */
int __real_posix_fallocate64(int fd, off_t offset, off_t len);
int __wrap_posix_fallocate64(int fd, off_t offset, off_t len);
int __wrap_posix_fallocate64(int fd, off_t offset, off_t len)
{
	return disk_full ? ENOSPC : __real_posix_fallocate64(fd, offset, len);
}

static int setup(void **state)
{
	struct err err;

	disk_full = false;
	double_init();
	double_domain_create(GUEST, "guest");
	return grant_ledger_open(scratch_ledger, &ledger, &err);
}

static int teardown(void **state)
{
	unsigned leaks;

	grant_ledger_close(ledger);
	leaks = double_leaks() + !access(scratch_ledger, F_OK);
	unlink(scratch_ledger);
	double_fini();
	return leaks ? -1 : 0;
}

/* As who has ended it. */
static void forget(uint32_t handle)
{
	grant_ledger_end(ledger, handle, 0x1000, 9);
	grant_ledger_forget(ledger, handle, 0x1000, 9);
}

/* As the next process finds it; @survived says whether it does. */
static int reopen(struct err *err)
{
	grant_ledger_close(ledger);
	survived = !access(scratch_ledger, F_OK);
	return grant_ledger_open(scratch_ledger, &ledger, err);
}

static off_t bytes_on_disk(void)
{
	struct stat st;

	assert_int_equal(stat(scratch_ledger, &st), 0);
	return st.st_blocks * 512;
}

struct stopped {
	unsigned nr;
	char list[512];
	int rc;
};

static int stop(const char *address, void *arg, struct err *err)
{
	struct stopped *s = arg;

	s->nr++;
	strcat(s->list, address);
	strcat(s->list, " ");
	return s->rc ? err_set(err, s->rc, "%s does not stop", address) : 0;
}

/* Maps @nr pages for devices and loses all handles. */
static void leave_mappings(unsigned nr)
{
	static char *pages;
	static uint32_t refs[3000];
	static uint64_t bus;
	static uint32_t handle;
	struct grant_device *device;
	struct err err;

	pages = double_pages_alloc(GUEST, nr);
	assert_int_equal(grant_device_create(ledger, &device, &err), 0);
	for (unsigned i = 0; i < nr; i++) {
		refs[i] = double_grant(GUEST, pages + (size_t)i * PAGE, 0, false);
		grant_device_map(device, GUEST, refs[i], true, &bus, &handle);
	}
	grant_device_flush(device);
	grant_device_destroy(device);
}

static uint64_t mapped(void)
{
	struct double_stats stats;

	double_get_stats(&stats);
	return stats.device_mapped;
}

static void nothing_noted_leaves_nothing(void **state)
{
	struct stopped s = {0};
	struct err err;
	struct stat st;

	assert_int_equal(stat(scratch_ledger, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(grant_ledger_note(ledger, 5, 0x1000), 0);
	forget(5);
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:00:04.0"), 0);
	grant_ledger_forget_drive(ledger, "0000:00:04.0");
	/* Nor is a hypercall needed, which a host without Xen has not. */
	double_fail(DOUBLE_CALL_OPEN, ENOENT, 0, 99, NULL);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(s.nr, 0);
	grant_ledger_close(ledger);
	assert_int_equal(access(scratch_ledger, F_OK), -1);
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), 0);
}

static void what_is_noted_stays(void **state)
{
	struct err err;

	assert_int_equal(grant_ledger_note(ledger, 0, 0x1000), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(reopen(&err), 0);
		assert_true(survived);
	}
	/* The last one leaves as well. */
	assert_int_equal(grant_ledger_note(ledger, HANDLES - 1, 0x1000), 0);
	forget(0);
	assert_int_equal(reopen(&err), 0);
	assert_true(survived);
	forget(HANDLES - 1);
}

/* As mappings are, which may have the handle of one that ends before that one is struck out. */
static void what_is_noted_is_counted(void **state)
{
	struct stopped s = {0};
	struct err err;

	assert_int_equal(grant_ledger_count(ledger), 0);
	assert_int_equal(grant_ledger_note(ledger, 5, 0x1000), 0);
	assert_int_equal(grant_ledger_note(ledger, 100000, 0x2000), 0);
	assert_int_equal(grant_ledger_count(ledger), 2);
	grant_ledger_end(ledger, 5, 0x1000, 9);
	assert_int_equal(grant_ledger_count(ledger), 2);
	assert_int_equal(grant_ledger_note(ledger, 5, 0x3000), 0);
	assert_int_equal(grant_ledger_count(ledger), 2);
	grant_ledger_forget(ledger, 5, 0x1000, 9);
	assert_int_equal(grant_ledger_count(ledger), 2);
	grant_ledger_end(ledger, 5, 0x3000, 9);
	grant_ledger_forget(ledger, 5, 0x3000, 9);
	grant_ledger_forget(ledger, 5, 0x3000, 9);
	assert_int_equal(grant_ledger_count(ledger), 1);
	grant_ledger_end(ledger, 100000, 0x2000, 9);
	grant_ledger_forget(ledger, 100000, 0x2000, 9);
	assert_int_equal(grant_ledger_count(ledger), 0);
	/* What a predecessor has left was counted by that one. */
	leave_mappings(20);
	assert_int_equal(grant_ledger_count(ledger), 20);
	assert_int_equal(reopen(&err), 0);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(grant_ledger_count(ledger), 0);
}

static void a_ledger_ends_somewhere(void **state)
{
	assert_int_equal(grant_ledger_note(ledger, HANDLES, 0x1000), -ENOSPC);
	assert_int_equal(grant_ledger_note(ledger, UINT32_MAX, 0x1000), -ENOSPC);
	forget(HANDLES);
	forget(UINT32_MAX);
}

/* It costs what is in it, and a look costs nothing. */
static void holes_stay_holes(void **state)
{
	struct stopped s = {0};
	struct err err;
	off_t before = bytes_on_disk();

	assert_true(before <= 16384);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(grant_ledger_note(ledger, i << 20, 0x1000), 0);
	assert_true(bytes_on_disk() >= before + 4 * PAGE);
	before = bytes_on_disk();
	assert_true(before <= 65536);
	forget(77777);
	forget(1 << 20);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(bytes_on_disk(), before);
}

/* A store into a hole that cannot be filled would be the process's death. */
static void a_full_disk_is_told(void **state)
{
	disk_full = true;
	assert_int_equal(grant_ledger_note(ledger, 100000, 0x1000), -ENOSPC);
	forget(100000);
	disk_full = false;
	assert_int_equal(grant_ledger_note(ledger, 100000, 0x1000), 0);
	forget(100000);
	disk_full = true;
	assert_int_equal(grant_ledger_note(ledger, 100001, 0x1000), 0);
	forget(100001);
}

/* What cannot be noted does not stay mapped. */
static void a_mapping_that_cannot_be_noted_ends_at_once(void **state)
{
	struct grant_device *device;
	struct err err;
	uint32_t handle, ref;
	uint64_t bus;

	ref = double_grant(GUEST, double_pages_alloc(GUEST, 1), 0, false);
	assert_int_equal(grant_device_create(ledger, &device, &err), 0);
	disk_full = true;
	grant_device_map(device, GUEST, ref, true, &bus, &handle);
	grant_device_flush(device);
	assert_true(bus == GRANT_NO_BUS);
	assert_int_equal(mapped(), 0);
	disk_full = false;
	grant_device_map(device, GUEST, ref, true, &bus, &handle);
	grant_device_flush(device);
	assert_int_equal(mapped(), 1);
	grant_device_unmap(device, bus, handle);
	grant_device_flush(device);
	grant_device_destroy(device);
}

static void drives_are_noted_once_and_not_without_end(void **state)
{
	struct stopped s = {0};
	char address[16];
	struct err err;

	for (unsigned i = 0; i < DRIVES; i++) {
		snprintf(address, sizeof(address), "0000:%02x:00.0", i);
		assert_int_equal(grant_ledger_note_drive(ledger, address), 0);
	}
	assert_int_equal(grant_ledger_note_drive(ledger, address), 0);
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:ff:00.0"), -ENOSPC);
	grant_ledger_forget_drive(ledger, "0000:01:00.0");
	grant_ledger_forget_drive(ledger, "0000:01:00.0");
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:ff:00.0.123"), -ENOSPC);
	assert_int_equal(grant_ledger_note_drive(ledger, ""), -ENOSPC);
	assert_int_equal(grant_ledger_note_drive(ledger, "10000:ff:00.0.1"), 0);
	assert_int_equal(reopen(&err), 0);
	for (unsigned i = 2; i < DRIVES; i++) {
		snprintf(address, sizeof(address), "0000:%02x:00.0", i);
		grant_ledger_forget_drive(ledger, address);
	}
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_string_equal(s.list, "0000:00:00.0 10000:ff:00.0.1 ");
	/* They are stopped now. */
	s = (struct stopped){0};
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(s.nr, 0);
}

static void a_successor_stops_drives_and_ends_mappings(void **state)
{
	struct stopped s = {.rc = -EIO};
	struct err err;

	leave_mappings(3000);
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:00:04.0"), 0);
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:00:05.0"), 0);
	assert_int_equal(reopen(&err), 0);
	assert_int_equal(mapped(), 3000);

	/* While one may still write, nothing is let go. */
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), -EIO);
	assert_string_equal(err.text, "0000:00:04.0 does not stop");
	assert_int_equal(mapped(), 3000);
	assert_int_equal(reopen(&err), 0);
	/* One that was pulled writes no more. */
	s = (struct stopped){.rc = -ENODEV};
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_string_equal(s.list, "0000:00:04.0 0000:00:05.0 ");
	assert_int_equal(mapped(), 0);
}

/* What the hypervisor refuses to end neither stops the start nor is taken for ended. */
static void a_mapping_that_does_not_end_is_no_reason_to_stay_down(void **state)
{
	struct stopped s = {0};
	struct err err;

	leave_mappings(3);
	double_fail_device_unmap(-1, 1, 1);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(mapped(), 1);
	assert_int_equal(reopen(&err), 0);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(mapped(), 0);
}

static void no_hypercalls_no_end(void **state)
{
	struct stopped s = {0};
	struct err err;

	leave_mappings(3);
	assert_int_equal(grant_ledger_note_drive(ledger, "0000:00:04.0"), 0);
	double_fail(DOUBLE_CALL_OPEN, EACCES, 0, 1, NULL);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), -EACCES);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(s.nr, 2);
	assert_int_equal(mapped(), 0);
}

/* What the kernel gets back slowly would be too late for who dies often; more stays more. */
static void the_kernel_is_to_take_pages_back_soon(void **state)
{
	static const unsigned before[] = {10, 999, 1000, 5000}, after[] = {1000, 1000, 1000, 5000};
	struct stopped s = {0};
	struct err err;
	unsigned value;
	FILE *f;

	for (unsigned i = 0; i < 4; i++) {
		f = fopen(scratch_parameter, "w");
		assert_non_null(f);
		fprintf(f, "%u\n", before[i]);
		fclose(f);
		/* Without need nothing is touched. */
		for (unsigned left = 0; left < 2; left++) {
			if (left)
				leave_mappings(2);
			assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
			f = fopen(scratch_parameter, "r");
			assert_non_null(f);
			assert_int_equal(fscanf(f, "%u", &value), 1);
			fclose(f);
			assert_int_equal(value, left ? after[i] : before[i]);
		}
		unlink(scratch_parameter);
	}
	/* A kernel that knows no such parameter. */
	leave_mappings(2);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(mapped(), 0);
}

static void write_at(off_t at, const void *data, size_t len)
{
	int fd = open(scratch_ledger, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(pwrite(fd, data, len, at), len);
	close(fd);
}

/* Notes something, and puts a few bytes into the file. */
static int corrupt(off_t at, const void *data, size_t len, struct err *err)
{
	assert_int_equal(grant_ledger_note(ledger, 1, 0x1000), 0);
	grant_ledger_close(ledger);
	write_at(at, data, len);
	return grant_ledger_open(scratch_ledger, &ledger, err);
}

static void what_is_no_ledger_is_refused(void **state)
{
	static const char garbage[16] = "garbage garbage";
	static const struct {
		off_t at;
		size_t len;
	} places[] = {
		{0, 8},                        /* the magic */
		{8, 4},                        /* the version */
		{12, 4},                       /* its size */
		{56 + 15, 1},                  /* the end of a drive's address */
		{PAGE + (off_t)HANDLES * 8, 1} /* behind the end */
	};
	struct err err;

	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		assert_int_equal(corrupt(places[i].at, garbage, places[i].len, &err), -EINVAL);
		assert_non_null(strstr(err.text, scratch_ledger));
		assert_non_null(strstr(err.text, "remove it if"));
		unlink(scratch_ledger);
		assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), 0);
	}
	grant_ledger_close(ledger);
	write_at(0, garbage, sizeof(garbage));
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), -EINVAL);
	unlink(scratch_ledger);
	assert_int_equal(mkfifo(scratch_ledger, 0600), 0);
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), -EINVAL);
	unlink(scratch_ledger);
	assert_int_equal(symlink("elsewhere", scratch_ledger), 0);
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), -ELOOP);
	unlink(scratch_ledger);
	assert_int_equal(grant_ledger_open("/nowhere/ledger", &ledger, &err), -ENOENT);
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), 0);
}

static void an_address_that_cannot_be_is_not_unmapped(void **state)
{
	static const uint64_t buses[] = {17, 1ULL << 52};
	struct stopped s = {0};
	struct err err;

	leave_mappings(1);
	grant_ledger_note_drive(ledger, "0000:00:04.0");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(corrupt(PAGE + 8 * 3, &buses[i], sizeof(buses[i]), &err), 0);
		assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), -EINVAL);
		assert_int_equal(s.nr, 0);
		assert_int_equal(mapped(), 1);
		grant_ledger_forget(ledger, 3, buses[i], 0);
	}
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(mapped(), 0);
}

/* A handle is given to others before who had it can say that it has ended. */
static void what_others_have_noted_stays(void **state)
{
	struct err err;

	assert_int_equal(grant_ledger_note(ledger, 3, 0x1000), 0);
	grant_ledger_end(ledger, 3, 0x1000, 1);
	assert_int_equal(grant_ledger_note(ledger, 3, 0x1000), 0);
	grant_ledger_forget(ledger, 3, 0x1000, 1);
	assert_int_equal(reopen(&err), 0);
	assert_true(survived);
	/* Nor does one forget what another is about to end. */
	grant_ledger_end(ledger, 3, 0x1000, 2);
	grant_ledger_forget(ledger, 3, 0x1000, 1);
	assert_int_equal(reopen(&err), 0);
	assert_true(survived);
	grant_ledger_forget(ledger, 3, 0x1000, 2);
	assert_int_equal(reopen(&err), 0);
	assert_false(survived);
}

/* Neither the domain that it tells of nor its mappings exist any more. */
static void another_boots_ledger_is_forgotten(void **state)
{
	struct stopped s = {0};
	struct err err;

	assert_int_equal(grant_ledger_note_drive(ledger, "0000:00:04.0"), 0);
	assert_int_equal(corrupt(BOOT_AT, "another", 7, &err), 0);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(s.nr, 0);
	assert_int_equal(grant_ledger_note(ledger, 2, 0x1000), 0);
	assert_int_equal(reopen(&err), 0);
	assert_true(survived);
	grant_ledger_note(ledger, 2, 0x1000);
	forget(2);
}

/* Whoever died before the magic was written has noted nothing. */
static void one_that_was_never_finished_begins_anew(void **state)
{
	struct stopped s = {0};
	struct err err;

	assert_int_equal(corrupt(0, "\0\0\0\0\0\0\0\0", 8, &err), 0);
	assert_int_equal(reopen(&err), 0);
	grant_ledger_note(ledger, 1, 0x1000);
	forget(1);
	assert_int_equal(grant_ledger_recover(ledger, stop, &s, &err), 0);
	assert_int_equal(s.nr, 0);
}

static void no_room_for_a_ledger_is_told(void **state)
{
	struct err err;

	grant_ledger_close(ledger);
	disk_full = true;
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), -ENOSPC);
	assert_non_null(strstr(err.text, scratch_ledger));
	disk_full = false;
	assert_int_equal(grant_ledger_open(scratch_ledger, &ledger, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_noted_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_noted_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_noted_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_ledger_ends_somewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(holes_stay_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mapping_that_cannot_be_noted_ends_at_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(drives_are_noted_once_and_not_without_end, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_successor_stops_drives_and_ends_mappings, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_mapping_that_does_not_end_is_no_reason_to_stay_down, setup, teardown),
		cmocka_unit_test_setup_teardown(no_hypercalls_no_end, setup, teardown),
		cmocka_unit_test_setup_teardown(the_kernel_is_to_take_pages_back_soon, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_no_ledger_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(an_address_that_cannot_be_is_not_unmapped, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_others_have_noted_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(another_boots_ledger_is_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_was_never_finished_begins_anew, setup,
						teardown),
		cmocka_unit_test_setup_teardown(no_room_for_a_ledger_is_told, setup, teardown),
	};

	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
