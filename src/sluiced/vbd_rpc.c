/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluiced/vbd_rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/parse.h"
#include "xen/vdev.h"

/* A guest that has the disk mounted keeps it; whoever waits is told after so long. */
#define DETACH_WAIT_NS (30 * NSEC_PER_SEC)
/* A device that hangs keeps what it has; whoever waits for quiet is told after so long. */
#define QUIET_WAIT_NS (30 * NSEC_PER_SEC)

static void get_domain(struct rpc_request *req, const json_t *params, void *arg)
{
	struct args {
		const char *domain;
	} args;
	static const struct params_field fields[] = {
		PARAMS_REQUIRED(struct args, domain, PARAMS_STRING),
	};
	struct vbd_rpc *ctx = arg;
	uint32_t domid;
	char name[64];
	struct err err;
	int rc;

	if (!rpc_decode(req, params, fields, 1, &args))
		return;
	rc = xen_backend_find_domain(ctx->be, args.domain, &domid, name, &err);
	if (rc) {
		rpc_fail(req, rc, "%s", err.text);
		return;
	}
	rpc_reply(req,
		  json_pack("{s:i,s:o,s:s}", "domid", (int)domid, "name", rpc_text(name),
			    "toolstack", xen_backend_libxl_has(ctx->be, domid) ? "xl" : "none"));
}

/* The domain and the disk that a request names; false: the request has been answered. */
static bool find_disk(struct vbd_rpc *ctx, struct rpc_request *req, const char *domain,
		      const char *vdev, uint32_t *domid, uint32_t *devid)
{
	char name[64];
	struct err err;
	int rc;

	rc = xen_backend_find_domain(ctx->be, domain, domid, name, &err);
	if (rc) {
		rpc_fail(req, rc, "%s", err.text);
		return false;
	}
	if (!vdev_parse(vdev, devid)) {
		rpc_fail(req, -EINVAL, "no virtual disk is named '%s': use names like xvda", vdev);
		return false;
	}
	return true;
}

/* What the parameters ask for beside the bdev; false: the request has been answered. */
static bool set_option(struct rpc_request *req, struct target *t, const char *name,
		       const char *value)
{
	struct err err;
	int rc = value ? target_set_option(t, name, value, &err) : 0;

	if (rc)
		rpc_fail(req, rc, "%s", err.text);
	return !rc;
}

static void attach(struct rpc_request *req, const json_t *params, void *arg)
{
	struct args {
		const char *domain, *vdev, *bdev;
		bool readonly, shared, persistent;
		const char *sharing, *on_error;
		uint64_t rw_ios_per_sec, rw_bytes_per_sec;
	} args = {.persistent = true};
	static const struct params_field fields[] = {
		PARAMS_REQUIRED(struct args, domain, PARAMS_STRING),
		PARAMS_REQUIRED(struct args, vdev, PARAMS_STRING),
		PARAMS_REQUIRED(struct args, bdev, PARAMS_STRING),
		PARAMS_OPTIONAL(struct args, readonly, PARAMS_BOOL),
		PARAMS_OPTIONAL(struct args, shared, PARAMS_BOOL),
		PARAMS_OPTIONAL(struct args, sharing, PARAMS_STRING),
		PARAMS_OPTIONAL(struct args, persistent, PARAMS_BOOL),
		PARAMS_OPTIONAL(struct args, on_error, PARAMS_STRING),
		PARAMS_OPTIONAL(struct args, rw_ios_per_sec, PARAMS_U64),
		PARAMS_OPTIONAL(struct args, rw_bytes_per_sec, PARAMS_U64),
	};
	struct vbd_rpc *ctx = arg;
	struct xen_attach want;
	const char *kind;
	char vdev[32];
	struct err err;
	int rc;

	if (!rpc_decode(req, params, fields, sizeof(fields) / sizeof(fields[0]), &args) ||
	    !find_disk(ctx, req, args.domain, args.vdev, &want.domid, &want.devid))
		return;
	want.readonly = args.readonly;
	want.target = (struct target){
		.shared = args.shared,
		.not_persistent = !args.persistent,
		.ios_per_sec = args.rw_ios_per_sec,
		.bytes_per_sec = args.rw_bytes_per_sec,
	};
	if (!parse_name(args.bdev)) {
		rpc_fail(req, -ENOENT, "no bdev is named '%.64s': see 'sluice bdev list'",
			 args.bdev);
		return;
	}
	strcpy(want.target.bdev, args.bdev);
	if (!set_option(req, &want.target, "sharing", args.sharing) ||
	    !set_option(req, &want.target, "on-error", args.on_error))
		return;
	rc = xen_backend_attach(ctx->be, &want, &kind, &err);
	if (rc) {
		rpc_fail(req, rc, "%s", err.text);
		return;
	}
	vdev_format(want.devid, vdev, sizeof(vdev));
	rpc_reply(req, json_pack("{s:i,s:I,s:s,s:s}", "domid", (int)want.domid, "devid",
				 (json_int_t)want.devid, "vdev", vdev, "backend", kind));
}

