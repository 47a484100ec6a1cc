/* SPDX-License-Identifier: BSD-2-Clause */
/* A controller's life: how it is brought up, what it is asked, how it ends, and all that may go
 * wrong on the way. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "stage.h"

static struct stage *s;

static int setup(void **state)
{
	s = stage_create(512);
	return 0;
}

static int teardown(void **state)
{
	stage_destroy(s);
	return 0;
}

static void set_register(unsigned offset, uint32_t value)
{
	memcpy(s->model.bar + offset, &value, sizeof(value));
}

static void test_life(void **state)
{
	const struct nvme_namespace *list;

	s->model.ns[2] = (struct model_namespace){.block_size = 4096, .blocks = 64, .noiob = 8};
	model_power_on(&s->model);
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(nvme_ctrl_state(s->ctrl), NVME_LIVE);
	assert_true(model_bus_master(&s->model));
	assert_true(s->model.config[5] & NVME_PCI_COMMAND_INTX_OFF >> 8);
	assert_int_equal(nvme_ctrl_limits(s->ctrl)->max_transfer, 32 * 4096);
	assert_int_equal(nvme_ctrl_namespaces(s->ctrl, &list), 2);
	assert_int_equal(list[0].nsid, 1);
	assert_int_equal(list[0].blocks, 1024);
	assert_int_equal(list[0].block_size, 512);
	assert_int_equal(list[1].nsid, 3);
	assert_int_equal(list[1].block_size, 4096);
	assert_int_equal(list[1].stripe, 8 * 4096);
	assert_ptr_equal(nvme_ctrl_namespace(s->ctrl, 3), &list[1]);
	assert_null(nvme_ctrl_namespace(s->ctrl, 2));
	/* One for each reactor and home. */
	assert_int_equal(s->model.commands[1][NVME_ADMIN_CREATE_SQ], 3);
	stage_wait(s, 10 * NSEC_PER_SEC);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ASYNC_EVENT], 2);
	stage_stop(s);
	assert_int_equal(s->stopped, 1);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_DELETE_SQ], 3);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_DELETE_CQ], 3);
	assert_int_equal(s->model.shutdowns, 1);
	assert_false(model_bus_master(&s->model));
	assert_int_equal(s->model.bar[NVME_REG_CC] & NVME_CC_EN, 0);
	assert_int_equal(s->started, 1);
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 0);
}

/* A controller that somebody has left enabled, ready or just on its way there. */
static void test_left_enabled(void **state)
{
	set_register(NVME_REG_CC, NVME_CC_EN | 6 << 16 | 4 << 20);
	set_register(NVME_REG_AQA, 1 << 16 | 1);
	s->model.ready_delay = 100;
	for (int i = 0; i < 2; i++)
		model_step(&s->model);
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(s->model.resets, 2);
}

static void test_few_queues(void **state)
{
	struct nvme_queue *q;

	s->model.io_queues = 1;
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[1], &q), -EBUSY);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	assert_int_equal(q->qps[0].id, 1);
	nvme_queue_close(q);
	nvme_queue_close(q);
}

/* Small queues, wide doorbells, no list of namespaces. */
static void test_old_controller(void **state)
{
	const struct nvme_namespace *list;
	struct nvme_queue *q;

	s->model.cap = (s->model.cap & ~0xffffULL) | 15 | 1ULL << 32;
	s->model.version = NVME_VS(1, 0);
	s->model.ns[3] = (struct model_namespace){.block_size = 512, .blocks = 8};
	s->model.id.acl = 0;
	s->model.id.aerl = 0;
	s->model.id.mdts = 0;
	model_power_on(&s->model);
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(nvme_ctrl_namespaces(s->ctrl, &list), 2);
	assert_int_equal(list[1].nsid, 4);
	assert_int_equal(nvme_ctrl_limits(s->ctrl)->max_transfer, NVME_PRP_MAX);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	assert_int_equal(q->qps[0].entries, 16);
	nvme_queue_close(q);
}

