/* SPDX-License-Identifier: BSD-2-Clause */
/* dom0: the host of the double's that a service runs on. */
#ifndef SLUICE_TEST_DOM0_H
#define SLUICE_TEST_DOM0_H

#include "host.h"
#include "service.h"

extern struct host dom0; /* there is but one */

/* cmocka's fixtures, for it and the service. */
int dom0_setup(void **state);
int dom0_teardown(void **state);

#endif
