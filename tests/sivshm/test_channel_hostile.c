/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels whose other side writes what it likes: each header and each counter with every kind of
 * wrong value.  Either the channel is broken, for good, or nothing has happened; what is received
 * lies in the ring, always.  Before and behind the segment nothing can be reached, so one byte too
 * far is a fault.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "channel_layout.h"
#include "port_double.h"

enum { SEGMENT = SIVSHM_CHANNEL_MIN };

/* The victim, and what the other side of it can write. */
static struct port_pair pair;
static struct sivshm_channel *victim, *honest;
static struct channel_side *hostile, *victims;
static uint8_t *from_hostile, *from_victim;
static size_t size;
static volatile uint64_t sum;

static void open_channel(unsigned side)
{
	struct channel_head *head;
	struct sivshm_channel *manager, *worker;

	pair = port_pair_make(SEGMENT);
	assert_int_equal(sivshm_channel_create(pair.manager, NULL, &manager), 0);
	assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &worker), 0);
	victim = side == CHANNEL_MANAGER ? manager : worker;
	honest = side == CHANNEL_MANAGER ? worker : manager;
	head = sivshm_port_memory(pair.manager);
	size = head->descriptor.ring_bytes;
	victims = &head->sides[side];
	hostile = &head->sides[!side];
	from_victim = (uint8_t *)(head + 1) + side * size;
	from_hostile = (uint8_t *)(head + 1) + !side * size;
}

static void close_channel(void)
{
	sivshm_channel_destroy(victim);
	sivshm_channel_destroy(honest);
	port_pair_free(pair);
}

static void overwrite(void *where, uint64_t value)
{
	atomic_store((_Atomic uint64_t *)where, value);
}

/* Sends @n messages of 40 bytes one way and takes them there, so that places are not the first. */
static void move_on(struct sivshm_channel *from, struct sivshm_channel *to, unsigned n)
{
	uint8_t data[40] = {0};

	while (n--) {
		assert_int_equal(sivshm_channel_send(from, data, sizeof(data)), 0);
		assert_int_equal(sivshm_channel_recv(to, data, sizeof(data)), sizeof(data));
	}
}

/* Reads all of a message: what is said to lie in the ring does. */
static void use(const uint8_t *data, size_t bytes)
{
	assert_true(bytes <= sivshm_channel_max(victim));
	assert_true(data >= from_hostile && data + bytes <= from_hostile + size);
	for (size_t i = 0; i < bytes; i++)
		sum += data[i];
}

/* The victim does all that it can. */
static void do_everything(void)
{
	uint8_t buffer[SEGMENT];
	const void *data;
	size_t bytes;
	void *to;

	for (unsigned i = 0; i < 200; i++) {
		size_t want = i * 37 % (sivshm_channel_max(victim) + 1);

		if (sivshm_channel_receive(victim, &data, &bytes) == 1)
			use(data, bytes);
		if (i % 3 == 0)
			sivshm_channel_release(victim);
		if (i % 5 == 0)
			sivshm_channel_recv(victim, buffer, sizeof(buffer));
		sivshm_channel_arm(victim);
		sivshm_channel_arm_room(victim, want);
		if (!sivshm_channel_reserve(victim, want, &to)) {
			assert_true((uint8_t *)to >= from_victim &&
				    (uint8_t *)to + want <= from_victim + size);
			memset(to, 0xff, want);
			sivshm_channel_commit(victim, want);
		}
		sivshm_channel_push(victim);
	}
}

static void expect_broken(void)
{
	uint8_t buffer[8];
	const void *data;
	size_t bytes;
	void *to;

	assert_int_equal(sivshm_channel_receive(victim, &data, &bytes), -EPROTO);
	assert_int_equal(sivshm_channel_recv(victim, buffer, sizeof(buffer)), -EPROTO);
	assert_int_equal(sivshm_channel_arm(victim), -EPROTO);
	assert_int_equal(sivshm_channel_wait(victim, -1), -EPROTO);
	assert_int_equal(sivshm_channel_reserve(victim, 1, &to), -EPROTO);
	assert_int_equal(sivshm_channel_send(victim, buffer, 1), -EPROTO);
	assert_int_equal(sivshm_channel_arm_room(victim, 1), -EPROTO);
	assert_int_equal(sivshm_channel_wait_room(victim, 1, -1), -EPROTO);
}

