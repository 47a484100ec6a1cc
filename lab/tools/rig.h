/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rig: one NVMe drive under this project's driver, without the daemon around it.
 *
 * It is opened in the way that suits where we are: in a PV dom0 by sysfs, with memory that was
 * granted to ourselves; elsewhere by VFIO.  The calling thread is the controller's home; I/O is
 * done by workers, each a reactor with a thread and a channel of its own.
 */
#ifndef SLUICE_LAB_TOOLS_RIG_H
#define SLUICE_LAB_TOOLS_RIG_H

#include <stdatomic.h>

#include "bdev/bdev.h"
#include "nvme/bdev_nvme.h"
#include "reactor/reactor.h"

enum { RIG_WORKERS_MAX = 8 };

struct blkif_engine;
struct grant_ledger;
struct rig;

struct worker {
	struct rig *rig;
	unsigned number;
	struct reactor *reactor;
	struct bdev_channel *channel;
	/* What it does now: begun on its thread, over when it says so by rig_over(). */
	void (*begin)(struct worker *w);
	void *job;
	/* private */
	struct reactor_msg msg;
	atomic_bool over;
	int rc;
};

struct rig {
	struct nvme_pci *pci;
	struct dma *dma;
	struct grant_ledger *ledger;
	struct nvme_ctrl *ctrl;
	struct bdev *bdev;
	struct blkif_engine *engine; /* of the first worker; NULL: none */
	struct reactor *home;
	struct worker workers[RIG_WORKERS_MAX];
	unsigned nr_workers;
	bool granted; /* else VFIO */
	bool started;
	bool stopped;
	int rc;
	struct err err;
};

struct rig_options {
	unsigned workers;
	size_t memory_pages;
	unsigned timeout_s; /* of a command; 0: what the driver takes by itself */
};

/* All of these end the program, with the line, when something fails. */
void rig_open(struct rig *rig, const char *address, const struct rig_options *opts);
/* The bdev of @nsid, and a channel of it for each worker. */
void rig_open_bdev(struct rig *rig, uint32_t nsid);
void rig_close(struct rig *rig);
/* Has all workers do begin(); returns when they are over. */
void rig_run(struct rig *rig, void (*begin)(struct worker *w));
/* The same for one of them. */
void rig_run_one(struct rig *rig, struct worker *w, void (*begin)(struct worker *w));
/* On the worker's thread: it is done, and nothing is in flight. */
void rig_over(struct worker *w, int rc);
/* Steps home until @flag is true. */
void rig_wait(struct rig *rig, const bool *flag);

void rig_alloc(struct rig *rig, size_t pages, struct dma_memory *mem);

void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
