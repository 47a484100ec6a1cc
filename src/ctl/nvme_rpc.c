/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A drive takes its time to start and to stop, and the file of the set takes its own to be written,
 * so a request has two parts.  To attach: start the drive, then save the set with it, while the
 * drive is held, so that no disk can come to use what may yet be undone.  To detach: hold it and
 * save the set without, then shut it down.
 */
#include "ctl/nvme_rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"
#include "nvme/health.h"

#define ATTACH "bdev_nvme_attach_controller"

struct spec {
	const char *name;
	const char *trtype;
	const char *traddr;
};

static const struct params_field attach_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
	PARAMS_REQUIRED(struct spec, trtype, PARAMS_STRING),
	PARAMS_REQUIRED(struct spec, traddr, PARAMS_STRING),
};

static const struct params_field name_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
};

static int check_transport(const struct spec *spec, struct err *err)
{
	if (!strcasecmp(spec->trtype, "PCIe"))
		return 0;
	return err_set(err, -EOPNOTSUPP, "a transport '%.32s' is not served: use PCIe",
		       spec->trtype);
}

static int no_drive(const char *name, struct err *err)
{
	return err_set(err, -ENODEV, "no drive '%.64s' is attached (sluice nvme list shows them)",
		       name);
}

/* The attached drive that a request names; NULL: there is none, and the request is answered. */
static struct nvme_drive *find_named(struct nvme_rpc *n, struct rpc_request *req,
				     const json_t *params)
{
	struct spec spec = {0};
	struct nvme_drive *d;
	struct err err;

	if (!rpc_decode(req, params, name_fields, 1, &spec))
		return NULL;
	d = nvme_drive_find(n->drives, spec.name);
	if (!d)
		rpc_fail(req, no_drive(spec.name, &err), "%s", err.text);
	return d;
}

/* The names of its bdevs. New reference, or NULL. */
static json_t *describe_bdevs(const struct nvme_drive *d)
{
	json_t *list = json_array();

	for (struct bdev *b = bdev_next(NULL); b && list; b = bdev_next(b)) {
		if (strcmp(b->owner, nvme_drive_name(d)))
			continue;
		if (json_array_append_new(list, json_string(b->name))) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

/* Drives that are in the file, and could not be had at start */

static const char *text_of(const json_t *params, const char *name)
{
	const char *text = json_string_value(json_object_get(params, name));

	return text ? text : "";
}

struct kept_check {
	const struct spec *spec;
	struct nvme_pci_address address;
	int rc;
	struct err *err;
};

static void check_one_kept(const json_t *params, void *arg)
{
	struct kept_check *check = arg;
	const char *name = text_of(params, "name"), *address = text_of(params, "traddr");

	if (!strcmp(name, check->spec->name) == !strcmp(address, check->address.text))
		return;
	check->rc = err_set(check->err, -EEXIST,
			    "drive %.32s was not there at the start, and is kept as \"%.40s\": "
			    "attach it by that name, choose others for this one, or have it "
			    "forgotten by 'sluice nvme detach %.40s'",
			    address, name, name);
}

/* Name and address both belong to a drive that is kept, or to none. */
static int check_kept(const struct nvme_rpc *n, const struct spec *spec, struct err *err)
{
	struct kept_check check = {.spec = spec, .err = err};

	/* What is no address is refused by the drives. */
	if (!nvme_pci_parse_address(spec->traddr, &check.address, NULL))
		config_each_kept(n->config, &n->drives_kind, check_one_kept, &check);
	return check.rc;
}

/* Attaching */

struct change {
	struct config_change change;
	struct nvme_attach attach;
	struct nvme_rpc *rpc;
	struct rpc_request *req;
	struct spec spec; /* strings live as long as the request */
	struct nvme_drive *drive;
	bool stopping; /* the drive is being shut down, and the request waits for that */
};

static struct change *change_of(struct config_change *ch)
{
	return container_of(ch, struct change, change);
}

static struct change *make_change(struct nvme_rpc *n, struct rpc_request *req)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return NULL;
	}
	c->rpc = n;
	c->req = req;
	return c;
}

