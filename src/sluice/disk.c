/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluice/disk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "sluice/text.h"
#include "sluice/xl.h"

enum { RETRY_MAX_S = 86400 };

int disk_check_vdev(struct client *c, const char *vdev)
{
	if (!xl_vdev_valid(vdev))
		return client_misuse(c, "'%s' is no name for a disk in a guest: use one like xvda",
				     vdev);
	return CLIENT_GO_ON;
}

int disk_find_domain(struct client *c, const char *domain, struct disk_domain *d)
{
	json_t *result;
	struct err err;
	char *name;

	if (client_call(c, "xen_get_domain", json_pack("{s:s}", "domain", domain), c->quick_ms,
			&result, &err))
		return client_fail(c, "%s", err.text);
	d->id = client_number(result, "domid");
	snprintf(d->id_text, sizeof(d->id_text), "%" JSON_INTEGER_FORMAT, d->id);
	name = text_clean(client_text(result, "name"), false);
	snprintf(d->name, sizeof(d->name), "%s", name);
	free(name);
	d->xl = !strcmp(client_text(result, "toolstack"), "xl");
	json_decref(result);
	return CLIENT_GO_ON;
}

int disk_parse_iops(struct client *c, const char *iops, uint64_t *limit)
{
	if (!parse_u64(iops, INT64_MAX, limit))
		return client_misuse(c,
				     "'%s' is no number of requests a second: digits, 0 for no "
				     "limit",
				     iops);
	return CLIENT_GO_ON;
}

int disk_parse_bandwidth(struct client *c, const char *bandwidth, uint64_t *limit)
{
	if (!parse_size(bandwidth, limit) || *limit > INT64_MAX)
		return client_misuse(c,
				     "'%s' is no number of bytes a second: digits and perhaps K, "
				     "M, G or T, 0 for no limit",
				     bandwidth);
	return CLIENT_GO_ON;
}

static bool is_policy(const char *text)
{
	static const char retry[] = "retry:";
	uint32_t seconds;

	/* Longer than a day nobody waits for it: that is what stop is for. */
	if (!strncmp(text, retry, strlen(retry)))
		return parse_u32(text + strlen(retry), RETRY_MAX_S, &seconds) && seconds;
	return !strcmp(text, "report") || !strcmp(text, "stop");
}

int disk_check_options(struct client *c, const struct disk_options *o)
{
	if (o->sharing && strcmp(o->sharing, "copy") && strcmp(o->sharing, "map") &&
	    strcmp(o->sharing, "dma") && strcmp(o->sharing, "auto"))
		return client_misuse(c, "the mode of sharing is copy, map, dma or auto, not '%s'",
				     o->sharing);
	if (o->persistent && strcmp(o->persistent, "yes") && strcmp(o->persistent, "no"))
		return client_misuse(c, "mappings are persistent, yes or no, not '%s'",
				     o->persistent);
	if (o->on_error && !is_policy(o->on_error))
		return client_misuse(
			c, "on an error: report, retry:SECONDS (1 to %d) or stop, not '%s'",
			RETRY_MAX_S, o->on_error);
	return CLIENT_GO_ON;
}

json_t *disk_attach_params(const char *domain, const char *vdev, const char *bdev,
			   const struct disk_options *o)
{
	json_t *params = json_pack("{s:s, s:s, s:s, s:b, s:b}", "domain", domain, "vdev", vdev,
				   "bdev", bdev, "readonly", o->readonly, "shared", o->shared);
	int rc = 0;

	if (o->sharing)
		rc |= json_object_set_new(params, "sharing", json_string(o->sharing));
	if (o->persistent)
		rc |= json_object_set_new(params, "persistent",
					  json_boolean(!strcmp(o->persistent, "yes")));
	if (o->on_error)
		rc |= json_object_set_new(params, "on_error", json_string(o->on_error));
	if (o->iops)
		rc |= json_object_set_new(params, "rw_ios_per_sec",
					  json_integer((json_int_t)o->iops));
	if (o->bandwidth)
		rc |= json_object_set_new(params, "rw_bytes_per_sec",
					  json_integer((json_int_t)o->bandwidth));
	if (!rc)
		return params;
	json_decref(params);
	return NULL;
}

char *disk_target(const char *bdev, const char *instance, const struct disk_options *o)
{
	char *target;
	size_t len;
	FILE *f = open_memstream(&target, &len);
	bool failed;

	if (!f)
		return NULL;
	fputs(bdev, f);
	if (strcmp(instance, "sluice"))
		fprintf(f, "@%s", instance);
	if (o->shared)
		fputs(",shared", f);
	if (o->sharing)
		fprintf(f, ",sharing=%s", o->sharing);
	if (o->persistent)
		fprintf(f, ",persistent=%s", o->persistent);
	if (o->on_error)
		fprintf(f, ",on-error=%s", o->on_error);
	if (o->iops)
		fprintf(f, ",iops=%" PRIu64, o->iops);
	if (o->bandwidth)
		fprintf(f, ",bandwidth=%" PRIu64, o->bandwidth);
	failed = ferror(f);
	if (!fclose(f) && !failed)
		return target;
	free(target);
	return NULL;
}

bool disk_format_limits(const json_t *limits, char *out, size_t room)
{
	json_int_t iops = client_number(limits, "rw_ios_per_sec");
	json_int_t bandwidth = client_number(limits, "rw_bytes_per_sec");
	char requests[40] = "", bytes[16] = "";

	if (iops > 0)
		snprintf(requests, sizeof(requests), "%" JSON_INTEGER_FORMAT " requests/s", iops);
	if (bandwidth > 0)
		text_size((uint64_t)bandwidth, bytes);
	snprintf(out, room, "%s%s%s%s", requests, requests[0] && bytes[0] ? ", " : "", bytes,
		 bytes[0] ? " bytes/s" : "");
	return out[0];
}
