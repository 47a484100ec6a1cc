/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluiced/drives.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "dma/granted.h"
#include "grant/ledger.h"
#include "nvme/sysfs.h"
#include "xen/backend.h"

static int dma_create(void *arg, struct dma **out, struct err *err)
{
	struct drives_xen *d = arg;
	uint32_t map_from;
	struct err why;
	int rc;

	if (!d->ledger) {
		*err = d->why;
		return -ENODEV;
	}
	rc = dma_granted_create(d->max_pages, d->ledger, out, err);
	if (rc)
		return rc;
	if (dma_granted_measure(*out, &map_from, &why)) {
		log_warning("sharing=auto will copy whatever it is: %s", why.text);
		return 0;
	}
	if (map_from == UINT32_MAX)
		log_info("sharing=auto copies requests of any size, which is cheaper here, of "
			 "guests that leave no pages mapped");
	else
		log_info("sharing=auto maps requests of %u KiB and more of guests that leave no "
			 "pages mapped",
			 map_from / 1024);
	if (d->xen)
		xen_backend_set_map_from(d->xen, map_from);
	return 0;
}

static void dma_destroy(void *arg, struct dma *dma)
{
	dma_granted_destroy(dma);
}

static int open_drive(void *arg, const char *address, struct dma *dma, struct nvme_pci **out,
		      struct err *err)
{
	struct drives_xen *d = arg;

	return nvme_sysfs_open_in(d->root, address, out, err);
}

static int enter(void *arg, const char *address, struct err *err)
{
	struct drives_xen *d = arg;
	int rc = grant_ledger_note_drive(d->ledger, address);

	return rc ? err_set(err, rc, "drive %s is one too many: detach another first", address) : 0;
}

static void leave(void *arg, const char *address)
{
	struct drives_xen *d = arg;

	grant_ledger_forget_drive(d->ledger, address);
}

/*
 * Stops a drive that a predecessor has left running. One that a driver has again, or another
 * process, was reset by that, and knows nothing of what it was told before; but pci-stub only
 * keeps others away from a device, and does nothing to it.
 */
static int stop_drive(const char *address, void *arg, struct err *err)
{
	struct drives_xen *d = arg;
	struct nvme_pci *pci;
	char driver[16] = "";
	int rc = nvme_sysfs_open_in(d->root, address, &pci, err);

	if (rc == -EBUSY) {
		nvme_sysfs_driver(d->root, address, driver, sizeof(driver));
		if (strcmp(driver, "pci-stub"))
			return 0;
		return err_set(err, rc,
			       "drive %s was left running, and the kernel's driver pci-stub has it "
			       "since: unbind it from that, and start sluiced again",
			       address);
	}
	if (rc)
		return rc;
	rc = nvme_ctrl_quiesce(pci, err);
	nvme_pci_close(pci);
	if (!rc)
		log_warning("drive %s, which was left running, is stopped", address);
	return rc;
}

void drives_xen_open(struct drives_xen *d, const char *path)
{
	struct err err;
	int rc = grant_ledger_open(path, &d->ledger, &err);

	if (!rc)
		rc = grant_ledger_recover(d->ledger, stop_drive, d, &err);
	if (!rc)
		return;
	err_set(&d->why, rc, "no NVMe drives, and no sharing=dma: %.320s", err.text);
	log_error("%s", d->why.text);
	if (d->ledger)
		grant_ledger_close(d->ledger);
	d->ledger = NULL;
}

void drives_xen_close(struct drives_xen *d)
{
	if (d->ledger)
		grant_ledger_close(d->ledger);
}

struct nvme_ways drives_xen_ways(struct drives_xen *d)
{
	return (struct nvme_ways){
		.dma_create = dma_create,
		.dma_destroy = dma_destroy,
		.open = open_drive,
		.enter = enter,
		.leave = leave,
		.arg = d,
	};
}
