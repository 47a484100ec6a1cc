/* SPDX-License-Identifier: BSD-2-Clause */
/* sluiced's command line: defaults, and a clear line for whatever is wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sluiced/options.h"

static int parse(struct options *o, struct err *err, const char *a, const char *b)
{
	char *argv[] = {"sluiced", (char *)a, (char *)b, NULL};

	return options_parse(a ? b ? 3 : 2 : 1, argv, o, err);
}

static void defaults_follow_the_name(void **state)
{
	static struct options o;
	struct err err;

	assert_int_equal(parse(&o, &err, NULL, NULL), 0);
	assert_string_equal(o.name, "sluice");
	assert_string_equal(o.socket, "/run/sluice/sluice.sock");
	assert_string_equal(o.lock, "/run/sluice/sluice.lock");
	assert_string_equal(o.ledger, "/run/sluice/sluice.ledger");
	assert_int_equal(o.device_memory_mib, 64);
	assert_string_equal(o.state, "/var/lib/sluice/sluice.json");
	assert_string_equal(o.kinds[0], "vbd");
	assert_null(o.kinds[1]);
	assert_false(o.kinds_given);
	assert_string_equal(o.sivshm_dir, "/run/sluice/sivshm");
	assert_int_equal(__builtin_popcountll(o.cpumask), 1);
	assert_int_equal(o.max_queues, 4);
	assert_int_equal(o.log_level, LOG_LEVEL_INFO);

	/* As many queues as reactors, if those are more than four. */
	assert_int_equal(parse(&o, &err, "--cpumask", "3f"), 0);
	assert_int_equal(o.max_queues, 6);
	assert_int_equal(parse(&o, &err, "--max-queues", "1"), 0);
	assert_int_equal(o.max_queues, 1);

	assert_int_equal(parse(&o, &err, "--name", "blue"), 0);
	assert_string_equal(o.socket, "/run/sluice/blue.sock");
	assert_string_equal(o.state, "/var/lib/sluice/blue.json");
}

static void kinds_are_known_and_come_once(void **state)
{
	static struct options o;
	struct err err;

	assert_int_equal(parse(&o, &err, "--backend", "qdisk,vbd3"), 0);
	assert_string_equal(o.kinds[0], "qdisk");
	assert_string_equal(o.kinds[1], "vbd3");
	assert_true(o.kinds_given);
	assert_null(o.kinds[2]);
	assert_int_equal(parse(&o, &err, "--backend", "vbd,vbd3,qdisk"), 0);
	assert_int_equal(parse(&o, &err, "--backend", "vbd,vbd"), -EINVAL);
	assert_int_equal(parse(&o, &err, "--backend", "vb"), -EINVAL);
	assert_int_equal(parse(&o, &err, "--backend", "vbd4"), -EINVAL);
	assert_int_equal(parse(&o, &err, "--backend", ""), -EINVAL);
	assert_int_equal(parse(&o, &err, "--backend", ",vbd"), -EINVAL);
	assert_int_equal(parse(&o, &err, "--backend", "none"), 0);
	assert_null(o.kinds[0]);
	assert_true(o.kinds_given);
	assert_int_equal(parse(&o, &err, "--backend", "none,vbd"), -EINVAL);
	assert_int_equal(parse(&o, &err, "--backend", "vbd,none"), -EINVAL);
}

static void what_is_wrong_is_named(void **state)
{
	static const char *const bad[][3] = {
		{"--name", "a b", "--name"},
		{"--name", "", "--name"},
		{"--cpumask", "0", "--cpumask"},
		{"--cpumask", "xyz", "--cpumask"},
		{"--bounce-mib", "1", "--bounce-mib"},
		{"--device-memory-mib", "3", "--device-memory-mib"},
		{"--max-queues", "0", "--max-queues"},
		{"--max-queues", "65", "--max-queues"},
		{"--poll-us", "-1", "--poll-us"},
		{"--log-level", "loud", "--log-level"},
		{"--socket", "", "--socket"},
		{"--sivshm-dir", "", "--sivshm-dir"},
		{"--frobnicate", NULL, "--frobnicate"},
		{"--name", NULL, "--name"},
		{"disk", NULL, "disk"},
	};
	static struct options o;
	struct err err;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(parse(&o, &err, bad[i][0], bad[i][1]), -EINVAL);
		assert_non_null(strstr(err.text, bad[i][2]));
		assert_null(strchr(err.text, '\n'));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_follow_the_name),
		cmocka_unit_test(kinds_are_known_and_come_once),
		cmocka_unit_test(what_is_wrong_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
