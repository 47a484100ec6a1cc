/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the commands about disks share: the domain and the disk that they name, and what a disk can
 * be attached with.
 *
 * A disk's options reach the daemon on two ways that must mean the same: as parameters of
 * vbd_attach, and, through xl, as words of the disk's target, which last as long as the guest's
 * configuration does.
 */
#ifndef SLUICE_SLUICE_DISK_H
#define SLUICE_SLUICE_DISK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sluice/client.h"

struct disk_domain {
	json_int_t id;
	char id_text[24];
	char name[256]; /* harmless */
	bool xl;        /* xl manages it */
};

/* Returns CLIENT_GO_ON if @vdev has the form of a disk's name, else the exit status. */
int disk_check_vdev(struct client *c, const char *vdev);

/* Asks the daemon who @domain, a name or a number, is. Returns CLIENT_GO_ON or the exit status. */
int disk_find_domain(struct client *c, const char *domain, struct disk_domain *d);

struct disk_options {
	bool readonly;
	bool shared;
	/* NULL: the daemon's default */
	const char *sharing;
	const char *persistent; /* "yes" or "no" */
	const char *on_error;
	uint64_t iops;      /* requests a second; 0: no limit */
	uint64_t bandwidth; /* bytes a second; 0: no limit */
};

/*
 * Limits as they are typed: @iops requests a second, @bandwidth bytes a second with a suffix or
 * none; 0 is no limit. Returns CLIENT_GO_ON and *@limit, or the exit status.
 */
int disk_parse_iops(struct client *c, const char *iops, uint64_t *limit);
int disk_parse_bandwidth(struct client *c, const char *bandwidth, uint64_t *limit);
/* Whether the texts of @o are what they can be. Returns CLIENT_GO_ON or the exit status. */
int disk_check_options(struct client *c, const struct disk_options *o);

/* Parameters of vbd_attach; what was not asked for is left out. New reference, NULL: no memory. */
json_t *disk_attach_params(const char *domain, const char *vdev, const char *bdev,
			   const struct disk_options *o);
/*
 * The target of a disk of the instance @instance: BDEV[@INSTANCE][,OPTION]..., for the caller to
 * free; NULL: no memory. Its own "," and "@" cannot be mistaken, since no name has them.
 */
char *disk_target(const char *bdev, const char *instance, const struct disk_options *o);

/* "500 requests/s, 10M bytes/s" of a disk's "limits"; false: there is none. */
bool disk_format_limits(const json_t *limits, char *out, size_t room);

#endif
