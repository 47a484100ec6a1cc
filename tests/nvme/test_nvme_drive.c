/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Drives by name, over the model of a controller: what comes up, who is kept out meanwhile, and
 * that nothing is left of a drive that could not be had or was let go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "rack.h"
#include "table.h"

static void attach_fails(int rc, const char *text)
{
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), 0);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.last.done);
	assert_int_equal(rack.last.rc, rc);
	if (!strstr(rack.last.err.text, text))
		fail_msg("\"%s\" does not say \"%s\"", rack.last.err.text, text);
	assert_null(rack.last.drive);
	assert_null(nvme_drive_next(rack.drives, NULL));
	assert_null(bdev_next(NULL));
	assert_int_equal(rack.host.opened, rack.host.closed);
	assert_int_equal(rack.host.entered, 0);
	assert_int_equal(dma_double_used(&rack.stage->mem), 0);
}

static void test_attach(void **state)
{
	struct nvme_drive *d;
	struct bdev *b;
	struct err err;

	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), 0);
	/* Not yet. */
	assert_int_equal(rack.last.done, 0);
	assert_int_equal(rack.host.entered, 1);
	d = nvme_drive_find(rack.drives, "nvme0");
	assert_non_null(d);
	assert_false(nvme_drive_ready(d));
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	stage_until(rack.stage, NSEC_PER_SEC, rack.last.done);
	assert_int_equal(rack.last.rc, 0);
	assert_ptr_equal(rack.last.drive, d);
	assert_true(nvme_drive_ready(d));
	assert_string_equal(nvme_drive_name(d), "nvme0");
	assert_string_equal(nvme_drive_address(d), RACK_ADDRESS);
	rack_expect_no_parts();
	b = bdev_find("nvme0n1");
	assert_string_equal(b->owner, "nvme0");
	assert_null(b->whole);
	assert_int_equal(b->size, RACK_BLOCKS * 512);

	/* Held until we let go. */
	assert_true(nvme_drive_held(d));
	assert_int_equal(bdev_claim(b, true, true, &err), -EBUSY);
	nvme_drive_release(d);
	assert_false(nvme_drive_held(d));
	assert_int_equal(bdev_claim(b, true, false, &err), 0);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_non_null(strstr(err.text, "by way of bdev nvme0n1: detach its disks"));
	bdev_release(b);
	assert_int_equal(nvme_drive_hold(d, &err), 0);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_int_equal(bdev_claim(b, true, false, &err), -EBUSY);
	nvme_drive_release(d);
	rack_detach(d);
	assert_int_equal(rack.stage->model.shutdowns, 1);

	/* As good as new. */
	d = rack_attach();
	nvme_drive_release(d);
	rack_expect_no_parts();
	assert_int_equal(rack.host.dmas, 1);
}

static void test_names(void **state)
{
	static const char *const names[] = {
		"", "-a", ".a", "a b", "a/b", "\x01", "12345678901234567890123456789012345678901"};
	static const char *const addresses[] = {"",
						"0",
						"0000:00:04",
						"0000:00:04.8",
						"../../etc",
						"0000:00:20.0",
						"nvme0",
						"0000:00:04.0 ",
						"00000000000000000000:00:04.0"};
	struct nvme_drive *d;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(rack_begin(names[i], RACK_ADDRESS), -EINVAL);
		assert_non_null(strstr(rack.last.err.text, "is no name for a drive"));
	}
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		assert_int_equal(rack_begin("nvme0", addresses[i]), -EINVAL);
	assert_int_equal(rack.host.opened, 0);
	assert_int_equal(rack.host.dmas, 0);
	/* The longest, by the shortest. */
	assert_int_equal(rack_begin("1234567890123456789012345678901234567890", "00:04.0"), 0);
	/* Twice, even before it is there. */
	assert_int_equal(rack_begin("nvme1", RACK_ADDRESS), -EEXIST);
	assert_non_null(strstr(rack.last.err.text, "is attached already, as \"12345"));
	assert_int_equal(rack_begin("1234567890123456789012345678901234567890", "0000:00:05.0"),
			 -EEXIST);
	assert_non_null(strstr(rack.last.err.text, "there is a drive \"12345"));
	stage_until(rack.stage, NSEC_PER_SEC, rack.last.done);
	d = rack.last.drive;
	assert_non_null(bdev_find("1234567890123456789012345678901234567890n1"));
	assert_int_equal(rack_begin("nvme1", RACK_ADDRESS), -EEXIST);
	nvme_drive_release(d);
}

static void test_no_host(void **state)
{
	rack.host.dma_rc = -EOPNOTSUPP;
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), -EOPNOTSUPP);
	assert_string_equal(rack.last.err.text, "no such memory");
	rack.host.dma_rc = 0;
	rack.host.open_rc = -ENODEV;
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), -ENODEV);
	rack.host.open_rc = 0;
	rack.host.enter_rc = -ENOSPC;
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), -ENOSPC);
	assert_int_equal(rack.host.opened, 1);
	assert_int_equal(rack.host.closed, 1);
	rack.host.enter_rc = 0;
	assert_null(nvme_drive_next(rack.drives, NULL));
	assert_int_equal(rack.last.done, 0);
	nvme_drive_release(rack_attach());
}

