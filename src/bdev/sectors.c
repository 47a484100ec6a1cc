/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sectors: a bdev with blocks of 4096 bytes, used in sectors of 512.
 *
 * blkif counts in sectors of 512 bytes whatever a disk's blocks are, and frontends disagree about
 * what to do with a disk that says otherwise.  So a guest always gets sectors, and here is what
 * makes them of larger blocks, in a bdev of its own (the view) in front of the other (the base).
 *
 * What is made of whole blocks passes through without a copy.  Everything else goes by way of a
 * bounce buffer that covers whole blocks: a read takes them all and hands out the sectors asked
 * for; a write reads the blocks at its ends that it fills only in part, puts its sectors over them,
 * and writes all.  The middle could go without the copy, but frontends that know the physical block
 * size ask for parts of blocks rarely, and then for small ones.  Pieces that only the device
 * reaches cannot be bounced, so the view takes none but whole blocks of them.  A device writes a
 * block as a whole or not at all, so a power failure takes no sectors but those being written.
 *
 * Reading, changing and writing a block is not one step, so two writes that share no sector may
 * still share a block, and the one that writes last would bring back what it read before the other
 * wrote: an acknowledged write, lost.  Hence turns.  Whatever changes blocks, also whole ones and
 * also a discard, queues up in one list for all channels of the view, with all of its blocks at
 * once, and goes on when nothing before it in the list has any of them.  That is fair, as nobody
 * overtakes whom he would have to wait for, and nobody waits in a circle, as waiting points to the
 * front only.  It takes a mutex and a walk over the list, which has as many entries as there are
 * writes in flight: little enough for disks of this kind.  A reader needs no turn: a write puts
 * into sectors that are not its own what was there.
 *
 * Memory comes before the turn, so that who has a turn needs nothing more and will end.  Each
 * channel has a number of operations and an arena of bounce blocks, larger than the largest io
 * needs; an io that finds either used up waits, in order, and does not fail.
 */
#include "bdev/sectors.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "reactor/reactor.h"

enum {
	SECTOR = 512,
	BLOCK = 4096,
	/* Bytes of one READ or WRITE. */
	IO_MAX = 1 << 20,
	/*
	 * Blocks of a channel's arena: what covers an io of IO_MAX bytes, and about as much again
	 * for others. Memory is touched only when it is used.
	 */
	ARENA_BLOCKS = 512,
	/* Operations of a channel. */
	OPS = 128,
};

struct sectors {
	struct bdev view;
	struct bdev *base;
	pthread_mutex_t lock; /* of what follows */
	struct list turns;    /* ops that change blocks, in order of arrival */
};

struct sectors_channel;

/* A part of it, as the base sees it. */
struct part {
	struct bdev_io io;
	struct iovec iov;
	struct op *op;
};

/* An io on its way, unless it passes through. */
struct op {
	struct sectors_channel *channel;
	struct bdev_io *io;
	struct list node;             /* of the channel's free or ready */
	void (*next)(struct op *op);  /* what to do once it is ready */
	uint64_t first, blocks;       /* of the base: what it covers */
	unsigned arena, arena_blocks; /* what it has of the arena */
	int result;
	/* What the base does for it now. */
	struct part parts[2];
	unsigned pending;
	/* Under the view's lock. */
	struct list turn;
	unsigned before; /* how many of those before it have some of its blocks */
	struct reactor_msg granted;
};

struct sectors_channel {
	struct bdev_channel ch;
	struct bdev_channel *base;
	struct list waiting; /* ios, for an op or memory */
	struct list ready;   /* ops */
	struct list free;    /* ops */
	bool running;        /* run() is on the stack */
	bool closed;         /* and will free the channel */
	char *arena;
	bool used[ARENA_BLOCKS];
	struct op ops[OPS];
};

static struct sectors *sectors_of(struct bdev *view)
{
	return container_of(view, struct sectors, view);
}

static struct sectors_channel *channel_of(struct bdev_channel *ch)
{
	return container_of(ch, struct sectors_channel, ch);
}

static void make_ready(struct op *op)
{
	list_add_tail(&op->channel->ready, &op->node);
}

static void run(struct sectors_channel *c);

/* Turns */

