/* SPDX-License-Identifier: BSD-2-Clause */
#include "nvme/queue.h"

#include <errno.h>

#include "base/clock.h"

enum {
	/*
	 * How often a command is tried again that the controller has failed without "do not
	 * retry". Without a bound a controller that means it would be asked for ever.
	 */
	RETRIES_MAX = 4,
	/*
	 * How many resets a command may live through. One that is there whenever the controller
	 * stops may well be what stops it.
	 */
	RESETS_MAX = 2,
	/* A busy queue looks at the clock every so many polls; an idle one each time. */
	POLLS_PER_CLOCK = 64,
};

int nvme_status_errno(uint16_t status)
{
	switch (NVME_STATUS_CODE(status)) {
	case NVME_SC_SUCCESS:
		return 0;
	case NVME_SC_INVALID_OPCODE:
		return -EOPNOTSUPP;
	case NVME_SC_CAPACITY_EXCEEDED:
		return -ENOSPC;
	case NVME_SC_READ_ONLY:
		return -EROFS;
	default:
		return -EIO;
	}
}

static void finish(struct nvme_req *req, int error)
{
	req->error = error;
	req->done(req);
}

static void fail_all(struct list *list, int error)
{
	struct list *node;

	while ((node = list_pop(list)))
		finish(list_entry(node, struct nvme_req, node), error);
}

static void queue_completed(struct nvme_qpair *qp, struct nvme_req *req)
{
	struct nvme_queue *q = container_of(qp, struct nvme_queue, qp);
	int error = nvme_status_errno(req->status);

	if (error && !(req->status & NVME_STATUS_DNR) && req->retries < RETRIES_MAX) {
		req->retries++;
		q->retries++;
		list_add_tail(&q->waiting, &req->node);
		return;
	}
	if (error)
		log_limited(&q->errors, LOG_LEVEL_WARNING,
			    "%s: command %#x of namespace %u failed with status %#x", q->opts.name,
			    req->sqe.opcode, req->sqe.nsid, req->status);
	finish(req, error);
}

static int submit_waiting(struct nvme_queue *q)
{
	uint64_t now;
	int n = 0;

	if (list_empty(&q->waiting))
		return 0;
	now = clock_now_ns();
	while (!list_empty(&q->waiting)) {
		struct list *node = list_pop(&q->waiting);

		if (!nvme_qpair_push(&q->qp, list_entry(node, struct nvme_req, node), now)) {
			list_add_head(&q->waiting, node);
			break;
		}
		n++;
	}
	nvme_qpair_ring(&q->qp);
	return n;
}

static void ask(struct nvme_queue *q, int cid)
{
	/* Pairs with home's release: it has read the last question. */
	if (__atomic_load_n(&q->asking, __ATOMIC_ACQUIRE))
		return;
	q->asking = true;
	q->help_cid = cid;
	reactor_send(q->home, &q->help);
}

static void check_time(struct nvme_queue *q)
{
	const struct nvme_req *oldest = nvme_qpair_oldest(&q->qp);
	uint64_t now;

	if (!oldest)
		return;
	now = clock_now_ns();
	if (now - oldest->since_ns < q->opts.timeout_ns)
		return;
	if (q->late != oldest || q->late_since_ns != oldest->since_ns) {
		q->late = oldest;
		q->late_since_ns = oldest->since_ns;
		q->aborted_ns = now;
		ask(q, oldest->sqe.cid);
	} else if (now - q->aborted_ns >= q->opts.abort_timeout_ns) {
		ask(q, -1);
	}
}

static int queue_poll(struct poller *p)
{
	struct nvme_queue *q = container_of(p, struct nvme_queue, poller);
	static _Thread_local unsigned polls;
	int n;

	if (q->held)
		return 0;
	n = (int)nvme_qpair_poll(&q->qp);
	if (q->qp.broken) {
		ask(q, -1);
		return n;
	}
	/* Afterwards, so that what the completed commands' owners submit in turn goes along. */
	n += submit_waiting(q);
	if (!n || ++polls % POLLS_PER_CLOCK == 0)
		check_time(q);
	return n;
}

/* A drive gives no descriptor to wait on here: while it owes an answer it is polled. */
static bool queue_arm(struct poller *p)
{
	struct nvme_queue *q = container_of(p, struct nvme_queue, poller);

	return !q->held && (nvme_qpair_inflight(&q->qp) || !list_empty(&q->waiting));
}

void nvme_queue_submit(struct nvme_queue *q, struct nvme_req *req)
{
	req->retries = 0;
	req->resets = 0;
	req->status = 0;
	if (q->ended) {
		finish(req, -ENODEV);
		return;
	}
	list_add_tail(&q->waiting, &req->node);
	if (!q->held)
		reactor_poller_wake(&q->poller);
}

static void resume(struct nvme_queue *q)
{
	struct list failed, again, *node;

	list_init(&failed);
	list_init(&again);
	while ((node = list_pop(&q->returned))) {
		struct nvme_req *req = list_entry(node, struct nvme_req, node);

		list_add_tail(++req->resets > RESETS_MAX ? &failed : &again, node);
	}
	/* In the order they had: those were there before what waits. */
	list_splice_tail(&again, &q->waiting);
	list_splice_tail(&q->waiting, &again);
	q->held = false;
	if (q->users)
		reactor_poller_wake(&q->poller);
	fail_all(&failed, -EIO);
}

static void obey(struct reactor_msg *msg)
{
	struct nvme_queue *q = container_of(msg, struct nvme_queue, order_msg);

	q->late = NULL;
	switch (q->order) {
	case NVME_ORDER_HOLD:
		q->held = true;
		break;
	case NVME_ORDER_RESUME:
		resume(q);
		break;
	case NVME_ORDER_END:
		q->ended = true;
		fail_all(&q->returned, -ENODEV);
		fail_all(&q->waiting, -ENODEV);
		break;
	}
	reactor_send(q->home, &q->ack);
}

void nvme_queue_send(struct nvme_queue *q, enum nvme_order order)
{
	q->order = order;
	q->order_msg.fn = obey;
	reactor_send(q->reactor, &q->order_msg);
}

int nvme_queue_init(struct nvme_queue *q, struct dma *dma, uint16_t id, uint16_t entries,
		    struct reactor *home, const struct nvme_queue_options *opts, struct err *err)
{
	*q = (struct nvme_queue){.home = home, .opts = *opts};
	list_init(&q->waiting);
	list_init(&q->returned);
	q->poller.name = "nvme";
	q->poller.poll = queue_poll;
	q->poller.arm = queue_arm;
	if (nvme_qpair_init(&q->qp, dma, id, entries, err))
		return -ENOMEM;
	q->qp.completed = queue_completed;
	return 0;
}

void nvme_queue_fini(struct nvme_queue *q)
{
	nvme_qpair_fini(&q->qp);
}

void nvme_queue_open(struct nvme_queue *q, struct reactor *r)
{
	if (!q->users++)
		reactor_poller_add(r, &q->poller);
}

void nvme_queue_close(struct nvme_queue *q)
{
	if (!--q->users)
		reactor_poller_del(&q->poller);
}
