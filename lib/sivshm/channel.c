/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels: messages both ways in a part of a segment.
 *
 * What costs time between two processors is a cache line that goes from one to the other, so a
 * small message goes in one: its header lies beside it and, written last, publishes it.  There is
 * no counter that has to be fetched first.  For that, the place of the next header must be known to
 * hold no header, whatever strangers had the sender write there a lap ago: the sender zeroes it
 * before it publishes the one in front of it.  The way back, how much was read, is told seldom, in
 * a line that the sender looks at only when it seems to have no room.
 *
 * How much a receiver may leave untold, and how large a message may be, belong together.  With n
 * the most bytes that a message takes, a sender may have to leave out the ring's last n - 8, then
 * needs n, and keeps the next header's 8 free: as long as the receiver tells of all but less than
 * size / 16, a ring whose messages were all read has room for any message if 2n + 8 + size / 16 is
 * at most size.  So a receiver that runs empty need not tell, and no one waits for ever.
 *
 * Everything that decides is private to this side.  From the other side come a header per message,
 * and its side's three counters; each is read once, and what it says is checked as a copy.
 * Nonsense breaks the channel for good.
 *
 * To sleep, either way: say what is waited for, full fence, look again.  To wake: publish, full
 * fence, look whether it was waited for.  One of the two sees the other.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "channel_layout.h"
#include "sivshm.h"

enum {
	/* Payloads of so many bytes begin at a line, for the sake of memcpy(). */
	ALIGNED_FROM = 512,
	/* And so many are copied by the processor itself. */
	LARGE_FROM = 128 << 10,
	/* Bytes from the next header to the line that is fetched to be written. */
	FETCH_AHEAD = 256,
};

/* Where a message goes that is to be sent. */
struct place {
	size_t skip; /* left out at the ring's end */
	size_t at;   /* the header's place */
	size_t lead; /* from there to the payload */
	size_t room; /* for the payload */
};

struct sender {
	uint8_t *ring;
	struct channel_side *own;
	const struct channel_side *other;
	uint64_t sent;     /* the next header's position */
	uint64_t pushed;   /* of that, what push() has seen */
	uint64_t consumed; /* the last that the other side said, and was checked */
	size_t at;         /* sent's place in the ring */
	bool reserved;
	struct place place; /* of what was reserved */
};

struct receiver {
	const uint8_t *ring;
	struct channel_side *own;
	const struct channel_side *other;
	uint64_t received; /* the next header's position */
	uint64_t released; /* up to here the caller needs nothing any more */
	uint64_t told;     /* of that, what the other side may know */
	size_t at;         /* received's place in the ring */
};

struct sivshm_channel {
	struct sivshm_port *port;
	size_t size; /* of each ring */
	size_t max;
	size_t lag; /* released and not told: less than this */
	unsigned vector;
	bool broken;
	struct sender tx;
	struct receiver rx;
};

struct message {
	const uint8_t *payload;
	size_t bytes;
	size_t span;   /* bytes of the ring that it takes, left out ones too */
	size_t end_at; /* where the next header is */
};

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

static _Atomic uint64_t *header_at(uint8_t *ring, size_t at)
{
	return (_Atomic uint64_t *)(void *)(ring + at);
}

static uint64_t header_make(uint64_t kind, size_t lead, size_t bytes)
{
	return kind << CHANNEL_KIND_SHIFT | (uint64_t)lead << CHANNEL_LEAD_SHIFT | bytes;
}

static size_t round_up(size_t bytes, size_t to)
{
	return (bytes + to - 1) / to * to;
}

/* The line at @p is going to be written: have it here by then. */
static void fetch_to_write(const void *p)
{
#ifdef __x86_64__
	/* What the compiler's builtin makes of it without -mprfchw only fetches to read. */
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 1);
#endif
}

static int fail(struct sivshm_channel *c)
{
	c->broken = true;
	return -EPROTO;
}

/*
 * Reads the header at place @at of @ring, and judges it. Returns 1 and *@m, 0 (there is none) or
 * -EPROTO.
 */
