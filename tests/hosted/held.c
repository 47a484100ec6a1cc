/* SPDX-License-Identifier: BSD-2-Clause */
#include "held.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/list.h"
#include "reactor/reactor.h"

enum { OPS = BDEV_DISCARD + 1, WAIT_SECONDS = 10 };

struct held_channel {
	struct bdev_channel base;
	struct list node;
	struct list kept; /* of struct bdev_io */
	struct reactor_msg msg;
	bool msg_sent;
	bool reverse;
	unsigned some; /* how many to release; 0: all */
	/* Compared, not looked into: what prefetch() said comes next, and after that. */
	const struct bdev_io *foretold[2];
};

struct held {
	struct bdev bdev;
	char *data;
	pthread_mutex_t lock; /* of what follows, and of the channels' lists */
	pthread_cond_t more;
	bool hold;
	struct list channels;
	unsigned kept;
	unsigned counts[OPS];
	unsigned by_bus;
	unsigned by_foreign_memory;
	unsigned foretold;
	uint64_t largest;
	int error[OPS];
	unsigned fail_times[OPS];
	struct held_entry log[HELD_LOG_MAX];
	unsigned logged;
};

static struct held *held_of(struct bdev *b)
{
	return container_of(b, struct held, bdev);
}

static void destroy(struct bdev *b)
{
	struct held *h = held_of(b);

	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->more);
	free(h->data);
	free(h);
}

static int channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **out)
{
	struct held_channel *ch = calloc(1, sizeof(*ch));
	struct held *h = held_of(b);

	if (!ch)
		return -ENOMEM;
	list_init(&ch->kept);
	pthread_mutex_lock(&h->lock);
	list_add_tail(&h->channels, &ch->node);
	pthread_mutex_unlock(&h->lock);
	*out = &ch->base;
	return 0;
}

static void channel_close(struct bdev_channel *base)
{
	struct held_channel *ch = container_of(base, struct held_channel, base);
	struct held *h = held_of(base->bdev);

	pthread_mutex_lock(&h->lock);
	if (!list_empty(&ch->kept) || ch->msg_sent) {
		fputs("held: closed with requests in flight\n", stderr);
		abort();
	}
	list_del(&ch->node);
	pthread_mutex_unlock(&h->lock);
	free(ch);
}

static void *(*reach_bus)(uint64_t bus, bool write);

/* By the device's own access to memory: false if there is none for it. */
static bool perform_by_bus(struct held *h, struct bdev_io *io)
{
	char *at = h->data + io->offset;
	bool good = true;

	for (uint32_t i = 0; i < io->nr_pieces; at += io->pieces[i++].len) {
		void *page = reach_bus(io->pieces[i].bus, io->op == BDEV_READ);

		if (!page)
			good = false;
		else if (io->op == BDEV_READ)
			memcpy(page, at, io->pieces[i].len);
		else
			memcpy(at, page, io->pieces[i].len);
	}
	return good;
}

