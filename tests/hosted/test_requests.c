/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a frontend must not get away with: each rule by which requests are judged, in both layouts,
 * next to good requests that must not suffer.
 */
#include "trial.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xengnttab.h>

#include "blkif/decode.h"

enum { SECTORS = WORLD_DISK_BYTES / 512 };

static const struct blkif_layout *const layouts[] = {&blkif_layout_x86_32, &blkif_layout_x86_64};

static void reconnect(const struct blkif_layout *layout, unsigned max_segments)
{
	struct guest *g = &world.guest;

	if (g->front) {
		assert_true(guest_close(g));
		assert_true(guest_free_front(g));
		guest_set_state(g, 1);
	}
	assert_true(guest_connect(g, &(struct guest_opts){.layout = layout,
							  .max_segments = max_segments}));
}

static int64_t device_errors(void)
{
	return world_stat("read", "errors") + world_stat("write", "errors") +
	       world_stat("flush", "errors");
}

/*
 * Sends @bad between two good ones, in one batch: they succeed, and it gets @status without ever
 * having come near the device.
 */
static void expect(struct trial *bad, int16_t status)
{
	struct trial before, after;
	unsigned writes = held_count(world.disk, BDEV_WRITE);
	unsigned reads = held_count(world.disk, BDEV_READ);
	unsigned flushes = held_count(world.disk, BDEV_FLUSH);
	int64_t errors = device_errors();

	trial_init(&before, BLKIF_WRITE, 1, 8);
	trial_init(&after, BLKIF_READ, 1, 8);
	bad->req.status = 99;
	assert_int_equal(front_submit(world.guest.front, &before.req), 0);
	assert_int_equal(front_submit(world.guest.front, &bad->req), 0);
	assert_int_equal(front_submit(world.guest.front, &after.req), 0);
	front_push(world.guest.front);
	trial_collect();
	assert_int_equal(before.req.status, BLKIF_OKAY);
	assert_int_equal(after.req.status, BLKIF_OKAY);
	assert_int_equal(bad->req.status, status);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), writes + 1);
	assert_int_equal(held_count(world.disk, BDEV_READ), reads + 1);
	assert_int_equal(held_count(world.disk, BDEV_FLUSH), flushes);
	assert_int_equal(device_errors(), errors);
	trial_fini(&before);
	trial_fini(&after);
}

/* Ways to spoil a request */

struct spoil {
	const char *name;
	uint8_t op;
	unsigned nr;
	bool indirect;
	uint64_t sector;
	void (*tamper)(struct front_req *req, void *slot, struct blkif_wire_segment *indirect);
	int16_t status;
};

static const struct blkif_layout *layout; /* of the connection, for tampering */

static void put_u8(void *slot, unsigned offset, uint8_t value)
{
	((uint8_t *)slot)[offset] = value;
}

static void put_u16(void *slot, unsigned offset, uint16_t value)
{
	memcpy((char *)slot + offset, &value, sizeof(value));
}

static void no_segments(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	if (indirect)
		put_u16(slot, BLKIF_REQ_INDIRECT_NR_SEGMENTS, 0);
	else
		put_u8(slot, BLKIF_REQ_NR_SEGMENTS, 0);
}

static void twelve_segments(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	put_u8(slot, BLKIF_REQ_NR_SEGMENTS, 12);
}

static void all_segments(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	if (indirect)
		put_u16(slot, BLKIF_REQ_INDIRECT_NR_SEGMENTS, 65535);
	else
		put_u8(slot, BLKIF_REQ_NR_SEGMENTS, 255);
}

static void one_too_many(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	put_u16(slot, BLKIF_REQ_INDIRECT_NR_SEGMENTS, BLKIF_MAX_SEGMENTS + 1);
}

static void spoil_last(struct front_req *req, void *slot, struct blkif_wire_segment *indirect,
		       uint8_t first, uint8_t last)
{
	struct blkif_wire_segment *seg = indirect;

	if (!seg)
		seg = (struct blkif_wire_segment *)(void *)((char *)slot + layout->segments);
	/* The last of all, so that those before it look good. */
	seg[req->nr_segments - 1].first_sect = first;
	seg[req->nr_segments - 1].last_sect = last;
}

static void first_after_last(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	spoil_last(req, slot, indirect, 5, 4);
}

