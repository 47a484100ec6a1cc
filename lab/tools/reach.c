/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Has the drive reach for memory that it was not given: what the IOMMU is for.
 *
 * The controller's answer says little (QEMU's reports success for a DMA that went nowhere), and the
 * log of whoever has the IOMMU may leave out one fault of several.  But a page that the drive
 * reached until a moment ago can be kept: then it tells by itself what became of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xengnttab.h>

#include "dma/vfio.h"
#include "drive-load.h"
#include "grant/device.h"
#include "grant/self.h"

enum { SECRET = 0x5a, ON_DRIVE = 0xc3 };

struct reach {
	struct bdev_io io;
	struct worker *worker;
	struct dma_piece piece;
};

static void done(struct bdev_io *io)
{
	struct reach *r = container_of(io, struct reach, io);

	rig_over(r->worker, 0);
}

static void begin(struct worker *w)
{
	struct reach *r = w->job;

	bdev_submit(w->channel, &r->io);
}

/* A command for the first page of the drive; what it says. */
static int command(struct rig *rig, enum bdev_op op, uint64_t bus)
{
	struct worker *w = &rig->workers[0];
	struct reach r = {
		.worker = w,
		.piece = {.bus = bus, .len = DMA_PAGE_SIZE},
		.io = {.op = op, .len = DMA_PAGE_SIZE, .nr_pieces = 1, .done = done},
	};

	r.io.pieces = &r.piece;
	w->job = &r;
	rig_run_one(rig, w, begin);
	return r.io.result;
}

static bool is_all(const unsigned char *page, unsigned char byte)
{
	return page[0] == byte && !memcmp(page, page + 1, DMA_PAGE_SIZE - 1);
}

static void begin_line(uint64_t bus, enum bdev_op op, int result)
{
	printf("{\"bus\":\"%#llx\",\"command\":\"%s\",\"result\":\"%s\"", (unsigned long long)bus,
	       op == BDEV_READ ? "read" : "write", result ? strerror(-result) : "success");
}

void reach_address(struct rig *rig, enum bdev_op op, uint64_t bus)
{
	begin_line(bus, op, command(rig, op, bus));
	puts("}");
}

/* A page that the drive reached for a while; returns its address on the bus. */
static void *lend_by_vfio(struct rig *rig, uint64_t *bus)
{
	void *page = aligned_alloc(DMA_PAGE_SIZE, DMA_PAGE_SIZE);
	struct err err;

	if (!page)
		die("no memory left");
	if (dma_vfio_map(rig->dma, page, 1, bus, &err))
		die("%s", err.text);
	dma_vfio_unmap(rig->dma, *bus, 1);
	return page;
}

static void *lend_by_grant(struct rig *rig, uint64_t *bus)
{
	xengntshr_handle *share = xengntshr_open(NULL, 0);
	struct grant_device *device;
	uint32_t ref, handle;
	uint16_t self;
	struct err err;
	void *page;

	if (!share || grant_self_get_domid(&self, &err) ||
	    grant_device_create(rig->ledger, &device, &err))
		die("no way to grant pages to ourselves");
	/* Shared until the end of the process. */
	page = xengntshr_share_pages(share, self, 1, &ref, 1);
	if (!page)
		die("no page to grant");
	grant_device_map(device, self, ref, true, bus, &handle);
	grant_device_flush(device);
	if (*bus == GRANT_NO_BUS)
		die("the page is not mapped for devices");
	grant_device_unmap(device, *bus, handle);
	grant_device_flush(device);
	grant_device_destroy(device);
	return page;
}

void reach_unmapped(struct rig *rig, enum bdev_op op)
{
	struct dma_memory mem;
	unsigned char *page, *own;
	bool reached;
	uint64_t bus;
	int result;

	rig_alloc(rig, 1, &mem);
	own = mem.virt;
	memset(own, ON_DRIVE, DMA_PAGE_SIZE);
	if (command(rig, BDEV_WRITE, mem.bus[0]))
		die("the drive cannot be written to");
	page = rig->granted ? lend_by_grant(rig, &bus) : lend_by_vfio(rig, &bus);
	memset(page, SECRET, DMA_PAGE_SIZE);
	result = command(rig, op, bus);
	if (op == BDEV_READ) {
		reached = !is_all(page, SECRET);
	} else {
		if (command(rig, BDEV_READ, mem.bus[0]))
			die("the drive cannot be read");
		reached = memchr(own, SECRET, DMA_PAGE_SIZE) != NULL;
	}
	begin_line(bus, op, result);
	printf(",\"reached\":%s}\n", reached ? "true" : "false");
	dma_free(rig->dma, &mem);
	if (!rig->granted)
		free(page);
}
