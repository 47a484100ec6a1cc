/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels between two honest sides: what is sent arrives, whole, once and in order, wherever the
 * ring ends; who sleeps is rung, and nobody else.  Payloads are full of what would be headers if
 * ever one was taken for one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "channel_layout.h"
#include "port_double.h"

enum { SEGMENT = 16384, TRIES = 200000, WAITING_MAX = 512 };

static struct port_pair pair;
static struct sivshm_channel *manager, *worker;
static unsigned state_of_chance;

static unsigned chance(unsigned n)
{
	return (unsigned)rand_r(&state_of_chance) % n;
}

/* Both ends of a new channel of @bytes at the end of a segment. */
static void open_channel(size_t bytes)
{
	struct sivshm_channel_opts opts = {
		.struct_bytes = sizeof(opts), .offset = SEGMENT - bytes, .bytes = bytes};

	state_of_chance = 1;
	pair = port_pair_make(SEGMENT);
	assert_int_equal(sivshm_channel_attach(pair.worker, &opts, &worker), -EAGAIN);
	assert_int_equal(sivshm_channel_create(pair.manager, &opts, &manager), 0);
	opts.bytes = 0;
	assert_int_equal(sivshm_channel_attach(pair.worker, &opts, &worker), 0);
	assert_true(sivshm_channel_max(manager) >= bytes / 7);
	assert_int_equal(sivshm_channel_max(manager), sivshm_channel_max(worker));
}

static void close_channel(void)
{
	sivshm_channel_destroy(manager);
	sivshm_channel_destroy(worker);
	port_pair_free(pair);
}

/* Byte @i of message @number: words that are headers of messages of one byte. */
static uint8_t content(uint64_t number, size_t i)
{
	static const uint8_t forged[8] = {1, 0, 0, 0, 8, 0, CHANNEL_KIND_MESSAGE, 0};

	return i < 8 ? (uint8_t)(number >> i * 8) : forged[i % 8];
}

static void fill(uint8_t *to, uint64_t number, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = content(number, i);
}

static void check(const uint8_t *from, uint64_t number, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (from[i] != content(number, i))
			fail_msg("message %u, byte %zu of %zu: %u", (unsigned)number, i, bytes,
				 from[i]);
}

static void check_next(struct sivshm_channel *c, uint64_t number, size_t bytes)
{
	const void *data;
	size_t got;

	assert_int_equal(sivshm_channel_receive(c, &data, &got), 1);
	assert_int_equal(got, bytes);
	assert_int_equal((uintptr_t)data % (bytes < 512 ? 8 : 64), 0);
	check(data, number, bytes);
}

static void send(struct sivshm_channel *c, uint64_t number, size_t bytes)
{
	static uint8_t data[SEGMENT];

	fill(data, number, bytes);
	assert_int_equal(sivshm_channel_send(c, data, bytes), 0);
}

static void every_size_goes_both_ways(void **state)
{
	uint8_t back[SEGMENT];

	open_channel(SEGMENT);
	for (size_t bytes = 0; bytes <= sivshm_channel_max(manager); bytes++) {
		send(manager, bytes, bytes);
		send(worker, ~bytes, bytes);
		check_next(worker, bytes, bytes);
		sivshm_channel_release(worker);
		assert_int_equal(sivshm_channel_recv(manager, back, sizeof(back)), bytes);
		check(back, ~bytes, bytes);
	}
	close_channel();
}

/* From some size on they are copied in another way. */
static void large_ones_arrive_whole(void **state)
{
	enum { MIB = 1 << 20, LARGE = 128 << 10 };
	uint8_t *data = malloc(LARGE + 16);

	assert_non_null(data);
	pair = port_pair_make(MIB);
	assert_int_equal(sivshm_channel_create(pair.manager, NULL, &manager), 0);
	assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &worker), 0);
	for (size_t bytes = LARGE - 16; bytes <= LARGE + 16; bytes++) {
		fill(data, bytes, bytes);
		assert_int_equal(sivshm_channel_send(manager, data, bytes), 0);
		check_next(worker, bytes, bytes);
		sivshm_channel_release(worker);
	}
	free(data);
	close_channel();
}