static void last_is_8(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	spoil_last(req, slot, indirect, 0, 8);
}

static void last_is_255(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	spoil_last(req, slot, indirect, 0, 255);
}

static void both_are_beyond(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	spoil_last(req, slot, indirect, 8, 8);
}

static void set_op(struct front_req *req, void *slot, uint8_t op)
{
	put_u8(slot, BLKIF_REQ_OPERATION, op);
	req->answer = op;
}

static void op_4(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	set_op(req, slot, 4);
}

static void op_7(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	set_op(req, slot, 7);
}

static void op_255(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	set_op(req, slot, 255);
}

static void set_inner(struct front_req *req, void *slot, uint8_t op)
{
	put_u8(slot, BLKIF_REQ_INDIRECT_OPERATION, op);
	req->answer = op;
}

static void inner_flush(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	set_inner(req, slot, BLKIF_FLUSH_DISKCACHE);
}

static void inner_indirect(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	set_inner(req, slot, BLKIF_INDIRECT);
}

static void inner_200(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	set_inner(req, slot, 200);
}

static void bad_indirect_gref(struct front_req *req, void *slot,
			      struct blkif_wire_segment *indirect)
{
	uint32_t ref = 0x12345678;

	memcpy((char *)slot + layout->indirect_grefs, &ref, sizeof(ref));
}

static const struct spoil spoils[] = {
	{"read without segments", BLKIF_READ, 1, false, 0, no_segments, BLKIF_ERROR},
	{"write without segments", BLKIF_WRITE, 1, false, 0, no_segments, BLKIF_ERROR},
	{"12 segments", BLKIF_WRITE, 11, false, 0, twelve_segments, BLKIF_ERROR},
	{"255 segments", BLKIF_READ, 11, false, 0, all_segments, BLKIF_ERROR},
	{"flush with 12 segments", BLKIF_FLUSH_DISKCACHE, 1, false, 0, twelve_segments,
	 BLKIF_ERROR},
	{"first > last", BLKIF_WRITE, 3, false, 0, first_after_last, BLKIF_ERROR},
	{"last = 8", BLKIF_WRITE, 3, false, 0, last_is_8, BLKIF_ERROR},
	{"last = 255", BLKIF_READ, 11, false, 0, last_is_255, BLKIF_ERROR},
	{"first = last = 8", BLKIF_READ, 1, false, 0, both_are_beyond, BLKIF_ERROR},
	{"flush with first > last", BLKIF_FLUSH_DISKCACHE, 2, false, 0, first_after_last,
	 BLKIF_ERROR},
	{"one sector beyond", BLKIF_WRITE, 1, false, SECTORS - 7, NULL, BLKIF_ERROR},
	{"at the end", BLKIF_READ, 1, false, SECTORS, NULL, BLKIF_ERROR},
	{"far beyond", BLKIF_READ, 1, false, 1ULL << 40, NULL, BLKIF_ERROR},
	{"sum overflows", BLKIF_WRITE, 1, false, UINT64_MAX - 3, NULL, BLKIF_ERROR},
	{"sum overflows to 0", BLKIF_WRITE, 1, false, UINT64_MAX - 7, NULL, BLKIF_ERROR},
	{"bytes overflow to 0", BLKIF_WRITE, 1, false, 1ULL << 55, NULL, BLKIF_ERROR},
	{"bytes overflow to 4096", BLKIF_READ, 1, false, (1ULL << 55) + 8, NULL, BLKIF_ERROR},
	{"sign bit", BLKIF_READ, 1, false, 1ULL << 63, NULL, BLKIF_ERROR},
	{"flush with data beyond", BLKIF_FLUSH_DISKCACHE, 1, false, SECTORS, NULL, BLKIF_ERROR},
	{"discard, not offered", BLKIF_DISCARD, 0, false, 0, NULL, BLKIF_EOPNOTSUPP},
	{"operation 4", BLKIF_WRITE, 1, false, 0, op_4, BLKIF_EOPNOTSUPP},
	{"operation 7", BLKIF_WRITE, 1, false, 0, op_7, BLKIF_EOPNOTSUPP},
	{"operation 255", BLKIF_READ, 1, false, 0, op_255, BLKIF_EOPNOTSUPP},
	{"indirect, no segments", BLKIF_READ, 20, true, 0, no_segments, BLKIF_ERROR},
	{"indirect, one more than offered", BLKIF_READ, 20, true, 0, one_too_many, BLKIF_ERROR},
	{"indirect, 65535", BLKIF_WRITE, 20, true, 0, all_segments, BLKIF_ERROR},
	{"indirect, first > last", BLKIF_WRITE, 20, true, 0, first_after_last, BLKIF_ERROR},
	{"indirect, last = 8", BLKIF_WRITE, 20, true, 0, last_is_8, BLKIF_ERROR},
	{"indirect, last = 255", BLKIF_READ, 20, true, 0, last_is_255, BLKIF_ERROR},
	{"indirect, first = last = 8", BLKIF_READ, 1, true, 0, both_are_beyond, BLKIF_ERROR},
	{"indirect, one sector beyond", BLKIF_WRITE, 20, true, SECTORS - 159, NULL, BLKIF_ERROR},
	{"indirect, sum overflows", BLKIF_WRITE, 20, true, UINT64_MAX - 3, NULL, BLKIF_ERROR},
	{"indirect flush", BLKIF_WRITE, 20, true, 0, inner_flush, BLKIF_EOPNOTSUPP},
	{"indirect indirect", BLKIF_WRITE, 20, true, 0, inner_indirect, BLKIF_EOPNOTSUPP},
	{"indirect 200", BLKIF_READ, 20, true, 0, inner_200, BLKIF_EOPNOTSUPP},
};