static void fail(struct change *c, int rc, const struct err *err)
{
	rpc_fail(c->req, rc, "%s", err->text);
	free(c);
}

static int attach_apply(struct config_change *ch, struct err *err)
{
	/* It is there, and held. */
	return 0;
}

static int attach_commit(struct config_change *ch, struct err *err)
{
	nvme_drive_release(change_of(ch)->drive);
	return 0;
}

static void undone(void *arg)
{
	/* The request was answered when that began. */
}

static void attach_undo(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	struct err why = *err, more;

	if (!nvme_drive_detach(c->drive, undone, NULL, &more))
		return;
	nvme_drive_release(c->drive);
	err_set(err, 0, "%.180s (and the drive stays: %.180s)", why.text, more.text);
}

static void attach_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);

	if (result) {
		fail(c, result, err);
		return;
	}
	rpc_reply(c->req, describe_bdevs(c->drive));
	free(c);
}

static const struct config_change attach_template = {
	.apply = attach_apply,
	.commit = attach_commit,
	.undo = attach_undo,
	.done = attach_done,
};

static void attached(struct nvme_attach *a, int rc, struct nvme_drive *d, const struct err *err)
{
	struct change *c = container_of(a, struct change, attach);

	if (rc) {
		fail(c, rc, err);
		return;
	}
	c->drive = d;
	c->change = attach_template;
	c->change.kind = &c->rpc->drives_kind;
	c->change.name = nvme_drive_name(d);
	config_submit(c->rpc->config, &c->change);
}

static void handle_attach(struct rpc_request *req, const json_t *params, void *arg)
{
	struct spec spec;
	struct change *c;
	struct err err;
	int rc;

	if (!rpc_decode(req, params, attach_fields, 3, &spec))
		return;
	c = make_change(arg, req);
	if (!c)
		return;
	c->spec = spec;
	c->attach.done = attached;
	rc = check_transport(&spec, &err);
	if (!rc)
		rc = check_kept(c->rpc, &spec, &err);
	if (!rc)
		rc = nvme_drive_attach(c->rpc->drives, spec.name, spec.traddr, &c->attach, &err);
	if (rc)
		fail(c, rc, &err);
}

/* Detaching */

static int detach_apply(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);

	c->drive = nvme_drive_find(c->rpc->drives, ch->name);
	if (c->drive)
		return nvme_drive_hold(c->drive, err);
	return config_keeps(c->rpc->config, ch->name, ch->kind) ? 0 : no_drive(ch->name, err);
}

static void detached(void *arg)
{
	struct change *c = arg;

	rpc_reply(c->req, json_true());
	free(c);
}

static int detach_commit(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	int rc = c->drive ? nvme_drive_detach(c->drive, detached, c, err) : 0;

	c->stopping = c->drive && !rc;
	if (rc)
		nvme_drive_release(c->drive);
	return rc;
}

static void detach_undo(struct config_change *ch, struct err *err)
{
	if (change_of(ch)->drive)
		nvme_drive_release(change_of(ch)->drive);
}

static void detach_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);

	if (result) {
		fail(c, result, err);
		return;
	}
	log_info("drive %s detached", ch->name);
	if (!c->stopping)
		detached(c);
}

static const struct config_change detach_template = {
	.removes = true,
	.apply = detach_apply,
	.commit = detach_commit,
	.undo = detach_undo,
	.done = detach_done,
};

static void handle_detach(struct rpc_request *req, const json_t *params, void *arg)
{
	struct spec spec = {0};
	struct change *c;

	if (!rpc_decode(req, params, name_fields, 1, &spec))
		return;
	c = make_change(arg, req);
	if (!c)
		return;
	c->change = detach_template;
	c->change.kind = &c->rpc->drives_kind;
	c->change.name = spec.name;
	config_submit(c->rpc->config, &c->change);
}

