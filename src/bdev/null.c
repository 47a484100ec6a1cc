/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * null: a device of any size that keeps nothing and completes at once; it shows what the way to a
 * device costs without the device.
 *
 * It could leave a read's buffers as they are and be faster still, but those buffers are a pool's,
 * and what lies in them is what an earlier request left: another guest's data.  So a read clears
 * them, and a null device reads as zeros for ever; as that is also what a restarted daemon would
 * serve, guests may outlive the daemon on it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"

static void null_destroy(struct bdev *b)
{
	free(b);
}

static int null_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	*ch = calloc(1, sizeof(**ch));
	return *ch ? 0 : -ENOMEM;
}

static void null_channel_close(struct bdev_channel *ch)
{
	free(ch);
}

static void null_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	if (io->op == BDEV_READ)
		for (int i = 0; i < io->iovcnt; i++)
			memset(io->iov[i].iov_base, 0, io->iov[i].iov_len);
	io->result = 0;
	io->done(io);
}

static int null_resize(struct bdev *b, uint64_t size, struct err *err)
{
	return 0;
}

static json_t *null_config(const struct bdev *b, const char **method)
{
	*method = "bdev_null_create";
	return json_pack("{s:s, s:I, s:I}", "name", b->name, "num_blocks",
			 (json_int_t)(b->size / b->limits.block_size), "block_size",
			 (json_int_t)b->limits.block_size);
}

static const struct bdev_ops null_ops = {
	.product = "null",
	.destroy = null_destroy,
	.channel_open = null_channel_open,
	.channel_close = null_channel_close,
	.submit = null_submit,
	.resize = null_resize,
	.config = null_config,
};

int bdev_null_create(const char *name, uint64_t size, uint32_t block_size, struct bdev **out,
		     struct err *err)
{
	struct bdev *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return err_set(err, -ENOMEM, "no memory left for a bdev");
	rc = bdev_set_name(b, name, err);
	if (!rc)
		rc = bdev_check_shape(size, block_size, err);
	if (rc)
		goto fail;
	b->ops = &null_ops;
	b->size = size;
	b->limits.block_size = block_size;
	b->limits.physical_block_size = block_size;
	b->limits.mem_align = 1;
	b->limits.discard = true;
	b->limits.discard_granularity = block_size;
	rc = bdev_register(b, err);
	if (rc)
		goto fail;
	if (out)
		*out = b;
	return 0;
fail:
	free(b);
	return rc;
}
