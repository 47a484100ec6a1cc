/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/log.h"
#include "base/parse.h"
#include "ctl/dirs.h"

/* The holder's process id as it wrote it; for the error line only. */
static uint32_t read_holder(int fd)
{
	char text[16];
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);
	uint32_t pid;

	if (len <= 1)
		return 0;
	text[len - 1] = '\0'; /* in place of the newline */
	return parse_u32(text, INT32_MAX, &pid) ? pid : 0;
}

int instance_lock(const char *path, const char *name, int *fd, struct err *err)
{
	int lock, rc;

	rc = dirs_make_parent(path, 0755, err);
	if (rc)
		return rc;
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0) {
		rc = -errno;
		return err_set(err, rc, "cannot open the lock file %s: %s%s", path, strerror(-rc),
			       rc == -EACCES ? " (sluiced must run as root)" : "");
	}
	if (flock(lock, LOCK_EX | LOCK_NB)) {
		rc = -errno;
		if (rc == -EWOULDBLOCK)
			rc = err_set(err, -EEXIST,
				     "a sluiced named '%s' is already running (process %u): stop "
				     "it, or give this one another name with --name",
				     name, read_holder(lock));
		else
			err_set(err, rc, "cannot lock %s: %s", path, strerror(-rc));
		close(lock);
		return rc;
	}
	/* Only a convenience for people: a daemon that cannot write its number runs as well. */
	if (ftruncate(lock, 0) || dprintf(lock, "%d\n", getpid()) < 0)
		log_debug("cannot write %s: %s", path, strerror(errno));
	*fd = lock;
	return 0;
}
