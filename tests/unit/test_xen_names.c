/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of virtual disks, and targets as toolstacks write them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "xen/target.h"
#include "xen/vdev.h"

static void names_and_ids_of_virtual_disks(void **state)
{
	static const struct {
		const char *name;
		uint32_t devid;
	} known[] = {
		{"xvda", 51712},
		{"xvdb", 51728},
		{"xvda1", 51713},
		{"xvdp15", 51967},
		{"hda", 768},
		{"hdb1", 833},
		{"hdc", 5632},
		{"sda", 2048},
		{"sdb2", 2066},
		{"xvdq", 1u << 28 | 16 << 8},
		{"xvdaa", 1u << 28 | 26 << 8},
		{"xvda16", 1u << 28 | 16},
	};
	char name[32];
	uint32_t devid;

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		assert_true(vdev_parse(known[i].name, &devid));
		assert_int_equal(devid, known[i].devid);
		vdev_format(devid, name, sizeof(name));
		assert_string_equal(name, known[i].name);
	}
	assert_true(vdev_parse("51712", &devid) && devid == 51712);
	assert_true(vdev_parse("0xca00", &devid) && devid == 51712);
	vdev_format(1234567, name, sizeof(name));
	assert_string_equal(name, "1234567");
}

static void what_names_no_virtual_disk(void **state)
{
	static const char *const bad[] = {
		"",      "xvd",   "xvdA",   "xvda01",    "xvda256", "xvdaaaa",      "hde",
		"hda64", "sdq",   "sda16",  "0x",        "0xzz",    "12a",          "4294967296",
		"-1",    "xvda ", "xvda1x", "/dev/xvda", "nvme0n1", "0x1234567890",
	};
	uint32_t devid;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (vdev_parse(bad[i], &devid))
			fail_msg("'%s' was taken for a virtual disk", bad[i]);
}

static void targets(void **state)
{
	struct target t;
	struct err err;

	assert_int_equal(target_parse("data", &t, &err), 0);
	assert_string_equal(t.bdev, "data");
	assert_string_equal(t.instance, "");
	assert_false(t.shared);
	assert_int_equal(t.sharing, TARGET_SHARING_AUTO);
	assert_int_equal(t.on_error, BLKIF_ERROR_REPORT);
	assert_int_equal(t.ios_per_sec | t.bytes_per_sec, 0);
	assert_int_equal(target_parse("data@blue,shared", &t, &err), 0);
	assert_string_equal(t.bdev, "data");
	assert_string_equal(t.instance, "blue");
	assert_true(t.shared);
	assert_int_equal(
		target_parse("d,bandwidth=3M,iops=500,on-error=retry:60,sharing=map", &t, &err), 0);
	assert_int_equal(t.bytes_per_sec, 3 << 20);
	assert_int_equal(t.ios_per_sec, 500);
	assert_int_equal(t.on_error, BLKIF_ERROR_RETRY);
	assert_int_equal(t.retry_s, 60);
	assert_int_equal(t.sharing, TARGET_SHARING_MAP);
	assert_false(t.not_persistent);
	assert_int_equal(target_parse("d,sharing=dma,persistent=no", &t, &err), 0);
	assert_int_equal(t.sharing, TARGET_SHARING_DMA);
	assert_true(t.not_persistent);
	assert_int_equal(target_parse("d,persistent=yes", &t, &err), 0);
	assert_false(t.not_persistent);
}

/* What is written is what was read. */
static void targets_there_and_back(void **state)
{
	static const char *const texts[] = {
		"data",
		"data@blue,shared",
		"data,sharing=copy,on-error=stop",
		"data,sharing=dma",
		"data,sharing=map,persistent=no,iops=1",
		"data@blue,shared,sharing=map,on-error=retry:86400,iops=9223372036854775807,"
		"bandwidth=9223372036854775807",
	};

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char text[TARGET_MAX];
		struct target t;
		struct err err;

		assert_int_equal(target_parse(texts[i], &t, &err), 0);
		target_format(&t, text);
		assert_string_equal(text, texts[i]);
	}
}

#define NAME_63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void what_is_no_target(void **state)
{
	static const char *const bad[] = {
		"",
		",shared",
		"@blue",
		"data@",
		"data,",
		"data,rw",
		"data,shared,shared",
		"data,shared=1",
		"data,sharing",
		"data,sharing=",
		"data,sharing=mapped",
		"data,persistent",
		"data,persistent=",
		"data,persistent=1",
		"data,persistent=no,persistent=no",
		"data,on-error=retry",
		"data,on-error=retry:0",
		"data,on-error=retry:86401",
		"data,on-error=stop:1",
		"data,iops=",
		"data,iops=-1",
		"data,iops=9223372036854775808",
		"data,bandwidth=1X",
		"data,bandwidth=8388608T",
		"a b",
		"data@blue@green",
		"-data",
		"../etc/passwd",
		NAME_63 "a",
		NAME_63 "," NAME_63 "," NAME_63 "," NAME_63,
	};
	struct target t;
	struct err err;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (!target_parse(bad[i], &t, &err))
			fail_msg("'%s' was taken for a target", bad[i]);
	/* Whose it is can be told even so. */
	assert_int_equal(target_parse("data@blue,rw", &t, &err), -EINVAL);
	assert_string_equal(t.instance, "blue");
	assert_string_equal(err.text, "no option is named 'rw': there are shared, sharing=, "
				      "persistent=, on-error=, iops= and bandwidth=");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_ids_of_virtual_disks),
		cmocka_unit_test(what_names_no_virtual_disk),
		cmocka_unit_test(targets),
		cmocka_unit_test(targets_there_and_back),
		cmocka_unit_test(what_is_no_target),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