static int parse(const uint8_t *ring, size_t size, size_t max, size_t at, struct message *m)
{
	size_t skip = 0, lead, span;
	uint64_t h;

	/* Acquire: pairs with the sender's release in publish(); the payload is read after it. */
	h = atomic_load_explicit(header_at((uint8_t *)ring, at), memory_order_acquire);
	if (!h)
		return 0;
	if (h == header_make(CHANNEL_KIND_WRAP, 0, 0)) {
		/* What follows was published before it, and is a message. */
		skip = size - at;
		at = 0;
		h = atomic_load_explicit(header_at((uint8_t *)ring, 0), memory_order_acquire);
	}
	if (h >> CHANNEL_KIND_SHIFT != CHANNEL_KIND_MESSAGE)
		return -EPROTO;
	lead = h >> CHANNEL_LEAD_SHIFT & 0xffff;
	m->bytes = h & UINT32_MAX;
	if (lead < CHANNEL_WORD || lead > CHANNEL_LEAD_MAX || lead % CHANNEL_WORD || m->bytes > max)
		return -EPROTO;
	span = lead + round_up(m->bytes, CHANNEL_WORD);
	if (span > size - at)
		return -EPROTO;
	m->payload = ring + at + lead;
	m->span = skip + span;
	m->end_at = at + span == size ? 0 : at + span;
	return 1;
}

/* Making and finding a channel */

struct area {
	struct channel_head *head;
	uint8_t *rings[2];
	size_t bytes;
	size_t ring_bytes;
};

static int find_area(struct sivshm_port *p, const struct sivshm_channel_opts *opts, struct area *a)
{
	size_t segment, offset = opts ? opts->offset : 0, bytes = opts ? opts->bytes : 0;
	uint8_t *start;

	if (!p || (opts &&
		   (opts->struct_bytes != sizeof(*opts) || opts->vector >= sivshm_port_vectors(p))))
		return -EINVAL;
	segment = sivshm_port_size(p);
	if (offset % CHANNEL_LINE || offset >= segment || bytes > segment - offset)
		return -EINVAL;
	if (!bytes)
		bytes = segment - offset;
	if (bytes < SIVSHM_CHANNEL_MIN)
		return -EINVAL;
	start = (uint8_t *)sivshm_port_memory(p) + offset;
	a->head = (struct channel_head *)(void *)start;
	a->bytes = bytes;
	a->ring_bytes = (bytes - sizeof(*a->head)) / 2 / CHANNEL_LINE * CHANNEL_LINE;
	a->rings[CHANNEL_MANAGER] = start + sizeof(*a->head);
	a->rings[CHANNEL_WORKER] = a->rings[CHANNEL_MANAGER] + a->ring_bytes;
	return 0;
}

static struct sivshm_channel *make(struct sivshm_port *p, const struct sivshm_channel_opts *opts,
				   const struct area *a, unsigned side)
{
	struct sivshm_channel *c = calloc(1, sizeof(*c));
	size_t span;

	if (!c)
		return NULL;
	c->port = p;
	c->vector = opts ? opts->vector : 0;
	c->size = a->ring_bytes;
	c->lag = c->size >> CHANNEL_LAG_SHIFT;
	span = (c->size - CHANNEL_WORD - c->lag) / 2;
	c->max = (span - CHANNEL_LEAD_MAX) / CHANNEL_WORD * CHANNEL_WORD;
	if (c->max > UINT32_MAX)
		c->max = UINT32_MAX;
	c->tx.ring = a->rings[side];
	c->rx.ring = a->rings[!side];
	c->tx.own = c->rx.own = &a->head->sides[side];
	c->tx.other = c->rx.other = &a->head->sides[!side];
	return c;
}

int sivshm_channel_create(struct sivshm_port *p, const struct sivshm_channel_opts *opts,
			  struct sivshm_channel **out)
{
	struct channel_descriptor *d;
	struct area a;
	int rc = find_area(p, opts, &a);

	if (rc)
		return rc;
	*out = make(p, opts, &a, CHANNEL_MANAGER);
	if (!*out)
		return -ENOMEM;
	d = &a.head->descriptor;
	atomic_store_explicit(&d->magic, 0, memory_order_release);
	d->version = CHANNEL_VERSION;
	d->head_bytes = sizeof(*a.head);
	d->bytes = a.bytes;
	d->ring_bytes = a.ring_bytes;
	for (unsigned side = 0; side < 2; side++) {
		struct channel_side *s = &a.head->sides[side];

		store(&s->consumed, 0);
		store(&s->message_wanted, CHANNEL_NEVER);
		store(&s->room_wanted, CHANNEL_NEVER);
		store(&s->sent, 0);
		/* The only header of a ring that anyone looks at. */
		store(header_at(a.rings[side], 0), 0);
	}
	/* Release: pairs with the acquire in sivshm_channel_attach(). */
	atomic_store_explicit(&d->magic, CHANNEL_MAGIC, memory_order_release);
	return 0;
}

