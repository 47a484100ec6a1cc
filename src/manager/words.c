/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/words.h"

#include <stdlib.h>
#include <string.h>

#include "manager/qemu.h"

void words_free(char **words)
{
	for (char **word = words; word && *word; word++)
		free(*word);
	free(words);
}

static char **copy_words(char *const *words)
{
	char **copy;
	size_t n = 0;

	while (words[n])
		n++;
	copy = calloc(n + 1, sizeof(copy[0]));
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(words[i]);
		if (!copy[i]) {
			words_free(copy);
			return NULL;
		}
	}
	return copy;
}

char **words_of_worker(const struct options *o, unsigned number)
{
	return o->guests ? qemu_command(o, number) : copy_words(o->program);
}
