/* SPDX-License-Identifier: BSD-2-Clause */
/* The life of attached drives; drive.h has the idea. */
#include "nvme/drive.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/parse.h"
#include "nvme/bdev_nvme.h"
#include "nvme/drive_table.h"
#include "nvme/health.h"

enum {
	/* Leaves room for what follows in the names of its bdevs. */
	DRIVE_NAME_MAX = 40,
};

struct nvme_drives {
	struct nvme_ways ways;
	struct reactor *control;
	unsigned reactors;
	struct dma *dma; /* NULL: there was no drive yet */
	struct list drives;
	bool stopping;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

enum phase {
	ATTACHING, /* the controller starts, or its namespaces are looked at */
	READY,
	STOPPING, /* the controller is being shut down, for whatever reason */
	STOPPED,  /* it is, and waits for the process's end */
};

struct nvme_drive {
	struct list node;
	struct nvme_drives *all;
	char name[DRIVE_NAME_MAX + 1];
	struct nvme_pci_address address;
	enum phase phase;
	bool held;
	bool entered;
	struct nvme_pci *pci;
	struct nvme_ctrl *ctrl;
	struct list spaces;
	unsigned reading; /* partition tables */
	struct nvme_attach *attach;
	struct nvme_rescan *rescan;
	int rc; /* why it could not be attached, or the last rescan failed */
	struct err err;
	void (*detached)(void *arg);
	void *detached_arg;
	struct nvme_health_read health;
	bool health_busy;
	struct log_limit limit;
};

/* A namespace that is a bdev. */
struct space {
	struct list node;
	struct nvme_drive *drive;
	uint32_t nsid;
	struct bdev *bdev;
	bool reading;
	bool claimed; /* by us */
};

static struct space *space_of(const struct list *node)
{
	return list_entry(node, struct space, node);
}

static struct nvme_drive *drive_of(const struct list *node)
{
	return list_entry(node, struct nvme_drive, node);
}

/* Claims: a namespace is kept from disks while its drive is held and while its table is read. */

static int claim_space(struct space *s, struct err *err)
{
	int rc = s->claimed ? 0 : bdev_claim(s->bdev, false, false, err);

	s->claimed = !rc;
	return rc;
}

static void release_space(struct space *s)
{
	if (!s->claimed || s->drive->held || s->reading)
		return;
	s->claimed = false;
	bdev_release(s->bdev);
}

static void release_spaces(struct nvme_drive *d)
{
	struct list *pos;

	list_for_each (pos, &d->spaces)
		release_space(space_of(pos));
}

/* The end of a drive */

static void free_drive(struct nvme_drive *d)
{
	struct list *node;

	while ((node = list_pop(&d->spaces)))
		free(space_of(node));
	if (d->ctrl)
		nvme_ctrl_destroy(d->ctrl);
	if (d->pci)
		nvme_pci_close(d->pci);
	if (d->entered)
		d->all->ways.leave(d->all->ways.arg, d->address.text);
	list_del(&d->node);
	free(d);
}

static void check_all_stopped(struct nvme_drives *ds)
{
	void (*stopped)(void *arg) = ds->stopped;
	struct list *pos;

	if (!stopped)
		return;
	list_for_each (pos, &ds->drives) {
		if (drive_of(pos)->phase != STOPPED)
			return;
	}
	ds->stopped = NULL;
	stopped(ds->stopped_arg);
}

/*
 * Nothing of the drive reaches memory any more. It is gone if somebody was told that it would be,
 * and stays at the process's end, when others may still know it and its bdevs.
 */
static void over(struct nvme_drive *d)
{
	struct nvme_drives *ds = d->all;
	void (*detached)(void *arg) = d->detached;
	void *detached_arg = d->detached_arg;
	struct nvme_attach *attach = d->attach;
	struct err err = d->err;
	int rc = d->rc;

	d->phase = STOPPED;
	d->attach = NULL;
	d->detached = NULL;
	if ((attach || detached) && list_empty(&d->spaces))
		free_drive(d);
	if (attach)
		attach->done(attach, rc, NULL, &err);
	if (detached)
		detached(detached_arg);
	check_all_stopped(ds);
}

static void stop(struct nvme_drive *d)
{
	d->phase = STOPPING;
	nvme_ctrl_stop(d->ctrl);
}

static void ctrl_stopped(struct nvme_ctrl *c, void *arg)
{
	over(arg);
}

/* Deletes what can be deleted: what somebody uses stays. */
static void delete_space(struct space *s)
{
	struct bdev *b = bdev_next(NULL), *next;

	for (; b; b = next) {
		next = bdev_next(b);
		if (b->whole == s->bdev)
			bdev_delete(b->name, NULL);
	}
	if (bdev_delete(s->bdev->name, NULL))
		return;
	list_del(&s->node);
	free(s);
}

static void delete_spaces(struct nvme_drive *d)
{
	struct list *pos, *tmp;

	d->held = false;
	release_spaces(d);
	list_for_each_safe (pos, tmp, &d->spaces)
		delete_space(space_of(pos));
}

/* What is on it */

static void finish_rescan(struct nvme_drive *d)
{
	struct nvme_rescan *rescan = d->rescan;
	struct err err = d->err;
	int rc = d->rc;

	if (!rescan)
		return;
	d->rescan = NULL;
	d->rc = 0;
	rescan->done(rescan, rc, &err);
}

static void settle(struct nvme_drive *d)
{
	struct nvme_attach *attach = d->attach;

	if (d->reading)
		return;
	finish_rescan(d);
	if (d->all->stopping && d->phase < STOPPING) {
		if (attach)
			d->rc = err_set(&d->err, -ECANCELED, "sluiced is ending");
		stop(d);
		return;
	}
	if (d->phase != ATTACHING)
		return;
	if (d->rc) {
		delete_spaces(d);
		stop(d);
		return;
	}
	d->phase = READY;
	d->attach = NULL;
	log_info("drive %s attached (%s)", d->name, d->address.text);
	if (nvme_drive_queues_short(d))
		log_warning("drive %s has queues for %u of %u reactors: disks on it that need the "
			    "others do not connect (start sluiced with a smaller --cpumask)",
			    d->name, nvme_ctrl_queues(d->ctrl), d->all->reactors);
	attach->done(attach, 0, d, NULL);
}

/* Whether @b is the bdev of this partition, where that lies now. */
static bool is_part(const struct bdev *b, const struct gpt_part *p)
{
	uint32_t block_size = b->limits.block_size;

	return b->part == p->number && bdev_nvme_start(b) == p->first * block_size &&
	       b->size == p->blocks * block_size;
}

/* Deletes the bdevs of partitions that are gone, or lie elsewhere; those in use stay. */
static void drop_parts(struct space *s, const struct gpt_part *parts, int n)
{
	struct bdev *b = bdev_next(NULL), *next;

	for (; b; b = next) {
		bool there = false;

		next = bdev_next(b);
		if (b->whole != s->bdev)
			continue;
		for (int i = 0; i < n && !there; i++)
			there = is_part(b, &parts[i]);
		if (!there && bdev_delete(b->name, NULL))
			log_warning("bdev \"%s\" is in use, and its partition is gone or lies "
				    "elsewhere: it stays as it is until the next look at the table",
				    b->name);
	}
}

/* The bdev of a partition that has @p's number or some of its blocks; NULL: there is none. */
static struct bdev *find_rival(const struct space *s, const struct gpt_part *p)
{
	uint64_t start = p->first * s->bdev->limits.block_size;
	uint64_t end = start + p->blocks * s->bdev->limits.block_size;

	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b)) {
		if (b->whole == s->bdev &&
		    (b->part == p->number ||
		     (bdev_nvme_start(b) < end && start < bdev_nvme_start(b) + b->size)))
			return b;
	}
	return NULL;
}

