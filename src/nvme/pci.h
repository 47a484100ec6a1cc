/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pci: the way to a drive's registers (its BAR 0) and its configuration space, by sysfs where there
 * is no IOMMU of ours to ask (a PV dom0), by VFIO elsewhere, or to a model of a drive in tests.
 *
 * A drive may be pulled at any time.  Its registers then answer with ones, however that is brought
 * about: by the bus, or by us, who put a page of ones where the kernel has taken the BAR away.
 */
#ifndef SLUICE_NVME_PCI_H
#define SLUICE_NVME_PCI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct dma;
struct nvme_pci;

struct nvme_pci_ops {
	/* Both return 0 or a negative errno; -ENODEV: the drive is gone. */
	int (*config_read)(struct nvme_pci *pci, unsigned offset, void *data, size_t len);
	int (*config_write)(struct nvme_pci *pci, unsigned offset, const void *data, size_t len);
	void (*close)(struct nvme_pci *pci);
};

struct nvme_pci {
	const struct nvme_pci_ops *ops;
	const char *name; /* "0000:00:04.0" */
	volatile void *bar;
	size_t bar_len;
};

/* A PCI address in full, as sysfs spells it: "0000:00:04.0", or "10000:e1:00.0". */
struct nvme_pci_address {
	char text[20];
};

/*
 * Reads "0000:00:04.0", or "00:04.0" for the same; hexadecimal digits of either case. -EINVAL with
 * the line in @err for all else.
 */
int nvme_pci_parse_address(const char *text, struct nvme_pci_address *out, struct err *err);

/*
 * Opens the drive at @address, which no driver has, for this process alone. Returns 0 and *@out, or
 * a negative errno with the line in @err: -ENODEV: there is none, or it is no NVMe controller;
 * -EBUSY: the kernel's driver or another process has it (see sluice-nvme(8)).
 */
int nvme_sysfs_open(const char *address, struct nvme_pci **out, struct err *err);
/* The same for a drive that is bound to vfio-pci and joins the container of @dma (dma/vfio.h). */
int nvme_vfio_open(const char *address, struct dma *dma, struct nvme_pci **out, struct err *err);
/* The drive is stopped, or cut off from the bus. */
void nvme_pci_close(struct nvme_pci *pci);

/* Lets the device reach memory, or not; INTx is off. Returns 0, -ENODEV (it is gone) or as @pci. */
int nvme_pci_set_bus_master(struct nvme_pci *pci, bool on);

#endif
