/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The NVM Express interface: registers, commands, completions and data structures, as far as this
 * driver uses them.  Names are the specification's; section numbers are those of the NVM Express
 * Base Specification, revision 2.0, and, marked NVM, of the NVM Command Set Specification 1.0.
 *
 * All of it is little-endian, as are the machines that this driver runs on.
 */
#ifndef SLUICE_NVME_SPEC_H
#define SLUICE_NVME_SPEC_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "NVM Express is little-endian");

/* 3.1.3, controller properties: offsets in BAR0. */
enum {
	NVME_REG_CAP = 0x00, /* 64 bits */
	NVME_REG_VS = 0x08,
	NVME_REG_INTMS = 0x0c,
	NVME_REG_CC = 0x14,
	NVME_REG_CSTS = 0x1c,
	NVME_REG_AQA = 0x24,
	NVME_REG_ASQ = 0x28, /* 64 bits */
	NVME_REG_ACQ = 0x30, /* 64 bits */
	NVME_REG_CRTO = 0x68,
	NVME_REG_DOORBELLS = 0x1000,
};

/* 3.1.3.1, CAP. */
#define NVME_CAP_MQES(cap)   ((uint32_t)((cap)&0xffff))         /* entries of a queue, less one */
#define NVME_CAP_CQR(cap)    (((cap) >> 16) & 1)                /* queues must be contiguous */
#define NVME_CAP_TO(cap)     ((uint32_t)(((cap) >> 24) & 0xff)) /* in 500 ms */
#define NVME_CAP_DSTRD(cap)  ((uint32_t)(((cap) >> 32) & 0xf))  /* doorbell stride, 4 << it bytes */
#define NVME_CAP_CSS_NVM     (1ULL << 37)
#define NVME_CAP_CSS_SETS    (1ULL << 43)                      /* knows of command sets */
#define NVME_CAP_MPSMIN(cap) ((uint32_t)(((cap) >> 48) & 0xf)) /* page size, 4096 << it bytes */
#define NVME_CAP_CRWMS       (1ULL << 59)                      /* CRTO says how long it takes */

/* 3.1.3.5, CC. */
#define NVME_CC_EN           (1u << 0)
#define NVME_CC_SHN_NORMAL   (1u << 14)
#define NVME_CC_SHN_MASK     (3u << 14)
#define NVME_CC_IOSQES(size) ((uint32_t)(size) << 16) /* log2 */
#define NVME_CC_IOCQES(size) ((uint32_t)(size) << 20)

/* 3.1.3.6, CSTS. */
#define NVME_CSTS_RDY           (1u << 0)
#define NVME_CSTS_CFS           (1u << 1)
#define NVME_CSTS_SHST_MASK     (3u << 2)
#define NVME_CSTS_SHST_COMPLETE (2u << 2)

#define NVME_VS(major, minor) ((uint32_t)(major) << 16 | (uint32_t)(minor) << 8)

/* 5 and 7, opcodes of the admin command set. */
enum {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_DBBUF_CONFIG = 0x7c,
};

/* NVM 3, opcodes of the NVM command set; Flush is the base specification's. */
enum {
	NVME_CMD_FLUSH = 0x00,
	NVME_CMD_WRITE = 0x01,
	NVME_CMD_READ = 0x02,
	NVME_CMD_WRITE_ZEROES = 0x08,
	NVME_CMD_DSM = 0x09,
};

enum {
	NVME_CNS_NAMESPACE = 0x00,
	NVME_CNS_CONTROLLER = 0x01,
	NVME_CNS_ACTIVE_NAMESPACES = 0x02,
	NVME_CNS_CONTROLLER_CSI = 0x06, /* of a command set: the NVM command set's number is 0 */

	NVME_FEATURE_WRITE_CACHE = 0x06,
	NVME_FEATURE_NUM_QUEUES = 0x07,
	NVME_FEATURE_ASYNC_EVENTS = 0x0b,
	NVME_FEATURE_HOST_BEHAVIOR = 0x16,