/* A request to detach that waits for the guest, but not for ever. */
struct waiting {
	struct vbd_rpc *ctx;
	struct rpc_request *req;
	struct reactor_timer timer;
	uint32_t domid, devid;
	bool force;
};

static void detach_done(void *arg, const char *error)
{
	struct waiting *w = arg;

	reactor_timer_stop(w->ctx->control, &w->timer);
	if (error)
		rpc_fail(w->req, -EIO, "%s", error);
	else
		rpc_reply(w->req, json_true());
	free(w);
}

static void detach_too_long(struct reactor_timer *t)
{
	struct waiting *w = container_of(t, struct waiting, timer);

	if (!xen_backend_forget_detach(w->ctx->be, w->domid, w->devid, w))
		return;
	rpc_fail(w->req, -ETIMEDOUT, "%s",
		 w->force
			 ? "the device does not finish what it has begun; the disk goes when it has"
			 : "the guest still uses the disk: unmount it there and it goes by "
			   "itself, or detach with --force");
	free(w);
}

static void detach(struct rpc_request *req, const json_t *params, void *arg)
{
	struct args {
		const char *domain, *vdev;
		bool force;
	} args = {0};
	static const struct params_field fields[] = {
		PARAMS_REQUIRED(struct args, domain, PARAMS_STRING),
		PARAMS_REQUIRED(struct args, vdev, PARAMS_STRING),
		PARAMS_OPTIONAL(struct args, force, PARAMS_BOOL),
	};
	struct vbd_rpc *ctx = arg;
	struct waiting *w;
	struct err err;
	int rc;

	w = calloc(1, sizeof(*w));
	if (!w) {
		rpc_fail(req, -ENOMEM, "no memory");
		return;
	}
	if (!rpc_decode(req, params, fields, 3, &args) ||
	    !find_disk(ctx, req, args.domain, args.vdev, &w->domid, &w->devid)) {
		free(w);
		return;
	}
	w->ctx = ctx;
	w->req = req;
	w->force = args.force;
	w->timer.fire = detach_too_long;
	reactor_timer_start(ctx->control, &w->timer, DETACH_WAIT_NS);
	rc = xen_backend_detach(ctx->be, w->domid, w->devid, args.force, detach_done, w, &err);
	if (rc) {
		reactor_timer_stop(ctx->control, &w->timer);
		rpc_fail(req, rc, "%s", err.text);
		free(w);
	}
}

/* The same where a disk is all that is named. */
static bool decode_disk(struct vbd_rpc *ctx, struct rpc_request *req, const json_t *params,
			uint32_t *domid, uint32_t *devid)
{
	struct args {
		const char *domain, *vdev;
	} args;
	static const struct params_field fields[] = {
		PARAMS_REQUIRED(struct args, domain, PARAMS_STRING),
		PARAMS_REQUIRED(struct args, vdev, PARAMS_STRING),
	};

	return rpc_decode(req, params, fields, 2, &args) &&
	       find_disk(ctx, req, args.domain, args.vdev, domid, devid);
}

/* A request to pause that waits for the device, but not for ever. */
struct pausing {
	struct vbd_rpc *ctx;
	struct rpc_request *req; /* NULL: it has been answered */
	struct reactor_timer timer;
};

static void pause_done(void *arg, const char *error)
{
	struct pausing *p = arg;

	reactor_timer_stop(p->ctx->control, &p->timer);
	if (p->req && error)
		rpc_fail(p->req, -EIO, "%s", error);
	else if (p->req)
		rpc_reply(p->req, json_true());
	free(p);
}

static void pause_too_long(struct reactor_timer *t)
{
	struct pausing *p = container_of(t, struct pausing, timer);

	rpc_fail(p->req, -ETIMEDOUT,
		 "the device has not finished what it has begun; nothing more is given to it, and "
		 "the disk stays paused until 'sluice resume'");
	p->req = NULL;
}

static void pause_disk(struct rpc_request *req, const json_t *params, void *arg)
{
	struct vbd_rpc *ctx = arg;
	uint32_t domid, devid;
	struct pausing *p;
	struct err err;
	int rc;

	if (!decode_disk(ctx, req, params, &domid, &devid))
		return;
	p = calloc(1, sizeof(*p));
	if (!p) {
		rpc_fail(req, -ENOMEM, "no memory");
		return;
	}
	p->ctx = ctx;
	p->req = req;
	p->timer.fire = pause_too_long;
	reactor_timer_start(ctx->control, &p->timer, QUIET_WAIT_NS);
	rc = xen_backend_pause(ctx->be, domid, devid, pause_done, p, &err);
	if (rc) {
		reactor_timer_stop(ctx->control, &p->timer);
		rpc_fail(req, rc, "%s", err.text);
		free(p);
	}
}

