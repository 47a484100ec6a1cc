/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From enabled to live (base specification 3.5.1): a chain of admin commands.  Each step sends one
 * command and judges its completion; a step for which this controller has no use is passed over.
 * The last steps, which look at the namespaces, are also gone through alone when the controller
 * says that these have changed.
 *
 * After a reset all is asked anew.  Reactors have long acted on the first answers, so a controller
 * that has become less meanwhile is given up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "nvme/internal.h"
#include "nvme/lane.h"

/* Entries that a page holds. */
enum {
	SQ_PAGE_ENTRIES = DMA_PAGE_SIZE >> NVME_SQE_SHIFT,
	CQ_PAGE_ENTRIES = DMA_PAGE_SIZE >> NVME_CQE_SHIFT,
	DEPTH_MIN = 16,
};

static void next_step(struct nvme_ctrl *c, enum nvme_step step);

static void chain_done(struct nvme_admin *a, int rc);

/* @len bytes of the buffer go along, or are filled. */
static void send_step(struct nvme_ctrl *c, const struct nvme_sqe *sqe, uint32_t len, bool to_drive)
{
	c->chain.sqe = *sqe;
	c->chain.data = len ? c->buffer : NULL;
	c->chain.len = len;
	c->chain.to_drive = to_drive;
	c->chain.done = chain_done;
	if (c->rescan)
		nvme_ctrl_admin(c, &c->chain);
	else
		nvme_admin_start(c, &c->chain);
}

static void identify(struct nvme_ctrl *c, uint32_t cns, uint32_t nsid)
{
	const struct nvme_sqe sqe = {.opcode = NVME_ADMIN_IDENTIFY, .nsid = nsid, .cdw10 = cns};

	send_step(c, &sqe, DMA_PAGE_SIZE, false);
}

static void set_feature(struct nvme_ctrl *c, uint32_t feature, uint32_t value)
{
	const struct nvme_sqe sqe = {
		.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = feature, .cdw11 = value};

	send_step(c, &sqe, 0, false);
}

static void create_queue(struct nvme_ctrl *c, const struct nvme_qpair *qp, bool cq)
{
	const struct nvme_sqe sqe = {
		.opcode = cq ? NVME_ADMIN_CREATE_CQ : NVME_ADMIN_CREATE_SQ,
		.prp1 = cq ? nvme_qpair_cq_bus(qp) : nvme_qpair_sq_bus(qp),
		.cdw10 = qp->id | (uint32_t)((cq ? qp->cq_entries : qp->entries) - 1) << 16,
		/* No interrupts; a submission queue names its completion queue. */
		.cdw11 = NVME_QUEUE_CONTIGUOUS | (cq ? 0 : (uint32_t)qp->id << 16),
	};

	send_step(c, &sqe, 0, false);
}

/* Queue pairs to ask for: enough of one page each, or as many as there are if that is known. */
static uint32_t qpairs_wanted(const struct nvme_ctrl *c)
{
	uint32_t each = (c->opts.depth + SQ_PAGE_ENTRIES - 2) / (SQ_PAGE_ENTRIES - 1), n;

	if (c->qps_len)
		return c->qps_len;
	if (each > NVME_QUEUE_QPAIRS_MAX)
		each = NVME_QUEUE_QPAIRS_MAX;
	n = c->opts.io_queues * each + 1;
	return n < c->qids_max ? n : c->qids_max;
}

/*
 * Blank, but for the admin queue's: the controller may look there as soon as it has read the
 * command that is about to be sent, and should find what its registers say by then.
 */
static void clean_shadows(struct nvme_ctrl *c)
{
	char *shadow = c->dbbuf.virt;
	const uint32_t tail = (c->admin.sq_tail + 1u) % c->admin.entries, head = c->admin.cq_rung;

	memset(shadow, 0, c->dbbuf.pages * DMA_PAGE_SIZE);
	memcpy(shadow, &tail, sizeof(tail));
	memcpy(shadow + nvme_ctrl_doorbell_offset(c, 0, true), &head, sizeof(head));
}

