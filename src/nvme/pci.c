/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>

#include "nvme/pci.h"
#include "nvme/spec.h"

int nvme_pci_set_bus_master(struct nvme_pci *pci, bool on)
{
	uint16_t command;
	int rc = pci->ops->config_read(pci, NVME_PCI_COMMAND, &command, sizeof(command));

	if (rc)
		return rc;
	if (command == UINT16_MAX)
		return -ENODEV;
	command |= NVME_PCI_COMMAND_MEMORY | NVME_PCI_COMMAND_INTX_OFF;
	command &= (uint16_t)~NVME_PCI_COMMAND_MASTER;
	if (on)
		command |= NVME_PCI_COMMAND_MASTER;
	rc = pci->ops->config_write(pci, NVME_PCI_COMMAND, &command, sizeof(command));
	if (rc)
		return rc;
	/*
	 * Not only to see whether it took: the answer to a read comes behind whatever the device
	 * had written before, so afterwards nothing of it is under way any more.
	 */
	rc = pci->ops->config_read(pci, NVME_PCI_COMMAND, &command, sizeof(command));
	if (rc)
		return rc;
	if (command == UINT16_MAX)
		return -ENODEV;
	return !(command & NVME_PCI_COMMAND_MASTER) == !on ? 0 : -EIO;
}

void nvme_pci_close(struct nvme_pci *pci)
{
	pci->ops->close(pci);
}
