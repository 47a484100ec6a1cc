/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frontend over a segment, against a backend played by hand: the handshake and its lives, and
 * everything that a backend could say and should not be believed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "front/segment.h"
#include "player.h"

enum { SEGMENT = 1 << 20 };

static struct player player;
static struct sivshm_port *port; /* the frontend's side */

static int begin(void **state)
{
	char where[32];

	player_start(&player, SEGMENT);
	player_where(&player, where, sizeof(where));
	return sivshm_open(where, 1000, &port);
}

static int end(void **state)
{
	sivshm_port_close(port);
	player_end(&player);
	return 0;
}

static const struct front_segment_opts plain = {
	.queues = 2, .ring_order = 1, .max_segments = 16, .sync_pages = 8};

static struct front_segment *create(const struct front_segment_opts *opts)
{
	struct front_segment *s;

	assert_int_equal(front_segment_create(port, opts, &s), 0);
	return s;
}

/* Both in turns, until the frontend has something to say. */
static int play(struct front_segment *s)
{
	int rc = 0;

	for (int i = 0; !rc && i < 20; i++) {
		rc = front_segment_advance(s);
		player_step(&player);
	}
	return rc;
}

static void close_by_steps(struct front_segment *s)
{
	player_serve(&player);
	assert_int_equal(front_segment_close(s, 5000), 0);
	player_leave(&player);
	front_segment_destroy(s);
}

static void handshake_makes_queues(void **state)
{
	struct front_segment *s = create(&plain);
	const struct front_segment_disk *disk = front_segment_disk(s);
	const struct control_frontend *f = &player.page->frontend;
	unsigned before = front_segment_pages_left(s);
	const uint32_t *refs;

	assert_int_equal(before, SEGMENT / 4096 - 1);
	assert_int_equal(play(s), 1);
	assert_int_equal(disk->queues, 2);
	assert_int_equal(disk->depth, 64);
	assert_int_equal(disk->layout, CONTROL_LAYOUT_LINE);
	assert_int_equal(disk->max_segments, 16);
	assert_int_equal(disk->features, CONTROL_FLUSH);
	assert_int_equal(front_segment_sectors(s), PLAYER_DISK / 512);
	/* What was told is what is: rings of two pages, neither of which is the control page. */
	assert_int_equal(f->version, CONTROL_VERSION);
	assert_int_equal(f->nr_queues, 2);
	assert_int_equal(f->ring_order, 1);
	for (unsigned n = 0; n < 2; n++) {
		refs = front_ring_refs(front_segment_queue(s, n));
		assert_int_equal(f->rings[n], refs[0]);
		assert_int_equal(refs[1], refs[0] + 1);
		assert_in_range(refs[0], 1, SEGMENT / 4096 - 2);
	}
	/* Rings, indirect pages, and those of front_rw_sync(). */
	assert_int_equal(before - front_segment_pages_left(s), 2 * (2 + 64 + 8));
	assert_null(front_segment_fault(s));
	close_by_steps(s);
}

static void data_goes_through(void **state)
{
	uint8_t out[20 * 512], in[20 * 512];
	struct front_segment *s = create(&plain);

	player_serve(&player);
	assert_int_equal(front_segment_connect(s, 5000), 0);
	for (unsigned n = 0; n < 2; n++) {
		struct front *f = front_segment_queue(s, n);

		memset(out, (int)n + 1, sizeof(out));
		assert_int_equal(front_rw_sync(f, BLKIF_WRITE, 100 + n, out, sizeof(out)), 0);
		assert_int_equal(front_rw_sync(f, BLKIF_READ, 100 + n, in, sizeof(in)), 0);
		assert_memory_equal(in, out, sizeof(in));
		assert_memory_equal(player.disk + (size_t)(100 + n) * 512, out, sizeof(out));
	}
	player_leave(&player);
	close_by_steps(s);
}

