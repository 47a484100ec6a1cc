/* SPDX-License-Identifier: BSD-2-Clause */
/* The command `sluice` about disks: attach, detach, pause, resume, limit and list. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "fake.h"
#include "sluice/disk.h"
#include "sluice/xl.h"

/* xl */

static void expect_target(const char *instance, const struct disk_options *o, const char *expected)
{
	char *target = disk_target("disk.1", instance, o);

	assert_string_equal(target, expected);
	free(target);
}

static void expect_spec(bool readonly, const char *expected)
{
	char *spec = xl_disk_spec("xvdb", readonly, "disk.1,shared");

	assert_string_equal(spec, expected);
	free(spec);
}

static void describes_disks_to_xl(void **state)
{
	static const char *const vdevs[] = {"xvda", "xvdzzz", "xvdq15", "hdb1",
					    "sda",  "51712",  "0"};
	static const char *const no_vdevs[] = {
		"",       "xvd",         "xvdabcd", "xvda1000", "nonsense", "vda",         "xvdA",
		"xvda1b", "-xvda",       "xvd1",    " xvda",    "xvda,x",   "xvd\xc3\xa4", "0x1",
		"1a",     "12345678901", "hd",      "xvda=",    "a",
	};

	expect_target("sluice", &(struct disk_options){0}, "disk.1");
	expect_target("fast", &(struct disk_options){.readonly = true}, "disk.1@fast");
	expect_target("sluice", &(struct disk_options){.shared = true}, "disk.1,shared");
	expect_target("fast", &(struct disk_options){.shared = true, .iops = 1},
		      "disk.1@fast,shared,iops=1");
	expect_target("sluice",
		      &(struct disk_options){.sharing = "map",
					     .persistent = "no",
					     .on_error = "retry:30",
					     .iops = UINT32_MAX,
					     .bandwidth = INT64_MAX},
		      "disk.1,sharing=map,persistent=no,on-error=retry:30,iops=4294967295,"
		      "bandwidth=9223372036854775807");
	expect_spec(false, "vdev=xvdb,script=block-sluice,access=rw,target=disk.1,shared");
	expect_spec(true, "vdev=xvdb,script=block-sluice,access=ro,target=disk.1,shared");
	for (size_t i = 0; i < sizeof(vdevs) / sizeof(vdevs[0]); i++)
		if (!xl_vdev_valid(vdevs[i]))
			fail_msg("'%s' was refused", vdevs[i]);
	for (size_t i = 0; i < sizeof(no_vdevs) / sizeof(no_vdevs[0]); i++)
		if (xl_vdev_valid(no_vdevs[i]))
			fail_msg("'%s' was taken", no_vdevs[i]);
}

static void attaches_by_xl(void **state)
{
	fake_expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	fake_expect("attach guest xvda disk", 0, "bdev disk attached to guest (domain 1) as xvda\n",
		    "");
	assert_string_equal(fake_file_text("xl.asked"),
			    "block-attach 1 vdev=xvda,script=block-sluice,access=rw,target=disk\n");
	assert_null(fake.last_params);
	/* It is there now: no second one. */
	fake_expect_error("attach 1 51712 disk", 1, "has 51712 already, which is bdev 'disk'");
	fake_expect_error("attach 1 xvda disk", 1,
			  "guest (domain 1) has xvda already, which is bdev 'disk'");
	fake_expect(
		"list", 0,
		"DOMAIN  ID  VDEV  BDEV  SIZE  ACCESS     STATE      FRONTEND   QUEUES  SHARING  "
		"ON-ERROR\n"
		"guest    1  xvda  disk    1M  rw,shared  Connected  Connected       1  copy     "
		"report\n",
		"");
	assert_int_equal(fake_run("list --json"), 0);
	assert_non_null(strstr(fake.out, "\"protocol\": \"x86_64-abi\""));
	fake_expect("detach guest xvda", 0, "xvda detached from guest (domain 1)\n", "");
	assert_string_equal(fake_file_text("xl.asked"), "block-detach 1 xvda\n");
	fake_expect_error("detach guest xvda", 1, "has no xvda of this sluiced");
	/* Options reach xl, and with --json the output is JSON only. */
	assert_int_equal(fake_run("--json --name fast attach 1 xvda disk --readonly --shared"), 0);
	assert_non_null(strstr(fake.out, "\"vdev\": \"xvda\""));
	assert_string_equal(fake_file_text("xl.asked"),
			    "block-attach 1 vdev=xvda,script=block-sluice,access=ro,target=disk@"
			    "fast,shared\n");
	fake_expect("detach 1 xvda --json", 0, "true\n", "");
	fake_expect("attach 1 xvda disk --on-error=stop --sharing copy --iops 500 --bandwidth 10M",
		    0, "bdev disk attached to guest (domain 1) as xvda\n", "");
	assert_string_equal(fake_file_text("xl.asked"),
			    "block-attach 1 vdev=xvda,script=block-sluice,access=rw,target=disk,"
			    "sharing=copy,on-error=stop,iops=500,bandwidth=10485760\n");
	fake_expect("detach 1 xvda --force --json", 0, "true\n", "");
	assert_string_equal(fake_file_text("xl.asked"), "block-detach --force 1 xvda\n");
	assert_null(fake.last_params);
}

