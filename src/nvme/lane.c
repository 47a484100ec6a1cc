/* SPDX-License-Identifier: BSD-2-Clause */
#include "nvme/lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* Two, so that one is being filled while the other is with the drive. */
	BOUNCE_BUFFERS = 2,
	BOUNCE_PAGES = 8,
	BOUNCE_BYTES = BOUNCE_PAGES * DMA_PAGE_SIZE,
	/* Pieces of an iovec with gaps, for an SGL. */
	GATHER_MAX = 64,
};

/* In an io's scratch word, above the number of its commands under way: there will be no more. */
#define SENT (1ULL << 32)

struct cmd {
	struct nvme_req req;
	struct nvme_stream *stream;
	struct bdev_io *io;
	struct cmd *next; /* free one */
	void *list;       /* its slot, always the same */
	uint64_t list_bus;
	int bounce; /* buffer, or -1 */
	uint32_t len;
	struct nvme_cursor at;
};

struct nvme_lane {
	struct nvme_queue *queue;
	struct dma *dma;
	const struct nvme_limits *limits;
	struct nvme_ctrl *ctrl;
	struct cmd *free;
	struct list ready;   /* streams that want a command */
	struct list starved; /* streams that want a bounce buffer */
	unsigned users;
	struct nvme_slots slots;
	struct cmd *cmds;
	struct dma_memory bounce[BOUNCE_BUFFERS];
	bool bounce_used[BOUNCE_BUFFERS];
	struct dma_piece gathered[GATHER_MAX];
};

/* Data that the CPU has an address of */

static bool reachable(const struct dma *dma, const char *at, size_t len)
{
	/* What of the window has been filled is one piece. */
	return dma_translate(dma, at) != DMA_NO_BUS &&
	       dma_translate(dma, at + len - 1) != DMA_NO_BUS;
}

static uint32_t left_in_page(const char *at, size_t len)
{
	size_t page = DMA_PAGE_SIZE - (uintptr_t)at % DMA_PAGE_SIZE;

	return (uint32_t)(len < page ? len : page);
}

/* Describes @cmd's data by PRPs, @max bytes at most; returns how much the device reaches so. */
static uint32_t iov_prps(const struct nvme_lane *lane, struct cmd *cmd, struct nvme_cursor *at,
			 uint32_t max)
{
	struct nvme_prps p = {.sqe = &cmd->req.sqe, .list = cmd->list, .max = max};
	const struct bdev_io *io = cmd->io;

	for (; at->index < (uint32_t)io->iovcnt && p.len < max; at->index++, at->skip = 0) {
		const struct iovec *iov = &io->iov[at->index];
		const char *base = iov->iov_base;

		if (!reachable(lane->dma, base, iov->iov_len))
			break;
		while (at->skip < iov->iov_len) {
			const char *here = base + at->skip;
			uint32_t page = left_in_page(here, iov->iov_len - at->skip);
			uint32_t took = nvme_prps_add(&p, dma_translate(lane->dma, here), page);

			at->skip += took;
			if (took < page)
				goto out;
		}
	}
out:
	nvme_prps_end(&p, cmd->list_bus);
	return p.len;
}

static void advance(const struct bdev_io *io, struct nvme_cursor *at, size_t len)
{
	at->skip += len;
	while (at->index < (uint32_t)io->iovcnt && at->skip >= io->iov[at->index].iov_len)
		at->skip -= io->iov[at->index++].iov_len;
}

/* The same by an SGL. */
static uint32_t iov_sgl(struct nvme_lane *lane, struct cmd *cmd, struct nvme_cursor *at,
			uint32_t max)
{
	struct nvme_cursor here = *at, first = {0};
	const struct bdev_io *io = cmd->io;
	uint32_t n = 0, len = 0;

	while (n < GATHER_MAX && len < max && here.index < (uint32_t)io->iovcnt) {
		const struct iovec *iov = &io->iov[here.index];
		const char *base = (char *)iov->iov_base + here.skip;
		uint32_t page = left_in_page(base, iov->iov_len - here.skip);

		if (!reachable(lane->dma, iov->iov_base, iov->iov_len))
			break;
		lane->gathered[n++] = (struct dma_piece){
			.bus = dma_translate(lane->dma, base),
			.len = page,
		};
		len += page;
		advance(io, &here, page);
	}
	len = nvme_sgl_build(lane->gathered, n, &first, max, 1u << cmd->stream->target->shift,
			     &cmd->req.sqe, cmd->list,
			     lane->slots.size / (uint32_t)sizeof(struct nvme_sgl), cmd->list_bus);
	advance(io, at, len);
	return len;
}

