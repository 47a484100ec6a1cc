/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The second door: disks for whoever shares a segment of memory with us, a process or a QEMU guest.
 *
 * A worker is one disk: a UNIX socket at which one frontend connects (by libsivshm, or as QEMU's
 * ivshmem-doorbell), a segment that only the two can reach, and a bdev.  The segment's first page
 * says how the two agree (blkif/control_page.h, doc/sivshm-blkif.md).  When the frontend is gone
 * its segment goes with it, and the next one finds a fresh segment at the same socket.
 *
 * All functions belong to the control thread; names and paths are copied.
 */
#ifndef SLUICE_SIVSHM_DOOR_H
#define SLUICE_SIVSHM_DOOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct reactor;
struct sivshm_door;

enum {
	SIVSHM_DOOR_MAX_WORKERS = 1024,
	SIVSHM_DOOR_MAX_QUEUES = 63,
	SIVSHM_DOOR_NAME_MAX = 63, /* characters of a worker's name */
};
/* Bytes of a segment: a power of two. */
#define SIVSHM_DOOR_MIN_SEGMENT     (UINT64_C(64) << 10)
#define SIVSHM_DOOR_MAX_SEGMENT     (UINT64_C(16) << 30)
#define SIVSHM_DOOR_DEFAULT_SEGMENT (UINT64_C(16) << 20)

struct sivshm_door_opts {
	struct reactor *control;
	struct reactor **reactors; /* that serve queues; not running yet */
	unsigned nr_reactors;
	size_t bounce_pages;       /* of each reactor */
	size_t guest_bounce_pages; /* what a worker may have of them beyond its queues' own */
	uint32_t spin_max_ns;      /* how long an idle queue may be polled */
	const char *dir;           /* where sockets are made that are named nowhere else; exists */
};

/* Makes each reactor ready. Returns 0 and *@out, or a negative errno with the reason. */
int sivshm_door_create(const struct sivshm_door_opts *opts, struct sivshm_door **out,
		       struct err *err);
/* From now on frontends are answered. The reactors run. Returns 0 or a negative errno. */
int sivshm_door_start(struct sivshm_door *d, struct err *err);
/*
 * Answers what was taken, tells frontends that the daemon is ending (CLOSED), takes the sockets
 * away, and calls @drained. Nothing is added or removed any more.
 */
void sivshm_door_drain(struct sivshm_door *d, void (*drained)(void *arg), void *arg);
/* Drained, or never started; the reactors have stopped. */
void sivshm_door_destroy(struct sivshm_door *d);

enum sivshm_door_sharing {
	SIVSHM_DOOR_SHARING_AUTO, /* dma where the bdev's device can reach segments, else map */
	SIVSHM_DOOR_SHARING_COPY, /* to and from bounce pages */
	SIVSHM_DOOR_SHARING_MAP,  /* the bdev is given the segment's own pages */
	SIVSHM_DOOR_SHARING_DMA,  /* the bdev's device reaches the segment by itself */
};

/* By its name ("auto", "copy", "map", "dma"); -EINVAL with the line in @err. */
int sivshm_door_parse_sharing(const char *text, enum sivshm_door_sharing *sharing, struct err *err);

struct sivshm_door_worker {
	const char *name; /* letters, digits, '.', '_', '-'; not beginning with '.' */
	const char *bdev;
	uint64_t segment_bytes; /* 0: SIVSHM_DOOR_DEFAULT_SEGMENT */
	unsigned max_queues;    /* 0: as many as there are reactors */
	enum sivshm_door_sharing sharing;
	bool readonly;
	bool shared;        /* others that ask to share may use the bdev, too */
	const char *socket; /* an absolute path; NULL: NAME.sock in the door's directory */
	/* Of the process that may connect, -1: any; and what the socket becomes. */
	int64_t uid;
	int64_t gid; /* -1: any */
	mode_t mode; /* 0: 0600 */
	/* The bdev need not be there, or be free: the worker waits for it (a remembered one). */
	bool may_wait;
};

/*
 * Makes a worker and listens at its socket. -EEXIST (the name is taken), -ENOENT (no such bdev),
 * -EBUSY (it is in use), -EINVAL, -EADDRINUSE or another negative errno, with the line in @err;
 * then nothing was made. The default of uid is the caller's to fill in (geteuid()).
 */
int sivshm_door_add(struct sivshm_door *d, const struct sivshm_door_worker *want, struct err *err);
/*
 * Asks the worker's frontend to let go of the disk, or (@force) takes it away, and calls @gone with
 * NULL when it is, or with an error; never before this has returned. A worker without a frontend
 * is gone at once. Several may wait for it. Returns 0, -ENOENT, -ENOMEM or -ESHUTDOWN with the line
 * in @err: then @gone is not called.
 */
int sivshm_door_remove(struct sivshm_door *d, const char *name, bool force,
		       void (*gone)(void *arg, const char *error), void *arg, struct err *err);
/*
 * Whoever asked with @arg waits no longer, and the worker still goes when it can. False: it is too
 * late, @gone is about to be called.
 */
bool sivshm_door_forget_removal(struct sivshm_door *d, const char *name, void *arg);

/*
 * The list for sivshm_get_workers, an object each: name, bdev, socket, segment_bytes, max_queues,
 * sharing (as wanted), way (what it comes to: copy, map, dma), readonly, shared, uid, gid, mode,
 * state (waiting, listening, joined, connected, closing, see below), layout, queues, ring_pages,
 * ids ([ours, theirs]), vectors, sectors, error (or null). New reference, or NULL.
 *
 *   waiting    for its bdev; nobody can connect
 *   listening  for a frontend
 *   joined     somebody has the segment, and is not, or not any more, connected to the disk
 *   connected  requests are served
 *   closing    what was taken is being answered
 */
json_t *sivshm_door_list(struct sivshm_door *d);
/*
 * Gathers statistics from the reactors; @done gets the reference for sivshm_get_iostat, NULL
 * without memory: an object a worker, in the shape of vbd_get_iostat's with `worker` and `bdev` in
 * place of what names a guest's disk.
 */
void sivshm_door_stats(struct sivshm_door *d, void (*done)(void *arg, json_t *stats), void *arg);
/*
 * What would make the workers again, in the order in which they were made: the parameters of
 * sivshm_create {name, bdev, segment_size (bytes), max_queues, sharing, readonly, shared, socket,
 * uid, gid, mode (octal, a string)}; what was left to defaults is left out. Those that are being
 * removed are not among them. New reference, or NULL without memory.
 */
json_t *sivshm_door_config(const struct sivshm_door *d);
/* The name of a worker that has @bdev or waits for it, or NULL. */
const char *sivshm_door_user_of(const struct sivshm_door *d, const char *bdev);

#endif
