/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/options.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "manager/say.h"
#include "sivshm.h"
#include "sivshm_items.h"

enum {
	RUN = 1,
	QEMU = 2,
	DISTRIBUTE = 4,
	GUESTS = 8, /* an option of guests: distribute takes it together with --guests */

	WORKERS_MAX = 4096,
	SECONDS_MAX = 1000000,
	IN_FLIGHT_MAX = 4096,
};
#define ITEM_MAX (256ULL << 20) /* bytes of an item that is kept in memory */

enum id {
	ID_WORKERS = 1,
	ID_SEGMENT,
	ID_VECTORS,
	ID_HUGE,
	ID_KEEP_GOING,
	ID_RESTART,
	ID_ECHO,
	ID_GUESTS,
	ID_KERNEL,
	ID_INITRD,
	ID_APPEND,
	ID_MEMORY,
	ID_MACHINE,
	ID_VIOMMU,
	ID_QEMU,
	ID_SHOW,
	ID_BY,
	ID_FILES,
	ID_LINES,
	ID_BLOCKS,
	ID_BATCH,
	ID_ORDERED,
	ID_SUM,
	ID_IN_FLIGHT,
	ID_MAX_RESULT,
	ID_STALL,
	ID_PROGRESS,
	ID_HELP,
};

static const struct known {
	const char *name;
	const char *value; /* NULL: takes none */
	int id;
	int who;
	const char *help;
} known[] = {
	{"workers", "N", ID_WORKERS, RUN | QEMU | DISTRIBUTE, "how many workers (needed)"},
	{"segment", "SIZE", ID_SEGMENT, RUN | QEMU | DISTRIBUTE,
	 "memory shared with each, a power of two (16M)"},
	{"vectors", "N", ID_VECTORS, RUN | QEMU | DISTRIBUTE, "doorbells each way, 1 to 64 (2)"},
	{"huge", NULL, ID_HUGE, RUN | QEMU | DISTRIBUTE, "ask for transparent huge pages"},
	{"keep-going", NULL, ID_KEEP_GOING, RUN | QEMU,
	 "a worker that fails does not end the rest"},
	{"restart", NULL, ID_RESTART, RUN | QEMU,
	 "start a worker that ended anew, with new memory"},
	{"echo", NULL, ID_ECHO, RUN | QEMU, "answer each ring on the same vector"},
	{"by", "HOW", ID_BY, DISTRIBUTE, "choose workers by demand (default), round-robin or hash"},
	{"files", NULL, ID_FILES, DISTRIBUTE, "an item is a file (default where files are given)"},
	{"lines", NULL, ID_LINES, DISTRIBUTE, "an item is some lines (default for standard input)"},
	{"blocks", "SIZE", ID_BLOCKS, DISTRIBUTE, "an item is so many bytes"},
	{"batch", "SIZE", ID_BATCH, DISTRIBUTE, "lines go together up to so many bytes (64K)"},
	{"ordered", NULL, ID_ORDERED, DISTRIBUTE, "print results in the order of the items"},
	{"sum", NULL, ID_SUM, DISTRIBUTE, "results are lines KEY<TAB>NUMBER: print sums by key"},
	{"in-flight", "N", ID_IN_FLIGHT, DISTRIBUTE, "items a worker has at once (4)"},
	{"max-result", "SIZE", ID_MAX_RESULT, DISTRIBUTE,
	 "what a worker may answer to its items at once (64M)"},
	{"stall", "SECONDS", ID_STALL, DISTRIBUTE,
	 "kill a worker without progress for so long; 0: never (60)"},
	{"progress", NULL, ID_PROGRESS, DISTRIBUTE,
	 "a progress line, also where there is no terminal"},
	{"guests", NULL, ID_GUESTS, DISTRIBUTE, "workers are QEMU guests"},
	{"kernel", "FILE", ID_KERNEL, QEMU | GUESTS, "the guests' kernel"},
	{"initrd", "FILE", ID_INITRD, QEMU | GUESTS, "its initramfs"},
	{"append", "TEXT", ID_APPEND, QEMU | GUESTS, "more of the kernel's command line"},
	{"memory", "SIZE", ID_MEMORY, QEMU | GUESTS, "memory of each guest (128M)"},
	{"machine", "TYPE", ID_MACHINE, QEMU | GUESTS, "QEMU's machine (q35)"},
	{"viommu", NULL, ID_VIOMMU, QEMU | GUESTS, "an IOMMU for guests that use VFIO"},
	{"qemu", "PROGRAM", ID_QEMU, QEMU | GUESTS, "which QEMU (qemu-system-x86_64)"},
	{"show", NULL, ID_SHOW, QEMU, "print the command lines, and start nothing"},
	{"help", NULL, ID_HELP, RUN | QEMU | DISTRIBUTE, "show this"},
};
enum { KNOWN = sizeof(known) / sizeof(known[0]) };

