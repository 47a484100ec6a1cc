/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The admin queue.  Commands with data share one page, so one is under way at a time; Aborts and
 * Asynchronous Event Requests have none, and have requests of their own.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "nvme/internal.h"

/* While something is under way it is looked for each millisecond. */
#define TICK_NS (1 * NSEC_PER_MSEC)

static void push(struct nvme_ctrl *c, struct nvme_req *req)
{
	/* There is room: the ring is larger than Aborts, events and one command. */
	nvme_qpair_push(&c->admin, req);
	req->since_ns = clock_now_ns();
	nvme_qpair_ring(&c->admin);
}

void nvme_admin_start(struct nvme_ctrl *c, struct nvme_admin *a)
{
	c->admin_now = a;
	c->admin_req.sqe = a->sqe;
	if (a->data)
		c->admin_req.sqe.prp1 = c->page.bus[0];
	if (a->to_drive)
		memcpy(c->page.virt, a->data, a->len);
	push(c, &c->admin_req);
	reactor_timer_start(c->home, &c->timer, TICK_NS);
}

void nvme_admin_start_waiting(struct nvme_ctrl *c)
{
	struct list *node;

	if (c->state != NVME_LIVE || c->admin_now)
		return;
	node = list_pop(&c->admin_waiting);
	if (node)
		nvme_admin_start(c, list_entry(node, struct nvme_admin, node));
}

static void admin_over(struct nvme_req *req)
{
	struct nvme_ctrl *c = container_of(req, struct nvme_ctrl, admin_req);
	struct nvme_admin *a = c->admin_now;

	c->admin_now = NULL;
	a->result = req->result;
	a->status = req->status;
	if (a->data && !a->to_drive && !req->error)
		memcpy(a->data, c->page.virt, a->len);
	a->done(a, req->error);
	nvme_admin_start_waiting(c);
}

void nvme_ctrl_admin(struct nvme_ctrl *c, struct nvme_admin *a)
{
	if (c->state == NVME_DEAD || c->state == NVME_STOPPED || c->state == NVME_STOPPING) {
		a->done(a, -ENODEV);
		return;
	}
	list_add_tail(&c->admin_waiting, &a->node);
	nvme_admin_start_waiting(c);
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
	a->to_drive = false;
}

static void admin_completed(struct nvme_qpair *qp, struct nvme_req *req)
{
	req->error = nvme_status_errno(req->status);
	req->done(req);
}

/* Aborts */

static void abort_over(struct nvme_req *req)
{
	/* Whether it was found does not matter: the queue watches what becomes of its command. */
	container_of(req, struct nvme_abort, req)->busy = false;
}

void nvme_admin_abort(struct nvme_ctrl *c, uint16_t sqid, uint16_t cid)
{
	for (unsigned i = 0; i < c->aborts_len; i++) {
		struct nvme_abort *a = &c->aborts[i];

		if (a->busy)
			continue;
		a->busy = true;
		a->req.done = abort_over;
		a->req.sqe = (struct nvme_sqe){.opcode = NVME_ADMIN_ABORT,
					       .cdw10 = sqid | (uint32_t)cid << 16};
		push(c, &a->req);
		reactor_timer_start(c->home, &c->timer, TICK_NS);
		return;
	}
}

/* Asynchronous events (base specification 5.2) */

static void event_over(struct nvme_req *req)
{
	struct nvme_event *e = container_of(req, struct nvme_event, req);
	struct nvme_ctrl *c = e->ctrl;
	uint32_t type = req->result & 7, info = (req->result >> 8) & 0xff;

	if (req->error)
		return;
	log_info("%s: event %#x", c->pci->name, req->result);
	push(c, req);
	if (type == NVME_EVENT_TYPE_NOTICE && info == NVME_EVENT_NOTICE_NAMESPACES)
		nvme_bringup_rescan(c);
	else
		c->ops->changed(c, NVME_CHANGED_HEALTH, c->arg);
}

