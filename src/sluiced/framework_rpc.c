/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluiced/framework_rpc.h"

static void get_reactors(struct rpc_request *req, const json_t *params, void *arg)
{
	struct framework_rpc *ctx = arg;
	json_t *list;

	if (!rpc_decode(req, params, NULL, 0, NULL))
		return;
	list = json_array();
	for (unsigned i = 0; i < ctx->nr_reactors; i++) {
		struct reactor_stats st;

		reactor_get_stats(ctx->reactors[i], &st);
		json_array_append_new(
			list, json_pack("{s:s,s:i,s:I,s:I,s:I,s:I,s:I,s:i}", "name",
					reactor_name(ctx->reactors[i]), "lcore",
					reactor_cpu(ctx->reactors[i]), "passes",
					(json_int_t)st.passes, "busy_passes", (json_int_t)st.worked,
					"busy_ns", (json_int_t)st.busy_ns, "sleeps",
					(json_int_t)st.sleeps, "messages", (json_int_t)st.msgs,
					"busy_pollers", (int)st.pollers));
	}
	rpc_reply(req, json_pack("{s:o}", "reactors", list));
}

int framework_rpc_register(struct rpc_server *s, struct framework_rpc *ctx)
{
	static const struct rpc_method method = {"framework_get_reactors", get_reactors};

	return rpc_register(s, &method, ctx);
}
