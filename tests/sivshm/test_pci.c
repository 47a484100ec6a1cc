/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest's port by sysfs, on a bus that is made of files. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "pci.h"
#include "pci_tree.h"

static int open_port(const char *address, struct sivshm_port **out)
{
	return sivshm_pci_open_below(pci_tree_root, address, out);
}

/* Opening fails with @rc, and leaves nothing open. */
static void refused_at(const char *address, int rc)
{
	unsigned descriptors = pci_tree_descriptors();
	struct sivshm_port *p = NULL;

	assert_int_equal(open_port(address, &p), rc);
	assert_null(p);
	assert_int_equal(pci_tree_descriptors(), descriptors);
}

static void refused(int rc)
{
	refused_at(NULL, rc);
}

static uint32_t doorbell(size_t offset)
{
	uint32_t value;

	pci_tree_read("resource0", offset + 12, &value, sizeof(value));
	return value;
}

static void check_enabled(char expected)
{
	char c;

	pci_tree_read("enable", 0, &c, 1);
	assert_int_equal(c, expected);
}

static void test_open(void **state)
{
	unsigned descriptors = pci_tree_descriptors();
	struct sivshm_port *p;
	char text[6];

	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_id(p), PCI_TREE_ID);
	assert_int_equal(sivshm_port_peer(p), PCI_TREE_ID ^ 1);
	assert_int_equal(sivshm_port_vectors(p), PCI_TREE_VECTORS);
	assert_int_equal(sivshm_port_size(p), PCI_TREE_SEGMENT);
	check_enabled('1');
	/* The memory is the device's, both ways and to its end. */
	memcpy((char *)sivshm_port_memory(p) + PCI_TREE_SEGMENT - 6, "there", 6);
	pci_tree_read("resource2", PCI_TREE_SEGMENT - 6, text, sizeof(text));
	assert_string_equal(text, "there");
	pci_tree_write("resource2", 0, "here", 5);
	assert_string_equal(sivshm_port_memory(p), "here");
	sivshm_port_close(p);
	check_enabled('0');
	assert_int_equal(pci_tree_descriptors(), descriptors);
}

static void test_ring(void **state)
{
	struct sivshm_port *p;

	assert_int_equal(open_port(NULL, &p), 0);
	for (unsigned v = 0; v < PCI_TREE_VECTORS; v++) {
		assert_int_equal(sivshm_port_ring(p, v), 0);
		assert_int_equal(doorbell(0), (PCI_TREE_ID ^ 1) << 16 | v);
	}
	assert_int_equal(sivshm_port_ring(p, PCI_TREE_VECTORS), -EINVAL);
	assert_int_equal(doorbell(0), (PCI_TREE_ID ^ 1) << 16 | (PCI_TREE_VECTORS - 1));
	sivshm_port_close(p);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* No rings arrive, so that who waits looks again soon. */
static void test_wait(void **state)
{
	struct sivshm_port *p;
	int64_t started;

	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_fd(p, 0), -EOPNOTSUPP);
	assert_int_equal(sivshm_port_take(p, 0), -EOPNOTSUPP);
	assert_int_equal(sivshm_port_liveness_fd(p), -EOPNOTSUPP);
	assert_int_equal(sivshm_port_is_alive(p), -EOPNOTSUPP);
	started = now_ms();
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(sivshm_port_wait(p, 0, -1), 1);
		assert_int_equal(sivshm_port_wait(p, 0, 0), 1);
	}
	assert_in_range(now_ms() - started, 2, 2000);
	sivshm_port_close(p);
}

/* Registers may lie anywhere in their page. */
static void test_registers_in_page(void **state)
{
	uint32_t ids[] = {0, 9};
	struct sivshm_port *p;

	pci_tree_write_text("resource", "0x00000000febf1f00 0x00000000febf1fff 0x40200\n");
	pci_tree_write("resource0", 8, &ids[0], sizeof(ids[0]));
	pci_tree_write("resource0", 0xf00 + 8, &ids[1], sizeof(ids[1]));
	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_id(p), 9);
	assert_int_equal(sivshm_port_ring(p, 1), 0);
	assert_int_equal(doorbell(0xf00), 8 << 16 | 1);
	sivshm_port_close(p);
	/* A sane ID must not save what straddles two. */
	pci_tree_write("resource0", 0xf04 + 8, &ids[1], sizeof(ids[1]));
	pci_tree_write_text("resource", "0x00000000febf1f04 0x00000000febf2003 0x40200\n");
	refused(-EPROTO);
	pci_tree_write_text("resource", "nonsense\n");
	refused(-EIO);
}

static void test_addresses(void **state)
{
	static const char *const bad[] = {
		"",          "0",
		"04.0",      "zz:04.0",
		"..",        "0000:00:04.0/../0000:00:04.0",
		":04.0",     "0000:0000:00:04.0",
		"00:04.0/.", "0000:00:04.0\n",
	};
	char lengthy[600];
	struct sivshm_port *p;

	assert_int_equal(open_port("0000:00:04.0", &p), 0);
	sivshm_port_close(p);
	assert_int_equal(open_port("00:04.0", &p), 0);
	sivshm_port_close(p);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused_at(bad[i], -EINVAL);
	memset(lengthy, '0', sizeof(lengthy) - 1);
	lengthy[4] = ':';
	lengthy[sizeof(lengthy) - 1] = '\0';
	refused_at(lengthy, -EINVAL);
	refused_at("00:05.0", -ENODEV);
}

