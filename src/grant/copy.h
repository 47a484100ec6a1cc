/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copying to and from granted pages (GNTTABOP_copy): the guest's page is never mapped, the
 * hypervisor copies after it has checked the grant.  Operations are collected and done in one call;
 * each has its own status.  A copier belongs to one thread.
 *
 * The hypervisor wants to know our side by its machine frame.  Of most memory only the kernel knows
 * that: gntdev pins each page, makes a hypercall of every 16 and lets go of the pages again. Device
 * memory stays where it is and we know its address, so such copies are one hypercall of our own for
 * as many as there are.
 */
#ifndef SLUICE_GRANT_COPY_H
#define SLUICE_GRANT_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct grant_copier;

struct grant_copy {
	uint16_t domid;
	bool to_guest;
	uint32_t ref;
	uint16_t offset; /* in the granted page; offset + len <= 4096 */
	uint16_t len;
	void *local; /* valid until the flush has returned */
	/*
	 * The machine address of @local, all of which then lies in one page that stays this
	 * domain's; 0: not known.
	 */
	uint64_t bus;
	int *status; /* set to a negative errno if this copy failed, else left alone */
};

/* Returns 0 and *@out, or a negative errno with the remedy. */
int grant_copier_create(struct grant_copier **out, struct err *err);
void grant_copier_destroy(struct grant_copier *c);

/* Adds an operation; done by the next flush, or at once if there is no room for more. */
void grant_copier_add(struct grant_copier *c, const struct grant_copy *copy);
/* Performs what was added. */
void grant_copier_flush(struct grant_copier *c);

#endif
