/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registry of bdevs, their claims, and the checks that every io passes before a provider
 * sees it.
 *
 * The checks stand here once, so that a provider may take an io at its word: its range lies inside
 * the device whatever 64-bit numbers it was made from, its pieces are aligned and add up, and
 * nothing that changes data reaches a read-only device.  They are a second fence: the queue that
 * decodes a guest's request has made its own, and an io that is refused here is a fault of ours
 * that must not become the next guest's data.
 */
#include "bdev/bdev.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/parse.h"
#include "bdev/sectors.h"
#include "bdev/watch.h"

static struct list bdevs = LIST_INIT(bdevs); /* by name */

static struct bdev *bdev_of(const struct list *node)
{
	return list_entry(node, struct bdev, node);
}

/* Whether @name can be the next bdev's; *@before is then the node it follows. */
static int check_name(const char *name, struct list **before, struct err *err)
{
	struct list *pos;

	if (!parse_name(name))
		return err_set(err, -EINVAL,
			       "\"%.64s\" is no name for a bdev: use 1 to 63 letters, digits and "
			       "_.:-, the first no - or .",
			       name);
	list_for_each (pos, &bdevs) {
		int order = strcmp(bdev_of(pos)->name, name);

		if (!order)
			return err_set(err, -EEXIST,
				       "there is a bdev \"%s\" already: choose another name, or "
				       "delete that one first",
				       name);
		if (order > 0)
			break;
	}
	*before = pos->prev;
	return 0;
}

int bdev_set_name(struct bdev *b, const char *name, struct err *err)
{
	struct list *before;
	int rc = check_name(name, &before, err);

	if (!rc)
		strcpy(b->name, name);
	return rc;
}

int bdev_check_shape(uint64_t size, uint32_t block_size, struct err *err)
{
	if (block_size != 512 && block_size != 4096)
		return err_set(err, -EINVAL, "a block size of %u is not served: use 512 or 4096",
			       block_size);
	if (!size || size > INT64_MAX || size % block_size)
		return err_set(err, -EINVAL,
			       "a size of %" PRIu64 " bytes is not served: use a multiple of the "
			       "block size, %u, above 0 and below 8 EiB",
			       size, block_size);
	return 0;
}

static struct list observers = {&observers, &observers};

void bdev_observe(struct bdev_observer *o)
{
	list_add_tail(&observers, &o->node);
}

void bdev_unobserve(struct bdev_observer *o)
{
	if (o->node.next)
		list_del(&o->node);
}

static void tell_changed(void)
{
	struct list *pos, *next;

	list_for_each_safe (pos, next, &observers) {
		struct bdev_observer *o = list_entry(pos, struct bdev_observer, node);

		if (o->changed)
			o->changed(o->arg);
	}
}

int bdev_register(struct bdev *b, struct err *err)
{
	static uint64_t last_id;
	struct list *before = NULL;
	int rc = check_name(b->name, &before, err);

	if (rc)
		return rc;
	b->sectors = NULL;
	if (b->limits.block_size != 512) {
		b->sectors = sectors_create(b);
		if (!b->sectors)
			return err_set(err, -ENOMEM, "no memory left for a bdev");
	}
	b->id = ++last_id;
	b->seen = (int64_t)b->size;
	b->claims = 0;
	b->channels = 0;
	list_insert(&b->node, before, before->next);
	tell_changed();
	return 0;
}

struct bdev *bdev_find(const char *name)
{
	struct list *pos;

	list_for_each (pos, &bdevs) {
		if (!strcmp(bdev_of(pos)->name, name))
			return bdev_of(pos);
	}
	return NULL;
}

struct bdev *bdev_next(const struct bdev *b)
{
	const struct list *node = b ? b->node.next : bdevs.next;

	return node == &bdevs ? NULL : bdev_of(node);
}

static void destroy(struct bdev *b)
{
	list_del(&b->node);
	if (b->sectors)
		sectors_destroy(b->sectors);
	b->ops->destroy(b);
}

