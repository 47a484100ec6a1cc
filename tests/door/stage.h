/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A second door in one process: a control thread, reactors, libsivshm's own sockets and segments,
 * and frontends that connect to them; nothing is replaced but the devices.
 *
 * The test's thread is the frontends'.  What belongs to the control thread is sent there.
 */
#ifndef SLUICE_TEST_DOOR_STAGE_H
#define SLUICE_TEST_DOOR_STAGE_H

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "../hosted/held.h"
#include "blkif/control_page.h"
#include "front/segment.h"
#include "reactor/reactor.h"
#include "sivshm.h"
#include "sivshm/door.h"

enum { STAGE_REACTORS = 2, STAGE_WAIT_MS = 10000 };

/* For cmocka: before and after each test. The first asserts nothing, the second that all is well.
 */
int stage_setup(void **state);
int stage_teardown(void **state);

struct sivshm_door *stage_door(void);
/* Has @fn run on the control thread, and waits for it. */
void stage_on_control(void (*fn)(void *arg), void *arg);
/* Waits until @done says so, which is asked on this thread; fails after 10 s. */
void stage_wait(bool (*done)(void *arg), void *arg);

/* Bdevs: "null" of 1 GiB, "ram" of 16 MiB, and on request a held one. */
struct held *stage_held(const char *name, uint64_t size);
/* Held bdevs made from now on fetch by themselves, from what is mapped for them. */
void stage_use_dma(void);
/* Pages of others that are mapped for such devices now; and how often they reached elsewhere. */
unsigned long stage_dma_mapped(void);
unsigned stage_dma_faults(void);
/* How often they were mapped so far. */
unsigned stage_dma_maps(void);
/* From now on nothing more can be mapped for them. */
void stage_dma_refuse(void);

/* Adds a worker, with @want's blanks filled in by what most tests want. Returns as the door. */
int stage_try_add(struct sivshm_door_worker want, struct err *err);
void stage_add(struct sivshm_door_worker want);
/* Asks for its end and does not wait; waits for it (asserted: without an error). */
void stage_remove(const char *name, bool force);
void stage_wait_removed(void);
bool stage_is_removed(void);
/* The worker's entry in the list (new reference), and waits until its state is that. */
json_t *stage_list(const char *name);
void stage_wait_state(const char *name, const char *state);
/* Its statistics (new reference). */
json_t *stage_stats(const char *name);
/* Answers what was taken and takes all away, once; teardown does it if the test has not. */
void stage_drain(void);

/* Connects to the worker's socket. Waits until there is one. */
struct sivshm_port *stage_open(const char *name);
/* And to the disk, with @queues queues of one page each, or whatever else @opts says. */
struct client {
	struct sivshm_port *port;
	struct front_segment *segment;
};
struct client client_open(const char *name, const struct front_segment_opts *opts);
/* A new life on the same port. */
void client_restart(struct client *c, const struct front_segment_opts *opts);
void client_close(struct client *c);
/* As a process that dies. */
void client_die(struct client *c);
/* Writes at @sector what cannot be mistaken, reads it back, and compares. */
void client_check(struct client *c, unsigned queue, uint64_t sector, unsigned sectors);

/* A frontend played by hand. */
struct hand {
	struct sivshm_port *port;
	struct control_page *page;
	uint32_t epoch;
};
struct hand hand_open(const char *name);
void hand_say(struct hand *h, uint32_t state);
/* Begins life @epoch and waits for the offer. */
void hand_begin(struct hand *h, uint32_t epoch);
/* Chooses one queue of one page at page 1, in Xen's layout; READY is left to the caller. */
void hand_choose(struct hand *h);
/* Waits until the backend is in @state of this epoch. */
void hand_wait(struct hand *h, uint32_t state);
/* Asserts that the backend's error has @text in it. */
void hand_assert_error(struct hand *h, const char *text);
/* Begins, chooses, and is connected. */
void hand_connect(struct hand *h, uint32_t epoch);
void hand_close(struct hand *h);

#endif
