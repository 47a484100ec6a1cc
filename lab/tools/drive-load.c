/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * drive-load: an NVMe drive driven by src/nvme alone, in the lab.
 *
 * It is how the driver is measured without guests, and how it is shown to be right without the
 * daemon: what is written by one way of laying out memory is read back by another and compared.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/parse.h"
#include "drive-load.h"

static const char usage[] =
	"usage: drive-load [OPTION]... ADDRESS COMMAND\n"
	"       drive-load [OPTION]... --read-to|--write-from BUS ADDRESS\n"
	"  info      what the drive is\n"
	"  verify    writes and reads of all shapes, each read compared\n"
	"  bench     random requests as fast as they go; prints a line of JSON\n"
	"\n"
	"  --rw read|write|mix  what bench does (default read)\n"
	"  --block SIZE         of a request of bench (default 4K)\n"
	"  --depth N            requests under way, of each worker (default 1)\n"
	"  --seconds N          how long bench lasts (default 3)\n"
	"  --requests N         of each worker's, for verify (default 2000)\n"
	"  --region SIZE        of the drive, from its beginning (default: all; for verify 32M)\n"
	"  --image FILE         gets what verify has left in the region\n"
	"  --workers N          threads, each with a queue (default 1)\n"
	"  --namespace N        of the drive (default 1)\n"
	"  --seed N             of random numbers (default 1)\n"
	"  --sharing copy|dma|persistent  by blkif, from a frontend in this process\n"
	"  --iov                bench names memory by virtual addresses, not by those on the bus\n"
	"  --read-to BUS        has the drive write its first 4 KiB to this address on the bus\n"
	"                       (hexadecimal; unmapped: a page's that it reached until now;\n"
	"                       DOMID:REF: a guest's page that it reached until now)\n"
	"  --write-from BUS     has it write there what it finds at this address on the bus\n"
	"  --timeout SECONDS    after which a command is aborted, and the drive reset (default "
	"30)\n"
	"  --debug              says more\n";

#define VERIFY_REGION (32ULL << 20)

struct options {
	struct load_options load;
	struct rig_options rig;
	uint32_t nsid;
	const char *read_to;
	const char *write_from;
};

static uint64_t number(const char *name, const char *text, uint64_t max)
{
	uint64_t value;

	if (!parse_u64(text, max, &value) || !value)
		die("--%s %s: must be a number from 1 to %llu", name, text,
		    (unsigned long long)max);
	return value;
}

static uint64_t size(const char *name, const char *text)
{
	uint64_t value;

	if (!parse_size(text, &value) || !value || value % 512)
		die("--%s %s: must be a size in bytes, a multiple of 512 (K, M and G are known)",
		    name, text);
	return value;
}

static void parse(int argc, char **argv, struct options *opts)
{
	static const struct option known[] = {
		{"rw", required_argument, NULL, 'r'},
		{"block", required_argument, NULL, 'b'},
		{"depth", required_argument, NULL, 'd'},
		{"seconds", required_argument, NULL, 's'},
		{"requests", required_argument, NULL, 'n'},
		{"region", required_argument, NULL, 'g'},
		{"image", required_argument, NULL, 'i'},
		{"workers", required_argument, NULL, 'w'},
		{"namespace", required_argument, NULL, 'N'},
		{"seed", required_argument, NULL, 'S'},
		{"sharing", required_argument, NULL, 'h'},
		{"iov", no_argument, NULL, 'v'},
		{"read-to", required_argument, NULL, 't'},
		{"write-from", required_argument, NULL, 'f'},
		{"timeout", required_argument, NULL, 'T'},
		{"debug", no_argument, NULL, 'D'},
		{0},
	};
	struct load_options *load = &opts->load;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'r':
			if (strcmp(optarg, "read") && strcmp(optarg, "write") &&
			    strcmp(optarg, "mix"))
				die("--rw %s: must be read, write or mix", optarg);
			load->rw = optarg;
			break;
		case 'b':
			load->block = (uint32_t)size("block", optarg);
			break;
		case 'd':
			load->depth = (unsigned)number("depth", optarg, 1024);
			break;
		case 's':
			load->seconds = (unsigned)number("seconds", optarg, 3600);
			break;
		case 'n':
			load->requests = (unsigned)number("requests", optarg, 100000000);
			break;
		case 'g':
			load->region = size("region", optarg);
			break;
		case 'i':
			load->image = optarg;
			break;
		case 'w':
			opts->rig.workers = (unsigned)number("workers", optarg, RIG_WORKERS_MAX);
			break;
		case 'N':
			opts->nsid = (uint32_t)number("namespace", optarg, UINT32_MAX);
			break;
		case 'S':
			load->seed = number("seed", optarg, UINT64_MAX);
			break;
		case 'h':
			if (strcmp(optarg, "copy") && strcmp(optarg, "dma") &&
			    strcmp(optarg, "persistent"))
				die("--sharing %s: must be copy, dma or persistent", optarg);
			load->sharing = optarg;
			break;
		case 'T':
			opts->rig.timeout_s = (unsigned)number("timeout", optarg, 3600);
			break;
		case 't':
			opts->read_to = optarg;
			break;
		case 'f':
			opts->write_from = optarg;
			break;
		case 'v':
			load->iov = true;
			break;
		case 'D':
			log_set_level(LOG_LEVEL_DEBUG);
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (argc - optind != (opts->read_to || opts->write_from ? 1 : 2)) {
		fputs(usage, stderr);
		exit(2);
	}
}