/* Acquire: what a reactor did with its channel before it closed it is over for us too. */
static bool has_channels(const struct bdev *b)
{
	return __atomic_load_n(&b->channels, __ATOMIC_ACQUIRE);
}

/* A part of @b, a claimed one if @claimed; NULL: there is none. */
static const struct bdev *find_part(const struct bdev *b, bool claimed)
{
	struct list *pos;

	list_for_each (pos, &bdevs) {
		const struct bdev *part = bdev_of(pos);

		if (part->whole == b && (!claimed || part->claims))
			return part;
	}
	return NULL;
}

int bdev_delete(const char *name, struct err *err)
{
	struct bdev *b = bdev_find(name);
	const struct bdev *part;

	if (!b)
		return err_set(
			err, -ENOENT,
			"there is no bdev \"%s\": \"sluice bdev list\" shows those there are",
			name);
	if (b->claims || has_channels(b) || (b->sectors && has_channels(b->sectors)))
		return err_set(err, -EBUSY, "bdev \"%s\" is in use: detach its disk first", name);
	part = find_part(b, false);
	if (part)
		return err_set(err, -EBUSY, "bdev \"%s\" has a part, \"%s\": delete that first",
			       name, part->name);
	destroy(b);
	return 0;
}

void bdev_delete_all(void)
{
	while (!list_empty(&bdevs))
		destroy(bdev_of(bdevs.next));
}

int bdev_claim(struct bdev *b, bool write, bool shared, struct err *err)
{
	bool share = shared || b->shared;
	const struct bdev *part;

	if (write && b->readonly)
		return err_set(err, -EROFS, "bdev \"%s\" is read-only: attach it with --readonly",
			       b->name);
	if (b->claims && !(share && b->claims_shared))
		return err_set(err, -EBUSY,
			       "bdev \"%s\" is in use by another disk: detach that one first, or "
			       "attach both with --shared",
			       b->name);
	if (b->whole && b->whole->claims)
		return err_set(err, -EBUSY,
			       "bdev \"%s\" is a part of \"%s\", which is in use as a whole: "
			       "detach that disk first",
			       b->name, b->whole->name);
	part = find_part(b, true);
	if (part)
		return err_set(err, -EBUSY,
			       "bdev \"%s\" has a part, \"%s\", that is in use: detach that disk "
			       "first, or attach another part",
			       b->name, part->name);
	b->claims_shared = share;
	b->claims++;
	if (b->ops->probe_open)
		watch_wake();
	return 0;
}

void bdev_release(struct bdev *b)
{
	b->claims--;
	tell_changed();
}

void bdev_set_size(struct bdev *b, uint64_t size)
{
	struct list *pos, *next;

	/* Pairs with the acquire in bdev_get_size(). */
	__atomic_store_n(&b->size, size, __ATOMIC_RELEASE);
	if (b->sectors)
		__atomic_store_n(&b->sectors->size, size, __ATOMIC_RELEASE);
	list_for_each_safe (pos, next, &observers) {
		struct bdev_observer *o = list_entry(pos, struct bdev_observer, node);

		if (o->resized)
			o->resized(b, o->arg);
	}
}

int bdev_check_resize(const struct bdev *b, uint64_t size, struct err *err)
{
	int rc;

	if (!b->ops->resize)
		return err_set(err, -EOPNOTSUPP,
			       "bdev \"%s\" is as large as what is behind it: extend that, and "
			       "leave the size out here",
			       b->name);
	rc = bdev_check_shape(size, b->limits.block_size, err);
	if (rc)
		return rc;
	if (size < b->size)
		return err_set(err, -EINVAL,
			       "bdev \"%s\" has %" PRIu64
			       " bytes and cannot shrink: choose a larger size",
			       b->name, b->size);
	return 0;
}

int bdev_resize(struct bdev *b, uint64_t size, struct err *err)
{
	int rc = bdev_check_resize(b, size, err);

	if (rc || size == b->size)
		return rc;
	rc = b->ops->resize(b, size, err);
	if (rc)
		return rc;
	bdev_set_size(b, size);
	return 0;
}

struct bdev *bdev_sectors(struct bdev *b)
{
	return b->sectors ? b->sectors : b;
}

