/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/vbd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/parse.h"
#include "xen/connection.h"
#include "xen/host.h"
#include "xen/internal.h"
#include "xen/vdev.h"

enum {
	/* One page for now: 32 requests of up to 1 MiB. */
	MAX_RING_PAGE_ORDER = 0,
	MAX_QUEUES = 1,
};

/* The kernel's backend takes a new vbd within milliseconds, if it is loaded. */
#define KERNEL_TAKES_NS (2 * NSEC_PER_SEC)

/* The keys that are ours alone, in the backend's directory. */
static const char key_status[] =
	"sluice-status"; /* "ready" or "error: ..."; the script waits for it */
static const char key_clean[] = "sluice-clean"; /* the clean mark: sectors of the disk */

bool vbd_parse_target(const char *target, char *bdev, char *instance, bool *shared)
{
	char text[128];
	char *comma, *at;

	if (strlen(target) >= sizeof(text))
		return false;
	strcpy(text, target);
	*shared = false;
	comma = strchr(text, ',');
	if (comma) {
		if (strcmp(comma, ",shared"))
			return false;
		*shared = true;
		*comma = '\0';
	}
	instance[0] = '\0';
	at = strchr(text, '@');
	if (at) {
		*at = '\0';
		if (!parse_name(at + 1))
			return false;
		strcpy(instance, at + 1);
	}
	if (!parse_name(text))
		return false;
	strcpy(bdev, text);
	return true;
}

struct vbd *vbd_create(struct xen_backend *be, const char *kind, uint32_t domid, uint32_t devid)
{
	struct vbd *v = calloc(1, sizeof(*v));
	char vdev[32];

	if (!v)
		return NULL;
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
	if (v->gone)
		v->gone(v->gone_arg, NULL);
	list_del(&v->node);
	release_bdev(v);
	free(v);
}

/* Keys of our directory */

struct key_write {
	const struct vbd *v;
	const char *key;
	const char *value;
};

static int write_if_there(struct store *s, void *arg)
{
	const struct key_write *w = arg;
	char *state = store_read(s, w->v->dir, "state");

	free(state);
	if (!state && errno == ENOENT)
		return -ENOENT;
	return store_write(s, w->v->dir, w->key, "%s", w->value);
}

/*
 * Writes a key, unless the toolstack has removed our directory: a write would bring it back, with
 * nobody to remove it. Then -ENOENT.
 */
