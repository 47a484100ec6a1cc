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
	/* A queue reads the clock every so many polls. */
	POLLS_PER_CLOCK = 64,
};

/* How often it looks at what is in flight. */
#define CHECK_NS (10 * NSEC_PER_MSEC)

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

/* Trying again */

/*
 * How long to wait before. A controller that gives a reason to retry but no time (a namespace that
 * is not ready) would be through with all of its chances within microseconds.
 */
static uint64_t retry_delay_ns(const struct nvme_queue *q, const struct nvme_req *req)
{
	static const uint64_t own_ns[RETRIES_MAX] = {0, 1 * NSEC_PER_MSEC, 10 * NSEC_PER_MSEC,
						     100 * NSEC_PER_MSEC};
	unsigned number = NVME_STATUS_CRD(req->status);

	if (number && q->retry_ns[number - 1])
		return q->retry_ns[number - 1];
	return own_ns[req->retries];
}

/* Moves what is due to those that wait, and sets the timer for the next. */
static void retry_due(struct reactor_timer *t)
{
	struct nvme_queue *q = container_of(t, struct nvme_queue, retry_timer);
	uint64_t now = clock_now_ns(), next = UINT64_MAX;
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, &q->delayed) {
		struct nvme_req *req = list_entry(pos, struct nvme_req, node);

		if (req->again_ns <= now) {
			list_del(pos);
			list_add_tail(&q->waiting, pos);
		} else if (req->again_ns < next) {
			next = req->again_ns;
		}
	}
	if (next != UINT64_MAX)
		reactor_timer_start(q->reactor, t, next - now);
	if (!q->held)
		reactor_poller_wake(&q->poller);
}

static void retry(struct nvme_queue *q, struct nvme_req *req)
{
	req->again_ns = clock_now_ns() + retry_delay_ns(q, req);
	req->retries++;
	list_add_tail(&q->delayed, &req->node);
	retry_due(&q->retry_timer);
}

static void queue_completed(struct nvme_qpair *qp, struct nvme_req *req)
{
	struct nvme_queue *q = qp->owner;
	int error;

	if (!NVME_STATUS_CODE(req->status)) {
		finish(req, 0);
		return;
	}
	if (!(req->status & NVME_STATUS_DNR) && req->retries < RETRIES_MAX) {
		retry(q, req);
		return;
	}
	error = nvme_status_errno(req->status);
	log_limited(&q->errors, LOG_LEVEL_WARNING,
		    "%s: command %#x of namespace %u failed with status %#x", q->name,
		    req->sqe.opcode, req->sqe.nsid, req->status);
	finish(req, error);
}

/* Submitting */

/* Into the queue pair in use, or the next that has room. */
static bool push(struct nvme_queue *q, struct nvme_req *req)
{
	for (unsigned i = 0; i < q->qps_len; i++) {
		if (nvme_qpair_push(&q->qps[q->now], req))
			return true;
		if (++q->now == q->qps_len)
			q->now = 0;
	}
	return false;
}

static void push_waiting(struct nvme_queue *q)
{
	while (!list_empty(&q->waiting)) {
		struct nvme_req *req = list_entry(q->waiting.next, struct nvme_req, node);

		if (!push(q, req))
			break;
		list_del(&req->node);
	}
}

void nvme_queue_submit(struct nvme_queue *q, struct nvme_req *req)
{
	req->retries = 0;
	req->resets = 0;
	if (q->ended) {
		req->status = 0;
		finish(req, -ENODEV);
		return;
	}
	if (q->held) {
		list_add_tail(&q->waiting, &req->node);
		return;
	}
	/* The controller hears of it at the end of the pass. */
	if (!list_empty(&q->waiting) || !push(q, req))
		list_add_tail(&q->waiting, &req->node);
	reactor_poller_wake(&q->poller);
}

/* The clock */

/* For @cid of queue pair @qid; 0: for all. */
static void ask(struct nvme_queue *q, uint16_t qid, uint16_t cid)
{
	/* Pairs with home's release: it has read the last question. */
	if (__atomic_load_n(&q->asking, __ATOMIC_ACQUIRE))
		return;
	__atomic_store_n(&q->asking, true, __ATOMIC_RELAXED);
	q->help_qid = qid;
	q->help_cid = cid;
	reactor_send(q->home, &q->help);
}

/* The one that is in flight the longest; those that have come since the last look begin now. */
static const struct nvme_req *oldest(struct nvme_queue *q, uint64_t now, uint16_t *qid)
{
	const struct nvme_req *found = NULL;

	for (unsigned i = 0; i < q->qps_len; i++) {
		const struct nvme_qpair *qp = &q->qps[i];

		for (unsigned j = 0; qp->inflight && j < qp->entries - 1u; j++) {
			struct nvme_req *req = nvme_qpair_at(qp, j);

			if (!req)
				continue;
			if (!req->since_ns)
				req->since_ns = now;
			if (found && found->since_ns <= req->since_ns)
				continue;
			found = req;
			*qid = qp->id;
		}
	}
	return found;
}

