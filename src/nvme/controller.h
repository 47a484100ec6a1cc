/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A controller: brought up, watched, reset when it goes wrong, and shut down.
 *
 * All that takes time, up to minutes, and nothing on a reactor may block.  So the controller is a
 * state machine on one reactor, its home (the control thread), driven by a timer that looks at
 * registers and at the admin queue: each millisecond while something is under way, and twice a
 * second otherwise.  I/O goes through its queues on other reactors and never comes by here.
 *
 *	            start                 live                      stop
 *	NEW ──> STARTING ──────────────> LIVE ──> STOPPING ──────> STOPPED
 *	            │          ┌──────────┤ ▲ reset                   │
 *	            │          ▼ trouble  │ │                         │
 *	            │      RESETTING ─────┼─┘                         │
 *	            ▼          ▼          ▼ removed                   ▼
 *	           DEAD <──────┴──────────┘                      destroyed
 *
 * One rule is above all: memory that the controller might still write is not given back to anybody,
 * and a request is not answered while it might still be carried out.  Either the controller has
 * said that it is disabled, or it has been cut off from the bus; if neither can be had, it is tried
 * again for as long as it takes.
 */
#ifndef SLUICE_NVME_CONTROLLER_H
#define SLUICE_NVME_CONTROLLER_H

#include "nvme/pci.h"
#include "nvme/prp.h"
#include "nvme/queue.h"

enum nvme_state {
	NVME_NEW,
	NVME_STARTING,
	NVME_LIVE,
	NVME_RESETTING,
	NVME_STOPPING,
	NVME_STOPPED,
	NVME_DEAD,
};

enum { NVME_NAMESPACES_MAX = 256, NVME_QUEUES_MAX = 64, NVME_DEPTH_MAX = 1024 };

/* By which a namespace is known again; all zeros: it does not say. */
struct nvme_ns_id {
	uint8_t nguid[16];
	uint8_t eui64[8];
};

struct nvme_namespace {
	uint32_t nsid;
	struct nvme_ns_id id;
	uint64_t blocks;
	uint32_t block_size; /* bytes; any power of two, or 0 */
	uint16_t metadata;   /* bytes a block */
	bool protection;     /* end-to-end protection information is on */
	uint32_t stripe;     /* bytes between boundaries that I/O had better not cross; 0: none */
	bool readonly;
};

/* What its commands may be; as it is when it first gets live, and a reset lowers none of it. */
struct nvme_limits {
	uint32_t max_transfer;     /* bytes; a multiple of 4096, at most NVME_PRP_MAX */
	bool sgl;                  /* data may be described by SGLs */
	uint64_t zeroes_bytes;     /* of a Write Zeroes */
	uint32_t dsm_ranges;       /* of a Dataset Management */
	uint32_t dsm_range_blocks; /* of one of them */
	uint64_t dsm_blocks;       /* of all of them */
};

enum nvme_change {
	NVME_CHANGED_NAMESPACES, /* look at them again */
	NVME_CHANGED_HEALTH,     /* the controller has reported an event; see its logs */
	NVME_CHANGED_DEAD,       /* for good; all I/O fails with -ENODEV */
};

struct nvme_ctrl;

/* All on the home reactor. */
struct nvme_ctrl_ops {
	/* Once after nvme_ctrl_start(): 0, or a negative errno with the line in @err. */
	void (*started)(struct nvme_ctrl *c, int rc, const struct err *err, void *arg);
	void (*changed)(struct nvme_ctrl *c, enum nvme_change what, void *arg);
	/* Once after nvme_ctrl_stop(). It may destroy the controller. */
	void (*stopped)(struct nvme_ctrl *c, void *arg);
};

struct nvme_ctrl_options {
	/* Reactors that will use it, at most NVME_QUEUES_MAX; home has a queue besides. */
	unsigned io_queues;
	/*
	 * Commands that each may have in flight, NVME_DEPTH_MAX at most; fewer if the driver's
	 * memory (8 MiB) or the controller's queues do not suffice.
	 */
	uint16_t depth;
	uint64_t timeout_ns; /* of an I/O command */
	uint64_t abort_timeout_ns;
	uint64_t admin_timeout_ns;
};

