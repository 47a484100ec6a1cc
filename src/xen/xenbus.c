/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/xenbus.h"

/* clang-format off */
#define WAIT    XENBUS_DO_WAIT
#define PREPARE XENBUS_DO_PREPARE
#define CONNECT XENBUS_DO_CONNECT
#define CLOSING XENBUS_DO_CLOSING
#define CLOSE   XENBUS_DO_CLOSE
#define GONE    XENBUS_DO_GONE

/*
 * Notes, by row:
 * Initialising: whatever the frontend does, our offer comes first: libxl waits for InitWait, and
 *   GRUB expects it before it runs.
 * InitWait: a frontend may jump to Connected (OVMF). One that closes before it started (Windows) is
 *   followed to Closed, from where it starts again.
 * Connected: a resumed frontend starts anew without waiting for us, and may be Connected again before
 *   we look: its keys tell. Back at Initialising, it has forgotten us (a new kernel). Closing
 *   frontends may still have requests out: we serve them until they are Closed.
 * Closing: older Linux stays as it is while the disk is in use, newer closes at once.
 * Closed: the next kernel begins at Initialising; one that is further already missed nothing, our
 *   keys are still there.
 */
static const uint8_t table[XENBUS_STATES][XENBUS_STATES] = {
/*                             frontend:
 *  ours                      gone   Initialising InitWait Initialised Connected Closing  Closed   Reconf. Reconfd. */
[XENBUS_UNKNOWN]        = { PREPARE, PREPARE,     PREPARE, PREPARE,    PREPARE,  PREPARE, PREPARE, PREPARE, PREPARE },
[XENBUS_INITIALISING]   = { PREPARE, PREPARE,     PREPARE, PREPARE,    PREPARE,  PREPARE, PREPARE, PREPARE, PREPARE },
[XENBUS_INIT_WAIT]      = { GONE,    WAIT,        WAIT,    CONNECT,    CONNECT,  CLOSING, CLOSE,   WAIT,    WAIT    },
[XENBUS_INITIALISED]    = { GONE,    PREPARE,     WAIT,    CONNECT,    CONNECT,  CLOSING, CLOSE,   WAIT,    WAIT    },
[XENBUS_CONNECTED]      = { GONE,    PREPARE,     WAIT,    CONNECT,    CONNECT,  CLOSING, CLOSE,   WAIT,    WAIT    },
[XENBUS_CLOSING]        = { GONE,    CLOSE,       WAIT,    WAIT,       WAIT,     WAIT,    CLOSE,   WAIT,    WAIT    },
[XENBUS_CLOSED]         = { GONE,    PREPARE,     WAIT,    CONNECT,    WAIT,     WAIT,    WAIT,    WAIT,    WAIT    },
[XENBUS_RECONFIGURING]  = { GONE,    PREPARE,     WAIT,    CONNECT,    WAIT,     CLOSING, CLOSE,   WAIT,    WAIT    },
[XENBUS_RECONFIGURED]   = { GONE,    PREPARE,     WAIT,    CONNECT,    WAIT,     CLOSING, CLOSE,   WAIT,    WAIT    },
};
/* clang-format on */

enum xenbus_action xenbus_decide(uint32_t ours, uint32_t theirs)
{
	if (ours >= XENBUS_STATES || theirs >= XENBUS_STATES)
		return WAIT;
	return (enum xenbus_action)table[ours][theirs];
}

const char *xenbus_state_name(uint32_t state)
{
	static const char *const names[XENBUS_STATES] = {
		"Unknown", "Initialising", "InitWait",      "Initialised",  "Connected",
		"Closing", "Closed",       "Reconfiguring", "Reconfigured",
	};

	return state < XENBUS_STATES ? names[state] : "invalid";
}
