/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Partitions of drives: which bdevs come of which tables, damaged ones too, and what becomes of
 * them when a table is read anew while disks are in use.
 */
#include <errno.h>
#include <string.h>

#include "bdev/bdev.h"
#include "nvme/bdev_nvme.h"
#include "rack.h"
#include "table.h"

static void expect_parts(uint32_t block_size)
{
	struct bdev *whole = bdev_find("nvme0n1"), *one = bdev_find("nvme0n1p1"),
		    *three = bdev_find("nvme0n1p3");

	assert_non_null(whole);
	assert_non_null(one);
	assert_non_null(three);
	assert_ptr_equal(one->whole, whole);
	assert_int_equal(one->size, 64 * block_size);
	assert_int_equal(one->part, 1);
	assert_string_equal(one->label, "a");
	assert_string_equal(one->owner, "nvme0");
	assert_int_equal(three->part, 3);
	assert_string_equal(three->label, "b");
	assert_null(bdev_find("nvme0n1p2"));
}

static void test_partitions(void **state)
{
	uint32_t block_size = *(uint32_t *)*state;
	struct bdev *part;
	struct nvme_drive *d;
	struct err err;

	table_put_two(rack_disk(0), block_size);
	d = rack_attach();
	expect_parts(block_size);
	part = bdev_find("nvme0n1p3");
	assert_int_equal(bdev_claim(part, true, false, &err), -EBUSY);
	nvme_drive_release(d);
	assert_int_equal(bdev_claim(part, true, false, &err), 0);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_non_null(strstr(err.text, "nvme0n1p3"));
	/* Nothing of the attempt is left. */
	assert_int_equal(bdev_claim(bdev_find("nvme0n1p1"), true, false, &err), 0);
	bdev_release(bdev_find("nvme0n1p1"));
	bdev_release(part);
	rack_detach(d);
}

static void test_damaged_tables(void **state)
{
	static const struct model_fault bad_block = {
		.kind = FAULT_STATUS,
		.opcode = NVME_CMD_READ,
		.skip = 1,
		.times = 1,
		.status = NVME_SC_UNRECOVERED_READ | NVME_STATUS_DNR,
	};
	uint8_t *disk = rack_disk(0);
	struct nvme_drive *d;

	/* The header; its entries; its block. */
	table_put_two(disk, 512);
	disk[512 + 60] ^= 1;
	d = rack_attach();
	expect_parts(512);
	nvme_drive_release(d);
	rack_detach(d);

	table_put_two(disk, 512);
	disk[2 * 512 + 40] ^= 1;
	d = rack_attach();
	expect_parts(512);
	nvme_drive_release(d);
	rack_detach(d);

	table_put_two(disk, 512);
	model_add_fault(&rack.stage->model, &bad_block);
	d = rack_attach();
	expect_parts(512);
	nvme_drive_release(d);
	rack_detach(d);

	/* Whether there is to be a table, nobody else can tell. */
	rack.stage->model.faults[0].skip = 0;
	rack.stage->model.faults[0].hits = 0;
	rack.stage->model.faults[0].times = 1;
	table_put_two(disk, 512);
	d = rack_attach();
	rack_expect_no_parts();
	nvme_drive_release(d);
	rack_detach(d);

	/* Both. */
	disk[512 + 60] ^= 1;
	disk[(RACK_BLOCKS - 1) * 512 + 60] ^= 1;
	d = rack_attach();
	rack_expect_no_parts();
	nvme_drive_release(d);
	rack_detach(d);

	/* The copy counts only if there is to be a table. */
	table_put_two(disk, 512);
	disk[511] = 0;
	d = rack_attach();
	rack_expect_no_parts();
	nvme_drive_release(d);
}

static void test_unreadable(void **state)
{
	static const struct model_fault bad = {
		.kind = FAULT_STATUS,
		.opcode = NVME_CMD_READ,
		.times = 100,
		.status = NVME_SC_UNRECOVERED_READ | NVME_STATUS_DNR,
	};
	struct nvme_drive *d;

	table_put_two(rack_disk(0), 512);
	model_add_fault(&rack.stage->model, &bad);
	d = rack_attach();
	rack_expect_no_parts();
	nvme_drive_release(d);
	assert_int_equal(bdev_claim(bdev_find("nvme0n1"), true, false, NULL), 0);
	bdev_release(bdev_find("nvme0n1"));
}

static void test_pulled_while_its_table_is_read(void **state)
{
	static const struct model_fault lose = {
		.kind = FAULT_LOSE,
		.opcode = NVME_CMD_READ,
		.times = 1000,
	};
	struct nvme_drive *d;

	table_put_two(rack_disk(0), 512);
	model_add_fault(&rack.stage->model, &lose);
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), 0);
	stage_until(rack.stage, NSEC_PER_SEC, bdev_find("nvme0n1"));
	stage_wait(rack.stage, 10 * NSEC_PER_MSEC);
	rack.stage->model.removed = true;
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.last.done);
	assert_int_equal(rack.last.rc, 0);
	d = rack.last.drive;
	nvme_drive_release(d);
	stage_wait(rack.stage, NSEC_PER_SEC);
	rack_detach(d);
}