static uint64_t header(uint64_t kind, uint64_t lead, uint64_t bytes)
{
	return kind << CHANNEL_KIND_SHIFT | lead << CHANNEL_LEAD_SHIFT | bytes;
}

/* Whether an honest sender could have written this @place bytes into the ring. */
static bool makes_sense(uint64_t kind, uint64_t lead, uint64_t bytes, size_t place)
{
	return kind == 1 && lead >= 8 && lead <= 64 && lead % 8 == 0 &&
	       bytes <= sivshm_channel_max(victim) && place + lead + bytes <= size;
}

static void try_header(unsigned side, unsigned before, uint64_t kind, uint64_t lead, uint64_t bytes)
{
	const void *data;
	size_t got, place;
	int rc;

	/* To wrap makes sense; see wrapping_twice_is_refused(). */
	if (header(kind, lead, bytes) == header(CHANNEL_KIND_WRAP, 0, 0))
		return;
	open_channel(side);
	move_on(honest, victim, before);
	place = before * 48;
	overwrite(from_hostile + place, header(kind, lead, bytes));
	rc = sivshm_channel_receive(victim, &data, &got);
	if (!header(kind, lead, bytes)) {
		assert_int_equal(rc, 0);
	} else if (makes_sense(kind, lead, bytes, place)) {
		assert_int_equal(rc, 1);
		assert_ptr_equal(data, from_hostile + place + lead);
		assert_int_equal(got, bytes);
		use(data, got);
	} else {
		assert_int_equal(rc, -EPROTO);
		expect_broken();
	}
	do_everything();
	close_channel();
}

static void every_wrong_header_is_refused(void **state)
{
	static const uint64_t kinds[] = {0, 1, 2, 3, 0x101, 0x8001, 0xffff};
	static const uint64_t leads[] = {0,  1,  7,  8,   9,     16,     56,     60,    64,
					 65, 72, 80, 128, 0x108, 0x8000, 0xfff8, 0xffff};
	size_t max;

	open_channel(CHANNEL_WORKER);
	max = sivshm_channel_max(victim);
	close_channel();
	for (unsigned side = 0; side < 2; side++)
		for (unsigned before = 0; before < 34; before += 11)
			for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
				for (unsigned l = 0; l < sizeof(leads) / sizeof(leads[0]); l++) {
					const uint64_t sizes[] = {0,
								  1,
								  max - 1,
								  max,
								  max + 1,
								  size - 8,
								  size,
								  INT32_MAX,
								  (uint64_t)INT32_MAX + 1,
								  UINT32_MAX - 7,
								  UINT32_MAX};

					for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]);
					     s++)
						try_header(side, before, kinds[k], leads[l],
							   sizes[s]);
				}
}

/* A message up to the ring's last byte, and one of one word more. */
static void the_rings_end_is_the_end(void **state)
{
	for (unsigned side = 0; side < 2; side++)
		for (size_t bytes = 0; bytes <= 2 * CHANNEL_LINE; bytes++)
			for (unsigned lead = 8; lead <= 64; lead += 8)
				try_header(side, 32, CHANNEL_KIND_MESSAGE, lead, bytes);
}

static void wrapping_twice_is_refused(void **state)
{
	const uint64_t wrap = header(CHANNEL_KIND_WRAP, 0, 0);
	const uint64_t follow[] = {wrap, 0, wrap + 1, header(1, 8, UINT32_MAX), header(3, 8, 1)};
	const void *data;
	size_t bytes;

	for (unsigned i = 0; i < sizeof(follow) / sizeof(follow[0]); i++) {
		open_channel(CHANNEL_WORKER);
		move_on(honest, victim, 5);
		overwrite(from_hostile, follow[i]);
		overwrite(from_hostile + 240, wrap);
		assert_int_equal(sivshm_channel_receive(victim, &data, &bytes), -EPROTO);
		expect_broken();
		close_channel();

		open_channel(CHANNEL_WORKER);
		overwrite(from_hostile, wrap);
		assert_int_equal(sivshm_channel_arm(victim), -EPROTO);
		expect_broken();
		close_channel();
	}
}

