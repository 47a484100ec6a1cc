/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ledger: what devices were given, in a file that outlives the process (on a tmpfs: as long as the
 * hypervisor does, and no longer).
 *
 * A device mapping that nobody ends keeps its page from its guest for ever, and the guest from
 * ending.  So each is noted, by its handle, as soon as the hypervisor has returned it, and the next
 * daemon of the same name ends what its predecessor has left, once the drives that may still use
 * those pages are stopped: hence the drives are noted as well.  Handles are the hypervisor's
 * numbers, small and never twice in use, so the ledger is a sparse array of bus addresses, and any
 * thread may write to it without a lock.
 */
#ifndef SLUICE_GRANT_LEDGER_H
#define SLUICE_GRANT_LEDGER_H

#include <stdint.h>

#include "base/err.h"

struct grant_ledger;

enum { GRANT_LEDGER_ENDERS = 4095 };

/*
 * Opens or makes the ledger at @path, which the caller has locked against others (one instance,
 * one ledger). Returns 0 and *@out, or a negative errno with the line in @err.
 */
int grant_ledger_open(const char *path, struct grant_ledger **out, struct err *err);
/* Removes the file if nothing is noted in it. */
void grant_ledger_close(struct grant_ledger *l);

/* How many mappings are noted; about, if other threads note and forget some meanwhile. */
uint32_t grant_ledger_count(const struct grant_ledger *l);

/* -ENOSPC: the handle is beyond what a ledger holds; the mapping must end at once. */
int grant_ledger_note(struct grant_ledger *l, uint32_t handle, uint64_t bus);
/*
 * A noted mapping is about to be ended by @who, a number from 1 to GRANT_LEDGER_ENDERS for each
 * that ends mappings at the same time. The entry stays what it is to a successor.
 */
void grant_ledger_end(struct grant_ledger *l, uint32_t handle, uint64_t bus, unsigned who);
/*
 * It has ended. As soon as it has, others may be given its handle for their mappings: what they
 * have noted stays.
 */
void grant_ledger_forget(struct grant_ledger *l, uint32_t handle, uint64_t bus, unsigned who);

/* A drive (its PCI address, at most 15 characters) that from now on, or no longer, uses mappings.
 * Control thread. -ENOSPC: there are 32 already. */
int grant_ledger_note_drive(struct grant_ledger *l, const char *address);
void grant_ledger_forget_drive(struct grant_ledger *l, const char *address);

/*
 * What a predecessor has left: calls @stop for each drive, which makes sure that it writes nothing
 * any more (0; -ENODEV, it is gone, is as good) or fails; then ends all mappings noted. If a drive
 * cannot be stopped nothing is ended, and the error (line in @err) is returned: whoever starts then
 * must not use the ledger. Before any mapping is made.
 */
int grant_ledger_recover(struct grant_ledger *l,
			 int (*stop)(const char *address, void *arg, struct err *err), void *arg,
			 struct err *err);

#endif
