/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/parse.h"

static char status[160];

static void say_line(const char *end, const char *format, va_list args)
{
	fprintf(stderr, "%ssivshm: ", status[0] ? "\r\033[K" : "");
	vfprintf(stderr, format, args);
	fprintf(stderr, "%s\n%s", end, status);
	fflush(stderr);
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_line("", format, args);
	va_end(args);
}

int say_failure(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_line("", format, args);
	va_end(args);
	return EXIT_FAILURE;
}

int say_misuse(const char *command, const char *format, ...)
{
	char end[64];
	va_list args;

	snprintf(end, sizeof(end), " (see 'sivshm %s%s--help')", command ? command : "",
		 command ? " " : "");
	va_start(args, format);
	say_line(end, format, args);
	va_end(args);
	return EXIT_MISUSE;
}

void say_status(const char *line)
{
	if (status[0] || line[0])
		fprintf(stderr, "\r\033[K%s", line);
	fflush(stderr);
	snprintf(status, sizeof(status), "%s", line);
}

void say_clear(void)
{
	say_status("");
}

const char *say_name(const char *name)
{
	static char shown[256];

	snprintf(shown, sizeof(shown), "%s", name);
	parse_make_printable(shown);
	return shown;
}

const char *say_ending(int status_of_wait)
{
	static char text[80];

	if (WIFSIGNALED(status_of_wait))
		snprintf(text, sizeof(text), "was killed by signal %d (%s)",
			 WTERMSIG(status_of_wait), strsignal(WTERMSIG(status_of_wait)));
	else
		snprintf(text, sizeof(text), "exited with status %d", WEXITSTATUS(status_of_wait));
	return text;
}
