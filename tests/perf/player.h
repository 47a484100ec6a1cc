/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * player: a backend played by hand over a real segment, which can be made to lie and to lose data.
 *
 * It shares with Sluice's own backend the wire alone, so that the frontend and the load generator
 * are tested against something that fails when, and as, the test wants it.
 */
#ifndef SLUICE_TEST_PERF_PLAYER_H
#define SLUICE_TEST_PERF_PLAYER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkif/control_page.h"
#include "blkif/ring.h"
#include "sivshm.h"

enum player_fault {
	PLAYER_FAITHFUL,
	PLAYER_LOSES_WRITE,
	PLAYER_READS_STALE,   /* what was there before the last write, once */
	PLAYER_READS_NOTHING, /* says so, and leaves the page as it is */
	PLAYER_TEARS_WRITE,   /* its first sector only */
	PLAYER_MISPLACES_WRITE,
	PLAYER_FLIPS_BIT,
	PLAYER_FAILS, /* answers with an error */
	PLAYER_WRONG_ID,
	PLAYER_SILENT,
	PLAYER_CLOSING, /* wants the disk back */
	PLAYER_CLOSED,  /* and takes it, with what was asked for unanswered */
};

enum { PLAYER_DISK = 1 << 20, PLAYER_QUEUES = 4, PLAYER_VECTORS = 1 + PLAYER_QUEUES };

struct player {
	struct sivshm_manager *manager;
	struct sivshm_worker *worker;
	struct sivshm_port *port; /* its own side */
	struct control_page *page;
	struct control_backend offer; /* what it says at OFFER, apart from state and epoch */
	/* The fault happens so often (0: once), to the first that it fits after so many requests.
	 */
	enum player_fault fault;
	unsigned fault_after;
	unsigned fault_times;
	unsigned fault_queue; /* and in this queue only, counted from 1; 0: in any */
	unsigned failed;      /* how often it did */
	bool refuses;         /* says REFUSED to what was chosen */
	unsigned nr_queues;
	struct blkif_ring rings[PLAYER_QUEUES];
	bool serves;
	atomic_ulong requests;
	atomic_ulong flushes;
	uint8_t *disk;
	uint8_t *before; /* what the last write to each sector has replaced */
	pthread_t thread;
	atomic_bool stop;
};

/* A segment of @bytes, and a backend that has laid out its page. */
void player_start(struct player *p, size_t bytes);
void player_end(struct player *p);
/* The other side's end: "fd:N" for sivshm_open(). */
void player_where(struct player *p, char *where, size_t len);
/* Answers what the frontend has said and asked. Returns whether there was something. */
bool player_step(struct player *p);
/* The same on a thread, until player_leave(). */
void player_serve(struct player *p);
void player_leave(struct player *p);
void player_say(struct player *p, enum control_backend_state state);

#endif
