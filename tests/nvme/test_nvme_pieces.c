/* SPDX-License-Identifier: BSD-2-Clause */
/* Ios that only the device reaches the data of, partitions, and ios without data. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ios.h"

enum { PAGES = 32 };

static struct dma_memory guest;
static struct dma_piece pieces[8][2 * PAGES];

static void open_guest(uint32_t block_size, void (*change)(struct stage *stage))
{
	open_stage(block_size, change);
	assert_int_equal(dma_alloc(&s->mem.dma, sizeof(pieces) / sizeof(pieces[0]) * PAGES, false,
				   &guest, NULL),
			 0);
}

static void close_guest(void)
{
	dma_free(&s->mem.dma, &guest);
	close_stage();
}

static int setup(void **state)
{
	open_guest(512, NULL);
	return 0;
}

static int teardown(void **state)
{
	close_guest();
	return 0;
}

static char *piece_virt(const struct dma_piece *piece)
{
	char *at = dma_double_reach(&s->mem, piece->bus, piece->len);

	assert_non_null(at);
	return at;
}

static struct dma_piece piece_at(unsigned page, uint32_t offset, uint32_t len)
{
	return (struct dma_piece){.bus = guest.bus[page] + offset, .len = len};
}

static struct bdev_io *prepare_pieces(unsigned i, enum bdev_op op, uint64_t offset, uint32_t n)
{
	struct bdev_io *io = prepare(i, op, offset, NULL, 0);

	io->iov = NULL;
	io->iovcnt = 0;
	io->pieces = pieces[i];
	io->nr_pieces = n;
	for (uint32_t j = 0; j < n; j++)
		io->len += pieces[i][j].len;
	return io;
}

/* What a guest may ask for: runs of whole blocks, with gaps in between, anywhere in its pages. */
static uint32_t make_pieces(unsigned i, uint32_t bs)
{
	uint32_t n = 0, run = 0;

	for (unsigned page = 0; page < PAGES - 1 && n < 2 * PAGES - 2; page++) {
		uint32_t first = run ? 0 : 512 * random_below(8), last = 8;
		struct dma_piece *piece = &pieces[i][n];

		if (!random_below(3))
			last = first / 512 + 1 + random_below(8 - first / 512);
		if (last < 8 && (run + last * 512 - first) % bs)
			last = 8;
		*piece = piece_at(i * PAGES + page, first, last * 512 - first);
		run += piece->len;
		n++;
		if (last < 8)
			run = 0;
		/* The rest of a block that is not whole yet. */
		if (last == 8 && run % bs && (page == PAGES - 2 || !random_below(4))) {
			pieces[i][n++] = piece_at(i * PAGES + page + 1, 0, bs - run % bs);
			run = 0;
			page++;
		}
		if (!run && !random_below(12))
			break;
	}
	/* It ends with whole blocks. */
	if (run % bs) {
		uint32_t over = run % bs;

		while (over >= pieces[i][n - 1].len)
			over -= pieces[i][--n].len;
		pieces[i][n - 1].len -= over;
	}
	return n;
}

static void check_pieces(struct bdev *dev)
{
	uint32_t bs = dev->limits.block_size;
	uint64_t size = bdev_get_size(dev), span = size / 8 / bs * bs;
	uint8_t *copy = calloc(1, size);
	struct bdev_channel *channels[STAGE_REACTORS];

	for (int i = 0; i < STAGE_REACTORS; i++)
		assert_int_equal(bdev_channel_open(dev, s->reactors[i], &channels[i]), 0);
	for (unsigned round = 0; round < 150; round++) {
		unsigned n = 0;

		for (unsigned area = 0; area < 8; area++) {
			struct bdev_io *io =
				prepare_pieces(n, random_below(2) ? BDEV_WRITE : BDEV_READ,
					       area * span, make_pieces(n, bs));

			if (!io->len || io->len > span)
				continue;
			for (uint32_t i = 0; i < io->nr_pieces; i++) {
				char *at = piece_virt(&io->pieces[i]);

				for (uint32_t j = 0; j < io->pieces[i].len; j += 4)
					memcpy(at + j, &(uint32_t){random_below(UINT32_MAX)}, 4);
			}
			n++;
		}
		for (unsigned i = 0; i < n; i++)
			bdev_submit(channels[i % STAGE_REACTORS], &ios[i].io);
		for (unsigned i = 0; i < n; i++) {
			const struct bdev_io *io = &ios[i].io;
			uint8_t *at = copy + io->offset;

			assert_int_equal(wait_for(i), 0);
			for (uint32_t j = 0; j < io->nr_pieces; at += io->pieces[j++].len) {
				if (io->op == BDEV_WRITE)
					memcpy(at, piece_virt(&io->pieces[j]), io->pieces[j].len);
				else
					assert_memory_equal(piece_virt(&io->pieces[j]), at,
							    io->pieces[j].len);
			}
		}
	}
	assert_memory_equal(s->model.ns[0].data + bdev_nvme_start(dev), copy, size);
	for (int i = 0; i < STAGE_REACTORS; i++)
		bdev_channel_close(channels[i]);
	free(copy);
}

