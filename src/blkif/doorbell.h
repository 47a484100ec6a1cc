/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doorbell: how a queue and its frontend wake each other.
 *
 * A ring from the frontend disarms the doorbell and calls blkif_queue_ring(); until it is
 * armed again, further rings cost nobody anything.
 */
#ifndef SLUICE_BLKIF_DOORBELL_H
#define SLUICE_BLKIF_DOORBELL_H

struct doorbell;

struct doorbell_ops {
	/* Wakes the frontend. */
	void (*notify)(struct doorbell *d);
	/*
	 * Lets the frontend's next ring through. A ring that came while it was disarmed may be
	 * delivered now or be lost: the queue looks at its ring of requests after this.
	 */
	void (*arm)(struct doorbell *d);
};

struct doorbell {
	const struct doorbell_ops *ops;
};

#endif
