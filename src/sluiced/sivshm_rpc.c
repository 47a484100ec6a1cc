/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker is made first and saved then, since to make it may fail for many reasons, and a frontend
 * that is quicker than the file loses nothing if the worker goes again.  It is the other way round
 * when one is deleted: what its frontend was told cannot be undone.
 */
#include "sluiced/sivshm_rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "reactor/reactor.h"

#define CREATE "sivshm_create"
/* A frontend that does not let go keeps the disk; whoever waits is told after so long. */
#define DELETE_WAIT_NS (30 * NSEC_PER_SEC)

/* What a client asks for; strings live as long as its request. */
struct spec {
	const char *name;
	const char *bdev;
	uint64_t segment_size;
	uint32_t max_queues;
	const char *sharing;
	bool readonly;
	bool shared;
	const char *socket;
	int64_t uid;
	int64_t gid;
	const char *mode;
	bool force;
};

static const struct params_field create_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
	PARAMS_REQUIRED(struct spec, bdev, PARAMS_STRING),
	PARAMS_OPTIONAL(struct spec, segment_size, PARAMS_U64),
	PARAMS_OPTIONAL(struct spec, max_queues, PARAMS_U32),
	PARAMS_OPTIONAL(struct spec, sharing, PARAMS_STRING),
	PARAMS_OPTIONAL(struct spec, readonly, PARAMS_BOOL),
	PARAMS_OPTIONAL(struct spec, shared, PARAMS_BOOL),
	PARAMS_OPTIONAL(struct spec, socket, PARAMS_STRING),
	PARAMS_OPTIONAL(struct spec, uid, PARAMS_I64),
	PARAMS_OPTIONAL(struct spec, gid, PARAMS_I64),
	PARAMS_OPTIONAL(struct spec, mode, PARAMS_STRING),
};
enum { CREATE_FIELDS = sizeof(create_fields) / sizeof(create_fields[0]) };

static const struct params_field delete_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
	PARAMS_OPTIONAL(struct spec, force, PARAMS_BOOL),
};

static struct spec default_spec(void)
{
	return (struct spec){
		.segment_size = SIVSHM_DOOR_DEFAULT_SEGMENT,
		.sharing = "auto",
		.uid = geteuid(),
		.gid = -1,
		.mode = "0600",
	};
}

/* The numbers that the kernel keeps, and -1 for any. */
static int check_id(const char *what, int64_t id, struct err *err)
{
	if (id >= -1 && id < UINT32_MAX)
		return 0;
	return err_set(err, -EINVAL, "there is no %s %lld: use 0 to %u, or -1 for any", what,
		       (long long)id, UINT32_MAX - 1);
}

static int parse_mode(const char *text, mode_t *mode, struct err *err)
{
	const char *digit = text;

	*mode = 0;
	for (; *digit >= '0' && *digit <= '7' && digit < text + 4; digit++)
		*mode = *mode << 3 | (mode_t)(*digit - '0');
	if (!*digit && *mode && *mode <= 0777)
		return 0;
	return err_set(err, -EINVAL,
		       "the mode of a socket is octal, 0001 to 0777, like 0660, not '%.16s'", text);
}

static int make(struct sivshm_rpc *ctx, const struct spec *spec, bool may_wait, struct err *err)
{
	struct sivshm_door_worker want = {
		.name = spec->name,
		.bdev = spec->bdev,
		.segment_bytes = spec->segment_size,
		.max_queues = spec->max_queues,
		.readonly = spec->readonly,
		.shared = spec->shared,
		.socket = spec->socket,
		.uid = spec->uid,
		.gid = spec->gid,
		.may_wait = may_wait,
	};
	int rc;

	if (!spec->segment_size)
		return err_set(
			err, -EINVAL,
			"a segment of 0 bytes is none: leave its size out, or choose a power "
			"of two");
	rc = check_id("uid", spec->uid, err);
	if (!rc)
		rc = check_id("gid", spec->gid, err);
	if (!rc)
		rc = parse_mode(spec->mode, &want.mode, err);
	if (!rc)
		rc = sivshm_door_parse_sharing(spec->sharing, &want.sharing, err);
	return rc ? rc : sivshm_door_add(ctx->door, &want, err);
}