/* Goes on where this side's program ended, which may have been in the midst of anything. */
static int resume(struct sivshm_channel *c)
{
	struct sender *tx = &c->tx;
	struct receiver *rx = &c->rx;
	struct message m;
	int rc;

	rx->received = rx->released = rx->told = load(&rx->own->consumed);
	tx->sent = load(&tx->own->sent);
	if (rx->received % CHANNEL_WORD || tx->sent % CHANNEL_WORD)
		return -EPROTO;
	rx->at = rx->received % c->size;
	tx->at = tx->sent % c->size;
	/* One message may have been published and not counted, and may have been read since. */
	rc = parse(tx->ring, c->size, c->max, tx->at, &m);
	if (rc < 0)
		return rc;
	if (rc > 0) {
		tx->sent += m.span;
		tx->at = m.end_at;
		if (load(header_at(tx->ring, tx->at)))
			return -EPROTO;
	}
	/* Acquire: as in look_for_room(). What was not pushed before is pushed with the next. */
	tx->consumed = atomic_load_explicit(&tx->other->consumed, memory_order_acquire);
	tx->pushed = tx->consumed;
	if (tx->consumed > tx->sent || tx->sent - tx->consumed > c->size - CHANNEL_WORD)
		return -EPROTO;
	store(&tx->own->sent, tx->sent);
	return 0;
}

int sivshm_channel_attach(struct sivshm_port *p, const struct sivshm_channel_opts *opts,
			  struct sivshm_channel **out)
{
	const struct channel_descriptor *d;
	struct sivshm_channel *c;
	struct area a;
	uint64_t magic;
	int rc = find_area(p, opts, &a);

	if (rc)
		return rc;
	d = &a.head->descriptor;
	/* Acquire: pairs with the release in sivshm_channel_create(). */
	magic = atomic_load_explicit(&d->magic, memory_order_acquire);
	if (!magic)
		return -EAGAIN;
	/* Nothing is taken from the descriptor: it has to say what this side has worked out. */
	if (magic != CHANNEL_MAGIC || d->version != CHANNEL_VERSION ||
	    d->head_bytes != sizeof(*a.head) || d->bytes != a.bytes ||
	    d->ring_bytes != a.ring_bytes)
		return -EPROTO;
	c = make(p, opts, &a, CHANNEL_WORKER);
	if (!c)
		return -ENOMEM;
	rc = resume(c);
	if (rc) {
		free(c);
		return rc;
	}
	*out = c;
	return 0;
}

size_t sivshm_channel_max(const struct sivshm_channel *c)
{
	return c->max;
}

/* Sending */

static struct place find_place(const struct sivshm_channel *c, size_t bytes)
{
	struct place to = {.at = c->tx.at, .room = round_up(bytes, CHANNEL_WORD)};

	for (;;) {
		to.lead = CHANNEL_WORD;
		if (bytes >= ALIGNED_FROM)
			to.lead = round_up(to.at + CHANNEL_WORD, CHANNEL_LINE) - to.at;
		if (to.lead + to.room <= c->size - to.at)
			return to;
		to.skip = c->size - to.at;
		to.at = 0;
	}
}

/* Bytes of the ring that must be free, with the next header's. */
static size_t needs(const struct place *to)
{
	return to->skip + to->lead + to->room + CHANNEL_WORD;
}

/* Whether so much is free, as far as is known. */
static bool has_room(const struct sivshm_channel *c, size_t needed)
{
	return c->tx.sent - c->tx.consumed + needed <= c->size;
}

/* Looks what was consumed, if need be. Returns 1, 0 or -EPROTO. */
static int look_for_room(struct sivshm_channel *c, size_t needed)
{
	struct sender *tx = &c->tx;
	uint64_t consumed;

	if (has_room(c, needed))
		return 1;
	/* Acquire: pairs with the release in tell(): what it has read is not overwritten before. */
	consumed = atomic_load_explicit(&tx->other->consumed, memory_order_acquire);
	if (consumed < tx->consumed || consumed > tx->sent)
		return fail(c);
	tx->consumed = consumed;
	return has_room(c, needed);
}

int sivshm_channel_reserve(struct sivshm_channel *c, size_t bytes, void **out)
{
	struct sender *tx = &c->tx;
	int rc;

	if (c->broken)
		return -EPROTO;
	if (bytes > c->max)
		return -EMSGSIZE;
	tx->place = find_place(c, bytes);
	rc = look_for_room(c, needs(&tx->place));
	tx->reserved = rc > 0;
	if (rc <= 0)
		return rc ? rc : -EAGAIN;
	*out = tx->ring + tx->place.at + tx->place.lead;
	return 0;
}