int bdev_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	int rc = b->ops->channel_open(b, r, ch);

	if (rc)
		return rc;
	(*ch)->bdev = b;
	(*ch)->reactor = r;
	__atomic_add_fetch(&b->channels, 1, __ATOMIC_RELAXED);
	return 0;
}

void bdev_channel_close(struct bdev_channel *ch)
{
	struct bdev *b = ch->bdev;

	b->ops->channel_close(ch);
	/* Release: pairs with the acquire in has_channels(). */
	__atomic_sub_fetch(&b->channels, 1, __ATOMIC_RELEASE);
}

static int check_range(const struct bdev *b, const struct bdev_io *io)
{
	uint64_t size = bdev_get_size(b);

	if (!io->len || (io->offset | io->len) & (b->limits.block_size - 1))
		return -EINVAL;
	/* In this form nothing can wrap. */
	if (io->offset > size || io->len > size - io->offset)
		return -EINVAL;
	return 0;
}

bool bdev_takes_pieces(const struct bdev *b, const struct bdev_io *io)
{
	const struct bdev_limits *limits = &b->limits;
	uint32_t odd = (limits->piece_align ? limits->piece_align : limits->block_size) - 1;
	uint64_t done = 0, end = 0;

	if (!b->dma || (io->offset | io->len) & odd)
		return false;
	for (uint32_t i = 0; i < io->nr_pieces; i++) {
		const struct dma_piece *piece = &io->pieces[i];

		if (!piece->len || piece->len % 512 || piece->bus % 4 ||
		    piece->len > DMA_PAGE_SIZE - piece->bus % DMA_PAGE_SIZE ||
		    piece->len > io->len - done)
			return false;
		/* All runs of pieces before this one are as they should, or we were not here. */
		if (i && (end | piece->bus) % DMA_PAGE_SIZE && done & odd)
			return false;
		end = piece->bus + piece->len;
		done += piece->len;
	}
	return done == io->len;
}

static int check_data(const struct bdev *b, const struct bdev_io *io)
{
	const struct bdev_limits *limits = &b->limits;
	uint64_t left = io->len;

	if (limits->max_io && io->len > limits->max_io)
		return -EINVAL;
	if (io->pieces)
		return !io->iov && bdev_takes_pieces(b, io) ? 0 : -EINVAL;
	if (limits->max_iov && io->iovcnt > (int)limits->max_iov)
		return -EINVAL;
	for (int i = 0; i < io->iovcnt; i++) {
		const struct iovec *iov = &io->iov[i];

		if ((uintptr_t)iov->iov_base & (limits->mem_align - 1) ||
		    iov->iov_len & (limits->block_size - 1) || iov->iov_len > left)
			return -EINVAL;
		left -= iov->iov_len;
	}
	return left ? -EINVAL : 0;
}

static int check_io(const struct bdev *b, const struct bdev_io *io)
{
	int rc;

	switch (io->op) {
	case BDEV_FLUSH:
		return 0;
	case BDEV_READ:
	case BDEV_WRITE:
		if (io->op == BDEV_WRITE && b->readonly)
			return -EROFS;
		rc = check_range(b, io);
		return rc ? rc : check_data(b, io);
	case BDEV_DISCARD:
		if (b->readonly)
			return -EROFS;
		if (!b->limits.discard || (io->secure && !b->limits.secure_discard))
			return -EOPNOTSUPP;
		if (b->limits.discard_max && io->len > b->limits.discard_max)
			return -EINVAL;
		return check_range(b, io);
	case BDEV_WRITE_ZEROES:
		if (b->readonly)
			return -EROFS;
		if (!b->limits.write_zeroes_max)
			return -EOPNOTSUPP;
		return io->len > b->limits.write_zeroes_max ? -EINVAL : check_range(b, io);
	}
	return -EINVAL;
}

void bdev_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	int rc = check_io(ch->bdev, io);

	io->ch = ch;
	if (rc) {
		io->result = rc;
		io->done(io);
		return;
	}
	ch->bdev->ops->submit(ch, io);
}
