/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of sluiced(8). */
#ifndef SLUICE_SLUICED_OPTIONS_H
#define SLUICE_SLUICED_OPTIONS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

enum { OPTIONS_KINDS_MAX = 3, OPTIONS_QUEUES_MAX = 64 };

struct options {
	const char *name;
	char socket[PATH_MAX];
	char lock[PATH_MAX];
	char ledger[PATH_MAX];
	char state[PATH_MAX];
	uint64_t cpumask;
	char sivshm_dir[PATH_MAX];                /* for sockets of workers */
	const char *kinds[OPTIONS_KINDS_MAX + 1]; /* NULL at the end; none: not for Xen's guests */
	bool kinds_given;                         /* they were asked for, and are no default */
	uint32_t device_memory_mib;               /* for all NVMe drives */
	uint32_t bounce_mib;                      /* of each reactor */
	uint32_t poll_us;                         /* longest spin of an idle queue */
	uint32_t guest_bounce_mib;                /* of one guest, beyond its queues' own */
	uint32_t guest_maps;                      /* pages of one guest's that are mapped */
	uint32_t device_maps;                     /* with as many, guests get no more */
	uint32_t max_queues;                      /* offered to each guest's disk */
	enum log_level log_level;
	bool help;
	bool version;
};

extern const char options_usage[];

/* Fills @o from @argv and defaults. Returns 0, or -EINVAL with the line in @err. */
int options_parse(int argc, char **argv, struct options *o, struct err *err);

#endif
