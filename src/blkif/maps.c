/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/maps.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, CHUNK = 32 };

static_assert(BLKIF_MAPS_MAX % CHUNK == 0 && BLKIF_MAPS_TO_READ_MAX % CHUNK == 0, "whole chunks");

struct blkif_maps_chunk {
	struct blkif_maps_chunk *next;
	struct blkif_map entries[CHUNK];
};

#define EVICT_NS NSEC_PER_SEC

/* References are small numbers, given out one after the other. */
static struct blkif_map **bucket_of(struct blkif_maps *maps, uint32_t ref)
{
	return &maps->buckets[ref % BUCKETS];
}

void blkif_maps_init(struct blkif_maps *maps, struct share *share, uint32_t peer,
		     struct blkif_guest *guest, enum blkif_maps_for use)
{
	memset(maps, 0, sizeof(*maps));
	maps->share = share;
	maps->peer = peer;
	maps->guest = guest;
	maps->use = use;
	list_init(&maps->free);
	list_init(&maps->unused);
}

/* Has a free entry; false: the table is full, or there is no memory. */
static bool have_entry(struct blkif_maps *maps)
{
	unsigned max = maps->use == BLKIF_MAPS_TO_READ ? BLKIF_MAPS_TO_READ_MAX : BLKIF_MAPS_MAX;
	struct blkif_maps_chunk *chunk;

	if (!list_empty(&maps->free))
		return true;
	if (maps->nr_entries == max)
		return false;
	if (!maps->buckets)
		maps->buckets = calloc(BUCKETS, sizeof(struct blkif_map *));
	chunk = maps->buckets ? calloc(1, sizeof(*chunk)) : NULL;
	if (!chunk)
		return false;
	chunk->next = maps->chunks;
	maps->chunks = chunk;
	maps->nr_entries += CHUNK;
	for (unsigned i = 0; i < CHUNK; i++)
		list_add_tail(&maps->free, &chunk->entries[i].node);
	return true;
}

/* If nothing is mapped: then all entries are free. */
static void give_memory_back(struct blkif_maps *maps)
{
	if (maps->mapped)
		return;
	while (maps->chunks) {
		struct blkif_maps_chunk *chunk = maps->chunks;

		maps->chunks = chunk->next;
		free(chunk);
	}
	free(maps->buckets);
	maps->buckets = NULL;
	maps->nr_entries = 0;
	list_init(&maps->free);
}

/* A page that the last flush could not map. */
static bool is_bad(const struct blkif_maps *maps, const struct blkif_map *map)
{
	return maps->use == BLKIF_MAPS_FOR_DEVICES && map->piece.bus == DMA_NO_BUS;
}

/* The entry names no page any more, and is nobody's. */
static void drop(struct blkif_maps *maps, struct blkif_map *map)
{
	struct blkif_map **pos = bucket_of(maps, map->ref);

	while (*pos != map)
		pos = &(*pos)->next;
	*pos = map->next;
	blkif_quota_put(&maps->guest->maps, 1);
	maps->mapped--;
	list_add_head(&maps->free, &map->node);
}

static void unmap(struct blkif_maps *maps, struct blkif_map *map)
{
	if (maps->use == BLKIF_MAPS_FOR_DEVICES)
		maps->share->ops->dma_unmap(maps->share, &map->piece);
	else
		maps->share->ops->unmap(maps->share, map->addr, 1);
	list_del(&map->node);
	drop(maps, map);
}

void blkif_maps_fini(struct blkif_maps *maps)
{
	blkif_maps_expire(maps, UINT64_MAX);
}

static struct blkif_map *find(struct blkif_maps *maps, uint32_t ref)
{
	struct blkif_map *map = maps->buckets ? *bucket_of(maps, ref) : NULL;

	while (map && map->ref != ref)
		map = map->next;
	return map;
}

/*
 * An entry, and the guest's leave to use it: if need be that of the page unused for longest. One
 * that was used a moment ago stays: a guest that goes round more pages than it may have mapped
 * would have each unmapped just before it comes again.
 */
static struct blkif_map *take_entry(struct blkif_maps *maps, uint64_t now_ns)
{
	struct blkif_map *oldest;

	if (blkif_quota_take(&maps->guest->maps, 1)) {
		if (have_entry(maps))
			return list_entry(list_pop(&maps->free), struct blkif_map, node);
		blkif_quota_put(&maps->guest->maps, 1);
	}
	if (list_empty(&maps->unused))
		return NULL;
	oldest = list_entry(maps->unused.next, struct blkif_map, node);
	if (now_ns < oldest->unused_since_ns + EVICT_NS)
		return NULL;
	unmap(maps, oldest);
	if (!blkif_quota_take(&maps->guest->maps, 1))
		return NULL; /* another queue of the guest's was faster */
	return list_entry(list_pop(&maps->free), struct blkif_map, node);
}

/* Has the page mapped; false: it cannot be. One for devices only the flush will tell of. */
static bool map_page(struct blkif_maps *maps, struct blkif_map *map, uint32_t ref)
{
	const struct share_ops *ops = maps->share->ops;

	if (maps->use != BLKIF_MAPS_FOR_DEVICES) {
		map->addr = ops->map(maps->share, maps->peer, &ref, 1,
				     maps->use == BLKIF_MAPS_TO_WRITE);
		return map->addr;
	}
	map->piece = (struct dma_piece){0};
	ops->dma_map(maps->share, maps->peer, ref, true, &map->piece);
	return true;
}

struct blkif_map *blkif_maps_get(struct blkif_maps *maps, uint32_t ref, uint64_t now_ns)
{
	struct blkif_map *map = find(maps, ref);

	if (map && is_bad(maps, map))
		return NULL;
	if (map) {
		maps->hits++;
		if (!map->users++)
			list_del(&map->node);
		return map;
	}
	maps->misses++;
	if (now_ns < maps->retry_at_ns)
		return NULL;
	map = take_entry(maps, now_ns);
	if (!map)
		return NULL;
	if (!map_page(maps, map, ref)) {
		maps->retry_at_ns = now_ns + BLKIF_MAPS_RETRY_NS;
		blkif_quota_put(&maps->guest->maps, 1);
		list_add_head(&maps->free, &map->node);
		give_memory_back(maps);
		return NULL;
	}
	maps->mapped++;
	map->ref = ref;
	map->users = 1;
	map->next = *bucket_of(maps, ref);
	*bucket_of(maps, ref) = map;
	return map;
}

void blkif_maps_put(struct blkif_maps *maps, struct blkif_map *map, uint64_t now_ns)
{
	if (--map->users)
		return;
	if (is_bad(maps, map)) {
		maps->retry_at_ns = now_ns + BLKIF_MAPS_RETRY_NS;
		drop(maps, map);
		give_memory_back(maps);
		return;
	}
	map->unused_since_ns = now_ns;
	list_add_tail(&maps->unused, &map->node);
}

void blkif_maps_expire(struct blkif_maps *maps, uint64_t since_ns)
{
	bool any = false;

	while (!list_empty(&maps->unused)) {
		struct blkif_map *map = list_entry(maps->unused.next, struct blkif_map, node);

		if (map->unused_since_ns >= since_ns)
			break;
		unmap(maps, map);
		any = true;
	}
	if (any && maps->use == BLKIF_MAPS_FOR_DEVICES)
		maps->share->ops->flush(maps->share);
	give_memory_back(maps);
}