static void resume(struct rpc_request *req, const json_t *params, void *arg)
{
	struct vbd_rpc *ctx = arg;
	uint32_t domid, devid;
	struct err err;
	int rc;

	if (!decode_disk(ctx, req, params, &domid, &devid))
		return;
	rc = xen_backend_resume(ctx->be, domid, devid, &err);
	if (rc)
		rpc_fail(req, rc, "%s", err.text);
	else
		rpc_reply(req, json_true());
}

static void set_limit(struct rpc_request *req, const json_t *params, void *arg)
{
	struct args {
		const char *domain, *vdev;
		uint64_t rw_ios_per_sec, rw_bytes_per_sec;
	} args = {.rw_ios_per_sec = UINT64_MAX, .rw_bytes_per_sec = UINT64_MAX};
	static const struct params_field fields[] = {
		PARAMS_REQUIRED(struct args, domain, PARAMS_STRING),
		PARAMS_REQUIRED(struct args, vdev, PARAMS_STRING),
		PARAMS_OPTIONAL(struct args, rw_ios_per_sec, PARAMS_U64),
		PARAMS_OPTIONAL(struct args, rw_bytes_per_sec, PARAMS_U64),
	};
	struct vbd_rpc *ctx = arg;
	struct xen_limits limits;
	uint32_t domid, devid;
	struct err err;
	int rc;

	if (!rpc_decode(req, params, fields, 4, &args) ||
	    !find_disk(ctx, req, args.domain, args.vdev, &domid, &devid))
		return;
	rc = xen_backend_get_limits(ctx->be, domid, devid, &limits, &err);
	if (args.rw_ios_per_sec != UINT64_MAX)
		limits.ios_per_sec = args.rw_ios_per_sec;
	if (args.rw_bytes_per_sec != UINT64_MAX)
		limits.bytes_per_sec = args.rw_bytes_per_sec;
	if (!rc && (args.rw_ios_per_sec & args.rw_bytes_per_sec) != UINT64_MAX)
		rc = xen_backend_set_limits(ctx->be, domid, devid, &limits, &err);
	if (rc)
		rpc_fail(req, rc, "%s", err.text);
	else
		rpc_reply(req,
			  json_pack("{s:I,s:I}", "rw_ios_per_sec", (json_int_t)limits.ios_per_sec,
				    "rw_bytes_per_sec", (json_int_t)limits.bytes_per_sec));
}

static void get_vbds(struct rpc_request *req, const json_t *params, void *arg)
{
	struct vbd_rpc *ctx = arg;

	if (rpc_decode(req, params, NULL, 0, NULL))
		rpc_reply(req, xen_backend_list(ctx->be));
}

static void iostat_done(void *arg, json_t *stats)
{
	rpc_reply(arg, stats);
}

static void get_iostat(struct rpc_request *req, const json_t *params, void *arg)
{
	struct vbd_rpc *ctx = arg;

	if (rpc_decode(req, params, NULL, 0, NULL))
		xen_backend_stats(ctx->be, iostat_done, req);
}

/* A method, and what it does where there are Xen guests. */
struct method {
	struct rpc_method rpc;
	void (*handle)(struct rpc_request *req, const json_t *params, void *arg);
};

static void serve(struct rpc_request *req, const json_t *params, void *arg)
{
	const struct method *m = container_of(rpc_request_method(req), struct method, rpc);
	struct vbd_rpc *ctx = arg;

	if (ctx->be)
		m->handle(req, params, ctx);
	else
		rpc_fail(req, -ENODEV, "%s", ctx->why);
}

int vbd_rpc_register(struct rpc_server *s, struct vbd_rpc *ctx)
{
	static const struct method methods[] = {
		{{"xen_get_domain", serve}, get_domain}, {{"vbd_attach", serve}, attach},
		{{"vbd_detach", serve}, detach},         {{"vbd_get_vbds", serve}, get_vbds},
		{{"vbd_pause", serve}, pause_disk},      {{"vbd_resume", serve}, resume},
		{{"vbd_set_limit", serve}, set_limit},   {{"vbd_get_iostat", serve}, get_iostat},
	};
	int rc = 0;

	for (unsigned i = 0; !rc && i < sizeof(methods) / sizeof(methods[0]); i++)
		rc = rpc_register(s, &methods[i].rpc, ctx);
	return rc;
}
