/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The manager: its range, its ringer, and one epoll set for all that workers do.
 *
 * Fairness is the epoll set's: it is asked for what is ready, and what is ready again goes to the
 * end of its list. A ring that is taken counts once however often it was rung, so a worker can have
 * one call a vector until all others who are ready had theirs.
 *
 * A callback may remove any worker, also one of which an event has been fetched but not looked at
 * yet. A worker is therefore marked, and freed when no event is in hand.
 */
#include "manager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS = 64 };

static const uint64_t RANGE_BYTES = UINT64_C(64) << 30;

int sivshm_manager_create(const struct sivshm_manager_opts *opts, struct sivshm_manager **out)
{
	struct sivshm_manager *m;
	int rc;

	if (opts && opts->struct_bytes != sizeof(*opts))
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	rc = sivshm_ringer_init(&m->ringer);
	if (rc < 0)
		goto no_ringer;
	rc = sivshm_range_init(&m->range,
			       opts && opts->range_bytes ? opts->range_bytes : RANGE_BYTES);
	if (rc < 0)
		goto no_range;
	m->epoll = epoll_create1(EPOLL_CLOEXEC);
	rc = m->epoll < 0 ? -errno : 0;
	if (rc < 0)
		goto no_epoll;
	*out = m;
	return 0;

no_epoll:
	sivshm_range_fini(&m->range);
no_range:
	sivshm_ringer_fini(&m->ringer);
no_ringer:
	free(m);
	return rc;
}

void sivshm_manager_destroy(struct sivshm_manager *m)
{
	if (!m)
		return;
	while (m->workers)
		sivshm_worker_remove(m->workers);
	sivshm_manager_sweep(m);
	sivshm_range_fini(&m->range);
	while (m->removed) {
		struct sivshm_worker *w = m->removed;

		m->removed = w->next;
		free(w);
	}
	close(m->epoll);
	sivshm_ringer_fini(&m->ringer);
	free(m);
}

void *sivshm_manager_base(const struct sivshm_manager *m)
{
	return m->range.base;
}

size_t sivshm_manager_range(const struct sivshm_manager *m)
{
	return m->range.bytes;
}

int sivshm_manager_fd(const struct sivshm_manager *m)
{
	return m->epoll;
}

void sivshm_manager_sweep(struct sivshm_manager *m)
{
	struct sivshm_worker **at = &m->removed;

	while (*at && !m->dispatching) {
		struct sivshm_worker *w = *at;

		if (sivshm_range_unmap(&m->range, &w->span) < 0) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
}

int sivshm_manager_dispatch(struct sivshm_manager *m, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n, called = 0;

	if (m->dispatching)
		return -EBUSY;
	n = epoll_wait(m->epoll, events, EVENTS, timeout_ms);
	if (n < 0)
		return -errno;
	m->dispatching = true;
	for (int i = 0; i < n; i++)
		called += sivshm_worker_handle(events[i].data.ptr, events[i].events);
	m->dispatching = false;
	sivshm_manager_sweep(m);
	return called;
}
