/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluiced/options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

const char options_usage[] =
	"usage: sluiced [option ...]\n"
	"Serves block devices to Xen guests, and to QEMU guests and processes that share memory\n"
	"with it, in the foreground, until SIGTERM.\n"
	"\n"
	"  --name NAME          name of this instance (sluice)\n"
	"  --socket PATH        JSON-RPC socket (/run/sluice/NAME.sock)\n"
	"  --state FILE         where bdevs are remembered (/var/lib/sluice/NAME.json)\n"
	"  --cpumask MASK       cores to run reactors on, hexadecimal (the first core)\n"
	"  --backend KIND,...   Xen's backend kinds to serve: vbd, vbd3, qdisk, or none (vbd "
	"where\n"
	"                       there is Xen, else none)\n"
	"  --sivshm-dir DIR     where sockets for frontends in segments are (/run/sluice/sivshm)\n"
	"  --device-memory-mib N  most memory for NVMe drives' queues and data in MiB (64)\n"
	"  --bounce-mib N       bounce memory of each reactor in MiB (16)\n"
	"  --guest-bounce-mib N bounce memory of one guest in MiB (8)\n"
	"  --guest-maps N       pages of one guest that are mapped at a time (8192)\n"
	"  --device-maps N      pages mapped for devices, all guests' (131072)\n"
	"  --max-queues N       queues offered to each disk (as reactors, at least 4)\n"
	"  --poll-us N          longest time to poll an idle queue before it sleeps (1000)\n"
	"  --log-level LEVEL    error, warning, info or debug (info)\n"
	"  --help, --version\n"
	"\n"
	"See sluiced(8) and sluice(1).\n";

enum {
	OPT_NAME = 256,
	OPT_SOCKET,
	OPT_STATE,
	OPT_CPUMASK,
	OPT_BACKEND,
	OPT_SIVSHM_DIR,
	OPT_DEVICE_MEMORY,
	OPT_BOUNCE,
	OPT_GUEST_BOUNCE,
	OPT_GUEST_MAPS,
	OPT_DEVICE_MAPS,
	OPT_MAX_QUEUES,
	OPT_POLL,
	OPT_LOG_LEVEL,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{"name", required_argument, NULL, OPT_NAME},
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"state", required_argument, NULL, OPT_STATE},
	{"cpumask", required_argument, NULL, OPT_CPUMASK},
	{"backend", required_argument, NULL, OPT_BACKEND},
	{"sivshm-dir", required_argument, NULL, OPT_SIVSHM_DIR},
	{"device-memory-mib", required_argument, NULL, OPT_DEVICE_MEMORY},
	{"bounce-mib", required_argument, NULL, OPT_BOUNCE},
	{"guest-bounce-mib", required_argument, NULL, OPT_GUEST_BOUNCE},
	{"guest-maps", required_argument, NULL, OPT_GUEST_MAPS},
	{"device-maps", required_argument, NULL, OPT_DEVICE_MAPS},
	{"max-queues", required_argument, NULL, OPT_MAX_QUEUES},
	{"poll-us", required_argument, NULL, OPT_POLL},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{NULL, 0, NULL, 0},
};

/* The first core this process may run on. */
static uint64_t default_cpumask(void)
{
	cpu_set_t cpus;

	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		for (unsigned i = 0; i < 64; i++)
			if (CPU_ISSET(i, &cpus))
				return 1ULL << i;
	return 1;
}

static int parse_kinds(const char *text, struct options *o, struct err *err)
{
	static const char *const known[OPTIONS_KINDS_MAX] = {"vbd", "vbd3", "qdisk"};
	unsigned n = 0;

	memset(o->kinds, 0, sizeof(o->kinds));
	o->kinds_given = true;
	if (!strcmp(text, "none"))
		return 0;
	for (const char *end; *text; text = *end ? end + 1 : end) {
		const char *kind = NULL;

		end = strchrnul(text, ',');
		for (unsigned i = 0; i < OPTIONS_KINDS_MAX; i++)
			if (strlen(known[i]) == (size_t)(end - text) &&
			    !strncmp(text, known[i], (size_t)(end - text)))
				kind = known[i];
		for (unsigned i = 0; i < n; i++)
			if (kind == o->kinds[i])
				kind = NULL;
		if (!kind)
			break;
		o->kinds[n++] = kind;
	}
	if (*text || !n)
		return err_set(
			err, -EINVAL,
			"--backend takes vbd, vbd3 and qdisk, each once, separated by commas, or "
			"none");
	return 0;
}

static int set_path(char *path, const char *value, const char *option, struct err *err)
{
	if (!*value || strlen(value) >= PATH_MAX)
		return err_set(err, -EINVAL, "%s needs a path", option);
	strcpy(path, value);
	return 0;
}