static void expect_failure(int rc, const char *text)
{
	stage_start(s);
	assert_int_equal(s->rc, rc);
	if (!strstr(s->err.text, text))
		fail_msg("\"%s\" does not say \"%s\"", s->err.text, text);
	assert_int_equal(nvme_ctrl_state(s->ctrl), NVME_DEAD);
	assert_true(s->model.removed || !model_bus_master(&s->model));
	stage_wait(s, NSEC_PER_SEC);
	assert_int_equal(s->started, 1);
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 0);
}

static void test_never_ready(void **state)
{
	uint64_t start = clock_now_ns();

	s->model.never_ready = true;
	expect_failure(-ETIMEDOUT, "does not get ready");
	/* It was given the time that it asks for. */
	assert_in_range(clock_now_ns() - start, 3 * NSEC_PER_SEC, 3200 * NSEC_PER_MSEC);
}

static void test_never_stops(void **state)
{
	set_register(NVME_REG_CC, NVME_CC_EN);
	set_register(NVME_REG_CSTS, NVME_CSTS_RDY);
	s->model.cc = NVME_CC_EN;
	s->model.never_stops = true;
	expect_failure(-ETIMEDOUT, "does not stop");
}

static void test_fatal_on_enable(void **state)
{
	s->model.fatal_on_enable = true;
	expect_failure(-EIO, "fatal error");
}

static void test_admin_silent(void **state)
{
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_LOSE,
							 .admin = true,
							 .opcode = NVME_ADMIN_SET_FEATURES,
							 .times = 1});
	expect_failure(-ETIMEDOUT, "Set Features (Number of Queues) is not answered");
}

static void test_admin_refused(void **state)
{
	static const struct {
		uint8_t opcode;
		const char *text;
	} steps[] = {
		{NVME_ADMIN_IDENTIFY, "Identify Controller failed with status 0x4006"},
		{NVME_ADMIN_SET_FEATURES, "Set Features (Number of Queues) failed"},
		{NVME_ADMIN_CREATE_CQ, "Create I/O Completion Queue failed"},
		{NVME_ADMIN_CREATE_SQ, "Create I/O Submission Queue failed"},
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (i) {
			teardown(state);
			setup(state);
		}
		model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_STATUS,
								 .admin = true,
								 .opcode = steps[i].opcode,
								 .times = 1,
								 .status = NVME_STATUS_DNR |
									   NVME_SC_INTERNAL});
		expect_failure(-EIO, steps[i].text);
	}
}

/* What a controller may do without. */
static void test_refusals_taken(void **state)
{
	const struct nvme_namespace *list;

	s->model.id.oacs = NVME_OACS_DBBUF;
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_STATUS,
							 .admin = true,
							 .opcode = NVME_ADMIN_DBBUF_CONFIG,
							 .times = 1,
							 .status = NVME_SC_INTERNAL});
	/* Asynchronous events, after the number of queues. */
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_STATUS,
							 .admin = true,
							 .opcode = NVME_ADMIN_SET_FEATURES,
							 .skip = 1,
							 .times = 1,
							 .status = NVME_SC_INTERNAL});
	/* The namespace, after the controller and the list. */
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_STATUS,
							 .admin = true,
							 .opcode = NVME_ADMIN_IDENTIFY,
							 .skip = 2,
							 .times = 1,
							 .status = NVME_SC_INTERNAL});
	stage_start(s);
	assert_int_equal(s->rc, 0);
	assert_int_equal(nvme_ctrl_namespaces(s->ctrl, &list), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(s->model.faults[i].hits, 1);
}

static void test_removed_at_start(void **state)
{
	struct nvme_ctrl *c;

	s->model.ready_delay = 1000;
	assert_int_equal(nvme_ctrl_create(&s->model.pci, &s->mem.dma, s->home, &s->opts,
					  &(const struct nvme_ctrl_ops){0}, s, &c, &s->err),
			 0);
	nvme_ctrl_destroy(c);
	s->model.removed = true;
	model_step(&s->model);
	assert_int_equal(nvme_ctrl_create(&s->model.pci, &s->mem.dma, s->home, &s->opts,
					  &(const struct nvme_ctrl_ops){0}, s, &c, &s->err),
			 -ENODEV);
	assert_non_null(strstr(s->err.text, "class ffffff"));
}

