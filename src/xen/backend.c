/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/parse.h"
#include "grant/library.h"
#include "xen/connection.h"
#include "xen/host.h"
#include "xen/internal.h"
#include "xen/vbd.h"
#include "xen/vdev.h"

enum {
	DOMID_MAX = 0x7fef, /* the largest number of a real domain */
	EVENTS_PER_ROUND = 256,
};

static const char xl_script[] = "block-sluice";
static const char default_instance[] = "sluice";

/* Which devices are ours */

static bool is_ours(struct xen_backend *be, const char *dir)
{
	char *key, *script, *params, *name;
	struct target target;
	bool ours = false;
	struct err err;

	key = store_read(&be->store, dir, "sluice");
	if (key) {
		ours = !strcmp(key, be->opts.instance);
		free(key);
		return ours;
	}
	script = store_read(&be->store, dir, "script");
	params = store_read(&be->store, dir, "params");
	if (script && params) {
		name = strrchr(script, '/');
		name = name ? name + 1 : script;
		/* A target we cannot read is answered with an error by the default instance. */
		target_parse(params, &target, &err);
		name = strcmp(name, xl_script) ? NULL : target.instance;
		ours = name && !strcmp(name[0] ? name : default_instance, be->opts.instance);
	}
	free(script);
	free(params);
	return ours;
}

static struct vbd *find_vbd(struct xen_backend *be, const char *kind, uint32_t domid,
			    uint32_t devid)
{
	struct list *pos;

	list_for_each (pos, &be->vbds) {
		struct vbd *v = list_entry(pos, struct vbd, node);

		if (v->domid == domid && v->devid == devid && (!kind || !strcmp(v->kind, kind)))
			return v;
	}
	return NULL;
}

void xen_backend_meet(struct xen_backend *be, const char *kind, uint32_t domid, uint32_t devid)
{
	char dir[STORE_PATH_MAX];
	struct vbd *v = find_vbd(be, kind, domid, devid);
	uint32_t state;

	if (v) {
		v->dirty = true;
		return;
	}
	snprintf(dir, sizeof(dir), "/local/domain/%u/backend/%s/%u/%u", be->self, kind, domid,
		 devid);
	if (!is_ours(be, dir))
		return;
	v = vbd_create(be, kind, domid, devid);
	if (!v) {
		log_error("no memory for a disk of domain %u", domid);
		return;
	}
	/*
	 * A guest that runs on it claims its bdev before one that only wants it: the two may be one
	 * machine that is being moved.
	 */
	if (!store_read_u32(&be->store, dir, "state", XENBUS_STATES - 1, &state) &&
	    (state == XENBUS_CONNECTED || state == XENBUS_CLOSING)) {
		list_del(&v->node);
		list_add_head(&be->vbds, &v->node);
	}
	v->dirty = true;
	log_debug("%s: found as %s", v->label, dir);
}

/* Which machine it is: written by the toolstack, and not to be written by the guest. */
static void read_vm(struct xen_backend *be, struct xen_guest *g)
{
	char path[STORE_PATH_MAX];

	snprintf(path, sizeof(path), "/local/domain/%u", g->domid);
	if (!g->vm)
		g->vm = store_read(&be->store, path, "vm");
}

struct xen_guest *xen_backend_get_guest(struct xen_backend *be, uint32_t domid)
{
	struct xen_guest *g;
	struct list *pos;

