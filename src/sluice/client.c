/* SPDX-License-Identifier: BSD-2-Clause */
/* How the command is called: its commands, options, help, and its errors. */
#include "sluice/client.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "sluice/text.h"

static const struct command commands[] = {
	{"bdev create",
	 "null|ram NAME --size SIZE [--block-size 512|4096]\n"
	 "uring|aio NAME FILE [--readonly] [--shared]\n"
	 "nvme [NAME] ADDRESS",
	 "make a block device that disks can be attached to",
	 "  null   takes writes and forgets them, reads as zeros\n"
	 "  ram    memory of the daemon; its contents end with the daemon\n"
	 "  uring  a file or a block device, by io_uring\n"
	 "  aio    the same by Linux aio, for kernels without io_uring\n"
	 "  nvme   an NVMe drive that 'sluice nvme claim' has taken from the kernel, by its PCI\n"
	 "         address (0000:04:00.0): a bdev for each namespace and partition, named after\n"
	 "         the drive (NAME, or the next of nvme0, nvme1...), like nvme0n1 and nvme0n1p1\n"
	 "\n"
	 "  --size SIZE         bytes, or with a suffix K, M, G or T (powers of 1024)\n"
	 "  --block-size BYTES  512 (the default) or 4096\n"
	 "  --readonly          refuse writes\n"
	 "  --shared            let others that also share have it open, and several disks use "
	 "it\n",
	 bdev_command_create},
	{"bdev delete", "NAME", "remove a block device that no disk uses",
	 "The file or device behind it stays as it is.\n", bdev_command_delete},
	{"bdev list", "", "show the block devices", "", bdev_command_list},
	{"nvme list", "", "show this host's NVMe drives, and whose they are",
	 "OWNER is kernel, claimed (taken from it, and not attached), attached (to the daemon; "
	 "NAME\n"
	 "is what it calls the drive), free (nobody's), or another driver.\n",
	 nvme_command_list},
	{"nvme claim", "ADDRESS [--force]", "take an NVMe drive from the kernel",
	 "  --force  also if it is in use, whose data may be lost\n"
	 "\n"
	 "It stays so until 'sluice nvme release' or the next boot.\n",
	 nvme_command_claim},
	{"nvme release", "ADDRESS", "give a claimed NVMe drive back to the kernel", "",
	 nvme_command_release},
	{"nvme show", "NAME|ADDRESS", "show an attached NVMe drive's health and errors", "",
	 nvme_command_show},
	{"nvme rescan", "NAME", "look at an attached NVMe drive's partitions anew",
	 "New partitions become bdevs, and bdevs go whose partitions are gone or lie elsewhere.\n"
	 "Those that a disk uses stay as they are.\n",
	 nvme_command_rescan},
	{"nvme detach", "NAME", "have the daemon let go of an NVMe drive",
	 "The drive's bdevs go, none of which a disk may use. It stays claimed.\n",
	 nvme_command_detach},
	{"resize", "BDEV [SIZE]", "let a block device and its disks grow",
	 "  BDEV  a block device that 'sluice bdev list' shows\n"
	 "  SIZE  what a null or a ram bdev is to have: bytes, or with a suffix K, M, G or T\n"
	 "\n"
	 "A bdev on a file or a device is as large as that, so extend it first; one that is in\n"
	 "use is also measured every two seconds. Guests see the new size at once.\n",
	 bdev_command_resize},
	{"attach", "DOMAIN VDEV BDEV [OPTION...]", "give a domain a disk",
	 "  DOMAIN  a domain's name or number; 0 is this one, if it is dom0\n"
	 "  VDEV    the name that the guest will see, e.g. xvda\n"
	 "  BDEV    a block device that 'sluice bdev list' shows\n"
	 "\n"
	 "  --readonly         a disk that the guest cannot write to\n"
	 "  --shared           other disks that also share may use the block device\n"
	 "  --sharing MODE     how the guest's memory is reached: copy, map, dma, or auto (the\n"
	 "                     default)\n"
	 "  --persistent WORD  yes (the default) or no: whether the guest is asked to leave pages\n"
	 "                     mapped, where they are mapped\n"
	 "  --on-error POLICY  when the block device fails: report it to the guest (the default),\n"
	 "                     retry:SECONDS and report then, or stop until 'sluice resume'\n"
	 "  --iops N           at most so many requests a second\n"
	 "  --bandwidth SIZE   at most so many bytes a second; K, M, G or T may follow\n"
	 "  --toolstack KIND   xl: through 'xl block-attach', so that xl knows the disk; none: by\n"
	 "                     writing xenstore; auto (the default): xl for its own guests\n",
	 vbd_command_attach},
	{"detach", "DOMAIN VDEV [--force] [--toolstack auto|xl|none]", "take a disk away",
	 "  --force           do not wait for the guest to let go of it\n"
	 "  --toolstack KIND  as for attach\n",
	 vbd_command_detach},
	{"pause", "DOMAIN VDEV", "let a disk's requests wait",
	 "Returns when nothing of the disk is in flight. The guest waits; nothing fails.\n",
	 vbd_command_pause},
	{"resume", "DOMAIN VDEV", "let a disk go on",
	 "Ends what 'sluice pause' began, and tries again what waits since the block device\n"
	 "failed (--on-error stop).\n",
	 vbd_command_resume},
	{"limit", "DOMAIN VDEV [--iops N] [--bandwidth SIZE]",
	 "show or set how much a disk may do in a second",
	 "  --iops N          requests a second; 0: no limit\n"
	 "  --bandwidth SIZE  bytes a second, perhaps with K, M, G or T; 0: no limit\n"
	 "\n"
	 "What is not given stays as it is.\n",
	 vbd_command_limit},
	{"list", "", "show the disks", "", vbd_command_list},
	{"sivshm create", "WORKER BDEV [OPTION...]",
	 "make a disk for a frontend that shares a segment of memory",
	 "  WORKER  a name for it: letters, digits and _.-\n"
	 "  BDEV    a block device that 'sluice bdev list' shows\n"
	 "\n"
	 "  --segment SIZE  of the memory it shares with the daemon, and with nobody else: a "
	 "power\n"
	 "                  of two (16M)\n"
	 "  --queues N      at most so many (as many as serving threads)\n"
	 "  --sharing MODE  how the data in the segment is reached: copy, map, dma, or auto (the\n"
	 "                  default)\n"
	 "  --readonly      a disk that the frontend cannot write to\n"
	 "  --shared        other disks that also share may use the block device\n"
	 "  --socket PATH   where the frontend connects (/run/sluice/sivshm/WORKER.sock)\n"
	 "  --uid USER      whose process that may be: a name, a number, or any (the daemon's "
	 "own)\n"
	 "  --gid GROUP     and of which group: a name, a number, or any (the default)\n"
	 "  --mode MODE     of the socket, octal (0600)\n"
	 "\n"
	 "'sluice sivshm show WORKER' says what QEMU is to be told.\n",
	 sivshm_command_create},
	{"sivshm delete", "WORKER [--force]", "take such a disk away",
	 "  --force  do not wait for the frontend to let go of it\n", sivshm_command_delete},
	{"sivshm list", "", "show such disks", "", sivshm_command_list},
	{"sivshm show", "WORKER", "show one, and how a QEMU guest or a process gets it", "",
	 sivshm_command_show},
	{"stat", "[--queues] [--interval SECONDS [--count N]]", "show what the disks have done",
	 "Without --interval the totals and latencies since each disk was attached or the daemon\n"
	 "started.\n"
	 "\n"
	 "  --queues            each queue of a disk as well\n"
	 "  --interval SECONDS  rates between samples that far apart, until interrupted\n"
	 "  --count N           that many times\n",
	 stat_command},
	{"rpc", "METHOD [JSON]", "call a method of the daemon",
	 "  JSON  the parameters, as an object; 'sluice rpc rpc_get_methods' lists the methods\n",
	 rpc_command},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static const char options_help[] = "  --name NAME    the daemon's name (default: sluice)\n"
				   "  --socket PATH  its socket (default: /run/sluice/NAME.sock)\n"
				   "  --json         print results as JSON\n"
				   "  --help         show this, or what a command takes\n"
				   "  --version      show the version\n";

static void print_usage(FILE *out, const struct command *command, const char *head)
{
	const char *line = command->synopsis;

	do {
		size_t len = strcspn(line, "\n");

		fprintf(out, "%ssluice [OPTION...] %s%s%.*s\n", head, command->name, len ? " " : "",
			(int)len, line);
		head = "       ";
		line += len;
	} while (*line++);
}

static void print_help(const struct client *c)
{
	FILE *out = c->out;

	if (c->command) {
		print_usage(out, c->command, "usage: ");
		fprintf(out, "\n%c%s.\n\n%s%s%s", toupper(c->command->summary[0]),
			c->command->summary + 1, c->command->help, c->command->help[0] ? "\n" : "",
			options_help);
		return;
	}
	fputs("usage: sluice [OPTION...] COMMAND [ARGUMENT...]\n\n"
	      "Talks to sluiced, the daemon that serves disks to virtual machines.\n\n",
	      out);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(out, "  %-13s  %s\n", commands[i].name, commands[i].summary);
	fprintf(out, "\n%s\n'sluice COMMAND --help' tells more, sluice(1) all.\n", options_help);
}

static void print_error(struct client *c, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
static void print_error(struct client *c, const char *fmt, va_list ap)
{
	char *text, *clean;

	if (vasprintf(&text, fmt, ap) < 0)
		return;
	clean = text_clean(text, false);
	fprintf(c->err, "sluice: %s", clean);
	free(clean);
	free(text);
}

int client_fail(struct client *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_error(c, fmt, ap);
	va_end(ap);
	fputc('\n', c->err);
	return 1;
}

int client_misuse(struct client *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_error(c, fmt, ap);
	va_end(ap);
	fprintf(c->err, " (see 'sluice%s%s --help')\n", c->command ? " " : "",
		c->command ? c->command->name : "");
	return 2;
}

/* Finds @arg ("--name" or "--name=value") among @options; *@value: what follows the '=', or NULL.
 */
static const struct client_option *find_option(const struct client_option *options,
					       size_t options_len, const char *arg,
					       const char **value)
{
	size_t len = strcspn(arg + 2, "=");

	*value = arg[2 + len] ? arg + 2 + len + 1 : NULL;
	for (size_t i = 0; i < options_len; i++)
		if (strlen(options[i].name) == len && !strncmp(options[i].name, arg + 2, len))
			return &options[i];
	return NULL;
}

static bool looks_like_option(const char *arg)
{
	return arg[0] == '-' && arg[1];
}

/*
 * Takes all of @argv, or with @taken only the options before the first other argument, whose index
 * *@taken then is. Returns CLIENT_GO_ON or the exit status.
 */
static int take_arguments(struct client *c, int argc, char **argv,
			  const struct client_option *options, size_t options_len,
			  const char **words, size_t most, int *taken)
{
	bool help = false, version = false;
	const struct client_option common[] = {
		{"name", NULL, &c->instance}, {"socket", NULL, &c->socket},
		{"json", &c->json, NULL},     {"help", &help, NULL},
		{"version", &version, NULL},
	};
	size_t words_len = 0;
	bool only_words = false;
	int i;

	for (i = 1; i < argc; i++) {
		const struct client_option *option;
		const char *value;

		if (only_words || !looks_like_option(argv[i])) {
			if (taken)
				break;
			if (words_len == most)
				return client_misuse(c, "'%s' is one argument too many", argv[i]);
			words[words_len++] = argv[i];
			continue;
		}
		if (!strcmp(argv[i], "--")) {
			only_words = true;
			continue;
		}
		if (!strcmp(argv[i], "-h")) {
			help = true;
			continue;
		}
		if (strncmp(argv[i], "--", 2))
			return client_misuse(c, "there is no option %s", argv[i]);
		option = find_option(options, options_len, argv[i], &value);
		if (!option)
			option = find_option(common, sizeof(common) / sizeof(common[0]), argv[i],
					     &value);
		if (!option)
			return client_misuse(c, "there is no option %s", argv[i]);
		if (option->flag) {
			if (value)
				return client_misuse(c, "option --%s takes no value", option->name);
			*option->flag = true;
			continue;
		}
		if (!value && i + 1 == argc)
			return client_misuse(c, "option --%s needs a value", option->name);
		*option->value = value ? value : argv[++i];
	}
	if (help) {
		print_help(c);
		return 0;
	}
	if (version) {
		fprintf(c->out, "sluice %s\n", SLUICE_VERSION);
		return 0;
	}
	if (!parse_name(c->instance))
		return client_misuse(c, "'%s' is no name of a daemon", c->instance);
	if (taken)
		*taken = i;
	return CLIENT_GO_ON;
}

int client_parse(struct client *c, int argc, char **argv, const struct client_option *options,
		 size_t options_len, const char **words, size_t least, size_t most)
{
	int rc;

	for (size_t i = 0; i < most; i++)
		words[i] = NULL;
	rc = take_arguments(c, argc, argv, options, options_len, words, most, NULL);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (least && !words[least - 1])
		return client_misuse(c, "arguments are missing");
	return CLIENT_GO_ON;
}

/* Finds the command that @argv begins with; *@words: how many of them name it. */
static const struct command *find_command(int argc, char **argv, int *words)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		const char *name = commands[i].name, *blank = strchr(name, ' ');
		size_t len = blank ? (size_t)(blank - name) : strlen(name);

		if (strlen(argv[0]) != len || strncmp(argv[0], name, len))
			continue;
		if (blank && (argc < 2 || strcmp(argv[1], blank + 1)))
			continue;
		*words = blank ? 2 : 1;
		return &commands[i];
	}
	return NULL;
}

