/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "blkif/engine.h"
#include "dma/granted.h"
#include "dma/vfio.h"
#include "grant/ledger.h"

/* Home's pause between two looks: short against what a controller takes for anything. */
enum { PAUSE_US = 500 };

void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("drive-load: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static bool in_xen(void)
{
	char type[16] = "";
	FILE *f = fopen("/sys/hypervisor/type", "r");

	if (f && !fgets(type, sizeof(type), f))
		type[0] = '\0';
	if (f)
		fclose(f);
	return !strncmp(type, "xen", 3);
}

static void started(struct nvme_ctrl *c, int rc, const struct err *err, void *arg)
{
	struct rig *rig = arg;

	rig->rc = rc;
	if (err)
		rig->err = *err;
	rig->started = true;
}

static void changed(struct nvme_ctrl *c, enum nvme_change what, void *arg)
{
	if (what == NVME_CHANGED_DEAD)
		fprintf(stderr, "drive-load: the drive has failed\n");
}

static void stopped(struct nvme_ctrl *c, void *arg)
{
	struct rig *rig = arg;

	nvme_ctrl_destroy(c);
	rig->ctrl = NULL;
	rig->stopped = true;
}

static const struct nvme_ctrl_ops ctrl_ops = {started, changed, stopped};

void rig_wait(struct rig *rig, const bool *flag)
{
	while (!*flag) {
		reactor_step(rig->home);
		usleep(PAUSE_US);
	}
}

static int stop_drive(const char *address, void *arg, struct err *err)
{
	struct nvme_pci *pci;
	int rc = nvme_sysfs_open(address, &pci, err);

	if (rc)
		return rc;
	rc = nvme_ctrl_quiesce(pci, err);
	nvme_pci_close(pci);
	return rc;
}

/* A drive has one user at a time, so it may name the ledger. */
static void open_ledger(struct rig *rig, const char *address)
{
	char path[64];
	struct err err;

	if (mkdir("/run/sluice", 0755) && errno != EEXIST)
		die("cannot make /run/sluice: %s", strerror(errno));
	snprintf(path, sizeof(path), "/run/sluice/drive-load-%s.ledger", address);
	if (grant_ledger_open(path, &rig->ledger, &err) ||
	    grant_ledger_recover(rig->ledger, stop_drive, NULL, &err))
		die("%s", err.text);
}

static void open_drive(struct rig *rig, const char *address, size_t pages)
{
	struct err err;
	int rc;

	rig->granted = in_xen();
	if (rig->granted)
		open_ledger(rig, address);
	if (rig->granted)
		rc = dma_granted_create(pages, rig->ledger, &rig->dma, &err);
	else
		rc = dma_vfio_create(pages, &rig->dma, &err);
	if (rc)
		die("%s", err.text);
	if (rig->granted)
		rc = nvme_sysfs_open(address, &rig->pci, &err);
	else
		rc = nvme_vfio_open(address, rig->dma, &rig->pci, &err);
	if (rc)
		die("%s", err.text);
	if (rig->granted && grant_ledger_note_drive(rig->ledger, rig->pci->name))
		die("the ledger has no room for drive %s", rig->pci->name);
}

void rig_open(struct rig *rig, const char *address, const struct rig_options *opts)
{
	struct nvme_ctrl_options ctrl_opts;
	struct err err;

	*rig = (struct rig){.nr_workers = opts->workers};
	open_drive(rig, address, opts->memory_pages);
	if (reactor_create("home", -1, NULL, &rig->home))
		die("no reactor");
	nvme_ctrl_default_options(&ctrl_opts);
	ctrl_opts.io_queues = opts->workers;
	if (opts->timeout_s) {
		ctrl_opts.timeout_ns = opts->timeout_s * NSEC_PER_SEC;
		ctrl_opts.abort_timeout_ns = ctrl_opts.timeout_ns;
	}
	if (nvme_ctrl_create(rig->pci, rig->dma, rig->home, &ctrl_opts, &ctrl_ops, rig, &rig->ctrl,
			     &err))
		die("%s", err.text);
	nvme_ctrl_start(rig->ctrl);
	rig_wait(rig, &rig->started);
	if (rig->rc)
		die("%s", rig->err.text);
}

static void run_message(struct reactor_msg *msg)
{
	struct worker *w = container_of(msg, struct worker, msg);

	w->begin(w);
}

static void send(struct worker *w, void (*begin)(struct worker *w))
{
	w->begin = begin;
	w->rc = 0;
	atomic_store(&w->over, false);
	w->msg.fn = run_message;
	reactor_send(w->reactor, &w->msg);
}

void rig_over(struct worker *w, int rc)
{
	w->rc = rc;
	atomic_store(&w->over, true);
}

static void await(struct rig *rig, struct worker *w)
{
	while (!atomic_load(&w->over)) {
		reactor_step(rig->home);
		usleep(20 * PAUSE_US);
	}
	if (w->rc)
		die("worker %u: %s", w->number, strerror(-w->rc));
}

void rig_run_one(struct rig *rig, struct worker *w, void (*begin)(struct worker *w))
{
	send(w, begin);
	await(rig, w);
}

void rig_run(struct rig *rig, void (*begin)(struct worker *w))
{
	for (unsigned i = 0; i < rig->nr_workers; i++)
		send(&rig->workers[i], begin);
	for (unsigned i = 0; i < rig->nr_workers; i++)
		await(rig, &rig->workers[i]);
}

static void open_channel(struct worker *w)
{
	rig_over(w, bdev_channel_open(w->rig->bdev, w->reactor, &w->channel));
}

static void close_channel(struct worker *w)
{
	bdev_channel_close(w->channel);
	rig_over(w, 0);
}

void rig_open_bdev(struct rig *rig, uint32_t nsid)
{
	struct err err;

	if (bdev_nvme_create("drive", rig->ctrl, nsid, &rig->bdev, &err))
		die("%s", err.text);
	for (unsigned i = 0; i < rig->nr_workers; i++) {
		struct worker *w = &rig->workers[i];
		char name[24];

		snprintf(name, sizeof(name), "worker%u", i);
		w->rig = rig;
		w->number = i;
		if (reactor_create(name, -1, NULL, &w->reactor) || reactor_start(w->reactor))
			die("no reactor");
	}
	rig_run(rig, open_channel);
}

void rig_close(struct rig *rig)
{
	struct err err;

	if (rig->bdev) {
		rig_run(rig, close_channel);
		if (bdev_delete("drive", &err))
			die("%s", err.text);
	}
	nvme_ctrl_stop(rig->ctrl);
	rig_wait(rig, &rig->stopped);
	for (unsigned i = 0; rig->bdev && i < rig->nr_workers; i++) {
		reactor_stop(rig->workers[i].reactor);
		reactor_join(rig->workers[i].reactor);
	}
	/* Its reactor must not run any more, and must be there. */
	if (rig->engine)
		blkif_engine_destroy(rig->engine);
	for (unsigned i = 0; rig->bdev && i < rig->nr_workers; i++)
		reactor_destroy(rig->workers[i].reactor);
	reactor_destroy(rig->home);
	if (rig->granted)
		grant_ledger_forget_drive(rig->ledger, rig->pci->name);
	nvme_pci_close(rig->pci);
	if (rig->granted) {
		dma_granted_destroy(rig->dma);
		grant_ledger_close(rig->ledger);
		return;
	}
	dma_vfio_destroy(rig->dma);
}

void rig_alloc(struct rig *rig, size_t pages, struct dma_memory *mem)
{
	struct err err;

	if (dma_alloc(rig->dma, pages, false, mem, &err))
		die("%s", err.text);
}
