/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Strict parsing of what comes from outside: the whole string must be the number, no sign,
 * no blanks, and in range; nothing wraps and nothing is guessed.
 */
#ifndef SLUICE_BASE_PARSE_H
#define SLUICE_BASE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* Decimal digits only, 0 <= value <= @max. */
bool parse_u64(const char *text, uint64_t max, uint64_t *value);
bool parse_u32(const char *text, uint32_t max, uint32_t *value);

/* A size in bytes: digits and an optional suffix K, M, G or T (powers of 1024). */
bool parse_size(const char *text, uint64_t *bytes);

/* A set of cores in hexadecimal with or without 0x ("3", "0xf"), at most 64 cores, not empty. */
bool parse_cpumask(const char *text, uint64_t *mask);

/* Names of bdevs and instances: 1 to 63 of [A-Za-z0-9_.:-], the first no '-' and no '.'. */
bool parse_name(const char *text);

/* Replaces what is not printable ASCII by '?', for texts from elsewhere that a person will see. */
void parse_make_printable(char *text);

#endif