void sivshm_channel_commit(struct sivshm_channel *c, size_t bytes)
{
	struct sender *tx = &c->tx;
	const struct place *to = &tx->place;
	size_t next;

	/* What was not reserved may not be this side's to write. */
	if (!tx->reserved)
		return;
	if (bytes > to->room)
		bytes = to->room;
	next = to->at + to->lead + round_up(bytes, CHANNEL_WORD);
	tx->sent += to->skip + next - to->at;
	if (next == c->size)
		next = 0;
	store(header_at(tx->ring, next), 0);
	/* Release: pairs with the acquire in parse(); the next header's zero and the payload are
	 * there before it. */
	atomic_store_explicit(header_at(tx->ring, to->at),
			      header_make(CHANNEL_KIND_MESSAGE, to->lead, bytes),
			      memory_order_release);
	if (to->skip)
		/* Release: likewise, as then it is this header by which the message is found. */
		atomic_store_explicit(header_at(tx->ring, tx->at),
				      header_make(CHANNEL_KIND_WRAP, 0, 0), memory_order_release);
	tx->at = next;
	tx->reserved = false;
	/* Release: after the header, so that a successor finds at most one that was not counted. */
	atomic_store_explicit(&tx->own->sent, tx->sent, memory_order_release);
	/* The receiver had these lines a lap ago. If the next one came only when the zero is to be
	 * written there, the header before it would wait for that. */
	if (next + FETCH_AHEAD < c->size)
		fetch_to_write(tx->ring + next + FETCH_AHEAD);
}

int sivshm_channel_push(struct sivshm_channel *c)
{
	struct sender *tx = &c->tx;
	uint64_t pushed = tx->pushed;

	if (tx->sent == pushed)
		return 0;
	tx->pushed = tx->sent;
	/* Full: headers before the look; pairs with the fence in sivshm_channel_arm(). */
	atomic_thread_fence(memory_order_seq_cst);
	if (load(&tx->other->message_wanted) - pushed >= tx->sent - pushed)
		return 0;
	return sivshm_port_ring(c->port, c->vector);
}

/*
 * What is large, libc writes past the caches into memory, from where the receiver would have to
 * fetch it; the processor's own copying leaves it in the cache that both have.
 */
static void copy_out(void *to, const void *data, size_t bytes)
{
#ifdef __x86_64__
	if (bytes >= LARGE_FROM) {
		size_t words = bytes / 8;

		__asm__ volatile("rep movsq" : "+D"(to), "+S"(data), "+c"(words) : : "memory");
		bytes %= 8;
	}
#endif
	if (bytes)
		memcpy(to, data, bytes);
}

int sivshm_channel_send(struct sivshm_channel *c, const void *data, size_t bytes)
{
	void *to;
	int rc = sivshm_channel_reserve(c, bytes, &to);

	if (rc)
		return rc;
	copy_out(to, data, bytes);
	sivshm_channel_commit(c, bytes);
	return 0;
}

int sivshm_channel_arm_room(struct sivshm_channel *c, size_t bytes)
{
	struct place to;
	int rc;

	if (c->broken)
		return -EPROTO;
	if (bytes > c->max)
		return -EMSGSIZE;
	to = find_place(c, bytes);
	rc = look_for_room(c, needs(&to));
	if (rc)
		return rc;
	/* Not below zero: then there would be room. */
	store(&c->tx.own->room_wanted, c->tx.sent + needs(&to) - c->size);
	/* Full: the wish before the look; pairs with the fence in sivshm_channel_release() and
	 * sivshm_channel_arm(). */
	atomic_thread_fence(memory_order_seq_cst);
	return look_for_room(c, needs(&to));
}

/* Receiving */

/* How much was consumed. A full fence and answer_room() must follow. Returns what was told before.
 */
static uint64_t tell(struct receiver *rx)
{
	uint64_t before = rx->told;

	rx->told = rx->released;
	/* Release: pairs with the acquire in look_for_room(); what was read was read before. */
	atomic_store_explicit(&rx->own->consumed, rx->told, memory_order_release);
	return before;
}

/* Rings a sender that waits for more than @before to be consumed, if that is so now. */
static void answer_room(struct sivshm_channel *c, uint64_t before)
{
	struct receiver *rx = &c->rx;

	/* A peer that is gone is found out by whoever waits for it. */
	if (load(&rx->other->room_wanted) - before - 1 < rx->told - before)
		sivshm_port_ring(c->port, c->vector);
}

