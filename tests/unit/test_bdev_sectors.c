/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sectors of bdevs with blocks of 4096 bytes, in front of two bases: ram, which completes at once,
 * and one of this file's, which shows what reaches it and completes when and how it is told to.
 */
#include "test_bdev_util.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, BLOCK = 4096, MIB = 1 << 20 };

/* The base */

enum { BASE_BLOCKS = 1024, HELD_MAX = 256 };

static struct base {
	struct bdev bdev;
	char *data;
	/* Blocks change one by one, whichever reactor changes them. */
	pthread_mutex_t lock;
	bool refuse_channels;
	unsigned channels;
} base;

struct base_channel {
	struct bdev_channel ch;
	struct poller poller;
	bool polled;
	unsigned seed;
	struct bdev_io *held[HELD_MAX];
	unsigned held_len;
	unsigned held_most;
};

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

/* Ends the held io number @i with @result. */
static void base_end(struct base_channel *c, unsigned i, int result)
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

/* Registers the base; returns its view. */
static struct bdev *base_register(const struct bdev_limits *limits)
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

static const struct bdev_limits usual = {
	.physical_block_size = BLOCK,
	.mem_align = 512,
	.max_iov = 8,
	.discard = true,
	.secure_discard = true,
};

/* The channel of the base that was opened last for a view's channel without a reactor. */
static struct base_channel *last_channel;

static int note_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	int rc = base_channel_open(b, r, ch);

	if (!rc)
		last_channel = container_of(*ch, struct base_channel, ch);
	return rc;
}

static const struct bdev_ops noting_ops = {
	.product = "base",
	.destroy = base_destroy,
	.channel_open = note_channel_open,
	.channel_close = base_channel_close,
	.submit = base_submit,
};

/* A view by hand: its ios' parts are held in last_channel. */
static struct bdev_channel *open_by_hand(const struct bdev_limits *limits)
{
	struct bdev *view = base_register(limits);
	struct bdev_channel *ch;

	base.bdev.ops = &noting_ops;
	assert_int_equal(bdev_channel_open(view, NULL, &ch), 0);
	return ch;
}

/* An io with its data */

struct test_io {
	struct bdev_io io;
	struct iovec iov;
	unsigned done;
	char *data;
};

static void test_io_done(struct bdev_io *io)
{
	container_of(io, struct test_io, io)->done++;
}

/* @sectors at @sector; a write's bytes are @fill, a read's buffer is full of them. */
static void test_io_submit(struct test_io *t, struct bdev_channel *ch, enum bdev_op op,
			   uint64_t sector, uint64_t sectors, int fill)
{
	*t = (struct test_io){
		.io = {.op = op,
		       .offset = sector * SECTOR,
		       .len = sectors * SECTOR,
		       .iov = &t->iov,
		       .iovcnt = 1,
		       .done = test_io_done,
		       .result = 1},
		.iov.iov_len = sectors * SECTOR,
	};
	if (op != BDEV_DISCARD) {
		t->data = test_alloc(sectors * SECTOR);
		memset(t->data, fill, sectors * SECTOR);
		t->iov.iov_base = t->data;
	}
	bdev_submit(ch, &t->io);
}

/* Fails unless it has ended once, with @result. */
static void test_io_expect(struct test_io *t, int result)
{
	assert_int_equal(t->done, 1);
	assert_int_equal(t->io.result, result);
	free(t->data);
}

/* Fails unless the base has exactly this held, as number @i. */
static void expect_held(unsigned i, enum bdev_op op, uint64_t block, uint64_t blocks)
{
	const struct bdev_io *io;

	assert_true(i < last_channel->held_len);
	io = last_channel->held[i];
	assert_int_equal(io->op, op);
	assert_int_equal(io->offset, block * BLOCK);
	assert_int_equal(io->len, blocks * BLOCK);
}

static void expect_bytes(uint64_t sector, uint64_t sectors, int byte)
{
	for (uint64_t i = sector * SECTOR; i < (sector + sectors) * SECTOR; i++)
		assert_int_equal(base.data[i], (char)byte);
}

/* Limits */

