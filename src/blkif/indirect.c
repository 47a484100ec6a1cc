/* SPDX-License-Identifier: BSD-2-Clause */
#include "blkif/indirect.h"

#include <stdlib.h>

#include "blkif/maps.h"

#define EVICT_NS NSEC_PER_SEC

void blkif_indirect_init(struct blkif_indirect *in, struct share *share, uint32_t peer,
			 struct blkif_guest *guest)
{
	*in = (struct blkif_indirect){.share = share, .peer = peer, .guest = guest};
}

static void unmap(struct blkif_indirect *in, struct blkif_indirect_page *page)
{
	in->share->ops->unmap(in->share, (void *)page->addr, 1);
	page->addr = NULL;
	page->used_ns = 0;
	in->mapped--;
	blkif_quota_put(&in->guest->maps, 1);
}

/* If nothing is mapped. */
static void give_memory_back(struct blkif_indirect *in)
{
	if (in->mapped)
		return;
	free(in->pages);
	in->pages = NULL;
}

void blkif_indirect_expire(struct blkif_indirect *in, uint64_t since_ns)
{
	for (unsigned i = 0; in->mapped && i < BLKIF_INDIRECT_PLACES; i++)
		if (in->pages[i].addr && in->pages[i].used_ns < since_ns)
			unmap(in, &in->pages[i]);
	give_memory_back(in);
}

void blkif_indirect_fini(struct blkif_indirect *in)
{
	blkif_indirect_expire(in, UINT64_MAX);
}

/* The place of @ref in its set, or the one that it may have: that unused for longest, or free. */
static struct blkif_indirect_page *find(const struct blkif_indirect *in, uint32_t ref)
{
	struct blkif_indirect_page *set =
		&in->pages[ref % BLKIF_INDIRECT_SETS * BLKIF_INDIRECT_WAYS];
	struct blkif_indirect_page *page = set;

	for (unsigned i = 0; i < BLKIF_INDIRECT_WAYS; i++) {
		if (set[i].addr && set[i].ref == ref)
			return &set[i];
		if (set[i].used_ns < page->used_ns)
			page = &set[i];
	}
	return page;
}

/* In the place of what is there, if need be. */
static void map(struct blkif_indirect *in, struct blkif_indirect_page *page, uint32_t ref)
{
	if (page->addr)
		unmap(in, page);
	if (!blkif_quota_take(&in->guest->maps, 1))
		return;
	page->addr = in->share->ops->map(in->share, in->peer, &ref, 1, false);
	if (!page->addr) {
		blkif_quota_put(&in->guest->maps, 1);
		return;
	}
	page->ref = ref;
	in->mapped++;
}

const void *blkif_indirect_get(struct blkif_indirect *in, uint32_t ref, uint64_t now_ns)
{
	struct blkif_indirect_page *page;

	if (!in->pages && now_ns >= in->retry_at_ns)
		in->pages = calloc(BLKIF_INDIRECT_PLACES, sizeof(in->pages[0]));
	if (!in->pages)
		return NULL;
	page = find(in, ref);
	if (!page->addr || page->ref != ref) {
		if (now_ns < in->retry_at_ns || (page->addr && now_ns < page->used_ns + EVICT_NS))
			return NULL;
		map(in, page, ref);
	}
	if (!page->addr) {
		in->retry_at_ns = now_ns + BLKIF_MAPS_RETRY_NS;
		give_memory_back(in);
		return NULL;
	}
	page->used_ns = now_ns;
	return page->addr;
}