/* Copies @len bytes between the io's iovecs from @at on and @buffer. */
static void copy(const struct bdev_io *io, struct nvme_cursor at, char *buffer, size_t len,
		 bool to_io)
{
	while (len) {
		char *here = (char *)io->iov[at.index].iov_base + at.skip;
		size_t n = io->iov[at.index].iov_len - at.skip;

		n = n < len ? n : len;
		if (to_io)
			memcpy(here, buffer, n);
		else
			memcpy(buffer, here, n);
		buffer += n;
		len -= n;
		advance(io, &at, n);
	}
}

static int take_bounce(struct nvme_lane *lane)
{
	for (int i = 0; i < BOUNCE_BUFFERS; i++) {
		if (lane->bounce_used[i])
			continue;
		lane->bounce_used[i] = true;
		return i;
	}
	return -1;
}

/* By a bounce buffer, up to the next iovec that the device reaches; 0: none is free. */
static uint32_t iov_bounce(struct nvme_lane *lane, struct cmd *cmd, struct nvme_cursor *at,
			   uint32_t max)
{
	struct nvme_prps p = {.sqe = &cmd->req.sqe, .list = cmd->list};
	const struct bdev_io *io = cmd->io;
	struct nvme_cursor here = *at;
	struct dma_memory *memory;
	size_t len = 0;

	cmd->bounce = take_bounce(lane);
	if (cmd->bounce < 0)
		return 0;
	max = max < BOUNCE_BYTES ? max : BOUNCE_BYTES;
	while (len < max && here.index < (uint32_t)io->iovcnt) {
		const struct iovec *iov = &io->iov[here.index++];

		if (reachable(lane->dma, iov->iov_base, iov->iov_len))
			break;
		len += iov->iov_len - here.skip;
		here.skip = 0;
	}
	p.max = len < max ? (uint32_t)len : max;
	memory = &lane->bounce[cmd->bounce];
	for (size_t i = 0; p.len < p.max; i++)
		nvme_prps_add(&p, memory->bus[i], DMA_PAGE_SIZE);
	nvme_prps_end(&p, cmd->list_bus);
	if (io->op == BDEV_WRITE)
		copy(io, *at, memory->virt, p.len, false);
	advance(io, at, p.len);
	return p.len;
}

static uint32_t describe_iov(struct nvme_lane *lane, struct cmd *cmd, struct nvme_cursor *at,
			     uint32_t max)
{
	const struct bdev_io *io = cmd->io;
	struct nvme_cursor begin = *at;
	uint32_t len = iov_prps(lane, cmd, at, max);

	if (!len)
		return iov_bounce(lane, cmd, at, max);
	if (len < max && lane->limits->sgl &&
	    reachable(lane->dma, io->iov[at->index].iov_base, io->iov[at->index].iov_len)) {
		*at = begin;
		len = iov_sgl(lane, cmd, at, max);
	}
	return len;
}

static uint32_t describe_pieces(struct nvme_lane *lane, struct cmd *cmd, struct nvme_cursor *at,
				uint32_t max)
{
	uint32_t block_size = 1u << cmd->stream->target->shift;
	const struct bdev_io *io = cmd->io;
	struct nvme_cursor begin = *at;
	uint32_t len = nvme_prps_build(io->pieces, io->nr_pieces, at, max, block_size,
				       &cmd->req.sqe, cmd->list, cmd->list_bus);

	if (len == max || !lane->limits->sgl)
		return len;
	*at = begin;
	return nvme_sgl_build(io->pieces, io->nr_pieces, at, max, block_size, &cmd->req.sqe,
			      cmd->list, lane->slots.size / (uint32_t)sizeof(struct nvme_sgl),
			      cmd->list_bus);
}

/* Commands */

static void issue(struct nvme_lane *lane);

