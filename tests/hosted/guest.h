/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest: a domain of the double with a blkif frontend (src/front) and its half of the xenbus
 * handshake, as a real guest's driver plays it.
 */
#ifndef SLUICE_TEST_GUEST_H
#define SLUICE_TEST_GUEST_H

#include "front/front.h"
#include "host.h"

/* How a frontend spells its ring's reference. */
enum guest_keys {
	GUEST_RING_REF,          /* ring-ref */
	GUEST_RING_REF_0,        /* ring-page-order = 0 and ring-ref0 */
	GUEST_RING_REF_ONE_MORE, /* as the first, with multi-queue-num-queues = 1 */
};

/*
 * How guests' pages are reached, unless a disk's target says it: a test that holds for all ways is
 * run in each (world_tests()).
 */
struct guest_way {
	const char *options; /* of a disk's target */
	bool persistent;     /* frontends grant persistently */
	bool dma;            /* held bdevs are such as devices fetch data for by themselves */
	uint32_t map_from;   /* what instances are told to map from on; 0: nothing */
};
extern const struct guest_way guest_copied, guest_mapped, guest_persistent;
/* Mapped for devices; the last two as auto chooses, by size where nothing stays mapped. */
extern const struct guest_way guest_dma, guest_dma_persistent, guest_auto, guest_auto_persistent;
extern const struct guest_way *guest_way; /* never NULL */

struct guest_opts {
	const struct blkif_layout *layout; /* NULL: x86_64 */
	bool no_protocol;                  /* the key is left out; then the layout is x86_32 */
	enum guest_keys keys;
	unsigned max_segments; /* 0: 32, as Linux; the backend's offer bounds it */
	uint32_t first_index;
	bool keep_port;   /* the event channel is the last connection's */
	unsigned jump_to; /* the state in which keys are published; 0: 3, Initialised */
};

struct guest {
	struct disk disk;
	struct xs_handle *xs; /* the guest's */
	bool gone;            /* its domain was destroyed */
	struct front_ops ops;
	struct front *front; /* NULL: not connected */
	uint32_t port;
	uint64_t sectors;
	unsigned info;
};

/* Creates the domain and its disk; the toolstack's script has run. Aborts if that fails. */
void guest_create(struct guest *g, struct host *h, unsigned domid, const struct disk_opts *opts);
/* The same with a second disk of a domain that there is. */
void guest_add_disk(struct guest *g, struct host *h, unsigned domid, unsigned devid,
		    const struct disk_opts *opts);
/* Forgets the frontend, without a word to the backend. */
void guest_destroy(struct guest *g);

/* Makes a frontend and publishes its keys; does not wait for the backend. */
void guest_publish(struct guest *g, const struct guest_opts *opts);
/* Reads what the backend says of the disk, and goes to Connected. */
void guest_read_disk(struct guest *g);
/* Waits for InitWait, publishes, waits for Connected, reads. False after HOST_WAIT_MS. */
bool guest_connect(struct guest *g, const struct guest_opts *opts);
/* Closes: Closing, waits for the backend's Closing or Closed, Closed, waits for Closed. */
bool guest_close(struct guest *g);
/* Takes back ring and event channel. False if the backend still has the ring mapped. */
bool guest_free_front(struct guest *g);

/* Writes a key of the frontend's, as the guest. */
void guest_write(struct guest *g, const char *key, const char *value);
void guest_write_number(struct guest *g, const char *key, uint64_t value);
void guest_set_state(struct guest *g, unsigned state);
/* The domain is gone, all at once. */
void guest_kill(struct guest *g);

/* A page of the guest's with a grant for dom0. */
struct guest_page {
	unsigned char *data;
	uint32_t ref;
};
struct guest_page guest_page_new(struct guest *g, bool readonly);
/* Takes it back. Unless the guest grants persistently nobody may have it mapped any more. */
void guest_page_free(struct guest *g, const struct guest_page *page);

#endif
