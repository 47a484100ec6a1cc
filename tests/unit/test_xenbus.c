/* SPDX-License-Identifier: BSD-2-Clause */
/* The handshake's table: that known ways lead where they have to, and none leads astray. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
/* Xen's enum gives way to ours. */
#define xenbus_state xen_xenbus_state
#include <xen/io/xenbus.h>
#undef xenbus_state

#include "xen/xenbus.h"

#define SAME(ours, xens) _Static_assert((int)(ours) == (int)(xens), #ours)

SAME(XENBUS_UNKNOWN, XenbusStateUnknown);
SAME(XENBUS_INITIALISING, XenbusStateInitialising);
SAME(XENBUS_INIT_WAIT, XenbusStateInitWait);
SAME(XENBUS_INITIALISED, XenbusStateInitialised);
SAME(XENBUS_CONNECTED, XenbusStateConnected);
SAME(XENBUS_CLOSING, XenbusStateClosing);
SAME(XENBUS_CLOSED, XenbusStateClosed);
SAME(XENBUS_RECONFIGURING, XenbusStateReconfiguring);
SAME(XENBUS_RECONFIGURED, XenbusStateReconfigured);

static bool has_ring(uint32_t ours)
{
	return ours == XENBUS_CONNECTED || ours == XENBUS_CLOSING;
}

/* The state that we are in once the action is done. */
static uint32_t after(uint32_t ours, enum xenbus_action action)
{
	switch (action) {
	case XENBUS_DO_PREPARE:
		return XENBUS_INIT_WAIT;
	case XENBUS_DO_CONNECT:
		return XENBUS_CONNECTED;
	case XENBUS_DO_CLOSING:
		return XENBUS_CLOSING;
	case XENBUS_DO_CLOSE:
	case XENBUS_DO_GONE:
		return XENBUS_CLOSED;
	case XENBUS_DO_WAIT:
		break;
	}
	return ours;
}

struct step {
	uint32_t theirs;
	uint32_t ours; /* expected, when nothing more happens */
};

/* Plays the frontend's states one by one; after each the backend acts until it waits. */
static void play(const char *name, const struct step *steps)
{
	uint32_t ours = XENBUS_INITIALISING;

	for (; steps->ours; steps++) {
		for (int i = 0;; i++) {
			enum xenbus_action action = xenbus_decide(ours, steps->theirs);

			/* CONNECT with the same keys, and GONE once removed, change nothing. */
			if (after(ours, action) == ours)
				break;
			ours = after(ours, action);
			if (i > 5)
				fail_msg("%s: no rest at frontend %u", name, steps->theirs);
		}
		if (ours != steps->ours)
			fail_msg("%s: at frontend %u we are %u, not %u", name, steps->theirs, ours,
				 steps->ours);
	}
}

enum { GONE, INI, WAI, IED, CON, CLG, CLD };

static void known_frontends(void **state)
{
	play("Linux",
	     (struct step[]){{INI, WAI}, {IED, CON}, {CON, CON}, {CLG, CLG}, {CLD, CLD}, {0}});
	play("Linux again",
	     (struct step[]){
		     {INI, WAI}, {IED, CON}, {CON, CON}, {CLD, CLD}, {INI, WAI}, {IED, CON}, {0}});
	play("kexec without closing",
	     (struct step[]){{INI, WAI}, {IED, CON}, {CON, CON}, {INI, WAI}, {IED, CON}, {0}});
	play("OVMF",
	     (struct step[]){{INI, WAI}, {CON, CON}, {CLG, CLG}, {CLD, CLD}, {INI, WAI}, {0}});
	play("Windows",
	     (struct step[]){{CLG, CLG}, {CLD, CLD}, {INI, WAI}, {IED, CON}, {CON, CON}, {0}});
	play("too quick for InitWait", (struct step[]){{IED, CON}, {CON, CON}, {0}});
	play("resumed after Closed", (struct step[]){{INI, WAI}, {CLD, CLD}, {IED, CON}, {0}});
	play("unplugged", (struct step[]){{INI, WAI}, {IED, CON}, {CON, CON}, {GONE, CLD}, {0}});
	play("died while connecting", (struct step[]){{INI, WAI}, {IED, CON}, {GONE, CLD}, {0}});
}

/* Whatever comes, in whatever order: an answer, and rest. */
static void every_order_comes_to_rest(void **state)
{
	for (uint32_t ours = 0; ours < XENBUS_STATES; ours++) {
		for (uint32_t theirs = 0; theirs < XENBUS_STATES; theirs++) {
			uint32_t at = ours;
			int steps = 0;

			while (after(at, xenbus_decide(at, theirs)) != at) {
				at = after(at, xenbus_decide(at, theirs));
				assert_true(++steps < 5);
			}
		}
	}
}

static void rules(void **state)
{
	for (uint32_t ours = 0; ours < XENBUS_STATES; ours++) {
		for (uint32_t theirs = 0; theirs < XENBUS_STATES; theirs++) {
			enum xenbus_action a = xenbus_decide(ours, theirs);

			/* A ring is attached only to a frontend that has published one. */
			if (a == XENBUS_DO_CONNECT)
				assert_in_range(theirs, XENBUS_INITIALISED, XENBUS_CONNECTED);
			/* A frontend that has closed, or is no more, keeps no ring attached. */
			if (has_ring(ours) && theirs == XENBUS_CLOSED)
				assert_int_equal(a, XENBUS_DO_CLOSE);
			if (ours >= XENBUS_INIT_WAIT && theirs == XENBUS_UNKNOWN)
				assert_int_equal(a, XENBUS_DO_GONE);
			/* Closing frontends still have requests: their ring stays. */
			if (has_ring(ours) && theirs == XENBUS_CLOSING)
				assert_true(a == XENBUS_DO_CLOSING || a == XENBUS_DO_WAIT);
			/* Once closing, nobody is let in again without Closed in between. */
			if (ours == XENBUS_CLOSING)
				assert_true(a == XENBUS_DO_WAIT || a == XENBUS_DO_CLOSE ||
					    a == XENBUS_DO_GONE);
			/* The offer comes first, whatever the frontend does. */
			if (ours <= XENBUS_INITIALISING)
				assert_int_equal(a, XENBUS_DO_PREPARE);
		}
	}
}

static void impossible_states_do_nothing(void **state)
{
	static const uint32_t wild[] = {9, 10, 255, 0x7fffffff, UINT32_MAX};

	for (unsigned i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		for (uint32_t s = 0; s < XENBUS_STATES; s++) {
			assert_int_equal(xenbus_decide(s, wild[i]), XENBUS_DO_WAIT);
			assert_int_equal(xenbus_decide(wild[i], s), XENBUS_DO_WAIT);
		}
		assert_string_equal(xenbus_state_name(wild[i]), "invalid");
	}
}

static void states_have_names(void **state)
{
	for (uint32_t s = 0; s < XENBUS_STATES; s++)
		assert_true(strlen(xenbus_state_name(s)) > 5);
	assert_string_equal(xenbus_state_name(XENBUS_INIT_WAIT), "InitWait");
	assert_string_equal(xenbus_state_name(XENBUS_CLOSED), "Closed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_frontends),
		cmocka_unit_test(every_order_comes_to_rest),
		cmocka_unit_test(rules),
		cmocka_unit_test(impossible_states_do_nothing),
		cmocka_unit_test(states_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
