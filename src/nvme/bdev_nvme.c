/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nvme: from bdev_io to commands.
 *
 * An io of any size and shape becomes as many commands as it takes, one after the other: each is as
 * long as the controller, the namespace's boundaries and the memory's gaps allow.  Only the first
 * io in line is being cut at any time, so that one cursor a channel is all there is to remember;
 * those behind it wait when commands run out.
 *
 * The device reaches device memory (dma.h) where it lies.  Other memory, and a block that lies
 * across a gap, go through bounce pages of the channel's own.
 */
#include "nvme/bdev_nvme.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* Two, so that one is being filled while the other is with the drive. */
	BOUNCE_BUFFERS = 2,
	BOUNCE_PAGES = 16,
	PIECES_MAX = NVME_PRP_MAX / DMA_PAGE_SIZE + 1,
};

/*
 * Bytes of one discard. A drive may take long over a large one, and a command has 30 seconds for
 * all it does.
 */
#define DISCARD_MAX (4ULL << 30)

/* In an io's scratch word, above the number of its commands under way: there will be no more. */
#define SENT (1ULL << 32)

struct bdev_nvme {
	struct bdev bdev;
	struct nvme_ctrl *ctrl;
	uint32_t nsid;
	unsigned shift; /* log2 of the block size */
	uint32_t stripe;
};

/* A place in an io's pieces. */
struct cursor {
	int iov;
	size_t skip; /* bytes of that piece */
};

struct cmd {
	struct nvme_req req;
	struct nvme_channel *ch;
	struct bdev_io *io;
	struct list node;
	uint32_t slot; /* of the pool of lists; always the same */
	int bounce;    /* buffer, or -1 */
	struct cursor at;
	uint32_t len;
};

struct nvme_channel {
	struct bdev_channel ch;
	struct bdev_nvme *nvme;
	struct nvme_queue *queue;
	struct nvme_prp_limits limits;
	struct nvme_prp_pool lists;
	struct cmd *cmds;
	struct list free; /* commands */
	struct list ios;  /* not all of whose commands have been sent */
	struct cursor at; /* in the first of them */
	uint64_t sent;    /* bytes of it */
	struct dma_memory bounce[BOUNCE_BUFFERS];
	bool bounce_used[BOUNCE_BUFFERS];
	struct dma_piece pieces[PIECES_MAX];
};

static struct nvme_channel *channel_of(struct bdev_channel *ch)
{
	return container_of(ch, struct nvme_channel, ch);
}

static struct bdev_nvme *nvme_of(const struct bdev *b)
{
	return container_of(b, struct bdev_nvme, bdev);
}

/* Cursors */

static size_t left_here(const struct bdev_io *io, const struct cursor *at)
{
	return io->iov[at->iov].iov_len - at->skip;
}

static char *address(const struct bdev_io *io, const struct cursor *at)
{
	return (char *)io->iov[at->iov].iov_base + at->skip;
}

static void advance(const struct bdev_io *io, struct cursor *at, size_t len)
{
	for (at->skip += len; at->iov < io->iovcnt && at->skip >= io->iov[at->iov].iov_len;)
		at->skip -= io->iov[at->iov++].iov_len;
}

/* Bytes from @at to the end of its piece or of its page. */
static size_t left_in_page(const struct bdev_io *io, const struct cursor *at)
{
	size_t page = DMA_PAGE_SIZE - (uintptr_t)address(io, at) % DMA_PAGE_SIZE;
	size_t here = left_here(io, at);

	return here < page ? here : page;
}

/* Copies @len bytes between the io's pieces from @at on and @buffer. */
static void copy(const struct bdev_io *io, struct cursor at, char *buffer, size_t len, bool to_io)
{
	while (len) {
		size_t here = left_here(io, &at);

		here = here < len ? here : len;
		if (to_io)
			memcpy(address(io, &at), buffer, here);
		else
			memcpy(buffer, address(io, &at), here);
		buffer += here;
		len -= here;
		advance(io, &at, here);
	}
}

