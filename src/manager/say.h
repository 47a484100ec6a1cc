/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tool says to its user: whole lines on standard error, and a status line under them. */
#ifndef SLUICE_MANAGER_SAY_H
#define SLUICE_MANAGER_SAY_H

/* A line after "sivshm: ". */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, and returns the exit status of what failed. */
int say_failure(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for a command line that makes no sense; @command's help is pointed to (NULL: all). */
int say_misuse(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Replaces the line that stays under all others on a terminal; "" removes it. */
void say_status(const char *line);
/* Takes it away until it is set again, for output that goes elsewhere on the terminal. */
void say_clear(void);

/* A name from elsewhere as it may be shown; valid until the next call. */
const char *say_name(const char *name);
/* How a process ended by waitpid()'s @status, like "exited with status 1"; until the next call. */
const char *say_ending(int status);

enum { EXIT_MISUSE = 2 };

#endif
