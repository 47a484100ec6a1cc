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
#include "nvme/bdev_nvme.h"
#include "nvme/drive.h"
#include "stage.h"

enum { BLOCKS = 1024 };
#define ADDRESS "0000:00:04.0"

static struct stage *s;
static struct nvme_drives *drives;
static struct {
	unsigned opened, closed;
	unsigned dmas;
	int entered; /* more often than left */
	int open_rc, enter_rc, dma_rc;
} host;
static struct {
	struct nvme_attach attach;
	unsigned done;
	int rc;
	struct nvme_drive *drive;
	struct err err;
} last;
static unsigned detached, all_stopped;

/* The host */

static int dma_create(void *arg, struct dma **out, struct err *err)
{
	if (host.dma_rc)
		return err_set(err, host.dma_rc, "no such memory");
	host.dmas++;
	*out = &s->mem.dma;
	return 0;
}

static void dma_destroy(void *arg, struct dma *dma)
{
	assert_ptr_equal(dma, &s->mem.dma);
	assert_int_equal(dma_double_used(&s->mem), 0);
	host.dmas--;
}

static const struct nvme_pci_ops *model_ops;
static struct nvme_pci_ops counted_ops;

static void count_close(struct nvme_pci *pci)
{
	/* Nothing may be cut off before it is stopped. */
	assert_true(s->model.removed || !(s->model.cc & NVME_CC_EN) ||
		    !model_bus_master(&s->model));
	host.closed++;
}

static int open_drive(void *arg, const char *address, struct dma *dma, struct nvme_pci **out,
		      struct err *err)
{
	if (host.open_rc)
		return err_set(err, host.open_rc, "no such drive");
	assert_string_equal(address, ADDRESS);
	assert_ptr_equal(dma, &s->mem.dma);
	assert_false(model_bus_master(&s->model));
	host.opened++;
	*out = &s->model.pci;
	return 0;
}

static int enter(void *arg, const char *address, struct err *err)
{
	if (host.enter_rc)
		return err_set(err, host.enter_rc, "one too many");
	assert_false(model_bus_master(&s->model));
	host.entered++;
	return 0;
}

static void leave(void *arg, const char *address)
{
	assert_string_equal(address, ADDRESS);
	assert_int_equal(host.closed, host.opened);
	host.entered--;
}

static const struct nvme_ways ways = {dma_create, dma_destroy, open_drive, enter, leave, NULL};

static int setup(void **state)
{
	uint32_t block_size = *state ? *(uint32_t *)*state : 512;

	s = stage_create(block_size);
	model_ops = s->model.pci.ops;
	counted_ops = *model_ops;
	counted_ops.close = count_close;
	s->model.pci.ops = &counted_ops;
	memset(&host, 0, sizeof(host));
	memset(&last, 0, sizeof(last));
	detached = all_stopped = 0;
	assert_int_equal(nvme_drives_create(&ways, s->home, STAGE_REACTORS, &drives), 0);
	return 0;
}

static void note_all_stopped(void *arg)
{
	all_stopped++;
}

static int teardown(void **state)
{
	if (!all_stopped) {
		nvme_drives_stop(drives, note_all_stopped, NULL);
		stage_until(s, 200 * NSEC_PER_SEC, all_stopped);
	}
	bdev_delete_all();
	nvme_drives_destroy(drives);
	assert_int_equal(host.opened, host.closed);
	assert_int_equal(host.entered, 0);
	assert_int_equal(host.dmas, 0);
	stage_destroy(s);
	return 0;
}

/* Another drive, or the same one after its power was gone. */
static void power_cycle(void)
{
	s->model.removed = s->model.never_ready = false;
	s->model.cc = 0;
	memset(s->model.config + NVME_PCI_COMMAND, 0, 2);
	model_power_on(&s->model);
}

/* Drives */

static void done(struct nvme_attach *a, int rc, struct nvme_drive *d, const struct err *err)
{
	last.done++;
	last.rc = rc;
	last.drive = d;
	if (rc)
		last.err = *err;
}

