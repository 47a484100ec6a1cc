/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * segment-probe: tries what segments promise, on both sides of them.
 *
 *   segment-probe lead ...          on the host: starts guests, has them try, and judges
 *   segment-probe boot ...          on the host: measures how long guests need to their first ring
 *   segment-probe worker [WHERE]    in a guest: does what the lead says
 *   segment-probe first-ring PEER   in a guest of any IVSHMEM server: rings PEER's vector 0 once
 *
 * With PEER "pair" that is the other side of its own segment.
 */
#include <stdio.h>
#include <string.h>

#include "segment-probe.h"

int main(int argc, char **argv)
{
	if (argc >= 2 && !strcmp(argv[1], "lead"))
		return probe_lead(argc - 1, argv + 1);
	if (argc >= 2 && !strcmp(argv[1], "boot"))
		return probe_boot(argc - 1, argv + 1);
	if (argc >= 2 && argc <= 3 && !strcmp(argv[1], "worker"))
		return probe_worker(argc > 2 ? argv[2] : NULL);
	if (argc == 3 && !strcmp(argv[1], "first-ring"))
		return probe_first_ring(argv[2]);
	fprintf(stderr, "usage: segment-probe lead|boot|worker|first-ring ...: see its source\n");
	return 2;
}
