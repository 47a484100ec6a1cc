/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { LIMIT_LINES = 10, LINE_MAX_BYTES = 1024 };
#define LIMIT_WINDOW_NS (10 * NSEC_PER_SEC)

static atomic_int current_level = LOG_LEVEL_INFO;

static const struct {
	const char *name;
	int priority; /* syslog's */
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", 3},
	[LOG_LEVEL_WARNING] = {"warning", 4},
	[LOG_LEVEL_INFO] = {"info", 6},
	[LOG_LEVEL_DEBUG] = {"debug", 7},
};

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

bool log_parse_level(const char *text, enum log_level *level)
{
	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (!strcmp(text, levels[i].name)) {
			*level = (enum log_level)i;
			return true;
		}
	}
	return false;
}

__attribute__((format(printf, 2, 0))) static void write_line(enum log_level level, const char *fmt,
							     va_list ap)
{
	char line[LINE_MAX_BYTES];
	struct timespec now;
	struct tm tm;
	int head, body;

	if (getenv("JOURNAL_STREAM")) {
		head = snprintf(line, sizeof(line), "<%d>", levels[level].priority);
	} else {
		clock_gettime(CLOCK_REALTIME, &now);
		localtime_r(&now.tv_sec, &tm);
		head = snprintf(line, sizeof(line), "%02d:%02d:%02d.%03ld %s: ", tm.tm_hour,
				tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000, levels[level].name);
	}
	body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, ap);
	if (body < 0)
		return;
	if (body > (int)sizeof(line) - head - 2)
		body = (int)sizeof(line) - head - 2;
	/* A guest's strings must not forge lines or drive a terminal. */
	for (char *c = line + head; c < line + head + body; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	line[head + body] = '\n';
	/* One write a line, so that lines of several threads do not mix; nothing helps if it fails.
	 */
	if (write(STDERR_FILENO, line, (size_t)(head + body + 1)) < 0)
		return;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > log_get_level())
		return;
	va_start(ap, fmt);
	write_line(level, fmt, ap);
	va_end(ap);
}

void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
{
	uint64_t now = clock_now_ns();
	va_list ap;

	if (level > log_get_level())
		return;
	if (!limit->window_start_ns || now - limit->window_start_ns > LIMIT_WINDOW_NS) {
		if (limit->suppressed)
			log_write(level, "%u similar lines left out", limit->suppressed);
		limit->window_start_ns = now;
		limit->lines = 0;
		limit->suppressed = 0;
	}
	if (limit->lines++ >= LIMIT_LINES) {
		limit->suppressed++;
		return;
	}
	va_start(ap, fmt);
	write_line(level, fmt, ap);
	va_end(ap);
}
