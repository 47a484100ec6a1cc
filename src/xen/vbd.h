/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vbd: one virtual disk of one guest, from the toolstack's first word to its end.
 *
 * Everything here runs on the control thread.  Whatever happens (a watch fires, a reactor reports,
 * an administrator asks), the answer is vbd_evaluate(): it reads both states anew, asks the table
 * in xenbus.c, and carries out one action.  An action that needs the reactor first disconnects or
 * connects; until the reactor has reported, evaluation waits, and is then done again, so
 * that no state is ever acted upon twice.
 */
#ifndef SLUICE_XEN_VBD_H
#define SLUICE_XEN_VBD_H

#include "base/list.h"
#include "bdev/bdev.h"
#include "blkif/queue.h"
#include "xen/backend.h"
#include "xen/connection.h"
#include "xen/store.h"
#include "xen/xenbus.h"

enum vbd_phase {
	VBD_IDLE,     /* no connection */
	VBD_STARTING, /* the reactor was asked to start it */
	VBD_SERVING,
	VBD_STOPPING, /* the reactor was asked to stop it */
};

/*
 * Who asked for a disk's end. Told by a message: an answer may bring the next request at once, and
 * that must not find us in the middle of an evaluation.
 */
struct vbd_waiter {
	struct reactor_msg msg;
	void (*gone)(void *arg, const char *error);
	void *arg;
};

struct vbd {
	struct list node; /* in the backend's list */
	struct xen_backend *be;
	char kind[8];
	uint32_t domid;
	uint32_t devid;
	char dir[STORE_PATH_MAX];      /* ours in xenstore */
	char frontend[STORE_PATH_MAX]; /* and the frontend's */
	char label[64];
	bool dirty;

	uint32_t state;          /* ours, as we wrote it or found it */
	uint32_t frontend_state; /* as last seen */
	uint64_t first_seen_ns;
	bool kernel_offered; /* its frontend may have seen the kernel's offer before ours */
	bool refused;        /* found connected, without a clean mark: not served */
	bool adopting;       /* found connected, with it */
	uint64_t adopt_after_ns;
	bool seen;   /* evaluated at least once */
	bool faulty; /* its frontend broke the protocol: disconnect and close */
	bool detach; /* an administrator wants it gone */
	bool force;  /* without asking the guest */

	char target[128]; /* `params`: what the administrator wants served */
	char bdev_name[64];
	bool readonly;
	bool shared;
	struct bdev *bdev; /* claimed, or NULL */
	char error[384];   /* why it does not work, or "" */
	char status[400];  /* what the toolstack's script was told last */

	struct connection *conn; /* to the frontend's ring, or NULL */
	enum vbd_phase phase;    /* of the connection */
	struct blkif_stats past; /* of connections that have ended */
	struct log_limit log_limit;
	struct log_limit data_log_limits[CONNECTION_MAX_QUEUES]; /* reactors', while connected */
	struct vbd_waiter *waiter;                               /* for its end, or NULL */
};

/* Creates the vbd for xenstore's directory DIR/backend/KIND/DOMID/DEVID. NULL without memory. */
struct vbd *vbd_create(struct xen_backend *be, const char *kind, uint32_t domid, uint32_t devid);
/* Lets go of everything; the vbd is not connected. */
void vbd_destroy(struct vbd *v);

/* Looks at the world and does the next thing. May destroy the vbd. */
void vbd_evaluate(struct vbd *v);

/*
 * Disconnects for the daemon's end and leaves the clean mark. If that takes time (its phase is not
 * VBD_IDLE), xen_backend_vbd_stopped() is called when it is done.
 */
void vbd_drain(struct vbd *v);

/* The bdev of that name, if a guest can be given it; else NULL with the reason. */
struct bdev *vbd_find_bdev(const char *name, struct err *err);

/*
 * Parses a target "BDEV[@INSTANCE][,shared]". @bdev and @instance have room for 64 bytes; the
 * instance is "" if none is named. False if it is malformed.
 */
bool vbd_parse_target(const char *target, char *bdev, char *instance, bool *shared);

#endif
