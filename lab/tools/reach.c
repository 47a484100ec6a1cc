/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Has the drive reach for memory that it was not given: what the IOMMU is for.
 *
 * The controller's answer says little (QEMU's reports success for a DMA that went nowhere), and the
 * log of whoever has the IOMMU may leave out one fault of several.  But a page that the drive
 * reached until a moment ago can be looked at: it tells by itself what became of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xengnttab.h>

#include "dma/vfio.h"
#include "drive-load.h"
#include "grant/device.h"

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

/* A page that is lent to the drive for a moment: ours, or (PV dom0) a guest's. */
struct page {
	unsigned char *own;
	uint16_t domid;
	uint32_t ref;
};

/* Maps it for the drive, and ends that; returns the address that the drive had for it. */
static uint64_t lend(struct rig *rig, const struct page *page)
{
	struct grant_device *device;
	uint32_t handle;
	struct err err;
	uint64_t bus;

	if (page->own) {
		if (dma_vfio_map(rig->dma, page->own, 1, &bus, &err))
			die("%s", err.text);
		dma_vfio_unmap(rig->dma, bus, 1);
		return bus;
	}
	if (grant_device_create(rig->ledger, &device, &err))
		die("%s", err.text);
	grant_device_map(device, page->domid, page->ref, true, &bus, &handle);
	grant_device_flush(device);
	if (bus == GRANT_NO_BUS)
		die("page %u of guest %u is not mapped for devices", page->ref, page->domid);
	grant_device_unmap(device, bus, handle);
	grant_device_flush(device);
	grant_device_destroy(device);
	return bus;
}

static void peek(const struct page *page, unsigned char *copy)
{
	xengnttab_handle *map;
	void *theirs;

	if (page->own) {
		memcpy(copy, page->own, DMA_PAGE_SIZE);
		return;
	}
	map = xengnttab_open(NULL, 0);
	theirs = map ? xengnttab_map_grant_ref(map, page->domid, page->ref, PROT_READ) : NULL;
	if (!theirs)
		die("guest %u has not granted page %u", page->domid, page->ref);
	memcpy(copy, theirs, DMA_PAGE_SIZE);
	xengnttab_unmap(map, theirs, 1);
	xengnttab_close(map);
}

/*
 * The drive holds something else than the page does before, so that either shows if it went to the
 * other.
 */
static void reach_page(struct rig *rig, enum bdev_op op, const struct page *page)
{
	unsigned char before[DMA_PAGE_SIZE], after[DMA_PAGE_SIZE];
	struct dma_memory own;
	bool reached;
	uint64_t bus;
	int result;

	rig_alloc(rig, 1, &own);
	memset(own.virt, ON_DRIVE, DMA_PAGE_SIZE);
	if (command(rig, BDEV_WRITE, own.bus[0]))
		die("the drive cannot be written to");
	peek(page, before);
	if (before[0] != SECRET && !memcmp(before, before + 1, DMA_PAGE_SIZE - 1))
		die("the page is empty: it could not tell");
	bus = lend(rig, page);
	result = command(rig, op, bus);
	if (op == BDEV_READ) {
		peek(page, after);
		reached = memcmp(before, after, DMA_PAGE_SIZE);
	} else {
		if (command(rig, BDEV_READ, own.bus[0]))
			die("the drive cannot be read");
		reached = !memcmp(before, own.virt, DMA_PAGE_SIZE);
	}
	begin_line(bus, op, result);
	printf(",\"reached\":%s}\n", reached ? "true" : "false");
	dma_free(rig->dma, &own);
}

void reach_unmapped(struct rig *rig, enum bdev_op op)
{
	struct page page = {.own = aligned_alloc(DMA_PAGE_SIZE, DMA_PAGE_SIZE)};

	if (rig->granted)
		die("a dom0's own pages are always within a drive's reach: name a guest's, "
		    "DOMID:REF");
	if (!page.own)
		die("no memory left");
	memset(page.own, SECRET, DMA_PAGE_SIZE);
	reach_page(rig, op, &page);
	free(page.own);
}

void reach_guest(struct rig *rig, enum bdev_op op, uint16_t domid, uint32_t ref)
{
	const struct page page = {.domid = domid, .ref = ref};

	if (!rig->granted)
		die("there are no guests without Xen");
	reach_page(rig, op, &page);
}
