/* SPDX-License-Identifier: BSD-2-Clause */
#include "nvme/bdev_nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/lane.h"

/*
 * Bytes of one discard, or of one stretch of zeroes. A drive may take long over a large one, and a
 * command has 30 seconds for all it does.
 */
#define DISCARD_MAX (4ULL << 30)
#define ZEROES_MAX  (256ULL << 20)

struct bdev_nvme {
	struct bdev bdev;
	struct nvme_ctrl *ctrl;
	struct nvme_target target;
	struct nvme_ns_id id;
	bool gone;
};

struct nvme_channel {
	struct bdev_channel ch;
	struct nvme_stream stream;
};

static struct nvme_channel *channel_of(struct bdev_channel *ch)
{
	return container_of(ch, struct nvme_channel, ch);
}

static struct bdev_nvme *nvme_of(const struct bdev *b)
{
	return container_of(b, struct bdev_nvme, bdev);
}

static void nvme_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	nvme_stream_submit(&channel_of(ch)->stream, io);
}

static int nvme_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **out)
{
	struct nvme_channel *ch = calloc(1, sizeof(*ch));
	struct bdev_nvme *nvme = nvme_of(b);
	struct nvme_lane *lane;
	struct err err;
	int rc;

	if (!ch)
		return -ENOMEM;
	rc = nvme_lane_open(nvme->ctrl, r, &lane, &err);
	if (rc) {
		log_error("bdev \"%s\": %s", b->name, err.text);
		free(ch);
		return rc;
	}
	nvme_stream_init(&ch->stream, lane, &nvme->target);
	*out = &ch->ch;
	return 0;
}

static void nvme_channel_close(struct bdev_channel *bch)
{
	struct nvme_channel *ch = channel_of(bch);

	nvme_lane_close(ch->stream.lane);
	free(ch);
}

static void nvme_destroy(struct bdev *b)
{
	free(nvme_of(b));
}

static json_t *nvme_config(const struct bdev *b, const char **method)
{
	const struct bdev_nvme *nvme = nvme_of(b);

	*method = "bdev_nvme_attach_controller";
	return json_pack("{s:s, s:s, s:s, s:I}", "name", b->name, "trtype", "PCIe", "traddr",
			 nvme_ctrl_name(nvme->ctrl), "nsid", (json_int_t)nvme->target.nsid);
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

static void set_limits(struct bdev_limits *limits, const struct nvme_ctrl *ctrl,
		       uint32_t block_size)
{
	const struct nvme_id_ctrl *id = nvme_ctrl_identity(ctrl);

	limits->block_size = block_size;
	limits->physical_block_size = block_size;
	limits->mem_align = 4;
	/* If it is off now, it may be on after a reset. */
	limits->write_cache = id->vwc & NVME_VWC_PRESENT;
	limits->discard = id->oncs & NVME_ONCS_DSM;
	limits->discard_max = DISCARD_MAX;
	limits->discard_granularity = block_size;
	limits->write_zeroes_max = id->oncs & NVME_ONCS_ZEROES ? ZEROES_MAX : 0;
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
	nvme->id = ns->id;
	nvme->target = (struct nvme_target){
		.nsid = nsid,
		.shift = (unsigned)__builtin_ctz(ns->block_size),
		.stripe = ns->stripe,
		.gone = &nvme->gone,
	};
	b->ops = &nvme_ops;
	b->dma = nvme_ctrl_dma(ctrl);
	b->size = ns->blocks * ns->block_size;
	b->readonly = ns->readonly;
	set_limits(&b->limits, ctrl, ns->block_size);
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

int bdev_nvme_create_part(const char *name, struct bdev *whole, uint64_t start, uint64_t size,
			  struct bdev **out, struct err *err)
{
	uint32_t mask = whole->limits.block_size - 1;
	struct bdev_nvme *nvme;
	struct bdev *b;
	int rc;

	if (whole->ops != &nvme_ops || whole->whole)
		return err_set(err, -EINVAL, "bdev \"%s\" is no NVMe namespace: it has no parts",
			       whole->name);
	if (!size || (start | size) & mask || start > whole->size || size > whole->size - start)
		return err_set(err, -EINVAL,
			       "bytes %" PRIu64 " to %" PRIu64 " of bdev \"%s\" are not whole "
			       "blocks within its %" PRIu64 ": repair the partition table",
			       start, start + size, whole->name, whole->size);
	nvme = calloc(1, sizeof(*nvme));
	if (!nvme)
		return err_set(err, -ENOMEM, "no memory left for a bdev");
	nvme->ctrl = nvme_of(whole)->ctrl;
	nvme->id = nvme_of(whole)->id;
	nvme->target = nvme_of(whole)->target;
	nvme->target.start = start;
	nvme->target.gone = &nvme->gone;
	nvme->gone = nvme_of(whole)->gone;
	b = &nvme->bdev;
	b->ops = &nvme_ops;
	b->dma = whole->dma;
	b->size = size;
	b->limits = whole->limits;
	b->readonly = whole->readonly;
	b->shared = whole->shared;
	b->whole = whole;
	rc = bdev_set_name(b, name, err);
	if (!rc)
		rc = bdev_register(b, err);
	if (rc) {
		free(nvme);
		return rc;
	}
	if (out)
		*out = b;
	return 0;
}

static void set_gone(struct bdev_nvme *nvme, const char *why)
{
	if (nvme->gone)
		return;
	log_error("bdev \"%s\": %s: all its I/O fails; detach its disk, and create it anew",
		  nvme->bdev.name, why);
	/* Pairs with the acquire in nvme_stream_submit(). */
	__atomic_store_n(&nvme->gone, true, __ATOMIC_RELEASE);
}

static void update(struct bdev_nvme *nvme)
{
	const struct nvme_namespace *ns = nvme_ctrl_namespace(nvme->ctrl, nvme->target.nsid);
	struct bdev *b = &nvme->bdev;
	uint64_t size, end = nvme->target.start + b->size;

	if (!ns) {
		set_gone(nvme, "its namespace is gone");
		return;
	}
	/* To another's blocks, or with blocks of another size, nothing may be written. */
	if (memcmp(&ns->id, &nvme->id, sizeof(ns->id)) || ns->block_size != b->limits.block_size ||
	    ns->metadata || ns->protection || ns->blocks > INT64_MAX / ns->block_size) {
		set_gone(nvme, "its namespace is another one now, or has another format");
		return;
	}
	size = ns->blocks * ns->block_size;
	if (size < end)
		log_error("bdev \"%s\": its namespace has shrunk: what lies behind its end fails",
			  b->name);
	else if (size > end && !b->whole)
		bdev_set_size(b, size);
}

void bdev_nvme_update(struct nvme_ctrl *ctrl)
{
	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b))
		if (bdev_nvme_ctrl(b) == ctrl)
			update(nvme_of(b));
}

struct nvme_ctrl *bdev_nvme_ctrl(const struct bdev *b)
{
	return b->ops == &nvme_ops ? nvme_of(b)->ctrl : NULL;
}

uint32_t bdev_nvme_nsid(const struct bdev *b)
{
	return nvme_of(b)->target.nsid;
}

uint64_t bdev_nvme_start(const struct bdev *b)
{
	return nvme_of(b)->target.start;
}