static void done(struct nvme_ctrl *c)
{
	memcpy(c->namespaces, c->fresh, sizeof(c->namespaces));
	c->namespaces_len = c->fresh_len;
	if (!c->rescan) {
		nvme_ctrl_live(c);
		return;
	}
	c->rescan = false;
	c->ops->changed(c, NVME_CHANGED_NAMESPACES, c->arg);
	if (c->rescan_again)
		nvme_bringup_rescan(c);
}

/* Whether this controller says that it can do more than the base of 1.0 in its Identify data. */
static bool has_command_sets(const struct nvme_ctrl *c)
{
	return c->cap & NVME_CAP_CSS_SETS || c->id->ver >= NVME_VS(2, 0);
}

/* Does @step, or what comes next if this controller has no use for it. */
static void next_step(struct nvme_ctrl *c, enum nvme_step step)
{
	c->step = step;
	switch (step) {
	case NVME_STEP_IDENTIFY:
		identify(c, NVME_CNS_CONTROLLER, 0);
		return;
	case NVME_STEP_LIMITS:
		if (has_command_sets(c))
			identify(c, NVME_CNS_CONTROLLER_CSI, 0);
		else
			next_step(c, NVME_STEP_BEHAVIOR);
		return;
	case NVME_STEP_BEHAVIOR: {
		const struct nvme_host_behavior behavior = {.acre = 1};
		const struct nvme_sqe sqe = {.opcode = NVME_ADMIN_SET_FEATURES,
					     .cdw10 = NVME_FEATURE_HOST_BEHAVIOR};

		if (!c->id->crdt[0] && !c->id->crdt[1] && !c->id->crdt[2]) {
			next_step(c, NVME_STEP_CACHE);
			return;
		}
		memcpy(c->buffer, &behavior, sizeof(behavior));
		send_step(c, &sqe, sizeof(behavior), true);
		return;
	}
	case NVME_STEP_CACHE: {
		const struct nvme_sqe sqe = {.opcode = NVME_ADMIN_GET_FEATURES,
					     .cdw10 = NVME_FEATURE_WRITE_CACHE};

		if (c->id->vwc & NVME_VWC_PRESENT)
			send_step(c, &sqe, 0, false);
		else
			next_step(c, NVME_STEP_NUM_QUEUES);
		return;
	}
	case NVME_STEP_NUM_QUEUES: {
		uint32_t n = qpairs_wanted(c) - 1;

		set_feature(c, NVME_FEATURE_NUM_QUEUES, n << 16 | n);
		return;
	}
	case NVME_STEP_DBBUF: {
		struct nvme_sqe sqe = {.opcode = NVME_ADMIN_DBBUF_CONFIG};

		if (!c->dbbuf.pages) {
			next_step(c, NVME_STEP_CREATE_CQ);
			return;
		}
		clean_shadows(c);
		sqe.prp1 = c->dbbuf.bus[0];
		sqe.prp2 = c->dbbuf.bus[1];
		send_step(c, &sqe, 0, false);
		return;
	}
	case NVME_STEP_CREATE_CQ:
		create_queue(c, c->qps[c->at], true);
		return;
	case NVME_STEP_CREATE_SQ:
		create_queue(c, c->qps[c->at], false);
		return;
	case NVME_STEP_EVENTS:
		/* All critical warnings, and namespaces where it can tell of them. */
		set_feature(c, NVME_FEATURE_ASYNC_EVENTS,
			    0x1f | (c->id->oaes & NVME_OAES_NAMESPACES));
		return;
	case NVME_STEP_CHANGED: {
		struct nvme_admin a;

		nvme_admin_log_page(&a, NVME_LOG_CHANGED_NAMESPACES, NULL, DMA_PAGE_SIZE);
		send_step(c, &a.sqe, DMA_PAGE_SIZE, false);
		return;
	}
	case NVME_STEP_NAMESPACES:
		identify(c, NVME_CNS_ACTIVE_NAMESPACES, 0);
		return;
	case NVME_STEP_NAMESPACE:
		if (c->at == c->nsids_len)
			next_step(c, NVME_STEP_DONE);
		else
			identify(c, NVME_CNS_NAMESPACE, c->nsids[c->at]);
		return;
	case NVME_STEP_DONE:
		done(c);
		return;
	}
}