static void add_part(struct space *s, const struct gpt_part *p)
{
	uint32_t block_size = s->bdev->limits.block_size;
	struct bdev *part = find_rival(s, p);
	char name[sizeof(s->bdev->name)];
	struct err err;
	int rc = 0;

	snprintf(name, sizeof(name), "%.51sp%u", s->bdev->name, p->number);
	if (!part)
		rc = bdev_nvme_create_part(name, s->bdev, p->first * block_size,
					   p->blocks * block_size, &part, &err);
	else if (!is_part(part, p))
		rc = err_set(&err, -EBUSY, "bdev \"%s\", which is in use, was there before",
			     part->name);
	if (rc) {
		log_error("partition %s cannot be served: %s", name, err.text);
		return;
	}
	strcpy(part->owner, s->drive->name);
	part->part = p->number;
	strcpy(part->label, p->name);
}

static void table_read(void *arg, int rc, const struct gpt_part *parts, unsigned refused,
		       const struct err *err)
{
	struct space *s = arg;
	struct nvme_drive *d = s->drive;

	if (rc < 0)
		log_error("%s", err->text);
	if (rc < 0 && d->rescan) {
		d->rc = rc;
		d->err = *err;
	}
	if (refused)
		log_error("bdev \"%s\": %u partitions overlap, lie outside, or are too many, and "
			  "are not served",
			  s->bdev->name, refused);
	if (rc >= 0)
		drop_parts(s, parts, rc);
	for (int i = 0; i < rc; i++)
		add_part(s, &parts[i]);
	s->reading = false;
	d->reading--;
	release_space(s);
	settle(d);
}