/* The stream's first io needs no more commands. */
static void first_sent(struct nvme_stream *s, struct bdev_io *io)
{
	list_del(&io->node);
	if (list_empty(&s->ios))
		list_del(&s->node);
	s->at = (struct nvme_cursor){0};
	s->sent = 0;
	io->scratch |= SENT;
}

static void free_cmd(struct nvme_lane *lane, struct cmd *cmd)
{
	cmd->next = lane->free;
	lane->free = cmd;
}

static void cmd_done(struct nvme_req *req)
{
	struct cmd *cmd = container_of(req, struct cmd, req);
	struct nvme_lane *lane = cmd->stream->lane;
	struct bdev_io *io = cmd->io;

	if (cmd->bounce >= 0) {
		if (io->op == BDEV_READ && !req->error)
			copy(io, cmd->at, lane->bounce[cmd->bounce].virt, cmd->len, true);
		lane->bounce_used[cmd->bounce] = false;
		list_splice_tail(&lane->ready, &lane->starved);
	}
	if (req->error && !io->result) {
		io->result = req->error;
		/* What has not been sent of it is not worth the while any more. */
		if (!(io->scratch & SENT))
			first_sent(cmd->stream, io);
	}
	free_cmd(lane, cmd);
	io->scratch--;
	/* Before the io's end, as its owner may close the channel then. */
	if (!list_empty(&lane->ready))
		issue(lane);
	if (io->scratch == SENT)
		io->done(io);
}

static void set_range(const struct nvme_stream *s, struct cmd *cmd, uint64_t offset, uint32_t len)
{
	uint64_t lba = offset >> s->target->shift;

	cmd->req.sqe.cdw10 = (uint32_t)lba;
	cmd->req.sqe.cdw11 = (uint32_t)(lba >> 32);
	cmd->req.sqe.cdw12 = (len >> s->target->shift) - 1;
}

/* Each of these fills in a command for what is left of the io; returns its bytes, 0: it cannot. */

static uint32_t fill_data(struct nvme_stream *s, const struct bdev_io *io, struct cmd *cmd)
{
	struct nvme_lane *lane = s->lane;
	uint64_t offset = s->target->start + io->offset + s->sent, left = io->len - s->sent;
	uint32_t max = lane->limits->max_transfer, len;

	if (left < max)
		max = (uint32_t)left;
	if (s->target->stripe) {
		uint32_t within = s->target->stripe - (uint32_t)(offset % s->target->stripe);

		max = within < max ? within : max;
	}
	cmd->at = s->at;
	len = io->pieces ? describe_pieces(lane, cmd, &s->at, max)
			 : describe_iov(lane, cmd, &s->at, max);
	cmd->len = len;
	cmd->req.sqe.opcode = io->op == BDEV_READ ? NVME_CMD_READ : NVME_CMD_WRITE;
	set_range(s, cmd, offset, len);
	return len;
}

static uint64_t fill_zeroes(struct nvme_stream *s, const struct bdev_io *io, struct cmd *cmd)
{
	uint64_t left = io->len - s->sent;
	uint64_t max = (uint64_t)NVME_BLOCKS_MAX << s->target->shift;

	if (s->lane->limits->zeroes_bytes < max)
		max = s->lane->limits->zeroes_bytes;
	left = left < max ? left : max;
	cmd->req.sqe.opcode = NVME_CMD_WRITE_ZEROES;
	set_range(s, cmd, s->target->start + io->offset + s->sent, (uint32_t)left);
	if (io->deallocate)
		cmd->req.sqe.cdw12 |= NVME_ZEROES_DEALLOCATE;
	return left;
}

