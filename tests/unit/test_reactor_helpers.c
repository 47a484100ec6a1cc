/* SPDX-License-Identifier: BSD-2-Clause */
/* Helper threads: every job is done once, and told to the reactor that gave it. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "reactor/helper.h"
#include "reactor_harness.h"

struct job {
	struct helper_job job;
	pthread_t ran_on;
	pthread_t done_on;
	unsigned runs;
	unsigned dones;
};

static atomic_uint jobs_done;

static void job_run(struct helper_job *base)
{
	struct job *j = container_of(base, struct job, job);

	j->ran_on = pthread_self();
	j->runs++;
}

static void job_done(struct helper_job *base)
{
	struct job *j = container_of(base, struct job, job);

	j->done_on = pthread_self();
	j->dones++;
	atomic_fetch_add(&jobs_done, 1);
}

static void whose_thread(void *arg)
{
	*(pthread_t *)arg = pthread_self();
}

static void helpers_do_all_jobs(void **state)
{
	static struct job jobs[1000];
	struct helper_pool *pool;
	pthread_t thread;
	uint64_t start;

	memset(jobs, 0, sizeof(jobs));
	atomic_store(&jobs_done, 0);
	on_reactor(whose_thread, &thread);
	assert_int_equal(helper_pool_create(3, &pool), 0);
	for (unsigned i = 0; i < 1000; i++) {
		jobs[i].job.run = job_run;
		jobs[i].job.done = job_done;
		helper_submit(pool, reactor, &jobs[i].job);
	}
	/* Ending waits for what was submitted. */
	helper_pool_destroy(pool);
	start = clock_now_ns();
	while (atomic_load(&jobs_done) < 1000 && clock_now_ns() - start < 10 * NSEC_PER_SEC)
		nap_ms(1);
	on_reactor(nothing, NULL);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(jobs[i].runs, 1);
		assert_int_equal(jobs[i].dones, 1);
		assert_true(pthread_equal(jobs[i].done_on, thread));
		assert_false(pthread_equal(jobs[i].ran_on, thread));
	}
}

/* Bulk jobs that block keep one thread less than there are: the others' jobs go on. */

static atomic_uint bulk_running, bulk_most;
static atomic_bool bulk_go;

static void bulk_run(struct helper_job *job)
{
	unsigned now = atomic_fetch_add(&bulk_running, 1) + 1, most = atomic_load(&bulk_most);

	while (now > most && !atomic_compare_exchange_weak(&bulk_most, &most, now))
		;
	while (!atomic_load(&bulk_go))
		nap_ms(1);
	atomic_fetch_sub(&bulk_running, 1);
	job_run(job);
}

static void wait_for_jobs(unsigned n)
{
	uint64_t start = clock_now_ns();

	while (atomic_load(&jobs_done) < n && clock_now_ns() - start < 10 * NSEC_PER_SEC)
		nap_ms(1);
	assert_int_equal(atomic_load(&jobs_done), n);
}

static void bulk_leaves_a_thread_to_others(void **state)
{
	enum { BULK = 20, OTHERS = 50 };
	static struct job jobs[BULK + OTHERS];
	struct helper_pool *pool;

	for (unsigned threads = 2; threads <= 3; threads++) {
		memset(jobs, 0, sizeof(jobs));
		atomic_store(&jobs_done, 0);
		atomic_store(&bulk_most, 0);
		atomic_store(&bulk_go, false);
		assert_int_equal(helper_pool_create(threads, &pool), 0);
		for (unsigned i = 0; i < BULK + OTHERS; i++) {
			jobs[i].job.run = i < BULK ? bulk_run : job_run;
			jobs[i].job.done = job_done;
			if (i < BULK)
				helper_submit_bulk(pool, reactor, &jobs[i].job);
			else
				helper_submit(pool, reactor, &jobs[i].job);
		}
		wait_for_jobs(OTHERS);
		/* As many as there may be have begun by now, or are about to. */
		for (int ms = 0; atomic_load(&bulk_running) < threads - 1 && ms < 10000; ms++)
			nap_ms(1);
		atomic_store(&bulk_go, true);
		helper_pool_destroy(pool);
		wait_for_jobs(BULK + OTHERS);
		assert_int_equal(atomic_load(&bulk_most), threads - 1);
		on_reactor(nothing, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bulk_leaves_a_thread_to_others, setup, teardown),
		cmocka_unit_test_setup_teardown(helpers_do_all_jobs, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
