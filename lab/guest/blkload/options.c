/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line, and the region that fits the device. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "load.h"

static const char usage[] =
	"usage: blkload [OPTION]... DEVICE...\n"
	"  --offset BYTES       where the region begins (default 0)\n"
	"  --length BYTES       how long it is (default: to the device's end)\n"
	"  --block MIN[-MAX]    request size, or sizes chosen at random (default 4k)\n"
	"  --read PERCENT       share of reads (default 50)\n"
	"  --sequential         in order, not at random\n"
	"  --engine NAME        io_uring or libaio (default io_uring)\n"
	"  --depth N            requests in flight (default 16)\n"
	"  --batch N            completions to wait for at a time (default 1)\n"
	"  --submit N           requests to hand over at a time, at most (default: what is ready)\n"
	"  --jobs N             processes a device, each with a part of the region and this depth\n"
	"                       (default 1)\n"
	"  --seconds N          how long (default: until --requests, or SIGTERM)\n"
	"  --requests N         how many\n"
	"  --flush N            a flush after every N writes (default: none)\n"
	"  --seed N             what tells this run's data and order from others' (default 1)\n"
	"  --verify             fill the region first, verify each read, and all of it in the end\n"
	"  --load FILE          with --verify: do not fill, expect what the saved table says\n"
	"  --save FILE          with --verify: save the table of what the region holds\n"
	"  --progress SECONDS   say now and then how far it is\n"
	"  --histogram          print the latencies: microseconds and how many, in turns\n"
	"  --interrupts NAME    count the interrupts of this name in /proc/interrupts\n"
	"  --announce TEXT      print `@begin TEXT' before the load and `@end TEXT' after it, each "
	"with\n"
	"                       a moment of rest, in which others can read counters\n"
	"Sizes take the suffixes k, M and G.  Prints one line of JSON; exits 1 after any error.\n";

void refuse(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "blkload: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	exit(2);
}

/* A number with an optional suffix; *end is left after it. */
static uint64_t parse_number(const char *option, const char *text, char **end)
{
	static const char suffixes[] = "kMG";
	uint64_t value;
	const char *suffix;

	errno = 0;
	value = strtoull(text, end, 10);
	if (errno || *end == text || *text == '-')
		refuse("--%s %s: not a number", option, text);
	suffix = **end ? strchr(suffixes, **end) : NULL;
	if (suffix) {
		unsigned shift = 10u * (unsigned)(suffix - suffixes + 1);

		if (value > UINT64_MAX >> shift)
			refuse("--%s %s: too large", option, text);
		value <<= shift;
		(*end)++;
	}
	return value;
}

static uint64_t parse_whole(const char *option, const char *text, uint64_t max)
{
	char *end;
	uint64_t value = parse_number(option, text, &end);

	if (*end)
		refuse("--%s %s: not a number", option, text);
	if (value > max)
		refuse("--%s %s: at most %" PRIu64, option, text, max);
	return value;
}

static uint64_t parse_sectors(const char *option, const char *text, char stop, char **end)
{
	uint64_t bytes = parse_number(option, text, end);

	if (**end && **end != stop)
		refuse("--%s %s: not a size", option, text);
	if (bytes % SECTOR)
		refuse("--%s %s: not a multiple of %u", option, text, SECTOR);
	return bytes / SECTOR;
}

static void parse_block(struct load *l, const char *text)
{
	char *end;
	uint64_t min = parse_sectors("block", text, '-', &end), max = min;

	if (*end == '-')
		max = parse_sectors("block", end + 1, 0, &end);
	if (!min || min > max || max > MAX_BLOCK / SECTOR)
		refuse("--block %s: from 512 bytes to 4M", text);
	l->block_min = (uint32_t)min;
	l->block_max = (uint32_t)max;
}

