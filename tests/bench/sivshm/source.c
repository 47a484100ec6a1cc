/* SPDX-License-Identifier: BSD-2-Clause */
#include "source.h"

#include <stdlib.h>

#include "bench.h"

static uint8_t *data;
static uint64_t *sums;
static size_t message_bytes, messages;

void source_make(size_t bytes)
{
	uint64_t state = 88172645463325252U;

	if (bytes % SOURCE_LINE || !bytes || bytes > SOURCE_BYTES)
		bench_die("messages have a multiple of %d bytes, at most %d", SOURCE_LINE,
			  SOURCE_BYTES);
	message_bytes = bytes;
	messages = SOURCE_BYTES / bytes;
	data = aligned_alloc(4096, SOURCE_BYTES);
	sums = calloc(messages, sizeof(*sums));
	if (!data || !sums)
		bench_die("no memory");
	for (size_t at = 0; at < SOURCE_BYTES; at += sizeof(state)) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(data + at, &state, sizeof(state));
	}
	for (size_t i = 0; i < messages; i++)
		sums[i] = source_touch(data + i * bytes, bytes);
}

const uint8_t *source_message(uint64_t number)
{
	return data + number % messages * message_bytes;
}

uint64_t source_sum(uint64_t number)
{
	return sums[number % messages];
}