static void test_limits(void **state)
{
	struct bdev_limits limits = {
		.physical_block_size = 16384,
		.mem_align = 4096,
		.max_iov = 3,
		.write_cache = true,
		.discard = true,
		.discard_max = 65536,
		.discard_granularity = 8192,
		.discard_alignment = 4096,
		.volatile_data = true,
	};
	static const struct {
		uint64_t base, view;
	} max_ios[] = {
		{0, MIB},
		{1 << 30, MIB},
		{MIB + BLOCK, MIB},
		{MIB, MIB - BLOCK},
		{16384 + 512, 16384 - BLOCK},
		{8192, 4096},
		{4096, 512},
	};
	struct bdev *view, *b;
	struct err err;

	assert_int_equal(bdev_null_create("x", MIB, 512, &b, &err), 0);
	assert_ptr_equal(bdev_sectors(b), b);
	bdev_delete_all();

	view = base_register(&limits);
	assert_string_equal(view->name, "base");
	assert_int_equal(view->size, BASE_BLOCKS * BLOCK);
	assert_false(view->readonly);
	assert_int_equal(view->limits.block_size, SECTOR);
	assert_int_equal(view->limits.physical_block_size, 16384);
	assert_int_equal(view->limits.mem_align, SECTOR);
	assert_int_equal(view->limits.max_iov, 0);
	assert_true(view->limits.write_cache && view->limits.discard && view->limits.volatile_data);
	assert_false(view->limits.secure_discard);
	assert_int_equal(view->limits.discard_max, 65536);
	assert_int_equal(view->limits.discard_granularity, 8192);
	assert_int_equal(view->limits.discard_alignment, 4096);
	bdev_delete_all();

	limits = (struct bdev_limits){.physical_block_size = 512, .mem_align = 4};
	limits.secure_discard = limits.discard = true;
	view = base_register(&limits);
	assert_int_equal(view->limits.physical_block_size, BLOCK);
	assert_int_equal(view->limits.mem_align, 4);
	assert_int_equal(view->limits.discard_granularity, BLOCK);
	assert_false(view->limits.write_cache || view->limits.volatile_data);
	assert_true(view->limits.secure_discard);
	bdev_delete_all();

	for (size_t i = 0; i < sizeof(max_ios) / sizeof(max_ios[0]); i++) {
		limits.max_io = max_ios[i].base;
		view = base_register(&limits);
		assert_int_equal(view->limits.max_io, max_ios[i].view);
		bdev_delete_all();
	}
}

static void test_grows(void **state)
{
	struct bdev_channel *ch;
	struct test_io t;
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_ram_create("r", 4 * BLOCK, BLOCK, &b, &err), 0);
	assert_int_equal(bdev_channel_open(bdev_sectors(b), NULL, &ch), 0);
	test_io_submit(&t, ch, BDEV_WRITE, 4 * 8 - 1, 2, 1);
	test_io_expect(&t, -EINVAL);
	assert_int_equal(bdev_resize(b, 8 * BLOCK, &err), 0);
	assert_int_equal(bdev_get_size(bdev_sectors(b)), 8 * BLOCK);
	test_io_submit(&t, ch, BDEV_WRITE, 4 * 8 - 1, 2, 1);
	test_io_expect(&t, 0);
	test_io_submit(&t, ch, BDEV_WRITE, 8 * 8 - 1, 2, 1);
	test_io_expect(&t, -EINVAL);
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* Every alignment, on ram */

static void ignore_done(struct bdev_io *io)
{
}

