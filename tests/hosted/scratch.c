/* SPDX-License-Identifier: BSD-2-Clause */
#include "scratch.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char template[] = "/tmp/sluice-grants-XXXXXX";
static char dir[sizeof(template)];
char scratch_ledger[sizeof(template) + 16];
char scratch_parameter[sizeof(template) + 16];

int scratch_make(void **state)
{
	strcpy(dir, template);
	if (!mkdtemp(dir))
		return -1;
	snprintf(scratch_ledger, sizeof(scratch_ledger), "%s/ledger", dir);
	snprintf(scratch_parameter, sizeof(scratch_parameter), "%s/parameter", dir);
	return 0;
}

int scratch_remove(void **state)
{
	unlink(scratch_parameter);
	unlink(scratch_ledger);
	return rmdir(dir);
}

int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if (flags & O_CREAT)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	if (!strcmp(name, scratch_stands_for))
		name = scratch_parameter;
	return __real_open64(name, flags, mode);
}