static int begin(const char *name, const char *address)
{
	last.done = 0;
	last.attach.done = done;
	return nvme_drive_attach(drives, name, address, &last.attach, &last.err);
}

static struct nvme_drive *attach(void)
{
	assert_int_equal(begin("nvme0", ADDRESS), 0);
	stage_until(s, 200 * NSEC_PER_SEC, last.done);
	assert_int_equal(last.rc, 0);
	return last.drive;
}

static void attach_fails(int rc, const char *text)
{
	assert_int_equal(begin("nvme0", ADDRESS), 0);
	stage_until(s, 200 * NSEC_PER_SEC, last.done);
	assert_int_equal(last.rc, rc);
	if (!strstr(last.err.text, text))
		fail_msg("\"%s\" does not say \"%s\"", last.err.text, text);
	assert_null(last.drive);
	assert_null(nvme_drive_next(drives, NULL));
	assert_null(bdev_next(NULL));
	assert_int_equal(host.opened, host.closed);
	assert_int_equal(host.entered, 0);
	assert_int_equal(dma_double_used(&s->mem), 0);
}

static void note_detached(void *arg)
{
	detached++;
}

static void detach(struct nvme_drive *d)
{
	unsigned before = detached;
	struct err err;

	assert_int_equal(nvme_drive_hold(d, &err), 0);
	assert_int_equal(nvme_drive_detach(d, note_detached, NULL, &err), 0);
	assert_null(bdev_next(NULL));
	stage_until(s, 200 * NSEC_PER_SEC, detached > before);
	assert_null(nvme_drive_find(drives, "nvme0"));
	assert_int_equal(dma_double_used(&s->mem), 0);
	assert_int_equal(host.opened, host.closed);
}

/* Tables */

static uint32_t crc32(const uint8_t *p, size_t len)
{
	uint32_t crc = UINT32_MAX;

	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
	}
	return ~crc;
}

static void put(uint8_t *p, uint64_t value, size_t len)
{
	memcpy(p, &value, len);
}

static void put_header(uint8_t *disk, uint32_t block_size, uint64_t lba, uint64_t entries_lba)
{
	uint8_t *h = disk + lba * block_size;

	memcpy(h, "EFI PART", 8);
	put(h + 8, 0x10000, 4);
	put(h + 12, 92, 4);
	put(h + 24, lba, 8);
	put(h + 40, 40, 8);
	put(h + 48, BLOCKS - 41, 8);
	put(h + 72, entries_lba, 8);
	put(h + 80, 4, 4);
	put(h + 84, 128, 4);
	put(h + 88, crc32(disk + entries_lba * block_size, 512), 4);
	put(h + 16, 0, 4);
	put(h + 16, crc32(h, 92), 4);
}

struct part {
	unsigned number;
	uint64_t first, last; /* blocks */
	char name;
};

/* A table, and the copy of it. */
static void put_parts(uint8_t *disk, uint32_t block_size, const struct part *parts, unsigned n)
{
	disk[446 + 4] = 0xee;
	disk[446 + 8] = 1;
	disk[510] = 0x55;
	disk[511] = 0xaa;
	for (int copy = 0; copy < 2; copy++) {
		uint64_t entries_lba = copy ? BLOCKS - 20 : 2;

		memset(disk + entries_lba * block_size, 0, 512);
		for (unsigned i = 0; i < n; i++) {
			uint8_t *e = disk + entries_lba * block_size + (parts[i].number - 1) * 128;

			e[0] = 1;
			put(e + 32, parts[i].first, 8);
			put(e + 40, parts[i].last, 8);
			e[56] = (uint8_t)parts[i].name;
		}
		put_header(disk, block_size, copy ? BLOCKS - 1 : 1, entries_lba);
	}
}

