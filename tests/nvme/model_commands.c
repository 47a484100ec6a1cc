/* SPDX-License-Identifier: BSD-2-Clause */
/* What the model's commands do: where their data is, admin commands, and those of namespaces. */
#include <string.h>

#include "model.h"
#include "model_internal.h"

/* Data */

static bool move(struct model *m, uint64_t at, uint8_t *data, uint32_t len, bool to_host)
{
	void *memory = model_reach(m, at, len, "data");

	if (!memory)
		return false;
	if (to_host)
		memcpy(memory, data, len);
	else
		memcpy(data, memory, len);
	return true;
}

/* Copies between @data and what the command's PRPs say; false: they say something wrong. */
static bool transfer_prps(struct model *m, const struct nvme_sqe *sqe, uint8_t *data, uint32_t len,
			  bool to_host)
{
	uint64_t at = sqe->prp1, list = 0;
	uint32_t left = len;

	if (at & 3) {
		model_violate(m, "PRP1 %#lx is not aligned", (unsigned long)at);
		return false;
	}
	for (unsigned page = 0; left; page++) {
		uint32_t here;

		if (page == 1 && left <= DMA_PAGE_SIZE) {
			at = sqe->prp2;
		} else if (page) {
			const uint64_t *entry;

			list = page == 1 ? sqe->prp2 : list;
			/*
			 * The last entry of a page of more entries than are left would be the next
			 * list's address.
			 */
			if ((list & (DMA_PAGE_SIZE - 1)) == DMA_PAGE_SIZE - 8 &&
			    left > DMA_PAGE_SIZE) {
				model_violate(m, "a list is chained");
				return false;
			}
			entry = model_reach(m, list, sizeof(*entry), "PRP list");
			if (!entry)
				return false;
			at = *entry;
			list += sizeof(*entry);
		}
		if (page && at % DMA_PAGE_SIZE) {
			model_violate(m, "entry %u, %#lx, is no page's", page, (unsigned long)at);
			return false;
		}
		here = DMA_PAGE_SIZE - (uint32_t)(at % DMA_PAGE_SIZE);
		here = here < left ? here : left;
		if (!move(m, at, data, here, to_host))
			return false;
		data += here;
		left -= here;
	}
	return true;
}

/* The same by its SGL: one data block, or one segment of them. */
static bool transfer_sgl(struct model *m, const struct nvme_sqe *sqe, uint8_t *data, uint32_t len,
			 bool to_host)
{
	const struct nvme_sgl *d = &sqe->sgl;
	uint32_t n = 1;

	m->sgls++;
	if (!NVME_SGLS(m->id.sgls)) {
		model_violate(m, "an SGL, which it does not know");
		return false;
	}
	if (d->type == NVME_SGL_LAST_SEGMENT) {
		n = d->len / (uint32_t)sizeof(*d);
		if (d->len % sizeof(*d) || n < 2) {
			model_violate(m, "a segment of %u bytes", d->len);
			return false;
		}
		d = model_reach(m, d->bus, d->len, "SGL");
	}
	for (; d && n--; d++) {
		if (d->type != NVME_SGL_DATA || !d->len || d->len > len || (d->bus | d->len) & 3) {
			model_violate(m, "descriptor of %u bytes at %#lx, type %#x, %u are left",
				      d->len, (unsigned long)d->bus, d->type, len);
			return false;
		}
		/* Across pages only where these are neighbours. */
		for (uint32_t at = 0; at < d->len;) {
			uint32_t page = DMA_PAGE_SIZE - (d->bus + at) % DMA_PAGE_SIZE;
			uint32_t here = page < d->len - at ? page : d->len - at;

			if (!move(m, d->bus + at, data, here, to_host))
				return false;
			data += here;
			at += here;
		}
		len -= d->len;
	}
	if (d && len)
		model_violate(m, "an SGL is %u bytes short", len);
	return d && !len;
}

static bool transfer(struct model *m, const struct nvme_sqe *sqe, uint8_t *data, uint32_t len,
		     bool to_host)
{
	m->largest = len > m->largest ? len : m->largest;
	if (sqe->flags == NVME_SQE_SGL)
		return transfer_sgl(m, sqe, data, len, to_host);
	if (sqe->flags)
		model_violate(m, "flags %#x", sqe->flags);
	return transfer_prps(m, sqe, data, len, to_host);
}

/* Admin commands */

#define DNR(code) ((uint16_t)(NVME_STATUS_DNR | (code)))

