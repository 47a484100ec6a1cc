/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole daemon, main to end, on a host without Xen: what it serves there, and what it says of
 * the rest.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "service.h"

static void without_xen_it_serves_the_rest(void **state)
{
	json_t *list;

	service_start();
	free(service_command("bdev create ram disk --size 8M"));
	service_prints("bdev list", "disk", true);
	list = service_result("framework_get_reactors", "{}");
	assert_int_equal(json_array_size(json_object_get(list, "reactors")), 1);
	json_decref(list);
	service_refuses("vbd_get_vbds", "{}", -ENODEV, "no Xen on this host");
	service_refuses("vbd_attach", "{}", -ENODEV, "no Xen on this host");
	service_fails("list", "no Xen on this host: disks of Xen guests are served in a PV dom0");
	service_fails("attach guest xvda disk", "no Xen on this host");
	service_fails("detach guest xvda", "no Xen on this host");
	service_end();
	/* Nothing of grants is left behind, or looked for. */
	assert_int_equal(access(service.ledger, F_OK), -1);
}

static void to_ask_for_xen_is_an_error(void **state)
{
	service_ends_with((const char *const[]){"--backend", "vbd", NULL}, 1,
			  "no Xen on this host");
	service_ends_with((const char *const[]){"--backend", "qdisk,vbd", NULL}, 1,
			  "no Xen on this host");
}

static void to_ask_for_none_is_none(void **state)
{
	service.more = (const char *const[]){"--backend", "none", NULL};
	service_start();
	service_fails("list", "was started with --backend none");
	service_end();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, service_setup, service_teardown)
	const struct CMUnitTest tests[] = {
		TEST(without_xen_it_serves_the_rest),
		TEST(to_ask_for_xen_is_an_error),
		TEST(to_ask_for_none_is_none),
	};

	if (!service_prepare())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
