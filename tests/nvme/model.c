/* SPDX-License-Identifier: BSD-2-Clause */
#include "model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lies in a doorbell's register until the driver writes there: so that each write is seen. */
#define UNTOUCHED 0xfeedf00dU

__attribute__((format(printf, 2, 3))) static void violate(struct model *m, const char *fmt, ...)
{
	va_list args;

	if (m->violations++)
		return;
	va_start(args, fmt);
	vsnprintf(m->violation, sizeof(m->violation), fmt, args);
	va_end(args);
	print_message("model: %s\n", m->violation);
}

static uint32_t get32(struct model *m, size_t offset)
{
	return __atomic_load_n((uint32_t *)(void *)(m->bar + offset), __ATOMIC_ACQUIRE);
}

static void set32(struct model *m, size_t offset, uint32_t value)
{
	__atomic_store_n((uint32_t *)(void *)(m->bar + offset), value, __ATOMIC_RELEASE);
}

/* What lay there; what is written meanwhile is not lost. */
static uint32_t take32(struct model *m, size_t offset, uint32_t value)
{
	return __atomic_exchange_n((uint32_t *)(void *)(m->bar + offset), value, __ATOMIC_ACQ_REL);
}

static uint64_t get64(struct model *m, size_t offset)
{
	return get32(m, offset) | (uint64_t)get32(m, offset + 4) << 32;
}

/* Configuration space */

