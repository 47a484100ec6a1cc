/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sectors from two reactors at once.  Sectors belong to one or the other, in runs shorter and
 * longer than blocks, so that most blocks are both's; each writes, discards and reads its own and
 * knows what must be in them.
 */
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "sectors_base.h"

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
	struct bdev *view = base_register(&base_usual);
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
		cmocka_unit_test(test_two_reactors),
	};

	return cmocka_run_group_tests_name("bdev_sectors_reactors", tests, NULL, NULL);
}
