/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fuzz target of lib/sivshm's channels: one side, and a segment in which the input writes what
 * it likes between any two of that side's steps.
 *
 * An input is a header of one record's size, and then records: what is done, where, and with which
 * value.  Around the segment nothing can be reached.  What must hold besides: all that is received
 * lies in the other side's ring, all that is reserved in one's own; a broken channel stays broken;
 * and as long as nothing was forged, no side says that the other lies.
 */
#include <errno.h>
#include <string.h>

#include "channel_layout.h"
#include "fuzz.h"
#include "port_double.h"

enum { SEGMENT = 8192 };

static struct port_pair pair;
static struct sivshm_channel *side, *honest;
static unsigned who;
static bool broken, lied;
static size_t reserved;
static size_t next_at; /* where the next header is, as far as is known */
static volatile uint64_t sum;

static struct channel_head *head(void)
{
	return sivshm_port_memory(pair.manager);
}

enum { RING_BYTES = (SEGMENT - sizeof(struct channel_head)) / 2 / CHANNEL_LINE * CHANNEL_LINE };

static uint8_t *ring(unsigned of)
{
	return (uint8_t *)(head() + 1) + (size_t)of * RING_BYTES;
}

static int judge(int rc)
{
	if (broken && rc != -EPROTO)
		fuzz_fail("a broken channel said %d", rc);
	if (rc == -EPROTO) {
		if (!lied)
			fuzz_fail("an honest side is said to lie");
		broken = true;
	}
	return rc;
}

static void check_inside(const uint8_t *data, size_t bytes, unsigned of)
{
	if (data < ring(of) || data + bytes > ring(of) + RING_BYTES)
		fuzz_fail("%zu bytes lie outside of the ring", bytes);
}

static void receive(void)
{
	const void *data;
	size_t bytes;

	if (judge(sivshm_channel_receive(side, &data, &bytes)) != 1)
		return;
	check_inside(data, bytes, !who);
	next_at = (size_t)((const uint8_t *)data + bytes - ring(!who) + 7) / 8 * 8 % RING_BYTES;
	for (size_t i = 0; i < bytes; i++)
		sum += ((const volatile uint8_t *)data)[i];
}

static void copy_out(size_t max)
{
	static uint8_t data[SEGMENT];
	ssize_t got = sivshm_channel_recv(side, data, max);

	if (got > (ssize_t)max)
		fuzz_fail("%zd bytes were received to %zu", got, max);
	/* None is something else than there for a broken channel, too. */
	judge(got < 0 ? (int)got : 0);
}

static void reserve(size_t bytes)
{
	void *at;

	reserved = 0;
	/* What is too much is said before all else. */
	if (bytes > sivshm_channel_max(side))
		return;
	if (judge(sivshm_channel_reserve(side, bytes, &at)))
		return;
	reserved = bytes;
	check_inside(at, bytes, who);
	memset(at, 0xff, bytes);
}

/* The other side writes, or somebody who has its memory. */
static void overwrite(size_t at, unsigned width, uint64_t value)
{
	lied = true;
	at %= SEGMENT - 7;
	memcpy((uint8_t *)head() + at, &value, width % 8 + 1);
}

/* A word that decides something: counters, or the header where the side looks next. */
static void overwrite_word(unsigned which, uint64_t value)
{
	struct channel_side *other = &head()->sides[!who];
	_Atomic uint64_t *const words[] = {
		&other->consumed, &other->message_wanted,       &other->room_wanted,
		&other->sent,     &head()->sides[who].consumed, &head()->sides[who].sent};

	lied = true;
	which %= sizeof(words) / sizeof(words[0]) + 1;
	if (which == sizeof(words) / sizeof(words[0]))
		memcpy(ring(!who) + value % RING_BYTES / 8 * 8, &value, 8);
	else
		atomic_store(words[which], value);
}

