/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How to read this: tick() is the clock, and looks at what the present phase waits for.  Trouble
 * ends in one of two functions, nvme_ctrl_reset() or fail(), whoever finds it.  A reset holds the
 * queues, disables the controller and brings it up again; failing cuts it off and is final.
 * Bringing up (base specification 3.5.1) is registers first, then a chain of admin commands: steps,
 * each of which sends one command and judges its completion.
 */
#include "nvme/controller.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum {
	ADMIN_ENTRIES = 32,
	ABORTS_MAX = 4,
	EVENTS_MAX = 2,
	/* So many resets within RESETS_NS, and one more is one too many. */
	RESETS_MAX = 4,
};

#define TICK_NS   (1 * NSEC_PER_MSEC)
#define WATCH_NS  (500 * NSEC_PER_MSEC)
#define RESETS_NS (600 * NSEC_PER_SEC)
/* Where the controller does not say how long its shutdown takes. */
#define SHUTDOWN_NS (10 * NSEC_PER_SEC)
/* A pulled drive answers reads with ones. */
#define GONE UINT32_MAX

#define FATAL "the controller reports a fatal error"

enum phase {
	PHASE_IDLE,
	PHASE_HOLD,     /* the queues' answers */
	PHASE_SETTLE,   /* somebody has just enabled it: not to be disabled before it is ready */
	PHASE_DISABLE,  /* CSTS.RDY = 0 */
	PHASE_ENABLE,   /* CSTS.RDY = 1 */
	PHASE_COMMANDS, /* the chain of admin commands */
	PHASE_LIVE,
	PHASE_SHUTDOWN, /* CSTS.SHST */
	PHASE_CUT,      /* bus mastering off */
	PHASE_END,      /* the queues' answers */
	PHASE_OVER,
};

enum step {
	STEP_IDENTIFY,
	STEP_NUM_QUEUES,
	STEP_DBBUF,
	STEP_CREATE_CQ,
	STEP_CREATE_SQ,
	STEP_EVENTS,
	STEP_CHANGED, /* only when namespaces have changed: reading the log ends the event */
	STEP_NAMESPACES,
	STEP_NAMESPACE,
	STEP_DONE,
};

struct abort {
	struct nvme_req req;
	struct nvme_ctrl *ctrl;
	bool busy;
};

struct event {
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
	enum phase phase;
	uint64_t deadline_ns;
	struct reactor_timer timer;
	bool was_live;
	bool stop_wanted;
	int rc; /* why it failed */
	struct err err;

	uint64_t cap;
	struct nvme_limits limits;
	bool write_cache;
	struct nvme_id_ctrl *id;

	struct nvme_qpair admin;
	struct nvme_req admin_req; /* for commands with data, one at a time */
	struct nvme_admin *admin_now;
	struct list admin_waiting;
	struct dma_memory page;  /* its data */
	struct dma_memory dbbuf; /* shadow doorbells, event indices */
	struct abort aborts[ABORTS_MAX];
	unsigned aborts_len;
	struct event events[EVENTS_MAX];
	unsigned events_len;

	/* The chain of commands. */
	enum step step;
	struct nvme_admin chain;
	unsigned at; /* which of the queues, or of the namespaces */
	bool rescan; /* only the namespaces, while it is live */
	uint32_t nsids[NVME_NAMESPACES_MAX];
	unsigned nsids_len;
	struct nvme_namespace fresh[NVME_NAMESPACES_MAX];
	unsigned fresh_len;
	struct nvme_namespace namespaces[NVME_NAMESPACES_MAX];
	unsigned namespaces_len;
	void *buffer; /* a page */