static uint16_t identify(struct model *m, const struct nvme_sqe *sqe)
{
	static uint8_t page[DMA_PAGE_SIZE];
	struct nvme_id_ns *id = (void *)page;
	const struct model_namespace *ns;
	uint32_t *list = (void *)page;

	memset(page, 0, sizeof(page));
	switch (sqe->cdw10 & 0xff) {
	case NVME_CNS_CONTROLLER:
		memcpy(page, &m->id, sizeof(page));
		break;
	case NVME_CNS_CONTROLLER_CSI:
		if (!(m->cap & NVME_CAP_CSS_SETS))
			return DNR(NVME_SC_INVALID_FIELD);
		memcpy(page, &m->id_nvm, sizeof(page));
		break;
	case NVME_CNS_ACTIVE_NAMESPACES:
		if (m->version < NVME_VS(1, 1))
			return DNR(NVME_SC_INVALID_FIELD);
		for (uint32_t i = 0; i < 4; i++)
			if (m->ns[i].blocks && i + 1 > sqe->nsid)
				*list++ = i + 1;
		break;
	case NVME_CNS_NAMESPACE:
		if (!sqe->nsid || sqe->nsid > 4)
			return DNR(NVME_SC_INVALID_NAMESPACE);
		ns = &m->ns[sqe->nsid - 1];
		if (!ns->blocks)
			break;
		id->nsze = id->ncap = ns->blocks;
		id->flbas = 1;
		id->lbaf[1].lbads = (uint8_t)__builtin_ctz(ns->block_size);
		id->lbaf[1].ms = ns->metadata;
		id->noiob = ns->noiob;
		id->nsattr = ns->readonly;
		id->nguid[0] = ns->nguid;
		break;
	default:
		return DNR(NVME_SC_INVALID_FIELD);
	}
	transfer(m, sqe, page, sizeof(page), true);
	return 0;
}

static uint16_t log_page(struct model *m, const struct nvme_sqe *sqe)
{
	static uint8_t page[DMA_PAGE_SIZE];
	uint32_t len = ((sqe->cdw10 >> 16 & 0xfff) + 1) * 4;
	struct nvme_firmware_log *firmware = (void *)page;

	memset(page, 0, sizeof(page));
	switch (sqe->cdw10 & 0xff) {
	case NVME_LOG_SMART:
		memcpy(page, &m->smart, sizeof(m->smart));
		break;
	case NVME_LOG_ERRORS:
		memcpy(page, m->errors, sizeof(m->errors));
		break;
	case NVME_LOG_FIRMWARE:
		firmware->afi = 1;
		memcpy(firmware->slot[0], "model1.0", 8);
		break;
	case NVME_LOG_CHANGED_NAMESPACES:
		break;
	default:
		return DNR(0x109);
	}
	transfer(m, sqe, page, len, true);
	return 0;
}

static uint16_t create_queue(struct model *m, const struct nvme_sqe *sqe, bool cq)
{
	uint32_t qid = sqe->cdw10 & 0xffff, entries = (sqe->cdw10 >> 16) + 1;
	struct model_queue *q;

	if (!qid || qid > m->io_queues)
		return DNR(NVME_SC_INVALID_QID);
	q = cq ? &m->cqs[qid] : &m->sqs[qid];
	if (q->exists)
		return DNR(NVME_SC_INVALID_QID);
	if (!cq && (!m->cqs[qid].exists || sqe->cdw11 >> 16 != qid))
		return DNR(NVME_SC_INVALID_CQ);
	if (entries < 2 || entries > NVME_CAP_MQES(m->cap) + 1)
		return DNR(NVME_SC_INVALID_QSIZE);
	if (!(sqe->cdw11 & NVME_QUEUE_CONTIGUOUS) || (cq && sqe->cdw11 & 2))
		return DNR(NVME_SC_INVALID_FIELD);
	/* Every page of it, as contiguous as it says. */
	for (size_t at = 0; at < (size_t)entries * (cq ? 16 : 64); at += DMA_PAGE_SIZE) {
		const uint8_t *page = model_reach(m, sqe->prp1 + at, 16, "queue");

		for (size_t i = 0; cq && page && i < 16; i++)
			if (page[i])
				model_violate(m, "a completion queue is not clean");
	}
	*q = (struct model_queue){
		.exists = true, .bus = sqe->prp1, .entries = entries, .phase = 1, .awake = false};
	return 0;
}

