/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verify: blocks that say who wrote them, where, and which time.
 *
 * Each sector of a block that is written carries a stamp: the run, the writer, the sector's number,
 * the block's generation, and the place of the sector within its block.  The rest of the sector
 * follows from the stamp.  What is read back is compared with what was acknowledged last, and each
 * way of losing data shows in its own manner:
 *
 *   misplaced  a sector is good, and another's
 *   torn       a block's sectors are of several generations
 *   old        a block is whole, of an earlier generation; read again, it is stale if the right one
 *              appears (the read was wrong), and lost if not (the write was)
 *   corrupt    a sector is nobody's
 *
 * A verifier belongs to one writer, who alone writes its range, and who never has a write under way
 * together with another request for the same block.
 */
#ifndef SLUICE_PERF_VERIFY_H
#define SLUICE_PERF_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

enum verify_verdict {
	VERIFY_GOOD,
	VERIFY_UNWRITTEN, /* this run has not written it, and nothing of this run is there */
	VERIFY_OLD,
	VERIFY_TORN,
	VERIFY_MISPLACED,
	VERIFY_CORRUPT,
};

struct verifier;

/*
 * For blocks @first_block to @first_block + @nr_blocks - 1, of @block_bytes each, a multiple of
 * 512. @run tells this run from all others. Returns NULL without memory.
 */
struct verifier *verify_create(uint64_t run, uint32_t writer, uint32_t block_bytes,
			       uint64_t first_block, uint64_t nr_blocks);
void verify_destroy(struct verifier *v);

/* Whether the block may be read (@write: written) now: nothing is under way that forbids it. */
bool verify_may_begin(const struct verifier *v, uint64_t block, bool write);
/* A write begins: fills @data with the block's next generation. */
void verify_begin_write(struct verifier *v, uint64_t block, void *data);
/* It ended. After a failed one each sector may be as it, or as what was there before. */
void verify_end_write(struct verifier *v, uint64_t block, bool failed);
/* A read begins: wipes @data, so that what is judged has been read. */
void verify_begin_read(struct verifier *v, uint64_t block, void *data);
/* Judges what was read; *@sector is the first sector that is not as it should be. */
enum verify_verdict verify_judge(struct verifier *v, uint64_t block, const void *data,
				 uint64_t *sector);
/* The read, and all that follows from it, ended. */
void verify_end_read(struct verifier *v, uint64_t block);
/* Whether this run has written the block. */
bool verify_is_written(const struct verifier *v, uint64_t block);

#endif
