/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sectors of bdevs with blocks of 4096 bytes, in front of two bases: ram, which completes at once,
 * and one that completes when and how it is told to (sectors_base.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sectors_base.h"

enum { MIB = 1 << 20 };

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

	assert_true(i < base_last_channel->held_len);
	io = base_last_channel->held[i];
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
	struct bdev_channel *ch = base_open_by_hand(&base_usual);
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
		assert_ptr_equal(base_last_channel->held[0]->pieces, pieces);
		assert_int_equal(base_last_channel->held[0]->nr_pieces, 2);
		assert_null(base_last_channel->held[0]->iov);
		base_end(base_last_channel, 0, 0);
		test_io_expect(&t, 0);
		t.io.offset += SECTOR;
		t.done = 0;
		bdev_submit(ch, &t.io);
		test_io_expect(&t, -EINVAL);
		assert_int_equal(base_last_channel->held_len, 0);
	}
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* What reaches the base */

static void test_passes_through(void **state)
{
	struct bdev_channel *ch = base_open_by_hand(&base_usual);
	struct test_io t;

	test_io_submit(&t, ch, BDEV_READ, 8, 16, 0);
	expect_held(0, BDEV_READ, 1, 2);
	assert_ptr_equal(base_last_channel->held[0]->iov[0].iov_base, t.data);
	base_end(base_last_channel, 0, 0);
	test_io_expect(&t, 0);

	test_io_submit(&t, ch, BDEV_WRITE, 8, 16, 0);
	expect_held(0, BDEV_WRITE, 1, 2);
	assert_ptr_equal(base_last_channel->held[0]->iov[0].iov_base, t.data);
	base_end(base_last_channel, 0, -ENOSPC);
	test_io_expect(&t, -ENOSPC);

	test_io_submit(&t, ch, BDEV_FLUSH, 0, 0, 0);
	assert_int_equal(base_last_channel->held[0]->op, BDEV_FLUSH);
	base_end(base_last_channel, 0, -EIO);
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
	struct bdev_channel *ch = base_open_by_hand(&base_usual);
	struct test_io t;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t after = cases[i].sector + cases[i].sectors;

		memset(base.data, 7, BASE_BLOCKS * BLOCK);
		test_io_submit(&t, ch, BDEV_WRITE, cases[i].sector, cases[i].sectors, 9);
		for (unsigned j = 0; j < 2 && cases[i].reads[j].blocks; j++)
			expect_held(j, BDEV_READ, cases[i].reads[j].block,
				    cases[i].reads[j].blocks);
		if (cases[i].reads[1].blocks)
			base_end(base_last_channel, 1, 0);
		base_end(base_last_channel, 0, 0);
		assert_int_equal(base_last_channel->held_len, 1);
		expect_held(0, BDEV_WRITE, cases[i].write.block, cases[i].write.blocks);
		assert_int_equal(t.done, 0);
		base_end(base_last_channel, 0, 0);
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
	struct bdev_channel *ch = base_open_by_hand(&base_usual);
	struct test_io t;

	memset(base.data, 7, BASE_BLOCKS * BLOCK);
	test_io_submit(&t, ch, BDEV_READ, 1, 30, 5);
	base_end(base_last_channel, 0, -EIO);
	assert_int_equal(t.data[0], 5);
	test_io_expect(&t, -EIO);
	/* Either read fails, or both: nothing is written. Then the next has its turn. */
	for (int mask = 1; mask <= 3; mask++) {
		test_io_submit(&t, ch, BDEV_WRITE, 1, 30, 9);
		base_end(base_last_channel, 1, mask & 2 ? -EIO : 0);
		assert_int_equal(t.done, 0);
		base_end(base_last_channel, 0, mask & 1 ? -ENOSPC : 0);
		assert_int_equal(base_last_channel->held_len, 0);
		test_io_expect(&t, mask & 2 ? -EIO : -ENOSPC);
	}
	expect_bytes(0, BASE_BLOCKS * 8, 7);
	test_io_submit(&t, ch, BDEV_WRITE, 1, 30, 9);
	base_end(base_last_channel, 0, 0);
	base_end(base_last_channel, 0, 0);
	base_end(base_last_channel, 0, -EREMOTEIO);
	test_io_expect(&t, -EREMOTEIO);
	test_io_submit(&t, ch, BDEV_DISCARD, 1, 30, 0);
	base_end(base_last_channel, 0, -EREMOTEIO);
	test_io_expect(&t, -EREMOTEIO);
	/* An error is the one io's it happened to. */
	test_io_submit(&t, ch, BDEV_WRITE, 1, 1, 9);
	base_end(base_last_channel, 0, 0);
	base_end(base_last_channel, 0, 0);
	test_io_expect(&t, 0);
	expect_bytes(1, 1, 9);
	bdev_channel_close(ch);
	bdev_delete_all();
}