/* More than the ring holds while nothing was given back: the victim would read what it has not
 * released, again and again. */
static void more_than_there_is_room_for_is_refused(void **state)
{
	const void *data;
	size_t bytes;
	unsigned n = 0;
	int rc;

	open_channel(CHANNEL_MANAGER);
	for (size_t at = 0; at < size; at += 64)
		overwrite(from_hostile + at, header(CHANNEL_KIND_MESSAGE, 8, 56));
	while ((rc = sivshm_channel_receive(victim, &data, &bytes)) == 1)
		n++;
	assert_int_equal(rc, -EPROTO);
	assert_int_equal(n, size / 64 - 1);
	expect_broken();
	close_channel();
}

static const uint64_t offsets[] = {
	0,
	1,
	7,
	8,
	48,
	49,
	64,
	1000,
	1599,
	1600,
	1601,
	4096,
	INT32_MAX,
	UINT32_MAX,
	(uint64_t)UINT32_MAX + 1,
	INT64_MAX,
	(uint64_t)INT64_MAX + 1,
	UINT64_MAX - 4096,
	UINT64_MAX - 8,
	UINT64_MAX,
};
enum { OFFSETS = sizeof(offsets) / sizeof(offsets[0]) };

/* How much was consumed: never more than was sent, never less than before. */
static void wrong_consumed_counters_are_refused(void **state)
{
	for (unsigned side = 0; side < 2; side++)
		for (unsigned i = 0; i < 2 * OFFSETS; i++) {
			uint64_t seen, sent, value;
			uint8_t data[40] = {0};

			open_channel(side);
			/* So much that the victim has looked, and looks again now. */
			move_on(victim, honest, 100);
			while (!sivshm_channel_send(victim, data, sizeof(data)))
				;
			seen = atomic_load(&hostile->consumed);
			sent = atomic_load(&victims->sent);
			assert_true(seen > 0 && sent > seen);
			value = i < OFFSETS ? seen + offsets[i] : seen - offsets[i - OFFSETS];
			overwrite(&hostile->consumed, value);
			if (value >= seen && value <= sent) {
				assert_true(sivshm_channel_arm_room(victim, 40) >= 0);
			} else {
				assert_int_equal(sivshm_channel_arm_room(victim, 40), -EPROTO);
				expect_broken();
			}
			do_everything();
			close_channel();
		}
}

/* Whom to wake, and what is only for the other side itself: no value does any harm. */
static void other_counters_decide_nothing(void **state)
{
	for (unsigned side = 0; side < 2; side++)
		for (unsigned field = 0; field < 3; field++)
			for (unsigned i = 0; i < OFFSETS; i++) {
				uint8_t data[40] = {0};

				open_channel(side);
				move_on(victim, honest, 10);
				overwrite(field == 0   ? &hostile->message_wanted
					  : field == 1 ? &hostile->room_wanted
						       : &hostile->sent,
					  offsets[i]);
				move_on(victim, honest, 100);
				assert_int_equal(sivshm_channel_send(honest, data, sizeof(data)),
						 0);
				assert_int_equal(sivshm_channel_recv(victim, data, sizeof(data)),
						 40);
				do_everything();
				/* As it is alone now, its ring is full, and it is not broken. */
				assert_int_equal(sivshm_channel_arm(victim), 0);
				close_channel();
			}
}

