/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice pause`, `resume` and `limit`: what is done to a disk while its guest uses it. */
#include "sluice/client.h"
#include "sluice/disk.h"

/* A method that takes a domain and a disk, and answers true. */
static int run_method(struct client *c, int argc, char **argv, const char *method, const char *done)
{
	const char *words[2];
	struct disk_domain d;
	json_t *result;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 2, 2);
	if (rc == CLIENT_GO_ON)
		rc = disk_check_vdev(c, words[1]);
	if (rc == CLIENT_GO_ON)
		rc = disk_find_domain(c, words[0], &d);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, method, json_pack("{s:s, s:s}", "domain", d.id_text, "vdev", words[1]),
			c->guest_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	else
		fprintf(c->out, "%s of %s (domain %s) %s\n", words[1], d.name, d.id_text, done);
	json_decref(result);
	return 0;
}

int vbd_command_pause(struct client *c, int argc, char **argv)
{
	return run_method(c, argc, argv, "vbd_pause", "paused");
}

int vbd_command_resume(struct client *c, int argc, char **argv)
{
	return run_method(c, argc, argv, "vbd_resume", "resumed");
}

/* Parameters of vbd_set_limit: what is not given stays as it is. Returns CLIENT_GO_ON as well. */
static int limit_params(struct client *c, const char *iops, const char *bandwidth, json_t *params)
{
	uint64_t limit;
	int rc = CLIENT_GO_ON;

	if (iops) {
		rc = disk_parse_iops(c, iops, &limit);
		if (rc != CLIENT_GO_ON)
			return rc;
		json_object_set_new(params, "rw_ios_per_sec", json_integer((json_int_t)limit));
	}
	if (bandwidth) {
		rc = disk_parse_bandwidth(c, bandwidth, &limit);
		if (rc != CLIENT_GO_ON)
			return rc;
		json_object_set_new(params, "rw_bytes_per_sec", json_integer((json_int_t)limit));
	}
	return rc;
}

static int call_limit(struct client *c, const struct disk_domain *d, const char *vdev,
		      json_t *params)
{
	char limits[80];
	json_t *result;
	struct err err;

	if (client_call(c, "vbd_set_limit", json_incref(params), c->quick_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	else
		fprintf(c->out, "%s of %s (domain %s): %s\n", vdev, d->name, d->id_text,
			disk_format_limits(result, limits, sizeof(limits)) ? limits : "no limit");
	json_decref(result);
	return 0;
}

int vbd_command_limit(struct client *c, int argc, char **argv)
{
	const char *words[2], *iops = NULL, *bandwidth = NULL;
	const struct client_option options[] = {
		{"iops", NULL, &iops},
		{"bandwidth", NULL, &bandwidth},
	};
	struct disk_domain d;
	json_t *params;
	int rc;

	rc = client_parse(c, argc, argv, options, 2, words, 2, 2);
	if (rc == CLIENT_GO_ON)
		rc = disk_check_vdev(c, words[1]);
	if (rc != CLIENT_GO_ON)
		return rc;
	params = json_object();
	rc = limit_params(c, iops, bandwidth, params);
	if (rc == CLIENT_GO_ON)
		rc = disk_find_domain(c, words[0], &d);
	if (rc == CLIENT_GO_ON) {
		json_object_set_new(params, "domain", json_string(d.id_text));
		json_object_set_new(params, "vdev", json_string(words[1]));
		rc = call_limit(c, &d, words[1], params);
	}
	json_decref(params);
	return rc;
}