static struct space *find_space(const struct nvme_drive *d, uint32_t nsid)
{
	struct list *pos;

	list_for_each (pos, &d->spaces) {
		if (space_of(pos)->nsid == nsid)
			return space_of(pos);
	}
	return NULL;
}

/* Makes a bdev of a namespace, and has its table read. Returns 0 or a negative errno. */
static int add_space(struct nvme_drive *d, uint32_t nsid, struct err *err)
{
	struct space *s = calloc(1, sizeof(*s));
	char name[sizeof(s->bdev->name)];
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "no memory left for a namespace");
	snprintf(name, sizeof(name), "%sn%" PRIu32, d->name, nsid);
	rc = bdev_nvme_create(name, d->ctrl, nsid, &s->bdev, err);
	if (rc) {
		free(s);
		return rc;
	}
	strcpy(s->bdev->owner, d->name);
	s->drive = d;
	s->nsid = nsid;
	list_add_tail(&d->spaces, &s->node);
	claim_space(s, NULL);
	s->reading = true;
	d->reading++;
	rc = drive_table_read(s->bdev, d->all->control, table_read, s, err);
	if (rc) {
		log_error("%s", err->text);
		s->reading = false;
		d->reading--;
		release_space(s);
	}
	return 0;
}

/* Makes bdevs of the namespaces that are none yet. */
static void add_spaces(struct nvme_drive *d)
{
	const struct nvme_namespace *list;
	unsigned n = nvme_ctrl_namespaces(d->ctrl, &list);
	struct err err;
	int rc;

	/* Its own count, so that nothing is settled in between. */
	d->reading++;
	for (unsigned i = 0; i < n; i++) {
		if (find_space(d, list[i].nsid))
			continue;
		rc = add_space(d, list[i].nsid, &err);
		if (!rc)
			continue;
		/* What is wrong with the name is wrong with the request. */
		if (rc == -EEXIST && d->attach && !d->rc) {
			d->rc = rc;
			d->err = err;
		} else {
			log_error("drive %s: %s", d->name, err.text);
		}
	}
	if (!n)
		log_warning("drive %s has no active namespace: attach one to the controller with "
			    "\"nvme attach-ns\"",
			    d->name);
	d->reading--;
	settle(d);
}

/* What it reports */

static void ctrl_started(struct nvme_ctrl *c, int rc, const struct err *err, void *arg)
{
	struct nvme_drive *d = arg;

	if (!rc) {
		add_spaces(d);
		return;
	}
	d->rc = rc;
	d->err = *err;
	settle(d);
}

static void health_done(struct nvme_health_read *r, int rc)
{
	struct nvme_drive *d = container_of(r, struct nvme_drive, health);
	char words[256] = "";
	size_t len = 0;

	d->health_busy = false;
	if (rc || !r->health.has_smart)
		return;
	for (unsigned bit = 0; bit < 8; bit++) {
		const char *word = nvme_health_warning(bit);

		if (r->health.warnings >> bit & 1 && word && len < sizeof(words))
			len += (size_t)snprintf(words + len, sizeof(words) - len, "%s%s",
						len ? ", " : "", word);
	}
	if (words[0])
		log_limited(&d->limit, LOG_LEVEL_WARNING,
			    "drive %s warns: %s (%d degrees Celsius, %u%% spare, %u%% used; see "
			    "\"sluice nvme show %s\")",
			    d->name, words, r->health.temperature, r->health.spare, r->health.used,
			    d->name);
	else
		log_limited(&d->limit, LOG_LEVEL_INFO,
			    "drive %s has reported an event; its health is good", d->name);
}