/* Describes the io's memory from @at on, as far as the device reaches it; returns the pieces. */
static size_t gather(struct nvme_channel *ch, const struct bdev_io *io, struct cursor at)
{
	const struct dma *dma = nvme_ctrl_dma(ch->nvme->ctrl);
	uint32_t total = 0;
	size_t n = 0;

	while (at.iov < io->iovcnt && total < ch->limits.max) {
		size_t here = left_in_page(io, &at);
		uint64_t bus = dma_translate(dma, address(io, &at));
		struct dma_piece *last = n ? &ch->pieces[n - 1] : NULL;

		if (bus == DMA_NO_BUS)
			break;
		if (last && bus % DMA_PAGE_SIZE && bus == last->bus + last->len) {
			last->len += (uint32_t)here;
		} else {
			if (n == PIECES_MAX)
				break;
			ch->pieces[n++] = (struct dma_piece){bus, (uint32_t)here};
		}
		total += (uint32_t)here;
		advance(io, &at, here);
	}
	return n;
}

/* Bytes from the cursor on that the device does not reach, a buffer's worth at most. */
static uint32_t unreachable(const struct nvme_channel *ch, const struct bdev_io *io)
{
	const struct dma *dma = nvme_ctrl_dma(ch->nvme->ctrl);
	struct cursor at = ch->at;
	size_t len = 0, max = (size_t)BOUNCE_PAGES * DMA_PAGE_SIZE;

	while (at.iov < io->iovcnt && len < max &&
	       dma_translate(dma, address(io, &at)) == DMA_NO_BUS) {
		size_t here = left_in_page(io, &at);

		len += here;
		advance(io, &at, here);
	}
	return (uint32_t)(len < max ? len : max);
}

/* Commands */

static void issue(struct nvme_channel *ch);

static void cmd_done(struct nvme_req *req)
{
	struct cmd *cmd = container_of(req, struct cmd, req);
	struct nvme_channel *ch = cmd->ch;
	struct bdev_io *io = cmd->io;

	if (cmd->bounce >= 0) {
		if (io->op == BDEV_READ && !req->error)
			copy(io, cmd->at, ch->bounce[cmd->bounce].virt, cmd->len, true);
		ch->bounce_used[cmd->bounce] = false;
	}
	if (req->error && !io->result)
		io->result = req->error;
	list_add_head(&ch->free, &cmd->node);
	io->scratch--;
	/* Before the io's end, as its owner may close the channel then. */
	issue(ch);
	if (io->scratch == SENT)
		io->done(io);
}

static void send(struct nvme_channel *ch, struct cmd *cmd)
{
	list_del(&cmd->node);
	cmd->io->scratch++;
	cmd->req.sqe.nsid = ch->nvme->nsid;
	nvme_queue_submit(ch->queue, &cmd->req);
}

static void set_range(struct nvme_channel *ch, struct cmd *cmd, uint8_t opcode, uint32_t len)
{
	uint64_t lba = (cmd->io->offset + ch->sent) >> ch->nvme->shift;

	cmd->req.sqe.opcode = opcode;
	cmd->req.sqe.cdw10 = (uint32_t)lba;
	cmd->req.sqe.cdw11 = (uint32_t)(lba >> 32);
	cmd->req.sqe.cdw12 = (len >> ch->nvme->shift) - 1;
}

static int take_bounce(struct nvme_channel *ch)
{
	for (int i = 0; i < BOUNCE_BUFFERS; i++) {
		if (ch->bounce_used[i])
			continue;
		ch->bounce_used[i] = true;
		return i;
	}
	return -1;
}

/* Describes a bounce buffer of @len bytes. */
static size_t gather_bounce(struct nvme_channel *ch, int bounce, uint32_t len)
{
	size_t n = 0;

	for (; len; n++) {
		uint32_t here = len < DMA_PAGE_SIZE ? len : DMA_PAGE_SIZE;

		ch->pieces[n] = (struct dma_piece){ch->bounce[bounce].bus[n], here};
		len -= here;
	}
	return n;
}