static void larger_than_the_largest_is_refused(void **state)
{
	uint8_t data[SEGMENT] = {0};
	void *to;

	open_channel(SEGMENT);
	assert_int_equal(sivshm_channel_send(worker, data, sivshm_channel_max(worker) + 1),
			 -EMSGSIZE);
	assert_int_equal(sivshm_channel_reserve(worker, SIZE_MAX, &to), -EMSGSIZE);
	assert_int_equal(sivshm_channel_arm_room(worker, SIZE_MAX), -EMSGSIZE);
	assert_int_equal(sivshm_channel_wait_room(worker, SIZE_MAX, -1), -EMSGSIZE);
	close_channel();
}

/* What the essay in channel.c promises: with all read, the largest message finds room anywhere. */
static void an_empty_ring_takes_the_largest_anywhere(void **state)
{
	static const size_t areas[] = {SIVSHM_CHANNEL_MIN, SIVSHM_CHANNEL_MIN + 64, 8192, SEGMENT};

	for (unsigned a = 0; a < sizeof(areas) / sizeof(areas[0]); a++) {
		open_channel(areas[a]);
		for (unsigned n = 0; n < 3000; n++) {
			size_t small = chance(64);
			size_t large = sivshm_channel_max(manager) - chance(9);

			send(manager, n, small);
			check_next(worker, n, small);
			sivshm_channel_release(worker);
			send(manager, n, large);
			check_next(worker, n, large);
			sivshm_channel_release(worker);
		}
		close_channel();
	}
}

/* Random sends, commits of less than was reserved, receives and releases, by a model. */
static void a_model_agrees(size_t bytes)
{
	size_t waiting[WAITING_MAX];
	uint64_t sent = 0, received = 0;
	size_t full = 0, most = 0;

	open_channel(bytes);
	for (unsigned n = 0; n < TRIES; n++) {
		size_t want =
			chance(4) ? chance(100) : chance((unsigned)sivshm_channel_max(manager) + 1);
		void *to;

		switch (chance(5)) {
		case 0:
		case 1:
			if (sent - received == WAITING_MAX)
				break;
			if (sivshm_channel_reserve(manager, want, &to)) {
				/* What does not fit is never there in part. */
				assert_int_equal(sivshm_channel_arm_room(manager, want), 0);
				full++;
				break;
			}
			/* All that is reserved may be written, whatever is committed. */
			fill(to, sent, want);
			if (!chance(3))
				want = chance((unsigned)want + 1);
			sivshm_channel_commit(manager, want);
			waiting[sent++ % WAITING_MAX] = want;
			if (sent - received > most)
				most = sent - received;
			break;
		case 2:
		case 3:
			if (received < sent) {
				check_next(worker, received, waiting[received % WAITING_MAX]);
				received++;
			} else {
				const void *data;

				assert_int_equal(sivshm_channel_receive(worker, &data, &want), 0);
			}
			break;
		default:
			sivshm_channel_release(worker);
		}
	}
	/* All that the test is about did happen. */
	assert_true(full > 100);
	assert_true(most > 10);
	close_channel();
}

static void a_model_agrees_with_small_and_large(void **state)
{
	a_model_agrees(SIVSHM_CHANNEL_MIN);
	a_model_agrees(SEGMENT);
}

static void receiving_into_too_little_leaves_the_message(void **state)
{
	uint8_t data[100];

	open_channel(SEGMENT);
	assert_int_equal(sivshm_channel_recv(worker, data, sizeof(data)), -EAGAIN);
	send(manager, 7, 100);
	assert_int_equal(sivshm_channel_recv(worker, data, 99), -EMSGSIZE);
	assert_int_equal(sivshm_channel_recv(worker, data, 100), 100);
	check(data, 7, 100);
	close_channel();
}

static void committing_without_reserving_sends_nothing(void **state)
{
	const void *data;
	size_t bytes;
	void *to;

	open_channel(SEGMENT);
	sivshm_channel_commit(manager, 8);
	while (!sivshm_channel_reserve(manager, 64, &to))
		sivshm_channel_commit(manager, 64);
	sivshm_channel_commit(manager, 64);
	while (sivshm_channel_receive(worker, &data, &bytes) == 1)
		assert_int_equal(bytes, 64);
	/* To look for room does not move what is reserved. */
	sivshm_channel_release(worker);
	assert_int_equal(sivshm_channel_reserve(manager, 64, &to), 0);
	fill(to, 9, 64);
	assert_int_equal(sivshm_channel_arm_room(manager, sivshm_channel_max(manager)), 1);
	sivshm_channel_commit(manager, 64);
	check_next(worker, 9, 64);
	close_channel();
}

static unsigned rings(const struct sivshm_port *p)
{
	return port_double_rings(p, 0);
}