void parse_options(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {{"offset", 1, NULL, 'o'},
						{"length", 1, NULL, 'l'},
						{"block", 1, NULL, 'b'},
						{"read", 1, NULL, 'r'},
						{"sequential", 0, NULL, 's'},
						{"engine", 1, NULL, 'e'},
						{"depth", 1, NULL, 'd'},
						{"batch", 1, NULL, 'B'},
						{"submit", 1, NULL, 'u'},
						{"jobs", 1, NULL, 'j'},
						{"seconds", 1, NULL, 't'},
						{"requests", 1, NULL, 'n'},
						{"flush", 1, NULL, 'f'},
						{"seed", 1, NULL, 'S'},
						{"verify", 0, NULL, 'v'},
						{"load", 1, NULL, 'L'},
						{"save", 1, NULL, 'W'},
						{"progress", 1, NULL, 'p'},
						{"histogram", 0, NULL, 'H'},
						{"interrupts", 1, NULL, 'i'},
						{"announce", 1, NULL, 'a'},
						{"help", 0, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int option, index;
	char *end;

	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		const char *name = option == '?' ? "" : options[index].name;

		switch (option) {
		case 'o':
			l->first = parse_sectors(name, optarg, 0, &end);
			break;
		case 'l':
			l->sectors = parse_sectors(name, optarg, 0, &end);
			break;
		case 'b':
			parse_block(l, optarg);
			break;
		case 'r':
			l->read_percent = (unsigned)parse_whole(name, optarg, 100);
			break;
		case 's':
			l->sequential = true;
			break;
		case 'e':
			l->engine_name = optarg;
			break;
		case 'd':
			l->depth = (unsigned)parse_whole(name, optarg, MAX_DEPTH);
			break;
		case 'B':
			l->batch = (unsigned)parse_whole(name, optarg, MAX_DEPTH);
			break;
		case 'u':
			l->submit = (unsigned)parse_whole(name, optarg, MAX_DEPTH);
			break;
		case 'j':
			l->jobs = (unsigned)parse_whole(name, optarg, MAX_JOBS);
			break;
		case 't':
			l->seconds = (unsigned)parse_whole(name, optarg, 1000000);
			break;
		case 'n':
			l->max_requests = parse_whole(name, optarg, UINT64_MAX);
			break;
		case 'f':
			l->flush_every = parse_whole(name, optarg, UINT64_MAX);
			break;
		case 'S':
			l->seed = parse_whole(name, optarg, UINT64_MAX);
			break;
		case 'v':
			l->verify = true;
			break;
		case 'L':
			l->load_file = optarg;
			break;
		case 'W':
			l->save_file = optarg;
			break;
		case 'p':
			l->progress = (unsigned)parse_whole(name, optarg, 1000000);
			break;
		case 'H':
			l->histogram = true;
			break;
		case 'i':
			l->interrupts = optarg;
			break;
		case 'a':
			l->announce = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind == argc) {
		fputs(usage, stderr);
		exit(2);
	}
	l->devices = argv + optind;
	l->device_count = (unsigned)(argc - optind);
	l->device = l->devices[0];
	if (strcmp(l->engine_name, "io_uring") != 0 && strcmp(l->engine_name, "libaio") != 0)
		refuse("--engine %s: io_uring or libaio", l->engine_name);
	if (!l->depth || !l->batch || !l->jobs)
		refuse("--depth, --batch and --jobs must be at least 1");
	if (l->device_count > MAX_JOBS / l->jobs)
		refuse("%u jobs for each of %u devices: at most %u in all", l->jobs,
		       l->device_count, MAX_JOBS);
	if (l->device_count * l->jobs > 1 && (l->verify || l->progress))
		refuse("--verify and --progress are for one job");
	if (l->announce && strpbrk(l->announce, "\"\\\n"))
		refuse("--announce: one line without quotes");
	if (l->verify && (l->announce || l->interrupts))
		refuse("--announce and --interrupts are for measuring, not with --verify");
	if ((l->load_file || l->save_file) && !l->verify)
		refuse("--load and --save need --verify");
}

void open_device(struct load *l)
{
	struct stat status;
	uint64_t bytes = 0;
	int block = SECTOR;

	l->fd = open(l->device, O_RDWR | O_DIRECT);
	if (l->fd < 0)
		refuse("%s: %s", l->device, strerror(errno));
	if (fstat(l->fd, &status) < 0)
		refuse("%s: %s", l->device, strerror(errno));
	if (!S_ISBLK(status.st_mode))
		bytes = (uint64_t)status.st_size;
	else if (ioctl(l->fd, BLKGETSIZE64, &bytes) < 0 || ioctl(l->fd, BLKSSZGET, &block) < 0)
		refuse("%s: %s", l->device, strerror(errno));
	l->grain = (uint32_t)block / SECTOR;
	if (l->first > bytes / SECTOR || l->sectors > bytes / SECTOR - l->first)
		refuse("%s has only %" PRIu64 " bytes", l->device, bytes);
	if (!l->sectors)
		l->sectors = bytes / SECTOR - l->first;
	if (l->sectors > MAX_SECTORS)
		refuse("the region is too large: at most %u sectors, use --length", MAX_SECTORS);
	if (l->first % l->grain || l->sectors % l->grain || l->block_min % l->grain ||
	    l->block_max % l->grain)
		refuse("%s has blocks of %d bytes: region and --block must be multiples", l->device,
		       block);
	l->sectors = l->sectors / l->jobs / l->grain * l->grain;
	l->first += l->part * l->sectors;
	if (l->block_max > l->sectors)
		refuse("--block is larger than a job's region of %" PRIu64 " bytes",
		       l->sectors * SECTOR);
}

void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory)
		refuse("out of memory");
	return memory;
}