/* Sends the next command of a READ or WRITE; false: it waits for a bounce buffer. */
static bool send_data(struct nvme_channel *ch, struct bdev_io *io, struct cmd *cmd)
{
	size_t n = gather(ch, io, ch->at);
	uint64_t offset = io->offset + ch->sent;
	uint32_t len = n ? nvme_prp_cut(ch->pieces, n, 0, offset, &ch->limits) : 0;

	if (!len) {
		/* Memory of somebody else's, or a block across a gap. */
		uint32_t want = unreachable(ch, io);

		if (want < ch->limits.block_size)
			want = ch->limits.block_size;
		cmd->bounce = take_bounce(ch);
		if (cmd->bounce < 0)
			return false;
		n = gather_bounce(ch, cmd->bounce, want);
		len = nvme_prp_cut(ch->pieces, n, 0, offset, &ch->limits);
		if (io->op == BDEV_WRITE)
			copy(io, ch->at, ch->bounce[cmd->bounce].virt, len, false);
	}
	cmd->at = ch->at;
	cmd->len = len;
	nvme_prp_build(ch->pieces, 0, len, &cmd->req.sqe, nvme_prp_pool_virt(&ch->lists, cmd->slot),
		       nvme_prp_pool_bus(&ch->lists, cmd->slot));
	set_range(ch, cmd, io->op == BDEV_READ ? NVME_CMD_READ : NVME_CMD_WRITE, len);
	send(ch, cmd);
	ch->sent += len;
	advance(io, &ch->at, len);
	return true;
}

static void send_discard(struct nvme_channel *ch, struct bdev_io *io, struct cmd *cmd)
{
	struct nvme_dsm_range *range = nvme_prp_pool_virt(&ch->lists, cmd->slot);

	*range = (struct nvme_dsm_range){
		.blocks = (uint32_t)(io->len >> ch->nvme->shift),
		.lba = io->offset >> ch->nvme->shift,
	};
	cmd->req.sqe.opcode = NVME_CMD_DSM;
	cmd->req.sqe.prp1 = nvme_prp_pool_bus(&ch->lists, cmd->slot);
	cmd->req.sqe.cdw11 = NVME_DSM_DEALLOCATE;
	send(ch, cmd);
	ch->sent = io->len;
}

/* Sends the first io's next command; false: it waits for something. */
static bool send_next(struct nvme_channel *ch, struct bdev_io *io)
{
	struct cmd *cmd = list_entry(ch->free.next, struct cmd, node);

	cmd->io = io;
	cmd->bounce = -1;
	cmd->req.sqe = (struct nvme_sqe){0};
	switch (io->op) {
	case BDEV_READ:
	case BDEV_WRITE:
		return send_data(ch, io, cmd);
	case BDEV_DISCARD:
		send_discard(ch, io, cmd);
		break;
	case BDEV_FLUSH:
		cmd->req.sqe.opcode = NVME_CMD_FLUSH;
		send(ch, cmd);
		break;
	}
	return true;
}

/* The drive is gone: nothing more is sent. What is under way ends by itself. */
static void give_up(struct nvme_channel *ch)
{
	struct list ended, *pos, *tmp;

	list_init(&ended);
	list_for_each_safe (pos, tmp, &ch->ios) {
		struct bdev_io *io = list_entry(pos, struct bdev_io, node);

		list_del(pos);
		if (!io->result)
			io->result = -ENODEV;
		if (!io->scratch)
			list_add_tail(&ended, pos);
		io->scratch |= SENT;
	}
	/* The last of them may be the channel's end. */
	while ((pos = list_pop(&ended))) {
		struct bdev_io *io = list_entry(pos, struct bdev_io, node);

		io->done(io);
	}
}