/* What is in a submission queue ends with it; it must be deleted before its completion queue. */
static uint16_t delete_queue(struct model *m, const struct nvme_sqe *sqe, bool cq)
{
	uint32_t qid = sqe->cdw10;

	if (!qid || qid > m->io_queues || !(cq ? &m->cqs[qid] : &m->sqs[qid])->exists)
		return DNR(NVME_SC_INVALID_QID);
	if (cq) {
		if (m->sqs[qid].exists)
			model_violate(m, "completion queue %u is deleted first", qid);
		m->cqs[qid].exists = false;
		return 0;
	}
	for (unsigned i = 0; i < MODEL_PENDING; i++) {
		struct model_pending *p = &m->pending[i];

		if (!p->used || p->qid != qid)
			continue;
		p->used = false;
		model_complete(m, p->qid, &p->sqe, NVME_SC_SQ_DELETED, 0);
	}
	m->sqs[qid].exists = false;
	return 0;
}

/* Takes the command out of waiting; the Abort's result: 0 if it was aborted. */
static uint32_t abort_command(struct model *m, uint32_t cdw10)
{
	for (unsigned i = 0; i < MODEL_PENDING; i++) {
		struct model_pending *p = &m->pending[i];

		if (!p->used || p->qid != (cdw10 & 0xffff) || p->sqe.cid != cdw10 >> 16)
			continue;
		if (p->fault == FAULT_ABORTABLE) {
			p->aborted = true;
			return 0;
		}
		if (p->fault == FAULT_LATE) {
			p->fault = FAULT_NONE;
			p->delay = 50;
		}
		return 1;
	}
	return 1;
}

void model_send_events(struct model *m)
{
	while (m->event_cids_len && m->event_results_len) {
		struct nvme_sqe sqe = {.cid = m->event_cids[--m->event_cids_len]};

		model_complete(m, 0, &sqe, 0, m->event_results[--m->event_results_len]);
	}
}

void model_do_admin(struct model *m, const struct nvme_sqe *sqe)
{
	uint16_t status = 0;
	uint32_t result = 0;

	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		status = identify(m, sqe);
		break;
	case NVME_ADMIN_GET_LOG_PAGE:
		status = log_page(m, sqe);
		break;
	case NVME_ADMIN_CREATE_CQ:
	case NVME_ADMIN_CREATE_SQ:
		status = create_queue(m, sqe, sqe->opcode == NVME_ADMIN_CREATE_CQ);
		break;
	case NVME_ADMIN_DELETE_CQ:
	case NVME_ADMIN_DELETE_SQ:
		status = delete_queue(m, sqe, sqe->opcode == NVME_ADMIN_DELETE_CQ);
		break;
	case NVME_ADMIN_ABORT:
		result = abort_command(m, sqe->cdw10);
		break;
	case NVME_ADMIN_SET_FEATURES:
		if (sqe->cdw10 == NVME_FEATURE_NUM_QUEUES)
			result = (m->io_queues - 1) << 16 | (m->io_queues - 1);
		if (sqe->cdw10 == NVME_FEATURE_HOST_BEHAVIOR) {
			struct nvme_host_behavior behavior;

			transfer(m, sqe, (uint8_t *)&behavior, sizeof(behavior), false);
			m->acre = behavior.acre;
		}
		break;
	case NVME_ADMIN_GET_FEATURES:
		if (sqe->cdw10 == NVME_FEATURE_WRITE_CACHE && m->id.vwc)
			result = m->cache_on;
		else
			status = DNR(NVME_SC_INVALID_FIELD);
		break;
	case NVME_ADMIN_ASYNC_EVENT:
		if (m->event_cids_len > m->id.aerl || m->event_cids_len == MODEL_EVENTS) {
			status = DNR(0x105);
			break;
		}
		m->event_cids[m->event_cids_len++] = sqe->cid;
		model_send_events(m);
		return;
	case NVME_ADMIN_DBBUF_CONFIG:
		if (!(m->id.oacs & NVME_OACS_DBBUF)) {
			status = DNR(NVME_SC_INVALID_OPCODE);
			break;
		}
		m->shadow = sqe->prp1;
		m->event = sqe->prp2;
		/* Those of the admin queue hold what its registers do, from now on. */
		if (m->sqs[0].tail !=
			    *(uint32_t *)model_reach(m, m->shadow, 4, "shadow doorbell") ||
		    m->cqs[0].head !=
			    *(uint32_t *)model_reach(m, m->shadow + model_doorbell(m, 0, true), 4,
						     "shadow doorbell"))
			model_violate(m, "the admin queue's shadow doorbells are others");
		for (size_t at = model_doorbell(m, 1, false); at < DMA_PAGE_SIZE; at += 4) {
			const uint32_t *shadow =
				model_reach(m, m->shadow + at, 4, "shadow doorbell");
			const uint32_t *event = model_reach(m, m->event + at, 4, "event index");

			if (shadow && event && (*shadow || *event))
				model_violate(m, "shadow doorbells are not clean");
		}
		break;
	default:
		status = DNR(NVME_SC_INVALID_OPCODE);
	}
	model_complete(m, 0, sqe, status, result);
}

