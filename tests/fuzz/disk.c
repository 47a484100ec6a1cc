/* SPDX-License-Identifier: BSD-2-Clause */
#include "disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "double.h"
#include "fuzz.h"

struct disk {
	struct bdev bdev;
	char data[DISK_BYTES_MAX];
};

/* Of all disks together. */
static struct {
	bool hold;
	struct list kept; /* of struct bdev_io */
	unsigned nr_kept;
	int error;
	unsigned fail_times;
	unsigned fail_open_times;
} state = {.kept = LIST_INIT(state.kept)};

static void destroy(struct bdev *b)
{
	free(container_of(b, struct disk, bdev));
}

static int channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **out)
{
	if (state.fail_open_times) {
		state.fail_open_times--;
		return -EIO;
	}
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	return 0;
}

static void channel_close(struct bdev_channel *ch)
{
	struct list *pos;

	list_for_each (pos, &state.kept)
		if (list_entry(pos, struct bdev_io, node)->ch == ch)
			fuzz_fail("a channel was closed with requests in flight");
	free(ch);
}

/* Where there is no memory for it, the device is stopped, and the double counts that. */
static void transfer_by_bus(struct bdev_io *io, char *at)
{
	for (uint32_t i = 0; i < io->nr_pieces; at += io->pieces[i++].len) {
		void *page = double_bus_to_memory(io->pieces[i].bus, io->op == BDEV_READ);

		if (!page)
			io->result = -EIO;
		else if (io->op == BDEV_READ)
			memcpy(page, at, io->pieces[i].len);
		else
			memcpy(at, page, io->pieces[i].len);
	}
}

static void complete(struct bdev_io *io)
{
	struct disk *d = container_of(io->ch->bdev, struct disk, bdev);
	char *at = d->data + io->offset;

	io->result = 0;
	if (state.fail_times) {
		state.fail_times--;
		io->result = state.error;
	}
	if (io->op <= BDEV_WRITE && io->pieces && !io->result)
		transfer_by_bus(io, at);
	for (int i = 0; i < io->iovcnt && !io->result; i++) {
		if (io->op == BDEV_READ)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		else if (io->op == BDEV_WRITE)
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	io->done(io);
}

static void submit(struct bdev_channel *ch, struct bdev_io *io)
{
	if (!state.hold) {
		complete(io);
		return;
	}
	list_add_tail(&state.kept, &io->node);
	state.nr_kept++;
}

/* Pages for bouncing, which are reached by their address for the CPU: their others are made up. */
enum { WINDOW = 16384 };

static int grow(struct dma *dma, size_t pages, bool contiguous, struct err *err)
{
	for (size_t i = 0; i < pages; i++) {
		uint64_t bus = 0xfade00000000 + dma->pages * DMA_PAGE_SIZE;

		if (dma_add(dma, &bus, 1))
			return err_set(err, -ENOMEM, "no device memory is left");
	}
	return 0;
}

/* The same for all plays. */
static struct dma *device_memory(void)
{
	static const struct dma_ops ops = {.name = "fuzz", .grow = grow};
	static struct dma dma;

	if (!dma.base && dma_init(&dma, &ops,
				  mmap(NULL, (size_t)WINDOW * DMA_PAGE_SIZE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
				  WINDOW))
		fuzz_fail("out of memory");
	return &dma;
}

static json_t *config(const struct bdev *b, const char **method)
{
	*method = "bdev_fuzz_create";
	return json_pack("{s:s}", "name", b->name);
}

static const struct bdev_ops disk_ops = {
	.product = "fuzz",
	.destroy = destroy,
	.channel_open = channel_open,
	.channel_close = channel_close,
	.submit = submit,
	.config = config,
};

struct bdev *disk_create(const char *name, uint32_t block_size, bool readonly, bool dma)
{
	struct disk *d = calloc(1, sizeof(*d));
	struct err err;

	if (!d)
		fuzz_fail("out of memory");
	snprintf(d->bdev.name, sizeof(d->bdev.name), "%s", name);
	d->bdev.ops = &disk_ops;
	d->bdev.size = DISK_BYTES;
	d->bdev.readonly = readonly;
	d->bdev.dma = dma ? device_memory() : NULL;
	d->bdev.limits = (struct bdev_limits){
		.block_size = block_size,
		.physical_block_size = 4096,
		.mem_align = 1,
		.write_cache = true,
		.discard = true,
		.discard_max = 16 << 10,
		.discard_granularity = 4096,
		.secure_discard = true,
	};
	state.hold = false;
	state.fail_times = 0;
	state.fail_open_times = 0;
	if (bdev_register(&d->bdev, &err))
		fuzz_fail("no bdev: %s", err.text);
	return &d->bdev;
}

void disk_grow(const char *name, uint64_t more)
{
	struct bdev *b = bdev_find(name);

	more &= ~(uint64_t)(b->limits.block_size - 1);
	if (more && b->size + more <= DISK_BYTES_MAX)
		bdev_set_size(b, b->size + more);
}

void disk_hold(bool hold)
{
	state.hold = hold;
}

void disk_complete(unsigned n, bool reverse)
{
	while (n-- && !list_empty(&state.kept)) {
		struct list *node = reverse ? state.kept.prev : state.kept.next;

		list_del(node);
		state.nr_kept--;
		complete(list_entry(node, struct bdev_io, node));
	}
}

void disk_fail(int error, unsigned times)
{
	state.error = error;
	state.fail_times = times;
}

void disk_fail_open(unsigned times)
{
	state.fail_open_times = times;
}

unsigned disk_kept(void)
{
	return state.nr_kept;
}