/* Looking at its partitions anew */

struct rescan {
	struct nvme_rescan rescan;
	struct rpc_request *req;
	const struct nvme_drive *drive;
};

static void rescanned(struct nvme_rescan *nr, int rc, const struct err *err)
{
	struct rescan *r = container_of(nr, struct rescan, rescan);

	if (rc)
		rpc_fail(r->req, rc, "%s", err->text);
	else
		rpc_reply(r->req, describe_bdevs(r->drive));
	free(r);
}

static void handle_rescan(struct rpc_request *req, const json_t *params, void *arg)
{
	struct nvme_drive *d = find_named(arg, req, params);
	struct rescan *r;
	struct err err;
	int rc;

	if (!d)
		return;
	r = calloc(1, sizeof(*r));
	if (!r) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	r->req = req;
	r->drive = d;
	r->rescan.done = rescanned;
	rc = nvme_drive_rescan(d, &r->rescan, &err);
	if (rc) {
		rpc_fail(req, rc, "%s", err.text);
		free(r);
	}
}

/* The file */

static json_t *describe_params(const struct nvme_drive *d)
{
	return json_pack("{s:s, s:s, s:s}", "name", nvme_drive_name(d), "trtype", "PCIe", "traddr",
			 nvme_drive_address(d));
}

static int describe_set(json_t *list, const struct config_change *ch, void *arg)
{
	struct nvme_rpc *n = arg;
	struct nvme_drive *d = NULL;

	while ((d = nvme_drive_next(n->drives, d))) {
		bool theirs = ch && !strcmp(ch->name, nvme_drive_name(d));

		/* Who is held by another change is not settled. */
		if (!nvme_drive_ready(d) || (theirs ? ch->removes : nvme_drive_held(d)))
			continue;
		if (json_array_append_new(list, describe_params(d)))
			return -ENOMEM;
	}
	return 0;
}

struct loading {
	struct nvme_attach attach;
	bool over;
	int rc;
	struct err err;
};

static void loaded(struct nvme_attach *a, int rc, struct nvme_drive *d, const struct err *err)
{
	struct loading *l = container_of(a, struct loading, attach);

	l->over = true;
	l->rc = rc;
	if (rc)
		l->err = *err;
	else
		nvme_drive_release(d);
}

/* Makes a drive and waits for it: nothing else happens on the control reactor yet. */
static int create_now(const json_t *params, void *arg, struct err *err)
{
	const struct timespec nap = {0, 100 * (long)NSEC_PER_USEC};
	struct loading l = {.attach.done = loaded};
	struct nvme_rpc *n = arg;
	struct spec spec;
	int rc = params_decode(params, attach_fields, 3, &spec, err);

	if (!rc)
		rc = check_transport(&spec, err);
	if (!rc)
		rc = nvme_drive_attach(n->drives, spec.name, spec.traddr, &l.attach, err);
	if (rc)
		return rc;
	while (!l.over) {
		if (!reactor_step(n->control))
			nanosleep(&nap, NULL);
	}
	if (l.rc)
		*err = l.err;
	return l.rc;
}

/* Listing */

static const char *state_word(const struct nvme_drive *d)
{
	switch (nvme_ctrl_state(nvme_drive_ctrl(d))) {
	case NVME_NEW:
	case NVME_STARTING:
		return "starting";
	case NVME_LIVE:
		return "enabled";
	case NVME_RESETTING:
		return "resetting";
	case NVME_STOPPING:
	case NVME_STOPPED:
		return "disabled";
	case NVME_DEAD:
		break;
	}
	return "failed";
}

/* A field of Identify, padded with blanks. */
static json_t *text_field(const char *field, size_t len)
{
	char text[64];

	memcpy(text, field, len);
	while (len && (text[len - 1] == ' ' || !text[len - 1]))
		len--;
	text[len] = '\0';
	parse_make_printable(text);
	return json_string(text);
}