	list_for_each (pos, &be->guests) {
		g = list_entry(pos, struct xen_guest, node);
		if (g->domid == domid) {
			g->disks++;
			return g;
		}
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->domid = domid;
	g->disks = 1;
	/* Now: when the domain ends, it is gone before its disks are. */
	read_vm(be, g);
	g->share.bounce.max = be->opts.guest_bounce_pages;
	g->share.maps.max = be->opts.guest_maps;
	list_add_tail(&be->guests, &g->node);
	return g;
}

void xen_backend_put_guest(struct xen_guest *g)
{
	if (--g->disks)
		return;
	list_del(&g->node);
	free(g->vm);
	free(g);
}

bool xen_backend_is_moving(struct xen_backend *be, const struct bdev *b, const struct vbd *v)
{
	bool moving = false;
	struct list *pos;

	read_vm(be, v->guest);
	list_for_each (pos, &be->vbds) {
		const struct vbd *w = list_entry(pos, struct vbd, node);

		if (w->bdev != b)
			continue;
		read_vm(be, w->guest);
		moving = w->domid != v->domid && v->guest->vm && w->guest->vm &&
			 !strcmp(w->guest->vm, v->guest->vm);
		if (!moving)
			break;
	}
	return moving;
}

bool xen_backend_is_reserved(struct xen_backend *be, const char *bdev, const struct vbd *v)
{
	struct list *pos;

	list_for_each (pos, &be->vbds) {
		const struct vbd *w = list_entry(pos, struct vbd, node);

		if (w != v && w->moving && !strcmp(w->want.bdev, bdev))
			return !v->moving;
	}
	return false;
}

/* Calls @fn for each entry below @path that is a number. */
static void for_each_number(struct xen_backend *be, const char *path, uint32_t max,
			    void (*fn)(struct xen_backend *be, uint32_t number, void *arg),
			    void *arg)
{
	unsigned n = 0;
	char **names = xs_directory(be->store.xs, XBT_NULL, path, &n);
	uint32_t number;

	for (unsigned i = 0; names && i < n; i++)
		if (parse_u32(names[i], max, &number))
			fn(be, number, arg);
	free(names);
}

struct scan {
	const char *kind;
	uint32_t domid;
};

static void scan_device(struct xen_backend *be, uint32_t devid, void *arg)
{
	const struct scan *scan = arg;

	xen_backend_meet(be, scan->kind, scan->domid, devid);
}

static void scan_domain(struct xen_backend *be, uint32_t domid, void *arg)
{
	struct scan *scan = arg;
	char path[STORE_PATH_MAX];

	scan->domid = domid;
	snprintf(path, sizeof(path), "/local/domain/%u/backend/%s/%u", be->self, scan->kind, domid);
	for_each_number(be, path, UINT32_MAX, scan_device, scan);
}

static void scan_all(struct xen_backend *be)
{
	for (unsigned i = 0; be->opts.kinds[i]; i++) {
		struct scan scan = {.kind = be->opts.kinds[i]};
		char path[STORE_PATH_MAX];

		snprintf(path, sizeof(path), "/local/domain/%u/backend/%s", be->self, scan.kind);
		for_each_number(be, path, DOMID_MAX, scan_domain, &scan);
	}
}

/* A domain's devices were made, or removed, all at once. */
static void scan_one_domain(struct xen_backend *be, const char *kind, uint32_t domid)
{
	struct scan scan = {.kind = kind};
	struct list *pos;

	list_for_each (pos, &be->vbds) {
		struct vbd *v = list_entry(pos, struct vbd, node);

		v->dirty |= v->domid == domid;
	}
	scan_domain(be, domid, &scan);
}

static void evaluate_dirty(struct xen_backend *be)
{
	struct list *pos, *next;

	/* An evaluation may destroy its own vbd, no other. */
	list_for_each_safe (pos, next, &be->vbds) {
		struct vbd *v = list_entry(pos, struct vbd, node);

		if (!v->dirty)
			continue;
		v->dirty = false;
		vbd_evaluate(v);
	}
}

/* xenstore's watches */

/* One event: @path has changed; @token is a kind, or a vbd's directory. */
static void take_event(struct xen_backend *be, const char *path, const char *token)
{
	char prefix[STORE_PATH_MAX];
	unsigned domid, devid;
	struct list *pos;
	size_t len;

	if (token[0] == '/') {
		list_for_each (pos, &be->vbds) {
			struct vbd *v = list_entry(pos, struct vbd, node);

			if (!strcmp(v->dir, token))
				v->dirty = v->stirred = true;
		}
		return;
	}
	len = (size_t)snprintf(prefix, sizeof(prefix), "/local/domain/%u/backend/%s/", be->self,
			       token);
	if (!strncmp(path, prefix, len) && sscanf(path + len, "%u/%u", &domid, &devid) == 2) {
		xen_backend_meet(be, token, domid, devid);
		return;
	}
	/* Other domains have nothing to do with one that comes or goes. */
	if (!strncmp(path, prefix, len) && parse_u32(path + len, DOMID_MAX, &domid)) {
		scan_one_domain(be, token, domid);
		return;
	}
	/* Something above them. */
	list_for_each (pos, &be->vbds)
		list_entry(pos, struct vbd, node)->dirty = true;
	be->rescan = true;
}

static void store_ready(struct reactor_fd *f, uint32_t events)
{
	struct xen_backend *be = container_of(f, struct xen_backend, xs_fd);
	char **event;

	/* First all that is known to have changed, then one look at each: many events cost one
	 * look. */
	for (int i = 0; i < EVENTS_PER_ROUND && (event = xs_check_watch(be->store.xs)); i++) {
		take_event(be, event[XS_WATCH_PATH], event[XS_WATCH_TOKEN]);
		free(event);
	}
	if (be->rescan) {
		be->rescan = false;
		scan_all(be);
	}
	evaluate_dirty(be);
}

static void retry_fired(struct reactor_timer *t)
{
	struct xen_backend *be = container_of(t, struct xen_backend, retry);

	be->retry_at_ns = 0;
	evaluate_dirty(be);
}

void xen_backend_retry_later(struct xen_backend *be, uint64_t delay_ns)
{
	uint64_t at_ns = clock_now_ns() + delay_ns;

	/* The last answers come while we drain: whoever follows us looks at those disks again. */
	if (be->draining)
		return;
	if (be->retry_at_ns && be->retry_at_ns <= at_ns)
		return;
	be->retry_at_ns = at_ns;
	reactor_timer_start(be->opts.control, &be->retry, delay_ns);
}

void xen_backend_bdev_is_free(struct xen_backend *be)
{
	struct list *pos;

	list_for_each (pos, &be->vbds) {
		struct vbd *v = list_entry(pos, struct vbd, node);

		if (!v->bdev)
			v->dirty = true;
	}
	/* Not now: the caller may be in the middle of another disk's evaluation. */
	xen_backend_retry_later(be, 0);
}

/* A bdev has come, or was released. */
static void bdev_changed(void *arg)
{
	xen_backend_bdev_is_free(arg);
}

static void bdev_resized(struct bdev *b, void *arg)
{
	struct xen_backend *be = arg;
	struct list *pos;

	list_for_each (pos, &be->vbds) {
		struct vbd *v = list_entry(pos, struct vbd, node);

		if (v->bdev == b)
			vbd_follow_size(v);
	}
}

/* Beginning and end */

int xen_backend_create(const struct xen_backend_opts *opts, struct xen_backend **out,
		       struct err *err)
{
	const struct xen_lane_opts lane = {
		.bounce_pages = opts->bounce_pages,
		.ledger = opts->ledger,
		.device_maps = opts->device_maps,
	};
	struct xen_backend *be = calloc(1, sizeof(*be));
	unsigned lanes = 0;
	int rc;

