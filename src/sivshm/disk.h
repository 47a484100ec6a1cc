/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private to src/sivshm.
 *
 * disk: one worker of the door: its bdev, its segment, and the frontend that has connected there.
 *
 * Everything here runs on the control thread.  Whatever happens (a frontend comes, rings or goes, a
 * reactor reports, an administrator asks), the answer is sivshm_disk_evaluate(), which looks at the
 * world anew and does the next thing.  While reactors start or stop the queues it waits, and is
 * done again when they have reported.
 */
#ifndef SLUICE_SIVSHM_DISK_H
#define SLUICE_SIVSHM_DISK_H

#include <sys/un.h>

#include "base/list.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "blkif/connection.h"
#include "reactor/reactor.h"
#include "sivshm.h"
#include "sivshm/door.h"
#include "sivshm/lane.h"
#include "sivshm/page.h"

struct sivshm_door {
	struct sivshm_door_opts opts;
	char *dir;
	struct sivshm_manager *manager;
	struct reactor_fd manager_fd;
	struct bdev_observer observer;
	struct reactor_timer retry; /* for disks that wait for a bdev, a socket or memory */
	struct sivshm_lane *lanes;
	unsigned next_lane;
	struct list disks;
	bool numbers[SIVSHM_DOOR_MAX_WORKERS]; /* in use */
	bool started;
	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

enum sivshm_disk_phase {
	SIVSHM_DISK_IDLE,     /* no connection */
	SIVSHM_DISK_STARTING, /* reactors were asked to start it */
	SIVSHM_DISK_SERVING,
	SIVSHM_DISK_STOPPING, /* reactors were asked to stop it */
};

/* Who asked for a disk's end. Told by a message: an answer may bring the next request at once. */
struct sivshm_waiter {
	struct list node;
	struct reactor_msg msg;
	void (*done)(void *arg, const char *error);
	void *arg;
};

struct sivshm_disk {
	struct list node; /* in the door's list */
	struct sivshm_door *door;
	uint32_t number; /* the peer's, for lanes' shares */

	char name[SIVSHM_DOOR_NAME_MAX + 1];
	char label[SIVSHM_DOOR_NAME_MAX + 16]; /* for the log */
	char bdev_name[64];
	uint64_t segment_bytes;
	unsigned max_queues;
	bool queues_given; /* the number was asked for */
	enum sivshm_door_sharing sharing;
	bool readonly;
	bool shared;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool path_given;
	int64_t uid;
	int64_t gid;
	mode_t mode;

	struct bdev *bdev;                /* claimed, or NULL: it waits for it */
	struct sivshm_worker *peer;       /* with a segment, or NULL */
	bool joined;                      /* somebody has the segment */
	bool gone;                        /* and is gone */
	struct control_page *page;        /* of the segment */
	struct reactor_fd control;        /* vector 0 */
	struct reactor_timer calm;        /* until it is listened to again */
	unsigned looks;                   /* at the page, since the timer runs */
	bool deaf;                        /* and for now there are no more */
	uint64_t paid_ns;                 /* when the control thread's time is paid for */
	struct sivshm_offer offer;        /* the last that was made */
	enum control_backend_state state; /* as we said it last */
	uint32_t epoch;
	uint32_t revision;

	enum sivshm_disk_phase phase;
	struct blkif_connection *rings; /* of the frontend, or NULL */
	struct sivshm_choice choice;
	struct sivshm_segment segment;
	struct dma *dma; /* in which the segment is mapped, from its first connection on, or NULL */
	unsigned first_lane;
	struct sivshm_doorbell bells[SIVSHM_DOOR_MAX_QUEUES];
	char reason[CONTROL_ERROR_MAX]; /* for which it is being stopped; "": as it was asked */
	uint64_t sectors;               /* of which queues and the frontend know */
	uint64_t new_sectors;           /* and what they are being told, while resizing */
	bool resizing;
	struct blkif_guest guest;
	struct blkif_limiter limiter;
	struct blkif_stats past; /* of connections that have ended */

	char error[384]; /* why it does not work, or "" */
	struct log_limit log_limit;
	struct log_limit data_log_limits[SIVSHM_DOOR_MAX_QUEUES]; /* reactors' */
	bool removing;
	bool force;
	struct list waiters;
};

/* Makes it of what is wanted, in the door's list, with no bdev and no segment. NULL: no memory. */
struct sivshm_disk *sivshm_disk_create(struct sivshm_door *door,
				       const struct sivshm_door_worker *want, uint32_t number);
/* Lets go of everything; it has no connection. */
void sivshm_disk_destroy(struct sivshm_disk *d);

/* Claims its bdev. Returns 0, or a negative errno with the reason. */
int sivshm_disk_claim(struct sivshm_disk *d, struct err *err);
/* Makes a segment and listens. Returns 0, or a negative errno with the reason. */
int sivshm_disk_open(struct sivshm_disk *d, struct err *err);
/* Looks at the world and does the next thing. May destroy the disk. */
void sivshm_disk_evaluate(struct sivshm_disk *d);
/* Its bdev has grown, perhaps. */
void sivshm_disk_follow_size(struct sivshm_disk *d);
/* How its pages are reached, with the bdev that it has. */
enum blkif_sharing sivshm_disk_get_sharing(const struct sivshm_disk *d);

/* The door: a disk has nothing left to do in a drain; and one is to be looked at again. */
void sivshm_door_disk_idle(struct sivshm_door *d);
void sivshm_door_retry_later(struct sivshm_door *d);

#endif