/* The controller */

static int judge_identity(struct nvme_ctrl *c)
{
	struct nvme_id_ctrl *id = c->id;
	uint32_t max = NVME_PRP_MAX;

	memcpy(id, c->buffer, sizeof(*id));
	if ((id->sqes & 0xf) > NVME_SQE_SHIFT || (id->cqes & 0xf) > NVME_CQE_SHIFT)
		return err_set(&c->err, -EOPNOTSUPP,
			       "its queue entries are larger than 64 and 16 bytes");
	if (id->mdts && id->mdts < 8 && (uint32_t)DMA_PAGE_SIZE << id->mdts < max)
		max = (uint32_t)DMA_PAGE_SIZE << id->mdts;
	c->found = (struct nvme_limits){
		.max_transfer = max,
		.sgl = NVME_SGLS(id->sgls) == 1 || NVME_SGLS(id->sgls) == 2,
		.zeroes_bytes = UINT64_MAX,
		.dsm_ranges = NVME_DSM_RANGES_MAX,
		.dsm_range_blocks = UINT32_MAX,
		.dsm_blocks = UINT64_MAX,
	};
	/* Until it says that the cache is off. */
	__atomic_store_n(&c->write_cache, id->vwc & NVME_VWC_PRESENT, __ATOMIC_RELAXED);
	c->aborts_len = id->acl + 1u < NVME_ABORTS_MAX ? id->acl + 1u : NVME_ABORTS_MAX;
	c->events_len = id->aerl + 1u < NVME_EVENTS_MAX ? id->aerl + 1u : NVME_EVENTS_MAX;
	if (id->oacs & NVME_OACS_DBBUF && !c->dbbuf.pages)
		return dma_alloc(c->dma, 2, false, &c->dbbuf, &c->err);
	return 0;
}

static void judge_limits(struct nvme_ctrl *c)
{
	const struct nvme_id_ctrl_nvm *id = c->buffer;
	struct nvme_limits *found = &c->found;

	if (id->wzsl && id->wzsl < 32)
		found->zeroes_bytes = (uint64_t)DMA_PAGE_SIZE << id->wzsl;
	if (id->dmrl)
		found->dsm_ranges = id->dmrl;
	if (id->dmrsl)
		found->dsm_range_blocks = id->dmrsl;
	if (id->dmsl)
		found->dsm_blocks = id->dmsl;
}

static int settle_limits(struct nvme_ctrl *c)
{
	const struct nvme_limits *found = &c->found, *old = &c->limits;

	if (!c->was_live)
		c->limits = *found;
	else if (found->max_transfer < old->max_transfer || found->sgl < old->sgl ||
		 found->zeroes_bytes < old->zeroes_bytes || found->dsm_ranges < old->dsm_ranges ||
		 found->dsm_range_blocks < old->dsm_range_blocks ||
		 found->dsm_blocks < old->dsm_blocks)
		return err_set(&c->err, -EIO, "after its reset it takes smaller commands");
	return 0;
}

static void use_retry_delays(struct nvme_ctrl *c, bool on)
{
	for (unsigned i = 0; i < NVME_RETRY_DELAYS; i++)
		c->retry_ns[i] = on ? c->id->crdt[i] * 100 * NSEC_PER_MSEC : 0;
}

/* Queues */

static uint32_t ring_pages(uint32_t entries)
{
	uint32_t sq = (entries + SQ_PAGE_ENTRIES - 1) / SQ_PAGE_ENTRIES;
	uint32_t cq = (entries + CQ_PAGE_ENTRIES - 1) / CQ_PAGE_ENTRIES;

	return sq + cq;
}