	if (!be)
		return err_set(err, -ENOMEM, "no memory for the Xen backend");
	be->opts = *opts;
	list_init(&be->vbds);
	list_init(&be->guests);
	be->retry.fire = retry_fired;
	rc = xen_host_check(opts->root, err);
	if (rc)
		goto no_host;
	be->store.xs = xs_open(0);
	if (!be->store.xs) {
		rc = err_set(err, -errno, "cannot reach xenstored: %s (is it running?)",
			     strerror(errno));
		goto no_host;
	}
	/* A driver domain is told its number; dom0 is not always. */
	if (store_read_u32(&be->store, "domid", NULL, DOMID_MAX, &be->self))
		be->self = 0;
	be->gnttab = grant_library_open();
	if (!be->gnttab) {
		rc = err_set(
			err, -errno,
			"cannot open /dev/xen/gntdev: %s (modprobe xen-gntdev, and run as root)",
			strerror(errno));
		goto no_gnttab;
	}
	be->lanes = calloc(opts->nr_reactors, sizeof(be->lanes[0]));
	rc = be->lanes ? 0 : err_set(err, -ENOMEM, "no memory for the Xen backend");
	for (; !rc && lanes < opts->nr_reactors; lanes += !rc)
		rc = xen_lane_init(&be->lanes[lanes], opts->reactors[lanes], &lane, err);
	if (rc)
		goto no_lanes;
	be->can_dma = true;
	for (unsigned i = 0; i < lanes; i++)
		be->can_dma &= be->lanes[i].device != NULL;
	*out = be;
	return 0;
no_lanes:
	while (lanes)
		xen_lane_fini(&be->lanes[--lanes]);
	free(be->lanes);
	xengnttab_close(be->gnttab);
no_gnttab:
	xs_close(be->store.xs);
no_host:
	free(be);
	return rc;
}

int xen_backend_start(struct xen_backend *be, struct err *err)
{
	char path[STORE_PATH_MAX];
	int rc;

	be->observer = (struct bdev_observer){
		.changed = bdev_changed,
		.resized = bdev_resized,
		.arg = be,
	};
	bdev_observe(&be->observer);
	for (unsigned i = 0; be->opts.kinds[i]; i++) {
		snprintf(path, sizeof(path), "/local/domain/%u/backend/%s", be->self,
			 be->opts.kinds[i]);
		/* It fires at once, and with that the first scan is made. */
		if (!xs_watch(be->store.xs, path, be->opts.kinds[i]))
			return err_set(err, -errno, "cannot watch %s: %s", path, strerror(errno));
	}
	be->xs_fd.fd = xs_fileno(be->store.xs);
	be->xs_fd.ready = store_ready;
	rc = reactor_fd_add(be->opts.control, &be->xs_fd, EPOLLIN);
	return rc ? err_set(err, rc, "cannot listen to xenstore: %s", strerror(-rc)) : 0;
}

static bool all_idle(const struct xen_backend *be)
{
	struct list *pos;

	list_for_each (pos, &be->vbds)
		if (list_entry(pos, struct vbd, node)->phase != VBD_IDLE)
			return false;
	return true;
}

void xen_backend_vbd_stopped(struct xen_backend *be)
{
	if (be->drained && all_idle(be)) {
		void (*drained)(void *arg) = be->drained;

		be->drained = NULL;
		drained(be->drained_arg);
	}
}

void xen_backend_drain(struct xen_backend *be, void (*drained)(void *arg), void *arg)
{
	struct list *pos;

	be->draining = true;
	bdev_unobserve(&be->observer);
	be->drained = drained;
	be->drained_arg = arg;
	reactor_timer_stop(be->opts.control, &be->retry);
	if (be->xs_fd.ready)
		reactor_fd_del(be->opts.control, &be->xs_fd);
	list_for_each (pos, &be->vbds)
		vbd_drain(list_entry(pos, struct vbd, node));
	xen_backend_vbd_stopped(be);
}

/* There is no more time for a message. */
static void end_waiter(struct vbd_waiter **w, const char *error)
{
	if (!*w)
		return;
	(*w)->done((*w)->arg, error);
	free(*w);
	*w = NULL;
}

void xen_backend_destroy(struct xen_backend *be)
{
	struct list *pos, *next;

	bdev_unobserve(&be->observer);
	list_for_each_safe (pos, next, &be->vbds) {
		struct vbd *v = list_entry(pos, struct vbd, node);

		end_waiter(&v->waiter, "sluiced is ending: the disk stays attached");
		end_waiter(&v->pause_waiter, "sluiced is ending: the disk is paused");
		vbd_destroy(v);
	}
	for (unsigned i = 0; i < be->opts.nr_reactors; i++)
		xen_lane_fini(&be->lanes[i]);
	free(be->lanes);
	xengnttab_close(be->gnttab);
	xs_close(be->store.xs);
	free(be);
}

void xen_backend_set_map_from(struct xen_backend *be, uint32_t bytes)
{
	be->map_from = bytes;
	be->map_from_known = true;
}

int xen_backend_check_sharing(const struct xen_backend *be, const struct bdev *b,
			      const struct target *t, struct err *err)
{
	if (t->sharing != TARGET_SHARING_DMA)
		return 0;
	if (!be->can_dma)
		return err_set(err, -EOPNOTSUPP,
			       "guests' pages cannot be mapped for devices on this host: use "
			       "sharing=copy or sharing=map");
	if (!b->dma)
		return err_set(err, -EOPNOTSUPP,
			       "bdev %s is on no drive of sluiced's own, so that no device could "
			       "reach the guest's pages by itself: use sharing=copy or "
			       "sharing=map",
			       b->name);
	return 0;
}

/* What administrators ask for */

struct domain_search {
	const char *name;
	uint32_t domid;
	bool found;
};

static void compare_name(struct xen_backend *be, uint32_t domid, void *arg)
{
	struct domain_search *search = arg;
	char path[STORE_PATH_MAX];

	snprintf(path, sizeof(path), "/local/domain/%u", domid);
	if (!search->found && store_equals(&be->store, path, "name", search->name)) {
		search->found = true;
		search->domid = domid;
	}
}

int xen_backend_find_domain(struct xen_backend *be, const char *domain, uint32_t *domid, char *name,
			    struct err *err)
{
	struct domain_search search = {.name = domain};
	char path[STORE_PATH_MAX];
	char *value;

