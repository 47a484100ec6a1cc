/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device ivshmem-doorbell, as a guest finds it: registers in BAR0, the segment in BAR2, and a
 * message-signalled interrupt for each vector.
 */
#ifndef SIVSHM_PCI_H
#define SIVSHM_PCI_H

#include "internal.h"

enum {
	SIVSHM_PCI_REGISTERS = 256, /* bytes of BAR0 */
	SIVSHM_PCI_POSITION = 2,    /* in words of 32 bits: the own ID */
	SIVSHM_PCI_DOORBELL = 3,    /* to write: the peer's ID << 16 | the vector */
	SIVSHM_PCI_PAGE = 4096,
	SIVSHM_PCI_DIR_LEN = 256, /* of its directory's name in sysfs, with the end */
};

struct sivshm_pci {
	struct sivshm_port port;
	volatile uint32_t *registers; /* little-endian */
	/* One a vector, which its interrupt makes readable; -1: none arrive. */
	int fds[SIVSHM_VECTORS_MAX];

	char dir[SIVSHM_PCI_DIR_LEN]; /* the device in sysfs */
	void *registers_page;         /* what was mapped for the registers */
	int lock_fd;                  /* sysfs: BAR2, which bears the lock; -1: not open */
	bool enabled;                 /* sysfs: by us */
	int container;                /* VFIO's three; -1: not open */
	int group;
	int fd;
};

/* sivshm_pci_open() with sysfs below @root, "" in earnest. */
int sivshm_pci_open_below(const char *root, const char *address, struct sivshm_port **out);

/*
 * Map the device of @pci->dir, and set up its vectors. Return 0, or a negative errno; what is open
 * then is for the port's close(), as it is after success.
 */
int sivshm_pci_sysfs_open(struct sivshm_pci *pci);
int sivshm_pci_vfio_open(struct sivshm_pci *pci);
/* Take back what these have opened, but for mappings. */
void sivshm_pci_sysfs_close(struct sivshm_pci *pci);
void sivshm_pci_vfio_close(struct sivshm_pci *pci);

/* Whether @dir is bound to vfio-pci: 1, 0 (it has no driver), or a negative errno: -EBUSY (it has
 * another). */
int sivshm_pci_sysfs_has_vfio(const char *dir);
/* The number in the first line of a file, hexadecimal with 0x. Returns 0 or a negative errno. */
int sivshm_pci_sysfs_number(const char *dir, const char *name, uint64_t *out);

/* Whether a segment may have this size. */
static inline bool sivshm_pci_size_is_sane(uint64_t size)
{
	return size >= SIVSHM_SEGMENT_MIN && size <= SIZE_MAX / 2 && !(size & (size - 1));
}

#endif