static int config_read(struct nvme_pci *pci, unsigned offset, void *data, size_t len)
{
	struct model *m = container_of(pci, struct model, pci);
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = m->config_error;
	if (!rc && m->removed)
		memset(data, 0xff, len);
	else if (!rc)
		memcpy(data, m->config + offset, len);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static int config_write(struct nvme_pci *pci, unsigned offset, const void *data, size_t len)
{
	struct model *m = container_of(pci, struct model, pci);
	uint8_t master;
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = m->config_error;
	master = m->config[NVME_PCI_COMMAND] & NVME_PCI_COMMAND_MASTER;
	if (!rc && !m->removed)
		memcpy(m->config + offset, data, len);
	if (m->master_stuck)
		m->config[NVME_PCI_COMMAND] |= master;
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static void close_model(struct nvme_pci *pci)
{
	container_of(pci, struct model, pci)->closed++;
}

static const struct nvme_pci_ops pci_ops = {config_read, config_write, close_model};

bool model_bus_master(const struct model *m)
{
	return m->config[NVME_PCI_COMMAND] & NVME_PCI_COMMAND_MASTER;
}

/* Memory */

static void *reach(struct model *m, uint64_t bus, size_t len, const char *what)
{
	void *at;

	if (!model_bus_master(m)) {
		m->dma_after_cut++;
		return NULL;
	}
	at = m->reach ? m->reach(bus) : dma_double_reach(m->mem, bus, len);
	if (!at)
		violate(m, "%s: %#lx, %zu bytes, is no memory of ours", what, (unsigned long)bus,
			len);
	return at;
}

static bool move(struct model *m, uint64_t at, uint8_t *data, uint32_t len, bool to_host)
{
	void *memory = reach(m, at, len, "data");

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
		violate(m, "PRP1 %#lx is not aligned", (unsigned long)at);
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
				violate(m, "a list is chained");
				return false;
			}
			entry = reach(m, list, sizeof(*entry), "PRP list");
			if (!entry)
				return false;
			at = *entry;
			list += sizeof(*entry);
		}
		if (page && at % DMA_PAGE_SIZE) {
			violate(m, "entry %u, %#lx, is no page's", page, (unsigned long)at);
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
		violate(m, "an SGL, which it does not know");
		return false;
	}
	if (d->type == NVME_SGL_LAST_SEGMENT) {
		n = d->len / (uint32_t)sizeof(*d);
		if (d->len % sizeof(*d) || n < 2) {
			violate(m, "a segment of %u bytes", d->len);
			return false;
		}
		d = reach(m, d->bus, d->len, "SGL");
	}
	for (; d && n--; d++) {
		if (d->type != NVME_SGL_DATA || !d->len || d->len > len || (d->bus | d->len) & 3) {
			violate(m, "descriptor of %u bytes at %#lx, type %#x, %u are left", d->len,
				(unsigned long)d->bus, d->type, len);
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
		violate(m, "an SGL is %u bytes short", len);
	return d && !len;
}

static bool transfer(struct model *m, const struct nvme_sqe *sqe, uint8_t *data, uint32_t len,
		     bool to_host)
{
	m->largest = len > m->largest ? len : m->largest;
	if (sqe->flags == NVME_SQE_SGL)
		return transfer_sgl(m, sqe, data, len, to_host);
	if (sqe->flags)
		violate(m, "flags %#x", sqe->flags);
	return transfer_prps(m, sqe, data, len, to_host);
}

/* Completions */

static void write_completion(struct model *m, uint16_t qid, uint16_t cid, uint16_t status,
			     uint32_t result, uint16_t phase_flip)
{
	/* Each submission queue's completion queue has its number. */
	struct model_queue *cq = &m->cqs[qid], *sq = &m->sqs[qid];
	struct nvme_cqe *cqe;

	if ((cq->tail + 1) % cq->entries == cq->head) {
		violate(m, "completion queue %u overflows", qid);
		return;
	}
	cqe = reach(m, cq->bus + cq->tail * sizeof(*cqe), sizeof(*cqe), "completion");
	if (!cqe)
		return;
	cqe->dw0 = result;
	cqe->dw1 = 0;
	cqe->sqhd = (uint16_t)sq->head;
	cqe->sqid = qid;
	cqe->cid = cid;
	__atomic_store_n(&cqe->status, (uint16_t)(status << 1 | (cq->phase ^ phase_flip)),
			 __ATOMIC_RELEASE);
	if (phase_flip)
		return;
	if (++cq->tail == cq->entries) {
		cq->tail = 0;
		cq->phase ^= 1;
	}
}

static void complete(struct model *m, uint16_t qid, const struct nvme_sqe *sqe, uint16_t status,
		     uint32_t result)
{
	m->sqs[qid].cids[sqe->cid / 64] &= ~(1ULL << sqe->cid % 64);
	write_completion(m, qid, sqe->cid, status, result, 0);
}

static size_t doorbell(const struct model *m, unsigned qid, bool cq)
{
	return (2 * qid + cq) * (size_t)(4 << NVME_CAP_DSTRD(m->cap));
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
		const uint8_t *page = reach(m, sqe->prp1 + at, 16, "queue");

		for (size_t i = 0; cq && page && i < 16; i++)
			if (page[i])
				violate(m, "a completion queue is not clean");
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
			violate(m, "completion queue %u is deleted first", qid);
		m->cqs[qid].exists = false;
		return 0;
	}
	for (unsigned i = 0; i < MODEL_PENDING; i++) {
		struct model_pending *p = &m->pending[i];

		if (!p->used || p->qid != qid)
			continue;
		p->used = false;
		complete(m, p->qid, &p->sqe, NVME_SC_SQ_DELETED, 0);
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

static void send_events(struct model *m)
{
	while (m->event_cids_len && m->event_results_len) {
		struct nvme_sqe sqe = {.cid = m->event_cids[--m->event_cids_len]};

		complete(m, 0, &sqe, 0, m->event_results[--m->event_results_len]);
	}
}

static void do_admin(struct model *m, const struct nvme_sqe *sqe)
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
		send_events(m);
		return;
	case NVME_ADMIN_DBBUF_CONFIG:
		if (!(m->id.oacs & NVME_OACS_DBBUF)) {
			status = DNR(NVME_SC_INVALID_OPCODE);
			break;
		}
		m->shadow = sqe->prp1;
		m->event = sqe->prp2;
		/* Those of the admin queue hold what its registers do, from now on. */
		if (m->sqs[0].tail != *(uint32_t *)reach(m, m->shadow, 4, "shadow doorbell") ||
		    m->cqs[0].head != *(uint32_t *)reach(m, m->shadow + doorbell(m, 0, true), 4,
							 "shadow doorbell"))
			violate(m, "the admin queue's shadow doorbells are others");
		for (size_t at = doorbell(m, 1, false); at < DMA_PAGE_SIZE; at += 4) {
			const uint32_t *shadow = reach(m, m->shadow + at, 4, "shadow doorbell");
			const uint32_t *event = reach(m, m->event + at, 4, "event index");

			if (shadow && event && (*shadow || *event))
				violate(m, "shadow doorbells are not clean");
		}
		break;
	default:
		status = DNR(NVME_SC_INVALID_OPCODE);
	}
	complete(m, 0, sqe, status, result);
}

/* I/O commands */

static uint16_t manage_data(struct model *m, const struct nvme_sqe *sqe,
			    const struct model_namespace *ns)
{
	struct nvme_dsm_range ranges[NVME_DSM_RANGES_MAX];
	uint32_t n = (sqe->cdw10 & 0xff) + 1;
	uint64_t total = 0;

	if (sqe->cdw10 >> 8 || !(sqe->cdw11 & NVME_DSM_DEALLOCATE)) {
		violate(m, "DSM other than to deallocate");
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
			violate(m, "DSM of %u blocks in a range", range->blocks);
		total += range->blocks;
		memset(ns->data + range->lba * ns->block_size, 0,
		       (size_t)range->blocks * ns->block_size);
	}
	if ((m->id_nvm.dmrl && n > m->id_nvm.dmrl) || (m->id_nvm.dmsl && total > m->id_nvm.dmsl))
		violate(m, "DSM of %u ranges, %lu blocks", n, (unsigned long)total);
	return 0;
}

static uint16_t do_io(struct model *m, const struct nvme_sqe *sqe)
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
			violate(m, "zeroes for %u blocks", blocks);
		m->deallocated += !!(sqe->cdw12 & NVME_ZEROES_DEALLOCATE);
		memset(data, 0, (size_t)blocks * bs);
		return 0;
	case NVME_CMD_WRITE:
	case NVME_CMD_READ:
		if (m->id.mdts && blocks * bs > (uint32_t)DMA_PAGE_SIZE << m->id.mdts) {
			violate(m, "a command of %u bytes", blocks * bs);
			return DNR(NVME_SC_INVALID_FIELD);
		}
		if (ns->noiob && lba / ns->noiob != (lba + blocks - 1) / ns->noiob)
			violate(m, "a command across a boundary");
		if (ns->readonly && sqe->opcode == NVME_CMD_WRITE)
			return DNR(NVME_SC_READ_ONLY);
		if (!transfer(m, sqe, data, blocks * bs, sqe->opcode == NVME_CMD_READ))
			return DNR(NVME_SC_DATA_TRANSFER_ERROR);
		return 0;
	default:
		return DNR(NVME_SC_INVALID_OPCODE);
	}
}