static void check_alignment(struct bdev_channel *ch, char *model, uint64_t sector, uint64_t sectors,
			    unsigned pieces, uint32_t generation)
{
	uint64_t left = sectors, size = 6 * BLOCK;
	char *data = test_alloc(size), *back = test_alloc(size + SECTOR), *at = back + SECTOR;
	struct iovec iov[4];
	struct bdev_io io = {.op = BDEV_WRITE,
			     .offset = sector * SECTOR,
			     .len = sectors * SECTOR,
			     .iov = iov,
			     .done = ignore_done};

	test_fill(data, sector * SECTOR, sectors * SECTOR, generation);
	/* One piece more each time, the last takes the rest; in memory they have gaps. */
	for (unsigned i = 0; left; i++) {
		uint64_t n = i + 1 == pieces || left == 1 ? left : left / 2;

		iov[i] = (struct iovec){data + (sectors - left) * SECTOR, n * SECTOR};
		left -= n;
		io.iovcnt = (int)i + 1;
	}
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	memcpy(model + sector * SECTOR, data, sectors * SECTOR);
	for (int i = 0; i < io.iovcnt; at += iov[i++].iov_len)
		iov[i].iov_base = at;
	io.op = BDEV_READ;
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	assert_memory_equal(back + SECTOR, data, sectors * SECTOR);
	/* And nothing beside has changed. */
	iov[0] = (struct iovec){back, size};
	io.offset = 0;
	io.len = size;
	io.iovcnt = 1;
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	assert_memory_equal(back, model, size);
	free(data);
	free(back);
}

static void test_alignments(void **state)
{
	char *model = calloc(6, BLOCK);
	struct bdev_channel *ch;
	uint32_t generation = 0;
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_ram_create("r", 6 * BLOCK, BLOCK, &b, &err), 0);
	/* So that memory decides, too, whether an io passes through. */
	b->limits.mem_align = BLOCK;
	b->limits.max_iov = 2;
	assert_int_equal(bdev_channel_open(bdev_sectors(b), NULL, &ch), 0);
	for (unsigned pieces = 1; pieces <= 4; pieces++)
		for (uint64_t sector = 0; sector <= 8; sector++)
			for (uint64_t sectors = 1; sectors <= 40; sectors++)
				check_alignment(ch, model, sector, sectors, pieces, ++generation);
	bdev_channel_close(ch);
	bdev_delete_all();
	free(model);
}

/* What only the device reaches goes there as it is, and not at all if it is no whole blocks. */
static void test_device_pieces(void **state)
{
	struct dma_piece pieces[2] = {{.bus = 0x7000 + 512, .len = 3584},
				      {.bus = 0x3000, .len = 512}};
	struct bdev_channel *ch = open_by_hand(&usual);
	struct test_io t = {
		.io = {.len = BLOCK, .pieces = pieces, .nr_pieces = 2, .done = test_io_done},
	};
	struct dma dma;
	struct bdev *view = ch->bdev;

	assert_null(view->dma);
	assert_int_equal(view->limits.piece_align, BLOCK);
	/* Its own is copied from the base when it is made. */
	view->dma = base.bdev.dma = &dma;
	for (unsigned op = BDEV_READ; op <= BDEV_WRITE; op++) {
		t.io.op = (enum bdev_op)op;
		t.io.offset = 3 * BLOCK;
		t.io.result = 1;
		t.done = 0;
		bdev_submit(ch, &t.io);
		expect_held(0, t.io.op, 3, 1);
		assert_ptr_equal(last_channel->held[0]->pieces, pieces);
		assert_int_equal(last_channel->held[0]->nr_pieces, 2);
		assert_null(last_channel->held[0]->iov);
		base_end(last_channel, 0, 0);
		test_io_expect(&t, 0);
		t.io.offset += SECTOR;
		t.done = 0;
		bdev_submit(ch, &t.io);
		test_io_expect(&t, -EINVAL);
		assert_int_equal(last_channel->held_len, 0);
	}
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* What reaches the base */

static void test_passes_through(void **state)
{
	struct bdev_channel *ch = open_by_hand(&usual);
	struct test_io t;

	test_io_submit(&t, ch, BDEV_READ, 8, 16, 0);
	expect_held(0, BDEV_READ, 1, 2);
	assert_ptr_equal(last_channel->held[0]->iov[0].iov_base, t.data);
	base_end(last_channel, 0, 0);
	test_io_expect(&t, 0);

	test_io_submit(&t, ch, BDEV_WRITE, 8, 16, 0);
	expect_held(0, BDEV_WRITE, 1, 2);
	assert_ptr_equal(last_channel->held[0]->iov[0].iov_base, t.data);
	base_end(last_channel, 0, -ENOSPC);
	test_io_expect(&t, -ENOSPC);

	test_io_submit(&t, ch, BDEV_FLUSH, 0, 0, 0);
	assert_int_equal(last_channel->held[0]->op, BDEV_FLUSH);
	base_end(last_channel, 0, -EIO);
	test_io_expect(&t, -EIO);
	bdev_channel_close(ch);
	bdev_delete_all();
}

static void test_reads_what_it_writes_in_part(void **state)
{
	static const struct {
		uint64_t sector, sectors;
		struct {
			uint64_t block, blocks;
		} reads[2], write;
	} cases[] = {
		{1, 1, {{0, 1}}, {0, 1}},
		{7, 2, {{0, 2}}, {0, 2}},
		{0, 9, {{0, 2}}, {0, 2}},
		{8, 25, {{4, 1}}, {1, 4}},
		{12, 20, {{1, 1}}, {1, 3}},
		{9, 30, {{1, 1}, {4, 1}}, {1, 4}},
		{15, 8 * 256, {{1, 1}, {257, 1}}, {1, 257}},
	};
	struct bdev_channel *ch = open_by_hand(&usual);
	struct test_io t;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t after = cases[i].sector + cases[i].sectors;

		memset(base.data, 7, BASE_BLOCKS * BLOCK);
		test_io_submit(&t, ch, BDEV_WRITE, cases[i].sector, cases[i].sectors, 9);
		for (unsigned j = 0; j < 2 && cases[i].reads[j].blocks; j++)
			expect_held(j, BDEV_READ, cases[i].reads[j].block,
				    cases[i].reads[j].blocks);
		if (cases[i].reads[1].blocks)
			base_end(last_channel, 1, 0);
		base_end(last_channel, 0, 0);
		assert_int_equal(last_channel->held_len, 1);
		expect_held(0, BDEV_WRITE, cases[i].write.block, cases[i].write.blocks);
		assert_int_equal(t.done, 0);
		base_end(last_channel, 0, 0);
		test_io_expect(&t, 0);
		expect_bytes(0, cases[i].sector, 7);
		expect_bytes(cases[i].sector, cases[i].sectors, 9);
		expect_bytes(after, BASE_BLOCKS * 8 - after, 7);
	}
	bdev_channel_close(ch);
	bdev_delete_all();
}

