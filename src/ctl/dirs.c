/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/dirs.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

int dirs_make_parent(const char *path, mode_t mode, struct err *err)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];
	int rc;

	if (!slash || slash == path)
		return 0;
	if ((size_t)(slash - path) >= sizeof(dir))
		return err_set(err, -ENAMETOOLONG, "%.64s... is too long for a path", path);
	memcpy(dir, path, (size_t)(slash - path));
	dir[slash - path] = '\0';
	if (!mkdir(dir, mode) || errno == EEXIST)
		return 0;
	rc = -errno;
	return err_set(err, rc, "cannot make directory %s: %s", dir, strerror(-rc));
}