static uint64_t fill_discard(struct nvme_stream *s, const struct bdev_io *io, struct cmd *cmd)
{
	const struct nvme_limits *limits = s->lane->limits;
	uint32_t max = s->lane->slots.size / (uint32_t)sizeof(struct nvme_dsm_range), n = 0;
	uint64_t lba = (s->target->start + io->offset + s->sent) >> s->target->shift;
	uint64_t left = (io->len - s->sent) >> s->target->shift, total = 0;
	struct nvme_dsm_range *ranges = cmd->list;

	max = limits->dsm_ranges < max ? limits->dsm_ranges : max;
	left = limits->dsm_blocks < left ? limits->dsm_blocks : left;
	while (total < left && n < max) {
		uint64_t here = left - total;

		here = limits->dsm_range_blocks < here ? limits->dsm_range_blocks : here;
		ranges[n++] = (struct nvme_dsm_range){.blocks = (uint32_t)here, .lba = lba + total};
		total += here;
	}
	cmd->req.sqe.opcode = NVME_CMD_DSM;
	cmd->req.sqe.prp1 = cmd->list_bus;
	cmd->req.sqe.prp2 = 0;
	cmd->req.sqe.cdw10 = n - 1;
	cmd->req.sqe.cdw11 = NVME_DSM_DEALLOCATE;
	cmd->req.sqe.cdw12 = 0;
	return total << s->target->shift;
}

/* Sends the next command of the stream's first io; returns its bytes, 0: it cannot. */
static uint64_t send_next(struct nvme_stream *s, struct bdev_io *io)
{
	struct nvme_lane *lane = s->lane;
	struct cmd *cmd = lane->free;
	uint64_t len = 0;

	cmd->stream = s;
	cmd->io = io;
	cmd->bounce = -1;
	cmd->req.sqe.flags = 0;
	cmd->req.sqe.nsid = s->target->nsid;
	switch (io->op) {
	case BDEV_READ:
	case BDEV_WRITE:
		len = fill_data(s, io, cmd);
		break;
	case BDEV_DISCARD:
		len = fill_discard(s, io, cmd);
		break;
	case BDEV_WRITE_ZEROES:
		len = fill_zeroes(s, io, cmd);
		break;
	case BDEV_FLUSH:
		cmd->req.sqe.opcode = NVME_CMD_FLUSH;
		cmd->req.sqe.prp1 = 0;
		cmd->req.sqe.prp2 = 0;
		cmd->req.sqe.cdw10 = 0;
		cmd->req.sqe.cdw11 = 0;
		cmd->req.sqe.cdw12 = 0;
		len = 1;
		break;
	}
	if (!len)
		return 0;
	lane->free = cmd->next;
	io->scratch++;
	nvme_queue_submit(lane->queue, &cmd->req);
	return len;
}

/* The last of them may be the lane's end. */
static void end_all(struct list *ios)
{
	struct list *pos;

	while ((pos = list_pop(ios))) {
		struct bdev_io *io = list_entry(pos, struct bdev_io, node);

		io->done(io);
	}
}

/* The drive is gone: nothing more is sent. What is under way ends by itself. */
static void give_up(struct nvme_lane *lane)
{
	struct list ended;

	list_init(&ended);
	list_splice_tail(&lane->ready, &lane->starved);
	while (!list_empty(&lane->ready)) {
		struct nvme_stream *s = list_entry(lane->ready.next, struct nvme_stream, node);
		struct bdev_io *io = list_entry(s->ios.next, struct bdev_io, node);

		first_sent(s, io);
		if (!io->result)
			io->result = -ENODEV;
		if (io->scratch == SENT)
			list_add_tail(&ended, &io->node);
	}
	end_all(&ended);
}

static void issue(struct nvme_lane *lane)
{
	struct list ended;

	if (lane->queue->ended) {
		give_up(lane);
		return;
	}
	list_init(&ended);
	while (lane->free && !list_empty(&lane->ready)) {
		struct nvme_stream *s = list_entry(lane->ready.next, struct nvme_stream, node);
		struct bdev_io *io = list_entry(s->ios.next, struct bdev_io, node);
		uint64_t len = send_next(s, io);

		list_del(&s->node);
		if (!len && !io->pieces) {
			list_add_tail(&lane->starved, &s->node);
			continue;
		}
		/* The others' turn. */
		list_add_tail(&lane->ready, &s->node);
		s->sent += len;
		if (len && s->sent < io->len)
			continue;
		first_sent(s, io);
		if (len)
			continue;
		/* A block across a gap, which no command can describe. */
		io->result = -EINVAL;
		if (io->scratch == SENT)
			list_add_tail(&ended, &io->node);
	}
	end_all(&ended);
}

