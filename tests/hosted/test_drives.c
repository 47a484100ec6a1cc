/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole daemon with an NVMe drive: guests on it, whose pages the drive reaches, SIGTERM and a
 * successor, and a drive that a daemon before has left running.
 */
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

#include "dom0.h"
#include "double.h"
#include "fake_drive.h"
#include "grant/ledger.h"
#include "guest.h"
#include "load.h"

enum { GUEST_DOMID = 7, DISK_BLOCKS = (8 << 20) / 512 };

static struct model *drive;

static int setup(void **state)
{
	guest_way = &guest_dma;
	if (dom0_setup(state))
		return -1;
	drive = fake_drive_create(&dom0, 512, DISK_BLOCKS);
	return 0;
}

static int teardown(void **state)
{
	fake_drive_destroy();
	return dom0_teardown(state);
}

static void attach_drive(void)
{
	service_prints("bdev create nvme " FAKE_DRIVE,
		       "drive nvme0 attached (" FAKE_DRIVE ")\nbdev nvme0n1 created\n", true);
}

static void close_guest(struct guest *g)
{
	assert_true(guest_close(g));
	assert_true(guest_free_front(g));
	assert_true(toolstack_remove(&g->disk, HOST_WAIT_MS));
	guest_destroy(g);
}

static void a_guest_is_served_and_a_successor_goes_on(void **state)
{
	struct disk_opts opts = {.target = "nvme0n1,sharing=dma,persistent=no",
				 .instance = service.name};
	struct guest g;
	struct load *l;

	service_start();
	attach_drive();
	assert_true(fake_drive_enabled());
	service_prints("nvme list", FAKE_DRIVE " attached nvme0 ", true);
	guest_create(&g, &dom0, GUEST_DOMID, &opts);
	assert_true(guest_connect(&g, &(struct guest_opts){0}));
	l = load_create(&g, &(struct load_opts){.max_segments = 32, .flushes = true});
	assert_null(load_run(l, 500));
	service_prints("list", "nvme0n1 8M rw Connected Connected 1 dma ", true);
	service_fails("nvme detach nvme0", "in use by way of bdev nvme0n1");
	service_fails("bdev delete nvme0n1", "sluice nvme detach nvme0");
	service_fails("nvme release " FAKE_DRIVE, "is attached as nvme0");

	/* The end shuts the drive down; the next daemon has it before it looks for guests. */
	load_fill(l);
	service_end();
	assert_int_equal(drive->shutdowns, 1);
	assert_false(fake_drive_enabled() && fake_drive_is_master());
	assert_int_equal(access(service.ledger, F_OK), -1);
	load_step(l);
	load_fill(l);
	service_start();
	assert_null(load_finish(l));
	assert_null(load_run(l, 500));
	assert_null(load_compare(l, (const char *)drive->ns[0].data));
	load_destroy(l);
	assert_int_equal(double_take_dma_faults(), 0);

	close_guest(&g);
	service_prints("nvme detach nvme0", "drive nvme0 detached\n", true);
	assert_int_equal(drive->shutdowns, 2);
	service_prints("nvme list", FAKE_DRIVE " claimed ", true);
	service_end();
}

/* What a daemon that was killed has left. */
static void note_drive(const char *address)
{
	struct grant_ledger *l;
	struct err err;

	assert_int_equal(grant_ledger_open(service.ledger, &l, &err), 0);
	assert_int_equal(grant_ledger_note_drive(l, address), 0);
	grant_ledger_close(l);
	assert_int_equal(access(service.ledger, F_OK), 0);
}

static void a_drive_left_running_is_stopped(void **state)
{
	note_drive(FAKE_DRIVE);
	fake_drive_leave_running();
	/* One that is not there any more is as good as stopped. */
	note_drive("0000:00:07.0");
	service_start();
	assert_false(fake_drive_enabled());
	assert_int_equal(drive->closed, 0);
	attach_drive();
	service_end();
}

static void too_few_queues_are_said(void **state)
{
	service_start();
	attach_drive();
	service_prints("nvme list", "serving threads", false);
	free(service_command("nvme detach nvme0"));
	service_end();
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip();
	drive->io_queues = 1;
	service.more = (const char *const[]){"--cpumask", "3", NULL};
	service_start();
	attach_drive();
	service_prints("nvme list", "\n it has queues for 1 of 2 serving threads: ", true);
	service_end();
}

