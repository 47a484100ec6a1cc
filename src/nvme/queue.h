/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An I/O queue: the queue pairs of a controller that one reactor uses.
 *
 * Where device memory has no long runs of neighbours, a ring is one page and no deeper than 64
 * commands: then depth comes from several queue pairs, the next of which is used when one is full.
 *
 * The queue keeps what does not fit into the rings, tells the controller once a pass, tries again
 * what the controller says may be tried again, and watches the clock.  What it cannot do is help
 * itself: when a command is late it asks the controller's home reactor for an Abort, and when that
 * brings nothing, for a reset.
 *
 * A reset needs all queues at rest, and they are on other threads.  So home sends an order and gets
 * an answer: HOLD, after which the queue touches its rings no more and home may; RESUME, after
 * which everything that was in flight is submitted again, or fails if it was so too often; END,
 * after which all fails.  Requests may come at any time and wait meanwhile.  What a command asked
 * for is never answered while the controller might still carry it out.
 *
 * A queue is bound to a reactor from its first user to its last, and then it is anybody's.  An
order
 * that is on its way keeps it bound until it was obeyed; and its reactor must go on until a queue
that was closed is unbound.
 */
#ifndef SLUICE_NVME_QUEUE_H
#define SLUICE_NVME_QUEUE_H

#include <pthread.h>

#include "base/log.h"
#include "nvme/qpair.h"
#include "reactor/reactor.h"

enum { NVME_QUEUE_QPAIRS_MAX = 8, NVME_RETRY_DELAYS = 3 };

enum nvme_order {
	NVME_ORDER_HOLD,
	NVME_ORDER_RESUME,
	NVME_ORDER_END,
};

struct nvme_lane;

struct nvme_queue {
	struct nvme_qpair qps[NVME_QUEUE_QPAIRS_MAX];
	unsigned qps_len;
	unsigned now; /* the one that is filled now */
	bool held;
	bool ended;
	/* What its reactor sends through it (lane.h); NULL: nothing yet. */
	struct nvme_lane *lane;
	struct list waiting; /* requests that are not in a submission queue */
	struct poller poller;
	unsigned polls;

	/* Home's, from before the first user on. */
	void *owner;
	const char *name; /* of the drive, for logs */
	struct reactor *home;
	uint64_t timeout_ns;       /* of a command, then it is aborted */
	uint64_t abort_timeout_ns; /* of that, then the controller is reset */
	const uint64_t
		*retry_ns; /* NVME_RETRY_DELAYS of them, where a status names one by number */
	/* Home's order to the queue; answered by ack. */
	struct reactor_msg order_msg;
	enum nvme_order order;
	struct reactor_msg ack;
	/*
	 * The queue's cry for help: help_cid of the queue pair help_qid is to be aborted; if that
	 * is 0, only a reset can help. Home clears asking once it has read them.
	 */
	struct reactor_msg help;
	uint16_t help_qid;
	uint16_t help_cid;
	bool asking;
	/* In flight when the controller was stopped; home's until RESUME or END. */
	struct list returned;

	/* Guards what follows: whose queue it is. */
	pthread_mutex_t *lock;
	struct reactor *reactor; /* NULL: nobody's */
	unsigned users;
	bool ordered; /* an order is on its way to reactor */
	bool leaving; /* and so is the end of the last use */
	struct reactor_msg leave_msg;

	/* private */
	struct list delayed; /* to be tried again, in no order */
	struct reactor_timer retry_timer;
	uint64_t checked_ns;
	uint64_t completions;        /* of all, at the last check */
	const struct nvme_req *late; /* for which an Abort was asked */
	uint64_t late_since_ns;      /* which of that request's turns it was */
	uint64_t aborted_ns;
	struct log_limit errors;
};

/* An empty queue; home fills in its part, and makes the queue pairs: nvme_queue_add_qpair(). */
void nvme_queue_init(struct nvme_queue *q);
/* Returns 0 or a negative errno with the line in @err. */
int nvme_queue_add_qpair(struct nvme_queue *q, struct dma *dma, uint16_t id, uint16_t entries,
			 uint16_t cq_entries, struct err *err);
/* Nothing is in it any more. */
void nvme_queue_fini(struct nvme_queue *q);

/*
 * One user more, with the lock held, on @r's thread: the queue is @r's already or nobody's.
 */
void nvme_queue_open(struct nvme_queue *q, struct reactor *r);
/* One less; on the queue's reactor, and without the lock. What this user submitted is over. */
void nvme_queue_close(struct nvme_queue *q);

/* Requests that it can have in flight. */
uint32_t nvme_queue_depth(const struct nvme_queue *q);
/* Takes @req; on the queue's reactor. Its done may be called before this returns. */
void nvme_queue_submit(struct nvme_queue *q, struct nvme_req *req);

/*
 * Home: sends the order to a queue that has a reactor; q->ack comes back. With the lock held, and
 * one at a time.
 */
void nvme_queue_send(struct nvme_queue *q, enum nvme_order order);

/* The errno, negative, that says the most of what a status says; 0 for success. */
int nvme_status_errno(uint16_t status);

#endif
