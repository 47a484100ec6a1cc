/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way to a drive by sysfs, over a made-up sysfs in a temporary folder; and BARs that vanish,
 * which are files that are truncated under their mappings: both end in a SIGBUS.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvme/bar.h"
#include "nvme/spec.h"
#include "nvme/sysfs.h"

enum { BAR_LEN = 16384 };

#define ADDRESS "0000:04:00.0"

/* Addresses */

static void addresses_are_spelled_in_full(void **state)
{
	static const char *const good[][2] = {
		{"0000:04:00.0", "0000:04:00.0"},         {"04:00.0", "0000:04:00.0"},
		{"FFFF:Fe:1f.7", "ffff:fe:1f.7"},         {"10000:e1:00.0", "10000:e1:00.0"},
		{"ffffffff:ff:1f.7", "ffffffff:ff:1f.7"},
	};
	static const char *const bad[] = {
		"",
		"04:00",
		"4:0.0",
		"0000:04:00.8",
		"0000:04:20.0",
		"0000:04:00.0 ",
		" 0000:04:00.0",
		"000:04:00.0",
		"0000:04:00.00",
		"0000-04:00.0",
		"00000:4:00.0",
		"+4:00.0",
		"0x00:04:00.0",
		"123456789:04:00.0",
		"../../etc:00.0",
		"0000:04:00.0/",
		":04:00.0",
		"0000:04:00:0",
		"1:0000:04:00.0",
	};
	struct nvme_pci_address address;
	struct err err;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(nvme_pci_parse_address(good[i][0], &address, &err), 0);
		assert_string_equal(address.text, good[i][1]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (nvme_pci_parse_address(bad[i], &address, &err) != -EINVAL)
			fail_msg("taken: \"%s\"", bad[i]);
		assert_non_null(strstr(err.text, "no PCI address"));
	}
}

/* BARs */

static int make_file(size_t len)
{
	int fd = memfd_create("bar", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	return fd;
}

static uint32_t read32(volatile void *bar, size_t offset)
{
	return *(volatile uint32_t *)((volatile char *)bar + offset);
}

static void a_pulled_drive_answers_with_ones(void **state)
{
	int fd = make_file(BAR_LEN), other_fd = make_file(BAR_LEN);
	volatile void *bar, *other;

	assert_int_equal(nvme_bar_map(fd, 0, BAR_LEN, &bar), 0);
	assert_int_equal(nvme_bar_map(other_fd, 0, BAR_LEN, &other), 0);
	*(volatile uint32_t *)bar = 0x1234;
	*(volatile uint32_t *)other = 0x5678;
	assert_int_equal(ftruncate(fd, 0), 0);
	/* Whether it is found by reading or by writing. */
	*(volatile uint32_t *)((volatile char *)bar + 0x1000) = 7;
	for (size_t offset = 0; offset < BAR_LEN; offset += 4)
		if (offset != 0x1000)
			assert_int_equal(read32(bar, offset), UINT32_MAX);
	assert_int_equal(read32(other, 0), 0x5678);
	assert_int_equal(ftruncate(other_fd, 0), 0);
	assert_int_equal(read32(other, BAR_LEN - 4), UINT32_MAX);
	/* What was written to one is not in the next. */
	assert_int_equal(read32(other, 0x1000), UINT32_MAX);
	nvme_bar_unmap(bar);
	nvme_bar_unmap(other);
	close(fd);
	close(other_fd);
}

static volatile void *shared_bar;
static pthread_barrier_t barrier;

/* Reads from another page each; returns what is neither zeroes (it was there) nor ones. */
static void *read_on(void *arg)
{
	size_t offset = (uintptr_t)arg;
	bool gone = false;

	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t value = read32(shared_bar, (offset + i * 64) % BAR_LEN);

		if (value != UINT32_MAX && (value || gone))
			return (void *)(uintptr_t)1;
		gone = gone || value == UINT32_MAX;
	}
	return NULL;
}

