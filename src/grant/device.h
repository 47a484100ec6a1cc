/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapping granted pages for devices (GNTMAP_device_map): the hypervisor tells the page's machine
 * address, which is what a device in a PV dom0 reaches it by, and makes no mapping for the CPU.
 * gntdev has no such call, so these are hypercalls of our own, by libxencall; hence nobody takes
 * the mappings back when the process dies, and a ledger remembers them (ledger.h).
 *
 * An unmap has to name handle and address exactly as the map returned them: with an address of 0
 * the hypervisor says yes and releases nothing.  A reference can be mapped 255 times at once.  The
 * operations lie in a hypercall buffer, since a result that cannot be copied back would leave a
 * mapping that nobody knows.
 *
 * Operations are collected and done by one hypercall a flush for all ends and one for all
 * beginnings; each has its own outcome.  One such object belongs to one thread.
 */
#ifndef SLUICE_GRANT_DEVICE_H
#define SLUICE_GRANT_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct grant_device;
struct grant_ledger;

/* What a page that could not be mapped has for an address. The same as DMA_NO_BUS. */
#define GRANT_NO_BUS UINT64_MAX

/*
 * @ledger outlives it. Returns 0 and *@out, or a negative errno with the line in @err: -EOPNOTSUPP
 * in a domain that is not PV (a PVH dom0), where the hypervisor has no such mappings.
 */
int grant_device_create(struct grant_ledger *ledger, struct grant_device **out, struct err *err);
void grant_device_destroy(struct grant_device *d);

/*
 * How many mappings there are, of all who share the ledger, whosever pages they are of, with those
 * that were added to this one and are not made yet.
 */
uint32_t grant_device_count(const struct grant_device *d);

/* How many pages this domain can grant in all. Returns 0 and *@grants, or a negative errno. */
int grant_device_get_own_grants(struct grant_device *d, uint32_t *grants, struct err *err);

/*
 * Adds a mapping of domain @domid's reference @ref, which devices may read, and if @writable write.
 * By the next flush (or before, if there is no room for more) *@bus is the machine address of the
 * page, or GRANT_NO_BUS if it could not be mapped, and *@handle what the unmap needs.
 */
void grant_device_map(struct grant_device *d, uint16_t domid, uint32_t ref, bool writable,
		      uint64_t *bus, uint32_t *handle);
/* Adds the end of a mapping: @bus is its page's address, as it was returned. */
void grant_device_unmap(struct grant_device *d, uint64_t bus, uint32_t handle);
/* Performs what was added, ends first. */
void grant_device_flush(struct grant_device *d);

#endif