static void test_start_fails(void **state)
{
	rack.stage->model.never_ready = true;
	attach_fails(-ETIMEDOUT, "does not get ready");
	rack_power_cycle();
	nvme_drive_release(rack_attach());
}

/* A bdev of somebody's has the name that a namespace is to have. */
static void test_name_is_taken(void **state)
{
	struct err err;

	rack.stage->model.ns[1] =
		(struct model_namespace){.block_size = 512, .blocks = RACK_BLOCKS};
	rack_disk(1);
	table_put_two(rack_disk(0), 512);
	assert_int_equal(bdev_null_create("nvme0n2", 4096, 512, NULL, &err), 0);
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), 0);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.last.done);
	assert_int_equal(rack.last.rc, -EEXIST);
	assert_non_null(strstr(rack.last.err.text, "a bdev \"nvme0n2\" already"));
	assert_string_equal(bdev_next(NULL)->name, "nvme0n2");
	assert_null(nvme_drive_next(rack.drives, NULL));
	assert_int_equal(rack.stage->model.shutdowns, 1);
	assert_int_equal(rack.host.closed, 1);
	assert_int_equal(rack.host.entered, 0);
	assert_int_equal(bdev_delete("nvme0n2", &err), 0);
	nvme_drive_release(rack_attach());
}

static void test_no_namespace(void **state)
{
	struct nvme_drive *d;
	struct err err;

	rack.stage->model.ns[0].blocks = 0;
	d = rack_attach();
	assert_null(bdev_next(NULL));
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	nvme_drive_release(d);
	rack_detach(d);
}

/* The controller comes back from a reset when the drive is on its way out. */
static void test_detach_in_reset(void **state)
{
	struct nvme_drive *d = rack_attach();

	nvme_drive_release(d);
	nvme_ctrl_reset(nvme_drive_ctrl(d), "for a test");
	rack_detach(d);
	assert_null(bdev_next(NULL));
	assert_int_equal(rack.stage->model.resets, 2);
}

static void test_several_namespaces(void **state)
{
	struct nvme_drive *d;

	rack.stage->model.ns[1] =
		(struct model_namespace){.block_size = 4096, .blocks = RACK_BLOCKS};
	/* One that cannot be served does not keep the others from it. */
	rack.stage->model.ns[2] =
		(struct model_namespace){.block_size = 512, .blocks = 8, .metadata = 8};
	table_put_two(rack_disk(1), 4096);
	d = rack_attach();
	assert_non_null(bdev_find("nvme0n1"));
	assert_non_null(bdev_find("nvme0n2p1"));
	assert_null(bdev_find("nvme0n3"));
	nvme_drive_release(d);
	rack_detach(d);
}

static void test_namespaces_change(void **state)
{
	struct nvme_drive *d = rack_attach();
	struct bdev *first = bdev_find("nvme0n1");
	struct err err;

	rack.stage->model.ns[1] =
		(struct model_namespace){.block_size = 512, .blocks = RACK_BLOCKS};
	table_put_two(rack_disk(1), 512);
	model_send_event(&rack.stage->model, NVME_LOG_CHANGED_NAMESPACES << 16 | 2);
	stage_until(rack.stage, NSEC_PER_SEC, bdev_find("nvme0n2"));
	/* What was there is for disks now; what has come is not, as its table is being read. */
	nvme_drive_release(d);
	assert_int_equal(bdev_claim(first, true, false, &err), 0);
	assert_int_equal(bdev_claim(bdev_find("nvme0n2"), true, false, &err), -EBUSY);
	bdev_release(first);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_non_null(strstr(err.text, "try again"));
	stage_until(rack.stage, NSEC_PER_SEC, bdev_find("nvme0n2p3"));
	assert_int_equal(bdev_claim(bdev_find("nvme0n2p1"), true, false, &err), 0);
	bdev_release(bdev_find("nvme0n2p1"));

	/* One grows under its disk. */
	assert_int_equal(bdev_claim(first, true, false, &err), 0);
	rack.stage->model.ns[0].data = realloc(rack_disk(0), 2 * RACK_BLOCKS * 512);
	rack.stage->model.ns[0].blocks = 2 * RACK_BLOCKS;
	model_send_event(&rack.stage->model, NVME_LOG_CHANGED_NAMESPACES << 16 | 2);
	stage_until(rack.stage, NSEC_PER_SEC, first->size == 2 * RACK_BLOCKS * 512);
	bdev_release(first);
	stage_wait(rack.stage, NSEC_PER_MSEC);
	rack_detach(d);
}

