/* SPDX-License-Identifier: BSD-2-Clause */
#include "trial.h"

#include <string.h>

void trial_connect(void)
{
	world_connect_disk(&(struct disk_opts){.target = "disk"}, &(struct guest_opts){0});
}

void trial_init(struct trial *t, uint8_t op, unsigned nr, uint64_t sector)
{
	memset(t, 0, sizeof(*t));
	t->nr_pages = nr;
	for (unsigned i = 0; i < nr; i++) {
		t->pages[i] = guest_page_new(&world.guest, false);
		memset(t->pages[i].data, 'p', TRIAL_PAGE);
		t->segments[i] =
			(struct blkif_wire_segment){.gref = t->pages[i].ref, .last_sect = 7};
	}
	t->req.op = op;
	t->req.sector = sector;
	t->req.segments = t->segments;
	t->req.nr_segments = nr;
}

void trial_init_batch(struct trial *t, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		trial_init(&t[i], i % 2 ? BLKIF_WRITE : BLKIF_READ, 11, i * 100);
}

void trial_fini(struct trial *t)
{
	for (unsigned i = 0; i < t->nr_pages; i++) {
		/* A test may have ended the grant itself. */
		if (t->pages[i].ref)
			guest_page_free(&world.guest, &t->pages[i]);
	}
}

void trial_send(struct trial *t)
{
	trial_send_batch(t, 1);
}

void trial_send_batch(struct trial *t, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		t[i].req.status = 99;
		assert_int_equal(front_submit(world.guest.front, &t[i].req), 0);
	}
	front_push(world.guest.front);
}

void trial_hold(struct trial *t, unsigned nr)
{
	held_hold(world.disk);
	for (unsigned i = 0; i < nr; i++) {
		trial_init(&t[i], i % 2 ? BLKIF_WRITE : BLKIF_READ, 3, i * 100);
		trial_send(&t[i]);
	}
	assert_true(held_wait(world.disk, nr));
}

void trial_collect(void)
{
	while (front_outstanding(world.guest.front)) {
		int n = front_wait(world.guest.front, HOST_WAIT_MS);

		if (n < 0)
			fail_msg("%s", front_fault(world.guest.front));
		assert_true(n > 0);
	}
}

bool trial_goes_by_bus(struct trial *t)
{
	unsigned before = held_by_bus(world.disk);

	trial_send(t);
	trial_collect();
	assert_int_equal(t->req.status, BLKIF_OKAY);
	return held_by_bus(world.disk) > before;
}

struct double_grant_use trial_use_of(uint32_t ref)
{
	struct double_grant_use use;

	double_grant_get_use(WORLD_GUEST, ref, &use);
	return use;
}