static bool overlap(const struct op *a, const struct op *b)
{
	return a->first < b->first + b->blocks && b->first < a->first + a->blocks;
}

static void turn_granted(struct reactor_msg *msg)
{
	struct op *op = container_of(msg, struct op, granted);

	make_ready(op);
	run(op->channel);
}

/* Queues up; the op becomes ready when it is its turn. */
static void turn_take(struct op *op)
{
	struct sectors *s = sectors_of(op->channel->ch.bdev);
	struct list *pos;
	bool now;

	op->before = 0;
	pthread_mutex_lock(&s->lock);
	list_for_each (pos, &s->turns)
		op->before += overlap(op, list_entry(pos, struct op, turn));
	list_add_tail(&s->turns, &op->turn);
	/* Later this word is others' to change. */
	now = !op->before;
	pthread_mutex_unlock(&s->lock);
	if (now)
		make_ready(op);
}

static void turn_end(struct op *op)
{
	struct sectors *s = sectors_of(op->channel->ch.bdev);
	struct list *pos, *node, granted = LIST_INIT(granted);

	pthread_mutex_lock(&s->lock);
	for (pos = op->turn.next; pos != &s->turns; pos = pos->next) {
		struct op *later = list_entry(pos, struct op, turn);

		if (overlap(op, later) && !--later->before)
			list_add_tail(&granted, &later->node);
	}
	list_del(&op->turn);
	pthread_mutex_unlock(&s->lock);
	while ((node = list_pop(&granted))) {
		struct op *later = list_entry(node, struct op, node);

		if (later->channel == op->channel)
			make_ready(later);
		else
			reactor_send(later->channel->ch.reactor, &later->granted);
	}
}

/* The base's part */

static void part_done(struct bdev_io *io)
{
	struct op *op = container_of(io, struct part, io)->op;

	if (io->result && !op->result)
		op->result = io->result;
	if (--op->pending)
		return;
	make_ready(op);
	run(op->channel);
}

static char *bounce_of(const struct op *op)
{
	return op->channel->arena + (size_t)op->arena * BLOCK;
}

/* Has the base read or write @blocks from the op's block @at on; in the bounce buffer. */
static void transfer(struct op *op, struct part *part, enum bdev_op what, uint64_t at,
		     uint64_t blocks)
{
	part->iov = (struct iovec){bounce_of(op) + at * BLOCK, blocks * BLOCK};
	part->io = (struct bdev_io){
		.op = what,
		.offset = (op->first + at) * BLOCK,
		.len = blocks * BLOCK,
		.iov = &part->iov,
		.iovcnt = 1,
		.done = part_done,
	};
	bdev_submit(op->channel->base, &part->io);
}

static void transfer_all(struct op *op, enum bdev_op what)
{
	op->pending = 1;
	transfer(op, &op->parts[0], what, 0, op->blocks);
}

enum direction { OUT_OF_BOUNCE, INTO_BOUNCE };

static void copy_data(const struct op *op, enum direction direction)
{
	const struct bdev_io *io = op->io;
	char *at = bounce_of(op) + (io->offset - op->first * BLOCK);

	for (int i = 0; i < io->iovcnt; at += io->iov[i++].iov_len) {
		if (direction == INTO_BOUNCE)
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		else
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
	}
}

/* The end of an op, after which its channel may be gone as soon as run() ends. */
static void finish(struct op *op)
{
	struct sectors_channel *c = op->channel;
	struct bdev_io *io = op->io;

	memset(c->used + op->arena, false, op->arena_blocks);
	io->result = op->result;
	list_add_head(&c->free, &op->node);
	io->done(io);
}

static void finish_turn(struct op *op)
{
	turn_end(op);
	finish(op);
}

static void finish_read(struct op *op)
{
	if (!op->result)
		copy_data(op, OUT_OF_BOUNCE);
	finish(op);
}

/* The blocks' old contents are there, where they are needed. */
static void write_bounced(struct op *op)
{
	if (op->result) {
		finish_turn(op);
		return;
	}
	copy_data(op, INTO_BOUNCE);
	op->next = finish_turn;
	transfer_all(op, BDEV_WRITE);
}