	if (parse_u32(domain, DOMID_MAX, &search.domid)) {
		snprintf(path, sizeof(path), "/local/domain/%u", search.domid);
		search.found = store_exists(&be->store, path);
	} else {
		for_each_number(be, "/local/domain", DOMID_MAX, compare_name, &search);
		snprintf(path, sizeof(path), "/local/domain/%u", search.domid);
	}
	if (!search.found)
		return err_set(err, -ENOENT, "no domain %s: see 'xl list' for those that run",
			       domain);
	*domid = search.domid;
	value = store_read(&be->store, path, "name");
	snprintf(name, 64, "%s", value ? value : "");
	free(value);
	return 0;
}

bool xen_backend_libxl_has(struct xen_backend *be, uint32_t domid)
{
	char path[STORE_PATH_MAX];

	snprintf(path, sizeof(path), "/libxl/%u", domid);
	return store_exists(&be->store, path);
}

struct attach {
	struct xen_backend *be;
	const char *kind, *target;
	uint32_t domid, devid;
	bool readonly;
	char front[STORE_PATH_MAX], back[STORE_PATH_MAX];
};

/* Makes DIR and its missing parents up to the domain's home, with @perms. */
static int make_dir(struct store *s, const char *dir, struct xs_permissions *perms, unsigned n)
{
	char path[STORE_PATH_MAX];

	snprintf(path, sizeof(path), "%s", dir);
	if (!store_exists(s, path)) {
		char *slash = strrchr(path, '/');

		*slash = '\0';
		if (!store_exists(s, path)) {
			int rc = make_dir(s, path, perms, n);

			if (rc)
				return rc;
		}
		*slash = '/';
	}
	if (!xs_mkdir(s->xs, s->t, path) || !xs_set_permissions(s->xs, s->t, path, perms, n))
		return -errno;
	return 0;
}

static int write_device(struct store *s, void *arg)
{
	const struct attach *a = arg;
	struct xs_permissions frontend_perms[2] = {
		{.id = a->domid, .perms = XS_PERM_NONE},
		{.id = a->be->self, .perms = XS_PERM_READ},
	};
	struct xs_permissions backend_perms[2] = {
		{.id = a->be->self, .perms = XS_PERM_NONE},
		{.id = a->domid, .perms = XS_PERM_READ},
	};
	char vdev[32], home[STORE_PATH_MAX];
	int rc;

	/* It may have ended meanwhile; its tree must not come back. */
	snprintf(home, sizeof(home), "/local/domain/%u", a->domid);
	if (!store_exists(s, home))
		return -ENOENT;
	if (store_exists(s, a->front) || store_exists(s, a->back))
		return -EEXIST;
	vdev_format(a->devid, vdev, sizeof(vdev));
	if ((rc = make_dir(s, a->front, frontend_perms, 2)) ||
	    (rc = make_dir(s, a->back, backend_perms, 2)) ||
	    (rc = store_write(s, a->back, "frontend", "%s", a->front)) ||
	    (rc = store_write(s, a->back, "frontend-id", "%u", a->domid)) ||
	    (rc = store_write(s, a->back, "online", "1")) ||
	    (rc = store_write(s, a->back, "removable", "0")) ||
	    (rc = store_write(s, a->back, "dev", "%s", vdev)) ||
	    (rc = store_write(s, a->back, "mode", "%s", a->readonly ? "r" : "w")) ||
	    (rc = store_write(s, a->back, "device-type", "disk")) ||
	    (rc = store_write(s, a->back, "sluice", "%s", a->be->opts.instance)) ||
	    (rc = store_write(s, a->back, "params", "%s", a->target)) ||
	    (rc = store_write(s, a->back, "state", "%d", XENBUS_INITIALISING)) ||
	    (rc = store_write(s, a->front, "backend", "%s", a->back)) ||
	    (rc = store_write(s, a->front, "backend-id", "%u", a->be->self)) ||
	    (rc = store_write(s, a->front, "virtual-device", "%u", a->devid)) ||
	    (rc = store_write(s, a->front, "device-type", "disk")))
		return rc;
	return store_write(s, a->front, "state", "%d", XENBUS_INITIALISING);
}

int xen_backend_attach(struct xen_backend *be, const struct xen_attach *want, const char **kind,
		       struct err *err)
{
	char target[TARGET_MAX];
	struct attach a = {
		.be = be,
		.kind = be->opts.kinds[0],
		.target = target,
		.domid = want->domid,
		.devid = want->devid,
		.readonly = want->readonly,
	};
	struct bdev *b = bdev_find(want->target.bdev);
	char vdev[32];
	int rc;

