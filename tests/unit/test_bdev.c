/* SPDX-License-Identifier: BSD-2-Clause */
/* The registry, claims, the checks of bdev_submit(), and the providers in memory. */
#include "test_bdev_util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (1ULL << 20)

/* Registry */

static void test_names(void **state)
{
	static const char *const bad[] = {
		"",
		"-a",
		".a",
		"a b",
		"a/b",
		"a\n",
		"1234567890123456789012345678901234567890123456789012345678901234"};
	char longest[64];
	struct err err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err.text[0] = '\0';
		assert_int_equal(bdev_null_create(bad[i], MIB, 512, NULL, &err), -EINVAL);
		assert_non_null(strstr(err.text, "no name for a bdev"));
	}
	assert_null(bdev_next(NULL));
	memset(longest, 'x', 63);
	longest[63] = '\0';
	assert_int_equal(bdev_null_create(longest, MIB, 512, NULL, &err), 0);
	assert_string_equal(bdev_find(longest)->name, longest);
	assert_int_equal(bdev_delete(longest, &err), 0);
}

static void test_registry(void **state)
{
	static const char *const names[] = {"m", "a", "z", "b"};
	static const char sorted[] = "abmz";
	struct bdev *b = NULL, *made;
	struct err err;

	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(bdev_null_create(names[i], MIB, 512, &made, &err), 0);
		assert_ptr_equal(bdev_find(names[i]), made);
	}
	assert_int_equal(bdev_ram_create("b", MIB, 512, NULL, &err), -EEXIST);
	assert_non_null(strstr(err.text, "\"b\" already"));
	for (size_t i = 0; i < 4; i++) {
		b = bdev_next(b);
		assert_non_null(b);
		assert_int_equal(b->name[0], sorted[i]);
	}
	assert_null(bdev_next(b));
	assert_null(bdev_find("c"));
	assert_int_equal(bdev_delete("c", &err), -ENOENT);
	assert_non_null(strstr(err.text, "no bdev \"c\""));
	assert_int_equal(bdev_delete("b", &err), 0);
	assert_null(bdev_find("b"));
	assert_string_equal(bdev_next(bdev_find("a"))->name, "m");
	bdev_delete_all();
	assert_null(bdev_next(NULL));
}

static void test_shapes(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t block_size;
	} bad[] = {{0, 512},          {511, 512},   {513, 512},        {4096 + 512, 4096},
		   {MIB, 0},          {MIB, 1},     {MIB, 1024},       {MIB, 8192},
		   {1ULL << 63, 512}, {~0ULL, 512}, {~0ULL - 511, 512}};
	struct bdev *b;
	struct err err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(bdev_null_create("x", bad[i].size, bad[i].block_size, NULL, &err),
				 -EINVAL);
		assert_int_equal(bdev_ram_create("x", bad[i].size, bad[i].block_size, NULL, &err),
				 -EINVAL);
		assert_non_null(strstr(err.text, "is not served: use"));
	}
	assert_null(bdev_next(NULL));
	assert_int_equal(bdev_null_create("x", (1ULL << 63) - 4096, 4096, &b, &err), 0);
	assert_int_equal(b->limits.block_size, 4096);
	bdev_delete_all();
}

/* Claims */

static void test_claims(void **state)
{
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_null_create("x", MIB, 512, &b, &err), 0);
	assert_int_equal(bdev_claim(b, true, false, &err), 0);
	assert_int_equal(bdev_claim(b, true, false, &err), -EBUSY);
	assert_non_null(strstr(err.text, "--shared"));
	assert_int_equal(bdev_claim(b, false, false, &err), -EBUSY);
	assert_int_equal(bdev_claim(b, true, true, &err), -EBUSY);
	assert_int_equal(bdev_delete("x", &err), -EBUSY);
	assert_non_null(strstr(err.text, "detach its disk"));
	bdev_release(b);
	assert_int_equal(bdev_claim(b, true, true, &err), 0);
	assert_int_equal(bdev_claim(b, true, false, &err), -EBUSY);
	assert_int_equal(bdev_claim(b, true, true, &err), 0);
	assert_int_equal(bdev_claim(b, true, true, &err), 0);
	bdev_release(b);
	bdev_release(b);
	assert_int_equal(bdev_delete("x", &err), -EBUSY);
	bdev_release(b);
	/* Nothing of the sharing is left. */
	assert_int_equal(bdev_claim(b, true, false, &err), 0);
	assert_int_equal(bdev_claim(b, true, true, &err), -EBUSY);
	bdev_release(b);
	/* Created to be shared: every claim of it asks to share. */
	b->shared = true;
	assert_int_equal(bdev_claim(b, true, false, &err), 0);
	assert_int_equal(bdev_claim(b, true, false, &err), 0);
	bdev_release(b);
	bdev_release(b);
	assert_int_equal(bdev_delete("x", &err), 0);
}

