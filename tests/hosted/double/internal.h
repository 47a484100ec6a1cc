/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to the double: what its parts know of each other. */
#ifndef SLUICE_TEST_DOUBLE_INTERNAL_H
#define SLUICE_TEST_DOUBLE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "double.h"

enum {
	DOUBLE_DOMIDS = 0x7ff0, /* those of real domains are below */
	DOUBLE_PAGE_SIZE = 4096,
	DOUBLE_DOMAIN_PAGES = 16384, /* of address space; memory is used as it is touched */
	DOUBLE_PORTS = 1024,
	DOUBLE_GRANTS = 16384,
	DOUBLE_FIRST_GRANT = 8,
	DOUBLE_PINS_MAX = 255, /* of a grant */
};

struct double_grant {
	bool used;
	bool readonly;
	unsigned to;
	unsigned page;
	unsigned mapped;
	unsigned mapped_writable;    /* of those */
	unsigned mapped_for_devices; /* of those, too */
	uint64_t maps;               /* so far */
};

enum double_port_state {
	DOUBLE_PORT_FREE,
	DOUBLE_PORT_UNBOUND,
	DOUBLE_PORT_INTERDOMAIN,
};

struct double_port {
	enum double_port_state state;
	unsigned remote_domid;
	uint32_t remote_port;
	bool pending;
	bool masked;
	struct xenevtchn_handle *owner; /* NULL: a guest's */
	uint64_t received;
};

struct double_domain {
	struct list node;
	unsigned id;
	unsigned serial; /* of all domains of this world */
	/*
	 * Memory, with two views: the guest's, and one for the hypervisor's copies.  A race checker
	 * that goes by addresses thus does not mistake a copy for the guest's own access.
	 */
	int memfd;
	char *guest;
	char *host;
	bool page_used[DOUBLE_DOMAIN_PAGES];
	struct {
		unsigned readers; /* mappings by which devices reach the page */
		unsigned writers; /* of those, such that allow to write */
	} devices[DOUBLE_DOMAIN_PAGES];
	unsigned next_page;
	struct double_grant grants[DOUBLE_GRANTS];
	uint32_t next_grant;
	struct double_port ports[DOUBLE_PORTS];
};

/* Each lock covers its own part of all domains; the list of domains has one that nests inside. */
extern pthread_mutex_t double_evtchn_lock;
extern pthread_mutex_t double_gnttab_lock;

/* Domain @id that is not destroyed, or NULL. It stays valid until double_fini(). */
struct double_domain *double_find_domain(unsigned id);
/* The one with that serial number, alive or not, or NULL. */
struct double_domain *double_find_serial(unsigned serial);
/* The same as the first, for tests, which must know their domains. */
struct double_domain *double_get_domain(unsigned id);

/* Whether this call is to fail; sets errno then. */
bool double_fails(enum double_call call, const char *path);
/* Reports a leak. */
unsigned double_leak(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void double_abort(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

void double_store_init(void);
void double_store_fini(void);
unsigned double_store_leaks(void);
void double_store_add_domain(unsigned domid, const char *name);
void double_store_remove_domain(unsigned domid);
void double_store_add_stats(struct double_stats *stats);

void double_evtchn_init(void);
void double_evtchn_close_domain(struct double_domain *d);
unsigned double_evtchn_leaks(void);
void double_evtchn_add_stats(struct double_stats *stats);

void double_gnttab_init(void);
unsigned double_gnttab_leaks(void);
void double_gnttab_add_stats(struct double_stats *stats);
void double_gnttab_end_process(void);
/* Both with double_gnttab_lock held; the hook is called without it. */
void double_gnttab_tell_hook(bool map, const struct double_domain *d, uint32_t ref, bool writable);
bool double_gnttab_has_room(uint32_t pages);
/*
 * The same. Copies to a granted page, or from one, and returns the status; the counters and faults
 * are those of all copies.
 */
int16_t double_gnttab_copy(unsigned domid, uint32_t ref, unsigned offset, char *local, unsigned len,
			   bool to_grant);

void double_device_init(void);
unsigned double_device_leaks(void);
void double_device_add_stats(struct double_stats *stats);
void double_device_end_process(void);
/* How many mappings for devices there are; with double_gnttab_lock held. */
uint32_t double_device_mapped(void);

#endif