static void bad_requests_are_refused(void **state)
{
	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	for (unsigned l = 0; l < 2; l++) {
		layout = layouts[l];
		reconnect(layout, 64);
		for (unsigned i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
			const struct spoil *s = &spoils[i];
			int64_t invalid = world_stat(NULL, "invalid");
			struct trial t;

			print_message("  %s: %s\n", layout->protocol, s->name);
			trial_init(&t, s->op, s->nr, s->sector);
			t.req.indirect = s->indirect;
			t.req.tamper = s->tamper;
			expect(&t, s->status);
			assert_int_equal(world_stat(NULL, "invalid"), invalid + 1);
			trial_fini(&t);
		}
	}
	/* Nothing of it has hurt. */
	held_release(world.disk, false);
	memset(held_data(world.disk), 0, WORLD_DISK_BYTES);
	world_run_load(&(struct load_opts){.max_segments = 32}, 500);
}

/* The last sectors can be had: the judge is not off by one. */
static void good_requests_at_the_edge_are_served(void **state)
{
	for (unsigned l = 0; l < 2; l++) {
		struct trial t;

		layout = layouts[l];
		if (!l)
			world_connect();
		reconnect(layout, 64);
		trial_init(&t, BLKIF_WRITE, 1, SECTORS - 8);
		memset(t.pages[0].data, 'a' + (int)l, TRIAL_PAGE);
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
		assert_int_equal(held_data(world.disk)[WORLD_DISK_BYTES - 1], 'a' + (int)l);
		trial_fini(&t);
		trial_init(&t, BLKIF_READ, 1, SECTORS - 1);
		t.segments[0].first_sect = 7;
		t.segments[0].last_sect = 7;
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
		assert_int_equal(t.pages[0].data[TRIAL_PAGE - 1], 'a' + (int)l);
		assert_int_equal(t.pages[0].data[TRIAL_PAGE - 513], 'p');
		trial_fini(&t);
		trial_init(&t, BLKIF_WRITE, 20, SECTORS - 160);
		t.req.indirect = true;
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
		trial_fini(&t);
	}
}

static void readonly_disks_take_no_data(void **state)
{
	static const struct spoil writes[] = {
		{"write", BLKIF_WRITE, 1, false, 0, NULL, BLKIF_ERROR},
		{"indirect write", BLKIF_WRITE, 20, true, 0, NULL, BLKIF_ERROR},
		{"flush with data", BLKIF_FLUSH_DISKCACHE, 1, false, 0, NULL, BLKIF_ERROR},
	};
	struct trial t;

	world_start(&(struct instance_opts){0});
	guest_create(&world.guest, &world.host, WORLD_GUEST,
		     &(struct disk_opts){.target = "disk", .readonly = true});
	reconnect(&blkif_layout_x86_64, 64);
	for (unsigned i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		trial_init(&t, writes[i].op, writes[i].nr, 0);
		t.req.indirect = writes[i].indirect;
		assert_int_equal(front_req_sync(world.guest.front, &t.req), -EIO);
		trial_fini(&t);
	}
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 0);
	trial_init(&t, BLKIF_READ, 20, 0);
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	trial_fini(&t);
	/* An empty flush changes nothing, and Linux would give up flushes for an error. */
	trial_init(&t, BLKIF_FLUSH_DISKCACHE, 0, 0);
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	trial_fini(&t);
}