/* Pages of a queue of this depth at most, however its rings come about. */
static uint32_t queue_pages(const struct nvme_ctrl *c, uint32_t depth)
{
	uint32_t pairs = (depth + SQ_PAGE_ENTRIES - 1) / SQ_PAGE_ENTRIES;
	uint32_t one = ring_pages(depth), several = pairs * ring_pages(SQ_PAGE_ENTRIES);

	return (one > several ? one : several) + nvme_lane_pages(depth, c->limits.max_transfer);
}

/* The depth of a reactor's queue: what is wanted, or as much as keeps to the driver's memory. */
static uint32_t choose_depth(const struct nvme_ctrl *c)
{
	uint32_t depth = c->opts.depth, left = NVME_CTRL_PAGES_MAX;

	/* The admin queue and its page, shadow doorbells, home's queue. */
	left -= ring_pages(NVME_ADMIN_ENTRIES) + 3 + queue_pages(c, SQ_PAGE_ENTRIES);
	while (depth > DEPTH_MIN && c->opts.io_queues * queue_pages(c, depth) > left)
		depth /= 2;
	return depth;
}

static int add_qpair(struct nvme_ctrl *c, struct nvme_queue *q, uint32_t entries, struct err *err)
{
	uint32_t max = NVME_CAP_MQES(c->cap) + 1, cq_entries = CQ_PAGE_ENTRIES;
	int rc;

	entries = entries < max ? entries : max;
	cq_entries = cq_entries < max ? cq_entries : max;
	cq_entries = cq_entries > entries ? cq_entries : entries;
	rc = nvme_queue_add_qpair(q, c->dma, (uint16_t)(c->qps_len + 1), (uint16_t)entries,
				  (uint16_t)cq_entries, err);
	if (!rc)
		c->qps[c->qps_len++] = &q->qps[q->qps_len - 1];
	return rc;
}

/*
 * One deep ring if neighbours on the bus can be had for it, else as many of a page each as @pairs
 * allows.
 */
static int fill_queue(struct nvme_ctrl *c, struct nvme_queue *q, uint32_t depth, uint32_t pairs)
{
	struct err ignored;
	int rc = -ENOMEM;

	if (depth > SQ_PAGE_ENTRIES && NVME_CAP_MQES(c->cap) + 1 > SQ_PAGE_ENTRIES)
		rc = add_qpair(c, q, depth, &ignored);
	if (rc)
		rc = add_qpair(c, q, depth < SQ_PAGE_ENTRIES ? depth : SQ_PAGE_ENTRIES, &c->err);
	/* More of them are good to have, and not having them is no error. */
	while (!rc && nvme_queue_depth(q) + 1 < depth && q->qps_len < pairs)
		if (add_qpair(c, q, SQ_PAGE_ENTRIES, &ignored))
			break;
	return rc;
}

static struct nvme_queue *new_queue(struct nvme_ctrl *c)
{
	struct nvme_queue *q = &c->queues[c->queues_len];

	nvme_queue_init(q);
	q->owner = c;
	q->name = c->pci->name;
	q->home = c->home;
	q->lock = &c->lock;
	q->timeout_ns = c->opts.timeout_ns;
	q->abort_timeout_ns = c->opts.abort_timeout_ns;
	q->retry_ns = c->retry_ns;
	q->ack.fn = nvme_ctrl_order_acked;
	q->help.fn = nvme_ctrl_help_asked;
	return q;
}

/* Makes queues of @n queue pairs. Nobody takes one before the controller is live. */
static int make_queues(struct nvme_ctrl *c, uint32_t n)
{
	uint32_t queues = c->opts.io_queues, depth = choose_depth(c), pairs;
	bool home = n > queues;
	int rc = 0;

	if (queues > n)
		queues = n;
	pairs = (n - home) / queues;
	if (pairs > NVME_QUEUE_QPAIRS_MAX)
		pairs = NVME_QUEUE_QPAIRS_MAX;
	/* queues_len counts those that are whole. */
	for (; !rc && c->queues_len < queues; c->queues_len += !rc) {
		struct nvme_queue *q = new_queue(c);

		rc = fill_queue(c, q, depth, pairs);
	}
	if (!rc && home) {
		c->home_queue = new_queue(c);
		rc = fill_queue(c, c->home_queue, depth < SQ_PAGE_ENTRIES ? depth : SQ_PAGE_ENTRIES,
				1);
		c->queues_len += !rc;
	}
	return rc;
}