/* One with partitions 1, of blocks 64 to 127, and 3, of 128 to 191. */
static void put_table(uint8_t *disk, uint32_t block_size)
{
	static const struct part parts[] = {{1, 64, 127, 'a'}, {3, 128, 191, 'b'}};

	put_parts(disk, block_size, parts, 2);
}

/* The bytes of a namespace of the model, which makes them when they are first written otherwise. */
static uint8_t *disk_of(unsigned nr)
{
	struct model_namespace *ns = &s->model.ns[nr];

	if (!ns->data)
		ns->data = calloc(ns->blocks, ns->block_size);
	assert_non_null(ns->data);
	return ns->data;
}

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

static void expect_no_parts(void)
{
	const struct bdev *b = bdev_next(NULL);

	assert_non_null(b);
	assert_string_equal(b->name, "nvme0n1");
	assert_null(bdev_next(b));
}

/* Tests */

static void test_attach(void **state)
{
	struct nvme_drive *d;
	struct bdev *b;
	struct err err;

	assert_int_equal(begin("nvme0", ADDRESS), 0);
	/* Not yet. */
	assert_int_equal(last.done, 0);
	assert_int_equal(host.entered, 1);
	d = nvme_drive_find(drives, "nvme0");
	assert_non_null(d);
	assert_false(nvme_drive_ready(d));
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	stage_until(s, NSEC_PER_SEC, last.done);
	assert_int_equal(last.rc, 0);
	assert_ptr_equal(last.drive, d);
	assert_true(nvme_drive_ready(d));
	assert_string_equal(nvme_drive_name(d), "nvme0");
	assert_string_equal(nvme_drive_address(d), ADDRESS);
	expect_no_parts();
	b = bdev_find("nvme0n1");
	assert_string_equal(b->owner, "nvme0");
	assert_null(b->whole);
	assert_int_equal(b->size, BLOCKS * 512);

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
	detach(d);
	assert_int_equal(s->model.shutdowns, 1);

	/* As good as new. */
	d = attach();
	nvme_drive_release(d);
	expect_no_parts();
	assert_int_equal(host.dmas, 1);
}

static void test_partitions(void **state)
{
	uint32_t block_size = *(uint32_t *)*state;
	struct bdev *part;
	struct nvme_drive *d;
	struct err err;

	put_table(disk_of(0), block_size);
	d = attach();
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
	detach(d);
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
	uint8_t *disk = disk_of(0);
	struct nvme_drive *d;

	/* The header; its entries; its block. */
	put_table(disk, 512);
	disk[512 + 60] ^= 1;
	d = attach();
	expect_parts(512);
	nvme_drive_release(d);
	detach(d);

	put_table(disk, 512);
	disk[2 * 512 + 40] ^= 1;
	d = attach();
	expect_parts(512);
	nvme_drive_release(d);
	detach(d);

	put_table(disk, 512);
	model_add_fault(&s->model, &bad_block);
	d = attach();
	expect_parts(512);
	nvme_drive_release(d);
	detach(d);

	/* Whether there is to be a table, nobody else can tell. */
	s->model.faults[0].skip = 0;
	s->model.faults[0].hits = 0;
	s->model.faults[0].times = 1;
	put_table(disk, 512);
	d = attach();
	expect_no_parts();
	nvme_drive_release(d);
	detach(d);

	/* Both. */
	disk[512 + 60] ^= 1;
	disk[(BLOCKS - 1) * 512 + 60] ^= 1;
	d = attach();
	expect_no_parts();
	nvme_drive_release(d);
	detach(d);

	/* The copy counts only if there is to be a table. */
	put_table(disk, 512);
	disk[511] = 0;
	d = attach();
	expect_no_parts();
	nvme_drive_release(d);
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
	stage_until(s, 200 * NSEC_PER_SEC, look.done);
	assert_int_equal(look.done, 1);
	return look.rc;
}

