/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon, but for its host: tests give it one of their own. */
#ifndef SLUICE_SLUICED_DAEMON_H
#define SLUICE_SLUICED_DAEMON_H

struct nvme_ways;

/*
 * Runs sluiced(8) with its command line on a host whose /sys and /dev are below @root, and where
 * NVMe drives are had by @ways; NULL: as in a PV dom0. Exit status.
 */
int daemon_main(int argc, char **argv, const char *root, const struct nvme_ways *ways);

#endif
