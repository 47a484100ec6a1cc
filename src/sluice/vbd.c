/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice attach`, `detach` and `list`.
 *
 * Where xl manages the domain it does the work, and what can be checked is checked before it runs,
 * for its messages tell little of ours.  Elsewhere the daemon writes xenstore itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/parse.h"
#include "sluice/client.h"
#include "sluice/text.h"
#include "sluice/xl.h"

#define SETTLE_STEP_NS (100 * NSEC_PER_MSEC)

struct domain {
	json_int_t id;
	char name[256]; /* harmless */
	char id_text[24];
	char *xl; /* to be used for it; NULL: not */
};

static int check_names(struct client *c, const char *vdev, const char *bdev)
{
	if (!xl_vdev_valid(vdev))
		return client_misuse(c, "'%s' is no name for a disk in a guest: use one like xvda",
				     vdev);
	if (bdev && !parse_name(bdev))
		return client_misuse(c, "'%s' is no name of a bdev ('sluice bdev list' shows them)",
				     bdev);
	return CLIENT_GO_ON;
}

/* Asks who the domain is and decides who does the work. Returns CLIENT_GO_ON or the exit status. */
static int find_domain(struct client *c, const char *domain, const char *toolstack,
		       struct domain *d)
{
	json_t *result;
	struct err err;
	char *name;
	bool xl;

	if (strcmp(toolstack, "auto") && strcmp(toolstack, "xl") && strcmp(toolstack, "none"))
		return client_misuse(c, "the toolstack is auto, xl or none, not '%s'", toolstack);
	if (client_call(c, "xen_get_domain", json_pack("{s:s}", "domain", domain), c->quick_ms,
			&result, &err))
		return client_fail(c, "%s", err.text);
	d->id = client_number(result, "domid");
	name = text_clean(client_text(result, "name"), false);
	snprintf(d->name, sizeof(d->name), "%s", name);
	free(name);
	snprintf(d->id_text, sizeof(d->id_text), "%" JSON_INTEGER_FORMAT, d->id);
	/* Dom0 is not xl's, although it runs there. */
	xl = !strcmp(toolstack, "xl") || (!strcmp(toolstack, "auto") && d->id &&
					  !strcmp(client_text(result, "toolstack"), "xl"));
	json_decref(result);
	d->xl = xl ? xl_find() : NULL;
	if (xl && !d->xl)
		return client_fail(
			c,
			"domain %s is xl's, and there is no xl on PATH: add /usr/sbin to "
			"PATH, install xen-utils, or use --toolstack none",
			d->id_text);
	return CLIENT_GO_ON;
}

/* Whether @vdev, a name or a device number, means this disk. */
static bool is_disk(const json_t *vbd, const char *vdev)
{
	uint32_t number;

	return !strcmp(client_text(vbd, "vdev"), vdev) ||
	       (parse_u32(vdev, UINT32_MAX, &number) && client_number(vbd, "devid") == number);
}

/* The domain's disk @vdev among @vbds; NULL if there is none. */
static json_t *disk_in(const json_t *vbds, const struct domain *d, const char *vdev)
{
	for (size_t i = 0; i < json_array_size(vbds); i++) {
		json_t *vbd = json_array_get(vbds, i);

		if (client_number(vbd, "domid") == d->id && is_disk(vbd, vdev))
			return vbd;
	}
	return NULL;
}

/*
 * The domain's disk @vdev as the daemon lists it. Returns 0 and *@vbd, a new reference or NULL if
 * there is none; or a negative number with the line in @err.
 */
static int find_vbd(struct client *c, const struct domain *d, const char *vdev, json_t **vbd,
		    struct err *err)
{
	json_t *vbds;
	int rc = client_call(c, "vbd_get_vbds", NULL, c->quick_ms, &vbds, err);

	if (rc)
		return rc;
	*vbd = json_incref(disk_in(vbds, d, vdev));
	json_decref(vbds);
	return 0;
}

static void pause_ns(uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / NSEC_PER_SEC),
			     .tv_nsec = (long)(ns % NSEC_PER_SEC)};

	nanosleep(&t, NULL);
}

/*
 * xl has done its part: waits until the daemon has (@wanted) the disk without an error, or has it
 * no more. Returns 0 or the exit status.
 */
static int settle(struct client *c, const struct domain *d, const char *vdev, bool wanted)
{
	uint64_t deadline_ns = clock_now_ns() + c->settle_ms * NSEC_PER_MSEC;
	char why[sizeof(((struct err *)0)->text)] = "sluiced does not see it";

	for (;;) {
		const char *error = NULL;
		struct err err;
		json_t *vbd;
		bool there;

		if (find_vbd(c, d, vdev, &vbd, &err))
			return client_fail(c, "%s", err.text);
		there = vbd;
		error = json_string_value(json_object_get(vbd, "error"));
		if (error)
			snprintf(why, sizeof(why), "%s", error);
		if (vbd && !error && wanted) {
			if (c->json)
				client_print_json(c, vbd);
			json_decref(vbd);
			return 0;
		}
		json_decref(vbd);
		if (!there && !wanted)
			return 0;
		if (clock_now_ns() >= deadline_ns)
			break;
		pause_ns(SETTLE_STEP_NS);
	}
	if (wanted)
		return client_fail(c,
				   "xl has attached %s to %s (domain %s), but it does not work: "
				   "%s; 'sluice detach %s %s' takes it away",
				   vdev, d->name, d->id_text, why, d->id_text, vdev);
	return client_fail(c,
			   "xl has detached %s from %s (domain %s), but sluiced still serves "
			   "it: see 'sluice list'",
			   vdev, d->name, d->id_text);
}

/* The disk that keeps others from using @bdev, as far as @shared does not help; or NULL. */
static const json_t *obstacle_in(const json_t *vbds, const char *bdev, bool shared)
{
	for (size_t i = 0; i < json_array_size(vbds); i++) {
		const json_t *vbd = json_array_get(vbds, i);

		/* A disk with an error may only wish it had the bdev. */
		if (!strcmp(client_text(vbd, "bdev"), bdev) &&
		    json_is_null(json_object_get(vbd, "error")) &&
		    !(shared && client_truth(vbd, "shared")))
			return vbd;
	}
	return NULL;
}

/* Whether the daemon could serve the disk. Returns CLIENT_GO_ON or the exit status. */
static int check_bdev(struct client *c, const json_t *vbds, const char *bdev, bool readonly,
		      bool shared)
{
	const json_t *b, *obstacle;
	struct err err;
	json_t *list;
	int rc = CLIENT_GO_ON;

	if (client_call(c, "bdev_get_bdevs", json_pack("{s:s}", "name", bdev), c->quick_ms, &list,
			&err))
		return client_fail(c, "%s", err.text);
	b = json_array_get(list, 0);
	obstacle = client_truth(b, "shared") ? NULL : obstacle_in(vbds, bdev, shared);
	if (client_truth(b, "readonly") && !readonly)
		rc = client_fail(c, "bdev '%s' is read-only: attach it with --readonly", bdev);
	else if (obstacle)
		rc = client_fail(c,
				 "bdev '%s' is in use as %s of %s: detach that one first, or "
				 "attach both with --shared",
				 bdev, client_text(obstacle, "vdev"),
				 client_text(obstacle, "domain"));
	json_decref(list);
	return rc;
}

/* What can be said in one line is said before xl runs. Returns CLIENT_GO_ON or the exit status. */
static int check_attach(struct client *c, const struct domain *d, const char *vdev,
			const char *bdev, bool readonly, bool shared)
{
	const json_t *vbd;
	struct err err;
	json_t *vbds;
	int rc;

	if (client_call(c, "vbd_get_vbds", NULL, c->quick_ms, &vbds, &err))
		return client_fail(c, "%s", err.text);
	vbd = disk_in(vbds, d, vdev);
	if (vbd)
		rc = client_fail(c,
				 "%s (domain %s) has %s already, which is bdev '%s': choose "
				 "another name, or detach that one first",
				 d->name, d->id_text, vdev, client_text(vbd, "bdev"));
	else
		rc = check_bdev(c, vbds, bdev, readonly, shared);
	json_decref(vbds);
	return rc;
}

static int attach_by_xl(struct client *c, const struct domain *d, const char *vdev,
			const char *bdev, bool readonly, bool shared)
{
	const char *args[] = {"block-attach", d->id_text, NULL, NULL};
	char *spec;
	int rc;

	rc = check_attach(c, d, vdev, bdev, readonly, shared);
	if (rc != CLIENT_GO_ON)
		return rc;
	spec = xl_disk_spec(vdev, bdev, c->instance, readonly, shared);
	if (!spec)
		return client_fail(c, "out of memory");
	args[2] = spec;
	rc = xl_run(c, d->xl, args);
	free(spec);
	return rc ? rc : settle(c, d, vdev, true);
}

static int attach_by_daemon(struct client *c, const struct domain *d, const char *vdev,
			    const char *bdev, bool readonly, bool shared)
{
	json_t *params, *result;
	struct err err;

	params = json_pack("{s:s, s:s, s:s, s:b, s:b}", "domain", d->id_text, "vdev", vdev, "bdev",
			   bdev, "readonly", readonly, "shared", shared);
	if (client_call(c, "vbd_attach", params, c->guest_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	json_decref(result);
	return 0;
}

int vbd_command_attach(struct client *c, int argc, char **argv)
{
	const char *words[3], *toolstack = "auto";
	bool readonly = false, shared = false;
	const struct client_option options[] = {
		{"readonly", &readonly, NULL},
		{"shared", &shared, NULL},
		{"toolstack", NULL, &toolstack},
	};
	struct domain d;
	int rc;

	rc = client_parse(c, argc, argv, options, 3, words, 3, 3);
	if (rc == CLIENT_GO_ON)
		rc = check_names(c, words[1], words[2]);
	if (rc == CLIENT_GO_ON)
		rc = find_domain(c, words[0], toolstack, &d);
	if (rc != CLIENT_GO_ON)
		return rc;
	rc = d.xl ? attach_by_xl(c, &d, words[1], words[2], readonly, shared)
		  : attach_by_daemon(c, &d, words[1], words[2], readonly, shared);
	if (!rc && !c->json)
		fprintf(c->out, "bdev %s attached to %s (domain %s) as %s\n", words[2], d.name,
			d.id_text, words[1]);
	free(d.xl);
	return rc;
}

static int detach_by_xl(struct client *c, const struct domain *d, const char *vdev, bool force)
{
	const char *forced[] = {"block-detach", "--force", d->id_text, vdev, NULL};
	const char *args[] = {"block-detach", d->id_text, vdev, NULL};
	struct err err;
	json_t *vbd;
	int rc;

	if (find_vbd(c, d, vdev, &vbd, &err))
		return client_fail(c, "%s", err.text);
	/* It may be another backend's disk, which is none of our business. */
	if (!vbd)
		return client_fail(c,
				   "%s (domain %s) has no %s of this sluiced: 'sluice list' "
				   "shows its disks",
				   d->name, d->id_text, vdev);
	json_decref(vbd);
	rc = xl_run(c, d->xl, force ? forced : args);
	return rc ? rc : settle(c, d, vdev, false);
}

static int detach_by_daemon(struct client *c, const struct domain *d, const char *vdev, bool force)
{
	json_t *params, *result;
	struct err err;

	params = json_pack("{s:s, s:s, s:b}", "domain", d->id_text, "vdev", vdev, "force", force);
	if (client_call(c, "vbd_detach", params, c->guest_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	json_decref(result);
	return 0;
}

int vbd_command_detach(struct client *c, int argc, char **argv)
{
	const char *words[2], *toolstack = "auto";
	bool force = false;
	const struct client_option options[] = {
		{"force", &force, NULL},
		{"toolstack", NULL, &toolstack},
	};
	struct domain d;
	int rc;

	rc = client_parse(c, argc, argv, options, 2, words, 2, 2);
	if (rc == CLIENT_GO_ON)
		rc = check_names(c, words[1], NULL);
	if (rc == CLIENT_GO_ON)
		rc = find_domain(c, words[0], toolstack, &d);
	if (rc != CLIENT_GO_ON)
		return rc;
	rc = d.xl ? detach_by_xl(c, &d, words[1], force) : detach_by_daemon(c, &d, words[1], force);
	if (!rc && c->json)
		fputs("true\n", c->out);
	else if (!rc)
		fprintf(c->out, "%s detached from %s (domain %s)\n", words[1], d.name, d.id_text);
	free(d.xl);
	return rc;
}

static void add_row(struct table *t, const json_t *vbd)
{
	const char *error = json_string_value(json_object_get(vbd, "error"));

	table_cell(t, "%s", client_text(vbd, "domain"));
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(vbd, "domid"));
	table_cell(t, "%s", client_text(vbd, "vdev"));
	table_cell(t, "%s", client_text(vbd, "bdev"));
	table_cell(t, "%s%s", client_truth(vbd, "readonly") ? "ro" : "rw",
		   client_truth(vbd, "shared") ? ",shared" : "");
	table_cell(t, "%s", client_text(vbd, "backend"));
	table_cell(t, "%s", client_text(vbd, "state"));
	table_cell(t, "%s", client_text(vbd, "frontend_state"));
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(vbd, "queues"));
	table_cell(t, "%s", error ? error : "-");
}

int vbd_command_list(struct client *c, int argc, char **argv)
{
	static const struct table_column columns[] = {
		{"DOMAIN", false}, {"ID", true},       {"VDEV", false},  {"BDEV", false},
		{"ACCESS", false}, {"BACKEND", false}, {"STATE", false}, {"FRONTEND", false},
		{"QUEUES", true},  {"ERROR", false},
	};

	return client_list(c, argc, argv, "vbd_get_vbds", columns,
			   sizeof(columns) / sizeof(columns[0]), add_row);
}
