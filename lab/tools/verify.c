/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is written comes back, however its memory lies: whole pages in any order, data that begins
 * and ends inside a page, pages with gaps between them as a guest's segments have, and memory named
 * by virtual addresses that the device reaches or does not.
 *
 * Each request under way has a slice of the drive for itself, so that what a read must bring is
 * known at any time: an image of the region is kept in memory.  Around what a read was to fill lies
 * a pattern, which must still be there afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drive-load.h"

enum {
	MAX_BYTES = 1 << 20, /* of a request */
	MAX_PAGES = MAX_BYTES / DMA_PAGE_SIZE + 1,
	PATTERN = 0xa5,
};

enum shape {
	WHOLE_PAGES, /* in a shuffled order */
	SHIFTED,     /* begins inside a page, and may end inside one */
	GAPS,        /* each page has its own first and last sector */
	BY_IOV,      /* virtual addresses of device memory */
	BY_MALLOC,   /* of other memory */
	SHAPES,
};

enum phase { FILL, MIX, CHECK };

struct slot {
	struct bdev_io io;
	struct job *job;
	uint64_t start; /* of its slice of the drive */
	uint64_t len;
	unsigned char *image; /* what the slice holds */
	struct dma_memory mem;
	unsigned char *plain; /* as much other memory */
	/* The request's memory. */
	unsigned char *base; /* of mem or plain */
	size_t extent;       /* bytes of it that are used */
	struct dma_piece pieces[MAX_PAGES];
	struct iovec iov[MAX_PAGES]; /* virtual addresses of the pieces, or what is submitted */
	unsigned nr;
	enum phase phase;
	uint64_t at; /* FILL, CHECK: bytes done of the slice */
	unsigned left;
};

struct job {
	struct worker *worker;
	const struct load_options *opts;
	struct slot *slots;
	unsigned nr_slots;
	unsigned running;
	uint64_t random;
	uint64_t counts[2][SHAPES]; /* requests that read, and wrote */
	uint64_t bytes;
	int rc;
};

static uint64_t below(struct job *job, uint64_t n)
{
	return next_random(&job->random) % n;
}

static void add_piece(struct slot *s, unsigned page, uint32_t offset, uint32_t len)
{
	s->pieces[s->nr] = (struct dma_piece){.bus = s->mem.bus[page] + offset, .len = len};
	s->iov[s->nr].iov_base = s->base + page * DMA_PAGE_SIZE + offset;
	s->iov[s->nr].iov_len = len;
	s->nr++;
}

/* A page of the slot's that the request does not have yet, from @first on, at random. */
static void shuffle(struct job *job, unsigned *order, unsigned first, unsigned n)
{
	for (unsigned i = first; i < n; i++)
		order[i] = i;
	for (unsigned i = n; i > first + 1; i--) {
		unsigned other = first + (unsigned)below(job, i - first), last = order[i - 1];

		order[i - 1] = order[other];
		order[other] = last;
	}
}

static void lay_pages(struct job *job, struct slot *s, uint32_t skip)
{
	uint64_t left = s->io.len;
	unsigned order[MAX_PAGES],
		n = (unsigned)((skip + left + DMA_PAGE_SIZE - 1) / DMA_PAGE_SIZE);

	shuffle(job, order, 0, n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = DMA_PAGE_SIZE - skip;

		len = len < left ? len : (uint32_t)left;
		add_piece(s, order[i], skip, len);
		left -= len;
		skip = 0;
	}
	s->extent = (size_t)n * DMA_PAGE_SIZE;
}

/* Sets the length anew: as much as the pages make that get their own sectors. */
static void lay_gaps(struct job *job, struct slot *s, uint32_t align)
{
	unsigned order[MAX_PAGES], n = 1 + (unsigned)below(job, 32);
	uint32_t units = DMA_PAGE_SIZE / align;
	uint64_t len = 0;

	shuffle(job, order, 0, n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t first = (uint32_t)below(job, units);
		uint32_t count = 1 + (uint32_t)below(job, units - first);

		if (len + count * align > s->io.len)
			break;
		add_piece(s, order[i], first * align, count * align);
		len += count * align;
	}
	if (!len) {
		add_piece(s, 0, 0, align);
		len = align;
	}
	s->io.len = len;
	s->extent = (size_t)n * DMA_PAGE_SIZE;
}

static void lay_iov(struct job *job, struct slot *s, const struct bdev_limits *limits)
{
	size_t room = (size_t)MAX_PAGES * DMA_PAGE_SIZE - s->io.len, at = 0;
	uint64_t left = s->io.len;

	while (left) {
		uint64_t blocks = left / limits->block_size;
		size_t gap =
			(size_t)below(job, room / 4 + 1) / limits->mem_align * limits->mem_align;
		uint64_t len = (1 + below(job, blocks)) * limits->block_size;

		if (s->nr == 15)
			len = left;
		at += gap;
		room -= gap;
		s->iov[s->nr++] = (struct iovec){s->base + at, len};
		at += len;
		left -= len;
	}
	s->extent = at;
}