static void test_claims_of_parts(void **state)
{
	struct bdev *whole, *parts[2];
	struct err err;

	assert_int_equal(bdev_null_create("x", MIB, 512, &whole, &err), 0);
	assert_int_equal(bdev_null_create("xp1", MIB, 512, &parts[0], &err), 0);
	assert_int_equal(bdev_null_create("xp2", MIB, 512, &parts[1], &err), 0);
	parts[0]->whole = whole;
	parts[1]->whole = whole;
	assert_int_equal(bdev_claim(parts[0], true, false, &err), 0);
	assert_int_equal(bdev_claim(whole, false, false, &err), -EBUSY);
	assert_non_null(strstr(err.text, "\"xp1\", that is in use"));
	/* Sharing is for disks that agree on what is where. */
	assert_int_equal(bdev_claim(whole, false, true, &err), -EBUSY);
	/* Parts are nothing to each other. */
	assert_int_equal(bdev_claim(parts[1], true, false, &err), 0);
	bdev_release(parts[0]);
	assert_int_equal(bdev_claim(whole, true, true, &err), -EBUSY);
	assert_non_null(strstr(err.text, "\"xp2\", that is in use"));
	bdev_release(parts[1]);

	assert_int_equal(bdev_claim(whole, true, true, &err), 0);
	assert_int_equal(bdev_claim(parts[0], true, false, &err), -EBUSY);
	assert_non_null(strstr(err.text, "part of \"x\", which is in use as a whole"));
	assert_int_equal(bdev_claim(parts[1], false, true, &err), -EBUSY);
	bdev_release(whole);
	assert_int_equal(bdev_claim(parts[1], true, false, &err), 0);
	bdev_release(parts[1]);

	assert_int_equal(bdev_delete("x", &err), -EBUSY);
	assert_non_null(strstr(err.text, "has a part, \"xp1\""));
	assert_int_equal(bdev_delete("xp1", &err), 0);
	assert_int_equal(bdev_delete("x", &err), -EBUSY);
	assert_int_equal(bdev_delete("xp2", &err), 0);
	assert_int_equal(bdev_delete("x", &err), 0);
}

static void test_claim_readonly(void **state)
{
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_null_create("x", MIB, 512, &b, &err), 0);
	b->readonly = true;
	assert_int_equal(bdev_claim(b, true, false, &err), -EROFS);
	assert_non_null(strstr(err.text, "--readonly"));
	assert_int_equal(bdev_claim(b, false, false, &err), 0);
	bdev_release(b);
	bdev_delete_all();
}

static void test_delete_with_channel(void **state)
{
	struct bdev_channel *ch;
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_null_create("x", MIB, 512, &b, &err), 0);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	assert_ptr_equal(ch->bdev, b);
	assert_int_equal(bdev_delete("x", &err), -EBUSY);
	bdev_channel_close(ch);
	assert_int_equal(bdev_delete("x", &err), 0);
}

/* Checks; a provider that only counts sees what passes them. */

static unsigned submitted;
static unsigned completed;

static int fake_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	static struct bdev_channel channel;

	*ch = &channel;
	return 0;
}

static void fake_channel_close(struct bdev_channel *ch)
{
}

static void fake_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	submitted++;
	io->result = 0;
	io->done(io);
}

static void fake_destroy(struct bdev *b)
{
}

static const struct bdev_ops fake_ops = {
	.product = "fake",
	.destroy = fake_destroy,
	.channel_open = fake_channel_open,
	.channel_close = fake_channel_close,
	.submit = fake_submit,
};

