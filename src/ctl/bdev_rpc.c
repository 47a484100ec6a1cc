/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While a change is being saved, its bdev is claimed, so that no disk can come to use what may yet
 * be undone.  A claim does not keep out those who share: if one slips in, a removal fails after
 * all (and the set is saved once more), and a creation that cannot be saved says so and stays.
 */
#include "ctl/bdev_rpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bdev/bdev.h"

/* What a client asks for; strings live as long as its request. */
struct spec {
	const char *name;
	const char *filename;
	uint64_t num_blocks;
	uint32_t block_size;
	bool readonly;
	bool shared;
	uint64_t new_size;
};

static const struct params_field sized_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
	PARAMS_REQUIRED(struct spec, num_blocks, PARAMS_U64),
	PARAMS_OPTIONAL(struct spec, block_size, PARAMS_U32),
};

static const struct params_field file_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
	PARAMS_REQUIRED(struct spec, filename, PARAMS_STRING),
	PARAMS_OPTIONAL(struct spec, readonly, PARAMS_BOOL),
	PARAMS_OPTIONAL(struct spec, shared, PARAMS_BOOL),
};

static const struct params_field name_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
};

static const struct params_field resize_fields[] = {
	PARAMS_REQUIRED(struct spec, name, PARAMS_STRING),
	PARAMS_REQUIRED(struct spec, new_size, PARAMS_U64),
};

struct kind {
	const char *product;
	struct rpc_method create;
	struct rpc_method remove;
	struct rpc_method grow; /* by resizing it, or measuring what is behind it */
	const struct params_field *fields;
	size_t fields_len;
	int (*make)(const struct spec *spec, struct bdev **out, struct err *err);
};

static int spec_size(const struct spec *spec, uint64_t *size, struct err *err)
{
	if (__builtin_mul_overflow(spec->num_blocks, spec->block_size, size))
		return err_set(err, -EINVAL,
			       "%llu blocks of %u bytes are more than a bdev can have: use fewer",
			       (unsigned long long)spec->num_blocks, spec->block_size);
	return 0;
}

static int make_null(const struct spec *spec, struct bdev **out, struct err *err)
{
	uint64_t size;
	int rc = spec_size(spec, &size, err);

	return rc ? rc : bdev_null_create(spec->name, size, spec->block_size, out, err);
}

static int make_ram(const struct spec *spec, struct bdev **out, struct err *err)
{
	uint64_t size;
	int rc = spec_size(spec, &size, err);

	return rc ? rc : bdev_ram_create(spec->name, size, spec->block_size, out, err);
}

static struct bdev_file_opts spec_file(const struct spec *spec)
{
	return (struct bdev_file_opts){
		.filename = spec->filename,
		.readonly = spec->readonly,
		.shared = spec->shared,
	};
}

static int make_uring(const struct spec *spec, struct bdev **out, struct err *err)
{
	struct bdev_file_opts opts = spec_file(spec);

	return bdev_uring_create(spec->name, &opts, out, err);
}

static int make_aio(const struct spec *spec, struct bdev **out, struct err *err)
{
	struct bdev_file_opts opts = spec_file(spec);

	return bdev_aio_create(spec->name, &opts, out, err);
}

static void handle_create(struct rpc_request *req, const json_t *params, void *arg);
static void handle_remove(struct rpc_request *req, const json_t *params, void *arg);
static void handle_resize(struct rpc_request *req, const json_t *params, void *arg);
static void handle_rescan(struct rpc_request *req, const json_t *params, void *arg);

#define FIELDS(fields) (sizeof(fields) / sizeof((fields)[0]))