/* The next message, which stays. Returns 1, 0 or -EPROTO. */
static int look_at_next(struct sivshm_channel *c, struct message *m)
{
	const struct receiver *rx = &c->rx;
	int rc;

	if (c->broken)
		return -EPROTO;
	rc = parse(rx->ring, c->size, c->max, rx->at, m);
	if (rc < 0)
		return fail(c);
	/* An honest sender has not been told yet that there is room for more. */
	if (rc && rx->received + m->span + CHANNEL_WORD - rx->told > c->size)
		return fail(c);
	return rc;
}

static void take(struct sivshm_channel *c, const struct message *m)
{
	c->rx.received += m->span;
	c->rx.at = m->end_at;
}

int sivshm_channel_receive(struct sivshm_channel *c, const void **data, size_t *bytes)
{
	struct message m;
	int rc = look_at_next(c, &m);

	if (rc <= 0)
		return rc;
	take(c, &m);
	*data = m.payload;
	*bytes = m.bytes;
	return 1;
}

void sivshm_channel_release(struct sivshm_channel *c)
{
	struct receiver *rx = &c->rx;
	uint64_t before;

	rx->released = rx->received;
	if (rx->released - rx->told < c->lag)
		return;
	before = tell(rx);
	/* Full: what was told before the look; pairs with the fence in sivshm_channel_arm_room().
	 */
	atomic_thread_fence(memory_order_seq_cst);
	answer_room(c, before);
}

ssize_t sivshm_channel_recv(struct sivshm_channel *c, void *data, size_t max)
{
	struct message m;
	int rc = look_at_next(c, &m);

	if (rc <= 0)
		return rc ? rc : -EAGAIN;
	if (m.bytes > max)
		return -EMSGSIZE;
	if (m.bytes)
		memcpy(data, m.payload, m.bytes);
	take(c, &m);
	sivshm_channel_release(c);
	return (ssize_t)m.bytes;
}

int sivshm_channel_arm(struct sivshm_channel *c)
{
	struct receiver *rx = &c->rx;
	struct message m;
	uint64_t before;

	if (c->broken)
		return -EPROTO;
	before = tell(rx);
	store(&rx->own->message_wanted, rx->received);
	/* Full: the wish, and what was told, before the looks; pairs with the fences in
	 * sivshm_channel_push() and in sivshm_channel_arm_room(). */
	atomic_thread_fence(memory_order_seq_cst);
	answer_room(c, before);
	return look_at_next(c, &m);
}

/* Sleeping */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/*
 * One of the two that sleep: arms, and sleeps until that says 1. First it pushes: the other side
 * might sleep until it gets what this one has not told it of.
 */
static int sleep_until(struct sivshm_channel *c, int timeout_ms,
		       int (*arm)(struct sivshm_channel *c, size_t bytes), size_t bytes)
{
	int64_t end = timeout_ms > 0 ? now_ms() + timeout_ms : 0;
	int left = timeout_ms, rc, woken;

	for (;;) {
		rc = arm(c, bytes);
		if (rc)
			return rc;
		/* Also for who only looks, as that may be all he does. That it is gone is found out
		 * below. */
		sivshm_channel_push(c);
		if (!left)
			return 0;
		woken = sivshm_port_wait(c->port, c->vector, left);
		if (woken < 0) {
			/* Its last words may have come since. */
			rc = arm(c, bytes);
			return rc ? rc : woken;
		}
		if (timeout_ms > 0) {
			int64_t rest = end - now_ms();

			left = rest > 0 ? (int)rest : 0;
		}
	}
}

static int arm_message(struct sivshm_channel *c, size_t bytes)
{
	return sivshm_channel_arm(c);
}

int sivshm_channel_wait(struct sivshm_channel *c, int timeout_ms)
{
	return sleep_until(c, timeout_ms, arm_message, 0);
}

int sivshm_channel_wait_room(struct sivshm_channel *c, size_t bytes, int timeout_ms)
{
	return sleep_until(c, timeout_ms, sivshm_channel_arm_room, bytes);
}

void sivshm_channel_destroy(struct sivshm_channel *c)
{
	uint64_t before;

	if (!c)
		return;
	if (!c->broken) {
		/* So that a successor does not receive again what was given back. */
		before = tell(&c->rx);
		atomic_thread_fence(memory_order_seq_cst);
		answer_room(c, before);
	}
	free(c);
}