	NVME_LOG_ERRORS = 0x01,
	NVME_LOG_SMART = 0x02,
	NVME_LOG_FIRMWARE = 0x03,
	NVME_LOG_CHANGED_NAMESPACES = 0x04,

	NVME_DSM_DEALLOCATE = 1 << 2, /* CDW11 */
	NVME_DSM_RANGES_MAX = 256,
	NVME_ZEROES_DEALLOCATE = 1 << 25, /* CDW12 */
	NVME_BLOCKS_MAX = 1 << 16,        /* of a command that counts them in CDW12 */
	NVME_QUEUE_CONTIGUOUS = 1 << 0,   /* CDW11 of Create I/O Submission and Completion Queue */

	/* 5.2.1, asynchronous events: CQE DW0 bits 2:0, and 15:8 for a notice. */
	NVME_EVENT_TYPE_NOTICE = 2,
	NVME_EVENT_NOTICE_NAMESPACES = 0,

	NVME_NSID_ALL = -1,
};

/* 3.3.3.2, status: the completion's field without its phase bit. */
#define NVME_STATUS_CODE(status) ((status)&0x7ff)       /* type and code */
#define NVME_STATUS_CRD(status)  (((status) >> 11) & 3) /* which retry delay; 0: none */
#define NVME_STATUS_DNR          (1u << 14)
enum {
	NVME_SC_SUCCESS = 0x000,
	NVME_SC_INVALID_OPCODE = 0x001,
	NVME_SC_INVALID_FIELD = 0x002,
	NVME_SC_DATA_TRANSFER_ERROR = 0x004,
	NVME_SC_INTERNAL = 0x006,
	NVME_SC_ABORT_REQUESTED = 0x007,
	NVME_SC_SQ_DELETED = 0x008,
	NVME_SC_INVALID_NAMESPACE = 0x00b,
	NVME_SC_LBA_RANGE = 0x080,
	NVME_SC_CAPACITY_EXCEEDED = 0x081,
	NVME_SC_NAMESPACE_NOT_READY = 0x082,
	NVME_SC_INVALID_CQ = 0x100,
	NVME_SC_INVALID_QID = 0x101,
	NVME_SC_INVALID_QSIZE = 0x102,
	NVME_SC_READ_ONLY = 0x182,
	NVME_SC_WRITE_FAULT = 0x280,
	NVME_SC_UNRECOVERED_READ = 0x281,
};

/* 4.1.2.1, an SGL's descriptor. */
struct nvme_sgl {
	uint64_t bus;
	uint32_t len;
	uint8_t reserved12[3];
	uint8_t type;
};
static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");
enum {
	NVME_SGL_DATA = 0x00,         /* a data block */
	NVME_SGL_LAST_SEGMENT = 0x30, /* where the other descriptors are, all of them */
};

/* 3.3.3.1, submission queue entry. */
enum { NVME_SQE_SGL = 1 << 6 };
struct nvme_sqe {
	uint8_t opcode;
	uint8_t flags; /* not fused; by PRPs (0) or by an SGL (NVME_SQE_SGL) */
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2;
	uint32_t cdw3;
	uint64_t mptr;
	union {
		struct {
			uint64_t prp1;
			uint64_t prp2;
		};
		struct nvme_sgl sgl;
	};
	uint32_t cdw10;
	uint32_t cdw11;
	uint32_t cdw12;
	uint32_t cdw13;
	uint32_t cdw14;
	uint32_t cdw15;
};
static_assert(sizeof(struct nvme_sqe) == 64, "submission queue entry");
static_assert(offsetof(struct nvme_sqe, prp1) == 24, "submission queue entry");
static_assert(offsetof(struct nvme_sqe, cdw10) == 40, "submission queue entry");
#define NVME_SQE_SHIFT 6