/* Each life has an epoch that the backend was not in, and finds the disk as the one before. */
static void lives_follow_each_other(void **state)
{
	uint32_t epoch = 0;

	for (int life = 0; life < 5; life++) {
		struct front_segment *s = create(&plain);

		assert_int_equal(play(s), 1);
		assert_int_not_equal(player.page->backend.epoch, epoch);
		epoch = player.page->backend.epoch;
		/* Every other one ends without a word, as a guest does that reboots. */
		if (life % 2)
			close_by_steps(s);
		else
			front_segment_destroy(s);
	}
	/* Whatever epoch was asked for last, the next is not the one that the backend is in. */
	for (uint32_t d = 0; d < 5; d++) {
		struct front_segment *s = create(&plain);

		epoch = player.page->backend.epoch;
		player.page->frontend.epoch = epoch - 2 + d;
		assert_int_equal(play(s), 1);
		assert_int_not_equal(player.page->backend.epoch, epoch);
		epoch = player.page->backend.epoch;
		front_segment_destroy(s);
	}
	/* Two lives of which the first was never answered are two epochs. */
	for (int i = 0; i < 2; i++) {
		struct front_segment *s = create(&plain);

		assert_int_equal(front_segment_advance(s), 0);
		assert_int_not_equal(player.page->frontend.epoch, epoch);
		epoch = player.page->frontend.epoch;
		front_segment_destroy(s);
	}
}

static void waits_for_a_backend(void **state)
{
	struct front_segment *s = create(&plain);

	player.page->backend.magic = 0;
	assert_int_equal(front_segment_advance(s), 0);
	assert_int_equal(player.page->frontend.state, CONTROL_FRONTEND_NONE);
	assert_int_equal(front_segment_connect(s, 20), -ETIMEDOUT);
	player.page->backend.magic = CONTROL_MAGIC;
	assert_int_equal(play(s), 1);
	close_by_steps(s);
}

/* An offer of another epoch is not for us. */
static void offers_of_other_lives_are_let_pass(void **state)
{
	struct front_segment *s = create(&plain);

	assert_int_equal(front_segment_advance(s), 0);
	player.page->backend.epoch = player.page->frontend.epoch + 7;
	player.page->backend.state = CONTROL_BACKEND_OFFER;
	assert_int_equal(front_segment_advance(s), 0);
	assert_int_equal(player.page->frontend.state, CONTROL_FRONTEND_INIT);
	player.page->backend.state = CONTROL_BACKEND_CLOSED;
	assert_int_equal(front_segment_advance(s), 0);
	front_segment_destroy(s);
}

static void wishes_are_cut_to_what_is_offered(void **state)
{
	struct front_segment_opts opts = {
		.queues = 63, .ring_order = 4, .max_segments = 4096, .sync_pages = 1};
	struct front_segment *s;

	player.offer.max_queues = 1;
	player.offer.max_ring_order = 0;
	player.offer.max_indirect_segments = 3;
	player.offer.layouts = CONTROL_LAYOUT_X86_64;
	s = create(&opts);
	assert_int_equal(play(s), 1);
	assert_int_equal(front_segment_disk(s)->queues, 1);
	assert_int_equal(front_segment_disk(s)->depth, 32);
	assert_int_equal(front_segment_disk(s)->max_segments, 3);
	assert_int_equal(front_segment_disk(s)->layout, CONTROL_LAYOUT_X86_64);
	close_by_steps(s);
	/* A queue needs a vector: the port has one for each of four. */
	player.offer.max_queues = 63;
	opts.max_segments = 0;
	s = create(&opts);
	assert_int_equal(play(s), 1);
	assert_int_equal(front_segment_disk(s)->queues, PLAYER_QUEUES);
	close_by_steps(s);
	opts.layouts = CONTROL_LAYOUT_X86_64;
	player.offer.layouts = CONTROL_LAYOUT_X86_64 | CONTROL_LAYOUT_LINE;
	s = create(&opts);
	assert_int_equal(play(s), 1);
	assert_int_equal(front_segment_disk(s)->layout, CONTROL_LAYOUT_X86_64);
	close_by_steps(s);
}

