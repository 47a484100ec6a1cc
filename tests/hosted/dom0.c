/* SPDX-License-Identifier: BSD-2-Clause */
#include "dom0.h"

#include <stdio.h>

struct host dom0;

int dom0_setup(void **state)
{
	if (service_setup(state))
		return -1;
	host_create(&dom0);
	snprintf(service.root, sizeof(service.root), "%s", dom0.root);
	return 0;
}

int dom0_teardown(void **state)
{
	unsigned leaks = host_destroy(&dom0);

	return service_teardown(state) || leaks ? -1 : 0;
}
