/* SPDX-License-Identifier: BSD-2-Clause */
#include "desk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	RANGE = 1 << 30,
	/* Seconds after which a test that sleeps where it must not is killed. */
	PATIENCE = 50,
};

int desk_setup(void **state)
{
	struct sivshm_manager_opts opts = {.struct_bytes = sizeof(opts), .range_bytes = RANGE};
	struct desk *desk = calloc(1, sizeof(*desk));

	alarm(PATIENCE);
	*state = desk;
	return desk ? sivshm_manager_create(&opts, &desk->manager) : -1;
}

int desk_teardown(void **state)
{
	struct desk *desk = *state;

	sivshm_manager_destroy(desk->manager);
	free(desk);
	alarm(0);
	return 0;
}

static void note(struct desk *desk, struct sivshm_worker *w, enum desk_event event, unsigned vector)
{
	struct desk_note *n = &desk->notes[desk->nr_notes];

	assert_in_range(desk->nr_notes, 0, DESK_NOTES - 1);
	desk->nr_notes++;
	*n = (struct desk_note){w, event, vector};
	if (desk->then)
		desk->then(desk, n);
}

static void joined(struct sivshm_worker *w, void *arg)
{
	note(arg, w, DESK_JOINED, 0);
}

static void rung(struct sivshm_worker *w, unsigned vector, void *arg)
{
	note(arg, w, DESK_RUNG, vector);
}

static void gone(struct sivshm_worker *w, void *arg)
{
	note(arg, w, DESK_GONE, 0);
}

struct sivshm_worker_opts desk_opts(struct desk *desk, size_t bytes, unsigned vectors)
{
	return (struct sivshm_worker_opts){
		.struct_bytes = sizeof(struct sivshm_worker_opts),
		.segment_bytes = bytes,
		.vectors = vectors,
		.joined = joined,
		.rung = rung,
		.gone = gone,
		.arg = desk,
	};
}

struct sivshm_worker *desk_add(struct desk *desk, size_t bytes, unsigned vectors)
{
	struct sivshm_worker_opts opts = desk_opts(desk, bytes, vectors);
	struct sivshm_worker *w = NULL;

	assert_int_equal(sivshm_worker_add(desk->manager, &opts, &w), 0);
	return w;
}

struct sivshm_port *desk_open(struct sivshm_worker *w)
{
	struct sivshm_port *p = NULL;
	char where[32];
	int fd = sivshm_worker_take_socket(w);

	assert_true(fd >= 0);
	snprintf(where, sizeof(where), "fd:%d", fd);
	assert_int_equal(sivshm_open(where, 0, &p), 0);
	return p;
}

struct sivshm_port *desk_hire(struct desk *desk, size_t bytes, unsigned vectors,
			      struct sivshm_worker **w)
{
	*w = desk_add(desk, bytes, vectors);
	return desk_open(*w);
}

void desk_settle(struct desk *desk)
{
	/* Also what causes no callback has to be over: so it looks some times more. */
	for (int quiet = 0; quiet < 3; quiet++) {
		int called = sivshm_manager_dispatch(desk->manager, 0);

		assert_true(called >= 0);
		if (called)
			quiet = 0;
	}
}

unsigned desk_count(const struct desk *desk, const struct sivshm_worker *w, enum desk_event event)
{
	unsigned n = 0;

	for (unsigned i = 0; i < desk->nr_notes; i++)
		n += desk->notes[i].worker == w && desk->notes[i].event == event;
	return n;
}

static int read_one(int socket, int64_t *value)
{
	int fd;

	assert_int_equal(sivshm_wire_receive(socket, sivshm_deadline(1000), value, &fd), 0);
	return fd;
}

struct bare desk_read(int socket, unsigned vectors)
{
	struct bare bare = {.socket = socket, .vectors = vectors};
	int64_t value;

	assert_int_equal(read_one(socket, &value), -1);
	assert_int_equal(value, 0);
	assert_int_equal(read_one(socket, &bare.id), -1);
	bare.memfd = read_one(socket, &value);
	assert_int_equal(value, -1);
	assert_true(bare.memfd >= 0);
	for (unsigned i = 0; i < vectors; i++) {
		bare.ring[i] = read_one(socket, &value);
		assert_int_equal(value, bare.id ^ 1);
		assert_true(bare.ring[i] >= 0);
	}
	for (unsigned i = 0; i < vectors; i++) {
		bare.listen[i] = read_one(socket, &value);
		assert_int_equal(value, bare.id);
		assert_true(bare.listen[i] >= 0);
	}
	return bare;
}

void desk_drop(struct bare *bare)
{
	for (unsigned i = 0; i < bare->vectors; i++) {
		close(bare->ring[i]);
		close(bare->listen[i]);
	}
	close(bare->memfd);
	close(bare->socket);
}

int desk_send_fd(int socket, const void *data, size_t len, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.align = {.cmsg_len = CMSG_LEN(sizeof(int)),
			       .cmsg_level = SOL_SOCKET,
			       .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};

	memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	return sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

long desk_shmem(void)
{
	char line[128];
	long kib = -1;
	FILE *f = fopen("/proc/meminfo", "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Shmem: %ld kB", &kib) == 1)
			break;
	fclose(f);
	assert_true(kib >= 0);
	return kib * 1024;
}

int64_t desk_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
