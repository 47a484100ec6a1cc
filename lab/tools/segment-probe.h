/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the two sides of segment-probe share: the first page of a segment, in which the lead gives
 * its worker one command at a time and rings vector 0; the worker answers there and rings back.
 */
#ifndef LAB_SEGMENT_PROBE_H
#define LAB_SEGMENT_PROBE_H

#include <stdatomic.h>
#include <stdint.h>

#include "sivshm.h"

enum {
	PROBE_PAGE = 4096,
	PROBE_TEXT_MAX = 256,
	PROBE_STRANGER = 1000, /* owner of a mark that stands for somebody else's */
	PROBE_FENCE_ROUNDS = 5000,
	PROBE_READY = 1 << 30, /* in pong: the worker waits for the first ping */
};

enum probe_command {
	PROBE_MARK =
		1, /* marks every odd page of the segment as the worker's; argument: its number */
	PROBE_SEARCH, /* looks for marks in all that can be seen; argument: its number */
	PROBE_PING,   /* arguments: vector, rounds */
	PROBE_NOISE,  /* rings everybody it can think of */
	PROBE_FENCE,  /* stores and looks at what the lead stores; argument: rounds */
	PROBE_COUNT,  /* how often it was rung, commands apart, since it was asked last */
	PROBE_BYE,
};

enum probe_search {
	PROBE_OWN,     /* marks that are its own, or its manager's for it */
	PROBE_FOREIGN, /* marks of others */
	PROBE_DEVICES, /* ivshmem devices on the bus */
	PROBE_BARS,    /* other devices' BARs that were read */
	PROBE_BYTES,   /* that were read */
};

struct probe_page {
	_Atomic uint32_t hello; /* 1: the worker is there and knows of no command yet */
	_Atomic uint32_t asked; /* the number of the last command */
	_Atomic uint32_t done;
	uint32_t command;
	uint64_t arguments[2];
	uint64_t results[8];
	int32_t status; /* 0 or a negative errno */
	_Atomic uint32_t ping;
	_Atomic uint32_t pong;
	uint32_t interrupts; /* whether rings arrive in the worker */
	char text[PROBE_TEXT_MAX];
};

/* Marks are found at any multiple of 8. */
struct probe_mark {
	uint64_t magic;
	uint64_t owner;
};

#define PROBE_MAGIC UINT64_C(0x5ec2e7babe5ac3ed)

/* Marks every second page from page @first on: somewhere in it, another place in each. */
static inline void probe_mark_pages(void *memory, size_t size, size_t first, uint64_t owner)
{
	for (size_t page = first; page < size / PROBE_PAGE; page += 2) {
		volatile struct probe_mark *m =
			(void *)((char *)memory + page * PROBE_PAGE + page * 8 % 4080);

		m->magic = PROBE_MAGIC;
		m->owner = owner;
	}
}

/* Counts marks: those of @owner to *@own, others' to *@foreign. */
static inline void probe_search(const volatile void *memory, size_t size, uint64_t owner,
				uint64_t *own, uint64_t *foreign)
{
	const volatile uint64_t *word = memory;

	for (size_t i = 0; i + 1 < size / sizeof(*word); i++) {
		if (word[i] != PROBE_MAGIC)
			continue;
		if (word[i + 1] == owner)
			++*own;
		else
			++*foreign;
	}
}

/*
 * What needs a barrier: both sides store the round's number in their word at the same time, and
 * then look at the other's. At least one must see it. They write on lines of their own in the page
 * after the first, and what each saw behind that.
 */
struct probe_fence {
	_Alignas(64) _Atomic uint32_t ready[2]; /* for the round: worker, lead */
	_Alignas(64) _Atomic uint32_t worker;
	_Alignas(64) _Atomic uint32_t lead;
	_Alignas(64) uint8_t worker_saw[PROBE_FENCE_ROUNDS];
	_Alignas(64) uint8_t lead_saw[PROBE_FENCE_ROUNDS];
};

static inline void probe_fence_round(_Atomic uint32_t *own, const _Atomic uint32_t *other,
				     uint32_t round, uint8_t *saw)
{
	atomic_store_explicit(own, round, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	*saw = atomic_load_explicit(other, memory_order_relaxed) == round;
}

int probe_worker(const char *where);
int probe_lead(int argc, char **argv);
int probe_boot(int argc, char **argv);
int probe_first_ring(const char *peer);

#endif
