/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker prints is passed on line by line, each line after the worker's number. Workers are
 * strangers, so what would steer a terminal is replaced by '?'.
 */
#ifndef SLUICE_MANAGER_LINES_H
#define SLUICE_MANAGER_LINES_H

#include <stddef.h>
#include <stdio.h>

enum { LINES_MAX = 4096 }; /* bytes; a longer line becomes several */

struct lines {
	unsigned number;
	FILE *to;
	size_t n;
	char text[LINES_MAX];
};

void lines_init(struct lines *l, unsigned number, FILE *to);
/* Takes what can be read from @fd now, at most a buffer full. Returns 1, 0 at the end, or -EAGAIN.
 */
int lines_read(struct lines *l, int fd);
/* Prints a last line that has no end. */
void lines_flush(struct lines *l);

#endif
