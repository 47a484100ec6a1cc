/* SPDX-License-Identifier: BSD-2-Clause */
/* A drive's health: decoded right, and read to an end whatever the drive does. */
#include <errno.h>
#include <string.h>

#include "nvme/health.h"
#include "stage.h"

static struct stage *s;

struct reading {
	struct nvme_health_read read;
	unsigned over;
	int rc;
};

static void over(struct nvme_health_read *r, int rc)
{
	struct reading *reading = container_of(r, struct reading, read);

	reading->over++;
	reading->rc = rc;
}

static int setup(void **state)
{
	s = stage_create(512);
	memcpy(s->model.id.mn, "A \x01 drive                     ", 30);
	memset(s->model.id.sn, 'S', 20);
	memcpy(s->model.id.fr, "1.0     ", 8);
	s->model.id.vid = 0x1b36;
	s->model.id.cntlid = 3;
	s->model.id.ver = NVME_VS(1, 4);
	s->model.id.elpe = 63;
	stage_start(s);
	return 0;
}

static int teardown(void **state)
{
	stage_destroy(s);
	return 0;
}

static void set_counter(uint8_t *bytes, uint64_t low, uint64_t high)
{
	memcpy(bytes, &low, 8);
	memcpy(bytes + 8, &high, 8);
}

static void test_all(void **state)
{
	static struct reading r = {.read.done = over};
	struct nvme_smart_log *smart = &s->model.smart;
	const struct nvme_health *h = &r.read.health;

	smart->critical_warning = 5;
	smart->temperature[0] = 350 & 0xff;
	smart->temperature[1] = 350 >> 8;
	smart->available_spare = 98;
	smart->spare_threshold = 10;
	smart->percentage_used = 120;
	set_counter(smart->data_units_read, 3, 0);
	set_counter(smart->data_units_written, UINT64_MAX / 1000, 0);
	set_counter(smart->reads, 4, 0);
	set_counter(smart->writes, 5, 1);
	set_counter(smart->busy_minutes, 6, 0);
	set_counter(smart->power_cycles, 7, 0);
	set_counter(smart->power_on_hours, 8, 0);
	set_counter(smart->unsafe_shutdowns, 9, 0);
	set_counter(smart->media_errors, 10, 0);
	set_counter(smart->error_log_entries, 11, 0);
	for (unsigned i = 0; i < 20; i++)
		s->model.errors[i] = (struct nvme_error_log){.count = 30 - i,
							     .sqid = 1,
							     .cid = 2,
							     .status = 0x281 << 1 | 1,
							     .lba = 77 + i,
							     .nsid = 1};
	nvme_health_read(s->ctrl, &r.read);
	stage_until(s, NSEC_PER_SEC, r.over);
	assert_int_equal(r.rc, 0);
	assert_string_equal(h->model, "A ? drive");
	assert_string_equal(h->serial, "SSSSSSSSSSSSSSSSSSSS");
	assert_string_equal(h->firmware, "1.0");
	assert_int_equal(h->vendor, 0x1b36);
	assert_int_equal(h->controller, 3);
	assert_int_equal(h->version, NVME_VS(1, 4));
	assert_true(h->has_smart);
	assert_int_equal(h->warnings, NVME_WARNING_SPARE | NVME_WARNING_RELIABILITY);
	assert_int_equal(h->temperature, 77);
	assert_int_equal(h->spare, 98);
	assert_int_equal(h->spare_threshold, 10);
	assert_int_equal(h->used, 120);
	assert_int_equal(h->bytes_read, 1536000);
	assert_int_equal(h->bytes_written, UINT64_MAX);
	assert_int_equal(h->reads, 4);
	assert_int_equal(h->writes, UINT64_MAX);
	assert_int_equal(h->busy_minutes, 6);
	assert_int_equal(h->power_cycles, 7);
	assert_int_equal(h->power_on_hours, 8);
	assert_int_equal(h->unsafe_shutdowns, 9);
	assert_int_equal(h->media_errors, 10);
	assert_int_equal(h->error_entries, 11);
	assert_true(h->has_firmware_log);
	assert_int_equal(h->firmware_slot, 1);
	assert_int_equal(h->firmware_next, 0);
	assert_string_equal(h->firmware_slots[0], "model1.0");
	assert_string_equal(h->firmware_slots[1], "");
	assert_int_equal(h->nr_errors, NVME_HEALTH_ERRORS);
	assert_int_equal(h->errors[0].count, 30);
	assert_int_equal(h->errors[15].count, 15);
	assert_int_equal(h->errors[0].status, 0x281);
	assert_int_equal(h->errors[0].sqid, 1);
	assert_int_equal(h->errors[0].cid, 2);
	assert_int_equal(h->errors[1].lba, 78);
	assert_int_equal(h->errors[0].nsid, 1);
	assert_non_null(strstr(nvme_health_warning(0), "spare"));
	assert_null(nvme_health_warning(6));
	/* A second reading does not add to the first; this drive has a short log. */
	s->model.id.elpe = 3;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 5 * NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES]);
	s->model.errors[2].count = 0;
	r.over = 0;
	nvme_health_read(s->ctrl, &r.read);
	stage_until(s, NSEC_PER_SEC, r.over);
	assert_int_equal(h->nr_errors, 3);
	assert_int_equal(h->errors[2].count, 27);
}

static void refuse(unsigned skip, unsigned times)
{
	model_add_fault(&s->model,
			&(struct model_fault){.kind = FAULT_STATUS,
					      .admin = true,
					      .opcode = NVME_ADMIN_GET_LOG_PAGE,
					      .skip = skip,
					      .times = times,
					      .status = NVME_STATUS_DNR | NVME_SC_INVALID_FIELD});
}

/* What the drive does not tell is left out. */
static void test_refused(void **state)
{
	static struct reading r = {.read.done = over};

	refuse(0, 2);
	nvme_health_read(s->ctrl, &r.read);
	stage_until(s, NSEC_PER_SEC, r.over);
	assert_int_equal(r.rc, 0);
	assert_false(r.read.health.has_smart);
	assert_false(r.read.health.has_firmware_log);
	assert_int_equal(r.read.health.nr_errors, 1);
	r = (struct reading){.read.done = over};
	refuse(2, 1);
	nvme_health_read(s->ctrl, &r.read);
	stage_until(s, NSEC_PER_SEC, r.over);
	assert_true(r.read.health.has_smart);
	assert_true(r.read.health.has_firmware_log);
	assert_int_equal(r.read.health.nr_errors, 0);
	assert_string_equal(r.read.health.firmware, "1.0");
}

static void test_removed(void **state)
{
	static struct reading r = {.read.done = over};

	nvme_health_read(s->ctrl, &r.read);
	s->model.removed = true;
	stage_until(s, 5 * NSEC_PER_SEC, r.over);
	assert_int_equal(r.rc, -ENODEV);
	stage_until(s, 5 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	r = (struct reading){.read.done = over};
	nvme_health_read(s->ctrl, &r.read);
	assert_int_equal(r.over, 1);
	assert_int_equal(r.rc, -ENODEV);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all),
		TEST(test_refused),
		TEST(test_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
