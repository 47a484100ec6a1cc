/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * drive: the NVMe controllers that this process has, each by a name of ours, with what is on them
 * as bdevs: nvme0's namespace 1 is nvme0n1, and its first partition nvme0n1p1.
 *
 * Attaching and detaching take as long as a controller takes, so both end in a callback.  While a
 * controller is attached its bdevs come up one by one, and nobody is to use one before all is known
 * (a partition table, say, or whether the new set could be saved): so a drive is held, all its
 * namespaces claimed, until whoever attached it lets go.
 *
 * A drive that dies stays, and so do its bdevs, which fail all that is asked of them: guests see
 * errors rather than disks that vanish, and the administrator sees what has failed.
 *
 * All functions belong to the control thread.
 */
#ifndef SLUICE_NVME_DRIVE_H
#define SLUICE_NVME_DRIVE_H

#include "bdev/bdev.h"
#include "nvme/controller.h"

/* How this host gets at drives. */
struct nvme_ways {
	/* Device memory, of which there is one kind for all drives; made when the first comes. */
	int (*dma_create)(void *arg, struct dma **out, struct err *err);
	void (*dma_destroy)(void *arg, struct dma *dma);
	/* As nvme_sysfs_open(). */
	int (*open)(void *arg, const char *address, struct dma *dma, struct nvme_pci **out,
		    struct err *err);
	/* A drive is going to reach memory, and does not any more: for who comes after a crash. */
	int (*enter)(void *arg, const char *address, struct err *err);
	void (*leave)(void *arg, const char *address);
	void *arg;
};

struct nvme_drives;
struct nvme_drive;

/* @reactors: how many do I/O, beside @control. @ways is copied. Returns 0 or -ENOMEM. */
int nvme_drives_create(const struct nvme_ways *ways, struct reactor *control, unsigned reactors,
		       struct nvme_drives **out);
/*
 * The end, first part: all drives are shut down in good order, then @stopped is called, perhaps
 * before this returns. No channel of their bdevs is open, but reactors run. Nothing is attached or
 * detached from now on; attaches under way fail.
 */
void nvme_drives_stop(struct nvme_drives *ds, void (*stopped)(void *arg), void *arg);
/* The second: all are stopped, their bdevs gone, and none of their memory is in use. */
void nvme_drives_destroy(struct nvme_drives *ds);

struct nvme_attach {
	/* Once: 0 and the drive, which is held; or a negative errno with the line in @err. */
	void (*done)(struct nvme_attach *a, int rc, struct nvme_drive *d, const struct err *err);
};
/*
 * Attaches the controller at PCI address @address as @name; @a->done is called later. Returns 0, or
 * a negative errno with the line in @err if that cannot even begin: -EEXIST: the name or the drive
 * is there already.
 */
int nvme_drive_attach(struct nvme_drives *ds, const char *name, const char *address,
		      struct nvme_attach *a, struct err *err);
/*
 * Keeps disks from using the drive's bdevs. Returns 0, or -EBUSY with the line in @err: some do, or
 * the drive is being attached or detached.
 */
int nvme_drive_hold(struct nvme_drive *d, struct err *err);
void nvme_drive_release(struct nvme_drive *d);
/*
 * Deletes the bdevs of the drive, which is held, and lets go of it; @done is called when it has
 * been shut down. Returns 0, or -EBUSY with the line in @err.
 */
int nvme_drive_detach(struct nvme_drive *d, void (*done)(void *arg), void *arg, struct err *err);

struct nvme_rescan {
	/* Once: 0, or a negative errno with the line in @err: a table could not be read. */
	void (*done)(struct nvme_rescan *r, int rc, const struct err *err);
};
/*
 * Reads the partition tables anew, also while disks use the drive: new partitions become bdevs, and
 * bdevs of partitions that are gone or lie elsewhere go. Those that a disk uses stay as they are,
 * and what would overlap them is not served. Namespaces whose table cannot be read stay as they
 * are. @r->done is called later, perhaps before this returns. Returns 0 or -EBUSY (the drive is
 * being attached, detached or looked at) with the line in @err.
 */
int nvme_drive_rescan(struct nvme_drive *d, struct nvme_rescan *r, struct err *err);

/* NULL: there is none. */
struct nvme_drive *nvme_drive_find(struct nvme_drives *ds, const char *name);
/* All of them, oldest first: NULL starts, and ends. */
struct nvme_drive *nvme_drive_next(struct nvme_drives *ds, const struct nvme_drive *d);
const char *nvme_drive_name(const struct nvme_drive *d);
const char *nvme_drive_address(const struct nvme_drive *d);
/* Attached, and neither on the way there nor out. */
bool nvme_drive_ready(const struct nvme_drive *d);
/* Kept from disks, as its attaching or detaching is not settled yet. */
bool nvme_drive_held(const struct nvme_drive *d);
/*
 * How many of the reactors that do I/O find no queue of the drive's: disks whose own queues are
 * served there do not connect. Of a drive that is ready.
 */
unsigned nvme_drive_queues_short(const struct nvme_drive *d);
struct nvme_ctrl *nvme_drive_ctrl(const struct nvme_drive *d);

#endif