/* An event has the log read, once for all that come meanwhile. */
static void test_health_event(void **state)
{
	struct nvme_drive *d = rack_attach();
	unsigned *reads = &rack.stage->model.commands[1][NVME_ADMIN_GET_LOG_PAGE], before = *reads,
		 once;

	nvme_drive_release(d);
	model_send_event(&rack.stage->model, NVME_LOG_SMART << 16 | 1 << 8 | 1);
	stage_wait(rack.stage, 2 * NSEC_PER_SEC);
	once = *reads - before;
	assert_true(once >= 1);
	before = *reads;
	model_send_event(&rack.stage->model, NVME_LOG_SMART << 16 | 1 << 8 | 1);
	stage_wait(rack.stage, 2 * NSEC_PER_SEC);
	assert_int_equal(*reads - before, once);
	/* One that is on its way when the drive goes. */
	model_send_event(&rack.stage->model, NVME_LOG_SMART << 16 | 1 << 8 | 1);
	stage_until(rack.stage, 2 * NSEC_PER_SEC, *reads > before + once);
	rack_detach(d);
}

static void test_pulled(void **state)
{
	struct nvme_drive *d = rack_attach();

	nvme_drive_release(d);
	rack.stage->model.removed = true;
	stage_until(rack.stage, 200 * NSEC_PER_SEC,
		    nvme_ctrl_state(nvme_drive_ctrl(d)) == NVME_DEAD);
	stage_wait(rack.stage, NSEC_PER_SEC);
	/* Its disks get errors, and it is there to be seen. */
	assert_non_null(bdev_find("nvme0n1"));
	assert_true(nvme_drive_ready(d));
	rack_detach(d);
	rack_power_cycle();
	nvme_drive_release(rack_attach());
}

/* The end comes with a drive that a disk still has claimed. */
static void test_end(void **state)
{
	struct nvme_drive *d = rack_attach();
	struct err err;

	nvme_drive_release(d);
	assert_int_equal(bdev_claim(bdev_find("nvme0n1"), true, false, &err), 0);
	nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
	assert_int_equal(rack.all_stopped, 0);
	assert_int_equal(rack_begin("nvme1", "0000:00:05.0"), -ECANCELED);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.all_stopped);
	assert_int_equal(rack.all_stopped, 1);
	assert_int_equal(rack.stage->model.shutdowns, 1);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_int_equal(nvme_drive_detach(d, rack_note_detached, NULL, &err), -EBUSY);
	/* As the disk does when it is destroyed. */
	bdev_release(bdev_find("nvme0n1"));
}

/* Whoever has attached it may be about to let go of it. */
static void test_end_of_an_empty_drive(void **state)
{
	struct nvme_drive *d;

	rack.stage->model.ns[0].blocks = 0;
	d = rack_attach();
	nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.all_stopped);
	assert_ptr_equal(nvme_drive_next(rack.drives, NULL), d);
	assert_false(nvme_drive_ready(d));
	nvme_drive_release(d);
}

static void test_end_without_drives(void **state)
{
	nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
	assert_int_equal(rack.all_stopped, 1);
}

/* The end comes while a drive is being attached: at each step of that. */
static void test_end_while_attaching(void **state)
{
	unsigned steps = *(unsigned *)*state;

	table_put_two(rack_disk(0), 512);
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), 0);
	for (unsigned i = 0; i < steps && !rack.last.done; i++)
		stage_step(rack.stage);
	nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.all_stopped);
	assert_int_equal(rack.last.done, 1);
	if (rack.last.rc)
		assert_int_equal(rack.last.rc, -ECANCELED);
	/* A bdev that is there has its controller. */
	assert_true(!bdev_next(NULL) || nvme_drive_next(rack.drives, NULL));
}

static void test_end_at_each_step(void **state)
{
	unsigned cancelled = 0, attached = 0;

	for (unsigned steps = 0; steps < 4000; steps += 37) {
		void *none = NULL, *arg = &steps;

		rack_setup(&none);
		test_end_while_attaching(&arg);
		if (rack.last.rc)
			cancelled++;
		else
			attached++;
		rack_teardown(&none);
	}
	if (cancelled < 10 || attached < 3)
		fail_msg("%u were cancelled, %u attached", cancelled, attached);
}

static void test_end_while_detaching(void **state)
{
	struct nvme_drive *d = rack_attach();
	struct err err;

	assert_int_equal(nvme_drive_detach(d, rack_note_detached, NULL, &err), 0);
	assert_int_equal(nvme_drive_detach(d, rack_note_detached, NULL, &err), -EBUSY);
	nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.all_stopped);
	assert_int_equal(rack.detached, 1);
	assert_null(nvme_drive_next(rack.drives, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_attach, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_names, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_no_host, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_start_fails, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_name_is_taken, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_several_namespaces, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_no_namespace, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_detach_in_reset, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_namespaces_change, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_health_event, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_pulled, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_end, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_end_of_an_empty_drive, rack_setup,
						rack_teardown),
		cmocka_unit_test_setup_teardown(test_end_without_drives, rack_setup, rack_teardown),
		cmocka_unit_test(test_end_at_each_step),
		cmocka_unit_test_setup_teardown(test_end_while_detaching, rack_setup,
						rack_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
