/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/data.h"

#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "blkif/io.h"

static struct share *share_of(const struct blkif_io *io)
{
	return blkif_engine_share(io->queue->opts.engine);
}

static uint64_t now_of(const struct blkif_io *io)
{
	return blkif_engine_now(io->queue->opts.engine);
}

static uint32_t segment_offset(const struct blkif_wire_segment *seg)
{
	return seg->first_sect * (uint32_t)BLKIF_SECTOR_SIZE;
}

static uint32_t segment_len(const struct blkif_wire_segment *seg)
{
	return (seg->last_sect - seg->first_sect + 1u) * BLKIF_SECTOR_SIZE;
}

/* Copying */

/* Copied once, and judged as a copy. */
static void read_once(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	atomic_signal_fence(memory_order_seq_cst);
}

static uint16_t indirect_len(const struct blkif_io *io)
{
	return (uint16_t)(io->req.nr_segments * sizeof(struct blkif_wire_segment));
}

static bool read_in_window(struct blkif_io *io)
{
	struct share *share = share_of(io);
	const struct share_window *window = share->ops->window(share, io->queue->opts.peer);
	size_t at;

	if (!share_window_find(window, io->req.indirect_gref, &at))
		return false;
	read_once(io->segments, window->base + at, indirect_len(io));
	return true;
}

/* A frontend that grants persistently does so with its indirect pages, too. */
static bool read_kept(struct blkif_io *io)
{
	struct blkif_maps *lists = &io->queue->lists;
	struct blkif_map *map = blkif_maps_get(lists, io->req.indirect_gref, now_of(io));

	if (!map)
		return false;
	read_once(io->segments, map->addr, indirect_len(io));
	blkif_maps_put(lists, map, now_of(io));
	return true;
}

bool blkif_data_read_indirect(struct blkif_io *io)
{
	switch (io->queue->opts.sharing) {
	case BLKIF_SHARE_DIRECT:
	case BLKIF_SHARE_DIRECT_DMA:
		return read_in_window(io);
	case BLKIF_SHARE_PERSISTENT:
	case BLKIF_SHARE_DMA_PERSISTENT:
		return read_kept(io);
	default:
		return false;
	}
}

/* The bus address of bounce pages; anonymous ones have none, which is 0. */
static uint64_t bus_of(const struct blkif_io *io, const void *local)
{
	const struct dma *dma = io->queue->opts.bdev->dma;
	uint64_t bus = dma ? dma_translate(dma, local) : DMA_NO_BUS;

	return bus == DMA_NO_BUS ? 0 : bus;
}

void blkif_data_fetch(struct blkif_io *io)
{
	struct share_piece piece = {
		.peer = io->queue->opts.peer,
		.ref = io->req.indirect_gref,
		.len = indirect_len(io),
		.local = io->segments,
		.bus = bus_of(io, io->segments),
		.status = &io->share_status,
	};
	struct share *share = share_of(io);

	share->ops->copy_in(share, &piece);
}

void blkif_data_copy(struct blkif_io *io,
		     void (*add)(struct share *s, const struct share_piece *piece))
{
	struct share_piece piece = {
		.peer = io->queue->opts.peer,
		.status = &io->share_status,
	};
	struct share *share = share_of(io);
	uint32_t done = 0;

	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];
		uint32_t left = segment_len(seg);

		piece.ref = seg->gref;
		piece.offset = (uint16_t)segment_offset(seg);
		while (left) {
			uint32_t at = done % PAGE_POOL_PAGE_SIZE;
			uint32_t len =
				PAGE_POOL_PAGE_SIZE - at < left ? PAGE_POOL_PAGE_SIZE - at : left;

			piece.local = (char *)io->pages[done / PAGE_POOL_PAGE_SIZE] + at;
			piece.bus = bus_of(io, piece.local);
			piece.len = (uint16_t)len;
			add(share, &piece);
			piece.offset = (uint16_t)(piece.offset + len);
			done += len;
			left -= len;
		}
	}
}

/* One more stretch of memory for the device, joined with the last if it follows that. */
static int add_stretch(struct iovec *iov, int n, void *base, size_t len)
{
	struct iovec *last = n ? &iov[n - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == base) {
		last->iov_len += len;
		return n;
	}
	iov[n] = (struct iovec){.iov_base = base, .iov_len = len};
	return n + 1;
}

/* Pages that follow each other make one piece. */
void blkif_data_describe(struct blkif_io *io)
{
	uint32_t left = io->bytes;
	int n = 0;

	for (unsigned i = 0; left; i++) {
		uint32_t len = left < PAGE_POOL_PAGE_SIZE ? left : PAGE_POOL_PAGE_SIZE;

		n = add_stretch(io->iov, n, io->pages[i], len);
		left -= len;
	}
	io->bio.iov = io->iov;
	io->bio.iovcnt = n;
}