void nvme_admin_ask_for_events(struct nvme_ctrl *c)
{
	for (unsigned i = 0; i < c->events_len; i++) {
		struct nvme_event *e = &c->events[i];

		e->ctrl = c;
		e->req.done = event_over;
		e->req.sqe = (struct nvme_sqe){.opcode = NVME_ADMIN_ASYNC_EVENT};
		push(c, &e->req);
	}
}

/* Life */

/* The oldest command but the events. */
static const struct nvme_req *oldest(const struct nvme_ctrl *c)
{
	const struct nvme_req *found = NULL;

	for (unsigned i = 0; i < NVME_ADMIN_ENTRIES - 1; i++) {
		const struct nvme_req *req = nvme_qpair_at(&c->admin, i);

		if (!req || req->sqe.opcode == NVME_ADMIN_ASYNC_EVENT)
			continue;
		if (!found || req->since_ns < found->since_ns)
			found = req;
	}
	return found;
}

bool nvme_admin_busy(const struct nvme_ctrl *c)
{
	return oldest(c);
}

bool nvme_admin_poll(struct nvme_ctrl *c)
{
	const struct nvme_req *req;

	nvme_qpair_poll(&c->admin);
	if (c->admin.broken)
		return false;
	req = oldest(c);
	return !req || clock_now_ns() - req->since_ns < c->opts.admin_timeout_ns;
}

void nvme_admin_take_back(struct nvme_ctrl *c)
{
	struct nvme_admin *a = c->admin_now;
	struct list list;

	list_init(&list);
	nvme_qpair_reset(&c->admin, &list);
	for (unsigned i = 0; i < c->aborts_len; i++)
		c->aborts[i].busy = false;
	c->admin_now = NULL;
	if (a && a != &c->chain)
		a->done(a, -EIO);
	if (c->rescan)
		list_del(&c->chain.node);
	c->rescan = false;
}

void nvme_admin_fail_waiting(struct nvme_ctrl *c)
{
	struct list failed, *node;

	list_init(&failed);
	list_splice_tail(&failed, &c->admin_waiting);
	while ((node = list_pop(&failed))) {
		struct nvme_admin *a = list_entry(node, struct nvme_admin, node);

		a->done(a, -ENODEV);
	}
}

void nvme_admin_enable(struct nvme_ctrl *c)
{
	nvme_ctrl_set_doorbell(c, &c->admin.sq_doorbell, 0, false);
	nvme_ctrl_set_doorbell(c, &c->admin.cq_doorbell, 0, true);
	nvme_reg_write(c->pci, NVME_REG_AQA,
		       (NVME_ADMIN_ENTRIES - 1) << 16 | (NVME_ADMIN_ENTRIES - 1));
	nvme_reg_write(c->pci, NVME_REG_ASQ, (uint32_t)nvme_qpair_sq_bus(&c->admin));
	nvme_reg_write(c->pci, NVME_REG_ASQ + 4, (uint32_t)(nvme_qpair_sq_bus(&c->admin) >> 32));
	nvme_reg_write(c->pci, NVME_REG_ACQ, (uint32_t)nvme_qpair_cq_bus(&c->admin));
	nvme_reg_write(c->pci, NVME_REG_ACQ + 4, (uint32_t)(nvme_qpair_cq_bus(&c->admin) >> 32));
}

int nvme_admin_init(struct nvme_ctrl *c, struct err *err)
{
	int rc = nvme_qpair_init(&c->admin, c->dma, 0, NVME_ADMIN_ENTRIES, NVME_ADMIN_ENTRIES, err);

	if (!rc)
		rc = dma_alloc(c->dma, 1, false, &c->page, err);
	c->admin.completed = admin_completed;
	c->admin_req.done = admin_over;
	return rc;
}

void nvme_admin_fini(struct nvme_ctrl *c)
{
	nvme_qpair_fini(&c->admin);
	dma_free(c->dma, &c->page);
	dma_free(c->dma, &c->dbbuf);
}