static void only_a_sleeper_is_rung_and_once(void **state)
{
	open_channel(SEGMENT);
	send(manager, 0, 8);
	assert_int_equal(sivshm_channel_push(manager), 0);
	assert_int_equal(rings(pair.worker), 0);

	/* There is one: no reason to sleep. */
	assert_int_equal(sivshm_channel_arm(worker), 1);
	check_next(worker, 0, 8);
	assert_int_equal(sivshm_channel_arm(worker), 0);
	assert_int_equal(sivshm_channel_push(manager), 0);
	assert_int_equal(rings(pair.worker), 0);
	send(manager, 1, 8);
	send(manager, 2, 8);
	assert_int_equal(rings(pair.worker), 0);
	assert_int_equal(sivshm_channel_push(manager), 0);
	assert_int_equal(rings(pair.worker), 1);
	send(manager, 3, 8);
	assert_int_equal(sivshm_channel_push(manager), 0);
	assert_int_equal(rings(pair.worker), 1);

	/* It has seen messages that were not pushed yet, and sleeps behind them. */
	send(manager, 4, 8);
	for (unsigned n = 1; n <= 4; n++)
		check_next(worker, n, 8);
	assert_int_equal(sivshm_channel_arm(worker), 0);
	assert_int_equal(sivshm_channel_push(manager), 0);
	assert_int_equal(rings(pair.worker), 1);
	send(manager, 5, 8);
	assert_int_equal(sivshm_channel_push(manager), 0);
	assert_int_equal(rings(pair.worker), 2);
	close_channel();
}

static void a_sender_without_room_is_rung_when_there_is_some(void **state)
{
	const size_t bytes = 200;
	uint64_t sent = 0, received = 0;

	open_channel(SEGMENT);
	for (unsigned lap = 0; lap < 300; lap++) {
		/* What is waited for is more than what is sent, at times: it wakes no sooner. */
		size_t wanted = bytes + chance((unsigned)(sivshm_channel_max(manager) - bytes));
		unsigned before = rings(pair.manager);

		while (sivshm_channel_arm_room(manager, wanted) == 1)
			send(manager, sent++, bytes);
		while (rings(pair.manager) == before) {
			assert_true(received < sent);
			check_next(worker, received++, bytes);
			sivshm_channel_release(worker);
			if (rings(pair.manager) == before)
				assert_int_equal(sivshm_channel_arm_room(manager, wanted), 0);
		}
		assert_int_equal(sivshm_channel_arm_room(manager, wanted), 1);
		while (received < sent)
			check_next(worker, received++, bytes);
		sivshm_channel_release(worker);
		assert_int_equal(rings(pair.manager), before + 1);
	}
	close_channel();
}

static void sleeping_tells_of_what_was_read(void **state)
{
	open_channel(SEGMENT);
	assert_int_equal(sivshm_channel_arm_room(manager, sivshm_channel_max(manager)), 1);
	send(manager, 0, sivshm_channel_max(manager));
	send(manager, 1, sivshm_channel_max(manager));
	assert_int_equal(sivshm_channel_arm_room(manager, sivshm_channel_max(manager)), 0);
	check_next(worker, 0, sivshm_channel_max(manager));
	check_next(worker, 1, sivshm_channel_max(manager));
	/* What was not given back is not told. */
	assert_int_equal(sivshm_channel_arm(worker), 0);
	assert_int_equal(rings(pair.manager), 0);
	sivshm_channel_release(worker);
	assert_int_equal(rings(pair.manager), 1);
	close_channel();
}

static void nobody_sleeps_before_pushing(void **state)
{
	open_channel(SEGMENT);
	assert_int_equal(sivshm_channel_arm(worker), 0);
	send(manager, 0, 8);
	assert_int_equal(sivshm_channel_wait(manager, 1), 0);
	assert_int_equal(rings(pair.worker), 1);

	check_next(worker, 0, 8);
	assert_int_equal(sivshm_channel_arm(worker), 0);
	while (sivshm_channel_arm_room(manager, 8))
		send(manager, 1, 8);
	assert_int_equal(sivshm_channel_wait_room(manager, 8, 1), 0);
	assert_int_equal(rings(pair.worker), 2);
	close_channel();

	/* Who waits for no time at all can do so for ever. */
	open_channel(SEGMENT);
	assert_int_equal(sivshm_channel_arm(worker), 0);
	send(manager, 0, 8);
	assert_int_equal(sivshm_channel_wait(manager, 0), 0);
	assert_int_equal(rings(pair.worker), 1);
	close_channel();
}