/* The worker's entry in the door's list. New reference, or NULL. */
static json_t *find_worker(const struct sivshm_rpc *ctx, const char *name)
{
	json_t *list = sivshm_door_list(ctx->door), *found = NULL;

	for (size_t i = 0; i < json_array_size(list) && !found; i++) {
		json_t *entry = json_array_get(list, i);
		const char *theirs = json_string_value(json_object_get(entry, "name"));

		if (theirs && !strcmp(theirs, name))
			found = json_incref(entry);
	}
	json_decref(list);
	return found;
}

/* Changes */

struct change {
	struct config_change change;
	struct sivshm_rpc *ctx;
	struct rpc_request *req;
	struct spec spec;
	bool there;   /* the worker to delete is not only in the file */
	bool leaving; /* it goes, and the request waits for that */
	struct reactor_timer timer;
};

static struct change *change_of(struct config_change *ch)
{
	return container_of(ch, struct change, change);
}

/* Submits a change by @template's functions; decodes @params by @fields. */
static void submit(struct rpc_request *req, const json_t *params, struct sivshm_rpc *ctx,
		   const struct config_change *template, const struct params_field *fields,
		   size_t fields_len)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	c->spec = default_spec();
	if (!rpc_decode(req, params, fields, fields_len, &c->spec)) {
		free(c);
		return;
	}
	c->change = *template;
	c->change.name = c->spec.name;
	c->change.kind = &ctx->workers;
	c->ctx = ctx;
	c->req = req;
	config_submit(ctx->config, &c->change);
}

static void fail(struct change *c, int rc, const struct err *err)
{
	rpc_fail(c->req, rc, "%s", err->text);
	free(c);
}

/* Creation */

static int create_apply(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	int rc = make(c->ctx, &c->spec, false, err);
	const char *user = rc == -EBUSY ? sivshm_door_user_of(c->ctx->door, c->spec.bdev) : NULL;
	struct err why;

	if (!user)
		return rc;
	why = *err;
	return err_set(err, rc, "%.300s (worker %s is on it)", why.text, user);
}

static int create_commit(struct config_change *ch, struct err *err)
{
	return 0;
}

static void undone(void *arg, const char *error)
{
	/* The request was answered when that began. */
}

static void create_undo(struct config_change *ch, struct err *err)
{
	struct err more;

	/* By force, so nothing is in the way. */
	sivshm_door_remove(change_of(ch)->ctx->door, ch->name, true, undone, NULL, &more);
}

static void create_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);
	json_t *worker;

	if (result) {
		fail(c, result, err);
		return;
	}
	log_info("worker %s created", ch->name);
	worker = find_worker(c->ctx, ch->name);
	rpc_reply(c->req, json_pack("{s:s, s:O}", "name", ch->name, "socket",
				    json_object_get(worker, "socket")));
	json_decref(worker);
	free(c);
}

static const struct config_change create_template = {
	.apply = create_apply,
	.commit = create_commit,
	.undo = create_undo,
	.done = create_done,
};

static void handle_create(struct rpc_request *req, const json_t *params, void *arg)
{
	submit(req, params, arg, &create_template, create_fields, CREATE_FIELDS);
}

/* Deletion */

static int delete_apply(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	json_t *worker = find_worker(c->ctx, ch->name);

	c->there = worker;
	json_decref(worker);
	if (c->there || config_keeps(c->ctx->config, ch->name, ch->kind))
		return 0;
	return err_set(err, -ENODEV, "no worker '%.64s' (sluice sivshm list shows them)", ch->name);
}

static void gone(void *arg, const char *error)
{
	struct change *c = arg;

	reactor_timer_stop(c->ctx->control, &c->timer);
	if (error)
		rpc_fail(c->req, -EIO, "%s", error);
	else
		rpc_reply(c->req, json_true());
	free(c);
}

static int delete_commit(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	int rc = -ENOENT;

	if (c->there)
		rc = sivshm_door_remove(c->ctx->door, ch->name, c->spec.force, gone, c, err);
	c->leaving = !rc;
	/* One that has gone meanwhile is what was wanted. */
	return rc == -ENOENT ? 0 : rc;
}

static void delete_undo(struct config_change *ch, struct err *err)
{
	/* Nothing was done yet. */
}

