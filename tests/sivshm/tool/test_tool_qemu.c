/* SPDX-License-Identifier: BSD-2-Clause */
/* `sivshm qemu` with the real QEMU, whose processors are never started. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tool.h"

static void need_qemu(void)
{
	if (system("command -v qemu-system-x86_64 >/dev/null"))
		skip();
}

/* Waits until QEMU has taken its segment. */
static void await_memfd(struct tool *t, pid_t pid)
{
	for (unsigned i = 0; tool_descriptors(pid, "memfd:") < 1; i++) {
		if (i > TOOL_WAIT_MS / 10)
			fail_msg("QEMU has taken no segment");
		usleep(10000);
	}
}

static unsigned seccomp_mode(pid_t pid)
{
	char path[64], line[128];
	unsigned mode = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Seccomp: %u", &mode) == 1)
			break;
	fclose(f);
	return mode;
}

static void test_starts_guests_with_one_segment_each(void **state)
{
	pid_t pids[2], again[2];
	struct tool t;

	need_qemu();
	tool_start(&t, TOOL_ARGS("qemu", "--workers", "2", "--segment", "1M", "--keep-going",
				 "--restart", "--machine", "q35,accel=tcg", "--", "-S"));
	while (tool_children(&t, pids, 2) < 2)
		usleep(10000);
	for (unsigned i = 0; i < 2; i++) {
		await_memfd(&t, pids[i]);
		assert_int_equal(tool_descriptors(pids[i], "memfd:"), 1);
		assert_int_equal(tool_descriptors(pids[i], "socket:"), 1);
		assert_int_equal(seccomp_mode(pids[i]), 2);
	}
	/* One that ends is followed by a new one, with a new segment. */
	kill(pids[0], SIGKILL);
	tool_await(&t, "worker 0 was killed by signal 9 (Killed); its memory is free\n");
	tool_await(&t, "worker 0 is started again\n");
	assert_int_equal(tool_children(&t, again, 2), 2);
	assert_int_equal(again[0], pids[1]);
	await_memfd(&t, again[1]);
	assert_int_equal(tool_descriptors(again[1], "memfd:"), 1);
	assert_int_equal(tool_segments(&t), 2);
	/* No guest outlives the tool. */
	kill(t.pid, SIGKILL);
	assert_int_equal(tool_finish(&t, NULL, 0), 128 + SIGKILL);
	tool_await_end(again[0]);
	tool_await_end(again[1]);
	tool_free(&t);
}

static void test_shows_the_command(void **state)
{
	struct tool t;

	assert_int_equal(tool_run(&t,
				  TOOL_ARGS("qemu", "--workers", "2", "--kernel", "/etc/passwd",
					    "--initrd", "/etc/group", "--append", "it's=1",
					    "--viommu", "--memory", "64M", "--vectors", "3",
					    "--qemu", "/no such/qemu", "--machine", "q35,accel=tcg",
					    "--show", "--", "-cpu", "max"),
				  NULL, 0),
			 0);
	assert_int_equal(tool_count(t.out.data, "\n"), 2);
	assert_int_equal(strncmp(t.out.data, "'/no such/qemu' -name worker0 ", 30), 0);
	assert_int_equal(tool_count(t.out.data, " -sandbox on,obsolete=deny,elevateprivileges="
						"deny,spawn=deny,resourcecontrol=deny "),
			 2);
	assert_int_equal(tool_count(t.out.data, " -device intel-iommu,intremap=on "), 2);
	assert_int_equal(tool_count(t.out.data, " -chardev socket,id=sivshm,fd=3 -device "
						"ivshmem-doorbell,chardev=sivshm,vectors=3 "),
			 2);
	assert_non_null(strstr(t.out.data, " SIVSHM_WORKER=1 it'\\''s=1' -cpu max\n"));
	assert_non_null(strstr(t.out.data, " -kernel /etc/passwd -initrd /etc/group -append "));
	assert_int_equal(tool_count(t.out.data, " -display none -nic none "), 2);
	assert_int_equal(tool_count(t.out.data, " -smp 1,maxcpus=2 "), 2);
	tool_free(&t);
}

static void test_says_what_qemu_says(void **state)
{
	struct tool t;

	need_qemu();
	assert_int_equal(tool_run(&t,
				  TOOL_ARGS("qemu", "--workers", "1", "--segment", "1M", "--",
					    "-no-such-option"),
				  NULL, 0),
			 1);
	assert_non_null(strstr(t.err.data, "no-such-option"));
	assert_non_null(strstr(t.err.data, "sivshm: worker 0 exited with status 1"));
	tool_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starts_guests_with_one_segment_each),
		cmocka_unit_test(test_shows_the_command),
		cmocka_unit_test(test_says_what_qemu_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