static void test_rescan(void **state)
{
	static const struct part second[] = {{2, 128, 191, 'c'}, {4, 192, 255, 'd'}};
	static const struct part third[] = {{2, 64, 127, 'c'}, {4, 192, 255, 'e'}};
	uint32_t block_size = *(uint32_t *)*state;
	uint8_t *disk = disk_of(0);
	struct bdev *three, *four;
	struct nvme_drive *d;
	struct err err;

	put_table(disk, block_size);
	d = attach();
	nvme_drive_release(d);
	three = bdev_find("nvme0n1p3");
	assert_int_equal(bdev_claim(three, true, false, &err), 0);
	/* As it was. */
	assert_int_equal(rescan(d), 0);
	expect_parts(block_size);
	assert_ptr_equal(bdev_find("nvme0n1p3"), three);

	/* What is in use stays, and what would share blocks with it is not there. */
	put_parts(disk, block_size, second, 2);
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
	put_parts(disk, block_size, third, 2);
	assert_int_equal(bdev_claim(bdev_find("nvme0n1"), true, false, &err), 0);
	assert_int_equal(rescan(d), 0);
	assert_int_equal(bdev_nvme_start(bdev_find("nvme0n1p2")), 64 * block_size);
	assert_string_equal(bdev_find("nvme0n1p4")->label, "e");
	assert_int_equal(bdev_claim(bdev_find("nvme0n1p2"), true, false, &err), -EBUSY);
	bdev_release(bdev_find("nvme0n1"));

	/* What cannot be read changes nothing. */
	disk[block_size + 60] ^= 1;
	disk[(BLOCKS - 1) * (uint64_t)block_size + 60] ^= 1;
	assert_int_equal(rescan(d), -EINVAL);
	assert_non_null(strstr(look.err.text, "the copy are damaged"));
	assert_non_null(bdev_find("nvme0n1p2"));
	/* No table at all has no partitions. */
	disk[511] = 0;
	assert_int_equal(rescan(d), 0);
	expect_no_parts();
	detach(d);
}

static void test_stop_ends_a_rescan(void **state)
{
	struct nvme_drive *d;
	struct err err;

	put_table(disk_of(0), 512);
	d = attach();
	nvme_drive_release(d);
	look.done = 0;
	look.rescan.done = looked;
	assert_int_equal(nvme_drive_rescan(d, &look.rescan, &err), 0);
	nvme_drives_stop(drives, note_all_stopped, NULL);
	stage_until(s, 200 * NSEC_PER_SEC, all_stopped);
	assert_int_equal(look.done, 1);
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

	put_table(disk_of(0), 512);
	model_add_fault(&s->model, &bad);
	d = attach();
	expect_no_parts();
	nvme_drive_release(d);
	assert_int_equal(bdev_claim(bdev_find("nvme0n1"), true, false, NULL), 0);
	bdev_release(bdev_find("nvme0n1"));
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
		assert_int_equal(begin(names[i], ADDRESS), -EINVAL);
		assert_non_null(strstr(last.err.text, "is no name for a drive"));
	}
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		assert_int_equal(begin("nvme0", addresses[i]), -EINVAL);
	assert_int_equal(host.opened, 0);
	assert_int_equal(host.dmas, 0);
	/* The longest, by the shortest. */
	assert_int_equal(begin("1234567890123456789012345678901234567890", "00:04.0"), 0);
	/* Twice, even before it is there. */
	assert_int_equal(begin("nvme1", ADDRESS), -EEXIST);
	assert_non_null(strstr(last.err.text, "is attached already, as \"12345"));
	assert_int_equal(begin("1234567890123456789012345678901234567890", "0000:00:05.0"),
			 -EEXIST);
	assert_non_null(strstr(last.err.text, "there is a drive \"12345"));
	stage_until(s, NSEC_PER_SEC, last.done);
	d = last.drive;
	assert_non_null(bdev_find("1234567890123456789012345678901234567890n1"));
	assert_int_equal(begin("nvme1", ADDRESS), -EEXIST);
	nvme_drive_release(d);
}