/* Grants */

enum bad_grant {
	NO_SUCH_GRANT,
	HUGE_REFERENCE,
	REVOKED,
	READ_ONLY,
	FOR_ANOTHER_DOMAIN,
	HYPERVISOR_ERROR,
	BAD_GRANTS,
};

static void spoil_grant(struct trial *t, unsigned i, enum bad_grant how)
{
	struct guest_page *page = &t->pages[i];

	switch (how) {
	case NO_SUCH_GRANT:
		t->segments[i].gref = 9999;
		break;
	case HUGE_REFERENCE:
		t->segments[i].gref = UINT32_MAX;
		break;
	case REVOKED:
		assert_int_equal(double_revoke(WORLD_GUEST, page->ref), 0);
		page->ref = 0;
		break;
	case READ_ONLY:
		assert_int_equal(double_revoke(WORLD_GUEST, page->ref), 0);
		page->ref = double_grant(WORLD_GUEST, page->data, 0, true);
		t->segments[i].gref = page->ref;
		break;
	case FOR_ANOTHER_DOMAIN:
		assert_int_equal(double_revoke(WORLD_GUEST, page->ref), 0);
		page->ref = double_grant(WORLD_GUEST, page->data, 3, false);
		t->segments[i].gref = page->ref;
		break;
	case HYPERVISOR_ERROR:
		double_fail_copy(WORLD_GUEST, page->ref, GNTST_bad_page, 1);
		break;
	case BAD_GRANTS:
		break;
	}
}

/* One bad page among many spoils its request, and no other of the same batch. */
static void bad_grants_spoil_their_request_only(void **state)
{
	struct trial before, bad, after;

	world_connect();
	for (int write = 0; write < 2; write++) {
		for (unsigned indirect = 0; indirect < 2; indirect++) {
			for (enum bad_grant how = 0; how < BAD_GRANTS; how++) {
				unsigned nr = indirect ? 20 : 11;

				/* That comes by copies only. */
				if (how == HYPERVISOR_ERROR && guest_way != &guest_copied)
					continue;

				trial_init(&before, BLKIF_READ, 5, 0);
				trial_init(&bad, write ? BLKIF_WRITE : BLKIF_READ, nr, 1000);
				trial_init(&after, BLKIF_WRITE, 5, 64);
				spoil_grant(&bad, nr / 2, how);
				memset(held_data(world.disk) + 1000 * 512, 'd',
				       (size_t)nr * TRIAL_PAGE);
				assert_int_equal(front_submit(world.guest.front, &before.req), 0);
				assert_int_equal(front_submit(world.guest.front, &bad.req), 0);
				assert_int_equal(front_submit(world.guest.front, &after.req), 0);
				front_push(world.guest.front);
				trial_collect();
				assert_int_equal(before.req.status, BLKIF_OKAY);
				assert_int_equal(after.req.status, BLKIF_OKAY);
				/* A read-only page is good enough to be written to the disk. */
				assert_int_equal(bad.req.status, write && how == READ_ONLY
									 ? BLKIF_OKAY
									 : BLKIF_ERROR);
				/* All or nothing. */
				for (unsigned i = 0; i < nr * TRIAL_PAGE; i += 512)
					assert_int_equal(held_data(world.disk)[1000 * 512 + i],
							 write && how == READ_ONLY ? 'p' : 'd');
				trial_fini(&before);
				trial_fini(&bad);
				trial_fini(&after);
			}
		}
	}
}