static void all_threads_see_it_go_at_once(void **state)
{
	pthread_t threads[4];

	for (unsigned round = 0; round < 20; round++) {
		int fd = make_file(BAR_LEN);
		void *result;

		assert_int_equal(nvme_bar_map(fd, 0, BAR_LEN, &shared_bar), 0);
		assert_int_equal(pthread_barrier_init(&barrier, NULL, 5), 0);
		for (uintptr_t i = 0; i < 4; i++)
			assert_int_equal(
				pthread_create(&threads[i], NULL, read_on, (void *)(i * 4096)), 0);
		pthread_barrier_wait(&barrier);
		assert_int_equal(ftruncate(fd, 0), 0);
		for (unsigned i = 0; i < 4; i++) {
			pthread_join(threads[i], &result);
			assert_null(result);
		}
		pthread_barrier_destroy(&barrier);
		nvme_bar_unmap(shared_bar);
		close(fd);
	}
}

/* What @act does to a process of its own: the signal that ends it, or 0. */
static int ended_by(void (*act)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		volatile void *bar;

		/* cmocka has a handler of its own. */
		signal(SIGBUS, SIG_DFL);
		if (nvme_bar_map(make_file(BAR_LEN), 0, BAR_LEN, &bar))
			_exit(1);
		act();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_another_file(void)
{
	int fd = make_file(4096);
	volatile char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (ftruncate(fd, 0))
		_exit(1);
	*at = 1;
}

static void touch_an_unmapped_bar(void)
{
	int fd = make_file(4096);
	volatile void *bar;

	if (nvme_bar_map(fd, 0, 4096, &bar))
		_exit(1);
	nvme_bar_unmap(bar);
	/* Somebody else's mapping at the same place. */
	if (mmap((void *)(uintptr_t)bar, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) ==
	    MAP_FAILED)
		_exit(1);
	if (ftruncate(fd, 0))
		_exit(1);
	(void)read32(bar, 0);
}

static void be_sent_a_signal(void)
{
	kill(getpid(), SIGBUS);
}

static void other_faults_are_deadly_as_ever(void **state)
{
#ifdef __SANITIZE_ADDRESS__
	skip(); /* which has a handler of its own */
#endif
	assert_int_equal(ended_by(touch_another_file), SIGBUS);
	assert_int_equal(ended_by(touch_an_unmapped_bar), SIGBUS);
	assert_int_equal(ended_by(be_sent_a_signal), SIGBUS);
}

static void a_bar_has_a_size(void **state)
{
	volatile void *bar;

	assert_int_equal(nvme_bar_map(0, 0, 0, &bar), -EINVAL);
	assert_int_equal(nvme_bar_map(0, 0, NVME_BAR_MAX + 4096, &bar), -EINVAL);
	assert_int_equal(nvme_bar_map(-1, 0, 4096, &bar), -EBADF);
}

/* sysfs */

static char root[64];

static void put(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/" ADDRESS "/%s", root, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void get(const char *name, char *text, size_t len)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/" ADDRESS "/%s", root, name);
	f = fopen(path, "r");
	assert_non_null(f);
	if (!fgets(text, (int)len, f))
		text[0] = '\0';
	fclose(f);
}

static void make_path(const char *path)
{
	char full[256];

	for (const char *at = path; (at = strchr(at + 1, '/'));) {
		snprintf(full, sizeof(full), "%s%.*s", root, (int)(at - path), path);
		if (mkdir(full, 0755))
			assert_int_equal(errno, EEXIST);
	}
}

static void resize(const char *name, off_t len)
{
	char path[256];

	put(name, "");
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/" ADDRESS "/%s", root, name);
	assert_int_equal(truncate(path, len), 0);
}

static int make_sysfs(void **state)
{
	strcpy(root, "/tmp/test-nvme-pci.XXXXXX");
	assert_non_null(mkdtemp(root));
	make_path("/sys/bus/pci/devices/" ADDRESS "/power/");
	make_path("/run/");
	put("class", "0x010802\n");
	put("enable", "0");
	put("power/control", "");
	put("driver_override", "(null)\n");
	put("power_state", "D0\n");
	resize("config", 256);
	resize("resource0", BAR_LEN);
	return 0;
}