static void test_errors(void **state)
{
	struct bdev_channel *ch = open_by_hand(&usual);
	struct test_io t;

	memset(base.data, 7, BASE_BLOCKS * BLOCK);
	test_io_submit(&t, ch, BDEV_READ, 1, 30, 5);
	base_end(last_channel, 0, -EIO);
	assert_int_equal(t.data[0], 5);
	test_io_expect(&t, -EIO);
	/* Either read fails, or both: nothing is written. Then the next has its turn. */
	for (int mask = 1; mask <= 3; mask++) {
		test_io_submit(&t, ch, BDEV_WRITE, 1, 30, 9);
		base_end(last_channel, 1, mask & 2 ? -EIO : 0);
		assert_int_equal(t.done, 0);
		base_end(last_channel, 0, mask & 1 ? -ENOSPC : 0);
		assert_int_equal(last_channel->held_len, 0);
		test_io_expect(&t, mask & 2 ? -EIO : -ENOSPC);
	}
	expect_bytes(0, BASE_BLOCKS * 8, 7);
	test_io_submit(&t, ch, BDEV_WRITE, 1, 30, 9);
	base_end(last_channel, 0, 0);
	base_end(last_channel, 0, 0);
	base_end(last_channel, 0, -EREMOTEIO);
	test_io_expect(&t, -EREMOTEIO);
	test_io_submit(&t, ch, BDEV_DISCARD, 1, 30, 0);
	base_end(last_channel, 0, -EREMOTEIO);
	test_io_expect(&t, -EREMOTEIO);
	/* An error is the one io's it happened to. */
	test_io_submit(&t, ch, BDEV_WRITE, 1, 1, 9);
	base_end(last_channel, 0, 0);
	base_end(last_channel, 0, 0);
	test_io_expect(&t, 0);
	expect_bytes(1, 1, 9);
	bdev_channel_close(ch);
	bdev_delete_all();
}

