/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands; each returns the tool's exit status. */
#ifndef SLUICE_MANAGER_COMMANDS_H
#define SLUICE_MANAGER_COMMANDS_H

#include "manager/options.h"

int run_processes(const struct options *o);
int run_guests(const struct options *o);
int distribute(const struct options *o);

#endif
