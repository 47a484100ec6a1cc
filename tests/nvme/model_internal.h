/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to the model: what its parts know of each other. */
#ifndef SLUICE_TEST_NVME_MODEL_INTERNAL_H
#define SLUICE_TEST_NVME_MODEL_INTERNAL_H

#include "model.h"

/* model.c */

/* The driver has done what a real controller would punish. */
void model_violate(struct model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The driver's memory at @bus; NULL, and a violation, if there is none. */
void *model_reach(struct model *m, uint64_t bus, size_t len, const char *what);
void model_complete(struct model *m, uint16_t qid, const struct nvme_sqe *sqe, uint16_t status,
		    uint32_t result);
/* Where the doorbell is, from the first one on. */
size_t model_doorbell(const struct model *m, unsigned qid, bool cq);

/* model_commands.c */

/* Carries out an admin command, and completes it now or later. */
void model_do_admin(struct model *m, const struct nvme_sqe *sqe);
/* Carries out an I/O command; returns its status. */
uint16_t model_do_io(struct model *m, const struct nvme_sqe *sqe);
/* Completes as many event requests as there are events. */
void model_send_events(struct model *m);

#endif
