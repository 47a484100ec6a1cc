/* SPDX-License-Identifier: BSD-2-Clause */
/* What the command `sluice` makes of text: strings made harmless, sizes, tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sluice/text.h"

static void expect_clean(const char *text, bool lines, const char *expected)
{
	char *clean = text_clean(text, lines);

	assert_string_equal(clean, expected);
	free(clean);
}

static void makes_text_harmless(void **state)
{
	expect_clean("plain ~", false, "plain ~");
	expect_clean("a\x1b[2J\r\n\tb\x7f", false, "a?[2J???b?");
	expect_clean("a\n\tb\r\x1b", true, "a\n\tb??");
	/* Letters of all sizes stay. */
	expect_clean("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", false,
		     "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	/* CSI as one character, U+009B; a right-to-left override; a line separator. */
	expect_clean("\xc2\x9b"
		     "31m",
		     false, "?31m");
	expect_clean("\xe2\x80\xae"
		     "abc",
		     false, "?abc");
	expect_clean("\xe2\x80\xa8", true, "?");
	/* No UTF-8: cut, overlong, a surrogate, beyond the last, a stray byte. */
	expect_clean("\xc3", false, "?");
	expect_clean("\xe2\x82", false, "??");
	expect_clean("\xc0\x9b"
		     "a",
		     false, "??a");
	expect_clean("\xe0\x82\x9b", false, "???");
	expect_clean("\xed\xa0\x80", false, "???");
	expect_clean("\xf4\x90\x80\x80", false, "????");
	expect_clean("\xff\x80"
		     "a",
		     false, "??a");
	assert_int_equal(text_width("a\xc3\xa4\xe2\x82\xac"), 3);
}

static void writes_sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0"},           {1023, "1023"},      {1024, "1K"},
		{1536, "1.5K"},     {10 << 20, "10M"},   {(5ULL << 30) + (3 << 26), "5.2G"},
		{1ULL << 40, "1T"}, {UINT64_MAX, "16E"},
	};
	char text[16];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		text_size(cases[i].bytes, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void aligns_tables(void **state)
{
	static const struct table_column columns[] = {
		{"NAME", false}, {"SIZE", true}, {"FILE", false}};
	struct table t;
	char *out;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	table_init(&t, columns, 3);
	table_print(&t, f);
	table_cell(&t, "%s", "a");
	table_cell(&t, "%d", 12345);
	table_cell(&t, "%s", "/x\x1b[m");
	table_note(&t, "one\x1b[m, %d", 1);
	table_note(&t, "a line may be longer than the table is wide");
	table_cell(&t, "%s", "l\xc3\xa4nger");
	table_cell(&t, "%d", 1);
	table_cell(&t, "-");
	table_print(&t, f);
	table_destroy(&t);
	fclose(f);
	assert_string_equal(out, "NAME  SIZE  FILE\n"
				 "NAME     SIZE  FILE\n"
				 "a       12345  /x?[m\n"
				 "    one?[m, 1\n"
				 "    a line may be longer than the table is wide\n"
				 "l\xc3\xa4nger      1  -\n");
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(makes_text_harmless),
		cmocka_unit_test(writes_sizes),
		cmocka_unit_test(aligns_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
