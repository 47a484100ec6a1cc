/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of the fuzz target know of each other.
 *
 * Time is the fuzzer's: clock.c stands in for clock_gettime(2) (by the linker), so that nothing
 * depends on how fast the machine is, and an input does the same each time it is played.
 */
#ifndef SLUICE_TEST_FUZZ_H
#define SLUICE_TEST_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An input is a header of one record's size, and then records; what is left over is ignored. */
struct fuzz_record {
	uint8_t action;
	uint8_t run;    /* who gets how many turns afterwards */
	uint8_t target; /* which disk, queue or page */
	uint8_t what;
	uint8_t v[4];
};
enum { FUZZ_RECORD_BYTES = 8 };

/* Something that must never be has been seen: says so and aborts. */
void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Begins and ends the fuzzer's time; outside of it the clock is the machine's. */
void fuzz_clock_start(void);
void fuzz_clock_stop(void);
void fuzz_clock_advance(uint64_t ns);

/* libFuzzer's entry points. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#endif