/* At any point of bringing up: each of the first steps in which something happens. */
static void test_removed_while_starting(void **state)
{
	for (unsigned after = 0; after < 1200; after += 37) {
		struct stage *t = s;

		t->started = 0;
		t->stopped = 0;
		t->model.removed = false;
		model_power_on(&t->model);
		t->model.cc = 0;
		t->model.countdown = 0;
		t->opts.admin_timeout_ns = NSEC_PER_SEC;
		stage_start_only(t);
		for (unsigned i = 0; i < after && !t->started; i++)
			stage_step(t);
		t->model.removed = true;
		model_step(&t->model);
		stage_until(t, 10 * NSEC_PER_SEC,
			    t->started && nvme_ctrl_state(t->ctrl) == NVME_DEAD);
		if (t->rc)
			assert_int_equal(t->rc, -ENODEV);
		stage_stop(t);
		assert_int_equal(t->started, 1);
	}
}

/* A drive whose registers answer, but whom the system knows no more: nobody else may find it at
 * work. */
static void test_removed_by_the_system(void **state)
{
	stage_start(s);
	assert_true(s->model.cc & NVME_CC_EN);
	s->model.config_error = -ENODEV;
	stage_until(s, 2 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	assert_false(s->model.cc & NVME_CC_EN);
	assert_int_equal(s->model.resets, 1);
}

/* The same, and it does not stop when it is told: what it may still write to stays its own. */
static void test_removed_at_work(void **state)
{
	stage_start(s);
	s->model.never_stops = true;
	s->model.config_error = -ENODEV;
	stage_wait(s, 60 * NSEC_PER_SEC);
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 0);
	s->model.never_stops = false;
	model_power_on(&s->model);
	stage_until(s, 2 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
}

/* Nobody has asked it to: what was under way is lost, but not the drive. */
static void test_stopped_by_itself(void **state)
{
	stage_start(s);
	model_power_on(&s->model);
	s->model.cc = 0;
	stage_until(s, 2 * NSEC_PER_SEC, s->model.resets == 2);
	stage_until(s, NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
}

static void test_not_ours(void **state)
{
	struct nvme_ctrl *c;
	static const struct nvme_ctrl_ops none;
	uint64_t cap = s->model.cap;

#define CREATE() \
	nvme_ctrl_create(&s->model.pci, &s->mem.dma, s->home, &s->opts, &none, s, &c, &s->err)
	s->model.config[NVME_PCI_CLASS + 1] = 1;
	assert_int_equal(CREATE(), -ENODEV);
	assert_non_null(strstr(s->err.text, "class 010801"));
	s->model.config[NVME_PCI_CLASS + 1] = 2;
	s->model.config_error = -EACCES;
	assert_int_equal(CREATE(), -EACCES);
	s->model.config_error = 0;
	s->model.pci.bar_len = 4096;
	assert_int_equal(CREATE(), -ENODEV);
	s->model.pci.bar_len = sizeof(s->model.bar);
	s->model.cap = cap & ~NVME_CAP_CSS_NVM;
	model_power_on(&s->model);
	assert_int_equal(CREATE(), -EOPNOTSUPP);
	s->model.cap = cap | 1ULL << 48;
	model_power_on(&s->model);
	assert_int_equal(CREATE(), -EOPNOTSUPP);
	s->model.cap = cap | 15ULL << 32;
	model_power_on(&s->model);
	assert_int_equal(CREATE(), -EOPNOTSUPP);
	s->model.cap = cap;
	model_power_on(&s->model);
	s->opts.depth = 1;
	assert_int_equal(CREATE(), -EINVAL);
	s->opts.depth = 64;
	s->opts.io_queues = 0;
	assert_int_equal(CREATE(), -EINVAL);
	s->opts.io_queues = 1;
	s->mem.limit = 2;
	assert_int_equal(CREATE(), -ENOMEM);
#undef CREATE
}

/* Memory for the admin queue, but none for the I/O queues, or for what comes with them. */
static void test_no_memory(void **state)
{
	s->model.id.oacs = NVME_OACS_DBBUF;
	s->mem.limit = 3;
	expect_failure(-ENOMEM, "no 2 pages left");
	teardown(state);
	setup(state);
	s->mem.limit = 4;
	expect_failure(-ENOMEM, "no 1 pages left");
	teardown(state);
	setup(state);
	s->mem.limit = 6;
	expect_failure(-ENOMEM, "no 1 pages left");
}

static void test_large_entries(void **state)
{
	s->model.id.sqes = 0x77;
	expect_failure(-EOPNOTSUPP, "larger than 64");
}

/* Nothing is given back before the controller is off the bus, however long that takes. */
static void test_cannot_be_cut(void **state)
{
	s->model.never_ready = true;
	s->model.master_stuck = true;
	assert_int_equal(s->started, 0);
	stage_start_only(s);
	stage_wait(s, 20 * NSEC_PER_SEC);
	assert_int_equal(s->started, 0);
	s->model.master_stuck = false;
	stage_until(s, NSEC_PER_SEC, s->started);
	assert_int_equal(s->rc, -ETIMEDOUT);
}

/* Logs */

struct log_call {
	struct nvme_admin admin;
	unsigned over;
	int rc;
};

static void log_over(struct nvme_admin *a, int rc)
{
	struct log_call *call = container_of(a, struct log_call, admin);

	call->over++;
	call->rc = rc;
}

static void ask_log(struct log_call *call, uint8_t log, void *data, uint32_t len)
{
	*call = (struct log_call){.admin.done = log_over};
	nvme_admin_log_page(&call->admin, log, data, len);
	nvme_ctrl_admin(s->ctrl, &call->admin);
}

static void test_logs(void **state)
{
	struct nvme_smart_log smart;
	struct nvme_error_log errors[4];
	struct nvme_firmware_log firmware;
	struct log_call calls[4];
	char page[512];

	stage_start(s);
	/* All at once: they take turns. */
	ask_log(&calls[0], NVME_LOG_SMART, &smart, sizeof(smart));
	ask_log(&calls[1], NVME_LOG_ERRORS, errors, sizeof(errors));
	ask_log(&calls[2], NVME_LOG_FIRMWARE, &firmware, sizeof(firmware));
	ask_log(&calls[3], 0xc0, page, sizeof(page));
	stage_until(s, NSEC_PER_SEC, calls[3].over);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(calls[i].over, 1);
		assert_int_equal(calls[i].rc, i == 3 ? -EIO : 0);
	}
	assert_int_equal(smart.temperature[0] | smart.temperature[1] << 8, 310);
	assert_int_equal(smart.available_spare, 99);
	assert_int_equal(errors[0].count, 17);
	assert_int_equal(errors[3].count, 0);
	assert_memory_equal(firmware.slot[0], "model1.0", 8);
	assert_int_equal(calls[3].admin.status, NVME_STATUS_DNR | 0x109);
	stage_stop(s);
	assert_int_equal(s->model.violations, 0);
}

/* Commands that wait, or are under way, are answered once, whatever happens. */
static void test_logs_in_trouble(void **state)
{
	struct nvme_smart_log smart;
	struct log_call calls[3];

	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_LOSE,
							 .admin = true,
							 .opcode = NVME_ADMIN_GET_LOG_PAGE,
							 .times = 1});
	stage_start(s);
	ask_log(&calls[0], NVME_LOG_SMART, &smart, sizeof(smart));
	ask_log(&calls[1], NVME_LOG_SMART, &smart, sizeof(smart));
	/* The one that is lost costs a reset; the other waits for its end. */
	stage_until(s, 70 * NSEC_PER_SEC, calls[1].over);
	assert_int_equal(calls[0].over, 1);
	assert_int_equal(calls[0].rc, -EIO);
	assert_int_equal(calls[1].rc, 0);
	assert_int_equal(s->model.resets, 2);
	s->model.removed = true;
	ask_log(&calls[0], NVME_LOG_SMART, &smart, sizeof(smart));
	ask_log(&calls[1], NVME_LOG_SMART, &smart, sizeof(smart));
	stage_until(s, 10 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	ask_log(&calls[2], NVME_LOG_SMART, &smart, sizeof(smart));
	assert_int_equal(calls[0].over, 1);
	assert_int_equal(calls[0].rc, -EIO);
	assert_int_equal(calls[1].over, 1);
	assert_int_equal(calls[1].rc, -ENODEV);
	assert_int_equal(calls[2].rc, -ENODEV);
}

