/* SPDX-License-Identifier: BSD-2-Clause */
/* The command `sluice sivshm`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "fake.h"

static void asks_for_what_was_said(void **state)
{
	fake_expect("sivshm create w disk", 0, "worker w serves bdev disk at /run/w.sock\n", "");
	fake_expect_params("sivshm_create",
			   "{'name': 'w', 'bdev': 'disk', 'readonly': false, 'shared': false}");
	fake_expect("sivshm create w disk --segment 64M --queues 3 --sharing copy --readonly "
		    "--shared --socket /run/w.sock --uid root --gid 7 --mode 0660",
		    0, "worker w serves bdev disk at /run/w.sock\n", "");
	fake_expect_params("sivshm_create",
			   "{'name': 'w', 'bdev': 'disk', 'readonly': true, 'shared': true,"
			   " 'segment_size': 67108864, 'max_queues': 3, 'sharing': 'copy',"
			   " 'socket': '/run/w.sock', 'uid': 0, 'gid': 7, 'mode': '0660'}");
	fake_expect("sivshm create w disk --uid any --gid root --json", 0,
		    "{\n  \"name\": \"w\",\n  \"socket\": \"/run/w.sock\"\n}\n", "");
	fake_expect_params("sivshm_create",
			   "{'name': 'w', 'bdev': 'disk', 'readonly': false, 'shared': false,"
			   " 'uid': -1, 'gid': 0}");
	fake_expect_error("sivshm create v disk", 1, "there is such a worker already");
	fake_expect("sivshm delete w", 0, "worker w deleted\n", "");
	fake_expect_params("sivshm_delete", "{'name': 'w', 'force': false}");
	fake_expect("sivshm delete w --force --json", 0, "true\n", "");
	fake_expect_params("sivshm_delete", "{'name': 'w', 'force': true}");
	fake_expect_error("sivshm delete v", 1, "no such worker");
}

static void refuses_nonsense(void **state)
{
	static const char *const cases[][2] = {
		{"sivshm", "after sivshm comes create, delete, list or show"},
		{"sivshm make", "after sivshm comes create, delete, list or show"},
		{"sivshm create w", "arguments are missing"},
		{"sivshm create w disk more", "'more' is one argument too many"},
		{"sivshm create w disk --segment 0", "'0' is no size of a segment"},
		{"sivshm create w disk --segment many", "'many' is no size of a segment"},
		{"sivshm create w disk --queues 0", "1 to 63 queues, not '0'"},
		{"sivshm create w disk --queues 64", "1 to 63 queues, not '64'"},
		{"sivshm create w disk --uid no-such-user", "there is no user 'no-such-user'"},
		{"sivshm create w disk --uid 4294967295", "there is no user '4294967295'"},
		{"sivshm create w disk --gid -1", "there is no group '-1'"},
		{"sivshm show", "arguments are missing"},
		{"sivshm delete", "arguments are missing"},
		{"sivshm list w", "'w' is one argument too many"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		fake_expect_error(cases[i][0], 2, cases[i][1]);
	assert_null(fake.last_params);
}

static const char workers[] =
	"[{'name': 'w1', 'bdev': 'disk', 'socket': '/run/a,b.sock', 'segment_bytes': 16777216,"
	"  'max_queues': 2, 'sharing': 'auto', 'way': 'map', 'readonly': true, 'shared': false,"
	"  'uid': 0, 'gid': -1, 'mode': '0600', 'state': 'connected', 'layout': 'line',"
	"  'queues': 1, 'ring_pages': 1, 'ids': [0, 1], 'vectors': 3, 'sectors': 2048,"
	"  'error': null},"
	" {'name': 'w2', 'bdev': 'no\\u001bne', 'socket': '/run/w2.sock', 'segment_bytes': 65536,"
	"  'max_queues': 1, 'sharing': 'dma', 'way': 'dma', 'readonly': false, 'shared': true,"
	"  'uid': -1, 'gid': 5, 'mode': '0660', 'state': 'waiting', 'queues': 0, 'vectors': 2,"
	"  'sectors': 0, 'error': 'no bdev named none'},"
	" {'name': 'w3', 'bdev': 'disk', 'state': 'missing', 'error': 'see the log'}]";

static void lists_them(void **state)
{
	fake_expect("sivshm list", 0,
		    "WORKER  BDEV  SIZE  ACCESS  STATE  SEGMENT  QUEUES  SHARING  SOCKET\n", "");
	fake.workers = workers;
	fake_expect("sivshm list", 0,
		    "WORKER  BDEV   SIZE  ACCESS     STATE      SEGMENT  QUEUES  SHARING     "
		    "SOCKET\n"
		    "w1      disk     1M  ro         connected      16M       1  auto (map)  "
		    "/run/a,b.sock\n"
		    "w2      no?ne     -  rw,shared  waiting        64K       0  dma         "
		    "/run/w2.sock\n"
		    "    error: no bdev named none\n"
		    "w3      disk      -  -          missing          -       -  -           -\n"
		    "    error: see the log\n",
		    "");
	assert_int_equal(fake_run("sivshm list --json"), 0);
	assert_non_null(strstr(fake.out, "\"layout\": \"line\""));
}

static void shows_how_to_get_one(void **state)
{
	fake.workers = workers;
	fake_expect("sivshm show w1", 0,
		    "worker    w1\n"
		    "bdev      disk, 1M, ro\n"
		    "state     connected\n"
		    "segment   16M, shared with one process of user 0 and group any\n"
		    "queues    1 of at most 2\n"
		    "sharing   auto (map)\n"
		    "socket    /run/a,b.sock\n"
		    "\n"
		    "A QEMU guest gets it by\n"
		    "  -chardev socket,id=sluice-w1,path=/run/a,,b.sock\n"
		    "  -device ivshmem-doorbell,chardev=sluice-w1,vectors=3\n"
		    "  -smp 1,maxcpus=2        (or more; under emulation, see sluice-sivshm(8))\n"
		    "and a process, by libsivshm, at\n"
		    "  unix:/run/a,b.sock\n"
		    "or for a try\n"
		    "  sluice-perf --socket /run/a,b.sock\n"
		    "What a frontend does with the segment says doc/sivshm-blkif.md.\n",
		    "");
	assert_int_equal(fake_run("sivshm show w2"), 0);
	assert_non_null(strstr(fake.out, "\nbdev      no?ne, -, rw,shared\n"));
	assert_non_null(strstr(fake.out, "\nerror     no bdev named none\n"));
	assert_non_null(strstr(fake.out, "of user any and group 5\n"));
	fake_expect_error("sivshm show w3", 1, "worker 'w3' is missing: see the log");
	fake_expect_error("sivshm show w4", 1, "no worker 'w4' (sluice sivshm list shows them)");
	assert_int_equal(fake_run("sivshm show w3 --json"), 0);
	assert_non_null(strstr(fake.out, "\"state\": \"missing\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
		WITH_SERVER(asks_for_what_was_said),
		WITH_SERVER(refuses_nonsense),
		WITH_SERVER(lists_them),
		WITH_SERVER(shows_how_to_get_one),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
