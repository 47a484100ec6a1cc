/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stamps: what makes damage visible that no error status shows.
 *
 * Each 512-byte sector that is written names itself: it carries the seed of the run, its own
 * number, the number of the write that put it there (its generation) and a checksum over all 512
 * bytes.  The generation that each sector must have is kept in memory, and compared at every read.
 * From what a wrong sector carries follows what went wrong:
 *
 *	checksum or magic wrong		torn or overwritten by something else
 *	another sector's number		misplaced
 *	another seed			another region's or run's data
 *	a smaller generation		a lost write, or a stale read
 *	a greater generation		a write that blkload was told had failed, or not yet made
 *
 * The table of generations can be saved and loaded, so that the next life of a guest can hold the
 * disk to what the last one was told.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

#define WORDS       (SECTOR / 8)
#define STAMP_MAGIC 0x6c62706d61747331u
#define TABLE_MAGIC 0x6c62656c62617431u

/* What a sector written by blkload holds. */
struct stamp {
	uint64_t magic;
	uint64_t checksum; /* over all other words of the sector */
	uint64_t seed;
	uint64_t sector;
	uint64_t generation;
	uint64_t filler[WORDS - 5];
};

/* What precedes the table of generations in a file. */
struct table_header {
	uint64_t magic;
	uint64_t checksum; /* over the table */
	uint64_t seed;
	uint64_t first;
	uint64_t sectors;
	uint64_t generation;
	uint64_t padding[WORDS - 6];
};

_Static_assert(sizeof(struct stamp) == SECTOR, "a stamp fills its sector");
_Static_assert(sizeof(struct table_header) == SECTOR, "a table's header fills a sector");

static uint64_t checksum(const uint64_t *words, size_t count, uint64_t sum)
{
	for (size_t i = 0; i < count; i++) {
		sum = (sum ^ words[i]) * 0x100000001b3u;
		sum ^= sum >> 29;
	}
	return sum;
}

static uint64_t stamp_checksum(const struct stamp *stamp)
{
	return checksum(&stamp->seed, WORDS - 2, STAMP_MAGIC);
}

static void stamp_sector(struct load *l, struct stamp *stamp, uint64_t sector, uint32_t generation)
{
	uint64_t word = l->seed ^ (sector << 20) ^ generation;

	stamp->magic = STAMP_MAGIC;
	stamp->seed = l->seed;
	stamp->sector = l->first + sector;
	stamp->generation = generation;
	for (unsigned i = 0; i < WORDS - 5; i++)
		stamp->filler[i] = word += 0x9e3779b97f4a7c15u;
	stamp->checksum = stamp_checksum(stamp);
}

static bool is_zero(const struct stamp *stamp)
{
	const unsigned char *bytes = (const unsigned char *)stamp;

	return !bytes[0] && !memcmp(bytes, bytes + 1, SECTOR - 1);
}

/* Says on standard error what is wrong with a sector, for the first few of them. */
static void complain(struct load *l, const struct stamp *found, uint64_t sector, uint32_t expected)
{
	if (l->out->bad > MAX_COMPLAINTS)
		return;
	fprintf(stderr, "blkload: %s sector %" PRIu64 " should hold write %" PRIu32 ": ", l->device,
		l->first + sector, expected);
	if (is_zero(found))
		fprintf(stderr, "lost, it holds zeroes\n");
	else if (found->magic != STAMP_MAGIC)
		fprintf(stderr, "overwritten, it holds foreign data (%016" PRIx64 ")\n",
			found->magic);
	else if (found->checksum != stamp_checksum(found))
		fprintf(stderr, "torn, its checksum is wrong\n");
	else if (found->seed != l->seed)
		fprintf(stderr, "foreign, it holds data of seed %" PRIu64 "\n", found->seed);
	else if (found->sector != l->first + sector)
		fprintf(stderr, "misplaced, it holds sector %" PRIu64 "\n", found->sector);
	else
		fprintf(stderr, "%s, it holds write %" PRIu64 "\n",
			found->generation < expected ? "lost or stale" : "too new",
			found->generation);
}

static void check_sector(struct load *l, const struct stamp *found, uint64_t sector)
{
	uint32_t expected = l->expected[sector];

	if (!expected)
		return;
	l->out->checked++;
	if (found->magic == STAMP_MAGIC && found->seed == l->seed &&
	    found->sector == l->first + sector && found->generation == expected &&
	    found->checksum == stamp_checksum(found))
		return;
	l->out->bad++;
	complain(l, found, sector, expected);
}

void stamp_slot(struct load *l, struct slot *slot)
{
	slot->generation = ++l->generation;
	for (uint32_t i = 0; i < slot->sectors; i++)
		stamp_sector(l, (struct stamp *)(slot->buffer + i * SECTOR), slot->sector + i,
			     slot->generation);
}

void check_slot(struct load *l, struct slot *slot, bool good)
{
	for (uint32_t i = 0; i < slot->sectors; i++) {
		uint64_t sector = slot->sector + i;

		if (slot->op == OP_WRITE) /* a failed write may have reached the disk or not */
			l->expected[sector] = good ? slot->generation : 0;
		else if (good)
			check_sector(l, (struct stamp *)(slot->buffer + i * SECTOR), sector);
	}
}

static uint64_t table_checksum(const struct load *l)
{
	uint64_t sum = TABLE_MAGIC;

	for (uint64_t i = 0; i < l->sectors; i++)
		sum = checksum(&(uint64_t){l->expected[i]}, 1, sum);
	return sum;
}

static int transfer(int fd, void *data, size_t bytes, bool out)
{
	char *next = data;

	while (bytes) {
		ssize_t n = out ? write(fd, next, bytes) : read(fd, next, bytes);

		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		next += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int write_table(struct load *l)
{
	struct table_header header = {.magic = TABLE_MAGIC,
				      .checksum = table_checksum(l),
				      .seed = l->seed,
				      .first = l->first,
				      .sectors = l->sectors,
				      .generation = l->generation};
	int fd = open(l->save_file, O_WRONLY | O_CREAT, 0600), rc;

	if (fd < 0)
		return -errno;
	rc = transfer(fd, &header, sizeof(header), true);
	if (!rc)
		rc = transfer(fd, l->expected, l->sectors * sizeof(*l->expected), true);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

/* Returns 0 or a negative errno; -EBADMSG if the table is not this region's. */
static int read_table(struct load *l)
{
	struct table_header header;
	int fd = open(l->load_file, O_RDONLY), rc;

	if (fd < 0)
		return -errno;
	rc = transfer(fd, &header, sizeof(header), false);
	if (!rc && (header.magic != TABLE_MAGIC || header.first != l->first ||
		    header.sectors != l->sectors || header.generation > UINT32_MAX))
		rc = -EBADMSG;
	if (!rc)
		rc = transfer(fd, l->expected, l->sectors * sizeof(*l->expected), false);
	if (!rc && header.checksum != table_checksum(l))
		rc = -EBADMSG;
	if (!rc) {
		l->seed = header.seed;
		l->generation = (uint32_t)header.generation;
	}
	close(fd);
	return rc;
}

void save_table(struct load *l)
{
	int rc = write_table(l);

	if (rc < 0)
		refuse("--save %s: %s", l->save_file, strerror(-rc));
}

void load_table(struct load *l)
{
	int rc = read_table(l);

	if (rc == -EBADMSG)
		refuse("--load %s: holds no table of this region", l->load_file);
	if (rc < 0)
		refuse("--load %s: %s", l->load_file, strerror(-rc));
}
