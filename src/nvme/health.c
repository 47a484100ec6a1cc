/* SPDX-License-Identifier: BSD-2-Clause */
#include "nvme/health.h"

#include <errno.h>
#include <string.h>

enum step {
	STEP_SMART,
	STEP_FIRMWARE,
	STEP_ERRORS,
	STEP_OVER,
};

/* Text that a drive pads with blanks, or with anything else. */
static void copy_text(char *out, const char *text, size_t len)
{
	while (len && (text[len - 1] == ' ' || !text[len - 1]))
		len--;
	for (size_t i = 0; i < len; i++)
		out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	out[len] = '\0';
}

/* A counter of 128 bits. */
static uint64_t counter(const uint8_t *bytes)
{
	uint64_t low, high;

	memcpy(&low, bytes, sizeof(low));
	memcpy(&high, bytes + sizeof(low), sizeof(high));
	return high ? UINT64_MAX : low;
}

/* Data is counted in thousands of 512 bytes. */
static uint64_t data_units(const uint8_t *bytes)
{
	uint64_t n = counter(bytes), out;

	return __builtin_mul_overflow(n, (uint64_t)512000, &out) ? UINT64_MAX : out;
}

static void decode_identity(struct nvme_health *h, const struct nvme_id_ctrl *id)
{
	copy_text(h->model, id->mn, sizeof(id->mn));
	copy_text(h->serial, id->sn, sizeof(id->sn));
	copy_text(h->firmware, id->fr, sizeof(id->fr));
	h->vendor = id->vid;
	h->controller = id->cntlid;
	h->version = id->ver;
}

static void decode_smart(struct nvme_health *h, const struct nvme_smart_log *log)
{
	h->has_smart = true;
	h->warnings = log->critical_warning;
	h->temperature = (log->temperature[0] | log->temperature[1] << 8) - 273;
	h->spare = log->available_spare;
	h->spare_threshold = log->spare_threshold;
	h->used = log->percentage_used;
	h->bytes_read = data_units(log->data_units_read);
	h->bytes_written = data_units(log->data_units_written);
	h->reads = counter(log->reads);
	h->writes = counter(log->writes);
	h->busy_minutes = counter(log->busy_minutes);
	h->power_cycles = counter(log->power_cycles);
	h->power_on_hours = counter(log->power_on_hours);
	h->unsafe_shutdowns = counter(log->unsafe_shutdowns);
	h->media_errors = counter(log->media_errors);
	h->error_entries = counter(log->error_log_entries);
}

static void decode_firmware(struct nvme_health *h, const struct nvme_firmware_log *log)
{
	h->has_firmware_log = true;
	h->firmware_slot = log->afi & 7;
	h->firmware_next = log->afi >> 4 & 7;
	for (unsigned i = 0; i < NVME_FIRMWARE_SLOTS; i++)
		copy_text(h->firmware_slots[i], log->slot[i], sizeof(log->slot[i]));
}

static void decode_errors(struct nvme_health *h, const struct nvme_error_log *log, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!log[i].count)
			continue;
		h->errors[h->nr_errors++] = (struct nvme_health_error){
			.count = log[i].count,
			.sqid = log[i].sqid,
			.cid = log[i].cid,
			.status = log[i].status >> 1,
			.nsid = log[i].nsid,
			.lba = log[i].lba,
		};
	}
}

/* Entries of the error log that the drive has, as far as there is room for them. */
static unsigned errors_wanted(const struct nvme_health_read *r)
{
	unsigned n = nvme_ctrl_identity(r->ctrl)->elpe + 1u;

	return n < NVME_HEALTH_ERRORS ? n : NVME_HEALTH_ERRORS;
}

static void page_read(struct nvme_admin *a, int rc);

static void next(struct nvme_health_read *r)
{
	switch ((enum step)r->step) {
	case STEP_SMART:
		nvme_admin_log_page(&r->admin, NVME_LOG_SMART, r->page,
				    sizeof(struct nvme_smart_log));
		break;
	case STEP_FIRMWARE:
		nvme_admin_log_page(&r->admin, NVME_LOG_FIRMWARE, r->page,
				    sizeof(struct nvme_firmware_log));
		break;
	case STEP_ERRORS:
		nvme_admin_log_page(&r->admin, NVME_LOG_ERRORS, r->page,
				    errors_wanted(r) * (uint32_t)sizeof(struct nvme_error_log));
		break;
	case STEP_OVER:
		r->done(r, 0);
		return;
	}
	r->admin.done = page_read;
	nvme_ctrl_admin(r->ctrl, &r->admin);
}

static void page_read(struct nvme_admin *a, int rc)
{
	struct nvme_health_read *r = container_of(a, struct nvme_health_read, admin);
	const void *page = r->page;

	if (rc == -ENODEV) {
		r->done(r, rc);
		return;
	}
	if (!rc) {
		if (r->step == STEP_SMART)
			decode_smart(&r->health, page);
		else if (r->step == STEP_FIRMWARE)
			decode_firmware(&r->health, page);
		else
			decode_errors(&r->health, page, errors_wanted(r));
	}
	r->step++;
	next(r);
}

void nvme_health_read(struct nvme_ctrl *ctrl, struct nvme_health_read *r)
{
	r->ctrl = ctrl;
	r->step = STEP_SMART;
	r->health = (struct nvme_health){0};
	decode_identity(&r->health, nvme_ctrl_identity(ctrl));
	next(r);
}

const char *nvme_health_warning(unsigned bit)
{
	static const char *const texts[] = {
		"the spare capacity is below its threshold",
		"the temperature is out of its range",
		"the reliability is degraded",
		"the media is read-only",
		"the backup of the volatile memory has failed",
		"the persistent memory region is unreliable",
	};

	return bit < sizeof(texts) / sizeof(texts[0]) ? texts[bit] : NULL;
}
