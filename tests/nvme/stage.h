/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage for the driver: a model of a controller, the reactors, and a clock of our own, all moved
 * by hand on one thread, so that minutes of time-outs pass in no time and always the same way.
 */
#ifndef SLUICE_TEST_NVME_STAGE_H
#define SLUICE_TEST_NVME_STAGE_H

#include "base/clock.h"
#include "model.h"
#include "reactor/reactor.h"

enum { STAGE_REACTORS = 2 };

struct stage {
	struct dma_double mem;
	struct model model;
	struct reactor *home;
	struct reactor *reactors[STAGE_REACTORS];
	struct nvme_ctrl_options opts;
	struct nvme_ctrl *ctrl;
	/* What the controller has reported. */
	unsigned started;
	int rc;
	struct err err;
	unsigned stopped;
	unsigned changed[3]; /* by enum nvme_change */
	unsigned steps;      /* of what is waited for now */
	bool stop_on_health; /* stops the controller when that has changed */
	bool frozen;         /* the reactors but home get no turns */
};

/* A stage with a model of one namespace, of 1024 blocks, and no controller yet. */
struct stage *stage_create(uint32_t block_size);
/* Stops and destroys the controller, if there is one; no violations: asserted. */
void stage_destroy(struct stage *s);
/* Creates and starts the controller, and does not wait. */
void stage_start_only(struct stage *s);
/* The same, and waits for what comes of it: s->rc. */
void stage_start(struct stage *s);
void stage_stop(struct stage *s);

/* One turn for everybody; 20 us pass, or more after many. */
void stage_step(struct stage *s);
/* Lets @ns pass. */
void stage_wait(struct stage *s, uint64_t ns);
/* Steps until @cond is true, or for @ns at most; asserts that it has become true. */
#define stage_until(s, ns, cond)                                                       \
	do {                                                                           \
		uint64_t stage_end_ = clock_now_ns() + (ns);                           \
		(s)->steps = 0;                                                        \
		while (!(cond) && clock_now_ns() < stage_end_)                         \
			stage_step(s);                                                 \
		if (!(cond))                                                           \
			fail_msg("%s:%d: not in time: %s", __FILE__, __LINE__, #cond); \
		(s)->steps = 0;                                                        \
	} while (0)

#endif
