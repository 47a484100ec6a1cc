/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * health: what a drive says of itself, in a plain struct.
 *
 * It is read by several log pages, one after the other.  What a drive does not have, or refuses to
 * tell, is left out: only a drive that is gone makes reading fail.  The text in it is the drive's
 * own, so it is kept to printable characters here.
 */
#ifndef SLUICE_NVME_HEALTH_H
#define SLUICE_NVME_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "nvme/controller.h"

enum { NVME_HEALTH_ERRORS = 16, NVME_FIRMWARE_SLOTS = 7 };

/* Why a drive warns; one bit each. */
enum {
	NVME_WARNING_SPARE = 1 << 0,       /* the spare capacity is below its threshold */
	NVME_WARNING_TEMPERATURE = 1 << 1, /* too hot, or too cold */
	NVME_WARNING_RELIABILITY = 1 << 2, /* many media errors, or an internal one */
	NVME_WARNING_READ_ONLY = 1 << 3,   /* the media takes no writes any more */
	NVME_WARNING_BACKUP = 1 << 4,      /* the volatile memory's backup has failed */
	NVME_WARNING_PERSISTENT = 1 << 5,  /* the persistent memory region is unreliable */
};

/* A command that the drive has failed; the newest comes first. */
struct nvme_health_error {
	uint64_t count; /* of errors up to this one, over the drive's life */
	uint16_t sqid;
	uint16_t cid;
	uint16_t status; /* without the phase bit */
	uint32_t nsid;   /* 0: of none */
	uint64_t lba;
};

struct nvme_health {
	char model[41];
	char serial[21];
	char firmware[9];
	uint16_t vendor;     /* PCI vendor ID */
	uint16_t controller; /* its ID in the subsystem */
	uint32_t version;    /* of the specification: major << 16 | minor << 8; 0: before 1.2 */

	bool has_smart; /* the block below is filled in */
	uint8_t warnings;
	int temperature;         /* degrees Celsius */
	uint8_t spare;           /* percent left */
	uint8_t spare_threshold; /* percent */
	uint8_t used;            /* percent of its life; may exceed 100 */
	/* All of these stop at UINT64_MAX. */
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t reads; /* commands */
	uint64_t writes;
	uint64_t busy_minutes;
	uint64_t power_cycles;
	uint64_t power_on_hours;
	uint64_t unsafe_shutdowns;
	uint64_t media_errors;
	uint64_t error_entries; /* ever written to the error log */

	bool has_firmware_log;
	uint8_t firmware_slot;                       /* in use, from 1 */
	uint8_t firmware_next;                       /* in use after the next reset; 0: no change */
	char firmware_slots[NVME_FIRMWARE_SLOTS][9]; /* empty: nothing is there */

	unsigned nr_errors;
	struct nvme_health_error errors[NVME_HEALTH_ERRORS];
};

/* A reading under way; part of a larger object of the caller's, which zeroes it. */
struct nvme_health_read {
	struct nvme_health health;
	/* Once: 0, or -ENODEV: the controller is dead or being stopped. */
	void (*done)(struct nvme_health_read *r, int rc);
	/* private */
	struct nvme_ctrl *ctrl;
	struct nvme_admin admin;
	unsigned step;
	_Alignas(8) uint32_t page[1024];
};

/*
 * Reads @ctrl's health, which has been live, to @r->health; @r->done may be called before this
 * returns. On the home reactor.
 */
void nvme_health_read(struct nvme_ctrl *ctrl, struct nvme_health_read *r);

/* What bit @bit of warnings is about, in words; NULL: reserved. */
const char *nvme_health_warning(unsigned bit);

#endif
