/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ram: a device in this process's memory; fast, and gone when the process is.
 *
 * The memory is one anonymous mapping, taken from the host page by page as guests write, with huge
 * pages where the kernel has them to give.  A discard gives pages back; a secure one overwrites
 * them first, so that what they held is gone now and not when the kernel hands them to somebody
 * else. Nothing is reserved, so guests could fill devices that are larger together than the host's
 * memory, and the kernel would end the daemon and with it every other guest's disks: such sizes are
 * refused.
 *
 * To grow, memory must stay where it is, for reactors are at work in it.  So each device reserves
 * addresses, and nothing but addresses, for as much as it may ever become: all of the host's
 * memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/copy.h"
#include "base/log.h"
#include "bdev/bdev.h"

/*
 * Bytes of one discard, a huge page. It runs on the reactor, and erasing and freeing this much in
 * small pages takes a few hundred microseconds at most.
 */
#define DISCARD_MAX (2u << 20)

/* Bytes; what is prefetched stays well below the first cache's size. */
enum { CACHE_LINE = 64, PREFETCH_MAX = 4096 };

/* Bytes of all ram bdevs; the control thread's. */
static uint64_t total;

struct bdev_ram {
	struct bdev bdev;
	char *data;
	uint64_t reserved; /* bytes of addresses from data on */
	size_t page;
};

static void ram_destroy(struct bdev *b)
{
	struct bdev_ram *ram = container_of(b, struct bdev_ram, bdev);

	munmap(ram->data, ram->reserved);
	total -= b->size;
	free(ram);
}

static int ram_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	*ch = calloc(1, sizeof(**ch));
	return *ch ? 0 : -ENOMEM;
}

static void ram_channel_close(struct bdev_channel *ch)
{
	free(ch);
}

/* Whole pages go back to the host; what remains of the first and the last is cleared. */
static void discard(struct bdev_ram *ram, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;
	uint64_t first = (offset + ram->page - 1) & ~(uint64_t)(ram->page - 1);
	uint64_t last = end & ~(uint64_t)(ram->page - 1);

	if (first >= last || madvise(ram->data + first, last - first, MADV_DONTNEED)) {
		memset(ram->data + offset, 0, len);
		return;
	}
	memset(ram->data + offset, 0, first - offset);
	memset(ram->data + last, 0, end - last);
}

static void ram_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct bdev_ram *ram = container_of(ch->bdev, struct bdev_ram, bdev);
	char *at = ram->data + io->offset;

	switch (io->op) {
	case BDEV_READ:
		for (int i = 0; i < io->iovcnt; at += io->iov[i++].iov_len)
			copy_bulk(io->iov[i].iov_base, at, io->iov[i].iov_len);
		break;
	case BDEV_WRITE:
		for (int i = 0; i < io->iovcnt; at += io->iov[i++].iov_len)
			copy_bulk(at, io->iov[i].iov_base, io->iov[i].iov_len);
		break;
	case BDEV_DISCARD:
		if (io->secure)
			explicit_bzero(at, io->len);
		discard(ram, io->offset, io->len);
		break;
	case BDEV_FLUSH:
	case BDEV_WRITE_ZEROES:
		break;
	}
	io->result = 0;
	io->done(io);
}

/*
 * The processor foresees where a copy goes on within a page, but not where the next one begins; of
 * small reads all over the device that is all there is to foresee.
 */
static void ram_prefetch(struct bdev_channel *ch, const struct bdev_io *io)
{
	struct bdev_ram *ram = container_of(ch->bdev, struct bdev_ram, bdev);
	uint64_t len = io->len < PREFETCH_MAX ? io->len : PREFETCH_MAX;
	uint64_t size = bdev_get_size(ch->bdev);

	/* Nobody's memory but this device's is fetched, whatever is asked for. */
	if (io->op != BDEV_READ || io->offset > size || len > size - io->offset)
		return;
	for (uint64_t at = 0; at < len; at += CACHE_LINE)
		__builtin_prefetch(ram->data + io->offset + at);
}

static uint64_t host_memory(const struct bdev_ram *ram)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * ram->page;
}

/* Whether @more bytes may be added to what ram bdevs have. */
static int check_fits(const struct bdev_ram *ram, uint64_t more, struct err *err)
{
	uint64_t host = host_memory(ram);

	if (more > host || total > host - more)
		return err_set(err, -ENOMEM,
			       "ram bdevs of %" PRIu64 " MiB do not fit this host's %" PRIu64
			       " MiB of memory: choose a smaller size, or a file with \"uring\"",
			       (total + more) >> 20, host >> 20);
	return 0;
}

