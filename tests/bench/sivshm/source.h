/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is distributed: messages that lie one after the other in memory of the manager's, and begin
 * again at its end.
 *
 * Receivers read one word of every cache line of all that they get and add them up: each line has
 * to come to them for that.  The manager knows the sums, and so whether all has arrived.
 */
#ifndef SIVSHM_BENCH_SOURCE_H
#define SIVSHM_BENCH_SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SOURCE_BYTES = 4 << 20, SOURCE_LINE = 64 };

/* Fills it, for messages of @bytes, a multiple of SOURCE_LINE. */
void source_make(size_t bytes);
const uint8_t *source_message(uint64_t number);
/* What source_touch() of it comes to. */
uint64_t source_sum(uint64_t number);

/* @bytes is a multiple of SOURCE_LINE. */
static inline uint64_t source_touch(const uint8_t *data, size_t bytes)
{
	uint64_t sum = 0, word;

	for (size_t at = 0; at < bytes; at += SOURCE_LINE) {
		memcpy(&word, data + at, sizeof(word));
		sum += word;
	}
	return sum;
}

#endif