static void issue(struct nvme_channel *ch)
{
	if (ch->queue->ended) {
		give_up(ch);
		return;
	}
	while (!list_empty(&ch->ios) && !list_empty(&ch->free)) {
		struct bdev_io *io = list_entry(ch->ios.next, struct bdev_io, node);

		/* After an error the rest is not worth the while; what failed it is still running,
		 * or has just ended and is about to look. */
		if (!io->result && !send_next(ch, io))
			return;
		if (!io->result && ch->sent < io->len && io->op != BDEV_FLUSH)
			continue;
		list_del(&io->node);
		ch->at = (struct cursor){0};
		ch->sent = 0;
		io->scratch |= SENT;
	}
}

static void nvme_submit(struct bdev_channel *bch, struct bdev_io *io)
{
	struct nvme_channel *ch = channel_of(bch);

	io->result = 0;
	io->scratch = 0;
	/* What a drive without a cache has completed is durable. */
	if (io->op == BDEV_FLUSH && !bch->bdev->limits.write_cache) {
		io->result = ch->queue->ended ? -ENODEV : 0;
		io->done(io);
		return;
	}
	list_add_tail(&ch->ios, &io->node);
	issue(ch);
}

/* Channels */

static void free_channel(struct nvme_channel *ch)
{
	struct dma *dma = nvme_ctrl_dma(ch->nvme->ctrl);

	for (int i = 0; i < BOUNCE_BUFFERS; i++)
		dma_free(dma, &ch->bounce[i]);
	free(ch->cmds);
	free(ch);
}

static int nvme_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **out)
{
	struct bdev_nvme *nvme = nvme_of(b);
	struct dma *dma = nvme_ctrl_dma(nvme->ctrl);
	struct nvme_channel *ch = calloc(1, sizeof(*ch));
	uint32_t cmds;
	struct err err;
	int rc;

	if (!ch)
		return -ENOMEM;
	ch->nvme = nvme;
	list_init(&ch->free);
	list_init(&ch->ios);
	ch->limits.max = nvme_ctrl_max_transfer(nvme->ctrl);
	ch->limits.block_size = b->limits.block_size;
	ch->limits.stripe = nvme->stripe;
	rc = nvme_ctrl_open_queue(nvme->ctrl, r, &ch->queue);
	if (rc) {
		free(ch);
		return rc;
	}
	cmds = ch->queue->qp.entries - 1u;
	ch->cmds = calloc(cmds, sizeof(*ch->cmds));
	err_set(&err, -ENOMEM, "no memory left");
	rc = ch->cmds ? 0 : -ENOMEM;
	for (int i = 0; i < BOUNCE_BUFFERS && !rc; i++)
		rc = dma_alloc(dma, BOUNCE_PAGES, false, &ch->bounce[i], &err);
	if (!rc)
		rc = nvme_prp_pool_init(&ch->lists, dma, cmds, ch->limits.max, &err);
	if (rc) {
		log_error("bdev \"%s\": %s", b->name, err.text);
		nvme_queue_close(ch->queue);
		free_channel(ch);
		return rc;
	}
	for (uint32_t i = 0; i < cmds; i++) {
		struct cmd *cmd = &ch->cmds[i];

		cmd->ch = ch;
		cmd->req.done = cmd_done;
		cmd->slot = nvme_prp_pool_take(&ch->lists);
		list_add_tail(&ch->free, &cmd->node);
	}
	*out = &ch->ch;
	return 0;
}

static void nvme_channel_close(struct bdev_channel *bch)
{
	struct nvme_channel *ch = channel_of(bch);

	nvme_queue_close(ch->queue);
	nvme_prp_pool_fini(&ch->lists);
	free_channel(ch);
}

/* The bdev */

static void nvme_destroy(struct bdev *b)
{
	free(nvme_of(b));
}

static json_t *nvme_config(const struct bdev *b, const char **method)
{
	const struct bdev_nvme *nvme = nvme_of(b);

	*method = "bdev_nvme_attach_controller";
	return json_pack("{s:s, s:s, s:s, s:I}", "name", b->name, "trtype", "PCIe", "traddr",
			 nvme_ctrl_name(nvme->ctrl), "nsid", (json_int_t)nvme->nsid);
}

