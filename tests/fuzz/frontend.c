/* SPDX-License-Identifier: BSD-2-Clause */
/* What the guest does: its keys in xenstore, its requests, its memory. */
#include "stage.h"

#include <stdio.h>
#include <string.h>

#include "disk.h"
#include "double.h"

static struct xs_handle *xs_of(const struct guest_disk *d)
{
	return d->domid == NEXT ? stage.next_xs : stage.guest_xs;
}

static struct memory *memory_of(const struct ring *r)
{
	return r->domid == NEXT ? &stage.next_memory : &stage.memory;
}

/* Xenstore */

static void write_key(struct xs_handle *xs, const char *dir, const char *key, const void *value,
		      size_t len)
{
	char path[256];

	/* It may be refused, as anybody's writes may be. */
	snprintf(path, sizeof(path), "%s/%s", dir, key);
	xs_write(xs, XBT_NULL, path, value, (unsigned)len);
}

static void write_number(struct guest_disk *d, const char *key, uint32_t n)
{
	char text[16];

	write_key(xs_of(d), d->keys.front, key, text,
		  (size_t)snprintf(text, sizeof(text), "%u", n));
}

static void write_queue_number(struct guest_disk *d, unsigned queue, const char *key, uint32_t n)
{
	char path[64];

	if (d->nr_queues == 1)
		snprintf(path, sizeof(path), "%s", key);
	else
		snprintf(path, sizeof(path), "queue-%u/%s", queue, key);
	write_number(d, path, n);
}

/* New rings and all their keys, as a proper frontend has it. */
void act_publish(const struct fuzz_record *rec)
{
	static const uint32_t firsts[] = {0, 0xfffffff0, 0x7ffffffe, 5};
	struct guest_disk *d = disk_of(rec);
	const struct blkif_layout *layout =
		rec->what & 1 ? &blkif_layout_x86_32 : &blkif_layout_x86_64;
	unsigned order = (rec->what >> 1) % 3;
	char key[16];

	if (!stage_is_alive(d) || !d->keys.front[0])
		return;
	d->nr_queues = 1 + (rec->what >> 3) % QUEUES;
	for (unsigned q = 0; q < d->nr_queues; q++) {
		struct ring *r = &d->rings[q];

		ring_make(r, d->domid, layout, 1u << order, firsts[rec->v[0] & 3]);
		for (unsigned i = 0; i < r->nr_pages; i++) {
			snprintf(key, sizeof(key), order ? "ring-ref%u" : "ring-ref", i);
			write_queue_number(d, q, key, r->refs[i]);
		}
		write_queue_number(d, q, "event-channel", r->port);
	}
	if (order)
		write_number(d, "ring-page-order", order);
	if (d->nr_queues > 1)
		write_number(d, "multi-queue-num-queues", d->nr_queues);
	write_key(xs_of(d), d->keys.front, "protocol", layout->protocol, strlen(layout->protocol));
	write_number(d, "feature-persistent", rec->what >> 5 & 1);
	/* What an earlier publication left may still say otherwise. */
	d->meddled = false;
	for (unsigned i = 0; i < 2; i++) {
		static const char *const optional[] = {"ring-page-order", "multi-queue-num-queues"};
		char path[256];

		if (i == 0 ? order : d->nr_queues > 1)
			continue;
		snprintf(path, sizeof(path), "%s/%s", d->keys.front, optional[i]);
		xs_rm(xs_of(d), XBT_NULL, path);
	}
	write_number(d, "state", rec->what & 0x80 ? 4 : 3);
}

/* Writes (or removes) one key of a directory, to something that it may not expect. */
static void meddle(const struct fuzz_record *rec, struct xs_handle *xs, const char *dir,
		   const char *const *keys, unsigned nr_keys)
{
	static const char *const values[] = {"",
					     "0",
					     "1",
					     "4294967295",
					     "4294967296",
					     "18446744073709551616",
					     "-1",
					     " 1",
					     "1 ",
					     "0x10",
					     "99999999999999999999999999",
					     "x",
					     "\n",
					     "x86_32-abi",
					     "x86_64-abi",
					     "arm-abi",
					     "r",
					     "w",
					     "disk,shared",
					     "disk@other",
					     "other,,",
					     "disk,sharing=map",
					     "disk,on-error=stop",
					     "disk,iops=3",
					     "disk,bandwidth=4K",
					     "disk,on-error=retry:1",
					     "disk,sharing=copy",
					     "nothing",
					     "connected",
					     "ready",
					     "/etc/xen/scripts/block-sluice",
					     "sluice",
					     "cdrom",
					     "/local/domain/5/device/vbd/51712",
					     "/local/domain/0/backend/vbd/5/51712",
					     "../.."};
	const char *key = keys[rec->what % nr_keys];
	uint32_t n = number_of(rec);
	char path[256], text[16];

	if (!dir[0])
		return;
	switch (rec->target >> 4 & 3) {
	case 0:
		write_key(xs, dir, key, text, (size_t)snprintf(text, sizeof(text), "%u", n));
		return;
	case 1:
		write_key(xs, dir, key, rec->v, sizeof(rec->v));
		return;
	case 2:
		n %= sizeof(values) / sizeof(values[0]);
		write_key(xs, dir, key, values[n], strlen(values[n]));
		return;
	default:
		snprintf(path, sizeof(path), "%s%s%s", dir, key[0] ? "/" : "", key);
		xs_rm(xs, XBT_NULL, path);
		return;
	}
}