/* I/O commands */

static uint16_t manage_data(struct model *m, const struct nvme_sqe *sqe,
			    const struct model_namespace *ns)
{
	struct nvme_dsm_range ranges[NVME_DSM_RANGES_MAX];
	uint32_t n = (sqe->cdw10 & 0xff) + 1;
	uint64_t total = 0;

	if (sqe->cdw10 >> 8 || !(sqe->cdw11 & NVME_DSM_DEALLOCATE)) {
		model_violate(m, "DSM other than to deallocate");
		return DNR(NVME_SC_INVALID_FIELD);
	}
	if (!transfer(m, sqe, (uint8_t *)ranges, n * (uint32_t)sizeof(*ranges), false))
		return DNR(NVME_SC_DATA_TRANSFER_ERROR);
	m->ranges += n;
	for (uint32_t i = 0; i < n; i++) {
		const struct nvme_dsm_range *range = &ranges[i];

		if (range->lba > ns->blocks || range->blocks > ns->blocks - range->lba)
			return DNR(NVME_SC_LBA_RANGE);
		if (m->id_nvm.dmrsl && range->blocks > m->id_nvm.dmrsl)
			model_violate(m, "DSM of %u blocks in a range", range->blocks);
		total += range->blocks;
		memset(ns->data + range->lba * ns->block_size, 0,
		       (size_t)range->blocks * ns->block_size);
	}
	if ((m->id_nvm.dmrl && n > m->id_nvm.dmrl) || (m->id_nvm.dmsl && total > m->id_nvm.dmsl))
		model_violate(m, "DSM of %u ranges, %lu blocks", n, (unsigned long)total);
	return 0;
}

uint16_t model_do_io(struct model *m, const struct nvme_sqe *sqe)
{
	uint64_t lba = sqe->cdw10 | (uint64_t)sqe->cdw11 << 32;
	uint32_t blocks = (sqe->cdw12 & 0xffff) + 1, bs;
	struct model_namespace *ns;
	uint8_t *data;

	if (sqe->opcode == NVME_CMD_FLUSH)
		return 0;
	if (!sqe->nsid || sqe->nsid > 4 || !m->ns[sqe->nsid - 1].blocks)
		return DNR(NVME_SC_INVALID_NAMESPACE);
	ns = &m->ns[sqe->nsid - 1];
	bs = ns->block_size;
	if (sqe->opcode == NVME_CMD_DSM)
		return manage_data(m, sqe, ns);
	if (lba > ns->blocks || blocks > ns->blocks - lba)
		return DNR(NVME_SC_LBA_RANGE);
	data = ns->data + lba * bs;
	switch (sqe->opcode) {
	case NVME_CMD_WRITE_ZEROES:
		if (m->id_nvm.wzsl && blocks * bs > (uint32_t)DMA_PAGE_SIZE << m->id_nvm.wzsl)
			model_violate(m, "zeroes for %u blocks", blocks);
		m->deallocated += !!(sqe->cdw12 & NVME_ZEROES_DEALLOCATE);
		memset(data, 0, (size_t)blocks * bs);
		return 0;
	case NVME_CMD_WRITE:
	case NVME_CMD_READ:
		if (m->id.mdts && blocks * bs > (uint32_t)DMA_PAGE_SIZE << m->id.mdts) {
			model_violate(m, "a command of %u bytes", blocks * bs);
			return DNR(NVME_SC_INVALID_FIELD);
		}
		if (ns->noiob && lba / ns->noiob != (lba + blocks - 1) / ns->noiob)
			model_violate(m, "a command across a boundary");
		if (ns->readonly && sqe->opcode == NVME_CMD_WRITE)
			return DNR(NVME_SC_READ_ONLY);
		if (!transfer(m, sqe, data, blocks * bs, sqe->opcode == NVME_CMD_READ))
			return DNR(NVME_SC_DATA_TRANSFER_ERROR);
		return 0;
	default:
		return DNR(NVME_SC_INVALID_OPCODE);
	}
}