static int remove_sysfs(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static void a_drive_is_opened_and_closed(void **state)
{
	struct nvme_pci *pci;
	struct err err;
	char text[16];
	uint32_t value = 0x12345678;

	assert_int_equal(nvme_sysfs_open_in(root, "04:00.0", &pci, &err), 0);
	assert_string_equal(pci->name, ADDRESS);
	assert_int_equal(pci->bar_len, BAR_LEN);
	get("enable", text, sizeof(text));
	assert_string_equal(text, "1");
	get("power/control", text, sizeof(text));
	assert_string_equal(text, "on");
	get("driver_override", text, sizeof(text));
	assert_string_equal(text, "sluice\n");
	assert_int_equal(pci->ops->config_write(pci, 8, &value, 4), 0);
	value = 0;
	assert_int_equal(pci->ops->config_read(pci, 8, &value, 4), 0);
	assert_int_equal(value, 0x12345678);
	assert_int_equal(pci->ops->config_read(pci, 254, &value, 4), -EIO);
	/* It is pulled. */
	resize("resource0", 0);
	assert_int_equal(read32(pci->bar, NVME_REG_CSTS), UINT32_MAX);
	nvme_pci_close(pci);
	get("enable", text, sizeof(text));
	assert_string_equal(text, "0");
}

static void a_drive_has_one_owner(void **state)
{
	struct nvme_pci *pci, *second;
	struct err err;
	char pid[32];

	assert_int_equal(nvme_sysfs_open_in(root, ADDRESS, &pci, &err), 0);
	assert_int_equal(nvme_sysfs_open_in(root, ADDRESS, &second, &err), -EBUSY);
	snprintf(pid, sizeof(pid), "process %d:", getpid());
	assert_non_null(strstr(err.text, pid));
	nvme_pci_close(pci);
	assert_int_equal(nvme_sysfs_open_in(root, ADDRESS, &pci, &err), 0);
	nvme_pci_close(pci);
}

static void what_a_killed_process_enabled_is_taken_over(void **state)
{
	struct nvme_pci *pci;
	struct err err;
	char text[16];

	put("enable", "3\n");
	assert_int_equal(nvme_sysfs_open_in(root, ADDRESS, &pci, &err), 0);
	/* It counts: one more would be one too many. */
	get("enable", text, sizeof(text));
	assert_string_equal(text, "3\n");
	nvme_pci_close(pci);
	get("enable", text, sizeof(text));
	assert_int_equal(text[0], '0');
}

static void refused(const char *address, int rc, const char *words)
{
	struct nvme_pci *pci;
	struct err err = {""};

	assert_int_equal(nvme_sysfs_open_in(root, address, &pci, &err), rc);
	if (!strstr(err.text, words))
		fail_msg("not in the line: \"%s\"; it is: \"%s\"", words, err.text);
}

static void what_cannot_be_opened_is_told(void **state)
{
	char path[256];

	refused("0000:05:00.0", -ENODEV, "there is no PCI device 0000:05:00.0");
	refused("../04:00.0", -EINVAL, "no PCI address");
	put("class", "0x020000\n");
	refused(ADDRESS, -ENODEV, "no NVMe controller (its class is 0x020000)");
	put("class", "0x010802\n");
	put("power_state", "D3cold\n");
	refused(ADDRESS, -EIO, "stays in power state D3cold");
	put("power_state", "unknown\n");
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/" ADDRESS "/driver", root);
	assert_int_equal(symlink("../../../../bus/pci/drivers/nvme", path), 0);
	refused(ADDRESS, -EBUSY, "driver \"nvme\": take it by \"sluice nvme claim " ADDRESS "\"");
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/" ADDRESS "/driver_override", root);
	assert_int_equal(unlink(path), 0);
	refused(ADDRESS, -ENOENT, "cannot keep the kernel's drivers away");
	put("driver_override", "sluice");
	resize("resource0", 0);
	refused(ADDRESS, -EINVAL, "cannot map");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_spelled_in_full),
		cmocka_unit_test(a_pulled_drive_answers_with_ones),
		cmocka_unit_test(all_threads_see_it_go_at_once),
		cmocka_unit_test(other_faults_are_deadly_as_ever),
		cmocka_unit_test(a_bar_has_a_size),
		cmocka_unit_test_setup_teardown(a_drive_is_opened_and_closed, make_sysfs,
						remove_sysfs),
		cmocka_unit_test_setup_teardown(a_drive_has_one_owner, make_sysfs, remove_sysfs),
		cmocka_unit_test_setup_teardown(what_a_killed_process_enabled_is_taken_over,
						make_sysfs, remove_sysfs),
		cmocka_unit_test_setup_teardown(what_cannot_be_opened_is_told, make_sysfs,
						remove_sysfs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
