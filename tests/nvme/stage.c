/* SPDX-License-Identifier: BSD-2-Clause */
#include "stage.h"

#include <stdlib.h>
#include <time.h>

#include "base/log.h"

/* Steps are short while things happen, and long when something is waited for. */
enum { STEP_NS = 20000, LONG_STEP_NS = 4000000, STEPS_BEFORE_LONG = 2000 };

static uint64_t now_ns = 1000 * NSEC_PER_SEC;

/* The linker calls this for clock_gettime(). */
int __wrap_clock_gettime(clockid_t id, struct timespec *now);

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	now->tv_sec = (time_t)(now_ns / NSEC_PER_SEC);
	now->tv_nsec = (long)(now_ns % NSEC_PER_SEC);
	return 0;
}

static void started(struct nvme_ctrl *c, int rc, const struct err *err, void *arg)
{
	struct stage *s = arg;

	s->started++;
	s->rc = rc;
	if (err)
		s->err = *err;
}

static void changed(struct nvme_ctrl *c, enum nvme_change what, void *arg)
{
	struct stage *s = arg;

	s->changed[what]++;
	if (what == NVME_CHANGED_HEALTH && s->stop_on_health)
		nvme_ctrl_stop(c);
}

static void stopped(struct nvme_ctrl *c, void *arg)
{
	struct stage *s = arg;

	s->stopped++;
	nvme_ctrl_destroy(c);
	s->ctrl = NULL;
}

static const struct nvme_ctrl_ops ctrl_ops = {started, changed, stopped};

struct stage *stage_create(uint32_t block_size)
{
	struct stage *s = aligned_alloc(DMA_PAGE_SIZE, (sizeof(*s) + 4095) & ~(size_t)4095);

	assert_non_null(s);
	*s = (struct stage){0};
	log_set_level(LOG_LEVEL_ERROR);
	dma_double_init(&s->mem, 4096);
	model_init(&s->model, &s->mem, block_size, 1024);
	assert_int_equal(reactor_create("home", -1, NULL, &s->home), 0);
	for (int i = 0; i < STAGE_REACTORS; i++)
		assert_int_equal(reactor_create("io", -1, NULL, &s->reactors[i]), 0);
	nvme_ctrl_default_options(&s->opts);
	s->opts.io_queues = STAGE_REACTORS;
	return s;
}

void stage_step(struct stage *s)
{
	now_ns += s->steps++ < STEPS_BEFORE_LONG ? STEP_NS : LONG_STEP_NS;
	reactor_step(s->home);
	for (int i = 0; i < STAGE_REACTORS && !s->frozen; i++)
		reactor_step(s->reactors[i]);
	model_step(&s->model);
}

void stage_wait(struct stage *s, uint64_t ns)
{
	s->steps = 0;
	for (uint64_t end = now_ns + ns; now_ns < end;)
		stage_step(s);
	s->steps = 0;
}

void stage_start_only(struct stage *s)
{
	assert_int_equal(nvme_ctrl_create(&s->model.pci, &s->mem.dma, s->home, &s->opts, &ctrl_ops,
					  s, &s->ctrl, &s->err),
			 0);
	nvme_ctrl_start(s->ctrl);
}

void stage_start(struct stage *s)
{
	stage_start_only(s);
	stage_until(s, 200 * NSEC_PER_SEC, s->started);
}

void stage_stop(struct stage *s)
{
	nvme_ctrl_stop(s->ctrl);
	stage_until(s, 200 * NSEC_PER_SEC, s->stopped);
	assert_null(s->ctrl);
}

void stage_destroy(struct stage *s)
{
	if (s->ctrl)
		stage_stop(s);
	for (int i = 0; i < STAGE_REACTORS; i++)
		reactor_destroy(s->reactors[i]);
	reactor_destroy(s->home);
	assert_int_equal(s->model.violations, 0);
	model_fini(&s->model);
	dma_double_fini(&s->mem);
	free(s);
}
