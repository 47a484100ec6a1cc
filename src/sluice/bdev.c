/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice bdev`: the block devices behind the disks. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/parse.h"
#include "sluice/client.h"
#include "sluice/text.h"

static const struct kind {
	const char *name;
	const char *create;
	const char *grow;
	bool sized; /* by --size, not by a file */
} kinds[] = {
	{"null", "bdev_null_create", "bdev_null_resize", true},
	{"ram", "bdev_malloc_create", "bdev_malloc_resize", true},
	{"uring", "bdev_uring_create", "bdev_uring_rescan", false},
	{"aio", "bdev_aio_create", "bdev_aio_rescan", false},
};

struct create_args {
	const char *size;
	const char *block_size;
	bool readonly;
	bool shared;
};

static const struct kind *find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

/* Returns CLIENT_GO_ON and the parameters, or the exit status. */
static int sized_params(struct client *c, const char *name, const struct create_args *a,
			json_t **params)
{
	uint32_t block_size = 512;
	uint64_t size;

	if (a->readonly || a->shared)
		return client_misuse(c, "--readonly and --shared are for files only");
	if (!a->size)
		return client_misuse(c, "--size is missing");
	if (!parse_size(a->size, &size) || !size || size > INT64_MAX)
		return client_misuse(c, "'%s' is no size: digits and perhaps K, M, G or T",
				     a->size);
	if (a->block_size && (!parse_u32(a->block_size, 4096, &block_size) ||
			      (block_size != 512 && block_size != 4096)))
		return client_misuse(c, "the block size is 512 or 4096, not '%s'", a->block_size);
	if (size % block_size)
		return client_misuse(c, "the size is no multiple of the block size, %u",
				     block_size);
	*params = json_pack("{s:s, s:I, s:I}", "name", name, "num_blocks",
			    (json_int_t)(size / block_size), "block_size", (json_int_t)block_size);
	return CLIENT_GO_ON;
}

static int file_params(struct client *c, const char *name, const char *file,
		       const struct create_args *a, json_t **params)
{
	char path[PATH_MAX], dir[PATH_MAX];

	if (a->size || a->block_size)
		return client_misuse(c, "a file has its own size and block size");
	/* The daemon has another directory. */
	if (file[0] == '/') {
		dir[0] = '\0';
	} else if (!getcwd(dir, sizeof(dir))) {
		return client_fail(c, "the current directory is gone (%m): give an absolute path");
	}
	if ((size_t)snprintf(path, sizeof(path), "%s%s%s", dir, dir[0] ? "/" : "", file) >=
	    sizeof(path))
		return client_fail(c, "the path of '%s' is too long", file);
	*params = json_pack("{s:s, s:s, s:b, s:b}", "name", name, "filename", path, "readonly",
			    a->readonly, "shared", a->shared);
	if (!*params)
		return client_fail(c, "the current directory's path is no UTF-8 text: give an "
				      "absolute path");
	return CLIENT_GO_ON;
}

/* Prints @result (reference taken) as JSON, or the line about it. */
static int report(struct client *c, json_t *result, const char *line, const char *name)
{
	if (c->json)
		client_print_json(c, result);
	else
		fprintf(c->out, "bdev %s %s\n", name, line);
	json_decref(result);
	return 0;
}

int bdev_command_create(struct client *c, int argc, char **argv)
{
	struct create_args a = {0};
	const struct client_option options[] = {
		{"size", NULL, &a.size},
		{"block-size", NULL, &a.block_size},
		{"readonly", &a.readonly, NULL},
		{"shared", &a.shared, NULL},
	};
	const struct kind *kind;
	const char *words[3];
	json_t *params, *result;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, options, 4, words, 2, 3);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (!strcmp(words[0], "nvme")) {
		if (a.size || a.block_size || a.readonly || a.shared)
			return client_misuse(c, "a drive takes no options");
		return nvme_create_bdevs(c, words[2] ? words[1] : NULL,
					 words[2] ? words[2] : words[1]);
	}
	kind = find_kind(words[0]);
	if (!kind)
		return client_misuse(
			c, "'%s' is no kind of bdev: use null, ram, uring, aio or nvme", words[0]);
	if (!parse_name(words[1]))
		return client_misuse(c,
				     "'%s' is no name for a bdev: use 1 to 63 letters, digits and "
				     "_.:-, the first no - or .",
				     words[1]);
	if (kind->sized && words[2])
		return client_misuse(c, "'%s' is one argument too many", words[2]);
	if (!kind->sized && !words[2])
		return client_misuse(c, "the file is missing");
	rc = kind->sized ? sized_params(c, words[1], &a, &params)
			 : file_params(c, words[1], words[2], &a, &params);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, kind->create, params, c->quick_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	return report(c, result, "created", words[1]);
}

int bdev_command_delete(struct client *c, int argc, char **argv)
{
	const char *words[1];
	json_t *result;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 1, 1);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, "bdev_delete", json_pack("{s:s}", "name", words[0]), c->quick_ms,
			&result, &err))
		return client_fail(c, "%s", err.text);
	return report(c, result, "deleted", words[0]);
}

/* As text_size(), of what the daemon says of a bdev. */
static void size_of(const json_t *bdev, char *out)
{
	uint64_t blocks = (uint64_t)client_number(bdev, "num_blocks"), bytes;

	if (__builtin_mul_overflow(blocks, (uint64_t)client_number(bdev, "block_size"), &bytes))
		strcpy(out, "?");
	else
		text_size(bytes, out);
}

static void add_row(struct table *t, const json_t *bdev)
{
	const char *product = client_text(bdev, "product_name");
	const json_t *driver = json_object_get(json_object_get(bdev, "driver_specific"), product);
	const char *file = json_string_value(json_object_get(driver, "filename"));
	const char *address = json_string_value(json_object_get(driver, "traddr"));
	const char *label =
		json_string_value(json_object_get(json_object_get(bdev, "partition"), "label"));
	char size[16];

	size_of(bdev, size);
	table_cell(t, "%s", client_text(bdev, "name"));
	table_cell(t, "%s", product);
	table_cell(t, "%s", size);
	table_cell(t, "%" JSON_INTEGER_FORMAT, client_number(bdev, "block_size"));
	table_cell(t, "%s", client_truth(bdev, "readonly") ? "ro" : "rw");
	table_cell(t, "%s", client_truth(bdev, "shared") ? "yes" : "no");
	table_cell(t, "%s", client_truth(bdev, "claimed") ? "yes" : "no");
	table_cell(t, "%s", file ? file : address ? address : "-");
	if (label && *label)
		table_note(t, "partition: %s", label);
}

int bdev_command_list(struct client *c, int argc, char **argv)
{
	static const struct table_column columns[] = {
		{"NAME", false},   {"KIND", false},   {"SIZE", true},    {"BLOCK", true},
		{"ACCESS", false}, {"SHARED", false}, {"IN-USE", false}, {"FILE", false},
	};

	return client_list(c, argc, argv, "bdev_get_bdevs", columns,
			   sizeof(columns) / sizeof(columns[0]), add_row);
}

/* Finds out @name's kind; returns CLIENT_GO_ON or the exit status. */
static int look_up_kind(struct client *c, const char *name, const struct kind **kind)
{
	json_t *result;
	struct err err;
	int rc = CLIENT_GO_ON;

	if (client_call(c, "bdev_get_bdevs", json_pack("{s:s}", "name", name), c->quick_ms, &result,
			&err))
		return client_fail(c, "%s", err.text);
	*kind = find_kind(client_text(json_array_get(result, 0), "product_name"));
	if (!*kind)
		rc = client_fail(c, "bdev '%s' is of a kind that cannot be resized from here",
				 name);
	json_decref(result);
	return rc;
}

/* Returns CLIENT_GO_ON and the parameters, or the exit status. */
static int resize_params(struct client *c, const char *name, const struct kind *kind,
			 const char *text, json_t **params)
{
	uint64_t size;

	if (!kind->sized && text)
		return client_misuse(c,
				     "bdev '%s' is as large as its file or device: extend that, "
				     "and leave the size out here",
				     name);
	if (!kind->sized) {
		*params = json_pack("{s:s}", "name", name);
		return CLIENT_GO_ON;
	}
	if (!text)
		return client_misuse(c, "the size is missing, as bdev '%s' is of kind %s", name,
				     kind->name);
	if (!parse_size(text, &size) || !size || size > INT64_MAX)
		return client_misuse(c, "'%s' is no size: digits and perhaps K, M, G or T", text);
	*params = json_pack("{s:s, s:I}", "name", name, "new_size", (json_int_t)size);
	return CLIENT_GO_ON;
}

int bdev_command_resize(struct client *c, int argc, char **argv)
{
	const struct kind *kind = NULL;
	const char *words[2];
	json_t *params = NULL, *result;
	char line[64], size[16];
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 1, 2);
	if (rc == CLIENT_GO_ON)
		rc = look_up_kind(c, words[0], &kind);
	if (rc == CLIENT_GO_ON)
		rc = resize_params(c, words[0], kind, words[1], &params);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (client_call(c, kind->grow, params, c->quick_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	size_of(result, size);
	snprintf(line, sizeof(line), "has %s now", size);
	return report(c, result, line, words[0]);
}