static int who_of(const char *command)
{
	return !strcmp(command, "run") ? RUN : !strcmp(command, "qemu") ? QEMU : DISTRIBUTE;
}

static bool is_for(const struct known *k, int who)
{
	return k->who & who || (who == DISTRIBUTE && k->who & GUESTS);
}

static void print_options(int who, bool guests)
{
	for (unsigned i = 0; i < KNOWN; i++) {
		const struct known *k = &known[i];
		char text[32];

		if (!is_for(k, who) || (who == DISTRIBUTE && !!(k->who & GUESTS) != guests))
			continue;
		snprintf(text, sizeof(text), "--%s%s%s", k->name, k->value ? " " : "",
			 k->value ? k->value : "");
		printf("  %-20s %s\n", text, k->help);
	}
}

static int help_command(const struct command *c)
{
	int who = who_of(c->name);

	printf("Usage: sivshm %s %s\n%s\n\n", c->name, c->usage, c->summary);
	print_options(who, false);
	if (who == DISTRIBUTE) {
		printf("\nWith --guests:\n");
		print_options(who, true);
	}
	return 0;
}

static int help_all(const struct command *commands, unsigned n)
{
	printf("Usage: sivshm COMMAND [OPTION...]\n"
	       "Workers with memory of their own, shared with this program only.\n\n");
	for (unsigned i = 0; i < n; i++)
		printf("  %-12s%s\n", commands[i].name, commands[i].summary);
	printf("\n'sivshm COMMAND --help' says more, and sivshm(1) all.\n");
	return 0;
}

static int take_number(const struct options *o, const char *name, uint32_t min, uint32_t max,
		       uint32_t *value)
{
	if (parse_u32(optarg, max, value) && *value >= min)
		return 0;
	return say_misuse(o->command, "--%s takes a number from %u to %u, not '%s'", name, min, max,
			  say_name(optarg));
}

static int take_size(const struct options *o, const char *name, uint64_t max, uint64_t *value)
{
	if (parse_size(optarg, value) && *value && *value <= max)
		return 0;
	return say_misuse(o->command,
			  "--%s takes a size up to %llu, digits and perhaps K, M, G or T, not '%s'",
			  name, (unsigned long long)max, say_name(optarg));
}

static int take_by(struct options *o)
{
	static const char *const names[] = {
		[BY_DEMAND] = "demand", [BY_ROUND_ROBIN] = "round-robin", [BY_HASH] = "hash"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], optarg))
			continue;
		o->by = (enum by)i;
		return 0;
	}
	return say_misuse(o->command, "--by takes demand, round-robin or hash, not '%s'",
			  say_name(optarg));
}

static int take_split(struct options *o, enum split split)
{
	if (o->split != SPLIT_DEFAULT && o->split != split)
		return say_misuse(o->command, "give one of --files, --lines and --blocks");
	o->split = split;
	return 0;
}

static int take_blocks(struct options *o, const char *name)
{
	int rc = take_split(o, SPLIT_BLOCKS);

	return rc ? rc : take_size(o, name, ITEM_MAX, &o->block_bytes);
}

static int take_text(const char **out)
{
	*out = optarg;
	return 0;
}

static int take_flag(bool *flag)
{
	*flag = true;
	return 0;
}

