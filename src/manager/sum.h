/* SPDX-License-Identifier: BSD-2-Clause */
/* Sums of numbers by key, from lines KEY<TAB>NUMBER. */
#ifndef SLUICE_MANAGER_SUM_H
#define SLUICE_MANAGER_SUM_H

#include <stdbool.h>
#include <stddef.h>

struct sum {
	void *keys; /* a tree of tsearch(3) */
	bool full;  /* a sum did not fit 64 bits */
};

/* Adds up all of @data's lines, or none: -EPROTO if one is wrong, -ENOMEM. */
int sum_add(struct sum *s, const char *data, size_t bytes);
/* Prints all lines, sorted by key. Returns 0 or a failing exit status after saying why. */
int sum_print(struct sum *s);
void sum_destroy(struct sum *s);

#endif
