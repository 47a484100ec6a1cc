/* SPDX-License-Identifier: BSD-2-Clause */
#include <stddef.h>

#include "sluiced/daemon.h"

int main(int argc, char **argv)
{
	return daemon_main(argc, argv, "", NULL);
}