static void delete_too_long(struct reactor_timer *t)
{
	struct change *c = container_of(t, struct change, timer);

	if (!sivshm_door_forget_removal(c->ctx->door, c->spec.name, c))
		return;
	rpc_fail(
		c->req, -ETIMEDOUT, "%s",
		c->spec.force
			? "the device does not finish what it has begun; the worker goes when it "
			  "has"
			: "the frontend still uses the disk: end it and the worker goes by itself, "
			  "or delete it with --force");
	free(c);
}

static void delete_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);

	if (result) {
		fail(c, result, err);
		return;
	}
	log_info("worker %s deleted", ch->name);
	if (!c->leaving) {
		rpc_reply(c->req, json_true());
		free(c);
		return;
	}
	c->timer.fire = delete_too_long;
	reactor_timer_start(c->ctx->control, &c->timer, DELETE_WAIT_NS);
}

static const struct config_change delete_template = {
	.removes = true,
	.apply = delete_apply,
	.commit = delete_commit,
	.undo = delete_undo,
	.done = delete_done,
};

static void handle_delete(struct rpc_request *req, const json_t *params, void *arg)
{
	submit(req, params, arg, &delete_template, delete_fields, 2);
}

/* The file */

static int create_saved(const json_t *params, void *arg, struct err *err)
{
	struct spec spec = default_spec();
	int rc = params_decode(params, create_fields, CREATE_FIELDS, &spec, err);

	return rc ? rc : make(arg, &spec, true, err);
}

static int describe_set(json_t *list, const struct config_change *ch, void *arg)
{
	struct sivshm_rpc *ctx = arg;
	json_t *all = sivshm_door_config(ctx->door);
	int rc = all ? 0 : -ENOMEM;

	for (size_t i = 0; i < json_array_size(all) && !rc; i++) {
		json_t *params = json_array_get(all, i);
		const char *name = json_string_value(json_object_get(params, "name"));

		if (ch && ch->removes && name && !strcmp(ch->name, name))
			continue;
		rc = json_array_append(list, params) ? -ENOMEM : 0;
	}
	json_decref(all);
	return rc;
}

/* Listing */

struct listing {
	struct sivshm_rpc *ctx;
	json_t *list; /* NULL: there was no memory */
};

static void add_missing(const json_t *params, void *arg)
{
	struct listing *l = arg;
	const char *name = json_string_value(json_object_get(params, "name"));
	const char *bdev = json_string_value(json_object_get(params, "bdev"));
	json_t *there = name ? find_worker(l->ctx, name) : NULL;
	json_t *entry;

	/* While the set is being saved, one that is there now is in the file as well. */
	json_decref(there);
	if (there || !name)
		return;
	entry = json_pack("{s:s, s:s, s:s, s:s}", "name", name, "bdev", bdev ? bdev : "", "state",
			  "missing", "error",
			  "it could not be made at the start: see the log of sluiced");
	if (!json_array_append_new(l->list, entry))
		return;
	json_decref(l->list);
	l->list = NULL;
}

static void handle_list(struct rpc_request *req, const json_t *params, void *arg)
{
	struct listing l = {.ctx = arg};

	if (!rpc_decode(req, params, NULL, 0, NULL))
		return;
	l.list = sivshm_door_list(l.ctx->door);
	config_each_kept(l.ctx->config, &l.ctx->workers, add_missing, &l);
	rpc_reply(req, l.list);
}

static void stats_done(void *arg, json_t *stats)
{
	rpc_reply(arg, stats);
}

static void handle_stats(struct rpc_request *req, const json_t *params, void *arg)
{
	struct sivshm_rpc *ctx = arg;

	if (rpc_decode(req, params, NULL, 0, NULL))
		sivshm_door_stats(ctx->door, stats_done, req);
}

void sivshm_rpc_init(struct sivshm_rpc *ctx)
{
	ctx->workers = (struct config_kind){
		.method = CREATE,
		.noun = "worker",
		.create = create_saved,
		.describe = describe_set,
		.arg = ctx,
	};
	config_add_kind(ctx->config, &ctx->workers);
}

int sivshm_rpc_register(struct rpc_server *s, struct sivshm_rpc *ctx)
{
	static const struct rpc_method methods[] = {
		{CREATE, handle_create},
		{"sivshm_delete", handle_delete},
		{"sivshm_get_workers", handle_list},
		{"sivshm_get_iostat", handle_stats},
	};
	int rc = 0;

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]) && !rc; i++)
		rc = rpc_register(s, &methods[i], ctx);
	return rc;
}
