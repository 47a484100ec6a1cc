/* SPDX-License-Identifier: BSD-2-Clause */
/* The world of the double: domains, injected faults, and what is left over at its end. */
#include "double.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

static pthread_mutex_t world_lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static struct list domains = LIST_INIT(domains);
/* Those that live, by their ids: each copy and each event asks for one, and there may be many. */
static _Atomic(struct double_domain *) living[DOUBLE_DOMIDS];
static unsigned next_serial;
static struct {
	int error;
	unsigned skip;
	unsigned times;
	const char *match;
} faults[DOUBLE_CALLS];

void double_abort(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("double: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

unsigned double_leak(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("double: left over: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	return 1;
}

struct double_domain *double_find_domain(unsigned id)
{
	return id < DOUBLE_DOMIDS ? atomic_load(&living[id]) : NULL;
}

struct double_domain *double_find_serial(unsigned serial)
{
	struct double_domain *found = NULL;
	struct list *pos;

	pthread_mutex_lock(&world_lock);
	list_for_each (pos, &domains)
		if (list_entry(pos, struct double_domain, node)->serial == serial)
			found = list_entry(pos, struct double_domain, node);
	pthread_mutex_unlock(&world_lock);
	return found;
}

struct double_domain *double_get_domain(unsigned id)
{
	struct double_domain *d = double_find_domain(id);

	if (!d)
		double_abort("no domain %u", id);
	return d;
}

static void add_domain(unsigned id)
{
	size_t bytes = (size_t)DOUBLE_DOMAIN_PAGES * DOUBLE_PAGE_SIZE;
	struct double_domain *d = calloc(1, sizeof(*d));

	if (!d)
		double_abort("out of memory");
	d->id = id;
	d->next_grant = DOUBLE_FIRST_GRANT;
	d->memfd = memfd_create("guest", MFD_CLOEXEC);
	if (d->memfd < 0 || ftruncate(d->memfd, (off_t)bytes))
		double_abort("no memory for domain %u: %s", id, strerror(errno));
	d->guest = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, d->memfd, 0);
	d->host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, d->memfd, 0);
	if (d->guest == MAP_FAILED || d->host == MAP_FAILED)
		double_abort("cannot map domain %u: %s", id, strerror(errno));
	pthread_mutex_lock(&world_lock);
	d->serial = next_serial++;
	list_add_tail(&domains, &d->node);
	pthread_mutex_unlock(&world_lock);
	atomic_store(&living[id], d);
}

void double_init(void)
{
	memset(faults, 0, sizeof(faults));
	next_serial = 0;
	double_evtchn_init();
	double_gnttab_init();
	double_device_init();
	double_store_init();
	add_domain(0);
	double_store_add_domain(0, "Domain-0");
}

void double_fini(void)
{
	size_t bytes = (size_t)DOUBLE_DOMAIN_PAGES * DOUBLE_PAGE_SIZE;
	struct list *node;

	double_store_fini();
	while ((node = list_pop(&domains))) {
		struct double_domain *d = list_entry(node, struct double_domain, node);

		atomic_store(&living[d->id], NULL);
		munmap(d->guest, bytes);
		munmap(d->host, bytes);
		close(d->memfd);
		free(d);
	}
}

unsigned double_leaks(void)
{
	return double_store_leaks() + double_evtchn_leaks() + double_gnttab_leaks() +
	       double_device_leaks();
}

void double_domain_create(unsigned domid, const char *name)
{
	if (domid >= DOUBLE_DOMIDS || double_find_domain(domid))
		double_abort("domain %u exists, or cannot", domid);
	add_domain(domid);
	double_store_add_domain(domid, name);
}

void double_domain_destroy(unsigned domid)
{
	struct double_domain *d = double_get_domain(domid);

	atomic_store(&living[domid], NULL);
	double_evtchn_close_domain(d);
	double_store_remove_domain(domid);
}

void double_fail(enum double_call call, int error, unsigned skip, unsigned times, const char *match)
{
	pthread_mutex_lock(&world_lock);
	faults[call].error = error;
	faults[call].skip = skip;
	faults[call].times = times;
	faults[call].match = match;
	pthread_mutex_unlock(&world_lock);
}

bool double_fails(enum double_call call, const char *path)
{
	int error = 0;

	pthread_mutex_lock(&world_lock);
	if (!faults[call].match || (path && strstr(path, faults[call].match))) {
		if (faults[call].skip) {
			faults[call].skip--;
		} else if (faults[call].times) {
			faults[call].times--;
			error = faults[call].error;
		}
	}
	pthread_mutex_unlock(&world_lock);
	if (error)
		errno = error;
	return error;
}

void double_get_stats(struct double_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	double_store_add_stats(stats);
	double_evtchn_add_stats(stats);
	double_gnttab_add_stats(stats);
	double_device_add_stats(stats);
}

void double_end_process(void)
{
	double_gnttab_end_process();
	double_device_end_process();
}