/* Events */

static void test_events(void **state)
{
	const struct nvme_namespace *list;

	stage_start(s);
	stage_wait(s, NSEC_PER_SEC);
	/* The temperature. */
	model_send_event(&s->model, 1 | 1 << 8 | NVME_LOG_SMART << 16);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_HEALTH]);
	assert_int_equal(s->changed[NVME_CHANGED_NAMESPACES], 0);
	/* A namespace has grown, another has come. */
	s->model.ns[0].blocks = 1000;
	s->model.ns[1] = (struct model_namespace){.block_size = 4096, .blocks = 10};
	model_send_event(&s->model, 2 | NVME_LOG_CHANGED_NAMESPACES << 16);
	model_send_event(&s->model, 2 | NVME_LOG_CHANGED_NAMESPACES << 16);
	/* The second came while the first was looked into, so that is done again. */
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == 2);
	assert_int_equal(nvme_ctrl_namespaces(s->ctrl, &list), 2);
	assert_int_equal(list[0].blocks, 1000);
	assert_int_equal(list[1].nsid, 2);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_GET_LOG_PAGE], 2);
	/* Each is asked for again. */
	stage_wait(s, NSEC_PER_SEC);
	assert_int_equal(s->model.event_cids_len, 2);
	assert_int_equal(s->changed[NVME_CHANGED_NAMESPACES], 2);
	assert_int_equal(s->changed[NVME_CHANGED_HEALTH], 1);
}

