/* SPDX-License-Identifier: BSD-2-Clause */
/* The command `sluice`; all else is in the library beside it, where tests reach it. */
#include "sluice/client.h"

int main(int argc, char **argv)
{
	struct client c;

	client_init(&c, stdout, stderr);
	return client_run(&c, argc, argv);
}