static void count_done(struct bdev_io *io)
{
	completed++;
}

static struct bdev_channel *fake_open(struct bdev *b)
{
	struct bdev_channel *ch;
	struct err err;

	memset(b, 0, sizeof(*b));
	strcpy(b->name, "fake");
	b->ops = &fake_ops;
	b->size = 64 * 1024;
	b->limits = (struct bdev_limits){.block_size = 4096,
					 .physical_block_size = 4096,
					 .mem_align = 512,
					 .max_iov = 4,
					 .max_io = 16384,
					 .discard = true,
					 .discard_max = 32768};
	assert_int_equal(bdev_register(b, &err), 0);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	return ch;
}

static int submit(struct bdev_channel *ch, enum bdev_op op, uint64_t offset, uint64_t len,
		  const struct iovec *iov, int iovcnt)
{
	struct bdev_io io = {.op = op,
			     .offset = offset,
			     .len = len,
			     .iov = iov,
			     .iovcnt = iovcnt,
			     .done = count_done,
			     .result = 1};
	unsigned completed_before = completed, submitted_before = submitted;

	bdev_submit(ch, &io);
	assert_int_equal(completed, completed_before + 1);
	/* The provider sees exactly what is good. */
	assert_int_equal(submitted - submitted_before, !io.result);
	assert_ptr_equal(io.ch, ch);
	return io.result;
}

static void test_check_ranges(void **state)
{
	static _Alignas(512) char data[16384];
	static const struct {
		uint64_t offset, len;
		int result;
	} cases[] = {
		{0, 4096, 0},
		{61440, 4096, 0},
		{49152, 16384, 0},
		{0, 0, -EINVAL},
		{65536, 0, -EINVAL},
		{65536, 4096, -EINVAL},
		{61440, 8192, -EINVAL},
		{512, 4096, -EINVAL},
		{0, 512, -EINVAL},
		{0, 4096 + 512, -EINVAL},
		{~0ULL - 4095, 4096, -EINVAL},
		{~0ULL - 4095, 8192, -EINVAL},
		{1ULL << 63, 4096, -EINVAL},
		{4096, ~0ULL - 4095, -EINVAL},
		{4096, 1ULL << 63, -EINVAL},
	};
	struct bdev b;
	struct bdev_channel *ch = fake_open(&b);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct iovec iov = {data, cases[i].len};

		assert_int_equal(submit(ch, BDEV_READ, cases[i].offset, cases[i].len, &iov, 1),
				 cases[i].result);
		assert_int_equal(submit(ch, BDEV_WRITE, cases[i].offset, cases[i].len, &iov, 1),
				 cases[i].result);
		assert_int_equal(submit(ch, BDEV_DISCARD, cases[i].offset, cases[i].len, NULL, 0),
				 cases[i].result);
	}
	bdev_channel_close(ch);
	bdev_delete_all();
}