static void test_discovery(void **state)
{
	struct sivshm_port *p;

	pci_tree_add("0000:00:05.0");
	refused(-ENOTUNIQ);
	assert_int_equal(open_port("0000:00:05.0", &p), 0);
	sivshm_port_close(p);
	/* The one that is left. */
	pci_tree_write_text("device", "0x1000\n");
	assert_int_equal(open_port(NULL, &p), 0);
	sivshm_port_close(p);
	refused_at(PCI_TREE_ADDRESS, -ENODEV);
	pci_tree_write_text("device", "0x1110\n");
	pci_tree_write_text("vendor", "0x8086\n");
	refused_at(PCI_TREE_ADDRESS, -ENODEV);
}

static void test_no_bus(void **state)
{
	struct sivshm_port *p;

	pci_tree_write_text("device", "0x1000\n");
	refused(-ENODEV);
	assert_int_equal(sivshm_pci_open_below("/nonexistent", NULL, &p), -ENODEV);
}

static void test_drivers(void **state)
{
	pci_tree_link("driver", "../../../../bus/pci/drivers/uio_pci_generic");
	refused(-EBUSY);
	check_enabled('0');
}

/* One process at a time, and who comes second leaves the device on. */
static void test_lock(void **state)
{
	struct sivshm_port *p;

	assert_int_equal(open_port(NULL, &p), 0);
	refused(-EBUSY);
	check_enabled('1');
	sivshm_port_close(p);
	assert_int_equal(open_port(NULL, &p), 0);
	sivshm_port_close(p);
}

/* What was on stays on. */
static void test_enabled_before(void **state)
{
	struct sivshm_port *p;

	pci_tree_write_text("enable", "1\n");
	assert_int_equal(open_port(NULL, &p), 0);
	sivshm_port_close(p);
	check_enabled('1');
}

static void test_sizes(void **state)
{
	static const size_t bad[] = {0, 1, 2048, 4095, 4097, 3 * 4096, PCI_TREE_SEGMENT - 4096};
	struct sivshm_port *p;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pci_tree_resize("resource2", bad[i]);
		refused(-EPROTO);
	}
	pci_tree_resize("resource2", 4096);
	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_size(p), 4096);
	sivshm_port_close(p);
}

/* Workers have odd IDs of 16 bits; others are peers of somebody else's. */
static void test_ids(void **state)
{
	static const uint32_t bad[] = {0, 2, 65534, 65536, 65537, UINT32_MAX, UINT32_MAX - 1};
	uint32_t good = 65535;
	struct sivshm_port *p;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pci_tree_write("resource0", 8, &bad[i], sizeof(bad[i]));
		refused(-EPROTO);
		check_enabled('0');
	}
	pci_tree_write("resource0", 8, &good, sizeof(good));
	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_peer(p), 65534);
	sivshm_port_close(p);
}

static void write_config(size_t at, uint8_t value)
{
	pci_tree_write("config", at, &value, 1);
}

static void test_vectors(void **state)
{
	struct sivshm_port *p;

	/* The table's other bits do not count. */
	write_config(0x80 + PCI_MSIX_FLAGS + 1, 0xc0);
	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_vectors(p), PCI_TREE_VECTORS);
	sivshm_port_close(p);
	/* More than there can be doorbells. */
	write_config(0x80 + PCI_MSIX_FLAGS + 1, 0x07);
	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_vectors(p), SIVSHM_VECTORS_MAX);
	sivshm_port_close(p);
	/* The last place for the capability. */
	write_config(64 + PCI_CAP_LIST_NEXT, 0xfc);
	write_config(0xfc, PCI_CAP_ID_MSIX);
	write_config(0xfc + PCI_MSIX_FLAGS, 1);
	assert_int_equal(open_port(NULL, &p), 0);
	assert_int_equal(sivshm_port_vectors(p), 2);
	sivshm_port_close(p);
}

static void test_hostile_config(void **state)
{
	/* No such capability; a list that never ends; one that leads into the header. */
	write_config(0x80, PCI_CAP_ID_VNDR);
	refused(-EPROTO);
	write_config(0x80 + PCI_CAP_LIST_NEXT, 64);
	refused(-EPROTO);
	write_config(0x80 + PCI_CAP_LIST_NEXT, 4);
	write_config(4, PCI_CAP_ID_MSIX);
	refused(-EPROTO);
	write_config(PCI_CAPABILITY_LIST, 0);
	refused(-EPROTO);
	/* What others than root see of it. */
	pci_tree_resize("config", 64);
	refused(-EACCES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pci_tree_setup, pci_tree_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open),      TEST(test_ring),
		TEST(test_wait),      TEST(test_registers_in_page),
		TEST(test_addresses), TEST(test_discovery),
		TEST(test_no_bus),    TEST(test_drivers),
		TEST(test_lock),      TEST(test_enabled_before),
		TEST(test_sizes),     TEST(test_ids),
		TEST(test_vectors),   TEST(test_hostile_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