static void sgl(struct stage *stage)
{
	stage->model.id.sgls = 1;
	stage->model.shuffle = true;
}

static void small_sgl(struct stage *stage)
{
	stage->model.id.sgls = 2;
	stage->model.id.mdts = 2;
	stage->model.ns[0].noiob = 16;
	stage->mem.no_runs = true;
}

static void small(struct stage *stage)
{
	stage->model.id.mdts = 1;
	stage->model.ns[0].noiob = 8;
	stage->model.shuffle = true;
}

/* More commands than the ring has room for. */
static void two_entries(struct stage *stage)
{
	stage->model.cap = (stage->model.cap & ~0xffffULL) | 1;
}

static void test_data(void **state)
{
	static void (*const changes[])(struct stage *) = {NULL, sgl, small_sgl, small, two_entries};

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		for (uint32_t bs = 512; bs <= 4096; bs *= 8) {
			open_guest(bs, changes[i]);
			random_seed(bs + 77 * (uint32_t)i);
			check_pieces(b);
			assert_int_equal(s->model.resets, 1);
			assert_true(!s->model.id.sgls == !s->model.sgls);
			close_guest();
		}
	}
}

static unsigned commands(uint8_t opcode)
{
	unsigned n = s->model.commands[0][opcode];

	s->model.commands[0][opcode] = 0;
	return n;
}

/* A gap costs a command, or with SGLs nothing. */
static void check_gaps(unsigned expected)
{
	struct bdev_io *io;

	for (unsigned i = 0; i < 10; i++)
		pieces[0][i] = piece_at(i, i % 2 ? 512 : 0, i % 2 ? 1024 : 2560);
	io = prepare_pieces(0, BDEV_WRITE, 0, 10);
	bdev_submit(ch, io);
	assert_int_equal(wait_for(0), 0);
	assert_int_equal(commands(NVME_CMD_WRITE), expected);
	/* Without gaps it is PRPs, which any drive is best at, and one command. */
	s->model.sgls = 0;
	pieces[0][0] = piece_at(0, 1536, 2560);
	for (unsigned i = 1; i < 8; i++)
		pieces[0][i] = piece_at(i, 0, 4096);
	pieces[0][8] = piece_at(8, 0, 512);
	/* The same page's next sectors are no gap. */
	pieces[0][9] = piece_at(8, 512, 1024);
	bdev_submit(ch, prepare_pieces(0, BDEV_WRITE, 0, 10));
	assert_int_equal(wait_for(0), 0);
	assert_int_equal(commands(NVME_CMD_WRITE), 1);
	assert_int_equal(s->model.sgls, 0);
}

static void test_gaps(void **state)
{
	check_gaps(10);
	teardown(state);
	open_guest(512, sgl);
	check_gaps(1);
	/* Iovecs with gaps too. */
	prepare(0, BDEV_READ, 0, NULL, 6 * 512);
	ios[0].io.iovcnt = 6;
	for (unsigned i = 0; i < 6; i++)
		ios[0].iov[i] = (struct iovec){(char *)guest.virt + i * 4096 + 512, 512};
	bdev_submit(ch, &ios[0].io);
	assert_int_equal(wait_for(0), 0);
	assert_int_equal(commands(NVME_CMD_READ), 1);
	for (unsigned i = 0; i < 6; i++)
		assert_memory_equal((char *)guest.virt + i * 4096 + 512,
				    s->model.ns[0].data + i * 512, 512);
}

/* A block across a gap is refused where it comes from; one that slips through ends, too. */
static void test_block_across_gap(void **state)
{
	struct bdev_io *io;

	teardown(state);
	open_guest(4096, NULL);
	pieces[0][0] = piece_at(0, 0, 4096);
	pieces[0][1] = piece_at(1, 0, 512);
	pieces[0][2] = piece_at(2, 0, 3584);
	io = prepare_pieces(0, BDEV_READ, 0, 3);
	bdev_submit(ch, io);
	assert_int_equal(ios[0].over, 1);
	assert_int_equal(io->result, -EINVAL);
	io = prepare_pieces(0, BDEV_READ, 0, 3);
	io->ch = ch;
	b->ops->submit(ch, io);
	assert_int_equal(wait_for(0), -EINVAL);
	/* With nothing of it sent, as well. */
	io = prepare_pieces(0, BDEV_READ, 0, 3);
	io->ch = ch;
	io->pieces++;
	io->nr_pieces--;
	io->len -= 4096;
	b->ops->submit(ch, io);
	assert_int_equal(ios[0].over, 1);
	assert_int_equal(io->result, -EINVAL);
	assert_int_equal(do_io(BDEV_READ, 0, guest.virt, 4096), 0);
}