static const struct bdev_ops nvme_ops = {
	.product = "nvme",
	.destroy = nvme_destroy,
	.channel_open = nvme_channel_open,
	.channel_close = nvme_channel_close,
	.submit = nvme_submit,
	.config = nvme_config,
};

static int check_namespace(const struct nvme_ctrl *ctrl, uint32_t nsid, struct err *err)
{
	const struct nvme_namespace *ns = nvme_ctrl_namespace(ctrl, nsid);
	const char *name = nvme_ctrl_name(ctrl);

	if (nvme_ctrl_state(ctrl) == NVME_DEAD)
		return err_set(err, -ENODEV, "%s: the drive has failed or is gone", name);
	if (!ns)
		return err_set(err, -ENOENT,
			       "%s has no active namespace %u: attach one with \"nvme attach-ns\", "
			       "or choose another",
			       name, nsid);
	if ((ns->block_size != 512 && ns->block_size != 4096) || ns->metadata || ns->protection)
		return err_set(err, -EOPNOTSUPP,
			       "namespace %u of %s has blocks of %u bytes and %u of metadata%s: "
			       "give it a format of 512 or 4096 and none with \"nvme format\"",
			       nsid, name, ns->block_size, ns->metadata,
			       ns->protection ? ", protected" : "");
	return bdev_check_shape(
		ns->blocks > INT64_MAX / ns->block_size ? UINT64_MAX : ns->blocks * ns->block_size,
		ns->block_size, err);
}

int bdev_nvme_create(const char *name, struct nvme_ctrl *ctrl, uint32_t nsid, struct bdev **out,
		     struct err *err)
{
	const struct nvme_namespace *ns;
	struct bdev_nvme *nvme = calloc(1, sizeof(*nvme));
	struct bdev *b;
	int rc;

	if (!nvme)
		return err_set(err, -ENOMEM, "no memory left for a bdev");
	b = &nvme->bdev;
	rc = bdev_set_name(b, name, err);
	if (!rc)
		rc = check_namespace(ctrl, nsid, err);
	if (rc)
		goto fail;
	ns = nvme_ctrl_namespace(ctrl, nsid);
	nvme->ctrl = ctrl;
	nvme->nsid = nsid;
	nvme->shift = (unsigned)__builtin_ctz(ns->block_size);
	nvme->stripe = ns->stripe;
	b->ops = &nvme_ops;
	b->size = ns->blocks * ns->block_size;
	b->readonly = ns->readonly;
	b->limits.block_size = ns->block_size;
	b->limits.physical_block_size = ns->block_size;
	b->limits.mem_align = 4;
	b->limits.write_cache = nvme_ctrl_identity(ctrl)->vwc & NVME_VWC_PRESENT;
	b->limits.discard = nvme_ctrl_identity(ctrl)->oncs & NVME_ONCS_DSM;
	b->limits.discard_max = DISCARD_MAX;
	b->limits.discard_granularity = ns->block_size;
	rc = bdev_register(b, err);
	if (rc)
		goto fail;
	if (out)
		*out = b;
	return 0;
fail:
	free(nvme);
	return rc;
}

void bdev_nvme_update(struct nvme_ctrl *ctrl)
{
	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b)) {
		const struct nvme_namespace *ns;
		uint64_t size;

		if (b->ops != &nvme_ops || nvme_of(b)->ctrl != ctrl)
			continue;
		ns = nvme_ctrl_namespace(ctrl, nvme_of(b)->nsid);
		if (!ns || ns->block_size != b->limits.block_size ||
		    ns->blocks > INT64_MAX / ns->block_size) {
			log_error(
				"bdev \"%s\": its namespace is gone or has another format: detach "
				"its disk, and create it anew",
				b->name);
			continue;
		}
		size = ns->blocks * ns->block_size;
		if (size < b->size)
			log_error("bdev \"%s\": its namespace has shrunk: what lies behind its end "
				  "fails",
				  b->name);
		else if (size > b->size)
			bdev_set_size(b, size);
	}
}