static int run_command(struct client *c, int argc, char **argv)
{
	int taken, words, rc;
	json_t *text;

	for (int i = 1; i < argc; i++) {
		text = json_string(argv[i]);
		if (!text)
			return client_misuse(c, "argument %d, '%s', is no UTF-8 text", i, argv[i]);
		json_decref(text);
	}
	rc = take_arguments(c, argc, argv, NULL, 0, NULL, 0, &taken);
	if (rc != CLIENT_GO_ON)
		return rc;
	argc -= taken;
	argv += taken;
	if (!argc)
		return client_misuse(c, "what to do is missing");
	c->command = find_command(argc, argv, &words);
	if (!c->command) {
		if (!strcmp(argv[0], "bdev"))
			return client_misuse(c, "after bdev comes create, delete or list");
		if (!strcmp(argv[0], "sivshm"))
			return client_misuse(c, "after sivshm comes create, delete, list or show");
		return client_misuse(c, "there is no command '%s'", argv[0]);
	}
	return c->command->run(c, argc - words + 1, argv + words - 1);
}

void client_init(struct client *c, FILE *out, FILE *err)
{
	*c = (struct client){
		.out = out,
		.err = err,
		.instance = "sluice",
		.quick_ms = 30000,
		.guest_ms = 120000,
		.settle_ms = 10000,
		.drive_ms = 300000,
		.root = "",
		.fd = -1,
	};
}

int client_run(struct client *c, int argc, char **argv)
{
	int status = run_command(c, argc, argv);

	client_disconnect(c);
	/* A result that got lost on its way is no result: a full disk, a closed pipe. */
	if ((fflush(c->out) || ferror(c->out)) && !status)
		status = client_fail(c, "cannot write the output");
	return status;
}

/* Values */

void client_print_json(struct client *c, const json_t *value)
{
	/* In ASCII, whatever characters it has: so it is harmless as well. */
	json_dumpf(value, c->out, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	fputc('\n', c->out);
}

const char *client_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "?";
}

json_int_t client_number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

bool client_truth(const json_t *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}

int client_list(struct client *c, int argc, char **argv, const char *method,
		const struct table_column *columns, size_t columns_len,
		void (*add_row)(struct table *t, const json_t *entry))
{
	struct table table;
	json_t *result;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, NULL, 0, 0);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, method, NULL, c->quick_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json) {
		client_print_json(c, result);
	} else {
		table_init(&table, columns, columns_len);
		for (size_t i = 0; i < json_array_size(result); i++)
			add_row(&table, json_array_get(result, i));
		table_print(&table, c->out);
		table_destroy(&table);
	}
	json_decref(result);
	return 0;
}