static json_t *describe(const struct nvme_drive *d)
{
	const struct nvme_id_ctrl *id = nvme_ctrl_identity(nvme_drive_ctrl(d));

	return json_pack("{s:s, s:[{s:s, s:{s:s, s:s}, s:i}], s:o, s:o, s:o, s:i, s:i, s:o}",
			 "name", nvme_drive_name(d), "ctrlrs", "state", state_word(d), "trid",
			 "trtype", "PCIe", "traddr", nvme_drive_address(d), "cntlid",
			 (int)id->cntlid, "model_number", text_field(id->mn, sizeof(id->mn)),
			 "serial_number", text_field(id->sn, sizeof(id->sn)), "firmware_revision",
			 text_field(id->fr, sizeof(id->fr)), "io_queues",
			 (int)nvme_ctrl_queues(nvme_drive_ctrl(d)), "reactors_without_queue",
			 nvme_drive_ready(d) ? (int)nvme_drive_queues_short(d) : 0, "bdevs",
			 describe_bdevs(d));
}

struct listing {
	struct nvme_rpc *rpc;
	const char *wanted; /* NULL: all */
	json_t *list;       /* NULL: there was no memory */
};

static void add_entry(struct listing *l, json_t *entry)
{
	if (!l->list || !json_array_append_new(l->list, entry))
		return;
	json_decref(l->list);
	l->list = NULL;
}

static void add_kept(const json_t *params, void *arg)
{
	struct listing *l = arg;
	const char *name = text_of(params, "name");

	/* While its set is being saved, one that is there now is in the file as well. */
	if ((l->wanted && strcmp(l->wanted, name)) || nvme_drive_find(l->rpc->drives, name))
		return;
	add_entry(l, json_pack("{s:s, s:[{s:s, s:{s:s, s:s}}], s:[]}", "name", name, "ctrlrs",
			       "state", "missing", "trid", "trtype", "PCIe", "traddr",
			       text_of(params, "traddr"), "bdevs"));
}

static void handle_get(struct rpc_request *req, const json_t *params, void *arg)
{
	static const struct params_field fields[] = {
		PARAMS_OPTIONAL(struct spec, name, PARAMS_STRING),
	};
	struct listing l = {.rpc = arg};
	struct nvme_drive *d = NULL;
	struct spec wanted = {0};
	struct err err;

	if (!rpc_decode(req, params, fields, 1, &wanted))
		return;
	l.wanted = wanted.name;
	l.list = json_array();
	while ((d = nvme_drive_next(l.rpc->drives, d))) {
		if (!l.wanted || !strcmp(l.wanted, nvme_drive_name(d)))
			add_entry(&l, describe(d));
	}
	config_each_kept(l.rpc->config, &l.rpc->drives_kind, add_kept, &l);
	if (l.wanted && l.list && !json_array_size(l.list)) {
		json_decref(l.list);
		rpc_fail(req, no_drive(l.wanted, &err), "%s", err.text);
		return;
	}
	rpc_reply(req, l.list);
}

/* Health */

struct reading {
	struct nvme_health_read read;
	struct rpc_request *req;
	struct nvme_pci_address address;
};

static json_int_t number(uint64_t n)
{
	return n < INT64_MAX ? (json_int_t)n : INT64_MAX;
}

static json_t *describe_warnings(const struct nvme_health *h)
{
	json_t *list = json_array();

	for (unsigned bit = 0; bit < 8 && list; bit++) {
		const char *word = nvme_health_warning(bit);

		if (h->warnings >> bit & 1 && word)
			json_array_append_new(list, json_string(word));
	}
	return list;
}

static json_t *describe_errors(const struct nvme_health *h)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < h->nr_errors && list; i++) {
		const struct nvme_health_error *e = &h->errors[i];

		json_array_append_new(list, json_pack("{s:I, s:i, s:i, s:i, s:I, s:I}", "count",
						      number(e->count), "sqid", (int)e->sqid, "cid",
						      (int)e->cid, "status", (int)e->status, "nsid",
						      (json_int_t)e->nsid, "lba", number(e->lba)));
	}
	return list;
}

