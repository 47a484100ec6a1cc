/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/helper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct helper_pool {
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct list jobs;
	struct list bulk;
	unsigned bulk_running;
	unsigned bulk_max;
	bool ending;
	unsigned threads_len;
	pthread_t threads[];
};

static void finish_job(struct reactor_msg *msg)
{
	struct helper_job *job = container_of(msg, struct helper_job, msg);

	job->done(job);
}

static struct helper_job *next_job(struct helper_pool *pool)
{
	struct list *node = list_pop(&pool->jobs);

	if (!node && pool->bulk_running < pool->bulk_max)
		node = list_pop(&pool->bulk);
	return node ? list_entry(node, struct helper_job, node) : NULL;
}

static void *helper_main(void *arg)
{
	struct helper_pool *pool = arg;
	struct helper_job *job;
	bool bulk;

	pthread_setname_np(pthread_self(), "helper");
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		job = next_job(pool);
		if (!job) {
			if (pool->ending && list_empty(&pool->bulk))
				break;
			pthread_cond_wait(&pool->more, &pool->lock);
			continue;
		}
		/* Once it is done the job is its submitter's again. */
		bulk = job->bulk;
		pool->bulk_running += bulk;
		pthread_mutex_unlock(&pool->lock);
		job->run(job);
		job->msg.fn = finish_job;
		reactor_send(job->owner, &job->msg);
		pthread_mutex_lock(&pool->lock);
		pool->bulk_running -= bulk;
		if (bulk)
			pthread_cond_broadcast(&pool->more);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int helper_pool_create(unsigned threads, struct helper_pool **out)
{
	struct helper_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
	int rc = 0;

	if (!pool)
		return -ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	list_init(&pool->jobs);
	list_init(&pool->bulk);
	pool->bulk_max = threads > 1 ? threads - 1 : 1;
	for (; !rc && pool->threads_len < threads; pool->threads_len += !rc)
		rc = pthread_create(&pool->threads[pool->threads_len], NULL, helper_main, pool);
	if (rc) {
		helper_pool_destroy(pool);
		return -rc;
	}
	*out = pool;
	return 0;
}

void helper_pool_destroy(struct helper_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->threads_len; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->more);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

static void submit(struct helper_pool *pool, struct reactor *owner, struct helper_job *job,
		   bool bulk)
{
	job->owner = owner;
	job->bulk = bulk;
	pthread_mutex_lock(&pool->lock);
	list_add_tail(bulk ? &pool->bulk : &pool->jobs, &job->node);
	pthread_cond_signal(&pool->more);
	pthread_mutex_unlock(&pool->lock);
}

void helper_submit(struct helper_pool *pool, struct reactor *owner, struct helper_job *job)
{
	submit(pool, owner, job, false);
}

void helper_submit_bulk(struct helper_pool *pool, struct reactor *owner, struct helper_job *job)
{
	submit(pool, owner, job, true);
}