static void perform(struct held *h, struct bdev_io *io)
{
	char *at = h->data + io->offset;

	for (int i = 0; i < io->iovcnt && io->op != BDEV_FLUSH; i++) {
		if (io->op == BDEV_READ)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		else if (io->op == BDEV_WRITE)
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	if (io->op == BDEV_DISCARD)
		memset(at, 0, io->len);
}

static void complete(struct held *h, struct bdev_io *io)
{
	int result = 0;

	pthread_mutex_lock(&h->lock);
	if (h->fail_times[io->op]) {
		h->fail_times[io->op]--;
		result = h->error[io->op];
	}
	if (!result && io->pieces && io->op <= BDEV_WRITE)
		result = perform_by_bus(h, io) ? 0 : -EIO;
	else if (!result)
		perform(h, io);
	pthread_mutex_unlock(&h->lock);
	io->result = result;
	io->done(io);
}

static void prefetch(struct bdev_channel *base, const struct bdev_io *io)
{
	struct held_channel *ch = container_of(base, struct held_channel, base);

	ch->foretold[1] = io;
}

static void submit(struct bdev_channel *base, struct bdev_io *io)
{
	struct held_channel *ch = container_of(base, struct held_channel, base);
	struct held *h = held_of(base->bdev);
	bool keep;

	pthread_mutex_lock(&h->lock);
	h->counts[io->op]++;
	h->foretold += ch->foretold[0] == io;
	ch->foretold[0] = ch->foretold[1];
	ch->foretold[1] = NULL;
	if (io->op <= BDEV_WRITE && io->pieces)
		h->by_bus++;
	else if (io->op <= BDEV_WRITE && h->bdev.dma &&
		 dma_translate(h->bdev.dma, io->iov[0].iov_base) == DMA_NO_BUS)
		h->by_foreign_memory++;
	if (h->logged < HELD_LOG_MAX)
		h->log[h->logged++] = (struct held_entry){
			.op = io->op, .offset = io->offset, .len = io->len, .secure = io->secure};
	if (io->len > h->largest)
		h->largest = io->len;
	keep = h->hold;
	if (keep) {
		list_add_tail(&ch->kept, &io->node);
		h->kept++;
		pthread_cond_broadcast(&h->more);
	}
	pthread_mutex_unlock(&h->lock);
	if (!keep)
		complete(h, io);
}

static void release_msg(struct reactor_msg *msg)
{
	struct held_channel *ch = container_of(msg, struct held_channel, msg);
	struct held *h = held_of(ch->base.bdev);
	struct list ready = LIST_INIT(ready);
	struct list *node;
	bool reverse;

	pthread_mutex_lock(&h->lock);
	reverse = ch->reverse;
	ch->msg_sent = false;
	if (!ch->some)
		list_splice_tail(&ready, &ch->kept);
	while (ch->some) {
		ch->some--;
		list_add_tail(&ready, list_pop(&ch->kept));
	}
	pthread_mutex_unlock(&h->lock);
	while (!list_empty(&ready)) {
		node = reverse ? ready.prev : ready.next;
		list_del(node);
		pthread_mutex_lock(&h->lock);
		h->kept--;
		pthread_mutex_unlock(&h->lock);
		complete(h, list_entry(node, struct bdev_io, node));
	}
}

static json_t *config(const struct bdev *b, const char **method)
{
	*method = "bdev_held_create";
	return json_pack("{s:s}", "name", b->name);
}

static const struct bdev_ops held_ops = {
	.product = "held",
	.destroy = destroy,
	.channel_open = channel_open,
	.channel_close = channel_close,
	.submit = submit,
	.prefetch = prefetch,
	.config = config,
};

static struct dma *dma_to_use;

void held_use_dma(struct dma *dma, void *(*reach)(uint64_t bus, bool write))
{
	dma_to_use = dma;
	reach_bus = reach;
}

struct held *held_create(const char *name, uint64_t size)
{
	return held_create_blocks(name, size, 512);
}

struct held *held_create_blocks(const char *name, uint64_t size, uint32_t block_size)
{
	struct held *h = calloc(1, sizeof(*h));
	pthread_condattr_t attr;
	struct err err;

	if (!h)
		abort();
	h->data = calloc(2, size); /* room to grow */
	snprintf(h->bdev.name, sizeof(h->bdev.name), "%s", name);
	h->bdev.ops = &held_ops;
	h->bdev.size = size;
	h->bdev.limits.block_size = block_size;
	h->bdev.limits.physical_block_size = 4096;
	h->bdev.limits.mem_align = 1;
	h->bdev.limits.write_cache = true;
	h->bdev.dma = dma_to_use;
	list_init(&h->channels);
	pthread_mutex_init(&h->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&h->more, &attr);
	pthread_condattr_destroy(&attr);
	if (!h->data || bdev_register(&h->bdev, &err))
		abort();
	return h;
}

void held_grow(struct held *h, uint64_t size)
{
	bdev_set_size(&h->bdev, size);
}

struct bdev *held_bdev(struct held *h)
{
	return &h->bdev;
}

char *held_data(struct held *h)
{
	/* Whoever knows by a response that an io is done, knows it by memory that race checkers
	 * cannot follow: the lock tells them. */
	pthread_mutex_lock(&h->lock);
	pthread_mutex_unlock(&h->lock);
	return h->data;
}

void held_hold(struct held *h)
{
	pthread_mutex_lock(&h->lock);
	h->hold = true;
	pthread_mutex_unlock(&h->lock);
}

static void release(struct held_channel *ch)
{
	if (list_empty(&ch->kept) || ch->msg_sent)
		return;
	ch->msg_sent = true;
	ch->msg.fn = release_msg;
	reactor_send(ch->base.reactor, &ch->msg);
}

void held_release(struct held *h, bool reverse)
{
	struct list *pos;

	pthread_mutex_lock(&h->lock);
	h->hold = false;
	list_for_each (pos, &h->channels) {
		struct held_channel *ch = list_entry(pos, struct held_channel, node);

		ch->reverse = reverse;
		release(ch);
	}
	pthread_mutex_unlock(&h->lock);
}

void held_release_some(struct held *h, unsigned n)
{
	struct held_channel *ch;

	pthread_mutex_lock(&h->lock);
	/* One channel with that many, and no message under way: all that tests need. */
	ch = list_entry(h->channels.next, struct held_channel, node);
	if (list_empty(&h->channels) || h->kept < n || ch->msg_sent)
		abort();
	ch->some = n;
	ch->reverse = false;
	release(ch);
	pthread_mutex_unlock(&h->lock);
}

bool held_wait(struct held *h, unsigned n)
{
	struct timespec until;
	bool enough;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += WAIT_SECONDS;
	pthread_mutex_lock(&h->lock);
	while (h->kept < n && !pthread_cond_timedwait(&h->more, &h->lock, &until))
		;
	enough = h->kept >= n;
	pthread_mutex_unlock(&h->lock);
	return enough;
}

void held_fail(struct held *h, enum bdev_op op, int error, unsigned times)
{
	pthread_mutex_lock(&h->lock);
	h->error[op] = error;
	h->fail_times[op] = times;
	pthread_mutex_unlock(&h->lock);
}

static unsigned read_count(struct held *h, const unsigned *count)
{
	unsigned n;

	pthread_mutex_lock(&h->lock);
	n = *count;
	pthread_mutex_unlock(&h->lock);
	return n;
}

unsigned held_count(struct held *h, enum bdev_op op)
{
	return read_count(h, &h->counts[op]);
}

unsigned held_by_bus(struct held *h)
{
	return read_count(h, &h->by_bus);
}

unsigned held_by_foreign_memory(struct held *h)
{
	return read_count(h, &h->by_foreign_memory);
}

unsigned held_foretold(struct held *h)
{
	return read_count(h, &h->foretold);
}

uint64_t held_largest(struct held *h)
{
	uint64_t n;

	pthread_mutex_lock(&h->lock);
	n = h->largest;
	pthread_mutex_unlock(&h->lock);
	return n;
}

unsigned held_logged(struct held *h)
{
	return read_count(h, &h->logged);
}

struct held_entry held_log(struct held *h, unsigned n)
{
	struct held_entry entry;

	pthread_mutex_lock(&h->lock);
	if (n >= h->logged)
		abort();
	entry = h->log[n];
	pthread_mutex_unlock(&h->lock);
	return entry;
}

unsigned held_kept(struct held *h)
{
	return read_count(h, &h->kept);
}