static void bad_indirect_pages_spoil_their_request_only(void **state)
{
	struct trial bad, after;

	world_connect();
	layout = &blkif_layout_x86_64;
	trial_init(&bad, BLKIF_WRITE, 20, 0);
	bad.req.tamper = bad_indirect_gref;
	trial_init(&after, BLKIF_WRITE, 20, 0);
	assert_int_equal(front_submit(world.guest.front, &bad.req), 0);
	assert_int_equal(front_submit(world.guest.front, &after.req), 0);
	front_push(world.guest.front);
	trial_collect();
	assert_int_equal(bad.req.status, BLKIF_ERROR);
	assert_int_equal(after.req.status, BLKIF_OKAY);
	assert_int_equal(held_count(world.disk, BDEV_WRITE), 1);
	trial_fini(&bad);
	trial_fini(&after);
}

/* The same page any number of times is one's own affair. */
static void a_page_may_be_named_twice(void **state)
{
	struct trial t;

	world_connect();
	trial_init(&t, BLKIF_WRITE, 3, 0);
	memset(t.pages[0].data, 'q', TRIAL_PAGE);
	t.segments[2].gref = t.segments[0].gref;
	assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
	assert_int_equal(held_data(world.disk)[0], 'q');
	assert_int_equal(held_data(world.disk)[TRIAL_PAGE], 'p');
	assert_int_equal(held_data(world.disk)[2 * TRIAL_PAGE], 'q');
	trial_fini(&t);
}

/* A call that fails as a whole is an error of the requests that were in it, and passes. */
static void failing_calls_pass(void **state)
{
	struct trial t;

	world_connect();
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		trial_init(&t, op, 11, 0);
		double_fail(DOUBLE_GNTTAB_COPY, ENOMEM, 0, 1, NULL);
		assert_int_equal(front_req_sync(world.guest.front, &t.req), -EIO);
		assert_int_equal(front_req_sync(world.guest.front, &t.req), 0);
		trial_fini(&t);
	}
}

/* A frontend that rings and rings without a request is answered later and later. */
static void ringing_in_vain_costs_little(void **state)
{
	struct guest *g = &world.guest;
	unsigned char buffer[512];
	uint64_t start;
	int64_t rung;

	world_connect();
	assert_int_equal(front_rw_sync(g->front, BLKIF_READ, 0, buffer, 512), 0);
	rung = world_stat("notifications", "received");
	start = host_now_ms();
	while (host_now_ms() - start < 500)
		for (int i = 0; i < 100; i++)
			double_evtchn_notify(WORLD_GUEST, g->port);
	/* 16 as they come, then after 1, 2, 4 .. 64 ms. */
	assert_in_range(world_stat("notifications", "received") - rung, 17, 40);
	/* A request is found none the less, and puts an end to that. */
	for (int i = 0; i < 100; i++)
		assert_int_equal(front_rw_sync(g->front, BLKIF_READ, 0, buffer, 512), 0);
}

/* A disk whose device hangs keeps the pages that it has; the other's queue has its own. */
static void hanging_disks_starve_nobody(void **state)
{
	struct load *l, *other_load;
	struct held *other_disk;

	world_start(&(struct instance_opts){.bounce_pages = 8});
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = "disk"});
	assert_true(guest_connect(&world.guest, &(struct guest_opts){.max_segments = 256}));
	other_disk = world_connect_other(&(struct guest_opts){.max_segments = 256});
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 256, .depth = 8});
	other_load =
		load_create(&world.other, &(struct load_opts){.max_segments = 256, .depth = 8});
	held_hold(world.disk);
	load_fill(l);
	assert_true(held_wait(world.disk, 1));
	assert_null(load_run(other_load, 200));
	assert_null(load_compare(other_load, held_data(other_disk)));
	held_release(world.disk, false);
	assert_null(load_run(l, 200));
	assert_null(load_compare(l, held_data(world.disk)));
	load_destroy(l);
	load_destroy(other_load);
}

/* Double fetch */

struct flip {
	struct front *front;
	uint32_t index;
	struct blkif_wire_segment *indirect;
	uint32_t data_ref; /* seen first when data is copied */
	uint32_t other_ref;
	unsigned flips;
};

/* At the first touch of data: the slot and the indirect page have been read, and now lie. */
static void flip_on_copy(void *arg, unsigned domid, uint32_t ref)
{
	struct flip *f = arg;

	if (ref != f->data_ref || f->flips++)
		return;
	memset(front_slot(f->front, f->index), 0xff, 60);
	for (unsigned i = 0; i < 20; i++) {
		f->indirect[i].gref = f->other_ref;
		f->indirect[i].first_sect = 0;
		f->indirect[i].last_sect = 255;
	}
}

