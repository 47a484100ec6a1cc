/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/verify.h"

#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, READERS_MAX = 254, WRITING = 255 };

struct stamp {
	uint64_t run;
	uint64_t sector; /* of 512 bytes, from the disk's beginning */
	uint32_t writer;
	uint32_t generation;
	uint64_t check; /* follows from the others */
};

struct verifier {
	uint64_t run;
	uint32_t writer;
	uint32_t block_bytes;
	uint64_t first_block;
	struct block {
		uint32_t generation; /* written last, or under way; 0: none */
		uint32_t sure;       /* acknowledged last: those after it have failed */
		uint8_t users;       /* reads under way, or WRITING */
	} blocks[];
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t check_of(const struct stamp *s)
{
	uint64_t who = (uint64_t)s->writer << 32 | s->generation;

	return mix(s->run ^ mix(s->sector ^ mix(who + 0x9e3779b97f4a7c15)));
}

/* The sector after its stamp, word by word. */
static uint64_t filler(uint64_t check, unsigned word)
{
	return (check + word) * 0x9e3779b97f4a7c15;
}

struct verifier *verify_create(uint64_t run, uint32_t writer, uint32_t block_bytes,
			       uint64_t first_block, uint64_t nr_blocks)
{
	struct verifier *v;

	if (nr_blocks > (SIZE_MAX / 2 - sizeof(*v)) / sizeof(v->blocks[0]))
		return NULL;
	v = calloc(1, sizeof(*v) + nr_blocks * sizeof(v->blocks[0]));
	if (!v)
		return NULL;
	v->run = run;
	v->writer = writer;
	v->block_bytes = block_bytes;
	v->first_block = first_block;
	return v;
}

void verify_destroy(struct verifier *v)
{
	free(v);
}

static struct block *block_of(struct verifier *v, uint64_t block)
{
	return &v->blocks[block - v->first_block];
}

bool verify_may_begin(const struct verifier *v, uint64_t block, bool write)
{
	uint8_t users = v->blocks[block - v->first_block].users;

	return write ? !users : users < READERS_MAX;
}

bool verify_is_written(const struct verifier *v, uint64_t block)
{
	return v->blocks[block - v->first_block].generation;
}

void verify_begin_write(struct verifier *v, uint64_t block, void *data)
{
	uint64_t sector = block * (v->block_bytes / SECTOR);
	struct block *b = block_of(v, block);
	char *at = data;

	b->users = WRITING;
	b->generation++;
	for (uint32_t done = 0; done < v->block_bytes; done += SECTOR) {
		struct stamp s = {
			.run = v->run,
			.sector = sector++,
			.writer = v->writer,
			.generation = b->generation,
		};
		uint64_t words[(SECTOR - sizeof(s)) / sizeof(uint64_t)];

		s.check = check_of(&s);
		for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			words[i] = filler(s.check, i);
		memcpy(at, &s, sizeof(s));
		memcpy(at + sizeof(s), words, sizeof(words));
		at += SECTOR;
	}
}

void verify_end_write(struct verifier *v, uint64_t block, bool failed)
{
	struct block *b = block_of(v, block);

	b->users = 0;
	if (!failed)
		b->sure = b->generation;
}

void verify_begin_read(struct verifier *v, uint64_t block, void *data)
{
	block_of(v, block)->users++;
	memset(data, 0x5a, v->block_bytes);
}

void verify_end_read(struct verifier *v, uint64_t block)
{
	block_of(v, block)->users--;
}

enum sector_is {
	IS_OURS,     /* of this block, of *@generation; 0: as it was before this run */
	IS_ANOTHERS, /* whole, and not of this place */
	IS_CORRUPT,
};

static enum sector_is judge_sector(const struct verifier *v, const char *at, uint64_t sector,
				   uint32_t *generation)
{
	struct stamp s;

	memcpy(&s, at, sizeof(s));
	*generation = 0;
	if (s.run != v->run)
		return IS_OURS;
	if (s.check != check_of(&s))
		return IS_CORRUPT;
	for (unsigned i = 0; i < (SECTOR - sizeof(s)) / sizeof(uint64_t); i++) {
		uint64_t word;

		memcpy(&word, at + sizeof(s) + i * sizeof(word), sizeof(word));
		if (word != filler(s.check, i))
			return IS_CORRUPT;
	}
	if (s.sector != sector || s.writer != v->writer)
		return IS_ANOTHERS;
	*generation = s.generation;
	return IS_OURS;
}

enum verify_verdict verify_judge(struct verifier *v, uint64_t block, const void *data,
				 uint64_t *sector)
{
	uint64_t first = block * (v->block_bytes / SECTOR);
	const struct block *b = block_of(v, block);
	enum verify_verdict verdict = VERIFY_GOOD;
	uint32_t generation = 0, seen;

	for (uint32_t i = 0; i < v->block_bytes / SECTOR; i++) {
		enum sector_is is =
			judge_sector(v, (const char *)data + (size_t)i * SECTOR, first + i, &seen);

		if (is != IS_OURS || seen > b->generation) {
			*sector = first + i;
			return is == IS_ANOTHERS ? VERIFY_MISPLACED : VERIFY_CORRUPT;
		}
		if (!i)
			generation = seen;
		if (verdict != VERIFY_GOOD || seen >= b->sure)
			continue;
		*sector = first + i;
		verdict = VERIFY_OLD;
	}
	if (verdict == VERIFY_GOOD)
		return b->generation ? VERIFY_GOOD : VERIFY_UNWRITTEN;
	/* Of one age, or of several? */
	for (uint32_t i = 1; i < v->block_bytes / SECTOR; i++) {
		judge_sector(v, (const char *)data + (size_t)i * SECTOR, first + i, &seen);
		if (seen != generation)
			return VERIFY_TORN;
	}
	return VERIFY_OLD;
}