static void say_last_words(void)
{
	send(manager, 1, 8);
}

static void waiting_ends(void **state)
{
	uint8_t data[8];

	open_channel(SEGMENT);
	assert_int_equal(sivshm_channel_wait(worker, 0), 0);
	assert_int_equal(sivshm_channel_wait(worker, 1), 0);
	send(manager, 0, 8);
	assert_int_equal(sivshm_channel_wait(worker, -1), 1);
	assert_int_equal(sivshm_channel_wait_room(worker, 8, -1), 1);

	/* Last words are heard. */
	assert_int_equal(sivshm_channel_recv(worker, data, 8), 8);
	port_double_lose_peer(pair.worker, say_last_words);
	assert_int_equal(sivshm_channel_wait(worker, -1), 1);
	check_next(worker, 1, 8);
	port_double_lose_peer(pair.worker, NULL);
	assert_int_equal(sivshm_channel_wait(worker, -1), -EPIPE);
	while (!sivshm_channel_send(worker, data, 8))
		;
	assert_int_equal(sivshm_channel_wait_room(worker, 8, -1), -EPIPE);
	close_channel();
}

static void a_worker_goes_on_where_another_ended(void **state)
{
	struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts)};
	uint64_t down = 0, up = 0;

	open_channel(SEGMENT);
	for (unsigned n = 0; n < 2000; n++) {
		struct channel_head *head = sivshm_port_memory(pair.worker);
		struct channel_side *own = &head->sides[CHANNEL_WORKER];
		size_t bytes = chance(1000);
		uint64_t sent;

		send(manager, down, bytes);
		check_next(worker, down++, bytes);
		sivshm_channel_release(worker);
		sent = atomic_load(&own->sent);
		send(worker, up, bytes);
		if (chance(2)) /* the worker ended in between */
			atomic_store(&own->sent, sent);
		sivshm_channel_destroy(worker);
		assert_int_equal(sivshm_channel_attach(pair.worker, &opts, &worker), 0);
		send(worker, up + 1, bytes);
		check_next(manager, up, bytes);
		check_next(manager, up + 1, bytes);
		up += 2;
		sivshm_channel_release(manager);
	}
	close_channel();
}

/* Its last message is out, and not counted: whether the other side is quick makes no difference. */
static void last_words_may_have_been_read(void **state)
{
	const struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts)};
	uint64_t number = 0;

	open_channel(SEGMENT);
	for (unsigned n = 0; n < 2000; n++) {
		struct channel_head *head = sivshm_port_memory(pair.worker);
		struct channel_side *own = &head->sides[CHANNEL_WORKER];
		uint64_t sent = atomic_load(&own->sent);
		size_t bytes = chance(3000);

		send(worker, number, bytes);
		atomic_store(&own->sent, sent);
		check_next(manager, number++, bytes);
		sivshm_channel_release(manager);
		assert_int_equal(sivshm_channel_arm(manager), 0);
		sivshm_channel_destroy(worker);
		assert_int_equal(sivshm_channel_attach(pair.worker, &opts, &worker), 0);
		if (chance(2)) {
			send(worker, number, 1);
			assert_int_equal(sivshm_channel_push(worker), 0);
			check_next(manager, number++, 1);
		}
	}
	close_channel();
}

static void what_was_not_given_back_comes_again(void **state)
{
	struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts)};

	open_channel(SEGMENT);
	for (unsigned n = 0; n < 4; n++)
		send(manager, n, 20);
	check_next(worker, 0, 20);
	sivshm_channel_release(worker);
	check_next(worker, 1, 20);
	sivshm_channel_destroy(worker);
	assert_int_equal(sivshm_channel_attach(pair.worker, &opts, &worker), 0);
	for (unsigned n = 1; n < 4; n++)
		check_next(worker, n, 20);
	close_channel();
}