static void flip_on_map(void *arg, bool map, unsigned domid, uint32_t ref, bool writable)
{
	flip_on_copy(arg, domid, ref);
}

static struct blkif_wire_segment *seen_indirect;

static void remember_indirect(struct front_req *req, void *slot,
			      struct blkif_wire_segment *indirect)
{
	seen_indirect = indirect;
}

static void what_was_read_once_is_not_read_again(void **state)
{
	struct guest_page other;

	world_connect();
	other = guest_page_new(&world.guest, false);
	memset(other.data, 's', TRIAL_PAGE);
	for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
		struct flip f = {.front = world.guest.front, .other_ref = other.ref};
		struct trial t;

		trial_init(&t, op, 20, 0);
		t.req.indirect = true;
		t.req.tamper = remember_indirect;
		f.index = front_next_index(world.guest.front);
		f.data_ref = t.segments[0].gref;
		assert_int_equal(front_submit(world.guest.front, &t.req), 0);
		f.indirect = seen_indirect;
		memset(held_data(world.disk), op == BLKIF_READ ? 'r' : 'z', 21 * TRIAL_PAGE);
		double_on_copy(flip_on_copy, &f);
		double_on_map(flip_on_map, &f);
		front_push(world.guest.front);
		trial_collect();
		double_on_copy(NULL, NULL);
		double_on_map(NULL, NULL);
		assert_true(f.flips > 0);
		assert_int_equal(t.req.status, BLKIF_OKAY);
		for (unsigned i = 0; i < 20; i++) {
			assert_int_equal(t.pages[i].data[TRIAL_PAGE - 1],
					 op == BLKIF_READ ? 'r' : 'p');
			assert_int_equal(held_data(world.disk)[i * TRIAL_PAGE],
					 op == BLKIF_READ ? 'r' : 'p');
		}
		assert_int_equal(other.data[0], 's');
		assert_int_equal(held_data(world.disk)[20 * TRIAL_PAGE],
				 op == BLKIF_READ ? 'r' : 'z');
		trial_fini(&t);
	}
}

/* Somebody scribbles over slots and indirect pages while they are read. */
struct scribbler {
	struct front *front;
	struct blkif_wire_segment *indirect; /* 20 of them, or NULL: requests are direct */
	uint8_t never;                       /* is written nowhere */
	atomic_bool stop;
};

/*
 * Scribbles over numbers that are judged: the sector, first and last of a segment.  Not over what
 * makes the response in the same slot; and not over references, so that whatever else goes wrong,
 * copies do not.  That this races is its purpose: no race checker is to follow it.
 */
__attribute__((no_sanitize("thread"))) static void *scribble(void *arg)
{
	const struct blkif_layout *l = &blkif_layout_x86_64;
	struct scribbler *s = arg;
	unsigned short random[3] = {1, 2, 3};

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		uint32_t r = (uint32_t)jrand48(random);
		volatile uint8_t *slot = front_slot(s->front, r >> 8);
		uint8_t value = (uint8_t)(r >> 16) & 15;
		unsigned which = (r >> 20) % (s->indirect ? 20 : 11);
		unsigned byte = which * 8 + 4 + (r >> 28) % 2;

		if (r % 4 == 0)
			slot[l->sector + (r >> 28) % 8] = value;
		else if (s->indirect)
			((volatile uint8_t *)s->indirect)[byte] = value;
		else
			slot[l->segments + byte] = value;
	}
	return NULL;
}

static void run_scribbled(struct scribbler *s, struct trial *trials)
{
	int64_t invalid = world_stat(NULL, "invalid");
	uint64_t start = host_now_ms();
	pthread_t thread;

	atomic_store(&s->stop, false);
	assert_int_equal(pthread_create(&thread, NULL, scribble, s), 0);
	/* Until something was hit in the right moment; on a busy host that may take a while. */
	for (unsigned round = 0; round < 500 || (world_stat(NULL, "invalid") == invalid &&
						 host_now_ms() - start < HOST_WAIT_MS);
	     round++) {
		for (unsigned i = 0; i < 16; i++)
			assert_int_equal(front_submit(s->front, &trials[i].req), 0);
		front_push(s->front);
		trial_collect();
	}
	atomic_store(&s->stop, true);
	pthread_join(thread, NULL);
	assert_true(world_stat(NULL, "invalid") > invalid);
}

