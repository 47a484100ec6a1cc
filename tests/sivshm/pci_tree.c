/* SPDX-License-Identifier: BSD-2-Clause */
#include "pci_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { CONFIG_LEN = 256, REGISTERS_LEN = 4096, FIRST_CAPABILITY = 64 };

char pci_tree_root[64];

static void path_of(char *path, const char *address, const char *name)
{
	assert_true(snprintf(path, PATH_MAX, "%s/sys/bus/pci/devices/%s/%s", pci_tree_root, address,
			     name) < PATH_MAX);
}

static void write_file(const char *address, const char *name, size_t at, const void *data,
		       size_t len)
{
	char path[PATH_MAX];
	int fd;

	path_of(path, address, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, len, (off_t)at), len);
	close(fd);
}

static void write_text(const char *address, const char *name, const char *text)
{
	write_file(address, name, 0, text, strlen(text));
}

void pci_tree_write(const char *name, size_t at, const void *data, size_t len)
{
	write_file(PCI_TREE_ADDRESS, name, at, data, len);
}

void pci_tree_write_text(const char *name, const char *text)
{
	pci_tree_resize(name, 0);
	write_text(PCI_TREE_ADDRESS, name, text);
}

void pci_tree_read(const char *name, size_t at, void *data, size_t len)
{
	char path[PATH_MAX];
	int fd;

	path_of(path, PCI_TREE_ADDRESS, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, data, len, (off_t)at), len);
	close(fd);
}

void pci_tree_resize(const char *name, size_t len)
{
	char path[PATH_MAX];

	path_of(path, PCI_TREE_ADDRESS, name);
	assert_int_equal(truncate(path, (off_t)len), 0);
}

void pci_tree_link(const char *name, const char *target)
{
	char path[PATH_MAX];

	path_of(path, PCI_TREE_ADDRESS, name);
	unlink(path);
	assert_int_equal(symlink(target, path), 0);
}

void pci_tree_add(const char *address)
{
	uint8_t config[CONFIG_LEN] = {
		[PCI_CAPABILITY_LIST] = FIRST_CAPABILITY,
		/* Something else comes first. */
		[FIRST_CAPABILITY] = PCI_CAP_ID_VNDR,
		[FIRST_CAPABILITY + PCI_CAP_LIST_NEXT] = 0x80,
		[0x80] = PCI_CAP_ID_MSIX,
		[0x80 + PCI_MSIX_FLAGS] = PCI_TREE_VECTORS - 1,
	};
	uint32_t registers[REGISTERS_LEN / 4] = {[2] = PCI_TREE_ID};
	char path[PATH_MAX];

	path_of(path, address, "");
	assert_int_equal(mkdir(path, 0700), 0);
	write_text(address, "vendor", "0x1af4\n");
	write_text(address, "device", "0x1110\n");
	write_text(address, "enable", "0\n");
	write_text(address, "resource",
		   "0x00000000febf1000 0x00000000febf10ff 0x0000000000040200\n"
		   "0x0000000000000000 0x0000000000000000 0x0000000000000000\n");
	write_file(address, "config", 0, config, sizeof(config));
	write_file(address, "resource0", 0, registers, sizeof(registers));
	write_file(address, "resource2", PCI_TREE_SEGMENT - 1, "", 1);
}

int pci_tree_setup(void **state)
{
	static const char *const dirs[] = {"/sys", "/sys/bus", "/sys/bus/pci",
					   "/sys/bus/pci/devices"};
	char path[PATH_MAX];

	(void)state;
	strcpy(pci_tree_root, "/tmp/sivshm-pci.XXXXXX");
	assert_non_null(mkdtemp(pci_tree_root));
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", pci_tree_root, dirs[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	pci_tree_add(PCI_TREE_ADDRESS);
	return 0;
}

int pci_tree_teardown(void **state)
{
	char command[sizeof(pci_tree_root) + 16];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", pci_tree_root);
	return system(command);
}

unsigned pci_tree_descriptors(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}
