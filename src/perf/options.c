/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "blkif/control_page.h"

const char perf_usage[] =
	"usage: sluice-perf [option ...]\n"
	"       sluice-perf limits [--cpus A,B] [--bs SIZE] [--footprint SIZE] [--json]\n"
	"Loads a disk that sluiced serves over a segment of shared memory, and measures it; or\n"
	"measures what the machine itself does.\n"
	"\n"
	"Which disk (without any of these: the environment's SIVSHM, or the only ivshmem device):\n"
	"  --worker NAME      the worker NAME of this host's sluiced\n"
	"  --socket PATH      the worker that listens at PATH\n"
	"  --port WHERE       fd:N, unix:PATH or pci:ADDRESS\n"
	"\n"
	"What load:\n"
	"  --rw KIND          randread, randwrite, randrw, read, write or rw (randread)\n"
	"  --mix PERCENT      reads among the requests of randrw and rw (70)\n"
	"  --bs SIZE          bytes of a request (4k)\n"
	"  --depth N          requests outstanding in each queue (32)\n"
	"  --queues N         queues (1)\n"
	"  --time SECONDS     how long (5), or\n"
	"  --size SIZE        how many bytes\n"
	"  --area SIZE        how much of the disk is used, from its beginning (all; with "
	"--verify\n"
	"                     at most 1G)\n"
	"  --flush-every N    flush after every N writes\n"
	"  --verify           write what can be told apart, judge what is read, and read all at "
	"the\n"
	"                     end\n"
	"  --seed N           of the places and the mix (1)\n"
	"\n"
	"How:\n"
	"  --poll             look for responses in a loop (the default)\n"
	"  --sleep            wait for responses by the doorbell\n"
	"  --layout NAME      line or x86_64 (what is offered, best first)\n"
	"  --push-every N     tell the backend of requests at least every N (8)\n"
	"  --cpumask MASK     cores, hexadecimal; each has a thread, which takes turns over its\n"
	"                     queues (a thread a queue)\n"
	"  --limits CPU       with the round trip of a cache line to core CPU, the backend's, in\n"
	"                     turns with the load; and with --footprint SIZE how fast that core\n"
	"                     copies blocks of --bs within so much memory\n"
	"  --json             results as JSON; with --cdf also how many requests took how long\n"
	"  --help, --version\n"
	"\n"
	"See sluice-perf(1).\n";

enum {
	OPT_WORKER = 256,
	OPT_SOCKET,
	OPT_PORT,
	OPT_RW,
	OPT_MIX,
	OPT_BS,
	OPT_DEPTH,
	OPT_QUEUES,
	OPT_TIME,
	OPT_SIZE,
	OPT_AREA,
	OPT_FLUSH_EVERY,
	OPT_VERIFY,
	OPT_SEED,
	OPT_POLL,
	OPT_SLEEP,
	OPT_LAYOUT,
	OPT_PUSH_EVERY,
	OPT_CPUMASK,
	OPT_CDF,
	OPT_LIMITS,
	OPT_CPUS,
	OPT_FOOTPRINT,
	OPT_JSON,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{"worker", required_argument, NULL, OPT_WORKER},
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"port", required_argument, NULL, OPT_PORT},
	{"rw", required_argument, NULL, OPT_RW},
	{"mix", required_argument, NULL, OPT_MIX},
	{"bs", required_argument, NULL, OPT_BS},
	{"depth", required_argument, NULL, OPT_DEPTH},
	{"queues", required_argument, NULL, OPT_QUEUES},
	{"time", required_argument, NULL, OPT_TIME},
	{"size", required_argument, NULL, OPT_SIZE},
	{"area", required_argument, NULL, OPT_AREA},
	{"flush-every", required_argument, NULL, OPT_FLUSH_EVERY},
	{"verify", no_argument, NULL, OPT_VERIFY},
	{"seed", required_argument, NULL, OPT_SEED},
	{"poll", no_argument, NULL, OPT_POLL},
	{"sleep", no_argument, NULL, OPT_SLEEP},
	{"layout", required_argument, NULL, OPT_LAYOUT},
	{"push-every", required_argument, NULL, OPT_PUSH_EVERY},
	{"cpumask", required_argument, NULL, OPT_CPUMASK},
	{"limits", required_argument, NULL, OPT_LIMITS},
	{"cpus", required_argument, NULL, OPT_CPUS},
	{"footprint", required_argument, NULL, OPT_FOOTPRINT},
	{"cdf", no_argument, NULL, OPT_CDF},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{NULL, 0, NULL, 0},
};

static const struct {
	const char *word;
	bool random;
	unsigned read_percent;
	bool mixed; /* --mix says how many */
} kinds[] = {
	{"randread", true, 100, false}, {"randwrite", true, 0, false}, {"randrw", true, 70, true},
	{"read", false, 100, false},    {"write", false, 0, false},    {"rw", false, 70, true},
};