/* Queues */

static unsigned next_random(struct model *m)
{
	m->random = m->random * 1664525 + 1013904223;
	return m->random >> 16;
}

static enum model_fault_kind choose_fault(struct model *m, uint16_t qid, uint8_t opcode,
					  uint16_t *status)
{
	for (unsigned i = 0; i < MODEL_FAULTS; i++) {
		struct model_fault *f = &m->faults[i];

		if (!f->kind || f->admin != !qid || f->opcode != opcode || !f->times)
			continue;
		if (f->skip) {
			f->skip--;
			continue;
		}
		f->times--;
		f->hits++;
		*status = f->status;
		return f->kind;
	}
	return FAULT_NONE;
}

static void fetch(struct model *m, uint16_t qid)
{
	struct model_queue *sq = &m->sqs[qid];
	const struct nvme_sqe *sqe =
		reach(m, sq->bus + sq->head * sizeof(*sqe), sizeof(*sqe), "submission");
	struct model_pending *p = m->pending;
	uint64_t bit;

	if (!sqe)
		return;
	while (p < m->pending + MODEL_PENDING && p->used)
		p++;
	if (p == m->pending + MODEL_PENDING) {
		violate(m, "too many commands");
		return;
	}
	sq->head = (sq->head + 1) % sq->entries;
	*p = (struct model_pending){.used = true, .qid = qid, .sqe = *sqe};
	bit = 1ULL << p->sqe.cid % 64;
	if (sq->cids[p->sqe.cid / 64] & bit)
		violate(m, "identifier %#x of queue %u is in use", p->sqe.cid, qid);
	sq->cids[p->sqe.cid / 64] |= bit;
	m->commands[!qid][p->sqe.opcode]++;
	p->fault = choose_fault(m, qid, p->sqe.opcode, &p->status);
	if (m->shuffle && qid)
		p->delay = next_random(m) % 8;
}

static bool carry_out(struct model *m, struct model_pending *p)
{
	uint16_t status;

	switch (p->fault) {
	case FAULT_LOSE:
	case FAULT_LATE:
		return false;
	case FAULT_ABORTABLE:
		if (!p->aborted)
			return false;
		p->used = false;
		complete(m, p->qid, &p->sqe, NVME_SC_ABORT_REQUESTED, 0);
		return true;
	case FAULT_STATUS:
		if (NVME_STATUS_CRD(p->status) && !m->acre)
			violate(m, "a retry delay that the host does not know of");
		p->used = false;
		complete(m, p->qid, &p->sqe, p->status, 0);
		return true;
	case FAULT_WRONG_PHASE:
		p->fault = FAULT_LOSE;
		write_completion(m, p->qid, p->sqe.cid, 0, 0, 1);
		return true;
	case FAULT_WRONG_CID:
		p->fault = FAULT_LOSE;
		write_completion(m, p->qid, 0xfffe, 0, 0, 0);
		return true;
	case FAULT_TWICE:
	case FAULT_NONE:
		break;
	}
	p->used = false;
	if (!p->qid) {
		do_admin(m, &p->sqe);
		return true;
	}
	status = do_io(m, &p->sqe);
	complete(m, p->qid, &p->sqe, status, 0);
	if (p->fault == FAULT_TWICE)
		write_completion(m, p->qid, p->sqe.cid, status, 0, 0);
	return true;
}