/* What the victim has written itself, and the other side changes: it never reads that again. */
static void ones_own_words_are_not_read_again(void **state)
{
	for (unsigned side = 0; side < 2; side++) {
		uint8_t data[40] = {1};

		open_channel(side);
		move_on(victim, honest, 7);
		memset((void *)victims, 0xff, sizeof(*victims));
		memset(from_victim, 0xff, size);
		assert_int_equal(sivshm_channel_send(victim, data, sizeof(data)), 0);
		assert_int_equal(sivshm_channel_recv(honest, data, sizeof(data)), 40);
		assert_int_equal(sivshm_channel_arm(victim), 0);
		close_channel();
	}
}

/* A worker's program that is started again believes what is there no more than before. */
static void attaching_to_nonsense_is_refused(void **state)
{
	const uint64_t at = 20 * 48;

	for (unsigned field = 0; field < 4; field++)
		for (unsigned i = 0; i < OFFSETS; i++) {
			uint64_t value = offsets[i];
			struct sivshm_channel *again;
			bool good;

			open_channel(CHANNEL_WORKER);
			move_on(victim, honest, 20);
			move_on(honest, victim, 20);
			atomic_store(&hostile->consumed, at);
			if (field == 0) { /* what it may have seen last: anything, then */
				overwrite(&victims->consumed, value);
				good = value % 8 == 0;
			} else if (field == 1) {
				overwrite(&victims->sent, value);
				/* Not in the midst of what was sent. */
				good = value % 8 == 0 && value >= at && value < size;
			} else if (field == 2) {
				overwrite(&hostile->consumed, value);
				good = value <= at;
			} else {
				overwrite(from_victim + at, value);
				good = !value;
			}
			assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &again),
					 good ? 0 : -EPROTO);
			if (good) {
				sivshm_channel_destroy(victim);
				victim = again;
				do_everything();
			}
			close_channel();
		}
}

/* Two headers, each of which makes sense: what is judged is what is used. */
static atomic_bool over;

static void *change_headers(void *arg)
{
	const uint64_t one = header(CHANNEL_KIND_MESSAGE, 8, 8);
	const uint64_t other = header(CHANNEL_KIND_MESSAGE, 64, 600);

	while (!atomic_load(&over))
		for (unsigned i = 0; i < 1000; i++)
			overwrite(from_hostile, i % 2 ? one : other);
	return NULL;
}

static void a_header_that_changes_is_read_once(void **state)
{
	unsigned seen[2] = {0, 0};
	const void *data;
	pthread_t thread;
	size_t bytes;

	open_channel(CHANNEL_WORKER);
	sivshm_channel_destroy(victim);
	atomic_store(&over, false);
	overwrite(from_hostile, header(CHANNEL_KIND_MESSAGE, 8, 8));
	assert_int_equal(pthread_create(&thread, NULL, change_headers, NULL), 0);
	/* On one processor the two take turns, seldom. */
	for (unsigned i = 0; i < 3000000 && (i < 100000 || !seen[0] || !seen[1]); i++) {
		assert_int_equal(sivshm_channel_attach(pair.worker, NULL, &victim), 0);
		assert_int_equal(sivshm_channel_receive(victim, &data, &bytes), 1);
		if (bytes == 8)
			assert_ptr_equal(data, from_hostile + 8);
		else
			assert_int_equal(bytes, 600);
		if (bytes == 600)
			assert_ptr_equal(data, from_hostile + 64);
		seen[bytes == 8]++;
		sivshm_channel_destroy(victim);
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	assert_true(seen[0] && seen[1]);
	victim = NULL;
	close_channel();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_wrong_header_is_refused),
		cmocka_unit_test(the_rings_end_is_the_end),
		cmocka_unit_test(wrapping_twice_is_refused),
		cmocka_unit_test(more_than_there_is_room_for_is_refused),
		cmocka_unit_test(wrong_consumed_counters_are_refused),
		cmocka_unit_test(other_counters_decide_nothing),
		cmocka_unit_test(ones_own_words_are_not_read_again),
		cmocka_unit_test(attaching_to_nonsense_is_refused),
		cmocka_unit_test(a_header_that_changes_is_read_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