/* The memory of the request, whose length is given, and which may become shorter. */
static void lay_out(struct slot *s, enum shape shape)
{
	struct job *job = s->job;
	const struct bdev_limits *limits = &job->worker->rig->bdev->limits;
	uint32_t align = limits->piece_align ? limits->piece_align : limits->block_size;

	s->nr = 0;
	s->base = shape == BY_MALLOC ? s->plain : s->mem.virt;
	s->io.iov = NULL;
	s->io.pieces = NULL;
	switch (shape) {
	case WHOLE_PAGES:
		lay_pages(job, s, 0);
		break;
	case SHIFTED:
		lay_pages(job, s, (uint32_t)below(job, 8) * 512);
		break;
	case GAPS:
		lay_gaps(job, s, align);
		break;
	default:
		lay_iov(job, s, limits);
		s->io.iov = s->iov;
		s->io.iovcnt = (int)s->nr;
		return;
	}
	s->io.pieces = s->pieces;
	s->io.nr_pieces = s->nr;
}

static void put_data(struct slot *s)
{
	struct job *job = s->job;
	unsigned char *image = s->image + (s->io.offset - s->start);

	for (uint64_t i = 0; i < s->io.len; i += 8) {
		uint64_t value = next_random(&job->random);

		memcpy(image + i, &value, 8);
	}
	for (unsigned i = 0; i < s->nr; i++) {
		memcpy(s->iov[i].iov_base, image, s->iov[i].iov_len);
		image += s->iov[i].iov_len;
	}
}

/* Whether the read brought what it had to, and touched nothing else. */
static bool data_is_right(struct slot *s)
{
	const unsigned char *image = s->image + (s->io.offset - s->start);

	for (unsigned i = 0; i < s->nr; i++) {
		if (memcmp(s->iov[i].iov_base, image, s->iov[i].iov_len)) {
			fprintf(stderr,
				"drive-load: piece %u of %u (%zu bytes) of %llu bytes at %llu is "
				"not "
				"what was written\n",
				i, s->nr, s->iov[i].iov_len, (unsigned long long)s->io.len,
				(unsigned long long)s->io.offset);
			return false;
		}
		image += s->iov[i].iov_len;
		memset(s->iov[i].iov_base, PATTERN, s->iov[i].iov_len);
	}
	if (s->base[0] != PATTERN || memcmp(s->base, s->base + 1, s->extent - 1)) {
		fprintf(stderr,
			"drive-load: the read of %llu bytes at %llu wrote beside its memory\n",
			(unsigned long long)s->io.len, (unsigned long long)s->io.offset);
		return false;
	}
	return true;
}

static void next(struct slot *s);

static void slot_over(struct slot *s, int rc)
{
	struct job *job = s->job;

	if (rc && !job->rc)
		job->rc = rc;
	if (!--job->running)
		rig_over(job->worker, job->rc);
}

static void done(struct bdev_io *io)
{
	struct slot *s = container_of(io, struct slot, io);
	int rc = io->result;

	if (rc)
		fprintf(stderr, "drive-load: operation %d of %llu bytes at %llu: %s\n", io->op,
			(unsigned long long)io->len, (unsigned long long)io->offset, strerror(-rc));
	else if (io->op == BDEV_READ && !data_is_right(s))
		rc = -EIO;
	s->job->bytes += io->len;
	if (rc || s->job->rc)
		slot_over(s, rc);
	else
		next(s);
}

static void submit(struct slot *s, enum bdev_op op, uint64_t offset, uint64_t len, enum shape shape)
{
	s->io.op = op;
	s->io.offset = s->start + offset;
	s->io.len = len;
	s->io.done = done;
	if (op == BDEV_READ || op == BDEV_WRITE) {
		lay_out(s, shape);
		s->job->counts[op == BDEV_WRITE][shape]++;
	} else {
		s->io.iov = NULL;
		s->io.pieces = NULL;
	}
	if (op == BDEV_READ)
		memset(s->base, PATTERN, s->extent);
	else if (op == BDEV_WRITE)
		put_data(s);
	else if (op == BDEV_WRITE_ZEROES)
		memset(s->image + offset, 0, len);
	bdev_submit(s->job->worker->channel, &s->io);
}

static void submit_any(struct slot *s)
{
	struct job *job = s->job;
	const struct bdev_limits *limits = &job->worker->rig->bdev->limits;
	uint32_t block = limits->block_size;
	uint64_t max = s->len < MAX_BYTES ? s->len : MAX_BYTES, len, offset;
	unsigned kind = (unsigned)below(job, 64);

	/* Small and large ones alike: the number of bits is random. */
	max >>= below(job, 12);
	len = (1 + below(job, max > block ? max / block : 1)) * block;
	offset = below(job, (s->len - len) / block + 1) * block;
	if (kind == 0) {
		s->io.secure = false;
		submit(s, BDEV_FLUSH, 0, 0, WHOLE_PAGES);
		return;
	}
	if (kind == 1 && limits->write_zeroes_max >= len) {
		s->io.deallocate = below(job, 2);
		submit(s, BDEV_WRITE_ZEROES, offset, len, WHOLE_PAGES);
		return;
	}
	submit(s, kind & 1 ? BDEV_WRITE : BDEV_READ, offset, len, (enum shape)below(job, SHAPES));
}

