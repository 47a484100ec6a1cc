/* SPDX-License-Identifier: BSD-2-Clause */
/* A worker's command line, by what the options say, and arrays of words, which end with NULL. */
#ifndef SLUICE_MANAGER_WORDS_H
#define SLUICE_MANAGER_WORDS_H

#include "manager/options.h"

/* For struct crew_ops' command: the words for worker @number, or NULL without memory. */
char **words_of_worker(const struct options *o, unsigned number);
/* Frees the words and the array; NULL is none. */
void words_free(char **words);

#endif
