/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways from one manager to several workers, each of which is a process.
 *
 * Messages are sent by their number: what is in them is the source's (source.h).  Bytes that arrive
 * are looked at in the same way whatever brought them, see source_touch().
 */
#ifndef SIVSHM_BENCH_TRANSPORT_H
#define SIVSHM_BENCH_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRANSPORT_WORKERS_MAX = 16, TRANSPORT_SEGMENT = 16 << 20 };

/* What a worker says of itself, and is told, in memory that is not the transport's. */
struct transport_report {
	_Alignas(128) _Atomic uint64_t bytes; /* looked at so far */
	_Atomic uint64_t sum;                 /* of what was looked at */
};

struct transport_board {
	atomic_bool stop; /* and end, as soon as all was received */
	struct transport_report reports[TRANSPORT_WORKERS_MAX];
};

struct transport {
	/* Manager: makes what its workers need, before they are started. */
	void (*prepare)(unsigned workers);
	/* Manager, with all workers started. */
	void (*open)(unsigned workers);
	/* Worker: opens its end. */
	void (*join)(unsigned worker);
	/* Manager: messages @number and following, up to @nr, to @worker, as many as have room,
	 * with no waiting. Returns how many. */
	unsigned (*send)(unsigned worker, uint64_t number, unsigned nr, size_t bytes);
	/* Manager: a message has been sent in part; goes on with that. Returns whether none is. */
	bool (*finish)(unsigned worker);
	/* Worker: looks at all that comes, until @board says stop. @alone: on its core. */
	void (*consume)(unsigned worker, bool alone, struct transport_board *board);
	/* Both: a message to worker 0 or back, and waiting for one, polling or asleep. */
	void (*say)(size_t bytes);
	void (*hear)(size_t bytes, bool poll);
};

/* The channels of this program, if that is their name, or else NULL; so with sockets. */
const struct transport *transport_channel(const char *name);
const struct transport *transport_socket(const char *name);

/* For transports: notes that @bytes with this sum were looked at. */
static inline void transport_note(struct transport_report *report, uint64_t bytes, uint64_t sum)
{
	/* Nobody else writes here. */
	sum += atomic_load_explicit(&report->sum, memory_order_relaxed);
	bytes += atomic_load_explicit(&report->bytes, memory_order_relaxed);
	atomic_store_explicit(&report->sum, sum, memory_order_relaxed);
	atomic_store_explicit(&report->bytes, bytes, memory_order_release);
}

enum {
	/* How often a worker looks before it sleeps, alone on its core, or letting others go first.
	 */
	TRANSPORT_LOOKS_ALONE = 20,
	TRANSPORT_LOOKS_SHARED = 50,
	/* And how long it pauses between two looks, about 10 us: who follows close
	 * behind the sender takes lines from under its hands, and both are slower by that. */
	TRANSPORT_PAUSES = 1000,
};

#endif
