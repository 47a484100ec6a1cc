/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds where one JSON value ends in a stream that has no other framing.
 *
 * Clients send requests back to back, cut anywhere.  Trying the parser again on each arrival
 * would cost the square of a request's length when it arrives byte by byte; the framer looks at
 * each byte once, knows nothing but brackets and strings, and the parser runs once, on a whole
 * value.  What lies between the brackets is the parser's business: a value that the framer calls
 * complete may still be nonsense.
 */
#ifndef SLUICE_CTL_FRAMER_H
#define SLUICE_CTL_FRAMER_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed: before a value. */
struct framer {
	size_t depth;
	bool in_string;
	bool escaped;
};

enum framer_result {
	FRAMER_MORE,     /* the value goes on */
	FRAMER_COMPLETE, /* the value ends with the last byte consumed */
	FRAMER_GARBAGE,  /* the first byte begins neither an object nor an array */
};

/*
 * Goes on with the @len bytes that follow those it has seen. *@used: how many of them belong to
 * the value, all of them with FRAMER_MORE. The caller skips blanks between values.
 */
enum framer_result framer_feed(struct framer *f, const char *bytes, size_t len, size_t *used);

#endif
