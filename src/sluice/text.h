/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text for people: strings made harmless, aligned tables, sizes.
 *
 * What the daemon answers may carry what a guest, a file name or another program chose.  Nothing of
 * it may drive the terminal it is shown on: control characters (also those above U+0080), bytes
 * that are no UTF-8, and marks that reverse the direction of writing are shown as '?'.
 */
#ifndef SLUICE_SLUICE_TEXT_H
#define SLUICE_SLUICE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A harmless copy of @text, for the caller to free. @lines: newlines and tabs stay. */
char *text_clean(const char *text, bool lines);
/* Prints a line, made harmless. */
void text_print(FILE *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* How many columns a harmless text takes. */
size_t text_width(const char *text);
/* "512", "10K", "1.5G" (powers of 1024, rounded to a tenth); @out has room for 16 bytes. */
void text_size(uint64_t bytes, char *out);

struct table_column {
	const char *title;
	bool right; /* numbers are aligned to the right */
};

struct table {
	const struct table_column *columns;
	size_t columns_len;
	char **cells; /* row by row */
	size_t cells_len;
	struct table_note {
		size_t cells_before;
		char *text;
	} * notes;
	size_t notes_len;
};

void table_init(struct table *t, const struct table_column *columns, size_t columns_len);
/* Adds the next cell of the current row; the text is made harmless. */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds a line of its own below the row just finished; the text is made harmless. */
void table_note(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints titles and rows, each column as wide as its widest cell. */
void table_print(const struct table *t, FILE *out);
void table_destroy(struct table *t);

#endif
