/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice attach` and `detach`.
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
#include "sluice/disk.h"
#include "sluice/xl.h"

#define SETTLE_STEP_NS (100 * NSEC_PER_MSEC)

/*
 * Asks who the domain is and decides who does the work: @xl is what to run, for the caller to free,
 * or NULL for the daemon. Returns CLIENT_GO_ON or the exit status.
 */
static int find_domain(struct client *c, const char *domain, const char *toolstack,
		       struct disk_domain *d, char **xl)
{
	bool wanted;
	int rc;

	if (strcmp(toolstack, "auto") && strcmp(toolstack, "xl") && strcmp(toolstack, "none"))
		return client_misuse(c, "the toolstack is auto, xl or none, not '%s'", toolstack);
	rc = disk_find_domain(c, domain, d);
	if (rc != CLIENT_GO_ON)
		return rc;
	/* Dom0 is not xl's, although it runs there. */
	wanted = !strcmp(toolstack, "xl") || (!strcmp(toolstack, "auto") && d->id && d->xl);
	*xl = wanted ? xl_find() : NULL;
	if (wanted && !*xl)
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
static json_t *disk_in(const json_t *vbds, const struct disk_domain *d, const char *vdev)
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
static int find_vbd(struct client *c, const struct disk_domain *d, const char *vdev, json_t **vbd,
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
static int settle(struct client *c, const struct disk_domain *d, const char *vdev, bool wanted)
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
static int check_bdev(struct client *c, const json_t *vbds, const char *bdev,
		      const struct disk_options *o)
{
	const json_t *b, *obstacle;
	struct err err;
	json_t *list;
	int rc = CLIENT_GO_ON;

	if (client_call(c, "bdev_get_bdevs", json_pack("{s:s}", "name", bdev), c->quick_ms, &list,
			&err))
		return client_fail(c, "%s", err.text);
	b = json_array_get(list, 0);
	obstacle = client_truth(b, "shared") ? NULL : obstacle_in(vbds, bdev, o->shared);
	if (client_truth(b, "readonly") && !o->readonly)
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
static int check_attach(struct client *c, const struct disk_domain *d, const char *vdev,
			const char *bdev, const struct disk_options *o)
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
		rc = check_bdev(c, vbds, bdev, o);
	json_decref(vbds);
	return rc;
}

static int attach_by_xl(struct client *c, const char *xl, const struct disk_domain *d,
			const char *vdev, const char *bdev, const struct disk_options *o)
{
	const char *args[] = {"block-attach", d->id_text, NULL, NULL};
	char *target, *spec = NULL;
	int rc;

	rc = check_attach(c, d, vdev, bdev, o);
	if (rc != CLIENT_GO_ON)
		return rc;
	target = disk_target(bdev, c->instance, o);
	if (target)
		spec = xl_disk_spec(vdev, o->readonly, target);
	free(target);
	if (!spec)
		return client_fail(c, "out of memory");
	args[2] = spec;
	rc = xl_run(c, xl, args);
	free(spec);
	return rc ? rc : settle(c, d, vdev, true);
}

static int attach_by_daemon(struct client *c, const struct disk_domain *d, const char *vdev,
			    const char *bdev, const struct disk_options *o)
{
	json_t *params = disk_attach_params(d->id_text, vdev, bdev, o), *result;
	struct err err;

	if (!params)
		return client_fail(c, "out of memory");
	if (client_call(c, "vbd_attach", params, c->guest_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	json_decref(result);
	return 0;
}

int vbd_command_attach(struct client *c, int argc, char **argv)
{
	const char *words[3], *toolstack = "auto", *iops = NULL, *bandwidth = NULL;
	struct disk_options o = {0};
	const struct client_option options[] = {
		{"readonly", &o.readonly, NULL}, {"shared", &o.shared, NULL},
		{"sharing", NULL, &o.sharing},   {"persistent", NULL, &o.persistent},
		{"on-error", NULL, &o.on_error}, {"iops", NULL, &iops},
		{"bandwidth", NULL, &bandwidth}, {"toolstack", NULL, &toolstack},
	};
	struct disk_domain d;
	char *xl;
	int rc;

	rc = client_parse(c, argc, argv, options, sizeof(options) / sizeof(options[0]), words, 3,
			  3);
	if (rc == CLIENT_GO_ON)
		rc = disk_check_vdev(c, words[1]);
	if (rc == CLIENT_GO_ON && !parse_name(words[2]))
		rc = client_misuse(c, "'%s' is no name of a bdev ('sluice bdev list' shows them)",
				   words[2]);
	if (rc == CLIENT_GO_ON)
		rc = disk_check_options(c, &o);
	if (rc == CLIENT_GO_ON && iops)
		rc = disk_parse_iops(c, iops, &o.iops);
	if (rc == CLIENT_GO_ON && bandwidth)
		rc = disk_parse_bandwidth(c, bandwidth, &o.bandwidth);
	if (rc == CLIENT_GO_ON)
		rc = find_domain(c, words[0], toolstack, &d, &xl);
	if (rc != CLIENT_GO_ON)
		return rc;
	rc = xl ? attach_by_xl(c, xl, &d, words[1], words[2], &o)
		: attach_by_daemon(c, &d, words[1], words[2], &o);
	if (!rc && !c->json)
		fprintf(c->out, "bdev %s attached to %s (domain %s) as %s\n", words[2], d.name,
			d.id_text, words[1]);
	free(xl);
	return rc;
}

static int detach_by_xl(struct client *c, const char *xl, const struct disk_domain *d,
			const char *vdev, bool force)
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
	rc = xl_run(c, xl, force ? forced : args);
	return rc ? rc : settle(c, d, vdev, false);
}

static int detach_by_daemon(struct client *c, const struct disk_domain *d, const char *vdev,
			    bool force)
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
	struct disk_domain d;
	char *xl;
	int rc;

	rc = client_parse(c, argc, argv, options, 2, words, 2, 2);
	if (rc == CLIENT_GO_ON)
		rc = disk_check_vdev(c, words[1]);
	if (rc == CLIENT_GO_ON)
		rc = find_domain(c, words[0], toolstack, &d, &xl);
	if (rc != CLIENT_GO_ON)
		return rc;
	rc = xl ? detach_by_xl(c, xl, &d, words[1], force)
		: detach_by_daemon(c, &d, words[1], force);
	if (!rc && c->json)
		fputs("true\n", c->out);
	else if (!rc)
		fprintf(c->out, "%s detached from %s (domain %s)\n", words[1], d.name, d.id_text);
	free(xl);
	return rc;
}
