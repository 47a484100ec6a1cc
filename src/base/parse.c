/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/parse.h"

#include <string.h>

bool parse_u64(const char *text, uint64_t max, uint64_t *value)
{
	uint64_t v = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
			return false;
	}
	if (v > max)
		return false;
	*value = v;
	return true;
}

bool parse_u32(const char *text, uint32_t max, uint32_t *value)
{
	uint64_t v;

	if (!parse_u64(text, max, &v))
		return false;
	*value = (uint32_t)v;
	return true;
}

bool parse_size(const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	size_t len = strlen(text);
	const char *suffix;
	char digits[24];
	uint64_t v;
	unsigned shift = 0;

	if (!len || len >= sizeof(digits))
		return false;
	memcpy(digits, text, len + 1);
	suffix = strchr(suffixes, digits[len - 1]);
	if (suffix) {
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		digits[len - 1] = '\0';
	}
	if (!parse_u64(digits, UINT64_MAX >> shift, &v))
		return false;
	*bytes = v << shift;
	return true;
}

bool parse_cpumask(const char *text, uint64_t *mask)
{
	uint64_t v = 0;
	unsigned digits = 0;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		text += 2;
	for (; *text; text++, digits++) {
		unsigned digit;

		if (*text >= '0' && *text <= '9')
			digit = (unsigned)(*text - '0');
		else if (*text >= 'a' && *text <= 'f')
			digit = (unsigned)(*text - 'a') + 10;
		else if (*text >= 'A' && *text <= 'F')
			digit = (unsigned)(*text - 'A') + 10;
		else
			return false;
		if (v >> 60)
			return false;
		v = v << 4 | digit;
	}
	if (!digits || !v)
		return false;
	*mask = v;
	return true;
}

bool parse_name(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789_.:-";
	size_t len = strlen(text);

	return len >= 1 && len <= 63 && strspn(text, allowed) == len && text[0] != '-' &&
	       text[0] != '.';
}

void parse_make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}
