/* SPDX-License-Identifier: BSD-2-Clause */
#include "host.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "double.h"

enum { DEFAULT_BOUNCE_PAGES = 4096, DEVICE_PAGES = 16384 };

struct instance {
	struct host *host;
	unsigned slot;
	char name[64];
	const char *kinds[5];
	struct grant_ledger *ledger;
	struct xen_backend *be;
	struct reactor *reactors[HOST_REACTORS_MAX];
	unsigned nr_reactors;
	bool draining;
	atomic_bool drained;
};

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("host: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

void host_nap(void)
{
	struct timespec nap = {.tv_nsec = 200000};

	nanosleep(&nap, NULL);
}

uint64_t host_now_ms(void)
{
	return clock_now_ns() / NSEC_PER_MSEC;
}

void host_make_dirs(const char *path)
{
	char part[256];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (mkdir(part, 0700) && errno != EEXIST)
			die("mkdir %s: %s", part, strerror(errno));
	}
}

void host_write_file(const struct host *h, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", h->root, name);
	host_make_dirs(path);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		die("cannot write %s: %s", path, strerror(errno));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void host_remove_root(const struct host *h)
{
	if (nftw(h->root, remove_one, 8, FTW_DEPTH | FTW_PHYS))
		die("cannot remove %s: %s", h->root, strerror(errno));
}

void host_make_root(struct host *h)
{
	strcpy(h->root, "/tmp/sluice-hosted-XXXXXX");
	if (!mkdtemp(h->root))
		die("mkdtemp: %s", strerror(errno));
	host_write_file(h, "/sys/hypervisor/type", "xen\n");
	host_write_file(h, "/sys/hypervisor/guest_type", "PV\n");
	host_write_file(h, "/dev/xen/evtchn", "");
	host_write_file(h, "/dev/xen/gntdev", "");
}

void host_create(struct host *h)
{
	memset(h, 0, sizeof(*h));
	double_init();
	host_make_root(h);
	/* What hostile guests provoke is said once too often for a test's log. */
	log_set_level(getenv("SLUICE_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	if (reactor_create("control", -1, NULL, &h->control) || reactor_start(h->control))
		die("no control thread");
	h->xs = double_xs_open(0);
}

struct dma *host_get_dma(struct host *h)
{
	char path[128];
	struct err err;

	if (h->dma)
		return h->dma;
	snprintf(path, sizeof(path), "%s/host.ledger", h->root);
	if (grant_ledger_open(path, &h->ledger, &err) ||
	    dma_granted_create(DEVICE_PAGES, h->ledger, &h->dma, &err))
		die("no device memory: %s", err.text);
	return h->dma;
}

void host_limit_dma(struct host *h, size_t pages)
{
	host_get_dma(h)->window = pages;
}

static void delete_bdevs(void *arg)
{
	bdev_delete_all();
}

/* Pages of device memory that nobody has given back. */
static unsigned count_used(const struct dma *dma)
{
	unsigned used = 0;

	for (size_t i = 0; i < dma->pages; i++)
		used += dma->used[i];
	if (used)
		fprintf(stderr, "host: left over: %u pages of device memory\n", used);
	return used;
}

unsigned host_destroy(struct host *h)
{
	unsigned leaks = 0;

	for (unsigned i = 0; i < HOST_INSTANCES_MAX; i++)
		if (h->instances[i])
			instance_end(h->instances[i]);
	host_run(h, delete_bdevs, NULL);
	reactor_stop(h->control);
	reactor_join(h->control);
	reactor_destroy(h->control);
	if (h->dma) {
		leaks = count_used(h->dma);
		dma_granted_destroy(h->dma);
		grant_ledger_close(h->ledger);
	}
	xs_close(h->xs);
	leaks += double_leaks();
	double_fini();
	host_remove_root(h);
	return leaks;
}

struct run {
	struct reactor_msg msg;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void run_msg(struct reactor_msg *msg)
{
	struct run *run = container_of(msg, struct run, msg);

	run->fn(run->arg);
	sem_post(&run->done);
}

void host_run(struct host *h, void (*fn)(void *arg), void *arg)
{
	struct run run = {.msg.fn = run_msg, .fn = fn, .arg = arg};

	sem_init(&run.done, 0, 0);
	reactor_send(h->control, &run.msg);
	while (sem_wait(&run.done))
		;
	sem_destroy(&run.done);
}

/* Instances */

struct start {
	struct instance *i;
	const struct instance_opts *opts;
	struct err *err;
	int rc;
};

static void start_on_control(void *arg)
{
	struct start *s = arg;
	struct instance *i = s->i;
	struct xen_backend_opts opts = {
		.instance = i->name,
		.kinds = i->kinds,
		.control = i->host->control,
		.reactors = i->reactors,
		.nr_reactors = i->nr_reactors,
		.bounce_pages =
			s->opts->bounce_pages ? s->opts->bounce_pages : DEFAULT_BOUNCE_PAGES,
		.guest_bounce_pages = s->opts->guest_bounce_pages ? s->opts->guest_bounce_pages
								  : DEFAULT_BOUNCE_PAGES,
		.guest_maps = s->opts->guest_maps ? s->opts->guest_maps : 8192,
		.max_queues = s->opts->max_queues ? s->opts->max_queues : 4,
		.spin_max_ns = s->opts->spin_max_ns,
		.ledger = i->ledger,
		.device_maps = s->opts->device_maps ? s->opts->device_maps : 131072,
		.root = i->host->root,
	};

	s->rc = xen_backend_create(&opts, &i->be, s->err);
	if (s->rc)
		return;
	if (i->host->map_from)
		xen_backend_set_map_from(i->be, i->host->map_from);
	for (unsigned n = 0; n < i->nr_reactors; n++)
		if (reactor_start(i->reactors[n]))
			die("cannot start a reactor");
	s->rc = xen_backend_start(i->be, s->err);
	if (s->rc)
		die("cannot start the backend: %s", s->err->text);
}

int instance_start(struct host *h, const struct instance_opts *opts, struct instance **out,
		   struct err *err)
{
	struct instance *i = calloc(1, sizeof(*i));
	struct start s = {.i = i, .opts = opts, .err = err};
	char path[128];

	if (!i)
		die("out of memory");
	while (h->instances[i->slot])
		if (++i->slot == HOST_INSTANCES_MAX)
			die("too many instances");
	i->host = h;
	snprintf(i->name, sizeof(i->name), "%s", opts->name ? opts->name : "sluice");
	memcpy(i->kinds, opts->kinds, sizeof(opts->kinds));
	if (!i->kinds[0])
		i->kinds[0] = "vbd";
	i->nr_reactors = opts->reactors ? opts->reactors : 1;
	for (unsigned n = 0; n < i->nr_reactors; n++)
		if (reactor_create("reactor", -1, NULL, &i->reactors[n]))
			die("cannot create a reactor");
	snprintf(path, sizeof(path), "%s/%u.ledger", h->root, i->slot);
	if (grant_ledger_open(path, &i->ledger, err))
		die("no ledger: %s", err->text);
	host_run(h, start_on_control, &s);
	if (s.rc) {
		grant_ledger_close(i->ledger);
		for (unsigned n = 0; n < i->nr_reactors; n++)
			reactor_destroy(i->reactors[n]);
		free(i);
		return s.rc;
	}
	h->instances[i->slot] = i;
	*out = i;
	return 0;
}

struct xen_backend *instance_backend(struct instance *i)
{
	return i->be;
}

struct reactor *instance_reactor(struct instance *i, unsigned n)
{
	return i->reactors[n];
}

static void drained(void *arg)
{
	struct instance *i = arg;

	atomic_store(&i->drained, true);
}

static void drain_on_control(void *arg)
{
	struct instance *i = arg;

	xen_backend_drain(i->be, drained, i);
}

static void destroy_on_control(void *arg)
{
	struct instance *i = arg;

	xen_backend_destroy(i->be);
}

void instance_drain(struct instance *i)
{
	host_run(i->host, drain_on_control, i);
	i->draining = true;
}

bool instance_is_drained(struct instance *i)
{
	return atomic_load(&i->drained);
}

void instance_end(struct instance *i)
{
	uint64_t start = host_now_ms();

	if (!i->draining)
		instance_drain(i);
	while (!instance_is_drained(i)) {
		if (host_now_ms() - start > HOST_WAIT_MS)
			die("instance %s does not drain", i->name);
		host_nap();
	}
	for (unsigned n = 0; n < i->nr_reactors; n++) {
		reactor_stop(i->reactors[n]);
		reactor_join(i->reactors[n]);
	}
	host_run(i->host, destroy_on_control, i);
	grant_ledger_close(i->ledger);
	for (unsigned n = 0; n < i->nr_reactors; n++)
		reactor_destroy(i->reactors[n]);
	i->host->instances[i->slot] = NULL;
	free(i);
}

/* The toolstack */

static void must_write(struct xs_handle *xs, xs_transaction_t t, const char *dir, const char *key,
		       const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static void must_write(struct xs_handle *xs, xs_transaction_t t, const char *dir, const char *key,
		       const char *fmt, ...)
{
	char path[256], value[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", dir, key);
	if (!xs_write(xs, t, path, value, (unsigned)strlen(value)))
		die("cannot write %s: %s", path, strerror(errno));
}

static void make_dir(struct xs_handle *xs, xs_transaction_t t, const char *dir, unsigned owner,
		     unsigned reader)
{
	struct xs_permissions perms[2] = {{.id = owner, .perms = XS_PERM_NONE},
					  {.id = reader, .perms = XS_PERM_READ}};

	if (!xs_mkdir(xs, t, dir) || !xs_set_permissions(xs, t, dir, perms, 2))
		die("cannot make %s: %s", dir, strerror(errno));
}

void toolstack_add(struct host *h, unsigned domid, unsigned devid, const struct disk_opts *opts,
		   struct disk *disk)
{
	xs_transaction_t t;

	memset(disk, 0, sizeof(*disk));
	disk->host = h;
	disk->domid = domid;
	disk->devid = devid;
	snprintf(disk->kind, sizeof(disk->kind), "%s", opts->kind ? opts->kind : "vbd");
	snprintf(disk->front, sizeof(disk->front), "/local/domain/%u/device/vbd/%u", domid, devid);
	snprintf(disk->back, sizeof(disk->back), "/local/domain/0/backend/%s/%u/%u", disk->kind,
		 domid, devid);
	do {
		t = xs_transaction_start(h->xs);
		make_dir(h->xs, t, disk->front, domid, 0);
		make_dir(h->xs, t, disk->back, 0, domid);
		must_write(h->xs, t, disk->back, "frontend", "%s", disk->front);
		must_write(h->xs, t, disk->back, "params", "%s", opts->target);
		if (opts->instance)
			must_write(h->xs, t, disk->back, "sluice", "%s", opts->instance);
		else
			must_write(h->xs, t, disk->back, "script", "/etc/xen/scripts/%s",
				   opts->script ? opts->script : "block-sluice");
		must_write(h->xs, t, disk->back, "frontend-id", "%u", domid);
		must_write(h->xs, t, disk->back, "online", "1");
		must_write(h->xs, t, disk->back, "removable", "0");
		must_write(h->xs, t, disk->back, "bootable", "1");
		must_write(h->xs, t, disk->back, "state", "1");
		must_write(h->xs, t, disk->back, "dev", "xvda");
		must_write(h->xs, t, disk->back, "type", "phy");
		must_write(h->xs, t, disk->back, "mode", opts->readonly ? "r" : "w");
		must_write(h->xs, t, disk->back, "device-type", "disk");
		for (const char *const *more = opts->more; more && *more; more += 2)
			must_write(h->xs, t, disk->back, more[0], "%s", more[1]);
		must_write(h->xs, t, disk->front, "backend", "%s", disk->back);
		must_write(h->xs, t, disk->front, "backend-id", "0");
		must_write(h->xs, t, disk->front, "state", "1");
		must_write(h->xs, t, disk->front, "virtual-device", "%u", devid);
		must_write(h->xs, t, disk->front, "device-type", "disk");
	} while (!xs_transaction_end(h->xs, t, false) && errno == EAGAIN);
}

bool toolstack_script(struct disk *d)
{
	uint64_t start = host_now_ms();

	while (host_now_ms() - start < HOST_WAIT_MS) {
		char *status = disk_read(d, d->back, "sluice-status");
		bool ready = status && !strcmp(status, "ready");
		bool error = status && !strncmp(status, "error: ", 7);

		free(status);
		if (ready)
			disk_write(d, d->back, "hotplug-status", "connected");
		if (ready || error)
			return ready;
		host_nap();
	}
	return false;
}

void toolstack_ask(struct disk *d)
{
	disk_write(d, d->back, "online", "0");
	disk_write(d, d->back, "state", "5");
}

void toolstack_remove_by_force(struct disk *d)
{
	xs_rm(d->host->xs, XBT_NULL, d->back);
	xs_rm(d->host->xs, XBT_NULL, d->front);
}

bool toolstack_remove(struct disk *d, unsigned timeout_ms)
{
	uint64_t start = host_now_ms();
	bool closed = false;

	toolstack_ask(d);
	while (!closed && host_now_ms() - start < timeout_ms) {
		host_nap();
		closed = disk_key_is(d, d->back, "state", "6");
	}
	toolstack_remove_by_force(d);
	return closed;
}

/* A disk's keys */

char *disk_read(struct disk *d, const char *dir, const char *key)
{
	char path[256];
	unsigned len;

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	return xs_read(d->host->xs, XBT_NULL, path, &len);
}

void disk_write(struct disk *d, const char *dir, const char *key, const char *value)
{
	must_write(d->host->xs, XBT_NULL, dir, key, "%s", value);
}

void disk_rm(struct disk *d, const char *dir, const char *key)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	xs_rm(d->host->xs, XBT_NULL, path);
}

bool disk_key_is(struct disk *d, const char *dir, const char *key, const char *value)
{
	char *text = disk_read(d, dir, key);
	bool same = text ? value && !strcmp(text, value) : !value;

	free(text);
	return same;
}

bool disk_wait_key(struct disk *d, const char *dir, const char *key, const char *value)
{
	uint64_t start = host_now_ms();

	while (!disk_key_is(d, dir, key, value)) {
		if (host_now_ms() - start > HOST_WAIT_MS)
			return false;
		host_nap();
	}
	return true;
}

bool disk_wait_state(struct disk *d, unsigned state)
{
	char text[8];

	snprintf(text, sizeof(text), "%u", state);
	return disk_wait_key(d, d->back, "state", state ? text : NULL);
}

char *disk_history(struct disk *d)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/state", d->back);
	return double_xs_history(path);
}
