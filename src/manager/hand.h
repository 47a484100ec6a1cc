/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The manager's end of the protocol of items (sivshm_items.h) with one worker. All that a worker
 * sends is checked here; whoever breaks a rule has no second chance.
 */
#ifndef SLUICE_MANAGER_HAND_H
#define SLUICE_MANAGER_HAND_H

#include "manager/item.h"
#include "sivshm.h"

struct hand {
	struct sivshm_channel *channel; /* NULL: the worker is lost */
	bool greeted;                   /* it has answered the hello */
	bool pushes;                    /* something was sent that it has not been rung for */
	struct item *first, **last;     /* handed out and not done, in order */
	unsigned count;                 /* of these */
	size_t held, held_max;          /* bytes of their results */
	/* The item that is on its way, one of the list; NULL: none. */
	struct item *sending;
	bool named;        /* its name is sent */
	int fd;            /* of its file */
	const char *why;   /* the rule that was broken */
	uint64_t stamp_ns; /* when the worker last did something, or got something to do */
};

/* Lays out the channel in a new worker's segment and says hello. Returns 0 or a negative errno. */
int hand_open(struct hand *h, struct sivshm_port *port, size_t result_max);
/* Ends it; its items are given to @back. Returns how many those are. */
unsigned hand_close(struct hand *h, struct item_list *back);
/* Hands an item out. */
void hand_give(struct hand *h, struct item *i);
/*
 * Sends what there is to send and room for, at most about @budget bytes. Returns how many, or
 * -EPROTO with h->why.
 */
ssize_t hand_send(struct hand *h, size_t budget);
/*
 * Takes the next message. Returns 1, also with *@done when an item is done, the caller's again (or
 * NULL), 0 (no message), or -EPROTO with h->why.
 */
int hand_receive(struct hand *h, struct item **done);
/* Gives back the room of what was received, and rings for what was sent. */
void hand_settle(struct hand *h);
/* Asks to be rung. Returns whether there is something to do already. */
bool hand_arm(struct hand *h);
/* Says that nothing will follow. */
void hand_finish(struct hand *h);

#endif
