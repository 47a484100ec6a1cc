/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice list`: a row for each disk, and below it in whole lines what not every disk has: what is
 * wrong, what it waits for, what it is held to.
 */
#include <string.h>

#include "sluice/client.h"
#include "sluice/disk.h"
#include "sluice/text.h"

/* Only mappings persist: of the CPU's that is the word, since those for devices say "dma" first. */
static void add_sharing(struct table *t, const json_t *vbd)
{
	const char *sharing = client_text(vbd, "sharing");
	bool persistent = client_truth(vbd, "persistent");

	if (persistent && !strcmp(sharing, "map"))
		table_cell(t, "persistent");
	else
		table_cell(t, "%s%s", sharing, persistent ? ",persistent" : "");
}

static void add_notes(struct table *t, const json_t *vbd)
{
	const char *error = json_string_value(json_object_get(vbd, "error"));
	const char *waiting = json_string_value(json_object_get(vbd, "waiting"));
	const char *backend = client_text(vbd, "backend");
	char limits[80];

	if (error)
		table_note(t, "error: %s", error);
	if (client_truth(vbd, "paused"))
		table_note(t, "paused: 'sluice resume %" JSON_INTEGER_FORMAT " %s' lets it go on",
			   client_number(vbd, "domid"), client_text(vbd, "vdev"));
	if (waiting)
		table_note(t, "waiting: %s", waiting);
	if (disk_format_limits(json_object_get(vbd, "limits"), limits, sizeof(limits)))
		table_note(t, "limits: %s", limits);
	if (strcmp(backend, "vbd"))
		table_note(t, "kind of backend: %s", backend);
}

static void add_row(struct table *t, const json_t *vbd)
{
	uint64_t sectors = (uint64_t)client_number(vbd, "sectors"), bytes;
	char size[16] = "-";

	if (sectors && !__builtin_mul_overflow(sectors, 512, &bytes))
		text_size(bytes, size);
	table_cell(t, "%s", client_text(vbd, "domain"));
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(vbd, "domid"));
	table_cell(t, "%s", client_text(vbd, "vdev"));
	table_cell(t, "%s", client_text(vbd, "bdev"));
	table_cell(t, "%s", size);
	table_cell(t, "%s%s", client_truth(vbd, "readonly") ? "ro" : "rw",
		   client_truth(vbd, "shared") ? ",shared" : "");
	table_cell(t, "%s", client_text(vbd, "state"));
	table_cell(t, "%s", client_text(vbd, "frontend_state"));
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(vbd, "queues"));
	add_sharing(t, vbd);
	table_cell(t, "%s", client_text(vbd, "on_error"));
	add_notes(t, vbd);
}

int vbd_command_list(struct client *c, int argc, char **argv)
{
	static const struct table_column columns[] = {
		{"DOMAIN", false}, {"ID", true},       {"VDEV", false},     {"BDEV", false},
		{"SIZE", true},    {"ACCESS", false},  {"STATE", false},    {"FRONTEND", false},
		{"QUEUES", true},  {"SHARING", false}, {"ON-ERROR", false},
	};

	return client_list(c, argc, argv, "vbd_get_vbds", columns,
			   sizeof(columns) / sizeof(columns[0]), add_row);
}
