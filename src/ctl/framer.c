/* SPDX-License-Identifier: BSD-2-Clause */
/* The framer's one function; framer.h has the idea. */
#include "ctl/framer.h"

enum framer_result framer_feed(struct framer *f, const char *bytes, size_t len, size_t *used)
{
	for (size_t i = 0; i < len; i++) {
		char c = bytes[i];

		if (f->in_string) {
			if (f->escaped)
				f->escaped = false;
			else if (c == '\\')
				f->escaped = true;
			else if (c == '"')
				f->in_string = false;
			continue;
		}
		switch (c) {
		case '{':
		case '[':
			f->depth++;
			break;
		case '}':
		case ']':
			if (f->depth == 1) {
				f->depth = 0;
				*used = i + 1;
				return FRAMER_COMPLETE;
			}
			if (f->depth)
				f->depth--;
			break;
		case '"':
			f->in_string = true;
			break;
		}
		if (!f->depth) {
			*used = i;
			return FRAMER_GARBAGE;
		}
	}
	*used = len;
	return FRAMER_MORE;
}
