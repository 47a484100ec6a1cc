/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The xenbus handshake as a table: what a backend in one state does about its frontend's state.
 *
 * States are those of Xen's io/xenbus.h.  The table is pure: what an action means, and when it may
 * be carried out, is vbd.c's.
 */
#ifndef SLUICE_XEN_XENBUS_H
#define SLUICE_XEN_XENBUS_H

#include <stdint.h>

enum xenbus_state {
	XENBUS_UNKNOWN = 0, /* also: the node is not there */
	XENBUS_INITIALISING = 1,
	XENBUS_INIT_WAIT = 2,
	XENBUS_INITIALISED = 3,
	XENBUS_CONNECTED = 4,
	XENBUS_CLOSING = 5,
	XENBUS_CLOSED = 6,
	XENBUS_RECONFIGURING = 7,
	XENBUS_RECONFIGURED = 8,
	XENBUS_STATES,
};

enum xenbus_action {
	XENBUS_DO_WAIT,    /* nothing to do */
	XENBUS_DO_PREPARE, /* disconnect; publish what the frontend can choose from; InitWait */
	/*
	 * Read the frontend's keys; unless connected by these, disconnect; attach to its ring;
	 * Connected.
	 */
	XENBUS_DO_CONNECT,
	XENBUS_DO_CLOSING, /* ask the frontend to close; Closing. Its requests are still served */
	XENBUS_DO_CLOSE,   /* disconnect; Closed */
	XENBUS_DO_GONE,    /* disconnect; the frontend will not come back */
};

/* What to do in state @ours when the frontend is in state @theirs. Any values are safe. */
enum xenbus_action xenbus_decide(uint32_t ours, uint32_t theirs);

const char *xenbus_state_name(uint32_t state);

#endif