/* Partitions */

static void test_parts(void **state)
{
	static char data[4096];
	struct bdev *part, *other;
	struct err err;

	assert_int_equal(bdev_nvme_create_part("p", b, 4096, 262144, &part, &err), 0);
	assert_ptr_equal(part->whole, b);
	assert_ptr_equal(part->dma, b->dma);
	assert_int_equal(bdev_nvme_start(part), 4096);
	assert_int_equal(bdev_nvme_nsid(part), 1);
	assert_ptr_equal(bdev_nvme_ctrl(part), s->ctrl);
	random_seed(5);
	check_pieces(part);
	assert_int_equal(s->model.ns[0].data[4095], 0);
	assert_int_equal(s->model.ns[0].data[4096 + 262144], 0);
	/* Its neighbours are out of its reach. */
	bdev_channel_close(ch);
	assert_int_equal(bdev_channel_open(part, s->reactors[0], &ch), 0);
	assert_int_equal(do_io(BDEV_WRITE, 262144, data, 4096), -EINVAL);
	assert_int_equal(do_io(BDEV_WRITE, 262144 - 512, data, 1024), -EINVAL);
	memset(s->model.ns[0].data, 0x77, 524288);
	assert_int_equal(do_io(BDEV_DISCARD, 0, NULL, 262144), 0);
	assert_int_equal(s->model.ns[0].data[4095], 0x77);
	assert_int_equal(s->model.ns[0].data[4096], 0);
	assert_int_equal(s->model.ns[0].data[4096 + 262143], 0);
	assert_int_equal(s->model.ns[0].data[4096 + 262144], 0x77);
	assert_int_equal(bdev_nvme_create_part("q", b, 1, 4096, &other, &err), -EINVAL);
	assert_int_equal(bdev_nvme_create_part("q", b, 0, 0, &other, &err), -EINVAL);
	assert_int_equal(bdev_nvme_create_part("q", b, 520192, 8192, &other, &err), -EINVAL);
	assert_int_equal(bdev_nvme_create_part("q", b, UINT64_MAX - 511, 1024, &other, &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "repair the partition table"));
	assert_int_equal(bdev_nvme_create_part("q", part, 0, 512, &other, &err), -EINVAL);
	assert_int_equal(bdev_nvme_create_part("p", b, 0, 512, &other, &err), -EEXIST);
	assert_int_equal(bdev_null_create("nothing", 4096, 512, &other, &err), 0);
	assert_null(bdev_nvme_ctrl(other));
	assert_int_equal(bdev_nvme_create_part("q", other, 0, 512, NULL, &err), -EINVAL);
	/* A boundary is where the namespace has it. */
	close_guest();
	open_guest(512, small);
	assert_int_equal(bdev_nvme_create_part("p", b, 512, 262144, &part, &err), 0);
	random_seed(6);
	check_pieces(part);
}

/* Ios without data */

static void limits(struct stage *stage)
{
	struct model *m = &stage->model;

	m->cap |= NVME_CAP_CSS_SETS;
	m->id_nvm.wzsl = 2;
	m->id_nvm.dmrl = 3;
	m->id_nvm.dmrsl = 20;
	m->id_nvm.dmsl = 70;
}

static void limit_in_all(struct stage *stage)
{
	stage->model.cap |= NVME_CAP_CSS_SETS;
	stage->model.id_nvm.dmrsl = 20;
	stage->model.id_nvm.dmsl = 50;
}

static void no_zeroes(struct stage *stage)
{
	stage->model.id.oncs = 0;
}

static void check_cleared(uint64_t from, uint64_t to)
{
	for (uint64_t i = 0; i < 524288; i++)
		assert_int_equal(s->model.ns[0].data[i], i >= from && i < to ? 0 : 0x55);
	memset(s->model.ns[0].data, 0x55, 524288);
}

