/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The libraries write a line to stderr whenever a call fails.  Some of ours fail because of what a
 * guest has sent, as often as it likes, and each caller has its own way to say so: hence a logger
 * that keeps the libraries quiet.
 */
#include "grant/library.h"

#include <stdarg.h>
#include <stdio.h>
#include <xentoollog.h>

#include "base/log.h"

static void take_message(struct xentoollog_logger *logger, xentoollog_level level, int errnoval,
			 const char *context, const char *format, va_list ap)
	__attribute__((format(printf, 5, 0)));

static void take_message(struct xentoollog_logger *logger, xentoollog_level level, int errnoval,
			 const char *context, const char *format, va_list ap)
{
	char text[256];

	vsnprintf(text, sizeof(text), format, ap);
	log_debug("%s: %s", context ? context : "Xen's library", text);
}

static void ignore_progress(struct xentoollog_logger *logger, const char *context,
			    const char *doing_what, int percent, unsigned long done,
			    unsigned long total)
{
}

static void keep(struct xentoollog_logger *logger)
{
}

static xentoollog_logger logger = {
	.vmessage = take_message,
	.progress = ignore_progress,
	.destroy = keep,
};

xengnttab_handle *grant_library_open(void)
{
	return xengnttab_open(&logger, 0);
}

struct xentoollog_logger *grant_library_get_logger(void)
{
	return &logger;
}
