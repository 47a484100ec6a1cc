/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice rpc`: any method of the daemon, as it is. */
#include "sluice/client.h"

int rpc_command(struct client *c, int argc, char **argv)
{
	json_t *params = NULL, *result;
	const char *words[2];
	json_error_t error;
	struct err err;
	int rc;

	rc = client_parse(c, argc, argv, NULL, 0, words, 1, 2);
	if (rc != CLIENT_GO_ON)
		return rc;
	if (words[1]) {
		params = json_loads(words[1], JSON_REJECT_DUPLICATES, &error);
		if (!params)
			return client_misuse(c, "the parameters are no JSON: %s", error.text);
	}
	if (client_call(c, words[0], params, c->guest_ms, &result, &err))
		return client_fail(c, "%s", err.text);
	client_print_json(c, result);
	json_decref(result);
	return 0;
}