struct lie {
	const char *name;
	size_t offset;
	uint32_t value;
};
#define LIE(field, value)                                                         \
	{                                                                         \
#field " " #value, offsetof(struct control_backend, field), value \
	}

static const struct lie lies[] = {
	LIE(pages, 0),
	LIE(pages, SEGMENT / 4096 - 1),
	LIE(pages, SEGMENT / 4096 + 1),
	LIE(pages, UINT32_MAX),
	LIE(max_queues, 0),
	LIE(max_queues, 64),
	LIE(max_queues, UINT32_MAX),
	LIE(max_ring_order, 5),
	LIE(max_ring_order, UINT32_MAX),
	LIE(max_indirect_segments, 4097),
	LIE(max_indirect_segments, UINT32_MAX),
	LIE(sector_size, 0),
	LIE(sector_size, 511),
	LIE(sector_size, 8192),
	LIE(physical_sector_size, 0),
	LIE(layouts, 0),
	LIE(layouts, 0x80000000),
};

static void offers_that_cannot_be_are_refused(void **state)
{
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct control_backend good = player.offer;
		struct front_segment *s = create(&plain);

		memcpy((char *)&player.offer + lies[i].offset, &lies[i].value, sizeof(uint32_t));
		if (play(s) != -EPROTO)
			fail_msg("believed: %s", lies[i].name);
		assert_non_null(front_segment_fault(s));
		/* Nothing was chosen. */
		assert_int_equal(player.page->frontend.state, CONTROL_FRONTEND_INIT);
		front_segment_destroy(s);
		player.offer = good;
	}
}

static void other_pages_and_versions_are_refused(void **state)
{
	struct front_segment *s = create(&plain);

	player.page->backend.magic ^= 1;
	assert_int_equal(front_segment_advance(s), -EPROTO);
	assert_int_equal(front_segment_advance(s), -EPROTO);
	front_segment_destroy(s);
	player.page->backend.magic ^= 1;
	player.page->backend.version = 2;
	s = create(&plain);
	assert_int_equal(front_segment_advance(s), -EPROTO);
	front_segment_destroy(s);
	/* Nobody was asked for anything. */
	assert_int_equal(player.page->frontend.state, CONTROL_FRONTEND_NONE);
}

/* What follows from each state of ours, when the backend says each of its own. */
static void states_that_cannot_follow_are_refused(void **state)
{
	enum { LATER = 0, IN = 1, REFUSED = -ECONNREFUSED, WRONG = -EPROTO };
	static const int expected[3][8] = {
		/* NONE, OFFER, CONNECTED, REFUSED, CLOSING, CLOSED, 6, 7 */
		{LATER, LATER, WRONG, REFUSED, REFUSED, REFUSED, WRONG, WRONG}, /* INIT */
		{WRONG, LATER, IN, REFUSED, REFUSED, REFUSED, WRONG, WRONG},    /* READY */
		{WRONG, WRONG, IN, REFUSED, IN, REFUSED, WRONG, WRONG},         /* connected */
	};

	for (int stage = 0; stage < 3; stage++) {
		for (uint32_t says = 0; says < 8; says++) {
			struct front_segment *s = create(&plain);

			assert_int_equal(front_segment_advance(s), 0);
			player_step(&player);
			if (stage == 0) {
				player.page->backend.state = CONTROL_BACKEND_NONE;
			} else {
				assert_int_equal(front_segment_advance(s), 0);
				if (stage == 2)
					player_step(&player);
				assert_int_equal(front_segment_advance(s), stage == 2);
			}
			player.page->backend.state = says;
			if (front_segment_advance(s) != expected[stage][says])
				fail_msg("at stage %d, after state %u", stage, says);
			front_segment_destroy(s);
		}
	}
}

static void refusals_say_why(void **state)
{
	struct front_segment *s = create(&plain);

	player.refuses = true;
	/* No end, and not to be printed as it is. */
	memset(player.offer.error, 'x', sizeof(player.offer.error));
	player.offer.error[3] = '\033';
	assert_int_equal(play(s), -ECONNREFUSED);
	assert_non_null(strstr(front_segment_fault(s), "refused: xxx?xx"));
	assert_int_equal(strlen(front_segment_fault(s)),
			 strlen("refused: ") + CONTROL_ERROR_MAX - 1);
	front_segment_destroy(s);
}

