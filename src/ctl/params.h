/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Strict decoding of a JSON object into a C struct, by a table.
 *
 * A misspelt or mistyped parameter that is ignored does something else than its author meant;
 * so whatever the table does not name, or names with another type, is an error that names it.
 */
#ifndef SLUICE_CTL_PARAMS_H
#define SLUICE_CTL_PARAMS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum params_type {
	PARAMS_STRING, /* const char *: points into the JSON value, which must outlive it */
	PARAMS_BOOL,   /* bool */
	PARAMS_U32,    /* uint32_t */
	PARAMS_U64,    /* uint64_t, up to 2^63 - 1, as far as JSON numbers go here */
	PARAMS_I64,    /* int64_t */
};

struct params_field {
	const char *name;
	enum params_type type;
	bool optional;
	size_t offset; /* of the member that receives it */
};

#define PARAMS_REQUIRED(strct, member, kind)                  \
	{                                                     \
#member, kind, false, offsetof(strct, member) \
	}
#define PARAMS_OPTIONAL(strct, member, kind)                 \
	{                                                    \
#member, kind, true, offsetof(strct, member) \
	}

/*
 * Stores the members of @params (an object, or NULL for none) into @dest. What is optional and
 * absent stays as the caller has set it. Returns 0, or -EINVAL with the line in @err; @dest may
 * then be filled in part.
 */
int params_decode(const json_t *params, const struct params_field *fields, size_t fields_len,
		  void *dest, struct err *err);

#endif
