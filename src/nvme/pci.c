/* SPDX-License-Identifier: BSD-2-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/pci.h"
#include "nvme/spec.h"

/* Takes @min to @max hexadecimal digits and the character @end behind them. */
static bool take_hex(const char **text, size_t min, size_t max, char end, unsigned long *value)
{
	const char *at = *text;
	size_t n = 0;

	while (isxdigit((unsigned char)at[n]))
		n++;
	if (n < min || n > max || at[n] != end)
		return false;
	*value = strtoul(at, NULL, 16);
	*text = end ? at + n + 1 : at + n;
	return true;
}

int nvme_pci_parse_address(const char *text, struct nvme_pci_address *out, struct err *err)
{
	unsigned long domain = 0, bus, device, function;
	const char *at = text, *colon = strchr(text, ':');
	bool full = colon && strchr(colon + 1, ':');

	/* Domains of more than four digits are those of controllers behind Intel's VMD. */
	if ((!full || take_hex(&at, 4, 8, ':', &domain)) && take_hex(&at, 2, 2, ':', &bus) &&
	    take_hex(&at, 2, 2, '.', &device) && take_hex(&at, 1, 1, '\0', &function) &&
	    device < 32 && function < 8) {
		snprintf(out->text, sizeof(out->text), "%04lx:%02lx:%02lx.%lx", domain, bus, device,
			 function);
		return 0;
	}
	return err_set(
		err, -EINVAL,
		"\"%.40s\" is no PCI address: write it as 0000:04:00.0 (see sluice nvme list)",
		text);
}

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
