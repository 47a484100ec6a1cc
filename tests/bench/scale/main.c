/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-scale: one measurement of many disks over the double; `bench scale` runs it. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "disks.h"

static const char usage[] =
	"bench-scale [options] MEASUREMENT\n"
	"  idle   memory and CPU time of --disks that do nothing\n"
	"  busy   one of --disks at --depth on one queue, the others idle\n"
	"  fair   all --disks at full depth, or the first of them and the others at --depth\n"
	"  churn  --times a disk comes and goes beside one at depth 1\n"
	"  --disks N (1)  --queues N (4)  --reactors N (1)  --seconds N (3)  --times N (1000)\n"
	"  --depth N (0)  --ram (not null)  --segments N (1), of a page each\n";

static const struct {
	const char *name;
	void (*run)(const struct world_opts *opts);
} benches[] = {
	{"idle", bench_idle},
	{"busy", bench_busy},
	{"fair", bench_fair},
	{"churn", bench_churn},
};

static unsigned number(const char *text, unsigned least, unsigned most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (!*text || *end || n < least || n > most) {
		fprintf(stderr, "bench-scale: %s is not a number from %u to %u\n", text, least,
			most);
		exit(2);
	}
	return (unsigned)n;
}

static void read_options(int argc, char **argv, struct world_opts *o)
{
	static const struct option options[] = {
		{"disks", required_argument, NULL, 'd'},
		{"queues", required_argument, NULL, 'q'},
		{"reactors", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, 's'},
		{"times", required_argument, NULL, 't'},
		{"depth", required_argument, NULL, 'p'},
		{"ram", no_argument, NULL, 'm'},
		{"segments", required_argument, NULL, 'g'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			o->disks = number(optarg, 1, 128);
			break;
		case 'q':
			o->queues = number(optarg, 1, DISK_QUEUES_MAX);
			break;
		case 'r':
			o->reactors = number(optarg, 1, HOST_REACTORS_MAX);
			break;
		case 's':
			o->seconds = number(optarg, 1, 3600);
			break;
		case 't':
			o->times = number(optarg, 1, 1000000);
			break;
		case 'p':
			o->depth = number(optarg, 1, DISK_SLOTS);
			break;
		case 'g':
			o->segments = number(optarg, 1, DISK_SEGMENTS_MAX);
			break;
		case 'm':
			o->ram = true;
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct world_opts opts = {
		.disks = 1,
		.queues = 4,
		.segments = 1,
		.reactors = 1,
		.seconds = 3,
		.times = 1000,
	};

	read_options(argc, argv, &opts);
	/* Naps are as short as they are asked to be. */
	prctl(PR_SET_TIMERSLACK, 1);
	for (size_t i = 0; optind + 1 == argc && i < sizeof(benches) / sizeof(benches[0]); i++) {
		if (!strcmp(argv[optind], benches[i].name)) {
			benches[i].run(&opts);
			return 0;
		}
	}
	fputs(usage, stderr);
	return 2;
}
