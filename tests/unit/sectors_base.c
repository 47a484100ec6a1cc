/* SPDX-License-Identifier: BSD-2-Clause */
#include "sectors_base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct base base;

static void base_do(struct bdev_io *io, int result)
{
	char *at = base.data + io->offset;

	pthread_mutex_lock(&base.lock);
	for (int i = 0; !result && io->op == BDEV_READ && i < io->iovcnt;
	     at += io->iov[i++].iov_len)
		memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
	for (int i = 0; !result && io->op == BDEV_WRITE && i < io->iovcnt;
	     at += io->iov[i++].iov_len)
		memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
	if (!result && io->op == BDEV_DISCARD)
		memset(at, 0, io->len);
	pthread_mutex_unlock(&base.lock);
	io->result = result;
	io->done(io);
}

void base_end(struct base_channel *c, unsigned i, int result)
{
	struct bdev_io *io = c->held[i];

	assert_true(i < c->held_len);
	memmove(c->held + i, c->held + i + 1, (--c->held_len - i) * sizeof(c->held[0]));
	base_do(io, result);
}

/* Ends one held io in two polls, any of them. */
static int base_poll(struct poller *p)
{
	struct base_channel *c = container_of(p, struct base_channel, poller);

	if (!c->held_len)
		return 0;
	if (rand_r(&c->seed) % 2)
		base_end(c, (unsigned)rand_r(&c->seed) % c->held_len, 0);
	return 1;
}

static bool base_arm(struct poller *p)
{
	return container_of(p, struct base_channel, poller)->held_len;
}

static int base_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	struct base_channel *c;

	if (base.refuse_channels)
		return -EMFILE;
	c = calloc(1, sizeof(*c));
	assert_non_null(c);
	c->seed = ++base.channels;
	if (r) {
		c->polled = true;
		c->poller.name = "base";
		c->poller.poll = base_poll;
		c->poller.arm = base_arm;
		reactor_poller_add(r, &c->poller);
	}
	*ch = &c->ch;
	return 0;
}

static void base_channel_close(struct bdev_channel *ch)
{
	struct base_channel *c = container_of(ch, struct base_channel, ch);

	assert_int_equal(c->held_len, 0);
	if (c->polled)
		reactor_poller_del(&c->poller);
	free(c);
}

static void base_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct base_channel *c = container_of(ch, struct base_channel, ch);

	assert_true(c->held_len < HELD_MAX);
	c->held[c->held_len++] = io;
	if (c->held_len > c->held_most)
		c->held_most = c->held_len;
	if (c->polled)
		reactor_poller_wake(&c->poller);
}

static void base_destroy(struct bdev *b)
{
	free(base.data);
}

static const struct bdev_ops base_ops = {
	.product = "base",
	.destroy = base_destroy,
	.channel_open = base_channel_open,
	.channel_close = base_channel_close,
	.submit = base_submit,
};

struct bdev *base_register(const struct bdev_limits *limits)
{
	struct bdev *view;
	struct err err;

	memset(&base, 0, sizeof(base));
	pthread_mutex_init(&base.lock, NULL);
	base.data = calloc(BASE_BLOCKS, BLOCK);
	assert_non_null(base.data);
	strcpy(base.bdev.name, "base");
	base.bdev.ops = &base_ops;
	base.bdev.size = BASE_BLOCKS * BLOCK;
	base.bdev.limits = *limits;
	base.bdev.limits.block_size = BLOCK;
	assert_int_equal(bdev_register(&base.bdev, &err), 0);
	view = bdev_sectors(&base.bdev);
	assert_ptr_not_equal(view, &base.bdev);
	return view;
}

const struct bdev_limits base_usual = {
	.physical_block_size = BLOCK,
	.mem_align = 512,
	.max_iov = 8,
	.discard = true,
	.secure_discard = true,
};

struct base_channel *base_last_channel;

static int note_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	int rc = base_channel_open(b, r, ch);

	if (!rc)
		base_last_channel = container_of(*ch, struct base_channel, ch);
	return rc;
}

static const struct bdev_ops noting_ops = {
	.product = "base",
	.destroy = base_destroy,
	.channel_open = note_channel_open,
	.channel_close = base_channel_close,
	.submit = base_submit,
};

struct bdev_channel *base_open_by_hand(const struct bdev_limits *limits)
{
	struct bdev *view = base_register(limits);
	struct bdev_channel *ch;

	base.bdev.ops = &noting_ops;
	assert_int_equal(bdev_channel_open(view, NULL, &ch), 0);
	return ch;
}
