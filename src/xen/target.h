/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * target: what the administrator wants served as a disk, and how: the toolstack's `params`.
 *
 *   BDEV[@INSTANCE][,OPTION]...
 *   shared                    others that ask to share may use the bdev, too
 *   sharing=copy|map|dma|auto how the guest's pages are reached
 *   persistent=yes|no         whether a guest may leave pages mapped that are
 *   on-error=report|retry:SECONDS|stop
 *   iops=N, bandwidth=SIZE    limits a second
 */
#ifndef SLUICE_XEN_TARGET_H
#define SLUICE_XEN_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "blkif/queue.h"

enum { TARGET_MAX = 256, TARGET_RETRY_MAX = 86400 };

enum target_sharing {
	TARGET_SHARING_AUTO,
	TARGET_SHARING_COPY,
	TARGET_SHARING_MAP,
	TARGET_SHARING_DMA,
};

struct target {
	char bdev[64];
	char instance[64]; /* "": none is named */
	bool shared;
	enum target_sharing sharing;
	bool not_persistent;
	enum blkif_on_error on_error;
	uint32_t retry_s;
	uint64_t ios_per_sec; /* 0: no limit */
	uint64_t bytes_per_sec;
};

/*
 * Parses @text. Returns 0, or -EINVAL with the reason; instance is filled in if it could be read,
 * and else "".
 */
int target_parse(const char *text, struct target *t, struct err *err);
/* Writes what target_parse() would read as @t. */
void target_format(const struct target *t, char text[TARGET_MAX]);

/* One option's value by its name ("sharing", "on-error"), as in a target; -EINVAL with the reason.
 */
int target_set_option(struct target *t, const char *name, const char *value, struct err *err);

/* The value of sharing that stands for it. */
const char *target_sharing_name(enum target_sharing sharing);
/* The value of on-error that stands for the policy. */
void target_format_on_error(const struct target *t, char *text, size_t size);

#endif