static void scribbling_hurts_nobody(void **state)
{
	struct trial direct[16], indirect[16];
	struct scribbler s = {0};

	world_connect();
	s.front = world.guest.front;
	for (unsigned i = 0; i < 16; i++) {
		trial_init(&direct[i], i % 2 ? BLKIF_READ : BLKIF_WRITE, 11, i * 100);
		trial_init(&indirect[i], i % 2 ? BLKIF_READ : BLKIF_WRITE, 20, i * 200);
		indirect[i].req.tamper = remember_indirect;
	}
	run_scribbled(&s, direct);
	/* Learn where an indirect page is. */
	assert_int_equal(front_req_sync(s.front, &indirect[0].req), 0);
	s.indirect = seen_indirect;
	run_scribbled(&s, indirect);
	/* Nothing came through that device or copies had to refuse. */
	assert_int_equal(device_errors(), 0);
	for (unsigned i = 0; i < 16; i++) {
		trial_fini(&direct[i]);
		trial_fini(&indirect[i]);
	}
}

/* Any byte of any slot at any time: every request is answered somehow, and life goes on. */
__attribute__((no_sanitize("thread"))) static void *scribble_wildly(void *arg)
{
	struct scribbler *s = arg;
	unsigned short random[3] = {4, 5, 6};

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		uint32_t r = (uint32_t)jrand48(random);
		volatile uint8_t *slot = front_slot(s->front, r >> 8);

		/* Small values now and then, that pass for segments and operations. */
		uint8_t value = (uint8_t)(r & 1 ? r >> 24 : (r >> 24) % 12);

		if (value != s->never)
			slot[(r >> 16) % 112] = value;
	}
	return NULL;
}

static uint8_t seen_slots[2][BLKIF_MAX_REQUEST_BYTES];

static void remember_slot(struct front_req *req, void *slot, struct blkif_wire_segment *indirect)
{
	memcpy(seen_slots[indirect ? 1 : 0], slot, sizeof(seen_slots[0]));
}

static void wild_scribbling_hurts_nobody(void **state)
{
	struct trial direct, indirect;
	struct scribbler s = {0};
	struct blkif_sring *sring;
	bool answered = true;
	pthread_t thread;
	uint32_t req_prod;

	world_connect();
	s.front = world.guest.front;
	/* A write that turns into a read shall find any page but the ring, which it would destroy:
	 * pages' references lie behind the ring's, and are fewer than a byte can tell. */
	s.never = (uint8_t)front_ring_refs(s.front)[0];
	sring = front_sring(s.front);
	trial_init(&direct, BLKIF_WRITE, 11, 0);
	trial_init(&indirect, BLKIF_READ, 20, 500);
	direct.req.tamper = remember_slot;
	indirect.req.tamper = remember_slot;
	assert_int_equal(front_req_sync(s.front, &direct.req), 0);
	assert_int_equal(front_req_sync(s.front, &indirect.req), 0);
	assert_int_equal(pthread_create(&thread, NULL, scribble_wildly, &s), 0);
	req_prod = front_next_index(s.front);
	for (unsigned round = 0; round < 500 && answered; round++) {
		uint64_t start = host_now_ms();

		for (unsigned i = 0; i < 32; i++)
			memcpy(front_slot(s.front, req_prod++), seen_slots[i % 2],
			       blkif_layout_x86_64.request_bytes);
		atomic_store(&sring->req_prod, req_prod);
		double_evtchn_notify(WORLD_GUEST, world.guest.port);
		while (atomic_load(&sring->rsp_prod) != req_prod && answered) {
			answered = host_now_ms() - start < HOST_WAIT_MS;
			host_nap();
		}
	}
	atomic_store(&s.stop, true);
	pthread_join(thread, NULL);
	assert_true(answered);
	assert_true(disk_key_is(&world.guest.disk, world.guest.disk.back, "state", "4"));
	reconnect(&blkif_layout_x86_64, 32);
	trial_fini(&direct);
	trial_fini(&indirect);
	memset(held_data(world.disk), 0, WORLD_DISK_BYTES);
	world_run_load(&(struct load_opts){.max_segments = 32}, 500);
}

