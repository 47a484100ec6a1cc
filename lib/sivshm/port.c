/* SPDX-License-Identifier: BSD-2-Clause */
/* What all ports have in common, and what the words mean by which they are opened. */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void *sivshm_port_memory(const struct sivshm_port *p)
{
	return p->memory;
}

size_t sivshm_port_size(const struct sivshm_port *p)
{
	return p->size;
}

unsigned sivshm_port_id(const struct sivshm_port *p)
{
	return p->id;
}

unsigned sivshm_port_peer(const struct sivshm_port *p)
{
	return p->peer;
}

unsigned sivshm_port_vectors(const struct sivshm_port *p)
{
	return p->vectors;
}

int sivshm_port_ring(struct sivshm_port *p, unsigned vector)
{
	return vector < p->vectors ? p->ops->ring(p, vector) : -EINVAL;
}

int sivshm_port_fd(const struct sivshm_port *p, unsigned vector)
{
	return vector < p->vectors ? p->ops->fd(p, vector) : -EINVAL;
}

int sivshm_port_take(struct sivshm_port *p, unsigned vector)
{
	return vector < p->vectors ? p->ops->take(p, vector) : -EINVAL;
}

int sivshm_port_wait(struct sivshm_port *p, unsigned vector, int timeout_ms)
{
	return vector < p->vectors ? p->ops->wait(p, vector, timeout_ms) : -EINVAL;
}

int sivshm_port_liveness_fd(const struct sivshm_port *p)
{
	return p->ops->liveness_fd(p);
}

int sivshm_port_is_alive(struct sivshm_port *p)
{
	return p->ops->is_alive(p);
}

void sivshm_port_close(struct sivshm_port *p)
{
	if (p)
		p->ops->close(p);
}

void sivshm_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t sivshm_deadline(int timeout_ms)
{
	/* One more: the present millisecond has begun already. */
	return timeout_ms < 0 ? -1 : timeout_ms ? now_ms() + timeout_ms + 1 : 0;
}

int sivshm_deadline_left(int64_t deadline)
{
	int64_t left;

	if (deadline <= 0)
		return (int)deadline;
	left = deadline - now_ms();
	return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

/* A descriptor's number: digits only. */
static int parse_fd(const char *text)
{
	char *end;
	long fd;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	fd = strtol(text, &end, 10);
	return *end || errno || fd > INT_MAX ? -EINVAL : (int)fd;
}

int sivshm_open(const char *where, int timeout_ms, struct sivshm_port **out)
{
	/* A set-user-ID program does not let its caller choose. */
	if (!where)
		where = secure_getenv("SIVSHM");
	if (!where)
		return sivshm_pci_open(NULL, out);
	if (strncmp(where, "pci:", 4) == 0 && where[4])
		return sivshm_pci_open(where + 4, out);
	if (strncmp(where, "fd:", 3) == 0) {
		int fd = parse_fd(where + 3);

		return fd < 0 ? fd : sivshm_process_open_fd(fd, timeout_ms, out);
	}
	if (strncmp(where, "unix:", 5) == 0)
		return sivshm_process_open_path(where + 5, timeout_ms, out);
	return -EINVAL;
}
