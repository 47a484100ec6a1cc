/* SPDX-License-Identifier: BSD-2-Clause */
/* Helper threads: a few threads for calls that block, so that no reactor ever does. */
#ifndef SLUICE_REACTOR_HELPER_H
#define SLUICE_REACTOR_HELPER_H

#include "base/list.h"
#include "reactor/reactor.h"

struct helper_pool;

/* A job; part of a larger object of the submitter's, untouched by it until done has run. */
struct helper_job {
	void (*run)(struct helper_job *job);  /* on a helper thread; may block */
	void (*done)(struct helper_job *job); /* afterwards, on the submitter's reactor */
	/* private */
	struct reactor *owner;
	struct reactor_msg msg;
	struct list node;
	bool bulk;
};

/* Starts @threads helper threads. Returns 0 and *@out, or a negative errno. */
int helper_pool_create(unsigned threads, struct helper_pool **out);
/* Waits for the jobs submitted so far, then ends the threads. */
void helper_pool_destroy(struct helper_pool *pool);
/* Runs @job on a helper thread and its done on @owner. */
void helper_submit(struct helper_pool *pool, struct reactor *owner, struct helper_job *job);
/*
 * The same for a job that may take long, and that there may be many of: one thread, if there are
 * several, is always left to the others.
 */
void helper_submit_bulk(struct helper_pool *pool, struct reactor *owner, struct helper_job *job);

#endif
