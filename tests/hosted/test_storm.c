/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storm: requests of all kinds and sizes while administrators pause, resume and limit the disk,
 * its device fails and dawdles, its frontend connects anew, and daemons follow each other, all in
 * random order.  In the end each request has its answer, each pause too, and no memory is held.
 *
 * `test_storm SEED ROUNDS` plays another storm, as long as is wanted.  Threads make each run of a
 * seed a little different: one that has found something is to be tried several times.
 */
#include "admin.h"
#include "trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SLOTS = 32,
	SEGMENTS = 64,
	SECTORS = WORLD_DISK_BYTES / 512,
	LARGEST = SEGMENTS * 8, /* sectors of a request */
	BAD_REF = 999999,
};

static struct slot {
	struct front_req req;
	struct blkif_wire_segment segments[SEGMENTS];
	struct guest_page page;
	bool busy;
} slots[SLOTS];

static unsigned first_seed = 1, rounds = 800;
static unsigned state_of_chance;

static unsigned chance(unsigned n)
{
	return (unsigned)rand_r(&state_of_chance) % n;
}

static void slot_done(struct front_req *req)
{
	struct slot *s = req->arg;

	s->busy = false;
}

/* A request of any kind, mostly small; now and then it cannot be carried out. */
static void prepare(struct slot *s)
{
	static const uint8_t ops[] = {
		BLKIF_READ,          BLKIF_READ,    BLKIF_READ,  BLKIF_WRITE,
		BLKIF_WRITE,         BLKIF_WRITE,   BLKIF_WRITE, BLKIF_FLUSH_DISKCACHE,
		BLKIF_WRITE_BARRIER, BLKIF_DISCARD,
	};
	unsigned nr = 1 + chance(chance(3) ? 8 : SEGMENTS);

	s->req = (struct front_req){
		.op = ops[chance(sizeof(ops))],
		.sector = chance(SECTORS - LARGEST),
		.segments = s->segments,
		.done = slot_done,
		.arg = s,
	};
	if (s->req.op == BLKIF_DISCARD)
		s->req.discard_sectors = 1 + chance(LARGEST);
	else if (s->req.op == BLKIF_WRITE_BARRIER)
		s->req.nr_segments = chance(12); /* none, or as many as a slot holds */
	else if (s->req.op != BLKIF_FLUSH_DISKCACHE)
		s->req.nr_segments = nr;
	for (unsigned i = 0; i < s->req.nr_segments; i++)
		s->segments[i] = (struct blkif_wire_segment){.gref = s->page.ref,
							     .last_sect = (uint8_t)chance(8)};
	if (s->req.nr_segments && !chance(40))
		s->segments[chance(s->req.nr_segments)].gref = BAD_REF;
}

static void send_some(void)
{
	struct front *front = world.guest.front;

	for (unsigned i = 0; i < SLOTS; i++) {
		if (slots[i].busy || chance(2))
			continue;
		prepare(&slots[i]);
		slots[i].busy = !front_submit(front, &slots[i].req);
	}
	front_push(front);
	if (front_poll(front) < 0)
		fail_msg("%s", front_fault(front));
}

static void connect_frontend(void)
{
	assert_true(guest_connect(&world.guest, &(struct guest_opts){.max_segments = SEGMENTS}));
}

/* Whatever is in the ring is forgotten, as by a kernel that was booted anew. */
static void connect_anew(void)
{
	held_release(world.disk, false);
	guest_set_state(&world.guest, 6);
	assert_true(disk_wait_state(&world.guest.disk, 6));
	assert_true(guest_free_front(&world.guest));
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i].busy = false;
	guest_set_state(&world.guest, 1);
	connect_frontend();
}

static void change_daemons(const struct instance_opts *opts)
{
	held_release(world.disk, false);
	instance_end(world.daemon);
	send_some();
	world_start(opts);
	/* Not connected yet, it would be taken for one that starts anew. */
	assert_true(world_wait_served(&world.guest));
}

/* At once, be it that queues still start. Returns as befall(). */
static int pause_and_resume(void)
{
	int pauses = 0;

	if (chance(2))
		pauses += !admin_try_pause();
	if (chance(2))
		admin_resume();
	return pauses;
}

/* Something happens to the disk. Returns how many more pauses are to be answered. */
static int befall(const struct instance_opts *opts)
{
	switch (chance(28)) {
	case 0:
	case 1:
		return !admin_try_pause();
	case 2:
	case 3:
		admin_resume();
		break;
	case 4:
		admin_limit(chance(2) * (200 + chance(2000)), chance(2) * (1U << 20) * 10);
		break;
	case 5:
	case 6:
		held_fail(world.disk, chance(2) ? BDEV_READ : BDEV_WRITE, -EIO, 1 + chance(5));
		break;
	case 7:
	case 8:
		held_hold(world.disk);
		break;
	case 9:
	case 10:
		held_release(world.disk, chance(2));
		break;
	case 11:
		change_daemons(opts);
		return pause_and_resume();
	case 12:
		connect_anew();
		break;
	case 13:
	case 14:
		host_nap();
		break;
	default:
		break;
	}
	return 0;
}

/* All troubles end, and so must all requests. */
static void expect_calm(int pauses)
{
	uint64_t start = host_now_ms();

	held_release(world.disk, false);
	held_fail(world.disk, BDEV_READ, 0, 0);
	held_fail(world.disk, BDEV_WRITE, 0, 0);
	admin_limit(0, 0);
	while (front_outstanding(world.guest.front)) {
		/* What has failed meanwhile may have stopped it again. */
		admin_resume();
		host_nap();
		if (front_poll(world.guest.front) < 0)
			fail_msg("%s", front_fault(world.guest.front));
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
	}
	while (admin_quiet() + admin_failed() < pauses) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
	}
	assert_int_equal(admin_quiet() + admin_failed(), pauses);
	assert_int_equal(world_stat(NULL, "in_flight"), 0);
	assert_int_equal(world_stat(NULL, "parked"), 0);
	assert_int_equal(world_stat("memory", "bounce_pages"), 0);
}

/* What is scarce is very scarce, so that requests wait for it. */
static void play(const char *target, const struct instance_opts *opts)
{
	int pauses = 0;

	state_of_chance = first_seed;
	held_bdev(world.disk)->limits.discard = true;
	held_bdev(world.disk)->limits.discard_max = 64 << 10;
	world_start(opts);
	guest_create(&world.guest, &world.host, WORLD_GUEST, &(struct disk_opts){.target = target});
	connect_frontend();
	memset(slots, 0, sizeof(slots));
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i].page = guest_page_new(&world.guest, false);
	for (unsigned i = 0; i < rounds; i++) {
		send_some();
		pauses += befall(opts);
	}
	expect_calm(pauses);
	for (unsigned i = 0; i < SLOTS; i++)
		guest_page_free(&world.guest, &slots[i].page);
}

static void stopped_by_errors(void **state)
{
	play("disk,on-error=stop", &(struct instance_opts){.bounce_pages = 300,
							   .guest_bounce_pages = 10,
							   .guest_maps = 40});
}

static void trying_again(void **state)
{
	play("disk,on-error=retry:1", &(struct instance_opts){.reactors = 2});
}

static void reporting_errors(void **state)
{
	play("disk", &(struct instance_opts){.guest_bounce_pages = 1, .guest_maps = 1});
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		world_tests(stopped_by_errors),
		world_tests(trying_again),
		world_tests(reporting_errors),
	};

	if (argc > 1)
		first_seed = (unsigned)atoi(argv[1]);
	if (argc > 2)
		rounds = (unsigned)atoi(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
