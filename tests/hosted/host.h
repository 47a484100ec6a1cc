/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host: a dom0 in this process, with Sluice's own Xen backend on real reactors over the double.
 *
 * A host has one control thread; each instance on it is what one sluiced would be: a backend with
 * reactors of its own, which can be started, drained and followed by another.  The toolstack's part
 * is played here, too, as libxl plays it.  Mistakes of the fixture's user abort.
 */
#ifndef SLUICE_TEST_HOST_H
#define SLUICE_TEST_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

#include "base/err.h"
#include "dma/granted.h"
#include "grant/ledger.h"
#include "reactor/reactor.h"
#include "xen/backend.h"

enum {
	HOST_WAIT_MS = 10000, /* for anything that has to happen */
	HOST_REACTORS_MAX = 4,
	HOST_INSTANCES_MAX = 4,
};

struct instance;

struct host {
	char root[64]; /* where its /sys and /dev are */
	struct reactor *control;
	struct xs_handle *xs; /* the toolstack's */
	struct instance *instances[HOST_INSTANCES_MAX];
	struct grant_ledger *ledger; /* of dma */
	struct dma *dma;             /* NULL until host_get_dma() */
	uint32_t map_from; /* for instances that begin: xen_backend_set_map_from(); 0: not */
};

struct instance_opts {
	const char *name;          /* NULL: "sluice" */
	const char *kinds[4];      /* none: "vbd" */
	unsigned reactors;         /* 0: one */
	size_t bounce_pages;       /* 0: 4096 */
	size_t guest_bounce_pages; /* 0: 4096 */
	size_t guest_maps;         /* 0: 8192 */
	uint32_t device_maps;      /* 0: 131072 */
	unsigned max_queues;       /* 0: 4 */
	uint32_t spin_max_ns;
};

/* Boots Xen and dom0. */
void host_create(struct host *h);
/* Ends what still runs. Returns how many things were left over (double_leaks()), device
 * memory among them. */
unsigned host_destroy(struct host *h);
/* Makes the host's root, a folder that looks like a PV dom0's, and removes it. */
void host_make_root(struct host *h);
void host_remove_root(const struct host *h);
/* Writes a file below the host's root; makes the directories that @path, absolute, needs. */
void host_write_file(const struct host *h, const char *name, const char *text);
void host_make_dirs(const char *path);
/* Device memory of the host's, as much as there may be in the double; made when it is asked for. */
struct dma *host_get_dma(struct host *h);
/* There are no more than @pages of it; nothing of it is used yet. */
void host_limit_dma(struct host *h, size_t pages);
/* Has @fn run on the control thread, and waits for it. */
void host_run(struct host *h, void (*fn)(void *arg), void *arg);

/* Starts an instance. Returns 0 and *@out, or a negative errno with its line. */
int instance_start(struct host *h, const struct instance_opts *opts, struct instance **out,
		   struct err *err);
struct xen_backend *instance_backend(struct instance *i);
struct reactor *instance_reactor(struct instance *i, unsigned n);
/* As SIGTERM would: drains, and leaves the guests connected. */
void instance_end(struct instance *i);
/* As instance_end(), in two steps, so that something can happen in between. */
void instance_drain(struct instance *i);
bool instance_is_drained(struct instance *i);

/* A disk as the toolstack makes it. */
struct disk {
	struct host *host;
	unsigned domid;
	unsigned devid;
	char kind[8];
	char front[128]; /* directories in xenstore */
	char back[128];
};

struct disk_opts {
	const char *kind;     /* NULL: "vbd" */
	const char *target;   /* params */
	const char *instance; /* written as the key `sluice`; NULL: the script is, as xl does */
	const char *script;   /* NULL: block-sluice */
	bool readonly;
	const char *const *more; /* further keys and values by turns, NULL at the end; or NULL */
};

/* Writes both directories, as libxl does. */
void toolstack_add(struct host *h, unsigned domid, unsigned devid, const struct disk_opts *opts,
		   struct disk *disk);
/* Runs the hotplug script: waits for sluiced's answer. Returns whether that was "ready". */
bool toolstack_script(struct disk *d);
/* Detaches as libxl does: asks, waits up to @timeout_ms for Closed, then removes. True: it closed.
 */
bool toolstack_remove(struct disk *d, unsigned timeout_ms);
/* Only asks: online = 0 and state = 5. */
void toolstack_ask(struct disk *d);
/* Takes it away by force. */
void toolstack_remove_by_force(struct disk *d);

/* A key of one of the two directories, to be freed; NULL if it is not there. */
char *disk_read(struct disk *d, const char *dir, const char *key);
void disk_write(struct disk *d, const char *dir, const char *key, const char *value);
void disk_rm(struct disk *d, const char *dir, const char *key);
bool disk_key_is(struct disk *d, const char *dir, const char *key, const char *value);
/* Waits for the backend's state to be @state; 0: for its directory to vanish. */
bool disk_wait_state(struct disk *d, unsigned state);
bool disk_wait_key(struct disk *d, const char *dir, const char *key, const char *value);
/* The backend's states so far, as double_xs_history(); to be freed. */
char *disk_history(struct disk *d);

/* Sleeps a little; for loops that wait. */
void host_nap(void);
/* Milliseconds since some start. */
uint64_t host_now_ms(void);

#endif