static void test_no_host(void **state)
{
	host.dma_rc = -EOPNOTSUPP;
	assert_int_equal(begin("nvme0", ADDRESS), -EOPNOTSUPP);
	assert_string_equal(last.err.text, "no such memory");
	host.dma_rc = 0;
	host.open_rc = -ENODEV;
	assert_int_equal(begin("nvme0", ADDRESS), -ENODEV);
	host.open_rc = 0;
	host.enter_rc = -ENOSPC;
	assert_int_equal(begin("nvme0", ADDRESS), -ENOSPC);
	assert_int_equal(host.opened, 1);
	assert_int_equal(host.closed, 1);
	host.enter_rc = 0;
	assert_null(nvme_drive_next(drives, NULL));
	assert_int_equal(last.done, 0);
	nvme_drive_release(attach());
}

static void test_start_fails(void **state)
{
	s->model.never_ready = true;
	attach_fails(-ETIMEDOUT, "does not get ready");
	power_cycle();
	nvme_drive_release(attach());
}

/* A bdev of somebody's has the name that a namespace is to have. */
static void test_name_is_taken(void **state)
{
	struct err err;

	s->model.ns[1] = (struct model_namespace){.block_size = 512, .blocks = BLOCKS};
	disk_of(1);
	put_table(disk_of(0), 512);
	assert_int_equal(bdev_null_create("nvme0n2", 4096, 512, NULL, &err), 0);
	assert_int_equal(begin("nvme0", ADDRESS), 0);
	stage_until(s, 200 * NSEC_PER_SEC, last.done);
	assert_int_equal(last.rc, -EEXIST);
	assert_non_null(strstr(last.err.text, "a bdev \"nvme0n2\" already"));
	assert_string_equal(bdev_next(NULL)->name, "nvme0n2");
	assert_null(nvme_drive_next(drives, NULL));
	assert_int_equal(s->model.shutdowns, 1);
	assert_int_equal(host.closed, 1);
	assert_int_equal(host.entered, 0);
	assert_int_equal(bdev_delete("nvme0n2", &err), 0);
	nvme_drive_release(attach());
}

static void test_no_namespace(void **state)
{
	struct nvme_drive *d;
	struct err err;

	s->model.ns[0].blocks = 0;
	d = attach();
	assert_null(bdev_next(NULL));
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	nvme_drive_release(d);
	detach(d);
}

/* The controller comes back from a reset when the drive is on its way out. */
static void test_detach_in_reset(void **state)
{
	struct nvme_drive *d = attach();

	nvme_drive_release(d);
	nvme_ctrl_reset(nvme_drive_ctrl(d), "for a test");
	detach(d);
	assert_null(bdev_next(NULL));
	assert_int_equal(s->model.resets, 2);
}

static void test_several_namespaces(void **state)
{
	struct nvme_drive *d;

	s->model.ns[1] = (struct model_namespace){.block_size = 4096, .blocks = BLOCKS};
	/* One that cannot be served does not keep the others from it. */
	s->model.ns[2] = (struct model_namespace){.block_size = 512, .blocks = 8, .metadata = 8};
	put_table(disk_of(1), 4096);
	d = attach();
	assert_non_null(bdev_find("nvme0n1"));
	assert_non_null(bdev_find("nvme0n2p1"));
	assert_null(bdev_find("nvme0n3"));
	nvme_drive_release(d);
	detach(d);
}

