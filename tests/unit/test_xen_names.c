/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of virtual disks, and targets as toolstacks write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "xen/vbd.h"
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
	char bdev[64], instance[64];
	bool shared;

	assert_true(vbd_parse_target("data", bdev, instance, &shared));
	assert_string_equal(bdev, "data");
	assert_string_equal(instance, "");
	assert_false(shared);
	assert_true(vbd_parse_target("data@blue,shared", bdev, instance, &shared));
	assert_string_equal(bdev, "data");
	assert_string_equal(instance, "blue");
	assert_true(shared);
}

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
		"a b",
		"data@blue@green",
		"-data",
		"../etc/passwd",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aa",
	};
	char bdev[64], instance[64];
	bool shared;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (vbd_parse_target(bad[i], bdev, instance, &shared))
			fail_msg("'%s' was taken for a target", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_ids_of_virtual_disks),
		cmocka_unit_test(what_names_no_virtual_disk),
		cmocka_unit_test(targets),
		cmocka_unit_test(what_is_no_target),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
