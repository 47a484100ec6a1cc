/* SPDX-License-Identifier: BSD-2-Clause */
/* Who this domain is: whoever grants pages to itself has to call itself by its number. */
#ifndef SLUICE_GRANT_SELF_H
#define SLUICE_GRANT_SELF_H

#include <stdint.h>

#include "base/err.h"

/*
 * The number of the domain that this process runs in: 0 in most, not in a driver domain. The
 * hypervisor tells it to no PV domain, but its toolstack does, in xenstore. Returns 0 and *@domid,
 * or a negative errno with the line in @err.
 */
int grant_self_get_domid(uint16_t *domid, struct err *err);

#endif
