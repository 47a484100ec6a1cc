/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of a controller share: controller.c (registers, and the states of its life),
 * bringup.c (the chain of commands from enabled to live, and the look at namespaces), admin.c (the
 * admin queue: commands, Aborts, events).
 *
 * All of it runs on the home reactor, but for the opening of queues.
 */
#ifndef SLUICE_NVME_INTERNAL_H
#define SLUICE_NVME_INTERNAL_H

#include "nvme/controller.h"

enum {
	NVME_ADMIN_ENTRIES = 32,
	NVME_ABORTS_MAX = 4,
	NVME_EVENTS_MAX = 2,
	/* All queues but one are alike; that one is home's, for what it reads now and then. */
	NVME_ALL_QUEUES_MAX = NVME_QUEUES_MAX + 1,
	NVME_QPAIRS_MAX = NVME_QUEUES_MAX * NVME_QUEUE_QPAIRS_MAX + 1,
	/* Device memory that it takes at most, with its lanes: 8 MiB. */
	NVME_CTRL_PAGES_MAX = 2048,
};

/* A pulled drive answers reads with ones. */
#define NVME_GONE UINT32_MAX

enum nvme_phase {
	NVME_PHASE_IDLE,
	NVME_PHASE_HOLD,   /* the queues' answers */
	NVME_PHASE_SETTLE, /* somebody has just enabled it: not to be disabled before it is ready */
	NVME_PHASE_DISABLE,  /* CSTS.RDY = 0 */
	NVME_PHASE_ENABLE,   /* CSTS.RDY = 1 */
	NVME_PHASE_COMMANDS, /* the chain of admin commands */
	NVME_PHASE_LIVE,
	NVME_PHASE_DELETE,   /* the queues, one by one */
	NVME_PHASE_SHUTDOWN, /* CSTS.SHST */
	NVME_PHASE_CUT,      /* bus mastering off */
	NVME_PHASE_END,      /* the queues' answers */
	NVME_PHASE_OVER,     /* the queues' last users */
};

enum nvme_step {
	NVME_STEP_IDENTIFY,
	NVME_STEP_LIMITS,
	NVME_STEP_BEHAVIOR,
	NVME_STEP_CACHE,
	NVME_STEP_NUM_QUEUES,
	NVME_STEP_DBBUF,
	NVME_STEP_CREATE_CQ,
	NVME_STEP_CREATE_SQ,
	NVME_STEP_EVENTS,
	NVME_STEP_CHANGED, /* only when namespaces have changed: reading the log ends the event */
	NVME_STEP_NAMESPACES,
	NVME_STEP_NAMESPACE,
	NVME_STEP_DONE,
};

struct nvme_abort {
	struct nvme_req req;
	bool busy;
};

struct nvme_event {
	struct nvme_req req;
	struct nvme_ctrl *ctrl;
};

struct nvme_ctrl {
	struct nvme_pci *pci;
	struct dma *dma;
	struct reactor *home;
	struct nvme_ctrl_options opts;
	const struct nvme_ctrl_ops *ops;
	void *arg;

	enum nvme_state state;
	enum nvme_phase phase;
	uint64_t deadline_ns;
	struct reactor_timer timer;
	bool was_live;
	bool stop_wanted;
	int rc; /* why it failed */
	struct err err;

	uint64_t cap;
	uint16_t qids_max; /* of those whose doorbells are in the BAR */
	struct nvme_limits limits;
	struct nvme_limits found; /* in this bring-up */
	bool write_cache;         /* read by all */
	struct nvme_id_ctrl *id;

	/* The admin queue. */
	struct nvme_qpair admin;
	struct nvme_req admin_req; /* for commands with data, one at a time */
	struct nvme_admin *admin_now;
	struct list admin_waiting;
	struct dma_memory page;  /* its data */
	struct dma_memory dbbuf; /* shadow doorbells, event indices */
	struct nvme_abort aborts[NVME_ABORTS_MAX];
	unsigned aborts_len;
	struct nvme_event events[NVME_EVENTS_MAX];
	unsigned events_len;

	/* The chain of commands. */
	enum nvme_step step;
	struct nvme_admin chain;
	struct nvme_admin undo;
	unsigned at; /* which of the queues, or of the namespaces */
	bool rescan; /* only the namespaces, while it is live */
	bool rescan_again;
	uint64_t retry_ns[NVME_RETRY_DELAYS];
	void *buffer; /* a page */
	uint32_t nsids[NVME_NAMESPACES_MAX];
	unsigned nsids_len;
	struct nvme_namespace fresh[NVME_NAMESPACES_MAX];
	unsigned fresh_len;
	struct nvme_namespace namespaces[NVME_NAMESPACES_MAX];
	unsigned namespaces_len;