static int take(struct options *o, const struct known *k)
{
	if (k->who & GUESTS)
		o->guests_wanted = true;
	switch ((enum id)k->id) {
	case ID_WORKERS:
		return take_number(o, k->name, 1, WORKERS_MAX, &o->workers);
	case ID_SEGMENT:
		return take_size(o, k->name, 1ULL << 40, &o->segment_bytes);
	case ID_VECTORS:
		return take_number(o, k->name, 1, SIVSHM_VECTORS_MAX, &o->vectors);
	case ID_HUGE:
		return take_flag(&o->huge_pages);
	case ID_KEEP_GOING:
		return take_flag(&o->keep_going);
	case ID_RESTART:
		return take_flag(&o->restart);
	case ID_ECHO:
		return take_flag(&o->echo);
	case ID_GUESTS:
		return take_flag(&o->guests);
	case ID_KERNEL:
		return take_text(&o->kernel);
	case ID_INITRD:
		return take_text(&o->initrd);
	case ID_APPEND:
		return take_text(&o->append);
	case ID_MEMORY:
		return take_text(&o->memory);
	case ID_MACHINE:
		return take_text(&o->machine);
	case ID_VIOMMU:
		return take_flag(&o->viommu);
	case ID_QEMU:
		return take_text(&o->qemu);
	case ID_SHOW:
		return take_flag(&o->show);
	case ID_BY:
		return take_by(o);
	case ID_FILES:
		return take_split(o, SPLIT_FILES);
	case ID_LINES:
		return take_split(o, SPLIT_LINES);
	case ID_BLOCKS:
		return take_blocks(o, k->name);
	case ID_BATCH:
		return take_size(o, k->name, ITEM_MAX, &o->batch_bytes);
	case ID_ORDERED:
		return take_flag(&o->ordered);
	case ID_SUM:
		return take_flag(&o->sum);
	case ID_IN_FLIGHT:
		return take_number(o, k->name, 1, IN_FLIGHT_MAX, &o->in_flight);
	case ID_MAX_RESULT:
		return take_size(o, k->name, 1ULL << 40, &o->result_max);
	case ID_STALL:
		return take_number(o, k->name, 0, SECONDS_MAX, &o->stall_s);
	case ID_PROGRESS:
		return take_flag(&o->progress);
	case ID_HELP:
		break;
	}
	return 0;
}

/* getopt's table of the options of @who, with room for the end. */
static void fill_table(int who, struct option *table)
{
	for (unsigned i = 0; i < KNOWN; i++)
		if (is_for(&known[i], who))
			*table++ = (struct option){known[i].name,
						   known[i].value ? required_argument : no_argument,
						   NULL, known[i].id};
	*table = (struct option){0};
}

static const struct known *find(int id)
{
	for (unsigned i = 0; i < KNOWN; i++)
		if (known[i].id == id)
			return &known[i];
	return NULL;
}

static int check(const struct options *o)
{
	if (!o->workers)
		return say_misuse(o->command, "--workers is missing");
	if (o->segment_bytes < SIVSHM_SEGMENT_MIN || o->segment_bytes & (o->segment_bytes - 1))
		return say_misuse(o->command, "--segment takes a power of two from %d on",
				  SIVSHM_SEGMENT_MIN);
	return 0;
}

/* Returns -1 to go on, or the exit status. */
static int parse(struct options *o, const struct command *c, int argc, char **argv)
{
	struct option table[KNOWN + 1];
	int id, rc;

	fill_table(who_of(c->name), table);
	opterr = 0;
	while ((id = getopt_long(argc, argv, ":", table, NULL)) != -1) {
		if (id == ID_HELP)
			return help_command(c);
		if (id == ':')
			return say_misuse(o->command, "%s takes a value",
					  say_name(argv[optind - 1]));
		if (id == '?')
			return say_misuse(o->command, "unknown option '%s', or its value is wrong",
					  say_name(argv[optind - 1]));
		rc = take(o, find(id));
		if (rc)
			return rc;
	}
	o->words = argv + optind;
	rc = check(o);
	return rc ? rc : -1;
}

/* What stands after the first "--" belongs to the workers; getopt is not to mix it up. */
static char **cut_program(int *argc, char **argv)
{
	for (int i = 0; i < *argc; i++) {
		if (strcmp(argv[i], "--"))
			continue;
		*argc = i;
		argv[i] = NULL;
		return argv + i + 1;
	}
	return NULL;
}

static int run_command(const struct command *c, int argc, char **argv)
{
	struct options o = {
		.command = c->name,
		.segment_bytes = 16 << 20,
		.vectors = 2,
		.qemu = "qemu-system-x86_64",
		.memory = "128M",
		.machine = "q35",
		.batch_bytes = 64 << 10,
		.result_max = 64 << 20,
		.stall_s = 60,
		.in_flight = 4,
	};
	int rc;

	o.program = cut_program(&argc, argv);
	rc = parse(&o, c, argc, argv);
	return rc >= 0 ? rc : c->run(&o);
}

int options_run(int argc, char **argv, const struct command *commands, unsigned n)
{
	if (argc < 2)
		return say_misuse(NULL, "the command is missing");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help_all(commands, n);
	if (!strcmp(argv[1], "--version")) {
		puts("sivshm " SLUICE_VERSION);
		return 0;
	}
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(commands[i].name, argv[1]))
			return run_command(&commands[i], argc - 1, argv + 1);
	return say_misuse(NULL, "'%s' is no command", say_name(argv[1]));
}