static void test_namespaces_change(void **state)
{
	struct nvme_drive *d = attach();
	struct bdev *first = bdev_find("nvme0n1");
	struct err err;

	s->model.ns[1] = (struct model_namespace){.block_size = 512, .blocks = BLOCKS};
	put_table(disk_of(1), 512);
	model_send_event(&s->model, NVME_LOG_CHANGED_NAMESPACES << 16 | 2);
	stage_until(s, NSEC_PER_SEC, bdev_find("nvme0n2"));
	/* What was there is for disks now; what has come is not, as its table is being read. */
	nvme_drive_release(d);
	assert_int_equal(bdev_claim(first, true, false, &err), 0);
	assert_int_equal(bdev_claim(bdev_find("nvme0n2"), true, false, &err), -EBUSY);
	bdev_release(first);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_non_null(strstr(err.text, "try again"));
	stage_until(s, NSEC_PER_SEC, bdev_find("nvme0n2p3"));
	assert_int_equal(bdev_claim(bdev_find("nvme0n2p1"), true, false, &err), 0);
	bdev_release(bdev_find("nvme0n2p1"));

	/* One grows under its disk. */
	assert_int_equal(bdev_claim(first, true, false, &err), 0);
	s->model.ns[0].data = realloc(disk_of(0), 2 * BLOCKS * 512);
	s->model.ns[0].blocks = 2 * BLOCKS;
	model_send_event(&s->model, NVME_LOG_CHANGED_NAMESPACES << 16 | 2);
	stage_until(s, NSEC_PER_SEC, first->size == 2 * BLOCKS * 512);
	bdev_release(first);
	stage_wait(s, NSEC_PER_MSEC);
	detach(d);
}

/* An event has the log read, once for all that come meanwhile. */
static void test_health_event(void **state)
{
	struct nvme_drive *d = attach();
	unsigned *reads = &s->model.commands[1][NVME_ADMIN_GET_LOG_PAGE], before = *reads, once;

	nvme_drive_release(d);
	model_send_event(&s->model, NVME_LOG_SMART << 16 | 1 << 8 | 1);
	stage_wait(s, 2 * NSEC_PER_SEC);
	once = *reads - before;
	assert_true(once >= 1);
	before = *reads;
	model_send_event(&s->model, NVME_LOG_SMART << 16 | 1 << 8 | 1);
	stage_wait(s, 2 * NSEC_PER_SEC);
	assert_int_equal(*reads - before, once);
	/* One that is on its way when the drive goes. */
	model_send_event(&s->model, NVME_LOG_SMART << 16 | 1 << 8 | 1);
	stage_until(s, 2 * NSEC_PER_SEC, *reads > before + once);
	detach(d);
}

static void test_pulled(void **state)
{
	struct nvme_drive *d = attach();

	nvme_drive_release(d);
	s->model.removed = true;
	stage_until(s, 200 * NSEC_PER_SEC, nvme_ctrl_state(nvme_drive_ctrl(d)) == NVME_DEAD);
	stage_wait(s, NSEC_PER_SEC);
	/* Its disks get errors, and it is there to be seen. */
	assert_non_null(bdev_find("nvme0n1"));
	assert_true(nvme_drive_ready(d));
	detach(d);
	power_cycle();
	nvme_drive_release(attach());
}

static void test_pulled_while_its_table_is_read(void **state)
{
	static const struct model_fault lose = {
		.kind = FAULT_LOSE,
		.opcode = NVME_CMD_READ,
		.times = 1000,
	};
	struct nvme_drive *d;

	put_table(disk_of(0), 512);
	model_add_fault(&s->model, &lose);
	assert_int_equal(begin("nvme0", ADDRESS), 0);
	stage_until(s, NSEC_PER_SEC, bdev_find("nvme0n1"));
	stage_wait(s, 10 * NSEC_PER_MSEC);
	s->model.removed = true;
	stage_until(s, 200 * NSEC_PER_SEC, last.done);
	assert_int_equal(last.rc, 0);
	d = last.drive;
	nvme_drive_release(d);
	stage_wait(s, NSEC_PER_SEC);
	detach(d);
}

