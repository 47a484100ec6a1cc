/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One range of addresses for all segments, so that a manager can look at its workers' memory as at
 * one array.
 *
 * Addresses are reserved by a mapping that has no access and no memory. A segment is mapped over a
 * piece of it, and when it ends, nothing is mapped over it again: the range has never a hole into
 * which somebody else's mapping could fall. Pieces are aligned to their size and taken where they
 * fit first.
 */
#include "manager.h"

#include <errno.h>
#include <sys/mman.h>

static void *map_nothing(void *at, size_t bytes)
{
	return mmap(at, bytes, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);
}

/* So that a segment as large as the range fits, its base is aligned like one. */
static size_t alignment(size_t bytes)
{
	size_t align = SIVSHM_SEGMENT_MIN;

	while (align <= bytes / 2)
		align *= 2;
	return align;
}

int sivshm_range_init(struct sivshm_range *range, uint64_t bytes)
{
	size_t align, before;
	char *start;

	if (bytes < SIVSHM_SEGMENT_MIN || bytes % SIVSHM_SEGMENT_MIN || bytes > SIZE_MAX / 4)
		return -EINVAL;
	align = alignment(bytes);
	start = map_nothing(NULL, bytes + align);
	if (start == MAP_FAILED)
		return -errno;
	before = -(uintptr_t)start % align;
	if (before)
		munmap(start, before);
	if (align - before)
		munmap(start + before + bytes, align - before);
	*range = (struct sivshm_range){.base = start + before, .bytes = bytes};
	return 0;
}

void sivshm_range_fini(struct sivshm_range *range)
{
	munmap(range->base, range->bytes);
}

/* Returns where @span goes in the list, and sets its offset; NULL: there is no room. */
static struct sivshm_span **find_room(struct sivshm_range *range, struct sivshm_span *span)
{
	struct sivshm_span **at = &range->spans;
	size_t mask = span->bytes - 1;

	for (span->offset = 0;; at = &(*at)->next) {
		size_t end = *at ? (*at)->offset : range->bytes;

		if (span->offset <= end && end - span->offset >= span->bytes)
			return at;
		if (!*at)
			return NULL;
		span->offset = ((*at)->offset + (*at)->bytes + mask) & ~mask;
	}
}

int sivshm_range_map(struct sivshm_range *range, int memfd, size_t bytes, struct sivshm_span *span)
{
	struct sivshm_span **at;
	char *start;

	span->bytes = bytes;
	at = find_room(range, span);
	if (!at)
		return -ENOSPC;
	start = range->base + span->offset;
	if (mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd, 0) ==
	    MAP_FAILED)
		return -errno;
	/* A child would hold on to what the manager gives back, and a core dump tell it. */
	madvise(start, bytes, MADV_DONTFORK);
	madvise(start, bytes, MADV_DONTDUMP);
	span->next = *at;
	*at = span;
	return 0;
}

int sivshm_range_unmap(struct sivshm_range *range, struct sivshm_span *span)
{
	struct sivshm_span **at = &range->spans;

	if (map_nothing(range->base + span->offset, span->bytes) == MAP_FAILED)
		return -errno;
	while (*at != span)
		at = &(*at)->next;
	*at = span->next;
	return 0;
}