static int bad(struct err *err, const char *option, const char *takes, const char *value)
{
	return err_set(err, -EINVAL, "--%s takes %s, not '%s'", option, takes, value);
}

/* As parse_size(), with small suffixes too: 4k. */
static bool parse_size_as_typed(const char *text, uint64_t *bytes)
{
	char copy[24];
	size_t len = strlen(text);

	if (!len || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len + 1);
	copy[len - 1] = (char)toupper((unsigned char)copy[len - 1]);
	return parse_size(copy, bytes);
}

static int parse_count(const char *option, const char *value, unsigned min, unsigned max,
		       unsigned *out, struct err *err)
{
	uint32_t n;

	if (!parse_u32(value, max, &n) || n < min)
		return err_set(err, -EINVAL, "--%s takes a number from %u to %u, not '%s'", option,
			       min, max, value);
	*out = n;
	return 0;
}

static int parse_bytes(const char *option, const char *value, uint64_t *out, struct err *err)
{
	if (!parse_size_as_typed(value, out) || !*out)
		return bad(err, option, "a number of bytes, perhaps with k, M, G or T", value);
	return 0;
}

static int parse_where(struct perf_options *o, const char *prefix, const char *value,
		       const char *suffix, struct err *err)
{
	int len = snprintf(o->where, sizeof(o->where), "%s%s%s", prefix, value, suffix);

	if (!*value || len < 0 || (size_t)len >= sizeof(o->where))
		return err_set(err, -EINVAL, "which disk is '%s'? See 'sluice-perf --help'", value);
	return 0;
}

static int parse_rw(struct perf_options *o, const char *value, struct err *err)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].word, value))
			continue;
		o->rw = kinds[i].word;
		o->random = kinds[i].random;
		return 0;
	}
	return bad(err, "rw", "randread, randwrite, randrw, read, write or rw", value);
}

static int parse_layout(struct perf_options *o, const char *value, struct err *err)
{
	if (!strcmp(value, "line"))
		o->layouts = CONTROL_LAYOUT_LINE;
	else if (!strcmp(value, "x86_64"))
		o->layouts = CONTROL_LAYOUT_X86_64;
	else
		return bad(err, "layout", "line or x86_64", value);
	return 0;
}

static int parse_cpus(struct perf_options *o, const char *value, struct err *err)
{
	const char *comma = strchr(value, ',');
	char first[8] = "";
	uint32_t a, b;

	if (comma && (size_t)(comma - value) < sizeof(first))
		memcpy(first, value, (size_t)(comma - value));
	if (!comma || !parse_u32(first, 1023, &a) || !parse_u32(comma + 1, 1023, &b) || a == b)
		return bad(err, "cpus", "two cores, like 0,1", value);
	o->cpus[0] = (int)a;
	o->cpus[1] = (int)b;
	return 0;
}

/* What --mix was, -1: it was not given. */
struct state {
	int mix;
};

static int parse_one(int option, const char *value, struct perf_options *o, struct state *s,
		     struct err *err)
{
	uint64_t bytes;
	unsigned n = 0;
	int rc;