/* 3.3.3.2, completion queue entry. */
struct nvme_cqe {
	uint32_t dw0;
	uint32_t dw1;
	uint16_t sqhd;
	uint16_t sqid;
	uint16_t cid;
	uint16_t status; /* bit 0: phase */
};
static_assert(sizeof(struct nvme_cqe) == 16, "completion queue entry");
static_assert(offsetof(struct nvme_cqe, status) == 14, "completion queue entry");
#define NVME_CQE_SHIFT 4

/* NVM 3.2.3, a range of Dataset Management. */
struct nvme_dsm_range {
	uint32_t attributes;
	uint32_t blocks;
	uint64_t lba;
};
static_assert(sizeof(struct nvme_dsm_range) == 16, "range");

/* 5.17.2.1, Identify Controller. */
struct nvme_id_ctrl {
	uint16_t vid;
	uint16_t ssvid;
	char sn[20];
	char mn[40];
	char fr[8];
	uint8_t rab;
	uint8_t ieee[3];
	uint8_t cmic;
	uint8_t mdts; /* 2 ^ it pages a transfer; 0: no limit */
	uint16_t cntlid;
	uint32_t ver;
	uint32_t rtd3r;
	uint32_t rtd3e; /* microseconds that a shutdown may take; 0: not told */
	uint32_t oaes;  /* optional asynchronous events */
	uint32_t ctratt;
	uint8_t reserved100[28];
	uint16_t crdt[3]; /* retry delays, in 100 ms; 0: none */
	uint8_t reserved134[122];
	uint16_t oacs; /* optional admin commands */
	uint8_t acl;   /* Aborts at a time, less one */
	uint8_t aerl;  /* Asynchronous Event Requests at a time, less one */
	uint8_t frmw;
	uint8_t lpa;
	uint8_t elpe; /* entries of the error log, less one */
	uint8_t npss;
	uint8_t reserved264[248];
	uint8_t sqes; /* bits 3:0: log2 of the smallest entry */
	uint8_t cqes;
	uint16_t maxcmd;
	uint32_t nn; /* namespaces */
	uint16_t oncs;
	uint16_t fuses;
	uint8_t fna;
	uint8_t vwc; /* bit 0: there is a volatile write cache */
	uint8_t reserved526[10];
	uint32_t sgls; /* bits 1:0: whether data may be described by SGLs */
	uint8_t reserved540[3556];
};
static_assert(sizeof(struct nvme_id_ctrl) == 4096, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, mdts) == 77, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, oaes) == 92, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, crdt) == 128, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, oacs) == 256, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, elpe) == 262, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, sqes) == 512, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, nn) == 516, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, oncs) == 520, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, vwc) == 525, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrl, sgls) == 536, "Identify Controller");

#define NVME_OAES_NAMESPACES (1u << 8)
#define NVME_OACS_DBBUF      (1u << 8)
#define NVME_ONCS_DSM        (1u << 2)
#define NVME_ONCS_ZEROES     (1u << 3)
#define NVME_VWC_PRESENT     (1u << 0)
/* 1: bytes may lie anywhere; 2: in dwords. All that we describe is made of dwords. */
#define NVME_SGLS(sgls) ((sgls)&3)

/* NVM 4.1.5.4, Identify Controller of the NVM command set: limits of some commands. */
struct nvme_id_ctrl_nvm {
	uint8_t vsl;
	uint8_t wzsl; /* 2 ^ it pages a Write Zeroes; 0: no limit */
	uint8_t wusl;
	uint8_t dmrl;   /* ranges of a Dataset Management; 0: no limit */
	uint32_t dmrsl; /* blocks of one of them */
	uint64_t dmsl;  /* blocks of all */
	uint8_t reserved16[4080];
};
static_assert(sizeof(struct nvme_id_ctrl_nvm) == 4096, "Identify Controller, NVM");
static_assert(offsetof(struct nvme_id_ctrl_nvm, dmsl) == 8, "Identify Controller, NVM");

/* 5.27.1.18, Host Behavior Support. */
struct nvme_host_behavior {
	uint8_t acre; /* 1: the host knows what a retry delay is */
	uint8_t reserved1[511];
};
static_assert(sizeof(struct nvme_host_behavior) == 512, "Host Behavior Support");

