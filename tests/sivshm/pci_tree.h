/* SPDX-License-Identifier: BSD-2-Clause */
/* A PCI bus made of plain files, as sysfs shows it, with ivshmem devices on it. */
#ifndef TESTS_SIVSHM_PCI_TREE_H
#define TESTS_SIVSHM_PCI_TREE_H

#include <stddef.h>
#include <stdint.h>

#define PCI_TREE_ADDRESS "0000:00:04.0"

enum {
	PCI_TREE_SEGMENT = 1 << 16, /* bytes */
	PCI_TREE_VECTORS = 4,
	PCI_TREE_ID = 7,
};

extern char pci_tree_root[64];

/* cmocka's: makes the tree with one device, without a driver; removes it. */
int pci_tree_setup(void **state);
int pci_tree_teardown(void **state);

/* Another device, as the first one is. */
void pci_tree_add(const char *address);
/* Writes a file of the first device, from byte @at on; makes it if need be. */
void pci_tree_write(const char *name, size_t at, const void *data, size_t len);
void pci_tree_write_text(const char *name, const char *text);
void pci_tree_read(const char *name, size_t at, void *data, size_t len);
void pci_tree_resize(const char *name, size_t len);
void pci_tree_link(const char *name, const char *target);
/* How many descriptors this process has. */
unsigned pci_tree_descriptors(void);

#endif
