/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice nvme`: drives, on their way from the kernel to the daemon and back.
 *
 * Which drives there are, and whose, is in sysfs, and claiming one is writing there, so that much
 * works without a daemon; the daemon is asked for what only it knows: what it has attached.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "nvme/claim.h"
#include "sluice/client.h"
#include "sluice/text.h"

/* How long the kernel may take to find a drive's namespaces. */
enum { GIVE_BACK_MS = 20000 };

/* What the daemon has attached, an array; NULL: nobody knows. New reference. */
static json_t *get_controllers(struct client *c)
{
	json_t *result;
	struct err err;

	if (client_call(c, "bdev_nvme_get_controllers", NULL, c->quick_ms, &result, &err))
		return NULL;
	return result;
}

static const char *controller_address(const json_t *controller)
{
	const json_t *first = json_array_get(json_object_get(controller, "ctrlrs"), 0);

	return client_text(json_object_get(first, "trid"), "traddr");
}

static const char *controller_state(const json_t *controller)
{
	return client_text(json_array_get(json_object_get(controller, "ctrlrs"), 0), "state");
}

/* The one with this name or address; NULL: there is none. */
static const json_t *find_controller(const json_t *controllers, const char *which)
{
	struct nvme_pci_address address;
	bool is_address = !nvme_pci_parse_address(which, &address, NULL);

	for (size_t i = 0; i < json_array_size(controllers); i++) {
		const json_t *controller = json_array_get(controllers, i);

		if (!strcmp(client_text(controller, "name"), which) ||
		    (is_address && !strcmp(controller_address(controller), address.text)))
			return controller;
	}
	return NULL;
}

/* The same, but only if the daemon has it, too, and does not just remember it. */
static const json_t *find_attached(const json_t *controllers, const char *which)
{
	const json_t *controller = find_controller(controllers, which);

	return controller && strcmp(controller_state(controller), "missing") ? controller : NULL;
}

/* Listing */

struct list_call {
	struct client *client;
	const json_t *controllers;
	json_t *list;
};

static void add_use(const char *device, const char *how, void *arg)
{
	json_array_append_new(arg, json_pack("{s:s, s:s}", "device", device, "how", how));
}

static void add_namespace(const char *name, uint64_t bytes, void *arg)
{
	json_array_append_new(arg,
			      json_pack("{s:s, s:I}", "name", name, "bytes", (json_int_t)bytes));
}

/* Whose the drive is, in a word. */
static const char *whose(const struct claim_drive *d, const json_t *controller)
{
	if (controller)
		return "attached";
	if (d->claimed)
		return "claimed";
	return d->driver[0] ? strcmp(d->driver, "nvme") ? "other" : "kernel" : "free";
}

static void add_drive(const struct claim_drive *d, void *arg)
{
	struct list_call *call = arg;
	const struct client *c = call->client;
	const json_t *controller = find_attached(call->controllers, d->address.text);
	const json_t *kept = find_controller(call->controllers, d->address.text);
	json_t *namespaces = json_array(), *uses = json_array(), *entry;

	claim_namespaces(c->root, d, add_namespace, namespaces);
	claim_uses(c->root, d, add_use, uses);
	entry = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "traddr",
			  d->address.text, "owner", whose(d, controller), "driver", d->driver,
			  "name", controller ? client_text(controller, "name") : d->name,
			  "model_number",
			  controller ? client_text(controller, "model_number") : d->model,
			  "serial_number",
			  controller ? client_text(controller, "serial_number") : d->serial,
			  "firmware_revision",
			  controller ? client_text(controller, "firmware_revision") : d->firmware,
			  "namespaces", namespaces, "uses", uses);
	if (entry && kept && !controller)
		json_object_set_new(entry, "kept_as", json_string(client_text(kept, "name")));
	if (entry && controller) {
		json_object_set_new(entry, "state", json_string(controller_state(controller)));
		json_object_set(entry, "bdevs", json_object_get(controller, "bdevs"));
		json_object_set(entry, "io_queues", json_object_get(controller, "io_queues"));
		json_object_set(entry, "reactors_without_queue",
				json_object_get(controller, "reactors_without_queue"));
	}
	json_array_append_new(call->list, entry);
}

/* Drives that the daemon remembers, and that this host does not have. */
static void add_missing(struct list_call *call)
{
	for (size_t i = 0; i < json_array_size(call->controllers); i++) {
		const json_t *controller = json_array_get(call->controllers, i);
		const char *address = controller_address(controller);
		bool listed = strcmp(controller_state(controller), "missing");

		for (size_t k = 0; k < json_array_size(call->list) && !listed; k++)
			listed = !strcmp(client_text(json_array_get(call->list, k), "traddr"),
					 address);
		if (listed)
			continue;
		json_array_append_new(call->list,
				      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:[], s:[]}",
						"traddr", address, "owner", "missing", "driver", "",
						"name", client_text(controller, "name"),
						"model_number", "", "serial_number", "",
						"firmware_revision", "", "namespaces", "uses"));
	}
}

/* "nvme0n1 1G, nvme0n2 10G", or the daemon's bdevs, to @out. */
static void format_contents(const json_t *drive, char *out, size_t room)
{
	const json_t *bdevs = json_object_get(drive, "bdevs");
	const json_t *list = bdevs ? bdevs : json_object_get(drive, "namespaces");
	size_t len = 0;

	snprintf(out, room, "-");
	for (size_t i = 0; i < json_array_size(list) && len < room; i++) {
		const json_t *one = json_array_get(list, i);
		char size[16] = "";

		if (!bdevs)
			text_size((uint64_t)client_number(one, "bytes"), size);
		len += (size_t)snprintf(out + len, room - len, "%s%s%s%s", i ? ", " : "",
					bdevs ? json_string_value(one) : client_text(one, "name"),
					bdevs ? "" : " ", size);
	}
}

static const char *or_dash(const char *text)
{
	return *text ? text : "-";
}

static void add_row(struct table *t, const json_t *drive)
{
	const char *owner = client_text(drive, "owner");
	const json_t *uses = json_object_get(drive, "uses");
	char contents[512];

	format_contents(drive, contents, sizeof(contents));
	table_cell(t, "%s", client_text(drive, "traddr"));
	table_cell(t, "%s", strcmp(owner, "other") ? owner : client_text(drive, "driver"));
	table_cell(t, "%s", or_dash(client_text(drive, "name")));
	table_cell(t, "%s", or_dash(client_text(drive, "model_number")));
	table_cell(t, "%s", or_dash(client_text(drive, "serial_number")));
	table_cell(t, "%s", contents);
	if (json_object_get(drive, "state") && strcmp(client_text(drive, "state"), "enabled"))
		table_note(t, "state: %s", client_text(drive, "state"));
	if (client_number(drive, "reactors_without_queue") > 0)
		table_note(t,
			   "it has queues for %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
			   " serving threads: disks on it that need the others do not connect",
			   client_number(drive, "io_queues"),
			   client_number(drive, "io_queues") +
				   client_number(drive, "reactors_without_queue"));
	if (json_object_get(drive, "kept_as"))
		table_note(t, "kept as %s, and not attached at the start: see the log of sluiced",
			   client_text(drive, "kept_as"));
	for (size_t i = 0; i < json_array_size(uses); i++)
		table_note(t, "in use: %s %s", client_text(json_array_get(uses, i), "device"),
			   client_text(json_array_get(uses, i), "how"));
}

int nvme_command_list(struct client *c, int argc, char **argv)
{
	static const struct table_column columns[] = {
		{"ADDRESS", false}, {"OWNER", false},  {"NAME", false},
		{"MODEL", false},   {"SERIAL", false}, {"CONTENTS", false},
	};
	struct list_call call = {.client = c};
	json_t *controllers;
	struct table table;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, NULL, 0, 0);
	if (rc != CLIENT_GO_ON)
		return rc;
	controllers = get_controllers(c);
	call.controllers = controllers;
	call.list = json_array();
	rc = claim_list(c->root, add_drive, &call, &err);
	add_missing(&call);
	if (rc) {
		rc = client_fail(c, "%s", err.text);
	} else if (c->json) {
		client_print_json(c, call.list);
	} else {
		table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
		for (size_t i = 0; i < json_array_size(call.list); i++)
			add_row(&table, json_array_get(call.list, i));
		table_print(&table, c->out);
		table_destroy(&table);
	}
	json_decref(call.list);
	json_decref(controllers);
	return rc;
}

/* Claiming */

/* A word of sysfs, empty if there is none. */
static void read_word(const struct client *c, const char *path, char *word, size_t len)
{
	char full[PATH_MAX];
	FILE *f;

	word[0] = '\0';
	if ((size_t)snprintf(full, sizeof(full), "%s%s", c->root, path) >= sizeof(full))
		return;
	f = fopen(full, "re");
	if (!f)
		return;
	if (!fgets(word, (int)len, f))
		word[0] = '\0';
	word[strcspn(word, "\n")] = '\0';
	fclose(f);
}

/* In a PV dom0 drives are driven without an IOMMU of the kernel's. Returns CLIENT_GO_ON. */
static int find_way(struct client *c, bool *vfio)
{
	char type[32], guest[32];

	read_word(c, "/sys/hypervisor/type", type, sizeof(type));
	read_word(c, "/sys/hypervisor/guest_type", guest, sizeof(guest));
	*vfio = strcmp(type, "xen");
	if (!*vfio && guest[0] && strcmp(guest, "PV"))
		return client_fail(c,
				   "this domain of Xen is of type %s, where no drive can be driven "
				   "from user space: boot Xen without dom0=pvh",
				   guest);
	return CLIENT_GO_ON;
}

/* Whether @file leads to the block device @name, or to a partition of it. */
static bool leads_to(const char *file, const char *name)
{
	char path[PATH_MAX];
	const char *last;
	size_t len = strlen(name);

	if (!realpath(file, path))
		return false;
	last = strrchr(path, '/') + 1;
	return !strncmp(last, name, len) && (!last[len] || last[len] == 'p') &&
	       !strncmp(path, "/dev/", 5);
}

struct bdev_search {
	const json_t *bdevs;
	const char *found;
};

static void search_bdevs(const char *name, uint64_t bytes, void *arg)
{
	struct bdev_search *s = arg;

	for (size_t i = 0; i < json_array_size(s->bdevs); i++) {
		const json_t *b = json_array_get(s->bdevs, i);
		const json_t *driver = json_object_get(json_object_get(b, "driver_specific"),
						       client_text(b, "product_name"));
		const char *file = json_string_value(json_object_get(driver, "filename"));

		if (file && leads_to(file, name))
			s->found = client_text(b, "name");
	}
}

/* A bdev of the daemon's that is shared keeps nobody from opening the device, so ask. */
static int check_bdevs(struct client *c, const struct claim_drive *d)
{
	struct bdev_search search = {0};
	json_t *bdevs;
	struct err err;
	int rc = CLIENT_GO_ON;

	if (client_call(c, "bdev_get_bdevs", NULL, c->quick_ms, &bdevs, &err))
		return CLIENT_GO_ON;
	search.bdevs = bdevs;
	claim_namespaces(c->root, d, search_bdevs, &search);
	if (search.found)
		rc = client_fail(c,
				 "drive %s is in use by bdev '%s': delete that first, or lose it "
				 "with --force",
				 d->address.text, search.found);
	json_decref(bdevs);
	return rc;
}

/* Neither is to be left half done by a key that was pressed. */
static void hold_signals(sigset_t *old)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, old);
}

/* Prints what has become of the drive. */
static int report(struct client *c, const char *address, const char *what)
{
	json_t *result;

	if (c->json) {
		result = json_pack("{s:s, s:s}", "traddr", address, "owner", what);
		client_print_json(c, result);
		json_decref(result);
	} else {
		fprintf(c->out, "drive %s %s\n", address, what);
	}
	return 0;
}

int nvme_command_claim(struct client *c, int argc, char **argv)
{
	bool force = false, vfio;
	const struct client_option options[] = {{"force", &force, NULL}};
	const char *words[1];
	struct claim_drive d;
	struct err err;
	sigset_t old;
	int rc;

	rc = client_parse(c, argc, argv, options, 1, words, 1, 1);
	if (rc == CLIENT_GO_ON)
		rc = find_way(c, &vfio);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (claim_look(c->root, words[0], &d, &err))
		return client_fail(c, "%s", err.text);
	rc = force ? CLIENT_GO_ON : check_bdevs(c, &d);
	if (rc != CLIENT_GO_ON)
		return rc;
	hold_signals(&old);
	rc = claim_take(c->root, words[0], vfio, force, &err);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return rc ? client_fail(c, "%s", err.text) : report(c, d.address.text, "claimed");
}

int nvme_command_release(struct client *c, int argc, char **argv)
{
	const char *words[1];
	const json_t *controller;
	struct claim_drive d;
	json_t *controllers;
	struct err err;
	sigset_t old;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 1, 1);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (claim_look(c->root, words[0], &d, &err))
		return client_fail(c, "%s", err.text);
	controllers = get_controllers(c);
	controller = find_attached(controllers, d.address.text);
	if (controller)
		rc = client_fail(c,
				 "drive %s is attached as %s: let go of it first, by 'sluice nvme "
				 "detach %s'",
				 d.address.text, client_text(controller, "name"),
				 client_text(controller, "name"));
	json_decref(controllers);
	if (rc != CLIENT_GO_ON)
		return rc;
	hold_signals(&old);
	rc = claim_give_back(c->root, words[0], GIVE_BACK_MS, &err);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return rc ? client_fail(c, "%s", err.text) : report(c, d.address.text, "released");
}

/* Attaching */

/* The first of nvme0, nvme1... that is no drive's name. */
static int choose_name(struct client *c, char *name, size_t len)
{
	json_t *controllers;
	struct err err;
	bool taken = true;

	if (client_call(c, "bdev_nvme_get_controllers", NULL, c->quick_ms, &controllers, &err))
		return client_fail(c, "%s", err.text);
	for (unsigned i = 0; taken; i++) {
		snprintf(name, len, "nvme%u", i);
		taken = find_controller(controllers, name);
	}
	json_decref(controllers);
	return CLIENT_GO_ON;
}

int nvme_create_bdevs(struct client *c, const char *name, const char *where)
{
	struct nvme_pci_address address;
	char chosen[24];
	json_t *result;
	struct err err;
	int rc;

	if (nvme_pci_parse_address(where, &address, &err))
		return client_misuse(c, "%s", err.text);
	if (!name) {
		rc = choose_name(c, chosen, sizeof(chosen));
		if (rc != CLIENT_GO_ON)
			return rc;
		name = chosen;
	}
	if (client_call(c, "bdev_nvme_attach_controller",
			json_pack("{s:s, s:s, s:s}", "name", name, "trtype", "PCIe", "traddr",
				  address.text),
			c->drive_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	else
		fprintf(c->out, "drive %s attached (%s)\n", name, address.text);
	for (size_t i = 0; i < json_array_size(result) && !c->json; i++)
		text_print(c->out, "bdev %s created", json_string_value(json_array_get(result, i)));
	json_decref(result);
	return 0;
}

/*
 * Asks the daemon for @method of the drive that the command names, and prints what it says for
 * --json. Returns CLIENT_GO_ON, with *@name, and *@result as a new reference, or how the command
 * ends.
 */
static int call_for_drive(struct client *c, int argc, char **argv, const char *method,
			  const char **name, json_t **result)
{
	struct err err;
	int rc = client_parse(c, argc, argv, NULL, 0, name, 1, 1);

	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, method, json_pack("{s:s}", "name", *name), c->drive_ms, result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, *result);
	return CLIENT_GO_ON;
}

int nvme_command_detach(struct client *c, int argc, char **argv)
{
	const char *name;
	json_t *result;
	int rc = call_for_drive(c, argc, argv, "bdev_nvme_detach_controller", &name, &result);

	if (rc != CLIENT_GO_ON)
		return rc;
	if (!c->json)
		fprintf(c->out, "drive %s detached\n", name);
	json_decref(result);
	return 0;
}

int nvme_command_rescan(struct client *c, int argc, char **argv)
{
	const char *name;
	json_t *result;
	int rc = call_for_drive(c, argc, argv, "bdev_nvme_rescan_controller", &name, &result);

	if (rc != CLIENT_GO_ON)
		return rc;
	for (size_t i = 0; i < json_array_size(result) && !c->json; i++)
		text_print(c->out, "drive %s has bdev %s", name,
			   json_string_value(json_array_get(result, i)));
	json_decref(result);
	return 0;
}

/* Health */

/* Why nothing can be shown of a drive that the daemon does not have, and what to do. */
static int not_attached(struct client *c, const char *which)
{
	struct claim_drive d;
	struct err err;

	if (nvme_pci_parse_address(which, &d.address, NULL))
		return client_fail(c, "no drive '%s' is attached ('sluice nvme list' shows them)",
				   which);
	if (claim_look(c->root, which, &d, &err))
		return client_fail(c, "%s", err.text);
	if (d.claimed)
		return client_fail(
			c,
			"drive %s is claimed, but not attached: 'sluice bdev create nvme "
			"%s' does that",
			d.address.text, d.address.text);
	if (d.name[0])
		return client_fail(
			c,
			"drive %s is the kernel's: ask it with 'nvme smart-log /dev/%s', "
			"or claim and attach it",
			d.address.text, d.name);
	return client_fail(c, "drive %s is not attached: claim it and attach it first",
			   d.address.text);
}

static void print_count(FILE *out, const json_t *health, const char *title, const char *member,
			const char *unit)
{
	fprintf(out, "%-18s%" JSON_INTEGER_FORMAT "%s\n", title, client_number(health, member),
		unit);
}

static void print_data(FILE *out, const json_t *health, const char *title, const char *member)
{
	uint64_t bytes;
	char size[16] = "?";

	if (!__builtin_mul_overflow((uint64_t)client_number(health, member), (uint64_t)512000,
				    &bytes))
		text_size(bytes, size);
	fprintf(out, "%-18s%s\n", title, size);
}

static void print_firmware(FILE *out, const json_t *health)
{
	const json_t *slots = json_object_get(health, "firmware_slots");

	text_print(out, "%-18s%s", "firmware", client_text(health, "firmware_revision"));
	for (size_t i = 0; i < json_array_size(slots); i++) {
		const json_t *slot = json_array_get(slots, i);

		text_print(out, "  slot %" JSON_INTEGER_FORMAT ": %s%s%s",
			   client_number(slot, "slot"), client_text(slot, "revision"),
			   client_truth(slot, "active") ? " (in use)" : "",
			   client_truth(slot, "next") ? " (after the next reset)" : "");
	}
}

static void print_smart(FILE *out, const json_t *health)
{
	const json_t *warnings = json_object_get(health, "warnings");

	if (!warnings) {
		fprintf(out, "%-18s%s\n", "health", "the drive does not tell");
		return;
	}
	if (!json_array_size(warnings))
		fprintf(out, "%-18s%s\n", "health", "no warnings");
	for (size_t i = 0; i < json_array_size(warnings); i++)
		text_print(out, "%-18s%s", "WARNING",
			   json_string_value(json_array_get(warnings, i)));
	print_count(out, health, "temperature", "temperature_celsius", " C");
	fprintf(out, "%-18s%" JSON_INTEGER_FORMAT "%% (warns below %" JSON_INTEGER_FORMAT "%%)\n",
		"spare", client_number(health, "available_spare_percentage"),
		client_number(health, "available_spare_threshold_percentage"));
	print_count(out, health, "used", "percentage_used", "%");
	print_count(out, health, "power-on hours", "power_on_hours", "");
	print_count(out, health, "power cycles", "power_cycles", "");
	print_count(out, health, "unsafe shutdowns", "unsafe_shutdowns", "");
	print_data(out, health, "data read", "data_units_read");
	print_data(out, health, "data written", "data_units_written");
	print_count(out, health, "media errors", "media_errors", "");
	print_count(out, health, "logged errors", "num_err_log_entries", "");
}

static void print_errors(FILE *out, const json_t *health)
{
	static const struct table_column columns[] = {
		{"  ERROR", true}, {"QUEUE", true}, {"STATUS", true}, {"NSID", true}, {"LBA", true},
	};
	const json_t *errors = json_object_get(health, "errors");
	struct table table;

	if (!json_array_size(errors))
		return;
	fputs("\nlast errors\n", out);
	table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < json_array_size(errors); i++) {
		const json_t *e = json_array_get(errors, i);

		table_cell(&table, "%" JSON_INTEGER_FORMAT, client_number(e, "count"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, client_number(e, "sqid"));
		table_cell(&table, "0x%04x", (unsigned)client_number(e, "status"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, client_number(e, "nsid"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, client_number(e, "lba"));
	}
	table_print(&table, out);
	table_destroy(&table);
}

int nvme_command_show(struct client *c, int argc, char **argv)
{
	const char *words[1];
	const json_t *controller;
	json_t *controllers = NULL, *health = NULL;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 1, 1);
	if (rc != CLIENT_GO_ON)
		return rc;
	controllers = get_controllers(c);
	controller = find_attached(controllers, words[0]);
	if (!controller) {
		rc = not_attached(c, words[0]);
	} else if (client_call(c, "bdev_nvme_get_controller_health_info",
			       json_pack("{s:s}", "name", client_text(controller, "name")),
			       c->drive_ms, &health, &err)) {
		rc = client_fail(c, "%s", err.text);
	} else if (c->json) {
		client_print_json(c, health);
		rc = 0;
	} else {
		text_print(c->out, "%-18s%s", "drive", client_text(controller, "name"));
		text_print(c->out, "%-18s%s", "address", client_text(health, "traddr"));
		text_print(c->out, "%-18s%s", "state", controller_state(controller));
		text_print(c->out, "%-18s%s", "model", client_text(health, "model_number"));
		text_print(c->out, "%-18s%s", "serial", client_text(health, "serial_number"));
		print_firmware(c->out, health);
		print_smart(c->out, health);
		print_errors(c->out, health);
		rc = 0;
	}
	json_decref(health);
	json_decref(controllers);
	return rc;
}
