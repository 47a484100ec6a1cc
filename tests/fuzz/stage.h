/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stage: what a play happens on: a dom0 with the backend, the guest, its machine's next domain, and
 * their disks; who gets a turn; and the end, when nothing is held back any more.
 */
#ifndef SLUICE_TEST_FUZZ_STAGE_H
#define SLUICE_TEST_FUZZ_STAGE_H

#include <string.h>

#include "fuzz.h"
#include "host.h"
#include "rings.h"
#include "xen/backend.h"

enum {
	GUEST = 5,
	NEXT = 6,  /* the domain that the guest's machine moves to */
	DISKS = 3, /* the last is the next domain's */
	QUEUES = 3,
	REACTORS = 2,
	DEVID = 51712,
	PAGES = 12,
	PAGE = BLKIF_PAGE_SIZE,
	NO_GRANT = 4000,   /* there are no such references */
	FAULTS_MAX = 12,   /* the double has room for a few more */
	ROUNDS_MAX = 4000, /* turns after which somebody who is still busy will be for ever */
};

/* The guest's data pages: some may be written to by dom0, some only read, some are not granted. */
enum page_kind { PAGE_GRANTED, PAGE_READONLY, PAGE_SECRET };

struct memory {
	unsigned char *pages;
	uint32_t refs[PAGES]; /* of a page that is not granted, one that there is not */
};

struct guest_disk {
	struct disk keys;
	unsigned domid, devid;
	struct ring rings[QUEUES];
	unsigned nr_queues;
	bool meddled; /* its keys are not what was published */
};

struct stage {
	struct host host;
	struct reactor *reactors[REACTORS];
	unsigned nr_reactors;
	struct xen_backend_opts opts;
	bool dma;          /* the disks' device reaches memory by itself, and sharing=map is dma */
	uint32_t map_from; /* for sharing=auto then; 0: not told */
	struct xen_backend *backend;
	bool drained;
	bool alive; /* the guest */
	struct xs_handle *guest_xs, *next_xs;
	struct guest_disk disks[DISKS];
	struct memory memory, next_memory;
	bool touched[PAGES]; /* its kind is not what it was all the time */
	uint64_t last_id;
	unsigned copy_faults;
	/* What is written to a ring as soon as something is copied. */
	struct ring *trap;
	unsigned trap_offset;
	uint8_t trap_bytes[4];
};
extern struct stage stage;

/* Sets the stage as an input's header says; and plays the end, which checks and clears it. */
void stage_set(const uint8_t *header);
void stage_end(uint8_t how);

/* One turn of each reactor that serves; returns whether one had something to do. */
bool stage_step(void);
/* Turns for all until nobody has anything to do. */
void stage_settle(void);
/* The same again and again while time passes. */
void stage_pass_time(unsigned steps, uint64_t step_ns);
/* Turns as a record says. */
void stage_give_turns(uint8_t run);

void stage_make_guest(void);
void stage_end_guest(void);
/* Whether the domain that has the disk is there. */
bool stage_is_alive(const struct guest_disk *d);
enum page_kind stage_page_kind(unsigned page);
void stage_add_disk(unsigned n, uint8_t how);
/* The frontend's keys may tell the backend of other rings than there are. */
void stage_mar_rings(struct guest_disk *d);
/* What the toolstack's script does when all is well. */
void stage_run_script(unsigned n);
void stage_start_backend(void);
/* As SIGTERM would. */
void stage_end_backend(void);
/* From now on nothing fails, and the device works. */
void stage_stop_faults(void);

/* Whom and what a record is about. */
static inline struct guest_disk *disk_of(const struct fuzz_record *rec)
{
	return &stage.disks[rec->target % DISKS];
}

static inline struct ring *ring_of(const struct fuzz_record *rec)
{
	return &disk_of(rec)->rings[(rec->target >> 1) % QUEUES];
}

/* Its last bytes as a number. */
static inline uint32_t number_of(const struct fuzz_record *rec)
{
	uint32_t n;

	memcpy(&n, rec->v, sizeof(n));
	return n;
}

/* The actions; see the table in blkif.c. */
void act_put_direct(const struct fuzz_record *rec);
void act_put_indirect(const struct fuzz_record *rec);
void act_put_discard(const struct fuzz_record *rec);
void act_push(const struct fuzz_record *rec);
void act_notify(const struct fuzz_record *rec);
void act_publish(const struct fuzz_record *rec);
void act_set_frontend_state(const struct fuzz_record *rec);
void act_write_frontend_key(const struct fuzz_record *rec);
void act_write_backend_key(const struct fuzz_record *rec);
void act_overwrite(const struct fuzz_record *rec);
void act_set_trap(const struct fuzz_record *rec);
void act_want_notification(const struct fuzz_record *rec);
void act_change_grant(const struct fuzz_record *rec);
void act_use_device(const struct fuzz_record *rec);
void act_use_toolstack(const struct fuzz_record *rec);
void act_administer(const struct fuzz_record *rec);
void act_change_domain(const struct fuzz_record *rec);
void act_restart(const struct fuzz_record *rec);
void act_set_fault(const struct fuzz_record *rec);
void act_set_share_fault(const struct fuzz_record *rec);
void act_let_time_pass(const struct fuzz_record *rec);

#endif