static int parse_one(int option, const char *value, struct options *o, struct err *err)
{
	switch (option) {
	case OPT_NAME:
		o->name = value;
		return parse_name(value) ? 0
					 : err_set(err, -EINVAL,
						   "--name takes 1 to 63 letters, digits and _.:-, "
						   "not '%s'",
						   value);
	case OPT_SOCKET:
		return set_path(o->socket, value, "--socket", err);
	case OPT_STATE:
		return set_path(o->state, value, "--state", err);
	case OPT_CPUMASK:
		return parse_cpumask(value, &o->cpumask)
			       ? 0
			       : err_set(err, -EINVAL,
					 "--cpumask takes cores as a hexadecimal mask (3: cores 0 "
					 "and "
					 "1), not '%s'",
					 value);
	case OPT_BACKEND:
		return parse_kinds(value, o, err);
	case OPT_SIVSHM_DIR:
		return set_path(o->sivshm_dir, value, "--sivshm-dir", err);
	case OPT_DEVICE_MEMORY:
		return parse_u32(value, 1 << 20, &o->device_memory_mib) && o->device_memory_mib >= 4
			       ? 0
			       : err_set(err, -EINVAL,
					 "--device-memory-mib takes 4 MiB or more, not '%s'",
					 value);
	case OPT_BOUNCE:
		return parse_u32(value, 1 << 20, &o->bounce_mib) && o->bounce_mib >= 2
			       ? 0
			       : err_set(err, -EINVAL, "--bounce-mib takes 2 MiB or more, not '%s'",
					 value);
	case OPT_GUEST_BOUNCE:
		return parse_u32(value, 1 << 20, &o->guest_bounce_mib)
			       ? 0
			       : err_set(err, -EINVAL,
					 "--guest-bounce-mib takes a number of MiB, not '%s'",
					 value);
	case OPT_GUEST_MAPS:
		return parse_u32(value, 1 << 24, &o->guest_maps)
			       ? 0
			       : err_set(err, -EINVAL,
					 "--guest-maps takes a number of pages, not '%s'", value);
	case OPT_DEVICE_MAPS:
		return parse_u32(value, 1 << 24, &o->device_maps)
			       ? 0
			       : err_set(err, -EINVAL,
					 "--device-maps takes a number of pages, not '%s'", value);
	case OPT_MAX_QUEUES:
		return parse_u32(value, OPTIONS_QUEUES_MAX, &o->max_queues) && o->max_queues
			       ? 0
			       : err_set(err, -EINVAL, "--max-queues takes 1 to %d, not '%s'",
					 OPTIONS_QUEUES_MAX, value);
	case OPT_POLL:
		return parse_u32(value, 1000000, &o->poll_us)
			       ? 0
			       : err_set(err, -EINVAL,
					 "--poll-us takes 0 to 1000000 microseconds, not '%s'",
					 value);
	case OPT_LOG_LEVEL:
		return log_parse_level(value, &o->log_level)
			       ? 0
			       : err_set(err, -EINVAL,
					 "--log-level takes error, warning, info or debug, not "
					 "'%s'",
					 value);
	case OPT_HELP:
		o->help = true;
		return 0;
	case OPT_VERSION:
		o->version = true;
		return 0;
	default:
		return err_set(err, -EINVAL, "bad option: see 'sluiced --help'");
	}
}

/* PATH, unless it was given: DIR/NAME.SUFFIX. */
static void default_path(char *path, const char *dir, const char *name, const char *suffix)
{
	if (!path[0])
		snprintf(path, PATH_MAX, "%s/%s.%s", dir, name, suffix);
}

int options_parse(int argc, char **argv, struct options *o, struct err *err)
{
	int option, rc;

	*o = (struct options){
		.name = "sluice",
		.sivshm_dir = "/run/sluice/sivshm",
		.kinds = {"vbd"},
		.device_memory_mib = 64,
		.bounce_mib = 16,
		.guest_bounce_mib = 8,
		.guest_maps = 8192,
		.device_maps = 1024 * 256 / 2, /* half of what Xen keeps for dom0 by default */
		.poll_us = 1000,
		.log_level = LOG_LEVEL_INFO,
		.cpumask = default_cpumask(),
	};
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		rc = option == '?' ? err_set(err, -EINVAL, "bad option %s: see 'sluiced --help'",
					     argv[optind - 1])
				   : parse_one(option, optarg, o, err);
		if (rc)
			return rc;
	}
	if (optind < argc)
		return err_set(err, -EINVAL, "what is '%s'? See 'sluiced --help'", argv[optind]);
	if (!o->max_queues) {
		o->max_queues = (uint32_t)__builtin_popcountll(o->cpumask);
		if (o->max_queues < 4)
			o->max_queues = 4;
	}
	default_path(o->socket, "/run/sluice", o->name, "sock");
	default_path(o->state, "/var/lib/sluice", o->name, "json");
	/* The name is what may be there once, wherever its socket is. */
	default_path(o->lock, "/run/sluice", o->name, "lock");
	default_path(o->ledger, "/run/sluice", o->name, "ledger");
	return 0;
}
