/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice sivshm`: workers, the disks of frontends that share a segment of memory with the daemon.
 */
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "base/parse.h"
#include "sluice/client.h"
#include "sluice/text.h"

enum { QUEUES_MAX = 63 };

/* Creating */

struct create_args {
	const char *segment, *queues, *sharing, *socket, *uid, *gid, *mode;
	bool readonly, shared;
};

/* "any", a number, or @find's answer to a name. Returns CLIENT_GO_ON and *@id, or the exit status.
 */
static int parse_id(struct client *c, const char *what, const char *text,
		    bool (*find)(const char *name, int64_t *id), int64_t *id)
{
	uint32_t number;

	*id = -1;
	if (!strcmp(text, "any"))
		return CLIENT_GO_ON;
	if (parse_u32(text, UINT32_MAX - 1, &number)) {
		*id = number;
		return CLIENT_GO_ON;
	}
	if (find(text, id))
		return CLIENT_GO_ON;
	return client_misuse(c, "there is no %s '%s': use a name, a number, or any", what, text);
}

static bool find_user(const char *name, int64_t *id)
{
	const struct passwd *user = getpwnam(name);

	if (user)
		*id = user->pw_uid;
	return user;
}

static bool find_group(const char *name, int64_t *id)
{
	const struct group *group = getgrnam(name);

	if (group)
		*id = group->gr_gid;
	return group;
}

static int add_integer(json_t *params, const char *name, int64_t value)
{
	return json_object_set_new(params, name, json_integer(value));
}

/* Adds what is measured in numbers. Returns CLIENT_GO_ON or the exit status. */
static int add_numbers(struct client *c, const struct create_args *a, json_t *params)
{
	uint64_t bytes;
	uint32_t queues;
	int64_t id;
	int rc = CLIENT_GO_ON;

	if (a->segment) {
		if (!parse_size(a->segment, &bytes) || !bytes || bytes > INT64_MAX)
			return client_misuse(c,
					     "'%s' is no size of a segment: a power of two in "
					     "bytes, perhaps with K, M or G",
					     a->segment);
		add_integer(params, "segment_size", (int64_t)bytes);
	}
	if (a->queues) {
		if (!parse_u32(a->queues, QUEUES_MAX, &queues) || !queues)
			return client_misuse(c, "a worker has 1 to %d queues, not '%s'", QUEUES_MAX,
					     a->queues);
		add_integer(params, "max_queues", queues);
	}
	if (a->uid) {
		rc = parse_id(c, "user", a->uid, find_user, &id);
		add_integer(params, "uid", id);
	}
	if (a->gid && rc == CLIENT_GO_ON) {
		rc = parse_id(c, "group", a->gid, find_group, &id);
		add_integer(params, "gid", id);
	}
	return rc;
}

static void add_text(json_t *params, const char *name, const char *value)
{
	if (value)
		json_object_set_new(params, name, json_string(value));
}

int sivshm_command_create(struct client *c, int argc, char **argv)
{
	struct create_args a = {0};
	const struct client_option options[] = {
		{"segment", NULL, &a.segment}, {"queues", NULL, &a.queues},
		{"sharing", NULL, &a.sharing}, {"socket", NULL, &a.socket},
		{"uid", NULL, &a.uid},         {"gid", NULL, &a.gid},
		{"mode", NULL, &a.mode},       {"readonly", &a.readonly, NULL},
		{"shared", &a.shared, NULL},
	};
	const char *words[2];
	json_t *params, *result;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, options, sizeof(options) / sizeof(options[0]), words, 2,
			  2);
	if (rc != CLIENT_GO_ON)
		return rc;
	params = json_pack("{s:s, s:s, s:b, s:b}", "name", words[0], "bdev", words[1], "readonly",
			   a.readonly, "shared", a.shared);
	add_text(params, "sharing", a.sharing);
	add_text(params, "socket", a.socket);
	add_text(params, "mode", a.mode);
	rc = add_numbers(c, &a, params);
	if (rc != CLIENT_GO_ON) {
		json_decref(params);
		return rc;
	}
	if (client_call(c, "sivshm_create", params, c->quick_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	else
		text_print(c->out, "worker %s serves bdev %s at %s", words[0], words[1],
			   client_text(result, "socket"));
	json_decref(result);
	return 0;
}

int sivshm_command_delete(struct client *c, int argc, char **argv)
{
	bool force = false;
	const struct client_option options[] = {{"force", &force, NULL}};
	const char *words[1];
	json_t *result;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, options, 1, words, 1, 1);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, "sivshm_delete",
			json_pack("{s:s, s:b}", "name", words[0], "force", force), c->guest_ms,
			&result, &err))
		return client_fail(c, "%s", err.text);
	if (c->json)
		client_print_json(c, result);
	else
		text_print(c->out, "worker %s deleted", words[0]);
	json_decref(result);
	return 0;
}

/* Listing */

static void format_size(const json_t *worker, const char *name, uint64_t unit, char out[16])
{
	uint64_t count = (uint64_t)client_number(worker, name), bytes;

	strcpy(out, "-");
	if (count && !__builtin_mul_overflow(count, unit, &bytes))
		text_size(bytes, out);
}

static const char *access_word(const json_t *worker)
{
	bool shared = client_truth(worker, "shared");

	if (client_truth(worker, "readonly"))
		return shared ? "ro,shared" : "ro";
	return shared ? "rw,shared" : "rw";
}

/* What was wanted, and what it has come to. */
static void format_sharing(const json_t *worker, char *out, size_t room)
{
	const char *sharing = client_text(worker, "sharing");
	const char *way = json_string_value(json_object_get(worker, "way"));

	if (way && strcmp(way, sharing))
		snprintf(out, room, "%s (%s)", sharing, way);
	else
		snprintf(out, room, "%s", sharing);
}

static void add_row(struct table *t, const json_t *worker)
{
	const char *error = json_string_value(json_object_get(worker, "error"));
	char size[16], segment[16], sharing[64];

	table_cell(t, "%s", client_text(worker, "name"));
	table_cell(t, "%s", client_text(worker, "bdev"));
	/* Of one that could not be made no more is known. */
	if (!json_object_get(worker, "socket")) {
		table_cell(t, "-");
		table_cell(t, "-");
		table_cell(t, "%s", client_text(worker, "state"));
		for (unsigned i = 0; i < 4; i++)
			table_cell(t, "-");
	} else {
		format_size(worker, "sectors", 512, size);
		format_size(worker, "segment_bytes", 1, segment);
		format_sharing(worker, sharing, sizeof(sharing));
		table_cell(t, "%s", size);
		table_cell(t, "%s", access_word(worker));
		table_cell(t, "%s", client_text(worker, "state"));
		table_cell(t, "%s", segment);
		table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(worker, "queues"));
		table_cell(t, "%s", sharing);
		table_cell(t, "%s", client_text(worker, "socket"));
	}
	if (error)
		table_note(t, "error: %s", error);
}

int sivshm_command_list(struct client *c, int argc, char **argv)
{
	static const struct table_column columns[] = {
		{"WORKER", false}, {"BDEV", false},    {"SIZE", true},
		{"ACCESS", false}, {"STATE", false},   {"SEGMENT", true},
		{"QUEUES", true},  {"SHARING", false}, {"SOCKET", false},
	};

	return client_list(c, argc, argv, "sivshm_get_workers", columns,
			   sizeof(columns) / sizeof(columns[0]), add_row);
}

/* Showing one */

static json_t *find_worker(const json_t *list, const char *name)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(client_text(json_array_get(list, i), "name"), name))
			return json_array_get(list, i);
	return NULL;
}

static void format_id(const json_t *worker, const char *name, char *out, size_t room)
{
	json_int_t id = client_number(worker, name);

	if (id < 0)
		snprintf(out, room, "any");
	else
		snprintf(out, room, "%" JSON_INTEGER_FORMAT, id);
}

/* For an option of QEMU's, where a comma ends a value and two are one. */
static void format_qemu_path(const char *path, char *out, size_t room)
{
	size_t len = 0;

	for (; *path && len + 3 < room; path++) {
		if (*path == ',')
			out[len++] = ',';
		out[len++] = *path;
	}
	out[len] = '\0';
}

static void print_worker(FILE *out, const json_t *worker)
{
	const char *name = client_text(worker, "name"), *socket = client_text(worker, "socket");
	const char *error = json_string_value(json_object_get(worker, "error"));
	char size[16], segment[16], sharing[64], uid[24], gid[24], path[512];

	format_size(worker, "sectors", 512, size);
	format_size(worker, "segment_bytes", 1, segment);
	format_sharing(worker, sharing, sizeof(sharing));
	format_id(worker, "uid", uid, sizeof(uid));
	format_id(worker, "gid", gid, sizeof(gid));
	format_qemu_path(socket, path, sizeof(path));
	text_print(out, "%-10s%s", "worker", name);
	text_print(out, "%-10s%s, %s, %s", "bdev", client_text(worker, "bdev"), size,
		   access_word(worker));
	text_print(out, "%-10s%s", "state", client_text(worker, "state"));
	if (error)
		text_print(out, "%-10s%s", "error", error);
	text_print(out, "%-10s%s, shared with one process of user %s and group %s", "segment",
		   segment, uid, gid);
	text_print(out, "%-10s%" JSON_INTEGER_FORMAT " of at most %" JSON_INTEGER_FORMAT, "queues",
		   client_number(worker, "queues"), client_number(worker, "max_queues"));
	text_print(out, "%-10s%s", "sharing", sharing);
	text_print(out, "%-10s%s", "socket", socket);
	fputs("\nA QEMU guest gets it by\n", out);
	text_print(out, "  -chardev socket,id=sluice-%s,path=%s", name, path);
	text_print(out,
		   "  -device ivshmem-doorbell,chardev=sluice-%s,vectors=%" JSON_INTEGER_FORMAT,
		   name, client_number(worker, "vectors"));
	fputs("  -smp 1,maxcpus=2        (or more; under emulation, see sluice-sivshm(8))\n", out);
	fputs("and a process, by libsivshm, at\n", out);
	text_print(out, "  unix:%s", socket);
	fputs("or for a try\n", out);
	text_print(out, "  sluice-perf --socket %s", socket);
	fputs("What a frontend does with the segment says doc/sivshm-blkif.md.\n", out);
}

int sivshm_command_show(struct client *c, int argc, char **argv)
{
	const char *words[1];
	json_t *list, *worker;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 1, 1);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, "sivshm_get_workers", NULL, c->quick_ms, &list, &err))
		return client_fail(c, "%s", err.text);
	rc = 0;
	worker = find_worker(list, words[0]);
	if (!worker)
		rc = client_fail(c, "no worker '%s' (sluice sivshm list shows them)", words[0]);
	else if (c->json)
		client_print_json(c, worker);
	else if (!json_object_get(worker, "socket"))
		rc = client_fail(c, "worker '%s' is %s: %s", words[0], client_text(worker, "state"),
				 client_text(worker, "error"));
	else
		print_worker(c->out, worker);
	json_decref(list);
	return rc;
}