	if (!b)
		return err_set(err, -ENOENT, "no bdev named %s: make it with 'sluice bdev create'",
			       want->target.bdev);
	/* Would it be ours if we asked? Nothing comes between: this thread alone claims. */
	rc = bdev_claim(b, !want->readonly, want->target.shared, err);
	if (rc)
		return rc;
	bdev_release(b);
	rc = xen_backend_check_sharing(be, b, &want->target, err);
	if (rc)
		return rc;
	target_format(&want->target, target);
	vdev_format(a.devid, vdev, sizeof(vdev));
	snprintf(a.front, sizeof(a.front), "/local/domain/%u/device/vbd/%u", a.domid, a.devid);
	snprintf(a.back, sizeof(a.back), "/local/domain/%u/backend/%s/%u/%u", be->self, a.kind,
		 a.domid, a.devid);
	rc = store_transact(&be->store, write_device, &a);
	if (rc == -EEXIST)
		return err_set(err, rc, "domain %u has a disk %s already: choose another name",
			       a.domid, vdev);
	if (rc)
		return err_set(err, rc, "cannot write disk %s of domain %u to xenstore: %s", vdev,
			       a.domid, strerror(-rc));
	*kind = a.kind;
	xen_backend_meet(be, a.kind, a.domid, a.devid);
	evaluate_dirty(be);
	return 0;
}

static void tell_waiter(struct reactor_msg *msg)
{
	struct vbd_waiter *w = container_of(msg, struct vbd_waiter, msg);

	w->done(w->arg, w->error);
	free(w);
}

static struct vbd_waiter *make_waiter(void (*done)(void *arg, const char *error), void *arg)
{
	struct vbd_waiter *w = calloc(1, sizeof(*w));