static const struct kind kinds[] = {
	{
		.product = "null",
		.create = {"bdev_null_create", handle_create},
		.remove = {"bdev_null_delete", handle_remove},
		.grow = {"bdev_null_resize", handle_resize},
		.fields = sized_fields,
		.fields_len = FIELDS(sized_fields),
		.make = make_null,
	},
	{
		.product = "ram",
		.create = {"bdev_malloc_create", handle_create},
		.remove = {"bdev_malloc_delete", handle_remove},
		.grow = {"bdev_malloc_resize", handle_resize},
		.fields = sized_fields,
		.fields_len = FIELDS(sized_fields),
		.make = make_ram,
	},
	{
		.product = "uring",
		.create = {"bdev_uring_create", handle_create},
		.remove = {"bdev_uring_delete", handle_remove},
		.grow = {"bdev_uring_rescan", handle_rescan},
		.fields = file_fields,
		.fields_len = FIELDS(file_fields),
		.make = make_uring,
	},
	{
		.product = "aio",
		.create = {"bdev_aio_create", handle_create},
		.remove = {"bdev_aio_delete", handle_remove},
		.grow = {"bdev_aio_rescan", handle_rescan},
		.fields = file_fields,
		.fields_len = FIELDS(file_fields),
		.make = make_aio,
	},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* Creation */

struct change {
	struct config_change change;
	struct config *config;
	struct rpc_request *req;
	const struct kind *kind; /* NULL: to remove whatever it is */
	struct spec spec;
	struct bdev *bdev;
};

static struct change *change_of(struct config_change *ch)
{
	return container_of(ch, struct change, change);
}

/* Submits a change by @template's functions; decodes @params by @fields. */
static void submit(struct rpc_request *req, const json_t *params, struct config *config,
		   const struct kind *kind, const struct config_change *template,
		   const struct params_field *fields, size_t fields_len)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	c->spec.block_size = 512;
	if (!rpc_decode(req, params, fields, fields_len, &c->spec)) {
		free(c);
		return;
	}
	c->change = *template;
	c->change.name = c->spec.name;
	c->config = config;
	c->req = req;
	c->kind = kind;
	config_submit(config, &c->change);
}

static int create_apply(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	int rc = c->kind->make(&c->spec, &c->bdev, err);

	return rc ? rc : bdev_claim(c->bdev, false, false, err);
}

static int create_commit(struct config_change *ch, struct err *err)
{
	bdev_release(change_of(ch)->bdev);
	return 0;
}

static void create_undo(struct config_change *ch, struct err *err)
{
	struct err why = *err;

	bdev_release(change_of(ch)->bdev);
	if (bdev_delete(ch->name, NULL))
		err_set(err, 0, "%.200s (bdev '%s' has a user already and stays)", why.text,
			ch->name);
}

static void create_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);

	if (result) {
		rpc_fail(c->req, result, "%s", err->text);
	} else {
		log_info("bdev %s created (%s)", ch->name, c->kind->product);
		rpc_reply(c->req, json_string(ch->name));
	}
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
	const struct kind *kind = container_of(rpc_request_method(req), struct kind, create);

	submit(req, params, arg, kind, &create_template, kind->fields, kind->fields_len);
}

int bdev_rpc_create(const char *method, const json_t *params, struct err *err)
{
	struct spec spec = {.block_size = 512};
	int rc;

	for (size_t i = 0; i < KINDS; i++) {
		if (strcmp(kinds[i].create.name, method))
			continue;
		rc = params_decode(params, kinds[i].fields, kinds[i].fields_len, &spec, err);
		return rc ? rc : kinds[i].make(&spec, NULL, err);
	}
	return err_set(err, -EINVAL, "there is no method '%.64s' to make it", method);
}

/* Finding */

static int no_bdev(const char *name, struct err *err)
{
	return err_set(err, -ENODEV, "no bdev '%.64s' (sluice bdev list shows them)", name);
}

static int check_kind(const struct kind *kind, const struct bdev *b, const char *instead,
		      struct err *err)
{
	if (!strcmp(kind->product, b->ops->product))
		return 0;
	return err_set(err, -EINVAL, "bdev '%s' is of kind %s: use %s", b->name, b->ops->product,
		       instead);
}

/* Removal */

