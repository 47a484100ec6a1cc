/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Device memory behind an IOMMU that VFIO programs: anonymous memory, each piece of which devices
 * of one container find at addresses (IOVAs) that we choose within the ranges that VFIO reports.
 * What was not mapped here no device of the container can reach.
 */
#ifndef SLUICE_DMA_VFIO_H
#define SLUICE_DMA_VFIO_H

#include "dma/dma.h"

/*
 * At most @max_pages pages, in a container of its own (type 1 IOMMU). No device is in it yet, and
 * memory can be had only once one is. Returns 0 and *@out, or a negative errno with the line in
 * @err.
 */
int dma_vfio_create(size_t max_pages, struct dma **out, struct err *err);
/* All its memory was freed, and all devices have left. */
void dma_vfio_destroy(struct dma *d);
/*
 * Puts the PCI device @address ("0000:00:04.0"), which is bound to vfio-pci, into the container.
 * Returns the device's descriptor, or a negative errno with the line in @err: no IOMMU, a group
 * that others use, no vfio-pci.
 */
int dma_vfio_open_device(struct dma *d, const char *address, struct err *err);
/* Closes the descriptor: the device is stopped, leaves the container, and may be given to others.
 */
void dma_vfio_close_device(struct dma *d, int fd);
/* Maps @pages pages of the caller's memory at @virt for the container's devices as well; *@bus is
 * the IOVA of the first, the others follow. For segments that are shared with peers. */
int dma_vfio_map(struct dma *d, void *virt, size_t pages, uint64_t *bus, struct err *err);
void dma_vfio_unmap(struct dma *d, uint64_t bus, size_t pages);

#endif