/* The end comes with a drive that a disk still has claimed. */
static void test_end(void **state)
{
	struct nvme_drive *d = attach();
	struct err err;

	nvme_drive_release(d);
	assert_int_equal(bdev_claim(bdev_find("nvme0n1"), true, false, &err), 0);
	nvme_drives_stop(drives, note_all_stopped, NULL);
	assert_int_equal(all_stopped, 0);
	assert_int_equal(begin("nvme1", "0000:00:05.0"), -ECANCELED);
	stage_until(s, 200 * NSEC_PER_SEC, all_stopped);
	assert_int_equal(all_stopped, 1);
	assert_int_equal(s->model.shutdowns, 1);
	assert_int_equal(nvme_drive_hold(d, &err), -EBUSY);
	assert_int_equal(nvme_drive_detach(d, note_detached, NULL, &err), -EBUSY);
	/* As the disk does when it is destroyed. */
	bdev_release(bdev_find("nvme0n1"));
}

/* Whoever has attached it may be about to let go of it. */
static void test_end_of_an_empty_drive(void **state)
{
	struct nvme_drive *d;

	s->model.ns[0].blocks = 0;
	d = attach();
	nvme_drives_stop(drives, note_all_stopped, NULL);
	stage_until(s, 200 * NSEC_PER_SEC, all_stopped);
	assert_ptr_equal(nvme_drive_next(drives, NULL), d);
	assert_false(nvme_drive_ready(d));
	nvme_drive_release(d);
}

static void test_end_without_drives(void **state)
{
	nvme_drives_stop(drives, note_all_stopped, NULL);
	assert_int_equal(all_stopped, 1);
}

/* The end comes while a drive is being attached: at each step of that. */
static void test_end_while_attaching(void **state)
{
	unsigned steps = *(unsigned *)*state;

	put_table(disk_of(0), 512);
	assert_int_equal(begin("nvme0", ADDRESS), 0);
	for (unsigned i = 0; i < steps && !last.done; i++)
		stage_step(s);
	nvme_drives_stop(drives, note_all_stopped, NULL);
	stage_until(s, 200 * NSEC_PER_SEC, all_stopped);
	assert_int_equal(last.done, 1);
	if (last.rc)
		assert_int_equal(last.rc, -ECANCELED);
	/* A bdev that is there has its controller. */
	assert_true(!bdev_next(NULL) || nvme_drive_next(drives, NULL));
}

static void test_end_at_each_step(void **state)
{
	unsigned cancelled = 0, attached = 0;

	for (unsigned steps = 0; steps < 4000; steps += 37) {
		void *none = NULL, *arg = &steps;

		setup(&none);
		test_end_while_attaching(&arg);
		if (last.rc)
			cancelled++;
		else
			attached++;
		teardown(&none);
	}
	if (cancelled < 10 || attached < 3)
		fail_msg("%u were cancelled, %u attached", cancelled, attached);
}

static void test_end_while_detaching(void **state)
{
	struct nvme_drive *d = attach();
	struct err err;

	assert_int_equal(nvme_drive_detach(d, note_detached, NULL, &err), 0);
	assert_int_equal(nvme_drive_detach(d, note_detached, NULL, &err), -EBUSY);
	nvme_drives_stop(drives, note_all_stopped, NULL);
	stage_until(s, 200 * NSEC_PER_SEC, all_stopped);
	assert_int_equal(detached, 1);
	assert_null(nvme_drive_next(drives, NULL));
}

int main(void)
{
	static uint32_t small = 512, large = 4096;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
		cmocka_unit_test_prestate_setup_teardown(test_partitions, setup, teardown, &small),
		cmocka_unit_test_prestate_setup_teardown(test_partitions, setup, teardown, &large),
		cmocka_unit_test_prestate_setup_teardown(test_rescan, setup, teardown, &small),
		cmocka_unit_test_prestate_setup_teardown(test_rescan, setup, teardown, &large),
		cmocka_unit_test_setup_teardown(test_stop_ends_a_rescan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_start_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_several_namespaces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_namespace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detach_in_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_namespaces_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_health_event, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pulled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pulled_while_its_table_is_read, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_of_an_empty_drive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_without_drives, setup, teardown),
		cmocka_unit_test(test_end_at_each_step),
		cmocka_unit_test_setup_teardown(test_end_while_detaching, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
