/* SPDX-License-Identifier: BSD-2-Clause */
/* The table-driven decoder; params.h has the idea. */
#include "ctl/params.h"

#include <errno.h>
#include <string.h>

static const struct params_field *find_field(const struct params_field *fields, size_t fields_len,
					     const char *name)
{
	for (size_t i = 0; i < fields_len; i++)
		if (!strcmp(fields[i].name, name))
			return &fields[i];
	return NULL;
}

static int decode_number(const struct params_field *field, const json_t *value, uint64_t max,
			 uint64_t *number, struct err *err)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max)
		return err_set(err, -EINVAL, "parameter '%s' must be a whole number from 0 to %llu",
			       field->name, (unsigned long long)max);
	*number = (uint64_t)json_integer_value(value);
	return 0;
}

static int decode_field(const struct params_field *field, const json_t *value, void *dest,
			struct err *err)
{
	void *member = (char *)dest + field->offset;
	uint64_t number = 0;
	int rc;

	switch (field->type) {
	case PARAMS_STRING:
		if (!json_is_string(value))
			return err_set(err, -EINVAL, "parameter '%s' must be a string",
				       field->name);
		*(const char **)member = json_string_value(value);
		return 0;
	case PARAMS_BOOL:
		if (!json_is_boolean(value))
			return err_set(err, -EINVAL, "parameter '%s' must be true or false",
				       field->name);
		*(bool *)member = json_is_true(value);
		return 0;
	case PARAMS_U32:
		rc = decode_number(field, value, UINT32_MAX, &number, err);
		if (!rc)
			*(uint32_t *)member = (uint32_t)number;
		return rc;
	case PARAMS_I64:
		if (!json_is_integer(value))
			return err_set(err, -EINVAL, "parameter '%s' must be a whole number",
				       field->name);
		*(int64_t *)member = json_integer_value(value);
		return 0;
	case PARAMS_U64:
		break;
	}
	rc = decode_number(field, value, INT64_MAX, &number, err);
	if (!rc)
		*(uint64_t *)member = number;
	return rc;
}

int params_decode(const json_t *params, const struct params_field *fields, size_t fields_len,
		  void *dest, struct err *err)
{
	/* jansson iterates over plain pointers only, but changes nothing. */
	json_t *object = (json_t *)params;

	for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
		const char *name = json_object_iter_key(it);
		const struct params_field *field = find_field(fields, fields_len, name);
		int rc;

		if (!field)
			return err_set(err, -EINVAL, "unknown parameter '%.64s'", name);
		rc = decode_field(field, json_object_iter_value(it), dest, err);
		if (rc)
			return rc;
	}
	for (size_t i = 0; i < fields_len; i++)
		if (!fields[i].optional && !json_object_get(params, fields[i].name))
			return err_set(err, -EINVAL, "missing parameter '%s'", fields[i].name);
	return 0;
}