static void look_at_health(struct nvme_drive *d)
{
	if (d->health_busy)
		return;
	d->health_busy = true;
	d->health = (struct nvme_health_read){.done = health_done};
	nvme_health_read(d->ctrl, &d->health);
}

static void ctrl_changed(struct nvme_ctrl *c, enum nvme_change what, void *arg)
{
	struct nvme_drive *d = arg;

	if (d->phase >= STOPPING)
		return;
	switch (what) {
	case NVME_CHANGED_NAMESPACES:
		bdev_nvme_update(c);
		add_spaces(d);
		break;
	case NVME_CHANGED_HEALTH:
		look_at_health(d);
		break;
	case NVME_CHANGED_DEAD:
		log_error("drive %s (%s) has failed or is gone: its disks get errors; replace it, "
			  "and detach and attach it anew",
			  d->name, d->address.text);
		break;
	}
}

static const struct nvme_ctrl_ops ctrl_ops = {ctrl_started, ctrl_changed, ctrl_stopped};

/* Attaching */

static int check_new(const struct nvme_drives *ds, const char *name,
		     const struct nvme_pci_address *address, struct err *err)
{
	struct list *pos;

	if (ds->stopping)
		return err_set(err, -ECANCELED, "sluiced is ending");
	if (!parse_name(name) || strlen(name) > DRIVE_NAME_MAX)
		return err_set(err, -EINVAL,
			       "\"%.64s\" is no name for a drive: use 1 to %d letters, digits and "
			       "_.:-, the first no - or .",
			       name, DRIVE_NAME_MAX);
	list_for_each (pos, &ds->drives) {
		const struct nvme_drive *d = drive_of(pos);

		if (!strcmp(d->address.text, address->text))
			return err_set(err, -EEXIST, "drive %s is attached already, as \"%s\"",
				       address->text, d->name);
		if (!strcmp(d->name, name))
			return err_set(err, -EEXIST,
				       "there is a drive \"%s\" already (%s): choose another name, "
				       "or detach that one first",
				       name, d->address.text);
	}
	return 0;
}

static int begin(struct nvme_drive *d, struct err *err)
{
	struct nvme_drives *ds = d->all;
	struct nvme_ctrl_options opts;
	int rc = 0;

	if (!ds->dma)
		rc = ds->ways.dma_create(ds->ways.arg, &ds->dma, err);
	if (!rc)
		rc = ds->ways.open(ds->ways.arg, d->address.text, ds->dma, &d->pci, err);
	if (rc)
		return rc;
	rc = ds->ways.enter(ds->ways.arg, d->address.text, err);
	if (rc)
		return rc;
	d->entered = true;
	nvme_ctrl_default_options(&opts);
	/* One more for us, who read partition tables. */
	opts.io_queues = ds->reactors + 1 < NVME_QUEUES_MAX ? ds->reactors + 1 : NVME_QUEUES_MAX;
	rc = nvme_ctrl_create(d->pci, ds->dma, ds->control, &opts, &ctrl_ops, d, &d->ctrl, err);
	if (rc)
		return rc;
	nvme_ctrl_start(d->ctrl);
	return 0;
}

int nvme_drive_attach(struct nvme_drives *ds, const char *name, const char *address,
		      struct nvme_attach *a, struct err *err)
{
	struct nvme_pci_address full;
	struct nvme_drive *d;
	int rc = nvme_pci_parse_address(address, &full, err);

	if (!rc)
		rc = check_new(ds, name, &full, err);
	if (rc)
		return rc;
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(err, -ENOMEM, "no memory left for a drive");
	d->all = ds;
	d->address = full;
	strcpy(d->name, name);
	d->held = true;
	d->attach = a;
	list_init(&d->spaces);
	list_add_tail(&ds->drives, &d->node);
	rc = begin(d, err);
	if (rc)
		free_drive(d);
	return rc;
}

/* Holding and detaching */

static int check_ready(const struct nvme_drive *d, struct err *err)
{
	if (d->phase != READY || d->reading)
		return err_set(err, -EBUSY,
			       "drive %s is being attached, detached or looked at: try again",
			       d->name);
	return 0;
}