void nvme_stream_submit(struct nvme_stream *s, struct bdev_io *io)
{
	struct nvme_lane *lane = s->lane;

	io->result = 0;
	io->scratch = 0;
	/* Pairs with the release of home, which has found out. */
	if (__atomic_load_n(s->target->gone, __ATOMIC_ACQUIRE))
		io->result = -ENODEV;
	/* What a drive without a cache has completed is durable. */
	else if (io->op == BDEV_FLUSH && !nvme_ctrl_has_write_cache(lane->ctrl))
		io->result = lane->queue->ended ? -ENODEV : 0;
	else
		goto send;
	io->done(io);
	return;
send:
	list_add_tail(&s->ios, &io->node);
	if (s->ios.next != &io->node)
		return;
	list_add_tail(&lane->ready, &s->node);
	issue(lane);
}

void nvme_stream_init(struct nvme_stream *s, struct nvme_lane *lane,
		      const struct nvme_target *target)
{
	*s = (struct nvme_stream){.lane = lane, .target = target};
	list_init(&s->node);
	list_init(&s->ios);
}

/* The lane */

static void free_lane(struct nvme_lane *lane)
{
	for (int i = 0; i < BOUNCE_BUFFERS; i++)
		dma_free(lane->dma, &lane->bounce[i]);
	nvme_slots_fini(&lane->slots);
	free(lane->cmds);
	free(lane);
}

uint32_t nvme_lane_pages(uint32_t cmds, uint32_t max)
{
	return nvme_slots_pages(cmds, max) + BOUNCE_BUFFERS * BOUNCE_PAGES;
}

static int create_lane(struct nvme_ctrl *c, struct nvme_queue *q, struct nvme_lane **out,
		       struct err *err)
{
	struct nvme_lane *lane = calloc(1, sizeof(*lane));
	uint32_t cmds = nvme_queue_depth(q);
	int rc = 0;

	if (!lane)
		return err_set(err, -ENOMEM, "no memory left for a queue of a drive");
	lane->queue = q;
	lane->dma = nvme_ctrl_dma(c);
	lane->limits = nvme_ctrl_limits(c);
	lane->ctrl = c;
	lane->slots.dma = lane->dma;
	list_init(&lane->ready);
	list_init(&lane->starved);
	lane->cmds = calloc(cmds, sizeof(*lane->cmds));
	if (!lane->cmds)
		rc = err_set(err, -ENOMEM, "no memory left for a queue of a drive");
	for (int i = 0; i < BOUNCE_BUFFERS && !rc; i++)
		rc = dma_alloc(lane->dma, BOUNCE_PAGES, false, &lane->bounce[i], err);
	if (!rc)
		rc = nvme_slots_init(&lane->slots, lane->dma, cmds, lane->limits->max_transfer,
				     err);
	if (rc) {
		free_lane(lane);
		return rc;
	}
	for (uint32_t i = cmds; i--;) {
		struct cmd *cmd = &lane->cmds[i];

		cmd->req.done = cmd_done;
		cmd->list = nvme_slot_virt(&lane->slots, i);
		cmd->list_bus = nvme_slot_bus(&lane->slots, i);
		free_cmd(lane, cmd);
	}
	*out = lane;
	return 0;
}

int nvme_lane_open(struct nvme_ctrl *c, struct reactor *r, struct nvme_lane **out, struct err *err)
{
	struct nvme_queue *q;
	int rc = nvme_ctrl_open_queue(c, r, &q);

	if (rc == -EBUSY)
		return err_set(err, rc,
			       "%s has fewer queues than there are reactors: start sluiced with "
			       "a smaller --cpumask",
			       nvme_ctrl_name(c));
	if (rc)
		return err_set(err, rc, "%s has failed or is gone", nvme_ctrl_name(c));
	if (!q->lane)
		rc = create_lane(c, q, &q->lane, err);
	if (rc) {
		nvme_queue_close(q);
		return rc;
	}
	q->lane->users++;
	*out = q->lane;
	return 0;
}

void nvme_lane_close(struct nvme_lane *lane)
{
	struct nvme_queue *q = lane->queue;

	if (!--lane->users) {
		q->lane = NULL;
		free_lane(lane);
	}
	nvme_queue_close(q);
}