static void test_check_pieces(void **state)
{
	static _Alignas(512) char data[32768];
	struct bdev b;
	struct bdev_channel *ch = fake_open(&b);
	struct iovec iov[5];

	for (int i = 0; i < 5; i++)
		iov[i] = (struct iovec){data, 4096};
	assert_int_equal(submit(ch, BDEV_READ, 0, 16384, iov, 4), 0);
	/* More pieces than max_iov, fewer than one, and sums that are too small or too large. */
	iov[4].iov_len = 0;
	assert_int_equal(submit(ch, BDEV_READ, 0, 16384, iov, 5), -EINVAL);
	assert_int_equal(submit(ch, BDEV_READ, 0, 4096, iov, 0), -EINVAL);
	assert_int_equal(submit(ch, BDEV_READ, 0, 4096, iov, -1), -EINVAL);
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 16384, iov, 3), -EINVAL);
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 8192, iov, 3), -EINVAL);
	/* A sum that is right only because it wraps. */
	iov[0].iov_len = ~(size_t)0 - 4095;
	iov[1].iov_len = 8192;
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 4096, iov, 2), -EINVAL);
	/* Pieces of half a block, and memory that is not aligned. */
	iov[0].iov_len = iov[1].iov_len = 2048;
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 4096, iov, 2), -EINVAL);
	iov[0] = (struct iovec){data + 256, 4096};
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 4096, iov, 1), -EINVAL);
	iov[0] = (struct iovec){data + 512, 4096};
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 4096, iov, 1), 0);
	/* More than max_io; without a bound as much as the device has. */
	iov[0] = (struct iovec){data, 20480};
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 20480, iov, 1), -EINVAL);
	b.limits.max_io = 0;
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 20480, iov, 1), 0);
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* What only a device reaches, by blocks of 4096 bytes (@whole) and of 512. */
static void test_check_device_pieces(void **state)
{
#define P(place, bytes)                                      \
	{                                                    \
		.bus = 0x123456000 + (place), .len = (bytes) \
	}
	static const struct {
		struct dma_piece pieces[4];
		uint32_t nr, len;
		bool whole, sectors;
	} cases[] = {
		{{P(0, 4096)}, 1, 4096, true, true},
		{{P(0, 512)}, 1, 512, false, true},
		{{P(3584, 512)}, 1, 512, false, true},
		/* Blocks may begin inside a page, where the pages have no gap between them. */
		{{P(2048, 2048), P(0, 2048)}, 2, 4096, true, true},
		{{P(512, 3584), P(0, 4096), P(0, 512)}, 3, 8192, true, true},
		/* Gaps after whole blocks, and inside of them. */
		{{P(2048, 2048), P(0, 2048), P(1024, 3072), P(0, 1024)}, 4, 8192, true, true},
		{{P(0, 2048), P(0, 2048)}, 2, 4096, false, true},
		{{P(0, 2048), P(2048, 2048)}, 2, 4096, false, true},
		{{P(0, 4096), P(512, 512), P(0, 3584)}, 3, 8192, false, true},
		/* Sums that are wrong, an end beyond the page, lengths and places of no sector. */
		{{P(0, 4096), P(0, 4096)}, 2, 4096, false, false},
		{{P(0, 4096)}, 1, 8192, false, false},
		{{P(0, 4096), P(0, 0)}, 2, 4096, false, false},
		{{P(512, 4096)}, 1, 4096, false, false},
		{{P(0, 8192)}, 1, 8192, false, false},
		{{P(0, 2000), P(0, 2096)}, 2, 4096, false, false},
		{{P(2, 512)}, 1, 512, false, false},
		{{P(0, UINT32_MAX - 511), P(0, 4608)}, 2, 4096, false, false},
	};
#undef P
	struct dma dma;
	struct bdev b;
	struct bdev_channel *ch = fake_open(&b);
	struct iovec iov = {0};

	b.limits.max_iov = 0;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bdev_io io = {.op = BDEV_READ,
				     .len = cases[i].len,
				     .pieces = cases[i].pieces,
				     .nr_pieces = cases[i].nr,
				     .done = count_done};

		for (unsigned sectors = 0; sectors < 2; sectors++) {
			unsigned before = submitted;
			bool good = sectors ? cases[i].sectors : cases[i].whole;

			b.limits.block_size = sectors ? 512 : 4096;
			b.dma = &dma;
			io.iov = NULL;
			bdev_submit(ch, &io);
			if (io.result != (good ? 0 : -EINVAL) || submitted - before != good)
				fail_msg("case %zu, %u: %d", i, sectors, io.result);
			/* Not both, and nothing where nobody reaches it. */
			io.iov = &iov;
			bdev_submit(ch, &io);
			assert_int_equal(io.result, -EINVAL);
			io.iov = NULL;
			b.dma = NULL;
			bdev_submit(ch, &io);
			assert_int_equal(io.result, -EINVAL);
		}
		/* Sectors, but the device behind wants blocks. */
		b.limits.piece_align = 4096;
		b.dma = &dma;
		bdev_submit(ch, &io);
		assert_int_equal(io.result, cases[i].whole ? 0 : -EINVAL);
		b.limits.piece_align = 0;
	}
	bdev_channel_close(ch);
	bdev_delete_all();
}

