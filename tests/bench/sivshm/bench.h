/* SPDX-License-Identifier: BSD-2-Clause */
/* What the programs of the benchmark have in common. Whatever goes wrong ends them. */
#ifndef SIVSHM_BENCH_H
#define SIVSHM_BENCH_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_LINE = 64 };

void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Ends the program with errno's text unless @rc is not negative. Returns @rc. */
int bench_must(int rc, const char *what);
/* The same with a negative errno in @rc. */
int bench_need(int rc, const char *what);
/* A number of the command line, at least @least. */
unsigned long bench_number(const char *text, unsigned long least);

uint64_t bench_now_ns(void);
/* Only this core from here on; for this thread and what it starts. */
void bench_pin(unsigned core);
/* Zeroed memory that forked children share. */
void *bench_shared(size_t bytes);
/* May have so many descriptors. */
void bench_allow_descriptors(unsigned long count);
void bench_pause(void);

#endif
