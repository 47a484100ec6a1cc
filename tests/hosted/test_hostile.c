/* SPDX-License-Identifier: BSD-2-Clause */
/* Frontends that mean harm: what they do to themselves is theirs, and nobody else notices. */
#include "trial.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct held *other_disk;
static struct load *other_load;

/* Two guests; the other one has work, and wants its due. */
static void connect_two(void)
{
	world_connect();
	other_disk = world_connect_other(&(struct guest_opts){0});
	other_load = load_create(&world.other, &(struct load_opts){.max_segments = 32});
}

/* The other one gets on; and so does a reactor that is asked for its figures. */
static void assert_other_works(unsigned requests)
{
	assert_null(load_run(other_load, requests));
	assert_null(load_compare(other_load, held_data(other_disk)));
	assert_true(world_stat(NULL, "in_flight") >= 0);
}

static void end_other(void)
{
	load_destroy(other_load);
	other_load = NULL;
}

/* A ring of the guest's own, filled slot by slot as it likes */

static void put_slot(uint32_t index, uint8_t operation, const void *rest, size_t len)
{
	uint8_t *slot = front_slot(world.guest.front, index);

	memset(slot, 0, blkif_layout_x86_64.request_bytes);
	memcpy(slot, rest, len);
	slot[BLKIF_REQ_OPERATION] = operation;
}

static void push_to(uint32_t index)
{
	atomic_store(&front_sring(world.guest.front)->req_prod, index);
	double_evtchn_notify(WORLD_GUEST, world.guest.port);
}

static void wait_answers(uint32_t index)
{
	uint64_t start = host_now_ms();

	while (atomic_load(&front_sring(world.guest.front)->rsp_prod) != index) {
		assert_true(host_now_ms() - start < HOST_WAIT_MS);
		host_nap();
	}
}

static int16_t status_at(uint32_t index, uint64_t *id, uint8_t *operation)
{
	const uint8_t *slot = front_slot(world.guest.front, index);
	int16_t status;

	memcpy(id, slot + BLKIF_RSP_ID, sizeof(*id));
	memcpy(&status, slot + BLKIF_RSP_STATUS, sizeof(status));
	*operation = slot[BLKIF_RSP_OPERATION];
	return status;
}

/* Every operation there is not, each with ids at the edges: answered as such, the id untouched. */
static void every_operation_is_answered_with_its_id(void **state)
{
	static const uint64_t ids[] = {0, 1, UINT64_MAX, 1ULL << 63, 0xffffffff, 0x100000000};
	uint32_t at = 0;

	world_connect();
	for (unsigned operation = 0; operation < 256; operation++) {
		uint8_t rest[BLKIF_MAX_REQUEST_BYTES] = {0}, got;
		uint64_t want = ids[operation % 6], id;
		int16_t status;

		if (operation == BLKIF_FLUSH_DISKCACHE || operation == BLKIF_WRITE_BARRIER)
			continue; /* good without segments */
		memcpy(rest + blkif_layout_x86_64.id, &want, sizeof(want));
		put_slot(at, (uint8_t)operation, rest, sizeof(rest));
		push_to(at + 1);
		wait_answers(at + 1);
		status = status_at(at, &id, &got);
		assert_int_equal(id, want);
		/* An INDIRECT is answered as what it is about: here a READ, of nothing. */
		assert_int_equal(got, operation == BLKIF_INDIRECT ? BLKIF_READ : operation);
		assert_int_equal(status, operation <= BLKIF_WRITE || operation == BLKIF_INDIRECT
						 ? BLKIF_ERROR
						 : BLKIF_EOPNOTSUPP);
		at++;
	}
	assert_int_equal(held_logged(world.disk), 0);
}

/* Requests with the same id are each answered. */
static void ids_need_not_differ(void **state)
{
	uint8_t rest[BLKIF_MAX_REQUEST_BYTES] = {0}, operation;
	uint64_t id = 7;

	world_connect();
	memcpy(rest + blkif_layout_x86_64.id, &id, sizeof(id));
	for (uint32_t i = 0; i < 32; i++)
		put_slot(i, BLKIF_FLUSH_DISKCACHE, rest, sizeof(rest));
	push_to(32);
	wait_answers(32);
	for (uint32_t i = 0; i < 32; i++) {
		assert_int_equal(status_at(i, &id, &operation), BLKIF_OKAY);
		assert_int_equal(id, 7);
		assert_int_equal(operation, BLKIF_FLUSH_DISKCACHE);
	}
	assert_int_equal(held_count(world.disk, BDEV_FLUSH), 32);
}

/* A grant that ends between one copy and the next, or while it is mapped. */
struct revoking {
	uint32_t at, ref; /* when @at is touched, @ref goes */
	bool done;
};

static void revoke_on_copy(void *arg, unsigned domid, uint32_t ref)
{
	struct revoking *r = arg;

	if (ref != r->at || r->done)
		return;
	r->done = true;
	double_revoke_by_force(domid, r->ref);
}