static int judge_num_queues(struct nvme_ctrl *c, uint32_t result)
{
	uint32_t sqs = (result & 0xffff) + 1, cqs = (result >> 16) + 1;
	uint32_t n = sqs < cqs ? sqs : cqs, wanted = qpairs_wanted(c);
	int rc = 0;

	if (c->queues_len && n < c->qps_len)
		return err_set(&c->err, -EIO, "after its reset it has only %u I/O queues", n);
	if (!c->queues_len)
		rc = make_queues(c, n < wanted ? n : wanted);
	/* Registers at first, each time anew: shadows are still to be agreed on. */
	for (unsigned i = 0; i < c->qps_len; i++) {
		struct nvme_qpair *qp = c->qps[i];

		nvme_ctrl_set_doorbell(c, &qp->sq_doorbell, qp->id, false);
		nvme_ctrl_set_doorbell(c, &qp->cq_doorbell, qp->id, true);
	}
	return rc;
}

static void use_shadow(struct nvme_ctrl *c, struct nvme_doorbell *db, unsigned qid, bool cq)
{
	char *shadow = c->dbbuf.virt, *event = shadow + DMA_PAGE_SIZE;
	size_t offset = nvme_ctrl_doorbell_offset(c, qid, cq);

	/* Each is one page, whose layout is that of the registers. */
	if (offset + sizeof(uint32_t) > DMA_PAGE_SIZE)
		return;
	db->shadow = (uint32_t *)(void *)(shadow + offset);
	/* The admin queue's doorbells are for the register and for memory, always. */
	if (qid)
		db->event = (uint32_t *)(void *)(event + offset);
}

static void use_shadow_doorbells(struct nvme_ctrl *c)
{
	use_shadow(c, &c->admin.sq_doorbell, 0, false);
	use_shadow(c, &c->admin.cq_doorbell, 0, true);
	for (unsigned i = 0; i < c->qps_len; i++) {
		struct nvme_qpair *qp = c->qps[i];

		use_shadow(c, &qp->sq_doorbell, qp->id, false);
		use_shadow(c, &qp->cq_doorbell, qp->id, true);
	}
}

/* Namespaces */

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

/* The chain */

static const char *const step_names[] = {
	[NVME_STEP_IDENTIFY] = "Identify Controller",
	[NVME_STEP_LIMITS] = "Identify Controller (NVM command set)",
	[NVME_STEP_BEHAVIOR] = "Set Features (Host Behavior Support)",
	[NVME_STEP_CACHE] = "Get Features (Volatile Write Cache)",
	[NVME_STEP_NUM_QUEUES] = "Set Features (Number of Queues)",
	[NVME_STEP_DBBUF] = "Doorbell Buffer Config",
	[NVME_STEP_CREATE_CQ] = "Create I/O Completion Queue",
	[NVME_STEP_CREATE_SQ] = "Create I/O Submission Queue",
	[NVME_STEP_EVENTS] = "Set Features (Asynchronous Event Configuration)",
	[NVME_STEP_CHANGED] = "Get Log Page (Changed Namespace List)",
	[NVME_STEP_NAMESPACES] = "Identify (active namespaces)",
	[NVME_STEP_NAMESPACE] = "Identify Namespace",
};

const char *nvme_bringup_step(const struct nvme_ctrl *c)
{
	return step_names[c->step];
}

/* Whether the chain goes on although this step's command was refused. */
static bool can_do_without(enum nvme_step step)
{
	return step != NVME_STEP_IDENTIFY && step != NVME_STEP_NUM_QUEUES &&
	       step != NVME_STEP_CREATE_CQ && step != NVME_STEP_CREATE_SQ;
}

