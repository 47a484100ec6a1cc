/* SPDX-License-Identifier: BSD-2-Clause */
/* How QEMU is called for a guest that is a worker. */
#ifndef SLUICE_MANAGER_QEMU_H
#define SLUICE_MANAGER_QEMU_H

#include "manager/options.h"

/* The arguments for worker @number, each to be freed as well as the array; NULL: no memory. */
char **qemu_command(const struct options *o, unsigned number);
/* Returns 0, or a failing exit status after saying what is wrong with the options. */
int qemu_check(const struct options *o);
/* Prints the command lines of all workers as a shell would take them. Returns the exit status. */
int qemu_show(const struct options *o);

#endif