struct nvme_lbaf {
	uint16_t ms; /* metadata bytes */
	uint8_t lbads;
	uint8_t rp;
};

/* NVM 4.1.5.1, Identify Namespace. */
struct nvme_id_ns {
	uint64_t nsze; /* blocks */
	uint64_t ncap;
	uint64_t nuse;
	uint8_t nsfeat;
	uint8_t nlbaf;
	uint8_t flbas; /* bits 3:0: the format in use */
	uint8_t mc;
	uint8_t dpc;
	uint8_t dps; /* bits 2:0: protection information; 0: none */
	uint8_t nmic;
	uint8_t rescap;
	uint8_t fpi;
	uint8_t dlfeat;
	uint16_t nawun;
	uint16_t nawupf;
	uint16_t nacwu;
	uint16_t nabsn;
	uint16_t nabo;
	uint16_t nabspf;
	uint16_t noiob; /* blocks between boundaries that I/O had better not cross; 0: none */
	uint8_t nvmcap[16];
	uint8_t reserved64[35];
	uint8_t nsattr; /* bit 0: write protected */
	uint8_t reserved100[4];
	uint8_t nguid[16];
	uint8_t eui64[8];
	struct nvme_lbaf lbaf[64];
	uint8_t reserved384[3712];
};
static_assert(sizeof(struct nvme_id_ns) == 4096, "Identify Namespace");
static_assert(offsetof(struct nvme_id_ns, noiob) == 46, "Identify Namespace");
static_assert(offsetof(struct nvme_id_ns, nsattr) == 99, "Identify Namespace");
static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "Identify Namespace");
static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "Identify Namespace");

/* 5.16.1.3, SMART / Health Information. */
struct nvme_smart_log {
	uint8_t critical_warning;
	uint8_t temperature[2]; /* Kelvin */
	uint8_t available_spare;
	uint8_t spare_threshold;
	uint8_t percentage_used;
	uint8_t reserved6[26];
	uint8_t data_units_read[16]; /* of 512000 bytes */
	uint8_t data_units_written[16];
	uint8_t reads[16];
	uint8_t writes[16];
	uint8_t busy_minutes[16];
	uint8_t power_cycles[16];
	uint8_t power_on_hours[16];
	uint8_t unsafe_shutdowns[16];
	uint8_t media_errors[16];
	uint8_t error_log_entries[16];
	uint8_t reserved192[320];
};
static_assert(sizeof(struct nvme_smart_log) == 512, "SMART log");
static_assert(offsetof(struct nvme_smart_log, unsafe_shutdowns) == 144, "SMART log");

/* 5.16.1.2, an entry of the Error Information log. */
struct nvme_error_log {
	uint64_t count; /* 0: no entry */
	uint16_t sqid;
	uint16_t cid;
	uint16_t status; /* bit 0: phase */
	uint16_t location;
	uint64_t lba;
	uint32_t nsid;
	uint8_t vendor;
	uint8_t reserved29[35];
};
static_assert(sizeof(struct nvme_error_log) == 64, "error log");

/* 5.16.1.4, Firmware Slot Information. */
struct nvme_firmware_log {
	uint8_t afi; /* bits 2:0: the slot in use, 6:4: the one after the next reset */
	uint8_t reserved1[7];
	char slot[7][8];
	uint8_t reserved64[448];
};
static_assert(sizeof(struct nvme_firmware_log) == 512, "firmware log");

/* PCI: the parts of configuration space that matter here. */
enum {
	NVME_PCI_COMMAND = 0x04,
	NVME_PCI_COMMAND_MEMORY = 1 << 1,
	NVME_PCI_COMMAND_MASTER = 1 << 2,
	NVME_PCI_COMMAND_INTX_OFF = 1 << 10,
	NVME_PCI_CLASS = 0x08, /* 32 bits: revision, then the class code */
	NVME_PCI_CLASS_CODE = 0x010802,
};

#endif
