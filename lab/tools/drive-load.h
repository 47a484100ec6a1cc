/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to lab/tools: what drive-load can do with a drive. */
#ifndef SLUICE_LAB_TOOLS_DRIVE_LOAD_H
#define SLUICE_LAB_TOOLS_DRIVE_LOAD_H

#include "base/hist.h"
#include "rig.h"

struct load_options {
	const char *rw;    /* "read", "write" or "mix" */
	uint32_t block;    /* bytes of a request */
	unsigned depth;    /* requests under way, of each worker */
	unsigned seconds;  /* how long */
	unsigned requests; /* how many, of each worker */
	uint64_t region;   /* bytes of the drive, from its beginning, that are used */
	const char *image; /* file that gets what the region holds in the end */
	uint64_t seed;
	const char *sharing; /* through blkif: "copy", "dma" or "persistent"; NULL: not */
	bool iov;            /* memory is named by virtual addresses, not by those on the bus */
};

/* Random reads or writes as fast as they go; prints a line of JSON. */
void bench(struct rig *rig, const struct load_options *opts);
/* Writes and reads of all shapes, each read compared; leaves the expected contents in a file. */
void verify(struct rig *rig, const struct load_options *opts);

/* The same from a frontend in this process, over blkif, on the first worker. */
void front_verify(struct rig *rig, const struct load_options *opts);
void front_bench(struct rig *rig, const struct load_options *opts);

/*
 * Has the drive write a page to the bus address (by a READ of its first blocks), or read one from
 * there (by a WRITE), and prints what it says to that.
 */
void reach_address(struct rig *rig, enum bdev_op op, uint64_t bus);
/* The same with a page that the drive reached until now; and prints whether it did once more. */
void reach_unmapped(struct rig *rig, enum bdev_op op);
/* The same with a page of a guest's, which is mapped for the drive for a moment (PV dom0). */
void reach_guest(struct rig *rig, enum bdev_op op, uint16_t domid, uint32_t ref);

void save_image(const char *path, const unsigned char *image, size_t len);
/* Prints bench's line; @how says by which way. */
void report_bench(const struct load_options *opts, const char *how, uint64_t requests, uint64_t ns,
		  const struct hist *latency);

/* A small generator: reproducible, and one for each user of it. */
static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