static int write_key(struct vbd *v, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int write_key(struct vbd *v, const char *key, const char *fmt, ...)
{
	char value[512];
	struct key_write w = {.v = v, .key = key, .value = value};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	return store_transact(&v->be->store, write_if_there, &w);
}

/* What goes wrong with one disk */

static void set_error(struct vbd *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void set_error(struct vbd *v, const char *fmt, ...)
{
	char text[sizeof(v->error)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	parse_make_printable(text);
	if (!strcmp(text, v->error))
		return;
	snprintf(v->error, sizeof(v->error), "%s", text);
	log_limited(&v->log_limit, LOG_LEVEL_ERROR, "%s: %s", v->label, v->error);
	/* Where administrators of Xen look; nothing depends on it. */
	write_key(v, "sluice-error", "%s", v->error);
}

static void clear_error(struct vbd *v)
{
	if (!v->error[0])
		return;
	v->error[0] = '\0';
	store_remove(&v->be->store, v->dir, "sluice-error");
}

/*
 * Answers the toolstack's script: "ready", or "error" and why. Only what is new is written, since
 * each write comes back as a watch event.
 */
static void set_status(struct vbd *v, const char *status)
{
	char text[sizeof(v->status)];
	int rc;

	if (!strcmp(status, "error"))
		snprintf(text, sizeof(text), "error: %s", v->error);
	else
		snprintf(text, sizeof(text), "%s", status);
	if (!strcmp(text, v->status))
		return;
	strcpy(v->status, text);
	rc = write_key(v, key_status, "%s", v->status);
	if (rc && rc != -ENOENT)
		log_limited(&v->log_limit, LOG_LEVEL_ERROR, "%s: cannot write to xenstore: %s",
			    v->label, strerror(-rc));
}

static void write_state(struct vbd *v, uint32_t state)
{
	int rc;

	if (v->state == state)
		return;
	rc = write_key(v, "state", "%u", state);
	if (rc == -ENOENT)
		return;
	if (rc) {
		set_error(v, "cannot write state %s to xenstore: %s", xenbus_state_name(state),
			  strerror(-rc));
		return;
	}
	log_debug("%s: %s -> %s", v->label, xenbus_state_name(v->state), xenbus_state_name(state));
	v->state = state;
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
	set_error(v, "%s", text);
	v->adopting = false;
	write_state(v, XENBUS_CLOSING);
}

/* What to serve */

struct bdev *vbd_find_bdev(const char *name, struct err *err)
{
	struct bdev *b = bdev_find(name);

	if (!b) {
		err_set(err, -ENOENT, "no bdev named %s: make it with 'sluice bdev create'", name);
	} else if (b->limits.block_size != BLKIF_SECTOR_SIZE) {
		err_set(err, -EINVAL,
			"bdev %s has blocks of %u bytes, and guests need 512: use a device or file "
			"with 512-byte blocks",
			name, b->limits.block_size);
		b = NULL;
	}
	return b;
}

/* Follows the toolstack's keys to a claimed bdev; says in xenstore how that went. */
static void find_bdev(struct vbd *v)
{
	struct store *s = &v->be->store;
	char instance[64];
	char *target;
	struct err err;
	int rc;

	if (v->bdev)
		return;
	target = store_read(s, v->dir, "params");
	snprintf(v->target, sizeof(v->target), "%s", target ? target : "");
	free(target);
	parse_make_printable(v->target);
	v->readonly = !store_equals(s, v->dir, "mode", "w");
	if (!vbd_parse_target(v->target, v->bdev_name, instance, &v->shared)) {
		err_set(&err, -EINVAL, "bad target '%s': write BDEV[@INSTANCE][,shared]",
			v->target);
		goto refuse;
	}
	v->bdev = vbd_find_bdev(v->bdev_name, &err);
	if (!v->bdev)
		goto refuse;
	rc = bdev_claim(v->bdev, !v->readonly, v->shared, &err);
	if (rc) {
		v->bdev = NULL;
		goto refuse;
	}
	clear_error(v);
	set_status(v, "ready");
	return;
refuse:
	set_error(v, "%s", err.text);
	set_status(v, "error");
}

static struct blkif_limits limits_of(const struct vbd *v)
{
	const struct bdev_limits *b = &v->bdev->limits;
	uint64_t segments = BLKIF_MAX_SEGMENTS;

	if (b->max_iov && b->max_iov < segments)
		segments = b->max_iov;
	if (b->max_io && b->max_io / BLKIF_PAGE_SIZE < segments)
		segments = b->max_io / BLKIF_PAGE_SIZE;
	return (struct blkif_limits){
		.sectors = v->bdev->size / BLKIF_SECTOR_SIZE,
		.max_indirect_segments =
			segments > BLKIF_MAX_DIRECT_SEGMENTS ? (uint16_t)segments : 0,
		.readonly = v->readonly,
		.flush = true,
	};
}

/* Actions */

/*
 * Whether our directory is still as we know it, within the transaction that is to write there:
 * -ENOENT if it was removed, and writing would bring it back; -ECANCELED if the toolstack has asked
 * us to close, and writing our state would undo that. In both cases a watch event is on its way.
 */
static int check_ours(struct store *s, const struct vbd *v)
{
	uint32_t state;
	int rc = store_read_u32(s, v->dir, "state", XENBUS_STATES - 1, &state);

	if (rc)
		return rc == -EINVAL ? 0 : rc;
	if (state != v->state && (state == XENBUS_CLOSING || state == XENBUS_CLOSED))
		return -ECANCELED;
	return 0;
}

static int write_offer(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	uint16_t segments = v->bdev ? limits_of(v).max_indirect_segments : BLKIF_MAX_SEGMENTS;
	int rc = check_ours(s, v);

	if (rc)
		return rc;
	/* Not what the kernel's backend may have offered before we took the device from it. */
	if ((rc = store_write(s, v->dir, "max-ring-page-order", "%d", MAX_RING_PAGE_ORDER)) ||
	    (rc = store_write(s, v->dir, "multi-queue-max-queues", "%d", MAX_QUEUES)) ||
	    (rc = store_write(s, v->dir, "feature-persistent", "0")))
		return rc;
	if (segments)
		rc = store_write(s, v->dir, "feature-max-indirect-segments", "%u", segments);
	else
		rc = store_remove(s, v->dir, "feature-max-indirect-segments");
	return rc ? rc : store_write(s, v->dir, "state", "%u", XENBUS_INIT_WAIT);
}

static void prepare(struct vbd *v)
{
	int rc = store_transact(&v->be->store, write_offer, v);

	if (rc == -ENOENT || rc == -ECANCELED)
		return;
	if (rc) {
		set_error(v, "cannot write the offer to xenstore: %s", strerror(-rc));
		return;
	}
	log_debug("%s: %s -> InitWait", v->label, xenbus_state_name(v->state));
	v->state = XENBUS_INIT_WAIT;
	v->refused = false; /* a frontend that starts anew has no requests from before */
}

static int write_connected(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	int rc = check_ours(s, v);

	if (rc)
		return rc;
	if ((rc = store_write(s, v->dir, "feature-flush-cache", "1")) ||
	    (rc = store_write(s, v->dir, "feature-barrier", "0")) ||
	    (rc = store_write(s, v->dir, "feature-discard", "0")) ||
	    (rc = store_write(s, v->dir, "sectors", "%lu",
			      (unsigned long)(v->bdev->size / BLKIF_SECTOR_SIZE))) ||
	    (rc = store_write(s, v->dir, "sector-size", "%d", BLKIF_SECTOR_SIZE)) ||
	    (rc = store_write(s, v->dir, "physical-sector-size", "%u",
			      v->bdev->limits.physical_block_size)) ||
	    (rc = store_write(s, v->dir, "info", "%d", v->readonly ? 4 : 0)))
		return rc;
	return store_write(s, v->dir, "state", "%u", XENBUS_CONNECTED);
}

/* A key that, where there is one, must be a number up to @max. */
static int optional_u32(struct vbd *v, const char *key, uint32_t max, uint32_t absent,
			uint32_t *value, struct err *err)
{
	int rc = store_read_u32(&v->be->store, v->frontend, key, max, value);

	if (rc == -ENOENT) {
		*value = absent;
		return 0;
	}
	return rc ? err_set(err, -EINVAL, "the frontend's key %s is no number up to %u", key, max)
		  : 0;
}

static int read_keys(struct vbd *v, struct connection_keys *keys, struct err *err)
{
	struct store *s = &v->be->store;
	uint32_t queues, order;
	const char *ring_key;
	char *protocol;
	int rc;

	rc = optional_u32(v, "multi-queue-num-queues", MAX_QUEUES, 1, &queues, err);
	if (rc)
		return rc;
	if (!queues)
		return err_set(err, -EINVAL, "the frontend wants 0 queues");
	rc = optional_u32(v, "ring-page-order", MAX_RING_PAGE_ORDER, UINT32_MAX, &order, err);
	if (rc)
		return rc;
	protocol = store_read(s, v->frontend, "protocol");
	if (!protocol && errno != ENOENT)
		return err_set(err, -EINVAL, "the frontend's key protocol cannot be read");
	keys->layout = blkif_layout_find(protocol);
	free(protocol);
	if (!keys->layout)
		return err_set(err, -EINVAL,
			       "the frontend's protocol is neither x86_32-abi nor x86_64-abi");
	/* A frontend that says how many pages it has numbers them. */
	ring_key = order == UINT32_MAX ? "ring-ref" : "ring-ref0";
	if (store_read_u32(s, v->frontend, ring_key, UINT32_MAX, &keys->ring_ref))
		return err_set(err, -EINVAL, "the frontend's key %s is missing or no number",
			       ring_key);
	if (store_read_u32(s, v->frontend, "event-channel", UINT32_MAX, &keys->event_channel))
		return err_set(err, -EINVAL,
			       "the frontend's key event-channel is missing or no number");
	return 0;
}

static void conn_started(void *arg, int rc)
{
	struct vbd *v = arg;

	v->phase = VBD_SERVING;
	if (rc) {
		connection_destroy(v->conn);
		v->conn = NULL;
		v->phase = VBD_IDLE;
		fail(v, "cannot open the device: %s", strerror(-rc));
		goto out;
	}
	/* One that was adopted in Closing stays so: it has all keys, and was asked to close. */
	if (v->state != XENBUS_CLOSING)
		rc = store_transact(&v->be->store, write_connected, v);
	if (rc == -ENOENT || rc == -ECANCELED) {
		v->adopting = false;
		goto out;
	}
	if (rc) {
		set_error(v, "cannot write to xenstore: %s", strerror(-rc));
		v->faulty = true;
		goto out;
	}
	log_info("%s: connected to bdev %s%s%s", v->label, v->bdev_name,
		 v->readonly ? ", read-only" : "", v->adopting ? ", adopted" : "");
	if (v->state != XENBUS_CLOSING)
		v->state = XENBUS_CONNECTED;
	v->adopting = false;
	clear_error(v);
out:
	if (v->be->draining && v->conn) {
		vbd_drain(v);
		return;
	}
	if (v->be->draining)
		xen_backend_vbd_stopped(v->be);
	vbd_evaluate(v);
}

/* Left by a daemon that drained; gone when somebody serves the ring. */
static void write_clean_mark(struct vbd *v)
{
	int rc;

	/* A guest that was asked to close may have the disk in use for as long as it likes. */
	if (v->state != XENBUS_CONNECTED && v->state != XENBUS_CLOSING)
		return;
	if (v->bdev->limits.volatile_data) {
		log_warning("%s: bdev %s lives in this daemon's memory; the guest's disk ends here",
			    v->label, v->bdev_name);
		return;
	}
	rc = write_key(v, key_clean, "%lu", (unsigned long)(v->bdev->size / BLKIF_SECTOR_SIZE));
	if (rc && rc != -ENOENT)
		log_error("%s: cannot leave the clean mark: %s", v->label, strerror(-rc));
}

static void conn_stopped(void *arg)
{
	struct vbd *v = arg;

	connection_add_stats(v->conn, &v->past);
	connection_destroy(v->conn);
	v->conn = NULL;
	v->phase = VBD_IDLE;
	log_info("%s: disconnected", v->label);
	if (v->be->draining) {
		if (!v->faulty)
			write_clean_mark(v);
		xen_backend_vbd_stopped(v->be);
		return;
	}
	vbd_evaluate(v);
}

static void conn_broken(void *arg)
{
	struct vbd *v = arg;

	set_error(v, "the frontend broke its ring: disconnected");
	v->faulty = true;
	vbd_evaluate(v);
}

static void start_connection(struct vbd *v)
{
	struct xen_backend *be = v->be;
	struct connection_opts opts = {
		.control = be->opts.control,
		.lane = &be->lanes[be->next_lane % be->opts.nr_reactors],
		.gnttab = be->gnttab,
		.domid = v->domid,
		.bdev = v->bdev,
		.limits = limits_of(v),
		.spin_max_ns = be->opts.spin_max_ns,
		.label = v->label,
		.started = conn_started,
		.stopped = conn_stopped,
		.broken = conn_broken,
		.arg = v,
	};
	struct err err;

	if (read_keys(v, &opts.keys, &err) || connection_create(&opts, &v->conn, &err)) {
		fail(v, "%s", err.text);
		return;
	}
	be->next_lane++;
	v->phase = VBD_STARTING;
}

/* Connects once the toolstack's script agrees and there is something to serve. */
static void connect_vbd(struct vbd *v)
{
	struct store *s = &v->be->store;
	char path[STORE_PATH_MAX + 8];

	if (!v->bdev)
		return;
	snprintf(path, sizeof(path), "%s/script", v->dir);
	if (!v->adopting && store_exists(s, path) &&
	    !store_equals(s, v->dir, "hotplug-status", "connected"))
		return;
	start_connection(v);
}

static void disconnect(struct vbd *v)
{
	v->phase = VBD_STOPPING;
	connection_stop(v->conn);
}

static void check_keys(struct vbd *v)
{
	const struct connection_keys *now;
	struct connection_keys keys;
	struct err err;

	if (!v->conn) {
		connect_vbd(v);
		return;
	}
	now = connection_get_keys(v->conn);
	if (!read_keys(v, &keys, &err) && keys.ring_ref == now->ring_ref &&
	    keys.event_channel == now->event_channel && keys.layout == now->layout)
		return;
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

static void act(struct vbd *v, enum xenbus_action action)
{
	switch (action) {
	case XENBUS_DO_WAIT:
		return;
	case XENBUS_DO_PREPARE:
		prepare(v);
		return;
	case XENBUS_DO_CONNECT:
	case XENBUS_DO_CHECK:
		check_keys(v);
		return;
	case XENBUS_DO_RESTART:
		if (v->conn)
			disconnect(v);
		else
			prepare(v);
		return;
	case XENBUS_DO_CLOSING:
		write_state(v, XENBUS_CLOSING);
		return;
	case XENBUS_DO_CLOSE:
		if (v->conn) {
			disconnect(v);
			return;
		}
		v->refused = false;
		clear_error(v);
		write_state(v, XENBUS_CLOSED);
		return;
	case XENBUS_DO_GONE:
		if (v->conn) {
			disconnect(v);
			return;
		}
		write_state(v, XENBUS_CLOSED);
		remove_from_store(v, false);
		return;
	}
}

/* The first look at a device */

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
			set_error(v, "%s", err.text);
			set_status(v, "error");
			return false;
		}
		log_debug("%s: taken from the kernel's backend", v->label);
		return true;
	case 0:
		/*
		 * Its driver is there and takes any new device: we must come after it, or it would
		 * come after us. One that is further than new, it has had already.
		 */
		if (state > XENBUS_INITIALISING ||
		    clock_now_ns() - v->first_seen_ns > KERNEL_TAKES_NS)
			return true;
		v->dirty = true;
		xen_backend_retry_later(v->be);
		return false;
	default:
		return true;
	}
}

/* A device that was connected when we came: a predecessor's guest. */
static void find_clean_mark(struct vbd *v)
{
	struct store *s = &v->be->store;
	char *mark = store_read(s, v->dir, key_clean);
	uint64_t sectors = 0;
	bool good = mark && parse_u64(mark, UINT64_MAX, &sectors);
	int rc;

	/* Closing without a mark: it was disconnected already, or is no worse off than that. */
	if (!mark && v->state == XENBUS_CLOSING)
		return;
	free(mark);
	v->refused = true;
	if (!good) {
		set_error(
			v,
			"a guest is connected, but the sluiced before this one left no clean mark: "
			"it ended without draining, and requests may be lost; not served (shut "
			"the guest down, or detach the disk with --force)");
		return;
	}
	if (!v->bdev)
		return; /* its error is said; the mark stays until there is a bdev */
	if (sectors != v->bdev->size / BLKIF_SECTOR_SIZE) {
		set_error(v,
			  "a guest is connected to a disk of %lu sectors, but bdev %s has %lu now; "
			  "not "
			  "served (give it the right bdev, or detach the disk with --force)",
			  (unsigned long)sectors, v->bdev_name,
			  (unsigned long)(v->bdev->size / BLKIF_SECTOR_SIZE));
		return;
	}
	/* Before anything is served: if we die, nobody must believe that we had drained. */
	rc = store_remove(s, v->dir, key_clean);
	if (rc) {
		set_error(v, "cannot take the clean mark: %s; not served", strerror(-rc));
		return;
	}
	v->refused = false;
	v->adopting = true;
	clear_error(v);
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

/*
 * Our own state, if somebody else has written it: a toolstack that wants the disk gone, or the
 * kernel's backend, loaded only now, that has taken the device behind our back.
 */
static void obey_own_state(struct vbd *v, uint32_t state)
{
	if (state == v->state)
		return;
	if (state == XENBUS_CLOSING || state == XENBUS_CLOSED) {
		log_debug("%s: the toolstack wrote %s", v->label, xenbus_state_name(state));
		v->state = state;
		return;
	}
	take_from_kernel(v, XENBUS_INIT_WAIT);
	log_warning("%s: somebody wrote %s as our state; it is %s", v->label,
		    xenbus_state_name(state), xenbus_state_name(v->state));
	write_key(v, "state", "%u", v->state);
}

void vbd_evaluate(struct vbd *v)
{
	struct store *s = &v->be->store;
	enum xenbus_action action;
	bool online;
	uint32_t state = XENBUS_UNKNOWN;
	int rc;

	if (v->be->draining || v->phase == VBD_STARTING || v->phase == VBD_STOPPING)
		return;
	rc = store_read_u32(s, v->dir, "state", XENBUS_STATES - 1, &state);
	if (rc == -ENOENT || v->force) {
		/* Removed under us, or to be: what was taken is answered, then it is forgotten. */
		if (v->conn) {
			disconnect(v);
			return;
		}
		if (v->force)
			remove_from_store(v, true);
		vbd_destroy(v);
		return;
	}
	if (rc) {
		set_error(v, "our state in xenstore cannot be read: %s", strerror(-rc));
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
	if (rc == -ENOENT || rc == -EINVAL) {
		v->frontend_state = XENBUS_UNKNOWN;
	} else if (rc) {
		/* No news of the guest's end, only of xenstore's trouble. */
		log_limited(&v->log_limit, LOG_LEVEL_ERROR, "%s: cannot read %s/state: %s",
			    v->label, v->frontend, strerror(-rc));
		v->dirty = true;
		xen_backend_retry_later(v->be);
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
	action = xenbus_decide(v->state, v->frontend_state);
	/* A disk that is going away is not offered again. */
	if (!online && v->state == XENBUS_CLOSED && action != XENBUS_DO_GONE)
		return;
	if (v->refused && action == XENBUS_DO_CHECK)
		return;
	act(v, action);
}

bool vbd_drain(struct vbd *v)
{
	switch (v->phase) {
	case VBD_IDLE:
		return false;
	case VBD_SERVING:
		disconnect(v);
		return true;
	default:
		return true; /* what is under way ends first, and then comes here or ends it */
	}
}
