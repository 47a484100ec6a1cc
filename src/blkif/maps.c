/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/maps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024 };

#define EVICT_NS NSEC_PER_SEC

/* References are small numbers, given out one after the other. */
static struct blkif_map **bucket_of(struct blkif_maps *maps, uint32_t ref)
{
	return &maps->buckets[ref % BUCKETS];
}

int blkif_maps_init(struct blkif_maps *maps, struct share *share, uint32_t peer,
		    struct blkif_guest *guest)
{
	memset(maps, 0, sizeof(*maps));
	maps->entries = calloc(BLKIF_MAPS_MAX, sizeof(maps->entries[0]));
	maps->buckets = calloc(BUCKETS, sizeof(struct blkif_map *));
	if (!maps->entries || !maps->buckets) {
		free(maps->entries);
		free(maps->buckets);
		return -ENOMEM;
	}
	maps->share = share;
	maps->peer = peer;
	maps->guest = guest;
	list_init(&maps->free);
	list_init(&maps->unused);
	for (unsigned i = 0; i < BLKIF_MAPS_MAX; i++)
		list_add_tail(&maps->free, &maps->entries[i].node);
	return 0;
}

static void unmap(struct blkif_maps *maps, struct blkif_map *map)
{
	struct blkif_map **pos = bucket_of(maps, map->ref);

	while (*pos != map)
		pos = &(*pos)->next;
	*pos = map->next;
	maps->share->ops->unmap(maps->share, map->addr, 1);
	blkif_quota_put(&maps->guest->maps, 1);
	maps->mapped--;
	list_del(&map->node);
	list_add_head(&maps->free, &map->node);
}

void blkif_maps_fini(struct blkif_maps *maps)
{
	blkif_maps_expire(maps, UINT64_MAX);
	free(maps->entries);
	free(maps->buckets);
}

static struct blkif_map *find(struct blkif_maps *maps, uint32_t ref)
{
	struct blkif_map *map = *bucket_of(maps, ref);

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

	if (!list_empty(&maps->free) && blkif_quota_take(&maps->guest->maps, 1))
		return list_entry(list_pop(&maps->free), struct blkif_map, node);
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

struct blkif_map *blkif_maps_get(struct blkif_maps *maps, uint32_t ref, uint64_t now_ns)
{
	struct blkif_map *map = find(maps, ref);

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
	map->addr = maps->share->ops->map(maps->share, maps->peer, &ref, 1, true);
	if (!map->addr) {
		maps->retry_at_ns = now_ns + BLKIF_MAPS_RETRY_NS;
		blkif_quota_put(&maps->guest->maps, 1);
		list_add_head(&maps->free, &map->node);
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
	map->unused_since_ns = now_ns;
	list_add_tail(&maps->unused, &map->node);
}

void blkif_maps_expire(struct blkif_maps *maps, uint64_t since_ns)
{
	while (!list_empty(&maps->unused)) {
		struct blkif_map *map = list_entry(maps->unused.next, struct blkif_map, node);

		if (map->unused_since_ns >= since_ns)
			break;
		unmap(maps, map);
	}
}