static int remove_apply(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);
	struct bdev *b = bdev_find(ch->name);

	if (!b && !config_keeps(c->config, ch->name, NULL))
		return no_bdev(ch->name, err);
	if (!b)
		return 0;
	if (b->owner[0])
		return err_set(
			err, -EINVAL,
			"bdev '%s' goes with drive %s: 'sluice nvme detach %s' lets go of it, "
			"with all that is on it",
			b->name, b->owner, b->owner);
	if (c->kind && check_kind(c->kind, b, "bdev_delete", err))
		return -EINVAL;
	if (b->claims)
		return err_set(err, -EBUSY,
			       "bdev '%s' is in use: detach its disk first, or delete its worker",
			       b->name);
	c->bdev = b;
	return bdev_claim(b, false, false, err);
}

static int remove_commit(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);

	if (!c->bdev)
		return 0;
	bdev_release(c->bdev);
	return bdev_delete(ch->name, err);
}

static void remove_undo(struct config_change *ch, struct err *err)
{
	if (change_of(ch)->bdev)
		bdev_release(change_of(ch)->bdev);
}

static void remove_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);

	if (result) {
		rpc_fail(c->req, result, "%s", err->text);
	} else {
		log_info("bdev %s deleted", ch->name);
		rpc_reply(c->req, json_true());
	}
	free(c);
}

static const struct config_change remove_template = {
	.removes = true,
	.apply = remove_apply,
	.commit = remove_commit,
	.undo = remove_undo,
	.done = remove_done,
};

static void handle_remove(struct rpc_request *req, const json_t *params, void *arg)
{
	const struct kind *kind = container_of(rpc_request_method(req), struct kind, remove);

	submit(req, params, arg, kind, &remove_template, name_fields, 1);
}

static void handle_delete(struct rpc_request *req, const json_t *params, void *arg)
{
	submit(req, params, arg, NULL, &remove_template, name_fields, 1);
}

/* Growth */

static json_t *describe_shape(const struct bdev *b)
{
	return json_pack("{s:s, s:I, s:I}", "name", b->name, "num_blocks",
			 (json_int_t)(b->size / b->limits.block_size), "block_size",
			 (json_int_t)b->limits.block_size);
}

/*
 * The new size is saved first: a guest may use what it has been told of, and a daemon that starts
 * with the old size could not serve that.
 */
static int resize_apply(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);

	c->bdev = bdev_find(ch->name);
	if (!c->bdev)
		return no_bdev(ch->name, err);
	if (check_kind(c->kind, c->bdev, "'sluice resize'", err))
		return -EINVAL;
	return bdev_check_resize(c->bdev, c->spec.new_size, err);
}

static json_t *resize_config(struct config_change *ch, const struct bdev *b, const char **method)
{
	uint64_t blocks = change_of(ch)->spec.new_size / b->limits.block_size;
	json_t *params = b->ops->config(b, method);

	if (params && json_object_set_new(params, "num_blocks", json_integer((json_int_t)blocks))) {
		json_decref(params);
		params = NULL;
	}
	return params;
}

static int resize_commit(struct config_change *ch, struct err *err)
{
	struct change *c = change_of(ch);

	return bdev_resize(c->bdev, c->spec.new_size, err);
}

static void resize_undo(struct config_change *ch, struct err *err)
{
	/* Only the file knew. */
}

static void resize_done(struct config_change *ch, int result, const struct err *err)
{
	struct change *c = change_of(ch);

	if (result) {
		rpc_fail(c->req, result, "%s", err->text);
	} else {
		log_info("bdev %s has %llu bytes now", ch->name,
			 (unsigned long long)c->spec.new_size);
		rpc_reply(c->req, describe_shape(c->bdev));
	}
	free(c);
}

static const struct config_change resize_template = {
	.config = resize_config,
	.apply = resize_apply,
	.commit = resize_commit,
	.undo = resize_undo,
	.done = resize_done,
};

static void handle_resize(struct rpc_request *req, const json_t *params, void *arg)
{
	const struct kind *kind = container_of(rpc_request_method(req), struct kind, grow);

	submit(req, params, arg, kind, &resize_template, resize_fields, FIELDS(resize_fields));
}

struct rescan {
	struct bdev_rescan rescan;
	struct rpc_request *req;
	const struct bdev *bdev;
};