/* Mapping for the CPU */

static bool is_aligned(const struct bdev_limits *limits, const struct blkif_wire_segment *seg)
{
	return !(segment_offset(seg) & (limits->mem_align - 1));
}

/* Whether the device takes the segments as they lie in the guest's pages. */
static bool can_map(const struct blkif_io *io)
{
	const struct bdev_limits *limits = &io->queue->opts.bdev->limits;

	if (limits->max_iov && io->req.nr_segments > limits->max_iov)
		return false;
	for (unsigned i = 0; i < io->req.nr_segments; i++)
		if (!is_aligned(limits, &io->segments[i]))
			return false;
	return true;
}

/* After a failure nothing is mapped for a while. Only then the time is of interest. */
static bool is_discouraged(const struct blkif_io *io)
{
	uint64_t retry_at_ns = io->queue->map_retry_at_ns;

	return retry_at_ns && now_of(io) < retry_at_ns;
}

static void discourage(const struct blkif_io *io)
{
	io->queue->map_retry_at_ns = now_of(io) + BLKIF_MAPS_RETRY_NS;
}

static bool map_for_now(struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	uint32_t refs[BLKIF_MAX_SEGMENTS];
	unsigned i = 0, nr = io->req.nr_segments;
	struct share *share = share_of(io);

	if (is_discouraged(io) || !blkif_quota_take(&q->opts.guest->maps, nr))
		return false;
	do /* there is at least one */
		refs[i] = io->segments[i].gref;
	while (++i < nr);
	io->pages[0] =
		share->ops->map(share, q->opts.peer, refs, nr, io->req.kind == BLKIF_KIND_READ);
	if (!io->pages[0]) {
		discourage(io);
		blkif_quota_put(&q->opts.guest->maps, nr);
		return false;
	}
	io->way = BLKIF_MAPPED;
	io->nr_pages = (uint16_t)nr;
	return true;
}

static bool map_to_stay(struct blkif_io *io)
{
	uint64_t now_ns = now_of(io);

	io->way = BLKIF_PERSISTENT;
	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		struct blkif_map *map =
			blkif_maps_get(&io->queue->maps, io->segments[i].gref, now_ns);

		if (!map) {
			blkif_data_unmap(io);
			return false;
		}
		io->pages[io->nr_pages++] = map;
	}
	return true;
}

static bool map_for_cpu(struct blkif_io *io)
{
	int n = 0;

	if (!can_map(io))
		return false;
	if (io->queue->opts.sharing == BLKIF_SHARE_MAP ? !map_for_now(io) : !map_to_stay(io))
		return false;
	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];
		char *page = io->way == BLKIF_MAPPED
				     ? (char *)io->pages[0] + (size_t)i * BLKIF_PAGE_SIZE
				     : ((struct blkif_map *)io->pages[i])->addr;

		n = add_stretch(io->iov, n, page + segment_offset(seg), segment_len(seg));
	}
	io->bio.iov = io->iov;
	io->bio.iovcnt = n;
	return true;
}

/* Mapping for devices */

bool blkif_data_is_dma(const struct blkif_io *io)
{
	return io->way == BLKIF_DMA || io->way == BLKIF_DMA_PERSISTENT;
}

/*
 * Where each segment lies within its page is all that has to be known of an address to say whether
 * the device takes it.
 */
static bool prepare_for_devices(struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	unsigned nr = io->req.nr_segments;

	if (io->bytes < q->opts.dma_from_bytes)
		return false;
	for (unsigned i = 0; i < nr; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];

		io->dma[i] = (struct dma_piece){
			.bus = segment_offset(seg),
			.len = segment_len(seg),
		};
	}
	io->bio.pieces = io->dma;
	io->bio.nr_pieces = nr;
	if (!bdev_takes_pieces(q->opts.bdev, &io->bio))
		goto copy;
	if (q->opts.sharing == BLKIF_SHARE_DMA_PERSISTENT) {
		io->way = BLKIF_DMA_PERSISTENT;
		return true;
	}
	if (is_discouraged(io) || !blkif_quota_take(&q->opts.guest->maps, nr))
		goto copy;
	io->way = BLKIF_DMA;
	io->nr_pages = (uint16_t)nr;
	return true;
copy:
	io->bio.pieces = NULL;
	io->bio.nr_pieces = 0;
	return false;
}

/* Nothing to map: the guest's pages are always there */

