/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest-page: single pages of a PV guest, as the guard's test needs them: pages that a drive is
 * aimed at though the guest has granted nothing, or no longer does.
 *
 *	find DOMID FRAME	prints the first machine frame after FRAME that is the guest's
 *	sum DOMID FRAME		prints a digest of that page
 *	hold DOMID REF		maps a grant for devices, prints the bus address, and ends the
 *mapping when its standard input ends
 *
 * find and sum use the toolstack's right to any page of a guest, which no device has.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xenforeignmemory.h>

#include "base/err.h"
#include "base/parse.h"
#include "grant/device.h"
#include "grant/ledger.h"

enum { PAGE_SIZE = 4096, FIND_TRIES = 1024 };

static int complain(const char *what)
{
	fprintf(stderr, "guest-page: %s\n", what);
	return 1;
}

static void *map_frame(xenforeignmemory_handle *foreign, uint32_t domid, uint64_t frame)
{
	xen_pfn_t frames[] = {frame};
	int failed[] = {0};
	void *page = xenforeignmemory_map(foreign, domid, PROT_READ, 1, frames, failed);

	if (page && failed[0]) {
		xenforeignmemory_unmap(foreign, page, 1);
		return NULL;
	}
	return page;
}

static uint64_t digest(const void *page)
{
	const unsigned char *bytes = page;
	uint64_t sum = 0xcbf29ce484222325u;

	for (size_t i = 0; i < PAGE_SIZE; i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3u;
	return sum;
}

static int look(const char *command, uint32_t domid, uint64_t frame)
{
	xenforeignmemory_handle *foreign = xenforeignmemory_open(NULL, 0);
	bool find = !strcmp(command, "find");
	uint64_t last = find ? frame + FIND_TRIES : frame;
	void *page = NULL;

	if (!foreign)
		return complain("cannot open the toolstack's way to guests' memory");
	for (frame += find; frame <= last && !page; frame += !page)
		page = map_frame(foreign, domid, frame);
	if (!page)
		return complain("no such frame of the guest's");
	printf("0x%" PRIx64 "\n", find ? frame : digest(page));
	xenforeignmemory_unmap(foreign, page, 1);
	xenforeignmemory_close(foreign);
	return 0;
}

static int no_drives(const char *address, void *arg, struct err *err)
{
	return err_set(err, -EBUSY, "drive %s is in a ledger of guest-page", address);
}

static int hold(uint16_t domid, uint32_t ref)
{
	struct grant_ledger *ledger;
	struct grant_device *device;
	uint32_t handle;
	uint64_t bus;
	struct err err;
	char end;

	if (grant_ledger_open("/run/guest-page.ledger", &ledger, &err) ||
	    grant_ledger_recover(ledger, no_drives, NULL, &err) ||
	    grant_device_create(ledger, &device, &err))
		return complain(err.text);
	grant_device_map(device, domid, ref, true, &bus, &handle);
	grant_device_flush(device);
	if (bus == GRANT_NO_BUS)
		return complain("the grant could not be mapped");
	printf("0x%" PRIx64 "\n", bus);
	fflush(stdout);
	while (read(0, &end, 1) > 0)
		;
	grant_device_unmap(device, bus, handle);
	grant_device_flush(device);
	grant_device_destroy(device);
	grant_ledger_close(ledger);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t domid, number;

	if (argc != 4 || !parse_u64(argv[2], UINT16_MAX, &domid) ||
	    !parse_u64(argv[3], UINT32_MAX, &number))
		return complain("usage: guest-page find|sum DOMID FRAME, or hold DOMID REF");
	if (!strcmp(argv[1], "find") || !strcmp(argv[1], "sum"))
		return look(argv[1], (uint32_t)domid, number);
	if (!strcmp(argv[1], "hold"))
		return hold((uint16_t)domid, (uint32_t)number);
	return complain("no such command");
}
