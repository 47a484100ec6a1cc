/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fuzz target: Sluice's whole Xen side (src/xen, src/blkif, src/grant) against a guest, a
 * toolstack and an administrator who do whatever the input says.
 *
 * An input is a play: a header that sets the stage, then records of one action each: a key is
 * written, a request is put into a ring, memory is overwritten, the device keeps or fails what it
 * has, the domain dies, time passes.  After each action the record says who gets turns: reactors
 * are stepped by hand on one thread, so the order of events is the input's too, and an input that
 * fails once fails always.
 *
 * What must hold, whatever the play: no memory error (the sanitizers' part); no response that
 * nobody asked for; pages that were not granted, or only for reading, stay as they are; nobody is
 * busy for ever.  And after it, when nothing is held back any more: all that was asked in a proper
 * ring is answered, nothing is in flight, and a drain leaves nothing behind.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk.h"
#include "double.h"
#include "fuzz.h"
#include "host.h"
#include "rings.h"
#include "xen/backend.h"

enum {
	GUEST = 5,
	NEXT = 6,  /* the domain that the guest's machine moves to */
	DISKS = 3, /* the last is the next domain's */
	QUEUES = 3,
	REACTORS = 2,
	DEVID = 51712,
	PAGES = 12,
	PAGE = BLKIF_PAGE_SIZE,
	NO_GRANT = 4000,   /* there are no such references */
	FAULTS_MAX = 12,   /* the double has room for a few more */
	ROUNDS_MAX = 4000, /* turns after which somebody who is still busy will be for ever */
};

/* The guest's data pages: some may be written to by dom0, some only read, some are not granted. */
enum page_kind { PAGE_GRANTED, PAGE_READONLY, PAGE_SECRET };

struct memory {
	unsigned char *pages;
	uint32_t refs[PAGES]; /* of a page that is not granted, one that there is not */
};

struct guest_disk {
	struct disk keys;
	unsigned domid, devid;
	struct ring rings[QUEUES];
	unsigned nr_queues;
	bool meddled; /* its keys are not what was published */
};

static struct {
	struct host host;
	struct reactor *reactors[REACTORS];
	unsigned nr_reactors;
	struct xen_backend_opts opts;
	struct xen_backend *backend;
	bool drained;
	bool alive; /* the guest */
	struct xs_handle *guest_xs, *next_xs;
	struct guest_disk disks[DISKS];
	struct memory memory, next_memory;
	bool touched[PAGES]; /* its kind is not what it was all the time */
	uint64_t last_id;
	unsigned copy_faults;
	/* What is written to a ring as soon as something is copied. */
	struct ring *trap;
	unsigned trap_offset;
	uint8_t trap_bytes[4];
} world;

void fuzz_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("fuzz: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

/* Turns */

static bool step_data(void)
{
	bool did = false;

	for (unsigned i = 0; i < world.nr_reactors; i++)
		did |= reactor_step(world.reactors[i]);
	return did;
}

static void collect(void)
{
	for (unsigned d = 0; d < DISKS; d++)
		for (unsigned q = 0; q < QUEUES; q++)
			ring_collect(&world.disks[d].rings[q]);
}

/* Until nobody has anything to do. */
static void settle(void)
{
	unsigned rounds = 0;
	bool busy;

	do {
		busy = reactor_step(world.host.control);
		busy |= step_data();
		if (++rounds > ROUNDS_MAX)
			fuzz_fail("somebody is busy for ever");
	} while (busy);
	collect();
}

/* Settles for about so long, for what comes by timers. */
static void pass_time(unsigned steps, uint64_t step_ns)
{
	for (unsigned i = 0; i < steps; i++) {
		fuzz_clock_advance(step_ns);
		settle();
	}
}

static void give_turns(uint8_t run)
{
	switch (run & 7) {
	case 0:
		return;
	case 1:
		step_data();
		break;
	case 2:
		reactor_step(world.host.control);
		break;
	case 3:
		reactor_step(world.reactors[(run >> 3) % world.nr_reactors]);
		break;
	case 4:
		for (int i = run >> 3; i >= 0; i--)
			step_data();
		break;
	case 5:
		for (int i = run >> 3; i >= 0; i--)
			reactor_step(world.host.control);
		break;
	default:
		settle();
		return;
	}
	collect();
}

/* The stage */

static enum page_kind page_kind(unsigned page)
{
	return page < 8 ? PAGE_GRANTED : page < 10 ? PAGE_READONLY : PAGE_SECRET;
}

static unsigned char canary(unsigned page)
{
	return (unsigned char)(0xc0 + page);
}

/* Both domains are the same machine: a disk may be attached to the next before the last is gone. */
static void set_machine(unsigned domid)
{
	char path[64];

	snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	xs_write(world.host.xs, XBT_NULL, path, "/vm/1", 5);
}

static void make_memory(unsigned domid, struct memory *m)
{
	m->pages = double_pages_alloc(domid, PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		memset(m->pages + (size_t)i * PAGE, canary(i), PAGE);
		m->refs[i] = page_kind(i) == PAGE_SECRET
				     ? NO_GRANT + i
				     : double_grant(domid, m->pages + (size_t)i * PAGE, 0,
						    page_kind(i) == PAGE_READONLY);
	}
}

static void make_guest(void)
{
	double_domain_create(GUEST, "guest");
	world.alive = true;
	make_memory(GUEST, &world.memory);
	memset(world.touched, 0, sizeof(world.touched));
	for (unsigned i = 0; i < DISKS; i++) {
		if (world.disks[i].domid != GUEST)
			continue;
		memset(world.disks[i].rings, 0, sizeof(world.disks[i].rings));
		world.disks[i].meddled = true;
	}
	set_machine(GUEST);
}

static void make_next_guest(void)
{
	double_domain_create(NEXT, "next");
	make_memory(NEXT, &world.next_memory);
	set_machine(NEXT);
}

static bool is_alive(const struct guest_disk *d)
{
	return d->domid == NEXT || world.alive;
}

static struct xs_handle *xs_of(const struct guest_disk *d)
{
	return d->domid == NEXT ? world.next_xs : world.guest_xs;
}

static void check_memory(const struct memory *m, const bool *touched)
{
	for (unsigned i = 0; i < PAGES; i++) {
		const unsigned char *page = m->pages + (size_t)i * PAGE;

		if (page_kind(i) == PAGE_GRANTED || (touched && touched[i]))
			continue;
		for (unsigned at = 0; at < PAGE; at++)
			if (page[at] != canary(i))
				fuzz_fail("a page that nobody may write to has changed");
	}
}

static void add_disk(unsigned n, uint8_t how)
{
	static const char *const targets[] = {
		"disk",
		"disk,shared",
		"disk,sharing=map",
		"other",
		"disk,shared,sharing=map",
		"disk,on-error=stop",
		"disk,on-error=retry:1,sharing=map",
		"disk,on-error=retry:2",
		"other,sharing=map,on-error=stop",
		"disk,iops=50",
		"disk,bandwidth=64K",
		"disk,iops=3,bandwidth=9,on-error=stop",
		"other,shared,sharing=copy,iops=1000",
		"disk@sluice,sharing=auto,on-error=report",
		"disk@elsewhere",
		"nothing",
	};
	struct guest_disk *d = &world.disks[n];
	struct disk_opts opts = {
		.target = targets[(how & 3) | (how >> 2 & 0xc)],
		.readonly = how & 4,
		.instance = how & 8 ? "sluice" : NULL,
	};

	toolstack_add(&world.host, d->domid, d->devid, &opts, &d->keys);
	d->meddled = true;
}

static void run_script(unsigned n)
{
	disk_write(&world.disks[n].keys, world.disks[n].keys.back, "hotplug-status", "connected");
}

static void start_backend(void)
{
	struct err err;

	for (unsigned i = 0; i < world.nr_reactors; i++)
		if (reactor_create("reactor", -1, NULL, &world.reactors[i]))
			fuzz_fail("no reactor");
	if (xen_backend_create(&world.opts, &world.backend, &err))
		fuzz_fail("no backend: %s", err.text);
	if (xen_backend_start(world.backend, &err))
		fuzz_fail("the backend does not start: %s", err.text);
}

static void drained(void *arg)
{
	world.drained = true;
}

static void stop_faults(void);

static void end_backend(void)
{
	stop_faults();
	world.drained = false;
	xen_backend_drain(world.backend, drained, NULL);
	settle();
	pass_time(4, NSEC_PER_SEC);
	if (!world.drained)
		fuzz_fail("the backend does not drain");
	if (disk_kept())
		fuzz_fail("drained, it has %u requests in flight", disk_kept());
	xen_backend_destroy(world.backend);
	for (unsigned i = 0; i < world.nr_reactors; i++)
		reactor_destroy(world.reactors[i]);
	world.backend = NULL;
}

static void remove_root(void)
{
	host_remove_root(&world.host);
}

static void set_stage(const uint8_t *header)
{
	static const char *const kinds[] = {"vbd", NULL};
	static const size_t bounce_pages[] = {4096, 64, 8, 1};

	if (!world.host.root[0]) {
		host_make_root(&world.host); /* one for all plays */
		atexit(remove_root);
		log_set_level(LOG_LEVEL_ERROR);
	}
	double_init();
	world.host.xs = double_xs_open(0);
	world.last_id = 0;
	world.copy_faults = 0;
	world.trap = NULL;
	disk_create("disk", header[0] & 1 ? 4096 : 512, header[0] & 2);
	disk_create("other", 512, false);
	if (reactor_create("control", -1, NULL, &world.host.control))
		fuzz_fail("no control thread");
	world.nr_reactors = header[0] & 4 ? REACTORS : 1;
	world.opts = (struct xen_backend_opts){
		.instance = "sluice",
		.kinds = kinds,
		.control = world.host.control,
		.reactors = world.reactors,
		.nr_reactors = world.nr_reactors,
		.bounce_pages = bounce_pages[header[1] & 3],
		.guest_bounce_pages = bounce_pages[header[1] >> 4 & 3],
		.guest_maps = bounce_pages[header[1] >> 6],
		.max_queues = QUEUES,
		.spin_max_ns = header[1] & 4 ? 20000 : 0,
		.root = world.host.root,
	};
	for (unsigned i = 0; i < DISKS; i++) {
		world.disks[i].domid = i == DISKS - 1 ? NEXT : GUEST;
		world.disks[i].devid = i == 1 ? DEVID + 16 : DEVID;
		world.disks[i].meddled = true;
	}
	make_guest();
	make_next_guest();
	world.guest_xs = double_xs_open(GUEST);
	world.next_xs = double_xs_open(NEXT);
	start_backend();
	for (unsigned i = 0; i < DISKS; i++) {
		if (header[2 + i] & 0x80)
			continue;
		add_disk(i, header[2 + i]);
		if (!(header[2 + i] & 0x40)) {
			settle();
			run_script(i);
		}
	}
	settle();
}

/* Actions: the guest's xenstore */

static struct guest_disk *disk_of(const struct fuzz_record *rec)
{
	return &world.disks[rec->target % DISKS];
}

static struct ring *ring_of(const struct fuzz_record *rec)
{
	return &disk_of(rec)->rings[(rec->target >> 1) % QUEUES];
}

static struct memory *memory_of(const struct ring *r)
{
	return r->domid == NEXT ? &world.next_memory : &world.memory;
}

static uint32_t number_of(const struct fuzz_record *rec)
{
	uint32_t n;

	memcpy(&n, rec->v, sizeof(n));
	return n;
}

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
static void publish(const struct fuzz_record *rec)
{
	static const uint32_t firsts[] = {0, 0xfffffff0, 0x7ffffffe, 5};
	struct guest_disk *d = disk_of(rec);
	const struct blkif_layout *layout =
		rec->what & 1 ? &blkif_layout_x86_32 : &blkif_layout_x86_64;
	unsigned order = (rec->what >> 1) % 3;
	char key[16];

	if (!is_alive(d) || !d->keys.front[0])
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
	static const char *const values[] = {
		"",
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
		"../..",
	};
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

/* Its keys may tell the backend of other rings than there are. */
static void mar_rings(struct guest_disk *d)
{
	d->meddled = true;
	for (unsigned q = 0; q < QUEUES; q++)
		d->rings[q].marred = true;
}

static void write_frontend_key(const struct fuzz_record *rec)
{
	static const char *const keys[] = {
		"state",
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
		"",
	};

	mar_rings(disk_of(rec));
	meddle(rec, xs_of(disk_of(rec)), disk_of(rec)->keys.front, keys,
	       sizeof(keys) / sizeof(keys[0]));
}

static void write_backend_key(const struct fuzz_record *rec)
{
	static const char *const keys[] = {
		"state",
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
		"",
	};

	disk_of(rec)->meddled = true;
	meddle(rec, world.host.xs, disk_of(rec)->keys.back, keys, sizeof(keys) / sizeof(keys[0]));
}

static void set_frontend_state(const struct fuzz_record *rec)
{
	if (disk_of(rec)->keys.front[0])
		write_number(disk_of(rec), "state", rec->what % 10);
}

/* Actions: requests */

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

static void put_direct(const struct fuzz_record *rec)
{
	static const uint8_t operations[] = {BLKIF_READ,          BLKIF_WRITE,
					     BLKIF_WRITE_BARRIER, BLKIF_FLUSH_DISKCACHE,
					     BLKIF_READ,          BLKIF_WRITE};
	struct ring *r = ring_of(rec);
	uint8_t operation = rec->what < 0xc0 ? operations[rec->what % 6] : rec->what;
	uint64_t id = ++world.last_id, sector = sector_of(rec);
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

static void put_indirect(const struct fuzz_record *rec)
{
	struct ring *r = ring_of(rec);
	uint8_t inner = rec->what & 0x80 ? rec->what : rec->what & 1;
	uint64_t id = ++world.last_id, sector = sector_of(rec);
	unsigned page = (rec->what >> 1) % PAGES;
	uint16_t n = (uint16_t)(rec->v[0] * (rec->what & 0x40 ? 3 : 1));
	uint8_t *slot;

	slot = ring_next(r, id, inner);
	if (!slot)
		return;
	/* Only pages that may change are written; of others the guest sends what they hold. */
	if (page_kind(page) == PAGE_GRANTED)
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

static void put_discard(const struct fuzz_record *rec)
{
	static const uint64_t counts[] = {1, 8, 64, 0, DISK_BYTES / 512, UINT64_MAX, 1ULL << 55, 7};
	struct ring *r = ring_of(rec);
	uint64_t id = ++world.last_id, sector = sector_of(rec), count = counts[rec->v[0] & 7];
	uint8_t *slot = ring_next(r, id, BLKIF_DISCARD);

	if (!slot)
		return;
	slot[BLKIF_REQ_OPERATION] = BLKIF_DISCARD;
	slot[BLKIF_REQ_DISCARD_FLAG] = rec->what;
	memcpy(slot + r->layout->id, &id, sizeof(id));
	memcpy(slot + r->layout->sector, &sector, sizeof(sector));
	memcpy(slot + r->layout->discard_sectors, &count, sizeof(count));
}

static void push(const struct fuzz_record *rec)
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

static void notify(const struct fuzz_record *rec)
{
	for (unsigned i = 0; i <= rec->what % 64; i++) {
		ring_notify(ring_of(rec));
		if (rec->what & 0x80)
			step_data();
	}
}

static void overwrite(const struct fuzz_record *rec)
{
	ring_overwrite(ring_of(rec), (unsigned)(rec->what << 4 | rec->target >> 4), rec->v,
		       sizeof(rec->v));
}

static void spring_trap(void *arg, unsigned domid, uint32_t ref)
{
	struct ring *r = world.trap;

	world.trap = NULL;
	if (r)
		ring_overwrite(r, world.trap_offset, world.trap_bytes, sizeof(world.trap_bytes));
}

static void set_trap(const struct fuzz_record *rec)
{
	world.trap = ring_of(rec);
	world.trap_offset = (unsigned)(rec->what << 4 | rec->target >> 4);
	memcpy(world.trap_bytes, rec->v, sizeof(rec->v));
	double_on_copy(spring_trap, NULL);
}

static void want_notification(const struct fuzz_record *rec)
{
	struct ring *r = ring_of(rec);

	if (r->pages)
		ring_shared(r)->rsp_event = rec->what & 1 ? number_of(rec) : r->seen + rec->v[0];
}

static void change_grant(const struct fuzz_record *rec)
{
	unsigned page = rec->v[0] % 10; /* what is not granted stays so */
	uint32_t *ref = &world.memory.refs[page];

	if (!world.alive)
		return;
	world.touched[page] = true;
	if (*ref < NO_GRANT)
		double_revoke_by_force(GUEST, *ref);
	*ref = NO_GRANT + page;
	if (rec->what & 1)
		*ref = double_grant(GUEST, world.memory.pages + (size_t)page * PAGE,
				    rec->what & 4 ? 7 : 0, rec->what & 2);
}

/* Actions: the device, the toolstack, the administrator, and fate */

static void use_device(const struct fuzz_record *rec)
{
	static const int errors[] = {-EIO, -ENOSPC, -EOPNOTSUPP, -EAGAIN};

	switch (rec->what & 3) {
	case 0:
	case 1:
		disk_hold(rec->what & 1);
		return;
	case 2:
		if (rec->what & 0x80)
			disk_fail_open(rec->v[0] % 4);
		else
			disk_complete(rec->v[0], rec->what & 4);
		return;
	default:
		disk_fail(errors[rec->v[0] & 3], rec->v[1]);
		return;
	}
}

static void use_toolstack(const struct fuzz_record *rec)
{
	unsigned n = rec->target % DISKS;
	struct guest_disk *d = &world.disks[n];

	if (!d->keys.back[0] && rec->what % 6 != 4)
		return;
	d->meddled = true;
	switch (rec->what % 6) {
	case 0:
		toolstack_ask(&d->keys);
		return;
	case 1:
		mar_rings(d);
		toolstack_remove_by_force(&d->keys);
		return;
	case 2:
		xs_rm(world.host.xs, XBT_NULL, d->keys.back);
		return;
	case 3:
		mar_rings(d);
		xs_rm(world.host.xs, XBT_NULL, d->keys.front);
		return;
	case 4:
		if (is_alive(d))
			add_disk(n, rec->v[0]);
		return;
	default:
		run_script(n);
		return;
	}
}

static void gone(void *arg, const char *error)
{
}

static void quiet(void *arg, const char *error)
{
}

static void stats_came(void *arg, json_t *stats)
{
	json_decref(stats);
}

static void administer(const struct fuzz_record *rec)
{
	uint32_t domid = disk_of(rec)->domid, devid = disk_of(rec)->devid;
	struct xen_attach attach = {
		.domid = domid,
		.devid = devid,
		.readonly = rec->v[0] & 1,
		.target = {.bdev = "disk", .shared = rec->v[0] & 2},
	};
	char name[64];
	struct xen_limits limits = {.ios_per_sec = rec->v[1], .bytes_per_sec = rec->v[2] << 9};
	const char *kind;
	struct err err;

	switch (rec->what % 12) {
	case 0:
	case 1:
		disk_of(rec)->meddled = true;
		xen_backend_detach(world.backend, domid, devid, rec->what % 12, gone, NULL, &err);
		return;
	case 2:
		xen_backend_stats(world.backend, stats_came, NULL);
		return;
	case 3:
		json_decref(xen_backend_list(world.backend));
		return;
	case 4:
		xen_backend_forget_detach(world.backend, domid, devid, NULL);
		return;
	case 5:
		xen_backend_pause(world.backend, domid, devid, quiet, NULL, &err);
		return;
	case 6:
		xen_backend_resume(world.backend, domid, devid, &err);
		return;
	case 7:
		xen_backend_set_limits(world.backend, domid, devid, &limits, &err);
		return;
	case 8:
		xen_backend_get_limits(world.backend, domid, devid, &limits, &err);
		return;
	case 9:
		xen_backend_find_domain(world.backend, rec->v[0] & 1 ? "next" : "5", &domid, name,
					&err);
		return;
	case 10:
		disk_grow(rec->v[0] & 1 ? "disk" : "other", (uint64_t)rec->v[1] << 12);
		return;
	default:
		xen_backend_attach(world.backend, &attach, &kind, &err);
		return;
	}
}

static void change_domain(const struct fuzz_record *rec)
{
	if (world.alive) {
		check_memory(&world.memory, world.touched);
		double_domain_destroy(GUEST);
		world.alive = false;
		for (unsigned i = 0; i < DISKS; i++)
			if (world.disks[i].domid == GUEST)
				world.disks[i].meddled = true;
	} else {
		make_guest();
	}
}

static void restart(const struct fuzz_record *rec)
{
	disk_hold(false);
	disk_complete(UINT32_MAX, rec->what & 1);
	end_backend();
	start_backend();
}

static void set_fault(const struct fuzz_record *rec)
{
	static const int errors[] = {ENOMEM, EINVAL, EAGAIN, ENOSPC, EIO, EACCES, EDQUOT, EBUSY};
	enum double_call call = rec->what % DOUBLE_CALLS;

	if (call == DOUBLE_XS_OPEN || call == DOUBLE_EVTCHN_OPEN || call == DOUBLE_GNTTAB_OPEN)
		return; /* the daemon does not start: no play */
	double_fail(call, errors[rec->v[0] & 7], rec->v[1], rec->v[2] & 15, NULL);
}

static void set_share_fault(const struct fuzz_record *rec)
{
	if (rec->what & 1) {
		double_limit_maps(rec->v[0] < 0xf0 ? rec->v[0] : UINT32_MAX);
	} else if (world.copy_faults < FAULTS_MAX) {
		world.copy_faults++;
		double_fail_copy(GUEST, world.memory.refs[rec->v[0] % PAGES], -1 - rec->v[1] % 13,
				 1);
	}
}

static void stop_faults(void)
{
	for (unsigned i = 0; i < DOUBLE_CALLS; i++)
		double_fail(i, 0, 0, 0, NULL);
	double_limit_maps(UINT32_MAX);
	double_on_copy(NULL, NULL);
	disk_fail(0, 0);
	disk_fail_open(0);
	disk_hold(false);
	disk_complete(UINT32_MAX, false);
}

static void let_time_pass(const struct fuzz_record *rec)
{
	fuzz_clock_advance((uint64_t)(rec->what + 1) << (rec->v[0] % 32));
}

static void (*const actions[])(const struct fuzz_record *rec) = {
	put_direct,
	put_indirect,
	put_discard,
	push,
	notify,
	publish,
	set_frontend_state,
	write_frontend_key,
	write_backend_key,
	overwrite,
	set_trap,
	want_notification,
	change_grant,
	use_device,
	use_toolstack,
	administer,
	change_domain,
	restart,
	set_fault,
	set_share_fault,
	let_time_pass,
};

/* The end of a play */

static void check_in_flight(void *arg, json_t *stats)
{
	bool *came = arg;
	json_t *disk;
	size_t i;

	json_array_foreach(stats, i,
			   disk) if (json_integer_value(json_object_get(disk, "in_flight")))
		fuzz_fail("a disk has requests in flight that nobody has");
	json_decref(stats);
	*came = true;
}

static void check_answers(const struct guest_disk *d)
{
	char *state = disk_read((struct disk *)&d->keys, d->keys.back, "state");
	bool connected = state && !strcmp(state, "4");

	free(state);
	for (unsigned q = 0; connected && q < d->nr_queues; q++) {
		const struct ring *r = &d->rings[q];

		if (!r->marred && double_grant_is_mapped(d->domid, r->refs[0]) &&
		    r->pushed != r->seen)
			fuzz_fail("%u requests were never answered", r->pushed - r->seen);
	}
}

/* Nobody and nothing holds the guest back any more. */
static void let_go(void)
{
	struct xen_limits none = {0};
	struct err err;

	stop_faults();
	/* A backend that has only begun does not know its disks yet. */
	settle();
	pass_time(4, NSEC_PER_SEC);
	for (unsigned i = 0; i < DISKS; i++) {
		const struct guest_disk *d = &world.disks[i];

		xen_backend_set_limits(world.backend, d->domid, d->devid, &none, &err);
		xen_backend_resume(world.backend, d->domid, d->devid, &err);
	}
}

static void finish(uint8_t how)
{
	bool came = false;

	let_go();
	for (unsigned d = 0; d < DISKS; d++)
		for (unsigned q = 0; q < QUEUES; q++)
			ring_notify(&world.disks[d].rings[q]);
	settle();
	pass_time(16, NSEC_PER_SEC / 2);
	for (unsigned i = 0; i < DISKS; i++)
		if (is_alive(&world.disks[i]) && !world.disks[i].meddled)
			check_answers(&world.disks[i]);
	xen_backend_stats(world.backend, check_in_flight, &came);
	settle();
	if (!came)
		fuzz_fail("no statistics came");
	for (unsigned i = 0; i < DISKS; i++) {
		if (!world.disks[i].keys.back[0] || !is_alive(&world.disks[i]))
			continue;
		if (how & 1)
			toolstack_ask(&world.disks[i].keys);
		if (how & 2)
			write_number(&world.disks[i], "state", 6);
	}
	if (how & 4 && world.alive)
		change_domain(NULL);
	settle();
	pass_time(4, NSEC_PER_SEC);
	end_backend();
	if (world.alive)
		check_memory(&world.memory, world.touched);
	check_memory(&world.next_memory, NULL);
	bdev_delete_all();
	reactor_destroy(world.host.control);
	xs_close(world.guest_xs);
	xs_close(world.next_xs);
	xs_close(world.host.xs);
	if (double_leaks())
		fuzz_fail("something was left over");
	double_fini();
	memset(world.disks, 0, sizeof(world.disks));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_record rec;

	if (size < FUZZ_RECORD_BYTES)
		return 0;
	fuzz_clock_start();
	set_stage(data);
	for (size_t at = FUZZ_RECORD_BYTES; at + sizeof(rec) <= size; at += sizeof(rec)) {
		memcpy(&rec, data + at, sizeof(rec));
		actions[rec.action % (sizeof(actions) / sizeof(actions[0]))](&rec);
		give_turns(rec.run);
	}
	finish(data[7]);
	fuzz_clock_stop();
	return 0;
}