/* A driver that has it has reset it, but for one that does nothing to what it has. */
static void a_drive_left_running_and_hidden_is_not_forgotten(void **state)
{
	char driver[192];

	note_drive(FAKE_DRIVE);
	fake_drive_leave_running();
	snprintf(driver, sizeof(driver), "%s/sys/bus/pci/devices/" FAKE_DRIVE "/driver", dom0.root);
	assert_int_equal(symlink("../../drivers/pci-stub", driver), 0);
	service_start();
	service_fails("bdev create nvme " FAKE_DRIVE, "driver pci-stub has it since: unbind it");
	service_end();
	assert_true(fake_drive_enabled());
	assert_int_equal(access(service.ledger, F_OK), 0);
	assert_int_equal(unlink(driver), 0);
	assert_int_equal(symlink("../../drivers/nvme", driver), 0);
	service_start();
	service_end();
	assert_int_equal(access(service.ledger, F_OK), -1);
	assert_int_equal(unlink(driver), 0);
}

static void without_a_ledger_there_are_no_drives(void **state)
{
	FILE *f = fopen(service.ledger, "w");

	assert_non_null(f);
	fputs("this is something else, and not short: it may be anybody's and is to be kept\n", f);
	fclose(f);
	service_start();
	service_fails("bdev create nvme " FAKE_DRIVE, "no NVMe drives, and no sharing=dma: ");
	assert_false(fake_drive_enabled());
	/* All else is served. */
	free(service_command("bdev create null other --size 1M"));
	service_end();
	assert_int_equal(access(service.ledger, F_OK), 0);
	unlink(service.ledger);
}

static void a_drive_that_is_not_there_is_kept(void **state)
{
	service_start();
	attach_drive();
	service_end();
	host_write_file(&dom0, "/sys/bus/pci/devices/" FAKE_DRIVE "/class", "0x020000\n");
	service_start();
	service_prints("bdev list", "nvme0n1", false);
	service_prints("nvme list", FAKE_DRIVE " missing nvme0 - - -\n", true);
	host_write_file(&dom0, "/sys/bus/pci/devices/" FAKE_DRIVE "/class", "0x010802\n");
	service_prints("nvme list", "\n kept as nvme0, and not attached", true);
	service_end();
	service_start();
	service_prints("bdev list", "nvme0n1", true);
	service_end();
}

/* It cannot start for another reason, and lets the drive go that it has started. */
static void a_bad_start_lets_go_of_drives(void **state)
{
	service_start();
	attach_drive();
	service_end();
	service_ends_with((const char *const[]){"--socket", "/no/such/place/sock", "--log-level",
						"error", NULL},
			  1, "/no/such/place");
	assert_int_equal(drive->shutdowns, 2);
	assert_int_equal(access(service.ledger, F_OK), -1);
}

/* Nor does it touch guests that a predecessor has left connected: who can start, goes on. */
static void a_bad_start_leaves_guests_alone(void **state)
{
	struct disk_opts opts = {.target = "nvme0n1,sharing=dma", .instance = service.name};
	struct guest g;
	struct load *l;

	service_start();
	attach_drive();
	guest_create(&g, &dom0, GUEST_DOMID, &opts);
	assert_true(guest_connect(&g, &(struct guest_opts){0}));
	l = load_create(&g, &(struct load_opts){.max_segments = 32});
	assert_null(load_run(l, 500));
	service_end();
	load_fill(l);
	service_ends_with((const char *const[]){"--socket", "/no/such/place/sock", "--log-level",
						"error", NULL},
			  1, "/no/such/place");
	assert_false(double_evtchn_is_bound(GUEST_DOMID, g.port));
	service_start();
	assert_null(load_finish(l));
	assert_null(load_compare(l, (const char *)drive->ns[0].data));
	load_destroy(l);
	close_guest(&g);
	service_end();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_guest_is_served_and_a_successor_goes_on),
		TEST(a_drive_left_running_is_stopped),
		TEST(too_few_queues_are_said),
		TEST(a_drive_left_running_and_hidden_is_not_forgotten),
		TEST(without_a_ledger_there_are_no_drives),
		TEST(a_drive_that_is_not_there_is_kept),
		TEST(a_bad_start_lets_go_of_drives),
		TEST(a_bad_start_leaves_guests_alone),
	};

	if (!service_prepare())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