	switch (option) {
	case OPT_WORKER:
		if (!parse_name(value))
			return bad(err, "worker", "a worker's name", value);
		return parse_where(o, "unix:/run/sluice/sivshm/", value, ".sock", err);
	case OPT_SOCKET:
		return parse_where(o, "unix:", value, "", err);
	case OPT_PORT:
		return parse_where(o, "", value, "", err);
	case OPT_RW:
		return parse_rw(o, value, err);
	case OPT_MIX:
		rc = parse_count("mix", value, 0, 100, &n, err);
		s->mix = rc ? -1 : (int)n;
		return rc;
	case OPT_BS:
		rc = parse_bytes("bs", value, &bytes, err);
		if (!rc && (bytes % 512 || bytes > 16 << 20))
			rc = bad(err, "bs", "a multiple of 512 bytes, at most 16M", value);
		o->block_bytes = rc ? 0 : (uint32_t)bytes;
		return rc;
	case OPT_DEPTH:
		return parse_count("depth", value, 1, PERF_DEPTH_MAX, &o->depth, err);
	case OPT_QUEUES:
		return parse_count("queues", value, 1, PERF_QUEUES_MAX, &o->queues, err);
	case OPT_TIME:
		return parse_count("time", value, 1, 1000000, &o->seconds, err);
	case OPT_SIZE:
		return parse_bytes("size", value, &o->size, err);
	case OPT_AREA:
		return parse_bytes("area", value, &o->area, err);
	case OPT_FLUSH_EVERY:
		return parse_count("flush-every", value, 1, 1000000, &o->flush_every, err);
	case OPT_VERIFY:
		o->verify = true;
		return 0;
	case OPT_SEED:
		return parse_u64(value, UINT64_MAX, &o->seed) ? 0
							      : bad(err, "seed", "a number", value);
	case OPT_POLL:
	case OPT_SLEEP:
		o->sleep = option == OPT_SLEEP;
		return 0;
	case OPT_LAYOUT:
		return parse_layout(o, value, err);
	case OPT_PUSH_EVERY:
		return parse_count("push-every", value, 1, PERF_DEPTH_MAX, &o->push_every, err);
	case OPT_CPUMASK:
		return parse_cpumask(value, &o->cpumask)
			       ? 0
			       : bad(err, "cpumask",
				     "cores as a hexadecimal mask (3: cores 0 and 1)", value);
	case OPT_LIMITS:
		rc = parse_count("limits", value, 0, 1023, &n, err);
		o->with_limits = true;
		o->backend_cpu = rc ? 0 : (int)n;
		return rc;
	case OPT_CPUS:
		return parse_cpus(o, value, err);
	case OPT_FOOTPRINT:
		return parse_bytes("footprint", value, &o->footprint, err);
	case OPT_CDF:
		o->cdf = true;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_HELP:
		o->help = true;
		return 0;
	case OPT_VERSION:
		o->version = true;
		return 0;
	default:
		return err_set(err, -EINVAL, "bad option: see 'sluice-perf --help'");
	}
}

static int judge_mix(struct perf_options *o, const struct state *s, struct err *err)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].word, o->rw))
			continue;
		o->read_percent = kinds[i].read_percent;
		if (s->mix < 0)
			return 0;
		if (!kinds[i].mixed)
			return err_set(err, -EINVAL,
				       "--mix is of --rw randrw and rw; '%s' does not mix", o->rw);
		o->read_percent = (unsigned)s->mix;
	}
	return 0;
}

static int judge_together(struct perf_options *o, struct err *err)
{
	uint64_t cpus = o->cpumask;

	if (o->limits_only && !o->copy_block)
		o->copy_block = 64 << 10;
	if (o->limits_only && !o->footprint)
		o->footprint = 16 << 20;
	if (o->footprint && !o->limits_only && !o->with_limits)
		return err_set(err, -EINVAL, "--footprint goes with --limits");
	if (o->footprint && o->footprint / 2 < o->copy_block)
		return err_set(err, -EINVAL, "--footprint has to have room for two blocks of --bs");
	if (o->limits_only)
		return 0;
	if (o->cdf && !o->json)
		return err_set(err, -EINVAL, "--cdf goes with --json");
	if (o->seconds && o->size)
		return err_set(err, -EINVAL, "give --time or --size, not both");
	if (!o->seconds && !o->size)
		o->seconds = 5;
	if (o->with_limits && !o->seconds)
		return err_set(err, -EINVAL, "--limits goes with --time");
	if (o->with_limits && __builtin_popcountll(cpus) != 1)
		return err_set(err, -EINVAL,
			       "--limits needs --cpumask with one core, other than the backend's");
	if (o->with_limits && o->backend_cpu == __builtin_ctzll(cpus))
		return err_set(err, -EINVAL,
			       "--limits takes the backend's core, and --cpumask another");
	if (o->verify && o->read_percent == 100)
		return err_set(err, -EINVAL,
			       "--verify needs writes: use --rw randrw, rw, randwrite or write");
	return 0;
}

int perf_options_parse(int argc, char **argv, struct perf_options *o, struct err *err)
{
	struct state s = {.mix = -1};
	int option, rc;

	*o = (struct perf_options){
		.rw = "randread",
		.random = true,
		.read_percent = 100,
		.depth = 32,
		.queues = 1,
		.push_every = 8,
		.seed = 1,
		.cpus = {0, 1},
	};
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		rc = option == '?'
			     ? err_set(err, -EINVAL, "bad option %s: see 'sluice-perf --help'",
				       argv[optind - 1])
			     : parse_one(option, optarg, o, &s, err);
		if (rc)
			return rc;
	}
	if (optind < argc && !strcmp(argv[optind], "limits")) {
		o->limits_only = true;
		optind++;
	}
	if (optind < argc)
		return err_set(err, -EINVAL, "what is '%s'? See 'sluice-perf --help'",
			       argv[optind]);
	o->copy_block = o->block_bytes;
	if (!o->block_bytes)
		o->block_bytes = 4096;
	if (!o->limits_only)
		o->copy_block = o->block_bytes;
	rc = judge_mix(o, &s, err);
	return rc ? rc : judge_together(o, err);
}
