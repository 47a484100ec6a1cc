/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sivshm distribute`: items go out to workers, and results come back.
 *
 * An item belongs to one place at a time: to the source, to `again` (its worker was lost), to a
 * hand, or to the gathering. It leaves a hand only by being done, or with the worker, and only what
 * is done is gathered: so every item is handed out at least once, and its result counts exactly
 * once. One loop moves all of it on; when nothing moves it asks every worker to ring, looks once
 * more, and sleeps.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "manager/commands.h"
#include "manager/crew.h"
#include "manager/gather.h"
#include "manager/hand.h"
#include "manager/progress.h"
#include "manager/qemu.h"
#include "manager/say.h"
#include "manager/source.h"
#include "manager/words.h"
#include "sivshm_items.h"

enum {
	SEGMENT_MIN = 1 << 20, /* bytes; both rings take messages of the protocol's size */
	RECEIVE_BATCH = 64,    /* messages of a worker before the next has its turn */
	SEND_BATCH = 1 << 20,  /* bytes, likewise */
	LOOK_NS = 2000000,     /* so often the system is asked even when there is work */
	SLEEP_MS = 200,        /* time is looked at so often */
	LEAVE_MS = 3000,       /* for workers to end by themselves */
	WINDOW = 4,            /* with --ordered: items handed out, times all that fit in hands */
};

struct work {
	const struct options *o;
	struct crew *crew;
	struct hand *hands;
	bool *expelled; /* whose end was said; by worker */
	struct source *source;
	struct gather gather;
	struct progress progress;
	struct progress_state state;
	struct item *head; /* the source's next */
	bool source_over;
	struct item_list again;
	unsigned turn; /* the worker that had the last item */
	uint64_t now_ns, looked_ns;
	unsigned failures; /* items without a result */
	bool finishing;
	int rc; /* what ends it early */
};

static bool is_there(const struct work *w, unsigned n)
{
	return w->hands[n].channel;
}

/* Workers */

static char **command_of(unsigned number, void *arg)
{
	const struct work *w = arg;

	return words_of_worker(w->o, number);
}

static int prepare(struct member *m, void *arg)
{
	struct work *w = arg;

	w->state.alive++;
	return hand_open(&w->hands[m->number], m->port, w->o->result_max);
}

/* Takes a worker's items from it; no word of it counts any more. */
static unsigned drop(struct work *w, unsigned n)
{
	unsigned count = hand_close(&w->hands[n], &w->again);

	w->state.alive--;
	w->state.in_flight -= count;
	return count;
}

static void expel(struct work *w, unsigned n, const char *why)
{
	unsigned count = drop(w, n);

	say("worker %u is ended: %s; %u items go to others", n, why, count);
	w->expelled[n] = true;
	crew_kill(crew_member(w->crew, n));
}

/* A result that is none costs its worker the rest, too. */
static void take_item(struct work *w, unsigned n, struct item *i)
{
	uint64_t bytes = i->sent;
	bool failed = i->failed;
	int rc = gather_take(&w->gather, i);

	w->state.in_flight--;
	if (rc == -EPROTO) {
		item_reset(i);
		item_list_add(&w->again, i);
		expel(w, n, "its result has a line that is not KEY<TAB>NUMBER");
		return;
	}
	w->state.items++;
	w->state.bytes += bytes;
	w->failures += failed;
	if (rc)
		w->rc = EXIT_FAILURE;
}

static bool receive(struct work *w, unsigned n, unsigned batch)
{
	struct hand *h = &w->hands[n];
	struct item *done;
	bool moved = false;

	while (batch-- && is_there(w, n) && !w->rc) {
		int rc = hand_receive(h, &done);

		if (rc < 0)
			expel(w, n, h->why);
		if (rc <= 0)
			break;
		moved = true;
		if (done)
			take_item(w, n, done);
	}
	return moved;
}

/* What a worker said before it went counts. */
static void on_lost(struct member *m, void *arg)
{
	struct work *w = arg;
	unsigned count;

	if (!is_there(w, m->number))
		return;
	while (!w->finishing && receive(w, m->number, RECEIVE_BATCH))
		;
	if (!is_there(w, m->number))
		return;
	count = drop(w, m->number);
	if (!w->finishing && m->child.pid)
		say("worker %u is gone; %u items go to others", m->number, count);
	child_signal(&m->child, SIGKILL);
}

static void on_ended(struct member *m, void *arg)
{
	const struct work *w = arg;

	if (!w->finishing && !w->expelled[m->number])
		say("worker %u %s", m->number, say_ending(m->status));
}

/* Handing out */

static bool has_room(const struct work *w, unsigned n)
{
	return w->hands[n].greeted && w->hands[n].count < w->o->in_flight;
}

/* The worker that has least to do, or -1. */
static int choose_idlest(const struct work *w)
{
	int best = -1;

	for (unsigned i = 1; i <= w->o->workers; i++) {
		unsigned n = (w->turn + i) % w->o->workers;

		if (is_there(w, n) && has_room(w, n) &&
		    (best < 0 || w->hands[n].count < w->hands[best].count))
			best = (int)n;
	}
	return best;
}

/* The first worker from @n on that is there, if it has room, or -1. */
static int choose_from(const struct work *w, unsigned n)
{
	for (unsigned i = 0; i < w->o->workers; i++) {
		unsigned at = (n + i) % w->o->workers;

		if (is_there(w, at))
			return has_room(w, at) ? (int)at : -1;
	}
	return -1;
}

static int choose(const struct work *w, const struct item *i)
{
	switch (w->o->by) {
	case BY_ROUND_ROBIN:
		return choose_from(w, (w->turn + 1) % w->o->workers);
	case BY_HASH:
		return choose_from(w, (unsigned)(i->hash % w->o->workers));
	default:
		return choose_idlest(w);
	}
}

/* The next item to be handed out, which stays where it is. */
static struct item *next_item(struct work *w)
{
	int rc;

	if (w->again.first)
		return w->again.first;
	if (!w->head && !w->source_over) {
		rc = source_next(w->source, &w->head);
		w->source_over = rc < 0;
		if (rc == -EIO)
			w->rc = EXIT_FAILURE;
	}
	return w->head;
}

/* Results of later items are kept, so these must not run far ahead. */
static bool is_too_early(const struct work *w, const struct item *i)
{
	uint64_t window = (uint64_t)WINDOW * w->o->in_flight * w->o->workers;

	return w->o->ordered && i->id >= w->gather.next + window;
}

static bool hand_out(struct work *w)
{
	bool moved = false;
	struct item *i;

	while (!w->rc && (i = next_item(w))) {
		int n = is_too_early(w, i) ? -1 : choose(w, i);

		if (n < 0)
			break;
		if (i == w->head)
			w->head = NULL;
		else
			item_list_take(&w->again);
		hand_give(&w->hands[n], i);
		w->turn = (unsigned)n;
		w->state.in_flight++;
		moved = true;
	}
	return moved;
}

static bool send_all(struct work *w)
{
	bool moved = false;

	for (unsigned n = 0; n < w->o->workers; n++) {
		ssize_t sent;

		if (!is_there(w, n))
			continue;
		sent = hand_send(&w->hands[n], SEND_BATCH);
		if (sent < 0) {
			expel(w, n, w->hands[n].why);
			continue;
		}
		hand_settle(&w->hands[n]);
		moved |= sent > 0;
	}
	return moved;
}

/* Time */

/*
 * Judged by the time at which this pass began: whatever a worker did while output or a file was
 * slow has been seen since, or will be before the next pass judges.
 */
static void look_for_stalls(struct work *w)
{
	char why[64];

	for (unsigned n = 0; n < w->o->workers && w->o->stall_s; n++) {
		const struct hand *h = &w->hands[n];

		if (!is_there(w, n) || (h->greeted && !h->count) ||
		    w->now_ns < h->stamp_ns + w->o->stall_s * NSEC_PER_SEC)
			continue;
		snprintf(why, sizeof(why), "it has made no progress for %u s", w->o->stall_s);
		expel(w, n, why);
	}
}

/* Sleeps until something happens, but not if something has already. */
static int sleep_or_look(struct work *w, bool moved)
{
	bool reads = !w->again.first && !w->head && !w->source_over && source_fd(w->source) >= 0;
	struct pollfd input = {reads ? source_fd(w->source) : -1, POLLIN, 0};

	if (moved && w->now_ns - w->looked_ns < LOOK_NS)
		return 0;
	w->looked_ns = w->now_ns;
	for (unsigned n = 0; n < w->o->workers && !moved; n++)
		if (is_there(w, n))
			moved = hand_arm(&w->hands[n]);
	if (!moved && fflush(stdout))
		return say_failure("cannot write results: %m");
	return crew_poll(w->crew, &input, moved ? 0 : SLEEP_MS);
}

static bool is_over(struct work *w)
{
	return !w->state.in_flight && !next_item(w) && w->source_over;
}

/* Returns 0 when all is done. */
static int work_all(struct work *w)
{
	while (!w->rc && !crew_signal(w->crew)) {
		bool moved = false;

		w->now_ns = clock_now_ns();
		for (unsigned n = 0; n < w->o->workers; n++)
			moved |= receive(w, n, RECEIVE_BATCH);
		moved |= hand_out(w);
		moved |= send_all(w);
		look_for_stalls(w);
		progress_show(&w->progress, &w->state, w->now_ns);
		if (w->rc || is_over(w))
			break;
		if (!w->state.alive) {
			/* Of each is said how it ended. */
			crew_end(w->crew, 0, LEAVE_MS);
			return say_failure("no worker is left, and not all is done");
		}
		w->rc = sleep_or_look(w, moved);
	}
	return w->rc;
}

/* Lets the workers end. */
static void leave(struct work *w)
{
	w->finishing = true;
	for (unsigned n = 0; n < w->o->workers; n++) {
		if (!is_there(w, n))
			continue;
		if (w->hands[n].greeted && !w->hands[n].count)
			hand_finish(&w->hands[n]);
		else
			crew_kill(crew_member(w->crew, n));
	}
	crew_end(w->crew, 0, crew_signal(w->crew) || w->rc ? 0 : LEAVE_MS);
}

static int work(struct work *w)
{
	int rc = crew_start_all(w->crew);

	if (!rc)
		rc = work_all(w);
	w->rc = rc;
	progress_finish(&w->progress, &w->state, clock_now_ns());
	leave(w);
	if (crew_signal(w->crew))
		return 128 + crew_signal(w->crew);
	if (!rc)
		rc = gather_finish(&w->gather);
	if (rc || (!w->failures && !source_failures(w->source)))
		return rc;
	return say_failure("items without a result: %u", w->failures + source_failures(w->source));
}

static void free_items(struct work *w)
{
	struct item *i;

	while ((i = item_list_take(&w->again)))
		item_free(i);
	if (w->head)
		item_free(w->head);
}

static int set_up(struct work *w)
{
	static const struct crew_ops ops = {
		.command = command_of,
		.prepare = prepare,
		.lost = on_lost,
		.ended = on_ended,
	};
	const struct crew_opts opts = {
		.workers = w->o->workers,
		.segment_bytes = w->o->segment_bytes,
		.vectors = w->o->vectors,
		.huge_pages = w->o->huge_pages,
		.out = stderr,
		.ops = &ops,
		.arg = w,
	};

	w->hands = calloc(w->o->workers, sizeof(w->hands[0]));
	w->expelled = calloc(w->o->workers, sizeof(w->expelled[0]));
	if (!w->hands || !w->expelled)
		return say_failure("out of memory");
	return crew_create(&opts, &w->crew);
}

static int check(const struct options *o)
{
	if (o->segment_bytes < SEGMENT_MIN)
		return say_misuse(o->command, "--segment takes at least 1M here");
	if (o->ordered && o->sum)
		return say_misuse(o->command, "give one of --ordered and --sum");
	if (o->guests)
		return qemu_check(o);
	if (o->guests_wanted)
		return say_misuse(o->command, "options of guests need --guests");
	if (!o->program || !o->program[0])
		return say_misuse(o->command, "the worker's program is missing: put it after --");
	return 0;
}

int distribute(const struct options *o)
{
	struct work w = {.o = o, .state.workers = o->workers, .turn = o->workers - 1};
	int rc = check(o);

	if (!rc)
		rc = source_create(o, &w.source);
	if (rc)
		return rc;
	gather_init(&w.gather, o);
	progress_init(&w.progress, o->progress, clock_now_ns());
	rc = set_up(&w);
	if (!rc)
		rc = work(&w);
	crew_destroy(w.crew);
	free(w.hands);
	free(w.expelled);
	free_items(&w);
	gather_destroy(&w.gather);
	source_destroy(w.source);
	return rc;
}