static struct {
	struct nvme_rescan rescan;
	unsigned done;
	int rc;
	struct err err;
} look;

static void looked(struct nvme_rescan *r, int rc, const struct err *err)
{
	look.done++;
	look.rc = rc;
	if (rc)
		look.err = *err;
}

static int rescan(struct nvme_drive *d)
{
	struct err err;

	look.done = 0;
	look.rescan.done = looked;
	assert_int_equal(nvme_drive_rescan(d, &look.rescan, &err), 0);
	/* Nothing else is begun meanwhile. */
	assert_int_equal(nvme_drive_rescan(d, &look.rescan, &err), -EBUSY);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, look.done);
	assert_int_equal(look.done, 1);
	return look.rc;
}

static void test_rescan(void **state)
{
	static const struct table_part second[] = {{2, 128, 191, 'c'}, {4, 192, 255, 'd'}};
	static const struct table_part third[] = {{2, 64, 127, 'c'}, {4, 192, 255, 'e'}};
	uint32_t block_size = *(uint32_t *)*state;
	uint8_t *disk = rack_disk(0);
	struct bdev *three, *four;
	struct nvme_drive *d;
	struct err err;

	table_put_two(disk, block_size);
	d = rack_attach();
	nvme_drive_release(d);
	three = bdev_find("nvme0n1p3");
	assert_int_equal(bdev_claim(three, true, false, &err), 0);
	/* As it was. */
	assert_int_equal(rescan(d), 0);
	expect_parts(block_size);
	assert_ptr_equal(bdev_find("nvme0n1p3"), three);

	/* What is in use stays, and what would share blocks with it is not there. */
	table_put(disk, block_size, second, 2);
	assert_int_equal(rescan(d), 0);
	assert_null(bdev_find("nvme0n1p1"));
	assert_null(bdev_find("nvme0n1p2"));
	assert_ptr_equal(bdev_find("nvme0n1p3"), three);
	four = bdev_find("nvme0n1p4");
	assert_non_null(four);
	assert_int_equal(four->size, 64 * block_size);
	assert_string_equal(four->owner, "nvme0");
	bdev_release(three);
	assert_int_equal(rescan(d), 0);
	assert_null(bdev_find("nvme0n1p3"));
	assert_int_equal(bdev_nvme_start(bdev_find("nvme0n1p2")), 128 * block_size);
	assert_ptr_equal(bdev_find("nvme0n1p4"), four);

	/* One lies elsewhere, one has another name. All of it belongs to a disk meanwhile. */
	table_put(disk, block_size, third, 2);
	assert_int_equal(bdev_claim(bdev_find("nvme0n1"), true, false, &err), 0);
	assert_int_equal(rescan(d), 0);
	assert_int_equal(bdev_nvme_start(bdev_find("nvme0n1p2")), 64 * block_size);
	assert_string_equal(bdev_find("nvme0n1p4")->label, "e");
	assert_int_equal(bdev_claim(bdev_find("nvme0n1p2"), true, false, &err), -EBUSY);
	bdev_release(bdev_find("nvme0n1"));

	/* What cannot be read changes nothing. */
	disk[block_size + 60] ^= 1;
	disk[(RACK_BLOCKS - 1) * (uint64_t)block_size + 60] ^= 1;
	assert_int_equal(rescan(d), -EINVAL);
	assert_non_null(strstr(look.err.text, "the copy are damaged"));
	assert_non_null(bdev_find("nvme0n1p2"));
	/* No table at all has no partitions. */
	disk[511] = 0;
	assert_int_equal(rescan(d), 0);
	rack_expect_no_parts();
	rack_detach(d);
}

static void test_stop_ends_a_rescan(void **state)
{
	struct nvme_drive *d;
	struct err err;

	table_put_two(rack_disk(0), 512);
	d = rack_attach();
	nvme_drive_release(d);
	look.done = 0;
	look.rescan.done = looked;
	assert_int_equal(nvme_drive_rescan(d, &look.rescan, &err), 0);
	nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.all_stopped);
	assert_int_equal(look.done, 1);
}

int main(void)
{
	static uint32_t small = 512, large = 4096;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate_setup_teardown(test_partitions, rack_setup, rack_teardown,
							 &small),
		cmocka_unit_test_prestate_setup_teardown(test_partitions, rack_setup, rack_teardown,
							 &large),
		cmocka_unit_test_prestate_setup_teardown(test_rescan, rack_setup, rack_teardown,
							 &small),
		cmocka_unit_test_prestate_setup_teardown(test_rescan, rack_setup, rack_teardown,
							 &large),
		cmocka_unit_test_setup_teardown(test_stop_ends_a_rescan, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_damaged_tables, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_unreadable, rack_setup, rack_teardown),
		cmocka_unit_test_setup_teardown(test_pulled_while_its_table_is_read, rack_setup,
						rack_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