/* What the step's command has brought; @refused: nothing. Moves c->step on. */
static int judge(struct nvme_ctrl *c, uint32_t result, bool refused)
{
	switch (c->step) {
	case NVME_STEP_IDENTIFY:
		c->step = NVME_STEP_LIMITS;
		return judge_identity(c);
	case NVME_STEP_LIMITS:
		if (!refused)
			judge_limits(c);
		c->step = NVME_STEP_BEHAVIOR;
		return 0;
	case NVME_STEP_BEHAVIOR:
		use_retry_delays(c, !refused);
		c->step = NVME_STEP_CACHE;
		return 0;
	case NVME_STEP_CACHE:
		if (!refused)
			__atomic_store_n(&c->write_cache, result & 1, __ATOMIC_RELAXED);
		c->step = NVME_STEP_NUM_QUEUES;
		return 0;
	case NVME_STEP_NUM_QUEUES: {
		int rc = settle_limits(c);

		c->at = 0;
		c->step = NVME_STEP_DBBUF;
		return rc ? rc : judge_num_queues(c, result);
	}
	case NVME_STEP_DBBUF:
		if (!refused)
			use_shadow_doorbells(c);
		c->step = NVME_STEP_CREATE_CQ;
		return 0;
	case NVME_STEP_CREATE_CQ:
		c->step = NVME_STEP_CREATE_SQ;
		return 0;
	case NVME_STEP_CREATE_SQ:
		c->step = ++c->at < c->qps_len ? NVME_STEP_CREATE_CQ : NVME_STEP_EVENTS;
		return 0;
	case NVME_STEP_EVENTS:
	case NVME_STEP_CHANGED:
		c->step = NVME_STEP_NAMESPACES;
		return 0;
	case NVME_STEP_NAMESPACES:
		judge_namespaces(c, !refused);
		c->step = NVME_STEP_NAMESPACE;
		return 0;
	case NVME_STEP_NAMESPACE:
		if (!refused)
			judge_namespace(c);
		c->at++;
		return 0;
	case NVME_STEP_DONE:
		break;
	}
	return 0;
}

static void chain_done(struct nvme_admin *a, int rc)
{
	struct nvme_ctrl *c = container_of(a, struct nvme_ctrl, chain);
	const char *name = step_names[c->step];

	if (rc == -ENODEV)
		return; /* it is dead */
	if (rc && !can_do_without(c->step)) {
		nvme_ctrl_fail(c, rc, "%s failed with status %#x: update or replace the drive",
			       name, a->status);
		return;
	}
	if (rc)
		log_info("%s: does without %s: status %#x", c->pci->name, name, a->status);
	rc = judge(c, a->result, rc);
	if (rc) {
		char text[sizeof(c->err.text)];

		strcpy(text, c->err.text);
		nvme_ctrl_fail(c, rc, "%.250s", text);
		return;
	}
	next_step(c, c->step);
}

/* The way back */

static void delete_done(struct nvme_admin *a, int rc)
{
	struct nvme_ctrl *c = container_of(a, struct nvme_ctrl, undo);

	/* One that refuses this is shut down all the same. */
	c->at = rc ? 2 * c->qps_len : c->at + 1;
}

bool nvme_bringup_undo(struct nvme_ctrl *c)
{
	/* All submission queues, then their completion queues. */
	bool cq = c->at >= c->qps_len;

	if (c->at == 2 * c->qps_len)
		return false;
	c->undo = (struct nvme_admin){
		.sqe = {.opcode = cq ? NVME_ADMIN_DELETE_CQ : NVME_ADMIN_DELETE_SQ,
			.cdw10 = c->qps[c->at % c->qps_len]->id},
		.done = delete_done,
	};
	nvme_admin_start(c, &c->undo);
	return true;
}

void nvme_bringup_start(struct nvme_ctrl *c)
{
	next_step(c, NVME_STEP_IDENTIFY);
}

void nvme_bringup_rescan(struct nvme_ctrl *c)
{
	/* What is read now may be from before this change. */
	c->rescan_again = c->rescan;
	if (c->rescan)
		return;
	c->rescan = true;
	next_step(c, NVME_STEP_CHANGED);
}
