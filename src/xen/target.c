/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

static int set_shared(struct target *t, const char *value)
{
	t->shared = true;
	return value ? -EINVAL : 0;
}

static const char *const sharings[] = {
	[TARGET_SHARING_AUTO] = "auto",
	[TARGET_SHARING_COPY] = "copy",
	[TARGET_SHARING_MAP] = "map",
	[TARGET_SHARING_DMA] = "dma",
};

const char *target_sharing_name(enum target_sharing sharing)
{
	return sharings[sharing];
}

static int set_sharing(struct target *t, const char *value)
{
	for (unsigned i = 0; value && i < sizeof(sharings) / sizeof(sharings[0]); i++) {
		if (strcmp(value, sharings[i]))
			continue;
		t->sharing = (enum target_sharing)i;
		return 0;
	}
	return -EINVAL;
}

static int set_persistent(struct target *t, const char *value)
{
	if (!value || (strcmp(value, "yes") && strcmp(value, "no")))
		return -EINVAL;
	t->not_persistent = !strcmp(value, "no");
	return 0;
}

static int set_on_error(struct target *t, const char *value)
{
	if (!value)
		return -EINVAL;
	if (!strcmp(value, "report")) {
		t->on_error = BLKIF_ERROR_REPORT;
	} else if (!strcmp(value, "stop")) {
		t->on_error = BLKIF_ERROR_STOP;
	} else {
		if (strncmp(value, "retry:", 6) ||
		    !parse_u32(value + 6, TARGET_RETRY_MAX, &t->retry_s) || !t->retry_s)
			return -EINVAL;
		t->on_error = BLKIF_ERROR_RETRY;
	}
	return 0;
}

static int set_iops(struct target *t, const char *value)
{
	return value && parse_u64(value, INT64_MAX, &t->ios_per_sec) ? 0 : -EINVAL;
}

static int set_bandwidth(struct target *t, const char *value)
{
	return value && parse_size(value, &t->bytes_per_sec) && t->bytes_per_sec <= INT64_MAX
		       ? 0
		       : -EINVAL;
}

static const struct {
	const char *name;
	const char *usage;
	int (*set)(struct target *t, const char *value);
} options[] = {
	{"shared", "shared", set_shared},
	{"sharing", "sharing=copy|map|dma|auto", set_sharing},
	{"persistent", "persistent=yes|no", set_persistent},
	{"on-error", "on-error=report|retry:SECONDS|stop", set_on_error},
	{"iops", "iops=N", set_iops},
	{"bandwidth", "bandwidth=SIZE", set_bandwidth},
};

enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

static unsigned find_option(const char *name)
{
	unsigned i = 0;

	while (i < OPTIONS && strcmp(name, options[i].name))
		i++;
	return i;
}

int target_set_option(struct target *t, const char *name, const char *value, struct err *err)
{
	unsigned i = find_option(name);

	if (i == OPTIONS)
		return err_set(err, -EINVAL,
			       "no option is named '%s': there are shared, sharing=, persistent=, "
			       "on-error=, iops= and bandwidth=",
			       name);
	if (options[i].set(t, value))
		return err_set(err, -EINVAL, "bad value '%s' of option %s: write %s",
			       value ? value : "", name, options[i].usage);
	return 0;
}

int target_parse(const char *text, struct target *t, struct err *err)
{
	char copy[TARGET_MAX], *rest = copy, *name, *at, *value;
	bool seen[OPTIONS + 1] = {false};
	int rc = 0;

	memset(t, 0, sizeof(*t));
	if (strlen(text) >= sizeof(copy))
		return err_set(err, -EINVAL, "a target of more than %d characters", TARGET_MAX - 1);
	strcpy(copy, text);
	name = strsep(&rest, ",");
	at = strchr(name, '@');
	if (at)
		*at++ = '\0';
	if (!parse_name(name) || (at && !parse_name(at)))
		return err_set(err, -EINVAL, "bad target '%s': write BDEV[@INSTANCE][,OPTION]...",
			       text);
	strcpy(t->bdev, name);
	if (at)
		strcpy(t->instance, at);
	while (!rc && (name = strsep(&rest, ","))) {
		value = strchr(name, '=');
		if (value)
			*value++ = '\0';
		if (seen[find_option(name)])
			return err_set(err, -EINVAL, "option %s is there twice", name);
		seen[find_option(name)] = true;
		rc = target_set_option(t, name, value, err);
	}
	return rc;
}

void target_format_on_error(const struct target *t, char *text, size_t size)
{
	if (t->on_error == BLKIF_ERROR_RETRY)
		snprintf(text, size, "retry:%u", t->retry_s);
	else
		snprintf(text, size, "%s", t->on_error == BLKIF_ERROR_STOP ? "stop" : "report");
}

void target_format(const struct target *t, char text[TARGET_MAX])
{
	char on_error[24], limits[64] = "";
	size_t len = 0;

	target_format_on_error(t, on_error, sizeof(on_error));
	if (t->ios_per_sec)
		len = (size_t)snprintf(limits, sizeof(limits), ",iops=%lu",
				       (unsigned long)t->ios_per_sec);
	if (t->bytes_per_sec)
		snprintf(limits + len, sizeof(limits) - len, ",bandwidth=%lu",
			 (unsigned long)t->bytes_per_sec);
	/* What is the default is left out, so that simple disks have simple targets. */
	snprintf(text, TARGET_MAX, "%s%s%s%s%s%s%s%s%s%s", t->bdev, t->instance[0] ? "@" : "",
		 t->instance, t->shared ? ",shared" : "",
		 t->sharing == TARGET_SHARING_AUTO ? "" : ",sharing=",
		 t->sharing == TARGET_SHARING_AUTO ? "" : sharings[t->sharing],
		 t->not_persistent ? ",persistent=no" : "",
		 t->on_error == BLKIF_ERROR_REPORT ? "" : ",on-error=",
		 t->on_error == BLKIF_ERROR_REPORT ? "" : on_error, limits);
}