static void check_time(struct nvme_queue *q)
{
	uint64_t now = reactor_clock_ns(q->reactor), completions = 0;
	const struct nvme_req *req;
	uint16_t qid = 0;

	if (now - q->checked_ns < CHECK_NS)
		return;
	q->checked_ns = now;
	for (unsigned i = 0; i < q->qps_len; i++)
		completions += q->qps[i].completions;
	for (unsigned i = 0; i < q->qps_len && completions == q->completions; i++)
		nvme_qpair_nudge(&q->qps[i]);
	q->completions = completions;
	req = oldest(q, now, &qid);
	if (!req || now - req->since_ns < q->timeout_ns)
		return;
	if (q->late != req || q->late_since_ns != req->since_ns) {
		q->late = req;
		q->late_since_ns = req->since_ns;
		q->aborted_ns = now;
		ask(q, qid, req->sqe.cid);
	} else if (now - q->aborted_ns >= q->abort_timeout_ns) {
		ask(q, 0, 0);
	}
}

static int queue_poll(struct poller *p)
{
	struct nvme_queue *q = container_of(p, struct nvme_queue, poller);
	bool broken = false;
	int n = 0;

	if (q->held)
		return 0;
	for (unsigned i = 0; i < q->qps_len; i++) {
		if (q->qps[i].inflight)
			n += (int)nvme_qpair_poll(&q->qps[i]);
		broken |= q->qps[i].broken;
	}
	if (broken) {
		ask(q, 0, 0);
		return n;
	}
	/* Afterwards, so that what the completed commands' owners submit in turn goes along. */
	push_waiting(q);
	for (unsigned i = 0; i < q->qps_len; i++)
		nvme_qpair_ring(&q->qps[i]);
	if (++q->polls % POLLS_PER_CLOCK == 0)
		check_time(q);
	return n;
}

/* A drive gives no descriptor to wait on here: while it owes an answer it is polled. */
static bool queue_arm(struct poller *p)
{
	struct nvme_queue *q = container_of(p, struct nvme_queue, poller);

	if (q->held)
		return false;
	for (unsigned i = 0; i < q->qps_len; i++)
		if (q->qps[i].inflight)
			return true;
	return !list_empty(&q->waiting);
}

/* Orders */

static void resume(struct nvme_queue *q)
{
	struct list failed, again, *node;

	list_init(&failed);
	list_init(&again);
	while ((node = list_pop(&q->returned))) {
		struct nvme_req *req = list_entry(node, struct nvme_req, node);

		list_add_tail(++req->resets > RESETS_MAX ? &failed : &again, node);
	}
	/* Those were there before what waits. */
	list_splice_tail(&again, &q->waiting);
	list_splice_tail(&q->waiting, &again);
	q->held = false;
	if (q->users)
		reactor_poller_wake(&q->poller);
	fail_all(&failed, -EIO);
}

static void end(struct nvme_queue *q)
{
	q->ended = true;
	reactor_timer_stop(q->reactor, &q->retry_timer);
	fail_all(&q->returned, -ENODEV);
	fail_all(&q->waiting, -ENODEV);
	fail_all(&q->delayed, -ENODEV);
}

/* With the lock held: nobody's, unless something still holds it. */
static void unbind(struct nvme_queue *q)
{
	if (!q->users && !q->ordered && !q->leaving)
		q->reactor = NULL;
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
		end(q);
		break;
	}
	pthread_mutex_lock(q->lock);
	q->ordered = false;
	unbind(q);
	pthread_mutex_unlock(q->lock);
	reactor_send(q->home, &q->ack);
}

void nvme_queue_send(struct nvme_queue *q, enum nvme_order order)
{
	q->ordered = true;
	q->order = order;
	q->order_msg.fn = obey;
	reactor_send(q->reactor, &q->order_msg);
}

/* Life */

void nvme_queue_init(struct nvme_queue *q)
{
	*q = (struct nvme_queue){
		.poller = {.name = "nvme", .poll = queue_poll, .arm = queue_arm},
		.retry_timer.fire = retry_due,
	};
	list_init(&q->waiting);
	list_init(&q->delayed);
	list_init(&q->returned);
}

int nvme_queue_add_qpair(struct nvme_queue *q, struct dma *dma, uint16_t id, uint16_t entries,
			 uint16_t cq_entries, struct err *err)
{
	struct nvme_qpair *qp = &q->qps[q->qps_len];
	int rc = nvme_qpair_init(qp, dma, id, entries, cq_entries, err);

	if (rc)
		return rc;
	qp->completed = queue_completed;
	qp->owner = q;
	q->qps_len++;
	return 0;
}

void nvme_queue_fini(struct nvme_queue *q)
{
	while (q->qps_len)
		nvme_qpair_fini(&q->qps[--q->qps_len]);
}

uint32_t nvme_queue_depth(const struct nvme_queue *q)
{
	uint32_t depth = 0;

	for (unsigned i = 0; i < q->qps_len; i++)
		depth += q->qps[i].entries - 1u;
	return depth;
}

void nvme_queue_open(struct nvme_queue *q, struct reactor *r)
{
	q->reactor = r;
	if (!q->users++)
		reactor_poller_add(r, &q->poller);
}

static void leave(struct reactor_msg *msg)
{
	struct nvme_queue *q = container_of(msg, struct nvme_queue, leave_msg);

	pthread_mutex_lock(q->lock);
	q->leaving = false;
	unbind(q);
	pthread_mutex_unlock(q->lock);
}

void nvme_queue_close(struct nvme_queue *q)
{
	pthread_mutex_lock(q->lock);
	if (!--q->users) {
		reactor_poller_del(&q->poller);
		reactor_timer_stop(q->reactor, &q->retry_timer);
		/* Not before what is on the stack now, which may be the queue's own poll, is over.
		 */
		if (!q->leaving) {
			q->leaving = true;
			q->leave_msg.fn = leave;
			reactor_send(q->reactor, &q->leave_msg);
		}
	}
	pthread_mutex_unlock(q->lock);
}
