/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon, but for the name of its host's root: tests give it one of their own. */
#ifndef SLUICE_SLUICED_DAEMON_H
#define SLUICE_SLUICED_DAEMON_H

/* Runs sluiced(8) with its command line on a host whose /sys and /dev are below @root. Exit status.
 */
int daemon_main(int argc, char **argv, const char *root);

#endif
