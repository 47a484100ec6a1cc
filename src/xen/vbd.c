/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/vbd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "xen/host.h"
#include "xen/internal.h"
#include "xen/vbd_store.h"
#include "xen/vdev.h"

/* The kernel's backend takes a new vbd within milliseconds, if it is loaded. */
#define KERNEL_TAKES_NS (2 * NSEC_PER_SEC)
#define KERNEL_LOOK_NS  (20 * NSEC_PER_MSEC)

struct vbd *vbd_create(struct xen_backend *be, const char *kind, uint32_t domid, uint32_t devid)
{
	struct vbd *v = calloc(1, sizeof(*v));
	char vdev[32];

	if (!v)
		return NULL;
	v->guest = xen_backend_get_guest(be, domid);
	if (!v->guest) {
		free(v);
		return NULL;
	}
	v->be = be;
	v->domid = domid;
	v->devid = devid;
	v->first_seen_ns = clock_now_ns();
	snprintf(v->kind, sizeof(v->kind), "%s", kind);
	snprintf(v->dir, sizeof(v->dir), "/local/domain/%u/backend/%s/%u/%u", be->self, kind, domid,
		 devid);
	snprintf(v->frontend, sizeof(v->frontend), "/local/domain/%u/device/vbd/%u", domid, devid);
	vdev_format(devid, vdev, sizeof(vdev));
	snprintf(v->label, sizeof(v->label), "%s of domain %u", vdev, domid);
	list_add_tail(&be->vbds, &v->node);
	return v;
}

void vbd_look_again(struct vbd *v, uint64_t delay_ns)
{
	v->dirty = true;
	xen_backend_retry_later(v->be, delay_ns);
}

static void go_to_state(struct vbd *v, uint32_t state)
{
	vbd_write_state(v, state);
	if (v->state != state)
		vbd_look_again(v, VBD_RETRY_NS);
}

static void release_bdev(struct vbd *v)
{
	if (!v->bdev)
		return;
	bdev_release(v->bdev);
	v->bdev = NULL;
}

void vbd_destroy(struct vbd *v)
{
	char path[STORE_PATH_MAX + 8];

	snprintf(path, sizeof(path), "%s/state", v->frontend);
	xs_unwatch(v->be->store.xs, path, v->dir);
	if (v->waiter)
		reactor_send(v->be->opts.control, &v->waiter->msg);
	if (v->pause_waiter)
		reactor_send(v->be->opts.control, &v->pause_waiter->msg);
	list_del(&v->node);
	release_bdev(v);
	if (v->moving)
		xen_backend_bdev_is_free(v->be);
	xen_backend_put_guest(v->guest);
	blkif_stats_fini(&v->past);
	free(v);
}

enum blkif_sharing vbd_get_sharing(const struct vbd *v, const struct bdev *b, bool persistent)
{
	bool keep = persistent && !v->want.not_persistent;

	switch (v->want.sharing) {
	case TARGET_SHARING_COPY:
		break;
	case TARGET_SHARING_MAP:
		return keep ? BLKIF_SHARE_PERSISTENT : BLKIF_SHARE_MAP;
	case TARGET_SHARING_DMA:
		return keep ? BLKIF_SHARE_DMA_PERSISTENT : BLKIF_SHARE_DMA;
	case TARGET_SHARING_AUTO:
		/* See "How pages are shared" in ARCHITECTURE.md for the reasons. */
		if (!b || !b->dma || !v->be->can_dma || !v->be->map_from_known)
			break;
		if (keep)
			return BLKIF_SHARE_DMA_PERSISTENT;
		if (v->be->map_from != UINT32_MAX)
			return BLKIF_SHARE_DMA;
		break;
	}
	return BLKIF_SHARE_COPY;
}

uint32_t vbd_get_dma_from(const struct vbd *v, enum blkif_sharing sharing)
{
	return v->want.sharing == TARGET_SHARING_AUTO && sharing == BLKIF_SHARE_DMA
		       ? v->be->map_from
		       : 0;
}