/* The slice from one end to the other. */
static void submit_all(struct slot *s, enum bdev_op op)
{
	uint64_t len = s->len - s->at;
	uint64_t at = s->at;

	len = len < MAX_BYTES / 4 ? len : MAX_BYTES / 4;
	s->at += len;
	submit(s, op, at, len, WHOLE_PAGES);
}

static void next(struct slot *s)
{
	if (s->phase == FILL && s->at == s->len)
		s->phase = MIX;
	if (s->phase == MIX && !s->left--) {
		s->phase = CHECK;
		s->at = 0;
	}
	if (s->phase == FILL)
		submit_all(s, BDEV_WRITE);
	else if (s->phase == MIX)
		submit_any(s);
	else if (s->at < s->len)
		submit_all(s, BDEV_READ);
	else
		slot_over(s, 0);
}

static void begin(struct worker *w)
{
	struct job *job = w->job;

	job->running = job->nr_slots;
	for (unsigned i = 0; i < job->nr_slots; i++)
		next(&job->slots[i]);
}

static void make_job(struct rig *rig, struct worker *w, const struct load_options *opts,
		     unsigned char *image)
{
	uint64_t slice =
		opts->region / (rig->nr_workers * opts->depth) / DMA_PAGE_SIZE * DMA_PAGE_SIZE;
	struct job *job = calloc(1, sizeof(*job));

	if (!slice)
		die("--region: too small for %u workers of depth %u", rig->nr_workers, opts->depth);
	if (!job)
		die("no memory left");
	job->slots = calloc(opts->depth, sizeof(*job->slots));
	if (!job->slots)
		die("no memory left");
	job->worker = w;
	job->opts = opts;
	job->nr_slots = opts->depth;
	job->random = opts->seed + 0x9e3779b97f4a7c15 * (w->number + 1);
	for (unsigned i = 0; i < opts->depth; i++) {
		struct slot *s = &job->slots[i];

		s->job = job;
		s->start = (w->number * opts->depth + i) * slice;
		s->len = slice;
		s->image = image + s->start;
		s->left = opts->requests / opts->depth;
		rig_alloc(rig, MAX_PAGES, &s->mem);
		s->plain = aligned_alloc(DMA_PAGE_SIZE, (size_t)MAX_PAGES * DMA_PAGE_SIZE);
		if (!s->plain)
			die("no memory left");
	}
	w->job = job;
}

void save_image(const char *path, const unsigned char *image, size_t len)
{
	FILE *f = fopen(path, "w");

	if (!f || fwrite(image, 1, len, f) != len || fclose(f))
		die("cannot write %s: %s", path, strerror(errno));
}

static void report(const struct rig *rig, size_t len)
{
	static const char *const names[] = {"pages", "shifted", "gaps", "iov", "malloc"};
	uint64_t counts[2][SHAPES] = {{0}}, bytes = 0;

	for (unsigned i = 0; i < rig->nr_workers; i++) {
		const struct job *job = rig->workers[i].job;

		bytes += job->bytes;
		for (unsigned shape = 0; shape < SHAPES; shape++) {
			counts[0][shape] += job->counts[0][shape];
			counts[1][shape] += job->counts[1][shape];
		}
	}
	printf("{\"verified\":%zu,\"bytes\":%llu", len, (unsigned long long)bytes);
	for (unsigned shape = 0; shape < SHAPES; shape++)
		printf(",\"%s\":{\"reads\":%llu,\"writes\":%llu}", names[shape],
		       (unsigned long long)counts[0][shape], (unsigned long long)counts[1][shape]);
	puts("}");
}

void verify(struct rig *rig, const struct load_options *opts)
{
	uint64_t slice =
		opts->region / (rig->nr_workers * opts->depth) / DMA_PAGE_SIZE * DMA_PAGE_SIZE;
	size_t len = slice * rig->nr_workers * opts->depth;
	unsigned char *image = calloc(1, len ? len : 1);

	if (!image)
		die("no memory left for an image of %zu bytes", len);
	for (unsigned i = 0; i < rig->nr_workers; i++)
		make_job(rig, &rig->workers[i], opts, image);
	rig_run(rig, begin);
	report(rig, len);
	if (opts->image)
		save_image(opts->image, image, len);
	for (unsigned i = 0; i < rig->nr_workers; i++) {
		struct job *job = rig->workers[i].job;

		for (unsigned n = 0; n < job->nr_slots; n++) {
			dma_free(rig->dma, &job->slots[n].mem);
			free(job->slots[n].plain);
		}
		free(job->slots);
		free(job);
	}
	free(image);
}