static void test_zeroes(void **state)
{
	memset(s->model.ns[0].data, 0x55, 524288);
	assert_true(b->limits.write_zeroes_max > 0);
	assert_int_equal(do_io(BDEV_WRITE_ZEROES, 512, NULL, 102400), 0);
	assert_int_equal(commands(NVME_CMD_WRITE_ZEROES), 1);
	assert_int_equal(s->model.deallocated, 0);
	check_cleared(512, 512 + 102400);
	prepare(0, BDEV_WRITE_ZEROES, 512, NULL, 512)->deallocate = true;
	bdev_submit(ch, &ios[0].io);
	assert_int_equal(wait_for(0), 0);
	assert_int_equal(s->model.deallocated, 1);
	check_cleared(512, 1024);
	assert_int_equal(do_io(BDEV_WRITE_ZEROES, 0, NULL, 1ULL << 40), -EINVAL);
	teardown(state);
	open_guest(512, limits);
	memset(s->model.ns[0].data, 0x55, 524288);
	/* 200 blocks of 512 in commands of 16 KiB. */
	assert_int_equal(do_io(BDEV_WRITE_ZEROES, 512, NULL, 102400), 0);
	assert_int_equal(commands(NVME_CMD_WRITE_ZEROES), 7);
	check_cleared(512, 512 + 102400);
	teardown(state);
	open_guest(512, no_zeroes);
	assert_int_equal(do_io(BDEV_WRITE_ZEROES, 512, NULL, 512), -EOPNOTSUPP);
}

static void test_discard(void **state)
{
	teardown(state);
	open_guest(512, limits);
	memset(s->model.ns[0].data, 0x55, 524288);
	/* 200 blocks, 60 a command in three ranges. */
	assert_int_equal(do_io(BDEV_DISCARD, 512, NULL, 102400), 0);
	assert_int_equal(commands(NVME_CMD_DSM), 4);
	assert_int_equal(s->model.ranges, 10);
	check_cleared(512, 512 + 102400);
	teardown(state);
	open_guest(512, limit_in_all);
	memset(s->model.ns[0].data, 0x55, 524288);
	/* 50 a command in ranges of 20, 20 and 10. */
	assert_int_equal(do_io(BDEV_DISCARD, 512, NULL, 102400), 0);
	assert_int_equal(commands(NVME_CMD_DSM), 4);
	assert_int_equal(s->model.ranges, 12);
	check_cleared(512, 512 + 102400);
}

/* Who has few ios does not wait for who has many. */
static void test_turns(void **state)
{
	struct bdev_channel *other;
	struct bdev *part;
	struct err err;
	unsigned before = 0;

	teardown(state);
	open_guest(512, two_entries);
	assert_int_equal(bdev_nvme_create_part("p", b, 0, 4096, &part, &err), 0);
	assert_int_equal(bdev_channel_open(part, s->reactors[0], &other), 0);
	for (unsigned i = 1; i < IOS; i++)
		submit(i, BDEV_READ, 0, guest.virt, 4096);
	bdev_submit(other, prepare(0, BDEV_READ, 0, guest.virt, 512));
	assert_int_equal(wait_for(0), 0);
	for (unsigned i = 1; i < IOS; i++)
		before += ios[i].over;
	/* The three that were under way already, and as many more at most. */
	assert_in_range(before, 3, 6);
	for (unsigned i = 1; i < IOS; i++)
		assert_int_equal(wait_for(i), 0);
	bdev_channel_close(other);
}

/* What is no more what it was is not touched. */
static void check_gone(void (*change)(struct stage *stage))
{
	struct bdev *part;
	struct err err;

	assert_int_equal(bdev_nvme_create_part("p", b, 0, 4096, &part, &err), 0);
	assert_int_equal(do_io(BDEV_READ, 0, guest.virt, 4096), 0);
	change(s);
	model_send_event(&s->model, 2);
	stage_until(s, NSEC_PER_SEC, s->changed[NVME_CHANGED_NAMESPACES]);
	bdev_nvme_update(s->ctrl);
	commands(NVME_CMD_READ);
	assert_int_equal(do_io(BDEV_READ, 0, guest.virt, 4096), -ENODEV);
	bdev_channel_close(ch);
	assert_int_equal(bdev_channel_open(part, s->reactors[0], &ch), 0);
	assert_int_equal(do_io(BDEV_FLUSH, 0, NULL, 0), -ENODEV);
	assert_int_equal(commands(NVME_CMD_READ), 0);
}

static void change_identity(struct stage *stage)
{
	stage->model.ns[0].nguid = 9;
}

static void change_format(struct stage *stage)
{
	stage->model.ns[0].block_size = 4096;
	stage->model.ns[0].blocks /= 8;
}

static void change_to_none(struct stage *stage)
{
	stage->model.ns[0].blocks = 0;
}

static void test_gone(void **state)
{
	static void (*const changes[])(struct stage *) = {change_identity, change_format,
							  change_to_none};

	for (size_t i = 0; i < 3; i++) {
		if (i) {
			teardown(state);
			setup(state);
		}
		check_gone(changes[i]);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),
		TEST(test_gaps),
		TEST(test_block_across_gap),
		TEST(test_parts),
		TEST(test_zeroes),
		TEST(test_discard),
		TEST(test_turns),
		TEST(test_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