/* An event that asks for a look at namespaces, behind one on which the owner stops. */
static void test_event_when_stopping(void **state)
{
	stage_start(s);
	stage_wait(s, NSEC_PER_SEC);
	s->stop_on_health = true;
	model_send_event(&s->model, 1 | 1 << 8 | NVME_LOG_SMART << 16);
	model_send_event(&s->model, 2 | NVME_LOG_CHANGED_NAMESPACES << 16);
	stage_until(s, 20 * NSEC_PER_SEC, s->stopped);
	assert_int_equal(s->changed[NVME_CHANGED_HEALTH], 1);
	assert_int_equal(s->changed[NVME_CHANGED_NAMESPACES], 0);
}

/* A reset in the midst of looking at the namespaces anew looks at them anyway. */
static void test_reset_while_scanning(void **state)
{
	stage_start(s);
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_LOSE,
							 .admin = true,
							 .opcode = NVME_ADMIN_IDENTIFY,
							 .times = 1});
	s->model.ns[0].blocks = 1000;
	model_send_event(&s->model, 2 | NVME_LOG_CHANGED_NAMESPACES << 16);
	stage_until(s, 70 * NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES]);
	assert_int_equal(s->model.resets, 2);
	assert_int_equal(nvme_ctrl_namespace(s->ctrl, 1)->blocks, 1000);
	model_send_event(&s->model, 2 | NVME_LOG_CHANGED_NAMESPACES << 16);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES] == 2);
}

/* The same where looking anew waits for a command that is lost. */
static void test_reset_before_scanning(void **state)
{
	struct nvme_smart_log smart;
	struct log_call call;

	stage_start(s);
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_LOSE,
							 .admin = true,
							 .opcode = NVME_ADMIN_GET_LOG_PAGE,
							 .times = 1});
	ask_log(&call, NVME_LOG_SMART, &smart, sizeof(smart));
	model_send_event(&s->model, 2 | NVME_LOG_CHANGED_NAMESPACES << 16);
	stage_until(s, 70 * NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES]);
	stage_wait(s, 5 * NSEC_PER_SEC);
	assert_int_equal(s->changed[NVME_CHANGED_NAMESPACES], 1);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_ASYNC_EVENT], 5);
	assert_int_equal(s->model.event_cids_len, 2);
}

/* Resets */

