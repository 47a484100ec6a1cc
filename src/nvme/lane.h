/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lane: the way from ios to commands, of one controller on one reactor.
 *
 * An io of any size and shape becomes as many commands as it takes: each is as long as the
 * controller, the namespace's boundaries and the memory's gaps allow.  All channels to the
 * controller's namespaces and partitions that a reactor has share its lane, which owns the commands
 * and the memory that goes with them; so a drive that serves many guests takes no more memory than
 * one that serves one.  When commands run out, channels take turns, a command at a time.
 *
 * The device reaches device memory (dma.h) where it lies: pieces as they are, iovecs by
 * translation.  Other memory goes through bounce pages of the lane's own.
 */
#ifndef SLUICE_NVME_LANE_H
#define SLUICE_NVME_LANE_H

#include "bdev/bdev.h"
#include "nvme/controller.h"

struct nvme_lane;

/* What a channel's ios are about: a namespace, or a part of one. */
struct nvme_target {
	uint32_t nsid;
	unsigned shift;  /* log2 of the block size */
	uint32_t stripe; /* bytes between boundaries that no command crosses; 0: none */
	uint64_t start;  /* bytes before its first */
	bool *gone;      /* set by home for good: the namespace is no more what it was */
};

/* A channel's place in a lane. */
struct nvme_stream {
	struct nvme_lane *lane;
	const struct nvme_target *target;
	/* private */
	struct list node;      /* of the lane's ready or starved, while there are ios */
	struct list ios;       /* not all of whose commands have been sent */
	struct nvme_cursor at; /* in the first of them */
	uint64_t sent;         /* bytes of it */
};

/*
 * Opens the lane of @c on @r, whose thread this is, once more. Returns 0 or a negative errno with
 * the line in @err: as nvme_ctrl_open_queue(), or no memory.
 */
int nvme_lane_open(struct nvme_ctrl *c, struct reactor *r, struct nvme_lane **out, struct err *err);
void nvme_lane_close(struct nvme_lane *lane);
/* Pages of device memory that a lane with @cmds commands of @max bytes takes. */
uint32_t nvme_lane_pages(uint32_t cmds, uint32_t max);

void nvme_stream_init(struct nvme_stream *s, struct nvme_lane *lane,
		      const struct nvme_target *target);
/* Takes the io, as bdev_ops.submit. */
void nvme_stream_submit(struct nvme_stream *s, struct bdev_io *io);

#endif