static void test_discards(void **state)
{
	struct bdev_channel *ch = base_open_by_hand(&base_usual);
	struct test_io t;

	test_io_submit(&t, ch, BDEV_DISCARD, 8, 24, 0);
	expect_held(0, BDEV_DISCARD, 1, 3);
	base_end(base_last_channel, 0, 0);
	test_io_expect(&t, 0);
	test_io_submit(&t, ch, BDEV_DISCARD, 9, 30, 0);
	expect_held(0, BDEV_DISCARD, 2, 2);
	assert_false(base_last_channel->held[0]->secure);
	base_end(base_last_channel, 0, 0);
	test_io_expect(&t, 0);
	/* Less than a block, and two parts of blocks: nothing left. */
	test_io_submit(&t, ch, BDEV_DISCARD, 1, 7, 0);
	test_io_expect(&t, 0);
	test_io_submit(&t, ch, BDEV_DISCARD, 9, 14, 0);
	test_io_expect(&t, 0);
	assert_int_equal(base_last_channel->held_len, 0);

	t.io = (struct bdev_io){.op = BDEV_DISCARD, .secure = true, .done = test_io_done};
	for (uint64_t odd = 1; odd < 4; odd++) {
		t.io.offset = BLOCK + (odd & 1) * SECTOR;
		t.io.len = 2 * BLOCK + (odd & 2) * SECTOR;
		bdev_submit(ch, &t.io);
		assert_int_equal(t.io.result, -EINVAL);
		assert_int_equal(base_last_channel->held_len, 0);
	}
	t.io.offset = BLOCK;
	t.io.len = 2 * BLOCK;
	bdev_submit(ch, &t.io);
	expect_held(0, BDEV_DISCARD, 1, 2);
	assert_true(base_last_channel->held[0]->secure);
	base_end(base_last_channel, 0, 0);
	assert_int_equal(t.io.result, 0);
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* Turns */

static void test_turns(void **state)
{
	struct bdev_channel *ch = base_open_by_hand(&base_usual);
	struct test_io a, b, c, d, e, f, r;

	memset(base.data, 1, BASE_BLOCKS * BLOCK);
	test_io_submit(&a, ch, BDEV_WRITE, 0, 1, 2);    /* block 0 */
	test_io_submit(&b, ch, BDEV_WRITE, 1, 8, 3);    /* blocks 0 and 1, behind a */
	test_io_submit(&c, ch, BDEV_WRITE, 8, 8, 4);    /* block 1, whole, behind b alone */
	test_io_submit(&d, ch, BDEV_WRITE, 40, 1, 5);   /* block 5, behind nobody */
	test_io_submit(&e, ch, BDEV_DISCARD, 8, 40, 0); /* blocks 1 to 5, behind c and d */
	test_io_submit(&f, ch, BDEV_WRITE, 41, 1, 6);   /* block 5, behind d and e */
	test_io_submit(&r, ch, BDEV_READ, 0, 16, 0);    /* behind nobody, ever */
	assert_int_equal(base_last_channel->held_len, 3);
	expect_held(0, BDEV_READ, 0, 1);
	expect_held(1, BDEV_READ, 5, 1);
	expect_held(2, BDEV_READ, 0, 2);
	base_end(base_last_channel, 2, 0);
	test_io_expect(&r, 0);
	base_end(base_last_channel, 0, 0);
	expect_held(1, BDEV_WRITE, 0, 1);
	assert_int_equal(base_last_channel->held_len, 2);
	base_end(base_last_channel, 1, 0);
	test_io_expect(&a, 0);
	/* b has its turn, c not before it has ended. */
	assert_int_equal(base_last_channel->held_len, 2);
	expect_held(1, BDEV_READ, 0, 2);
	base_end(base_last_channel, 1, 0);
	expect_held(1, BDEV_WRITE, 0, 2);
	base_end(base_last_channel, 1, 0);
	test_io_expect(&b, 0);
	expect_held(1, BDEV_WRITE, 1, 1);
	base_end(base_last_channel, 1, 0);
	test_io_expect(&c, 0);
	assert_int_equal(base_last_channel->held_len, 1);
	base_end(base_last_channel, 0, 0);
	base_end(base_last_channel, 0, 0);
	test_io_expect(&d, 0);
	assert_int_equal(base_last_channel->held_len, 1);
	expect_held(0, BDEV_DISCARD, 1, 5);
	base_end(base_last_channel, 0, 0);
	test_io_expect(&e, 0);
	assert_int_equal(base_last_channel->held_len, 1);
	expect_held(0, BDEV_READ, 5, 1);
	base_end(base_last_channel, 0, 0);
	base_end(base_last_channel, 0, 0);
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
	struct bdev_limits limits = base_usual;
	struct bdev_channel *ch = base_open_by_hand(&limits);
	struct test_io *ios = calloc(LARGE + SMALL, sizeof(*ios));
	unsigned done = 0;

	/* Of 257 blocks each, which share their ends; then of one. */
	memset(base.data, 1, BASE_BLOCKS * BLOCK);
	for (unsigned i = 0; i < LARGE; i++)
		test_io_submit(&ios[i], ch, BDEV_READ, 1 + i % 3 * 2048, 2048, 0);
	for (unsigned i = LARGE; i < LARGE + SMALL; i++)
		test_io_submit(&ios[i], ch, BDEV_WRITE, i * 8 + 1, 2, 2);
	/* One large one fits, and nobody overtakes the second. */
	assert_int_equal(base_last_channel->held_len, 1);
	while (base_last_channel->held_len)
		base_end(base_last_channel, base_last_channel->held_len / 2, 0);
	for (unsigned i = 0; i < LARGE + SMALL; i++) {
		done += ios[i].done;
		test_io_expect(&ios[i], 0);
	}
	assert_int_equal(done, LARGE + SMALL);
	/* The small ones ran side by side, as many as there are ops. */
	assert_int_equal(base_last_channel->held_most, 128);
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

	ch = base_open_by_hand(&base_usual);
	t.data = (char *)ch;
	bdev_submit(ch, &t.io);
	base_end(base_last_channel, 0, 0);
	assert_int_equal(bdev_delete("base", &err), -EBUSY);
	base_end(base_last_channel, 0, 0);
	assert_int_equal(t.done, 2);
	assert_int_equal(bdev_delete("base", &err), 0);

	b = base_register(&base_usual);
	base.refuse_channels = true;
	assert_int_equal(bdev_channel_open(b, NULL, &ch), -EMFILE);
	assert_int_equal(bdev_delete("base", &err), 0);
	free(data);
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
	};

	return cmocka_run_group_tests_name("bdev_sectors", tests, NULL, NULL);
}