static void test_discards(void **state)
{
	struct bdev_channel *ch = open_by_hand(&usual);
	struct test_io t;

	test_io_submit(&t, ch, BDEV_DISCARD, 8, 24, 0);
	expect_held(0, BDEV_DISCARD, 1, 3);
	base_end(last_channel, 0, 0);
	test_io_expect(&t, 0);
	test_io_submit(&t, ch, BDEV_DISCARD, 9, 30, 0);
	expect_held(0, BDEV_DISCARD, 2, 2);
	assert_false(last_channel->held[0]->secure);
	base_end(last_channel, 0, 0);
	test_io_expect(&t, 0);
	/* Less than a block, and two parts of blocks: nothing left. */
	test_io_submit(&t, ch, BDEV_DISCARD, 1, 7, 0);
	test_io_expect(&t, 0);
	test_io_submit(&t, ch, BDEV_DISCARD, 9, 14, 0);
	test_io_expect(&t, 0);
	assert_int_equal(last_channel->held_len, 0);

	t.io = (struct bdev_io){.op = BDEV_DISCARD, .secure = true, .done = test_io_done};
	for (uint64_t odd = 1; odd < 4; odd++) {
		t.io.offset = BLOCK + (odd & 1) * SECTOR;
		t.io.len = 2 * BLOCK + (odd & 2) * SECTOR;
		bdev_submit(ch, &t.io);
		assert_int_equal(t.io.result, -EINVAL);
		assert_int_equal(last_channel->held_len, 0);
	}
	t.io.offset = BLOCK;
	t.io.len = 2 * BLOCK;
	bdev_submit(ch, &t.io);
	expect_held(0, BDEV_DISCARD, 1, 2);
	assert_true(last_channel->held[0]->secure);
	base_end(last_channel, 0, 0);
	assert_int_equal(t.io.result, 0);
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* Turns */

static void test_turns(void **state)
{
	struct bdev_channel *ch = open_by_hand(&usual);
	struct test_io a, b, c, d, e, f, r;

	memset(base.data, 1, BASE_BLOCKS * BLOCK);
	test_io_submit(&a, ch, BDEV_WRITE, 0, 1, 2);    /* block 0 */
	test_io_submit(&b, ch, BDEV_WRITE, 1, 8, 3);    /* blocks 0 and 1, behind a */
	test_io_submit(&c, ch, BDEV_WRITE, 8, 8, 4);    /* block 1, whole, behind b alone */
	test_io_submit(&d, ch, BDEV_WRITE, 40, 1, 5);   /* block 5, behind nobody */
	test_io_submit(&e, ch, BDEV_DISCARD, 8, 40, 0); /* blocks 1 to 5, behind c and d */
	test_io_submit(&f, ch, BDEV_WRITE, 41, 1, 6);   /* block 5, behind d and e */
	test_io_submit(&r, ch, BDEV_READ, 0, 16, 0);    /* behind nobody, ever */
	assert_int_equal(last_channel->held_len, 3);
	expect_held(0, BDEV_READ, 0, 1);
	expect_held(1, BDEV_READ, 5, 1);
	expect_held(2, BDEV_READ, 0, 2);
	base_end(last_channel, 2, 0);
	test_io_expect(&r, 0);
	base_end(last_channel, 0, 0);
	expect_held(1, BDEV_WRITE, 0, 1);
	assert_int_equal(last_channel->held_len, 2);
	base_end(last_channel, 1, 0);
	test_io_expect(&a, 0);
	/* b has its turn, c not before it has ended. */
	assert_int_equal(last_channel->held_len, 2);
	expect_held(1, BDEV_READ, 0, 2);
	base_end(last_channel, 1, 0);
	expect_held(1, BDEV_WRITE, 0, 2);
	base_end(last_channel, 1, 0);
	test_io_expect(&b, 0);
	expect_held(1, BDEV_WRITE, 1, 1);
	base_end(last_channel, 1, 0);
	test_io_expect(&c, 0);
	assert_int_equal(last_channel->held_len, 1);
	base_end(last_channel, 0, 0);
	base_end(last_channel, 0, 0);
	test_io_expect(&d, 0);
	assert_int_equal(last_channel->held_len, 1);
	expect_held(0, BDEV_DISCARD, 1, 5);
	base_end(last_channel, 0, 0);
	test_io_expect(&e, 0);
	assert_int_equal(last_channel->held_len, 1);
	expect_held(0, BDEV_READ, 5, 1);
	base_end(last_channel, 0, 0);
	base_end(last_channel, 0, 0);
	test_io_expect(&f, 0);
	expect_bytes(0, 1, 2);
	expect_bytes(1, 7, 3);
	expect_bytes(8, 33, 0);
	expect_bytes(41, 1, 6);
	expect_bytes(42, 6, 0);
	expect_bytes(48, 8, 1);
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* Want of memory */

static void test_waits_for_memory(void **state)
{
	enum { LARGE = 8, SMALL = 400 };
	struct bdev_limits limits = usual;
	struct bdev_channel *ch = open_by_hand(&limits);
	struct test_io *ios = calloc(LARGE + SMALL, sizeof(*ios));
	unsigned done = 0;

	/* Of 257 blocks each, which share their ends; then of one. */
	memset(base.data, 1, BASE_BLOCKS * BLOCK);
	for (unsigned i = 0; i < LARGE; i++)
		test_io_submit(&ios[i], ch, BDEV_READ, 1 + i % 3 * 2048, 2048, 0);
	for (unsigned i = LARGE; i < LARGE + SMALL; i++)
		test_io_submit(&ios[i], ch, BDEV_WRITE, i * 8 + 1, 2, 2);
	/* One large one fits, and nobody overtakes the second. */
	assert_int_equal(last_channel->held_len, 1);
	while (last_channel->held_len)
		base_end(last_channel, last_channel->held_len / 2, 0);
	for (unsigned i = 0; i < LARGE + SMALL; i++) {
		done += ios[i].done;
		test_io_expect(&ios[i], 0);
	}
	assert_int_equal(done, LARGE + SMALL);
	/* The small ones ran side by side, as many as there are ops. */
	assert_int_equal(last_channel->held_most, 128);
	for (unsigned i = LARGE; i < LARGE + SMALL; i++) {
		expect_bytes(i * 8, 1, 1);
		expect_bytes(i * 8 + 1, 2, 2);
		expect_bytes(i * 8 + 3, 5, 1);
	}
	bdev_channel_close(ch);
	bdev_delete_all();
	free(ios);
}

/* An io whose done submits it again, on a base that completes at once: the stack must not grow. */
struct chain {
	struct bdev_io io;
	struct bdev_channel *ch;
	unsigned left;
	char *lowest, *highest;
};

static void chain_done(struct bdev_io *io)
{
	struct chain *chain = container_of(io, struct chain, io);
	char here;
	char *volatile at = &here;

	assert_int_equal(io->result, 0);
	if (!chain->lowest || at < chain->lowest)
		chain->lowest = at;
	if (at > chain->highest)
		chain->highest = at;
	if (chain->left--)
		bdev_submit(chain->ch, io);
}

static void test_chain(void **state)
{
	char *data = test_alloc(BLOCK);
	struct iovec iov = {data, SECTOR};
	struct chain chain = {
		.io = {.op = BDEV_WRITE,
		       .offset = SECTOR,
		       .len = SECTOR,
		       .iov = &iov,
		       .iovcnt = 1,
		       .done = chain_done},
		.left = 10000,
	};
	struct bdev *b;
	struct err err;

	memset(data, 0, BLOCK);
	assert_int_equal(bdev_ram_create("r", MIB, BLOCK, &b, &err), 0);
	assert_int_equal(bdev_channel_open(bdev_sectors(b), NULL, &chain.ch), 0);
	bdev_submit(chain.ch, &chain.io);
	assert_int_equal(chain.left, UINT32_MAX);
	assert_true(chain.highest - chain.lowest < 65536);
	bdev_channel_close(chain.ch);
	bdev_delete_all();
	free(data);
}

/* Channels */

static void closing_done(struct bdev_io *io)
{
	struct test_io *t = container_of(io, struct test_io, io);

	t->done++;
	bdev_channel_close((struct bdev_channel *)(void *)t->data);
}

static void test_closing(void **state)
{
	struct bdev_channel *ch;
	struct test_io t = {.data = NULL};
	char *data = test_alloc(BLOCK);
	struct bdev *b;
	struct err err;

	/* An io's done may close the channel, whether the base completes at once or later. */
	memset(data, 0, BLOCK);
	t.iov = (struct iovec){data, SECTOR};
	t.io = (struct bdev_io){
		.op = BDEV_WRITE, .len = SECTOR, .iov = &t.iov, .iovcnt = 1, .done = closing_done};
	assert_int_equal(bdev_ram_create("r", MIB, BLOCK, &b, &err), 0);
	assert_int_equal(bdev_channel_open(bdev_sectors(b), NULL, &ch), 0);
	t.data = (char *)ch;
	assert_int_equal(bdev_delete("r", &err), -EBUSY);
	bdev_submit(ch, &t.io);
	assert_int_equal(t.done, 1);
	assert_int_equal(bdev_delete("r", &err), 0);

	ch = open_by_hand(&usual);
	t.data = (char *)ch;
	bdev_submit(ch, &t.io);
	base_end(last_channel, 0, 0);
	assert_int_equal(bdev_delete("base", &err), -EBUSY);
	base_end(last_channel, 0, 0);
	assert_int_equal(t.done, 2);
	assert_int_equal(bdev_delete("base", &err), 0);

	b = base_register(&usual);
	base.refuse_channels = true;
	assert_int_equal(bdev_channel_open(b, NULL, &ch), -EMFILE);
	assert_int_equal(bdev_delete("base", &err), 0);
	free(data);
}

/*
 * Two reactors at once.  Sectors belong to one or the other, in runs shorter and longer than
 * blocks, so that most blocks are both's; each writes, discards and reads its own and knows what
 * must be in them.
 */

enum { PARTIES = 2, DEPTH = 24, MODEL_SECTORS = 40 * 8, ROUNDS = 20000, RUN_MAX = 40 };

struct slot {
	struct bdev_io io;
	struct iovec iov[RUN_MAX];
	struct party *party;
	uint64_t sector, sectors;
	uint32_t generation;
	char *data;
};

struct party {
	struct rig *rig;
	struct bdev_channel *ch;
	unsigned seed;
	unsigned begun, running;
	uint32_t generation;
	struct slot slots[DEPTH];
	sem_t over;
};

static struct party parties[PARTIES];
static unsigned owner[MODEL_SECTORS];
/* The owner's. */
static uint32_t expected[MODEL_SECTORS]; /* generations; 0: zeros */
static bool busy[MODEL_SECTORS];
/* Reactors only count what is wrong: a test can fail on its own thread alone. */
static _Atomic(unsigned) wrong;

static void fill_sector(char *data, uint64_t sector, uint32_t generation)
{
	if (generation)
		test_fill(data, sector * SECTOR, SECTOR, generation);
	else
		memset(data, 0, SECTOR);
}

static void check_sector(const char *data, uint64_t sector, uint32_t generation)
{
	char want[SECTOR];

	fill_sector(want, sector, generation);
	wrong += memcmp(data, want, SECTOR) != 0;
}

static bool choose_range(struct party *p, struct slot *s)
{
	unsigned me = (unsigned)(p - parties), most = 1 + (unsigned)rand_r(&p->seed) % RUN_MAX;

	s->sector = (unsigned)rand_r(&p->seed) % MODEL_SECTORS;
	s->sectors = 0;
	while (s->sectors < most && s->sector + s->sectors < MODEL_SECTORS &&
	       owner[s->sector + s->sectors] == me && !busy[s->sector + s->sectors])
		s->sectors++;
	return s->sectors;
}

static void begin(struct slot *s)
{
	struct party *p = s->party;
	uint64_t done = 0;

	while (!choose_range(p, s))
		;
	p->begun++;
	p->running++;
	s->generation = ++p->generation;
	s->io.op = (enum bdev_op[]){BDEV_READ, BDEV_WRITE, BDEV_WRITE,
				    BDEV_DISCARD}[rand_r(&p->seed) % 4];
	s->io.offset = s->sector * SECTOR;
	s->io.len = s->sectors * SECTOR;
	s->io.iov = s->iov;
	s->io.result = 1;
	for (s->io.iovcnt = 0; done < s->sectors; s->io.iovcnt++) {
		uint64_t left = s->sectors - done;
		uint64_t n = rand_r(&p->seed) % 2 ? left : 1 + (unsigned)rand_r(&p->seed) % left;

		s->iov[s->io.iovcnt] = (struct iovec){s->data + done * SECTOR, n * SECTOR};
		done += n;
	}
	for (uint64_t i = 0; i < s->sectors; i++) {
		busy[s->sector + i] = true;
		fill_sector(s->data + i * SECTOR, s->sector + i, s->generation);
	}
	bdev_submit(p->ch, &s->io);
}

static void slot_done(struct bdev_io *io)
{
	struct slot *s = container_of(io, struct slot, io);
	struct party *p = s->party;

	wrong += io->result != 0;
	io->result = 1;
	for (uint64_t i = s->sector; i < s->sector + s->sectors; i++) {
		wrong += !busy[i];
		busy[i] = false;
		if (io->op == BDEV_READ)
			check_sector(s->data + (i - s->sector) * SECTOR, i, expected[i]);
		if (io->op == BDEV_WRITE)
			expected[i] = s->generation;
		if (io->op == BDEV_DISCARD && i / 8 * 8 >= s->sector &&
		    i / 8 * 8 + 8 <= s->sector + s->sectors)
			expected[i] = 0;
	}
	p->running--;
	if (p->begun < ROUNDS)
		begin(s);
	else if (!p->running)
		sem_post(&p->over);
}

static void begin_all(void *arg)
{
	struct party *p = arg;

	for (unsigned i = 0; i < DEPTH; i++) {
		struct slot *s = &p->slots[i];

		s->party = p;
		s->data = test_alloc(RUN_MAX * SECTOR);
		s->io.done = slot_done;
		begin(s);
	}
}

static void test_two_reactors(void **state)
{
	struct bdev *view = base_register(&usual);
	unsigned seed = 1, turn = 0, shared = 0;

	for (uint64_t i = 0; i < MODEL_SECTORS; turn++)
		for (unsigned n = 1 + (unsigned)rand_r(&seed) % 20; n && i < MODEL_SECTORS; n--)
			owner[i++] = turn % PARTIES;
	for (uint64_t i = 1; i < MODEL_SECTORS; i++)
		shared += i % 8 && owner[i] != owner[i - 1];
	assert_true(shared > 20);
	for (unsigned i = 0; i < PARTIES; i++) {
		struct party *p = &parties[i];

		p->rig = rig_start();
		p->ch = rig_open(p->rig, view);
		p->seed = i + 7;
		sem_init(&p->over, 0, 0);
	}
	for (unsigned i = 0; i < PARTIES; i++)
		rig_call(parties[i].rig, begin_all, &parties[i]);
	for (unsigned i = 0; i < PARTIES; i++) {
		struct party *p = &parties[i];

		sem_wait(&p->over);
		sem_destroy(&p->over);
		rig_close(p->rig, p->ch);
		rig_stop(p->rig);
		assert_int_equal(p->begun, ROUNDS);
		for (unsigned j = 0; j < DEPTH; j++)
			free(p->slots[j].data);
	}
	for (uint64_t i = 0; i < MODEL_SECTORS; i++)
		check_sector(base.data + i * SECTOR, i, expected[i]);
	assert_int_equal(wrong, 0);
	bdev_delete_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_alignments),
		cmocka_unit_test(test_device_pieces),
		cmocka_unit_test(test_passes_through),
		cmocka_unit_test(test_reads_what_it_writes_in_part),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_discards),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_waits_for_memory),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_closing),
		cmocka_unit_test(test_two_reactors),
	};

	return cmocka_run_group_tests_name("bdev_sectors", tests, NULL, NULL);
}
