/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What registered buffers, registered files and the ways a ring can be set up are worth to the
 *uring bdev: random direct I/O on one file from one thread that spins, as a reactor does.
 *
 * The variants take turns, a short run each, several times over, so that what else the machine
 * does hits all alike; what counts is each one's median.  Beside operations a second it shows the
 * processor time of this thread for an operation without the share that spinning takes: where the
 *disk is the limit, that is where the variants differ.
 *
 *	bench_uring_buffers FILE [SECONDS [ROUNDS]]
 *
 * FILE's contents are overwritten; make it with e.g. "fallocate -l 1G FILE".
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define SETUP_COOP \
	(IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER)
#define SETUP_DEFER \
	(IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER)

enum { DEPTH_MAX = 64, ROUNDS_MAX = 64 };

struct variant {
	const char *name;
	unsigned setup;
	bool fixed_file;
	bool fixed_buffers;
};

static const struct variant variants[] = {
	{"plain", SETUP_COOP, false, false},
	{"registered file", SETUP_COOP, true, false},
	{"registered buffers", SETUP_COOP, false, true},
	{"both", SETUP_COOP, true, true},
	{"plain, no setup flags", 0, false, false},
	{"plain, deferred", SETUP_DEFER, false, false},
	{"both, deferred", SETUP_DEFER, true, true},
};
enum { VARIANTS = sizeof(variants) / sizeof(variants[0]) };

struct load {
	const char *name;
	uint32_t size;
	unsigned depth;
	bool write;
};

static const struct load loads[] = {
	{"4 KiB reads, depth 1", 4096, 1, false},
	{"4 KiB reads, depth 32", 4096, 32, false},
	{"4 KiB writes, depth 32", 4096, 32, true},
	{"128 KiB reads, depth 16", 131072, 16, false},
};
enum { LOADS = sizeof(loads) / sizeof(loads[0]) };

struct result {
	double ops;       /* a second */
	double kernel_ns; /* for one operation */
};

static void die(const char *what, int error)
{
	fprintf(stderr, "bench_uring_buffers: %s: %s\n", what, strerror(error));
	exit(1);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void prepare(struct io_uring_sqe *sqe, const struct variant *v, const struct load *l, int fd,
		    struct iovec *buffer, unsigned slot, uint64_t offset)
{
	if (v->fixed_buffers && l->write)
		io_uring_prep_write_fixed(sqe, fd, buffer->iov_base, l->size, offset, (int)slot);
	else if (v->fixed_buffers)
		io_uring_prep_read_fixed(sqe, fd, buffer->iov_base, l->size, offset, (int)slot);
	else if (l->write)
		io_uring_prep_write(sqe, fd, buffer->iov_base, l->size, offset);
	else
		io_uring_prep_read(sqe, fd, buffer->iov_base, l->size, offset);
	if (v->fixed_file) {
		sqe->fd = 0;
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	}
	io_uring_sqe_set_data64(sqe, slot);
}

static double kernel_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}

/* -EINVAL: the kernel does not know the variant's setup. */
static int run(const struct variant *v, const struct load *l, int fd, uint64_t blocks,
	       struct iovec *buffers, uint64_t duration_ns, struct result *result)
{
	struct io_uring_params params = {.flags = v->setup};
	uint64_t start, now, ops = 0, seed = 88172645463325252ULL;
	unsigned slots[DEPTH_MAX], idle = l->depth, inflight = 0;
	struct io_uring ring;
	double kernel;
	int rc;

	rc = io_uring_queue_init_params(DEPTH_MAX, &ring, &params);
	if (rc == -EINVAL)
		return rc;
	if (!rc && v->fixed_file)
		rc = io_uring_register_files(&ring, &fd, 1);
	if (!rc && v->fixed_buffers)
		rc = io_uring_register_buffers(&ring, buffers, l->depth);
	if (rc)
		die("cannot set up the ring", -rc);
	for (unsigned i = 0; i < l->depth; i++)
		slots[i] = i;
	start = now = clock_now_ns();
	kernel = kernel_seconds();
	while (now - start < duration_ns || inflight) {
		struct io_uring_cqe *cqe;

		for (; idle && now - start < duration_ns; inflight++) {
			unsigned slot = slots[--idle];

			prepare(io_uring_get_sqe(&ring), v, l, fd, &buffers[slot], slot,
				next_random(&seed) % blocks * l->size);
		}
		rc = io_uring_submit(&ring); /* no system call if there is nothing */
		if (rc < 0)
			die("cannot submit", -rc);
		if (IO_URING_READ_ONCE(*ring.sq.kflags) & IORING_SQ_TASKRUN)
			io_uring_get_events(&ring);
		while (io_uring_cq_ready(&ring) && !io_uring_peek_cqe(&ring, &cqe)) {
			if (cqe->res != (int)l->size)
				die("I/O failed", cqe->res < 0 ? -cqe->res : EIO);
			slots[idle++] = (unsigned)cqe->user_data;
			io_uring_cqe_seen(&ring, cqe);
			inflight--;
			ops++;
		}
		now = clock_now_ns();
	}
	kernel = kernel_seconds() - kernel;
	result->ops = (double)ops * 1e9 / (double)(now - start);
	result->kernel_ns = kernel * 1e9 / (double)ops;
	io_uring_queue_exit(&ring);
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), compare);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void run_load(const struct load *l, int fd, uint64_t file_size, struct iovec *buffers,
		     double seconds, unsigned rounds)
{
	static double ops[VARIANTS][ROUNDS_MAX], kernel[VARIANTS][ROUNDS_MAX];
	bool known[VARIANTS];

	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < VARIANTS; i++) {
			struct result result = {0, 0};

			known[i] = !run(&variants[i], l, fd, file_size / l->size, buffers,
					(uint64_t)(seconds * 1e9), &result);
			ops[i][round] = result.ops;
			kernel[i][round] = result.kernel_ns;
		}
	}
	printf("\n%-24s %10s %10s %10s %12s\n", l->name, "ops/s", "lowest", "highest",
	       "kernel ns/op");
	for (unsigned i = 0; i < VARIANTS; i++) {
		double middle = median(ops[i], rounds);

		if (known[i])
			printf("  %-22s %10.0f %10.0f %10.0f %12.0f\n", variants[i].name, middle,
			       ops[i][0], ops[i][rounds - 1], median(kernel[i], rounds));
		else
			printf("  %-22s unknown to this kernel\n", variants[i].name);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	double seconds = argc > 2 ? atof(argv[2]) : 0.5;
	unsigned rounds = argc > 3 ? (unsigned)atoi(argv[3]) : 7;
	struct iovec buffers[DEPTH_MAX];
	struct stat st;
	int fd;

	if (argc < 2 || argc > 4 || seconds <= 0 || !rounds || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench_uring_buffers FILE [SECONDS [ROUNDS]]\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die(argv[1], errno);
	if (st.st_size < 1 << 20) {
		fprintf(stderr, "bench_uring_buffers: %s is smaller than 1 MiB: extend it\n",
			argv[1]);
		return 1;
	}
	for (unsigned i = 0; i < DEPTH_MAX; i++) {
		buffers[i].iov_len = 131072;
		buffers[i].iov_base = mmap(NULL, 131072, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (buffers[i].iov_base == MAP_FAILED)
			die("no memory", errno);
	}
	printf("%s: direct I/O, %u runs of %.2f s each, in turns; medians\n", argv[1], rounds,
	       seconds);
	for (unsigned i = 0; i < LOADS; i++)
		run_load(&loads[i], fd, (uint64_t)st.st_size, buffers, seconds, rounds);
	return 0;
}