/* The frontend broke the protocol: it is told by Closing, and may come back once it has closed. */
static void fail(struct vbd *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct vbd *v, const char *fmt, ...)
{
	char text[sizeof(v->error)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	vbd_set_error(v, "%s", text);
	v->adopting = false;
	go_to_state(v, XENBUS_CLOSING);
}

/* What to serve */

static void read_options(struct vbd *v)
{
	struct store *s = &v->be->store;
	char *params = store_read(s, v->dir, "params");

	snprintf(v->params, sizeof(v->params), "%s", params ? params : "");
	/* One that does not fit is no target; nor is what is left of it. */
	if (params && strlen(params) >= sizeof(v->params))
		v->params[0] = '\0';
	free(params);
	parse_make_printable(v->params);
	v->readonly = !store_equals(s, v->dir, "mode", "w");
	v->cdrom = store_equals(s, v->dir, "device-type", "cdrom");
	v->removable = store_equals(s, v->dir, "removable", "1");
	v->discard = !store_equals(s, v->dir, "discard-enable", "0");
}

/* What an administrator has set while the disk was served outlives us, in its directory. */
static void read_settings(struct vbd *v)
{
	v->ios_per_sec = v->want.ios_per_sec;
	v->bytes_per_sec = v->want.bytes_per_sec;
	vbd_read_settings(v, &v->paused, &v->ios_per_sec, &v->bytes_per_sec);
	blkif_limiter_set(&v->limiter, v->ios_per_sec, v->bytes_per_sec);
}

/* Follows the toolstack's keys to a claimed bdev; says in xenstore how that went. */
static void find_bdev(struct vbd *v)
{
	struct bdev *b;
	struct err err;
	int rc;

	if (v->bdev)
		return;
	read_options(v);
	rc = target_parse(v->params, &v->want, &err);
	if (rc)
		goto refuse;
	read_settings(v);
	b = bdev_find(v->want.bdev);
	if (!b) {
		err_set(&err, -ENOENT, "no bdev named %s: make it with 'sluice bdev create'",
			v->want.bdev);
		goto refuse;
	}
	rc = xen_backend_is_reserved(v->be, v->want.bdev, v)
		     ? err_set(&err, -EBUSY,
			       "bdev %s is in use by a guest that is moving: wait, or choose "
			       "another",
			       v->want.bdev)
		     : bdev_claim(b, !v->readonly, v->want.shared, &err);
	if (rc == -EBUSY && xen_backend_is_moving(v->be, b, v)) {
		/* The toolstack moves it: the other lets go of it before this one runs for long. */
		if (!v->moving)
			log_info("%s: waits for bdev %s until the domain that it moves from has "
				 "ended",
				 v->label, v->want.bdev);
		v->moving = true;
		vbd_clear_error(v);
		vbd_set_status(v, true);
		return;
	}
	if (!rc) {
		rc = xen_backend_check_sharing(v->be, b, &v->want, &err);
		if (rc)
			bdev_release(b);
	}
	if (rc)
		goto refuse;
	v->moving = false;
	v->bdev = b;
	vbd_clear_error(v);
	vbd_set_status(v, true);
	return;
refuse:
	v->moving = false;
	vbd_set_error(v, "%s", err.text);
	vbd_set_status(v, false);
}

/* The kernel's backend */

/* Whether the kernel's backend has let go of it, or never had it; else look again later. */
static bool take_from_kernel(struct vbd *v, uint32_t state)
{
	char device[32];
	struct err err;

	if (strcmp(v->kind, "vbd"))
		return true;
	snprintf(device, sizeof(device), "vbd-%u-%u", v->domid, v->devid);
	switch (xen_host_kernel_has(v->be->opts.root, device)) {
	case 1:
		if (xen_host_kernel_release(v->be->opts.root, device, &err)) {
			vbd_set_error(v, "%s", err.text);
			vbd_set_status(v, false);
			vbd_look_again(v, VBD_RETRY_NS);
			return false;
		}
		log_debug("%s: taken from the kernel's backend", v->label);
		v->kernel_offered = true;
		return true;
	case 0:
		/*
		 * Its driver is there and takes any new device: we must come after it, or it would
		 * come after us. One that is further than new, it has had already.
		 */
		if (state > XENBUS_INITIALISING ||
		    clock_now_ns() - v->first_seen_ns > KERNEL_TAKES_NS)
			return true;
		vbd_look_again(v, KERNEL_LOOK_NS);
		return false;
	default:
		return true;
	}
}

/*
 * The kernel's backend, loaded only now, takes all devices that have no driver: this one may be
 * among them. Returns whether it was; then the device has been taken back.
 */
static bool kernel_has_come(struct vbd *v)
{
	char device[32];

	snprintf(device, sizeof(device), "vbd-%u-%u", v->domid, v->devid);
	return !strcmp(v->kind, "vbd") && xen_host_kernel_has(v->be->opts.root, device) == 1 &&
	       take_from_kernel(v, v->state);
}

/* Actions */

static void prepare(struct vbd *v)
{
	int rc = vbd_write_offer(v);

	if (rc == -ENOENT || rc == -ECANCELED)
		return;
	if (rc) {
		vbd_set_error(v, "cannot write the offer to xenstore: %s", strerror(-rc));
		vbd_look_again(v, VBD_RETRY_NS);
		return;
	}
	log_debug("%s: %s -> InitWait", v->label, xenbus_state_name(v->state));
	v->state = XENBUS_INIT_WAIT;
	v->refused = false; /* a frontend that starts anew has no requests from before */
}

/* Adopting did not work. Nothing was served, nothing is lost: the guest waits, and we try again. */
static void refuse_for_now(struct vbd *v, const char *why)
{
	vbd_set_error(v, "cannot go on with the guest's ring: %s", why);
	v->adopting = false;
	v->refused = true;
	v->adopt_after_ns = clock_now_ns() + VBD_RETRY_NS;
	vbd_look_again(v, VBD_RETRY_NS);
}

/* It was paused or resumed while its queues started. */
static void follow_pause(struct vbd *v)
{
	int rc = v->paused ? vbd_pause_queues(v) : vbd_resume(v);

	if (rc == -ENOMEM) {
		vbd_set_error(v, "no memory to pause or resume it");
		v->faulty = true;
	}
}

static void conn_started(void *arg, int rc)
{
	struct vbd *v = arg;
	const char *why = strerror(-rc);

	if (v->bdev->dma && (rc == -ENOMEM || rc == -ENOSPC))
		why = "no device memory is left for its queues (raise --device-memory-mib; the log "
		      "has more)";
	v->phase = VBD_SERVING;
	if (rc) {
		connection_destroy(v->conn);
		v->conn = NULL;
		v->phase = VBD_IDLE;
		vbd_tell_quiet(v);
		if (v->adopting) {
			vbd_write_mark(v);
			refuse_for_now(v, why);
		} else {
			fail(v, "cannot open the device: %s", why);
		}
		goto out;
	}
	if (v->faulty)
		goto out; /* its frontend broke a ring already */
	/* One that was adopted has all keys and its state, be it that it was asked to close. */
	if (!v->adopting)
		rc = vbd_write_connected(v);
	if (rc == -ENOENT || rc == -ECANCELED) {
		v->adopting = false;
		goto out;
	}
	if (rc) {
		vbd_set_error(v, "cannot write to xenstore: %s", strerror(-rc));
		v->faulty = true;
		goto out;
	}
	log_limited(&v->log_limit, LOG_LEVEL_INFO, "%s: connected to bdev %s%s%s", v->label,
		    v->want.bdev, v->readonly ? ", read-only" : "", v->adopting ? ", adopted" : "");
	if (v->state != XENBUS_CLOSING)
		v->state = XENBUS_CONNECTED;
	v->adopting = false;
	vbd_clear_error(v);
	vbd_follow_size(v);
	if (v->paused != v->started_paused || v->pause_waiter)
		follow_pause(v);
out:
	if (v->be->draining && v->conn) {
		vbd_drain(v);
		return;
	}
	if (v->be->draining)
		xen_backend_vbd_stopped(v->be);
	vbd_evaluate(v);
}

static void conn_stopped(void *arg)
{
	struct vbd *v = arg;

	blkif_connection_add_stats(connection_get_rings(v->conn), &v->past);
	connection_destroy(v->conn);
	v->conn = NULL;
	v->phase = VBD_IDLE;
	v->trouble = 0;
	vbd_tell_quiet(v);
	log_limited(&v->log_limit, LOG_LEVEL_INFO, "%s: disconnected", v->label);
	if (v->be->draining) {
		if (!v->faulty)
			vbd_write_mark(v);
		xen_backend_vbd_stopped(v->be);
		return;
	}
	vbd_evaluate(v);
}

static void conn_broken(void *arg)
{
	struct vbd *v = arg;

	vbd_set_error(v, "the frontend broke its ring: disconnected");
	v->faulty = true;
	vbd_evaluate(v);
}

static void start_connection(struct vbd *v)
{
	struct xen_backend *be = v->be;
	struct connection_keys keys;
	struct connection_opts opts = {
		.lanes = be->lanes,
		.nr_lanes = be->opts.nr_reactors,
		.first_lane = be->next_lane,
		.keys = &keys,
		.gnttab = be->gnttab,
	};
	struct blkif_queue_opts *queue = &opts.rings.queue;
	struct err err;
	int rc;

	opts.rings = (struct blkif_connection_opts){
		.control = be->opts.control,
		.log_limits = v->data_log_limits,
		.started = conn_started,
		.stopped = conn_stopped,
		.broken = conn_broken,
		.troubled = vbd_take_trouble,
		.arg = v,
	};
	*queue = (struct blkif_queue_opts){
		.bdev = bdev_sectors(v->bdev),
		.limits = vbd_get_limits(v, bdev_sectors(v->bdev)),
		.peer = v->domid,
		.guest = &v->guest->share,
		.limiter = &v->limiter,
		.on_error = v->want.on_error,
		.retry_ns = v->want.retry_s * NSEC_PER_SEC,
		.paused = v->paused,
		.spin_max_ns = be->opts.spin_max_ns,
		.label = v->label,
	};
	v->stirred = false;
	rc = vbd_read_keys(v, &keys, &err);
	if (rc && rc != -EINVAL && !v->adopting) {
		vbd_set_error(v, "%s", err.text);
		vbd_look_again(v, VBD_RETRY_NS);
		return;
	}
	queue->sharing = vbd_get_sharing(v, v->bdev, keys.persistent);
	queue->dma_from_bytes = vbd_get_dma_from(v, queue->sharing);
	if (!rc)
		rc = connection_create(&opts, &v->conn, &err);
	/* From here on it is not clean: if we die, nobody must believe that we had drained. */
	if (!rc && v->adopting) {
		rc = vbd_remove_mark(v);
		if (rc) {
			err_set(&err, rc, "cannot take the clean mark: %s", strerror(-rc));
			connection_destroy(v->conn);
			v->conn = NULL;
		}
	}
	if (rc && v->adopting) {
		refuse_for_now(v, err.text);
		return;
	}
	if (rc) {
		fail(v, "%s", err.text);
		return;
	}
	if (!v->adopting)
		v->sectors = queue->limits.sectors;
	v->started_paused = v->paused;
	v->gave_up = false;
	be->next_lane = (be->next_lane + keys.nr_queues) % be->opts.nr_reactors;
	v->phase = VBD_STARTING;
	blkif_connection_start(connection_get_rings(v->conn));
}

/* Connects once the toolstack's script agrees and there is something to serve. */
static void connect_vbd(struct vbd *v)
{
	if (!v->bdev)
		return;
	if (!v->adopting && vbd_has_key(v, "script") &&
	    !store_equals(&v->be->store, v->dir, "hotplug-status", "connected"))
		return;
	start_connection(v);
}

static void disconnect(struct vbd *v)
{
	v->phase = VBD_STOPPING;
	blkif_connection_stop(connection_get_rings(v->conn), v->be->draining);
}

static void check_keys(struct vbd *v)
{
	struct connection_keys keys;
	struct err err;

	if (!v->conn) {
		/* What it has offered meanwhile is not ours: we begin again. */
		if (v->state != XENBUS_CONNECTED && kernel_has_come(v))
			prepare(v);
		else
			connect_vbd(v);
		return;
	}
	/* There are many of them, and most of what makes us look is nothing of the frontend's. */
	if (!v->stirred)
		return;
	/* Keys that cannot be read now, or make no sense, are no reason to take a disk away. */
	if (vbd_read_keys(v, &keys, &err))
		return;
	v->stirred = false;
	if (!connection_has_keys(v->conn, &keys))
		disconnect(v);
}

/* Removes what the frontend or the toolstack has left of us. */
static void remove_from_store(struct vbd *v, bool frontend_too)
{
	int rc = store_remove(&v->be->store, v->dir, NULL);

	if (!rc && frontend_too)
		rc = store_remove(&v->be->store, v->frontend, NULL);
	if (rc)
		log_error("%s: cannot remove it from xenstore: %s", v->label, strerror(-rc));
}

/* The first look at a device */

/* A device that was connected when we came: a predecessor's guest. */
static void find_clean_mark(struct vbd *v)
{
	uint64_t sectors = 0, now_ns = clock_now_ns();
	bool marked = vbd_read_mark(v, &sectors);

	/* Closing without a mark: it was disconnected already, or is no worse off than that. */
	if (!marked && v->state == XENBUS_CLOSING)
		return;
	v->refused = true;
	if (!v->bdev)
		return; /* that error is said; the mark stays until it can be taken */
	if (now_ns < v->adopt_after_ns) {
		vbd_look_again(v, v->adopt_after_ns - now_ns);
		return;
	}
	if (!marked) {
		vbd_set_error(
			v,
			"a guest is connected, but the sluiced before this one left no clean mark: "
			"it ended without draining, and requests may be lost; not served (shut "
			"the guest down, or detach the disk with --force)");
		return;
	}
	if (sectors > bdev_get_size(v->bdev) / BLKIF_SECTOR_SIZE) {
		vbd_set_error(
			v,
			"a guest is connected to a disk of %lu sectors, but bdev %s has %lu now; "
			"not "
			"served (give it the right bdev, or detach the disk with --force)",
			(unsigned long)sectors, v->want.bdev,
			(unsigned long)(bdev_get_size(v->bdev) / BLKIF_SECTOR_SIZE));
		return;
	}
	v->sectors = sectors; /* it may have grown meanwhile */
	v->refused = false;
	v->adopting = true;
}

static bool first_look(struct vbd *v, uint32_t state)
{
	char path[STORE_PATH_MAX + 8];
	char *frontend;

	frontend = store_read(&v->be->store, v->dir, "frontend");
	if (frontend && strlen(frontend) < sizeof(v->frontend))
		strcpy(v->frontend, frontend);
	free(frontend);
	if (!take_from_kernel(v, state))
		return false;
	/* It may have moved on while the kernel had it. */
	if (store_read_u32(&v->be->store, v->dir, "state", XENBUS_STATES - 1, &state))
		return false;
	/* An InitWait may be the kernel's, with its own offer: ours comes in any case. */
	v->state = state <= XENBUS_INIT_WAIT ? (uint32_t)XENBUS_INITIALISING : state;
	v->seen = true;
	/* It fires once at once, and is told apart by our directory. */
	snprintf(path, sizeof(path), "%s/state", v->frontend);
	if (!xs_watch(v->be->store.xs, path, v->dir))
		log_error("%s: cannot watch %s: %s", v->label, path, strerror(errno));
	return true;
}

/* Our own state, if somebody else has written it: a toolstack that wants the disk gone, mostly. */
static void obey_own_state(struct vbd *v, uint32_t state)
{
	if (state == v->state)
		return;
	if ((state == XENBUS_CLOSING || state == XENBUS_CLOSED) && !kernel_has_come(v)) {
		log_debug("%s: the toolstack wrote %s", v->label, xenbus_state_name(state));
		v->state = state;
		return;
	}
	log_limited(
		&v->log_limit, LOG_LEVEL_WARNING,
		"%s: somebody, the kernel's xen-blkback perhaps, wrote %s as our state; it is %s",
		v->label, xenbus_state_name(state), xenbus_state_name(v->state));
	kernel_has_come(v);
	vbd_restore_state(v);
}

static void act(struct vbd *v, enum xenbus_action action)
{
	if (action == XENBUS_DO_WAIT)
		return;
	if (action == XENBUS_DO_CONNECT) {
		check_keys(v);
		return;
	}
	if (action == XENBUS_DO_CLOSING) {
		go_to_state(v, XENBUS_CLOSING);
		return;
	}
	/* All others begin with the end of the connection; then this is decided anew. */
	if (v->conn) {
		disconnect(v);
		return;
	}
	if (action == XENBUS_DO_PREPARE) {
		prepare(v);
		return;
	}
	if (v->refused) {
		v->refused = false;
		vbd_clear_error(v);
	}
	go_to_state(v, XENBUS_CLOSED);
	/*
	 * libxl removes what it has made, and takes it for an error if it is not there any more;
	 * xenopsd waits until we have removed it.
	 */
	if (action == XENBUS_DO_GONE &&
	    !(vbd_has_key(v, "script") && xen_backend_libxl_has(v->be, v->domid)))
		remove_from_store(v, false);
}

/*
 * Our directory was removed, or was @renewed for another disk, or shall go by force: what was taken
 * is answered, then the disk is forgotten.
 */
static void forget(struct vbd *v, bool renewed)
{
	struct xen_backend *be = v->be;
	uint32_t domid = v->domid, devid = v->devid;
	char kind[sizeof(v->kind)];

	if (v->conn) {
		disconnect(v);
		return;
	}
	if (v->force && !renewed)
		remove_from_store(v, true);
	strcpy(kind, v->kind);
	vbd_destroy(v);
	if (renewed) {
		xen_backend_meet(be, kind, domid, devid);
		xen_backend_retry_later(be, 0);
	}
}

void vbd_evaluate(struct vbd *v)
{
	struct store *s = &v->be->store;
	enum xenbus_action action;
	bool online;
	uint32_t state = XENBUS_UNKNOWN;
	bool renewed;
	int rc;

	if (v->be->draining || v->phase == VBD_STARTING || v->phase == VBD_STOPPING)
		return;
	rc = store_read_u32(s, v->dir, "state", XENBUS_STATES - 1, &state);
	/* Without the key that we have written, the directory was removed and made again. */
	renewed = !rc && vbd_is_renewed(v);
	if (rc == -ENOENT || renewed || v->force) {
		forget(v, renewed);
		return;
	}
	if (rc) {
		vbd_set_error(v, "our state in xenstore cannot be read: %s", strerror(-rc));
		vbd_look_again(v, VBD_RETRY_NS);
		return;
	}
	if (!v->seen) {
		if (!first_look(v, state))
			return;
		find_bdev(v);
		if (v->state == XENBUS_CONNECTED || v->state == XENBUS_CLOSING)
			find_clean_mark(v);
	} else {
		obey_own_state(v, state);
		find_bdev(v);
		if (v->refused && (v->state == XENBUS_CONNECTED || v->state == XENBUS_CLOSING))
			find_clean_mark(v);
	}
	if (v->faulty) {
		if (v->conn) {
			disconnect(v);
			return;
		}
		v->faulty = false;
		fail(v, "%s", v->error);
	}
	rc = store_read_u32(s, v->frontend, "state", XENBUS_STATES - 1, &v->frontend_state);
	if (rc == -EINVAL)
		return; /* no state at all: it may write a better one */
	if (rc == -ENOENT) {
		v->frontend_state = XENBUS_UNKNOWN;
	} else if (rc) {
		/* No news of the guest's end, only of xenstore's trouble. */
		log_limited(&v->log_limit, LOG_LEVEL_ERROR, "%s: cannot read %s/state: %s",
			    v->label, v->frontend, strerror(-rc));
		vbd_look_again(v, VBD_RETRY_NS);
		return;
	}
	if (v->adopting) {
		if (v->frontend_state >= XENBUS_INITIALISED &&
		    v->frontend_state <= XENBUS_CLOSING) {
			connect_vbd(v);
			return;
		}
		v->adopting = false; /* it has closed meanwhile */
	}
	if (v->state == XENBUS_CLOSED && v->conn) {
		disconnect(v); /* the toolstack wrote it */
		return;
	}
	online = !store_equals(s, v->dir, "online", "0");
	if (v->detach && v->state == XENBUS_CLOSED) {
		remove_from_store(v, true);
		vbd_destroy(v);
		return;
	}
	vbd_follow_size(v);
	if (v->state == XENBUS_CLOSING)
		vbd_give_up(v);
	action = xenbus_decide(v->state, v->frontend_state);
	/* A disk that is going away is not offered again. */
	if (!online && v->state == XENBUS_CLOSED && action != XENBUS_DO_GONE)
		return;
	if (v->refused && action == XENBUS_DO_CONNECT)
		return;
	act(v, action);
}

void vbd_drain(struct vbd *v)
{
	/* What is under way ends first, and then comes here or ends it. */
	if (v->phase == VBD_SERVING)
		disconnect(v);
}