void act_write_frontend_key(const struct fuzz_record *rec)
{
	static const char *const keys[] = {"state",
					   "ring-ref",
					   "ring-ref0",
					   "ring-ref1",
					   "ring-page-order",
					   "num-ring-pages",
					   "event-channel",
					   "protocol",
					   "multi-queue-num-queues",
					   "queue-0/ring-ref",
					   "queue-1/ring-ref",
					   "queue-1/event-channel",
					   "queue-1/ring-ref0",
					   "queue-2/ring-ref",
					   "feature-persistent",
					   "queue-0",
					   "feature-large-sector-size",
					   ""};

	stage_mar_rings(disk_of(rec));
	meddle(rec, xs_of(disk_of(rec)), disk_of(rec)->keys.front, keys,
	       sizeof(keys) / sizeof(keys[0]));
}

void act_write_backend_key(const struct fuzz_record *rec)
{
	static const char *const keys[] = {"state",
					   "online",
					   "params",
					   "mode",
					   "script",
					   "sluice",
					   "hotplug-status",
					   "frontend",
					   "frontend-id",
					   "discard-enable",
					   "removable",
					   "device-type",
					   "sluice-status",
					   "sluice-clean",
					   "sluice-paused",
					   "sluice-error",
					   "sectors",
					   "direct-io-safe",
					   ""};

	disk_of(rec)->meddled = true;
	meddle(rec, stage.host.xs, disk_of(rec)->keys.back, keys, sizeof(keys) / sizeof(keys[0]));
}

void act_set_frontend_state(const struct fuzz_record *rec)
{
	if (disk_of(rec)->keys.front[0])
		write_number(disk_of(rec), "state", rec->what % 10);
}

/* Requests */

static uint64_t sector_of(const struct fuzz_record *rec)
{
	static const uint64_t edges[] = {
		DISK_BYTES / 512, DISK_BYTES / 512 - 1, DISK_BYTES / 512 - 8,  UINT64_MAX,
		UINT64_MAX - 7,   1ULL << 55,           (UINT64_MAX >> 9) - 1, 1ULL << 32,
	};

	return rec->v[3] & 0x80 ? edges[rec->v[2] % 8] : (uint64_t)(rec->v[3] & 1) << 8 | rec->v[2];
}

static void fill_segments(struct ring *r, struct blkif_wire_segment *segs, unsigned n,
			  uint8_t pattern)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned pick = pattern + i * 7;
		bool own_ring = (pattern & 0xe0) == 0xe0 && i == 3;

		segs[i].gref = memory_of(r)->refs[pattern & 0x40 ? pick % PAGES : pick % 8];
		/* The frontend's fault if its ring is written to. */
		if (own_ring) {
			segs[i].gref = r->refs[0];
			r->marred = true;
		}
		segs[i].first_sect = pattern & 0x10 ? pick % 4 : 0;
		segs[i].last_sect = pattern & 0x10 ? 4 + pick % 4 : 7;
		if ((pattern & 0xa0) == 0xa0)
			segs[i].last_sect = (uint8_t)pick;
		segs[i].pad = (uint16_t)pick;
	}
}

void act_put_direct(const struct fuzz_record *rec)
{
	static const uint8_t operations[] = {BLKIF_READ,          BLKIF_WRITE,
					     BLKIF_WRITE_BARRIER, BLKIF_FLUSH_DISKCACHE,
					     BLKIF_READ,          BLKIF_WRITE};
	struct ring *r = ring_of(rec);
	uint8_t operation = rec->what < 0xc0 ? operations[rec->what % 6] : rec->what;
	uint64_t id = ++stage.last_id, sector = sector_of(rec);
	struct blkif_wire_segment segs[BLKIF_MAX_DIRECT_SEGMENTS];
	uint8_t *slot;

	slot = ring_next(r, id, operation);
	if (!slot)
		return;
	fill_segments(r, segs, BLKIF_MAX_DIRECT_SEGMENTS, rec->v[1]);
	slot[BLKIF_REQ_OPERATION] = operation;
	slot[BLKIF_REQ_NR_SEGMENTS] = rec->v[0] & 0x80 ? rec->v[0] : rec->v[0] % 12;
	memcpy(slot + r->layout->id, &id, sizeof(id));
	memcpy(slot + r->layout->sector, &sector, sizeof(sector));
	memcpy(slot + r->layout->segments, segs, sizeof(segs));
}

