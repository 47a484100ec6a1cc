/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/helper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct helper_pool {
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct list jobs;
	bool ending;
	unsigned threads_len;
	pthread_t threads[];
};

static void finish_job(struct reactor_msg *msg)
{
	struct helper_job *job = container_of(msg, struct helper_job, msg);

	job->done(job);
}

static void *helper_main(void *arg)
{
	struct helper_pool *pool = arg;

	pthread_setname_np(pthread_self(), "helper");
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct list *node = list_pop(&pool->jobs);
		struct helper_job *job;

		if (!node) {
			if (pool->ending)
				break;
			pthread_cond_wait(&pool->more, &pool->lock);
			continue;
		}
		pthread_mutex_unlock(&pool->lock);
		job = list_entry(node, struct helper_job, node);
		job->run(job);
		job->msg.fn = finish_job;
		reactor_send(job->owner, &job->msg);
		pthread_mutex_lock(&pool->lock);
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

void helper_submit(struct helper_pool *pool, struct reactor *owner, struct helper_job *job)
{
	job->owner = owner;
	pthread_mutex_lock(&pool->lock);
	list_add_tail(&pool->jobs, &job->node);
	pthread_cond_signal(&pool->more);
	pthread_mutex_unlock(&pool->lock);
}