static void start_again(void)
{
	struct sivshm_channel *again;
	int rc;

	if (who != CHANNEL_WORKER)
		return;
	sivshm_channel_destroy(side);
	side = NULL;
	rc = sivshm_channel_attach(pair.worker, NULL, &again);
	if (rc && !lied)
		fuzz_fail("an honest channel is not found again: %d", rc);
	if (rc)
		return;
	side = again;
	broken = false;
	reserved = 0;
}

/* A header that makes sense, or nearly. */
static uint64_t header_of(const struct fuzz_record *rec)
{
	uint64_t bytes = rec->v[0] | (uint64_t)rec->v[1] << 8;

	return bytes | (uint64_t)(rec->v[2] % 10 * 8) << CHANNEL_LEAD_SHIFT |
	       (uint64_t)(rec->v[3] % 4) << CHANNEL_KIND_SHIFT;
}

static void be_honest(const struct fuzz_record *rec)
{
	static uint8_t data[SEGMENT];

	if (rec->what % 2)
		sivshm_channel_send(honest, data, (rec->v[0] | (size_t)rec->v[1] << 8) % SEGMENT);
	else
		sivshm_channel_recv(honest, data, sizeof(data));
}

static void play(const struct fuzz_record *rec)
{
	size_t bytes = (rec->v[0] | (size_t)rec->v[1] << 8) % (SEGMENT / 2);
	int32_t small;

	memcpy(&small, rec->v, sizeof(small));
	switch (rec->action % 14) {
	case 0:
		receive();
		break;
	case 1:
		sivshm_channel_release(side);
		break;
	case 2:
		copy_out(bytes);
		break;
	case 3:
		reserve(bytes);
		break;
	case 4:
		sivshm_channel_commit(side, reserved ? bytes % (reserved + 1) : bytes);
		reserved = 0;
		break;
	case 5:
		sivshm_channel_push(side);
		break;
	case 6:
		judge(sivshm_channel_arm(side));
		break;
	case 7:
		if (bytes <= sivshm_channel_max(side))
			judge(sivshm_channel_arm_room(side, bytes));
		break;
	case 8:
		be_honest(rec);
		break;
	case 9:
		overwrite(rec->target | (size_t)rec->what << 8, rec->run, (uint64_t)(int64_t)small);
		break;
	case 10:
		/* Of 64 bits the low ones, the high ones, or close to what is there. */
		overwrite_word(rec->target, (uint64_t)(int64_t)small << rec->what % 64);
		break;
	case 11:
		overwrite_word(rec->target, atomic_load(&head()->sides[who].sent) +
						    (uint64_t)(int64_t)(int8_t)rec->what);
		break;
	case 12: {
		uint64_t h = header_of(rec);

		lied = true;
		/* A place that the side looks at next, or any. */
		memcpy(ring(!who) + (rec->run % 4 ? next_at
						  : (rec->target | (size_t)rec->what << 8) * 8 %
							    RING_BYTES),
		       &h, 8);
		break;
	}
	default:
		start_again();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sivshm_channel *manager, *worker;
	struct fuzz_record rec;

	if (size < FUZZ_RECORD_BYTES)
		return 0;
	pair = port_pair_make(SEGMENT);
	if (sivshm_channel_create(pair.manager, NULL, &manager) ||
	    sivshm_channel_attach(pair.worker, NULL, &worker))
		fuzz_fail("a channel cannot be made");
	who = data[0] % 2;
	side = who == CHANNEL_MANAGER ? manager : worker;
	honest = who == CHANNEL_MANAGER ? worker : manager;
	broken = lied = false;
	reserved = next_at = 0;
	for (size_t at = FUZZ_RECORD_BYTES; side && at + sizeof(rec) <= size; at += sizeof(rec)) {
		memcpy(&rec, data + at, sizeof(rec));
		play(&rec);
	}
	sivshm_channel_destroy(side);
	sivshm_channel_destroy(honest);
	port_pair_free(pair);
	return 0;
}
