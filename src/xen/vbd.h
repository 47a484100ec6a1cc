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

#include "base/clock.h"
#include "base/list.h"
#include "bdev/bdev.h"
#include "blkif/queue.h"
#include "xen/backend.h"
#include "xen/connection.h"
#include "xen/store.h"
#include "xen/target.h"
#include "xen/xenbus.h"

struct xen_guest;

enum vbd_phase {
	VBD_IDLE,     /* no connection */
	VBD_STARTING, /* the reactor was asked to start it */
	VBD_SERVING,
	VBD_STOPPING, /* the reactor was asked to stop it */
};

/*
 * Who asked for a disk's end, or its pause. Told by a message: an answer may bring the next request
 * at once, and that must not find us in the middle of an evaluation.
 */
struct vbd_waiter {
	struct reactor_msg msg;
	void (*done)(void *arg, const char *error);
	void *arg;
	const char *error; /* what @done is told; NULL: it is as was asked */
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
	bool stirred; /* the frontend has written its state since its keys were last read */

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

	char params[TARGET_MAX]; /* as the toolstack wrote it */
	struct target want;      /* what it says */
	bool readonly;
	bool cdrom;
	bool removable;
	bool discard;      /* the toolstack allows it */
	struct bdev *bdev; /* claimed, or NULL */
	bool moving;       /* it waits for the bdev that its former self, in another domain, has */
	uint64_t sectors;  /* of which the queues and the frontend know */
	uint64_t new_sectors; /* and what they are being told, while resizing */
	bool resizing;
	char error[384];              /* why it does not work, or "" */
	char status[400];             /* what the toolstack's script was told last */
	struct xen_guest *guest;      /* what it shares with the guest's other disks */
	struct blkif_limiter limiter; /* as the next two say */
	uint64_t ios_per_sec;
	uint64_t bytes_per_sec;
	bool paused;
	bool pausing;        /* the queues were asked, and are not quiet yet */
	bool started_paused; /* its queues were, when they were made */
	bool repause;        /* they were resumed and are to pause again, once that has ended */
	struct vbd_waiter *pause_waiter;
	bool gave_up; /* the connection's queues wait for no device any more */
	int trouble;  /* 0, or why requests wait for the device: a negative errno */

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

/* After an error that may pass: want of memory, xenstore's trouble. */
#define VBD_RETRY_NS NSEC_PER_SEC
/*
 * Comes back to it, for what no watch tells. Each look ends that: one that finds nothing changed
 * has to ask again.
 */
void vbd_look_again(struct vbd *v, uint64_t delay_ns);
/*
 * How its guest's pages are reached, if it connects on @b (NULL: none) to a frontend that can be
 * @persistent; and from how many bytes of a request on, where devices can reach them.
 */
enum blkif_sharing vbd_get_sharing(const struct vbd *v, const struct bdev *b, bool persistent);
uint32_t vbd_get_dma_from(const struct vbd *v, enum blkif_sharing sharing);

/* What changes while a disk is served: vbd_settings.c */

/*
 * Quiesces the disk, and tells @w (the vbd's from here on) when it is quiet. Returns 0, or -ENOMEM:
 * then it is not paused, and @w the caller's.
 */
int vbd_pause(struct vbd *v, struct vbd_waiter *w);
/*
 * Lets it go on, also where a failing device has stopped it. Returns 0, -ENOMEM, or the errno with
 * which xenstore refused to know of it: then the next daemon finds it paused.
 */
int vbd_resume(struct vbd *v);
/* Sets the limits from now on, 0 for none. Returns 0 or a negative errno: they hold until we end.
 */
int vbd_set_limits(struct vbd *v, uint64_t ios_per_sec, uint64_t bytes_per_sec);
/* The queues of a disk that is served are paused, as the disk is. Returns 0 or -ENOMEM. */
int vbd_pause_queues(struct vbd *v);
/* Its connection has ended, and with that it is quiet. */
void vbd_tell_quiet(struct vbd *v);
/* Its bdev has grown, perhaps. */
void vbd_follow_size(struct vbd *v);
/* It is to close: what waits for its device to be mended is answered with the error. */
void vbd_give_up(struct vbd *v);
/* A connection's news of its device: see connection_opts. @arg: the vbd. */
void vbd_take_trouble(void *arg, int error);

#endif