static void trimmed(const char *what, const char *text, size_t len)
{
	while (len && text[len - 1] == ' ')
		len--;
	printf("\"%s\":\"%.*s\",", what, (int)len, text);
}

static void info(struct rig *rig)
{
	const struct nvme_id_ctrl *id = nvme_ctrl_identity(rig->ctrl);
	const struct nvme_namespace *ns;
	unsigned n = nvme_ctrl_namespaces(rig->ctrl, &ns);

	printf("{\"way\":\"%s\",", rig->granted ? "granted" : "vfio");
	trimmed("model", id->mn, sizeof(id->mn));
	trimmed("serial", id->sn, sizeof(id->sn));
	trimmed("firmware", id->fr, sizeof(id->fr));
	printf("\"mdts\":%u,\"write_cache\":%s,\"namespaces\":[", id->mdts,
	       id->vwc & NVME_VWC_PRESENT ? "true" : "false");
	for (unsigned i = 0; i < n; i++)
		printf("%s{\"nsid\":%u,\"blocks\":%llu,\"block_size\":%u}", i ? "," : "",
		       ns[i].nsid, (unsigned long long)ns[i].blocks, ns[i].block_size);
	puts("]}");
}

static void reach(struct rig *rig, const struct options *opts)
{
	const char *text = opts->read_to ? opts->read_to : opts->write_from;
	enum bdev_op op = opts->read_to ? BDEV_READ : BDEV_WRITE;
	const char *colon = strchr(text, ':');
	char *end;
	uint64_t bus = strtoull(text, &end, 16);

	if (!strcmp(text, "unmapped")) {
		reach_unmapped(rig, op);
	} else if (colon) {
		char domid[8];

		snprintf(domid, sizeof(domid), "%.*s", (int)(colon - text), text);
		reach_guest(rig, op, (uint16_t)number("guest", domid, UINT16_MAX),
			    (uint32_t)number("page", colon + 1, UINT32_MAX));
	} else if (end == text || *end || bus % DMA_PAGE_SIZE) {
		die("%s: must be \"unmapped\", DOMID:REF, or a page's address in hexadecimal",
		    text);
	} else {
		reach_address(rig, op, bus);
	}
}

static void run(struct rig *rig, const struct options *opts, const char *command)
{
	struct load_options load = opts->load;

	if (command && !strcmp(command, "info")) {
		info(rig);
		return;
	}
	rig_open_bdev(rig, opts->nsid);
	if (!load.region)
		load.region = command && !strcmp(command, "verify") ? VERIFY_REGION : UINT64_MAX;
	if (load.region > bdev_get_size(rig->bdev))
		load.region = bdev_get_size(rig->bdev);
	if (!command)
		reach(rig, opts);
	else if (!strcmp(command, "bench"))
		(load.sharing ? front_bench : bench)(rig, &load);
	else if (!strcmp(command, "verify"))
		(load.sharing ? front_verify : verify)(rig, &load);
	else
		die("no command \"%s\" (info, verify and bench are known)", command);
}

int main(int argc, char **argv)
{
	struct options opts = {
		.load = {.rw = "read",
			 .block = 4096,
			 .depth = 1,
			 .seconds = 3,
			 .requests = 2000,
			 .seed = 1},
		.rig = {.workers = 1, .memory_pages = 16384},
		.nsid = 1,
	};
	struct rig rig;

	log_set_level(LOG_LEVEL_WARNING);
	parse(argc, argv, &opts);
	rig_open(&rig, argv[optind], &opts.rig);
	run(&rig, &opts, argv[optind + 1]);
	rig_close(&rig);
	return 0;
}