int nvme_drive_rescan(struct nvme_drive *d, struct nvme_rescan *r, struct err *err)
{
	struct list *pos;
	int rc = check_ready(d, err);

	if (rc)
		return rc;
	d->rescan = r;
	/* Its own count, so that nothing is settled in between. */
	d->reading++;
	list_for_each (pos, &d->spaces) {
		struct space *s = space_of(pos);

		s->reading = true;
		d->reading++;
		rc = drive_table_read(s->bdev, d->all->control, table_read, s, &d->err);
		if (!rc)
			continue;
		d->rc = rc;
		s->reading = false;
		d->reading--;
	}
	d->reading--;
	settle(d);
	return 0;
}

/* A bdev of the drive that a disk uses; NULL: there is none. */
static const struct bdev *find_used(const struct nvme_drive *d)
{
	for (const struct bdev *b = bdev_next(NULL); b; b = bdev_next(b)) {
		if (!strcmp(b->owner, d->name) && b->claims)
			return b;
	}
	return NULL;
}

int nvme_drive_hold(struct nvme_drive *d, struct err *err)
{
	const struct bdev *used;
	struct list *pos;
	int rc = check_ready(d, err);

	if (rc)
		return rc;
	used = find_used(d);
	if (used || d->held)
		return err_set(err, -EBUSY, "drive %s is in use%s%s: detach its disks first",
			       d->name, used ? " by way of bdev " : "", used ? used->name : "");
	list_for_each (pos, &d->spaces)
		claim_space(space_of(pos), NULL);
	d->held = true;
	return 0;
}

void nvme_drive_release(struct nvme_drive *d)
{
	d->held = false;
	release_spaces(d);
}

int nvme_drive_detach(struct nvme_drive *d, void (*done)(void *arg), void *arg, struct err *err)
{
	int rc = check_ready(d, err);

	if (rc)
		return rc;
	delete_spaces(d);
	if (!list_empty(&d->spaces))
		return err_set(err, -EBUSY,
			       "drive %s has come into use by way of bdev \"%s\": detach its disks "
			       "first",
			       d->name, space_of(d->spaces.next)->bdev->name);
	d->detached = done;
	d->detached_arg = arg;
	stop(d);
	return 0;
}

/* All of them */

int nvme_drives_create(const struct nvme_ways *ways, struct reactor *control, unsigned reactors,
		       struct nvme_drives **out)
{
	struct nvme_drives *ds = calloc(1, sizeof(*ds));

	if (!ds)
		return -ENOMEM;
	ds->ways = *ways;
	ds->control = control;
	ds->reactors = reactors;
	list_init(&ds->drives);
	*out = ds;
	return 0;
}

void nvme_drives_stop(struct nvme_drives *ds, void (*stopped)(void *arg), void *arg)
{
	struct list *pos;

	ds->stopping = true;
	ds->stopped = stopped;
	ds->stopped_arg = arg;
	/* Those on the way up or down settle by themselves. */
	list_for_each (pos, &ds->drives) {
		if (drive_of(pos)->phase == READY)
			settle(drive_of(pos));
	}
	check_all_stopped(ds);
}

void nvme_drives_destroy(struct nvme_drives *ds)
{
	while (!list_empty(&ds->drives))
		free_drive(drive_of(ds->drives.next));
	if (ds->dma)
		ds->ways.dma_destroy(ds->ways.arg, ds->dma);
	free(ds);
}

struct nvme_drive *nvme_drive_find(struct nvme_drives *ds, const char *name)
{
	struct list *pos;

	list_for_each (pos, &ds->drives) {
		if (!strcmp(drive_of(pos)->name, name))
			return drive_of(pos);
	}
	return NULL;
}

struct nvme_drive *nvme_drive_next(struct nvme_drives *ds, const struct nvme_drive *d)
{
	const struct list *node = d ? d->node.next : ds->drives.next;

	return node == &ds->drives ? NULL : drive_of(node);
}

const char *nvme_drive_name(const struct nvme_drive *d)
{
	return d->name;
}

const char *nvme_drive_address(const struct nvme_drive *d)
{
	return d->address.text;
}

bool nvme_drive_ready(const struct nvme_drive *d)
{
	return d->phase == READY;
}

bool nvme_drive_held(const struct nvme_drive *d)
{
	return d->held;
}

unsigned nvme_drive_queues_short(const struct nvme_drive *d)
{
	unsigned queues = nvme_ctrl_queues(d->ctrl), reactors = d->all->reactors;

	return reactors > queues ? reactors - queues : 0;
}

struct nvme_ctrl *nvme_drive_ctrl(const struct nvme_drive *d)
{
	return d->ctrl;
}