static void channels_lie_side_by_side(void **state)
{
	struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts), .bytes = 4096};
	struct sivshm_channel *of[2][4];

	pair = port_pair_make(SEGMENT);
	for (unsigned i = 0; i < 4; i++) {
		opts.offset = (size_t)i * 4096;
		opts.vector = i % PORT_DOUBLE_VECTORS;
		assert_int_equal(sivshm_channel_create(pair.manager, &opts, &of[0][i]), 0);
		assert_int_equal(sivshm_channel_attach(pair.worker, &opts, &of[1][i]), 0);
	}
	state_of_chance = 1;
	for (unsigned n = 0; n < 10000; n++) {
		unsigned i = chance(4), way = chance(2);
		size_t bytes = chance((unsigned)sivshm_channel_max(of[0][i]) + 1);

		send(of[way][i], n, bytes);
		check_next(of[!way][i], n, bytes);
		sivshm_channel_release(of[!way][i]);
	}
	assert_int_equal(sivshm_channel_arm(of[1][3]), 0);
	send(of[0][3], 0, 1);
	assert_int_equal(sivshm_channel_push(of[0][3]), 0);
	assert_int_equal(port_double_rings(pair.worker, 1), 1);
	assert_int_equal(port_double_rings(pair.worker, 0), 0);
	for (unsigned i = 0; i < 4; i++) {
		sivshm_channel_destroy(of[0][i]);
		sivshm_channel_destroy(of[1][i]);
	}
	port_pair_free(pair);
}

static void options_that_make_no_sense_are_refused(void **state)
{
	static const struct sivshm_channel_opts bad[] = {
		{.struct_bytes = 0},
		{.struct_bytes = sizeof(bad[0]) + 8},
		{.struct_bytes = sizeof(bad[0]), .offset = 8},
		{.struct_bytes = sizeof(bad[0]), .offset = SEGMENT},
		{.struct_bytes = sizeof(bad[0]), .offset = SIZE_MAX / 64 * 64},
		{.struct_bytes = sizeof(bad[0]), .bytes = SEGMENT + 1},
		{.struct_bytes = sizeof(bad[0]), .bytes = SIZE_MAX},
		{.struct_bytes = sizeof(bad[0]), .offset = 64, .bytes = SEGMENT},
		{.struct_bytes = sizeof(bad[0]), .offset = SEGMENT - 4096 + 64},
		{.struct_bytes = sizeof(bad[0]), .bytes = SIVSHM_CHANNEL_MIN - 1},
		{.struct_bytes = sizeof(bad[0]), .vector = PORT_DOUBLE_VECTORS},
	};

	pair = port_pair_make(SEGMENT);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(sivshm_channel_create(pair.manager, &bad[i], &manager), -EINVAL);
		assert_int_equal(sivshm_channel_attach(pair.worker, &bad[i], &worker), -EINVAL);
	}
	/* None at all are the defaults. */
	assert_int_equal(sivshm_channel_create(pair.manager, NULL, &manager), 0);
	assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &worker), 0);
	close_channel();
}

static void another_layout_is_refused(void **state)
{
	struct sivshm_channel_opts less = {.struct_bytes = sizeof(less), .bytes = SEGMENT - 4096};
	struct channel_descriptor *d, good;

	open_channel(SEGMENT);
	sivshm_channel_destroy(worker);
	assert_int_equal(sivshm_channel_attach(pair.worker, &less, &worker), -EPROTO);
	d = sivshm_port_memory(pair.worker);
	good = *d;
	for (unsigned field = 0; field < 5; field++) {
		switch (field) {
		case 0:
			atomic_fetch_add(&d->magic, 1);
			break;
		case 1:
			d->version++;
			break;
		case 2:
			d->head_bytes += 64;
			break;
		case 3:
			d->bytes *= 2;
			break;
		default:
			d->ring_bytes *= 2;
		}
		assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &worker), -EPROTO);
		*d = good;
	}
	assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &worker), 0);
	close_channel();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_goes_both_ways),
		cmocka_unit_test(large_ones_arrive_whole),
		cmocka_unit_test(larger_than_the_largest_is_refused),
		cmocka_unit_test(an_empty_ring_takes_the_largest_anywhere),
		cmocka_unit_test(a_model_agrees_with_small_and_large),
		cmocka_unit_test(receiving_into_too_little_leaves_the_message),
		cmocka_unit_test(committing_without_reserving_sends_nothing),
		cmocka_unit_test(only_a_sleeper_is_rung_and_once),
		cmocka_unit_test(a_sender_without_room_is_rung_when_there_is_some),
		cmocka_unit_test(sleeping_tells_of_what_was_read),
		cmocka_unit_test(nobody_sleeps_before_pushing),
		cmocka_unit_test(waiting_ends),
		cmocka_unit_test(a_worker_goes_on_where_another_ended),
		cmocka_unit_test(last_words_may_have_been_read),
		cmocka_unit_test(what_was_not_given_back_comes_again),
		cmocka_unit_test(channels_lie_side_by_side),
		cmocka_unit_test(options_that_make_no_sense_are_refused),
		cmocka_unit_test(another_layout_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
