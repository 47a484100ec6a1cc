/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluice/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* A command that runs for a moment has no better answer to a lack of memory. */
static void *need(void *memory)
{
	if (!memory) {
		fputs("sluice: out of memory\n", stderr);
		exit(1);
	}
	return memory;
}

/* Bytes of the well-formed UTF-8 sequence at @s and its code point; 0 if it is none. */
static size_t decode(const unsigned char *s, uint32_t *point)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len;

	if (s[0] < 0x80) {
		*point = s[0];
		return 1;
	}
	if (s[0] >= 0xc0 && s[0] < 0xe0) {
		len = 2;
		*point = s[0] & 0x1f;
	} else if (s[0] >= 0xe0 && s[0] < 0xf0) {
		len = 3;
		*point = s[0] & 0x0f;
	} else if (s[0] >= 0xf0 && s[0] < 0xf8) {
		len = 4;
		*point = s[0] & 0x07;
	} else {
		return 0;
	}
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (s[i] & 0x3f);
	}
	if (*point < smallest[len] || *point > 0x10ffff || (*point >= 0xd800 && *point < 0xe000))
		return 0;
	return len;
}

static bool is_harmless(uint32_t point)
{
	return point >= 0x20 && !(point >= 0x7f && point < 0xa0) &&
	       /* marks and overrides of the direction of writing, line and paragraph separators */
	       point != 0x61c && !(point >= 0x200e && point <= 0x200f) &&
	       !(point >= 0x2028 && point <= 0x202e) && !(point >= 0x2066 && point <= 0x2069);
}

char *text_clean(const char *text, bool lines)
{
	char *clean = need(malloc(strlen(text) + 1)), *to = clean;

	while (*text) {
		uint32_t point;
		size_t len = decode((const unsigned char *)text, &point);

		if (len && (is_harmless(point) || (lines && (*text == '\n' || *text == '\t')))) {
			memcpy(to, text, len);
			to += len;
		} else {
			*to++ = '?';
		}
		text += len ? len : 1;
	}
	*to = '\0';
	return clean;
}

/* A harmless copy of what is to be printed. */
static char *format_clean(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));
static char *format_clean(const char *fmt, va_list ap)
{
	char *text, *clean;

	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	need(text);
	clean = text_clean(text, false);
	free(text);
	return clean;
}

void text_print(FILE *out, const char *fmt, ...)
{
	va_list ap;
	char *line;

	va_start(ap, fmt);
	line = format_clean(fmt, ap);
	va_end(ap);
	fprintf(out, "%s\n", line);
	free(line);
}

size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

void text_size(uint64_t bytes, char *out)
{
	static const char units[] = "KMGTPE";
	unsigned shift = 0;
	uint64_t tenths;

	while (shift < 60 && bytes >> shift >= 1024)
		shift += 10;
	if (!shift) {
		snprintf(out, 16, "%u", (unsigned)bytes);
		return;
	}
	tenths = (uint64_t)(((unsigned __int128)bytes * 10 + (1ULL << (shift - 1))) >> shift);
	if (tenths % 10)
		snprintf(out, 16, "%u.%u%c", (unsigned)(tenths / 10), (unsigned)(tenths % 10),
			 units[shift / 10 - 1]);
	else
		snprintf(out, 16, "%u%c", (unsigned)(tenths / 10), units[shift / 10 - 1]);
}

void table_init(struct table *t, const struct table_column *columns, size_t columns_len)
{
	*t = (struct table){.columns = columns, .columns_len = columns_len};
}

void table_cell(struct table *t, const char *fmt, ...)
{
	va_list ap;

	t->cells = need(reallocarray(t->cells, t->cells_len + 1, sizeof(*t->cells)));
	va_start(ap, fmt);
	t->cells[t->cells_len++] = format_clean(fmt, ap);
	va_end(ap);
}

void table_note(struct table *t, const char *fmt, ...)
{
	va_list ap;

	t->notes = need(reallocarray(t->notes, t->notes_len + 1, sizeof(*t->notes)));
	va_start(ap, fmt);
	t->notes[t->notes_len++] = (struct table_note){
		.cells_before = t->cells_len,
		.text = format_clean(fmt, ap),
	};
	va_end(ap);
}

static size_t column_width(const struct table *t, size_t column)
{
	size_t width = strlen(t->columns[column].title);

	for (size_t i = column; i < t->cells_len; i += t->columns_len) {
		size_t cell = text_width(t->cells[i]);

		if (cell > width)
			width = cell;
	}
	return width;
}

static void print_cell(const struct table *t, size_t column, const char *text, size_t width,
		       FILE *out)
{
	int pad = (int)(width - text_width(text));
	bool last = column + 1 == t->columns_len;

	if (t->columns[column].right)
		fprintf(out, "%*s%s%s", pad, "", text, last ? "\n" : "  ");
	else if (last)
		fprintf(out, "%s\n", text);
	else
		fprintf(out, "%s%*s  ", text, pad, "");
}

void table_print(const struct table *t, FILE *out)
{
	size_t *widths = need(calloc(t->columns_len, sizeof(*widths)));
	size_t note = 0;

	for (size_t i = 0; i < t->columns_len; i++) {
		widths[i] = column_width(t, i);
		print_cell(t, i, t->columns[i].title, widths[i], out);
	}
	for (size_t i = 0; i < t->cells_len; i++) {
		size_t column = i % t->columns_len;

		print_cell(t, column, t->cells[i], widths[column], out);
		for (; note < t->notes_len && t->notes[note].cells_before == i + 1; note++)
			fprintf(out, "    %s\n", t->notes[note].text);
	}
	free(widths);
}

void table_destroy(struct table *t)
{
	for (size_t i = 0; i < t->cells_len; i++)
		free(t->cells[i]);
	free(t->cells);
	for (size_t i = 0; i < t->notes_len; i++)
		free(t->notes[i].text);
	free(t->notes);
}