static void test_check_operations(void **state)
{
	static _Alignas(512) char data[4096];
	struct iovec iov = {data, 4096};
	struct bdev b;
	struct bdev_channel *ch = fake_open(&b);

	assert_int_equal(submit(ch, (enum bdev_op)5, 0, 4096, &iov, 1), -EINVAL);
	assert_int_equal(submit(ch, BDEV_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(submit(ch, BDEV_DISCARD, 0, 32768, NULL, 0), 0);
	assert_int_equal(submit(ch, BDEV_DISCARD, 0, 36864, NULL, 0), -EINVAL);
	b.limits.discard_max = 0;
	assert_int_equal(submit(ch, BDEV_DISCARD, 0, 36864, NULL, 0), 0);
	b.limits.discard = false;
	assert_int_equal(submit(ch, BDEV_DISCARD, 0, 4096, NULL, 0), -EOPNOTSUPP);
	b.limits.discard = true;
	/* Erasing is promised or refused; elsewhere the word means nothing. */
	struct bdev_io io = {
		.op = BDEV_DISCARD, .len = 4096, .secure = true, .done = count_done, .result = 1};
	bdev_submit(ch, &io);
	assert_int_equal(io.result, -EOPNOTSUPP);
	b.limits.secure_discard = true;
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	b.limits.discard = false;
	bdev_submit(ch, &io);
	assert_int_equal(io.result, -EOPNOTSUPP);
	b.limits.discard = true;
	b.limits.secure_discard = false;
	io.op = BDEV_WRITE;
	io.iov = &iov;
	io.iovcnt = 1;
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	b.readonly = true;
	assert_int_equal(submit(ch, BDEV_DISCARD, 0, 4096, NULL, 0), -EROFS);
	assert_int_equal(submit(ch, BDEV_WRITE, 0, 4096, &iov, 1), -EROFS);
	assert_int_equal(submit(ch, BDEV_READ, 0, 4096, &iov, 1), 0);
	assert_int_equal(submit(ch, BDEV_FLUSH, 0, 0, NULL, 0), 0);
	bdev_channel_close(ch);
	bdev_delete_all();
}

/* null */

static void test_null(void **state)
{
	struct bdev_channel *ch;
	const char *method;
	char data[1024];
	struct iovec iov[2] = {{data, 512}, {data + 512, 512}};
	struct bdev *b;
	struct err err;
	json_t *config;

	assert_int_equal(bdev_null_create("x", 1ULL << 50, 512, &b, &err), 0);
	assert_false(b->limits.volatile_data);
	assert_false(b->limits.secure_discard);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	memset(data, 0x5a, sizeof(data));
	for (enum bdev_op op = BDEV_WRITE; op <= BDEV_DISCARD; op++) {
		struct bdev_io io = {.op = op,
				     .len = 1024,
				     .iov = iov,
				     .iovcnt = 2,
				     .done = count_done,
				     .result = 1};

		bdev_submit(ch, &io);
		assert_int_equal(io.result, 0);
		assert_int_equal(data[0], 0x5a);
	}
	/* What the buffer held before must not come out of a read. */
	struct bdev_io io = {.op = BDEV_READ,
			     .offset = (1ULL << 50) - 1024,
			     .len = 1024,
			     .iov = iov,
			     .iovcnt = 2,
			     .done = count_done};
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	for (size_t i = 0; i < sizeof(data); i++)
		assert_int_equal(data[i], 0);
	bdev_channel_close(ch);

	config = b->ops->config(b, &method);
	assert_string_equal(method, "bdev_null_create");
	assert_string_equal(json_string_value(json_object_get(config, "name")), "x");
	assert_int_equal(json_integer_value(json_object_get(config, "num_blocks")), 1LL << 41);
	assert_int_equal(json_integer_value(json_object_get(config, "block_size")), 512);
	json_decref(config);
	bdev_delete_all();
}

/* ram */

static int ram_io(struct bdev_channel *ch, enum bdev_op op, uint64_t offset, void *data,
		  uint64_t len)
{
	struct iovec iov = {data, len};
	struct bdev_io io = {.op = op,
			     .offset = offset,
			     .len = len,
			     .iov = &iov,
			     .iovcnt = 1,
			     .done = count_done,
			     .result = 1};

	bdev_submit(ch, &io);
	return io.result;
}

static void test_ram(void **state)
{
	const uint64_t size = 4 * MIB;
	char *data = malloc(size), *back = malloc(size);
	struct bdev_channel *ch;
	const char *method;
	struct bdev *b;
	struct err err;
	json_t *config;

	assert_int_equal(bdev_ram_create("r", size, 512, &b, &err), 0);
	assert_true(b->limits.volatile_data);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	/* New memory reads as zeros. */
	memset(back, 0xff, size);
	memset(data, 0, size);
	assert_int_equal(ram_io(ch, BDEV_READ, 0, back, size), 0);
	assert_memory_equal(back, data, size);

	test_fill(data, 0, size, 7);
	assert_int_equal(ram_io(ch, BDEV_WRITE, 0, data, size), 0);
	/* In pieces, in another order of memory than of the device. */
	struct iovec iov[3] = {{back + 8192, 512}, {back, 4096}, {back + 4096, 1024}};
	struct bdev_io io = {.op = BDEV_READ,
			     .offset = 1536,
			     .len = 5632,
			     .iov = iov,
			     .iovcnt = 3,
			     .done = count_done,
			     .result = 1};
	bdev_submit(ch, &io);
	assert_int_equal(io.result, 0);
	assert_memory_equal(back + 8192, data + 1536, 512);
	assert_memory_equal(back, data + 2048, 4096);
	assert_memory_equal(back + 4096, data + 6144, 1024);
	io.op = BDEV_WRITE;
	io.offset = size - io.len;
	bdev_submit(ch, &io);
	memmove(data + size - io.len, data + 1536, io.len);
	assert_int_equal(ram_io(ch, BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(ram_io(ch, BDEV_READ, 0, back, size), 0);
	assert_memory_equal(back, data, size);
	bdev_channel_close(ch);

	config = b->ops->config(b, &method);
	assert_string_equal(method, "bdev_malloc_create");
	assert_int_equal(json_integer_value(json_object_get(config, "num_blocks")), 8192);
	json_decref(config);
	bdev_delete_all();
	free(data);
	free(back);
}

static void test_ram_discard(void **state)
{
	const uint64_t size = 16 * MIB;
	static const struct {
		uint64_t offset, len;
	} ranges[] = {
		{512, 512},
		{4096, 4096},
		{8192 + 512, 3 * 4096},
		{32768 - 512, 1024},
		{65536, 65536 + 512},
		{MIB - 512, 2 * MIB},
		{16 * MIB - 512, 512},
	};
	char *data = malloc(size), *back = malloc(size);
	struct bdev_channel *ch;
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_ram_create("r", size, 512, &b, &err), 0);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	test_fill(data, 0, size, 9);
	assert_int_equal(ram_io(ch, BDEV_WRITE, 0, data, size), 0);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		memset(data + ranges[i].offset, 0, ranges[i].len);
		assert_int_equal(ram_io(ch, BDEV_DISCARD, ranges[i].offset, NULL, ranges[i].len),
				 0);
		assert_int_equal(ram_io(ch, BDEV_READ, 0, back, size), 0);
		assert_memory_equal(back, data, size);
	}
	/* More than the reactor may be kept busy with. */
	assert_int_equal(ram_io(ch, BDEV_DISCARD, 0, NULL, 2 * MIB + 512), -EINVAL);
	bdev_channel_close(ch);
	bdev_delete_all();
	free(data);
	free(back);
}

/* Stands in for the C library's: what goes back to the kernel is looked at first. */
static bool look;
static unsigned not_erased, given_back;

int madvise(void *addr, size_t len, int advice)
{
	const char *bytes = addr;

	if (look && advice == MADV_DONTNEED) {
		given_back++;
		for (size_t i = 0; i < len; i++)
			not_erased += bytes[i] != 0;
	}
	return (int)syscall(SYS_madvise, addr, len, advice);
}

static void test_ram_erases(void **state)
{
	char *data = malloc(MIB), *back = malloc(MIB);
	struct bdev_channel *ch;
	struct bdev_io io = {.op = BDEV_DISCARD,
			     .offset = 512,
			     .len = MIB - 1024,
			     .secure = true,
			     .done = count_done,
			     .result = 1};
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_ram_create("r", MIB, 512, &b, &err), 0);
	assert_true(b->limits.secure_discard);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	test_fill(data, 0, MIB, 9);
	assert_int_equal(ram_io(ch, BDEV_WRITE, 0, data, MIB), 0);
	not_erased = given_back = 0;
	look = true;
	bdev_submit(ch, &io);
	look = false;
	assert_int_equal(io.result, 0);
	assert_int_equal(given_back, 1);
	assert_int_equal(not_erased, 0);
	memset(data + 512, 0, MIB - 1024);
	assert_int_equal(ram_io(ch, BDEV_READ, 0, back, MIB), 0);
	assert_memory_equal(back, data, MIB);
	bdev_channel_close(ch);
	bdev_delete_all();
	free(data);
	free(back);
}

/* Resident memory of this process in bytes. */
static uint64_t resident(void)
{
	unsigned long long size, pages;
	FILE *f = fopen("/proc/self/statm", "re");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %llu", &size, &pages), 2);
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_ram_gives_memory_back(void **state)
{
	const uint64_t size = 64 * MIB;
	char *data = calloc(1, MIB);
	struct bdev_channel *ch;
	uint64_t full, empty;
	struct bdev *b;
	struct err err;

	assert_int_equal(bdev_ram_create("r", size, 4096, &b, &err), 0);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	for (uint64_t at = 0; at < size; at += MIB)
		assert_int_equal(ram_io(ch, BDEV_WRITE, at, data, MIB), 0);
	full = resident();
	for (uint64_t at = 0; at < size; at += 2 * MIB)
		assert_int_equal(ram_io(ch, BDEV_DISCARD, at, NULL, 2 * MIB), 0);
	empty = resident();
	assert_true(full > empty && full - empty > 60 * MIB);
	bdev_channel_close(ch);
	bdev_delete_all();
	free(data);
}

static void test_ram_too_large(void **state)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t half = (host / 2 + MIB) & ~(MIB - 1);
	struct err err;

	assert_int_equal(bdev_ram_create("r", (host + MIB) & ~511ULL, 512, NULL, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "choose a smaller size"));
	assert_int_equal(bdev_ram_create("r", INT64_MAX & ~511ULL, 512, NULL, &err), -ENOMEM);
	/* Each would fit, both do not. */
	assert_int_equal(bdev_ram_create("r", half, 512, NULL, &err), 0);
	assert_int_equal(bdev_ram_create("s", half, 512, NULL, &err), -ENOMEM);
	assert_int_equal(bdev_delete("r", &err), 0);
	assert_int_equal(bdev_ram_create("s", half, 512, NULL, &err), 0);
	bdev_delete_all();
}

/* Growing */

static unsigned resized;
static struct bdev *resized_bdev;

static void count_resized(struct bdev *b, void *arg)
{
	assert_ptr_equal(arg, &resized);
	resized++;
	resized_bdev = b;
}

static void test_resize(void **state)
{
	struct bdev_observer observer = {.resized = count_resized, .arg = &resized};
	struct bdev_observer late = {0};
	struct bdev_channel *ch;
	struct bdev *b;
	struct bdev fake;
	struct err err;

	resized = 0;
	bdev_unobserve(&late);
	bdev_observe(&observer);
	assert_int_equal(bdev_null_create("x", MIB, 4096, &b, &err), 0);
	assert_int_equal(bdev_get_size(b), MIB);
	assert_int_equal(bdev_resize(b, MIB - 4096, &err), -EINVAL);
	assert_non_null(strstr(err.text, "cannot shrink: choose a larger"));
	assert_int_equal(bdev_resize(b, 0, &err), -EINVAL);
	assert_int_equal(bdev_resize(b, MIB + 512, &err), -EINVAL);
	assert_non_null(strstr(err.text, "multiple of the block size, 4096"));
	assert_int_equal(bdev_resize(b, 1ULL << 63, &err), -EINVAL);
	/* To what it is already: nothing happens. */
	assert_int_equal(bdev_resize(b, MIB, &err), 0);
	assert_int_equal(resized, 0);
	assert_int_equal(bdev_get_size(b), MIB);
	assert_int_equal(bdev_resize(b, (1ULL << 63) - 4096, &err), 0);
	assert_int_equal(bdev_get_size(b), (1ULL << 63) - 4096);
	assert_int_equal(resized, 1);
	assert_ptr_equal(resized_bdev, b);
	bdev_delete_all();

	/* The size of what is behind is not ours. */
	ch = fake_open(&fake);
	assert_int_equal(bdev_resize(&fake, MIB, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "extend that, and leave the size out"));
	assert_int_equal(resized, 1);
	bdev_channel_close(ch);
	bdev_delete_all();

	/* Whoever observes is told, and no more when it does not. */
	late = observer;
	bdev_observe(&late);
	assert_int_equal(bdev_null_create("x", MIB, 512, &b, &err), 0);
	assert_int_equal(bdev_resize(b, 2 * MIB, &err), 0);
	assert_int_equal(resized, 3);
	bdev_unobserve(&observer);
	bdev_unobserve(&observer);
	assert_int_equal(bdev_resize(b, 3 * MIB, &err), 0);
	assert_int_equal(resized, 4);
	bdev_unobserve(&late);
	assert_int_equal(bdev_resize(b, 4 * MIB, &err), 0);
	assert_int_equal(resized, 4);
	bdev_delete_all();
}

static void test_ram_grows(void **state)
{
	const uint64_t size = 2 * MIB - 512, grown = 5 * MIB + 512;
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char *data = malloc(grown), *back = malloc(grown);
	struct bdev_channel *ch;
	const char *method;
	struct bdev *b;
	struct err err;
	json_t *config;

	assert_int_equal(bdev_ram_create("r", size, 512, &b, &err), 0);
	assert_int_equal(bdev_channel_open(b, NULL, &ch), 0);
	memset(data, 0, grown);
	test_fill(data, 0, size, 3);
	assert_int_equal(ram_io(ch, BDEV_WRITE, 0, data, size), 0);
	assert_int_equal(ram_io(ch, BDEV_WRITE, size, data, 512), -EINVAL);
	assert_int_equal(bdev_resize(b, grown, &err), 0);
	assert_int_equal(ram_io(ch, BDEV_READ, 0, back, grown), 0);
	assert_memory_equal(back, data, grown);
	test_fill(data + size, size, grown - size, 4);
	assert_int_equal(ram_io(ch, BDEV_WRITE, size, data + size, grown - size), 0);
	assert_int_equal(ram_io(ch, BDEV_READ, 0, back, grown), 0);
	assert_memory_equal(back, data, grown);
	assert_int_equal(ram_io(ch, BDEV_READ, grown, back, 512), -EINVAL);

	config = b->ops->config(b, &method);
	assert_int_equal(json_integer_value(json_object_get(config, "num_blocks")), grown / 512);
	json_decref(config);
	/* More than the host has, alone or together; what it has got counts. */
	assert_int_equal(bdev_resize(b, (host + MIB) & ~511ULL, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "choose a smaller size"));
	assert_int_equal(bdev_get_size(b), grown);
	assert_int_equal(bdev_ram_create("s", (host / 4 * 3) & ~511ULL, 512, NULL, &err), 0);
	assert_int_equal(bdev_resize(b, (host / 2) & ~511ULL, &err), -ENOMEM);
	assert_int_equal(bdev_delete("s", &err), 0);
	assert_int_equal(bdev_resize(b, (host / 2) & ~511ULL, &err), 0);
	assert_int_equal(bdev_ram_create("s", (host / 4 * 3) & ~511ULL, 512, NULL, &err), -ENOMEM);
	bdev_channel_close(ch);
	/* All is given back. */
	bdev_delete_all();
	assert_int_equal(bdev_ram_create("s", (host - MIB) & ~511ULL, 512, NULL, &err), 0);
	bdev_delete_all();
	free(data);
	free(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_registry),
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_claims_of_parts),
		cmocka_unit_test(test_claim_readonly),
		cmocka_unit_test(test_delete_with_channel),
		cmocka_unit_test(test_check_ranges),
		cmocka_unit_test(test_check_pieces),
		cmocka_unit_test(test_check_device_pieces),
		cmocka_unit_test(test_check_operations),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_ram),
		cmocka_unit_test(test_ram_discard),
		cmocka_unit_test(test_ram_erases),
		cmocka_unit_test(test_ram_gives_memory_back),
		cmocka_unit_test(test_ram_too_large),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_ram_grows),
	};

	return cmocka_run_group_tests_name("bdev", tests, NULL, NULL);
}