	struct nvme_queue *queues;
	unsigned queues_len;
	/* Guards which reactor has which queue, and holding; reactors take queues by themselves. */
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

static void next_step(struct nvme_ctrl *c, enum step step);
static void disable(struct nvme_ctrl *c);
static void fail(struct nvme_ctrl *c, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Registers. In 32 bits always: not every controller takes more at once. */

static uint32_t read_reg(struct nvme_ctrl *c, unsigned offset)
{
	return *(volatile uint32_t *)((volatile char *)c->pci->bar + offset);
}

static void write_reg(struct nvme_ctrl *c, unsigned offset, uint32_t value)
{
	/* What the register is about (rings, pages) is in memory before the device learns of it. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	*(volatile uint32_t *)((volatile char *)c->pci->bar + offset) = value;
}

static uint64_t read_reg64(struct nvme_ctrl *c, unsigned offset)
{
	return read_reg(c, offset) | (uint64_t)read_reg(c, offset + 4) << 32;
}

static void write_reg64(struct nvme_ctrl *c, unsigned offset, uint64_t value)
{
	write_reg(c, offset, (uint32_t)value);
	write_reg(c, offset + 4, (uint32_t)(value >> 32));
}

static size_t doorbell_offset(const struct nvme_ctrl *c, unsigned qid, bool cq)
{
	return (size_t)(2 * qid + cq) * (4u << NVME_CAP_DSTRD(c->cap));
}

static void set_doorbell(struct nvme_ctrl *c, struct nvme_doorbell *db, unsigned qid, bool cq)
{
	size_t offset = doorbell_offset(c, qid, cq);

	db->reg = (volatile uint32_t *)((volatile char *)c->pci->bar + NVME_REG_DOORBELLS + offset);
	db->shadow = NULL;
	db->event = NULL;
}

/* CAP.TO: how long RDY may take to follow EN, either way. */
static uint64_t ready_ns(const struct nvme_ctrl *c)
{
	uint32_t to = NVME_CAP_TO(c->cap);

	return (to ? to : 1) * 500 * NSEC_PER_MSEC;
}

static void enter(struct nvme_ctrl *c, enum phase phase, uint64_t within_ns)
{
	c->phase = phase;
	c->deadline_ns = clock_now_ns() + within_ns;
	reactor_timer_start(c->home, &c->timer, TICK_NS);
}

/* Orders to the queues */

static void send_orders(struct nvme_ctrl *c, enum nvme_order order)
{
	pthread_mutex_lock(&c->lock);
	c->holding = order != NVME_ORDER_RESUME;
	c->ended = order == NVME_ORDER_END;
	for (unsigned i = 0; i < c->queues_len; i++) {
		if (!c->queues[i].reactor)
			continue;
		c->acks++;
		nvme_queue_send(&c->queues[i], order);
	}
	pthread_mutex_unlock(&c->lock);
}

/* Takes back what the controller had, now that it can do nothing with it any more. */
static void take_back(struct nvme_ctrl *c)
{
	struct list list;

	for (unsigned i = 0; i < c->queues_len; i++)
		nvme_qpair_reset(&c->queues[i].qp, &c->queues[i].returned);
	list_init(&list);
	nvme_qpair_reset(&c->admin, &list);
	for (unsigned i = 0; i < c->aborts_len; i++)
		c->aborts[i].busy = false;
	if (c->admin_now && c->admin_now != &c->chain) {
		struct nvme_admin *a = c->admin_now;

		c->admin_now = NULL;
		a->done(a, -EIO);
	}
	c->admin_now = NULL;
	if (c->rescan)
		list_del(&c->chain.node);
	c->rescan = false;
}

static void begin_end(struct nvme_ctrl *c)
{
	struct list failed, *node;

	take_back(c);
	list_init(&failed);
	list_splice_tail(&failed, &c->admin_waiting);
	c->state = c->state == NVME_STOPPING ? NVME_STOPPED : NVME_DEAD;
	while ((node = list_pop(&failed))) {
		struct nvme_admin *a = list_entry(node, struct nvme_admin, node);

		a->done(a, -ENODEV);
	}
	c->phase = PHASE_END;
	send_orders(c, NVME_ORDER_END);
}

static void tell_end(struct reactor_msg *msg)
{
	struct nvme_ctrl *c = container_of(msg, struct nvme_ctrl, end_msg);

	if (c->end_untold) {
		c->end_untold = false;
		if (c->was_live)
			c->ops->changed(c, NVME_CHANGED_DEAD, c->arg);
		else
			c->ops->started(c, c->rc, &c->err, c->arg);
	}
	c->telling = false;
	if (c->stop_wanted) {
		c->stop_wanted = false;
		c->ops->stopped(c, c->arg);
	}
}

static void send_end(struct nvme_ctrl *c)
{
	if (c->telling)
		return;
	c->telling = true;
	c->end_msg.fn = tell_end;
	reactor_send(c->home, &c->end_msg);
}

static void over(struct nvme_ctrl *c)
{
	c->phase = PHASE_OVER;
	c->end_untold = c->state == NVME_DEAD;
	send_end(c);
}

/* Trouble */

/* What may be found in the midst of anything is acted upon from the next tick, and from there only.
 */
static void hold(struct nvme_ctrl *c)
{
	enter(c, PHASE_HOLD, 0);
	if (c->acks)
		c->hold_wanted = true;
	else
		send_orders(c, NVME_ORDER_HOLD);
}

static void cut(struct nvme_ctrl *c)
{
	int rc = nvme_pci_set_bus_master(c->pci, false);

	/* A drive that is gone writes nothing either. */
	if (!rc || rc == -ENODEV) {
		begin_end(c);
		if (!c->acks)
			over(c);
		return;
	}
	if (!c->cut_failed)
		log_error("%s: bus mastering does not go off: %s: its memory and the requests it "
			  "has are kept until it does",
			  c->pci->name, strerror(-rc));
	c->cut_failed = true;
}

static void fail(struct nvme_ctrl *c, int rc, const char *fmt, ...)
{
	va_list args;
	char text[256];

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	c->rc = err_set(&c->err, rc, "%s: %s", c->pci->name, text);
	log_error("%s", c->err.text);
	if (c->state == NVME_LIVE) {
		/* The queues must rest before their rings are touched. */
		c->state = NVME_DEAD;
		hold(c);
		return;
	}
	if (c->state != NVME_STOPPING)
		c->state = NVME_DEAD;
	enter(c, PHASE_CUT, 0);
}

void nvme_ctrl_reset(struct nvme_ctrl *c, const char *why)
{
	uint64_t now = clock_now_ns();

	if (c->state != NVME_LIVE)
		return;
	if (now - c->resets_since_ns > RESETS_NS) {
		c->resets_since_ns = now;
		c->resets = 0;
	}
	if (c->resets++ >= RESETS_MAX) {
		fail(c, -EIO, "%s, and %d resets have not helped: replace the drive", why,
		     RESETS_MAX);
		return;
	}
	log_warning("%s: %s: resetting the controller", c->pci->name, why);
	c->state = NVME_RESETTING;
	hold(c);
}

/* Admin commands */

static void start_admin(struct nvme_ctrl *c, struct nvme_admin *a)
{
	c->admin_now = a;
	c->admin_req.sqe = a->sqe;
	if (a->data)
		c->admin_req.sqe.prp1 = c->page.bus[0];
	/* There is room: ADMIN_ENTRIES is more than Aborts, events and this one. */
	nvme_qpair_push(&c->admin, &c->admin_req, clock_now_ns());
	nvme_qpair_ring(&c->admin);
	reactor_timer_start(c->home, &c->timer, TICK_NS);
}

static void start_waiting(struct nvme_ctrl *c)
{
	struct list *node;

	if (c->state != NVME_LIVE || c->admin_now)
		return;
	node = list_pop(&c->admin_waiting);
	if (node)
		start_admin(c, list_entry(node, struct nvme_admin, node));
}

static void admin_over(struct nvme_req *req)
{
	struct nvme_ctrl *c = container_of(req, struct nvme_ctrl, admin_req);
	struct nvme_admin *a = c->admin_now;

	c->admin_now = NULL;
	a->result = req->result;
	a->status = req->status;
	if (a->data && !req->error)
		memcpy(a->data, c->page.virt, a->len);
	a->done(a, req->error);
	start_waiting(c);
}

void nvme_ctrl_admin(struct nvme_ctrl *c, struct nvme_admin *a)
{
	if (c->state == NVME_DEAD || c->state == NVME_STOPPED || c->state == NVME_STOPPING) {
		a->done(a, -ENODEV);
		return;
	}
	list_add_tail(&c->admin_waiting, &a->node);
	start_waiting(c);
}

void nvme_admin_log_page(struct nvme_admin *a, uint8_t log, void *data, uint32_t len)
{
	a->sqe = (struct nvme_sqe){
		.opcode = NVME_ADMIN_GET_LOG_PAGE,
		.nsid = (uint32_t)NVME_NSID_ALL,
		.cdw10 = log | (len / 4 - 1) << 16,
	};
	a->data = data;
	a->len = len;
}

static void admin_completed(struct nvme_qpair *qp, struct nvme_req *req)
{
	req->error = nvme_status_errno(req->status);
	req->done(req);
}

/* The oldest admin command but the events, which may take for ever. */
static const struct nvme_req *oldest_admin(const struct nvme_ctrl *c)
{
	const struct list *pos;

	list_for_each (pos, &c->admin.inflight) {
		const struct nvme_req *req = list_entry(pos, struct nvme_req, node);

		if (req->sqe.opcode != NVME_ADMIN_ASYNC_EVENT)
			return req;
	}
	return NULL;
}

static void abort_over(struct nvme_req *req)
{
	/* Whether it was found does not matter: the queue watches what becomes of its command. */
	container_of(req, struct abort, req)->busy = false;
}

static void send_abort(struct nvme_ctrl *c, uint16_t sqid, uint16_t cid)
{
	for (unsigned i = 0; i < c->aborts_len; i++) {
		struct abort *a = &c->aborts[i];

		if (a->busy)
			continue;
		a->busy = true;
		a->req.done = abort_over;
		a->req.sqe = (struct nvme_sqe){.opcode = NVME_ADMIN_ABORT,
					       .cdw10 = sqid | (uint32_t)cid << 16};
		nvme_qpair_push(&c->admin, &a->req, clock_now_ns());
		nvme_qpair_ring(&c->admin);
		reactor_timer_start(c->home, &c->timer, TICK_NS);
		return;
	}
}

/* Asynchronous events (base specification 5.2) */

static void event_over(struct nvme_req *req)
{
	struct event *e = container_of(req, struct event, req);
	struct nvme_ctrl *c = e->ctrl;
	uint32_t type = req->result & 7, info = (req->result >> 8) & 0xff;

	if (req->error)
		return;
	log_info("%s: event %#x", c->pci->name, req->result);
	nvme_qpair_push(&c->admin, req, clock_now_ns());
	nvme_qpair_ring(&c->admin);
	if (type == NVME_EVENT_TYPE_NOTICE && info == NVME_EVENT_NOTICE_NAMESPACES) {
		if (!c->rescan) {
			c->rescan = true;
			next_step(c, STEP_CHANGED);
		}
	} else {
		c->ops->changed(c, NVME_CHANGED_HEALTH, c->arg);
	}
}

static void ask_for_events(struct nvme_ctrl *c)
{
	for (unsigned i = 0; i < c->events_len; i++) {
		struct event *e = &c->events[i];

		e->ctrl = c;
		e->req.done = event_over;
		e->req.sqe = (struct nvme_sqe){.opcode = NVME_ADMIN_ASYNC_EVENT};
		nvme_qpair_push(&c->admin, &e->req, clock_now_ns());
	}
	nvme_qpair_ring(&c->admin);
}

/* The chain of commands */

static void live(struct nvme_ctrl *c)
{
	bool first = !c->was_live;

	c->was_live = true;
	c->state = NVME_LIVE;
	c->phase = PHASE_LIVE;
	ask_for_events(c);
	send_orders(c, NVME_ORDER_RESUME);
	if (first)
		c->ops->started(c, 0, NULL, c->arg);
	else
		c->ops->changed(c, NVME_CHANGED_NAMESPACES, c->arg);
	if (c->state == NVME_LIVE && c->stop_wanted)
		nvme_ctrl_stop(c);
	start_waiting(c);
}

static void chain_done(struct nvme_admin *a, int rc);

static void send_step(struct nvme_ctrl *c, const struct nvme_sqe *sqe, uint32_t len)
{
	c->chain.sqe = *sqe;
	c->chain.data = len ? c->buffer : NULL;
	c->chain.len = len;
	c->chain.done = chain_done;
	if (c->rescan)
		nvme_ctrl_admin(c, &c->chain);
	else
		start_admin(c, &c->chain);
}

static void create_queue(struct nvme_ctrl *c, const struct nvme_queue *q, bool cq)
{
	struct nvme_sqe sqe = {
		.opcode = cq ? NVME_ADMIN_CREATE_CQ : NVME_ADMIN_CREATE_SQ,
		.prp1 = cq ? nvme_qpair_cq_bus(&q->qp) : nvme_qpair_sq_bus(&q->qp),
		.cdw10 = q->qp.id | (uint32_t)(q->qp.entries - 1) << 16,
		/* No interrupts; a submission queue names its completion queue. */
		.cdw11 = NVME_QUEUE_CONTIGUOUS | (cq ? 0 : (uint32_t)q->qp.id << 16),
	};

	send_step(c, &sqe, 0);
}

static void end_rescan(struct nvme_ctrl *c)
{
	memcpy(c->namespaces, c->fresh, sizeof(c->namespaces));
	c->namespaces_len = c->fresh_len;
	if (!c->rescan) {
		live(c);
		return;
	}
	c->rescan = false;
	c->ops->changed(c, NVME_CHANGED_NAMESPACES, c->arg);
}

/* Does @step, or what comes next if this controller has no use for it. */
static void next_step(struct nvme_ctrl *c, enum step step)
{
	struct nvme_sqe sqe = {0};

	c->step = step;
	switch (step) {
	case STEP_IDENTIFY:
		sqe.opcode = NVME_ADMIN_IDENTIFY;
		sqe.cdw10 = NVME_CNS_CONTROLLER;
		send_step(c, &sqe, sizeof(struct nvme_id_ctrl));
		return;
	case STEP_NUM_QUEUES: {
		uint32_t n = c->queues_len ? c->queues_len : c->opts.io_queues;

		sqe.opcode = NVME_ADMIN_SET_FEATURES;
		sqe.cdw10 = NVME_FEATURE_NUM_QUEUES;
		sqe.cdw11 = (n - 1) << 16 | (n - 1);
		send_step(c, &sqe, 0);
		return;
	}
	case STEP_DBBUF:
		if (!c->dbbuf.pages) {
			next_step(c, STEP_CREATE_CQ);
			return;
		}
		memset(c->dbbuf.virt, 0, c->dbbuf.pages * DMA_PAGE_SIZE);
		sqe.opcode = NVME_ADMIN_DBBUF_CONFIG;
		sqe.prp1 = c->dbbuf.bus[0];
		sqe.prp2 = c->dbbuf.bus[1];
		send_step(c, &sqe, 0);
		return;
	case STEP_CREATE_CQ:
		create_queue(c, &c->queues[c->at], true);
		return;
	case STEP_CREATE_SQ:
		create_queue(c, &c->queues[c->at], false);
		return;
	case STEP_EVENTS:
		sqe.opcode = NVME_ADMIN_SET_FEATURES;
		sqe.cdw10 = NVME_FEATURE_ASYNC_EVENTS;
		/* All critical warnings, and namespaces where it can tell of them. */
		sqe.cdw11 = 0x1f | (c->id->oaes & NVME_OAES_NAMESPACES);
		send_step(c, &sqe, 0);
		return;
	case STEP_CHANGED:
		nvme_admin_log_page(&c->chain, NVME_LOG_CHANGED_NAMESPACES, NULL, DMA_PAGE_SIZE);
		sqe = c->chain.sqe;
		send_step(c, &sqe, DMA_PAGE_SIZE);
		return;
	case STEP_NAMESPACES:
		sqe.opcode = NVME_ADMIN_IDENTIFY;
		sqe.cdw10 = NVME_CNS_ACTIVE_NAMESPACES;
		send_step(c, &sqe, DMA_PAGE_SIZE);
		return;
	case STEP_NAMESPACE:
		if (c->at == c->nsids_len) {
			next_step(c, STEP_DONE);
			return;
		}
		sqe.opcode = NVME_ADMIN_IDENTIFY;
		sqe.nsid = c->nsids[c->at];
		sqe.cdw10 = NVME_CNS_NAMESPACE;
		send_step(c, &sqe, sizeof(struct nvme_id_ns));
		return;
	case STEP_DONE:
		end_rescan(c);
		return;
	}
}

static int judge_identity(struct nvme_ctrl *c)
{
	uint32_t max = NVME_PRP_MAX;

	memcpy(c->id, c->buffer, sizeof(*c->id));
	if ((c->id->sqes & 0xf) > NVME_SQE_SHIFT || (c->id->cqes & 0xf) > NVME_CQE_SHIFT)
		return err_set(&c->err, -EOPNOTSUPP,
			       "its queue entries are larger than 64 and 16 bytes");
	if (c->id->mdts && c->id->mdts < 8 && (uint32_t)DMA_PAGE_SIZE << c->id->mdts < max)
		max = (uint32_t)DMA_PAGE_SIZE << c->id->mdts;
	/* Reactors know it from the first time: it must not grow smaller under them. */
	if (c->was_live && max < c->limits.max_transfer)
		return err_set(&c->err, -EIO, "after its reset it takes smaller commands");
	if (!c->was_live)
		c->limits = (struct nvme_limits){
			.max_transfer = max,
			.sgl = NVME_SGLS(c->id->sgls),
			.zeroes_blocks = NVME_BLOCKS_MAX,
			.dsm_ranges = NVME_DSM_RANGES_MAX,
			.dsm_range_blocks = UINT32_MAX,
			.dsm_blocks = UINT64_MAX,
		};
	__atomic_store_n(&c->write_cache, c->id->vwc & NVME_VWC_PRESENT, __ATOMIC_RELAXED);
	c->aborts_len = c->id->acl + 1u < ABORTS_MAX ? c->id->acl + 1u : ABORTS_MAX;
	c->events_len = c->id->aerl + 1u < EVENTS_MAX ? c->id->aerl + 1u : EVENTS_MAX;
	if (c->id->oacs & NVME_OACS_DBBUF && !c->dbbuf.pages)
		return dma_alloc(c->dma, 2, false, &c->dbbuf, &c->err);
	return 0;
}

static void order_acked(struct reactor_msg *msg);
static void help_asked(struct reactor_msg *msg);

static int make_queues(struct nvme_ctrl *c, unsigned n)
{
	const struct nvme_queue_options opts = {
		.name = c->pci->name,
		.timeout_ns = c->opts.timeout_ns,
		.abort_timeout_ns = c->opts.abort_timeout_ns,
	};
	uint32_t entries = c->opts.io_entries;
	int rc;

	if (entries > NVME_CAP_MQES(c->cap) + 1)
		entries = NVME_CAP_MQES(c->cap) + 1;
	/* queues_len counts those that are whole, and nobody takes one before it is live. */
	for (; c->queues_len < n; c->queues_len++) {
		struct nvme_queue *q = &c->queues[c->queues_len];

		rc = nvme_queue_init(q, c->dma, (uint16_t)(c->queues_len + 1), (uint16_t)entries,
				     c->home, &opts, &c->err);
		if (rc)
			return rc;
		q->ack.fn = order_acked;
		q->help.fn = help_asked;
	}
	return 0;
}

static int judge_num_queues(struct nvme_ctrl *c, uint32_t result)
{
	uint32_t sqs = (result & 0xffff) + 1, cqs = (result >> 16) + 1;
	uint32_t n = sqs < cqs ? sqs : cqs;
	int rc;

	if (c->queues_len && n < c->queues_len)
		return err_set(&c->err, -EIO, "after its reset it has only %u I/O queues", n);
	rc = make_queues(c, n < c->opts.io_queues ? n : c->opts.io_queues);
	/* Registers at first, each time anew: shadows are still to be agreed on. */
	for (unsigned i = 0; i < c->queues_len; i++) {
		struct nvme_qpair *qp = &c->queues[i].qp;

		set_doorbell(c, &qp->sq_doorbell, qp->id, false);
		set_doorbell(c, &qp->cq_doorbell, qp->id, true);
	}
	return rc;
}

static void use_shadow_doorbells(struct nvme_ctrl *c)
{
	char *shadow = c->dbbuf.virt, *event = shadow + DMA_PAGE_SIZE;

	for (unsigned i = 0; i < c->queues_len; i++) {
		struct nvme_qpair *qp = &c->queues[i].qp;
		size_t sq = doorbell_offset(c, qp->id, false);
		size_t cq = doorbell_offset(c, qp->id, true);

		/* Each is one page, whose layout is that of the registers. */
		if (cq + sizeof(uint32_t) > DMA_PAGE_SIZE)
			return;
		qp->sq_doorbell.shadow = (uint32_t *)(void *)(shadow + sq);
		qp->sq_doorbell.event = (uint32_t *)(void *)(event + sq);
		qp->cq_doorbell.shadow = (uint32_t *)(void *)(shadow + cq);
		qp->cq_doorbell.event = (uint32_t *)(void *)(event + cq);
	}
}

static void judge_namespaces(struct nvme_ctrl *c, bool listed)
{
	const uint32_t *list = c->buffer;

	c->nsids_len = 0;
	c->fresh_len = 0;
	c->at = 0;
	for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++) {
		/* Before revision 1.1 there was no list, and all there are were active. */
		uint32_t nsid = listed ? list[i] : i + 1 <= c->id->nn ? i + 1 : 0;

		if (!nsid)
			break;
		c->nsids[c->nsids_len++] = nsid;
	}
}

static void judge_namespace(struct nvme_ctrl *c)
{
	const struct nvme_id_ns *id = c->buffer;
	const struct nvme_lbaf *format = &id->lbaf[id->flbas & 0xf];
	struct nvme_namespace *ns = &c->fresh[c->fresh_len];

	if (!id->nsze)
		return;
	*ns = (struct nvme_namespace){
		.nsid = c->nsids[c->at],
		.blocks = id->nsze,
		.block_size = format->lbads < 32 ? 1u << format->lbads : 0,
		.metadata = format->ms,
		.protection = id->dps & 7,
		.readonly = id->nsattr & 1,
	};
	memcpy(ns->id.nguid, id->nguid, sizeof(ns->id.nguid));
	memcpy(ns->id.eui64, id->eui64, sizeof(ns->id.eui64));
	if ((uint64_t)id->noiob * ns->block_size <= UINT32_MAX)
		ns->stripe = id->noiob * ns->block_size;
	c->fresh_len++;
}

static const char *const step_names[] = {
	[STEP_IDENTIFY] = "Identify Controller",
	[STEP_NUM_QUEUES] = "Set Features (Number of Queues)",
	[STEP_DBBUF] = "Doorbell Buffer Config",
	[STEP_CREATE_CQ] = "Create I/O Completion Queue",
	[STEP_CREATE_SQ] = "Create I/O Submission Queue",
	[STEP_EVENTS] = "Set Features (Asynchronous Event Configuration)",
	[STEP_CHANGED] = "Get Log Page (Changed Namespace List)",
	[STEP_NAMESPACES] = "Identify (active namespaces)",
	[STEP_NAMESPACE] = "Identify Namespace",
};

/* Whether the chain goes on although this step's command was refused. */
static bool can_do_without(enum step step)
{
	return step == STEP_DBBUF || step == STEP_EVENTS || step == STEP_CHANGED ||
	       step == STEP_NAMESPACES || step == STEP_NAMESPACE;
}

static void chain_done(struct nvme_admin *a, int rc)
{
	struct nvme_ctrl *c = container_of(a, struct nvme_ctrl, chain);

	if (rc == -ENODEV)
		return; /* it is dead */
	if (rc && !can_do_without(c->step)) {
		fail(c, rc, "%s failed with status %#x: update or replace the drive",
		     step_names[c->step], a->status);
		return;
	}
	if (rc)
		log_info("%s: does without %s: status %#x", c->pci->name, step_names[c->step],
			 a->status);
	switch (c->step) {
	case STEP_IDENTIFY:
		rc = judge_identity(c);
		c->step = STEP_NUM_QUEUES;
		break;
	case STEP_NUM_QUEUES:
		rc = judge_num_queues(c, a->result);
		c->at = 0;
		c->step = STEP_DBBUF;
		break;
	case STEP_DBBUF:
		if (!rc)
			use_shadow_doorbells(c);
		rc = 0;
		c->step = STEP_CREATE_CQ;
		break;
	case STEP_CREATE_CQ:
		c->step = STEP_CREATE_SQ;
		break;
	case STEP_CREATE_SQ:
		c->step = ++c->at < c->queues_len ? STEP_CREATE_CQ : STEP_EVENTS;
		break;
	case STEP_EVENTS:
	case STEP_CHANGED:
		rc = 0;
		c->step = STEP_NAMESPACES;
		break;
	case STEP_NAMESPACES:
		judge_namespaces(c, !rc);
		rc = 0;
		c->step = STEP_NAMESPACE;
		break;
	case STEP_NAMESPACE:
		if (!rc)
			judge_namespace(c);
		rc = 0;
		c->at++;
		break;
	case STEP_DONE:
		break;
	}
	if (rc) {
		char text[sizeof(c->err.text)];

		strcpy(text, c->err.text);
		fail(c, rc, "%.250s", text);
		return;
	}
	next_step(c, c->step);
}

/* Registers: disabling, enabling, shutting down */

static void enable(struct nvme_ctrl *c)
{
	int rc = nvme_pci_set_bus_master(c->pci, true);

	if (rc) {
		fail(c, rc, "bus mastering does not go on: %s", strerror(-rc));
		return;
	}
	set_doorbell(c, &c->admin.sq_doorbell, 0, false);
	set_doorbell(c, &c->admin.cq_doorbell, 0, true);
	write_reg(c, NVME_REG_INTMS, UINT32_MAX);
	write_reg(c, NVME_REG_AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
	write_reg64(c, NVME_REG_ASQ, nvme_qpair_sq_bus(&c->admin));
	write_reg64(c, NVME_REG_ACQ, nvme_qpair_cq_bus(&c->admin));
	/* Pages of 4 KiB and the NVM command set are zeros. */
	write_reg(c, NVME_REG_CC,
		  NVME_CC_EN | NVME_CC_IOSQES(NVME_SQE_SHIFT) | NVME_CC_IOCQES(NVME_CQE_SHIFT));
	enter(c, PHASE_ENABLE, ready_ns(c));
}

static void disabled(struct nvme_ctrl *c)
{
	if (c->state == NVME_STOPPING) {
		enter(c, PHASE_CUT, 0);
		return;
	}
	take_back(c);
	enable(c);
}

static void clear_enable(struct nvme_ctrl *c)
{
	write_reg(c, NVME_REG_CC, read_reg(c, NVME_REG_CC) & ~(NVME_CC_EN | NVME_CC_SHN_MASK));
	enter(c, PHASE_DISABLE, ready_ns(c));
}

static void disable(struct nvme_ctrl *c)
{
	uint32_t csts = read_reg(c, NVME_REG_CSTS);

	if (read_reg(c, NVME_REG_CC) & NVME_CC_EN) {
		if (!(csts & (NVME_CSTS_RDY | NVME_CSTS_CFS)))
			enter(c, PHASE_SETTLE, ready_ns(c));
		else
			clear_enable(c);
	} else if (csts & NVME_CSTS_RDY) {
		enter(c, PHASE_DISABLE, ready_ns(c));
	} else {
		disabled(c);
	}
}

static void shut_down(struct nvme_ctrl *c)
{
	uint32_t cc = read_reg(c, NVME_REG_CC);
	uint64_t within = (uint64_t)c->id->rtd3e * NSEC_PER_USEC;

	write_reg(c, NVME_REG_CC, (cc & ~NVME_CC_SHN_MASK) | NVME_CC_SHN_NORMAL);
	enter(c, PHASE_SHUTDOWN, within > SHUTDOWN_NS ? within : SHUTDOWN_NS);
}

/* The queues rest. */
static void held(struct nvme_ctrl *c)
{
	if (c->state == NVME_RESETTING)
		disable(c);
	else if (c->state == NVME_STOPPING)
		shut_down(c);
	else
		enter(c, PHASE_CUT, 0);
}

static struct nvme_ctrl *ctrl_of(const struct nvme_queue *q);

static void order_acked(struct reactor_msg *msg)
{
	struct nvme_ctrl *c = ctrl_of(container_of(msg, struct nvme_queue, ack));

	if (--c->acks)
		return;
	if (c->hold_wanted) {
		c->hold_wanted = false;
		send_orders(c, NVME_ORDER_HOLD);
	} else if (c->phase == PHASE_END) {
		over(c);
	}
}

static void help_asked(struct reactor_msg *msg)
{
	struct nvme_queue *q = container_of(msg, struct nvme_queue, help);
	struct nvme_ctrl *c = ctrl_of(q);
	int cid = q->help_cid;
	uint16_t sqid = q->qp.id;

	/* Pairs with the acquire in the queue, which may ask anew from here on. */
	__atomic_store_n(&q->asking, false, __ATOMIC_RELEASE);
	if (c->state != NVME_LIVE)
		return;
	if (cid < 0) {
		nvme_ctrl_reset(c, "an I/O queue does not answer, or makes no sense");
		return;
	}
	log_warning("%s: command %#x of queue %u is late: aborting it", c->pci->name, cid, sqid);
	send_abort(c, sqid, (uint16_t)cid);
}

/* The clock */

static void poll_admin(struct nvme_ctrl *c)
{
	const struct nvme_req *oldest;

	nvme_qpair_poll(&c->admin);
	if (c->phase != PHASE_LIVE && c->phase != PHASE_COMMANDS)
		return; /* a completion was the end of it */
	oldest = oldest_admin(c);
	if (c->admin.broken ||
	    (oldest && clock_now_ns() - oldest->since_ns >= c->opts.admin_timeout_ns)) {
		if (c->phase == PHASE_LIVE)
			nvme_ctrl_reset(c, "the admin queue does not answer, or makes no sense");
		else
			fail(c, -ETIMEDOUT, "%s is not answered: power-cycle or replace the drive",
			     step_names[c->step]);
	}
}

static void tick(struct reactor_timer *t)
{
	struct nvme_ctrl *c = container_of(t, struct nvme_ctrl, timer);
	uint32_t csts = read_reg(c, NVME_REG_CSTS);
	bool late = clock_now_ns() >= c->deadline_ns;

	if (csts == GONE && c->phase != PHASE_HOLD && c->phase != PHASE_CUT) {
		fail(c, -ENODEV, "the drive has been removed");
		return;
	}
	switch (c->phase) {
	case PHASE_HOLD:
		if (!c->acks)
			held(c);
		break;
	case PHASE_SETTLE:
		if (csts & (NVME_CSTS_RDY | NVME_CSTS_CFS) || late)
			clear_enable(c);
		break;
	case PHASE_DISABLE:
		if (!(csts & NVME_CSTS_RDY))
			disabled(c);
		else if (late)
			fail(c, -ETIMEDOUT,
			     "the controller does not stop: power-cycle or replace the drive");
		break;
	case PHASE_ENABLE:
		if (csts & NVME_CSTS_CFS) {
			fail(c, -EIO, FATAL ": power-cycle or replace the drive");
		} else if (csts & NVME_CSTS_RDY) {
			c->phase = PHASE_COMMANDS;
			next_step(c, STEP_IDENTIFY);
		} else if (late) {
			fail(c, -ETIMEDOUT,
			     "the controller does not get ready: power-cycle or replace the drive");
		}
		break;
	case PHASE_COMMANDS:
		if (csts & NVME_CSTS_CFS)
			fail(c, -EIO, FATAL ": power-cycle or replace the drive");
		else
			poll_admin(c);
		break;
	case PHASE_LIVE:
		if (csts & NVME_CSTS_CFS)
			nvme_ctrl_reset(c, FATAL);
		else
			poll_admin(c);
		break;
	case PHASE_SHUTDOWN:
		if ((csts & NVME_CSTS_SHST_MASK) == NVME_CSTS_SHST_COMPLETE ||
		    csts & NVME_CSTS_CFS) {
			clear_enable(c);
		} else if (late) {
			log_warning("%s: does not finish its shutdown", c->pci->name);
			clear_enable(c);
		}
		break;
	case PHASE_CUT:
		cut(c);
		break;
	default:
		break;
	}
	if (c->phase == PHASE_LIVE && !oldest_admin(c))
		reactor_timer_start(c->home, &c->timer, WATCH_NS);
	else if (c->phase != PHASE_END && c->phase != PHASE_OVER)
		reactor_timer_start(c->home, &c->timer, TICK_NS);
}

/* Life */

/* A queue knows its controller by where it lies: in the array that begins with its owner. */
struct queue_array {
	struct nvme_ctrl *ctrl;
	struct nvme_queue queues[NVME_QUEUES_MAX];
};

static struct nvme_ctrl *ctrl_of(const struct nvme_queue *q)
{
	const struct nvme_queue *first = q - (q->qp.id - 1);

	return container_of(first, struct queue_array, queues[0])->ctrl;
}

void nvme_ctrl_default_options(struct nvme_ctrl_options *opts)
{
	*opts = (struct nvme_ctrl_options){
		.io_queues = 1,
		.io_entries = 64,
		.timeout_ns = 30 * NSEC_PER_SEC,
		.abort_timeout_ns = 5 * NSEC_PER_SEC,
		.admin_timeout_ns = 60 * NSEC_PER_SEC,
	};
}

static int check_device(struct nvme_ctrl *c, struct err *err)
{
	struct nvme_pci *pci = c->pci;
	uint32_t class;
	int rc = pci->ops->config_read(pci, NVME_PCI_CLASS, &class, sizeof(class));

	if (rc)
		return err_set(err, rc, "%s: no access to its configuration space: %s", pci->name,
			       strerror(-rc));
	if (class >> 8 != NVME_PCI_CLASS_CODE)
		return err_set(err, -ENODEV,
			       "%s: class %06x is no NVMe controller's: see lspci -d ::0108",
			       pci->name, class >> 8);
	if (pci->bar_len < NVME_REG_DOORBELLS + DMA_PAGE_SIZE || read_reg(c, NVME_REG_CSTS) == GONE)
		return err_set(err, -ENODEV,
			       "%s: its registers do not answer: is the drive there, and powered?",
			       pci->name);
	c->cap = read_reg64(c, NVME_REG_CAP);
	if (!(c->cap & NVME_CAP_CSS_NVM) || NVME_CAP_MPSMIN(c->cap))
		return err_set(err, -EOPNOTSUPP,
			       "%s: the controller has no NVM command set, or no pages of 4 KiB",
			       pci->name);
	/* The doorbells of all queues must lie in the BAR. */
	while (c->opts.io_queues &&
	       NVME_REG_DOORBELLS + doorbell_offset(c, c->opts.io_queues, true) + 4 > pci->bar_len)
		c->opts.io_queues--;
	if (!c->opts.io_queues || NVME_CAP_MQES(c->cap) < 1)
		return err_set(err, -EOPNOTSUPP, "%s: the controller has no room for I/O queues",
			       pci->name);
	return 0;
}

int nvme_ctrl_create(struct nvme_pci *pci, struct dma *dma, struct reactor *home,
		     const struct nvme_ctrl_options *opts, const struct nvme_ctrl_ops *ops,
		     void *arg, struct nvme_ctrl **out, struct err *err)
{
	struct nvme_ctrl *c = calloc(1, sizeof(*c));
	struct queue_array *queues = calloc(1, sizeof(*queues));
	int rc = -ENOMEM;

	if (opts->io_queues < 1 || opts->io_queues > NVME_QUEUES_MAX ||
	    opts->io_entries < NVME_QPAIR_MIN_ENTRIES ||
	    opts->io_entries > NVME_QPAIR_MAX_ENTRIES) {
		rc = err_set(err, -EINVAL,
			     "%u queues of %u entries are not served: use 1 to %d of %d to %d",
			     opts->io_queues, opts->io_entries, NVME_QUEUES_MAX,
			     NVME_QPAIR_MIN_ENTRIES, NVME_QPAIR_MAX_ENTRIES);
		free(queues);
		free(c);
		return rc;
	}
	if (!c || !queues) {
		free(queues);
		free(c);
		return err_set(err, rc, "no memory left for a drive");
	}
	c->pci = pci;
	c->dma = dma;
	c->home = home;
	c->opts = *opts;
	c->ops = ops;
	c->arg = arg;
	c->timer.fire = tick;
	c->queues = queues->queues;
	queues->ctrl = c;
	c->admin_req.done = admin_over;
	list_init(&c->admin_waiting);
	list_init(&c->admin.inflight);
	list_init(&c->chain.node);
	pthread_mutex_init(&c->lock, NULL);
	c->admin.dma = dma;
	c->id = calloc(1, sizeof(*c->id));
	c->buffer = calloc(1, DMA_PAGE_SIZE);
	if (!c->id || !c->buffer)
		err_set(err, rc, "no memory left for a drive");
	else
		rc = check_device(c, err);
	if (!rc)
		rc = nvme_qpair_init(&c->admin, dma, 0, ADMIN_ENTRIES, err);
	if (!rc)
		rc = dma_alloc(dma, 1, false, &c->page, err);
	if (rc) {
		nvme_ctrl_destroy(c);
		return rc;
	}
	c->admin.completed = admin_completed;
	*out = c;
	return 0;
}

void nvme_ctrl_destroy(struct nvme_ctrl *c)
{
	reactor_timer_stop(c->home, &c->timer);
	for (unsigned i = 0; i < c->queues_len; i++)
		nvme_queue_fini(&c->queues[i]);
	nvme_qpair_fini(&c->admin);
	dma_free(c->dma, &c->page);
	dma_free(c->dma, &c->dbbuf);
	pthread_mutex_destroy(&c->lock);
	free(container_of(c->queues, struct queue_array, queues[0]));
	free(c->buffer);
	free(c->id);
	free(c);
}

void nvme_ctrl_start(struct nvme_ctrl *c)
{
	c->state = NVME_STARTING;
	disable(c);
}

void nvme_ctrl_stop(struct nvme_ctrl *c)
{
	c->stop_wanted = true;
	if (c->phase == PHASE_OVER) {
		send_end(c);
	} else if (c->state == NVME_LIVE) {
		c->state = NVME_STOPPING;
		hold(c);
	}
	/* Else what is under way comes first; live() and tell_end() look for us. */
}

int nvme_ctrl_open_queue(struct nvme_ctrl *c, struct reactor *r, struct nvme_queue **out)
{
	struct nvme_queue *q = NULL;
	bool ended;

	pthread_mutex_lock(&c->lock);
	ended = c->ended;
	for (unsigned i = 0; i < c->queues_len && (!q || !q->reactor); i++) {
		struct nvme_queue *candidate = &c->queues[i];

		if (candidate->reactor == r || (!candidate->reactor && !q))
			q = candidate;
	}
	if (q && !q->reactor && !ended) {
		q->reactor = r;
		/* During a reset it begins with waiting for its end, which it will be told. */
		q->held = c->holding;
	}
	pthread_mutex_unlock(&c->lock);
	if (ended)
		return -ENODEV;
	if (!q)
		return -EBUSY;
	nvme_queue_open(q, r);
	*out = q;
	return 0;
}

enum nvme_state nvme_ctrl_state(const struct nvme_ctrl *c)
{
	return c->state;
}

const char *nvme_ctrl_name(const struct nvme_ctrl *c)
{
	return c->pci->name;
}

struct dma *nvme_ctrl_dma(const struct nvme_ctrl *c)
{
	return c->dma;
}

struct reactor *nvme_ctrl_home(const struct nvme_ctrl *c)
{
	return c->home;
}

const struct nvme_id_ctrl *nvme_ctrl_identity(const struct nvme_ctrl *c)
{
	return c->id;
}

const struct nvme_limits *nvme_ctrl_limits(const struct nvme_ctrl *c)
{
	return &c->limits;
}

bool nvme_ctrl_has_write_cache(const struct nvme_ctrl *c)
{
	return __atomic_load_n(&c->write_cache, __ATOMIC_RELAXED);
}

unsigned nvme_ctrl_namespaces(const struct nvme_ctrl *c, const struct nvme_namespace **list)
{
	*list = c->namespaces;
	return c->namespaces_len;
}

const struct nvme_namespace *nvme_ctrl_namespace(const struct nvme_ctrl *c, uint32_t nsid)
{
	for (unsigned i = 0; i < c->namespaces_len; i++)
		if (c->namespaces[i].nsid == nsid)
			return &c->namespaces[i];
	return NULL;
}

/* A controller of nobody's */

static uint32_t pci_read(const struct nvme_pci *pci, unsigned offset)
{
	return __atomic_load_n((volatile uint32_t *)((volatile char *)pci->bar + offset),
			       __ATOMIC_RELAXED);
}

/* Waits for RDY to fall, as long as that may take; returns whether it did. */
static bool wait_disabled(const struct nvme_pci *pci)
{
	uint32_t to = NVME_CAP_TO(pci_read(pci, NVME_REG_CAP));
	uint64_t end = clock_now_ns() + (to ? to : 1) * 500 * NSEC_PER_MSEC;
	const struct timespec pause = {.tv_nsec = NSEC_PER_MSEC};

	for (;;) {
		/* Ones are a drive that is gone, and sets nothing in motion any more. */
		uint32_t csts = pci_read(pci, NVME_REG_CSTS);

		if (csts == GONE || !(csts & NVME_CSTS_RDY))
			return true;
		if (clock_now_ns() >= end)
			return false;
		nanosleep(&pause, NULL);
	}
}

int nvme_ctrl_quiesce(struct nvme_pci *pci, struct err *err)
{
	volatile uint32_t *cc = (volatile uint32_t *)((volatile char *)pci->bar + NVME_REG_CC);
	uint32_t value;
	int rc;

	if (pci->bar_len >= NVME_REG_DOORBELLS) {
		value = __atomic_load_n(cc, __ATOMIC_RELAXED);
		if (value != GONE && value & NVME_CC_EN)
			__atomic_store_n(cc, value & ~(NVME_CC_EN | NVME_CC_SHN_MASK),
					 __ATOMIC_RELEASE);
		if (wait_disabled(pci)) {
			/* Off the bus as well if it can be had: two locks are better than one. */
			nvme_pci_set_bus_master(pci, false);
			return 0;
		}
		log_warning("%s: the controller does not stop: cutting it off from the bus",
			    pci->name);
	}
	rc = nvme_pci_set_bus_master(pci, false);
	if (!rc || rc == -ENODEV)
		return 0;
	return err_set(
		err, rc,
		"%s neither stops nor leaves the bus: %s: power-cycle the host to be sure of "
		"what it writes to",
		pci->name, strerror(-rc));
}
