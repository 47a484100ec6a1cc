/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copying data in bulk.
 *
 * libc's memcpy() moves vectors through registers: each line of the destination is fetched before
 * it is overwritten, and what is very large goes past the caches, from where the next reader has to
 * bring it back.  The processor's own instruction knows that it will write whole lines: it fetches
 * none of them, and leaves them in the cache.  Where source or destination do not fit the first
 * cache that is a tenth to a half faster from a page on; below that, its start costs more.
 */
#ifndef SLUICE_BASE_COPY_H
#define SLUICE_BASE_COPY_H

#include <stddef.h>
#include <string.h>

enum { COPY_BULK_FROM = 4096 }; /* bytes */

/* As memcpy(). */
static inline void copy_bulk(void *to, const void *from, size_t bytes)
{
/* AddressSanitizer does not see what an instruction like this touches. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
	/* By words: older processors have that fast, too, and bytes not. */
	if (bytes >= COPY_BULK_FROM) {
		size_t words = bytes / 8;

		__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
		bytes %= 8;
		if (!bytes)
			return;
	}
#endif
	memcpy(to, from, bytes);
}

#endif
