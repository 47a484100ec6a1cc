/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Xen backend: finds the devices that are ours in xenstore, and serves them.
 *
 * A device is ours if its directory has the key `sluice` with our instance's name, or, before a
 * toolstack's script has run, the script block-sluice and a target that names our instance.
 *
 * All functions belong to the control thread.
 */
#ifndef SLUICE_XEN_BACKEND_H
#define SLUICE_XEN_BACKEND_H

#include <jansson.h>

#include "base/err.h"
#include "reactor/reactor.h"
#include "xen/target.h"

struct grant_ledger;
struct xen_backend;
struct vbd;

struct xen_backend_opts {
	const char *instance; /* our name; a device of another instance is left alone */
	const char *const
		*kinds; /* names below backend/: "vbd", "vbd3", "qdisk"; NULL at the end */
	struct reactor *control;
	struct reactor **reactors; /* that serve queues; not running yet */
	unsigned nr_reactors;
	size_t bounce_pages; /* of each reactor */
	/* What a guest may have over all its disks: bounce pages beyond its queues' own, mapped
	 * ones. */
	size_t guest_bounce_pages;
	size_t guest_maps;
	unsigned max_queues;  /* offered to each frontend */
	uint32_t spin_max_ns; /* how long an idle queue may be polled */
	/*
	 * Of what is mapped for devices, the caller's; NULL: disks cannot be shared so (where the
	 * domain is none for that, say).
	 */
	struct grant_ledger *ledger;
	uint32_t device_maps; /* as many are mapped for devices, guests get no more */
	const char *root;     /* where /sys and /dev are; "" but in tests */
};

/*
 * Opens xenstore, event channels and grants, and makes each reactor ready. Returns 0 and *@out, or
 * a negative errno with the remedy. The strings of @opts are not copied.
 */
int xen_backend_create(const struct xen_backend_opts *opts, struct xen_backend **out,
		       struct err *err);
/* Looks for devices, now and from now on. The reactors run. Returns 0 or a negative errno. */
int xen_backend_start(struct xen_backend *be, struct err *err);
/*
 * Disconnects from all rings once what was taken from them is answered, leaves the guests
 * connected with a clean mark for a successor, and calls @drained. Nothing is served from now on.
 */
void xen_backend_drain(struct xen_backend *be, void (*drained)(void *arg), void *arg);
/* Before the reactors have run, or when they have stopped after a drain. */
void xen_backend_destroy(struct xen_backend *be);

/*
 * From how many bytes of a request on (UINT32_MAX: never) sharing=auto maps for devices what a
 * device can reach and its guest does not leave mapped, for disks that connect from now on. Until
 * it was called sharing=auto maps nothing, and guests are not asked to leave anything mapped.
 */
void xen_backend_set_map_from(struct xen_backend *be, uint32_t bytes);

/* A domain by its number or name. Returns 0 or -ENOENT, with the remedy. @name has 64 bytes. */
int xen_backend_find_domain(struct xen_backend *be, const char *domain, uint32_t *domid, char *name,
			    struct err *err);
/* Whether xl's libxl knows the domain, so that disks have to be attached through it. */
bool xen_backend_libxl_has(struct xen_backend *be, uint32_t domid);

struct xen_attach {
	uint32_t domid;
	uint32_t devid;
	bool readonly;
	struct target target;
};

/*
 * Makes a disk in xenstore, where no toolstack does. Returns 0 or a negative errno; then nothing
 * was made. *@kind: the backend's kind it got.
 */
int xen_backend_attach(struct xen_backend *be, const struct xen_attach *want, const char **kind,
		       struct err *err);
/*
 * Asks the guest to let go of the disk, or (@force) takes it away, and calls @gone when it is, with
 * NULL or an error. Returns 0, or a negative errno: then @gone is not called.
 */
int xen_backend_detach(struct xen_backend *be, uint32_t domid, uint32_t devid, bool force,
		       void (*gone)(void *arg, const char *error), void *arg, struct err *err);

/*
 * Whoever asked with @arg waits no longer, and the disk still goes when it can. False: it is too
 * late,
 * @gone is about to be called.
 */
bool xen_backend_forget_detach(struct xen_backend *be, uint32_t domid, uint32_t devid, void *arg);

/*
 * Takes no more of the disk's requests, and calls @quiet once nothing of it is at the device; the
 * guest waits. Survives our restart. Returns 0, or a negative errno: then @quiet is not called.
 */
int xen_backend_pause(struct xen_backend *be, uint32_t domid, uint32_t devid,
		      void (*quiet)(void *arg, const char *error), void *arg, struct err *err);
/* Lets it go on, also where a failing device has stopped it. Returns 0 or a negative errno. */
int xen_backend_resume(struct xen_backend *be, uint32_t domid, uint32_t devid, struct err *err);

/* What a disk may do in a second; 0: no limit. */
struct xen_limits {
	uint64_t ios_per_sec;
	uint64_t bytes_per_sec;
};
/* Both return 0 or a negative errno. */
int xen_backend_get_limits(struct xen_backend *be, uint32_t domid, uint32_t devid,
			   struct xen_limits *limits, struct err *err);
int xen_backend_set_limits(struct xen_backend *be, uint32_t domid, uint32_t devid,
			   const struct xen_limits *limits, struct err *err);

/* The list of disks for vbd_get_vbds. New reference, or NULL. */
json_t *xen_backend_list(struct xen_backend *be);
/* Gathers statistics from the reactors; @done gets the reference for vbd_get_iostat. */
void xen_backend_stats(struct xen_backend *be, void (*done)(void *arg, json_t *stats), void *arg);

#endif