static json_t *describe_firmware(const struct nvme_health *h)
{
	json_t *list = json_array();

	for (int i = 0; i < NVME_FIRMWARE_SLOTS && list && h->has_firmware_log; i++) {
		if (!h->firmware_slots[i][0])
			continue;
		json_array_append_new(list, json_pack("{s:i, s:s, s:b, s:b}", "slot", i + 1,
						      "revision", h->firmware_slots[i], "active",
						      h->firmware_slot == i + 1, "next",
						      h->firmware_next == i + 1));
	}
	return list;
}

/* SPDK's names and units: a data unit is 512000 bytes. */
static json_t *describe_smart(const struct nvme_health *h)
{
	if (!h->has_smart)
		return json_object();
	return json_pack(
		"{s:i, s:o, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"critical_warning", (int)h->warnings, "warnings", describe_warnings(h),
		"temperature_celsius", h->temperature, "available_spare_percentage", (int)h->spare,
		"available_spare_threshold_percentage", (int)h->spare_threshold, "percentage_used",
		(int)h->used, "data_units_read", number(h->bytes_read / 512000),
		"data_units_written", number(h->bytes_written / 512000), "host_read_commands",
		number(h->reads), "host_write_commands", number(h->writes), "controller_busy_time",
		number(h->busy_minutes), "power_cycles", number(h->power_cycles), "power_on_hours",
		number(h->power_on_hours), "unsafe_shutdowns", number(h->unsafe_shutdowns),
		"media_errors", number(h->media_errors), "num_err_log_entries",
		number(h->error_entries));
}

static void health_done(struct nvme_health_read *r, int rc)
{
	struct reading *reading = container_of(r, struct reading, read);
	const struct nvme_health *h = &r->health;
	json_t *result, *smart;

	if (rc) {
		rpc_fail(reading->req, rc,
			 "drive %s has failed or is gone, and tells nothing any more",
			 reading->address.text);
		free(reading);
		return;
	}
	result = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o}", "model_number", h->model,
			   "serial_number", h->serial, "firmware_revision", h->firmware, "traddr",
			   reading->address.text, "firmware_slots", describe_firmware(h), "errors",
			   describe_errors(h));
	smart = describe_smart(h);
	if (!smart || json_object_update(result, smart)) {
		json_decref(result);
		result = NULL;
	}
	json_decref(smart);
	rpc_reply(reading->req, result);
	free(reading);
}

static void handle_health(struct rpc_request *req, const json_t *params, void *arg)
{
	struct nvme_drive *d = find_named(arg, req, params);
	struct reading *r;

	if (!d)
		return;
	if (!nvme_drive_ready(d)) {
		rpc_fail(req, -EBUSY, "drive %s is being attached or detached: try again",
			 nvme_drive_name(d));
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	r->req = req;
	strcpy(r->address.text, nvme_drive_address(d));
	r->read.done = health_done;
	nvme_health_read(nvme_drive_ctrl(d), &r->read);
}

void nvme_rpc_init(struct nvme_rpc *n)
{
	n->drives_kind = (struct config_kind){
		.method = ATTACH,
		.noun = "controller",
		.create = create_now,
		.describe = describe_set,
		.arg = n,
	};
	config_add_kind(n->config, &n->drives_kind);
}

int nvme_rpc_register(struct rpc_server *s, struct nvme_rpc *n)
{
	static const struct rpc_method methods[] = {
		{ATTACH, handle_attach},
		{"bdev_nvme_detach_controller", handle_detach},
		{"bdev_nvme_rescan_controller", handle_rescan},
		{"bdev_nvme_get_controllers", handle_get},
		{"bdev_nvme_get_controller_health_info", handle_health},
	};
	int rc = 0;

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]) && !rc; i++)
		rc = rpc_register(s, &methods[i], n);
	return rc;
}
