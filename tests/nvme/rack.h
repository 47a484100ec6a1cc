/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rack: a host with one drive in it, the model of a controller, for tests of drives by name.
 *
 * It keeps count of what it was asked for, and at the end of each test all must have been given
 * back.  What it answers can be made to fail.
 */
#ifndef SLUICE_TESTS_NVME_RACK_H
#define SLUICE_TESTS_NVME_RACK_H

#include "nvme/drive.h"
#include "stage.h"

enum { RACK_BLOCKS = 1024 }; /* of the drive's namespaces, as a rule */
#define RACK_ADDRESS "0000:00:04.0"

struct rack {
	struct stage *stage;
	struct nvme_drives *drives;
	struct {
		unsigned opened, closed;
		unsigned dmas;
		int entered;                   /* more often than left */
		int open_rc, enter_rc, dma_rc; /* what it answers; 0: well */
	} host;
	struct {
		struct nvme_attach attach;
		unsigned done;
		int rc;
		struct nvme_drive *drive;
		struct err err;
	} last; /* what was attached last, or not */
	unsigned detached, all_stopped;
};
extern struct rack rack;

/* Before and after each test; its state points to the block size (uint32_t), or is NULL: 512. */
int rack_setup(void **state);
int rack_teardown(void **state);

/* Begins to attach; rack.last tells. Returns as nvme_drive_attach(). */
int rack_begin(const char *name, const char *address);
/* Attaches the drive as nvme0, which is held, and detaches it. */
struct nvme_drive *rack_attach(void);
void rack_detach(struct nvme_drive *d);
/* For nvme_drives_stop() and nvme_drive_detach(). */
void rack_note_all_stopped(void *arg);
void rack_note_detached(void *arg);
/* Another drive, or the same one after its power was gone. */
void rack_power_cycle(void);
/* The bytes of a namespace of the model, which makes them when they are first written otherwise. */
uint8_t *rack_disk(unsigned nr);
/* There is the whole namespace nvme0n1, and no other bdev. */
void rack_expect_no_parts(void);

#endif