/* What the driver says the queue's end on its side is; true: it may have moved. */
static bool read_doorbell(struct model *m, struct model_queue *q, unsigned qid, bool cq,
			  uint32_t *out)
{
	size_t offset = doorbell(m, qid, cq);
	uint32_t value = take32(m, NVME_REG_DOORBELLS + offset, UNTOUCHED);
	const uint32_t *shadow;
	uint32_t *event;

	if (value != UNTOUCHED)
		q->awake = true;
	if (!q->exists) {
		if (value != UNTOUCHED)
			violate(m, "a doorbell of queue %u, which is not there", qid);
		return false;
	}
	if (!qid || !m->shadow) {
		if (value == UNTOUCHED)
			return false;
		shadow = m->shadow ? reach(m, m->shadow + offset, 4, "shadow doorbell") : NULL;
		if (shadow && *shadow != value)
			violate(m, "the admin queue's doorbell is %u, its shadow %u", value,
				*shadow);
	} else {
		/*
		 * At rest it hears the register only, and says before what it wants to hear. For
		 * completions it need not rest.
		 */
		if (!cq && !q->awake)
			return false;
		shadow = reach(m, m->shadow + offset, 4, "shadow doorbell");
		event = reach(m, m->event + offset, 4, "event index");
		if (!shadow || !event)
			return false;
		value = __atomic_load_n(shadow, __ATOMIC_SEQ_CST);
		if (*event == value || m->deaf)
			q->awake = false;
		/* One that is deaf sleeps with an event that it has long been past. */
		__atomic_store_n(event, m->deaf ? value + 1000 : value, __ATOMIC_SEQ_CST);
	}
	if (value >= q->entries) {
		violate(m, "doorbell %u of queue %u", value, qid);
		return false;
	}
	*out = value;
	return true;
}

static bool run_queues(struct model *m)
{
	bool did = false;

	for (unsigned qid = 0; qid <= m->io_queues; qid++) {
		struct model_queue *sq = &m->sqs[qid], *cq = &m->cqs[qid];

		/*
		 * In this order: the driver tells a head before the tail that needs it, so whoever
		 * has seen the tail finds the head.
		 */
		read_doorbell(m, sq, qid, false, &sq->tail);
		read_doorbell(m, cq, qid, true, &cq->head);
		if (!sq->exists || (m->stuck_sq && m->stuck_sq == qid))
			continue;
		for (; sq->head != sq->tail && model_bus_master(m); did = true)
			fetch(m, (uint16_t)qid);
	}
	for (unsigned i = 0; i < MODEL_PENDING && model_bus_master(m); i++) {
		struct model_pending *p = &m->pending[i];

		if (!p->used)
			continue;
		if (p->delay) {
			p->delay--;
			did = true;
		} else {
			did |= carry_out(m, p);
		}
	}
	return did;
}

/* Registers */

static void forget(struct model *m)
{
	memset(m->sqs, 0, sizeof(m->sqs));
	memset(m->cqs, 0, sizeof(m->cqs));
	memset(m->pending, 0, sizeof(m->pending));
	m->acre = false;
	m->shadow = 0;
	m->event = 0;
	m->event_cids_len = 0;
	for (size_t at = NVME_REG_DOORBELLS; at < sizeof(m->bar); at += 4)
		set32(m, at, UNTOUCHED);
}

static void start_admin_queue(struct model *m)
{
	uint32_t aqa = get32(m, NVME_REG_AQA);

	m->sqs[0] = (struct model_queue){
		.exists = true, .bus = get64(m, NVME_REG_ASQ), .entries = (aqa & 0xfff) + 1};
	m->cqs[0] = (struct model_queue){.exists = true,
					 .bus = get64(m, NVME_REG_ACQ),
					 .entries = (aqa >> 16 & 0xfff) + 1,
					 .phase = 1};
	if ((m->cc >> 16 & 0xf) != 6 || (m->cc >> 20 & 0xf) != 4 || m->cc >> 7 & 0xf)
		violate(m, "CC %#x", m->cc);
	m->resets++;
}