/* Its turn: reads the blocks that it will write only in part, the first, the last, or both. */
static void begin_write_bounced(struct op *op)
{
	uint64_t end = op->io->offset + op->io->len;
	bool first = op->io->offset % BLOCK, last = end % BLOCK;

	op->next = write_bounced;
	if (op->blocks <= 2 && (first || last)) {
		transfer_all(op, BDEV_READ);
		return;
	}
	op->pending = (unsigned)first + (unsigned)last;
	if (!op->pending) {
		make_ready(op);
		return;
	}
	if (first)
		transfer(op, &op->parts[0], BDEV_READ, 0, 1);
	if (last)
		transfer(op, &op->parts[1], BDEV_READ, op->blocks - 1, 1);
}

/* Its turn: what is made of whole blocks is the base's as it is. */
static void begin_direct(struct op *op)
{
	struct bdev_io *part = &op->parts[0].io;

	*part = *op->io;
	part->offset = op->first * BLOCK;
	part->len = op->blocks * BLOCK;
	part->done = part_done;
	op->pending = 1;
	op->next = finish_turn;
	bdev_submit(op->channel->base, part);
}

/* Beginning */

/* Whether the base can take a READ or WRITE as it is. */
static bool fits_base(const struct bdev_io *io, const struct bdev_limits *limits)
{
	uint64_t odd = io->offset | io->len;

	if (limits->max_iov && io->iovcnt > (int)limits->max_iov)
		return false;
	for (int i = 0; i < io->iovcnt; i++) {
		if ((uintptr_t)io->iov[i].iov_base & (limits->mem_align - 1))
			return false;
		odd |= io->iov[i].iov_len;
	}
	return !(odd % BLOCK);
}

/* Finds @blocks in a row that nobody uses; false: there are none now. */
static bool take_arena(struct sectors_channel *c, struct op *op, unsigned blocks)
{
	unsigned run_blocks = 0;

	op->arena = 0;
	op->arena_blocks = blocks;
	for (unsigned i = 0; run_blocks < blocks; i++) {
		if (i == ARENA_BLOCKS)
			return false;
		run_blocks = c->used[i] ? 0 : run_blocks + 1;
		op->arena = i + 1 - run_blocks;
	}
	memset(c->used + op->arena, true, blocks);
	return true;
}

/* Begins the first of the waiting ios, if there is one and it finds what it needs. */
static bool begin_next(struct sectors_channel *c)
{
	const struct bdev_limits *limits = &sectors_of(c->ch.bdev)->base->limits;
	uint64_t end, bounce = 0;
	struct bdev_io *io;
	struct op *op;

	if (list_empty(&c->waiting) || list_empty(&c->free))
		return false;
	io = list_entry(c->waiting.next, struct bdev_io, node);
	op = list_entry(c->free.next, struct op, node);
	op->io = io;
	op->result = 0;
	end = io->offset + io->len;
	if (io->op == BDEV_DISCARD) {
		/* Of a block all sectors or none: only whole blocks are certainly unwanted. */
		op->first = (io->offset + BLOCK - 1) / BLOCK;
		op->blocks = end / BLOCK - op->first;
		op->next = begin_direct;
	} else {
		op->first = io->offset / BLOCK;
		op->blocks = (end + BLOCK - 1) / BLOCK - op->first;
		op->next = begin_direct;
		if (!fits_base(io, limits)) {
			op->next = begin_write_bounced;
			bounce = op->blocks;
		}
	}
	if (!take_arena(c, op, (unsigned)bounce))
		return false;
	list_del(&io->node);
	list_del(&op->node);
	if (io->op == BDEV_READ) {
		op->next = finish_read;
		transfer_all(op, BDEV_READ);
	} else {
		turn_take(op);
	}
	return true;
}

static void free_channel(struct sectors_channel *c)
{
	munmap(c->arena, (size_t)ARENA_BLOCKS * BLOCK);
	free(c);
}

/*
 * Does all that can be done now.  What comes up meanwhile, from a base that completes at once or a
 * submitter's done, is left to the call that runs already; so nothing recurses, and a channel that
 * its last io's done closes stays until that call is over.
 */
