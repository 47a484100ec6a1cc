/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log lines on stderr.  Under systemd the journal reads stderr, so each line is then
 * prefixed with its priority (sd-daemon(3)); on a terminal it carries level and time.
 * Lines that a guest can provoke go through log_limited(), so that no guest can fill a disk.
 */
#ifndef SLUICE_BASE_LOG_H
#define SLUICE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* One limiter for each source of lines that must be bounded (a guest's disk, say). Zeroed: fresh.
 */
struct log_limit {
	uint64_t window_start_ns;
	uint32_t lines;
	uint32_t suppressed;
};

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warning", "info" or "debug"; false for anything else. */
bool log_parse_level(const char *text, enum log_level *level);

/* Writes one line; thread-safe. Control characters that arrive in strings are made harmless. */
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As log_write(), but at most 10 lines in 10 seconds for one @limit; says how many it left out. */
void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