bool model_step(struct model *m)
{
	uint32_t cc, csts;
	bool did = false;

	if (m->removed) {
		for (size_t at = 0; at < sizeof(m->bar); at += 4)
			set32(m, at, UINT32_MAX);
		return false;
	}
	cc = get32(m, NVME_REG_CC);
	csts = get32(m, NVME_REG_CSTS);
	if (m->fatal)
		csts |= NVME_CSTS_CFS;
	if ((cc ^ m->cc) & NVME_CC_EN) {
		m->countdown = m->ready_delay + 1;
		if (!(cc & NVME_CC_EN) && !m->never_stops)
			forget(m);
	}
	if ((cc ^ m->cc) & NVME_CC_SHN_MASK && cc & NVME_CC_SHN_MASK && !m->never_shut_down) {
		m->shutdowns++;
		csts |= NVME_CSTS_SHST_COMPLETE;
		if (model_inflight(m) > m->event_cids_len)
			violate(m, "shut down with commands in flight");
	}
	m->cc = cc;
	if (m->countdown && !--m->countdown) {
		did = true;
		if (!(cc & NVME_CC_EN)) {
			if (!m->never_stops) {
				csts = 0;
				m->fatal = false;
			}
		} else if (m->fatal_on_enable) {
			csts |= NVME_CSTS_CFS;
		} else if (!m->never_ready) {
			csts |= NVME_CSTS_RDY;
			start_admin_queue(m);
		}
	}
	set32(m, NVME_REG_CSTS, csts);
	if (csts & NVME_CSTS_RDY && !(csts & NVME_CSTS_CFS))
		did |= run_queues(m);
	return did || m->countdown;
}

void model_send_event(struct model *m, uint32_t result)
{
	assert_true(m->event_results_len < MODEL_EVENTS);
	m->event_results[m->event_results_len++] = result;
	send_events(m);
}

unsigned model_inflight(const struct model *m)
{
	unsigned n = m->event_cids_len;

	for (unsigned i = 0; i < MODEL_PENDING; i++)
		n += m->pending[i].used;
	return n;
}

struct model_fault *model_add_fault(struct model *m, const struct model_fault *fault)
{
	for (unsigned i = 0; i < MODEL_FAULTS; i++) {
		if (m->faults[i].kind && m->faults[i].times)
			continue;
		m->faults[i] = *fault;
		return &m->faults[i];
	}
	fail_msg("too many faults");
	return NULL;
}

void model_power_on(struct model *m)
{
	memset(m->bar, 0, sizeof(m->bar));
	set32(m, NVME_REG_CAP, (uint32_t)m->cap);
	set32(m, NVME_REG_CAP + 4, (uint32_t)(m->cap >> 32));
	set32(m, NVME_REG_VS, m->version);
	for (unsigned i = 0; i < 4; i++) {
		struct model_namespace *ns = &m->ns[i];

		if (ns->blocks && !ns->data)
			ns->data = calloc(ns->blocks, ns->block_size);
	}
	forget(m);
}

void model_init(struct model *m, struct dma_double *mem, uint32_t block_size, uint64_t blocks)
{
	uint32_t class = NVME_PCI_CLASS_CODE << 8 | 1;

	memset(m, 0, sizeof(*m));
	m->pci = (struct nvme_pci){&pci_ops, "model", m->bar, sizeof(m->bar)};
	m->mem = mem;
	memcpy(m->config + NVME_PCI_CLASS, &class, sizeof(class));
	/* 256 entries, contiguous, 2 s to get ready. */
	m->cap = 255 | 1 << 16 | 4 << 24 | NVME_CAP_CSS_NVM;
	m->version = NVME_VS(1, 4);
	m->id.mdts = 5;
	m->id.oaes = NVME_OAES_NAMESPACES;
	m->id.acl = 3;
	m->id.aerl = 3;
	m->id.sqes = 0x66;
	m->id.cqes = 0x44;
	m->id.nn = 4;
	m->id.oncs = NVME_ONCS_DSM | NVME_ONCS_ZEROES;
	m->id.vwc = NVME_VWC_PRESENT;
	m->io_queues = 8;
	m->ns[0] = (struct model_namespace){.block_size = block_size, .blocks = blocks};
	m->cache_on = true;
	m->smart.temperature[0] = 310 & 0xff;
	m->smart.temperature[1] = 310 >> 8;
	m->smart.available_spare = 99;
	m->errors[0].count = 17;
	m->random = 1;
	pthread_mutex_init(&m->lock, NULL);
	model_power_on(m);
}

void model_fini(struct model *m)
{
	pthread_mutex_destroy(&m->lock);
	for (unsigned i = 0; i < 4; i++)
		free(m->ns[i].data);
}