/* Makes the first @size of the reserved bytes usable; those that were are not touched. */
static int open_memory(struct bdev_ram *ram, uint64_t size, struct err *err)
{
	if (mprotect(ram->data, size, PROT_READ | PROT_WRITE))
		return err_set(err, -ENOMEM,
			       "the kernel has no %" PRIu64 " MiB of memory to give: choose a "
			       "smaller size",
			       size >> 20);
	/* A crash dump or a child has no business with guests' data. */
	madvise(ram->data, size, MADV_DONTDUMP);
	madvise(ram->data, size, MADV_DONTFORK);
	if (madvise(ram->data, size, MADV_HUGEPAGE))
		log_debug("bdev \"%s\": no huge pages: %s", ram->bdev.name, strerror(errno));
	return 0;
}

static int ram_resize(struct bdev *b, uint64_t size, struct err *err)
{
	struct bdev_ram *ram = container_of(b, struct bdev_ram, bdev);
	uint64_t more = size - b->size;
	int rc = check_fits(ram, more, err);

	if (rc)
		return rc;
	if (size > ram->reserved)
		return err_set(err, -ENOMEM,
			       "bdev \"%s\" got addresses for %" PRIu64
			       " MiB when it was made: delete it and create it with its new size",
			       b->name, ram->reserved >> 20);
	rc = open_memory(ram, size, err);
	if (!rc)
		total += more;
	return rc;
}

static json_t *ram_config(const struct bdev *b, const char **method)
{
	*method = "bdev_malloc_create";
	return json_pack("{s:s, s:I, s:I}", "name", b->name, "num_blocks",
			 (json_int_t)(b->size / b->limits.block_size), "block_size",
			 (json_int_t)b->limits.block_size);
}

static const struct bdev_ops ram_ops = {
	.product = "ram",
	.destroy = ram_destroy,
	.channel_open = ram_channel_open,
	.channel_close = ram_channel_close,
	.submit = ram_submit,
	.prefetch = ram_prefetch,
	.resize = ram_resize,
	.config = ram_config,
};

static char *reserve(uint64_t size)
{
	return mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static int map_memory(struct bdev_ram *ram, uint64_t size, struct err *err)
{
	int rc = check_fits(ram, size, err);

	if (rc)
		return rc;
	ram->reserved = host_memory(ram);
	ram->data = reserve(ram->reserved);
	if (ram->data == MAP_FAILED) {
		/* Where addresses are rationed (RLIMIT_AS) it can do without growing. */
		ram->reserved = size;
		ram->data = reserve(size);
	}
	if (ram->data == MAP_FAILED)
		return err_set(err, -ENOMEM,
			       "the kernel has no addresses for %" PRIu64 " MiB: choose a smaller "
			       "size, or raise the limit of the daemon's address space",
			       size >> 20);
	rc = open_memory(ram, size, err);
	if (rc)
		munmap(ram->data, ram->reserved);
	else
		total += size;
	return rc;
}

int bdev_ram_create(const char *name, uint64_t size, uint32_t block_size, struct bdev **out,
		    struct err *err)
{
	struct bdev_ram *ram = calloc(1, sizeof(*ram));
	struct bdev *b;
	int rc;

	if (!ram)
		return err_set(err, -ENOMEM, "no memory left for a bdev");
	b = &ram->bdev;
	ram->page = (size_t)sysconf(_SC_PAGESIZE);
	rc = bdev_set_name(b, name, err);
	if (!rc)
		rc = bdev_check_shape(size, block_size, err);
	if (!rc)
		rc = map_memory(ram, size, err);
	if (rc) {
		free(ram);
		return rc;
	}
	b->ops = &ram_ops;
	b->size = size;
	b->limits.block_size = block_size;
	b->limits.physical_block_size = block_size;
	b->limits.mem_align = 1;
	b->limits.discard = true;
	b->limits.discard_max = DISCARD_MAX;
	b->limits.discard_granularity = (uint32_t)ram->page;
	b->limits.secure_discard = true;
	b->limits.volatile_data = true;
	rc = bdev_register(b, err);
	if (rc) {
		ram_destroy(b);
		return rc;
	}
	if (out)
		*out = b;
	return 0;
}
