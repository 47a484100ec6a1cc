/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A path at which one process is expected.
 *
 * Strangers are told from the one by what the kernel says of them, and hear nothing. Once the one
 * has come, the listener is shut down rather than closed: it refuses whoever comes later, while its
 * name remains bound, so that others can see that the path is in use.
 *
 * That is how a dead listener's file is recognized, too: connecting a datagram socket to it fails
 * in one way if a stream socket is bound there, in another if none is, and does not take up the
 * place of the one whom a live listener waits for.
 *
 * Whoever waits to be accepted is heard of again and again, also while there is no descriptor for
 * him. So a listener keeps the place of one.
 *
 * Whoever connects can send before he is accepted, and looked at. Descriptors he must not: to close
 * them can take as long as he likes. Linux 6.16 and later keep them out.
 */
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

enum { BACKLOG = 8 };

/* Whether the file at @addr is a socket that nobody is bound to any more. */
static bool is_stale(const struct sockaddr_un *addr)
{
	struct stat st;
	int fd, err;

	if (lstat(addr->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	err = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;
	close(fd);
	return err == ECONNREFUSED;
}

static int bind_path(int fd, const struct sockaddr_un *addr)
{
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	if (!is_stale(addr))
		return -EADDRINUSE;
	if (unlink(addr->sun_path) < 0 && errno != ENOENT)
		return -errno;
	return bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
}

/*
 * Notes which file it is, and gives it its mode. A name can be moved away under one's hands: what
 * is changed is what was looked at.
 */
static int settle(struct sivshm_listener *l, mode_t mode)
{
	char self[32];
	struct stat st;
	int rc = 0, fd = open(l->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fstat(fd, &st) < 0)
		rc = -errno;
	else if (!S_ISSOCK(st.st_mode))
		rc = -EADDRINUSE;
	else if ((st.st_mode & 07777) != mode && chmod(self, mode) < 0)
		rc = -errno;
	else {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	close(fd);
	return rc;
}

static void unlink_own(const struct sivshm_listener *l)
{
	struct stat st;

	if (lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
}

/* Here, and at all sockets that come of it, if the kernel can. */
static void refuse_descriptors(int fd)
{
	int no = 0;

	setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no));
}

/* A second descriptor for the same socket serves as well as any. */
static int keep_place(struct sivshm_listener *l)
{
	if (l->spare < 0)
		l->spare = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
	return l->spare < 0 ? -errno : 0;
}

static void give_place(struct sivshm_listener *l)
{
	sivshm_close_fd(&l->spare);
}

int sivshm_listener_init(struct sivshm_listener *l, const char *path, mode_t mode,
			 const struct sivshm_credentials *who)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int rc;

	*l = (struct sivshm_listener){.fd = -1, .spare = -1};
	l->who = who ? *who : (struct sivshm_credentials){.uid = geteuid(), .gid = -1, .pid = -1};
	if (!*path || mode & ~(mode_t)0777)
		return -EINVAL;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	l->path = strdup(path);
	if (!l->path)
		return -ENOMEM;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = l->fd < 0 ? -errno : 0;
	if (rc == 0)
		refuse_descriptors(l->fd);
	/* Nobody can connect before listen(); by then the file has its mode, whatever the umask. */
	if (rc == 0 && fchmod(l->fd, mode) < 0)
		rc = -errno;
	if (rc == 0)
		rc = bind_path(l->fd, &addr);
	if (rc == 0) {
		rc = settle(l, mode);
		if (rc == 0)
			rc = keep_place(l);
		if (rc == 0 && listen(l->fd, BACKLOG) < 0)
			rc = -errno;
		if (rc < 0)
			unlink_own(l);
	}
	if (rc == 0)
		return 0;
	give_place(l);
	sivshm_close_fd(&l->fd);
	free(l->path);
	*l = (struct sivshm_listener){.fd = -1, .spare = -1};
	return rc;
}

void sivshm_listener_fini(struct sivshm_listener *l)
{
	if (l->fd < 0)
		return;
	unlink_own(l);
	give_place(l);
	close(l->fd);
	free(l->path);
	*l = (struct sivshm_listener){.fd = -1, .spare = -1};
}

static bool is_expected(const struct sivshm_credentials *who, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (who->uid < 0 || who->uid == peer.uid) && (who->gid < 0 || who->gid == peer.gid) &&
	       (who->pid < 0 || who->pid == peer.pid);
}

/* Returns a socket, in the place that was kept if there is no other, or -1. */
static int accept_next(struct sivshm_listener *l)
{
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 || (errno != EMFILE && errno != ENFILE))
		return fd;
	give_place(l);
	return accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static void send_away(struct sivshm_listener *l, int fd)
{
	close(fd);
	keep_place(l);
}

int sivshm_listener_accept(struct sivshm_listener *l)
{
	int fd = accept_next(l);

	if (fd < 0)
		return -EAGAIN;
	if (is_expected(&l->who, fd))
		return fd;
	send_away(l, fd);
	return -EPERM;
}

void sivshm_listener_shut(struct sivshm_listener *l)
{
	int fd;

	shutdown(l->fd, SHUT_RDWR);
	/* Those who were waiting are sent away. */
	while ((fd = accept_next(l)) >= 0)
		send_away(l, fd);
	give_place(l);
}
