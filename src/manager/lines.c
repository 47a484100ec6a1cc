/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/lines.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "manager/say.h"

void lines_init(struct lines *l, unsigned number, FILE *to)
{
	l->number = number;
	l->to = to;
	l->n = 0;
}

/* Makes @n bytes harmless: no control characters, neither as they are nor as UTF-8 (C2 80-9F). */
static void tame(char *text, size_t n)
{
	unsigned char *at = (unsigned char *)text;

	for (size_t i = 0; i < n; i++) {
		bool control = at[i] < ' ' || at[i] == 0x7f;
		bool high = at[i] >= 0x80 && at[i] < 0xa0 && i > 0 && at[i - 1] == 0xc2;

		if ((control && at[i] != '\t') || high)
			at[i] = '?';
	}
}

static void print(struct lines *l, size_t n)
{
	size_t shown = n;

	while (shown && l->text[shown - 1] == '\r')
		shown--;
	tame(l->text, shown);
	if (l->to == stderr)
		say_clear();
	fprintf(l->to, "%u: %.*s\n", l->number, (int)shown, l->text);
}

int lines_read(struct lines *l, int fd)
{
	ssize_t got = read(fd, l->text + l->n, sizeof(l->text) - l->n);
	char *end;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
	if (!got)
		return 0;
	l->n += (size_t)got;
	while ((end = memchr(l->text, '\n', l->n))) {
		size_t line = (size_t)(end - l->text);

		print(l, line);
		l->n -= line + 1;
		memmove(l->text, end + 1, l->n);
	}
	if (l->n == sizeof(l->text))
		lines_flush(l);
	fflush(l->to);
	return 1;
}

void lines_flush(struct lines *l)
{
	if (l->n)
		print(l, l->n);
	l->n = 0;
	fflush(l->to);
}
