/* SPDX-License-Identifier: BSD-2-Clause */
#include "rack.h"

#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"

struct rack rack;

/* The host */

static int dma_create(void *arg, struct dma **out, struct err *err)
{
	if (rack.host.dma_rc)
		return err_set(err, rack.host.dma_rc, "no such memory");
	rack.host.dmas++;
	*out = &rack.stage->mem.dma;
	return 0;
}

static void dma_destroy(void *arg, struct dma *dma)
{
	assert_ptr_equal(dma, &rack.stage->mem.dma);
	assert_int_equal(dma_double_used(&rack.stage->mem), 0);
	rack.host.dmas--;
}

static const struct nvme_pci_ops *model_ops;
static struct nvme_pci_ops counted_ops;

static void count_close(struct nvme_pci *pci)
{
	/* Nothing may be cut off before it is stopped. */
	assert_true(rack.stage->model.removed || !(rack.stage->model.cc & NVME_CC_EN) ||
		    !model_bus_master(&rack.stage->model));
	rack.host.closed++;
}

static int open_drive(void *arg, const char *address, struct dma *dma, struct nvme_pci **out,
		      struct err *err)
{
	if (rack.host.open_rc)
		return err_set(err, rack.host.open_rc, "no such drive");
	assert_string_equal(address, RACK_ADDRESS);
	assert_ptr_equal(dma, &rack.stage->mem.dma);
	assert_false(model_bus_master(&rack.stage->model));
	rack.host.opened++;
	*out = &rack.stage->model.pci;
	return 0;
}

static int enter(void *arg, const char *address, struct err *err)
{
	if (rack.host.enter_rc)
		return err_set(err, rack.host.enter_rc, "one too many");
	assert_false(model_bus_master(&rack.stage->model));
	rack.host.entered++;
	return 0;
}

static void leave(void *arg, const char *address)
{
	assert_string_equal(address, RACK_ADDRESS);
	assert_int_equal(rack.host.closed, rack.host.opened);
	rack.host.entered--;
}

static const struct nvme_ways ways = {dma_create, dma_destroy, open_drive, enter, leave, NULL};

int rack_setup(void **state)
{
	uint32_t block_size = *state ? *(uint32_t *)*state : 512;

	rack.stage = stage_create(block_size);
	model_ops = rack.stage->model.pci.ops;
	counted_ops = *model_ops;
	counted_ops.close = count_close;
	rack.stage->model.pci.ops = &counted_ops;
	memset(&rack.host, 0, sizeof(rack.host));
	memset(&rack.last, 0, sizeof(rack.last));
	rack.detached = rack.all_stopped = 0;
	assert_int_equal(nvme_drives_create(&ways, rack.stage->home, STAGE_REACTORS, &rack.drives),
			 0);
	return 0;
}

void rack_note_all_stopped(void *arg)
{
	rack.all_stopped++;
}

int rack_teardown(void **state)
{
	if (!rack.all_stopped) {
		nvme_drives_stop(rack.drives, rack_note_all_stopped, NULL);
		stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.all_stopped);
	}
	bdev_delete_all();
	nvme_drives_destroy(rack.drives);
	assert_int_equal(rack.host.opened, rack.host.closed);
	assert_int_equal(rack.host.entered, 0);
	assert_int_equal(rack.host.dmas, 0);
	stage_destroy(rack.stage);
	return 0;
}

void rack_power_cycle(void)
{
	rack.stage->model.removed = rack.stage->model.never_ready = false;
	rack.stage->model.cc = 0;
	memset(rack.stage->model.config + NVME_PCI_COMMAND, 0, 2);
	model_power_on(&rack.stage->model);
}

/* Drives */

static void done(struct nvme_attach *a, int rc, struct nvme_drive *d, const struct err *err)
{
	rack.last.done++;
	rack.last.rc = rc;
	rack.last.drive = d;
	if (rc)
		rack.last.err = *err;
}

int rack_begin(const char *name, const char *address)
{
	rack.last.done = 0;
	rack.last.attach.done = done;
	return nvme_drive_attach(rack.drives, name, address, &rack.last.attach, &rack.last.err);
}

struct nvme_drive *rack_attach(void)
{
	assert_int_equal(rack_begin("nvme0", RACK_ADDRESS), 0);
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.last.done);
	assert_int_equal(rack.last.rc, 0);
	return rack.last.drive;
}

void rack_note_detached(void *arg)
{
	rack.detached++;
}

void rack_detach(struct nvme_drive *d)
{
	unsigned before = rack.detached;
	struct err err;

	assert_int_equal(nvme_drive_hold(d, &err), 0);
	assert_int_equal(nvme_drive_detach(d, rack_note_detached, NULL, &err), 0);
	assert_null(bdev_next(NULL));
	stage_until(rack.stage, 200 * NSEC_PER_SEC, rack.detached > before);
	assert_null(nvme_drive_find(rack.drives, "nvme0"));
	assert_int_equal(dma_double_used(&rack.stage->mem), 0);
	assert_int_equal(rack.host.opened, rack.host.closed);
}

uint8_t *rack_disk(unsigned nr)
{
	struct model_namespace *ns = &rack.stage->model.ns[nr];

	if (!ns->data)
		ns->data = calloc(ns->blocks, ns->block_size);
	assert_non_null(ns->data);
	return ns->data;
}

void rack_expect_no_parts(void)
{
	const struct bdev *b = bdev_next(NULL);

	assert_non_null(b);
	assert_string_equal(b->name, "nvme0n1");
	assert_null(bdev_next(b));
}
