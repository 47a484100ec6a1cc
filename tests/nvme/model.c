/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers, queues and doorbells: when commands are taken, and what is said of their end. */
#include "model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_internal.h"

/* Lies in a doorbell's register until the driver writes there: so that each write is seen. */
#define UNTOUCHED 0xfeedf00dU

void model_violate(struct model *m, const char *fmt, ...)
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

void *model_reach(struct model *m, uint64_t bus, size_t len, const char *what)
{
	void *at;

	if (!model_bus_master(m)) {
		m->dma_after_cut++;
		return NULL;
	}
	at = m->reach ? m->reach(bus) : dma_double_reach(m->mem, bus, len);
	if (!at)
		model_violate(m, "%s: %#lx, %zu bytes, is no memory of ours", what,
			      (unsigned long)bus, len);
	return at;
}

/* Completions */

static void write_completion(struct model *m, uint16_t qid, uint16_t cid, uint16_t status,
			     uint32_t result, uint16_t phase_flip)
{
	/* Each submission queue's completion queue has its number. */
	struct model_queue *cq = &m->cqs[qid], *sq = &m->sqs[qid];
	struct nvme_cqe *cqe;

	if ((cq->tail + 1) % cq->entries == cq->head) {
		model_violate(m, "completion queue %u overflows", qid);
		return;
	}
	cqe = model_reach(m, cq->bus + cq->tail * sizeof(*cqe), sizeof(*cqe), "completion");
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

void model_complete(struct model *m, uint16_t qid, const struct nvme_sqe *sqe, uint16_t status,
		    uint32_t result)
{
	m->sqs[qid].cids[sqe->cid / 64] &= ~(1ULL << sqe->cid % 64);
	write_completion(m, qid, sqe->cid, status, result, 0);
}

size_t model_doorbell(const struct model *m, unsigned qid, bool cq)
{
	return (2 * qid + cq) * (size_t)(4 << NVME_CAP_DSTRD(m->cap));
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
		model_reach(m, sq->bus + sq->head * sizeof(*sqe), sizeof(*sqe), "submission");
	struct model_pending *p = m->pending;
	uint64_t bit;

	if (!sqe)
		return;
	while (p < m->pending + MODEL_PENDING && p->used)
		p++;
	if (p == m->pending + MODEL_PENDING) {
		model_violate(m, "too many commands");
		return;
	}
	sq->head = (sq->head + 1) % sq->entries;
	*p = (struct model_pending){.used = true, .qid = qid, .sqe = *sqe};
	bit = 1ULL << p->sqe.cid % 64;
	if (sq->cids[p->sqe.cid / 64] & bit)
		model_violate(m, "identifier %#x of queue %u is in use", p->sqe.cid, qid);
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
		model_complete(m, p->qid, &p->sqe, NVME_SC_ABORT_REQUESTED, 0);
		return true;
	case FAULT_STATUS:
		if (NVME_STATUS_CRD(p->status) && !m->acre)
			model_violate(m, "a retry delay that the host does not know of");
		p->used = false;
		model_complete(m, p->qid, &p->sqe, p->status, 0);
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
		model_do_admin(m, &p->sqe);
		return true;
	}
	status = model_do_io(m, &p->sqe);
	model_complete(m, p->qid, &p->sqe, status, 0);
	if (p->fault == FAULT_TWICE)
		write_completion(m, p->qid, p->sqe.cid, status, 0, 0);
	return true;
}

/* What the driver says the queue's end on its side is; true: it may have moved. */
static bool read_doorbell(struct model *m, struct model_queue *q, unsigned qid, bool cq,
			  uint32_t *out)
{
	size_t offset = model_doorbell(m, qid, cq);
	uint32_t value = take32(m, NVME_REG_DOORBELLS + offset, UNTOUCHED);
	const uint32_t *shadow;
	uint32_t *event;

	if (value != UNTOUCHED)
		q->awake = true;
	if (!q->exists) {
		if (value != UNTOUCHED)
			model_violate(m, "a doorbell of queue %u, which is not there", qid);
		return false;
	}
	if (!qid || !m->shadow) {
		if (value == UNTOUCHED)
			return false;
		shadow =
			m->shadow ? model_reach(m, m->shadow + offset, 4, "shadow doorbell") : NULL;
		if (shadow && *shadow != value)
			model_violate(m, "the admin queue's doorbell is %u, its shadow %u", value,
				      *shadow);
	} else {
		/*
		 * At rest it hears the register only, and says before what it wants to hear. For
		 * completions it need not rest.
		 */
		if (!cq && !q->awake)
			return false;
		shadow = model_reach(m, m->shadow + offset, 4, "shadow doorbell");
		event = model_reach(m, m->event + offset, 4, "event index");
		if (!shadow || !event)
			return false;
		value = __atomic_load_n(shadow, __ATOMIC_SEQ_CST);
		if (*event == value || m->deaf)
			q->awake = false;
		/* One that is deaf sleeps with an event that it has long been past. */
		__atomic_store_n(event, m->deaf ? value + 1000 : value, __ATOMIC_SEQ_CST);
	}
	if (value >= q->entries) {
		model_violate(m, "doorbell %u of queue %u", value, qid);
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
		model_violate(m, "CC %#x", m->cc);
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
			model_violate(m, "shut down with commands in flight");
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
	model_send_events(m);
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
