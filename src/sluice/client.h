/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the commands of `sluice` share: how they were called, where they print, and a connection to
 * the daemon.
 *
 * Exit status: 0 done; 1 not done, for the reason in one line on stderr; 2 called wrongly.
 */
#ifndef SLUICE_SLUICE_CLIENT_H
#define SLUICE_SLUICE_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

struct command;

struct client {
	FILE *out;
	FILE *err;
	const char *instance; /* the daemon's name */
	const char *socket;   /* NULL: the one of that name */
	bool json;
	const struct command *command;
	/* How long to wait */
	unsigned quick_ms;  /* for what the daemon does by itself */
	unsigned guest_ms;  /* for what takes the guest's part */
	unsigned settle_ms; /* until the daemon sees what xl has done */
	unsigned drive_ms;  /* for what an NVMe drive does, which may have to be reset on the way */
	const char *root;   /* where /sys and /dev are; "" but in tests */
	/* private: the connection */
	int fd;
	char *in; /* bytes received and not yet used */
	size_t in_len;
	unsigned last_id;
};

struct command {
	const char *name;     /* "attach", "bdev create" */
	const char *synopsis; /* what follows the name */
	const char *summary;  /* one line */
	const char *help;     /* lines about its arguments and options */
	/* argv[0] is the command's last word. Returns the exit status. */
	int (*run)(struct client *c, int argc, char **argv);
};

void client_init(struct client *c, FILE *out, FILE *err);
/* Runs the whole command; main() but for the streams. Returns the exit status. */
int client_run(struct client *c, int argc, char **argv);

/* Arguments */

struct client_option {
	const char *name;   /* without the dashes */
	bool *flag;         /* set by --name */
	const char **value; /* or receives what --name VALUE or --name=VALUE gives */
};

enum { CLIENT_GO_ON = -1 };

/*
 * Sorts @argv into @options, the ones all commands take, and from @least to @most others (@most
 * entries in @words, NULL where missing). Returns CLIENT_GO_ON, or the exit status: --help was
 * given, or the call makes no sense and stderr says why.
 */
int client_parse(struct client *c, int argc, char **argv, const struct client_option *options,
		 size_t options_len, const char **words, size_t least, size_t most);

/* One line on stderr, made harmless; returns exit status 1. */
int client_fail(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for a wrong call, with a hint at the command's --help; returns exit status 2. */
int client_misuse(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The daemon */

/*
 * Calls @method with @params (reference taken; NULL: none) and waits up to @timeout_ms. Returns 0
 * and the result, a new reference; or a negative number (the daemon's error code, or an errno if
 * it did not come so far) with the line in @err.
 */
int client_call(struct client *c, const char *method, json_t *params, unsigned timeout_ms,
		json_t **result, struct err *err);
void client_disconnect(struct client *c);

/* Prints @value as JSON over several lines. */
void client_print_json(struct client *c, const json_t *value);

struct table;
struct table_column;
/*
 * A whole command without arguments that lists what @method returns: as JSON, or as a table with a
 * row by @add_row for each. Returns the exit status.
 */
int client_list(struct client *c, int argc, char **argv, const char *method,
		const struct table_column *columns, size_t columns_len,
		void (*add_row)(struct table *t, const json_t *entry));

/* Member @name of @object: a string ("?" if it is none), a number (0), a truth value (false). */
const char *client_text(const json_t *object, const char *name);
json_int_t client_number(const json_t *object, const char *name);
bool client_truth(const json_t *object, const char *name);

/* `sluice bdev create nvme`: @name may be NULL. Returns the exit status. */
int nvme_create_bdevs(struct client *c, const char *name, const char *where);

/* The commands, by file */
int bdev_command_create(struct client *c, int argc, char **argv);
int bdev_command_delete(struct client *c, int argc, char **argv);
int bdev_command_list(struct client *c, int argc, char **argv);
int bdev_command_resize(struct client *c, int argc, char **argv);
int nvme_command_list(struct client *c, int argc, char **argv);
int nvme_command_claim(struct client *c, int argc, char **argv);
int nvme_command_release(struct client *c, int argc, char **argv);
int nvme_command_show(struct client *c, int argc, char **argv);
int nvme_command_rescan(struct client *c, int argc, char **argv);
int nvme_command_detach(struct client *c, int argc, char **argv);
int sivshm_command_create(struct client *c, int argc, char **argv);
int sivshm_command_delete(struct client *c, int argc, char **argv);
int sivshm_command_list(struct client *c, int argc, char **argv);
int sivshm_command_show(struct client *c, int argc, char **argv);
int vbd_command_attach(struct client *c, int argc, char **argv);
int vbd_command_detach(struct client *c, int argc, char **argv);
int vbd_command_pause(struct client *c, int argc, char **argv);
int vbd_command_resume(struct client *c, int argc, char **argv);
int vbd_command_limit(struct client *c, int argc, char **argv);
int vbd_command_list(struct client *c, int argc, char **argv);
int stat_command(struct client *c, int argc, char **argv);
int rpc_command(struct client *c, int argc, char **argv);

#endif
