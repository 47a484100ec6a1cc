/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/vbd_store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "xen/internal.h"

/* The keys that are ours alone, in the backend's directory. */
static const char key_status[] = "sluice-status"; /* "ready" or "error: ..." */
static const char key_clean[] = "sluice-clean";   /* sectors of the disk */
static const char key_paused[] = "sluice-paused"; /* "1" */
static const char key_iops[] = "sluice-iops";     /* limits set beside the target's */
static const char key_bandwidth[] = "sluice-bandwidth";
static const char key_error[] = "sluice-error"; /* where administrators of Xen look */

/* Keys of our directory */

bool vbd_has_key(const struct vbd *v, const char *key)
{
	char path[STORE_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", v->dir, key);
	return !store_missing(&v->be->store, path);
}

struct key_write {
	const struct vbd *v;
	const char *key;
	const char *value;
};

/* Whether our directory is there, and not another one in its place. */
static int check_there(struct store *s, const struct vbd *v)
{
	char path[STORE_PATH_MAX + 32];
	uint32_t state;

	if (store_read_u32(s, v->dir, "state", UINT32_MAX, &state) == -ENOENT)
		return -ENOENT;
	snprintf(path, sizeof(path), "%s/%s", v->dir, key_status);
	return v->status[0] && store_missing(s, path) ? -ENOENT : 0;
}

static int write_if_there(struct store *s, void *arg)
{
	const struct key_write *w = arg;
	int rc = check_there(s, w->v);

	return rc ? rc : store_write(s, w->v->dir, w->key, "%s", w->value);
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

void vbd_set_error(struct vbd *v, const char *fmt, ...)
{
	char text[sizeof(v->error)];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	parse_make_printable(text);
	if (!strcmp(text, v->error))
		return;
	snprintf(v->error, sizeof(v->error), "%s", text);
	log_limited(&v->log_limit, LOG_LEVEL_ERROR, "%s: %s", v->label, v->error);
	/* Nothing depends on it. */
	rc = write_key(v, key_error, "%s", v->error);
	if (rc && rc != -ENOENT)
		log_limited(&v->log_limit, LOG_LEVEL_WARNING,
			    "%s: cannot write that to xenstore: %s", v->label, strerror(-rc));
}

void vbd_clear_error(struct vbd *v)
{
	/* It may be a predecessor's. */
	if (!v->error[0] && !vbd_has_key(v, key_error))
		return;
	v->error[0] = '\0';
	store_remove(&v->be->store, v->dir, key_error);
}

/* Only what is new is written, since each write comes back as a watch event. */
void vbd_set_status(struct vbd *v, bool ready)
{
	char text[sizeof(v->status)];
	int rc;

	if (ready)
		snprintf(text, sizeof(text), "ready");
	else
		snprintf(text, sizeof(text), "error: %s", v->error);
	if (!strcmp(text, v->status))
		return;
	rc = write_key(v, key_status, "%s", text);
	if (!rc)
		strcpy(v->status, text);
	if (rc && rc != -ENOENT)
		log_limited(&v->log_limit, LOG_LEVEL_ERROR, "%s: cannot write to xenstore: %s",
			    v->label, strerror(-rc));
}

bool vbd_is_renewed(const struct vbd *v)
{
	return v->status[0] && !vbd_has_key(v, key_status);
}

void vbd_write_state(struct vbd *v, uint32_t state)
{
	int rc;

	if (v->state == state)
		return;
	rc = write_key(v, "state", "%u", state);
	if (rc == -ENOENT)
		return;
	if (rc) {
		vbd_set_error(v, "cannot write state %s to xenstore: %s", xenbus_state_name(state),
			      strerror(-rc));
		return;
	}
	log_debug("%s: %s -> %s", v->label, xenbus_state_name(v->state), xenbus_state_name(state));
	v->state = state;
}

void vbd_restore_state(struct vbd *v)
{
	write_key(v, "state", "%u", v->state);
}

struct blkif_limits vbd_get_limits(const struct vbd *v, const struct bdev *b)
{
	return blkif_limits_of(b, v->readonly, v->discard);
}

/* What the frontend is told and tells */

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
	/* A disk that is going away is not offered again. */
	if (state == XENBUS_CLOSED && store_equals(s, v->dir, "online", "0"))
		return -ECANCELED;
	return 0;
}

static int write_offer(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	/* The one that it waits for may be there already. */
	struct bdev *b = v->bdev ? v->bdev : bdev_find(v->want.bdev);
	uint16_t segments = b ? vbd_get_limits(v, bdev_sectors(b)).max_indirect_segments
			      : (uint16_t)BLKIF_MAX_SEGMENTS;
	enum blkif_sharing sharing = vbd_get_sharing(v, b, true);
	bool persistent =
		sharing == BLKIF_SHARE_PERSISTENT || sharing == BLKIF_SHARE_DMA_PERSISTENT;
	int rc = check_ours(s, v);

	if (rc)
		return rc;
	/*
	 * Not what the kernel's backend may have offered before we took the device from it; and no
	 * mark of a predecessor's, which would be taken for ours one day.
	 */
	if ((rc = store_remove(s, v->dir, key_clean)) ||
	    (rc = store_write(s, v->dir, "max-ring-page-order", "%d", CONNECTION_MAX_RING_ORDER)) ||
	    (rc = store_write(s, v->dir, "max-ring-pages", "%d", BLKIF_MAX_RING_PAGES)) ||
	    (rc = store_write(s, v->dir, "multi-queue-max-queues", "%u", v->be->opts.max_queues)) ||
	    (rc = store_write(s, v->dir, "feature-persistent", "%d", persistent)))
		return rc;
	if (segments)
		rc = store_write(s, v->dir, "feature-max-indirect-segments", "%u", segments);
	else
		rc = store_remove(s, v->dir, "feature-max-indirect-segments");
	return rc ? rc : store_write(s, v->dir, "state", "%u", XENBUS_INIT_WAIT);
}

int vbd_write_offer(struct vbd *v)
{
	return store_transact(&v->be->store, write_offer, v);
}

static int write_discard(struct store *s, const struct vbd *v, const struct bdev *b,
			 const struct blkif_limits *limits)
{
	static const char *const keys[] = {"discard-granularity", "discard-alignment",
					   "discard-secure"};
	int rc = store_write(s, v->dir, "feature-discard", "%d", limits->discard);

	if (limits->discard) {
		if (!rc)
			rc = store_write(s, v->dir, keys[0], "%u", b->limits.discard_granularity);
		if (!rc)
			rc = store_write(s, v->dir, keys[1], "%u", b->limits.discard_alignment);
		if (!rc)
			rc = store_write(s, v->dir, keys[2], "%d", limits->secure_discard);
		return rc;
	}
	for (unsigned i = 0; !rc && i < sizeof(keys) / sizeof(keys[0]); i++)
		rc = store_remove(s, v->dir, keys[i]);
	return rc;
}

/* `info` of io/blkif.h. */
enum { INFO_CDROM = 1, INFO_REMOVABLE = 2, INFO_READONLY = 4 };

static int write_connected(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	const struct bdev *b = bdev_sectors(v->bdev);
	struct blkif_limits limits = vbd_get_limits(v, b);
	unsigned info = (v->cdrom ? INFO_CDROM : 0u) | (v->removable ? INFO_REMOVABLE : 0u) |
			(v->readonly ? INFO_READONLY : 0u);
	int rc = check_ours(s, v);

	if (rc)
		return rc;
	if ((rc = store_remove(s, v->dir, key_clean)) ||
	    (rc = store_write(s, v->dir, "feature-flush-cache", "1")) ||
	    (rc = store_write(s, v->dir, "feature-barrier", "1")) ||
	    (rc = write_discard(s, v, b, &limits)) ||
	    (rc = store_write(s, v->dir, "sectors", "%lu", (unsigned long)v->sectors)) ||
	    (rc = store_write(s, v->dir, "sector-size", "%d", BLKIF_SECTOR_SIZE)) ||
	    (rc = store_write(s, v->dir, "physical-sector-size", "%u",
			      b->limits.physical_block_size)) ||
	    (rc = store_write(s, v->dir, "info", "%u", info)))
		return rc;
	return store_write(s, v->dir, "state", "%u", XENBUS_CONNECTED);
}

int vbd_write_connected(struct vbd *v)
{
	return store_transact(&v->be->store, write_connected, v);
}

struct size_write {
	const struct vbd *v;
	uint64_t sectors;
};

static int write_size(struct store *s, void *arg)
{
	const struct size_write *w = arg;
	int rc = check_ours(s, w->v);

	if (!rc)
		rc = store_write(s, w->v->dir, "sectors", "%lu", (unsigned long)w->sectors);
	return rc ? rc : store_write(s, w->v->dir, "state", "%u", w->v->state);
}

int vbd_write_size(struct vbd *v, uint64_t sectors)
{
	struct size_write w = {.v = v, .sectors = sectors};

	return store_transact(&v->be->store, write_size, &w);
}

/* Xenstore's trouble, and none of the frontend's making: @rc. */
static int cannot_read(const char *whose, const char *key, int rc, struct err *err)
{
	return err_set(err, rc, "the %s's key %s cannot be read: %s", whose, key, strerror(-rc));
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
	if (rc == -EINVAL)
		return err_set(err, rc, "the frontend's key %s is no number up to %u", key, max);
	return rc ? cannot_read("frontend", key, rc, err) : 0;
}

/* A key that must be there, and a number. */
static int needed_u32(struct store *s, const char *dir, const char *key, uint32_t *value,
		      struct err *err)
{
	int rc = store_read_u32(s, dir, key, UINT32_MAX, value);

	if (rc == -ENOENT || rc == -EINVAL)
		return err_set(err, -EINVAL, "the frontend's key %s is missing or no number", key);
	return rc ? cannot_read("frontend", key, rc, err) : 0;
}

/* How many pages each ring has, and whether their references are numbered. */
static int read_ring_pages(struct vbd *v, unsigned *pages, bool *numbered, struct err *err)
{
	uint32_t order, nr;
	int rc;

	rc = optional_u32(v, "ring-page-order", CONNECTION_MAX_RING_ORDER, UINT32_MAX, &order, err);
	if (rc)
		return rc;
	*numbered = true;
	if (order != UINT32_MAX) {
		*pages = 1u << order;
		return 0;
	}
	/* Old FreeBSD counts pages. */
	rc = optional_u32(v, "num-ring-pages", BLKIF_MAX_RING_PAGES, 0, &nr, err);
	if (rc)
		return rc;
	if (nr & (nr - 1))
		return err_set(err, -EINVAL, "the frontend's ring has %u pages, no power of two",
			       nr);
	*numbered = nr > 1;
	*pages = nr ? nr : 1;
	return 0;
}

static int read_queue(struct vbd *v, const char *dir, unsigned pages, bool numbered,
		      struct connection_queue_keys *queue, struct err *err)
{
	struct store *s = &v->be->store;
	char key[24];
	int rc;

	for (unsigned i = 0; i < pages; i++) {
		if (numbered)
			snprintf(key, sizeof(key), "ring-ref%u", i);
		else
			snprintf(key, sizeof(key), "ring-ref");
		rc = needed_u32(s, dir, key, &queue->ring_refs[i], err);
		if (rc)
			return rc;
	}
	return needed_u32(s, dir, "event-channel", &queue->event_channel, err);
}

/* No page and no port may serve twice: two queues would each believe it their own. */
static int refuse_duplicates(const struct connection_keys *keys, struct err *err)
{
	unsigned total = keys->nr_queues * keys->ring_pages;

	for (unsigned i = 0; i < total; i++) {
		uint32_t ref = keys->queues[i / keys->ring_pages].ring_refs[i % keys->ring_pages];

		for (unsigned k = 0; k < i; k++)
			if (keys->queues[k / keys->ring_pages].ring_refs[k % keys->ring_pages] ==
			    ref)
				return err_set(err, -EINVAL,
					       "the frontend uses reference %u for two ring pages",
					       ref);
	}
	for (unsigned i = 0; i < keys->nr_queues; i++)
		for (unsigned k = 0; k < i; k++)
			if (keys->queues[k].event_channel == keys->queues[i].event_channel)
				return err_set(err, -EINVAL,
					       "the frontend uses event channel %u for two queues",
					       keys->queues[i].event_channel);
	return 0;
}

int vbd_read_keys(struct vbd *v, struct connection_keys *keys, struct err *err)
{
	struct store *s = &v->be->store;
	/* Others than we may have made the offer: the kernel's backend, or a predecessor. */
	uint32_t max =
		v->kernel_offered || v->adopting ? CONNECTION_MAX_QUEUES : v->be->opts.max_queues;
	char dir[STORE_PATH_MAX + 24];
	uint32_t persistent, offered = 0;
	char *protocol;
	bool numbered;
	int rc;

	memset(keys, 0, sizeof(*keys));
	rc = optional_u32(v, "multi-queue-num-queues", max, 1, &keys->nr_queues, err);
	if (!rc && !keys->nr_queues)
		rc = err_set(err, -EINVAL, "the frontend wants 0 queues");
	if (!rc)
		rc = read_ring_pages(v, &keys->ring_pages, &numbered, err);
	if (!rc)
		rc = optional_u32(v, "feature-persistent", 1, 0, &persistent, err);
	if (rc)
		return rc;
	/* It says what it can do, whatever it is offered; and does it only if it was. */
	rc = store_read_u32(s, v->dir, "feature-persistent", 1, &offered);
	if (rc && rc != -ENOENT)
		return cannot_read("backend", "feature-persistent", rc, err);
	keys->persistent = persistent && offered;
	protocol = store_read(s, v->frontend, "protocol");
	if (!protocol && errno == EINVAL)
		return err_set(err, -EINVAL, "the frontend's key protocol is no text");
	if (!protocol && errno != ENOENT)
		return cannot_read("frontend", "protocol", -errno, err);
	keys->layout = blkif_layout_find(protocol);
	free(protocol);
	if (!keys->layout)
		return err_set(err, -EINVAL,
			       "the frontend's protocol is neither x86_32-abi nor x86_64-abi");
	/* One queue has its keys at the top, each of several has a directory. */
	for (unsigned n = 0; !rc && n < keys->nr_queues; n++) {
		if (keys->nr_queues == 1)
			snprintf(dir, sizeof(dir), "%s", v->frontend);
		else
			snprintf(dir, sizeof(dir), "%s/queue-%u", v->frontend, n);
		rc = read_queue(v, dir, keys->ring_pages, numbered, &keys->queues[n], err);
	}
	return rc ? rc : refuse_duplicates(keys, err);
}

static void read_number(const struct vbd *v, const char *key, uint64_t *value)
{
	char *text = store_read(&v->be->store, v->dir, key);

	if (text)
		parse_u64(text, INT64_MAX, value);
	free(text);
}

void vbd_read_settings(const struct vbd *v, bool *paused, uint64_t *ios_per_sec,
		       uint64_t *bytes_per_sec)
{
	*paused = store_equals(&v->be->store, v->dir, key_paused, "1");
	read_number(v, key_iops, ios_per_sec);
	read_number(v, key_bandwidth, bytes_per_sec);
}

static int write_paused(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	int rc = check_there(s, v);

	if (rc)
		return rc;
	return v->paused ? store_write(s, v->dir, key_paused, "1")
			 : store_remove(s, v->dir, key_paused);
}

int vbd_write_paused(struct vbd *v)
{
	return store_transact(&v->be->store, write_paused, v);
}

static int write_limits(struct store *s, void *arg)
{
	const struct vbd *v = arg;
	int rc = check_there(s, v);

	if (!rc)
		rc = store_write(s, v->dir, key_iops, "%lu", (unsigned long)v->ios_per_sec);
	return rc ? rc
		  : store_write(s, v->dir, key_bandwidth, "%lu", (unsigned long)v->bytes_per_sec);
}

int vbd_write_limits(struct vbd *v)
{
	return store_transact(&v->be->store, write_limits, v);
}

void vbd_write_mark(struct vbd *v)
{
	int rc;

	/* A guest that was asked to close may have the disk in use for as long as it likes. */
	if (v->state != XENBUS_CONNECTED && v->state != XENBUS_CLOSING)
		return;
	if (v->bdev->limits.volatile_data) {
		log_warning("%s: bdev %s lives in this daemon's memory; the guest's disk ends here",
			    v->label, v->want.bdev);
		return;
	}
	rc = write_key(v, key_clean, "%lu", (unsigned long)v->sectors);
	if (rc && rc != -ENOENT)
		log_error("%s: cannot leave the clean mark: %s", v->label, strerror(-rc));
}

bool vbd_read_mark(const struct vbd *v, uint64_t *sectors)
{
	char *mark = store_read(&v->be->store, v->dir, key_clean);
	bool good = mark && parse_u64(mark, UINT64_MAX, sectors);

	free(mark);
	return good;
}

int vbd_remove_mark(const struct vbd *v)
{
	return store_remove(&v->be->store, v->dir, key_clean);
}