void act_put_indirect(const struct fuzz_record *rec)
{
	struct ring *r = ring_of(rec);
	uint8_t inner = rec->what & 0x80 ? rec->what : rec->what & 1;
	uint64_t id = ++stage.last_id, sector = sector_of(rec);
	unsigned page = (rec->what >> 1) % PAGES;
	uint16_t n = (uint16_t)(rec->v[0] * (rec->what & 0x40 ? 3 : 1));
	uint8_t *slot;

	slot = ring_next(r, id, inner);
	if (!slot)
		return;
	/* Only pages that may change are written; of others the guest sends what they hold. */
	if (stage_page_kind(page) == PAGE_GRANTED)
		fill_segments(
			r, (void *)(memory_of(r)->pages + (size_t)page * PAGE),
			n < BLKIF_SEGMENTS_PER_INDIRECT_PAGE ? n : BLKIF_SEGMENTS_PER_INDIRECT_PAGE,
			rec->v[1]);
	slot[BLKIF_REQ_OPERATION] = BLKIF_INDIRECT;
	slot[BLKIF_REQ_INDIRECT_OPERATION] = inner;
	memcpy(slot + BLKIF_REQ_INDIRECT_NR_SEGMENTS, &n, sizeof(n));
	memcpy(slot + r->layout->id, &id, sizeof(id));
	memcpy(slot + r->layout->sector, &sector, sizeof(sector));
	for (unsigned i = 0; i < BLKIF_MAX_INDIRECT_PAGES; i++)
		memcpy(slot + r->layout->indirect_grefs + 4 * i,
		       &memory_of(r)->refs[(page + i) % PAGES], sizeof(uint32_t));
}

void act_put_discard(const struct fuzz_record *rec)
{
	static const uint64_t counts[] = {1, 8, 64, 0, DISK_BYTES / 512, UINT64_MAX, 1ULL << 55, 7};
	struct ring *r = ring_of(rec);
	uint64_t id = ++stage.last_id, sector = sector_of(rec), count = counts[rec->v[0] & 7];
	uint8_t *slot = ring_next(r, id, BLKIF_DISCARD);

	if (!slot)
		return;
	slot[BLKIF_REQ_OPERATION] = BLKIF_DISCARD;
	slot[BLKIF_REQ_DISCARD_FLAG] = rec->what;
	memcpy(slot + r->layout->id, &id, sizeof(id));
	memcpy(slot + r->layout->sector, &sector, sizeof(sector));
	memcpy(slot + r->layout->discard_sectors, &count, sizeof(count));
}

void act_push(const struct fuzz_record *rec)
{
	struct ring *r = ring_of(rec);
	uint32_t n = number_of(rec);

	if (rec->what < 0xc0) {
		ring_push(r, rec->what & 1);
		return;
	}
	/* A counter that lies. */
	if (r->pages && rec->what & 1)
		n += r->pushed;
	ring_overwrite(r, offsetof(struct blkif_sring, req_prod), &n, sizeof(n));
	ring_notify(r);
}

void act_notify(const struct fuzz_record *rec)
{
	for (unsigned i = 0; i <= rec->what % 64; i++) {
		ring_notify(ring_of(rec));
		if (rec->what & 0x80)
			stage_step();
	}
}

void act_overwrite(const struct fuzz_record *rec)
{
	ring_overwrite(ring_of(rec), (unsigned)(rec->what << 4 | rec->target >> 4), rec->v,
		       sizeof(rec->v));
}

static void spring_trap(void *arg, unsigned domid, uint32_t ref)
{
	struct ring *r = stage.trap;

	stage.trap = NULL;
	if (r)
		ring_overwrite(r, stage.trap_offset, stage.trap_bytes, sizeof(stage.trap_bytes));
}

void act_set_trap(const struct fuzz_record *rec)
{
	stage.trap = ring_of(rec);
	stage.trap_offset = (unsigned)(rec->what << 4 | rec->target >> 4);
	memcpy(stage.trap_bytes, rec->v, sizeof(rec->v));
	double_on_copy(spring_trap, NULL);
}

void act_want_notification(const struct fuzz_record *rec)
{
	struct ring *r = ring_of(rec);

	if (r->pages)
		ring_shared(r)->rsp_event = rec->what & 1 ? number_of(rec) : r->seen + rec->v[0];
}

void act_change_grant(const struct fuzz_record *rec)
{
	unsigned page = rec->v[0] % 10; /* what is not granted stays so */
	uint32_t *ref = &stage.memory.refs[page];

	if (!stage.alive)
		return;
	stage.touched[page] = true;
	if (*ref < NO_GRANT)
		double_revoke_by_force(GUEST, *ref);
	*ref = NO_GRANT + page;
	if (rec->what & 1)
		*ref = double_grant(GUEST, stage.memory.pages + (size_t)page * PAGE,
				    rec->what & 4 ? 7 : 0, rec->what & 2);
}
