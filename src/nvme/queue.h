/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An I/O queue: a queue pair on the reactor that uses it.
 *
 * It keeps what does not fit into the rings, submits once a pass, tries again what the controller
 * says may be tried again, and watches the clock.  What it cannot do is help itself: when a command
 * is late it asks the controller's home reactor for an Abort, and when that brings nothing, for a
 * reset.
 *
 * A reset needs all queues at rest, and they are on other threads.  So home sends an order and gets
 * an answer: HOLD, after which the queue touches its rings no more and home may; RESUME, after
 * which everything that was in flight is submitted again, or fails if it was so too often; END,
 * after which all fails.  Requests may come at any time and wait meanwhile.  What a command asked
 * for is never answered while the controller might still carry it out.
 */
#ifndef SLUICE_NVME_QUEUE_H
#define SLUICE_NVME_QUEUE_H

#include "base/log.h"
#include "nvme/qpair.h"
#include "reactor/reactor.h"

enum nvme_order {
	NVME_ORDER_HOLD,
	NVME_ORDER_RESUME,
	NVME_ORDER_END,
};

struct nvme_lane;

struct nvme_queue_options {
	const char *name;          /* of the drive, for logs */
	uint64_t timeout_ns;       /* of a command, then it is aborted */
	uint64_t abort_timeout_ns; /* of that, then the controller is reset */
};

struct nvme_queue {
	struct nvme_qpair qp;
	struct nvme_queue_options opts;
	struct reactor *home;
	struct reactor *reactor; /* NULL: nobody's yet; once bound it stays with its reactor */
	unsigned users;
	/* Home's order to the queue; answered by ack. */
	struct reactor_msg order_msg;
	enum nvme_order order;
	struct reactor_msg ack;
	/*
	 * The queue's cry for help. cid is what is to be aborted, or -1: only a reset can help.
	 * Home clears asking once it has read them.
	 */
	struct reactor_msg help;
	int help_cid;
	bool asking;
	/* In flight when the controller was stopped; home's until RESUME or END. */
	struct list returned;
	/* What its reactor sends through it (lane.h); NULL: nothing yet. */
	struct nvme_lane *lane;
	/* private */
	struct poller poller;
	struct list waiting; /* requests that are not in the submission queue */
	bool held;
	bool ended;
	const struct nvme_req *late; /* for which an Abort was asked */
	uint64_t late_since_ns;      /* which of that request's turns it was */
	uint64_t aborted_ns;
	uint64_t retries; /* commands tried again, for statistics */
	struct log_limit errors;
};

/*
 * Makes the queue pair; home fills in ack.fn and help.fn afterwards. Returns 0 or a negative errno
 * with the line in @err.
 */
int nvme_queue_init(struct nvme_queue *q, struct dma *dma, uint16_t id, uint16_t entries,
		    struct reactor *home, const struct nvme_queue_options *opts, struct err *err);
/* Nothing is in it any more. */
void nvme_queue_fini(struct nvme_queue *q);

/* On the reactor that is to use it (or does already): one more user, one less. */
void nvme_queue_open(struct nvme_queue *q, struct reactor *r);
void nvme_queue_close(struct nvme_queue *q);

/* Requests that it can have in flight. */
static inline uint32_t nvme_queue_depth(const struct nvme_queue *q)
{
	return q->qp.entries - 1u;
}
/* Takes @req; on the queue's reactor. Its done may be called before this returns. */
void nvme_queue_submit(struct nvme_queue *q, struct nvme_req *req);

/* Home: sends the order to a queue that has a reactor; q->ack comes back. One at a time. */
void nvme_queue_send(struct nvme_queue *q, enum nvme_order order);

/* The errno, negative, that says the most of what a status says; 0 for success. */
int nvme_status_errno(uint16_t status);

#endif