/* What suits nearly all drives. */
void nvme_ctrl_default_options(struct nvme_ctrl_options *opts);

/*
 * An admin command with up to a page of data; part of a larger object of its owner's. sqe is filled
 * in but for its pointers. One is under way at a time, the others wait.
 */
struct nvme_admin {
	struct nvme_sqe sqe;
	void *data; /* NULL: none */
	uint32_t len;
	bool to_drive; /* the data, else from it */
	/* Once: 0 or a negative errno; -EIO if a reset came in between. */
	void (*done)(struct nvme_admin *a, int rc);
	uint32_t result;
	uint16_t status;
	/* private */
	struct list node;
};

/*
 * Makes a controller from @pci and @dma, which must outlive it. Nothing is done to it yet. Returns
 * 0 or a negative errno with the line in @err.
 */
int nvme_ctrl_create(struct nvme_pci *pci, struct dma *dma, struct reactor *home,
		     const struct nvme_ctrl_options *opts, const struct nvme_ctrl_ops *ops,
		     void *arg, struct nvme_ctrl **out, struct err *err);
/* Only if it was never started, or is STOPPED, or DEAD and then stopped. */
void nvme_ctrl_destroy(struct nvme_ctrl *c);
void nvme_ctrl_start(struct nvme_ctrl *c);
/*
 * Shuts it down in good order, after whatever is under way; what has been submitted fails. Reactors
 * must still run, as they are asked. Once, also for a dead one. It has stopped when all queues are
 * closed as well.
 */
void nvme_ctrl_stop(struct nvme_ctrl *c);
/* Asks for a reset, as a time-out would. */
void nvme_ctrl_reset(struct nvme_ctrl *c, const char *why);

enum nvme_state nvme_ctrl_state(const struct nvme_ctrl *c);
const char *nvme_ctrl_name(const struct nvme_ctrl *c);
struct dma *nvme_ctrl_dma(const struct nvme_ctrl *c);
struct reactor *nvme_ctrl_home(const struct nvme_ctrl *c);
/* Valid from the first time it is live. */
const struct nvme_id_ctrl *nvme_ctrl_identity(const struct nvme_ctrl *c);
/* Valid from the first time it is live. */
const struct nvme_limits *nvme_ctrl_limits(const struct nvme_ctrl *c);
/* How many reactors can have a queue at a time. Valid from the first time it is live. */
unsigned nvme_ctrl_queues(const struct nvme_ctrl *c);
/* Whether a completed write may be lost with the power until a Flush. From any thread. */
bool nvme_ctrl_has_write_cache(const struct nvme_ctrl *c);
/* NULL: there is none with that number. Home reactor. */
const struct nvme_namespace *nvme_ctrl_namespace(const struct nvme_ctrl *c, uint32_t nsid);
/* The active ones, ascending; returns how many. */
unsigned nvme_ctrl_namespaces(const struct nvme_ctrl *c, const struct nvme_namespace **list);

/* On the home reactor. */
void nvme_ctrl_admin(struct nvme_ctrl *c, struct nvme_admin *a);
/*
 * Fills in @a to read @len bytes of a log page (NVME_LOG_*) to @data; a multiple of 4, at most a
 * page.
 */
void nvme_admin_log_page(struct nvme_admin *a, uint8_t log, void *data, uint32_t len);

/*
 * On a reactor: its queue, opened once more. -EBUSY: there are fewer queues than reactors that want
 * one now; -ENODEV: it is dead. nvme_queue_close() gives it back.
 */
int nvme_ctrl_open_queue(struct nvme_ctrl *c, struct reactor *r, struct nvme_queue **out);

/*
 * Brings a controller to rest that somebody else, who is gone, has left running: when this returns
 * 0 it is disabled, or cut off from the bus, and reaches no memory any more. Blocks for as long as
 * the controller takes: for the daemon's start only. A negative errno with the line in @err: it can
 * be brought to neither; what it may reach must be kept. A drive that is not there is at rest.
 */
int nvme_ctrl_quiesce(struct nvme_pci *pci, struct err *err);

#endif