static void test_admin_nonsense(void **state)
{
	struct nvme_smart_log smart;
	struct log_call call;

	stage_start(s);
	model_add_fault(&s->model, &(struct model_fault){.kind = FAULT_WRONG_CID,
							 .admin = true,
							 .opcode = NVME_ADMIN_GET_LOG_PAGE,
							 .times = 1});
	ask_log(&call, NVME_LOG_SMART, &smart, sizeof(smart));
	stage_until(s, NSEC_PER_SEC, s->model.resets == 2);
	stage_until(s, NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	assert_int_equal(call.rc, -EIO);
}

/*
 * The controller is not disabled before all queues rest; and the next reset waits until they have
 * heard of the end of the one before.
 */
static void test_reset_waits(void **state)
{
	struct nvme_queue *q;

	stage_start(s);
	assert_int_equal(nvme_ctrl_open_queue(s->ctrl, s->reactors[0], &q), 0);
	s->frozen = true;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_wait(s, 100 * NSEC_PER_MSEC);
	assert_true(s->model.cc & NVME_CC_EN);
	s->frozen = false;
	stage_step(s);
	s->frozen = true;
	stage_until(s, NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	assert_int_equal(s->model.resets, 2);
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_wait(s, 100 * NSEC_PER_MSEC);
	assert_int_equal(s->model.resets, 2);
	s->frozen = false;
	stage_until(s, NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	assert_int_equal(s->model.resets, 3);
	nvme_queue_close(q);
}

static void test_fatal_when_live(void **state)
{
	stage_start(s);
	s->model.fatal = true;
	stage_until(s, 5 * NSEC_PER_SEC, s->model.resets == 2);
	stage_until(s, 5 * NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	assert_int_equal(s->started, 1);
}

/* A controller that needs a reset again and again is given up. */
static void test_fatal_for_ever(void **state)
{
	stage_start(s);
	for (unsigned i = 0; i < 4; i++) {
		s->model.fatal = true;
		stage_until(s, 5 * NSEC_PER_SEC, s->model.resets == i + 2);
		stage_until(s, 5 * NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	}
	/* Long afterwards it is forgiven. */
	stage_wait(s, 601 * NSEC_PER_SEC);
	for (unsigned i = 4; i < 8; i++) {
		s->model.fatal = true;
		stage_until(s, 5 * NSEC_PER_SEC, s->model.resets == i + 2);
		stage_until(s, 5 * NSEC_PER_SEC, nvme_ctrl_state(s->ctrl) == NVME_LIVE);
	}
	s->model.fatal = true;
	stage_until(s, 5 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 1);
	assert_false(model_bus_master(&s->model));
}

static void test_reset_fails(void **state)
{
	stage_start(s);
	s->model.never_ready = true;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 10 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	assert_false(model_bus_master(&s->model));
	stage_stop(s);
	assert_int_equal(s->model.shutdowns, 0);
}

/* After a reset it is a different controller. */
static void test_reset_to_less(void **state)
{
	stage_start(s);
	s->model.io_queues = 1;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 10 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
	/* It is not asked for a queue that it has not. */
	assert_int_equal(s->model.commands[1][NVME_ADMIN_CREATE_CQ], 3);
	teardown(state);
	setup(state);
	stage_start(s);
	s->model.id.mdts = 1;
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_until(s, 10 * NSEC_PER_SEC, s->changed[NVME_CHANGED_DEAD]);
}

/* Stops */

static void test_stop_early(void **state)
{
	/* While it starts, while it is reset, and twice in a row. */
	stage_start_only(s);
	stage_step(s);
	stage_stop(s);
	assert_int_equal(s->started, 1);
	assert_int_equal(s->rc, 0);
	assert_int_equal(s->model.shutdowns, 1);
	teardown(state);
	setup(state);
	stage_start(s);
	nvme_ctrl_reset(s->ctrl, "as a test");
	stage_stop(s);
	assert_int_equal(s->model.shutdowns, 1);
	assert_int_equal(s->model.resets, 2);
}

static void test_stop_while_failing(void **state)
{
	s->model.never_ready = true;
	stage_start_only(s);
	stage_stop(s);
	assert_int_equal(s->started, 1);
	assert_int_equal(s->rc, -ETIMEDOUT);
}

/* Deleting queues is a courtesy: who refuses it, or does not answer, is shut down without. */
static void test_delete_refused(void **state)
{
	static const enum model_fault_kind kinds[] = {FAULT_STATUS, FAULT_LOSE, FAULT_WRONG_CID};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint64_t start;

		if (i) {
			teardown(state);
			setup(state);
		}
		stage_start(s);
		model_add_fault(&s->model, &(struct model_fault){.kind = kinds[i],
								 .admin = true,
								 .opcode = NVME_ADMIN_DELETE_SQ,
								 .skip = 1,
								 .times = 1,
								 .status = NVME_STATUS_DNR |
									   NVME_SC_INVALID_QID});
		/* What is lost is in flight at the shutdown, which is what the model asks of us. */
		start = clock_now_ns();
		stage_stop(s);
		assert_int_equal(s->model.shutdowns, 1);
		assert_int_equal(s->model.commands[1][NVME_ADMIN_DELETE_SQ], 2);
		assert_int_equal(s->model.commands[1][NVME_ADMIN_DELETE_CQ], 0);
		assert_in_range(clock_now_ns() - start, 0, 11 * NSEC_PER_SEC);
		if (i)
			assert_int_equal(s->model.violations--, 1);
	}
}

/* An admin command that is under way comes to its end first. */
static void test_stop_during_command(void **state)
{
	struct nvme_smart_log smart;
	struct log_call call;

	stage_start(s);
	ask_log(&call, NVME_LOG_SMART, &smart, sizeof(smart));
	stage_stop(s);
	assert_int_equal(call.over, 1);
	assert_int_equal(call.rc, 0);
	assert_int_equal(s->model.commands[1][NVME_ADMIN_DELETE_CQ], 3);
}

static void test_shutdown_stuck(void **state)
{
	stage_start(s);
	s->model.never_shut_down = true;
	stage_stop(s);
	assert_int_equal(s->model.bar[NVME_REG_CC] & NVME_CC_EN, 0);
	assert_false(model_bus_master(&s->model));
}

static void test_stop_stuck(void **state)
{
	stage_start(s);
	s->model.never_stops = true;
	stage_stop(s);
	assert_false(model_bus_master(&s->model));
	assert_int_equal(s->changed[NVME_CHANGED_DEAD], 0);
}

static void test_removed_while_stopping(void **state)
{
	stage_start(s);
	s->model.never_shut_down = true;
	nvme_ctrl_stop(s->ctrl);
	stage_wait(s, NSEC_PER_SEC);
	s->model.removed = true;
	stage_until(s, NSEC_PER_SEC, s->stopped);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_life),
		TEST(test_left_enabled),
		TEST(test_few_queues),
		TEST(test_old_controller),
		TEST(test_never_ready),
		TEST(test_never_stops),
		TEST(test_fatal_on_enable),
		TEST(test_admin_silent),
		TEST(test_admin_refused),
		TEST(test_refusals_taken),
		TEST(test_removed_at_start),
		TEST(test_removed_while_starting),
		TEST(test_removed_by_the_system),
		TEST(test_removed_at_work),
		TEST(test_stopped_by_itself),
		TEST(test_not_ours),
		TEST(test_no_memory),
		TEST(test_large_entries),
		TEST(test_cannot_be_cut),
		TEST(test_logs),
		TEST(test_logs_in_trouble),
		TEST(test_events),
		TEST(test_event_when_stopping),
		TEST(test_reset_while_scanning),
		TEST(test_reset_before_scanning),
		TEST(test_admin_nonsense),
		TEST(test_reset_waits),
		TEST(test_fatal_when_live),
		TEST(test_fatal_for_ever),
		TEST(test_reset_fails),
		TEST(test_reset_to_less),
		TEST(test_stop_early),
		TEST(test_stop_while_failing),
		TEST(test_delete_refused),
		TEST(test_stop_during_command),
		TEST(test_shutdown_stuck),
		TEST(test_stop_stuck),
		TEST(test_removed_while_stopping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