static void run(struct sectors_channel *c)
{
	if (c->running)
		return;
	c->running = true;
	while (!c->closed) {
		struct list *node = list_pop(&c->ready);

		if (node) {
			struct op *op = list_entry(node, struct op, node);

			op->next(op);
		} else if (!begin_next(c)) {
			break;
		}
	}
	c->running = false;
	if (c->closed)
		free_channel(c);
}

/* The view, as a bdev */

static void sectors_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct sectors_channel *c = channel_of(ch);
	struct bdev *base = c->base->bdev;

	if (io->op == BDEV_FLUSH || (io->op == BDEV_READ && fits_base(io, &base->limits))) {
		bdev_submit(c->base, io);
		return;
	}
	if (io->op == BDEV_DISCARD) {
		bool partly = (io->offset | io->len) % BLOCK;
		bool none = (io->offset + BLOCK - 1) / BLOCK >= (io->offset + io->len) / BLOCK;

		/* What was not erased must not be called so; what was not discarded may. */
		if (io->secure ? partly : none) {
			io->result = io->secure ? -EINVAL : 0;
			io->done(io);
			return;
		}
	}
	list_add_tail(&c->waiting, &io->node);
	run(c);
}

static int sectors_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	struct sectors_channel *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->arena = mmap(NULL, (size_t)ARENA_BLOCKS * BLOCK, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->arena == MAP_FAILED) {
		free(c);
		return -ENOMEM;
	}
	/* As with all that holds guests' data. */
	madvise(c->arena, (size_t)ARENA_BLOCKS * BLOCK, MADV_DONTDUMP);
	madvise(c->arena, (size_t)ARENA_BLOCKS * BLOCK, MADV_DONTFORK);
	rc = bdev_channel_open(sectors_of(b)->base, r, &c->base);
	if (rc) {
		free_channel(c);
		return rc;
	}
	list_init(&c->waiting);
	list_init(&c->ready);
	list_init(&c->free);
	for (unsigned i = 0; i < OPS; i++) {
		struct op *op = &c->ops[i];

		op->channel = c;
		op->granted.fn = turn_granted;
		for (unsigned j = 0; j < 2; j++)
			op->parts[j].op = op;
		list_add_tail(&c->free, &op->node);
	}
	*ch = &c->ch;
	return 0;
}

static void sectors_channel_close(struct bdev_channel *ch)
{
	struct sectors_channel *c = channel_of(ch);

	bdev_channel_close(c->base);
	c->closed = true;
	if (!c->running)
		free_channel(c);
}

static const struct bdev_ops sectors_ops = {
	.product = "sectors",
	.channel_open = sectors_channel_open,
	.channel_close = sectors_channel_close,
	.submit = sectors_submit,
};

static void set_limits(struct bdev_limits *limits, const struct bdev_limits *base)
{
	uint64_t cover = IO_MAX + BLOCK;

	*limits = *base;
	limits->block_size = SECTOR;
	if (limits->physical_block_size < BLOCK)
		limits->physical_block_size = BLOCK;
	if (limits->discard_granularity < BLOCK)
		limits->discard_granularity = BLOCK;
	if (limits->mem_align > SECTOR)
		limits->mem_align = SECTOR;
	limits->max_iov = 0;
	/* Nobody asks for zeroes in sectors. */
	limits->write_zeroes_max = 0;
	/* What the device alone reaches goes there as it is, or not at all. */
	if (!limits->piece_align)
		limits->piece_align = base->block_size;
	/* An io that begins and ends inside blocks covers one more than its length says. */
	if (base->max_io && base->max_io < cover)
		cover = base->max_io;
	limits->max_io = cover >= 2 * BLOCK ? cover / BLOCK * BLOCK - BLOCK : SECTOR;
}

struct bdev *sectors_create(struct bdev *b)
{
	struct sectors *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base = b;
	pthread_mutex_init(&s->lock, NULL);
	list_init(&s->turns);
	strcpy(s->view.name, b->name);
	s->view.ops = &sectors_ops;
	s->view.size = b->size;
	s->view.readonly = b->readonly;
	s->view.shared = b->shared;
	s->view.dma = b->dma;
	set_limits(&s->view.limits, &b->limits);
	return &s->view;
}

void sectors_destroy(struct bdev *view)
{
	struct sectors *s = sectors_of(view);

	pthread_mutex_destroy(&s->lock);
	free(s);
}