static void checks_before_xl_runs(void **state)
{
	char line[256];

	fake_expect_error("attach nobody xvda disk", 1, "no domain 'nobody'");
	fake_expect_error("attach guest xvda disk", 1, "no bdev 'disk'");
	fake_make_file("disk.img", "");
	snprintf(line, sizeof(line), "%s/disk.img", fake.h.dir);
	assert_int_equal(truncate(line, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio fixed %s/disk.img --readonly", fake.h.dir);
	fake_expect(line, 0, "bdev fixed created\n", "");
	fake_expect_error("attach guest xvda fixed", 1,
			  "'fixed' is read-only: attach it with --readonly");
	fake_make_file("others", "");
	fake_expect("bdev create null own --size 1M", 0, "bdev own created\n", "");
	fake_expect("bdev create null common --size 1M", 0, "bdev common created\n", "");
	snprintf(line, sizeof(line), "%s/open.img", fake.h.dir);
	fake_make_file("open.img", "");
	assert_int_equal(truncate(line, 1 << 20), 0);
	snprintf(line, sizeof(line), "bdev create aio open %s/open.img --shared", fake.h.dir);
	fake_expect(line, 0, "bdev open created\n", "");
	fake_expect_error("attach guest xvda own", 1,
			  "'own' is in use as xvdx of other: detach that");
	fake_expect_error("attach guest xvda own --shared", 1, "'own' is in use as xvdx of other");
	fake_expect_error("attach guest xvda common", 1, "'common' is in use as xvdy of other");
	fake_expect_error("detach guest xvda", 1, "has no xvda of this sluiced");
	assert_false(fake_file_exists("xl.asked"));
	fake_expect("attach guest xvda common --shared", 0,
		    "bdev common attached to guest (domain 1) as xvda\n", "");
	assert_true(fake_file_exists("xl.asked"));
	fake_remove_file("attached");
	fake_expect("attach guest xvda open", 0, "bdev open attached to guest (domain 1) as xvda\n",
		    "");
	fake_remove_file("attached");
	setenv("PATH", ":/nowhere", 1);
	fake_expect_error("attach guest xvda disk --toolstack xl", 1, "no xl on PATH");
	/* Nothing is done behind its back. */
	json_decref(fake.last_params);
	fake.last_params = NULL;
	fake_expect_error("attach guest xvda fixed --readonly", 1, "no xl on PATH");
	assert_null(fake.last_params);
	fake_expect("attach guest xvda fixed --readonly --toolstack none", 0,
		    "bdev fixed attached to guest (domain 1) as xvda\n", "");
	assert_non_null(fake.last_params);
}

static void passes_on_what_xl_says(void **state)
{
	fake_expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	fake_make_file("xl.fails", "libxl: error: \x1b[31mred\nsecond line");
	fake_expect("attach guest xvda disk", 1, "",
		    "libxl: error: ?[31mred\nsecond linemore on stderr\n"
		    "sluice: 'xl block-attach' failed with exit status 3: its messages");
	fake_remove_file("xl.fails");
	fake_make_file("xl", "#!/bin/sh\nkill -9 $$\n");
	fake_expect("attach guest xvda disk", 1, "",
		    "sluice: 'xl block-attach' was ended by signal 9");
	fake_make_file("xl", "no program");
	fake_expect("attach guest xvda disk", 1, "",
		    "sluice: 'xl block-attach' failed with exit status");
}

static void waits_until_the_daemon_agrees(void **state)
{
	fake.settle_ms = 300;
	fake_expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	fake_make_file("broken", "");
	fake_expect_error(
		"attach guest xvda disk", 1,
		"it does not work: the frontend? is mad; 'sluice detach 1 xvda' takes it away");
	fake_make_file("xl.stuck", "");
	fake_expect_error("detach guest xvda", 1, "sluiced still serves it");
	fake_remove_file("attached");
	fake_make_file("xl", "#!/bin/sh\nexit 0\n");
	fake_expect_error("attach guest xvda disk", 1, "it does not work: sluiced does not see it");
	/* It may come later, but not too late. */
	fake_remove_file("broken");
	fake.settle_ms = 10000;
	fake_make_file("xl", "#!/bin/sh\ncd \"${0%/*}\"\n(sleep 0.3; : > attached) &\n");
	fake_expect("attach guest xvda disk", 0, "bdev disk attached to guest (domain 1) as xvda\n",
		    "");
}

static void attaches_without_xl(void **state)
{
	fake_expect("attach 2 xvda disk", 0, "bdev disk attached to plain (domain 2) as xvda\n",
		    "");
	fake_expect_params("vbd_attach",
			   "{'domain':'2','vdev':'xvda','bdev':'disk','readonly':false,"
			   "'shared':false}");
	fake_expect("attach --readonly --shared 0 xvda disk", 0,
		    "bdev disk attached to Domain-0 (domain 0) as xvda\n", "");
	fake_expect_params("vbd_attach",
			   "{'domain':'0','vdev':'xvda','bdev':'disk','readonly':true,"
			   "'shared':true}");
	fake_expect("attach 2 xvda disk --sharing auto --on-error retry:30 --iops 7 --bandwidth 2K",
		    0, "bdev disk attached to plain (domain 2) as xvda\n", "");
	fake_expect_params("vbd_attach",
			   "{'domain': '2', 'vdev': 'xvda', 'bdev': 'disk', 'readonly': false,"
			   " 'shared': false, 'sharing': 'auto', 'on_error': 'retry:30',"
			   " 'rw_ios_per_sec': 7, 'rw_bytes_per_sec': 2048}");
	fake_expect("attach 2 xvda disk --sharing dma --persistent no", 0,
		    "bdev disk attached to plain (domain 2) as xvda\n", "");
	fake_expect_params("vbd_attach",
			   "{'domain': '2', 'vdev': 'xvda', 'bdev': 'disk', 'readonly': false,"
			   " 'shared': false, 'sharing': 'dma', 'persistent': false}");
	/* No limit is what there is anyway. */
	fake_expect("attach 2 xvda disk --iops 0 --bandwidth 0", 0,
		    "bdev disk attached to plain (domain 2) as xvda\n", "");
	fake_expect_params("vbd_attach",
			   "{'domain': '2', 'vdev': 'xvda', 'bdev': 'disk', 'readonly': false,"
			   " 'shared': false}");
	fake_expect("attach guest xvda disk --toolstack none", 0,
		    "bdev disk attached to guest (domain 1) as xvda\n", "");
	fake_expect("attach 3 xvda disk", 0, "bdev disk attached to e?[31mvil (domain 3) as xvda\n",
		    "");
	fake_expect_error("attach 2 xvda used", 1, "bdev 'used' is in use");
	assert_int_equal(fake_run("attach 2 xvda disk --json"), 0);
	assert_non_null(strstr(fake.out, "\"backend\": \"vbd\""));
	fake_expect("detach 2 xvda", 0, "xvda detached from plain (domain 2)\n", "");
	fake_expect_params("vbd_detach", "{'domain':'2','vdev':'xvda','force':false}");
	fake_expect("detach guest xvda --force --toolstack none", 0,
		    "xvda detached from guest (domain 1)\n", "");
	fake_expect_params("vbd_detach", "{'domain':'1','vdev':'xvda','force':true}");
	assert_false(fake_file_exists("xl.asked"));
	fake.settle_ms = 200;
	fake_expect("bdev create null disk --size 1M", 0, "bdev disk created\n", "");
	fake_expect("attach 2 xvda disk --toolstack xl", 1, "", "xl has attached xvda to plain");
	assert_true(fake_file_exists("xl.asked"));
}

static void pauses_and_resumes(void **state)
{
	fake_expect("pause guest xvda", 0, "xvda of guest (domain 1) paused\n", "");
	fake_expect_params("vbd_pause", "{'domain': '1', 'vdev': 'xvda'}");
	fake_expect("resume 3 xvda", 0, "xvda of e?[31mvil (domain 3) resumed\n", "");
	fake_expect_params("vbd_resume", "{'domain': '3', 'vdev': 'xvda'}");
	fake_expect("pause 2 xvda --json", 0, "true\n", "");
	fake_expect_error("pause nobody xvda", 1, "there is no domain 'nobody'");
	fake_expect_error("resume guest xvdb", 1, "there is no such disk");
}

static void limits(void **state)
{
	fake_expect("limit guest xvda --iops 500", 0,
		    "xvda of guest (domain 1): 500 requests/s, 10M bytes/s\n", "");
	fake_expect_params("vbd_set_limit",
			   "{'domain': '1', 'vdev': 'xvda', 'rw_ios_per_sec': 500}");
	assert_int_equal(fake_run("limit guest xvda --bandwidth 1536K --iops 0"), 0);
	fake_expect_params("vbd_set_limit", "{'domain': '1', 'vdev': 'xvda', 'rw_ios_per_sec': 0,"
					    " 'rw_bytes_per_sec': 1572864}");
	assert_int_equal(fake_run("limit 2 xvda --json"), 0);
	fake_expect_params("vbd_set_limit", "{'domain': '2', 'vdev': 'xvda'}");
	assert_non_null(strstr(fake.out, "\"rw_ios_per_sec\": 500"));
	fake_expect_error("limit guest xvdb --iops 1", 1, "there is no such disk");
}

static void expect_limits(const char *limits, const char *expected)
{
	json_t *value = fake_json(limits);
	char text[80];

	assert_int_equal(disk_format_limits(value, text, sizeof(text)), *expected != '\0');
	assert_string_equal(text, expected);
	json_decref(value);
}

static void tells_limits(void **state)
{
	expect_limits("{'rw_ios_per_sec': 0, 'rw_bytes_per_sec': 0}", "");
	expect_limits("{'rw_ios_per_sec': 9, 'rw_bytes_per_sec': 0}", "9 requests/s");
	expect_limits("{'rw_ios_per_sec': 0, 'rw_bytes_per_sec': 512}", "512 bytes/s");
	expect_limits("{'rw_ios_per_sec': 9223372036854775807,"
		      " 'rw_bytes_per_sec': 9223372036854775807}",
		      "9223372036854775807 requests/s, 8E bytes/s");
	expect_limits("null", "");
}

/* A row each, and what not every disk has in lines below it. */
static void lists_what_is_special(void **state)
{
	fake.vbds =
		"[{'domid': 1, 'domain': 'guest', 'devid': 51712, 'vdev': 'xvda', 'backend': 'vbd',"
		" 'bdev': 'disk', 'readonly': false, 'shared': false, 'state': 'Connected',"
		" 'frontend_state': 'Connected', 'queues': 4, 'sectors': 20971520,"
		" 'sharing': 'map', 'persistent': true, 'on_error': 'retry:30', 'paused': true,"
		" 'waiting': 'stopped by an\\u001b error', 'error': null,"
		" 'limits': {'rw_ios_per_sec': 500, 'rw_bytes_per_sec': 10485760}},"
		"{'domid': 12, 'domain': 'long-name', 'devid': 51728, 'vdev': 'xvdb',"
		" 'backend': 'vbd3', 'bdev': 'none', 'readonly': true, 'shared': true,"
		" 'state': 'InitWait', 'frontend_state': 'Initialising', 'queues': 0, 'sectors': 0,"
		" 'sharing': 'map', 'persistent': false, 'on_error': 'stop', 'paused': false,"
		" 'waiting': null, 'error': 'no bdev\\n named none',"
		" 'limits': {'rw_ios_per_sec': 0, 'rw_bytes_per_sec': 0}},"
		"{'domid': 13, 'domain': 'direct', 'devid': 51712, 'vdev': 'xvda',"
		" 'backend': 'vbd', 'bdev': 'nvme0n1', 'readonly': false, 'shared': false,"
		" 'state': 'Connected', 'frontend_state': 'Connected', 'queues': 1, 'sectors': "
		"2048,"
		" 'sharing': 'dma', 'persistent': true, 'map_from': null, 'on_error': 'report',"
		" 'paused': false, 'waiting': null, 'error': null,"
		" 'limits': {'rw_ios_per_sec': 0, 'rw_bytes_per_sec': 0}}]";
	fake_expect(
		"list", 0,
		"DOMAIN     ID  VDEV  BDEV     SIZE  ACCESS     STATE      FRONTEND      QUEUES  "
		"SHARING         ON-ERROR\n"
		"guest       1  xvda  disk      10G  rw         Connected  Connected          4  "
		"persistent      retry:30\n"
		"    paused: 'sluice resume 1 xvda' lets it go on\n"
		"    waiting: stopped by an? error\n"
		"    limits: 500 requests/s, 10M bytes/s\n"
		"long-name  12  xvdb  none        -  ro,shared  InitWait   Initialising       0  "
		"map             stop\n"
		"    error: no bdev? named none\n"
		"    kind of backend: vbd3\n"
		"direct     13  xvda  nvme0n1    1M  rw         Connected  Connected          1  "
		"dma,persistent  report\n",
		"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
		cmocka_unit_test(describes_disks_to_xl),
		WITH_SERVER(attaches_by_xl),
		WITH_SERVER(checks_before_xl_runs),
		WITH_SERVER(passes_on_what_xl_says),
		WITH_SERVER(waits_until_the_daemon_agrees),
		WITH_SERVER(attaches_without_xl),
		WITH_SERVER(pauses_and_resumes),
		WITH_SERVER(limits),
		cmocka_unit_test(tells_limits),
		WITH_SERVER(lists_what_is_special),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