static bool reach_for_cpu(struct blkif_io *io)
{
	struct share *share = share_of(io);
	const struct share_window *window = share->ops->window(share, io->queue->opts.peer);
	const struct bdev_limits *limits = &io->queue->opts.bdev->limits;
	int n = 0;

	if (limits->max_iov && io->req.nr_segments > limits->max_iov)
		return false;
	for (unsigned i = 0; i < io->req.nr_segments; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];
		size_t at;

		if (!share_window_find(window, seg->gref, &at) || !is_aligned(limits, seg))
			return false;
		n = add_stretch(io->iov, n, window->base + at + segment_offset(seg),
				segment_len(seg));
	}
	io->way = BLKIF_DIRECT;
	io->bio.iov = io->iov;
	io->bio.iovcnt = n;
	return true;
}

static bool reach_for_devices(struct blkif_io *io)
{
	struct share *share = share_of(io);
	const struct share_window *window = share->ops->window(share, io->queue->opts.peer);
	unsigned nr = io->req.nr_segments;

	if (window->bus == DMA_NO_BUS)
		return false;
	for (unsigned i = 0; i < nr; i++) {
		const struct blkif_wire_segment *seg = &io->segments[i];
		size_t at;

		if (!share_window_find(window, seg->gref, &at))
			return false;
		io->dma[i] = (struct dma_piece){
			.bus = window->bus + at + segment_offset(seg),
			.len = segment_len(seg),
		};
	}
	io->bio.pieces = io->dma;
	io->bio.nr_pieces = nr;
	if (!bdev_takes_pieces(io->queue->opts.bdev, &io->bio)) {
		io->bio.pieces = NULL;
		io->bio.nr_pieces = 0;
		return false;
	}
	io->way = BLKIF_DIRECT_DMA;
	return true;
}

bool blkif_data_map(struct blkif_io *io)
{
	switch (io->queue->opts.sharing) {
	case BLKIF_SHARE_COPY:
		break;
	case BLKIF_SHARE_MAP:
	case BLKIF_SHARE_PERSISTENT:
		return map_for_cpu(io);
	case BLKIF_SHARE_DMA:
	case BLKIF_SHARE_DMA_PERSISTENT:
		return prepare_for_devices(io);
	case BLKIF_SHARE_DIRECT:
		return reach_for_cpu(io);
	case BLKIF_SHARE_DIRECT_DMA:
		return reach_for_devices(io);
	}
	return false;
}

void blkif_data_add_maps(struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	struct share *share = share_of(io);
	struct blkif_map *map;

	if (io->way == BLKIF_DMA) {
		for (unsigned i = 0; i < io->nr_pages; i++)
			share->ops->dma_map(share, q->opts.peer, io->segments[i].gref,
					    io->req.kind == BLKIF_KIND_READ, &io->dma[i]);
		return;
	}
	while (io->nr_pages < io->req.nr_segments) {
		map = blkif_maps_get(&q->maps, io->segments[io->nr_pages].gref, now_of(io));
		if (!map)
			return;
		io->pages[io->nr_pages++] = map;
	}
}

/* Fills in the addresses, for which pieces have only their places within a page. */
bool blkif_data_take_maps(struct blkif_io *io)
{
	bool good = io->nr_pages == io->req.nr_segments;

	for (unsigned i = 0; i < io->nr_pages; i++) {
		struct dma_piece *piece = &io->dma[i];

		if (io->way == BLKIF_DMA_PERSISTENT)
			piece->bus = ((struct blkif_map *)io->pages[i])->piece.bus;
		if (piece->bus == DMA_NO_BUS)
			good = false;
		else
			piece->bus += segment_offset(&io->segments[i]);
	}
	if (!good && io->way == BLKIF_DMA)
		discourage(io);
	return good;
}

static void unmap_for_devices(struct blkif_io *io)
{
	struct share *share = share_of(io);

	for (unsigned i = 0; i < io->nr_pages; i++)
		if (io->dma[i].bus != DMA_NO_BUS)
			share->ops->dma_unmap(share, &io->dma[i]);
}

void blkif_data_unmap(struct blkif_io *io)
{
	struct blkif_queue *q = io->queue;
	struct share *share = share_of(io);

	if (!io->nr_pages)
		return;
	switch (io->way) {
	case BLKIF_COPIED:
	case BLKIF_DIRECT:
	case BLKIF_DIRECT_DMA:
		return;
	case BLKIF_MAPPED:
		share->ops->unmap(share, io->pages[0], io->nr_pages);
		blkif_quota_put(&q->opts.guest->maps, io->nr_pages);
		break;
	case BLKIF_DMA:
		unmap_for_devices(io);
		blkif_quota_put(&q->opts.guest->maps, io->nr_pages);
		break;
	case BLKIF_PERSISTENT:
	case BLKIF_DMA_PERSISTENT:
		for (unsigned i = 0; i < io->nr_pages; i++)
			blkif_maps_put(&q->maps, io->pages[i], now_of(io));
		break;
	}
	io->nr_pages = 0;
}
