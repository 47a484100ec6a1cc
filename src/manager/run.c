/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sivshm run` and `sivshm qemu`: workers that know what to do with their segments. The tool starts
 * and watches them, frees the memory of those that end, and starts them anew if it is asked to.
 */
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "manager/commands.h"
#include "manager/crew.h"
#include "manager/qemu.h"
#include "manager/say.h"
#include "manager/words.h"

enum {
	GRACE_MS = 2000,
	QUICK_MS = 1000, /* a life shorter than this is no success */
	QUICK_MAX = 3,   /* so many of them in a row, and a worker is not started again */
};

struct run {
	const struct options *o;
	struct crew *crew;
	unsigned *quick; /* short lives in a row, by worker */
	bool failed;     /* a worker has */
	bool ending;
};

static char **command_of(unsigned number, void *arg)
{
	const struct run *run = arg;

	return words_of_worker(run->o, number);
}

static void on_rung(struct member *m, unsigned vector, void *arg)
{
	const struct run *run = arg;

	if (run->o->guests && !m->rang)
		say("worker %u rang for the first time after %.2f s", m->number,
		    (double)(clock_now_ns() - m->started_ns) / 1e9);
	/* One that cannot be rung is gone, which is noticed elsewhere. */
	if (run->o->echo)
		(void)sivshm_port_ring(m->port, vector);
}

/* Whether a worker that has ended is to be started again. */
static bool comes_back(struct run *run, const struct member *m)
{
	unsigned *quick = &run->quick[m->number];

	if (!run->o->restart || run->ending)
		return false;
	if (clock_now_ns() - m->started_ns >= QUICK_MS * NSEC_PER_MSEC)
		*quick = 0;
	else
		++*quick;
	if (*quick < QUICK_MAX)
		return true;
	say("worker %u has ended %d times within a second: it is not started again", m->number,
	    QUICK_MAX);
	return false;
}

static void on_ended(struct member *m, void *arg)
{
	struct run *run = arg;

	say("worker %u %s; its memory is free", m->number, say_ending(m->status));
	if (comes_back(run, m)) {
		if (!crew_start(run->crew, m->number))
			say("worker %u is started again", m->number);
		else
			run->failed = true;
		return;
	}
	if (m->status && !run->ending)
		run->failed = true;
}

static int watch(struct run *run)
{
	int rc = crew_start_all(run->crew);

	while (!rc && crew_running(run->crew) && !crew_signal(run->crew) &&
	       (!run->failed || run->o->keep_going))
		rc = crew_poll(run->crew, NULL, -1);
	run->ending = true;
	if (crew_running(run->crew)) {
		if (run->failed)
			say("the other workers are ended, too (--keep-going lets them run)");
		crew_end(run->crew, SIGTERM, GRACE_MS);
	}
	if (crew_signal(run->crew))
		return 128 + crew_signal(run->crew);
	return rc ? rc : run->failed;
}

static int run_workers(const struct options *o)
{
	static const struct crew_ops ops = {
		.command = command_of,
		.rung = on_rung,
		.ended = on_ended,
	};
	struct run run = {.o = o};
	const struct crew_opts opts = {
		.workers = o->workers,
		.segment_bytes = o->segment_bytes,
		.vectors = o->vectors,
		.huge_pages = o->huge_pages,
		.out = stdout,
		.ops = &ops,
		.arg = &run,
	};
	int rc;

	run.quick = calloc(o->workers, sizeof(run.quick[0]));
	if (!run.quick)
		return say_failure("out of memory");
	rc = crew_create(&opts, &run.crew);
	if (!rc) {
		rc = watch(&run);
		crew_destroy(run.crew);
	}
	free(run.quick);
	return rc;
}

int run_processes(const struct options *o)
{
	if (o->words[0])
		return say_misuse(o->command,
				  "'%s' stands where the program is not: put -- before it",
				  say_name(o->words[0]));
	if (!o->program || !o->program[0])
		return say_misuse(o->command, "the program is missing: put it after --");
	return run_workers(o);
}

int run_guests(const struct options *o)
{
	struct options guests = *o;
	int rc;

	guests.guests = true;
	if (o->words[0])
		return say_misuse(o->command,
				  "'%s' stands where nothing is expected: QEMU's own "
				  "arguments come after --",
				  say_name(o->words[0]));
	rc = qemu_check(o);
	if (rc)
		return rc;
	return o->show ? qemu_show(o) : run_workers(&guests);
}
