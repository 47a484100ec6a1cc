/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A model of an NVMe controller in memory, for tests.
 *
 * Its registers are plain memory that the driver writes and that the model looks at when it is
 * stepped; it has no thread of its own, so a test plays the same each time, unless it steps the
 * model on one.  It carries out commands late
 * and, if asked, in any order, and moves data only then, so that memory given back too early is
 * found out.  It touches memory by bus address only, through the double of the provider, and counts
 * as a violation whatever a real controller would punish or suffer from: an address that is no
 * one's, a doorbell out of range, an identifier used twice, a command for a queue that is not
 * there, and more.
 */
#ifndef SLUICE_TEST_NVME_MODEL_H
#define SLUICE_TEST_NVME_MODEL_H

#include "dma_double.h"
#include "nvme/controller.h"

enum { MODEL_QUEUES = 72, MODEL_PENDING = 256, MODEL_FAULTS = 4, MODEL_EVENTS = 4 };

enum model_fault_kind {
	FAULT_NONE,
	FAULT_STATUS,      /* completes with .status, without doing anything */
	FAULT_LOSE,        /* is never completed, Abort or not */
	FAULT_LATE,        /* is carried out and completed only after an Abort has failed */
	FAULT_ABORTABLE,   /* waits for an Abort, and completes as aborted */
	FAULT_WRONG_PHASE, /* is completed with the phase that means nothing new */
	FAULT_WRONG_CID,   /* is completed as a command that nobody sent */
	FAULT_TWICE,       /* is completed twice */
};

struct model_fault {
	enum model_fault_kind kind;
	bool admin;
	uint8_t opcode;
	unsigned skip;  /* lets so many pass first */
	unsigned times; /* then strikes so often */
	uint16_t status;
	unsigned hits;
};

struct model_namespace {
	uint32_t block_size;
	uint64_t blocks; /* 0: not active */
	uint16_t noiob;
	uint16_t metadata;
	bool readonly;
	uint8_t nguid; /* its first byte */
	uint8_t *data;
};

struct model_queue {
	bool exists;
	uint64_t bus;
	uint32_t entries;
	uint32_t head;
	uint32_t tail;
	uint16_t phase;      /* completion queues */
	bool awake;          /* with shadow doorbells: has not rested since the last ring */
	uint64_t cids[1024]; /* bitmap: in flight; submission queues */
};

struct model_pending {
	bool used;
	bool aborted;
	uint16_t qid;
	unsigned delay; /* steps */
	struct nvme_sqe sqe;
	enum model_fault_kind fault;
	uint16_t status;
};

struct model {
	struct nvme_pci pci;
	struct dma_double *mem;
	/* How it finds memory, in place of @mem, which is NULL then. */
	void *(*reach)(uint64_t bus);
	uint8_t config[256];
	_Alignas(DMA_PAGE_SIZE) uint8_t bar[2 * DMA_PAGE_SIZE];

	/* What it is: set before model_power_on(). */
	uint64_t cap;
	uint32_t version;
	struct nvme_id_ctrl id;
	struct nvme_id_ctrl_nvm id_nvm; /* told if cap has NVME_CAP_CSS_SETS */
	bool cache_on;
	struct nvme_smart_log smart;
	struct nvme_error_log errors[64];
	unsigned io_queues; /* that it allows */
	struct model_namespace ns[4];

	/* How it behaves, at any time. */
	struct model_fault faults[MODEL_FAULTS];
	bool never_ready;     /* ignores CC.EN = 1 */
	bool never_stops;     /* ignores CC.EN = 0 */
	bool fatal_on_enable; /* CSTS.CFS in place of CSTS.RDY */
	bool never_shut_down; /* ignores CC.SHN */
	bool fatal;           /* CSTS.CFS from now until the next reset */
	bool removed;         /* all ones, and nothing happens any more */
	bool master_stuck;    /* the bus master bit cannot be cleared */
	int config_error;     /* of all access to configuration space */
	uint16_t stuck_sq;    /* takes nothing from this submission queue; 0: none */
	unsigned ready_delay; /* steps from EN to RDY, either way */
	bool shuffle;         /* commands take random times */
	bool deaf;            /* misses what shadow doorbells say while it is at rest */

	/* What it has seen. */
	unsigned violations;
	char violation[128];       /* the first */
	unsigned resets;           /* enabled so often */
	unsigned commands[2][256]; /* I/O and admin, by opcode */
	unsigned shutdowns;
	uint32_t largest; /* bytes of a command */
	unsigned dma_after_cut;
	unsigned sgls;        /* commands with one */
	unsigned ranges;      /* of all DSM commands */
	unsigned deallocated; /* Write Zeroes that allowed it */
	bool acre;            /* the host knows retry delays */
	unsigned closed;

	/*
	 * Of configuration space. Who lets the model run on a thread of its own takes it for a step
	 * and for changes.
	 */
	pthread_mutex_t lock;
	/* private */
	uint32_t cc;
	unsigned countdown;
	struct model_queue sqs[MODEL_QUEUES + 1];
	struct model_queue cqs[MODEL_QUEUES + 1];
	struct model_pending pending[MODEL_PENDING];
	uint64_t shadow;
	uint64_t event;
	uint16_t event_cids[MODEL_EVENTS];
	unsigned event_cids_len;
	uint32_t event_results[MODEL_EVENTS];
	unsigned event_results_len;
	uint32_t random;
};

/* One namespace of @blocks blocks, a write cache, DSM, all of it to be changed afterwards. */
void model_init(struct model *m, struct dma_double *mem, uint32_t block_size, uint64_t blocks);
void model_fini(struct model *m);
/* The registers as after power-on. */
void model_power_on(struct model *m);
/* One turn; returns whether something happened. */
bool model_step(struct model *m);
/* Strikes at commands as it says. */
struct model_fault *model_add_fault(struct model *m, const struct model_fault *fault);
/* Reports an asynchronous event with this result. */
void model_send_event(struct model *m, uint32_t result);
/* Commands it has and has not completed. */
unsigned model_inflight(const struct model *m);
bool model_bus_master(const struct model *m);

#endif