static void rescan_done(struct bdev_rescan *r, int result, const struct err *err)
{
	struct rescan *rescan = container_of(r, struct rescan, rescan);

	if (result)
		rpc_fail(rescan->req, result, "%s", err->text);
	else
		rpc_reply(rescan->req, describe_shape(rescan->bdev));
	free(rescan);
}

static void handle_rescan(struct rpc_request *req, const json_t *params, void *arg)
{
	const struct kind *kind = container_of(rpc_request_method(req), struct kind, grow);
	struct spec spec = {0};
	struct rescan *rescan;
	struct bdev *b;
	struct err err;
	int rc;

	if (!rpc_decode(req, params, name_fields, 1, &spec))
		return;
	b = bdev_find(spec.name);
	rc = b ? check_kind(kind, b, "'sluice resize'", &err) : no_bdev(spec.name, &err);
	if (rc) {
		rpc_fail(req, rc, "%s", err.text);
		return;
	}
	rescan = calloc(1, sizeof(*rescan));
	if (!rescan) {
		rpc_fail(req, RPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	rescan->rescan.done = rescan_done;
	rescan->req = req;
	rescan->bdev = b;
	bdev_rescan(b, &rescan->rescan);
}

/* Listing */

static json_t *describe(const struct bdev *b)
{
	const char *method;
	json_t *config = b->ops->config(b, &method), *entry;

	if (!config)
		return NULL;
	entry = json_pack("{s:s, s:s, s:I, s:I, s:b, s:I, s:b, s:b, s:b, s:b, s:{s:o}}", "name",
			  b->name, "product_name", b->ops->product, "block_size",
			  (json_int_t)b->limits.block_size, "num_blocks",
			  (json_int_t)(b->size / b->limits.block_size), "claimed", b->claims != 0,
			  "physical_block_size", (json_int_t)b->limits.physical_block_size,
			  "readonly", b->readonly, "shared", b->shared, "write_cache",
			  b->limits.write_cache, "discard", b->limits.discard, "driver_specific",
			  b->ops->product, config);
	/* Only what is so: of a drive, or of a part of one. */
	if (entry &&
	    ((b->owner[0] && json_object_set_new(entry, "controller", json_string(b->owner))) ||
	     (b->whole &&
	      json_object_update_new(entry, json_pack("{s:{s:s, s:I, s:s}}", "partition", "of",
						      b->whole->name, "number", (json_int_t)b->part,
						      "label", b->label))))) {
		json_decref(entry);
		entry = NULL;
	}
	return entry;
}

static void handle_get(struct rpc_request *req, const json_t *params, void *arg)
{
	static const struct params_field fields[] = {
		PARAMS_OPTIONAL(struct spec, name, PARAMS_STRING),
	};
	struct spec wanted = {0};
	json_t *list;

	if (!rpc_decode(req, params, fields, 1, &wanted))
		return;
	if (wanted.name && !bdev_find(wanted.name)) {
		rpc_fail(req, -ENODEV, "no bdev '%.64s' (sluice bdev list shows them)",
			 wanted.name);
		return;
	}
	list = json_array();
	for (struct bdev *b = bdev_next(NULL); b && list; b = bdev_next(b)) {
		if (wanted.name && strcmp(wanted.name, b->name))
			continue;
		if (json_array_append_new(list, describe(b))) {
			json_decref(list);
			list = NULL;
		}
	}
	rpc_reply(req, list);
}

static const struct rpc_method general[] = {
	{"bdev_delete", handle_delete},
	{"bdev_get_bdevs", handle_get},
};

int bdev_rpc_register(struct rpc_server *s, struct config *c)
{
	int rc = 0;

	for (size_t i = 0; i < KINDS && !rc; i++) {
		rc = rpc_register(s, &kinds[i].create, c);
		if (!rc)
			rc = rpc_register(s, &kinds[i].remove, c);
		if (!rc)
			rc = rpc_register(s, &kinds[i].grow, c);
	}
	for (size_t i = 0; i < sizeof(general) / sizeof(general[0]) && !rc; i++)
		rc = rpc_register(s, &general[i], c);
	return rc;
}
