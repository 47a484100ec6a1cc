/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/tunable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/parse.h"

int grant_tunable_read(const char *path, uint32_t *value)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[16];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return parse_u32(text, UINT32_MAX, value) ? 0 : -EINVAL;
}

int grant_tunable_write(const char *path, uint32_t value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (dprintf(fd, "%u\n", value) < 0)
		rc = -errno;
	close(fd);
	return rc;
}