static void a_grant_that_ends_while_pages_are_copied(void **state)
{
	connect_two();
	for (unsigned round = 0; round < 2; round++) {
		for (uint8_t op = BLKIF_READ; op <= BLKIF_WRITE; op++) {
			struct trial bad, good;
			struct revoking r;

			trial_init(&bad, op, 5, 0);
			trial_init(&good, op, 5, 100);
			r = (struct revoking){.at = bad.pages[0].ref,
					      .ref = bad.pages[round ? 4 : 0].ref};
			double_on_copy(revoke_on_copy, &r);
			trial_send(&bad);
			trial_send(&good);
			trial_collect();
			double_on_copy(NULL, NULL);
			assert_true(r.done);
			assert_int_equal(bad.req.status, BLKIF_ERROR);
			assert_int_equal(good.req.status, BLKIF_OKAY);
			bad.pages[round ? 4 : 0].ref = 0;
			trial_fini(&bad);
			trial_fini(&good);
		}
	}
	assert_int_equal(world_stat(NULL, "share_errors"), 4);
	assert_other_works(200);
	end_other();
}

/* A guest that has its own ring overwritten by the disk spoils that ring and no other. */
static void reading_into_ones_own_ring(void **state)
{
	static const uint8_t fills[] = {0, 0xff, 0x33, 0x80};

	connect_two();
	for (unsigned round = 0; round < sizeof(fills); round++) {
		struct guest *g = &world.guest;
		struct trial t;

		memset(held_data(world.disk), fills[round], TRIAL_PAGE);
		trial_init(&t, BLKIF_READ, 1, 0);
		t.segments[0].gref = front_ring_refs(g->front)[0];
		trial_send(&t);
		double_evtchn_notify(WORLD_GUEST, g->port);
		assert_other_works(200);
		double_evtchn_notify(WORLD_GUEST, g->port);
		world_settle();
		/* Whatever became of it, it can come back. */
		guest_set_state(g, 6);
		assert_true(disk_wait_state(&g->disk, 6));
		assert_true(guest_free_front(g));
		guest_set_state(g, 1);
		assert_true(guest_connect(g, &(struct guest_opts){0}));
		world_assert_works(g);
		trial_fini(&t);
	}
	end_other();
}

/* Storms */

struct storm {
	atomic_bool stop;
	atomic_uint n;
};

static void *ring_without_end(void *arg)
{
	struct storm *s = arg;

	while (!atomic_load(&s->stop)) {
		double_evtchn_notify(WORLD_GUEST, world.guest.port);
		s->n++;
	}
	return NULL;
}

static void *write_without_end(void *arg)
{
	static const char *const keys[] = {"state",    "ring-ref",         "event-channel",
					   "protocol", "queue-0/ring-ref", "nothing"};
	struct storm *s = arg;
	char path[256];

	while (!atomic_load(&s->stop)) {
		snprintf(path, sizeof(path), "%s/%s", world.guest.disk.front, keys[s->n % 6]);
		xs_write(world.guest.xs, XBT_NULL, path, s->n % 3 ? "4" : "1", 1);
		s->n++;
	}
	return NULL;
}

static void *change_state_without_end(void *arg)
{
	struct storm *s = arg;
	unsigned short random[3] = {7, 8, 9};

	while (!atomic_load(&s->stop)) {
		/* Not Unknown: that is a frontend that was removed, and takes the disk with it. */
		guest_set_state(&world.guest, 1 + (unsigned)nrand48(random) % 9);
		s->n++;
	}
	return NULL;
}

static void assert_survives(void *(*storm)(void *arg))
{
	struct storm s = {.n = 0};
	pthread_t thread;
	uint64_t start;

	connect_two();
	assert_int_equal(pthread_create(&thread, NULL, storm, &s), 0);
	/* As long as it takes, on a busy machine, for there to have been a storm. */
	start = host_now_ms();
	do
		assert_other_works(500);
	while (atomic_load(&s.n) < 1000 && host_now_ms() - start < HOST_WAIT_MS);
	/* The control thread answers. */
	assert_int_equal(world_disks(world.daemon), 2);
	atomic_store(&s.stop, true);
	pthread_join(thread, NULL);
	assert_true(atomic_load(&s.n) >= 1000);
	assert_other_works(100);
	end_other();
}

static void a_storm_of_notifications(void **state)
{
	assert_survives(ring_without_end);
	world_assert_works(&world.guest);
}

static void a_storm_of_keys(void **state)
{
	assert_survives(write_without_end);
}

static void a_storm_of_states(void **state)
{
	assert_survives(change_state_without_end);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_tests(every_operation_is_answered_with_its_id),
		world_test(ids_need_not_differ),
		world_test(a_grant_that_ends_while_pages_are_copied),
		world_tests(reading_into_ones_own_ring),
		world_test(a_storm_of_notifications),
		world_test(a_storm_of_keys),
		world_test(a_storm_of_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
