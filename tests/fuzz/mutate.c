/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutations by whole records: an input that is cut or shifted in mid-record would become another
 * play altogether, and what was good about it be lost.
 */
#include <string.h>

#include "fuzz.h"

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 8;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	size_t records = size / FUZZ_RECORD_BYTES, room = max_size / FUZZ_RECORD_BYTES;
	uint8_t *one, *other, spare[FUZZ_RECORD_BYTES];

	if (records < 2 || room < 2) {
		memset(data, 0, size);
		size = max_size < 2 * FUZZ_RECORD_BYTES ? max_size : 2 * FUZZ_RECORD_BYTES;
		LLVMFuzzerMutate(data, size, size);
		return size;
	}
	one = data + next_random(&seed) % records * FUZZ_RECORD_BYTES;
	other = data + (1 + next_random(&seed) % (records - 1)) * FUZZ_RECORD_BYTES;
	memcpy(spare, one, FUZZ_RECORD_BYTES);
	switch (next_random(&seed) % 8) {
	case 0: /* insert a copy of one before another */
	case 1: /* and a changed copy */
	case 2: /* and a new one */
		if (records == room)
			break;
		memmove(other + FUZZ_RECORD_BYTES, other,
			(size_t)(data + records * FUZZ_RECORD_BYTES - other));
		memcpy(other, spare, FUZZ_RECORD_BYTES);
		records++;
		if (seed & 1)
			LLVMFuzzerMutate(other, FUZZ_RECORD_BYTES, FUZZ_RECORD_BYTES);
		if (seed & 2)
			other[0] = (uint8_t)next_random(&seed);
		break;
	case 3: /* remove one */
		if (records == 2)
			break;
		memmove(other, other + FUZZ_RECORD_BYTES,
			(size_t)(data + (records - 1) * FUZZ_RECORD_BYTES - other));
		records--;
		break;
	case 4: /* swap two; the header stays */
		if (one == data)
			break;
		memcpy(one, other, FUZZ_RECORD_BYTES);
		memcpy(other, spare, FUZZ_RECORD_BYTES);
		break;
	case 5: /* whatever libFuzzer knows, over all of it */
		size = LLVMFuzzerMutate(data, records * FUZZ_RECORD_BYTES, max_size);
		return size;
	default: /* or within one */
		LLVMFuzzerMutate(one, FUZZ_RECORD_BYTES, FUZZ_RECORD_BYTES);
		break;
	}
	return records * FUZZ_RECORD_BYTES;
}