	if (w)
		*w = (struct vbd_waiter){.msg = {.fn = tell_waiter}, .done = done, .arg = arg};
	return w;
}

/* The disk an administrator has named; NULL with the reason. */
static struct vbd *find_named(struct xen_backend *be, uint32_t domid, uint32_t devid,
			      struct err *err)
{
	struct vbd *v = find_vbd(be, NULL, domid, devid);
	char vdev[32];

	vdev_format(devid, vdev, sizeof(vdev));
	if (!v)
		err_set(err, -ENOENT, "domain %u has no disk %s of ours: see 'sluice list'", domid,
			vdev);
	return v;
}

/* As a toolstack would ask; our own evaluation then obeys. */
static int write_detach(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	uint32_t state;
	int rc = store_read_u32(s, v->dir, "state", XENBUS_STATES - 1, &state);

	if (rc)
		return rc;
	rc = store_write(s, v->dir, "online", "0");
	return rc ? rc : store_write(s, v->dir, "state", "%d", XENBUS_CLOSING);
}

int xen_backend_detach(struct xen_backend *be, uint32_t domid, uint32_t devid, bool force,
		       void (*gone)(void *arg, const char *error), void *arg, struct err *err)
{
	struct vbd *v = find_named(be, domid, devid, err);
	struct vbd_waiter *w;
	char vdev[32];
	int rc;

	if (!v)
		return -ENOENT;
	vdev_format(devid, vdev, sizeof(vdev));
	if (v->waiter)
		return err_set(err, -EBUSY,
			       "disk %s of domain %u is being detached already: wait, or end "
			       "the first one",
			       vdev, domid);
	w = make_waiter(gone, arg);
	if (!w)
		return err_set(err, -ENOMEM, "no memory");
	rc = force ? 0 : store_transact(&be->store, write_detach, v);
	if (rc) {
		free(w);
		return err_set(err, rc, "cannot ask for the end of disk %s of domain %u: %s", vdev,
			       domid, strerror(-rc));
	}
	v->waiter = w;
	if (force)
		v->force = true;
	else
		v->detach = true;
	v->dirty = true;
	evaluate_dirty(be);
	return 0;
}

bool xen_backend_forget_detach(struct xen_backend *be, uint32_t domid, uint32_t devid, void *arg)
{
	struct vbd *v = find_vbd(be, NULL, domid, devid);

	if (!v || !v->waiter || v->waiter->arg != arg)
		return false;
	free(v->waiter);
	v->waiter = NULL;
	return true;
}

int xen_backend_pause(struct xen_backend *be, uint32_t domid, uint32_t devid,
		      void (*quiet)(void *arg, const char *error), void *arg, struct err *err)
{
	struct vbd *v = find_named(be, domid, devid, err);
	struct vbd_waiter *w;
	char vdev[32];

	if (!v)
		return -ENOENT;
	vdev_format(devid, vdev, sizeof(vdev));
	if (v->pause_waiter)
		return err_set(err, -EBUSY,
			       "disk %s of domain %u is being paused already: its device has not "
			       "finished what it has begun",
			       vdev, domid);
	w = make_waiter(quiet, arg);
	if (!w || vbd_pause(v, w)) {
		free(w);
		return err_set(err, -ENOMEM, "no memory");
	}
	return 0;
}

int xen_backend_resume(struct xen_backend *be, uint32_t domid, uint32_t devid, struct err *err)
{
	struct vbd *v = find_named(be, domid, devid, err);
	int rc;

	if (!v)
		return -ENOENT;
	rc = vbd_resume(v);
	return rc ? err_set(err, rc,
			    "the disk goes on, if there is memory, but its key sluice-paused stays "
			    "in "
			    "xenstore: %s",
			    strerror(-rc))
		  : 0;
}

int xen_backend_get_limits(struct xen_backend *be, uint32_t domid, uint32_t devid,
			   struct xen_limits *limits, struct err *err)
{
	const struct vbd *v = find_named(be, domid, devid, err);

	if (!v)
		return -ENOENT;
	limits->ios_per_sec = v->ios_per_sec;
	limits->bytes_per_sec = v->bytes_per_sec;
	return 0;
}

int xen_backend_set_limits(struct xen_backend *be, uint32_t domid, uint32_t devid,
			   const struct xen_limits *limits, struct err *err)
{
	struct vbd *v = find_named(be, domid, devid, err);
	int rc;

	if (!v)
		return -ENOENT;
	rc = vbd_set_limits(v, limits->ios_per_sec, limits->bytes_per_sec);
	return rc ? err_set(err, rc,
			    "the limits hold, but not beyond the daemon's end: they cannot be "
			    "written to xenstore: %s",
			    strerror(-rc))
		  : 0;
}