	struct nvme_queue *queues;
	unsigned queues_len;
	struct nvme_queue *home_queue;           /* of these, or NULL */
	struct nvme_qpair *qps[NVME_QPAIRS_MAX]; /* of all queues, by ID - 1 */
	unsigned qps_len;
	/* Guards which reactor has which queue, holding and ended. */
	pthread_mutex_t lock;
	bool holding;
	bool ended;
	unsigned acks;
	bool hold_wanted; /* once the acks of the order before are in */

	/* The end is told from a message, so that who is told may destroy us. */
	struct reactor_msg end_msg;
	bool telling;
	bool end_untold;
	bool cut_failed;

	uint64_t resets_since_ns;
	unsigned resets;
};

/*
 * Registers. In 32 bits always: not every controller takes more at once. And atomically, which here
 * means: not in two, not left out, and what was written before (rings, pages) is in memory.
 */
static inline volatile uint32_t *nvme_reg(const struct nvme_pci *pci, size_t offset)
{
	return (volatile uint32_t *)(volatile void *)((volatile char *)pci->bar + offset);
}

static inline uint32_t nvme_reg_read(const struct nvme_pci *pci, size_t offset)
{
	return __atomic_load_n(nvme_reg(pci, offset), __ATOMIC_ACQUIRE);
}

static inline void nvme_reg_write(const struct nvme_pci *pci, size_t offset, uint32_t value)
{
	__atomic_store_n(nvme_reg(pci, offset), value, __ATOMIC_RELEASE);
}

/* controller.c */

/* Gives the controller up; @rc and the line are what started says. */
void nvme_ctrl_fail(struct nvme_ctrl *c, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The chain is through for the first time, or after a reset. */
void nvme_ctrl_live(struct nvme_ctrl *c);
/* The doorbell's register and nothing else. */
void nvme_ctrl_set_doorbell(const struct nvme_ctrl *c, struct nvme_doorbell *db, unsigned qid,
			    bool cq);
/* Of a queue pair's doorbell, from the first doorbell on. */
size_t nvme_ctrl_doorbell_offset(const struct nvme_ctrl *c, unsigned qid, bool cq);
/* For new queues: home's ends of their messages. */
void nvme_ctrl_order_acked(struct reactor_msg *msg);
void nvme_ctrl_help_asked(struct reactor_msg *msg);

/* bringup.c */

/* Begins the chain; or, while it is live, the look at namespaces. */
void nvme_bringup_start(struct nvme_ctrl *c);
void nvme_bringup_rescan(struct nvme_ctrl *c);
/*
 * Before a shutdown, with c->at at 0 first and nothing else under way: sends the next command that
 * deletes a queue. Returns false if there is none left.
 */
bool nvme_bringup_undo(struct nvme_ctrl *c);
/* What it is at, in words. */
const char *nvme_bringup_step(const struct nvme_ctrl *c);

/* admin.c */

int nvme_admin_init(struct nvme_ctrl *c, struct err *err);
void nvme_admin_fini(struct nvme_ctrl *c);
/* Before it is enabled. */
void nvme_admin_enable(struct nvme_ctrl *c);
/* Sends @a at once, as nothing else is under way. */
void nvme_admin_start(struct nvme_ctrl *c, struct nvme_admin *a);
/* Sends the next of those that wait, if it can be. */
void nvme_admin_start_waiting(struct nvme_ctrl *c);
/* The controller is stopped: what is under way has failed; the chain just ends. */
void nvme_admin_take_back(struct nvme_ctrl *c);
/* Fails those that wait. */
void nvme_admin_fail_waiting(struct nvme_ctrl *c);
void nvme_admin_abort(struct nvme_ctrl *c, uint16_t sqid, uint16_t cid);
void nvme_admin_ask_for_events(struct nvme_ctrl *c);
/*
 * Takes completions. Returns false if one is overdue or makes no sense. What a completion sets in
 * motion may be the end of everything.
 */
bool nvme_admin_poll(struct nvme_ctrl *c);
/* Whether a command is under way that will not take for ever, as events do. */
bool nvme_admin_busy(const struct nvme_ctrl *c);

#endif