/* The ring's counters */

/* A guest that breaks its ring loses it, and gets a new one if it comes back properly. */
static void expect_broken(void)
{
	struct guest *g = &world.guest;

	assert_true(disk_wait_state(&g->disk, 5));
	assert_false(double_grant_is_mapped(WORLD_GUEST, front_ring_refs(g->front)[0]));
	guest_set_state(g, 6);
	assert_true(disk_wait_state(&g->disk, 6));
	assert_true(guest_free_front(g));
	guest_set_state(g, 1);
	assert_true(guest_connect(g, &(struct guest_opts){0}));
}

static void running_ahead_breaks_ones_own_ring_only(void **state)
{
	static const uint32_t leaps[] = {33, 34, 1000, 0x7fffffff, 0x80000000, 0xffffffff};
	struct held *other_disk;
	struct load *l, *other_load;

	world_connect();
	other_disk = world_connect_other(&(struct guest_opts){0});
	other_load = load_create(&world.other, &(struct load_opts){.max_segments = 11});
	for (unsigned i = 0; i < sizeof(leaps) / sizeof(leaps[0]); i++) {
		struct blkif_sring *sring = front_sring(world.guest.front);

		/* With requests in flight: they are answered before the ring is let go. */
		l = load_create(&world.guest, &(struct load_opts){.max_segments = 4, .depth = 4});
		held_hold(world.disk);
		load_fill(l);
		assert_true(held_wait(world.disk, 4));
		atomic_store(&sring->req_prod, atomic_load(&sring->rsp_prod) + leaps[i]);
		double_evtchn_notify(WORLD_GUEST, world.guest.port);
		for (unsigned n = 0; n < 20; n++)
			assert_null(load_step(other_load));
		/* The ring is in use as long as the device has requests from it. */
		assert_true(
			double_grant_is_mapped(WORLD_GUEST, front_ring_refs(world.guest.front)[0]));
		held_release(world.disk, false);
		assert_true(disk_wait_state(&world.guest.disk, 5));
		assert_int_equal(atomic_load(&sring->rsp_prod), 4);
		load_destroy(l);
		expect_broken();
		memset(held_data(world.disk), 0, WORLD_DISK_BYTES);
	}
	world_run_load(&(struct load_opts){.max_segments = 11}, 500);
	assert_null(load_run(other_load, 500));
	assert_null(load_compare(other_load, held_data(other_disk)));
	load_destroy(other_load);
}

/* Of the backend's own counter in the shared page only the backend's copy counts. */
static void the_backends_counter_is_its_own(void **state)
{
	struct blkif_sring *sring;
	uint64_t start;
	struct load *l;

	world_connect();
	sring = front_sring(world.guest.front);
	l = load_create(&world.guest, &(struct load_opts){.max_segments = 1, .depth = 4});
	for (unsigned i = 1; i <= 20; i++) {
		held_hold(world.disk);
		load_fill(l);
		assert_true(held_wait(world.disk, 4));
		atomic_store(&sring->rsp_prod, i * 0x10000001u);
		held_release(world.disk, false);
		start = host_now_ms();
		while (atomic_load(&sring->rsp_prod) != 4 * i) {
			assert_true(host_now_ms() - start < HOST_WAIT_MS);
			host_nap();
		}
		assert_null(load_finish(l));
	}
	load_destroy(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(bad_requests_are_refused),
		world_tests(good_requests_at_the_edge_are_served),
		world_tests(readonly_disks_take_no_data),
		world_tests(bad_grants_spoil_their_request_only),
		world_tests(bad_indirect_pages_spoil_their_request_only),
		world_tests(a_page_may_be_named_twice),
		world_test(failing_calls_pass),
		world_test(ringing_in_vain_costs_little),
		world_tests(hanging_disks_starve_nobody),
		world_tests(what_was_read_once_is_not_read_again),
		world_tests(scribbling_hurts_nobody),
		world_tests(wild_scribbling_hurts_nobody),
		world_tests(running_ahead_breaks_ones_own_ring_only),
		world_tests(the_backends_counter_is_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