static void a_disk_grows_and_goes(void **state)
{
	struct front_segment *s = create(&plain);

	assert_int_equal(play(s), 1);
	player.page->backend.sectors = 12345;
	player.page->backend.revision++;
	assert_int_equal(front_segment_sectors(s), 12345);
	assert_false(front_segment_is_closing(s));
	player_say(&player, CONTROL_BACKEND_CLOSING);
	assert_true(front_segment_is_closing(s));
	assert_int_equal(front_segment_advance(s), 1);
	close_by_steps(s);
}

/* A backend that says nothing more keeps pages in use; one that is gone does not. */
static void closing_waits_for_the_backend(void **state)
{
	struct front_segment *s = create(&plain);

	assert_int_equal(play(s), 1);
	assert_int_equal(front_segment_close(s, 20), -ETIMEDOUT);
	assert_int_equal(player.page->frontend.state, CONTROL_FRONTEND_CLOSING);
	sivshm_worker_remove(player.worker);
	assert_int_equal(front_segment_close(s, 10000), 0);
	front_segment_destroy(s);
}

static void pages_are_given_once(void **state)
{
	enum { PAGES = SEGMENT / 4096 };
	static uint8_t owner[PAGES];
	struct front_segment *s = create(&plain);
	uint32_t refs[PAGES];
	void *pages[3];

	memset(owner, 0, sizeof(owner));
	assert_null(front_segment_pages_alloc(s, 0, refs));
	assert_null(front_segment_pages_alloc(s, PAGES, refs));
	for (unsigned i = 0; i < 3; i++) {
		pages[i] = front_segment_pages_alloc(s, 5, refs);
		for (unsigned n = 0; n < 5; n++) {
			assert_ptr_equal((char *)pages[i] + (size_t)n * 4096,
					 (char *)sivshm_port_memory(port) + (size_t)refs[n] * 4096);
			assert_int_equal(owner[refs[n]]++, 0);
		}
	}
	assert_int_equal(owner[0], 0);
	/* The hole is too small for six, and right for five. */
	front_segment_pages_free(s, pages[1], 5);
	assert_int_equal(front_segment_pages_left(s), PAGES - 11);
	assert_true((char *)front_segment_pages_alloc(s, 6, refs) > (char *)pages[2]);
	assert_ptr_equal(front_segment_pages_alloc(s, 5, refs), pages[1]);
	/* All that is left, and no page more. */
	assert_null(front_segment_pages_alloc(s, PAGES - 21, refs));
	assert_non_null(front_segment_pages_alloc(s, PAGES - 22, refs));
	assert_int_equal(front_segment_pages_left(s), 0);
	assert_null(front_segment_pages_alloc(s, 1, refs));
	front_segment_destroy(s);
}

static void a_small_segment_is_said_to_be(void **state)
{
	struct front_segment_opts opts = plain;
	struct front_segment *s;

	opts.queues = 4;
	opts.ring_order = 4; /* 2048 slots, with an indirect page each */
	s = create(&opts);
	assert_int_equal(play(s), -ENOMEM);
	assert_non_null(strstr(front_segment_fault(s), "too small"));
	front_segment_destroy(s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(handshake_makes_queues),
		TEST(data_goes_through),
		TEST(lives_follow_each_other),
		TEST(waits_for_a_backend),
		TEST(offers_of_other_lives_are_let_pass),
		TEST(wishes_are_cut_to_what_is_offered),
		TEST(offers_that_cannot_be_are_refused),
		TEST(other_pages_and_versions_are_refused),
		TEST(states_that_cannot_follow_are_refused),
		TEST(refusals_say_why),
		TEST(a_disk_grows_and_goes),
		TEST(closing_waits_for_the_backend),
		TEST(pages_are_given_once),
		TEST(a_small_segment_is_said_to_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
